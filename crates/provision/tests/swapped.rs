//! A document that was mixed up does not erase or rename the wrong system.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod common;

use common::{HOSTS, SMALL, World, world};
use turingpi_provision::{
    Intent,
    engine::{Approval, FailureClass, FailureReport},
};

fn reflash(nodes: &[&str]) -> Intent {
    Intent { reflash: nodes.iter().map(|n| (*n).to_owned()).collect() }
}

async fn refused(world: &World, intent: &Intent) -> FailureReport {
    let failure = world.apply_with(intent, &Approval::everything()).await.failed();
    assert_eq!(failure.class, FailureClass::Refused, "{failure:#?}");
    assert!(failure.hint.is_some(), "{failure:#?}");
    failure
}

#[tokio::test]
async fn a_flash_for_one_node_does_not_erase_the_system_of_another_unless_both_are_named() {
    let mut world = world(SMALL).start().await;
    world.converge().await;
    let slots = [world.document.nodes[0].slot.clone(), world.document.nodes[1].slot.clone()];
    [world.document.nodes[1].slot, world.document.nodes[0].slot] = slots;
    let failure = refused(&world, &reflash(&["node1"])).await;
    assert!(
        failure.message.contains("board1/2") && failure.message.contains("the system of node2"),
        "{failure:#?}"
    );
    assert!(failure.hint.unwrap().contains("--reflash node1 --reflash node2"));
    assert_eq!(world.flashes(), [1, 1]);
    // Who names both has seen both.
    let planned = world.open().await.plan(&reflash(&["node1", "node2"])).await.unwrap();
    let flashes = planned.preview.steps().filter(|(_, step)| step.id.ends_with("/flash")).count();
    assert_eq!(flashes, 2);
    // A node that does not answer is not flashed over another one by itself either.
    world.simulation.power_cut("node1").await;
    let failure = world.plan().await.unwrap_err();
    assert_eq!(failure.class(), FailureClass::Refused, "{failure:?}");
    assert!(failure.message().contains("the system of node2"), "{failure}");
    assert_eq!(world.flashes(), [1, 1]);
}

#[tokio::test]
async fn swapped_addresses_are_refused_before_hosts_get_each_others_names() {
    let mut world = world(HOSTS).start().await;
    world.converge().await;
    let (one, two) = (world.document.nodes[0].clone(), world.document.nodes[1].clone());
    world.document.nodes[0].address.clone_from(&two.address);
    world.document.nodes[0].ssh.clone_from(&two.ssh);
    world.document.nodes[1].address.clone_from(&one.address);
    world.document.nodes[1].ssh.clone_from(&one.ssh);
    // Their host keys are kept by address, and the addresses keep theirs.
    let failure = refused(&world, &Intent::default()).await;
    assert!(failure.message.contains("calls itself node2"), "{failure:#?}");
    assert_eq!(world.node("node1").hostname().as_deref(), Some("node1"));
    assert_eq!(world.node("node2").hostname().as_deref(), Some("node2"));
}
