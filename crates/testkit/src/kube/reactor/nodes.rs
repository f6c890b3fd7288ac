//! Node life cycle: taints follow conditions, pods of a lost node are not ready and are given up after a while.

use std::time::Duration;

use serde_json::{Value, json};

use super::Pass;
use crate::kube::{
    registry::Gvr,
    store::{DeleteOptions, now},
    value::{condition, deleting, items, list, name, text},
};

const MANAGER: &str = "kube-controller-manager";
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

pub(super) fn reconcile(pass: &mut Pass<'_>) {
    for node in pass.all("", "nodes") {
        let wanted = wanted_taints(&node);
        let ours = |t: &Value| matches!(text(t, &["key"]), NOT_READY | UNREACHABLE | UNSCHEDULABLE);
        let pair = |t: &Value| (text(t, &["key"]).to_owned(), text(t, &["effect"]).to_owned());
        let mut have: Vec<_> =
            items(&node, &["spec", "taints"]).iter().filter(|t| ours(t)).map(pair).collect();
        let mut want: Vec<_> = wanted.iter().map(|(k, e)| ((*k).to_owned(), (*e).to_owned())).collect();
        have.sort();
        want.sort();
        if have != want {
            pass.edit_spec(MANAGER, &Gvr::NODES, &node, |node| {
                let taints = list(node, &["spec", "taints"]);
                taints.retain(|t| !ours(t) || want.contains(&pair(t)));
                for (key, effect) in wanted {
                    if !taints.iter().any(|t| t["key"] == key && t["effect"] == effect) {
                        let mut taint = json!({"key": key, "effect": effect});
                        if key != UNSCHEDULABLE {
                            crate::kube::value::set(&mut taint, &["timeAdded"], now());
                        }
                        taints.push(taint);
                    }
                }
                if taints.is_empty() {
                    crate::kube::value::remove(node, &["spec", "taints"]);
                }
            });
        }
    }
    for pod in pass.all("", "pods") {
        let on = text(&pod, &["spec", "nodeName"]);
        if on.is_empty() {
            continue;
        }
        match pass.objects.get("", "nodes", "", on).cloned() {
            // Nobody is left who could end the pod.
            None => pass.delete(&Gvr::PODS, &pod, DeleteOptions::now()),
            Some(node) => of_lost_node(pass, &node, &pod),
        }
    }
}

fn wanted_taints(node: &Value) -> Vec<(&'static str, &'static str)> {
    let mut wanted = match condition(node, "Ready") {
        "True" => Vec::new(),
        "" => vec![(NOT_READY, "NoSchedule")],
        "Unknown" => vec![(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")],
        _ => vec![(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")],
    };
    if node["spec"]["unschedulable"] == true {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    wanted
}

fn of_lost_node(pass: &mut Pass<'_>, node: &Value, pod: &Value) {
    if condition(node, "Ready") == "True" || condition(node, "Ready").is_empty() {
        evict_untolerated(pass, node, pod);
        return;
    }
    if condition(pod, "Ready") == "True" {
        pass.edit(MANAGER, &Gvr::PODS, pod, |pod| {
            super::set_condition(pod, "Ready", "False", "", "");
        });
    }
    evict_untolerated(pass, node, pod);
}

/// Deletes a pod that does not tolerate a NoExecute taint, or not any longer.
fn evict_untolerated(pass: &mut Pass<'_>, node: &Value, pod: &Value) {
    if deleting(pod) {
        return;
    }
    for taint in items(node, &["spec", "taints"]).iter().filter(|t| t["effect"] == "NoExecute") {
        let tolerations: Vec<&Value> = items(pod, &["spec", "tolerations"])
            .iter()
            .filter(|t| super::scheduler::tolerates(t, taint))
            .collect();
        let forever = tolerations.iter().any(|t| t["tolerationSeconds"].is_null());
        if forever {
            continue;
        }
        let seconds = tolerations.iter().filter_map(|t| t["tolerationSeconds"].as_u64()).min();
        let over = seconds.is_none_or(|s| pass.passed(pod, "toleration", Duration::from_secs(s)));
        if over {
            let why =
                format!("Marking for deletion Pod {}/{}", text(pod, &["metadata", "namespace"]), name(pod));
            pass.event(pod, "taint-eviction-controller", "Normal", "TaintManagerEviction", &why);
            pass.delete(&Gvr::PODS, pod, DeleteOptions::default());
            return;
        }
    }
}
