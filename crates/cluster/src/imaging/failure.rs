//! BMC errors as failures.

use turingpi_bmc::{BmcError, BmcErrorKind};
use turingpi_engine::{Failure, FailureClass};

/// Turns a BMC's error into a [`Failure`]: class by kind, retryable when the error is transient, hint kept.
pub fn bmc_failure(board: &str, error: BmcError) -> Failure {
    let class = match error.kind() {
        BmcErrorKind::Unreachable => FailureClass::Unreachable,
        BmcErrorKind::Tls | BmcErrorKind::Auth | BmcErrorKind::Banned => FailureClass::Auth,
        BmcErrorKind::Busy | BmcErrorKind::Replaced => FailureClass::Locked,
        BmcErrorKind::Stalled => FailureClass::Timeout,
        BmcErrorKind::Image | BmcErrorKind::Setup => FailureClass::Config,
        BmcErrorKind::Unsupported | BmcErrorKind::Api | BmcErrorKind::Flash => FailureClass::Refused,
        _ => FailureClass::Unexpected,
    };
    let what = match class {
        FailureClass::Unreachable => "does not answer",
        FailureClass::Auth => "does not let us in, or is not the one we know",
        FailureClass::Locked => "is busy",
        _ => "did not do what it was asked",
    };
    let mut failure = Failure::new(class, format!("the BMC of {board} {what}"));
    let hint = error.hint();
    if !hint.is_empty() {
        failure = failure.hint(hint);
    }
    if error.is_transient() {
        failure = match error.retry_after() {
            Some(delay) => failure.retry_after(delay),
            None => failure.retryable(),
        };
    }
    failure.source(error)
}
