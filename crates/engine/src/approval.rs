//! What somebody agreed to before anything is changed.

use std::collections::BTreeSet;

use crate::{Failure, FailureClass, Preview, Risk, StepDescription, Subject};

/// The risks, subjects and plans that somebody accepted. The parts add up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    risk: Risk,
    subjects: BTreeSet<Subject>,
    digests: BTreeSet<String>,
}

impl Approval {
    fn up_to(risk: Risk) -> Self {
        Self { risk, subjects: BTreeSet::new(), digests: BTreeSet::new() }
    }

    /// Safe steps only.
    pub fn safe_only() -> Self {
        Self::up_to(Risk::Safe)
    }

    /// Safe and disruptive steps.
    pub fn disruptive() -> Self {
        Self::up_to(Risk::Disruptive)
    }

    /// Everything, on every subject. For simulations and tests.
    pub fn everything() -> Self {
        Self::up_to(Risk::Destructive)
    }

    /// Also every step on `subject`, destructive ones included.
    #[must_use]
    pub fn subject(mut self, subject: Subject) -> Self {
        self.subjects.insert(subject);
        self
    }

    /// Also the plan with this digest, whatever it holds.
    #[must_use]
    pub fn digest(mut self, digest: impl Into<String>) -> Self {
        self.digests.insert(digest.into());
        self
    }

    /// Whether a step is covered by an accepted risk or subject.
    pub(crate) fn covers(&self, subject: &Subject, step: &StepDescription) -> bool {
        step.risk <= self.risk || self.subjects.contains(subject)
    }

    /// Whether a whole plan is covered by its digest.
    pub(crate) fn covers_digest(&self, digest: &str) -> bool {
        self.digests.contains(digest)
    }

    /// Checks that every step of `preview`, whose digest is `digest`, is covered.
    ///
    /// # Errors
    /// `Unapproved`, naming the steps that are not covered; the hint says what would cover them.
    pub fn check(&self, preview: &Preview, digest: &str) -> Result<(), Failure> {
        if self.covers_digest(digest) {
            return Ok(());
        }
        let open: Vec<_> = preview.steps().filter(|(subject, step)| !self.covers(subject, step)).collect();
        if open.is_empty() { Ok(()) } else { Err(self.refusal(&open, digest, "")) }
    }

    /// The failure for steps that are not covered. `why` ends the sentence.
    pub(crate) fn refusal(&self, open: &[(&Subject, &StepDescription)], digest: &str, why: &str) -> Failure {
        const SHOWN: usize = 5;
        let mut names: Vec<_> = open
            .iter()
            .take(SHOWN)
            .map(|(subject, step)| format!("`{}` ({} on {subject})", step.id, risk_word(step.risk)))
            .collect();
        if open.len() > SHOWN {
            names.push(format!("{} more", open.len() - SHOWN));
        }
        let mut ways = Vec::new();
        if open.iter().any(|(_, s)| s.risk == Risk::Disruptive) {
            ways.push("accept disruptive steps (`--yes`)".to_owned());
        }
        let lossy: BTreeSet<_> = open
            .iter()
            .filter(|(_, s)| s.risk == Risk::Destructive)
            .map(|(subject, _)| subject.name.as_str())
            .collect();
        if !lossy.is_empty() {
            let lossy: Vec<_> = lossy.into_iter().collect();
            ways.push(format!("name what may lose its data ({})", lossy.join(", ")));
        }
        let changed =
            if self.digests.is_empty() { "" } else { "The plan is not the one that was approved. " };
        let hint = format!(
            "{changed}Look at the plan, then {}, or approve exactly this plan by its digest {digest}.",
            ways.join(" and ")
        );
        let what = if open.len() == 1 { "a step is" } else { "steps are" };
        Failure::new(FailureClass::Unapproved, format!("{what} not approved: {}{why}", names.join(", ")))
            .hint(hint)
    }
}

fn risk_word(risk: Risk) -> &'static str {
    match risk {
        Risk::Safe => "safe",
        Risk::Disruptive => "disruptive",
        Risk::Destructive => "destructive",
    }
}
