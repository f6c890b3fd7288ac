//! Named conditions to wait for, and the health of a cluster with its reasons.

use std::{collections::BTreeSet, time::Duration};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use turingpi_engine::{Failure, Probe, StepContext};

use crate::kube::{ClusterApi, NodeStatus, Readiness, WorkloadStatus};

/// The condition k3s sets on servers with embedded etcd: `True` once the member votes, `False` while it learns.
pub const ETCD_IS_VOTER: &str = "EtcdIsVoter";

/// Conditions that mean trouble when they are `True`. Others that are `True`, [`ETCD_IS_VOTER`] among them, are fine:
/// a health check that treats every unknown true condition as a fault is wrong (k3s issue 8997).
const PRESSURES: [&str; 4] = ["MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable"];

/// Waits until the API serves (`/readyz`).
///
/// # Errors
/// `Timeout` naming the checks that still fail.
pub async fn api_ready(api: &dyn ClusterApi, limit: Duration, cx: &StepContext) -> Result<(), Failure> {
    cx.wait("the Kubernetes API to be ready", limit, || async {
        Ok(match api.readyz().await?.as_slice() {
            [] => Probe::Ready(()),
            failing => Probe::NotYet(format!("checks that fail: {}", failing.join(", "))),
        })
    })
    .await
}

/// Waits until a node's `Ready` condition is `True`.
///
/// # Errors
/// `Timeout` with the reason the kubelet gives.
pub async fn node_ready(
    api: &dyn ClusterApi,
    node: &str,
    limit: Duration,
    cx: &StepContext,
) -> Result<NodeStatus, Failure> {
    cx.wait(&format!("node {node} to be Ready"), limit, || async {
        Ok(match api.node(node).await? {
            Some(status) if status.ready.is_ready() => Probe::Ready(status),
            Some(status) => Probe::NotYet(readiness_text(&status.ready)),
            None => Probe::NotYet("not registered".to_owned()),
        })
    })
    .await
}

/// Waits until all of `names` are nodes and Ready.
///
/// # Errors
/// `Timeout` naming those that are not.
pub async fn all_nodes_ready(
    api: &dyn ClusterApi,
    names: &[String],
    limit: Duration,
    cx: &StepContext,
) -> Result<Vec<NodeStatus>, Failure> {
    cx.wait("all nodes to be Ready", limit, || async {
        let nodes = api.nodes().await?;
        let waiting: Vec<String> = names
            .iter()
            .filter_map(|name| match nodes.iter().find(|node| node.name == *name) {
                Some(node) if node.ready.is_ready() => None,
                Some(node) => Some(format!("{name}: {}", readiness_text(&node.ready))),
                None => Some(format!("{name}: not registered")),
            })
            .collect();
        Ok(if waiting.is_empty() { Probe::Ready(nodes) } else { Probe::NotYet(waiting.join("; ")) })
    })
    .await
}

/// Waits until a server is a voting etcd member. etcd allows one learner at a time, so servers join one by one, each
/// behind this gate.
///
/// # Errors
/// `Timeout` with the member's state.
pub async fn etcd_voter(
    api: &dyn ClusterApi,
    node: &str,
    limit: Duration,
    cx: &StepContext,
) -> Result<(), Failure> {
    cx.wait(&format!("{node} to be a voting etcd member"), limit, || async {
        let status = api.node(node).await?;
        Ok(match status.as_ref().and_then(|status| status.condition(ETCD_IS_VOTER)) {
            Some(condition) if condition.status == Some(true) => Probe::Ready(()),
            Some(condition) => Probe::NotYet(condition.reason.clone()),
            None => Probe::NotYet("no etcd member yet".to_owned()),
        })
    })
    .await
}

/// Waits until every Deployment, StatefulSet and DaemonSet of `namespace` is available; with `names`, until all of those
/// are there and available.
///
/// # Errors
/// `Timeout` naming what lacks.
pub async fn workloads_available(
    api: &dyn ClusterApi,
    namespace: &str,
    names: &[String],
    limit: Duration,
    cx: &StepContext,
) -> Result<Vec<WorkloadStatus>, Failure> {
    cx.wait(&format!("the workloads of {namespace} to be available"), limit, || async {
        let mut all = api.workloads(namespace).await?;
        let missing = names.iter().filter(|name| !all.iter().any(|w| w.name == **name)).cloned();
        let mut waiting: Vec<String> = missing.map(|name| format!("{name}: not there")).collect();
        if !names.is_empty() {
            all.retain(|workload| names.contains(&workload.name));
        }
        waiting.extend(all.iter().filter(|w| !w.is_available()).map(ToString::to_string));
        Ok(if waiting.is_empty() { Probe::Ready(all) } else { Probe::NotYet(waiting.join("; ")) })
    })
    .await
}

fn readiness_text(ready: &Readiness) -> String {
    match ready {
        Readiness::Ready => "Ready".to_owned(),
        Readiness::NotReady { reason, message, .. } if message.is_empty() => format!("not ready: {reason}"),
        Readiness::NotReady { reason, message, .. } => format!("not ready: {reason}: {message}"),
        Readiness::Unknown { since: Some(_) } => "nothing heard from its kubelet".to_owned(),
        Readiness::Unknown { since: None } => "registered, no status yet".to_owned(),
    }
}

/// How a cluster is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterHealth {
    /// In one word.
    pub state: HealthState,
    /// Why it is not [`HealthState::Ready`], nodes first. Empty when it is.
    pub reasons: Vec<Reason>,
}

/// A cluster's health in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HealthState {
    /// It was never complete and is not yet.
    Bootstrapping,
    /// Everything wanted is there and well.
    Ready,
    /// It was complete once and now something lacks.
    Degraded,
}

/// One thing that is not well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// What it is about: `node node1`, `Deployment kube-system/coredns`, `api`.
    pub about: String,
    /// Which condition: `Ready`, `DiskPressure`, `EtcdIsVoter`, `Cordoned`, `Available`, …
    pub condition: String,
    /// Since when, UTC, if it is known.
    #[serde(with = "time::serde::rfc3339::option", default, skip_serializing_if = "Option::is_none")]
    pub since: Option<OffsetDateTime>,
    /// The text for people.
    pub message: String,
}

/// What a cluster's health is judged from.
#[derive(Debug, Clone, Default)]
pub struct HealthInput<'a> {
    /// The nodes that shall be there.
    pub expected: Vec<&'a str>,
    /// The nodes that are there.
    pub nodes: &'a [NodeStatus],
    /// The workloads that matter.
    pub workloads: &'a [WorkloadStatus],
    /// The checks of the API that fail; the failure's text when it does not answer at all.
    pub failing_checks: &'a [String],
    /// What was seen elsewhere, on the hosts for example, before Kubernetes noticed.
    pub more: &'a [Reason],
    /// Whether the cluster was complete before.
    pub complete_before: bool,
}

impl ClusterHealth {
    /// Judges. Pure.
    pub fn judge(input: &HealthInput<'_>) -> Self {
        let mut reasons: Vec<Reason> = input
            .failing_checks
            .iter()
            .map(|check| Reason {
                about: "api".to_owned(),
                condition: "Ready".to_owned(),
                since: None,
                message: check.clone(),
            })
            .collect();
        // Without an answer from the API nothing is known about its nodes: one reason, not one a node.
        if reasons.is_empty() || !input.nodes.is_empty() {
            for name in input.expected.iter().copied().collect::<BTreeSet<_>>() {
                match input.nodes.iter().find(|node| node.name == name) {
                    Some(node) => reasons.extend(node_reasons(node)),
                    None => reasons.push(node_reason(name, "Registered", None, "not a node of the cluster")),
                }
            }
            for node in input.nodes.iter().filter(|node| !input.expected.contains(&node.name.as_str())) {
                reasons.extend(node_reasons(node));
            }
        }
        reasons.extend(input.workloads.iter().filter(|workload| !workload.is_available()).map(|workload| {
            Reason {
                about: format!("{} {}/{}", workload.kind.name(), workload.namespace, workload.name),
                condition: "Available".to_owned(),
                since: None,
                message: format!(
                    "{} of {} available",
                    workload.available.min(workload.updated),
                    workload.wanted
                ),
            }
        }));
        reasons.extend(input.more.iter().cloned());
        let state = match (reasons.is_empty(), input.complete_before) {
            (true, _) => HealthState::Ready,
            (false, true) => HealthState::Degraded,
            (false, false) => HealthState::Bootstrapping,
        };
        Self { state, reasons }
    }
}

fn node_reason(node: &str, condition: &str, since: Option<OffsetDateTime>, message: &str) -> Reason {
    Reason {
        about: format!("node {node}"),
        condition: condition.to_owned(),
        since,
        message: message.to_owned(),
    }
}

fn node_reasons(node: &NodeStatus) -> Vec<Reason> {
    let mut reasons = Vec::new();
    match &node.ready {
        Readiness::Ready => {}
        Readiness::NotReady { since, .. } | Readiness::Unknown { since } => {
            reasons.push(node_reason(&node.name, "Ready", *since, &readiness_text(&node.ready)));
        }
    }
    for condition in &node.conditions {
        let bad = match condition.kind.as_str() {
            ETCD_IS_VOTER => condition.status == Some(false),
            kind => PRESSURES.contains(&kind) && condition.status == Some(true),
        };
        if bad {
            let text = if condition.message.is_empty() { &condition.reason } else { &condition.message };
            reasons.push(node_reason(&node.name, &condition.kind, condition.since, text));
        }
    }
    if node.unschedulable {
        reasons.push(node_reason(&node.name, "Cordoned", None, "no new pods are put on it"));
    }
    reasons
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kube::{WorkloadKind, parse_node};

    fn node(name: &str, conditions: serde_json::Value) -> NodeStatus {
        parse_node(&json!({"metadata": {"name": name}, "status": {"conditions": conditions}})).unwrap()
    }
    fn ready(name: &str) -> NodeStatus {
        node(
            name,
            json!([{"type": "Ready", "status": "True"}, {"type": "EtcdIsVoter", "status": "True"},
            {"type": "SomethingNew", "status": "True"}, {"type": "DiskPressure", "status": "False"}]),
        )
    }

    #[test]
    fn a_complete_cluster_is_ready_and_unknown_true_conditions_are_no_fault() {
        let nodes = [ready("node1"), ready("node2")];
        let input = HealthInput { expected: vec!["node1", "node2"], nodes: &nodes, ..HealthInput::default() };
        assert_eq!(
            ClusterHealth::judge(&input),
            ClusterHealth { state: HealthState::Ready, reasons: vec![] }
        );
    }

    #[test]
    fn every_reason_names_node_condition_and_since() {
        let nodes = [
            node(
                "node1",
                json!([{"type": "Ready", "status": "False", "reason": "KubeletNotReady",
                "message": "cni plugin not initialized", "lastTransitionTime": "2026-01-02T03:04:05Z"}]),
            ),
            node(
                "node2",
                json!([{"type": "Ready", "status": "True"},
                {"type": "DiskPressure", "status": "True", "message": "kubelet has disk pressure"},
                {"type": "EtcdIsVoter", "status": "False", "reason": "MemberIsLearner"}]),
            ),
        ];
        let workload = WorkloadStatus {
            kind: WorkloadKind::Deployment,
            namespace: "kube-system".into(),
            name: "coredns".into(),
            wanted: 1,
            updated: 1,
            available: 0,
            observed: true,
        };
        let input = HealthInput {
            expected: vec!["node1", "node2", "node3"],
            nodes: &nodes,
            workloads: &[workload],
            complete_before: true,
            ..HealthInput::default()
        };
        let health = ClusterHealth::judge(&input);
        assert_eq!(health.state, HealthState::Degraded);
        let found: Vec<_> = health.reasons.iter().map(|r| (r.about.as_str(), r.condition.as_str())).collect();
        assert_eq!(
            found,
            [
                ("node node1", "Ready"),
                ("node node2", "DiskPressure"),
                ("node node2", "EtcdIsVoter"),
                ("node node3", "Registered"),
                ("Deployment kube-system/coredns", "Available"),
            ]
        );
        assert!(health.reasons[0].since.is_some());
        assert!(health.reasons[0].message.contains("cni plugin not initialized"));
    }

    #[test]
    fn a_silent_api_is_one_reason_and_a_cluster_that_never_was_complete_is_bootstrapping() {
        let failing = ["cannot reach the Kubernetes API".to_owned()];
        let input = HealthInput {
            expected: vec!["node1", "node2"],
            failing_checks: &failing,
            ..HealthInput::default()
        };
        let health = ClusterHealth::judge(&input);
        assert_eq!((health.state, health.reasons.len()), (HealthState::Bootstrapping, 1));
    }
}
