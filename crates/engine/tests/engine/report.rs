use std::time::Duration;

use proptest::prelude::*;
use turingpi_engine::{
    Event, EventKind, Failure, FailureClass, Gate, Outcome, Plan, Probe, Subject, Unit,
    report::{After, Timeline},
};

use crate::support::{Bench, Plans, Scripted, describe, lane, stage, step};

fn timed(id: &str, seconds: u64) -> Scripted {
    step(describe(id)).takes(Duration::from_secs(seconds))
}

fn flash(id: &str, seconds: u64) -> Scripted {
    step(describe(id).lock("transfer")).takes(Duration::from_secs(seconds))
}

/// Three nodes are flashed one after the other, boot, and join the first; then a second round.
async fn three_nodes() -> Vec<Event> {
    let bench = Bench::new();
    let boot = |id: &str, seconds| timed(id, seconds);
    let image = stage(
        "image",
        vec![
            lane("node1", vec![flash("node1/flash", 10), boot("node1/boot", 5)]),
            lane("node2", vec![flash("node2/flash", 10), boot("node2/boot", 5)]),
            lane("node3", vec![flash("node3/flash", 10), boot("node3/boot", 2)]),
        ],
    );
    let init = step(describe("node1/init").reaches("api")).takes(Duration::from_secs(7));
    let join = |id: &str| step(describe(id).needs("api")).takes(Duration::from_secs(3));
    let cluster = stage(
        "cluster",
        vec![
            lane("node1", vec![init]),
            lane("node2", vec![timed("node2/prepare", 1), join("node2/join")]),
            lane("node3", vec![timed("node3/prepare", 1), join("node3/join"), timed("node3/label", 1)]),
        ],
    );
    let second = stage("addons", vec![lane("node1", vec![timed("node1/addon", 4)])]);
    let plans = Plans::new([Plan { stages: vec![image, cluster] }, Plan { stages: vec![second] }]);
    bench.run(&plans).await.unwrap();
    bench.sink.events()
}

#[tokio::test(start_paused = true)]
async fn the_critical_path_is_the_chain_that_determined_the_end() {
    let timeline = Timeline::from_events(&three_nodes().await);
    let path: Vec<_> = timeline
        .critical_path
        .iter()
        .map(|p| (p.step.as_str(), p.after.clone(), p.start_ms / 1000))
        .collect();
    let lock = || After::Lock { name: "transfer".to_owned() };
    let milestone = After::Milestone { name: "api".to_owned() };
    assert_eq!(
        path,
        [
            ("node1/flash", After::Observed, 0),
            ("node2/flash", lock(), 10),
            ("node3/flash", lock(), 20),
            ("node3/boot", After::Lane, 30),
            ("node1/init", After::Stage, 32),
            ("node3/join", milestone, 39),
            ("node3/label", After::Lane, 42),
            ("node1/addon", After::Observed, 43),
        ]
    );
    assert!(timeline.critical_path.iter().all(|p| p.idle_ms == 0));
    assert_eq!(timeline.millis, 47_000);
    assert_eq!(timeline.critical_path[7].round, 2);
}

#[tokio::test(start_paused = true)]
async fn a_timeline_shows_lanes_stages_rounds_and_waits() {
    let timeline = Timeline::from_events(&three_nodes().await);
    assert_eq!((timeline.verb.as_str(), timeline.target.as_str()), ("apply", "toy"));
    assert_eq!(timeline.summary.as_ref().unwrap().steps_done, 13);
    let rounds: Vec<_> = timeline.rounds.iter().map(|r| (r.round, r.steps, r.start_ms, r.end_ms)).collect();
    assert_eq!(rounds, [(1, 12, 0, 0), (2, 1, 43_000, 43_000), (3, 0, 47_000, 47_000)]);
    let stages: Vec<_> =
        timeline.stages.iter().map(|s| (s.title.as_str(), s.start_ms.unwrap(), s.end_ms.unwrap())).collect();
    assert_eq!(stages, [("image", 0, 32_000), ("cluster", 32_000, 43_000), ("addons", 43_000, 47_000)]);
    let lanes: Vec<_> = timeline.lanes.iter().map(|l| (l.subject.name.as_str(), l.steps.len())).collect();
    assert_eq!(lanes, [("node1", 4), ("node2", 4), ("node3", 5)]);
    let (subject, flash) = timeline.steps().find(|(_, s)| s.id == "node3/flash").unwrap();
    assert_eq!(subject, &Subject::node("node3"));
    let wait = &flash.waits[0];
    assert_eq!(
        (wait.gate, wait.name.as_str(), wait.start_ms, wait.end_ms),
        (Gate::Lock, "transfer", 0, Some(20_000))
    );
    assert_eq!(
        (flash.start_ms, flash.end_ms, flash.outcome),
        (Some(20_000), Some(30_000), Some(Outcome::Done))
    );
    let (_, join) = timeline.steps().find(|(_, s)| s.id == "node2/join").unwrap();
    assert_eq!((join.waits[0].gate, join.waits[0].start_ms), (Gate::Milestone, 33_000));
}

#[tokio::test(start_paused = true)]
async fn a_timeline_shows_what_went_wrong_inside_a_step() {
    let bench = Bench::new();
    let troubled = step(describe("a")).apply(|cx| async move {
        cx.note("hello");
        cx.progress(5, Some(9), Unit::Bytes);
        let look = || async { Ok(Probe::<()>::NotYet("off".to_owned())) };
        cx.wait("power", Duration::from_millis(60), look).await.unwrap_err();
        Err(Failure::new(FailureClass::Unreachable, "gone").retryable())
    });
    let plans = Plans::one_stage(vec![lane("n", vec![troubled, step(describe("b"))])]);
    bench.run(&plans).await.unwrap_err();
    let timeline = Timeline::from_events(&bench.sink.events());
    let steps = &timeline.lanes[0].steps;
    assert_eq!((steps[0].attempts, steps[0].retries.len(), steps[0].outcome), (4, 3, Some(Outcome::Failed)));
    assert_eq!(steps[0].failure.as_ref().unwrap().message, "gone");
    assert_eq!((steps[0].notes.len(), steps[0].progress.as_ref().unwrap().done), (4, 5));
    assert_eq!(
        (steps[0].conditions[0].condition.as_str(), steps[0].conditions[0].last_seen.as_str()),
        ("power", "off")
    );
    assert_eq!((steps[1].outcome, steps[1].start_ms), (Some(Outcome::Blocked), None));
    assert_eq!(timeline.critical_path.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_was_cut_off_or_begins_late_gives_what_is_known() {
    let events = three_nodes().await;
    let starts = |e: &Event| matches!(e.kind, EventKind::StepStarted { .. });
    let cut = events.iter().position(|e| e.step.as_deref() == Some("node3/flash") && starts(e)).unwrap();
    let timeline = Timeline::from_events(&events[..=cut]);
    assert_eq!(timeline.summary, None);
    let last = timeline.critical_path.last().unwrap();
    assert!(last.end_ms.is_none() && ["node2/boot", "node3/flash"].contains(&last.step.as_str()), "{last:?}");
    for from in 0..events.len() {
        let late = Timeline::from_events(&events[from..]);
        assert!(late.summary.is_some(), "from {from}");
    }
    assert_eq!(Timeline::from_events(&[]), Timeline::default());
}

#[tokio::test(start_paused = true)]
async fn events_of_other_runs_are_left_out() {
    let (first, second) = (three_nodes().await, three_nodes().await);
    let mixed: Vec<_> = first.iter().zip(&second).flat_map(|(a, b)| [a.clone(), b.clone()]).collect();
    assert_eq!(Timeline::from_events(&mixed).steps().count(), Timeline::from_events(&first).steps().count());
}

fn recorded() -> Vec<Event> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(three_nodes())
}

proptest! {
    #[test]
    fn any_mix_of_events_gives_a_timeline(
        picks in prop::collection::vec(any::<prop::sample::Index>(), 0..120),
    ) {
        static EVENTS: std::sync::OnceLock<Vec<Event>> = std::sync::OnceLock::new();
        let events = EVENTS.get_or_init(recorded);
        let picked: Vec<_> = picks.iter().map(|i| events[i.index(events.len())].clone()).collect();
        let timeline = Timeline::from_events(&picked);
        prop_assert!(timeline.critical_path.len() <= timeline.steps().count());
        prop_assert!(timeline.critical_path.is_sorted_by_key(|p| p.start_ms));
    }
}
