//! The port to a Kubernetes API: what provisioning needs of it, objects as JSON.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use turingpi_engine::Failure;

use super::{NodeCondition, Taint, WorkloadStatus};

/// A Kubernetes API. Implemented by [`super::KubeRsApi`].
///
/// No call retries: the engine does. Failures are `Unreachable` (retryable) when nothing answered or the server is
/// overloaded, `Auth` when credentials or the certificate were refused, `Refused` when the server said no; a conflict
/// (409) is `Refused` and retryable.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait ClusterApi: Send + Sync {
    /// The server's version.
    async fn version(&self) -> Result<Version, Failure>;
    /// Whether the server's process is alive: the names of the failing checks, empty when it is.
    async fn livez(&self) -> Result<Vec<String>, Failure>;
    /// Whether the server serves: the names of the failing checks, empty when it does.
    async fn readyz(&self) -> Result<Vec<String>, Failure>;

    /// All nodes, by name.
    async fn nodes(&self) -> Result<Vec<NodeStatus>, Failure>;
    /// One node; `None` when there is no such object.
    async fn node(&self, name: &str) -> Result<Option<NodeStatus>, Failure>;
    /// Sets (`Some`) and drops (`None`) labels of a node.
    async fn set_node_labels(
        &self,
        name: &str,
        labels: &BTreeMap<String, Option<String>>,
    ) -> Result<(), Failure>;
    /// Replaces the taints of a node, if they are still `old`; a conflict is retryable.
    async fn set_node_taints(&self, name: &str, old: &[Taint], new: &[Taint]) -> Result<(), Failure>;
    /// Cordons or uncordons a node.
    async fn set_unschedulable(&self, name: &str, unschedulable: bool) -> Result<(), Failure>;
    /// Deletes a node object. False when there was none.
    async fn delete_node(&self, name: &str) -> Result<bool, Failure>;
    /// The pods on a node.
    async fn pods_on(&self, node: &str) -> Result<Vec<NodePod>, Failure>;
    /// Asks for a pod's eviction, which honours disruption budgets.
    async fn evict(&self, namespace: &str, pod: &str, grace: Option<u32>) -> Result<Eviction, Failure>;

    /// One object; `None` when it, or its kind, does not exist.
    async fn get(&self, object: &ObjectRef) -> Result<Option<Value>, Failure>;
    /// All objects of a kind; `of.namespace` `None` lists every namespace, `of.name` is ignored. Empty when the kind
    /// does not exist.
    async fn list(&self, of: &ObjectRef) -> Result<Vec<Value>, Failure>;
    /// Server-side apply of `object` as `manager`, taking over fields of other managers.
    async fn apply(&self, object: &Value, manager: &str) -> Result<Applied, Failure>;
    /// JSON merge patch.
    async fn merge_patch(&self, object: &ObjectRef, patch: &Value) -> Result<Value, Failure>;
    /// Deletes an object, its dependents in the background. False when there was none.
    async fn delete(&self, object: &ObjectRef) -> Result<bool, Failure>;
    /// Deployments, StatefulSets and DaemonSets of a namespace with what they lack; all namespaces for an empty name.
    async fn workloads(&self, namespace: &str) -> Result<Vec<WorkloadStatus>, Failure>;
    /// The events of a namespace (all for an empty name), oldest first.
    async fn events(&self, namespace: &str) -> Result<Vec<ClusterEvent>, Failure>;
}

/// Which object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ObjectRef {
    /// `v1`, `apps/v1`, `longhorn.io/v1beta2`.
    pub api_version: String,
    /// `ConfigMap`, `Deployment`.
    pub kind: String,
    /// The namespace; `None` for what has none.
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
}

impl ObjectRef {
    /// An object without a namespace.
    pub fn cluster(api_version: impl Into<String>, kind: impl Into<String>, name: impl Into<String>) -> Self {
        Self { api_version: api_version.into(), kind: kind.into(), namespace: None, name: name.into() }
    }
    /// An object in a namespace.
    pub fn namespaced(
        api_version: impl Into<String>,
        kind: impl Into<String>,
        namespace: impl Into<String>,
        name: impl Into<String>,
    ) -> Self {
        Self { namespace: Some(namespace.into()), ..Self::cluster(api_version, kind, name) }
    }
    /// Every object of a kind, for [`ClusterApi::list`].
    pub fn all(api_version: impl Into<String>, kind: impl Into<String>) -> Self {
        Self::cluster(api_version, kind, "")
    }
    /// The object that a manifest describes; `None` when it lacks `apiVersion`, `kind` or `metadata.name`.
    pub fn of(manifest: &Value) -> Option<Self> {
        let text = |value: &Value| value.as_str().filter(|t| !t.is_empty()).map(str::to_owned);
        let metadata = manifest.get("metadata")?;
        Some(Self {
            api_version: text(manifest.get("apiVersion")?)?,
            kind: text(manifest.get("kind")?)?,
            namespace: metadata.get("namespace").and_then(text),
            name: text(metadata.get("name")?)?,
        })
    }
}

impl std::fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

/// What server-side apply did.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// The object as the server has it now.
    pub object: Value,
    /// Whether its content changed: new, or another generation or resource version than before.
    pub changed: bool,
}

/// The server's version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// `v1.35.5+k3s1`.
    #[serde(rename = "gitVersion")]
    pub git_version: String,
    /// `linux/arm64`.
    #[serde(default)]
    pub platform: String,
}

/// A node as the API describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The name.
    pub name: String,
    /// The `Ready` condition.
    pub ready: Readiness,
    /// Every condition, as reported.
    pub conditions: Vec<NodeCondition>,
    /// `v1.35.5+k3s1`.
    pub kubelet_version: String,
    /// From the `node-role.kubernetes.io/` labels, sorted.
    pub roles: Vec<String>,
    /// Whether it is cordoned.
    pub unschedulable: bool,
    /// The first `InternalIP`.
    pub internal_ip: Option<std::net::IpAddr>,
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// The annotations.
    pub annotations: BTreeMap<String, String>,
    /// The taints.
    pub taints: Vec<Taint>,
    /// When the object was made, UTC.
    #[serde(with = "time::serde::rfc3339::option", default)]
    pub created: Option<OffsetDateTime>,
}

/// The `Ready` condition of a node. `True` alone is ready: `False` and `Unknown` are not, whatever the text says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Readiness {
    /// Status `True`.
    Ready,
    /// Status `False`: the kubelet says that it is not.
    NotReady {
        /// `KubeletNotReady`, …
        reason: String,
        /// The kubelet's text.
        message: String,
        /// Since when, UTC.
        #[serde(with = "time::serde::rfc3339::option", default)]
        since: Option<OffsetDateTime>,
    },
    /// Status `Unknown`, or no such condition yet: nobody heard from the kubelet.
    Unknown {
        /// Since when, UTC.
        #[serde(with = "time::serde::rfc3339::option", default)]
        since: Option<OffsetDateTime>,
    },
}

impl Readiness {
    /// Whether it is ready.
    pub fn is_ready(&self) -> bool {
        *self == Self::Ready
    }
}

/// A pod, as far as draining needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodePod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its unique id: a pod of a StatefulSet comes back under the same name.
    pub uid: String,
    /// What made it.
    pub owner: PodOwner,
    /// Whether it keeps data in an `emptyDir`, which is lost when it goes.
    pub empty_dir: bool,
    /// Whether it ran to its end (`Succeeded`, `Failed`).
    pub finished: bool,
    /// Whether it is already being deleted.
    pub deleting: bool,
}

/// What made a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PodOwner {
    /// A DaemonSet: its pods ignore cordons and come back at once.
    DaemonSet,
    /// The kubelet, from a file.
    Static,
    /// Another controller, `ReplicaSet`, …: it makes a new pod elsewhere.
    Controller(String),
    /// Nobody: when it goes, it is gone.
    Nobody,
}

/// What asking for an eviction led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Eviction {
    /// It will go.
    Accepted,
    /// It was already gone.
    Gone,
    /// A disruption budget forbids it now.
    Blocked {
        /// The budget, if the server named it.
        budget: Option<String>,
        /// The server's text.
        message: String,
    },
}

/// An event of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClusterEvent {
    /// The last time it happened, UTC.
    #[serde(with = "time::serde::rfc3339::option")]
    pub at: Option<OffsetDateTime>,
    /// `Warning` or `Normal`.
    pub kind: String,
    /// `FailedScheduling`, …
    pub reason: String,
    /// `Pod kube-system/coredns-…`.
    pub about: String,
    /// The text.
    pub message: String,
    /// How often.
    pub count: u64,
}
