use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};
use turingpi_engine::{Approval, EventKind, Failure, FailureClass, Outcome, Risk, Verdict};

use crate::support::{Bench, Plans, Scripted, chain, describe, lane, step};

/// A step that tells when it runs, ends when it is told to, and notes whether it was dropped before its end.
struct Gate {
    running: Arc<Notify>,
    go: Arc<Notify>,
    verified: Arc<AtomicBool>,
    dropped: Arc<AtomicBool>,
}

struct OnDrop(Option<Arc<AtomicBool>>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        if let Some(flag) = &self.0 {
            flag.store(true, Ordering::SeqCst);
        }
    }
}

fn gated(id: &str) -> (Scripted, Gate) {
    let gate = Gate {
        running: Arc::default(),
        go: Arc::default(),
        verified: Arc::default(),
        dropped: Arc::default(),
    };
    let (running, go) = (Arc::clone(&gate.running), Arc::clone(&gate.go));
    let (verified, dropped) = (Arc::clone(&gate.verified), Arc::clone(&gate.dropped));
    let step = step(describe(id).risk(Risk::Destructive))
        .apply(move |_| {
            let (running, go, dropped) = (Arc::clone(&running), Arc::clone(&go), Arc::clone(&dropped));
            async move {
                let mut guard = OnDrop(Some(dropped));
                running.notify_one();
                go.notified().await;
                guard.0 = None;
                Ok(())
            }
        })
        .verify(move |_| {
            verified.store(true, Ordering::SeqCst);
            async { Ok(Verdict::Converged) }
        });
    (step, gate)
}

#[tokio::test]
async fn a_soft_stop_lets_running_steps_end_with_their_verify_and_starts_nothing_new() {
    let bench = Bench::new();
    let (flash, gate) = gated("a/flash");
    let plans = Plans::one_stage(vec![
        lane("a", vec![flash, step(describe("a/boot"))]),
        lane("c", vec![step(describe("c/1").needs("m"))]),
        lane("d", vec![step(describe("d/never").reaches("m")).takes(Duration::from_secs(3600))]),
    ]);
    let run = bench.run(&plans);
    let stop = async {
        gate.running.notified().await;
        bench.cancel.stop();
        gate.go.notify_one();
        // The long sleeper of lane d runs and would end by itself, in an hour.
        tokio::time::pause();
    };
    let (result, ()) = tokio::join!(run, stop);
    let failure = result.unwrap_err();
    assert_eq!(failure.class(), FailureClass::Cancelled);
    assert!(failure.hint_text().unwrap().contains("Run the same command again"));
    assert!(gate.verified.load(Ordering::SeqCst) && !gate.dropped.load(Ordering::SeqCst));
    assert_eq!(bench.sink.outcome("a/flash"), Outcome::Done);
    assert_eq!(bench.sink.outcome("a/boot"), Outcome::Cancelled);
    assert_eq!(bench.sink.outcome("c/1"), Outcome::Cancelled);
    assert_eq!(bench.sink.outcome("d/never"), Outcome::Done);
    assert_eq!(bench.sink.summary().outcome, Outcome::Cancelled);
    assert!(bench.store.snapshot().in_doubt.is_empty());
    assert_eq!(bench.store.snapshot().runs[0].summary, Some(bench.sink.summary()));
}

#[tokio::test]
async fn a_hard_stop_drops_what_runs_keeps_its_mark_and_still_ends_the_stream() {
    let bench = Bench::new();
    let (flash, gate) = gated("a/flash");
    let plans = Plans::one_stage(vec![lane("a", vec![flash, step(describe("a/boot"))])]);
    let stop = async {
        gate.running.notified().await;
        bench.cancel.stop_now();
    };
    let (result, ()) = tokio::join!(bench.run(&plans), stop);
    assert_eq!(result.unwrap_err().class(), FailureClass::Cancelled);
    assert!(gate.dropped.load(Ordering::SeqCst), "the step's future is gone before the run returns");
    assert!(!gate.verified.load(Ordering::SeqCst));
    assert_eq!(bench.sink.outcome("a/flash"), Outcome::Cancelled);
    assert_eq!(bench.sink.outcome("a/boot"), Outcome::Cancelled);
    assert_eq!(bench.sink.summary().outcome, Outcome::Cancelled);
    assert!(bench.store.snapshot().in_doubt.contains_key("a/flash"));
}

#[tokio::test]
async fn dropping_the_run_aborts_its_lanes_and_silences_it() {
    let bench = Bench::new();
    let (flash, gate) = gated("a/flash");
    let plans = Plans::one_stage(vec![lane("a", vec![flash])]);
    tokio::select! {
        _ = bench.run(&plans) => panic!("the run ended"),
        () = gate.running.notified() => {}
    }
    let said = bench.sink.events().len();
    // The next run of the executor waits until the tasks of the dropped one are gone.
    bench.run(&Plans::new([])).await.unwrap();
    assert!(gate.dropped.load(Ordering::SeqCst));
    let events = bench.sink.events();
    assert!(events[said..].iter().all(|e| e.run != events[0].run), "{:?}", &events[said..]);
    assert!(bench.store.snapshot().in_doubt.contains_key("a/flash"));
    assert_eq!(bench.store.snapshot().runs[0].summary, None);
}

#[tokio::test]
async fn a_stop_before_the_run_changes_nothing() {
    let bench = Bench::new();
    bench.cancel.stop();
    let failure = bench.run(&Plans::one_stage(vec![lane("a", vec![step(describe("a"))])])).await.unwrap_err();
    assert_eq!(failure.class(), FailureClass::Cancelled);
    assert_eq!(bench.sink.summary().steps_done, 0);
    assert!(bench.sink.outcomes().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_soft_stop_ends_the_pause_before_a_retry() {
    let bench = Bench::new();
    let banned = step(describe("login")).apply(|_| async {
        Err(Failure::new(FailureClass::Auth, "banned").retry_after(Duration::from_secs(200)))
    });
    let before = Instant::now();
    let stop = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        bench.cancel.stop();
    };
    let plans = Plans::one_stage(vec![lane("a", vec![banned])]);
    let (result, ()) = tokio::join!(bench.run(&plans), stop);
    assert_eq!(result.unwrap_err().class(), FailureClass::Cancelled);
    assert!(before.elapsed() < Duration::from_secs(5));
    assert_eq!(bench.sink.outcome("login"), Outcome::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn a_long_step_may_end_early_at_a_safe_point() {
    let bench = Bench::new();
    let patient = step(describe("drain")).apply(|cx| async move {
        while !cx.stopping() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Err(Failure::new(FailureClass::Cancelled, "stopped after 3 of 9 workloads"))
    });
    let stop = async {
        tokio::time::sleep(Duration::from_secs(10)).await;
        bench.cancel.stop();
    };
    let plans = Plans::one_stage(vec![lane("a", vec![patient])]);
    let (result, ()) = tokio::join!(bench.run(&plans), stop);
    assert_eq!(chain(&result.unwrap_err()), "stopped before everything was done");
    let told = bench.sink.events().into_iter().find_map(|e| match e.kind {
        EventKind::StepFinished { failure, outcome: Outcome::Cancelled, .. } => failure,
        _ => None,
    });
    assert_eq!(told.unwrap().message, "stopped after 3 of 9 workloads");
}

#[tokio::test(start_paused = true)]
async fn a_failure_outweighs_a_stop() {
    let bench = Bench::new();
    let cancel = bench.cancel.clone();
    let bad = step(describe("a")).apply(move |_| {
        cancel.stop();
        async { Err(Failure::new(FailureClass::Refused, "no")) }
    });
    let plans = Plans::one_stage(vec![lane("a", vec![bad]), lane("b", vec![step(describe("b").needs("x"))])]);
    let failure = bench.executor.converge(&plans, &Approval::everything()).await.unwrap_err();
    assert_eq!(failure.class(), FailureClass::Refused);
    assert_eq!(bench.sink.summary().outcome, Outcome::Failed);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_outlives_a_dropped_run_says_nothing() {
    let bench = Bench::new();
    let talker = step(describe("talk")).apply(|cx| async move {
        tokio::spawn(async move {
            for word in 0..60 {
                cx.note(format!("word {word}"));
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        std::future::pending().await
    });
    let plans = Plans::one_stage(vec![lane("a", vec![talker])]);
    assert!(tokio::time::timeout(Duration::from_secs(10), bench.run(&plans)).await.is_err());
    let said = bench.sink.events().len();
    assert!(said > 10);
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(bench.sink.events().len(), said);
}
