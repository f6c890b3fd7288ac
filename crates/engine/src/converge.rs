//! One run from its first event to its last.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::Ordering},
};

use futures::FutureExt;
use tokio::sync::OwnedMutexGuard;

use crate::{
    Approval, EventKind, Executor, Failure, FailureClass, Outcome, Preview, Reconcile, Risk, RunRecord,
    StepContext, StepFailure, Subject, Summary,
    emit::Emitter,
    lane::{LaneFailure, Tally, panic_text},
    milestones::Milestones,
    redact::Redactor,
    round::Round,
    stage,
};

/// How many runs a state remembers.
const RUNS_KEPT: usize = 20;

/// Observes and plans. A look that failed and may succeed a little later is tried again, as a step is. A stop ends it at
/// once: looking leaves nothing half done.
pub(crate) async fn look<R: Reconcile + ?Sized>(target: &R, cx: &StepContext) -> Result<Round, Failure> {
    let observe = || async {
        let observed = AssertUnwindSafe(target.observe(cx)).catch_unwind().await;
        observed.map_err(|panic| panicked("observing", &*panic))?
    };
    let observed = tokio::select! {
        biased;
        () = cx.cancellation().stopping() => return Err(stopped()),
        observed = cx.retry(observe) => observed?,
    };
    let state = cx.state().await?;
    let plan = || Round::new(&target.plan(&observed, &state)?);
    std::panic::catch_unwind(AssertUnwindSafe(plan)).map_err(|panic| panicked("planning", &*panic))?
}

/// A run of the converge loop.
pub(crate) struct Run<'a> {
    executor: &'a Executor,
    turn: Arc<OwnedMutexGuard<()>>,
    emitter: Arc<Emitter>,
    redactor: Arc<Redactor>,
    cx: StepContext,
    tally: Arc<Tally>,
    rounds: u32,
    failures: Vec<StepFailure>,
    /// Destructive steps that were done and verified in this run.
    destroyed: BTreeSet<String>,
}

/// Silences the run when its future is dropped: tasks that are being aborted on other threads say nothing more.
struct Silence(Arc<Emitter>);

impl Drop for Silence {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl<'a> Run<'a> {
    pub(crate) fn new(executor: &'a Executor, turn: Arc<OwnedMutexGuard<()>>) -> Self {
        let (emitter, cx, redactor) = executor.parts(true);
        Self {
            executor,
            turn,
            emitter,
            redactor,
            cx,
            tally: Arc::default(),
            rounds: 0,
            failures: Vec::new(),
            destroyed: BTreeSet::new(),
        }
    }

    pub(crate) async fn converge<R: Reconcile + ?Sized>(
        mut self,
        target: &R,
        approval: &Approval,
    ) -> Result<Summary, Failure> {
        let _silence = Silence(Arc::clone(&self.emitter));
        let Executor { verb, target: name, version, .. } = self.executor;
        self.cx.emit(EventKind::RunStarted {
            verb: verb.clone(),
            target: name.clone(),
            version: version.clone(),
        });
        let result = match self.open_record().await {
            Ok(()) => {
                let result = self.rounds(target, approval).await;
                // The record comes before the last event: who has seen that event finds the record.
                let summary = self.summary(result.as_ref().err());
                result.and(self.close_record(summary).await)
            }
            Err(failure) => Err(failure),
        };
        let result = result.map_err(|failure| self.redactor.scrub_failure(failure));
        let summary = self.summary(result.as_ref().err());
        self.emitter.finish(EventKind::RunFinished { summary: summary.clone() });
        if let Err(failure) = &result {
            tracing::warn!(run = self.cx.run(), class = ?failure.class(), %failure, "the run ended without converging");
        }
        result.map(|()| summary)
    }

    async fn open_record(&self) -> Result<(), Failure> {
        let record = RunRecord {
            run: self.cx.run().to_owned(),
            verb: self.executor.verb.clone(),
            started: self.emitter.started(),
            summary: None,
        };
        self.cx
            .update_state(move |state| {
                state.runs.push(record);
                let old = state.runs.len().saturating_sub(RUNS_KEPT);
                state.runs.drain(..old);
                Ok(())
            })
            .await
    }

    async fn close_record(&self, mut summary: Summary) -> Result<(), Failure> {
        self.redactor.scrub_summary(&mut summary);
        let run = self.cx.run();
        self.cx
            .update_state(|state| {
                if let Some(record) = state.runs.iter_mut().find(|r| r.run == run) {
                    record.summary = Some(summary);
                }
                Ok(())
            })
            .await
    }

    fn summary(&self, failure: Option<&Failure>) -> Summary {
        let mut failures = self.failures.clone();
        if let Some(failure) = failure
            && failures.is_empty()
        {
            failures.push(StepFailure { subject: None, step: None, failure: failure.report() });
        }
        let outcome = match failure.map(Failure::class) {
            None => Outcome::Done,
            Some(FailureClass::Cancelled) => Outcome::Cancelled,
            Some(_) => Outcome::Failed,
        };
        Summary {
            outcome,
            steps_done: self.tally.done.load(Ordering::Relaxed),
            steps_failed: self.tally.failed.load(Ordering::Relaxed),
            retries: self.tally.retries.load(Ordering::Relaxed),
            rounds: self.rounds,
            millis: self.emitter.millis(),
            failures,
        }
    }

    async fn rounds<R: Reconcile + ?Sized>(
        &mut self,
        target: &R,
        approval: &Approval,
    ) -> Result<(), Failure> {
        let mut forecast: Option<BTreeMap<String, (Subject, Risk)>> = None;
        let mut last_digest = None;
        loop {
            let round = look(target, &self.cx).await?;
            let preview = round.preview();
            let digest = preview.digest();
            self.rounds = self.rounds.saturating_add(1);
            self.cx.emit(EventKind::Observed {
                round: self.rounds,
                preview: preview.clone(),
                digest: digest.clone(),
            });
            if preview.is_empty() {
                return Ok(());
            }
            self.check_progress(&preview, &digest, last_digest.as_deref())?;
            match &forecast {
                None => {
                    approval.check(&preview, &digest)?;
                    forecast = Some(risks(&preview));
                }
                Some(forecast) => check_forecast(forecast, approval, &preview, &digest)?,
            }
            self.run_round(&round).await?;
            last_digest = Some(digest);
        }
    }

    /// A round after the first must be there for a reason: the one before changed something.
    fn check_progress(&self, preview: &Preview, digest: &str, last: Option<&str>) -> Result<(), Failure> {
        let first = preview.steps().next().map(|(_, s)| s.id.as_str()).unwrap_or_default();
        let hint =
            "What the steps verify and what the planner looks at do not agree; look at the world by hand.";
        if last == Some(digest) {
            let text =
                format!("a round was done and nothing changed: `{first}` and the rest are planned again");
            return Err(Failure::new(FailureClass::Unexpected, text).hint(hint));
        }
        if let Some((_, step)) = preview.steps().find(|(_, s)| self.destroyed.contains(&s.id)) {
            let text = format!("`{}` was done and verified in this run and is planned again", step.id);
            return Err(Failure::new(FailureClass::Unexpected, text).hint(hint));
        }
        if self.rounds > self.executor.max_rounds {
            let text = format!(
                "there is still something to do after {} rounds: `{first}`",
                self.executor.max_rounds
            );
            return Err(Failure::new(FailureClass::Unexpected, text)
                .hint("Run the same command again; if that ends the same way, please report it."));
        }
        Ok(())
    }

    async fn run_round(&mut self, round: &Round) -> Result<(), Failure> {
        let milestones = Arc::new(Milestones::new(round.steps().filter_map(|(_, s)| s.reaches.as_deref())));
        let of = round.stages.len();
        for (index, stage) in round.stages.iter().enumerate() {
            if self.cx.stopping() {
                return Err(stopped());
            }
            self.cx.emit(EventKind::StageStarted { title: stage.title.clone(), index: index + 1, of });
            let mut end = stage::run(&self.cx, &milestones, &self.tally, &self.turn, stage).await;
            self.cx.emit(stage::finished(stage, &end));
            self.destroyed.append(&mut end.destroyed.into_iter().collect());
            self.failures.extend(end.failures.iter().map(|f| StepFailure {
                subject: Some(f.subject.clone()),
                step: f.step.clone(),
                failure: f.failure.report(),
            }));
            let failed = end.failures.len();
            if let Some(first) = end.failures.drain(..).next() {
                return Err(step_failed(first, failed));
            }
            match end.outcome {
                Outcome::Done => {}
                Outcome::Cancelled => return Err(stopped()),
                Outcome::Failed | Outcome::Blocked => {
                    let text = format!("the stage `{}` could not be done", stage.title);
                    return Err(Failure::new(FailureClass::Blocked, text));
                }
            }
        }
        Ok(())
    }
}

fn risks(preview: &Preview) -> BTreeMap<String, (Subject, Risk)> {
    preview.steps().map(|(subject, step)| (step.id.clone(), (subject.clone(), step.risk))).collect()
}

/// A later round may do what the approved first one announced, what is safe, and what the approval covers.
fn check_forecast(
    forecast: &BTreeMap<String, (Subject, Risk)>,
    approval: &Approval,
    preview: &Preview,
    digest: &str,
) -> Result<(), Failure> {
    if approval.covers_digest(digest) {
        return Ok(());
    }
    let beyond: Vec<_> = preview
        .steps()
        .filter(|(subject, step)| {
            let announced =
                forecast.get(&step.id).is_some_and(|(on, risk)| on == *subject && *risk >= step.risk);
            !(announced || step.risk == Risk::Safe || approval.covers(subject, step))
        })
        .collect();
    if beyond.is_empty() {
        return Ok(());
    }
    Err(approval.refusal(&beyond, digest, "; they were not part of the plan that was approved"))
}

fn step_failed(first: LaneFailure, failed: usize) -> Failure {
    let LaneFailure { subject, step, failure } = first;
    let what = step.map_or_else(|| format!("the lane of {subject}"), |id| format!("`{id}`"));
    let text = match failed {
        0 | 1 => format!("{what} failed"),
        more => format!("{what} failed, and {} more after it", more - 1),
    };
    let mut outer = Failure::new(failure.class(), text);
    if failure.is_retryable() {
        outer = match failure.delay() {
            Some(delay) => outer.retry_after(delay),
            None => outer.retryable(),
        };
    }
    if let Some(hint) = failure.hint_text() {
        outer = outer.hint(hint);
    }
    outer.source(failure)
}

fn stopped() -> Failure {
    Failure::new(FailureClass::Cancelled, "stopped before everything was done")
        .hint("Run the same command again; it continues where it stopped.")
}

fn panicked(what: &str, panic: &(dyn std::any::Any + Send)) -> Failure {
    Failure::new(FailureClass::Unexpected, format!("{what} panicked: {}", panic_text(panic)))
        .hint("This is a defect; please report it.")
}
