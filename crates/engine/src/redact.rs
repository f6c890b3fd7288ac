//! Keeps stored secrets out of the event stream, whatever a step puts into a text.

use std::sync::{PoisonError, RwLock};

use secrecy::{ExposeSecret, zeroize::Zeroizing};

use crate::{EventKind, Failure, FailureReport, Preview, State, Summary};

/// Shorter values are left alone: they occur in ordinary words and would garble every text.
const SHORTEST: usize = 8;
/// A line of a secret with many lines (a key in PEM) counts alone from this length.
const SHORTEST_LINE: usize = 20;
const MASK: &str = "[redacted]";

/// Knows the secrets of a state and replaces them in texts.
#[derive(Default)]
pub(crate) struct Redactor {
    secrets: RwLock<Vec<Zeroizing<String>>>,
}

impl Redactor {
    /// Learns the secrets of `state` on top of those known before.
    pub(crate) fn learn(&self, state: &State) {
        let mut known = self.secrets.write().unwrap_or_else(PoisonError::into_inner);
        for secret in state.secrets() {
            let value = secret.expose_secret().trim();
            let lines =
                value.lines().map(str::trim).filter(|l| value.contains('\n') && l.len() >= SHORTEST_LINE);
            for part in lines.chain(std::iter::once(value)) {
                // The frame of a PEM block is the same for everybody and names what is missing.
                let frame = part.starts_with("-----") && !part.contains('\n');
                if part.len() >= SHORTEST && !frame && known.iter().all(|k| k.as_str() != part) {
                    known.push(Zeroizing::new(part.to_owned()));
                }
            }
        }
        // Longest first: a secret that contains another is replaced whole.
        known.sort_by_key(|k| std::cmp::Reverse(k.len()));
    }

    /// Replaces every known secret in the texts of `kind`.
    pub(crate) fn scrub(&self, kind: &mut EventKind) {
        let known = self.secrets.read().unwrap_or_else(PoisonError::into_inner);
        if known.is_empty() {
            return;
        }
        let clean = |text: &mut String| scrub_text(&known, text);
        match kind {
            EventKind::Observed { preview, .. } => each_text_of_preview(preview, &clean),
            EventKind::StepStarted { title, .. } => clean(title),
            EventKind::Waiting { condition, last_seen } => {
                clean(condition);
                clean(last_seen);
            }
            EventKind::Note { text } => clean(text),
            EventKind::Retrying { failure, .. } | EventKind::StepFinished { failure: Some(failure), .. } => {
                each_text_of_report(failure, &clean);
            }
            EventKind::RunFinished { summary } => each_text_of_summary(summary, &clean),
            EventKind::RunStarted { .. }
            | EventKind::StageStarted { .. }
            | EventKind::StepQueued { .. }
            | EventKind::Progress { .. }
            | EventKind::StepFinished { failure: None, .. }
            | EventKind::StageFinished { .. }
            | EventKind::Unknown => {}
        }
    }

    /// The failure itself where it tells no secret; otherwise one with its words and without its causes, which may hold
    /// more than they tell.
    pub(crate) fn scrub_failure(&self, failure: Failure) -> Failure {
        let known = self.secrets.read().unwrap_or_else(PoisonError::into_inner);
        let told = failure.report();
        let mut clean = told.clone();
        each_text_of_report(&mut clean, &|text: &mut String| scrub_text(&known, text));
        if clean == told { failure } else { failure.retold(clean) }
    }

    /// Replaces every known secret in the texts of `summary`.
    pub(crate) fn scrub_summary(&self, summary: &mut Summary) {
        let known = self.secrets.read().unwrap_or_else(PoisonError::into_inner);
        each_text_of_summary(summary, &|text: &mut String| scrub_text(&known, text));
    }
}

fn scrub_text(known: &[Zeroizing<String>], text: &mut String) {
    for secret in known {
        if text.contains(secret.as_str()) {
            *text = text.replace(secret.as_str(), MASK);
        }
    }
}

fn each_text_of_preview(preview: &mut Preview, clean: &impl Fn(&mut String)) {
    for step in preview.stages.iter_mut().flat_map(|s| &mut s.lanes).flat_map(|l| &mut l.steps) {
        clean(&mut step.title);
        for change in &mut step.changes {
            clean(&mut change.what);
            change.old.iter_mut().chain(&mut change.new).for_each(clean);
        }
    }
}

fn each_text_of_report(report: &mut FailureReport, clean: &impl Fn(&mut String)) {
    clean(&mut report.message);
    report.causes.iter_mut().chain(&mut report.hint).for_each(clean);
}

fn each_text_of_summary(summary: &mut Summary, clean: &impl Fn(&mut String)) {
    summary.failures.iter_mut().for_each(|f| each_text_of_report(&mut f.failure, clean));
}
