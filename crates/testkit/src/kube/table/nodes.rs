//! `kubectl get nodes`.

use serde_json::{Value, json};

use super::{Layout, age, layout, name, or};
use crate::kube::value::{condition, items, pairs, text};

pub(super) fn nodes() -> Layout {
    layout(
        "Name, Status, Roles, Age, Version | Internal-IP, External-IP, OS-Image, Kernel-Version, Container-Runtime",
        |node| {
            let info = |key: &str| or(node, &["status", "nodeInfo", key], "<unknown>");
            vec![
                name(node),
                json!(status(node)),
                json!(roles(node)),
                age(node),
                or(node, &["status", "nodeInfo", "kubeletVersion"], ""),
                address(node, "InternalIP"),
                address(node, "ExternalIP"),
                info("osImage"),
                info("kernelVersion"),
                info("containerRuntimeVersion"),
            ]
        },
    )
}

fn status(node: &Value) -> String {
    let ready = match condition(node, "Ready") {
        "True" => "Ready",
        "" => "Unknown",
        _ => "NotReady",
    };
    let cordoned = node["spec"]["unschedulable"] == true;
    if cordoned { format!("{ready},SchedulingDisabled") } else { ready.to_owned() }
}

fn roles(node: &Value) -> String {
    let mut roles: Vec<&str> = pairs(node, &["metadata", "labels"])
        .filter_map(|(key, v)| {
            let by_label = key.strip_prefix("node-role.kubernetes.io/").filter(|r| !r.is_empty());
            by_label.or((key == "kubernetes.io/role" && !v.is_empty()).then_some(v))
        })
        .collect();
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() { "<none>".into() } else { roles.join(",") }
}

fn address(node: &Value, kind: &str) -> Value {
    let addresses = items(node, &["status", "addresses"]);
    let found = addresses.iter().find(|a| text(a, &["type"]) == kind).map(|a| text(a, &["address"]));
    json!(found.unwrap_or("<none>"))
}
