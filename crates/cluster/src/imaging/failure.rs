//! BMC errors as failures.

use turingpi_bmc::{BmcError, BmcErrorKind};
use turingpi_engine::{Failure, FailureClass};

/// Turns a BMC's error into a [`Failure`]: class by kind, hint kept.
///
/// Retryable when the error is transient, after a ban of known length (the engine knows which ones are too long to wait),
/// and after an HTTP 500: what is read, and what power is switched to, can be asked again.
pub fn bmc_failure(board: &str, error: BmcError) -> Failure {
    let stumbled = matches!(error, BmcError::Api { status: 500, .. });
    let failure = bmc_refusal(board, error);
    if stumbled { failure.retryable() } else { failure }
}

/// As [`bmc_failure`] for what must not be asked for twice without a look: an HTTP 500 is final.
pub(super) fn bmc_refusal(board: &str, error: BmcError) -> Failure {
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
    match error.retry_after() {
        Some(delay) => failure = failure.retry_after(delay),
        None if error.is_transient() => failure = failure.retryable(),
        None => {}
    }
    failure.source(error)
}
