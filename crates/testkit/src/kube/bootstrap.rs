//! What every cluster has from its first second.

use serde_json::{Value, json};

use super::{
    registry::Gvr,
    store::{Store, WriteOptions},
};

const ROLES: Gvr = Gvr::fixed("rbac.authorization.k8s.io", "v1", "clusterroles");
const BINDINGS: Gvr = Gvr::fixed("rbac.authorization.k8s.io", "v1", "clusterrolebindings");

/// Writes the system namespaces, the `kubernetes` Service, the bootstrap roles and the priority classes.
pub(crate) fn fill(store: &Store) {
    let make = |gvr: &Gvr, namespace: Option<&str>, object: Value| {
        let made = store.create_with(
            gvr,
            namespace,
            object,
            &WriteOptions::by("kube-apiserver").part(super::store::Part::All),
        );
        if let Err(error) = made {
            tracing::error!(%error, resource = %gvr, "a bootstrap object was refused");
        }
    };
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        make(&Gvr::NAMESPACES, None, json!({"metadata": {"name": name}}));
    }
    let address = store.lock().network.kubernetes_service().to_string();
    make(
        &Gvr::SERVICES,
        Some("default"),
        json!({
            "metadata": {"name": "kubernetes", "labels": {"component": "apiserver", "provider": "kubernetes"}},
            "spec": {"clusterIP": address, "ports": [{"name": "https", "port": 443, "targetPort": 6443, "protocol": "TCP"}]},
        }),
    );
    for (name, value, text) in [
        (
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
        (
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
    ] {
        let classes = Gvr::fixed("scheduling.k8s.io", "v1", "priorityclasses");
        make(&classes, None, json!({"metadata": {"name": name}, "value": value, "description": text}));
    }
    roles(&make);
}

fn roles(make: &impl Fn(&Gvr, Option<&str>, Value)) {
    let role = |name: &str, rules: Value| {
        let labels = json!({"kubernetes.io/bootstrapping": "rbac-defaults"});
        make(&ROLES, None, json!({"metadata": {"name": name, "labels": labels}, "rules": rules}));
    };
    let bind = |name: &str, groups: &[&str]| {
        let subjects: Vec<Value> = groups.iter().map(|g| json!({"kind": "Group", "name": g})).collect();
        let labels = json!({"kubernetes.io/bootstrapping": "rbac-defaults"});
        make(
            &BINDINGS,
            None,
            json!({
                "metadata": {"name": name, "labels": labels},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
                "subjects": subjects,
            }),
        );
    };
    let all = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}, {"nonResourceURLs": ["*"], "verbs": ["*"]}]);
    role("cluster-admin", all);
    bind("cluster-admin", &["system:masters"]);
    let groups = json!([
        "",
        "apps",
        "batch",
        "autoscaling",
        "networking.k8s.io",
        "policy",
        "discovery.k8s.io",
        "coordination.k8s.io",
        "events.k8s.io"
    ]);
    role(
        "admin",
        json!([
            {"apiGroups": groups, "resources": ["*"], "verbs": ["*"]},
            {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings"], "verbs": ["*"]},
        ]),
    );
    role("edit", json!([{"apiGroups": groups, "resources": ["*"], "verbs": ["*"]}]));
    let readable = json!([
        "configmaps",
        "endpoints",
        "events",
        "persistentvolumeclaims",
        "pods",
        "pods/log",
        "pods/status",
        "replicationcontrollers",
        "serviceaccounts",
        "services",
        "namespaces",
        "limitranges",
        "resourcequotas"
    ]);
    role(
        "view",
        json!([
            {"apiGroups": [""], "resources": readable, "verbs": ["get", "list", "watch"]},
            {"apiGroups": ["apps", "batch", "autoscaling", "networking.k8s.io", "policy", "discovery.k8s.io"], "resources": ["*"], "verbs": ["get", "list", "watch"]},
        ]),
    );
    let public = json!(["/healthz", "/livez", "/readyz", "/version", "/version/"]);
    role("system:public-info-viewer", json!([{"nonResourceURLs": public, "verbs": ["get"]}]));
    let discovery = json!([
        "/api",
        "/api/*",
        "/apis",
        "/apis/*",
        "/healthz",
        "/livez",
        "/openapi",
        "/openapi/*",
        "/readyz",
        "/version",
        "/version/"
    ]);
    role("system:discovery", json!([{"nonResourceURLs": discovery, "verbs": ["get"]}]));
    role(
        "system:basic-user",
        json!([
            {"apiGroups": ["authorization.k8s.io"], "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"], "verbs": ["create"]},
            {"apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"], "verbs": ["create"]},
        ]),
    );
    role(
        "system:node",
        json!([
            {"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]},
            {"apiGroups": [""], "resources": ["nodes", "nodes/status", "pods/status", "events", "pods", "pods/eviction"], "verbs": ["create", "update", "patch", "delete"]},
            {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["*"]},
            {"apiGroups": ["storage.k8s.io"], "resources": ["csinodes"], "verbs": ["*"]},
        ]),
    );
    bind("system:discovery", &["system:authenticated"]);
    bind("system:basic-user", &["system:authenticated"]);
    bind("system:public-info-viewer", &["system:authenticated", "system:unauthenticated"]);
    bind("system:node", &["system:nodes"]);
}
