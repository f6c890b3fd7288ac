//! Services, storage, configuration and the rest; name and age for what has no layout of its own.

use serde_json::{Value, json};

use super::{Layout, age, layout, name, or, since};
use crate::kube::{
    registry::ResourceType,
    selectors::LabelSelector,
    value::{annotation, at, deleting, items, text},
};

pub(super) fn layout_of(t: &ResourceType) -> Layout {
    match (t.group.as_str(), t.plural.as_str()) {
        ("", "services") => layout("Name, Type, Cluster-IP, External-IP, Port(s), Age | Selector", |o| {
            let selector = LabelSelector::of_map(&o["spec"]["selector"]).to_text();
            vec![
                name(o),
                or(o, &["spec", "type"], ""),
                or(o, &["spec", "clusterIP"], "<none>"),
                json!(external_address(o)),
                json!(ports(o)),
                age(o),
                json!(if selector.is_empty() { "<none>" } else { &selector }),
            ]
        }),
        ("", "namespaces") => {
            layout("Name, Status, Age", |o| vec![name(o), or(o, &["status", "phase"], ""), age(o)])
        }
        ("", "secrets") => layout("Name, Type, #Data, Age", |o| {
            vec![name(o), or(o, &["type"], ""), json!(size(o, &["data"])), age(o)]
        }),
        ("", "configmaps") => layout("Name, #Data, Age", |o| {
            vec![name(o), json!(size(o, &["data"]) + size(o, &["binaryData"])), age(o)]
        }),
        ("", "serviceaccounts") => {
            layout("Name, #Secrets, Age", |o| vec![name(o), json!(items(o, &["secrets"]).len()), age(o)])
        }
        ("", "endpoints") => layout("Name, Endpoints, Age", |o| {
            let all = items(o, &["subsets"]).iter().flat_map(|s| {
                let port = items(s, &["ports"]).first().and_then(|p| p["port"].as_i64()).unwrap_or(0);
                items(s, &["addresses"]).iter().map(move |a| format!("{}:{port}", text(a, &["ip"])))
            });
            let list = all.collect::<Vec<_>>().join(",");
            vec![name(o), json!(if list.is_empty() { "<none>" } else { &list }), age(o)]
        }),
        ("", "events") | ("events.k8s.io", _) => events(),
        ("", "persistentvolumeclaims") => claims(),
        ("", "persistentvolumes") => volumes(),
        ("coordination.k8s.io", "leases") => {
            layout("Name, Holder, Age", |o| vec![name(o), or(o, &["spec", "holderIdentity"], ""), age(o)])
        }
        ("storage.k8s.io", "storageclasses") => {
            layout("Name, Provisioner, ReclaimPolicy, VolumeBindingMode, AllowVolumeExpansion, Age", |o| {
                let default = annotation(o, "storageclass.kubernetes.io/is-default-class") == Some("true");
                let own = text(o, &["metadata", "name"]);
                vec![
                    json!(if default { format!("{own} (default)") } else { own.to_owned() }),
                    or(o, &["provisioner"], ""),
                    or(o, &["reclaimPolicy"], ""),
                    or(o, &["volumeBindingMode"], ""),
                    json!(o["allowVolumeExpansion"] == true),
                    age(o),
                ]
            })
        }
        ("networking.k8s.io", "ingresses") => layout("Name, Class, Hosts, Address, Ports, Age", |o| {
            let mut hosts: Vec<&str> =
                items(o, &["spec", "rules"]).iter().map(|r| text(r, &["host"])).collect();
            hosts.retain(|h| !h.is_empty());
            let tls = !items(o, &["spec", "tls"]).is_empty();
            vec![
                name(o),
                or(o, &["spec", "ingressClassName"], "<none>"),
                json!(if hosts.is_empty() { "*".to_owned() } else { hosts.join(",") }),
                json!(balancer(o)),
                json!(if tls { "80, 443" } else { "80" }),
                age(o),
            ]
        }),
        ("networking.k8s.io", "ingressclasses") => layout("Name, Controller, Parameters, Age", |o| {
            vec![name(o), or(o, &["spec", "controller"], ""), json!("<none>"), age(o)]
        }),
        ("networking.k8s.io", "networkpolicies") => layout("Name, Pod-Selector, Age", |o| {
            let selector = LabelSelector::of_object(&o["spec"]["podSelector"]).to_text();
            vec![name(o), json!(if selector.is_empty() { "<none>" } else { &selector }), age(o)]
        }),
        ("rbac.authorization.k8s.io", "roles" | "clusterroles") | ("apiextensions.k8s.io", _) => {
            layout("Name, Created At", |o| vec![name(o), or(o, &["metadata", "creationTimestamp"], "")])
        }
        ("rbac.authorization.k8s.io", _) => layout("Name, Role, Age", |o| {
            let role = &o["roleRef"];
            vec![name(o), json!(format!("{}/{}", text(role, &["kind"]), text(role, &["name"]))), age(o)]
        }),
        ("scheduling.k8s.io", _) => layout("Name, #Value, Global-Default, Age, PreemptionPolicy", |o| {
            vec![
                name(o),
                o["value"].clone(),
                json!(o["globalDefault"] == true),
                age(o),
                or(o, &["preemptionPolicy"], ""),
            ]
        }),
        _ => layout("Name, Age", |o| vec![name(o), age(o)]),
    }
}

fn size(o: &Value, path: &[&str]) -> usize {
    at(o, path).as_object().map_or(0, serde_json::Map::len)
}

fn balancer(o: &Value) -> String {
    let all = items(o, &["status", "loadBalancer", "ingress"]).iter().map(|i| {
        let ip = text(i, &["ip"]);
        if ip.is_empty() { text(i, &["hostname"]) } else { ip }
    });
    all.collect::<Vec<_>>().join(",")
}

fn external_address(o: &Value) -> String {
    let given =
        items(o, &["spec", "externalIPs"]).iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",");
    let or_none = |s: String| if s.is_empty() { "<none>".to_owned() } else { s };
    match text(o, &["spec", "type"]) {
        "ExternalName" => text(o, &["spec", "externalName"]).to_owned(),
        "LoadBalancer" => {
            let found = balancer(o);
            if found.is_empty() && given.is_empty() {
                "<pending>".into()
            } else {
                [found, given].into_iter().filter(|s| !s.is_empty()).collect::<Vec<_>>().join(",")
            }
        }
        _ => or_none(given),
    }
}

fn ports(o: &Value) -> String {
    let all = items(o, &["spec", "ports"]).iter().map(|p| {
        let protocol = text(p, &["protocol"]);
        match p["nodePort"].as_i64() {
            Some(node) if node > 0 => format!("{}:{node}/{protocol}", p["port"]),
            _ => format!("{}/{protocol}", p["port"]),
        }
    });
    let list = all.collect::<Vec<_>>().join(",");
    if list.is_empty() { "<none>".into() } else { list }
}

fn events() -> Layout {
    layout("Last Seen, Type, Reason, Object, Message | Subobject, Source, First Seen, Count, Name", |o| {
        // Both event APIs come through here.
        let either = |a: &str, b: &str| {
            let first = text(o, &[a]);
            if first.is_empty() { text(o, &[b]) } else { first }.to_owned()
        };
        let about = if o["regarding"].is_object() { &o["regarding"] } else { &o["involvedObject"] };
        let last = either("lastTimestamp", "deprecatedLastTimestamp");
        let first = either("firstTimestamp", "deprecatedFirstTimestamp");
        let created = text(o, &["metadata", "creationTimestamp"]);
        let or_created = |t: &str| since(if t.is_empty() { created } else { t });
        let count = o["count"].as_i64().or_else(|| o["deprecatedCount"].as_i64()).unwrap_or(1);
        vec![
            or_created(&last),
            or(o, &["type"], ""),
            or(o, &["reason"], ""),
            json!(format!("{}/{}", text(about, &["kind"]).to_lowercase(), text(about, &["name"]))),
            json!(either("message", "note").trim()),
            or(about, &["fieldPath"], ""),
            or(o, &["source", "component"], ""),
            or_created(&first),
            json!(count.to_string()),
            name(o),
        ]
    })
}

fn modes(list: &[Value]) -> String {
    let short = list.iter().filter_map(Value::as_str).map(|m| match m {
        "ReadWriteOnce" => "RWO",
        "ReadOnlyMany" => "ROX",
        "ReadWriteMany" => "RWX",
        "ReadWriteOncePod" => "RWOP",
        other => other,
    });
    short.collect::<Vec<_>>().join(",")
}

fn claims() -> Layout {
    layout(
        "Name, Status, Volume, Capacity, Access Modes, StorageClass, VolumeAttributesClass, Age | VolumeMode",
        |o| {
            let phase = if deleting(o) { "Terminating" } else { text(o, &["status", "phase"]) };
            let bound = !text(o, &["spec", "volumeName"]).is_empty();
            vec![
                name(o),
                json!(phase),
                or(o, &["spec", "volumeName"], ""),
                if bound { or(o, &["status", "capacity", "storage"], "") } else { json!("") },
                json!(if bound { modes(items(o, &["status", "accessModes"])) } else { String::new() }),
                or(o, &["spec", "storageClassName"], ""),
                json!("<unset>"),
                age(o),
                or(o, &["spec", "volumeMode"], "<unset>"),
            ]
        },
    )
}

fn volumes() -> Layout {
    layout(
        "Name, Capacity, Access Modes, Reclaim Policy, Status, Claim, StorageClass, VolumeAttributesClass, Reason, Age | VolumeMode",
        |o| {
            let claim = &o["spec"]["claimRef"];
            let claim = if claim.is_object() {
                format!("{}/{}", text(claim, &["namespace"]), text(claim, &["name"]))
            } else {
                String::new()
            };
            vec![
                name(o),
                or(o, &["spec", "capacity", "storage"], ""),
                json!(modes(items(o, &["spec", "accessModes"]))),
                or(o, &["spec", "persistentVolumeReclaimPolicy"], ""),
                json!(if deleting(o) { "Terminating" } else { text(o, &["status", "phase"]) }),
                json!(claim),
                or(o, &["spec", "storageClassName"], ""),
                json!("<unset>"),
                or(o, &["status", "reason"], ""),
                age(o),
                or(o, &["spec", "volumeMode"], "<unset>"),
            ]
        },
    )
}
