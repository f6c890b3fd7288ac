//! One lane of a stage: its steps in order, each with its waits, attempts and marks.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
};

use futures::FutureExt;
use tokio::time::Instant;
use tracing::Instrument;

use crate::{
    EventKind, Failure, FailureClass, Gate, InDoubt, Outcome, Probe, Risk, StepContext, Subject, Verdict,
    emit::millis_since,
    lane_locks::{LaneLocks, Ticket},
    milestones::{Milestones, Reach},
    round::{RoundLane, RoundStep},
};

/// Counts over all rounds of a run.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) done: AtomicUsize,
    pub(crate) failed: AtomicUsize,
    pub(crate) retries: AtomicU32,
}

/// What the lanes of one stage share.
pub(crate) struct Shared {
    pub(crate) cx: StepContext,
    pub(crate) locks: Arc<LaneLocks>,
    pub(crate) milestones: Arc<Milestones>,
    pub(crate) tally: Arc<Tally>,
}

/// A step that failed in a lane.
pub(crate) struct LaneFailure {
    pub(crate) subject: Subject,
    pub(crate) step: Option<String>,
    pub(crate) failure: Failure,
}

/// How a lane ended.
pub(crate) struct LaneEnd {
    pub(crate) outcome: Outcome,
    pub(crate) failure: Option<LaneFailure>,
    /// The ids of its destructive steps that were done and verified.
    pub(crate) destroyed: Vec<String>,
}

/// How a step ended.
enum StepEnd {
    Done,
    Failed(Failure),
    Cancelled(Option<Failure>),
    Blocked(Failure),
}

impl StepEnd {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Done => Outcome::Done,
            Self::Failed(_) => Outcome::Failed,
            Self::Cancelled(_) => Outcome::Cancelled,
            Self::Blocked(_) => Outcome::Blocked,
        }
    }

    fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Done | Self::Cancelled(None) => None,
            Self::Failed(f) | Self::Blocked(f) | Self::Cancelled(Some(f)) => Some(f),
        }
    }
}

/// The first step's place in the queue, taken before any lane starts so that the order of lanes decides, not the
/// order in which threads wake up.
pub(crate) fn early_ticket(shared: &Shared, lane: usize, steps: &[RoundStep]) -> Option<Ticket> {
    let first = &steps.first()?.description;
    let free = first.needs.iter().all(|n| shared.milestones.look(n) == Reach::Reached);
    (free && !first.locks.is_empty()).then(|| shared.locks.request(lane, &first.locks))
}

/// Runs the steps of `lane`, the one with number `index` of its stage.
pub(crate) async fn run(
    shared: Arc<Shared>,
    index: usize,
    lane: RoundLane,
    mut early: Option<Ticket>,
) -> LaneEnd {
    let mut end = LaneEnd { outcome: Outcome::Done, failure: None, destroyed: Vec::new() };
    let mut stopper: Option<String> = None;
    for (position, step) in lane.steps.iter().enumerate() {
        let description = &*step.description;
        let cx = shared.cx.scoped(lane.subject.clone(), description.id.as_str());
        if let Some(stopper) = &stopper {
            finish(&shared, &cx, &not_reached(&description.id, end.outcome, stopper), 0);
            continue;
        }
        let span =
            tracing::info_span!("step", run = cx.run(), step = %description.id, subject = %lane.subject);
        let result = run_step(&shared, &cx, index, step, early.take()).instrument(span).await;
        if matches!(result, StepEnd::Done) {
            if description.risk == Risk::Destructive {
                end.destroyed.push(description.id.clone());
            }
            continue;
        }
        end.outcome = result.outcome();
        stopper = Some(description.id.clone());
        give_up(&shared.milestones, lane.steps.get(position..).unwrap_or_default());
        if let StepEnd::Failed(failure) = result {
            let step = Some(description.id.clone());
            end.failure = Some(LaneFailure { subject: lane.subject.clone(), step, failure });
        }
    }
    end
}

/// None of `steps` will reach its milestone.
pub(crate) fn give_up(milestones: &Milestones, steps: &[RoundStep]) {
    for step in steps.iter().map(|s| &s.description) {
        if let Some(milestone) = &step.reaches {
            milestones.give_up(milestone, &step.id);
        }
    }
}

fn not_reached(id: &str, outcome: Outcome, stopper: &str) -> StepEnd {
    if outcome == Outcome::Cancelled {
        return StepEnd::Cancelled(None);
    }
    StepEnd::Blocked(Failure::new(
        FailureClass::Blocked,
        format!("`{id}` did not start because `{stopper}` is not done"),
    ))
}

/// Waits for what the step needs, runs it and says how it ended.
async fn run_step(
    shared: &Shared,
    cx: &StepContext,
    lane: usize,
    step: &RoundStep,
    early: Option<Ticket>,
) -> StepEnd {
    let description = &*step.description;
    let ticket = match admit(shared, cx, lane, step, early).await {
        Ok(ticket) => ticket,
        Err(end) => {
            finish(shared, cx, &end, 0);
            return end;
        }
    };
    let started = Instant::now();
    let end = tokio::select! {
        biased;
        () = cx.cancelled() => StepEnd::Cancelled(None),
        result = AssertUnwindSafe(attempts(shared, cx, step)).catch_unwind() => result.unwrap_or_else(|panic| {
            let text = format!("`{}` panicked: {}", description.id, panic_text(&*panic));
            StepEnd::Failed(Failure::new(FailureClass::Unexpected, text).hint("This is a defect; please report it."))
        }),
    };
    // Whoever waits for the lock or the milestone goes on after the event: the stream tells what happened in order.
    finish(shared, cx, &end, millis_since(started));
    if let (StepEnd::Done, Some(milestone)) = (&end, &description.reaches) {
        shared.milestones.reach(milestone);
    }
    drop(ticket);
    end
}

fn finish(shared: &Shared, cx: &StepContext, end: &StepEnd, millis: u64) {
    match end {
        StepEnd::Done => shared.tally.done.fetch_add(1, Ordering::Relaxed),
        StepEnd::Failed(_) => shared.tally.failed.fetch_add(1, Ordering::Relaxed),
        StepEnd::Cancelled(_) | StepEnd::Blocked(_) => 0,
    };
    let failure = end.failure().map(Failure::report);
    cx.end(EventKind::StepFinished { outcome: end.outcome(), millis, failure });
}

/// Waits until the step may start: its milestones are reached and its locks held.
async fn admit(
    shared: &Shared,
    cx: &StepContext,
    lane: usize,
    step: &RoundStep,
    early: Option<Ticket>,
) -> Result<Option<Ticket>, StepEnd> {
    let description = &*step.description;
    let cancelled = || StepEnd::Cancelled(None);
    for milestone in &description.needs {
        let mut reach = shared.milestones.look(milestone);
        if reach == Reach::Open && !cx.stopping() {
            cx.emit(EventKind::StepQueued { waits_for: milestone.clone(), gate: Gate::Milestone });
            reach = tokio::select! {
                biased;
                () = cx.cancellation().stopping() => return Err(cancelled()),
                reach = shared.milestones.decided(milestone) => reach,
            };
        }
        if cx.stopping() {
            return Err(cancelled());
        }
        if let Reach::Lost(by) = reach {
            let text =
                format!("`{}` did not start because `{by}`, which it waits for, is not done", description.id);
            return Err(StepEnd::Blocked(Failure::new(FailureClass::Blocked, text)));
        }
    }
    if cx.stopping() {
        return Err(cancelled());
    }
    if description.locks.is_empty() {
        return Ok(None);
    }
    let mut ticket = early.unwrap_or_else(|| shared.locks.request(lane, &description.locks));
    if !ticket.is_held() {
        for waits_for in ticket.busy() {
            cx.emit(EventKind::StepQueued { waits_for, gate: Gate::Lock });
        }
        tokio::select! {
            biased;
            () = cx.cancellation().stopping() => return Err(cancelled()),
            () = ticket.held() => {}
        }
    }
    Ok(Some(ticket))
}

/// Tries the step until it is done, fails for good, or has used up its attempts.
async fn attempts(shared: &Shared, cx: &StepContext, step: &RoundStep) -> StepEnd {
    let description = &*step.description;
    let mut attempt = 1;
    loop {
        cx.emit(EventKind::StepStarted {
            title: description.title.clone(),
            phase: description.phase.clone(),
            risk: description.risk,
            attempt,
            expected_seconds: description.expected_seconds,
        });
        let failure = match once(cx, step).await {
            Ok(()) => return StepEnd::Done,
            Err(failure) if failure.class() == FailureClass::Cancelled && cx.stopping() => {
                return StepEnd::Cancelled(Some(failure));
            }
            Err(failure) => failure,
        };
        if !cx.tries_again(&failure, attempt) {
            return StepEnd::Failed(failure);
        }
        // A step that failed is not running: a new attempt would be something new that starts.
        if cx.stopping() {
            return StepEnd::Cancelled(Some(failure));
        }
        shared.tally.retries.fetch_add(1, Ordering::Relaxed);
        if cx.pause(attempt, &failure).await.is_err() {
            return StepEnd::Cancelled(Some(failure));
        }
        attempt += 1;
    }
}

/// One attempt: mark, apply, verify, unmark.
async fn once(cx: &StepContext, step: &RoundStep) -> Result<(), Failure> {
    let description = &*step.description;
    let destructive = description.risk == Risk::Destructive;
    if destructive {
        let mark = InDoubt {
            run: cx.run().to_owned(),
            since: time::OffsetDateTime::now_utc(),
            title: description.title.clone(),
        };
        let id = description.id.clone();
        cx.update_state(move |state| {
            state.in_doubt.insert(id, mark);
            Ok(())
        })
        .await?;
    }
    step.step.apply(cx).await?;
    let look = || async {
        Ok(match step.step.verify(cx).await? {
            Verdict::Converged => Probe::Ready(()),
            Verdict::NotYet(seen) => Probe::NotYet(seen),
        })
    };
    cx.wait(&format!("the result of `{}`", description.id), step.step.limit(), look).await?;
    if destructive {
        cx.update_state(|state| {
            state.in_doubt.remove(&description.id);
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// The text of a panic, where it has one.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}
