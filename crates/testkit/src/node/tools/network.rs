//! The network: iproute2 and its neighbours.

use std::net::IpAddr;

use super::{Call, Table, Tool};
use crate::node::net::{Address, Interface, Net, Route};

pub(super) const TABLE: Table = &[
    ("ip", Tool::Now(ip)),
    ("ss", Tool::Now(ss)),
    ("netstat", Tool::Now(ss)),
    ("netplan", Tool::Now(netplan)),
    ("networkctl", Tool::Now(netplan)),
    ("nmcli", Tool::Now(netplan)),
    ("ethtool", Tool::Now(|_| 0)),
    ("ping", Tool::Now(ping)),
    ("resolvectl", Tool::Now(|_| 0)),
];

fn ip(call: &mut Call) -> i32 {
    let mut json = false;
    let mut family = "";
    let mut brief = false;
    let mut one = false;
    let mut words: Vec<String> = Vec::new();
    for arg in call.args.clone() {
        match arg.as_str() {
            "-j" | "-json" | "--json" => json = true,
            "-4" => family = "4",
            "-6" => family = "6",
            "-o" | "-oneline" => one = true,
            "-br" | "-brief" => brief = true,
            "-d" | "-details" | "-p" | "-pretty" | "-s" | "-all" | "-n" => {}
            _ => words.push(arg),
        }
    }
    let mut rest = words.iter().map(String::as_str);
    let object = rest.next().unwrap_or("help");
    let args: Vec<&str> = rest.collect();
    let verb = args.first().copied().unwrap_or("show");
    let tail = args.get(1..).unwrap_or_default();
    let changes = matches!(verb, "add" | "del" | "delete" | "replace" | "set" | "flush" | "change");
    if changes && !call.session.root() {
        call.warn("RTNETLINK answers: Operation not permitted\n");
        return 2;
    }
    match object {
        "a" | "addr" | "address" if changes => address_change(call, verb, tail),
        "l" | "link" if changes => link_change(call, verb, tail),
        "r" | "ro" | "route" if changes => route_change(call, verb, tail),
        "a" | "addr" | "address" => show_addresses(
            call,
            if matches!(verb, "show" | "list" | "ls") { tail } else { &args },
            json,
            family,
            brief,
            one,
        ),
        "l" | "link" => show_links(
            call,
            if matches!(verb, "show" | "list" | "ls") { tail } else { &args },
            json,
            brief || one,
        ),
        "r" | "ro" | "route" if verb == "get" => route_get(call, tail, json),
        "r" | "ro" | "route" => {
            show_routes(call, if matches!(verb, "show" | "list" | "ls") { tail } else { &args }, json, family)
        }
        "netns" | "neigh" | "rule" => 0,
        other => {
            let text = format!("Object \"{other}\" is unknown, try \"ip help\".\n");
            call.warn(text);
            255
        }
    }
}

fn net(call: &Call) -> Net {
    call.running(|r| r.net.clone()).unwrap_or_default()
}

/// The interface a selector names: `dev eth0`, `eth0`, `type vxlan`, `up`, `scope global`.
fn select<'a>(net: &'a Net, words: &[&str]) -> Result<Vec<&'a Interface>, String> {
    let mut chosen: Vec<&Interface> = net.interfaces.iter().collect();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "dev" => {}
            "up" => chosen.retain(|i| i.up),
            "type" => {
                let kind = words.next().copied().unwrap_or_default();
                chosen.retain(|i| i.kind == kind);
            }
            "scope" => {
                if words.next() == Some(&"global") {
                    chosen.retain(|i| i.kind != "loopback");
                }
            }
            "master" | "label" | "to" => {
                words.next();
            }
            "primary" | "permanent" | "dynamic" => {}
            name => {
                chosen.retain(|i| i.name == name);
                if chosen.is_empty() {
                    return Err(format!("Device \"{name}\" does not exist.\n"));
                }
            }
        }
    }
    Ok(chosen)
}

fn index(net: &Net, interface: &Interface) -> usize {
    net.interfaces.iter().position(|i| i.name == interface.name).map_or(1, |at| at + 1)
}

fn family_of(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "inet" } else { "inet6" }
}

fn show_addresses(call: &mut Call, words: &[&str], json: bool, family: &str, brief: bool, one: bool) -> i32 {
    let net = net(call);
    let chosen = match select(&net, words) {
        Ok(chosen) => chosen,
        Err(text) => {
            call.warn(text);
            return 1;
        }
    };
    let wanted = |a: &&Address| family.is_empty() || (family == "4") == a.ip.is_ipv4();
    let scope = |i: &Interface| if i.kind == "loopback" { "host" } else { "global" };
    let flags = |i: &Interface| {
        if i.kind == "loopback" {
            "LOOPBACK,UP,LOWER_UP"
        } else if i.up {
            "BROADCAST,MULTICAST,UP,LOWER_UP"
        } else {
            "BROADCAST,MULTICAST"
        }
    };
    let state = |i: &Interface| {
        if i.kind == "loopback" {
            "UNKNOWN"
        } else if i.up {
            "UP"
        } else {
            "DOWN"
        }
    };
    if json {
        let list: Vec<serde_json::Value> = chosen
            .iter()
            .filter(|i| family.is_empty() || i.addresses.iter().any(|a| wanted(&a)))
            .map(|i| {
                let info: Vec<serde_json::Value> = i.addresses.iter().filter(wanted).map(|a| serde_json::json!({"family": family_of(a.ip), "local": a.ip.to_string(), "prefixlen": a.prefix, "scope": scope(i), "dynamic": a.dynamic, "label": i.name})).collect();
                serde_json::json!({"ifindex": index(&net, i), "ifname": i.name, "flags": flags(i).split(',').collect::<Vec<_>>(), "mtu": i.mtu, "operstate": state(i), "link_type": if i.kind == "loopback" { "loopback" } else { "ether" }, "address": i.mac, "addr_info": info})
            })
            .collect();
        call.line(serde_json::Value::Array(list).to_string());
        return 0;
    }
    for i in chosen {
        let addresses: Vec<&Address> = i.addresses.iter().filter(wanted).collect();
        if addresses.is_empty() && !family.is_empty() {
            continue;
        }
        if brief {
            let list: Vec<String> = addresses.iter().map(|a| format!("{}/{}", a.ip, a.prefix)).collect();
            call.line(format!("{:<16} {:<14} {}", i.name, state(i), list.join(" ")));
            continue;
        }
        let n = index(&net, i);
        if !one {
            call.line(format!(
                "{n}: {}: <{}> mtu {} qdisc mq state {} group default qlen 1000",
                i.name,
                flags(i),
                i.mtu,
                state(i)
            ));
            if family.is_empty() {
                call.line(format!(
                    "    link/{} {} brd ff:ff:ff:ff:ff:ff",
                    if i.kind == "loopback" { "loopback" } else { "ether" },
                    i.mac
                ));
            }
        }
        for a in addresses {
            let dynamic = if a.dynamic { " dynamic" } else { "" };
            let text =
                format!("{} {}/{} scope {}{dynamic} {}", family_of(a.ip), a.ip, a.prefix, scope(i), i.name);
            call.line(if one {
                format!("{n}: {}    {text}\\       valid_lft forever preferred_lft forever", i.name)
            } else {
                format!("    {text}\n       valid_lft forever preferred_lft forever")
            });
        }
    }
    0
}

fn show_links(call: &mut Call, words: &[&str], json: bool, short: bool) -> i32 {
    let net = net(call);
    let chosen = match select(&net, words) {
        Ok(chosen) => chosen,
        Err(text) => {
            call.warn(text);
            return 1;
        }
    };
    let state = |i: &Interface| {
        if i.kind == "loopback" {
            "UNKNOWN"
        } else if i.up {
            "UP"
        } else {
            "DOWN"
        }
    };
    if json {
        let list: Vec<serde_json::Value> = chosen.iter().map(|i| serde_json::json!({"ifindex": index(&net, i), "ifname": i.name, "mtu": i.mtu, "operstate": state(i), "link_type": if i.kind == "loopback" { "loopback" } else { "ether" }, "address": i.mac})).collect();
        call.line(serde_json::Value::Array(list).to_string());
        return 0;
    }
    for i in chosen {
        let link = if i.kind == "loopback" { "loopback" } else { "ether" };
        call.line(if short { format!("{:<16} {:<14} {} <UP>", i.name, state(i), i.mac) } else { format!("{}: {}: <UP> mtu {} qdisc mq state {} mode DEFAULT group default qlen 1000\n    link/{link} {} brd ff:ff:ff:ff:ff:ff", index(&net, i), i.name, i.mtu, state(i), i.mac) });
    }
    0
}

fn route_text(route: &Route) -> String {
    let mut text = route.to.clone().unwrap_or_else(|| "default".into());
    if let Some(via) = route.via {
        text.push_str(&format!(" via {via}"));
    }
    text.push_str(&format!(" dev {} proto {}", route.dev, route.proto));
    if route.via.is_none() && route.to.is_some() {
        text.push_str(" scope link");
    }
    if let Some(src) = route.src {
        text.push_str(&format!(" src {src}"));
    }
    text
}

fn route_json(route: &Route) -> serde_json::Value {
    let mut value = serde_json::json!({"dst": route.to.clone().unwrap_or_else(|| "default".into()), "dev": route.dev, "protocol": route.proto, "flags": []});
    if let Some(map) = value.as_object_mut() {
        if let Some(via) = route.via {
            map.insert("gateway".into(), via.to_string().into());
        }
        if let Some(src) = route.src {
            map.insert("prefsrc".into(), src.to_string().into());
        }
    }
    value
}

fn show_routes(call: &mut Call, words: &[&str], json: bool, family: &str) -> i32 {
    if family == "6" {
        if json {
            call.line("[]");
        }
        return 0;
    }
    let net = net(call);
    let mut chosen: Vec<&Route> = net.routes.iter().collect();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "default" => chosen.retain(|r| r.to.is_none()),
            "dev" => {
                let name = words.next().copied().unwrap_or_default();
                chosen.retain(|r| r.dev == name);
            }
            "exact" | "root" | "match" | "table" | "proto" | "scope" | "type" => {
                words.next();
            }
            to => chosen.retain(|r| r.to.as_deref() == Some(to)),
        }
    }
    if json {
        call.line(serde_json::Value::Array(chosen.into_iter().map(route_json).collect()).to_string());
    } else {
        chosen.into_iter().for_each(|route| call.line(route_text(route)));
    }
    0
}

fn route_get(call: &mut Call, words: &[&str], json: bool) -> i32 {
    let net = net(call);
    let Some(to) = words.first() else { return 1 };
    let Some(route) = net.default_route() else {
        call.warn("RTNETLINK answers: Network is unreachable\n");
        return 2;
    };
    let src = net.address().map_or_else(String::new, |a| a.to_string());
    if json {
        call.line(serde_json::json!([{"dst": to, "gateway": route.via.map(|v| v.to_string()), "dev": route.dev, "prefsrc": src}]).to_string());
    } else {
        call.line(format!(
            "{to} via {} dev {} src {src} uid 0\n    cache",
            route.via.map_or_else(String::new, |v| v.to_string()),
            route.dev
        ));
    }
    0
}

fn address_change(call: &mut Call, verb: &str, words: &[&str]) -> i32 {
    let dev = words.windows(2).find(|w| w[0] == "dev").map(|w| w[1].to_owned()).unwrap_or_default();
    let cidr = words.iter().find(|w| w.contains('.') || w.contains(':')).copied().unwrap_or_default();
    let (ip, prefix) = cidr.split_once('/').unwrap_or((cidr, "32"));
    let parsed: Option<(IpAddr, u8)> = ip.parse().ok().zip(prefix.parse().ok());
    let done = call.running(|r| {
        let interface = r.net.interfaces.iter_mut().find(|i| i.name == dev)?;
        match (verb, parsed) {
            ("flush", _) => interface.addresses.clear(),
            ("del" | "delete", Some((ip, _))) => interface.addresses.retain(|a| a.ip != ip),
            (_, Some((ip, prefix))) => {
                if interface.addresses.iter().any(|a| a.ip == ip) && verb == "add" {
                    return Some(Err("RTNETLINK answers: File exists\n"));
                }
                interface.addresses.push(Address { ip, prefix, dynamic: false });
            }
            _ => return Some(Err("Error: any valid prefix is expected rather than nothing.\n")),
        }
        Some(Ok(()))
    });
    match done.flatten() {
        Some(Ok(())) => 0,
        Some(Err(text)) => {
            call.warn(text);
            2
        }
        None => {
            call.warn(format!("Cannot find device \"{dev}\"\n"));
            1
        }
    }
}

fn link_change(call: &mut Call, verb: &str, words: &[&str]) -> i32 {
    let names: Vec<&str> = words.iter().copied().filter(|w| !matches!(*w, "dev" | "name" | "link")).collect();
    let Some(name) = names.first().map(|n| (*n).to_owned()) else { return 1 };
    let kind = words.windows(2).find(|w| w[0] == "type").map(|w| w[1]);
    let ok = call
        .running(|r| match verb {
            "del" | "delete" => r.net.remove(&name),
            "add" => {
                let kind = match kind {
                    Some("dummy") => "dummy",
                    Some("vxlan") => "vxlan",
                    _ => "bridge",
                };
                r.net.add(&name, kind, 1500, None);
                true
            }
            _ => r
                .net
                .interfaces
                .iter_mut()
                .find(|i| i.name == name)
                .map(|i| i.up = !words.contains(&"down"))
                .is_some(),
        })
        .unwrap_or(false);
    if !ok {
        call.warn(format!("Cannot find device \"{name}\"\n"));
    }
    i32::from(!ok)
}

fn route_change(call: &mut Call, verb: &str, words: &[&str]) -> i32 {
    let after = |key: &str| words.windows(2).find(|w| w[0] == key).map(|w| w[1].to_owned());
    let to = words.first().filter(|w| **w != "default").map(|w| (*w).to_owned());
    let via = after("via").and_then(|v| v.parse().ok());
    let dev = after("dev");
    let done = call.running(|r| {
        let dev = dev
            .or_else(|| r.net.interfaces.iter().find(|i| i.kind == "ether").map(|i| i.name.clone()))
            .unwrap_or_default();
        let exists = r.net.routes.iter().any(|route| route.to == to);
        match verb {
            "del" | "delete" if !exists => return Err("RTNETLINK answers: No such process\n"),
            "add" if exists => return Err("RTNETLINK answers: File exists\n"),
            _ => {}
        }
        if !r.net.interfaces.iter().any(|i| i.name == dev) {
            return Err("Cannot find device\n");
        }
        r.net.routes.retain(|route| route.to != to);
        if !matches!(verb, "del" | "delete" | "flush") {
            r.net.routes.insert(0, Route { to: to.clone(), via, dev, src: None, proto: "static" });
        }
        Ok(())
    });
    match done {
        Some(Err(text)) => {
            call.warn(text);
            2
        }
        _ => 0,
    }
}

fn netplan(call: &mut Call) -> i32 {
    let operands = call.operands();
    let applies = matches!(
        operands.first().map(String::as_str),
        Some("apply" | "reload" | "reconfigure" | "connection" | "con")
    );
    if applies {
        if let Some(code) = call.need_root("netplan: Permission denied") {
            return code;
        }
        let plan = call.session.node.plan.clone();
        call.os(|os| {
            let fresh = Net::at_boot(os, &plan);
            if let Some(running) = &mut os.running {
                let made: Vec<Interface> = running
                    .net
                    .interfaces
                    .iter()
                    .filter(|i| !matches!(i.kind, "ether" | "loopback"))
                    .cloned()
                    .collect();
                running.net = fresh;
                running.net.interfaces.extend(made);
            }
        });
    }
    0
}

fn ss(call: &mut Call) -> i32 {
    call.line("State  Recv-Q Send-Q Local Address:Port Peer Address:Port Process");
    let ports = call.node().listening();
    for (port, name) in ports {
        call.line(format!(
            "LISTEN 0      4096   0.0.0.0:{port}      0.0.0.0:*    users:((\"{name}\",pid=1000,fd=3))"
        ));
    }
    0
}

fn ping(call: &mut Call) -> i32 {
    let Some(name) = call.operands().last().cloned() else { return 2 };
    let world = call.node().world();
    let target: Option<IpAddr> = name.parse().ok();
    let here = target
        .is_some_and(|ip| ip.is_loopback() || world.as_ref().is_some_and(|w| w.at_address(ip).is_some()));
    let received = i32::from(here);
    call.line(format!(
        "1 packets transmitted, {received} received, {}% packet loss",
        if here { 0 } else { 100 }
    ));
    i32::from(!here)
}
