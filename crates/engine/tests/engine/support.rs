//! Scripted steps, plans that come one after the other, and a sink that remembers.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use futures::future::BoxFuture;
use turingpi_engine::{
    Approval, Cancellation, Event, EventKind, EventSink, Executor, ExecutorBuilder, Failure, FailureClass,
    Lane, MemoryStateStore, Outcome, Plan, Reconcile, Stage, State, Step, StepContext, StepDescription,
    Subject, Summary, Timing, Verdict,
};

type Apply = dyn Fn(StepContext) -> BoxFuture<'static, Result<(), Failure>> + Send + Sync;
type Verify = dyn Fn(StepContext) -> BoxFuture<'static, Result<Verdict, Failure>> + Send + Sync;

/// A step whose behaviour is given by closures.
#[derive(Clone)]
pub(crate) struct Scripted {
    description: StepDescription,
    apply: Arc<Apply>,
    verify: Arc<Verify>,
    limit: Duration,
}

pub(crate) fn describe(id: &str) -> StepDescription {
    StepDescription::new(id, format!("Do {id}"), "test")
}

/// A step that succeeds at once.
pub(crate) fn step(description: StepDescription) -> Scripted {
    Scripted {
        description,
        apply: Arc::new(|_| Box::pin(async { Ok(()) })),
        verify: Arc::new(|_| Box::pin(async { Ok(Verdict::Converged) })),
        limit: Duration::from_secs(60),
    }
}

impl Scripted {
    pub(crate) fn apply<F>(mut self, apply: impl Fn(StepContext) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        self.apply = Arc::new(move |cx| Box::pin(apply(cx)));
        self
    }
    pub(crate) fn verify<F>(mut self, verify: impl Fn(StepContext) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Verdict, Failure>> + Send + 'static,
    {
        self.verify = Arc::new(move |cx| Box::pin(verify(cx)));
        self
    }
    pub(crate) fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }
    pub(crate) fn fails(self, class: FailureClass) -> Self {
        self.apply(move |_| async move { Err(Failure::new(class, "it went wrong").hint("Put it right.")) })
    }
    pub(crate) fn takes(self, time: Duration) -> Self {
        self.apply(move |_| async move {
            tokio::time::sleep(time).await;
            Ok(())
        })
    }
}

#[async_trait]
impl Step for Scripted {
    fn describe(&self) -> StepDescription {
        self.description.clone()
    }
    async fn apply(&self, cx: &StepContext) -> Result<(), Failure> {
        (self.apply)(cx.clone()).await
    }
    async fn verify(&self, cx: &StepContext) -> Result<Verdict, Failure> {
        (self.verify)(cx.clone()).await
    }
    fn limit(&self) -> Duration {
        self.limit
    }
}

pub(crate) fn lane(name: &str, steps: Vec<Scripted>) -> Lane {
    let steps = steps.into_iter().map(|s| Arc::new(s) as Arc<dyn Step>).collect();
    Lane { subject: Subject::node(name), steps }
}

pub(crate) fn stage(title: &str, lanes: Vec<Lane>) -> Stage {
    Stage { title: title.to_owned(), lanes }
}

/// One stage with one lane.
pub(crate) fn plan(steps: Vec<Scripted>) -> Plan {
    Plan { stages: vec![stage("only", vec![lane("node1", steps)])] }
}

/// Answers the first look with the first plan, the second with the second, and then with the empty plan.
pub(crate) struct Plans(Mutex<VecDeque<Plan>>);

impl Plans {
    pub(crate) fn new(plans: impl IntoIterator<Item = Plan>) -> Self {
        Self(Mutex::new(plans.into_iter().collect()))
    }
    pub(crate) fn one_stage(lanes: Vec<Lane>) -> Self {
        Self::new([Plan { stages: vec![stage("only", lanes)] }])
    }
}

#[async_trait]
impl Reconcile for Plans {
    type Observed = Plan;
    async fn observe(&self, _: &StepContext) -> Result<Plan, Failure> {
        Ok(self.0.lock().unwrap().pop_front().unwrap_or_default())
    }
    fn plan(&self, observed: &Plan, _: &State) -> Result<Plan, Failure> {
        Ok(observed.clone())
    }
}

#[derive(Clone, Default)]
pub(crate) struct Recorder(Arc<Mutex<Vec<Event>>>);

impl EventSink for Recorder {
    fn emit(&self, event: &Event) {
        self.0.lock().unwrap().push(event.clone());
    }
}

impl Recorder {
    pub(crate) fn events(&self) -> Vec<Event> {
        self.0.lock().unwrap().clone()
    }
    pub(crate) fn json(&self) -> String {
        serde_json::to_string(&self.events()).unwrap()
    }
    /// The outcome of each step that ended, in order.
    pub(crate) fn outcomes(&self) -> Vec<(String, Outcome)> {
        let ended = |e: Event| match e.kind {
            EventKind::StepFinished { outcome, .. } => Some((e.step.unwrap(), outcome)),
            _ => None,
        };
        self.events().into_iter().filter_map(ended).collect()
    }
    pub(crate) fn outcome(&self, id: &str) -> Outcome {
        let all = self.outcomes();
        all.iter().find(|(step, _)| step == id).unwrap_or_else(|| panic!("`{id}` did not end: {all:?}")).1
    }
    pub(crate) fn position(&self, found: impl Fn(&Event) -> bool) -> usize {
        self.events().iter().position(found).unwrap()
    }
    pub(crate) fn summary(&self) -> Summary {
        match self.events().pop().unwrap().kind {
            EventKind::RunFinished { summary } => summary,
            other => panic!("the last event is {other:?}"),
        }
    }
}

/// An executor with its store, sink and stop button at hand.
pub(crate) struct Bench {
    pub(crate) store: MemoryStateStore,
    pub(crate) sink: Recorder,
    pub(crate) cancel: Cancellation,
    pub(crate) executor: Executor,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(|builder| builder)
    }
    pub(crate) fn with(change: impl FnOnce(ExecutorBuilder) -> ExecutorBuilder) -> Self {
        let (store, sink, cancel) = (MemoryStateStore::new(), Recorder::default(), Cancellation::new());
        let builder = Executor::builder(Arc::new(store.clone()), Arc::new(sink.clone()))
            .timing(Timing::fast())
            .cancellation(cancel.clone())
            .verb("apply")
            .target("toy");
        Self { store, sink, cancel, executor: change(builder).build() }
    }
    pub(crate) async fn run(&self, target: &impl Reconcile) -> Result<Summary, Failure> {
        self.executor.converge(target, &Approval::everything()).await
    }
}

/// The failure's sentence and those of its causes.
pub(crate) fn chain(failure: &Failure) -> String {
    let report = failure.report();
    std::iter::once(report.message).chain(report.causes).collect::<Vec<_>>().join(": ")
}
