//! The converge loop: observe, plan, ask for approval, run, look again.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Mutex;

use crate::{
    Approval, Cancellation, EventSink, Failure, Plan, Preview, State, StateStore, StepContext, Summary,
    Timing, converge::Run, emit::Emitter, handle::StateHandle, redact::Redactor,
};

/// Something that can be looked at and planned for.
#[async_trait]
pub trait Reconcile: Send + Sync {
    /// What a look at the world brings back.
    type Observed: Send + Sync;

    /// Looks at the world and changes nothing in it.
    async fn observe(&self, cx: &StepContext) -> Result<Self::Observed, Failure>;

    /// What is left to do. Pure: no I/O, and the same for the same arguments.
    ///
    /// A mark in [`State::in_doubt`] means that its step was begun and never verified: plan it again.
    ///
    /// # Errors
    /// Whatever makes planning impossible.
    fn plan(&self, observed: &Self::Observed, state: &State) -> Result<Plan, Failure>;
}

/// Runs plans until there is nothing left to do. One run at a time: a second one waits for the first.
pub struct Executor {
    pub(crate) store: Arc<dyn StateStore>,
    pub(crate) sink: Arc<dyn EventSink>,
    pub(crate) timing: Timing,
    pub(crate) cancel: Cancellation,
    pub(crate) verb: String,
    pub(crate) target: String,
    pub(crate) version: String,
    pub(crate) max_rounds: u32,
    patient: bool,
    turn: Arc<Mutex<()>>,
}

/// Makes an [`Executor`].
#[must_use]
pub struct ExecutorBuilder {
    executor: Executor,
}

impl Executor {
    /// Begins with where the state is kept and where events go.
    pub fn builder(store: Arc<dyn StateStore>, sink: Arc<dyn EventSink>) -> ExecutorBuilder {
        ExecutorBuilder {
            executor: Self {
                store,
                sink,
                timing: Timing::default(),
                cancel: Cancellation::new(),
                verb: "converge".to_owned(),
                target: String::new(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                max_rounds: 5,
                patient: false,
                turn: Arc::default(),
            },
        }
    }

    /// A context for a look outside of a run. Its events carry a run id of their own and no `RunStarted`.
    pub fn context(&self) -> StepContext {
        self.parts(self.patient).1
    }

    pub(crate) fn parts(&self, patient: bool) -> (Arc<Emitter>, StepContext, Arc<Redactor>) {
        let redactor = Arc::new(Redactor::default());
        let emitter = Arc::new(Emitter::new(Arc::clone(&self.sink), Arc::clone(&redactor)));
        let state = Arc::new(StateHandle::new(Arc::clone(&self.store), Arc::clone(&redactor)));
        let (timing, cancel) = (self.timing.clone(), self.cancel.clone());
        let cx = StepContext::new(Arc::clone(&emitter), state, timing, cancel, patient);
        (emitter, cx, redactor)
    }

    /// Observes and plans, and changes nothing.
    ///
    /// # Errors
    /// Those of [`Reconcile::observe`], [`Reconcile::plan`] and [`StateStore::load`]; `Cancelled` after a stop;
    /// `Unexpected` where the plan could never be done.
    pub async fn preview<R: Reconcile + ?Sized>(&self, target: &R) -> Result<Preview, Failure> {
        Ok(crate::converge::look(target, &self.context()).await?.preview())
    }

    /// Observes, plans and runs until a plan is empty.
    ///
    /// Dropping the future is a crash: the tasks of the lanes are aborted, and nothing more is emitted or recorded.
    /// The next call goes on from what it observes.
    ///
    /// # Errors
    /// The first failure of a step, with the step named around it; `Unapproved` before anything that `approval` does
    /// not cover; `Cancelled` after a stop; `Unexpected` where rounds change nothing or do not come to an end.
    pub async fn converge<R: Reconcile + ?Sized>(
        &self,
        target: &R,
        approval: &Approval,
    ) -> Result<Summary, Failure> {
        let turn = Arc::new(Arc::clone(&self.turn).lock_owned().await);
        Run::new(self, turn).converge(target, approval).await
    }
}

impl ExecutorBuilder {
    /// Sets how often to look and how patient to be.
    pub fn timing(mut self, timing: Timing) -> Self {
        self.executor.timing = timing;
        self
    }

    /// Sets who may ask to stop.
    pub fn cancellation(mut self, cancellation: Cancellation) -> Self {
        self.executor.cancel = cancellation;
        self
    }

    /// Sets what runs are called: `apply`, `destroy`, …
    pub fn verb(mut self, verb: impl Into<String>) -> Self {
        self.executor.verb = verb.into();
        self
    }

    /// Sets the name of what runs work on.
    pub fn target(mut self, target: impl Into<String>) -> Self {
        self.executor.target = target.into();
        self
    }

    /// Sets the version of the tool, for the event stream. Defaults to this crate's.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.executor.version = version.into();
        self
    }

    /// Sets how many rounds may change something before the run gives up. Defaults to 5.
    pub fn max_rounds(mut self, rounds: u32) -> Self {
        self.executor.max_rounds = rounds;
        self
    }

    /// Lets previews wait for what is only coming up, as runs do: for one that is shown before a run. A preview of its own
    /// answers at once.
    pub fn patient(mut self, patient: bool) -> Self {
        self.executor.patient = patient;
        self
    }

    /// The executor.
    pub fn build(self) -> Executor {
        self.executor
    }
}
