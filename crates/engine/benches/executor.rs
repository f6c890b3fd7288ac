//! What the executor itself costs: lanes of steps that do nothing.
//!
//! `cargo bench -p turingpi-engine`
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run has nothing better to do")]

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use async_trait::async_trait;
use divan::{Bencher, counter::ItemsCount};
use tokio::runtime::{Builder, Runtime};
use turingpi_engine::{
    Approval, Event, Executor, Failure, Lane, MemoryStateStore, Plan, Reconcile, Risk, Stage, State, Step,
    StepContext, StepDescription, Subject, report::Timeline,
};

const LANES: usize = 64;
const STEPS: usize = 20;

fn main() {
    divan::main();
}

struct Idle(StepDescription);

#[async_trait]
impl Step for Idle {
    fn describe(&self) -> StepDescription {
        self.0.clone()
    }
    async fn apply(&self, _: &StepContext) -> Result<(), Failure> {
        Ok(())
    }
}

/// Plans everything once, and then nothing.
struct Work {
    plan: Plan,
    done: AtomicBool,
}

impl Work {
    fn new(change: impl Fn(StepDescription, usize) -> StepDescription) -> Self {
        let step = |lane: usize, step: usize| {
            let description = StepDescription::new(format!("{lane}/{step}"), "Do nothing", "bench");
            Arc::new(Idle(change(description, lane))) as Arc<dyn Step>
        };
        let lanes = (0..LANES).map(|l| Lane {
            subject: Subject::node(format!("node{l}")),
            steps: (0..STEPS).map(|s| step(l, s)).collect(),
        });
        let plan = Plan { stages: vec![Stage { title: "all".to_owned(), lanes: lanes.collect() }] };
        Self { plan, done: AtomicBool::new(false) }
    }
}

#[async_trait]
impl Reconcile for Work {
    type Observed = bool;
    async fn observe(&self, _: &StepContext) -> Result<bool, Failure> {
        Ok(self.done.swap(true, Ordering::SeqCst))
    }
    fn plan(&self, done: &bool, _: &State) -> Result<Plan, Failure> {
        Ok(if *done { Plan::default() } else { self.plan.clone() })
    }
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap()
}

fn bench(bencher: Bencher<'_, '_>, change: impl Fn(StepDescription, usize) -> StepDescription + Sync) {
    let runtime = runtime();
    bencher.counter(ItemsCount::new(LANES * STEPS)).with_inputs(|| Work::new(&change)).bench_refs(|work| {
        let seen = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&seen);
        let sink = Arc::new(move |_: &Event| {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        let executor = Executor::builder(Arc::new(MemoryStateStore::new()), sink).build();
        let summary = runtime.block_on(executor.converge(work, &Approval::everything())).unwrap();
        assert_eq!(summary.steps_done, LANES * STEPS);
        seen.load(Ordering::Relaxed)
    });
}

#[divan::bench]
fn idle_steps(bencher: Bencher<'_, '_>) {
    bench(bencher, |step, _| step);
}

#[divan::bench]
fn idle_steps_that_share_eight_locks(bencher: Bencher<'_, '_>) {
    bench(bencher, |step, lane| step.lock(format!("board{}/transfer", lane % 8)));
}

#[divan::bench]
fn idle_destructive_steps_with_marks_in_memory(bencher: Bencher<'_, '_>) {
    bench(bencher, |step, _| step.risk(Risk::Destructive));
}

#[divan::bench]
fn timeline_of_such_a_run(bencher: Bencher<'_, '_>) {
    let events = Arc::new(std::sync::Mutex::new(Vec::new()));
    let kept = Arc::clone(&events);
    let sink = Arc::new(move |event: &Event| kept.lock().unwrap().push(event.clone()));
    let executor = Executor::builder(Arc::new(MemoryStateStore::new()), sink).build();
    let work = Work::new(|step, lane| step.lock(format!("board{}/transfer", lane % 8)));
    runtime().block_on(executor.converge(&work, &Approval::everything())).unwrap();
    let events = events.lock().unwrap();
    bencher.counter(ItemsCount::new(events.len())).bench(|| Timeline::from_events(&events));
}
