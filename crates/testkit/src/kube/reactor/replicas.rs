//! ReplicaSets keep their number of pods.

use serde_json::Value;

use super::{Pass, controller, pods, template};
use crate::kube::{
    registry::Gvr,
    selectors::LabelSelector,
    store::DeleteOptions,
    value::{deleting, int, name, set, text, uid},
};

const MANAGER: &str = "kube-controller-manager";
const COMPONENT: &str = "replicaset-controller";

pub(super) fn reconcile(pass: &mut Pass<'_>) {
    let all = pass.all("", "pods");
    for set_object in pass.all("apps", "replicasets") {
        let mine: Vec<_> = all.iter().filter(|p| controller(p) == Some(uid(&set_object))).collect();
        let active: Vec<_> = mine.iter().filter(|p| pods::is_active(p)).copied().collect();
        let wanted = if deleting(&set_object) { None } else { int(&set_object, &["spec", "replicas"]) };
        let have = i64::try_from(active.len()).unwrap_or(i64::MAX);
        let mut refused = false;
        match wanted {
            Some(wanted) if have < wanted => {
                for _ in have..wanted {
                    let pod = template::pod(&set_object, &set_object["spec"]["template"], &[]);
                    if !template::create(pass, COMPONENT, &set_object, pod) {
                        refused = true;
                        break;
                    }
                }
            }
            Some(wanted) if have > wanted => {
                let mut order = active.clone();
                // Those that do least go first; then the youngest.
                order.sort_by_key(|p| {
                    let assigned = !text(p, &["spec", "nodeName"]).is_empty();
                    let young = std::cmp::Reverse(text(p, &["metadata", "creationTimestamp"]).to_owned());
                    (assigned, pods::is_ready(p), young, name(p).to_owned())
                });
                for pod in order.into_iter().take(usize::try_from(have - wanted).unwrap_or(0)) {
                    pass.delete(&Gvr::PODS, pod, DeleteOptions::default());
                    let what = format!("Deleted pod: {}", name(pod));
                    pass.event(&set_object, COMPONENT, "Normal", "SuccessfulDelete", &what);
                }
            }
            _ => {}
        }
        if !deleting(&set_object) {
            report(pass, &set_object, &active, refused);
        }
    }
}

fn report(pass: &Pass<'_>, object: &Value, active: &[&std::sync::Arc<Value>], refused: bool) {
    let selector = LabelSelector::of_object(&object["spec"]["selector"]);
    let ready = active.iter().filter(|p| pods::is_ready(p)).count();
    let labelled = active.iter().filter(|p| selector.matches(p)).count();
    pass.edit(MANAGER, &Gvr::REPLICA_SETS, object, |o| {
        let generation = o["metadata"]["generation"].clone();
        set(o, &["status", "observedGeneration"], generation);
        set(o, &["status", "replicas"], active.len());
        count(o, "fullyLabeledReplicas", labelled);
        count(o, "readyReplicas", ready);
        count(o, "availableReplicas", ready);
        if refused {
            super::set_condition(
                o,
                "ReplicaFailure",
                "True",
                "FailedCreate",
                "pods could not be created; see events",
            );
        } else {
            super::value::list(o, &["status", "conditions"]).retain(|c| c["type"] != "ReplicaFailure");
        }
    });
}

/// Writes a count; zero is left out, as the real encoder does.
pub(super) fn count(object: &mut Value, key: &str, n: usize) {
    if n == 0 {
        super::value::remove(object, &["status", key]);
    } else {
        set(object, &["status", key], n);
    }
}
