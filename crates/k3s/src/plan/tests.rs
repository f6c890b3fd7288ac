//! The planner, from facts that are data.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

mod quorum;

use async_trait::async_trait;
use rstest::rstest;
use secrecy::SecretString;
use serde_json::json;
use sha2::{Digest, Sha256};
use turingpi_cluster::{
    FetchOptions, Fetcher, FileFact, HostFacts, Hosts, NodeSpec, OsFamily, Role, UnitState,
    kube::{NodeStatus, WorkloadKind, parse_node, parse_workload},
};
use turingpi_engine::{FailureClass, FailureReport, Reconcile, Risk, State, StepDescription};
use turingpi_ssh::{SshClient, SshConnector, SshError, SshTarget};

use crate::{
    ApiFacts, Datastore, EntrySeen, JOIN_TOKEN_KEY, K3sCluster, K3sFacts, K3sNode, K3sSpec, NodeFacts, Reach,
    Registries, TOKEN_KEY, TeardownOptions, TokenProof, UnitOwner,
    config::{self, Entry},
    facts::applied_digest,
    k3s_cluster::env_of,
    paths, render_unit, unit,
};

const TOKEN: &str = "correct-horse-battery-staple-0123456789";
const VERSION: &str = "v1.35.5+k3s1";

struct NoConnection;

#[async_trait]
impl SshConnector for NoConnection {
    async fn connect(&self, _: &SshTarget) -> Result<Arc<dyn SshClient>, SshError> {
        unreachable!("planning does not connect")
    }
}

fn nodes(servers: usize, agents: usize) -> Vec<NodeSpec> {
    let node = |n: usize| {
        let role = if n <= servers { Role::ControlPlane } else { Role::Worker };
        let address = format!("10.10.88.{}", 72 + n);
        NodeSpec::new(format!("node{n}"), role, address.parse().unwrap(), SshTarget::new(address))
    };
    (1..=servers + agents).map(node).collect()
}

fn spec() -> K3sSpec {
    K3sSpec { version: Some(VERSION.parse().unwrap()), ..K3sSpec::default() }
}

fn cluster_with(nodes: Vec<NodeSpec>, spec: K3sSpec) -> K3sCluster {
    let hosts = Hosts::new(Arc::new(NoConnection), nodes.iter().map(|n| (n.name.clone(), n.ssh.clone())));
    let fetcher = Fetcher::new("unused", FetchOptions::default()).unwrap();
    K3sCluster::builder("home").nodes(nodes).spec(spec).hosts(hosts).fetcher(fetcher).build().unwrap()
}

fn cluster(servers: usize, agents: usize) -> K3sCluster {
    cluster_with(nodes(servers, agents), spec())
}

fn join_token() -> String {
    format!("K10{}::server:{TOKEN}", "c".repeat(64))
}

fn known_state() -> State {
    let mut state = State::default();
    state.put_secret(TOKEN_KEY, SecretString::from(TOKEN));
    state.put_secret(JOIN_TOKEN_KEY, SecretString::from(join_token()));
    state
}

fn file(bytes: &[u8], mode: u32) -> FileFact {
    let sha256 = hex::encode(Sha256::digest(bytes));
    FileFact { sha256, mode, owner: "root:root".to_owned(), bytes: bytes.len() as u64 }
}

fn active() -> UnitState {
    UnitState {
        load: "loaded".to_owned(),
        active: "active".to_owned(),
        sub: "running".to_owned(),
        file: "enabled".to_owned(),
        ..UnitState::default()
    }
}

/// A host that needs no preparation.
fn host(cluster: &K3sCluster, node: &NodeSpec) -> HostFacts {
    let needs = super::needs(env_of(cluster), node);
    let mut facts = HostFacts::default();
    facts.os.family = OsFamily::Debian;
    facts.hostname.clone_from(&node.name);
    facts.static_hostname.clone_from(&node.name);
    facts.machine_id = hex::encode(Sha256::digest(&node.name))[..32].to_owned();
    facts.boot_id = "boot".to_owned();
    facts.time.synchronized = Some(true);
    facts.packages = needs.packages.iter().map(|p| (p.clone(), "1".to_owned())).collect();
    facts.modules = needs.modules.clone();
    facts.sysctl = needs.sysctl.clone();
    let modules: String = needs.modules.iter().map(|m| format!("{m}\n")).collect();
    let sysctl: String = needs.sysctl.iter().map(|(k, v)| format!("{k} = {v}\n")).collect();
    facts.files.insert("/etc/modules-load.d/50-turingpi.conf".to_owned(), file(modules.as_bytes(), 0o644));
    facts.files.insert("/etc/sysctl.d/90-turingpi.conf".to_owned(), file(sysctl.as_bytes(), 0o644));
    let lines: String = cluster.nodes().iter().map(|n| format!("{} {}\n", n.address, n.name)).collect();
    facts
        .texts
        .insert("/etc/hosts".to_owned(), format!("# BEGIN turingpi home\n{lines}# END turingpi home\n"));
    let initiator = format!("InitiatorName=iqn.x:{}\n", node.name);
    facts.texts.insert("/etc/iscsi/initiatorname.iscsi".to_owned(), initiator);
    facts.units.insert("iscsid.service".to_owned(), active());
    facts.units.insert("systemd-timesyncd.service".to_owned(), active());
    facts
}

/// A prepared host without k3s.
fn bare(cluster: &K3sCluster, node: &NodeSpec) -> NodeFacts {
    NodeFacts { host: host(cluster, node), k3s: K3sNode::default() }
}

fn proof(token: &str) -> TokenProof {
    TokenProof::new("salt", &hex::encode(Sha256::digest(format!("salt{token}"))))
}

/// A node that runs k3s as wanted.
fn running(cluster: &K3sCluster, node: &NodeSpec) -> NodeFacts {
    let env = env_of(cluster);
    let servers: Vec<&NodeSpec> = env.servers().collect();
    let server = node.role == Role::ControlPlane;
    let first = servers[0].name == node.name;
    let (entry, seen) = match (first, env.is_ha()) {
        (true, true) => (Entry::Init, EntrySeen::Init),
        (true, false) => (Entry::Alone, EntrySeen::Alone),
        (false, _) => {
            let url = "https://10.10.88.73:6443".to_owned();
            (Entry::Join(url.clone()), EntrySeen::Join(url))
        }
    };
    let token = SecretString::from(if first { TOKEN.to_owned() } else { join_token() });
    let config = config::render(&env.config_input(node, &servers, &entry), &token).unwrap();
    let mut host = host(cluster, node);
    host.files.insert(paths::CONFIG.to_owned(), file(config.text().as_bytes(), 0o600));
    host.files.insert(paths::BINARY.to_owned(), file(b"binary", 0o755));
    let unit = render_unit(node.role);
    host.files.insert(unit::unit_path(node.role).to_owned(), file(unit.as_bytes(), 0o644));
    host.units.insert(unit::unit_name(node.role).to_owned(), active());
    let applied = applied_digest(&host.files, node.role);
    let store = if env.is_ha() { Datastore::Etcd } else { Datastore::Sqlite };
    let owner = |is: bool| if is { UnitOwner::Ours } else { UnitOwner::Nobody };
    let k3s = K3sNode {
        clusters: vec!["home".to_owned()],
        version: Some(VERSION.parse().unwrap()),
        datastore: server.then_some(store),
        server_data: server,
        agent_data: true,
        ca: Some("a".repeat(64)),
        token: server.then(|| proof(TOKEN)),
        entry: Some(seen),
        server_unit: owner(server),
        agent_unit: owner(!server),
        applied: Some(applied),
        leftovers: vec![paths::BINARY.to_owned(), paths::DATA.to_owned()],
        ..K3sNode::default()
    };
    NodeFacts { host, k3s }
}

fn object(node: &NodeSpec) -> NodeStatus {
    parse_node(&json!({
        "metadata": {"name": node.name},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"kubeletVersion": VERSION}},
    }))
    .unwrap()
}

fn facts(cluster: &K3sCluster, node: impl Fn(&K3sCluster, &NodeSpec) -> NodeFacts) -> K3sFacts {
    let nodes =
        cluster.nodes().iter().map(|n| (n.name.clone(), Reach::Up(Box::new(node(cluster, n))))).collect();
    K3sFacts { nodes, ..K3sFacts::default() }
}

/// A cluster that is as wanted.
fn converged(cluster: &K3sCluster) -> K3sFacts {
    let workload = |name: &&str| {
        parse_workload(
            WorkloadKind::Deployment,
            &json!({"metadata": {"name": name, "namespace": "kube-system", "generation": 1}, "spec": {"replicas": 1},
                "status": {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1}}),
        )
    };
    let system = K3sSpec::default().system_deployments().iter().filter_map(workload).collect();
    let nodes = cluster.nodes().iter().map(object).collect();
    K3sFacts { api: Some(ApiFacts { nodes, system, ..ApiFacts::default() }), ..facts(cluster, running) }
}

fn up<'a>(facts: &'a mut K3sFacts, node: &str) -> &'a mut NodeFacts {
    match facts.nodes.get_mut(node) {
        Some(Reach::Up(node)) => node,
        other => panic!("{node}: {other:?}"),
    }
}

fn steps(cluster: &K3sCluster, facts: &K3sFacts, state: &State) -> Vec<StepDescription> {
    cluster.plan(facts, state).unwrap().preview().steps().map(|(_, s)| s.clone()).collect()
}

fn ids(steps: &[StepDescription]) -> Vec<&str> {
    steps.iter().map(|s| s.id.as_str()).collect()
}

#[rstest]
#[case(1, 0)]
#[case(1, 3)]
#[case(3, 1)]
#[case(5, 0)]
fn a_cluster_that_is_as_wanted_needs_nothing(#[case] servers: usize, #[case] agents: usize) {
    let cluster = cluster(servers, agents);
    let facts = converged(&cluster);
    assert_eq!(ids(&steps(&cluster, &facts, &known_state())), Vec::<&str>::new());
    let health = cluster.health(&facts, &known_state());
    assert_eq!(health.reasons, []);
}

#[test]
fn a_service_that_was_stopped_is_told_before_kubernetes_notices() {
    let cluster = cluster(1, 1);
    let mut facts = converged(&cluster);
    let unit = up(&mut facts, "node2").host.units.get_mut("k3s-agent.service").unwrap();
    (unit.active, unit.sub) = ("inactive".to_owned(), "dead".to_owned());
    let health = cluster.health(&facts, &known_state());
    let told: Vec<_> = health.reasons.iter().map(|r| (r.about.as_str(), r.message.as_str())).collect();
    assert_eq!(told, [("node node2", "k3s-agent.service is inactive (dead)")]);
    assert_eq!(health.state, turingpi_cluster::HealthState::Degraded);
}

#[test]
fn a_new_cluster_starts_its_first_server_and_the_others_wait_for_its_api() {
    let cluster = cluster(3, 1);
    let all = steps(&cluster, &facts(&cluster, bare), &State::default());
    assert_eq!(
        ids(&all),
        [
            "k3s/token",
            "node1/k3s-binary",
            "node1/k3s-config",
            "node1/k3s-unit",
            "node1/k3s-start",
            "node1/k3s-api",
            "node2/k3s-binary",
            "node2/k3s-config",
            "node2/k3s-unit",
            "node2/k3s-start",
            "node3/k3s-binary",
            "node3/k3s-config",
            "node3/k3s-unit",
            "node3/k3s-start",
            "node4/k3s-binary",
            "node4/k3s-config",
            "node4/k3s-unit",
            "node4/k3s-start",
            "k3s/nodes-ready",
            "k3s/system",
        ]
    );
    let step = |id: &str| all.iter().find(|s| s.id == id).unwrap();
    assert_eq!(step("node1/k3s-api").reaches.as_deref(), Some(super::API));
    assert!(step("node1/k3s-start").needs.is_empty() && step("node1/k3s-start").locks.is_empty());
    for node in ["node2", "node3"] {
        assert!(step(&format!("{node}/k3s-binary")).needs.is_empty(), "binaries need no API");
        assert_eq!(step(&format!("{node}/k3s-config")).needs, [super::API]);
        assert_eq!(step(&format!("{node}/k3s-start")).locks, [super::ETCD_JOIN], "servers join one by one");
    }
    assert!(step("node4/k3s-start").locks.is_empty(), "agents join side by side");
    assert!(all.iter().all(|s| s.risk == Risk::Safe), "nothing that runs is interrupted");
}

#[test]
fn nodes_that_are_flashed_first_are_forecast_without_facts() {
    let cluster = cluster(1, 1);
    let fresh: BTreeSet<String> = ["node1", "node2"].map(str::to_owned).into();
    let down = Reach::Down(FailureReport {
        class: FailureClass::Unreachable,
        message: "no route".to_owned(),
        causes: vec![],
        hint: None,
        retryable: true,
    });
    let nodes = fresh.iter().map(|n| (n.clone(), down.clone())).collect();
    let facts = K3sFacts { nodes, ..K3sFacts::default() };
    let lanes = cluster.lanes(&facts, &State::default(), &fresh).unwrap();
    let node2: Vec<String> = lanes[1].steps.iter().map(|s| s.describe().id).collect();
    assert_eq!(node2.first().map(String::as_str), Some("node2/hostname"));
    assert!(node2.contains(&"node2/reboot".to_owned()));
    assert_eq!(node2.last().map(String::as_str), Some("node2/k3s-start"));

    let failure = cluster.lanes(&facts, &State::default(), &BTreeSet::new()).err().unwrap();
    assert_eq!(failure.class(), FailureClass::Unreachable);
    assert!(failure.message().contains("node1"), "{failure}");
}

#[test]
fn a_node_that_comes_back_empty_is_forgotten_first_and_joins_through_a_server_that_runs() {
    let cluster = cluster(3, 1);
    let facts = converged(&cluster);
    // The first server of the document, which once made the cluster.
    let fresh: BTreeSet<String> = ["node1".to_owned()].into();
    let lanes = cluster.lanes(&facts, &known_state(), &fresh).unwrap();
    let node1: Vec<StepDescription> = lanes
        .iter()
        .find(|l| l.subject.name == "node1")
        .unwrap()
        .steps
        .iter()
        .map(|s| s.describe())
        .collect();
    let k3s: Vec<&str> = node1.iter().filter(|s| s.phase == "k3s").map(|s| s.id.as_str()).collect();
    assert_eq!(
        k3s,
        ["node1/k3s-forget", "node1/k3s-binary", "node1/k3s-config", "node1/k3s-unit", "node1/k3s-start"]
    );
    assert_eq!(
        node1.last().unwrap().locks,
        [super::ETCD_JOIN, super::DISRUPT],
        "while it joins no other one goes"
    );
    // The others joined through node1, which is gone: they are told another server, one at a time.
    for lane in lanes.iter().filter(|l| l.subject.name != "node1") {
        let risky = lane.steps.iter().map(|s| s.describe()).filter(|s| s.risk != Risk::Safe);
        assert!(risky.map(|s| s.locks).all(|l| l.contains(&super::DISRUPT.to_owned())), "{}", lane.subject);
    }
}

/// One thing that differs on a worker that otherwise is as wanted.
type Drift = fn(&mut NodeFacts);

#[rstest]
#[case::config(|n: &mut NodeFacts| { n.host.files.insert(paths::CONFIG.to_owned(), file(b"x", 0o600)); }, &["k3s-config", "k3s-restart"])]
#[case::readable_config(|n: &mut NodeFacts| n.host.files.get_mut(paths::CONFIG).unwrap().mode = 0o644, &["k3s-config"])]
#[case::no_config(|n: &mut NodeFacts| { n.host.files.remove(paths::CONFIG); }, &["k3s-config", "k3s-restart"])]
#[case::unit(|n: &mut NodeFacts| { n.host.files.insert(unit::unit_path(Role::Worker).to_owned(), file(b"x", 0o644)); }, &["k3s-unit", "k3s-restart"])]
#[case::server_unit_too(|n: &mut NodeFacts| n.k3s.server_unit = UnitOwner::Ours, &["k3s-unit", "k3s-restart"])]
#[case::other_binary(|n: &mut NodeFacts| { n.host.files.insert(paths::BINARY.to_owned(), file(b"evil", 0o755)); }, &["k3s-binary", "k3s-restart"])]
#[case::older(|n: &mut NodeFacts| n.k3s.version = Some("v1.35.4+k3s1".parse().unwrap()), &["k3s-binary", "k3s-restart"])]
#[case::restart_pending(|n: &mut NodeFacts| n.k3s.applied = None, &["k3s-restart"])]
#[case::user_config(|n: &mut NodeFacts| { n.host.files.insert(paths::USER_CONFIG.to_owned(), file(b"new", 0o600)); }, &["k3s-restart"])]
#[case::stopped(|n: &mut NodeFacts| n.host.units.get_mut("k3s-agent.service").unwrap().active = "inactive".to_owned(), &["k3s-start"])]
#[case::crashing(|n: &mut NodeFacts| n.host.units.get_mut("k3s-agent.service").unwrap().active = "activating".to_owned(), &["k3s-start"])]
#[case::disabled(|n: &mut NodeFacts| n.host.units.get_mut("k3s-agent.service").unwrap().file = "disabled".to_owned(), &["k3s-start"])]
fn each_difference_of_a_worker_gives_exactly_its_steps(#[case] drift: Drift, #[case] expected: &[&str]) {
    let cluster = cluster(1, 2);
    let mut facts = converged(&cluster);
    let mut state = known_state();
    let known = hex::encode(Sha256::digest(b"binary"));
    state.put_record(format!("k3s/binary/{VERSION}/arm64"), &known).unwrap();
    assert_eq!(ids(&steps(&cluster, &facts, &state)), Vec::<&str>::new());
    drift(up(&mut facts, "node2"));
    let found = steps(&cluster, &facts, &state);
    let wanted: Vec<String> = expected.iter().map(|id| format!("node2/{id}")).collect();
    assert_eq!(ids(&found), wanted);
    for step in &found {
        assert!(!step.changes.is_empty(), "{} says what it changes", step.id);
        let restarts = step.id.ends_with("restart");
        assert_eq!(step.risk, if restarts { Risk::Disruptive } else { Risk::Safe }, "{}", step.id);
        assert_eq!(step.locks.contains(&super::DISRUPT.to_owned()), restarts, "{}", step.id);
    }
}

#[test]
fn registries_are_written_and_lead_to_a_restart() {
    let registries =
        Registries([("mirrors".to_owned(), json!({"*": {"endpoint": ["http://10.0.0.9:5000"]}}))].into());
    let cluster = cluster_with(nodes(1, 0), K3sSpec { registries: Some(registries), ..spec() });
    let found = steps(&cluster, &converged(&cluster), &known_state());
    assert_eq!(ids(&found), ["node1/k3s-registries", "node1/k3s-restart", "node1/k3s-api"]);
}

#[test]
fn an_upgrade_takes_the_servers_one_by_one_and_the_agents_after_them() {
    let cluster =
        cluster_with(nodes(3, 1), K3sSpec { version: Some("v1.36.0+k3s1".parse().unwrap()), ..spec() });
    let found = steps(&cluster, &converged(&cluster), &known_state());
    let step = |id: &str| found.iter().find(|s| s.id == id).unwrap();
    assert_eq!(step("node1/k3s-binary").needs, Vec::<String>::new());
    assert_eq!(step("node2/k3s-binary").needs, ["k3s/server/node1"]);
    assert_eq!(step("node3/k3s-binary").needs, ["k3s/server/node1", "k3s/server/node2"]);
    assert_eq!(step("node4/k3s-binary").needs, ["k3s/server/node1", "k3s/server/node2", "k3s/server/node3"]);
    assert!(step("node4/k3s-binary").title.contains("without a snapshot and without draining"));
    for node in ["node1", "node2", "node3", "node4"] {
        assert_eq!(step(&format!("{node}/k3s-restart")).locks, [super::DISRUPT]);
    }
}

#[test]
fn a_node_that_joins_while_others_are_upgraded_comes_after_all_servers_that_run() {
    let cluster =
        cluster_with(nodes(3, 1), K3sSpec { version: Some("v1.36.0+k3s1".parse().unwrap()), ..spec() });
    let mut facts = converged(&cluster);
    // A server and an agent that come back empty.
    for node in ["node1", "node4"] {
        *up(&mut facts, node) = bare(&cluster, cluster.nodes().iter().find(|n| n.name == node).unwrap());
    }
    let found = steps(&cluster, &facts, &known_state());
    let step = |id: &str| found.iter().find(|s| s.id == id).unwrap();
    for node in ["node1", "node4"] {
        assert_eq!(
            step(&format!("{node}/k3s-binary")).needs,
            ["k3s/server/node2", "k3s/server/node3"],
            "no kubelet is newer than a server"
        );
    }
    assert_eq!(
        step("node2/k3s-binary").needs,
        Vec::<String>::new(),
        "nobody who runs waits for one who joins"
    );
    assert_eq!(step("node1/k3s-start").locks, [super::ETCD_JOIN, super::DISRUPT]);
}

#[test]
fn a_skipped_minor_version_and_a_downgrade_are_refused_with_the_next_step() {
    for (wanted, why, hint) in [
        ("v1.37.0+k3s1", "one minor version at a time", "v1.36"),
        ("v1.34.1+k3s1", "older k3s", "restoring a backup"),
    ] {
        let cluster = cluster_with(nodes(3, 1), K3sSpec { version: Some(wanted.parse().unwrap()), ..spec() });
        let failure = cluster.plan(&converged(&cluster), &known_state()).err().unwrap();
        assert_eq!(failure.class(), FailureClass::Refused);
        assert!(failure.message().contains(why), "{failure}");
        assert!(failure.hint_text().unwrap().contains(hint), "{:?}", failure.hint_text());
    }
}

#[tokio::test]
async fn a_reboot_of_a_member_is_not_over_before_the_member_is_back() {
    let cluster = cluster(3, 0);
    let mut facts = converged(&cluster);
    for node in ["node1", "node2"] {
        let node = up(&mut facts, node);
        node.host
            .texts
            .insert("/var/lib/turingpi/reboot-pending".to_owned(), "boot the log disk\n".to_owned());
    }
    let lanes = cluster.lanes(&facts, &known_state(), &BTreeSet::new()).unwrap();
    let reboots: Vec<_> =
        lanes.iter().flat_map(|l| &l.steps).filter(|s| s.describe().id.ends_with("/reboot")).collect();
    assert_eq!(reboots.len(), 2);
    for step in &reboots {
        assert_eq!(step.describe().locks, [super::DISRUPT]);
        assert!(
            step.limit() >= std::time::Duration::from_secs(600),
            "it waits for k3s, not for the boot only"
        );
    }
    // One that was not well before is not waited for: the reboot may be what mends it.
    facts.api = None;
    let lanes = cluster.lanes(&facts, &known_state(), &BTreeSet::new()).unwrap();
    let mut all = lanes.iter().flat_map(|l| &l.steps);
    let reboot = all.find(|s| s.describe().id == "node1/reboot").unwrap();
    assert!(reboot.limit() < std::time::Duration::from_secs(600));
}

#[test]
fn registries_that_we_wrote_go_with_their_section_and_those_of_others_stay() {
    let cluster = cluster(1, 0);
    let mut facts = converged(&cluster);
    let node = up(&mut facts, "node1");
    node.host.files.insert(paths::REGISTRIES.to_owned(), file(b"old", 0o600));
    node.k3s.applied = Some(applied_digest(&node.host.files, Role::ControlPlane));
    assert_eq!(ids(&steps(&cluster, &facts, &known_state())), Vec::<&str>::new(), "somebody else's");
    up(&mut facts, "node1").k3s.registries_ours = true;
    let found = steps(&cluster, &facts, &known_state());
    assert_eq!(ids(&found), ["node1/k3s-registries", "node1/k3s-restart", "node1/k3s-api"]);
    assert_eq!(found[0].changes[0].new, None, "it goes away");
}

#[rstest]
#[case::token("node1", |n: &mut NodeFacts| { n.k3s.token = Some(proof("another")); n.k3s.ca = Some("b".repeat(64)); }, true, Some("another cluster"))]
#[case::second("node1", |n: &mut NodeFacts| n.k3s.other_units.push("k3s-dev.service".to_owned()), true, Some("second one"))]
#[case::agent("node2", |n: &mut NodeFacts| { n.k3s.entry = Some(EntrySeen::Join("https://10.0.0.9:6443".to_owned())); n.k3s.ca = Some("b".repeat(64)); }, true, Some("none of this document"))]
#[case::installer("node1", |n: &mut NodeFacts| n.k3s.server_unit = UnitOwner::Installer, false, Some("not set up from this state folder"))]
#[case::rotated_token("node1", |n: &mut NodeFacts| n.k3s.token = Some(proof("rotated")), true, None)]
#[case::moved_server("node2", |n: &mut NodeFacts| n.k3s.entry = Some(EntrySeen::Join("https://10.0.0.9:6443".to_owned())), true, None)]
#[case::adopted("node1", |n: &mut NodeFacts| n.k3s.server_unit = UnitOwner::Installer, true, None)]
#[case::lost_state("node1", |_: &mut NodeFacts| {}, false, None)]
#[case::other_name("node2", |n: &mut NodeFacts| n.k3s.clusters = vec!["lab".to_owned()], false, Some("set up for the cluster `lab`"))]
#[case::other_name_and_our_ca("node2", |n: &mut NodeFacts| n.k3s.clusters = vec!["lab".to_owned()], true, None)]
#[case::no_name("node1", |n: &mut NodeFacts| n.k3s.clusters.clear(), false, Some("not set up from this state folder"))]
#[case::left_behind("node2", |_: &mut NodeFacts| {}, false, None)]
#[case::half_removed("node1", |n: &mut NodeFacts| n.k3s = K3sNode { leftovers: vec![paths::BINARY.to_owned()], ..K3sNode::default() }, false, None)]
fn only_a_k3s_of_this_cluster_is_taken_down(
    #[case] node: &str,
    #[case] drift: Drift,
    #[case] known: bool,
    #[case] refused: Option<&str>,
) {
    let cluster = cluster(1, 1);
    let mut facts = converged(&cluster);
    drift(up(&mut facts, node));
    let mut state = State::default();
    if known {
        state = known_state();
        state.put_record(super::CA_KEY, &"a".repeat(64)).unwrap();
    }
    match (cluster.teardown(&facts, &state, TeardownOptions::wipe()), refused) {
        (Ok(plan), None) => assert_eq!(plan.preview().risk(), Risk::Destructive),
        (Err(failure), Some(why)) => {
            assert_eq!(failure.class(), FailureClass::Refused);
            assert!(failure.message().contains(why) && failure.message().contains(node), "{failure}");
            assert!(failure.hint_text().is_some());
        }
        (Ok(plan), Some(why)) => panic!("{why}: {:?}", plan.preview()),
        (Err(failure), None) => panic!("{failure}"),
    }
}

#[test]
fn an_agent_of_another_cluster_of_ours_is_not_taken_over() {
    let cluster = cluster(1, 1);
    let mut facts = converged(&cluster);
    let node = up(&mut facts, "node2");
    node.k3s.ca = Some("b".repeat(64));
    // Its servers were built anew at their old addresses: it follows them.
    assert!(cluster.plan(&facts, &known_state()).is_ok());
    up(&mut facts, "node2").k3s.entry = Some(EntrySeen::Join("https://10.0.0.9:6443".to_owned()));
    let failure = cluster.plan(&facts, &known_state()).err().unwrap();
    assert_eq!(failure.class(), FailureClass::Refused);
    assert!(failure.message().contains("another cluster"), "{failure}");
}

#[test]
fn labels_and_taints_are_set_by_the_api_without_a_restart() {
    let mut nodes = nodes(1, 1);
    nodes[1].labels.insert("disk".to_owned(), "nvme".to_owned());
    nodes[1].taints.push("dedicated=npu:NoSchedule".to_owned());
    let cluster = cluster_with(nodes, spec());
    let found = steps(&cluster, &converged(&cluster), &known_state());
    assert_eq!(ids(&found), ["k3s/labels"]);
    let changes: Vec<&str> = found[0].changes.iter().map(|c| c.what.as_str()).collect();
    assert_eq!(changes, ["node2 label disk", "node2 taints"]);
}

#[rstest]
#[case::token(|n: &mut NodeFacts| n.k3s.token = Some(proof("another")), "another cluster")]
#[case::foreign_unit(|n: &mut NodeFacts| n.k3s.server_unit = UnitOwner::Foreign, "settings of its own")]
#[case::second_k3s(|n: &mut NodeFacts| n.k3s.other_units.push("k3s-dev.service".to_owned()), "second k3s")]
#[case::fedora(|n: &mut NodeFacts| n.host.os.family = OsFamily::Other, "Debian family")]
#[case::newer(|n: &mut NodeFacts| n.k3s.version = Some("v1.36.0+k3s1".parse().unwrap()), "older k3s")]
fn what_is_not_ours_to_change_is_refused(#[case] drift: Drift, #[case] why: &str) {
    let cluster = cluster(1, 1);
    let mut facts = converged(&cluster);
    drift(up(&mut facts, "node1"));
    let failure = cluster.plan(&facts, &known_state()).err().unwrap();
    assert_eq!(failure.class(), FailureClass::Refused);
    assert!(failure.message().contains(why), "{failure}");
    assert!(failure.hint_text().is_some());
}

#[test]
fn a_server_of_another_cluster_is_refused() {
    let cluster = cluster(3, 0);
    let mut facts = converged(&cluster);
    up(&mut facts, "node2").k3s.ca = Some("b".repeat(64));
    let failure = cluster.plan(&facts, &known_state()).err().unwrap();
    assert!(failure.message().contains("certificate authority"), "{failure}");
}

#[test]
fn a_cluster_that_somebody_else_made_is_adopted_when_its_units_have_no_settings() {
    let cluster = cluster(1, 0);
    let mut facts = converged(&cluster);
    let node = up(&mut facts, "node1");
    node.k3s.server_unit = UnitOwner::Installer;
    node.k3s.entry = None;
    node.k3s.applied = None;
    node.host.files.remove(paths::CONFIG);
    node.host.files.insert(unit::unit_path(Role::ControlPlane).to_owned(), file(b"installer", 0o644));
    let found = steps(&cluster, &facts, &State::default());
    assert_eq!(
        ids(&found),
        ["k3s/token", "node1/k3s-config", "node1/k3s-unit", "node1/k3s-restart", "node1/k3s-api"]
    );
    assert!(found[0].title.contains("Take over"));
}

#[rstest]
#[case(0, "no control-plane")]
#[case(2, "worse than one")]
#[case(4, "no more failures")]
#[case(6, "more than etcd")]
fn a_number_of_servers_etcd_cannot_use_is_refused_with_the_reason(#[case] servers: usize, #[case] why: &str) {
    let failure = crate::validate_topology(&nodes(servers, 1)).unwrap_err();
    assert_eq!(failure.class(), FailureClass::Config);
    assert!(failure.message().contains(why), "{failure}");
}

#[test]
fn a_teardown_takes_agents_before_servers_and_nothing_twice() {
    let cluster = cluster(3, 1);
    let facts = converged(&cluster);
    let plan = cluster.teardown(&facts, &known_state(), TeardownOptions::wipe()).unwrap().preview();
    let found: Vec<StepDescription> = plan.steps().map(|(_, s)| s.clone()).collect();
    assert_eq!(
        ids(&found),
        [
            "node4/k3s-drain",
            "node4/k3s-uninstall",
            "node3/k3s-uninstall",
            "node2/k3s-uninstall",
            "node1/k3s-uninstall",
            "k3s/forget",
        ]
    );
    assert_eq!(plan.risk(), Risk::Destructive);
    assert_eq!(plan.stages.len(), 3, "servers stay until the agents are gone");

    let gone = self::facts(&cluster, bare);
    assert!(cluster.teardown(&gone, &State::default(), TeardownOptions::wipe()).unwrap().is_empty());
    let kept = cluster.teardown(&facts, &known_state(), TeardownOptions::keep_data()).unwrap().preview();
    assert_eq!(kept.risk(), Risk::Disruptive);
}

#[test]
fn no_secret_shows_in_a_plan_a_fact_or_a_unit() {
    let password = json!({"configs": {"reg": {"auth": {"password": "registry-secret"}}}});
    let registries: Registries = serde_json::from_value(password).unwrap();
    let cluster = cluster_with(nodes(3, 1), K3sSpec { registries: Some(registries.clone()), ..spec() });
    let mut shown = format!("{registries:?}");
    for (facts, state) in [(facts(&cluster, bare), State::default()), (converged(&cluster), known_state())] {
        shown += &serde_json::to_string(&cluster.plan(&facts, &state).unwrap().preview()).unwrap();
        shown += &serde_json::to_string(&facts).unwrap();
        shown += &format!("{facts:?}{state:?}");
        let gone = cluster.teardown(&facts, &state, TeardownOptions::wipe()).unwrap().preview();
        shown += &serde_json::to_string(&gone).unwrap();
    }
    shown += &render_unit(Role::ControlPlane);
    for secret in [TOKEN, "registry-secret", "K10ccc"] {
        assert!(!shown.contains(secret), "{secret} shows");
    }
}

#[test]
fn an_embedder_converges_a_cluster_in_less_than_forty_lines() {
    // It is compiled with the tests.
    assert!(include_str!("../../examples/converge.rs").lines().count() < 40);
}

#[test]
fn configs_hold_what_the_role_needs() {
    let mut nodes = nodes(3, 1);
    nodes[3].labels = BTreeMap::new();
    let mut wanted = spec();
    wanted.disable.insert(crate::Component::Traefik);
    wanted.server.insert("etcd-expose-metrics".to_owned(), json!(true));
    wanted.agent.insert("kubelet-arg".to_owned(), json!(["max-pods=110"]));
    let cluster = cluster_with(nodes, wanted);
    let env = env_of(&cluster);
    let servers: Vec<&NodeSpec> = env.servers().collect();
    let text = |node: usize, entry: &Entry| {
        let input = env.config_input(&env.nodes[node], &servers, entry);
        config::render(&input, &SecretString::from("the-token")).unwrap().text().to_owned()
    };
    assert_eq!(
        text(0, &Entry::Init),
        "# Written by turingpi. Your own settings belong into /etc/rancher/k3s/config.yaml.
token: the-token
cluster-init: true
node-name: node1
node-ip:
- \"10.10.88.73\"
tls-san:
- \"10.10.88.73\"
- node1
- \"10.10.88.74\"
- node2
- \"10.10.88.75\"
- node3
cluster-cidr: 10.244.0.0/16
service-cidr: 10.96.0.0/12
cluster-dns: \"10.96.0.10\"
cluster-domain: cluster.local
flannel-backend: vxlan
write-kubeconfig-mode: \"0600\"
disable:
- traefik
etcd-expose-metrics: true
"
    );
    assert_eq!(
        text(3, &Entry::Join("https://10.10.88.73:6443".to_owned())),
        "# Written by turingpi. Your own settings belong into /etc/rancher/k3s/config.yaml.
token: the-token
server: https://10.10.88.73:6443
node-name: node4
node-ip:
- \"10.10.88.76\"
kubelet-arg:
- max-pods=110
"
    );
}
