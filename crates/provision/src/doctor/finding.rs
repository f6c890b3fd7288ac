//! What the doctor says: symptom, evidence, cause, remedy.

use serde::Serialize;
use turingpi_engine::Subject;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weight {
    /// Good to know.
    Note,
    /// Works today, hurts tomorrow; or `apply` mends it itself.
    Warning,
    /// `apply` would fail, or the cluster would.
    Problem,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// A stable name: `cgroup-memory`.
    pub id: &'static str,
    /// How much it matters.
    pub weight: Weight,
    /// What it is about.
    pub subject: Subject,
    /// What is seen.
    pub symptom: String,
    /// Why it matters, or where it comes from.
    pub cause: String,
    /// What to do, exactly.
    pub remedy: String,
    /// Whether `apply` mends it.
    pub mended_by_apply: bool,
}

impl Finding {
    pub(crate) fn new(
        id: &'static str,
        weight: Weight,
        subject: Subject,
        symptom: impl Into<String>,
    ) -> Self {
        Self {
            id,
            weight,
            subject,
            symptom: symptom.into(),
            cause: String::new(),
            remedy: String::new(),
            mended_by_apply: false,
        }
    }
    pub(crate) fn cause(mut self, cause: impl Into<String>) -> Self {
        self.cause = cause.into();
        self
    }
    pub(crate) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }
    pub(crate) fn mended(mut self) -> Self {
        self.mended_by_apply = true;
        self.weight = Weight::Warning;
        self
    }
}
