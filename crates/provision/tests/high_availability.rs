//! Three servers stay a cluster whatever is rolled out over them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod common;

use common::{Run, World, story, world};
use serde_json::json;
use turingpi_provision::{
    TeardownIntent,
    engine::{EventKind, Outcome},
};

const SERVERS: &str = "
nodes:
  - { name: node1, role: control-plane, address: 10.10.88.73 }
  - { name: node2, role: control-plane, address: 10.10.88.74 }
  - { name: node3, role: control-plane, address: 10.10.88.75 }
";

async fn servers() -> World {
    let world = world(SERVERS).start().await;
    world.converge().await;
    world
}

/// Where in the run a step began (or ended well).
#[track_caller]
fn at(run: &Run, step: &str, ended: bool) -> usize {
    let hit = |kind: &EventKind| match kind {
        EventKind::StepStarted { .. } => !ended,
        EventKind::StepFinished { outcome: Outcome::Done, .. } => ended,
        _ => false,
    };
    let found = run.events.iter().position(|e| e.step.as_deref() == Some(step) && hit(&e.kind));
    found.unwrap_or_else(|| panic!("{step}:\n{}", story(&run.events)))
}

#[tokio::test]
async fn a_rollout_brings_back_the_server_that_is_down_before_it_restarts_the_others_one_by_one() {
    let mut world = world(SERVERS).release("v1.35.6+k3s1").start().await;
    world.converge().await;
    assert_eq!(world.node("node3").run("systemctl stop k3s").await.0, 0);
    world.document.k3s.server.insert("etcd-expose-metrics".to_owned(), json!(true));
    let run = world.apply().await;
    assert!(run.result.is_ok(), "{:#?}\n{}", run.failed(), story(&run.events));
    let back = at(&run, "node3/k3s-start", true);
    let (first, second) = ("node1/k3s-restart", "node2/k3s-restart");
    assert!(back < at(&run, first, false) && back < at(&run, second, false), "{}", story(&run.events));
    let one_by_one =
        at(&run, first, true) < at(&run, second, false) || at(&run, second, true) < at(&run, first, false);
    assert!(one_by_one, "{}", story(&run.events));
    world.settled().await;
    // The same for another version.
    assert_eq!(world.node("node2").run("systemctl stop k3s").await.0, 0);
    world.document.version = Some("v1.35.6+k3s1".to_owned());
    let run = world.apply().await;
    assert!(run.result.is_ok(), "{:#?}\n{}", run.failed(), story(&run.events));
    assert!(
        at(&run, "node2/k3s-start", true) < at(&run, "node1/k3s-binary", false),
        "{}",
        story(&run.events)
    );
    world.settled().await;
    assert_eq!(world.simulation.clusters().len(), 1);
}

#[tokio::test]
async fn servers_whose_data_was_kept_come_back_as_the_same_cluster() {
    let world = servers().await;
    let ca = world.simulation.kube().unwrap().pki().ca_hash();
    let keep = TeardownIntent { keep_data: true, ..TeardownIntent::default() };
    world.destroy(&keep).await.done();
    world.converge().await;
    assert_eq!(world.simulation.clusters().len(), 1);
    assert_eq!(world.simulation.kube().unwrap().pki().ca_hash(), ca);
}

#[tokio::test]
async fn servers_that_were_all_stopped_are_started_together() {
    let world = servers().await;
    for node in ["node1", "node2", "node3"] {
        assert_eq!(world.node(node).run("systemctl stop k3s").await.0, 0);
    }
    world.converge().await;
    assert_eq!(world.simulation.clusters().len(), 1);
}
