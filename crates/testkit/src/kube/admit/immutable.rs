//! Fields that stay as they were made.

use serde_json::Value;

use crate::kube::{
    registry::ResourceType,
    status::Cause,
    value::{at, items_mut, object, remove, text},
};

/// What an update may not change.
pub(super) fn check(t: &ResourceType, live: &Value, new: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let frozen: &[&[&str]] = match (t.group.as_str(), t.plural.as_str()) {
        ("apps", "deployments" | "replicasets" | "daemonsets") => &[&["spec", "selector"]],
        ("batch", "jobs") => &[&["spec", "selector"], &["spec", "template"], &["spec", "completionMode"]],
        ("storage.k8s.io", "storageclasses") => {
            &[&["provisioner"], &["parameters"], &["reclaimPolicy"], &["volumeBindingMode"]]
        }
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => &[&["roleRef"]],
        ("", "secrets") => &[&["type"]],
        ("scheduling.k8s.io", _) => &[&["value"]],
        ("apiextensions.k8s.io", _) => &[
            &["spec", "scope"],
            &["spec", "group"],
            &["spec", "names", "plural"],
            &["spec", "names", "kind"],
        ],
        _ => &[],
    };
    for path in frozen {
        if at(live, path) != at(new, path) {
            causes.push(Cause::invalid(path.join("."), at(new, path), "field is immutable"));
        }
    }
    match (t.group.as_str(), t.plural.as_str()) {
        ("", "configmaps" | "secrets")
            if live["immutable"] == true
                && ["data", "binaryData", "immutable"].iter().any(|k| live.get(*k) != new.get(*k)) =>
        {
            causes.push(Cause::forbidden("data", "field is immutable when `immutable` is set"));
        }
        ("", "services") => {
            let (was, is) = (text(live, &["spec", "clusterIP"]), text(new, &["spec", "clusterIP"]));
            let external = live["spec"]["type"] == "ExternalName" || new["spec"]["type"] == "ExternalName";
            if !was.is_empty() && !is.is_empty() && was != is && !external {
                causes.push(Cause::invalid(
                    "spec.clusterIP",
                    at(new, &["spec", "clusterIP"]),
                    "field is immutable",
                ));
            }
        }
        ("", "persistentvolumeclaims") => {
            let rest = |v: &Value| {
                let mut spec = v["spec"].clone();
                remove(&mut spec, &["resources"]);
                // Binding writes this one.
                if text(live, &["spec", "volumeName"]).is_empty() {
                    remove(&mut spec, &["volumeName"]);
                }
                spec
            };
            if rest(live) != rest(new) {
                let why = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
                causes.push(Cause::forbidden("spec", why));
            }
        }
        ("apps", "statefulsets") => {
            let rest = |v: &Value| {
                let mut spec = v["spec"].clone();
                object(&mut spec).retain(|k, _| {
                    !matches!(
                        k.as_str(),
                        "replicas"
                            | "ordinals"
                            | "template"
                            | "updateStrategy"
                            | "revisionHistoryLimit"
                            | "persistentVolumeClaimRetentionPolicy"
                            | "minReadySeconds"
                    )
                });
                spec
            };
            if rest(live) != rest(new) {
                let why = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
                causes.push(Cause::forbidden("spec", why));
            }
        }
        ("", "pods") if pod_rest(live) != pod_rest(new) => {
            let why = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
            causes.push(Cause::forbidden("spec", why));
        }
        _ => {}
    }
    causes
}

fn pod_rest(pod: &Value) -> Value {
    let mut spec = pod["spec"].clone();
    for field in
        ["activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds", "ephemeralContainers"]
    {
        remove(&mut spec, &[field]);
    }
    for list in ["containers", "initContainers"] {
        for container in items_mut(&mut spec, &[list]) {
            remove(container, &["image"]);
        }
    }
    spec
}
