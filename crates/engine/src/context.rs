//! What a step is given: a voice in the event stream, the state, the clock and the request to stop.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    Cancellation, EventKind, EventSink, Failure, FailureClass, State, StateStore, Subject, Timing, Unit,
    emit::Emitter, handle::StateHandle, redact::Redactor,
};

/// Progress events of one step are at least this far apart.
const PROGRESS_PAUSE: Duration = Duration::from_millis(100);
/// A wait that keeps seeing the same says so again after this long.
const WAITING_PAUSE: Duration = Duration::from_secs(5);

/// What a step runs in. Cheap to clone; clones are the same step.
#[derive(Clone)]
pub struct StepContext {
    inner: Arc<Inner>,
}

struct Inner {
    emitter: Arc<Emitter>,
    state: Arc<StateHandle>,
    timing: Timing,
    cancel: Cancellation,
    patient: bool,
    subject: Option<Subject>,
    step: Option<String>,
    voice: Mutex<Voice>,
}

/// What one step said, so that it neither floods the stream nor talks after its end.
#[derive(Default)]
struct Voice {
    last_progress: Option<(Instant, EventKind)>,
    pending: Option<EventKind>,
    ended: bool,
}

/// What a probe of [`StepContext::wait`] saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe<T> {
    /// The condition holds; here is what came with it.
    Ready(T),
    /// Not yet; the text says what was seen, for the person who waits.
    NotYet(String),
}

impl StepContext {
    /// A context outside of a run: for a standalone look at the world, for tests, for embedders.
    ///
    /// Reads `store` at the first use of the state.
    pub fn detached(
        store: Arc<dyn StateStore>,
        sink: Arc<dyn EventSink>,
        timing: Timing,
        cancel: Cancellation,
    ) -> Self {
        let redactor = Arc::new(Redactor::default());
        let emitter = Arc::new(Emitter::new(sink, Arc::clone(&redactor)));
        Self::new(emitter, Arc::new(StateHandle::new(store, redactor)), timing, cancel, false)
    }

    pub(crate) fn new(
        emitter: Arc<Emitter>,
        state: Arc<StateHandle>,
        timing: Timing,
        cancel: Cancellation,
        patient: bool,
    ) -> Self {
        let (subject, step, voice) = (None, None, Mutex::default());
        Self { inner: Arc::new(Inner { emitter, state, timing, cancel, patient, subject, step, voice }) }
    }

    /// The same context speaking for step `id` of the lane of `subject`.
    #[must_use]
    pub fn scoped(&self, subject: Subject, id: impl Into<String>) -> Self {
        let Inner { emitter, state, timing, cancel, patient, .. } = &*self.inner;
        Self {
            inner: Arc::new(Inner {
                emitter: Arc::clone(emitter),
                state: Arc::clone(state),
                timing: timing.clone(),
                cancel: cancel.clone(),
                patient: *patient,
                subject: Some(subject),
                step: Some(id.into()),
                voice: Mutex::default(),
            }),
        }
    }

    /// The id of the run.
    pub fn run(&self) -> &str {
        self.inner.emitter.run()
    }

    /// Tells how far the step is. Call it as often as it moves: at most ten a second get through, and the last one
    /// always does.
    pub fn progress(&self, done: u64, total: Option<u64>, unit: Unit) {
        self.progress_of("", done, total, unit);
    }

    /// As [`StepContext::progress`] for a step that has several parts, each with a count of its own. The first word of
    /// each part always gets through.
    pub fn progress_of(&self, part: &str, done: u64, total: Option<u64>, unit: Unit) {
        let kind = EventKind::Progress { done, total, unit, part: part.to_owned() };
        let mut voice = self.inner.voice.lock().unwrap_or_else(PoisonError::into_inner);
        let due = voice.last_progress.as_ref().is_none_or(|(at, said)| {
            let complete = total.is_some_and(|t| done >= t);
            at.elapsed() >= PROGRESS_PAUSE || (complete && !is_complete(said)) || !is_part(said, part)
        });
        if voice.ended || voice.last_progress.as_ref().is_some_and(|(_, said)| *said == kind) {
            voice.pending = None;
        } else if due {
            voice.pending = None;
            voice.last_progress = Some((Instant::now(), kind.clone()));
            self.send(kind);
        } else {
            voice.pending = Some(kind);
        }
    }

    /// Tells something worth knowing that changes nothing in the flow.
    pub fn note(&self, text: impl Into<String>) {
        self.emit(EventKind::Note { text: text.into() });
    }

    /// The numbers that waits scale from.
    pub fn timing(&self) -> &Timing {
        &self.inner.timing
    }

    /// Whether a look may wait for what is only coming up: in a run, and in a preview that leads to one. Elsewhere the
    /// answer is wanted now, also when it is "not there".
    pub fn is_patient(&self) -> bool {
        self.inner.patient
    }

    /// Whether a stop was asked for: a long step may end early at a safe point, with a failure of class `Cancelled`.
    pub fn stopping(&self) -> bool {
        self.inner.cancel.is_stopping()
    }

    /// Resolves when the step must end now. The executor drops the step's future as well.
    pub async fn cancelled(&self) {
        self.inner.cancel.stopped_now().await;
    }

    /// The request to stop, to hand on to something that listens to it.
    pub fn cancellation(&self) -> &Cancellation {
        &self.inner.cancel
    }

    /// A copy of the state as it is now.
    ///
    /// # Errors
    /// Those of [`StateStore::load`], where nobody has read the state before.
    pub async fn state(&self) -> Result<State, Failure> {
        self.inner.state.read().await
    }

    /// Changes the state and saves it durably before returning. Changes of other lanes wait for it.
    ///
    /// # Errors
    /// Those of `change` and of [`StateStore::save`]; the state is then as it was before.
    pub async fn update_state<T>(
        &self,
        change: impl FnOnce(&mut State) -> Result<T, Failure> + Send,
    ) -> Result<T, Failure> {
        self.inner.state.update(change).await
    }

    /// Looks with `probe` again and again until it answers [`Probe::Ready`]: at first often, then every
    /// [`Timing::poll`].
    ///
    /// Emits a `Waiting` event whenever what is seen changes, and every five seconds while it stays the same. A
    /// retryable failure of the probe counts as something seen; a final one ends the wait. `limit` is multiplied by
    /// [`Timing::limit_factor`] and also ends a probe that hangs. A soft stop does not end the wait.
    ///
    /// # Errors
    /// `Timeout`, naming the condition and what was seen last; `Cancelled` after a hard stop; any final failure of the
    /// probe.
    pub async fn wait<T, F, Fut>(&self, condition: &str, limit: Duration, mut probe: F) -> Result<T, Failure>
    where
        F: FnMut() -> Fut + Send,
        Fut: Future<Output = Result<Probe<T>, Failure>> + Send,
    {
        let limit = self.inner.timing.limit(limit);
        let began = Instant::now();
        let deadline = began + limit;
        let mut said: Option<(Instant, String)> = None;
        let mut seen = "nothing yet".to_owned();
        let mut cause = None;
        loop {
            let look = tokio::select! {
                biased;
                () = self.cancelled() => return Err(stopped_while_waiting(condition)),
                look = timeout_at(deadline, probe()) => look,
            };
            match look {
                Ok(Ok(Probe::Ready(value))) => return Ok(value),
                Ok(Ok(Probe::NotYet(text))) => {
                    seen = text;
                    cause = None;
                }
                Ok(Err(failure)) if failure.is_retryable() => {
                    seen = failure.to_string();
                    cause = Some(failure);
                }
                Ok(Err(failure)) => return Err(failure),
                // The probe hung until the limit; what was seen before it still is the best that is known.
                Err(_) => return Err(ran_out(condition, limit, &seen, cause)),
            }
            if said.as_ref().is_none_or(|(at, text)| *text != seen || at.elapsed() >= WAITING_PAUSE) {
                self.emit(EventKind::Waiting { condition: condition.to_owned(), last_seen: seen.clone() });
                said = Some((Instant::now(), seen.clone()));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ran_out(condition, limit, &seen, cause));
            }
            tokio::select! {
                biased;
                () = self.cancelled() => return Err(stopped_while_waiting(condition)),
                () = sleep(self.inner.timing.pause(began.elapsed()).min(left)) => {}
            }
        }
    }

    /// Does `work` again after a failure that may pass, by the rule for steps: [`Timing::attempts`] times in all, with
    /// growing pauses, after whatever pause the other side asked for. For the parts of a look; a step as a whole is
    /// retried anyway.
    ///
    /// In a look that is not [patient](StepContext::is_patient) only what answered at once is tried again, and no pause
    /// is waited out.
    ///
    /// # Errors
    /// The last failure of `work`; `Cancelled` after a stop.
    pub async fn retry<T, F, Fut>(&self, mut work: F) -> Result<T, Failure>
    where
        F: FnMut() -> Fut + Send,
        Fut: Future<Output = Result<T, Failure>> + Send,
    {
        let mut attempt = 1;
        loop {
            let failure = match work().await {
                Err(failure) if self.tries_again(&failure, attempt) => failure,
                end => return end,
            };
            self.pause(attempt, &failure).await?;
            attempt += 1;
        }
    }

    /// Whether `failure`, that of attempt number `attempt`, is followed by another attempt.
    pub(crate) fn tries_again(&self, failure: &Failure, attempt: u32) -> bool {
        let timing = &self.inner.timing;
        let quick = || {
            let silent = matches!(failure.class(), FailureClass::Unreachable | FailureClass::Timeout);
            !silent && failure.delay().is_none()
        };
        failure.is_retryable()
            && attempt < timing.attempts
            && !timing.asks_too_much(failure.delay())
            && (self.inner.patient || self.inner.step.is_some() || quick())
    }

    /// Waits before the attempt after number `attempt`. A pause that the other side asked for is a wait like any other:
    /// it says what for and how long still.
    ///
    /// # Errors
    /// `Cancelled` after a stop: a new attempt would be something new that starts.
    pub(crate) async fn pause(&self, attempt: u32, failure: &Failure) -> Result<(), Failure> {
        let delay = self.inner.timing.backoff(attempt, failure.delay());
        tracing::debug!(attempt, ?delay, class = ?failure.class(), "the attempt failed, trying again");
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.emit(EventKind::Retrying { attempt, delay_ms, failure: failure.report() });
        let until = Instant::now() + delay;
        let condition = format!("the end of the pause that was asked for, because {}", failure.message());
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            if failure.delay().is_some() {
                let last_seen = format!("{} s left", left.as_secs_f64().ceil());
                self.emit(EventKind::Waiting { condition: condition.clone(), last_seen });
            }
            tokio::select! {
                biased;
                () = self.inner.cancel.stopping() => return Err(stopped_while_waiting("the next attempt")),
                () = sleep(left.min(WAITING_PAUSE)) => {}
            }
        }
    }

    /// Emits an event of this step, after the progress that was held back.
    pub(crate) fn emit(&self, kind: EventKind) {
        self.speak(kind, false);
    }

    /// Emits the last event of this step; whatever a clone of the context says later is dropped.
    pub(crate) fn end(&self, kind: EventKind) {
        self.speak(kind, true);
    }

    fn speak(&self, kind: EventKind, last: bool) {
        let mut voice = self.inner.voice.lock().unwrap_or_else(PoisonError::into_inner);
        if voice.ended {
            return;
        }
        if let Some(progress) = voice.pending.take() {
            voice.last_progress = Some((Instant::now(), progress.clone()));
            self.send(progress);
        }
        voice.ended = last;
        self.send(kind);
    }

    fn send(&self, kind: EventKind) {
        self.inner.emitter.emit(self.inner.subject.as_ref(), self.inner.step.as_deref(), kind);
    }
}

fn is_complete(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Progress { done, total: Some(total), .. } if done >= total)
}

fn is_part(kind: &EventKind, wanted: &str) -> bool {
    matches!(kind, EventKind::Progress { part, .. } if part == wanted)
}

fn stopped_while_waiting(condition: &str) -> Failure {
    Failure::new(FailureClass::Cancelled, format!("stopped while waiting for {condition}"))
}

fn ran_out(condition: &str, limit: Duration, seen: &str, cause: Option<Failure>) -> Failure {
    // Where the cause is kept, its sentence is what was seen last: it must not be told twice.
    let text = match &cause {
        Some(_) => format!("waited {limit:?} for {condition}"),
        None => format!("waited {limit:?} for {condition}; last seen: {seen}"),
    };
    let hint = cause.as_ref().and_then(Failure::hint_text).map(str::to_owned);
    let failure = Failure::new(FailureClass::Timeout, text).hint(
        hint.unwrap_or_else(|| "Look at what was seen last, then run the same command again.".to_owned()),
    );
    match cause {
        Some(cause) => failure.source(cause),
        None => failure,
    }
}
