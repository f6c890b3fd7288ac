//! DaemonSets: one pod on every node that fits.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Pass, controller, pods, scheduler, template};
use crate::kube::{
    registry::Gvr,
    store::DeleteOptions,
    value::{deleting, label, list, name, set, text, uid},
};

const MANAGER: &str = "kube-controller-manager";
const COMPONENT: &str = "daemonset-controller";
const REVISION: &str = "controller-revision-hash";

/// What every daemon tolerates.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];

pub(super) fn reconcile(pass: &mut Pass<'_>) {
    let all = pass.all("", "pods");
    let nodes = pass.all("", "nodes");
    for object in pass.all("apps", "daemonsets") {
        if deleting(&object) {
            continue;
        }
        let hash = template::hash(&object["spec"]["template"]);
        let mine: Vec<_> = all.iter().filter(|p| controller(p) == Some(uid(&object))).cloned().collect();
        let mut pod = template::pod(&object, &object["spec"]["template"], &[(REVISION, &hash)]);
        for (key, effect) in TOLERATED {
            list(&mut pod, &["spec", "tolerations"])
                .push(json!({"key": key, "operator": "Exists", "effect": effect}));
        }
        let fits = |node: &Value| {
            // Not being ready keeps no daemon away: its network may be what makes the node ready.
            let mut probe = pod.clone();
            let all = list(&mut probe, &["spec", "tolerations"]);
            for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
                all.push(json!({"key": key, "operator": "Exists"}));
            }
            scheduler::unfit(&probe, node).is_none()
        };
        let (wanted, unwanted): (Vec<_>, Vec<_>) = nodes.iter().cloned().partition(|n| fits(n));
        for node in &wanted {
            let here: Vec<_> = mine.iter().filter(|p| text(p, &["spec", "nodeName"]) == name(node)).collect();
            for ended in here.iter().filter(|p| !pods::is_active(p) && !deleting(p)) {
                pass.delete(&Gvr::PODS, ended, DeleteOptions::default());
            }
            if here.is_empty() {
                let mut pod = pod.clone();
                set(&mut pod, &["spec", "nodeName"], name(node));
                template::create(pass, COMPONENT, &object, pod);
            }
        }
        for node in &unwanted {
            for pod in mine.iter().filter(|p| text(p, &["spec", "nodeName"]) == name(node) && !deleting(p)) {
                pass.delete(&Gvr::PODS, pod, DeleteOptions::default());
            }
        }
        if object["spec"]["updateStrategy"]["type"] == "RollingUpdate" {
            roll(pass, &object, &mine, &wanted, &hash);
        }
        report(pass, &object, &mine, &wanted, &hash);
    }
}

fn roll(pass: &Pass<'_>, object: &Value, mine: &[Arc<Value>], wanted: &[Arc<Value>], hash: &str) {
    let total = i64::try_from(wanted.len()).unwrap_or(0);
    let allowed =
        template::share(&object["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"], total, true)
            .max(1);
    let ready = mine.iter().filter(|p| pods::is_ready(p)).count();
    let mut spare = allowed - (total - i64::try_from(ready).unwrap_or(0));
    let outdated = mine.iter().filter(|p| label(p, REVISION) != Some(hash) && !deleting(p));
    for pod in outdated {
        let healthy = pods::is_ready(pod);
        if healthy && spare <= 0 {
            continue;
        }
        pass.delete(&Gvr::PODS, pod, DeleteOptions::default());
        if healthy {
            spare -= 1;
        }
    }
}

fn report(pass: &Pass<'_>, object: &Value, mine: &[Arc<Value>], wanted: &[Arc<Value>], hash: &str) {
    let on_wanted: Vec<_> = mine
        .iter()
        .filter(|p| pods::is_active(p) && wanted.iter().any(|n| name(n) == text(p, &["spec", "nodeName"])))
        .collect();
    let ready = on_wanted.iter().filter(|p| pods::is_ready(p)).count();
    let updated = on_wanted.iter().filter(|p| label(p, REVISION) == Some(hash)).count();
    let misplaced = mine.iter().filter(|p| pods::is_active(p)).count() - on_wanted.len();
    pass.edit(MANAGER, &Gvr::DAEMON_SETS, object, |o| {
        set(o, &["status", "observedGeneration"], object["metadata"]["generation"].clone());
        set(o, &["status", "desiredNumberScheduled"], wanted.len());
        set(o, &["status", "currentNumberScheduled"], on_wanted.len());
        set(o, &["status", "numberMisscheduled"], misplaced);
        set(o, &["status", "numberReady"], ready);
        super::replicas::count(o, "numberAvailable", ready);
        super::replicas::count(o, "numberUnavailable", wanted.len() - ready.min(wanted.len()));
        super::replicas::count(o, "updatedNumberScheduled", updated);
    });
}
