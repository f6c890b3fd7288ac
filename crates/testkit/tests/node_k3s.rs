//! k3s on simulated nodes, seen through the cluster's store and the nodes' shells.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests are tests too")]

use std::time::Duration;

use serde_json::Value;
use turingpi_testkit::{Gvr, NodePlan, OsImage, Simulation, k3s_binary};

const VERSION: &str = "v1.35.5+k3s1";

async fn nodes(count: u8) -> Simulation {
    let mut builder = Simulation::builder();
    for n in 1..=count {
        let plan = NodePlan::new(format!("node{n}"))
            .address(format!("10.10.88.{}", 72 + n).parse().unwrap())
            .installed(OsImage::armbian())
            .running();
        builder = builder.node(plan);
    }
    builder.start().await.unwrap()
}

async fn prepare(simulation: &Simulation, name: &str, role: &str, config: &str) {
    let node = simulation.node(name);
    node.put_file("/usr/local/bin/k3s", k3s_binary(VERSION, "arm64"));
    node.put_file("/etc/rancher/k3s/config.yaml.d/50-x.yaml", config);
    let unit = if role == "server" { "k3s" } else { "k3s-agent" };
    node.put_file(
        &format!("/etc/systemd/system/{unit}.service"),
        format!(
            "[Unit]\nDescription=Lightweight Kubernetes\n[Service]\nType=notify\nKillMode=process\nTimeoutStartSec=0\nRestart=always\nRestartSec=5s\nExecStartPre=-/sbin/modprobe br_netfilter\nExecStart=/usr/local/bin/k3s {role}\n[Install]\nWantedBy=multi-user.target\n"
        ),
    );
    let (code, _, err) = node
        .run(&format!("chmod 755 /usr/local/bin/k3s && systemctl daemon-reload && systemctl enable {unit}"))
        .await;
    assert_eq!(code, 0, "{err}");
}

async fn until(what: &str, mut test: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(60), async {
        while !test() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    assert!(waited.await.is_ok(), "never: {what}");
}

fn ready(simulation: &Simulation, name: &str) -> Option<String> {
    condition(simulation, name, "Ready")
}

fn condition(simulation: &Simulation, name: &str, kind: &str) -> Option<String> {
    let node = simulation.kube()?.store().find(&Gvr::NODES, None, name)?;
    let list = node.pointer("/status/conditions")?.as_array()?.clone();
    let found = list.into_iter().find(|c| c["type"] == kind)?;
    found["status"].as_str().map(str::to_owned)
}

#[tokio::test]
async fn a_server_and_an_agent_become_ready_and_a_power_cut_makes_the_agent_unknown() {
    let simulation = nodes(2).await;
    prepare(&simulation, "node1", "server", "token: abc\nnode-label: [\"tier=one\"]\ndisable: [traefik]\n")
        .await;
    let (code, _, err) = simulation.node("node1").run("systemctl start k3s").await;
    assert_eq!(code, 0, "{err} {:?}", simulation.node("node1").journal(Some("k3s.service")));
    until("node1 ready", || ready(&simulation, "node1").as_deref() == Some("True")).await;
    let token = simulation.node("node1").text("/var/lib/rancher/k3s/server/node-token").unwrap();
    assert!(token.starts_with("K10") && token.trim().ends_with("::server:abc"));
    assert_eq!(simulation.node("node1").file("/etc/rancher/k3s/k3s.yaml").unwrap().mode, 0o600);
    let config = format!("server: https://10.10.88.73:6443\ntoken: {token}");
    prepare(&simulation, "node2", "agent", &config).await;
    assert_eq!(simulation.node("node2").run("systemctl start --no-block k3s-agent").await.0, 0);
    until("node2 ready", || ready(&simulation, "node2").as_deref() == Some("True")).await;
    let (_, out, _) = simulation
        .node("node1")
        .run("k3s --version | head -n1; k3s kubectl get --raw /readyz; echo; k3s kubectl get nodes -o name")
        .await;
    assert_eq!(out, format!("k3s version {VERSION} (51ffa8d0)\nok\nnode/node1\nnode/node2\n"));
    let node: Value = simulation.kube().unwrap().store().find(&Gvr::NODES, None, "node1").unwrap();
    assert_eq!(node["status"]["nodeInfo"]["kubeletVersion"], VERSION);
    assert_eq!(node["metadata"]["labels"]["tier"], "one");
    // Its kubelet shows that it lives, and no longer when it has no power.
    let renewed = || {
        let lease = simulation.kube()?.store().find(&Gvr::LEASES, Some("kube-node-lease"), "node2")?;
        lease["spec"]["renewTime"].as_str().map(str::to_owned)
    };
    let first = renewed();
    until("its lease is renewed", || renewed().is_some_and(|now| Some(now) != first)).await;
    simulation.power_cut("node2").await;
    until("node2 lost", || ready(&simulation, "node2").as_deref() == Some("Unknown")).await;
    let last = renewed();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(renewed(), last, "nobody renews the lease of a node without power");
    simulation.power_restore("node2").await;
    until("node2 back", || ready(&simulation, "node2").as_deref() == Some("True")).await;
    assert_eq!(simulation.node("node2").unit("k3s-agent").unwrap().active, "active");
}

#[tokio::test]
async fn a_wrong_token_keeps_an_agent_activating_and_says_why() {
    let simulation = nodes(2).await;
    prepare(&simulation, "node1", "server", "token: abc\n").await;
    assert_eq!(simulation.node("node1").run("systemctl start k3s").await.0, 0);
    let other = format!("server: https://10.10.88.73:6443\ntoken: K10{}::server:abc\n", "0".repeat(64));
    prepare(&simulation, "node2", "agent", &other).await;
    let node2 = simulation.node("node2");
    let start = node2.run("systemctl start k3s-agent");
    let why = "token CA hash does not match the Cluster CA certificate hash";
    // Tried more than once, so the start hangs while the agent cannot join.
    let refused = until("the agent says why", || {
        let journal = simulation.node("node2").journal(Some("k3s-agent.service"));
        journal.iter().filter(|line| line.contains(why)).count() > 2
    });
    tokio::select! {
        ended = start => panic!("systemctl start ended: {ended:?}"),
        () = refused => {}
    }
    assert_eq!(simulation.node("node2").unit("k3s-agent").unwrap().active, "activating");
}

#[tokio::test]
async fn three_servers_form_an_etcd_cluster_and_need_a_majority() {
    let simulation = nodes(3).await;
    prepare(&simulation, "node1", "server", "token: abc\ncluster-init: true\n").await;
    assert_eq!(simulation.node("node1").run("systemctl start k3s").await.0, 0);
    for name in ["node2", "node3"] {
        prepare(&simulation, name, "server", "token: abc\nserver: https://10.10.88.73:6443\n").await;
        let (code, _, _) = simulation.node(name).run("systemctl start k3s").await;
        assert_eq!(code, 0, "{:?}", simulation.node(name).journal(Some("k3s.service")));
    }
    for name in ["node1", "node2", "node3"] {
        until("voter", || condition(&simulation, name, "EtcdIsVoter").as_deref() == Some("True")).await;
    }
    let voters = simulation.kube().unwrap().members();
    assert!(voters.iter().all(|(_, voter)| *voter) && voters.len() == 3, "{voters:?}");
    simulation.power_cut("node3").await;
    assert_eq!(simulation.node("node1").run("k3s kubectl get --raw /readyz").await.1, "ok");
    simulation.power_cut("node2").await;
    let (code, _, err) = simulation.node("node1").run("k3s kubectl get --raw /readyz").await;
    assert_eq!(code, 1);
    assert!(err.contains("refused"), "{err}");
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why_and_is_restarted() {
    let simulation = nodes(1).await;
    prepare(&simulation, "node1", "server", "token: abc\n").await;
    simulation.node("node1").put_file("/etc/rancher/k3s/registries.yaml", "mirrors: [\n");
    let (code, _, err) = simulation.node("node1").run("systemctl start k3s").await;
    assert_eq!(code, 1);
    assert!(err.contains("Job for k3s.service failed"), "{err}");
    until("restarts", || simulation.node("node1").unit("k3s").unwrap().restarts > 1).await;
    let show = simulation.node("node1").run("systemctl show -p NRestarts,ActiveState k3s").await.1;
    assert!(show.contains("NRestarts="), "{show}");
    assert!(!show.contains("ActiveState=active"), "{show}");
}

#[tokio::test]
async fn what_was_not_written_to_a_file_is_lost_at_a_reboot() {
    let simulation = nodes(1).await;
    let node = simulation.node("node1");
    let text = "modprobe overlay; sysctl -q -w net.ipv4.ip_forward=1; swapoff -a; echo x > /run/x; echo vxlan > /etc/modules-load.d/k.conf\n\
                echo fs.inotify.max_user_instances=1024 > /etc/sysctl.d/90-k.conf; sysctl -q --system; wc -l < /proc/swaps";
    let (_, out, err) = node.run(text).await;
    assert_eq!(out, "1\n", "{err}");
    let before = node.boot_id();
    node.reboot();
    until("rebooted", || node.running() && node.boot_id() != before).await;
    let check = "lsmod | grep -c -e '^overlay' -e '^vxlan'; sysctl -n net.ipv4.ip_forward fs.inotify.max_user_instances; wc -l < /proc/swaps; ls /run/x 2>/dev/null || echo gone";
    let (_, out, err) = node.run(check).await;
    assert_eq!(out, "1\n0\n1024\n2\ngone\n", "{err}");
    // The zram swap of Armbian comes back unless its own configuration says no.
    node.run("sed -i 's/^ENABLED.*/&\\nSWAP=false/' /etc/default/armbian-zram-config").await;
    let before = node.boot_id();
    node.reboot();
    until("rebooted", || node.running() && node.boot_id() != before).await;
    assert_eq!(node.run("wc -l < /proc/swaps").await.1, "1\n");
}
