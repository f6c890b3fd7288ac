//! What is known of a cluster and its nodes: looked up, never remembered.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use turingpi_cluster::{
    FactsRequest, FileFact, HostFacts, Role,
    kube::{NodeStatus, WorkloadStatus},
};
use turingpi_engine::FailureReport;

use crate::{K3sVersion, TokenProof, UnitOwner, paths, unit};

/// One look at a cluster. Holds no secret.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct K3sFacts {
    /// Every node of the document, by name.
    pub nodes: BTreeMap<String, Reach>,
    /// What the Kubernetes API says; `None` while there is none, or none that answers.
    pub api: Option<ApiFacts>,
    /// Why there is nothing from the API, where a server runs.
    pub api_failure: Option<FailureReport>,
    /// Whether the caller's kubeconfig is up to date; `None` when there is none to compare with.
    pub kubeconfig_current: Option<bool>,
    /// What the channel offers; looked up only for a new cluster without a version.
    pub offered: Option<K3sVersion>,
    /// Why the channel could not be read.
    pub offer_failure: Option<FailureReport>,
}

impl K3sFacts {
    /// The facts of a node that answers.
    pub fn up(&self, node: &str) -> Option<&NodeFacts> {
        match self.nodes.get(node) {
            Some(Reach::Up(facts)) => Some(facts),
            _ => None,
        }
    }
    /// The deployments of k3s's own that are expected: those the spec leaves on, without what the servers' own config
    /// switches off. A spec that switches something off itself takes the place of what stands there.
    pub fn system_deployments(&self, spec: &crate::K3sSpec) -> Vec<&'static str> {
        let theirs = |word: &str| {
            let mut nodes = self.nodes.values();
            nodes.any(|n| matches!(n, Reach::Up(facts) if facts.k3s.disabled.iter().any(|d| d == word)))
        };
        let wanted = crate::Component::ALL.iter().filter(|c| !spec.disable.contains(c));
        let wanted = wanted.filter(|c| !(spec.disable.is_empty() && theirs(c.as_str())));
        wanted.filter_map(|c| c.deployment()).collect()
    }
    /// The node object of the API.
    pub fn object(&self, node: &str) -> Option<&NodeStatus> {
        self.api.as_ref()?.nodes.iter().find(|n| n.name == node)
    }
}

/// Whether a node answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reach {
    /// It does.
    Up(Box<NodeFacts>),
    /// It does not, or refuses us.
    Down(FailureReport),
}

/// What the Kubernetes API says.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct ApiFacts {
    /// Checks of `/readyz` that fail; empty when it serves.
    pub failing: Vec<String>,
    /// Nodes.
    pub nodes: Vec<NodeStatus>,
    /// Workloads of `kube-system`.
    pub system: Vec<WorkloadStatus>,
    /// Networks that nodes have for their pods: parts of the cluster's.
    pub pod_networks: Vec<ipnet::IpNet>,
    /// The address of the service `kubernetes`: the first one of the cluster's services.
    pub service_address: Option<std::net::IpAddr>,
}

/// One node.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct NodeFacts {
    /// The host.
    pub host: HostFacts,
    /// k3s on it.
    pub k3s: K3sNode,
}

/// k3s on one node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct K3sNode {
    /// The version the binary says it is.
    pub version: Option<K3sVersion>,
    /// Where a server keeps the cluster's data; `None` when it has none.
    pub datastore: Option<Datastore>,
    /// Whether a server has run here.
    pub server_data: bool,
    /// Whether an agent has run here (every server is an agent too).
    pub agent_data: bool,
    /// SHA-256 of the CA of the cluster this node belongs to, 64 hex digits.
    pub ca: Option<String>,
    /// Proof of the token a server has.
    pub token: Option<TokenProof>,
    /// How our config lets it enter the cluster.
    pub entry: Option<EntrySeen>,
    /// Whether the `registries.yaml` that is there was written by us.
    pub registries_ours: bool,
    /// Whose `k3s.service` it is.
    pub server_unit: UnitOwner,
    /// Whose `k3s-agent.service` it is.
    pub agent_unit: UnitOwner,
    /// More units named `k3s-*`: a second k3s on the same host.
    pub other_units: Vec<String>,
    /// The clusters of ours that the host says it is of: the one that k3s was set up for, or where that is not noted,
    /// those in its `/etc/hosts`.
    pub clusters: Vec<String>,
    /// What the service was last started with.
    pub applied: Option<String>,
    /// What the user's own config.yaml on a server says under `disable`.
    pub disabled: Vec<String>,
    /// Leftovers of k3s that an uninstall removes: folders, interfaces, mounts, processes.
    pub leftovers: Vec<String>,
}

/// Where a server keeps the cluster's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Datastore {
    /// One server: a sqlite file.
    Sqlite,
    /// Several servers: the embedded etcd.
    Etcd,
}

/// How a config file of ours lets a node enter its cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EntrySeen {
    /// As the only server.
    Alone,
    /// As the first of several.
    Init,
    /// By joining this address.
    Join(String),
}

impl K3sNode {
    /// Whose unit the role's is.
    pub fn unit(&self, role: Role) -> UnitOwner {
        match role {
            Role::ControlPlane => self.server_unit,
            Role::Worker => self.agent_unit,
        }
    }

    /// Whether k3s has ever run here in the given role.
    pub fn has_run(&self, role: Role) -> bool {
        match role {
            Role::ControlPlane => self.datastore.is_some(),
            Role::Worker => self.agent_data,
        }
    }

    /// Reads the answer of [`script`]: one `key value` a line.
    pub(crate) fn parse(text: &str, salt: &str) -> Self {
        let mut node = Self::default();
        let mut units: BTreeMap<&str, (&str, String)> = BTreeMap::new();
        let mut blocks = Vec::new();
        for line in text.lines() {
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            let value = value.trim();
            match key {
                "version" => node.version = K3sVersion::from_program(value),
                "server-data" => node.server_data = true,
                "agent-data" => node.agent_data = true,
                "datastore" => node.datastore = datastore(value),
                // The server's own comes first and counts.
                "ca" if is_digest(value) => {
                    node.ca.get_or_insert_with(|| value.to_owned());
                }
                "token" if is_digest(value) => node.token = Some(TokenProof::new(salt, value)),
                "config" => {
                    node.entry.get_or_insert(EntrySeen::Alone);
                }
                "cluster-init" => node.entry = Some(EntrySeen::Init),
                "server" => node.entry = Some(EntrySeen::Join(value.trim_matches(['"', '\'']).to_owned())),
                "registries" => node.registries_ours = value.starts_with(unit::MARK),
                "unit-k3s" | "unit-k3s-agent" => units.entry(key).or_default().0 = value,
                "exec-k3s" => push(&mut units.entry("unit-k3s").or_default().1, value),
                "exec-k3s-agent" => push(&mut units.entry("unit-k3s-agent").or_default().1, value),
                "unit-file" => node.other_units.push(value.to_owned()),
                "applied" if is_digest(value) => node.applied = Some(value.to_owned()),
                "cluster" if !value.is_empty() => node.clusters = vec![value.to_owned()],
                "hosts-block" if !value.is_empty() => blocks.push(value.to_owned()),
                "left" => node.leftovers.push(value.to_owned()),
                _ => {}
            }
        }
        if node.clusters.is_empty() {
            node.clusters = blocks;
        }
        let owner = |key: &str, role| {
            units.get(key).map_or(UnitOwner::Nobody, |(first, command)| UnitOwner::of(first, command, role))
        };
        node.server_unit = owner("unit-k3s", Role::ControlPlane);
        node.agent_unit = owner("unit-k3s-agent", Role::Worker);
        node.other_units.retain(|u| u != "k3s.service" && u != "k3s-agent.service");
        node
    }
}

fn push(command: &mut String, words: &str) {
    command.push_str(words);
    command.push(' ');
}

/// What a k3s config says under `disable`: a list, or a text with commas. Nothing else of it is looked at.
pub(crate) fn disabled(text: &str) -> Vec<String> {
    #[derive(Default, Deserialize)]
    struct Config {
        #[serde(default)]
        disable: serde_json::Value,
    }
    let config: Config = serde_saphyr::from_str(text).unwrap_or_default();
    let list = match config.disable {
        serde_json::Value::Array(list) => list,
        other => vec![other],
    };
    let words = list.iter().filter_map(serde_json::Value::as_str).flat_map(|text| text.split(','));
    words.map(|word| word.trim().to_owned()).filter(|word| !word.is_empty()).collect()
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn datastore(word: &str) -> Option<Datastore> {
    match word {
        "etcd" => Some(Datastore::Etcd),
        "sqlite" => Some(Datastore::Sqlite),
        _ => None,
    }
}

const SCRIPT: &str = include_str!("facts.sh");

/// The name of our part of the host's facts.
pub(crate) const EXTRA: &str = "k3s";

/// What to look at on a node, beside what the preparation needs. `salt` goes into the token's proof.
pub(crate) fn request(salt: &str) -> FactsRequest {
    FactsRequest::new()
        .files(APPLIED_FILES)
        .units(["k3s.service", "k3s-agent.service"])
        .extra(EXTRA, SCRIPT.replace("@SALT@", salt))
}

/// The files a running k3s was started with.
const APPLIED_FILES: [&str; 6] = [
    paths::BINARY,
    paths::USER_CONFIG,
    paths::CONFIG,
    paths::REGISTRIES,
    "/etc/systemd/system/k3s.service",
    "/etc/systemd/system/k3s-agent.service",
];

/// The request for [`applied_digest`] alone.
pub(crate) fn applied_request() -> FactsRequest {
    FactsRequest::new().files(APPLIED_FILES).texts([paths::APPLIED])
}

/// A digest over the files a k3s of this role reads when it starts. Compared with the one noted at the last start it
/// tells whether a restart is due, also after a crash between writing a file and restarting.
pub(crate) fn applied_digest(files: &BTreeMap<String, FileFact>, role: Role) -> String {
    let unit = unit::unit_path(role);
    let mut hash = Sha256::new();
    for path in APPLIED_FILES {
        if path.ends_with(".service") && path != unit {
            continue;
        }
        if let Some(file) = files.get(path) {
            hash.update(format!("{path} {}\n", file.sha256));
        }
    }
    hex::encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, process::Command};

    use proptest::prelude::*;
    use secrecy::SecretString;

    use super::*;

    /// Runs our script on a copy of a node's folders below `root`.
    fn look(shell: &str, root: &Path) -> K3sNode {
        let mut script = SCRIPT.replace("@SALT@", "pepper");
        for folder in ["/var/lib/", "/etc/", "/usr/local/", "/run/"] {
            script = script.replace(folder, &format!("{}{folder}", root.display()));
        }
        let output = Command::new(shell).arg("-c").arg(script).output().unwrap();
        assert!(output.stderr.is_empty(), "{shell}: {}", String::from_utf8_lossy(&output.stderr));
        K3sNode::parse(
            &String::from_utf8(output.stdout).unwrap().replace(root.to_str().unwrap(), ""),
            "pepper",
        )
    }

    fn put(root: &Path, path: &str, text: &str) {
        let path = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn shells() -> impl Iterator<Item = &'static str> {
        ["/bin/sh", "/bin/dash", "/bin/bash"].into_iter().filter(|s| Path::new(s).exists())
    }

    #[test]
    fn the_script_tells_what_is_on_a_server_and_never_its_token() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let token = format!("K10{}::server:hush-hush", "a".repeat(64));
        put(
            root,
            "/usr/local/bin/k3s",
            "#!/bin/sh\necho 'k3s version v1.35.5+k3s1 (abc)'\necho 'go version x'\n",
        );
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(root.join("usr/local/bin/k3s"), mode).unwrap();
        put(root, "/var/lib/rancher/k3s/server/db/etcd/name", "x");
        put(root, "/var/lib/rancher/k3s/server/tls/server-ca.crt", "the CA");
        put(root, "/var/lib/rancher/k3s/agent/server-ca.crt", "a stale CA");
        put(root, paths::SERVER_TOKEN, &format!("{token}\n"));
        put(root, paths::CONFIG, "token: x\nserver: \"https://10.0.0.1:6443\"\n");
        put(root, "/etc/systemd/system/k3s.service", &unit::render_unit(Role::ControlPlane));
        put(
            root,
            "/etc/systemd/system/k3s-agent.service",
            "[Service]\nExecStart=/usr/local/bin/k3s \\\n    agent \\\n",
        );
        put(root, "/etc/systemd/system/k3s-dev.service", "[Service]\n");
        put(root, paths::APPLIED, &"d".repeat(64));
        put(
            root,
            "/etc/hosts",
            "127.0.0.1 localhost\n# BEGIN turingpi lab\n10.0.0.1 a\n# END turingpi lab\n",
        );
        for shell in shells() {
            let node = look(shell, root);
            assert_eq!(
                node.version.as_ref().map(ToString::to_string).as_deref(),
                Some("v1.35.5+k3s1"),
                "{shell}"
            );
            assert_eq!(node.datastore, Some(Datastore::Etcd));
            assert!(node.server_data && node.agent_data);
            assert_eq!(node.ca, Some(hex::encode(Sha256::digest("the CA"))));
            assert!(node.token.as_ref().unwrap().matches(&SecretString::from("hush-hush")), "{shell}");
            assert_eq!(node.entry, Some(EntrySeen::Join("https://10.0.0.1:6443".to_owned())));
            assert_eq!(
                (node.server_unit, node.agent_unit),
                (UnitOwner::Ours, UnitOwner::Installer),
                "{shell}"
            );
            assert_eq!(node.other_units, ["k3s-dev.service"]);
            assert_eq!(node.applied, Some("d".repeat(64)));
            assert_eq!(node.clusters, ["lab"], "{shell}");
            assert!(node.leftovers.contains(&paths::DATA.to_owned()), "{:?}", node.leftovers);
            assert!(!serde_json::to_string(&node).unwrap().contains("hush"));
        }
        // What k3s was set up for counts more than who else knows the host.
        put(root, paths::CLUSTER, "homelab\n");
        for shell in shells() {
            assert_eq!(look(shell, root).clusters, ["homelab"], "{shell}");
        }
    }

    #[test]
    fn the_script_finds_nothing_on_an_empty_host() {
        let root = tempfile::tempdir().unwrap();
        for shell in shells() {
            let node = look(shell, root.path());
            let left: Vec<String> = node.leftovers.iter().filter(|l| l.starts_with('/')).cloned().collect();
            assert_eq!(left, Vec::<String>::new(), "{shell}");
            assert_eq!(K3sNode { leftovers: vec![], ..node }, K3sNode::default(), "{shell}");
        }
    }

    #[test]
    fn what_the_users_own_config_switches_off_is_read_in_each_of_its_forms() {
        for text in [
            "disable: [traefik, servicelb]",
            "token: x\ndisable:\n  - traefik\n  - servicelb\n",
            "disable: traefik,servicelb\nnode-label: [a=b]\n",
        ] {
            assert_eq!(disabled(text), ["traefik", "servicelb"], "{text}");
        }
        for text in ["", "disable: {a: b}", ": :", "debug: true"] {
            assert_eq!(disabled(text), Vec::<String>::new(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_answer_is_read(text in "([a-z-]{0,14}[ \n]\\PC{0,30}\n){0,8}") {
            let _ = K3sNode::parse(&text, "salt");
        }
    }
}
