//! Taking a cluster away leaves nothing behind, and what is kept on purpose is found again.
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
    TeardownIntent,
    engine::{Cancellation, EventKind, FailureClass},
};

/// What is left of k3s on the nodes, as a person would look for it.
async fn left(world: &World) -> Vec<String> {
    let mut left = Vec::new();
    for name in world.simulation.node_names() {
        let node = world.node(&name);
        for path in [
            "/usr/local/bin/k3s",
            "/etc/systemd/system/k3s.service",
            "/etc/systemd/system/k3s-agent.service",
            "/etc/rancher/k3s",
            "/etc/rancher/node",
            "/run/k3s",
            "/run/flannel",
            "/var/lib/kubelet",
            "/var/lib/cni",
            "/var/lib/rancher/k3s",
            "/sys/class/net/cni0",
            "/sys/class/net/flannel.1",
            "/var/lib/turingpi/k3s-applied",
        ] {
            if node.file(path).is_some() {
                left.push(format!("{name}: {path}"));
            }
        }
        for unit in ["k3s.service", "k3s-agent.service"] {
            if node.unit(unit).is_some_and(|u| u.active == "active") {
                left.push(format!("{name}: {unit} runs"));
            }
        }
        let (_, mounts, _) = node.run("cat /proc/mounts").await;
        let ours = |l: &&str| {
            l.contains("/run/k3s") || l.contains("/var/lib/kubelet") || l.contains("/run/netns/cni-")
        };
        left.extend(mounts.lines().filter(ours).map(|l| format!("{name}: mount {l}")));
    }
    if world.kubeconfig_text().is_some() {
        left.push("the kubeconfig".to_owned());
    }
    let secrets = world.state()["secrets"].as_object().cloned().unwrap_or_default();
    left.extend(secrets.keys().filter(|k| k.starts_with("k3s/")).map(|k| format!("secret {k}")));
    left
}

#[tokio::test]
async fn a_destroyed_cluster_leaves_nothing_and_can_be_built_again() {
    let world = world(SMALL).start().await;
    world.converge().await;
    assert!(left(&world).await.len() > 10);
    let ca = world.simulation.kube().unwrap().pki().ca_hash();
    let token = world.state()["secrets"].clone();

    let planned = world.open().await.plan_teardown(&TeardownIntent::default()).await.unwrap();
    assert!(planned.preview.steps().any(|(_, s)| s.id == "node1/k3s-uninstall"));
    world.destroy(&TeardownIntent::default()).await.done();
    assert_eq!(left(&world).await, Vec::<String>::new());
    let again = world.destroy(&TeardownIntent::default()).await.done();
    assert_eq!(again.steps_done, 0);

    world.converge().await;
    assert_eq!(world.flashes(), [1, 1], "no need to flash for that");
    assert_ne!(world.simulation.kube().unwrap().pki().ca_hash(), ca, "a new cluster");
    assert_ne!(world.state()["secrets"], token, "a new token");
}

#[tokio::test]
async fn half_a_cluster_is_taken_away_as_well() {
    for step in ["node1/k3s-unit", "node1/k3s-start", "node2/k3s-config", "node2/k3s-start", "k3s/kubeconfig"]
    {
        let world = world(HOSTS).start().await;
        let cancellation = Cancellation::new();
        let verb = common::Verb::Apply;
        let (_, dropped) = world
            .go(&verb, &cancellation, move |e| {
                e.step.as_deref() == Some(step) && matches!(e.kind, EventKind::StepFinished { .. })
            })
            .await;
        assert!(dropped, "{step}");
        world.destroy(&TeardownIntent::default()).await.done();
        assert_eq!(left(&world).await, Vec::<String>::new(), "{step}");
    }
}

#[tokio::test]
async fn data_that_is_kept_makes_the_same_cluster_again() {
    let world = world(HOSTS).start().await;
    world.converge().await;
    let ca = world.simulation.kube().unwrap().pki().ca_hash();
    let keep = TeardownIntent { keep_data: true, ..TeardownIntent::default() };
    world.destroy(&keep).await.done();
    for (node, unit) in [("node1", "k3s.service"), ("node2", "k3s-agent.service")] {
        assert!(world.node(node).unit(unit).is_none_or(|u| u.active != "active"), "{node}");
        assert!(world.node(node).file("/usr/local/bin/k3s").is_none(), "{node}");
    }
    assert!(world.node("node1").file("/var/lib/rancher/k3s/server/db/state.db").is_some());
    assert_eq!(world.destroy(&keep).await.done().steps_done, 0);
    world.converge().await;
    assert_eq!(world.simulation.clusters().len(), 1);
    assert_eq!(world.simulation.kube().unwrap().pki().ca_hash(), ca);
}

#[tokio::test]
async fn nodes_are_switched_off_at_the_end_when_that_is_wanted() {
    let world = world(SMALL).start().await;
    world.converge().await;
    let intent = TeardownIntent { power_off: true, ..TeardownIntent::default() };
    world.destroy(&intent).await.done();
    assert_eq!(world.simulation.board("board1").power(), [false; 4]);
    assert_eq!(world.destroy(&intent).await.done().steps_done, 0);
    world.converge().await;
    assert_eq!(world.flashes(), [1, 1]);
}

#[tokio::test]
async fn a_node_that_does_not_answer_stops_a_destroy_unless_it_may_be_left_out() {
    let world = world(HOSTS).start().await;
    world.converge().await;
    world.simulation.power_cut("node2").await;
    let failure = world.destroy(&TeardownIntent::default()).await.failed();
    assert_eq!(failure.class, FailureClass::Unreachable, "{failure:#?}");
    assert!(failure.message.contains("node2") && failure.hint.is_some(), "{failure:#?}");
    assert!(
        world.node("node1").unit("k3s.service").is_some_and(|u| u.active == "active"),
        "nothing was done"
    );
    let skip = TeardownIntent { skip_unreachable: true, ..TeardownIntent::default() };
    world.destroy(&skip).await.done();
    assert!(world.node("node1").file("/usr/local/bin/k3s").is_none());
    // It comes back with what it had, and is taken away then.
    world.simulation.power_restore("node2").await;
    while !world.node("node2").running() {
        tokio::task::yield_now().await;
    }
    world.destroy(&TeardownIntent::default()).await.done();
    assert_eq!(left(&world).await, Vec::<String>::new());
    world.converge().await;
}

#[tokio::test]
async fn an_agent_that_was_left_out_joins_the_new_cluster_of_the_same_document() {
    let world = world(HOSTS).start().await;
    world.converge().await;
    world.simulation.power_cut("node2").await;
    let skip = TeardownIntent { skip_unreachable: true, ..TeardownIntent::default() };
    world.destroy(&skip).await.done();
    world.simulation.power_restore("node2").await;
    while !world.node("node2").running() {
        tokio::task::yield_now().await;
    }
    world.converge().await;
    assert_eq!(world.simulation.clusters().len(), 2);
}

#[tokio::test]
async fn a_cluster_of_ours_under_another_name_is_neither_taken_down_nor_taken_over() {
    let mut world = world(HOSTS).start().await;
    world.converge().await;
    // Another document, with a state folder of its own and by mistake these addresses.
    std::fs::remove_dir_all(world.state_dir()).unwrap();
    world.document.name = "lab".to_owned();
    for failure in [world.destroy(&TeardownIntent::default()).await.failed(), world.apply().await.failed()] {
        assert_eq!(failure.class, FailureClass::Refused, "{failure:#?}");
        assert!(failure.message.contains("node1") && failure.message.contains("`homelab`"), "{failure:#?}");
        assert!(failure.hint.as_deref().is_some_and(|hint| hint.contains("address")), "{failure:#?}");
    }
    assert!(world.node("node1").unit("k3s.service").is_some_and(|u| u.active == "active"));
    assert!(world.node("node2").unit("k3s-agent.service").is_some_and(|u| u.active == "active"));
    // The document that made it may, also where its state was lost.
    std::fs::remove_dir_all(world.state_dir()).unwrap();
    world.document.name = "homelab".to_owned();
    world.destroy(&TeardownIntent::default()).await.done();
    assert_eq!(left(&world).await, Vec::<String>::new());
    assert!(world.node("node1").file("/var/lib/turingpi/k3s-cluster").is_none());
}
