//! Objects that k3s makes: nodes, and the system's own workloads.

use serde_json::{Value, json};

pub(crate) use crate::kubelet::now;
use crate::{ApiServer, Gvr, kubelet::NodeCondition};

/// Sets a condition of a Node.
pub(crate) fn set_condition(node: &mut Value, kind: &str, status: &str, reason: &str, message: &str) {
    let Some(list) = node.pointer_mut("/status/conditions").and_then(Value::as_array_mut) else { return };
    let at = now();
    let old = list.iter().position(|c| c.get("type").and_then(Value::as_str) == Some(kind));
    let since = old
        .and_then(|i| list.get(i))
        .filter(|c| c.get("status").and_then(Value::as_str) == Some(status))
        .and_then(|c| c.get("lastTransitionTime").cloned())
        .unwrap_or_else(|| at.clone().into());
    let fresh = json!({"type": kind, "status": status, "reason": reason, "message": message, "lastHeartbeatTime": at, "lastTransitionTime": since});
    match old.and_then(|i| list.get_mut(i)) {
        Some(slot) => *slot = fresh,
        None => list.push(fresh),
    }
}

/// Sets a condition of a Node as its kubelet reports it.
pub(crate) fn report(node: &mut Value, condition: &NodeCondition) {
    set_condition(node, condition.kind, condition.status, condition.reason, condition.message);
}

/// Changes a condition of a Node in the store; nothing happens when the Node is not there.
pub(crate) fn condition(api: &ApiServer, name: &str, kind: &str, status: &str, reason: &str, message: &str) {
    let _ = api
        .store()
        .modify(&Gvr::NODES, None, name, |node| set_condition(node, kind, status, reason, message));
}

fn deployment(name: &str, label: &str, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": "kube-system", "labels": {"k8s-app": label}},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"k8s-app": label}},
            "template": {
                "metadata": {"labels": {"k8s-app": label}},
                "spec": {"priorityClassName": "system-cluster-critical", "containers": [{"name": name, "image": image}]}
            }
        }
    })
}

/// Each of k3s's own components, by the name `disable` uses.
fn components(dns: &str) -> Vec<(&'static str, Vec<Value>)> {
    let service = |name: &str, selector: &str, ports: Value, cluster_ip: Option<&str>| {
        let mut spec = json!({"selector": {"k8s-app": selector}, "ports": ports});
        if let (Some(ip), Some(map)) = (cluster_ip, spec.as_object_mut()) {
            map.insert("clusterIP".into(), ip.into());
        }
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "kube-system"}, "spec": spec})
    };
    vec![
        (
            "coredns",
            vec![
                deployment("coredns", "kube-dns", "rancher/mirrored-coredns-coredns:1.12.3"),
                service(
                    "kube-dns",
                    "kube-dns",
                    json!([{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]),
                    Some(dns),
                ),
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "coredns", "namespace": "kube-system"}, "data": {"Corefile": ".:53 {\n    errors\n    health\n}\n"}}),
            ],
        ),
        (
            "local-storage",
            vec![
                deployment(
                    "local-path-provisioner",
                    "local-path-provisioner",
                    "rancher/local-path-provisioner:v0.0.31",
                ),
                json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "local-path", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}, "provisioner": "rancher.io/local-path", "volumeBindingMode": "WaitForFirstConsumer", "reclaimPolicy": "Delete"}),
            ],
        ),
        (
            "metrics-server",
            vec![
                deployment("metrics-server", "metrics-server", "rancher/mirrored-metrics-server:v0.8.0"),
                service("metrics-server", "metrics-server", json!([{"name": "https", "port": 443}]), None),
            ],
        ),
        (
            "traefik",
            vec![deployment("traefik", "traefik", "rancher/mirrored-library-traefik:3.3.6"), {
                let mut traefik = service(
                    "traefik",
                    "traefik",
                    json!([{"name": "web", "port": 80}, {"name": "websecure", "port": 443}]),
                    None,
                );
                if let Some(spec) = traefik.get_mut("spec").and_then(Value::as_object_mut) {
                    spec.insert("type".into(), "LoadBalancer".into());
                }
                traefik
            }],
        ),
    ]
}

/// Makes the components be as `disable` says: what is disabled later is deleted.
pub(crate) fn system(api: &ApiServer, disabled: &[String], dns: &str) {
    for (name, objects) in components(dns) {
        for object in objects {
            if !disabled.iter().any(|d| d == name) {
                if let Err(error) = api.store().apply("deploy@k3s", &object) {
                    tracing::debug!(component = name, %error, "a system object could not be made");
                }
                continue;
            }
            let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default();
            let gvr = match kind {
                "Deployment" => Gvr::DEPLOYMENTS,
                "Service" => Gvr::SERVICES,
                "ConfigMap" => Gvr::CONFIG_MAPS,
                _ => Gvr::fixed("storage.k8s.io", "v1", "storageclasses"),
            };
            let namespace = object.pointer("/metadata/namespace").and_then(Value::as_str);
            let object_name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
            let _ = api.store().delete(&gvr, namespace, object_name, &crate::DeleteOptions::default());
        }
    }
}
