//! Why something failed: a class that decides the exit code, and the next step for the person.

use std::{error::Error, fmt, time::Duration};

use serde::{Deserialize, Serialize};

/// What kind of thing went wrong. Frontends map it to a documented exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FailureClass {
    /// The call itself was wrong: an unknown node name, a missing flag.
    Usage,
    /// The document or a file it names is wrong.
    Config,
    /// A host, board or API could not be reached.
    Unreachable,
    /// Credentials, a host key or a certificate were refused, by either side.
    Auth,
    /// Somebody else holds the lock, or moves a transfer of their own.
    Locked,
    /// The other side understood and said no, or we refuse to go on for safety.
    Refused,
    /// A named condition did not come true within its limit.
    Timeout,
    /// The person or the caller asked to stop.
    Cancelled,
    /// Another lane failed, so what this one needs will not come.
    Blocked,
    /// Changes need an approval that was not given.
    Unapproved,
    /// Anything else: an answer nobody foresaw, a defect.
    Unexpected,
}

/// A failure with its class, cause and next step.
///
/// `Display` is one sentence and never repeats the source; walk [`Error::source`] for the causes.
#[derive(Debug)]
pub struct Failure {
    class: FailureClass,
    message: String,
    hint: Option<String>,
    retryable: bool,
    retry_after: Option<Duration>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Failure {
    /// A failure that is final: trying again as it is would end the same way.
    pub fn new(class: FailureClass, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), hint: None, retryable: false, retry_after: None, source: None }
    }

    /// Marks the failure as one that may pass when tried again. The engine is the only layer that retries.
    #[must_use]
    pub fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }

    /// Marks the failure as retryable, but not before `delay` has passed (a ban, a rate limit).
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retryable = true;
        self.retry_after = Some(delay);
        self
    }

    /// Says what the person can do next, as a full sentence.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Keeps the cause.
    #[must_use]
    pub fn source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The class.
    pub fn class(&self) -> FailureClass {
        self.class
    }

    /// The sentence without its causes.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The next step for the person, if one is known.
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Whether the engine may try again.
    pub fn is_retryable(&self) -> bool {
        self.retryable
    }

    /// How long the other side asked to be left alone.
    pub fn delay(&self) -> Option<Duration> {
        self.retry_after
    }

    /// The serialisable form that events and reports carry.
    pub fn report(&self) -> FailureReport {
        let mut causes = Vec::new();
        let mut next = self.source.as_deref().map(|e| e as &(dyn Error + 'static));
        while let Some(cause) = next {
            let text = cause.to_string();
            if causes.last() != Some(&text) {
                causes.push(text);
            }
            next = cause.source();
        }
        FailureReport {
            class: self.class,
            message: self.message.clone(),
            causes,
            hint: self.hint.clone(),
            retryable: self.retryable,
        }
    }
}

/// A cause of which only the sentence is left.
#[derive(Debug)]
struct Told {
    text: String,
    source: Option<Box<Told>>,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Told {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|e| e as &(dyn Error + 'static))
    }
}

impl Failure {
    /// The same failure told with the words of `report`; its causes are texts.
    pub(crate) fn retold(self, report: FailureReport) -> Self {
        let causes = report.causes.into_iter().rev();
        let source = causes.fold(None, |source, text| Some(Box::new(Told { text, source })));
        Self {
            message: report.message,
            hint: report.hint,
            source: source.map(|told| told as Box<dyn Error + Send + Sync>),
            ..self
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|e| e as &(dyn Error + 'static))
    }
}

/// A [`Failure`] as data, for events, reports and JSON output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureReport {
    /// The class.
    pub class: FailureClass,
    /// What was attempted, on what.
    pub message: String,
    /// The chain of causes, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    /// The next step for the person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Whether trying again may help.
    pub retryable: bool,
}
