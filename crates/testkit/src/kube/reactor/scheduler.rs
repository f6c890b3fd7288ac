//! Pods get a node, if one fits.

use std::collections::HashMap;

use serde_json::Value;

use super::Pass;
use crate::kube::{
    registry::Gvr,
    selectors::LabelSelector,
    value::{at, condition, deleting, items, name, namespace, set, text},
};

const MANAGER: &str = "kube-scheduler";

pub(super) fn reconcile(pass: &mut Pass<'_>) {
    let pods = pass.all("", "pods");
    let nodes = pass.all("", "nodes");
    let mut load: HashMap<String, usize> = HashMap::new();
    for pod in &pods {
        *load.entry(text(pod, &["spec", "nodeName"]).to_owned()).or_default() += 1;
    }
    for pod in pods.iter().filter(|p| text(p, &["spec", "nodeName"]).is_empty() && !deleting(p)) {
        if text(pod, &["status", "phase"]) != "Pending"
            || text(pod, &["spec", "schedulerName"]) != "default-scheduler"
        {
            continue;
        }
        if !items(pod, &["spec", "schedulingGates"]).is_empty() {
            continue;
        }
        if let Some(why) = missing_claim(pass, pod) {
            refuse(pass, pod, &why);
            continue;
        }
        let fitting = nodes.iter().filter(|n| unfit(pod, n).is_none());
        let best = fitting.min_by_key(|n| (load.get(name(n)).copied().unwrap_or(0), name(n).to_owned()));
        match best {
            Some(node) => {
                *load.entry(name(node).to_owned()).or_default() += 1;
                pass.edit_spec(MANAGER, &Gvr::PODS, pod, |pod| {
                    set(pod, &["spec", "nodeName"], name(node));
                    super::set_condition(pod, "PodScheduled", "True", "", "");
                });
                let where_to =
                    format!("Successfully assigned {}/{} to {}", namespace(pod), name(pod), name(node));
                pass.event(pod, "default-scheduler", "Normal", "Scheduled", &where_to);
            }
            None => refuse(pass, pod, &reasons(pod, &nodes)),
        }
    }
}

fn refuse(pass: &Pass<'_>, pod: &Value, why: &str) {
    pass.edit(MANAGER, &Gvr::PODS, pod, |pod| {
        super::set_condition(pod, "PodScheduled", "False", "Unschedulable", why);
    });
    pass.event(pod, "default-scheduler", "Warning", "FailedScheduling", why);
}

fn reasons(pod: &Value, nodes: &[std::sync::Arc<Value>]) -> String {
    if nodes.is_empty() {
        return "no nodes available to schedule pods".into();
    }
    let mut counts: Vec<(String, usize)> = Vec::new();
    for why in nodes.iter().filter_map(|n| unfit(pod, n)) {
        match counts.iter_mut().find(|(w, _)| *w == why) {
            Some((_, n)) => *n += 1,
            None => counts.push((why, 1)),
        }
    }
    let list: Vec<String> = counts.iter().map(|(why, n)| format!("{n} {why}")).collect();
    format!("0/{} nodes are available: {}.", nodes.len(), list.join(", "))
}

fn missing_claim(pass: &Pass<'_>, pod: &Value) -> Option<String> {
    for claim in claims(pod) {
        let Some(found) = pass.objects.get("", "persistentvolumeclaims", namespace(pod), claim) else {
            return Some(format!("persistentvolumeclaim {claim:?} not found"));
        };
        let class = text(found, &["spec", "storageClassName"]);
        let class = pass.objects.get("storage.k8s.io", "storageclasses", "", class);
        let waits = class.is_some_and(|c| text(c, &["volumeBindingMode"]) == "WaitForFirstConsumer");
        if text(found, &["status", "phase"]) != "Bound" && !waits {
            return Some("pod has unbound immediate PersistentVolumeClaims".into());
        }
    }
    None
}

/// The names of the claims a pod mounts.
pub(super) fn claims(pod: &Value) -> impl Iterator<Item = &str> {
    items(pod, &["spec", "volumes"])
        .iter()
        .map(|v| text(v, &["persistentVolumeClaim", "claimName"]))
        .filter(|c| !c.is_empty())
}

/// Why a pod cannot run on a node; nothing when it can.
pub(super) fn unfit(pod: &Value, node: &Value) -> Option<String> {
    if deleting(node) {
        return Some("node(s) were being deleted".into());
    }
    if node["spec"]["unschedulable"] == true && !tolerates_any(pod, "node.kubernetes.io/unschedulable") {
        return Some("node(s) were unschedulable".into());
    }
    // Until the life-cycle controller has written its taint.
    let ready = condition(node, "Ready");
    if ready != "True" && !tolerates_any(pod, "node.kubernetes.io/not-ready") {
        return Some("node(s) had untolerated taint {node.kubernetes.io/not-ready: }".into());
    }
    for taint in items(node, &["spec", "taints"]) {
        let hard = matches!(text(taint, &["effect"]), "NoSchedule" | "NoExecute");
        let tolerated = items(pod, &["spec", "tolerations"]).iter().any(|t| tolerates(t, taint));
        if hard && !tolerated {
            let (key, v) = (text(taint, &["key"]), text(taint, &["value"]));
            return Some(format!("node(s) had untolerated taint {{{key}: {v}}}"));
        }
    }
    let labels = at(node, &["metadata", "labels"]);
    let selected = LabelSelector::of_map(at(pod, &["spec", "nodeSelector"])).matches_labels(labels);
    if !selected || !affine(pod, node) {
        return Some("node(s) didn't match Pod's node affinity/selector".into());
    }
    None
}

fn tolerates_any(pod: &Value, key: &str) -> bool {
    let taint = serde_json::json!({"key": key, "effect": "NoSchedule"});
    items(pod, &["spec", "tolerations"]).iter().any(|t| tolerates(t, &taint))
}

/// Whether a toleration covers a taint.
pub(super) fn tolerates(toleration: &Value, taint: &Value) -> bool {
    let (effect, key) = (text(toleration, &["effect"]), text(toleration, &["key"]));
    (effect.is_empty() || effect == text(taint, &["effect"]))
        && (key.is_empty() || key == text(taint, &["key"]))
        && (text(toleration, &["operator"]) == "Exists"
            || text(toleration, &["value"]) == text(taint, &["value"]))
        && (!key.is_empty() || text(toleration, &["operator"]) == "Exists")
}

fn affine(pod: &Value, node: &Value) -> bool {
    let path = [
        "spec",
        "affinity",
        "nodeAffinity",
        "requiredDuringSchedulingIgnoredDuringExecution",
        "nodeSelectorTerms",
    ];
    let terms = items(pod, &path);
    terms.is_empty()
        || terms.iter().any(|term| {
            let by_label = LabelSelector::of_object(term).matches_labels(at(node, &["metadata", "labels"]));
            let by_field = items(term, &["matchFields"]).iter().all(|f| {
                let named = items(f, &["values"]).iter().any(|v| v == name(node));
                named == (text(f, &["operator"]) == "In")
            });
            by_label && by_field
        })
}
