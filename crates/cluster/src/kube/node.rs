//! Reads a `Node` object.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{NodeStatus, Readiness};

/// A condition of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeCondition {
    /// `Ready`, `MemoryPressure`, `EtcdIsVoter`, …
    pub kind: String,
    /// `Some(true)` for `True`, `Some(false)` for `False`, `None` for `Unknown` and anything else.
    pub status: Option<bool>,
    /// The machine-readable reason.
    pub reason: String,
    /// The text for people.
    pub message: String,
    /// Since when, UTC.
    #[serde(with = "time::serde::rfc3339::option", default)]
    pub since: Option<OffsetDateTime>,
}

/// A taint of a node. Text form: `key=value:Effect` or `key:Effect`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Taint {
    /// The key.
    pub key: String,
    /// The value; empty when it has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    pub effect: String,
}

/// A text that is not a taint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a taint: write `key=value:NoSchedule`, `key:PreferNoSchedule` or `key:NoExecute`")]
pub struct InvalidTaint(String);

impl FromStr for Taint {
    type Err = InvalidTaint;
    fn from_str(text: &str) -> Result<Self, InvalidTaint> {
        let invalid = || InvalidTaint(text.to_owned());
        let (left, effect) = text.rsplit_once(':').ok_or_else(invalid)?;
        let (key, value) = left.split_once('=').unwrap_or((left, ""));
        if key.is_empty() || !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect) {
            return Err(invalid());
        }
        Ok(Self { key: key.to_owned(), value: value.to_owned(), effect: effect.to_owned() })
    }
}

impl fmt::Display for Taint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value.as_str() {
            "" => write!(f, "{}:{}", self.key, self.effect),
            value => write!(f, "{}={value}:{}", self.key, self.effect),
        }
    }
}

impl NodeStatus {
    /// A condition by its kind.
    pub fn condition(&self, kind: &str) -> Option<&NodeCondition> {
        self.conditions.iter().find(|c| c.kind == kind)
    }
}

/// Reads a `Node` object; `None` when it has no name. Missing fields read as empty.
pub fn parse_node(node: &Value) -> Option<NodeStatus> {
    let metadata = node.get("metadata")?;
    let name = metadata.get("name")?.as_str()?.to_owned();
    let status = node.get("status").unwrap_or(&Value::Null);
    let labels = string_map(metadata.get("labels"));
    let conditions: Vec<NodeCondition> =
        items(status.get("conditions")).filter_map(parse_condition).collect();
    let mut roles: Vec<String> = labels
        .keys()
        .filter_map(|key| key.strip_prefix("node-role.kubernetes.io/"))
        .filter(|role| !role.is_empty())
        .map(str::to_owned)
        .collect();
    roles.sort();
    Some(NodeStatus {
        ready: readiness(&conditions),
        conditions,
        kubelet_version: string(status.pointer("/nodeInfo/kubeletVersion")),
        roles,
        unschedulable: node.pointer("/spec/unschedulable").and_then(Value::as_bool).unwrap_or(false),
        internal_ip: items(status.get("addresses"))
            .filter(|a| a.get("type").and_then(Value::as_str) == Some("InternalIP"))
            .find_map(|a| a.get("address")?.as_str()?.parse().ok()),
        annotations: string_map(metadata.get("annotations")),
        taints: items(node.pointer("/spec/taints"))
            .map(|t| Taint {
                key: string(t.get("key")),
                value: string(t.get("value")),
                effect: string(t.get("effect")),
            })
            .collect(),
        created: date(metadata.get("creationTimestamp")),
        labels,
        name,
    })
}

fn readiness(conditions: &[NodeCondition]) -> Readiness {
    match conditions.iter().find(|c| c.kind == "Ready") {
        Some(NodeCondition { status: Some(true), .. }) => Readiness::Ready,
        Some(NodeCondition { status: Some(false), reason, message, since, .. }) => {
            Readiness::NotReady { reason: reason.clone(), message: message.clone(), since: *since }
        }
        Some(NodeCondition { since, .. }) => Readiness::Unknown { since: *since },
        None => Readiness::Unknown { since: None },
    }
}

fn parse_condition(condition: &Value) -> Option<NodeCondition> {
    Some(NodeCondition {
        kind: condition.get("type")?.as_str()?.to_owned(),
        status: match condition.get("status").and_then(Value::as_str) {
            Some("True") => Some(true),
            Some("False") => Some(false),
            _ => None,
        },
        reason: string(condition.get("reason")),
        message: string(condition.get("message")),
        since: date(condition.get("lastTransitionTime")),
    })
}

pub(super) fn items(list: Option<&Value>) -> impl Iterator<Item = &Value> {
    list.and_then(Value::as_array).into_iter().flatten()
}

pub(super) fn string(value: Option<&Value>) -> String {
    value.and_then(Value::as_str).unwrap_or_default().to_owned()
}

pub(super) fn date(value: Option<&Value>) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(value?.as_str()?, &Rfc3339).ok()
}

fn string_map(value: Option<&Value>) -> BTreeMap<String, String> {
    value
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with_ready(status: &str) -> NodeStatus {
        parse_node(&json!({
            "metadata": {"name": "node1", "labels": {"node-role.kubernetes.io/etcd": "true",
                "node-role.kubernetes.io/control-plane": "true", "kubernetes.io/hostname": "node1"}},
            "spec": {"taints": [{"key": "a", "value": "b", "effect": "NoSchedule"}]},
            "status": {
                "addresses": [{"type": "Hostname", "address": "node1"}, {"type": "InternalIP", "address": "10.10.88.73"}],
                "conditions": [
                    {"type": "EtcdIsVoter", "status": "True", "reason": "MemberNotLearner"},
                    {"type": "Ready", "status": status, "reason": "KubeletReady", "message": "node is Ready",
                     "lastTransitionTime": "2026-01-02T03:04:05Z"}],
                "nodeInfo": {"kubeletVersion": "v1.35.5+k3s1"}}
        }))
        .unwrap()
    }

    #[test]
    fn only_the_status_true_is_ready_whatever_the_text_says() {
        assert!(with_ready("True").ready.is_ready());
        let Readiness::NotReady { reason, since, .. } = with_ready("False").ready else {
            panic!("not NotReady")
        };
        assert_eq!(reason, "KubeletReady");
        assert_eq!(since.unwrap().unix_timestamp(), 1_767_323_045);
        assert!(matches!(with_ready("Unknown").ready, Readiness::Unknown { since: Some(_) }));
        assert!(matches!(with_ready("true").ready, Readiness::Unknown { .. }));
    }

    #[test]
    fn a_node_without_conditions_is_unknown_and_has_no_address() {
        let node = parse_node(&json!({"metadata": {"name": "n"}})).unwrap();
        assert_eq!(node.ready, Readiness::Unknown { since: None });
        assert_eq!((node.internal_ip, node.roles.len(), node.unschedulable), (None, 0, false));
    }

    #[test]
    fn roles_addresses_and_taints_are_read() {
        let node = with_ready("True");
        assert_eq!(node.roles, ["control-plane", "etcd"]);
        assert_eq!(node.internal_ip, Some("10.10.88.73".parse().unwrap()));
        assert_eq!(node.taints[0].to_string(), "a=b:NoSchedule");
        assert_eq!(node.condition("EtcdIsVoter").unwrap().status, Some(true));
    }

    #[test]
    fn taints_survive_a_round_trip_and_nonsense_is_refused() {
        for text in ["a=b:NoSchedule", "node-role.kubernetes.io/control-plane:NoExecute"] {
            assert_eq!(text.parse::<Taint>().unwrap().to_string(), text);
        }
        for text in ["", "a", "a=b", "a=b:Never", ":NoSchedule", "=x:NoSchedule"] {
            assert!(text.parse::<Taint>().is_err(), "{text}");
        }
    }
}
