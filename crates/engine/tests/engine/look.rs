//! Looks that stumble, and pauses that the other side asks for.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::Instant;
use turingpi_engine::{EventKind, Failure, FailureClass, Plan, Reconcile, State, StepContext};

use crate::support::{Bench, Plans, describe, lane, step};

/// A world that cannot be looked at for the first few times.
struct Stumbles {
    failures: u32,
    looks: AtomicU32,
    how: fn() -> Failure,
    at: Mutex<Vec<Instant>>,
}

impl Stumbles {
    fn new(failures: u32, how: fn() -> Failure) -> Self {
        Self { failures, looks: AtomicU32::new(0), how, at: Mutex::default() }
    }
    fn looks(&self) -> u32 {
        self.looks.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Reconcile for Stumbles {
    type Observed = ();
    async fn observe(&self, _: &StepContext) -> Result<(), Failure> {
        self.at.lock().unwrap().push(Instant::now());
        if self.looks.fetch_add(1, Ordering::Relaxed) < self.failures {
            return Err((self.how)());
        }
        Ok(())
    }
    fn plan(&self, (): &(), _: &State) -> Result<Plan, Failure> {
        Ok(Plan::default())
    }
}

fn cut() -> Failure {
    Failure::new(FailureClass::Unreachable, "the line was cut").retryable()
}
fn stumbled() -> Failure {
    Failure::new(FailureClass::Refused, "HTTP 500").retryable()
}
fn banned() -> Failure {
    Failure::new(FailureClass::Auth, "banned").retry_after(Duration::from_secs(42))
}
fn banned_for_long() -> Failure {
    Failure::new(FailureClass::Auth, "banned").retry_after(Duration::from_secs(17 * 3600))
}

#[tokio::test(start_paused = true)]
async fn a_look_that_is_cut_off_is_tried_again_like_a_step() {
    let (bench, world) = (Bench::new(), Stumbles::new(2, cut));
    bench.run(&world).await.unwrap();
    assert_eq!(world.looks(), 3);
    let retries = bench.sink.events().iter().filter(|e| matches!(e.kind, EventKind::Retrying { .. })).count();
    assert_eq!(retries, 2);

    let (bench, world) = (Bench::new(), Stumbles::new(u32::MAX, cut));
    assert_eq!(bench.run(&world).await.unwrap_err().class(), FailureClass::Unreachable);
    assert_eq!(world.looks(), 4, "as often as a step");
    let world = Stumbles::new(1, || Failure::new(FailureClass::Unreachable, "for good"));
    bench.run(&world).await.unwrap_err();
    assert_eq!(world.looks(), 1, "what is final stays final");
}

#[tokio::test(start_paused = true)]
async fn a_preview_of_its_own_waits_for_nobody_and_one_before_a_run_does() {
    let bench = Bench::new();
    for how in [cut, banned] {
        let world = Stumbles::new(1, how);
        bench.executor.preview(&world).await.unwrap_err();
        assert_eq!(world.looks(), 1);
    }
    // What answers at once is asked again at once.
    let world = Stumbles::new(1, stumbled);
    bench.executor.preview(&world).await.unwrap();
    assert_eq!(world.looks(), 2);
    let patient = Bench::with(|builder| builder.patient(true));
    for how in [cut, banned] {
        let world = Stumbles::new(1, how);
        patient.executor.preview(&world).await.unwrap();
        assert_eq!(world.looks(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_ban_of_known_length_is_a_named_wait_and_nothing_is_tried_within_it() {
    let (bench, world) = (Bench::new(), Stumbles::new(1, banned));
    bench.run(&world).await.unwrap();
    let at = world.at.lock().unwrap().clone();
    assert!(at[1] - at[0] >= Duration::from_secs(42), "{at:?}");
    let seen: Vec<_> = bench
        .sink
        .events()
        .into_iter()
        .filter_map(|e| match e.kind {
            EventKind::Waiting { condition, last_seen } => Some((condition, last_seen)),
            _ => None,
        })
        .collect();
    assert!(seen[0].0.contains("because banned") && seen[0].1 == "42 s left", "{seen:?}");
    assert!(seen.len() > 5, "{seen:?}");

    // One of a length that nobody sits out is final, for a look and for a step.
    let world = Stumbles::new(1, banned_for_long);
    bench.run(&world).await.unwrap_err();
    assert_eq!(world.looks(), 1);
    let began = Instant::now();
    let once = step(describe("a")).apply(|_| async { Err(banned_for_long()) });
    bench.run(&Plans::one_stage(vec![lane("node1", vec![once])])).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_was_asked_for_ends_with_a_stop() {
    let (bench, world) = (Bench::new(), Stumbles::new(1, banned));
    let stop = async {
        tokio::time::sleep(Duration::from_secs(7)).await;
        bench.cancel.stop();
    };
    let began = Instant::now();
    let (end, ()) = tokio::join!(bench.run(&world), stop);
    assert_eq!(end.unwrap_err().class(), FailureClass::Cancelled);
    assert!(began.elapsed() < Duration::from_secs(10));
}
