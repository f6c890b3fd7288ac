use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::{Instant, sleep};
use turingpi_engine::{
    Cancellation, EventKind, Failure, FailureClass, Generation, MemoryStateStore, Probe, State, StateStore,
    StepContext, Subject, Timing, Unit,
};

use crate::support::Recorder;

struct Desk {
    cx: StepContext,
    sink: Recorder,
    cancel: Cancellation,
    store: MemoryStateStore,
}

fn desk() -> Desk {
    let (sink, cancel, store) = (Recorder::default(), Cancellation::new(), MemoryStateStore::new());
    let timing = Timing { limit_factor: 2.0, poll: Duration::from_secs(1), ..Timing::fast() };
    let cx = StepContext::detached(Arc::new(store.clone()), Arc::new(sink.clone()), timing, cancel.clone());
    Desk { cx, sink, cancel, store }
}

fn waits(sink: &Recorder) -> Vec<String> {
    let seen = |k| match k {
        EventKind::Waiting { last_seen, .. } => Some(last_seen),
        _ => None,
    };
    sink.events().into_iter().filter_map(|e| seen(e.kind)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_wait_tells_what_changes_and_repeats_what_stays_every_five_seconds() {
    let desk = desk();
    let looks = AtomicUsize::new(0);
    let began = Instant::now();
    let probe = || async {
        looks.fetch_add(1, Ordering::SeqCst);
        Ok(match began.elapsed().as_secs() {
            0..12 => Probe::NotYet("kernel boots".to_owned()),
            12..14 => Probe::NotYet("login:".to_owned()),
            _ => Probe::Ready(7),
        })
    };
    let value = desk.cx.wait("ssh on node1", Duration::from_secs(60), probe).await.unwrap();
    assert_eq!(value, 7);
    // Eight a second at first, then one a second.
    assert!((16 + 14..60).contains(&looks.load(Ordering::SeqCst)), "{looks:?}");
    assert_eq!(waits(&desk.sink), ["kernel boots", "kernel boots", "kernel boots", "login:"]);
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_at_its_scaled_limit_and_names_what_it_saw_last() {
    let desk = desk();
    let before = Instant::now();
    let probe = || async { Ok(Probe::<()>::NotYet("NotReady".to_owned())) };
    let failure = desk.cx.wait("node1 to be Ready", Duration::from_secs(30), probe).await.unwrap_err();
    assert_eq!(before.elapsed(), Duration::from_secs(60));
    assert_eq!((failure.class(), failure.is_retryable()), (FailureClass::Timeout, false));
    assert_eq!(failure.to_string(), "waited 60s for node1 to be Ready; last seen: NotReady");
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_hangs_does_not_outlive_the_limit() {
    let desk = desk();
    let hang = || std::future::pending::<Result<Probe<()>, Failure>>();
    let failure = desk.cx.wait("an answer", Duration::from_secs(5), hang).await.unwrap_err();
    assert_eq!(failure.to_string(), "waited 10s for an answer; last seen: nothing yet");
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_fails_for_now_is_asked_again_and_one_that_fails_for_good_is_not() {
    let desk = desk();
    let flaky =
        || Failure::new(FailureClass::Unreachable, "connection refused").retryable().hint("Power it on.");
    let looks = AtomicUsize::new(0);
    let probe = || async {
        if looks.fetch_add(1, Ordering::SeqCst) < 2 { Err(flaky()) } else { Ok(Probe::Ready(())) }
    };
    desk.cx.wait("ssh", Duration::from_secs(9), probe).await.unwrap();
    assert_eq!(waits(&desk.sink), ["connection refused"]);

    let failure =
        desk.cx.wait::<(), _, _>("ssh", Duration::from_secs(9), || async { Err(flaky()) }).await.unwrap_err();
    let report = failure.report();
    assert_eq!(report.message, "waited 18s for ssh");
    assert_eq!(
        (report.causes, report.hint.as_deref()),
        (vec!["connection refused".to_owned()], Some("Power it on."))
    );

    let refused = || async { Err::<Probe<()>, _>(Failure::new(FailureClass::Auth, "key refused")) };
    assert_eq!(
        desk.cx.wait("ssh", Duration::from_secs(9), refused).await.unwrap_err().class(),
        FailureClass::Auth
    );
}

#[tokio::test(start_paused = true)]
async fn a_hard_stop_ends_a_wait_and_a_soft_one_does_not() {
    for (hard, class) in [(true, FailureClass::Cancelled), (false, FailureClass::Timeout)] {
        let desk = desk();
        let (hang, stop) = (|| std::future::pending::<Result<Probe<()>, Failure>>(), async {
            sleep(Duration::from_secs(1)).await;
            if hard { desk.cancel.stop_now() } else { desk.cancel.stop() }
        });
        let (result, ()) = tokio::join!(desk.cx.wait("it", Duration::from_secs(60), hang), stop);
        assert_eq!(result.unwrap_err().class(), class);
        assert!(desk.cx.stopping());
    }
}

#[tokio::test(start_paused = true)]
async fn progress_is_thinned_out_and_the_last_one_always_gets_through() {
    let desk = desk();
    let cx = desk.cx.scoped(Subject::node("node1"), "node1/flash");
    for done in 0..=999 {
        cx.progress(done, Some(2000), Unit::Bytes);
        sleep(Duration::from_millis(1)).await;
    }
    cx.note("the upload was cut");
    let events = desk.sink.events();
    let told: Vec<u64> = events
        .iter()
        .filter_map(|e| match e.kind {
            EventKind::Progress { done, .. } => Some(done),
            _ => None,
        })
        .collect();
    assert!((10..=12).contains(&told.len()), "{told:?}");
    assert_eq!(told.last(), Some(&999));
    assert!(told.is_sorted());
    assert!(matches!(events.last().unwrap().kind, EventKind::Note { .. }));
    assert!(events.iter().all(|e| e.step.as_deref() == Some("node1/flash")));
    assert!(events.iter().map(|e| e.seq).eq(1..=events.len() as u64));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_progress_is_told_at_once() {
    let desk = desk();
    desk.cx.progress(1, Some(2), Unit::Items);
    desk.cx.progress(2, Some(2), Unit::Items);
    desk.cx.progress(2, Some(2), Unit::Items);
    assert_eq!(desk.sink.events().len(), 2);
}

#[tokio::test]
async fn a_change_is_saved_before_it_counts_and_one_that_fails_changes_nothing() {
    let desk = desk();
    desk.cx.update_state(|s| s.put_record("a", &1)).await.unwrap();
    assert_eq!(desk.store.snapshot().record::<u8>("a").unwrap(), Some(1));
    let refuse = |s: &mut State| -> Result<(), Failure> {
        s.put_record("a", &2)?;
        Err(Failure::new(FailureClass::Refused, "no"))
    };
    assert_eq!(desk.cx.update_state(refuse).await.unwrap_err().class(), FailureClass::Refused);
    assert_eq!(desk.cx.state().await.unwrap().record::<u8>("a").unwrap(), Some(1));
}

#[tokio::test]
async fn changes_of_many_tasks_are_all_kept() {
    let desk = desk();
    let tasks = (0..50).map(|i| {
        let cx = desk.cx.clone();
        tokio::spawn(async move { cx.update_state(|s| s.put_record(format!("r{i}"), &i)).await.unwrap() })
    });
    futures::future::join_all(tasks).await;
    assert_eq!(desk.store.snapshot().record_keys("r").count(), 50);
}

/// Saves, and then keeps its caller waiting for ever, or fails.
#[derive(Clone)]
struct Awkward {
    store: MemoryStateStore,
    saves: Arc<AtomicUsize>,
    hang_at: usize,
    fail_at: usize,
}

#[async_trait]
impl StateStore for Awkward {
    async fn load(&self) -> Result<(State, Generation), Failure> {
        self.store.load().await
    }
    async fn save(&self, state: &State, seen: Generation) -> Result<Generation, Failure> {
        let count = self.saves.fetch_add(1, Ordering::SeqCst) + 1;
        if count == self.fail_at {
            return Err(Failure::new(FailureClass::Config, "disk full"));
        }
        let next = self.store.save(state, seen).await?;
        if count == self.hang_at {
            std::future::pending::<()>().await;
        }
        Ok(next)
    }
}

#[tokio::test(start_paused = true)]
async fn a_save_whose_caller_went_away_or_that_failed_leaves_the_state_usable() {
    let store = Awkward { store: MemoryStateStore::new(), saves: Arc::default(), hang_at: 2, fail_at: 4 };
    let sink = Arc::new(Recorder::default());
    let cx = StepContext::detached(Arc::new(store.clone()), sink, Timing::fast(), Cancellation::new());
    let put = |key: &'static str| cx.update_state(move |s| s.put_record(key, &true));
    put("first").await.unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(1), put("dropped half-way")).await.is_err());
    put("third").await.unwrap();
    assert_eq!(put("fourth").await.unwrap_err().class(), FailureClass::Config);
    put("fifth").await.unwrap();
    let state = cx.state().await.unwrap();
    assert_eq!(state.record_keys("").collect::<Vec<_>>(), ["dropped half-way", "fifth", "first", "third"]);
}
