//! StatefulSets: named pods in order, with their own claims.

use serde_json::{Value, json};

use super::{Pass, controller, pods, replicas::count, template};
use crate::kube::{
    registry::Gvr,
    store::DeleteOptions,
    value::{deleting, int, items, label, list, name, namespace, set, text, uid},
};

const MANAGER: &str = "kube-controller-manager";
const COMPONENT: &str = "statefulset-controller";
const REVISION: &str = "controller-revision-hash";

pub(super) fn reconcile(pass: &mut Pass<'_>) {
    let all = pass.all("", "pods");
    for object in pass.all("apps", "statefulsets") {
        if deleting(&object) {
            continue;
        }
        let hash = format!("{}-{}", name(&object), template::hash(&object["spec"]["template"]));
        let mine: Vec<_> = all.iter().filter(|p| controller(p) == Some(uid(&object))).cloned().collect();
        let wanted = int(&object, &["spec", "replicas"]).unwrap_or(1).max(0);
        let first = int(&object, &["spec", "ordinals", "start"]).unwrap_or(0);
        let parallel = object["spec"]["podManagementPolicy"] == "Parallel";
        let mut settled = true;
        for ordinal in first..first + wanted {
            let pod_name = format!("{}-{ordinal}", name(&object));
            match mine.iter().find(|p| name(p) == pod_name) {
                None => {
                    make(pass, &object, &pod_name, ordinal, &hash);
                    settled = false;
                }
                Some(pod) if !pods::is_active(pod) => {
                    if !deleting(pod) {
                        pass.delete(&Gvr::PODS, pod, DeleteOptions::default());
                    }
                    settled = false;
                }
                Some(pod) if !pods::is_ready(pod) => {
                    // A pod that never became ready does not hold up its own repair.
                    if label(pod, REVISION) != Some(hash.as_str()) && rolls(&object) {
                        pass.delete(&Gvr::PODS, pod, DeleteOptions::default());
                    }
                    settled = false;
                }
                Some(_) => {}
            }
            if !settled && !parallel {
                break;
            }
        }
        let ordinal =
            |p: &Value| name(p).rsplit('-').next().and_then(|n| n.parse::<i64>().ok()).unwrap_or(-1);
        let mut extra: Vec<_> =
            mine.iter().filter(|p| !(first..first + wanted).contains(&ordinal(p))).collect();
        extra.sort_by_key(|p| std::cmp::Reverse(ordinal(p)));
        if extra.iter().all(|p| !deleting(p)) || parallel {
            let at_once = if parallel { extra.len() } else { 1 };
            for pod in extra.iter().take(at_once).filter(|p| !deleting(p)) {
                pass.delete(&Gvr::PODS, pod, DeleteOptions::default());
            }
        }
        if settled && extra.is_empty() && rolls(&object) {
            let from = int(&object, &["spec", "updateStrategy", "rollingUpdate", "partition"]).unwrap_or(0);
            let outdated =
                mine.iter().filter(|p| label(p, REVISION) != Some(hash.as_str()) && ordinal(p) >= from);
            if let Some(pod) = outdated.max_by_key(|p| ordinal(p)) {
                pass.delete(&Gvr::PODS, pod, DeleteOptions::default());
            }
        }
        report(pass, &object, &mine, &hash, usize::try_from(wanted).unwrap_or(0));
    }
}

fn rolls(object: &Value) -> bool {
    object["spec"]["updateStrategy"]["type"] == "RollingUpdate"
}

fn make(pass: &Pass<'_>, object: &Value, pod_name: &str, ordinal: i64, hash: &str) {
    let number = ordinal.to_string();
    let labels = [
        (REVISION, hash),
        ("statefulset.kubernetes.io/pod-name", pod_name),
        ("apps.kubernetes.io/pod-index", &number),
    ];
    let mut pod = template::pod(object, &object["spec"]["template"], &labels);
    set(&mut pod, &["metadata", "name"], pod_name);
    set(&mut pod, &["spec", "hostname"], pod_name);
    set(&mut pod, &["spec", "subdomain"], text(object, &["spec", "serviceName"]));
    for claim in items(object, &["spec", "volumeClaimTemplates"]) {
        let template_name = name(claim);
        let claim_name = format!("{template_name}-{pod_name}");
        if pass.objects.get("", "persistentvolumeclaims", namespace(object), &claim_name).is_none() {
            let labels = &object["spec"]["selector"]["matchLabels"];
            let new = json!({"metadata": {"name": claim_name, "labels": labels}, "spec": claim["spec"]});
            if let Err(error) = pass.create(MANAGER, &Gvr::PERSISTENT_VOLUME_CLAIMS, namespace(object), new) {
                pass.event(
                    object,
                    COMPONENT,
                    "Warning",
                    "FailedCreate",
                    &format!("create Claim {claim_name}: {error}"),
                );
            }
        }
        let volumes = list(&mut pod, &["spec", "volumes"]);
        volumes.retain(|v| text(v, &["name"]) != template_name);
        volumes.push(json!({"name": template_name, "persistentVolumeClaim": {"claimName": claim_name}}));
    }
    template::create(pass, COMPONENT, object, pod);
}

fn report(pass: &Pass<'_>, object: &Value, mine: &[std::sync::Arc<Value>], hash: &str, wanted: usize) {
    let active: Vec<_> = mine.iter().filter(|p| pods::is_active(p)).collect();
    let ready = active.iter().filter(|p| pods::is_ready(p)).count();
    let updated = active.iter().filter(|p| label(p, REVISION) == Some(hash)).count();
    pass.edit(MANAGER, &Gvr::STATEFUL_SETS, object, |o| {
        set(o, &["status", "observedGeneration"], object["metadata"]["generation"].clone());
        set(o, &["status", "replicas"], active.len());
        count(o, "readyReplicas", ready);
        set(o, &["status", "availableReplicas"], ready);
        count(o, "updatedReplicas", updated);
        set(o, &["status", "updateRevision"], hash);
        super::value::default(o, &["status", "currentRevision"], hash);
        let whole = updated == wanted && ready == wanted && active.len() == wanted;
        if whole {
            set(o, &["status", "currentRevision"], hash);
        }
        let current = text(o, &["status", "currentRevision"]).to_owned();
        let still = active.iter().filter(|p| label(p, REVISION) == Some(current.as_str())).count();
        count(o, "currentReplicas", still);
    });
}
