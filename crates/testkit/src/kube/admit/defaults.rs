//! Defaults that clients rely on when they read an object back.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::kube::{
    registry::ResourceType,
    value::{self, at, default, items_mut, remove, set, slot, text},
};

/// Fills in what the manifest left out.
pub(super) fn fill(t: &ResourceType, live: Option<&Value>, object: &mut Value) {
    match (t.group.as_str(), t.plural.as_str()) {
        ("", "pods") => {
            pod_spec(slot(object, &["spec"]));
            default(object, &["status", "phase"], "Pending");
            if text(object, &["status", "qosClass"]).is_empty() {
                let class = super::pods::qos_class(object);
                set(object, &["status", "qosClass"], class);
            }
        }
        ("", "namespaces") => {
            if live.is_none() {
                set(object, &["spec", "finalizers"], json!(["kubernetes"]));
                set(object, &["status", "phase"], "Active");
            }
            let name = value::name(object).to_owned();
            set(object, &["metadata", "labels", "kubernetes.io/metadata.name"], name);
        }
        ("", "services") => service(object),
        ("", "secrets") => {
            default(object, &["type"], "Opaque");
            if let Some(Value::Object(plain)) = remove(object, &["stringData"]) {
                for (key, v) in plain {
                    let encoded = STANDARD.encode(v.as_str().unwrap_or_default());
                    set(object, &["data", &key], encoded);
                }
            }
        }
        ("", "persistentvolumeclaims") => {
            default(object, &["spec", "volumeMode"], "Filesystem");
            default(object, &["status", "phase"], "Pending");
        }
        ("", "persistentvolumes") => {
            default(object, &["spec", "volumeMode"], "Filesystem");
            default(object, &["spec", "persistentVolumeReclaimPolicy"], "Retain");
            default(object, &["status", "phase"], "Available");
        }
        ("apps", plural) => workload(plural, object),
        ("batch", "jobs") => job(object),
        ("batch", "cronjobs") => {
            let spec = slot(object, &["spec"]);
            default(spec, &["concurrencyPolicy"], "Allow");
            default(spec, &["suspend"], false);
            default(spec, &["successfulJobsHistoryLimit"], 3);
            default(spec, &["failedJobsHistoryLimit"], 1);
            pod_spec(slot(spec, &["jobTemplate", "spec", "template", "spec"]));
        }
        ("storage.k8s.io", "storageclasses") => {
            default(object, &["reclaimPolicy"], "Delete");
            default(object, &["volumeBindingMode"], "Immediate");
        }
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => {
            default(object, &["roleRef", "apiGroup"], "rbac.authorization.k8s.io");
            for subject in items_mut(object, &["subjects"]) {
                if matches!(text(subject, &["kind"]), "User" | "Group") {
                    default(subject, &["apiGroup"], "rbac.authorization.k8s.io");
                }
            }
        }
        ("networking.k8s.io", "networkpolicies") => {
            let mut types = vec!["Ingress"];
            if object["spec"]["egress"].is_array() {
                types.push("Egress");
            }
            default(object, &["spec", "policyTypes"], json!(types));
        }
        ("autoscaling", _) => default(object, &["spec", "minReplicas"], 1),
        ("scheduling.k8s.io", _) => default(object, &["preemptionPolicy"], "PreemptLowerPriority"),
        ("apiextensions.k8s.io", _) => {
            let kind = text(object, &["spec", "names", "kind"]).to_owned();
            default(object, &["spec", "names", "singular"], kind.to_lowercase());
            default(object, &["spec", "names", "listKind"], format!("{kind}List"));
            default(object, &["spec", "conversion"], json!({"strategy": "None"}));
        }
        _ => {}
    }
}

fn service(object: &mut Value) {
    let spec = slot(object, &["spec"]);
    default(spec, &["type"], "ClusterIP");
    default(spec, &["sessionAffinity"], "None");
    let kind = text(spec, &["type"]).to_owned();
    if kind != "ExternalName" {
        default(spec, &["internalTrafficPolicy"], "Cluster");
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        default(spec, &["externalTrafficPolicy"], "Cluster");
    } else {
        remove(spec, &["externalTrafficPolicy"]);
        items_mut(spec, &["ports"]).iter_mut().for_each(|p| {
            remove(p, &["nodePort"]);
        });
    }
    if kind == "LoadBalancer" {
        default(spec, &["allocateLoadBalancerNodePorts"], true);
    }
    for port in items_mut(spec, &["ports"]) {
        default(port, &["protocol"], "TCP");
        let number = port["port"].clone();
        default(port, &["targetPort"], number);
    }
    default(object, &["status", "loadBalancer"], json!({}));
}

fn workload(plural: &str, object: &mut Value) {
    let spec = slot(object, &["spec"]);
    match plural {
        "deployments" => {
            default(spec, &["replicas"], 1);
            default(spec, &["revisionHistoryLimit"], 10);
            default(spec, &["progressDeadlineSeconds"], 600);
            default(spec, &["strategy", "type"], "RollingUpdate");
            if spec["strategy"]["type"] == "RollingUpdate" {
                default(spec, &["strategy", "rollingUpdate", "maxUnavailable"], "25%");
                default(spec, &["strategy", "rollingUpdate", "maxSurge"], "25%");
            }
        }
        "replicasets" => default(spec, &["replicas"], 1),
        "statefulsets" => {
            default(spec, &["replicas"], 1);
            default(spec, &["revisionHistoryLimit"], 10);
            default(spec, &["podManagementPolicy"], "OrderedReady");
            default(spec, &["serviceName"], "");
            default(spec, &["updateStrategy", "type"], "RollingUpdate");
            if spec["updateStrategy"]["type"] == "RollingUpdate" {
                default(spec, &["updateStrategy", "rollingUpdate", "partition"], 0);
            }
            let keep = json!({"whenDeleted": "Retain", "whenScaled": "Retain"});
            default(spec, &["persistentVolumeClaimRetentionPolicy"], keep);
            for claim in items_mut(spec, &["volumeClaimTemplates"]) {
                default(claim, &["apiVersion"], "v1");
                default(claim, &["kind"], "PersistentVolumeClaim");
                default(claim, &["spec", "volumeMode"], "Filesystem");
                default(claim, &["status", "phase"], "Pending");
            }
        }
        "daemonsets" => {
            default(spec, &["revisionHistoryLimit"], 10);
            default(spec, &["updateStrategy", "type"], "RollingUpdate");
            if spec["updateStrategy"]["type"] == "RollingUpdate" {
                default(spec, &["updateStrategy", "rollingUpdate", "maxUnavailable"], 1);
                default(spec, &["updateStrategy", "rollingUpdate", "maxSurge"], 0);
            }
        }
        _ => return,
    }
    pod_spec(slot(spec, &["template", "spec"]));
}

fn job(object: &mut Value) {
    let (uid, name) = (value::uid(object).to_owned(), value::name(object).to_owned());
    let spec = slot(object, &["spec"]);
    if spec["completions"].is_null() && spec["parallelism"].is_null() {
        set(spec, &["completions"], 1);
    }
    default(spec, &["parallelism"], 1);
    default(spec, &["backoffLimit"], 6);
    default(spec, &["completionMode"], "NonIndexed");
    default(spec, &["suspend"], false);
    default(spec, &["manualSelector"], false);
    if spec["manualSelector"] == false {
        remove(spec, &["manualSelector"]);
        if spec["selector"].is_null() {
            set(spec, &["selector", "matchLabels"], json!({"batch.kubernetes.io/controller-uid": uid}));
            for (key, v) in [
                ("batch.kubernetes.io/controller-uid", &uid),
                ("batch.kubernetes.io/job-name", &name),
                ("controller-uid", &uid),
                ("job-name", &name),
            ] {
                set(spec, &["template", "metadata", "labels", key], v.clone());
            }
        }
    }
    pod_spec(slot(spec, &["template", "spec"]));
}

/// A pod's specification, also inside templates.
fn pod_spec(spec: &mut Value) {
    default(spec, &["restartPolicy"], "Always");
    default(spec, &["dnsPolicy"], "ClusterFirst");
    default(spec, &["schedulerName"], "default-scheduler");
    default(spec, &["terminationGracePeriodSeconds"], 30);
    default(spec, &["securityContext"], json!({}));
    // The old name is kept in step with the new one.
    let account = [text(spec, &["serviceAccountName"]), text(spec, &["serviceAccount"])]
        .into_iter()
        .find(|a| !a.is_empty())
        .map(str::to_owned);
    if let Some(account) = account {
        set(spec, &["serviceAccountName"], account.clone());
        set(spec, &["serviceAccount"], account);
    }
    for list in ["containers", "initContainers"] {
        for container in items_mut(spec, &[list]) {
            self::container(container);
        }
    }
    for volume in items_mut(spec, &["volumes"]) {
        for source in ["configMap", "secret", "projected", "downwardAPI"] {
            if volume.get(source).is_some() {
                default(volume, &[source, "defaultMode"], 0o644);
            }
        }
        if volume.get("hostPath").is_some() {
            default(volume, &["hostPath", "type"], "");
        }
        let named_only = volume.as_object().is_some_and(|m| m.len() == 1);
        if named_only {
            set(volume, &["emptyDir"], json!({}));
        }
    }
}

fn container(container: &mut Value) {
    let image = text(container, &["image"]).to_owned();
    let tag = image.rsplit('/').next().and_then(|last| last.split_once(':')).map_or("", |(_, tag)| tag);
    let latest = (tag.is_empty() && !image.contains('@')) || tag == "latest";
    default(container, &["imagePullPolicy"], if latest { "Always" } else { "IfNotPresent" });
    default(container, &["terminationMessagePath"], "/dev/termination-log");
    default(container, &["terminationMessagePolicy"], "File");
    default(container, &["resources"], json!({}));
    for port in items_mut(container, &["ports"]) {
        default(port, &["protocol"], "TCP");
    }
    for env in items_mut(container, &["env"]) {
        if at(env, &["valueFrom", "fieldRef"]).is_object() {
            default(env, &["valueFrom", "fieldRef", "apiVersion"], "v1");
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if !container[probe].is_object() {
            continue;
        }
        let probe = slot(container, &[probe]);
        for (field, v) in
            [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
        {
            default(probe, &[field], v);
        }
        if probe["httpGet"].is_object() {
            default(probe, &["httpGet", "path"], "/");
            default(probe, &["httpGet", "scheme"], "HTTP");
        }
    }
    let requests = at(container, &["resources", "limits"]).as_object().cloned().unwrap_or_default();
    for (name, limit) in requests {
        default(container, &["resources", "requests", &name], limit);
    }
}
