//! The documented exit codes, in one place.

use std::path::Path;

use serde_json::{Value, json};
use turingpi_provision::{
    document::Diagnostic,
    engine::{Failure, FailureClass, FailureReport, Summary},
};

/// Everything went well; `plan` found nothing to change.
pub(crate) const DONE: u8 = 0;
/// Something nobody foresaw.
pub(crate) const UNEXPECTED: u8 = 1;
/// `plan` found changes.
pub(crate) const CHANGES: u8 = 2;
/// An approval was needed and not given.
pub(crate) const UNAPPROVED: u8 = 3;
/// The document, or a file it names, is wrong.
pub(crate) const DOCUMENT: u8 = 4;
/// A board, node, API or download could not be reached.
pub(crate) const UNREACHABLE: u8 = 5;
/// A login, host key or certificate was refused.
pub(crate) const AUTH: u8 = 6;
/// Somebody else is at work.
pub(crate) const LOCKED: u8 = 7;
/// The other side said no, or going on would not have been safe.
pub(crate) const REFUSED: u8 = 8;
/// A condition did not come true in time.
pub(crate) const TIMEOUT: u8 = 9;
/// `status`: the cluster is on its way.
pub(crate) const BOOTSTRAPPING: u8 = 10;
/// `status`: something is wrong with the cluster.
pub(crate) const DEGRADED: u8 = 11;
/// `doctor` found problems.
pub(crate) const PROBLEMS: u8 = 12;
/// The command line is wrong.
pub(crate) const USAGE: u8 = 64;
/// Stopped by Ctrl-C.
pub(crate) const STOPPED: u8 = 130;

/// The code for a class of failures.
pub(crate) fn code(class: FailureClass) -> u8 {
    match class {
        FailureClass::Usage => USAGE,
        FailureClass::Config => DOCUMENT,
        FailureClass::Unreachable => UNREACHABLE,
        FailureClass::Auth => AUTH,
        FailureClass::Locked => LOCKED,
        FailureClass::Refused => REFUSED,
        FailureClass::Timeout => TIMEOUT,
        FailureClass::Cancelled => STOPPED,
        FailureClass::Unapproved => UNAPPROVED,
        _ => UNEXPECTED,
    }
}

/// The end of a command that did not do what it was asked for.
#[derive(Debug)]
pub(crate) struct Exit {
    pub(crate) code: u8,
    pub(crate) report: Option<FailureReport>,
    /// What is wrong with the document, for programs; people were told already.
    pub(crate) findings: Vec<Diagnostic>,
}

impl Exit {
    /// Ends with a code after everything has been said already.
    pub(crate) fn silent(code: u8) -> Self {
        Self { code, report: None, findings: Vec::new() }
    }
}

impl From<Failure> for Exit {
    fn from(failure: Failure) -> Self {
        Self { code: code(failure.class()), report: Some(failure.report()), findings: Vec::new() }
    }
}

/// The last line of the stream of events of `apply` and `destroy`: always the same keys, `null` where there is nothing.
pub(crate) fn result(
    code: u8,
    error: Option<Value>,
    summary: Option<&Summary>,
    simulated: bool,
    kubeconfig: Option<&Path>,
) -> Value {
    let outcome = match code {
        DONE => "done",
        STOPPED => "stopped",
        _ => "failed",
    };
    json!({
        "event": "result",
        "outcome": outcome,
        "exit_code": code,
        "error": error,
        "steps": summary.map(|s| s.steps_done),
        "millis": summary.map(|s| s.millis),
        "kubeconfig": kubeconfig,
        "simulated": simulated,
    })
}

impl Exit {
    /// The failure as data.
    pub(crate) fn error(&self) -> Option<Value> {
        let mut error = serde_json::to_value(self.report.as_ref()?).ok()?;
        if let (false, Some(error)) = (self.findings.is_empty(), error.as_object_mut()) {
            error.insert("findings".to_owned(), serde_json::to_value(&self.findings).unwrap_or_default());
        }
        Some(error)
    }
}
