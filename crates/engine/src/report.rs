//! What a run was: its lanes, waits, retries and the chain of steps that decided how long it took.
//!
//! Pure data made from the event stream, live or from a log; a frontend draws it. All times are milliseconds since the
//! first event.

mod build;
mod critical;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{Event, FailureReport, Gate, Outcome, Risk, Subject, Summary, Unit};

/// One run, drawn out in time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Timeline {
    /// The run's id; empty when there was no event.
    pub run: String,
    /// `apply`, `destroy`, …
    pub verb: String,
    /// What it worked on.
    pub target: String,
    /// The tool's version.
    pub version: String,
    /// When the first event was, UTC.
    #[serde(default, with = "time::serde::rfc3339::option")]
    pub started: Option<OffsetDateTime>,
    /// From the first event to the last.
    pub millis: u64,
    /// How it ended; `None` where the stream does not hold the end.
    pub summary: Option<Summary>,
    /// The looks at the world.
    pub rounds: Vec<RoundMark>,
    /// The stages of all rounds, in order, also those that never began.
    pub stages: Vec<StageSpan>,
    /// A lane for each subject, in the order in which plans name them.
    pub lanes: Vec<LaneLine>,
    /// The chain of steps that determined the end, from the first to the last. Making any step that is not in it
    /// faster would not have made the run faster.
    pub critical_path: Vec<PathPart>,
}

/// A look at the world, and how much it left to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoundMark {
    /// Counts from 1.
    pub round: u32,
    /// When the look began.
    pub start_ms: u64,
    /// When the plan was there.
    pub end_ms: u64,
    /// The digest of the plan.
    pub digest: String,
    /// The steps in the plan.
    pub steps: usize,
}

/// A stage from its first event to its last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageSpan {
    /// The round it belongs to.
    pub round: u32,
    /// Its title.
    pub title: String,
    /// `None` where it never began.
    pub start_ms: Option<u64>,
    /// `None` where it never ended.
    pub end_ms: Option<u64>,
    /// How it ended.
    pub outcome: Option<Outcome>,
}

/// Everything that was planned for one subject, over all rounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LaneLine {
    /// The subject.
    pub subject: Subject,
    /// Its steps, in order.
    pub steps: Vec<StepLine>,
}

/// One step of one round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepLine {
    /// Its id.
    pub id: String,
    /// Its title.
    pub title: String,
    /// Its phase.
    pub phase: String,
    /// Its risk.
    pub risk: Risk,
    /// The round it belongs to.
    pub round: u32,
    /// The position of its stage in [`Timeline::stages`]; `None` where the stream does not tell.
    pub stage: Option<usize>,
    /// The start of the first attempt; `None` where it never began.
    pub start_ms: Option<u64>,
    /// Its end; `None` where it never ended or was never decided on.
    pub end_ms: Option<u64>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Why it did not end well.
    pub failure: Option<FailureReport>,
    /// Attempts that began.
    pub attempts: u32,
    /// What it waited for before it began.
    pub waits: Vec<GateWait>,
    /// What it waited for while it ran.
    pub conditions: Vec<ConditionWait>,
    /// Attempts that failed and were repeated.
    pub retries: Vec<RetryMark>,
    /// What it told.
    pub notes: Vec<NoteMark>,
    /// How far it came.
    pub progress: Option<ProgressMark>,
}

/// A wait for a lock or milestone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateWait {
    /// Lock or milestone.
    pub gate: Gate,
    /// Its name.
    pub name: String,
    /// When the wait began.
    pub start_ms: u64,
    /// When the next wait or the step began, or the step was given up.
    pub end_ms: Option<u64>,
}

/// A wait for a named condition inside a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConditionWait {
    /// The condition.
    pub condition: String,
    /// When it was first seen not to hold.
    pub start_ms: u64,
    /// When it was last seen not to hold.
    pub end_ms: u64,
    /// What was seen last.
    pub last_seen: String,
}

/// A failed attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryMark {
    /// Which.
    pub attempt: u32,
    /// When it failed.
    pub at_ms: u64,
    /// The pause after it.
    pub delay_ms: u64,
    /// Why.
    pub failure: FailureReport,
}

/// Something that was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoteMark {
    /// When.
    pub at_ms: u64,
    /// The text.
    pub text: String,
}

/// How far a step came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressMark {
    /// How much is done.
    pub done: u64,
    /// How much there is, if known.
    pub total: Option<u64>,
    /// Of what.
    pub unit: Unit,
}

/// One step of the critical path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PathPart {
    /// The lane.
    pub subject: Subject,
    /// The step's id.
    pub step: String,
    /// The round it belongs to.
    pub round: u32,
    /// Between the end of the step before it in the path (or the first event) and its own start.
    pub idle_ms: u64,
    /// When it began.
    pub start_ms: u64,
    /// When it ended; `None` where it did not.
    pub end_ms: Option<u64>,
    /// What let it begin.
    pub after: After,
}

/// What let a step of the critical path begin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "after", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum After {
    /// The look at the world that began its round.
    Observed,
    /// The end of the stage before.
    Stage,
    /// The end of the step before it in its lane.
    Lane,
    /// A lock that the step before it in the path gave back.
    Lock {
        /// Its name.
        name: String,
    },
    /// A milestone that the step before it in the path reached.
    Milestone {
        /// Its name.
        name: String,
    },
}

impl Timeline {
    /// Draws the run of the first event; events of other runs are left out.
    ///
    /// Takes any stream: one that was cut off, or begins in the middle, gives what can be known from it.
    pub fn from_events(events: &[Event]) -> Self {
        build::timeline(events)
    }

    /// Every step with its subject, lane by lane.
    pub fn steps(&self) -> impl Iterator<Item = (&Subject, &StepLine)> {
        self.lanes.iter().flat_map(|l| l.steps.iter().map(move |s| (&l.subject, s)))
    }
}
