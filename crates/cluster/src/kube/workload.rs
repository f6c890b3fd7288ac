//! Whether Deployments, StatefulSets and DaemonSets have what they want.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::node::string;

/// The kinds that are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum WorkloadKind {
    /// `apps/v1` Deployment.
    Deployment,
    /// `apps/v1` StatefulSet.
    StatefulSet,
    /// `apps/v1` DaemonSet.
    DaemonSet,
}

impl WorkloadKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Deployment, Self::StatefulSet, Self::DaemonSet];

    /// The kind's name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
        }
    }
}

/// How much of a workload is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadStatus {
    /// Its kind.
    pub kind: WorkloadKind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Pods wanted.
    pub wanted: u64,
    /// Pods of the current version.
    pub updated: u64,
    /// Pods that are available.
    pub available: u64,
    /// Whether its controller has seen the newest version of it; if not, the counts are of an older one.
    pub observed: bool,
}

impl WorkloadStatus {
    /// Whether everything wanted is there, in the current version.
    pub fn is_available(&self) -> bool {
        self.observed && self.updated >= self.wanted && self.available >= self.wanted
    }
}

impl std::fmt::Display for WorkloadStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} {}/{}: {} of {} available",
            self.kind.name(),
            self.namespace,
            self.name,
            self.available.min(self.updated),
            self.wanted
        )
    }
}

/// Reads a workload; `None` when it has no name.
pub fn parse_workload(kind: WorkloadKind, object: &Value) -> Option<WorkloadStatus> {
    let number = |path: &str| object.pointer(path).and_then(Value::as_u64);
    let name = object.pointer("/metadata/name")?.as_str()?.to_owned();
    let (wanted, updated, available) = match kind {
        // A missing `replicas` means one (Kubernetes API, Deployment and StatefulSet spec).
        WorkloadKind::Deployment | WorkloadKind::StatefulSet => (
            number("/spec/replicas").unwrap_or(1),
            number("/status/updatedReplicas"),
            number("/status/availableReplicas"),
        ),
        WorkloadKind::DaemonSet => (
            number("/status/desiredNumberScheduled").unwrap_or(0),
            number("/status/updatedNumberScheduled"),
            number("/status/numberAvailable"),
        ),
    };
    let mut updated = updated.unwrap_or(0);
    // `OnDelete` never updates by itself: an older version is what was asked for.
    if object.pointer("/spec/updateStrategy/type").and_then(Value::as_str) == Some("OnDelete") {
        updated = wanted;
    }
    Some(WorkloadStatus {
        kind,
        namespace: string(object.pointer("/metadata/namespace")),
        name,
        wanted,
        updated,
        available: available.unwrap_or(0),
        // No status at all: the controller has not come around to it.
        observed: number("/status/observedGeneration").unwrap_or(0)
            >= number("/metadata/generation").unwrap_or(1),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(status: Value) -> WorkloadStatus {
        let object = json!({"metadata": {"name": "coredns", "namespace": "kube-system", "generation": 3},
            "spec": {"replicas": 2}, "status": status});
        parse_workload(WorkloadKind::Deployment, &object).unwrap()
    }

    #[test]
    fn a_deployment_is_available_when_the_new_version_is() {
        assert!(
            deployment(json!({"observedGeneration": 3, "updatedReplicas": 2, "availableReplicas": 2}))
                .is_available()
        );
        assert!(
            !deployment(json!({"observedGeneration": 3, "updatedReplicas": 1, "availableReplicas": 2}))
                .is_available()
        );
        assert!(
            !deployment(json!({"observedGeneration": 2, "updatedReplicas": 2, "availableReplicas": 2}))
                .is_available()
        );
        assert!(!deployment(json!({})).is_available());
        assert_eq!(deployment(json!({})).to_string(), "Deployment kube-system/coredns: 0 of 2 available");
    }

    #[test]
    fn a_daemon_set_that_wants_no_pods_is_available_once_it_was_seen() {
        let object = |seen: u64| {
            json!({"metadata": {"name": "svclb", "generation": 1},
            "status": {"observedGeneration": seen, "desiredNumberScheduled": 0}})
        };
        assert!(parse_workload(WorkloadKind::DaemonSet, &object(1)).unwrap().is_available());
        assert!(!parse_workload(WorkloadKind::DaemonSet, &object(0)).unwrap().is_available());
    }
}
