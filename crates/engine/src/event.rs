//! The one stream of events that every output is made from.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{FailureReport, Preview, Risk, Subject};

/// One thing that happened. Serialises to one JSON object; new kinds and fields may be added.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The run it belongs to.
    pub run: String,
    /// Counts from 1 within the run, without gaps except for dropped progress.
    pub seq: u64,
    /// When, UTC, RFC 3339.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The lane, if it belongs to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Subject>,
    /// The id of the step, if it belongs to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum EventKind {
    /// A run begins.
    RunStarted {
        /// `apply`, `destroy`, …
        verb: String,
        /// What it works on.
        target: String,
        /// The tool's version.
        version: String,
    },
    /// The world was looked at; a round of the converge loop begins.
    Observed {
        /// Counts from 1.
        round: u32,
        /// What is left to do.
        preview: Preview,
        /// The digest of `preview`.
        digest: String,
    },
    /// A stage begins.
    StageStarted {
        /// Its title.
        title: String,
        /// Counts from 1.
        index: usize,
        /// How many there are in this round.
        of: usize,
    },
    /// A step waits for a lock or a milestone before it can start.
    StepQueued {
        /// The name of the lock or milestone.
        waits_for: String,
        /// Which of the two it is.
        #[serde(default)]
        gate: Gate,
    },
    /// An attempt of a step begins. `Retrying` or `StepFinished` ends it.
    StepStarted {
        /// Its title.
        title: String,
        /// Its phase.
        phase: String,
        /// Its risk.
        risk: Risk,
        /// Counts from 1; higher after a retry.
        attempt: u32,
        /// What it is expected to take.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expected_seconds: Option<u64>,
    },
    /// A step moves on. May be dropped when events come too fast.
    Progress {
        /// How much is done.
        done: u64,
        /// How much there is, if known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        total: Option<u64>,
        /// Of what.
        unit: Unit,
        /// The part of the step that is counted, where it has several: `uploading`, `writing`. Each counts from 0.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        part: String,
    },
    /// A step waits for a named condition.
    Waiting {
        /// The condition.
        condition: String,
        /// What was seen last.
        last_seen: String,
    },
    /// Something worth telling that changes nothing in the flow.
    Note {
        /// The text.
        text: String,
    },
    /// An attempt failed and another will follow.
    Retrying {
        /// The attempt that failed.
        attempt: u32,
        /// The pause before the next one.
        delay_ms: u64,
        /// Why.
        failure: FailureReport,
    },
    /// A step ended, or will not start. Every step of a stage that started has exactly one.
    StepFinished {
        /// How.
        outcome: Outcome,
        /// How long it took, waiting for locks not counted.
        millis: u64,
        /// Why it failed, if it did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<FailureReport>,
    },
    /// A stage ended.
    StageFinished {
        /// Its title.
        title: String,
        /// How.
        outcome: Outcome,
    },
    /// The run ended. The last event of a run.
    RunFinished {
        /// How, and what was done.
        summary: Summary,
    },
    /// A kind that a newer release writes and this one does not know. Never emitted.
    #[serde(other)]
    Unknown,
}

/// What a queued step waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Gate {
    /// A lock that another lane holds.
    #[default]
    Lock,
    /// A milestone that another lane has yet to reach.
    Milestone,
}

/// How a step, a stage or a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Outcome {
    /// Done and verified.
    Done,
    /// It failed.
    Failed,
    /// It did not start, or stopped, because somebody asked to stop.
    Cancelled,
    /// It did not start because what it needs failed elsewhere.
    Blocked,
}

/// What is counted in a [`EventKind::Progress`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Things.
    Items,
}

/// The end of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// How it ended.
    pub outcome: Outcome,
    /// Steps that were done, over all rounds.
    pub steps_done: usize,
    /// Steps that failed.
    pub steps_failed: usize,
    /// Retries, over all steps.
    pub retries: u32,
    /// Rounds of observe and plan.
    pub rounds: u32,
    /// Wall time.
    pub millis: u64,
    /// What failed, with the step it failed in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<StepFailure>,
}

/// A step that failed, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepFailure {
    /// The lane; `None` when observing or planning failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Subject>,
    /// The step's id; `None` when observing or planning failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Why.
    pub failure: FailureReport,
}

/// Takes events, in the order of their numbers and one at a time.
///
/// Must not block (buffer or drop) and must not call back into the context that emits.
pub trait EventSink: Send + Sync {
    /// Takes one event.
    fn emit(&self, event: &Event);
}

impl<F: Fn(&Event) + Send + Sync> EventSink for F {
    fn emit(&self, event: &Event) {
        self(event);
    }
}
