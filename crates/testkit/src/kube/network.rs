//! Addresses of Services, pods and node ports.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use ipnet::Ipv4Net;
use serde_json::{Value, json};

use super::{
    status::Cause,
    store::State,
    value::{at, items, items_mut, set, text},
};

/// The address ranges of a cluster.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Network {
    pub(crate) pods: Ipv4Net,
    pub(crate) services: Ipv4Net,
}

const NODE_PORTS: std::ops::RangeInclusive<i64> = 30000..=32767;

impl Network {
    /// The address of the `kubernetes` Service: the first of the range.
    pub(crate) fn kubernetes_service(&self) -> Ipv4Addr {
        nth(self.services, 1)
    }
}

/// The `n`th address of a range.
pub(crate) fn nth(net: Ipv4Net, n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(net.network()).saturating_add(n))
}

/// Gives a Service its cluster addresses and node ports; refuses ones that are outside the range or taken.
pub(crate) fn allocate_service(state: &State, service: &mut Value) -> Result<(), Cause> {
    let kind = text(service, &["spec", "type"]).to_owned();
    if kind == "ExternalName" {
        return Ok(());
    }
    let others = || state.of("/services").filter(|s| super::value::uid(s) != super::value::uid(service));
    let asked = text(service, &["spec", "clusterIP"]).to_owned();
    let taken: BTreeSet<String> = others().map(|s| text(s, &["spec", "clusterIP"]).to_owned()).collect();
    let net = state.network.services;
    let address = match asked.as_str() {
        "None" => "None".to_owned(),
        "" => {
            let hosts = 1u32 << (32 - u32::from(net.prefix_len())).min(20);
            // The lower band is left to addresses people choose, as the real allocator does.
            let band = (hosts / 16).clamp(16, 256).min(hosts / 2);
            let free = (band..hosts.saturating_sub(1)).chain(2..band).map(|n| nth(net, n).to_string());
            let reserved = state.network.kubernetes_service().to_string();
            free.into_iter().find(|ip| !taken.contains(ip) && *ip != reserved).ok_or_else(|| {
                let why = "failed to allocate a serviceIP: range is full";
                Cause::invalid("spec.clusterIPs", &json!(null), why)
            })?
        }
        ip => {
            let inside = matches!(ip.parse::<IpAddr>(), Ok(IpAddr::V4(v4)) if net.contains(&v4));
            if !inside {
                let why = format!(
                    "failed to allocate IP {ip}: the provided IP ({ip}) is not in the valid range. The range of valid IPs is {net}"
                );
                return Err(Cause::invalid("spec.clusterIPs", &json!([ip]), &why));
            }
            if taken.contains(ip) {
                let why = format!("failed to allocate IP {ip}: provided IP is already allocated");
                return Err(Cause::invalid("spec.clusterIPs", &json!([ip]), &why));
            }
            ip.to_owned()
        }
    };
    let used: BTreeSet<i64> = others()
        .flat_map(|s| items(s, &["spec", "ports"]).iter().filter_map(|p| p["nodePort"].as_i64()))
        .collect();
    set(service, &["spec", "clusterIP"], address.clone());
    set(service, &["spec", "clusterIPs"], json!([address]));
    if at(service, &["spec", "ipFamilies"]).is_null() {
        set(service, &["spec", "ipFamilies"], json!(["IPv4"]));
        set(service, &["spec", "ipFamilyPolicy"], "SingleStack");
    }
    let mut mine = BTreeSet::new();
    let wants = matches!(kind.as_str(), "NodePort" | "LoadBalancer")
        && at(service, &["spec", "allocateLoadBalancerNodePorts"]) != &json!(false);
    for port in items_mut(service, &["spec", "ports"]) {
        match port["nodePort"].as_i64().filter(|p| *p != 0) {
            Some(p) if !NODE_PORTS.contains(&p) => {
                let why = "provided port is not in the valid range. The range of valid ports is 30000-32767";
                return Err(Cause::invalid("spec.ports[0].nodePort", &json!(p), why));
            }
            Some(p) if used.contains(&p) => {
                return Err(Cause::invalid(
                    "spec.ports[0].nodePort",
                    &json!(p),
                    "provided port is already allocated",
                ));
            }
            Some(p) => {
                mine.insert(p);
            }
            None if wants => {
                let free = NODE_PORTS.clone().find(|p| !used.contains(p) && !mine.contains(p));
                if let Some(p) = free {
                    mine.insert(p);
                    set(port, &["nodePort"], p);
                }
            }
            None => {}
        }
    }
    Ok(())
}
