use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use turingpi_engine::{
    EventKind, Failure, FailureClass, Gate, Outcome, Plan, Reconcile, Risk, State, StateStore, StepContext,
    Summary, Timing, Verdict,
};

use crate::{
    support::{Bench, Plans, chain, describe, lane, plan, stage, step},
    toy::World,
};

#[tokio::test(start_paused = true)]
async fn a_world_that_is_as_wanted_takes_zero_steps() {
    let (bench, world) = (Bench::new(), World::new());
    let first = bench.run(&world).await.unwrap();
    assert_eq!((first.steps_done, first.rounds, first.outcome), (9, 2, Outcome::Done));
    let second = bench.run(&world).await.unwrap();
    assert_eq!((second.steps_done, second.rounds, second.outcome), (0, 1, Outcome::Done));
    assert!(bench.executor.preview(&world).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_preview_changes_nothing_and_shows_what_the_run_will_do() {
    let (bench, world) = (Bench::new(), World::new());
    let preview = bench.executor.preview(&world).await.unwrap();
    assert_eq!(preview.steps().count(), 9);
    assert_eq!(world.slots().values().map(|s| s.flashes).sum::<usize>(), 0);
    assert!(bench.store.snapshot().runs.is_empty());
    bench.run(&world).await.unwrap();
    let observed = bench.sink.events().into_iter().find_map(|e| match e.kind {
        EventKind::Observed { preview, digest, .. } => Some((preview, digest)),
        _ => None,
    });
    assert_eq!(observed, Some((preview.clone(), preview.digest())));
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_fails_does_not_stop_the_others_but_the_next_stage_does_not_start() {
    let bench = Bench::new();
    let first = stage(
        "first",
        vec![
            lane(
                "bad",
                vec![
                    step(describe("bad/1")).fails(FailureClass::Refused),
                    step(describe("bad/2").reaches("m")),
                ],
            ),
            lane(
                "good",
                vec![step(describe("good/1")).takes(Duration::from_secs(1)), step(describe("good/2"))],
            ),
            lane("needy", vec![step(describe("needy/1")), step(describe("needy/2").needs("m"))]),
        ],
    );
    let second = stage("second", vec![lane("good", vec![step(describe("good/3"))])]);
    let failure = bench.run(&Plans::new([Plan { stages: vec![first, second] }])).await.unwrap_err();
    assert_eq!(failure.class(), FailureClass::Refused);
    assert_eq!(chain(&failure), "`bad/1` failed: it went wrong");
    assert_eq!(failure.hint_text(), Some("Put it right."));
    let outcome = |id| bench.sink.outcome(id);
    assert_eq!((outcome("bad/1"), outcome("bad/2")), (Outcome::Failed, Outcome::Blocked));
    assert_eq!((outcome("good/1"), outcome("good/2")), (Outcome::Done, Outcome::Done));
    assert_eq!((outcome("needy/1"), outcome("needy/2")), (Outcome::Done, Outcome::Blocked));
    assert!(bench.sink.outcomes().iter().all(|(id, _)| id != "good/3"));
    let Summary { outcome, steps_done, steps_failed, failures, .. } = bench.sink.summary();
    assert_eq!((outcome, steps_done, steps_failed), (Outcome::Failed, 3, 1));
    assert_eq!(failures.len(), 1);
    assert_eq!(failures[0].step.as_deref(), Some("bad/1"));
    assert_eq!(bench.store.snapshot().runs[0].summary, Some(bench.sink.summary()));
}

#[tokio::test(start_paused = true)]
async fn a_step_waits_for_its_milestone_and_one_that_nobody_provides_is_there_already() {
    let bench = Bench::new();
    let slow = step(describe("a/1").reaches("api")).takes(Duration::from_secs(9));
    let lanes = vec![
        lane("b", vec![step(describe("b/1").needs("network")), step(describe("b/2").needs("api"))]),
        lane("a", vec![slow]),
    ];
    bench.run(&Plans::one_stage(lanes)).await.unwrap();
    let finished = |id: &'static str| {
        bench.sink.position(move |e| {
            matches!(e.kind, EventKind::StepFinished { .. }) && e.step.as_deref() == Some(id)
        })
    };
    assert!(finished("b/1") < finished("a/1") && finished("a/1") < finished("b/2"));
    let queued = bench.sink.events().into_iter().filter_map(|e| match e.kind {
        EventKind::StepQueued { waits_for, gate } => Some((e.step.unwrap(), waits_for, gate)),
        _ => None,
    });
    assert_eq!(queued.collect::<Vec<_>>(), [("b/2".to_owned(), "api".to_owned(), Gate::Milestone)]);
}

#[tokio::test(start_paused = true)]
async fn a_milestone_stays_reached_in_later_stages() {
    let bench = Bench::new();
    let stages = vec![
        stage("one", vec![lane("a", vec![step(describe("a/1").reaches("api"))])]),
        stage("two", vec![lane("b", vec![step(describe("b/1").needs("api"))])]),
    ];
    assert_eq!(bench.run(&Plans::new([Plan { stages }])).await.unwrap().steps_done, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lock_goes_to_the_lanes_in_their_order_whichever_thread_wakes_first() {
    for _ in 0..20 {
        let bench = Bench::new();
        let names: Vec<_> = (0..8).map(|i| format!("n{i}")).collect();
        let flash = |n: &String| {
            let work = |_| async {
                tokio::task::yield_now().await;
                Ok(())
            };
            step(describe(&format!("{n}/flash")).lock("transfer")).apply(work)
        };
        let lanes = names.iter().map(|n| lane(n, vec![flash(n)])).collect();
        bench.run(&Plans::one_stage(lanes)).await.unwrap();
        let order: Vec<_> = bench.sink.outcomes().into_iter().map(|(id, _)| id).collect();
        assert_eq!(order, names.iter().map(|n| format!("{n}/flash")).collect::<Vec<_>>());
    }
}

#[tokio::test(start_paused = true)]
async fn only_retryable_failures_are_tried_again_and_only_so_often() {
    async fn attempts(
        failure: impl Fn() -> Failure + Send + Sync + 'static,
        good_from: usize,
    ) -> (usize, Bench) {
        let bench = Bench::new();
        let (count, failure) = (Arc::new(AtomicUsize::new(0)), Arc::new(failure));
        let counted = Arc::clone(&count);
        let work = move |_| {
            let (counted, failure) = (Arc::clone(&counted), Arc::clone(&failure));
            async move {
                let attempt = counted.fetch_add(1, Ordering::SeqCst) + 1;
                if attempt >= good_from { Ok(()) } else { Err(failure()) }
            }
        };
        let _ = bench.run(&Plans::new([plan(vec![step(describe("a")).apply(work)])])).await;
        (count.load(Ordering::SeqCst), bench)
    }
    let flaky = || Failure::new(FailureClass::Unreachable, "no answer").retryable();
    let (tried, bench) = attempts(flaky, 3).await;
    assert_eq!((tried, bench.sink.summary().retries, bench.sink.outcome("a")), (3, 2, Outcome::Done));
    let (tried, bench) = attempts(flaky, 99).await;
    assert_eq!((tried, bench.sink.summary().retries, bench.sink.outcome("a")), (4, 3, Outcome::Failed));
    let (tried, bench) = attempts(|| Failure::new(FailureClass::Auth, "refused"), 99).await;
    assert_eq!((tried, bench.sink.summary().retries), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_host_that_asks_to_be_left_alone_is_left_alone_that_long() {
    let bench = Bench::new();
    let calls = Arc::new(std::sync::Mutex::new(Vec::new()));
    let noted = Arc::clone(&calls);
    let work = move |_| {
        let mut calls = noted.lock().unwrap();
        calls.push(Instant::now());
        let banned = calls.len() == 1;
        async move {
            let ban = Failure::new(FailureClass::Auth, "banned").retry_after(Duration::from_secs(300));
            if banned { Err(ban) } else { Ok(()) }
        }
    };
    bench.run(&Plans::new([plan(vec![step(describe("login")).apply(work)])])).await.unwrap();
    let calls = calls.lock().unwrap();
    assert!(calls[1] - calls[0] >= Duration::from_secs(300));
}

#[tokio::test(start_paused = true)]
async fn verify_is_asked_until_it_agrees_and_not_longer_than_its_limit() {
    let bench = Bench::with(|b| b.timing(Timing { limit_factor: 0.5, ..Timing::fast() }));
    let looks = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&looks);
    let slow = step(describe("slow")).verify(move |_| {
        let look = counted.fetch_add(1, Ordering::SeqCst);
        async move { Ok(if look < 5 { Verdict::NotYet(format!("{look} of 5")) } else { Verdict::Converged }) }
    });
    let never = step(describe("never"))
        .verify(|_| async { Ok(Verdict::NotYet("NotReady".to_owned())) })
        .limit(Duration::from_secs(20));
    let before = Instant::now();
    let failure = bench.run(&Plans::new([plan(vec![slow, never])])).await.unwrap_err();
    let took = before.elapsed();
    assert_eq!(looks.load(Ordering::SeqCst), 6);
    assert!(took >= Duration::from_secs(10) && took < Duration::from_secs(11), "{took:?}");
    assert_eq!(failure.class(), FailureClass::Timeout);
    assert_eq!(chain(&failure), "`never` failed: waited 10s for the result of `never`; last seen: NotReady");
}

#[tokio::test(start_paused = true)]
async fn a_mark_stands_in_the_store_while_a_destructive_step_runs_and_stays_if_it_fails() {
    let bench = Bench::new();
    let (store, seen) = (bench.store.clone(), Arc::new(AtomicBool::new(false)));
    let (looking, marked) = (store.clone(), Arc::clone(&seen));
    let flash = step(describe("n/flash").risk(Risk::Destructive)).apply(move |_| {
        marked.store(looking.snapshot().in_doubt.contains_key("n/flash"), Ordering::SeqCst);
        async { Ok(()) }
    });
    let wipe = step(describe("n/wipe").risk(Risk::Destructive)).fails(FailureClass::Unexpected);
    let boot = step(describe("n/boot").risk(Risk::Disruptive)).fails(FailureClass::Unexpected);
    let lanes = vec![lane("n", vec![flash, wipe]), lane("m", vec![boot])];
    bench.run(&Plans::one_stage(lanes)).await.unwrap_err();
    assert!(seen.load(Ordering::SeqCst));
    let marks = store.snapshot().in_doubt;
    assert_eq!(marks.keys().collect::<Vec<_>>(), ["n/wipe"]);
    assert_eq!(marks["n/wipe"].run, bench.sink.events()[0].run);
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_step_is_its_failure_and_harms_nobody_else() {
    let bench = Bench::new();
    let bad = step(describe("a/1").lock("l").reaches("m")).apply(|_| async { panic!("index out of range") });
    let lanes = vec![
        lane("a", vec![bad]),
        lane("b", vec![step(describe("b/1").lock("l")), step(describe("b/2").needs("m"))]),
    ];
    let failure = bench.run(&Plans::one_stage(lanes)).await.unwrap_err();
    assert_eq!(failure.class(), FailureClass::Unexpected);
    assert!(chain(&failure).contains("`a/1` panicked: index out of range"), "{}", chain(&failure));
    assert_eq!((bench.sink.outcome("b/1"), bench.sink.outcome("b/2")), (Outcome::Done, Outcome::Blocked));
}

struct Broken(&'static str);

#[async_trait::async_trait]
impl Reconcile for Broken {
    type Observed = ();
    async fn observe(&self, _: &StepContext) -> Result<(), Failure> {
        match self.0 {
            "observe" => Err(Failure::new(FailureClass::Unreachable, "no board answers")),
            "observe panics" => panic!("boom"),
            _ => Ok(()),
        }
    }
    fn plan(&self, _: &(), _: &State) -> Result<Plan, Failure> {
        match self.0 {
            "plan" => Err(Failure::new(FailureClass::Config, "two nodes in one slot")),
            "plan panics" => panic!("boom"),
            "ids" => Ok(plan(vec![step(describe("same")), step(describe("same"))])),
            "own milestone" => {
                Ok(plan(vec![step(describe("a").needs("m")), step(describe("b").reaches("m"))]))
            }
            "circle" => Ok(Plan {
                stages: vec![stage(
                    "s",
                    vec![
                        lane("a", vec![step(describe("a1").needs("y").reaches("x"))]),
                        lane("b", vec![step(describe("b1").needs("x").reaches("y"))]),
                    ],
                )],
            }),
            other => panic!("{other}?"),
        }
    }
}

#[rstest::rstest]
#[case("observe", FailureClass::Unreachable, "no board answers")]
#[case("observe panics", FailureClass::Unexpected, "observing panicked: boom")]
#[case("plan", FailureClass::Config, "two nodes in one slot")]
#[case("plan panics", FailureClass::Unexpected, "planning panicked: boom")]
#[case("ids", FailureClass::Unexpected, "the plan holds two steps with the id `same`")]
#[case("own milestone", FailureClass::Unexpected, "the plan cannot be done: `a` wait for milestones")]
#[case("circle", FailureClass::Unexpected, "the plan cannot be done: `a1`, `b1` wait for milestones")]
#[tokio::test]
async fn a_run_that_cannot_begin_says_why_and_still_ends_its_stream(
    #[case] what: &'static str,
    #[case] class: FailureClass,
    #[case] text: &str,
) {
    let bench = Bench::new();
    let failure = bench.run(&Broken(what)).await.unwrap_err();
    assert_eq!(failure.class(), class);
    assert!(failure.to_string().starts_with(text), "{failure}");
    let summary = bench.sink.summary();
    assert_eq!((summary.outcome, summary.failures.len(), summary.steps_done), (Outcome::Failed, 1, 0));
    assert_eq!(summary.failures[0].failure, failure.report());
    assert_eq!(bench.store.snapshot().runs[0].summary.as_ref(), Some(&summary));
    assert_eq!(bench.executor.preview(&Broken(what)).await.unwrap_err().class(), class);
}

#[tokio::test]
async fn a_round_that_changes_nothing_ends_the_run() {
    let bench = Bench::new();
    let same = || plan(vec![step(describe("a"))]);
    let failure = bench.run(&Plans::new([same(), same(), same()])).await.unwrap_err();
    assert_eq!(failure.class(), FailureClass::Unexpected);
    assert!(failure.to_string().contains("nothing changed"), "{failure}");
    assert_eq!(bench.sink.summary().steps_done, 1);
}

#[tokio::test]
async fn a_destructive_step_is_never_done_twice_in_one_run() {
    let bench = Bench::new();
    let flash = || step(describe("n/flash").risk(Risk::Destructive));
    let plans = [plan(vec![flash(), step(describe("n/boot"))]), plan(vec![flash()])];
    let failure = bench.run(&Plans::new(plans)).await.unwrap_err();
    assert_eq!(failure.to_string(), "`n/flash` was done and verified in this run and is planned again");
    assert_eq!(bench.sink.summary().steps_done, 2);
}

#[tokio::test]
async fn a_run_gives_up_after_its_rounds() {
    let bench = Bench::with(|b| b.max_rounds(3));
    let plans = (0..9).map(|i| plan(vec![step(describe(&format!("step{i}")))]));
    let failure = bench.run(&Plans::new(plans)).await.unwrap_err();
    assert_eq!(failure.to_string(), "there is still something to do after 3 rounds: `step3`");
    assert_eq!(bench.sink.summary().steps_done, 3);
}

#[tokio::test]
async fn the_state_remembers_the_last_twenty_runs() {
    let bench = Bench::new();
    for _ in 0..23 {
        bench.run(&Plans::new([])).await.unwrap();
    }
    let runs = bench.store.snapshot().runs;
    assert_eq!(runs.len(), 20);
    assert_eq!(runs[19].run, bench.sink.events().last().unwrap().run);
    assert!(runs.iter().all(|r| r.verb == "apply" && r.summary.as_ref().unwrap().outcome == Outcome::Done));
}

#[tokio::test]
async fn a_save_by_somebody_else_during_the_run_is_a_failure_and_nothing_of_theirs_is_lost() {
    let bench = Bench::new();
    let store = bench.store.clone();
    let intruder = step(describe("a")).apply(move |cx| {
        let store = store.clone();
        async move {
            let (mut state, generation) = store.load().await?;
            state.put_record("theirs", &1)?;
            store.save(&state, generation).await?;
            cx.update_state(|s| s.put_record("ours", &2)).await
        }
    });
    let failure = bench.run(&Plans::new([plan(vec![intruder])])).await.unwrap_err();
    assert_eq!(failure.class(), FailureClass::Locked);
    let state = bench.store.snapshot();
    assert_eq!(state.record::<u8>("theirs").unwrap(), Some(1));
    assert_eq!(state.record::<u8>("ours").unwrap(), None);
    assert_eq!(state.runs[0].summary, None, "the run saves nothing over theirs later either");
    assert_eq!(bench.sink.summary().outcome, Outcome::Failed);
}

#[tokio::test(start_paused = true)]
async fn a_run_can_be_spawned_as_a_task() {
    let bench = Bench::new();
    let task = tokio::spawn(async move { bench.run(&World::new()).await.unwrap().steps_done });
    assert_eq!(task.await.unwrap(), 9);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_outlives_its_step_or_its_run_says_nothing_after_their_end() {
    let bench = Bench::new();
    let leaky = step(describe("leaky")).apply(|cx| async move {
        // One voice of the step, and one beside it that is still there when the run is over.
        let voices = [cx.clone(), cx.scoped(turingpi_engine::Subject::node("other"), "other")];
        tokio::spawn(async move {
            for word in 0..60 {
                voices.iter().for_each(|v| v.note(format!("word {word}")));
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        tokio::time::sleep(Duration::from_secs(5)).await;
        Ok(())
    });
    let next = step(describe("next")).takes(Duration::from_secs(5));
    bench.run(&Plans::new([plan(vec![leaky, next])])).await.unwrap();
    tokio::time::sleep(Duration::from_secs(100)).await;
    bench.sink.summary();
    let (events, own) =
        (bench.sink.events(), |e: &turingpi_engine::Event| e.step.as_deref() == Some("leaky"));
    let end = events.iter().position(|e| own(e) && matches!(e.kind, EventKind::StepFinished { .. })).unwrap();
    assert!(events[..end].iter().any(|e| own(e) && matches!(e.kind, EventKind::Note { .. })));
    assert!(!events[end + 1..].iter().any(own));
    assert!(
        events[end..].iter().any(|e| matches!(e.kind, EventKind::Note { .. })),
        "the other voice went on"
    );
}
