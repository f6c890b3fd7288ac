//! What is only coming up is waited for by an apply, by name and with a limit; a plan and a status answer at once.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod common;

use std::sync::Arc;

use common::{HOSTS, Run, SMALL, Verb, World, story, world};
use tokio::sync::Notify;
use turingpi_provision::{
    TeardownIntent,
    bmc::Power,
    engine::{Cancellation, EventKind, FailureClass, Outcome},
};
use turingpi_testkit::{Action, Fault, Site};

/// Runs while a node is without power, which comes back once the run was seen to wait for it.
async fn waits_for(world: &World, verb: &Verb, node: &str) -> Run {
    world.simulation.power_cut(node).await;
    let seen = Arc::new(Notify::new());
    let (condition, tell) = (format!("{node} to answer over SSH"), Arc::clone(&seen));
    let cancellation = Cancellation::new();
    let run = world.go(verb, &cancellation, move |event| {
        if matches!(&event.kind, EventKind::Waiting { condition: c, .. } if *c == condition) {
            tell.notify_one();
        }
        false
    });
    let mut run = std::pin::pin!(run);
    tokio::select! {
        (run, _) = &mut run => panic!("it did not wait: {:?}\n{}", run.result, story(&run.events)),
        () = seen.notified() => world.simulation.power_restore(node).await,
    }
    run.await.0
}

#[tokio::test]
async fn a_host_that_is_only_coming_up_is_waited_for_by_an_apply_and_a_destroy() {
    let mut world = world(HOSTS).start().await;
    world.converge().await;
    world.timing.limit_factor = 10.0;
    for node in ["node1", "node2"] {
        waits_for(&world, &Verb::Apply, node).await.done();
    }
    waits_for(&world, &Verb::Destroy(TeardownIntent::default()), "node2").await.done();
}

#[tokio::test]
async fn a_plan_and_a_status_do_not_wait_for_a_host_that_does_not_answer() {
    let mut world = world(HOSTS).start().await;
    world.converge().await;
    // A wait would outlive the test.
    world.timing.limit_factor = 1e6;
    world.simulation.power_cut("node2").await;
    let failure = world.plan().await.unwrap_err();
    assert_eq!(failure.class(), FailureClass::Unreachable, "{failure:?}");
    assert!(failure.message().contains("node2") && failure.hint_text().is_some(), "{failure:?}");
    let status = world.open().await.status().await.unwrap();
    assert!(status.nodes.iter().any(|n| n.name == "node2" && n.unreachable.is_some()), "{status:#?}");
    // Also where nodes may be left out nobody waits for them.
    let skip = TeardownIntent { skip_unreachable: true, ..TeardownIntent::default() };
    world.destroy(&skip).await.done();
}

#[tokio::test]
async fn a_module_without_power_is_not_waited_for() {
    let mut world = world(SMALL).start().await;
    world.converge().await;
    world.timing.limit_factor = 1e6;
    world.switch(2, Power::Off).await;
    let failure = world.destroy(&TeardownIntent::default()).await.failed();
    assert_eq!(failure.class, FailureClass::Unreachable, "{failure:#?}");
    assert!(failure.message.contains("node2"), "{failure:#?}");
}

#[tokio::test]
async fn a_host_that_a_killed_run_left_rebooting_is_waited_for_as_long_as_a_reboot_takes() {
    let mut world = world(HOSTS).start().await;
    // A new machine id takes effect with a reboot.
    assert_eq!(world.node("node1").run(": > /etc/machine-id").await.0, 0);
    let (run, dropped) = world
        .go(&Verb::Apply, &Cancellation::new(), |event| {
            let waits = matches!(&event.kind, EventKind::Waiting { condition, .. } if condition.contains("booted again"));
            waits && event.step.as_deref() == Some("node1/reboot")
        })
        .await;
    assert!(dropped, "{}", story(&run.events));
    assert!(world.state()["records"]["rebooting/node1"].is_i64(), "{:#}", world.state());
    world.timing.limit_factor = 10.0;
    waits_for(&world, &Verb::Apply, "node1").await.done();
    assert!(world.state()["records"].get("rebooting/node1").is_none(), "{:#}", world.state());
    world.settled().await;
}

#[tokio::test]
async fn a_bmc_that_is_dead_while_its_nodes_answer_is_a_note_of_the_plan() {
    let world = world(SMALL).start().await;
    world.converge().await;
    let bmc = Site::Bmc { board: None, request: String::new() };
    world.simulation.faults().add(Fault::at(bmc, Action::Drop).times(u32::MAX));
    let planned = world.plan().await.unwrap();
    assert!(planned.preview.is_empty(), "{:?}", common::lines(&planned));
    assert!(
        planned.notes.iter().any(|n| n.contains("board1") && n.contains("its nodes answer")),
        "{:?}",
        planned.notes
    );
    let run = world.apply().await;
    assert!(run.said("its nodes answer"), "{}", story(&run.events));
    assert_eq!(run.done().steps_done, 0);
}

#[tokio::test]
async fn a_teardown_that_keeps_data_and_was_cut_off_after_the_first_switch_goes_on() {
    let world = world(SMALL).start().await;
    world.converge().await;
    let intent = TeardownIntent { keep_data: true, power_off: true, ..TeardownIntent::default() };
    let verb = Verb::Destroy(intent.clone());
    let (run, dropped) = world
        .go(&verb, &Cancellation::new(), |event| {
            let done = matches!(event.kind, EventKind::StepFinished { outcome: Outcome::Done, .. });
            done && event.step.as_deref().is_some_and(|step| step.ends_with("/power-off"))
        })
        .await;
    assert!(dropped, "{}", story(&run.events));
    assert!(world.simulation.board("board1").power().iter().any(|on| !on));
    world.run(&verb).await.done();
    assert_eq!(world.simulation.board("board1").power(), [false; 4]);
    assert_eq!(world.run(&verb).await.done().steps_done, 0);

    // Its data was kept: a teardown that wipes has everything to do, and no way to do it without power.
    let wipe = Verb::Destroy(TeardownIntent { power_off: true, ..TeardownIntent::default() });
    let failure = world.run(&wipe).await.failed();
    assert_eq!(failure.class, FailureClass::Unreachable, "{failure:#?}");

    // What was built again and then switched off by somebody else is not taken for done.
    world.converge().await;
    world.switch(2, Power::Off).await;
    let failure = world.run(&verb).await.failed();
    assert_eq!(failure.class, FailureClass::Unreachable, "{failure:#?}");
}
