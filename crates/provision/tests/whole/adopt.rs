//! A cluster that k3s's own installer made is taken over as it is; somebody else's is left alone.
use std::time::Duration;

use crate::common::{World, condition, private, world};
use turingpi_provision::{TeardownIntent, cluster::kube::ClusterApi as _, engine::FailureClass};
use turingpi_testkit::Gvr;

const VERSION: &str = "v1.35.5+k3s1";
const TOKEN: &str = "chosen-by-a-person-years-ago";

/// The networks that k3s itself takes, which are not this tool's defaults.
const ADOPTED: &str = "
network: { pods: 10.42.0.0/16, services: 10.43.0.0/16 }
nodes:
  - { name: node1, role: control-plane, address: 10.10.88.73 }
  - { name: node2, role: worker,        address: 10.10.88.74 }
";

/// What `curl -sfL https://get.k3s.io | sh -s - ROLE FLAGS` leaves on a host: program, links, both scripts, environment,
/// unit; then it starts the service. `$1` is the unit, `$2` its command, `$3` the environment, `$4` the release.
const INSTALLER: &str = r#"
set -eu
unit=$1 command=$2 environment=$3 release=$4
base=https://github.com/k3s-io/k3s/releases/download/$release
if ! command -v curl >/dev/null; then apt-get update -qq && apt-get install -y -qq curl >/dev/null; fi
curl -sfL -o /tmp/k3s.hash "$base/sha256sum-arm64.txt"
curl -sfL -o /usr/local/bin/k3s "$base/k3s-arm64"
wanted=$(grep ' k3s-arm64$' /tmp/k3s.hash | cut -d ' ' -f 1)
test "$wanted" = "$(sha256sum /usr/local/bin/k3s | cut -d ' ' -f 1)"
chmod 755 /usr/local/bin/k3s
for link in kubectl crictl ctr; do ln -s k3s "/usr/local/bin/$link"; done
printf '#!/bin/sh\n[ $(id -u) -eq 0 ] || exec sudo $0 $@\nsystemctl stop "k3s*.service"\n' >/usr/local/bin/k3s-killall.sh
chmod 755 /usr/local/bin/k3s-killall.sh
uninstall=k3s-uninstall.sh
if [ "$unit" = k3s-agent ]; then uninstall=k3s-agent-uninstall.sh; fi
printf '#!/bin/sh\n/usr/local/bin/k3s-killall.sh\nrm -rf /etc/rancher/k3s\n' >"/usr/local/bin/$uninstall"
chmod 755 "/usr/local/bin/$uninstall"
( umask 077; printf '%s\n' "$environment" >"/etc/systemd/system/$unit.service.env" )
cat >"/etc/systemd/system/$unit.service" <<UNIT
[Unit]
Description=Lightweight Kubernetes
Documentation=https://k3s.io
Wants=network-online.target
After=network-online.target

[Install]
WantedBy=multi-user.target

[Service]
Type=notify
EnvironmentFile=-/etc/default/%N
EnvironmentFile=-/etc/sysconfig/%N
EnvironmentFile=-/etc/systemd/system/$unit.service.env
KillMode=process
Delegate=yes
User=root
LimitNOFILE=1048576
LimitNPROC=infinity
LimitCORE=infinity
TasksMax=infinity
TimeoutStartSec=0
Restart=always
RestartSec=5s
ExecStartPre=-/sbin/modprobe br_netfilter
ExecStartPre=-/sbin/modprobe overlay
ExecStart=/usr/local/bin/k3s \\
    $command \\

UNIT
systemctl daemon-reload
systemctl enable "$unit" >/dev/null 2>&1
systemctl start --no-block "$unit"
"#;

async fn install(world: &World, node: &str, unit: &str, command: &str, environment: &str) {
    let node = world.node(node);
    node.put_file("/root/install.sh", INSTALLER);
    let line = format!("sh /root/install.sh {unit} \"{command}\" \"{environment}\" {VERSION}");
    let (code, out, err) = node.run(&line).await;
    assert_eq!(code, 0, "{out}{err}");
    node.remove_file("/root/install.sh");
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let limit = tokio::time::timeout(Duration::from_secs(60), async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    assert!(limit.await.is_ok(), "never: {what}");
}

fn ready(world: &World, name: &str) -> bool {
    let node = world.simulation.kube().and_then(|k| k.store().find(&Gvr::NODES, None, name));
    node.is_some_and(|n| condition(&n, "Ready") == Some("True"))
}

/// A server and an agent, made by hand with k3s's installer, and its user's own settings and objects.
async fn installed(yaml: &str) -> World {
    let world = world(yaml).start().await;
    let node1 = world.node("node1");
    node1.put_file(
        "/etc/rancher/k3s/config.yaml",
        "disable: [traefik]\nnode-label: [\"rack=cellar\"]\nkube-apiserver-arg: [\"v=2\"]\n",
    );
    let environment = format!("K3S_TOKEN='{TOKEN}'\nHTTPS_PROXY='http://proxy.lan:3128'");
    install(&world, "node1", "k3s", "server", &environment).await;
    until("the server is ready", || ready(&world, "node1")).await;
    let environment = format!("K3S_TOKEN='{TOKEN}'\nK3S_URL='https://10.10.88.73:6443'");
    install(&world, "node2", "k3s-agent", "agent", &environment).await;
    until("the agent is ready", || ready(&world, "node2")).await;
    let note = serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "family", "namespace": "default"}, "data": {"photos": "all of them"}});
    let kube = world.simulation.kube().unwrap();
    kube.store().create(&Gvr::new("", "v1", "configmaps"), Some("default"), note).unwrap();
    world
}

#[tokio::test]
async fn a_cluster_made_by_k3ss_installer_is_taken_over_and_loses_nothing() {
    let world = installed(ADOPTED).await;
    let kube = world.simulation.kube().unwrap();
    let ca = kube.pki().ca_hash();
    let uid = |name: &str| kube.store().get(&Gvr::NODES, None, name).unwrap()["metadata"]["uid"].clone();
    let before = ["node1", "node2"].map(|n| (uid(n), world.node(n).file("/etc/rancher/node/password")));
    let files = ["/etc/rancher/k3s/config.yaml", "/var/lib/rancher/k3s/server/token"];
    let texts = files.map(|f| world.node("node1").text(f));

    let planned = world.planned().await;
    for told in
        ["k3s.service the installer's unit -> our unit", "k3s-agent.service the installer's unit -> our unit"]
    {
        assert!(planned.iter().any(|l| l.contains(told)), "{told}: {planned:#?}");
    }
    assert!(!planned.iter().any(|l| l.contains("k3s-binary")), "{planned:#?}");
    world.converge().await;

    // The same cluster, the same nodes, the same data.
    assert_eq!(world.simulation.clusters().len(), 1);
    assert_eq!(world.simulation.kube().unwrap().pki().ca_hash(), ca);
    assert_eq!(
        ["node1", "node2"].map(|n| (uid(n), world.node(n).file("/etc/rancher/node/password"))),
        before
    );
    assert_eq!(files.map(|f| world.node("node1").text(f)), texts);
    assert_eq!(world.state()["secrets"]["k3s/token"], TOKEN);
    let note = kube.store().get(&Gvr::new("", "v1", "configmaps"), Some("default"), "family").unwrap();
    assert_eq!(note["data"]["photos"], "all of them");
    let nodes = world.kube().await.nodes().await.unwrap();
    assert_eq!(nodes[0].labels["rack"], "cellar");

    // What its user told the installer stays in force, and its tools stay.
    let unit = world.node("node1").text("/etc/systemd/system/k3s.service").unwrap();
    assert!(unit.contains("EnvironmentFile=-/etc/systemd/system/%N.service.env"), "{unit}");
    let environment = world.node("node1").file("/etc/systemd/system/k3s.service.env").unwrap();
    assert_eq!(environment.mode, 0o600);
    assert!(String::from_utf8(environment.bytes).unwrap().contains("http://proxy.lan:3128"));
    for tool in ["kubectl", "crictl", "ctr", "k3s-killall.sh", "k3s-uninstall.sh"] {
        assert!(world.node("node1").file(&format!("/usr/local/bin/{tool}")).is_some(), "{tool}");
    }
    // A second apply has nothing to do, and neither has one after a reboot.
    assert_eq!(world.apply().await.done().steps_done, 0);
}

#[tokio::test]
async fn a_cluster_that_was_taken_over_is_taken_away_with_what_its_installer_left() {
    let world = installed(ADOPTED).await;
    world.converge().await;
    world.destroy(&TeardownIntent::default()).await.done();
    for (node, unit, script) in
        [("node1", "k3s", "k3s-uninstall.sh"), ("node2", "k3s-agent", "k3s-agent-uninstall.sh")]
    {
        let left = [
            format!("/etc/systemd/system/{unit}.service"),
            format!("/etc/systemd/system/{unit}.service.env"),
            format!("/usr/local/bin/{script}"),
            "/usr/local/bin/k3s-killall.sh".to_owned(),
            "/usr/local/bin/kubectl".to_owned(),
            "/usr/local/bin/k3s".to_owned(),
            "/var/lib/rancher/k3s".to_owned(),
        ];
        let left: Vec<&String> = left.iter().filter(|p| world.node(node).file(p).is_some()).collect();
        assert!(left.is_empty(), "{node}: {left:?}");
    }
}

#[tokio::test]
async fn a_cluster_with_other_networks_is_refused_before_anything_is_changed() {
    let yaml = ADOPTED.replace("network: { pods: 10.42.0.0/16, services: 10.43.0.0/16 }", "");
    let world = installed(&yaml).await;
    let before = world.node("node1").files("/etc");
    let failure = world.apply().await.failed();
    assert_eq!(failure.class, FailureClass::Refused, "{failure:#?}");
    assert!(
        failure.message.contains("10.42.0.0/24") && failure.message.contains("10.244.0.0/16"),
        "{failure:#?}"
    );
    assert!(failure.hint.unwrap().contains("network.pods"));
    assert_eq!(world.node("node1").files("/etc"), before);

    let yaml = ADOPTED.replace("services: 10.43.0.0/16", "services: 10.96.0.0/12");
    let world = installed(&yaml).await;
    let failure = world.apply().await.failed();
    assert_eq!(failure.class, FailureClass::Refused, "{failure:#?}");
    assert!(failure.message.contains("10.43.0.1") && failure.hint.unwrap().contains("network.services"));
}

#[tokio::test]
async fn settings_on_the_command_line_of_a_unit_are_never_dropped() {
    let world = world(ADOPTED).start().await;
    install(&world, "node1", "k3s", "server '--disable' 'traefik'", &format!("K3S_TOKEN='{TOKEN}'")).await;
    until("the server is ready", || ready(&world, "node1")).await;
    let before = world.node("node1").files("/etc");
    let failure = world.apply().await.failed();
    assert_eq!(failure.class, FailureClass::Refused, "{failure:#?}");
    assert!(failure.message.contains("/etc/systemd/system/k3s.service"), "{failure:#?}");
    assert!(failure.hint.unwrap().contains("/etc/rancher/k3s/config.yaml"));
    assert_eq!(world.node("node1").files("/etc"), before);

    // As the hint says: its flags into the file, and it is taken over.
    let node1 = world.node("node1");
    node1.put_file("/etc/rancher/k3s/config.yaml", "disable: [traefik]\n");
    let (code, _, err) = node1
        .run("sed -i \"s/server '--disable' 'traefik'/server/\" /etc/systemd/system/k3s.service && systemctl daemon-reload")
        .await;
    assert_eq!(code, 0, "{err}");
    world.converge().await;
    assert_eq!(world.simulation.clusters().len(), 1);
}

#[tokio::test]
async fn an_installers_cluster_is_refused_when_our_state_has_another_token() {
    let world = installed(ADOPTED).await;
    // What another run has left: the state of a cluster of its own.
    let other = crate::common::world(ADOPTED).start().await;
    other.converge().await;
    world.plan().await.unwrap();
    let theirs = other.state_text();
    assert!(theirs.contains("k3s/token"));
    private(&world.state_dir().join("state.json"), &theirs);
    let before = ["node1", "node2"].map(|n| world.node(n).files("/etc"));
    let failure = world.apply().await.failed();
    assert_eq!(failure.class, FailureClass::Refused, "{failure:#?}");
    assert!(failure.message.contains("node1") && failure.message.contains("another cluster"), "{failure:#?}");
    assert!(failure.hint.is_some());
    assert_eq!(["node1", "node2"].map(|n| world.node(n).files("/etc")), before);
}

#[tokio::test]
async fn an_agent_of_somebody_elses_cluster_is_refused() {
    // Two clusters; the document names one's server and the other's agent.
    let world =
        world(&format!("{ADOPTED}  - {{ name: node3, role: worker, address: 10.10.88.75 }}\n")).start().await;
    install(&world, "node3", "k3s", "server", "K3S_TOKEN='theirs'").await;
    until("their server is ready", || ready(&world, "node3")).await;
    install(&world, "node2", "k3s-agent", "agent", "K3S_TOKEN='theirs'\nK3S_URL='https://10.10.88.75:6443'")
        .await;
    until("their agent is ready", || ready(&world, "node2")).await;
    install(&world, "node1", "k3s", "server", &format!("K3S_TOKEN='{TOKEN}'")).await;
    until("our server is ready", || ready(&world, "node1")).await;
    let before = ["node1", "node2", "node3"].map(|n| world.node(n).files("/etc"));
    let failure = world.apply().await.failed();
    assert_eq!(failure.class, FailureClass::Refused, "{failure:#?}");
    assert!(failure.message.contains("node2") && failure.message.contains("another cluster"), "{failure:#?}");
    assert_eq!(["node1", "node2", "node3"].map(|n| world.node(n).files("/etc")), before);
}
