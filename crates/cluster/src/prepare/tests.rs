//! The planner, from facts that are data: each thing that differs gives exactly its step.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use rstest::rstest;
use serde_json::Value;
use sha2::{Digest, Sha256};
use turingpi_engine::{Change, Risk, StepDescription};
use turingpi_ssh::{SshClient, SshConnector, SshError, SshTarget};

use super::*;
use crate::{FileFact, Mount, OsFamily, Role, UnitState};

struct NoConnection;

#[async_trait]
impl SshConnector for NoConnection {
    async fn connect(&self, _: &SshTarget) -> Result<Arc<dyn SshClient>, SshError> {
        unreachable!("planning does not connect")
    }
}

fn nodes() -> Vec<NodeSpec> {
    (1..=2)
        .map(|n| {
            let address = format!("10.10.88.7{}", n + 2);
            NodeSpec::new(format!("node{n}"), Role::Worker, address.parse().unwrap(), SshTarget::new(address))
        })
        .collect()
}

fn unit(active: &str) -> UnitState {
    UnitState {
        load: "loaded".to_owned(),
        active: active.to_owned(),
        sub: "running".to_owned(),
        file: "enabled".to_owned(),
        ..UnitState::default()
    }
}

fn file(text: &str) -> FileFact {
    let sha256 = hex::encode(Sha256::digest(text));
    FileFact { sha256, mode: 0o644, owner: "root:root".to_owned(), bytes: text.len() as u64 }
}

const MODULES: &str = "br_netfilter\ndm_crypt\niscsi_tcp\noverlay\n";
const SYSCTL: &str = "fs.inotify.max_user_instances = 1024\nfs.inotify.max_user_watches = 524288\nnet.bridge.bridge-nf-call-ip6tables = 1\nnet.bridge.bridge-nf-call-iptables = 1\nnet.ipv4.ip_forward = 1\n";
const HOSTS: &str = "127.0.0.1 localhost\n127.0.1.1\tnode1\n# BEGIN turingpi home\n10.10.88.73 node1\n10.10.88.74 node2\n# END turingpi home\n";

/// A node that is as wanted.
fn prepared(name: &str) -> HostFacts {
    let needs = NodeNeeds::kubernetes();
    let mut facts = HostFacts::default();
    facts.hostname = name.to_owned();
    facts.static_hostname = name.to_owned();
    facts.machine_id = hex::encode(Sha256::digest(name))[..32].to_owned();
    facts.boot_id = format!("boot-of-{name}");
    facts.os.family = OsFamily::Debian;
    facts.cgroup.version = 2;
    facts.cgroup.controllers = ["cpu", "cpuset", "memory", "pids"].map(str::to_owned).into();
    facts.time.synchronized = Some(true);
    facts.time.timezone = Some("Etc/UTC".to_owned());
    facts.packages = needs.packages.iter().map(|p| (p.clone(), "1".to_owned())).collect();
    facts.modules = needs.modules.clone();
    facts.sysctl = needs.sysctl.clone();
    facts.files.insert(kernel::MODULES_PATH.to_owned(), file(MODULES));
    facts.files.insert(kernel::SYSCTL_PATH.to_owned(), file(SYSCTL));
    facts
        .texts
        .insert("/etc/hosts".to_owned(), HOSTS.replace("127.0.1.1\tnode1", &format!("127.0.1.1\t{name}")));
    facts.texts.insert(packages::INITIATOR_PATH.to_owned(), format!("InitiatorName=iqn.x:{name}\n"));
    facts.units.insert(packages::ISCSI_UNIT.to_owned(), unit("active"));
    facts.units.insert("systemd-timesyncd.service".to_owned(), unit("active"));
    facts
}

fn plan_with(
    spec: &HostSpec,
    node: &str,
    facts: &BTreeMap<String, &HostFacts>,
    lock: Option<&str>,
) -> Vec<StepDescription> {
    let nodes = nodes();
    let needs =
        NodeNeeds { trusted_networks: ["10.244.0.0/16".parse().unwrap()].into(), ..NodeNeeds::kubernetes() };
    let hosts = Hosts::new(Arc::new(NoConnection), []);
    let with = Preparation {
        cluster: "home",
        node: nodes.iter().find(|n| n.name == node).unwrap(),
        nodes: &nodes,
        spec,
        needs: &needs,
        facts,
        disruption_lock: lock,
    };
    prepare_steps(&with, &hosts).iter().map(|s| s.describe()).collect()
}

fn plan(node1: &HostFacts) -> Vec<StepDescription> {
    plan_with(&HostSpec::default(), "node1", &BTreeMap::from([("node1".to_owned(), node1)]), None)
}

fn ids(steps: &[StepDescription]) -> Vec<&str> {
    steps.iter().map(|s| s.id.strip_prefix("node1/").unwrap()).collect()
}

#[test]
fn a_prepared_node_needs_nothing() {
    assert_eq!(plan(&prepared("node1")), []);
}

/// One thing that differs on an otherwise prepared node.
type Drift = fn(&mut HostFacts);

#[rstest]
#[case::hostname(|f: &mut HostFacts| f.hostname = "turing-rk1".to_owned(), &["hostname"])]
#[case::hostname_at_boot(|f: &mut HostFacts| f.static_hostname = "turing-rk1".to_owned(), &["hostname"])]
#[case::no_machine_id(|f: &mut HostFacts| f.machine_id.clear(), &["machine-id", "reboot"])]
#[case::uninitialized(|f: &mut HostFacts| f.machine_id = "uninitialized".to_owned(), &["machine-id", "reboot"])]
#[case::hosts(|f: &mut HostFacts| { f.texts.insert("/etc/hosts".to_owned(), "127.0.0.1 localhost\n".to_owned()); }, &["hosts-file"])]
#[case::no_time_service(|f: &mut HostFacts| { f.units.remove("systemd-timesyncd.service"); }, &["time-sync"])]
#[case::time_service_off(|f: &mut HostFacts| { f.units.insert("systemd-timesyncd.service".to_owned(), unit("inactive")); }, &["time-sync"])]
#[case::clock(|f: &mut HostFacts| { f.time.synchronized = Some(false); f.time.skew_seconds = -800_000_000; }, &["time-sync"])]
#[case::package(|f: &mut HostFacts| { f.packages.remove("nfs-common"); }, &["packages"])]
#[case::iscsid(|f: &mut HostFacts| { f.units.insert("iscsid.service".to_owned(), unit("inactive")); }, &["iscsi"])]
#[case::no_initiator(|f: &mut HostFacts| { f.texts.remove(packages::INITIATOR_PATH); }, &["iscsi"])]
#[case::swap(|f: &mut HostFacts| f.swaps.push(crate::Swap { path: "/dev/zram0".to_owned(), kib: 2048 }), &["swap"])]
#[case::fstab(|f: &mut HostFacts| { f.put_extra(swap::FSTAB, "/swapfile none swap sw 0 0\n"); }, &["swap"])]
#[case::zram(|f: &mut HostFacts| { f.texts.insert(swap::ZRAM_PATH.to_owned(), "ENABLED=true\n".to_owned()); }, &["swap"])]
#[case::module(|f: &mut HostFacts| { f.modules.remove("overlay"); }, &["modules"])]
#[case::modules_file(|f: &mut HostFacts| { f.files.remove(kernel::MODULES_PATH); }, &["modules"])]
#[case::sysctl(|f: &mut HostFacts| { f.sysctl.insert("net.ipv4.ip_forward".to_owned(), "0".to_owned()); }, &["sysctl"])]
#[case::sysctl_file(|f: &mut HostFacts| { f.files.insert(kernel::SYSCTL_PATH.to_owned(), file("x")); }, &["sysctl"])]
#[case::firewall(|f: &mut HostFacts| f.firewall.ufw = Some(Default::default()), &["firewall"])]
#[case::ramlog(|f: &mut HostFacts| { f.texts.insert(logs::RAMLOG_PATH.to_owned(), "ENABLED=true\nSIZE=50M\n".to_owned()); }, &["log-disk", "reboot"])]
#[case::cgroups(|f: &mut HostFacts| { f.cgroup.controllers.remove("memory"); }, &["cgroups", "reboot"])]
#[case::reboot_due(|f: &mut HostFacts| { f.texts.insert(crate::host::PENDING_PATH.to_owned(), "boot-of-node1 cgroups\n".to_owned()); }, &["reboot"])]
#[case::reboot_done(|f: &mut HostFacts| { f.texts.insert(crate::host::PENDING_PATH.to_owned(), "an-older-boot cgroups\n".to_owned()); }, &[])]
#[case::updated_kernel(|f: &mut HostFacts| { f.wants_reboot.insert("kernel".to_owned()); f.modules.remove("overlay"); }, &["modules", "reboot"])]
#[case::updated_packages(|f: &mut HostFacts| { f.wants_reboot.insert("packages".to_owned()); }, &[])]
fn each_difference_gives_exactly_its_step(#[case] drift: Drift, #[case] expected: &[&str]) {
    let mut facts = prepared("node1");
    drift(&mut facts);
    let steps = plan(&facts);
    assert_eq!(ids(&steps), expected);
    for step in &steps {
        assert!(!step.changes.is_empty(), "{} says what it changes", step.id);
        let risk = if step.id.ends_with("/reboot") { Risk::Disruptive } else { Risk::Safe };
        assert_eq!(step.risk, risk, "{}", step.id);
    }
    assert_eq!(plan(&facts), steps, "planning is pure");
}

#[test]
fn changes_tell_old_and_new() {
    let mut facts = prepared("node1");
    facts.hostname = "turing-rk1".to_owned();
    facts.sysctl.insert("net.ipv4.ip_forward".to_owned(), "0".to_owned());
    facts.swaps.push(crate::Swap { path: "/dev/zram0".to_owned(), kib: 8 * 1024 * 1024 });
    let steps = plan(&facts);
    let changes: Vec<&Change> = steps.iter().flat_map(|s| &s.changes).collect();
    assert_eq!(
        changes,
        [
            &Change::replace("host name", "turing-rk1", "node1"),
            &Change::replace("swap /dev/zram0", "8192 MiB", "off"),
            &Change::replace("net.ipv4.ip_forward", "0", "1"),
        ]
    );
}

#[test]
fn a_node_without_facts_gets_every_step_that_is_wanted_with_one_reboot_last() {
    let spec = HostSpec { timezone: Some("Europe/Berlin".to_owned()), ..HostSpec::default() };
    let steps = plan_with(&spec, "node1", &BTreeMap::new(), None);
    assert_eq!(
        ids(&steps),
        [
            "hostname",
            "machine-id",
            "hosts-file",
            "timezone",
            "time-sync",
            "packages",
            "iscsi",
            "swap",
            "modules",
            "sysctl",
            "log-disk",
            "reboot",
        ]
    );
    assert_eq!(steps.last().map(|s| s.risk), Some(Risk::Disruptive));
}

#[test]
fn what_the_spec_leaves_alone_is_left_alone() {
    let spec = HostSpec {
        swap: Swapping::Keep,
        firewall: Firewalling::Leave,
        log_disk: LogDisk::Keep,
        hosts_file: HostsFile::Leave,
        ..HostSpec::default()
    };
    let mut facts = prepared("node1");
    facts.swaps.push(crate::Swap { path: "/dev/zram0".to_owned(), kib: 2048 });
    facts.firewall.ufw = Some(Default::default());
    facts.texts.insert(logs::RAMLOG_PATH.to_owned(), "ENABLED=true\n".to_owned());
    facts.texts.remove("/etc/hosts");
    facts.mounts.push(Mount {
        device: "/dev/zram1".to_owned(),
        path: "/var/log".to_owned(),
        kind: "ext4".to_owned(),
    });
    assert_eq!(plan_with(&spec, "node1", &BTreeMap::from([("node1".to_owned(), &facts)]), None), []);
}

#[test]
fn of_two_nodes_with_one_identity_only_the_second_gets_another() {
    let one = prepared("node1");
    let mut two = prepared("node2");
    two.machine_id.clone_from(&one.machine_id);
    two.texts.insert(packages::INITIATOR_PATH.to_owned(), one.text(packages::INITIATOR_PATH).to_owned());
    let facts = BTreeMap::from([("node1".to_owned(), &one), ("node2".to_owned(), &two)]);
    assert_eq!(plan_with(&HostSpec::default(), "node1", &facts, None), []);
    let steps = plan_with(&HostSpec::default(), "node2", &facts, None);
    let ids: Vec<&str> = steps.iter().map(|s| s.id.as_str()).collect();
    assert_eq!(ids, ["node2/machine-id", "node2/iscsi", "node2/reboot"]);
    assert!(steps[0].changes[0].old.as_ref().unwrap().ends_with("the same as node1"));
}

#[test]
fn a_reboot_of_a_running_cluster_takes_its_lock() {
    let mut facts = prepared("node1");
    facts.cgroup.controllers.remove("memory");
    let facts = BTreeMap::from([("node1".to_owned(), &facts)]);
    let steps = plan_with(&HostSpec::default(), "node1", &facts, Some("the-lock"));
    let locks: Vec<_> = steps.iter().map(|s| (s.id.as_str(), s.locks.clone())).collect();
    assert_eq!(locks, [("node1/cgroups", vec![]), ("node1/reboot", vec!["the-lock".to_owned()])]);
}

#[test]
fn extra_wishes_of_the_spec_are_planned() {
    let spec: HostSpec = serde_json::from_value(serde_json::json!({
        "timezone": "America/Chicago", "packages": ["htop", "vim=2:9"], "modules": ["nfs"],
        "sysctl": {"vm.max_map_count": "262144"}, "ntp": ["10.0.0.1"],
    }))
    .unwrap();
    spec.validate().unwrap();
    let facts = prepared("node1");
    let steps = plan_with(&spec, "node1", &BTreeMap::from([("node1".to_owned(), &facts)]), None);
    assert_eq!(ids(&steps), ["timezone", "time-sync", "packages", "modules", "sysctl"]);
}

#[rstest]
#[case(serde_json::json!({"timezone": "../../etc/passwd"}))]
#[case(serde_json::json!({"packages": ["-o=Dpkg::Pre-Install-Pkgs::=rm"]}))]
#[case(serde_json::json!({"packages": ["curl; reboot"]}))]
#[case(serde_json::json!({"modules": ["br_netfilter\nevil"]}))]
#[case(serde_json::json!({"sysctl": {"a b": "1"}}))]
#[case(serde_json::json!({"sysctl": {"a.b": "1\nc = 2"}}))]
#[case(serde_json::json!({"ntp": ["a b"]}))]
fn a_value_that_would_be_more_than_a_value_is_refused(#[case] spec: Value) {
    let spec: HostSpec = serde_json::from_value(spec).unwrap();
    assert!(spec.validate().is_err());
}

#[test]
fn the_host_section_refuses_unknown_keys_and_has_a_schema() {
    assert!(serde_json::from_value::<HostSpec>(serde_json::json!({"time-zone": "x"})).is_err());
    let schema = serde_json::to_value(schemars::schema_for!(HostSpec)).unwrap();
    assert!(schema["properties"]["log-disk"].is_object(), "{schema}");
}
