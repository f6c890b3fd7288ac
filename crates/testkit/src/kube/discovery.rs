//! What the server serves, in the old and the aggregated form.

use serde_json::{Value, json};

use super::registry::{Registry, ResourceType, api_version, split_api_version};

/// `/version`.
pub(crate) fn version(git: &str) -> Value {
    let mut parts = git.trim_start_matches('v').split('.');
    json!({
        "major": parts.next().unwrap_or_default(),
        "minor": parts.next().unwrap_or_default(),
        "gitVersion": git,
        "gitCommit": "0000000000000000000000000000000000000000",
        "gitTreeState": "clean",
        "buildDate": "2026-01-01T00:00:00Z",
        "goVersion": "go1.24.0",
        "compiler": "gc",
        "platform": "linux/arm64",
    })
}

/// `/`.
pub(crate) fn paths(registry: &Registry) -> Vec<String> {
    let mut paths: Vec<String> = [
        "/api",
        "/api/v1",
        "/apis",
        "/healthz",
        "/livez",
        "/openapi/v2",
        "/openapi/v3",
        "/readyz",
        "/version",
    ]
    .map(str::to_owned)
    .into();
    for (group, versions) in registry.groups().iter().filter(|(g, _)| !g.is_empty()) {
        paths.push(format!("/apis/{group}"));
        paths.extend(versions.iter().map(|v| format!("/apis/{group}/{v}")));
    }
    paths.sort();
    paths
}

/// `/api`.
pub(crate) fn legacy_versions() -> Value {
    json!({
        "kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": "127.0.0.1:6443"}],
    })
}

/// `/apis`.
pub(crate) fn groups(registry: &Registry) -> Value {
    let groups: Vec<Value> =
        registry.groups().iter().filter(|(g, _)| !g.is_empty()).map(|(g, v)| group_value(g, v)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/GROUP`.
pub(crate) fn group(registry: &Registry, group: &str) -> Option<Value> {
    let (name, versions) = registry.groups().iter().find(|(g, _)| g == group && !g.is_empty())?;
    let mut out = json!({"kind": "APIGroup", "apiVersion": "v1"});
    if let (Some(out), Value::Object(rest)) = (out.as_object_mut(), group_value(name, versions)) {
        out.extend(rest);
    }
    Some(out)
}

fn group_value(group: &str, versions: &[String]) -> Value {
    let one = |v: &String| json!({"groupVersion": format!("{group}/{v}"), "version": v});
    json!({
        "name": group,
        "versions": versions.iter().map(one).collect::<Vec<_>>(),
        "preferredVersion": versions.first().map(one),
    })
}

/// `/api/v1` and `/apis/GROUP/VERSION`.
pub(crate) fn resources(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let mut list = Vec::new();
    for t in registry.of_version(group, version) {
        let mut entry = json!({
            "name": t.plural, "singularName": t.singular, "namespaced": t.namespaced, "kind": t.kind,
            "verbs": t.verbs(),
        });
        if let Some(map) = entry.as_object_mut() {
            if !t.short_names.is_empty() {
                map.insert("shortNames".into(), json!(t.short_names));
            }
            if !t.categories.is_empty() {
                map.insert("categories".into(), json!(t.categories));
            }
        }
        list.push(entry);
        for sub in &t.subresources {
            let (kind, of, verbs) = subresource(t, sub);
            let (g, v) = split_api_version(&of);
            let mut entry = json!({
                "name": format!("{}/{sub}", t.plural), "singularName": "", "namespaced": t.namespaced, "kind": kind,
                "verbs": verbs,
            });
            if of != t.api_version()
                && let Some(map) = entry.as_object_mut()
            {
                map.insert("group".into(), g.into());
                map.insert("version".into(), v.into());
            }
            list.push(entry);
        }
    }
    let list_kind = json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version(group, version), "resources": list,
    });
    (!list.is_empty()).then_some(list_kind)
}

/// A subresource's kind, the version that kind belongs to, and its verbs.
fn subresource(t: &ResourceType, name: &str) -> (String, String, &'static [&'static str]) {
    match name {
        "scale" => ("Scale".into(), "autoscaling/v1".into(), &["get", "patch", "update"]),
        "eviction" => ("Eviction".into(), "policy/v1".into(), &["create"]),
        "token" => ("TokenRequest".into(), "authentication.k8s.io/v1".into(), &["create"]),
        "binding" => ("Binding".into(), "v1".into(), &["create"]),
        "log" => (t.kind.clone(), t.api_version(), &["get"]),
        "exec" => ("PodExecOptions".into(), "v1".into(), &["create", "get"]),
        "attach" => ("PodAttachOptions".into(), "v1".into(), &["create", "get"]),
        "portforward" => ("PodPortForwardOptions".into(), "v1".into(), &["create", "get"]),
        "proxy" => {
            (format!("{}ProxyOptions", t.kind), "v1".into(), &["create", "delete", "get", "patch", "update"])
        }
        "finalize" => (t.kind.clone(), t.api_version(), &["update"]),
        _ => (t.kind.clone(), t.api_version(), &["get", "patch", "update"]),
    }
}

/// Aggregated discovery v2: of the core group, or of all others.
pub(crate) fn aggregated(registry: &Registry, core: bool) -> Value {
    let groups = registry.groups().iter().filter(|(g, _)| g.is_empty() == core);
    let items: Vec<Value> = groups
        .map(|(group, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|version| {
                    let resources: Vec<Value> =
                        registry.of_version(group, version).map(|t| aggregated_resource(t)).collect();
                    json!({"version": version, "resources": resources, "freshness": "Current"})
                })
                .collect();
            let metadata = if group.is_empty() {
                json!({"creationTimestamp": null})
            } else {
                json!({"name": group, "creationTimestamp": null})
            };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn aggregated_resource(t: &ResourceType) -> Value {
    let subs: Vec<Value> = t
        .subresources
        .iter()
        .map(|sub| {
            let (kind, of, verbs) = subresource(t, sub);
            let (group, version) = split_api_version(&of);
            json!({"subresource": sub, "responseKind": {"group": group, "version": version, "kind": kind}, "verbs": verbs})
        })
        .collect();
    let mut out = json!({
        "resource": t.plural,
        "responseKind": {"group": t.group, "version": t.version, "kind": t.kind},
        "scope": if t.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": t.singular,
        "verbs": t.verbs(),
    });
    if let Some(map) = out.as_object_mut() {
        for (key, list) in [("shortNames", &t.short_names), ("categories", &t.categories)] {
            if !list.is_empty() {
                map.insert(key.into(), json!(list));
            }
        }
        if !subs.is_empty() {
            map.insert("subresources".into(), subs.into());
        }
    }
    out
}
