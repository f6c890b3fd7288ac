//! Three servers with etcd: made, interrupted around every join, one lost, one made anew.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use turingpi_provision::{
    Intent, TeardownIntent,
    cluster::{kube::ClusterApi as _, ready::HealthState},
    engine::{Approval, Cancellation, EventKind, FailureClass, Subject},
};

use crate::common::{Verb, World, story, world};

const BOARD: &str = "
nodes:
  - { name: node1, role: control-plane, address: 10.10.88.73, slot: board1/1, image: armbian }
  - { name: node2, role: control-plane, address: 10.10.88.74, slot: board1/2, image: armbian }
  - { name: node3, role: control-plane, address: 10.10.88.75, slot: board1/3, image: armbian }
  - { name: node4, role: worker,        address: 10.10.88.76, slot: board1/4, image: armbian }
";
const HOSTS: &str = "
nodes:
  - { name: node1, role: control-plane, address: 10.10.88.73 }
  - { name: node2, role: control-plane, address: 10.10.88.74 }
  - { name: node3, role: control-plane, address: 10.10.88.75 }
";

fn three_vote(world: &World) {
    let clusters = world.simulation.clusters();
    assert_eq!(clusters.len(), 1, "one cluster, not several");
    assert_eq!(clusters[0].members(), ["node1", "node2", "node3"].map(|n| (n.to_owned(), true)));
}

async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let limit = tokio::time::timeout(Duration::from_secs(60), async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(limit.await.is_ok(), "never: {what}");
}

#[tokio::test]
async fn a_board_becomes_three_servers_and_an_agent_and_is_taken_down_again() {
    let world = world(BOARD).start().await;
    world.converge().await;
    three_vote(&world);
    assert_eq!(world.apply().await.done().steps_done, 0);
    assert_eq!(world.flashes(), [1, 1, 1, 1]);
    world.destroy(&TeardownIntent::default()).await.done();
    for name in world.simulation.node_names() {
        assert!(world.node(&name).file("/var/lib/rancher/k3s").is_none(), "{name}");
    }
    assert_eq!(world.destroy(&TeardownIntent::default()).await.done().steps_done, 0);
}

#[tokio::test]
async fn an_apply_that_crashes_at_every_event_around_the_joins_still_makes_one_cluster() {
    let world = world(HOSTS).durations(|d| d.etcd_voter = Duration::from_secs(100)).start().await;
    let seen = Arc::new(Mutex::new(BTreeSet::<(String, String)>::new()));
    for _ in 0..300 {
        let known = Arc::clone(&seen);
        let mut crashed = false;
        let (run, dropped) = world
            .go(&Verb::Apply, &Cancellation::new(), move |event| {
                let Some(step) =
                    event.step.as_deref().filter(|s| s.contains("/k3s-") || s.starts_with("k3s/"))
                else {
                    return crashed;
                };
                let kind = serde_json::to_value(&event.kind).unwrap()["event"].as_str().unwrap().to_owned();
                crashed = crashed || known.lock().unwrap().insert((step.to_owned(), kind));
                crashed
            })
            .await;
        world.state();
        if !dropped {
            match &run.result {
                Ok(_) => break,
                Err(failure) => panic!("{:#?}\n{}", failure.report(), story(&run.events)),
            }
        }
    }
    let seen = seen.lock().unwrap().clone();
    println!("crashed at {} places around the joins", seen.len());
    for node in ["node1", "node2", "node3"] {
        for step in ["k3s-config", "k3s-start"] {
            let place = (format!("{node}/{step}"), "step-started".to_owned());
            assert!(seen.contains(&place), "{place:?} {seen:#?}");
        }
    }
    world.settled().await;
    three_vote(&world);
}

#[tokio::test]
async fn one_server_lost_leaves_a_cluster_that_works_says_so_and_is_whole_when_it_comes_back() {
    let world = world(HOSTS).start().await;
    world.converge().await;
    // The one that the kubeconfig leads to stays.
    world.simulation.power_cut("node3").await;
    until("the loss is seen", async || {
        let status = world.open().await.status().await.unwrap();
        let told = status.reasons.iter().any(|r| serde_json::to_string(r).unwrap().contains("node3"));
        status.state == HealthState::Degraded && told
    })
    .await;
    let kube = world.kube().await;
    assert!(kube.readyz().await.unwrap().is_empty());
    until("Kubernetes gives it up", async || {
        kube.nodes().await.unwrap().iter().any(|n| n.name == "node3" && !n.ready.is_ready())
    })
    .await;
    // Nothing is done to the others on a guess.
    let failure = world.apply().await.failed();
    assert_eq!(failure.class, FailureClass::Unreachable, "{failure:#?}");
    assert!(failure.message.contains("node3") && failure.hint.is_some(), "{failure:#?}");

    world.simulation.power_restore("node3").await;
    until("it is back", async || {
        let nodes = kube.nodes().await.unwrap();
        nodes.iter().any(|n| n.name == "node3" && n.ready.is_ready())
    })
    .await;
    assert_eq!(world.apply().await.done().steps_done, 0);
    three_vote(&world);
}

#[tokio::test]
async fn a_server_that_is_flashed_anew_takes_the_place_of_its_old_member() {
    let world = world(BOARD).start().await;
    world.converge().await;
    for name in ["node2", "node3"] {
        let intent = Intent { reflash: [name.to_owned()].into() };
        let approval = Approval::disruptive().subject(Subject::node(name));
        let run = world.apply_with(&intent, &approval).await;
        let forgot = run.events.iter().any(|e| {
            e.step.as_deref() == Some(&format!("{name}/k3s-forget"))
                && matches!(e.kind, EventKind::StepFinished { .. })
        });
        assert!(forgot, "{}", story(&run.events));
        run.done();
        world.settled().await;
        three_vote(&world);
    }
    assert_eq!(world.flashes(), [1, 2, 2, 1]);
}
