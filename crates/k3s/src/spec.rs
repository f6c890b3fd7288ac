//! The document's `k3s:` section.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use turingpi_cluster::{NodeSpec, Role};
use turingpi_engine::{Failure, FailureClass};

use crate::K3sVersion;

/// How k3s shall be. The document's `k3s:` section.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
#[non_exhaustive]
pub struct K3sSpec {
    /// The version; when not set, what runs already, or what `channel` offers for a new cluster.
    /// A document says this at its top.
    #[serde(skip)]
    pub version: Option<K3sVersion>,
    /// The channel a new cluster takes its version from. A document says this at its top.
    #[serde(skip)]
    pub channel: String,
    /// How the binary gets onto the nodes.
    pub install: InstallMode,
    /// Where releases are: `…/download/<tag>/<file>` is appended.
    pub releases_url: String,
    /// Where channels are listed.
    pub channels_url: String,
    /// Parts of k3s that are left out.
    pub disable: BTreeSet<Component>,
    /// How pods of different nodes reach each other.
    pub flannel_backend: FlannelBackend,
    /// Names and addresses beside those of servers and endpoint that the API's certificate is good for.
    pub tls_sans: Vec<String>,
    /// More settings of servers, as in k3s's own config file.
    pub server: BTreeMap<String, Value>,
    /// More settings of agents, as in k3s's own config file.
    pub agent: BTreeMap<String, Value>,
    /// The content of `registries.yaml`. When not set, one that we wrote goes and one of somebody else is left alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registries: Option<Registries>,
}

/// The content of `registries.yaml`: `mirrors` and `configs`, as k3s reads them. In a document, what is secret in
/// `configs.<registry>.auth` (everything but `username`) is where it comes from: `{ env: NAME }`, `{ file: PATH }` or
/// `prompt`. Here it may hold passwords: not shown in a debug output.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Registries(pub BTreeMap<String, Value>);

impl fmt::Debug for Registries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Registries").field(&self.0.keys().collect::<Vec<_>>()).finish()
    }
}

/// Of `server` and `agent` only the keys: among k3s's settings are credentials of object stores and databases.
impl fmt::Debug for K3sSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = |map: &BTreeMap<String, Value>| map.keys().cloned().collect::<Vec<_>>();
        f.debug_struct("K3sSpec")
            .field("version", &self.version)
            .field("channel", &self.channel)
            .field("install", &self.install)
            .field("releases_url", &self.releases_url)
            .field("channels_url", &self.channels_url)
            .field("disable", &self.disable)
            .field("flannel_backend", &self.flannel_backend)
            .field("tls_sans", &self.tls_sans)
            .field("server", &keys(&self.server))
            .field("agent", &keys(&self.agent))
            .field("registries", &self.registries)
            .finish()
    }
}

impl Default for K3sSpec {
    fn default() -> Self {
        Self {
            version: None,
            channel: "stable".to_owned(),
            install: InstallMode::Upload,
            releases_url: "https://github.com/k3s-io/k3s/releases".to_owned(),
            channels_url: "https://update.k3s.io/v1-release/channels".to_owned(),
            disable: BTreeSet::new(),
            flannel_backend: FlannelBackend::Vxlan,
            tls_sans: Vec::new(),
            server: BTreeMap::new(),
            agent: BTreeMap::new(),
            registries: None,
        }
    }
}

/// How the binary gets onto the nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum InstallMode {
    /// This machine downloads it once and uploads it to each node.
    #[default]
    Upload,
    /// Each node downloads it.
    Node,
    /// Nobody downloads: binary, checksums and container images lie in a folder of this machine.
    Airgap {
        /// The folder with `k3s-arm64`, `sha256sum-arm64.txt` and `k3s-airgap-images-arm64.tar.zst`.
        folder: PathBuf,
    },
}

/// A part of k3s that can be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Component {
    /// The cluster's DNS.
    Coredns,
    /// The load balancer klipper-lb.
    Servicelb,
    /// The ingress controller.
    Traefik,
    /// The local-path storage class.
    LocalStorage,
    /// Metrics for `kubectl top` and autoscaling.
    MetricsServer,
    /// Runtime classes.
    Runtimes,
}

impl Component {
    /// As k3s names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Coredns => "coredns",
            Self::Servicelb => "servicelb",
            Self::Traefik => "traefik",
            Self::LocalStorage => "local-storage",
            Self::MetricsServer => "metrics-server",
            Self::Runtimes => "runtimes",
        }
    }

    /// The Deployments in `kube-system` k3s makes for it.
    pub(crate) fn deployment(self) -> Option<&'static str> {
        match self {
            Self::Coredns => Some("coredns"),
            Self::Traefik => Some("traefik"),
            Self::LocalStorage => Some("local-path-provisioner"),
            Self::MetricsServer => Some("metrics-server"),
            // Its pods are made for each service of type LoadBalancer.
            Self::Servicelb | Self::Runtimes => None,
        }
    }

    pub(crate) const ALL: [Self; 6] = [
        Self::Coredns,
        Self::Servicelb,
        Self::Traefik,
        Self::LocalStorage,
        Self::MetricsServer,
        Self::Runtimes,
    ];
}

/// How pods of different nodes reach each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FlannelBackend {
    /// Wrapped in UDP: works everywhere.
    #[default]
    Vxlan,
    /// Plain routes: faster, all nodes on one network.
    HostGw,
    /// Encrypted.
    WireguardNative,
    /// Another network plugin is installed later: nodes are not Ready before.
    None,
}

impl FlannelBackend {
    /// As k3s names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vxlan => "vxlan",
            Self::HostGw => "host-gw",
            Self::WireguardNative => "wireguard-native",
            Self::None => "none",
        }
    }
}

/// Keys that we write ourselves, and where they come from.
const OWN: [(&str, &str); 16] = [
    ("token", "the state"),
    ("token-file", "the state"),
    ("agent-token", "the state"),
    ("agent-token-file", "the state"),
    ("server", "the nodes"),
    ("cluster-init", "the number of control-plane nodes"),
    ("node-name", "the node's name"),
    ("node-ip", "the node's address"),
    ("cluster-cidr", "network.pods"),
    ("service-cidr", "network.services"),
    ("cluster-dns", "network.services"),
    ("cluster-domain", "network.domain"),
    ("flannel-backend", "k3s.flannel-backend"),
    ("disable", "k3s.disable"),
    ("tls-san", "k3s.tls-sans"),
    ("data-dir", "the tool, which looks for k3s in /var/lib/rancher/k3s"),
];

fn config(message: impl Into<String>) -> Failure {
    Failure::new(FailureClass::Config, message)
}

impl K3sSpec {
    /// Checks the section by itself.
    ///
    /// # Errors
    /// `Config`, naming the key.
    pub fn validate(&self) -> Result<(), Failure> {
        for (section, map) in [("server", &self.server), ("agent", &self.agent)] {
            for key in map.keys() {
                let plain = key.trim_end_matches('+');
                if let Some((_, from)) = OWN.iter().find(|(own, _)| *own == plain) {
                    return Err(config(format!("k3s.{section}: `{key}` cannot be set here"))
                        .hint(format!("It comes from {from}.")));
                }
                if plain == "log" {
                    return Err(config(format!("k3s.{section}: `log` cannot be set"))
                        .hint("k3s writes to the journal; a log file is known to hang its start."));
                }
            }
        }
        for (key, url) in [("releases-url", &self.releases_url), ("channels-url", &self.channels_url)] {
            let scheme = url::Url::parse(url).map(|u| u.scheme().to_owned()).unwrap_or_default();
            if scheme != "https" && scheme != "http" {
                return Err(
                    config(format!("k3s.{key}: `{url}` is not an address")).hint("Use an https:// address.")
                );
            }
        }
        if let Some(san) = self.tls_sans.iter().find(|s| s.is_empty() || s.contains(char::is_whitespace)) {
            return Err(config(format!("k3s.tls-sans: `{san}` is neither a name nor an address")));
        }
        let registries = self.registries.iter().flat_map(|r| r.0.keys());
        for key in registries {
            if !matches!(key.as_str(), "mirrors" | "configs" | "auths") {
                return Err(config(format!("k3s.registries: unknown key `{key}`"))
                    .hint("k3s refuses to start with it. Use `mirrors` and `configs`."));
            }
        }
        Ok(())
    }

    /// The Deployments of `kube-system` that k3s makes with these settings.
    pub fn system_deployments(&self) -> Vec<&'static str> {
        Component::ALL.iter().filter(|c| !self.disable.contains(c)).filter_map(|c| c.deployment()).collect()
    }
}

/// Checks how many control-plane nodes there are: one keeps its data in sqlite, three or five in etcd.
///
/// # Errors
/// `Config` for any other number, saying why.
pub fn validate_topology(nodes: &[NodeSpec]) -> Result<(), Failure> {
    let servers = nodes.iter().filter(|n| n.role == Role::ControlPlane).count();
    let one_or_three =
        "Use one control-plane node (data in sqlite) or three (etcd, survives the loss of one).";
    match servers {
        0 => return Err(config("the cluster has no control-plane node").hint(one_or_three)),
        1 | 3 | 5 => {}
        2 => {
            return Err(config(
                "two control-plane nodes are worse than one: etcd stops when either of them fails",
            )
            .hint(one_or_three));
        }
        4 => {
            return Err(config(
                "four control-plane nodes survive no more failures than three, and are slower",
            )
            .hint("Use three, and make the fourth a worker."));
        }
        more => {
            return Err(config(format!("{more} control-plane nodes are more than etcd works well with"))
                .hint("Use three, or five."));
        }
    }
    let mut names = BTreeSet::new();
    let mut addresses = BTreeSet::new();
    for node in nodes {
        let valid = node.name.split('.').all(|label| {
            !label.is_empty()
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        });
        if !valid || node.name.len() > 63 {
            return Err(config(format!("`{}` cannot be the name of a node", node.name))
                .hint("Use lower-case letters, digits and dashes, at most 63."));
        }
        if !names.insert(&node.name) {
            return Err(config(format!("two nodes are named `{}`", node.name)));
        }
        if !addresses.insert(node.address) {
            return Err(config(format!("two nodes have the address {}", node.address)));
        }
        for taint in &node.taints {
            if let Err(e) = taint.parse::<turingpi_cluster::kube::Taint>() {
                return Err(config(format!("cannot use a taint of node `{}`", node.name)).source(e));
            }
        }
    }
    Ok(())
}
