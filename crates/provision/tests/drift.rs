//! What somebody changed on a node is found by the next plan, alone and by name, and put right by the next apply.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod common;

use std::collections::BTreeSet;

use common::{World, world};
use serde_json::json;
use turingpi_provision::cluster::kube::ClusterApi as _;
use turingpi_testkit::Gvr;

/// Something that drifts: what it is, the node and what a person did there, and the changes that a plan must then hold,
/// `step: what old -> new`, each a beginning. The plan may hold no other step.
type Drift = (&'static str, &'static str, &'static str, &'static [&'static str]);

const CONFIG: &str = "/etc/rancher/k3s/config.yaml.d/50-turingpi.yaml";

const CLUSTER: &str = "
host: { swap: 'off', timezone: Europe/Berlin, sysctl: { vm.max_map_count: '262144' } }
k3s: { registries: { mirrors: { docker.io: { endpoint: ['https://mirror.lan'] } } } }
nodes:
  - { name: node1, role: control-plane, address: 10.10.88.73, taints: ['dedicated=control:NoSchedule'] }
  - { name: node2, role: worker, address: 10.10.88.74, labels: { disk: ssd } }
";

const K3S: &[Drift] = &[
    (
        "the agent's config was edited",
        "node2",
        "echo 'node-label: [x=y]' >> /etc/rancher/k3s/config.yaml.d/50-turingpi.yaml",
        &[
            "node2/k3s-config: /etc/rancher/k3s/config.yaml.d/50-turingpi.yaml",
            "node2/k3s-restart: k3s-agent.service",
        ],
    ),
    (
        "the server's config is gone",
        "node1",
        "rm /etc/rancher/k3s/config.yaml.d/50-turingpi.yaml",
        &[
            "node1/k3s-config: /etc/rancher/k3s/config.yaml.d/50-turingpi.yaml",
            "node1/k3s-restart: k3s.service active -> restarted",
            "node1/k3s-api: ",
        ],
    ),
    (
        "the config is readable by others",
        "node1",
        "chmod 644 /etc/rancher/k3s/config.yaml.d/50-turingpi.yaml",
        &["node1/k3s-config: /etc/rancher/k3s/config.yaml.d/50-turingpi.yaml mode 0644 -> 0600"],
    ),
    (
        "a config of one's own was added",
        "node2",
        "mkdir -p /etc/rancher/k3s; echo 'debug: true' > /etc/rancher/k3s/config.yaml",
        &["node2/k3s-restart: k3s-agent.service active with older files -> restarted"],
    ),
    (
        "the unit was edited",
        "node2",
        "echo '# mine' >> /etc/systemd/system/k3s-agent.service",
        &["node2/k3s-unit: /etc/systemd/system/k3s-agent.service", "node2/k3s-restart: k3s-agent.service"],
    ),
    (
        "the service was stopped",
        "node2",
        "systemctl stop k3s-agent",
        &["node2/k3s-start: k3s-agent.service", "k3s/nodes-ready: node node2 - -> Ready"],
    ),
    (
        "the service does not start at boot",
        "node1",
        "systemctl disable k3s",
        &["node1/k3s-start: k3s.service at boot - -> enabled", "node1/k3s-api: "],
    ),
    (
        "the registries file was edited",
        "node2",
        "echo '# mine' >> /etc/rancher/k3s/registries.yaml",
        &["node2/k3s-registries: /etc/rancher/k3s/registries.yaml", "node2/k3s-restart: k3s-agent.service"],
    ),
    (
        "the binary is gone",
        "node2",
        "rm /usr/local/bin/k3s",
        &["node2/k3s-binary: ", "node2/k3s-restart: k3s-agent.service"],
    ),
];

const HOST: &[Drift] = &[
    (
        "the host name was changed",
        "node2",
        "echo other > /etc/hostname; hostname other",
        &["node2/hostname: host name other -> node2"],
    ),
    (
        "the host name at boot was changed",
        "node2",
        "echo other > /etc/hostname",
        &["node2/hostname: host name at boot other -> node2"],
    ),
    (
        "the nodes left /etc/hosts",
        "node1",
        "echo '127.0.0.1 localhost' > /etc/hosts",
        &["node1/hosts-file: /etc/hosts"],
    ),
    ("the time zone was changed", "node1", "timedatectl set-timezone UTC", &["node1/timezone: time zone"]),
    (
        "time is not kept",
        "node1",
        "timedatectl set-ntp false; systemctl disable --now systemd-timesyncd",
        &["node1/time-sync: "],
    ),
    ("a package was removed", "node2", "apt-get remove -y nfs-common", &["node2/packages: "]),
    ("the iSCSI service is off", "node2", "systemctl disable --now iscsid", &["node2/iscsi: iscsid.service"]),
    ("the module file is gone", "node1", "rm /etc/modules-load.d/*turingpi*", &["node1/modules: "]),
    ("the kernel parameters' file is gone", "node1", "rm /etc/sysctl.d/*turingpi*", &["node1/sysctl: "]),
    (
        "a kernel parameter has another value",
        "node1",
        "sysctl -w vm.max_map_count=65530",
        &["node1/sysctl: vm.max_map_count 65530 -> 262144"],
    ),
];

/// What a plan says of a drift, what it lacks, and what it holds beside it.
async fn check(world: &World, drift: &Drift) -> Result<(), String> {
    let (what, node, line, expected) = drift;
    let (status, out, err) = world.node(node).run(line).await;
    if status != 0 {
        return Err(format!("{what}: the test could not do it: {status} {out}{err}"));
    }
    found_and_repaired(world, what, expected).await
}

async fn found_and_repaired(world: &World, what: &str, expected: &[&str]) -> Result<(), String> {
    let found = world.planned().await;
    let step = |line: &str| line.split(": ").next().unwrap_or_default().to_owned();
    let steps: BTreeSet<String> = expected.iter().map(|e| step(e)).collect();
    let mut wrong = Vec::new();
    wrong.extend(
        expected.iter().filter(|e| !found.iter().any(|f| f.starts_with(**e))).map(|e| format!("lacks {e}")),
    );
    wrong.extend(found.iter().filter(|f| !steps.contains(&step(f))).map(|f| format!("beside it: {f}")));
    let run = world.apply().await;
    if let Err(failure) = &run.result {
        wrong.push(format!("was not repaired: {:#?}", failure.report()));
    }
    let left = world.planned().await;
    if !left.is_empty() {
        wrong.push(format!("still there after the repair: {left:#?}"));
    }
    if wrong.is_empty() { Ok(()) } else { Err(format!("{what}: {wrong:#?}\n  found: {found:#?}")) }
}

async fn all(drifts: &[Drift]) {
    let world = world(CLUSTER).start().await;
    world.converge().await;
    let mut wrong = Vec::new();
    for drift in drifts {
        wrong.extend(check(&world, drift).await.err());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    world.settled().await;
    assert_eq!(world.simulation.clusters().len(), 1);
}

#[tokio::test]
async fn what_drifts_in_k3s_is_found_and_repaired() {
    all(K3S).await;
}

#[tokio::test]
async fn what_drifts_on_a_host_is_found_and_repaired() {
    all(HOST).await;
}

#[tokio::test]
async fn another_binary_in_the_place_of_k3s_is_found_and_replaced() {
    let world = world(CLUSTER).start().await;
    world.converge().await;
    let other = turingpi_testkit::k3s_binary("v1.34.3+k3s1", "arm64");
    world.node("node2").put_file("/usr/local/bin/k3s", other);
    world.node("node2").run("chmod 755 /usr/local/bin/k3s").await;
    let expected = ["node2/k3s-binary: ", "node2/k3s-restart: k3s-agent.service"];
    found_and_repaired(&world, "the binary is of another version", &expected).await.unwrap();
    // A binary of the right version and other bytes is not the one of the release either.
    let mut bytes = turingpi_testkit::k3s_binary("v1.35.5+k3s1", "arm64");
    bytes.extend(b"# one more line\n");
    world.node("node2").put_file("/usr/local/bin/k3s", bytes);
    world.node("node2").run("chmod 755 /usr/local/bin/k3s").await;
    let restart = ["node2/k3s-restart: k3s-agent.service active with older files -> restarted"];
    let binary = ["node2/k3s-binary: ", "node2/k3s-restart: k3s-agent.service"];
    let found = world.planned().await;
    let expected: &[&str] = if found.iter().any(|l| l.starts_with(binary[0])) { &binary } else { &restart };
    found_and_repaired(&world, "the binary has other bytes", expected).await.unwrap();
}

#[tokio::test]
async fn labels_and_taints_that_were_changed_in_the_api_are_put_back_and_others_left_alone() {
    let world = world(CLUSTER).start().await;
    world.converge().await;
    let kube = world.simulation.kube().unwrap();
    let set = |node: &str, change: &dyn Fn(&mut serde_json::Value)| {
        kube.store().modify(&Gvr::NODES, None, node, change).unwrap();
    };
    set("node2", &|n| n["metadata"]["labels"]["disk"] = json!("hdd"));
    found_and_repaired(&world, "a label", &["k3s/labels: node2 label disk hdd -> ssd"]).await.unwrap();
    set("node2", &|n| {
        n["metadata"]["labels"].as_object_mut().unwrap().remove("disk");
    });
    found_and_repaired(&world, "no label", &["k3s/labels: node2 label disk - -> ssd"]).await.unwrap();
    set("node1", &|n| n["spec"]["taints"] = json!([]));
    let expected = ["k3s/labels: node1 taints - -> dedicated=control:NoSchedule"];
    found_and_repaired(&world, "no taint", &expected).await.unwrap();
    // What the document does not speak of is not ours.
    set("node2", &|n| n["metadata"]["labels"]["team"] = json!("blue"));
    set("node2", &|n| n["spec"]["taints"] = json!([{"key": "gpu", "effect": "NoSchedule"}]));
    assert_eq!(world.planned().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_damaged_or_missing_kubeconfig_is_written_again() {
    let world = world(CLUSTER).start().await;
    world.converge().await;
    let path = world.state_dir().join("kubeconfig");
    let whole = world.kubeconfig_text().unwrap();
    let expected = ["k3s/kubeconfig: "];
    for (what, text) in
        [("cut", whole[..whole.len() / 2].to_owned()), ("empty", String::new()), ("no YAML", "}{".to_owned())]
    {
        std::fs::write(&path, text).unwrap();
        found_and_repaired(&world, what, &expected).await.unwrap();
        assert_eq!(world.kube().await.nodes().await.unwrap().len(), 2, "{what}: it works");
    }
    std::fs::remove_file(&path).unwrap();
    found_and_repaired(&world, "missing", &expected).await.unwrap();
    assert_eq!(world.kube().await.nodes().await.unwrap().len(), 2);
}

#[tokio::test]
async fn swap_that_came_back_on_an_armbian_is_found_and_turned_off() {
    let world = world(common::SMALL).start().await;
    world.converge().await;
    let node = world.node("node2");
    assert!(node.text(CONFIG).is_some());
    let before = node.text("/etc/default/armbian-zram-config");
    let (status, _, err) =
        node.run("sed -i 's/^SWAP=false/SWAP=true/' /etc/default/armbian-zram-config").await;
    assert_eq!(status, 0, "{err}");
    assert_ne!(node.text("/etc/default/armbian-zram-config"), before, "{before:?}");
    found_and_repaired(&world, "zram swap", &["node2/swap: "]).await.unwrap();
}
