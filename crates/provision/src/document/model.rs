//! The document's shape. The JSON Schema is generated from these types, so the doc comments are what editors show.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use turingpi_cluster::{HostSpec, NetworkSpec, Role};
use turingpi_k3s::K3sSpec;

/// One cluster: its boards, its nodes and what shall run on them.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Document {
    /// The cluster's name: lower-case letters, digits and dashes. Names the kubeconfig context and the state folder.
    #[schemars(regex(pattern = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"))]
    pub name: String,
    /// The Kubernetes distribution.
    #[serde(default)]
    pub distribution: Distribution,
    /// The exact version: `v1.35.5+k3s1`. Either this or `channel`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// A release channel to take the version from: `stable`, `latest`, `v1.35`. It never lowers a version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// The boards, by a name of your choice. Leave out when all nodes already run and nothing is to be flashed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub boards: BTreeMap<String, Board>,
    /// How to log in to the nodes.
    #[serde(default)]
    pub ssh: Ssh,
    /// Addresses inside the cluster and of its API.
    #[serde(default)]
    pub network: NetworkSpec,
    /// Operating system images, by a name of your choice.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<String, Image>,
    /// The nodes. 1, 3 or 5 of them with `role: control-plane`.
    #[schemars(length(min = 1))]
    pub nodes: Vec<Node>,
    /// How the nodes' operating system is prepared.
    #[serde(default)]
    pub host: HostSpec,
    /// What happens when a freshly flashed node boots for the first time.
    #[serde(default)]
    pub first_boot: FirstBoot,
    /// k3s itself.
    #[serde(default)]
    pub k3s: K3sSpec,
    /// Limits of the waits, for slow hardware.
    #[serde(default)]
    pub timeouts: Timeouts,
}

/// The Kubernetes distribution.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Distribution {
    /// k3s on Armbian, Debian or Ubuntu.
    #[default]
    K3s,
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::K3s => "k3s",
        })
    }
}

/// One board, reached through its BMC.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Board {
    /// The BMC's address, host name or `https://` URL: `10.10.88.70`, `turingpi.local`, `https://bmc:8443`.
    pub bmc: String,
    /// The BMC's login.
    #[serde(default)]
    pub credentials: BoardCredentials,
    /// The SHA-256 fingerprint of the BMC's TLS certificate. Without it the first one seen is pinned and reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
}

/// A BMC's login.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct BoardCredentials {
    /// The user name.
    #[serde(default = "root")]
    pub username: String,
    /// Where the password comes from.
    #[serde(default = "tpi_password")]
    pub password: SecretSource,
}

impl Default for BoardCredentials {
    fn default() -> Self {
        Self { username: root(), password: tpi_password() }
    }
}

fn root() -> String {
    "root".to_owned()
}
fn tpi_password() -> SecretSource {
    SecretSource::Env("TPI_PASSWORD".to_owned())
}

/// Where a secret comes from. Secrets themselves never stand in the document.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SecretSource {
    /// An environment variable.
    Env(String),
    /// A file; its last line end is dropped. Must not be readable by others.
    File(PathBuf),
    /// Asked for on the terminal, once a run.
    Prompt,
}

/// How to log in to the nodes. A node can override each of these.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Ssh {
    /// The host to connect to, when it is not the node's address. With `config` it may be an alias from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The login user; `root` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The port; 22 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// The private key file. Its public key is what freshly flashed nodes get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<PathBuf>,
    /// The passphrase of `identity`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passphrase: Option<SecretSource>,
    /// Whether the SSH agent's keys are tried; true by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<bool>,
    /// The login password, for hosts without keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<SecretSource>,
    /// The sudo password, when the user is not root and sudo asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sudo_password: Option<SecretSource>,
    /// Hosts to go through, in order: `user@host:port`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub jump: Vec<String>,
    /// An OpenSSH client configuration to resolve `host` aliases with: `~/.ssh/config`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<PathBuf>,
    /// What to do with a host key nobody has seen before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_keys: Option<HostKeys>,
    /// Another known_hosts file to believe, read only: `~/.ssh/known_hosts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_hosts: Option<PathBuf>,
}

/// What to do with a host key nobody has seen before. A changed one is always refused.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HostKeys {
    /// Keep it, report it, and refuse any other from then on.
    AcceptNew,
    /// Refuse it: it must stand in the cluster's or your own known_hosts.
    Strict,
    /// Accept these fingerprints only: `SHA256:…`.
    Pinned(Vec<String>),
}

/// An operating system image.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Image {
    /// A path, relative to the document, an `http(s)` URL, or a name that `turingpi image list` shows; raw or `.xz`. A
    /// file that has such a name is written `./name`.
    pub source: String,
    /// SHA-256 of the file as it is, 64 hex digits. Required for URLs, and for names without a published digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9a-fA-F]{64}$"))]
    pub sha256: Option<String>,
    /// The login it is delivered with, where that is not Armbian's `root`/`1234` or Ubuntu's `ubuntu`/`ubuntu`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<ImageLogin>,
}

/// A login that an image is delivered with. The first boot gives that user another password.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ImageLogin {
    /// The user; one who may use sudo.
    pub username: String,
    /// Where the password comes from.
    pub password: SecretSource,
}

/// One node.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Node {
    /// Its host name and Kubernetes name: lower-case letters, digits and dashes.
    #[schemars(regex(pattern = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"))]
    pub name: String,
    /// What it is for.
    #[schemars(with = "RoleName")]
    pub role: Role,
    /// Its IP address in the cluster's network. Give it a reservation at your DHCP server, or set `first-boot.static`.
    #[schemars(with = "String")]
    pub address: String,
    /// Where it sits: `board1/1` is slot 1 of `board1`. Without it the node is never flashed or switched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<String>,
    /// The image to flash when the slot is empty. Needs `slot`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Overrides of the `ssh` section for this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh: Option<Ssh>,
    /// Kubernetes labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Kubernetes taints: `key=value:NoSchedule`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<String>,
}

/// What a node is for; the schema's view of [`Role`].
#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[allow(dead_code, reason = "only the generated schema uses it")]
enum RoleName {
    /// Runs the Kubernetes API and, with three or five of them, etcd.
    ControlPlane,
    /// Runs workloads only.
    Worker,
}

/// What happens when a freshly flashed node boots for the first time.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct FirstBoot {
    /// More public keys to install beside that of `ssh.identity`, each a line of an authorized_keys file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub authorized_keys: Vec<String>,
    /// Gives each flashed node its `address` as a static one. Without it DHCP must hand it out.
    #[serde(default, rename = "static", skip_serializing_if = "Option::is_none")]
    pub static_address: Option<StaticAddress>,
}

/// A static address on each flashed node.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct StaticAddress {
    /// The length of the network's prefix; 24 is 255.255.255.0.
    #[schemars(range(min = 8, max = 30))]
    pub prefix: u8,
    /// The default gateway.
    pub gateway: String,
    /// Name servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<String>,
    /// The network interface; the one with the default route when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
}

/// Limits of the waits.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Timeouts {
    /// Multiplies every built-in limit: 2 on slow storage.
    #[serde(default = "one")]
    #[schemars(range(min = 0.1, max = 100.0))]
    pub factor: f64,
    /// Seconds to wait for a TCP connection to a node or a BMC.
    #[serde(default = "ten")]
    #[schemars(range(min = 1, max = 600))]
    pub connect_seconds: u64,
    /// How often a step that may pass is tried.
    #[serde(default = "four")]
    #[schemars(range(min = 1, max = 20))]
    pub attempts: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { factor: one(), connect_seconds: ten(), attempts: four() }
    }
}
fn one() -> f64 {
    1.0
}
fn ten() -> u64 {
    10
}
fn four() -> u32 {
    4
}
