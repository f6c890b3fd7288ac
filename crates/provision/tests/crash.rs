//! Whatever is cut off, wherever: the same command again goes on, and nothing is destroyed twice.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use common::{Run, SMALL, Verb, World, story, world};
use turingpi_provision::{
    TeardownIntent,
    engine::{Cancellation, Event, EventKind, FailureClass, Outcome},
};

/// A place in a run: the step, what happened, and which one of several of its kind.
type Spot = (String, String, usize);

/// Names events by their place in the run, the same in every run that does the same.
#[derive(Default)]
struct Spots(BTreeMap<(String, String), usize>);

impl Spots {
    fn of(&mut self, event: &Event) -> Spot {
        let kind = match &event.kind {
            EventKind::Note { text } => format!("note {}", text.chars().take(24).collect::<String>()),
            kind => {
                let kind = serde_json::to_value(kind).unwrap();
                let word = |key: &str| kind[key].as_str().unwrap_or_default().to_owned();
                format!("{} {}", word("event"), word("part")).trim_end().to_owned()
            }
        };
        let place = (event.step.clone().unwrap_or_default(), kind);
        let count = self.0.entry(place.clone()).or_default();
        *count += 1;
        // How often something is waited for, or how finely progress is told, depends on the machine.
        let number =
            if place.1 == "waiting" || place.1.starts_with("progress") { (*count).min(2) } else { *count };
        (place.0, place.1, number)
    }
}

/// How many flashes each node may have had: one, and one for each crash that fell inside of one.
#[derive(Default)]
struct Allowed(BTreeMap<String, u32>);

impl Allowed {
    fn crashed(&mut self, run: &Run) {
        let mut open = BTreeSet::new();
        for event in &run.events {
            let Some(node) = event.step.as_deref().and_then(|s| s.strip_suffix("/flash")) else { continue };
            match event.kind {
                EventKind::StepStarted { .. } => open.insert(node.to_owned()),
                EventKind::StepFinished { .. } => open.remove(node),
                _ => false,
            };
        }
        for node in open {
            *self.0.entry(node).or_default() += 1;
        }
    }

    fn check(&self, world: &World) {
        for name in world.simulation.node_names() {
            let (flashed, more) = (world.node(&name).flash_count(), self.0.get(&name).copied().unwrap_or(0));
            assert!(
                (1..=1 + more).contains(&flashed),
                "{name} was flashed {flashed} times, with {more} crashes inside"
            );
        }
    }
}

/// Crashes at every place in turn, each time in the world that the crashes before have left behind, until a run has no
/// new place. The run that gets through has nothing left behind it.
async fn crash_everywhere(world: &World, verb: &Verb, allowed: &mut Allowed) -> BTreeSet<Spot> {
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    for _ in 0..500 {
        let (known, mut spots) = (Arc::clone(&seen), Spots::default());
        let mut crashed = false;
        let (run, dropped) = world
            .go(verb, &Cancellation::new(), move |event| {
                crashed = crashed || known.lock().unwrap().insert(spots.of(event));
                crashed
            })
            .await;
        if !dropped {
            match &run.result {
                Ok(_) => break,
                Err(failure) => panic!("{:#?}\n{}", failure.report(), story(&run.events)),
            }
        }
        // The state file is whole at any moment.
        world.state();
        allowed.crashed(&run);
    }
    std::mem::take(&mut *seen.lock().unwrap())
}

#[tokio::test]
async fn an_apply_that_crashes_at_every_event_in_turn_converges_and_flashes_nothing_twice() {
    let world = world(SMALL).start().await;
    let mut allowed = Allowed::default();
    let seen = crash_everywhere(&world, &Verb::Apply, &mut allowed).await;
    println!("crashed at {} places of an apply", seen.len());
    world.settled().await;
    allowed.check(&world);
    // A crash after the start and one after the end of every step, and some more.
    let at = |step: &str, kind: &str| seen.contains(&(step.to_owned(), kind.to_owned(), 1));
    for node in ["node1", "node2"] {
        assert!(
            at(&format!("{node}/flash"), "step-started")
                && at(&format!("{node}/flash"), "progress uploading"),
            "{node}"
        );
        for step in ["first-boot", "packages", "k3s-config", "k3s-start"] {
            let step = format!("{node}/{step}");
            assert!(at(&step, "step-started"), "{step}");
        }
    }
    // A step that a crash let end all the same is not there in the next run, so that not each has an end of its own.
    let ends = seen.iter().filter(|(_, kind, _)| kind == "step-finished").count();
    assert!(ends > 20 && seen.len() > 80, "{ends} {seen:#?}");
}

#[tokio::test]
async fn a_destroy_that_crashes_at_every_event_in_turn_leaves_nothing() {
    let world = world(SMALL).start().await;
    world.apply().await.done();
    let destroy = Verb::Destroy(TeardownIntent { power_off: true, ..TeardownIntent::default() });
    let seen = crash_everywhere(&world, &destroy, &mut Allowed::default()).await;
    println!("crashed at {} places of a destroy", seen.len());
    assert!(seen.len() > 13, "{seen:#?}");
    assert_eq!(world.run(&destroy).await.done().steps_done, 0);
    assert_eq!(world.kubeconfig_text(), None);
    // What was asked for: a request that is cut off in the middle may be one the BMC never got to.
    assert_eq!(world.simulation.board("board1").power_intent(), [false; 4]);
    // The same board again: nothing has to be flashed for that.
    world.converge().await;
    assert_eq!(world.flashes(), [1, 1]);
}

/// One crash, one run after it, in a world of its own.
async fn crash_once(wanted: Spot) {
    let world = world(SMALL).start().await;
    let (mut spots, mut allowed) = (Spots::default(), Allowed::default());
    let at = wanted.clone();
    let (run, dropped) =
        world.go(&Verb::Apply, &Cancellation::new(), move |event| spots.of(event) == at).await;
    assert!(dropped, "{wanted:?} did not come: {}", story(&run.events));
    allowed.crashed(&run);
    world.converge().await;
    allowed.check(&world);
}

/// Around every place where a crash could cost data: before, inside and after a flash, and before the system is ours.
#[tokio::test]
async fn one_crash_around_a_flash_costs_at_most_that_flash() {
    let spots = [
        ("node1/flash", "step-started", 1),
        ("node1/flash", "progress uploading", 1),
        ("node1/flash", "progress writing", 1),
        ("node1/flash", "step-finished", 1),
        ("node1/first-boot", "step-started", 1),
        ("node1/reboot", "waiting", 1),
        ("node1/k3s-start", "step-started", 1),
        ("node1/k3s-api", "step-started", 1),
    ];
    for (step, kind, number) in spots {
        crash_once((step.to_owned(), kind.to_owned(), number)).await;
    }
    println!("crashed once at each of {} places", spots.len());
}

/// Drops an apply as soon as the state was saved for the `n`-th time; whether it came that far.
async fn crash_at_save(world: &World, n: u64) -> bool {
    let saved = async {
        while world.state()["generation"].as_u64().unwrap_or(0) < n {
            tokio::time::sleep(Duration::from_micros(300)).await;
        }
    };
    let cancellation = Cancellation::new();
    tokio::select! {
        biased;
        () = saved => true,
        end = world.execute(&Verb::Apply, Arc::new(|_: &Event| {}), &cancellation) => {
            end.unwrap();
            false
        }
    }
}

#[tokio::test]
async fn an_apply_that_crashes_after_every_save_of_its_state_converges() {
    let world = world(SMALL).start().await;
    let mut crashes = 0;
    // Each run gets one save further than the one before.
    while crash_at_save(&world, world.state()["generation"].as_u64().unwrap_or(0) + crashes + 1).await {
        crashes += 1;
        assert!(crashes < 100, "it gets nowhere: {:#}", world.state());
    }
    println!("crashed after {crashes} saves");
    assert!(crashes > 5, "{crashes}");
    world.settled().await;
}

#[tokio::test]
async fn a_soft_stop_ends_as_cancelled_with_a_whole_state_and_the_next_apply_goes_on() {
    let world = world(SMALL).start().await;
    for step in
        ["node1/flash", "node2/flash", "node1/boot", "node1/packages", "node1/k3s-start", "k3s/kubeconfig"]
    {
        let cancellation = Cancellation::new();
        let stop = cancellation.clone();
        let (run, _) = world
            .go(&Verb::Apply, &cancellation, move |event| {
                if event.step.as_deref() == Some(step) && matches!(event.kind, EventKind::StepStarted { .. })
                {
                    stop.stop();
                }
                false
            })
            .await;
        let failure = run.failed();
        assert_eq!(failure.class, FailureClass::Cancelled, "{step}: {failure:#?}");
        assert!(failure.hint.is_some(), "{step}: {failure:#?}");
        let last = world.state()["runs"].as_array().unwrap().last().unwrap().clone();
        assert_eq!(last["summary"]["outcome"], "cancelled", "{step}: {last:#}");
        // What ran when the stop came was finished, and marks nothing as in doubt.
        let finished = run.events.iter().any(|e| {
            e.step.as_deref() == Some(step)
                && matches!(e.kind, EventKind::StepFinished { outcome: Outcome::Done, .. })
        });
        if step != "node1/flash" && step != "node2/flash" {
            assert!(finished, "{step}:\n{}", story(&run.events));
        }
        assert_eq!(world.state()["in_doubt"], serde_json::json!({}), "{step}");
    }
    world.converge().await;
    assert_eq!(world.flashes(), [1, 1]);
}
