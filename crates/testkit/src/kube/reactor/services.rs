//! Services get their endpoints, and load balancers an address.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde_json::{Value, json};

use super::{Pass, controlled_by, pods};
use crate::kube::{
    registry::Gvr,
    selectors::LabelSelector,
    store::DeleteOptions,
    value::{annotation, condition, deleting, items, label, name, namespace, set, text},
};

const MANAGER: &str = "kube-controller-manager";
const ENDPOINTS: Gvr = Gvr::fixed("", "v1", "endpoints");
const SLICES: Gvr = Gvr::fixed("discovery.k8s.io", "v1", "endpointslices");

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";

pub(super) fn reconcile(pass: &mut Pass<'_>) {
    for endpoints in pass.all("", "endpoints") {
        let ours = label(&endpoints, MANAGED_BY).is_some();
        if ours && pass.objects.get("", "services", namespace(&endpoints), name(&endpoints)).is_none() {
            pass.delete(&ENDPOINTS, &endpoints, DeleteOptions::default());
        }
    }
    let all = pass.all("", "pods");
    for service in pass.all("", "services") {
        if deleting(&service) {
            continue;
        }
        let selector = LabelSelector::of_map(&service["spec"]["selector"]);
        if !selector.is_empty() {
            let backends: Vec<&Value> = all
                .iter()
                .map(|p| &**p)
                .filter(|p| namespace(p) == namespace(&service) && selector.matches(p) && pods::is_active(p))
                .filter(|p| !text(p, &["status", "podIP"]).is_empty())
                .collect();
            endpoints(pass, &service, &backends);
        }
        if service["spec"]["type"] == "LoadBalancer" {
            balance(pass, &service);
        }
    }
}

fn endpoints(pass: &Pass<'_>, service: &Value, backends: &[&Value]) {
    let ports = |target: bool| -> Vec<Value> {
        items(service, &["spec", "ports"])
            .iter()
            .map(|p| {
                let number = if p["targetPort"].is_i64() { &p["targetPort"] } else { &p["port"] };
                let name = text(p, &["name"]);
                if name.is_empty() && !target {
                    json!({"port": number, "protocol": p["protocol"]})
                } else {
                    json!({"name": name, "port": number, "protocol": p["protocol"]})
                }
            })
            .collect()
    };
    let reference = |p: &Value| json!({"kind": "Pod", "namespace": namespace(p), "name": name(p), "uid": crate::kube::value::uid(p)});
    let of = |ready: bool| -> Vec<Value> {
        let some = backends.iter().filter(|p| pods::is_ready(p) == ready);
        some.map(|p| json!({"ip": p["status"]["podIP"], "nodeName": p["spec"]["nodeName"], "targetRef": reference(p)})).collect()
    };
    let mut subset = json!({ "ports": ports(false) });
    for (key, list) in [("addresses", of(true)), ("notReadyAddresses", of(false))] {
        if !list.is_empty() {
            set(&mut subset, &[key], list);
        }
    }
    let subsets = if backends.is_empty() { json!([]) } else { json!([subset]) };
    let mut object = json!({"metadata": {"name": name(service), "labels": service["metadata"]["labels"]}, "subsets": subsets});
    set(&mut object, &["metadata", "labels", MANAGED_BY], "endpoint-controller");
    put(pass, &ENDPOINTS, service, name(service), object);

    let slice_name =
        format!("{}-{}", name(service), &crate::kube::value::uid(service).get(..5).unwrap_or("00000"));
    let list: Vec<Value> = backends
        .iter()
        .map(|p| {
            let ready = pods::is_ready(p);
            json!({
                "addresses": [p["status"]["podIP"]], "nodeName": p["spec"]["nodeName"], "targetRef": reference(p),
                "conditions": {"ready": ready, "serving": ready, "terminating": false},
            })
        })
        .collect();
    let object = json!({
        "metadata": {
            "name": slice_name, "ownerReferences": [controlled_by(service)],
            "labels": {"kubernetes.io/service-name": name(service), "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"},
        },
        "addressType": "IPv4", "endpoints": list, "ports": ports(true),
    });
    put(pass, &SLICES, service, &slice_name, object);
}

fn put(pass: &Pass<'_>, gvr: &Gvr, service: &Value, object_name: &str, object: Value) {
    match pass.objects.get(&gvr.group, &gvr.plural, namespace(service), object_name) {
        None => {
            if let Err(error) = pass.create(MANAGER, gvr, namespace(service), object) {
                tracing::debug!(%error, "endpoints were not created");
            }
        }
        Some(live) if !deleting(live) => pass.edit_spec(MANAGER, gvr, live, |o| {
            for key in ["subsets", "endpoints", "ports"] {
                if let Some(v) = object.get(key) {
                    set(o, &[key], v.clone());
                }
            }
        }),
        Some(_) => {}
    }
}

/// An address from a MetalLB pool where there is one; else the nodes' addresses where servicelb runs; else pending.
fn balance(pass: &Pass<'_>, service: &Value) {
    let given: Vec<&str> =
        items(service, &["status", "loadBalancer", "ingress"]).iter().map(|i| text(i, &["ip"])).collect();
    let pools: Vec<_> = pass.all("metallb.io", "ipaddresspools");
    let wanted: Vec<String> = if !pools.is_empty() {
        let ranges: Vec<(u32, u32)> = pools
            .iter()
            .flat_map(|p| items(p, &["spec", "addresses"]).iter().filter_map(range).collect::<Vec<_>>())
            .collect();
        let inside = |ip: &str| {
            ip.parse::<Ipv4Addr>()
                .is_ok_and(|ip| ranges.iter().any(|(a, b)| (*a..=*b).contains(&u32::from(ip))))
        };
        if given.iter().any(|ip| inside(ip)) {
            return;
        }
        let taken: Vec<String> = {
            let state = pass.store.lock();
            let used = state.of("/services").flat_map(|s| {
                items(s, &["status", "loadBalancer", "ingress"])
                    .iter()
                    .map(|i| text(i, &["ip"]).to_owned())
                    .collect::<Vec<_>>()
            });
            used.collect()
        };
        let asked = [
            annotation(service, "metallb.io/loadBalancerIPs"),
            annotation(service, "metallb.universe.tf/loadBalancerIPs"),
            service["spec"]["loadBalancerIP"].as_str(),
        ];
        let free = |ip: &String| !taken.contains(ip);
        match asked.into_iter().flatten().next() {
            Some(ip) => Some(ip.to_owned()).filter(|ip| inside(ip) && free(ip)).into_iter().collect(),
            None => ranges
                .iter()
                .flat_map(|(a, b)| *a..=*b)
                .map(|n| Ipv4Addr::from(n).to_string())
                .find(free)
                .into_iter()
                .collect(),
        }
    } else if pass.service_lb {
        let ready = pass.all("", "nodes").into_iter().filter(|n| condition(n, "Ready") == "True");
        ready
            .filter_map(|n| {
                let addresses = items(&n, &["status", "addresses"]);
                addresses
                    .iter()
                    .find(|a| text(a, &["type"]) == "InternalIP")
                    .map(|a| text(a, &["address"]).to_owned())
            })
            .collect()
    } else {
        Vec::new()
    };
    if wanted.iter().map(String::as_str).ne(given.iter().copied()) {
        let list: Vec<Value> = wanted.iter().map(|ip| json!({"ip": ip, "ipMode": "VIP"})).collect();
        pass.edit("service-controller", &Gvr::SERVICES, service, |s| {
            set(
                s,
                &["status", "loadBalancer"],
                if list.is_empty() { json!({}) } else { json!({ "ingress": list }) },
            );
        });
        let addresses = wanted.join(", ");
        if !wanted.is_empty() {
            pass.event(
                service,
                "service-controller",
                "Normal",
                "IPAllocated",
                &format!("Assigned IP [{addresses}]"),
            );
        }
    }
}

/// `a-b` or a CIDR.
fn range(text: &Value) -> Option<(u32, u32)> {
    let text = text.as_str()?;
    if let Some((a, b)) = text.split_once('-') {
        let parse = |s: &str| s.trim().parse::<Ipv4Addr>().ok().map(u32::from);
        return Some((parse(a)?, parse(b)?));
    }
    let net: Ipv4Net = text.parse().ok()?;
    Some((u32::from(net.network()), u32::from(net.broadcast())))
}
