//! What a flash does to modules that nobody asked it to touch: the plan names it, somebody agrees, and it is undone.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod common;

use common::{SMALL, USER, World, lines, story, world};
use turingpi_provision::{
    Intent,
    bmc::Power,
    engine::{Approval, FailureClass, Risk, Subject},
};
use turingpi_testkit::{ModuleKind, NodePlan, OsImage};

/// Two nodes to be flashed, and a module in slot 4 that somebody else uses.
async fn shared_board() -> World {
    let stranger = NodePlan::new("stranger")
        .address("10.10.88.99".parse().unwrap())
        .slot("board1", 4)
        .kind(ModuleKind::Rk1)
        .installed(OsImage::debian().with_size(64 * 1024))
        .running()
        .user(USER, "not ours");
    let world = world(SMALL).stranger(stranger).start().await;
    world.switch(4, Power::On).await;
    world
}

#[tokio::test]
async fn a_module_that_the_document_does_not_name_loses_power_only_when_the_plan_said_so_and_gets_it_back() {
    let world = shared_board().await;
    let planned = world.plan().await.unwrap();
    let (subject, step) = planned
        .preview
        .steps()
        .find(|(_, step)| step.id == "board1/neighbours-off")
        .unwrap_or_else(|| panic!("{:#?}", lines(&planned)));
    assert_eq!((subject, step.risk), (&Subject::board("board1"), Risk::Disruptive));
    let told = lines(&planned).join("\n");
    assert!(told.contains("power of slot board1/4 (not in the document)"), "{told}");
    assert!(told.contains("off while node1, node2 is flashed, then on again"), "{told}");

    // Who agrees to lose what is on the two nodes has not agreed to this.
    let nodes = ["node1", "node2"];
    let approval = nodes.iter().fold(Approval::safe_only(), |a, name| a.subject(Subject::node(*name)));
    let run = world.apply_with(&Intent::default(), &approval).await;
    let failure = run.failed();
    assert_eq!(failure.class, FailureClass::Unapproved, "{failure:#?}");
    assert!(failure.message.contains("board1/neighbours-off"), "{failure:#?}");
    let before = world.node("stranger").power_on_count();
    assert!(world.node("stranger").powered());

    let approval = nodes.iter().fold(Approval::disruptive(), |a, name| a.subject(Subject::node(*name)));
    let run = world.apply_with(&Intent::default(), &approval).await;
    assert!(run.result.is_ok(), "{:?}\n{}", run.failed(), story(&run.events));
    assert!(world.simulation.board("board1").power_intent()[3], "it has its power back");
    assert_eq!(world.node("stranger").power_on_count(), before + 1, "it was switched once, not once a flash");
    assert_eq!(world.node("stranger").flash_count(), 0);
    world.settled().await;
}
