//! From whatever is there to a ready cluster, and nothing more than that.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod common;

use std::{collections::BTreeSet, fs};

use common::{HOSTS, SMALL, lines, world};
use turingpi_provision::{
    Intent,
    cluster::kube::ClusterApi as _,
    engine::{Approval, FailureClass, Subject},
};
use turingpi_testkit::OsImage;

const FOUR: &str = "
nodes:
  - { name: node1, role: control-plane, address: 10.10.88.73, slot: board1/1, image: armbian }
  - { name: node2, role: worker,        address: 10.10.88.74, slot: board1/2, image: armbian }
  - { name: node3, role: worker,        address: 10.10.88.75, slot: board1/3, image: armbian }
  - { name: node4, role: worker,        address: 10.10.88.76, slot: board1/4, image: armbian }
";

const ONE: &str = "
nodes:
  - { name: node1, role: control-plane, address: 10.10.88.73, slot: board1/1, image: armbian }
";

#[tokio::test]
async fn a_bare_board_becomes_a_ready_cluster_and_a_second_apply_is_zero_steps() {
    let world = world(FOUR).start().await;
    let first = world.converge().await;
    assert!(first.steps_done > 40, "{first:?}");
    assert_eq!(world.flashes(), [1, 1, 1, 1]);

    let again = world.apply().await.done();
    assert_eq!((again.steps_done, again.rounds), (0, 1));
    assert_eq!(world.flashes(), [1, 1, 1, 1]);

    let nodes = world.kube().await.nodes().await.unwrap();
    let names: Vec<&str> = nodes.iter().map(|n| n.name.as_str()).collect();
    assert_eq!(names, ["node1", "node2", "node3", "node4"]);
    assert!(nodes.iter().all(|n| n.ready.is_ready() && n.kubelet_version == "v1.35.5+k3s1"));
}

#[tokio::test]
async fn secrets_of_a_bring_up_stand_in_the_private_state_file_and_nowhere_else() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = world(SMALL).start().await;
    let run = world.apply().await;
    let said = common::story(&run.events);
    run.done();
    let state = world.state();
    let secrets: Vec<&str> =
        state["secrets"].as_object().unwrap().values().filter_map(|v| v.as_str()).collect();
    assert!(secrets.len() >= 3, "root passwords and the join token");
    for secret in secrets.into_iter().chain([common::PASSWORD]) {
        assert!(!said.contains(secret), "an event holds a secret");
        for name in world.simulation.node_names() {
            assert!(!world.node(&name).argv_contains(secret), "a command line on {name} holds a secret");
        }
    }
    for file in ["state.json", "kubeconfig", "known_hosts"] {
        let mode = fs::metadata(world.state_dir().join(file)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{file}");
    }
    assert_eq!(fs::metadata(world.state_dir()).unwrap().permissions().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn one_node_alone_is_a_cluster() {
    let world = world(ONE).start().await;
    world.converge().await;
    assert_eq!(world.simulation.kube().unwrap().members(), [("node1".to_owned(), true)]);
}

#[tokio::test]
async fn plain_hosts_with_a_sudo_user_and_its_password_need_no_board() {
    let world = world(
        "
nodes:
  - { name: bench1, role: control-plane, address: 192.168.1.21, ssh: { user: admin } }
  - { name: bench2, role: worker, address: 192.168.1.22, ssh: { user: admin }, labels: { disk: ssd } }
",
    )
    .start()
    .await;
    world.converge().await;
    let bench2 = world.kube().await.node("bench2").await.unwrap().unwrap();
    assert_eq!(bench2.labels["disk"], "ssd");
    assert!(!world.node("bench1").argv_contains(common::PASSWORD));
}

#[tokio::test]
async fn three_servers_join_etcd_one_at_a_time_and_an_agent_joins_them() {
    let world = world(
        "
nodes:
  - { name: node1, role: control-plane, address: 10.10.88.73 }
  - { name: node2, role: control-plane, address: 10.10.88.74 }
  - { name: node3, role: control-plane, address: 10.10.88.75 }
  - { name: node4, role: worker,        address: 10.10.88.76 }
",
    )
    .durations(|d| d.etcd_voter = std::time::Duration::from_secs(300))
    .start()
    .await;
    let run = world.apply().await;
    // While one server starts, which ends with its vote, no other one does.
    let mut starting = BTreeSet::new();
    for event in &run.events {
        let Some(step) =
            event.step.as_deref().filter(|s| s.ends_with("/k3s-start") && !s.starts_with("node4"))
        else {
            continue;
        };
        let kind = serde_json::to_value(&event.kind).unwrap();
        match kind["event"].as_str().unwrap() {
            "step-started" => {
                starting.insert(step.to_owned());
            }
            "step-finished" => {
                starting.remove(step);
            }
            _ => {}
        }
        assert!(starting.len() <= 1, "{starting:?}");
    }
    run.done();
    world.settled().await;
    let voters = ["node1", "node2", "node3"].map(|n| (n.to_owned(), true));
    assert_eq!(world.simulation.kube().unwrap().members(), voters);
    assert_eq!(world.simulation.clusters().len(), 1);
}

#[tokio::test]
async fn a_node_that_dhcp_puts_elsewhere_is_reported_with_the_address_it_has() {
    let world = world(ONE).nodes(|n| n.leased_address("10.10.88.150".parse().unwrap())).start().await;
    let run = world.apply().await;
    let failure = run.failed();
    let told = serde_json::to_string(&failure).unwrap();
    assert!(told.contains("10.10.88.150"), "{failure:#?}\n{}", common::story(&run.events));
    assert!(failure.hint.is_some());
    assert!(!run.said("k3s-start\",\"event\":\"step-started"), "k3s was not even tried");
    assert_eq!(world.simulation.clusters().len(), 0);
}

#[tokio::test]
async fn a_static_address_is_set_during_the_first_boot() {
    let world = world(&format!(
        "{ONE}first-boot: {{ static: {{ prefix: 24, gateway: 10.10.88.1, dns: [10.10.88.1] }} }}\n"
    ))
    .nodes(|n| n.leased_address("10.10.88.150".parse().unwrap()))
    .start()
    .await;
    world.converge().await;
    assert_eq!(world.node("node1").address(), "10.10.88.73".parse().ok());
}

#[tokio::test]
async fn nodes_of_ours_that_are_off_are_started_and_never_flashed() {
    let world = world(SMALL).start().await;
    world.converge().await;
    for node in ["node1", "node2"] {
        world.simulation.power_cut(node).await;
    }
    world.simulation.board("board1").adopt_power();
    let planned = world.planned().await;
    assert!(planned.iter().all(|l| !l.contains("flash")), "{planned:#?}");
    // Nothing that loses data is in it, so no approval for that is needed.
    world.apply_with(&Intent::default(), &Approval::disruptive()).await.done();
    world.settled().await;
    assert_eq!(world.flashes(), [1, 1]);
}

#[tokio::test]
async fn without_its_state_file_a_node_that_answers_is_never_flashed() {
    let world = world(SMALL).start().await;
    world.converge().await;
    let before = world.kubeconfig_text();
    fs::remove_file(world.state_dir().join("state.json")).unwrap();
    let planned = world.planned().await;
    assert!(planned.iter().all(|l| !l.contains("flash")), "{planned:#?}");
    world.converge().await;
    assert_eq!(world.flashes(), [1, 1]);
    assert_eq!(world.kubeconfig_text(), before);
    assert_eq!(world.simulation.clusters().len(), 1);
}

#[tokio::test]
async fn a_reflash_is_done_once_needs_its_node_named_and_the_node_comes_back() {
    let world = world(SMALL).start().await;
    world.converge().await;
    let intent = Intent { reflash: ["node2".to_owned()].into() };
    let refused = world.apply_with(&intent, &Approval::disruptive()).await.failed();
    assert_eq!(refused.class, FailureClass::Unapproved);
    assert!(refused.hint.unwrap().contains("node2"));
    assert_eq!(world.flashes(), [1, 1]);
    world.apply_with(&intent, &Approval::disruptive().subject(Subject::node("node2"))).await.done();
    world.settled().await;
    assert_eq!(world.flashes(), [1, 2]);
    let unknown = Intent { reflash: ["node9".to_owned()].into() };
    let failure = world.apply_with(&unknown, &Approval::everything()).await.failed();
    assert_eq!(failure.class, FailureClass::Usage);
}

#[tokio::test]
async fn a_system_that_refuses_us_and_has_no_image_is_left_alone() {
    let world = world(
        "
nodes:
  - { name: node1, role: control-plane, address: 10.10.88.73, slot: board1/1 }
",
    )
    .nodes(|_| {
        // Somebody else's: it knows neither our key nor our password.
        turingpi_testkit::NodePlan::new("node1")
            .address("10.10.88.73".parse().unwrap())
            .slot("board1", 1)
            .installed(OsImage::debian().with_size(64 * 1024))
            .running()
            .user("root", "another")
    })
    .start()
    .await;
    world.simulation.board("board1").adopt_power();
    let run = world.apply().await;
    let failure = run.failed();
    assert_eq!(failure.class, FailureClass::Refused, "{failure:#?}");
    assert!(failure.hint.is_some());
    assert_eq!(world.flashes(), [0]);
}

#[tokio::test]
async fn a_node_of_another_cluster_is_refused_and_nothing_is_changed_on_it() {
    let ours = world(HOSTS).start().await;
    ours.converge().await;
    // The same hosts, but a state that has made another cluster.
    let state = ours.state_text();
    let token =
        ours.state()["secrets"].as_object().unwrap().keys().find(|k| k.contains("token")).unwrap().clone();
    let mut other = ours.state();
    for key in [token.as_str(), "k3s/token", "k3s/join-token"] {
        if other["secrets"].get(key).is_some() {
            other["secrets"][key] = "a-token-of-another-cluster".into();
        }
    }
    fs::write(ours.state_dir().join("state.json"), serde_json::to_string(&other).unwrap()).unwrap();
    let logged = ours.node("node1").files("/etc").len();
    let failure = ours.apply().await.failed();
    assert_eq!(failure.class, FailureClass::Refused, "{failure:#?}");
    assert!(failure.message.contains("another cluster"), "{failure:#?}");
    assert!(failure.hint.is_some());
    assert_eq!(ours.node("node1").files("/etc").len(), logged);
    // With the right state it is ours again.
    fs::write(ours.state_dir().join("state.json"), state).unwrap();
    ours.settled().await;
}

#[tokio::test]
async fn what_will_be_lost_is_told_before_anything_is_done() {
    let world = world(SMALL).start().await;
    let planned = world.plan().await.unwrap();
    let told = lines(&planned);
    assert!(
        told.iter().any(|l| l.starts_with("node1/flash: eMMC of slot board1/1 - -> armbian")),
        "{told:#?}"
    );
    assert!(!planned.notes.is_empty(), "the certificate that would be pinned");
    for approval in [Approval::safe_only(), Approval::disruptive()] {
        let failure = world.apply_with(&Intent::default(), &approval).await.failed();
        assert_eq!(failure.class, FailureClass::Unapproved);
    }
    assert_eq!(world.flashes(), [0, 0]);
    // The digest of exactly this plan is an approval too.
    let approval = Approval::safe_only().digest(planned.preview.digest());
    world.apply_with(&Intent::default(), &approval).await.done();
    world.settled().await;
}
