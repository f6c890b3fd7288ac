//! A node's network: interfaces, addresses, routes, and where they come from at boot.

use std::net::{IpAddr, Ipv4Addr};

use sha2::{Digest as _, Sha256};

use super::{os::Os, vfs::Vfs};
use crate::NodePlan;

/// An address on an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) ip: IpAddr,
    pub(crate) prefix: u8,
    pub(crate) dynamic: bool,
}

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) mac: String,
    pub(crate) up: bool,
    pub(crate) mtu: u32,
    /// `loopback`, `ether`, and for `ip link` details `bridge`, `vxlan`, `dummy`.
    pub(crate) kind: &'static str,
    pub(crate) addresses: Vec<Address>,
}

/// A route; no destination is the default route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) to: Option<String>,
    pub(crate) via: Option<IpAddr>,
    pub(crate) dev: String,
    pub(crate) src: Option<IpAddr>,
    pub(crate) proto: &'static str,
}

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Net {
    pub(crate) interfaces: Vec<Interface>,
    pub(crate) routes: Vec<Route>,
}

/// What configuration files say about the wired interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Static {
    address: Option<(IpAddr, u8)>,
    gateway: Option<IpAddr>,
}

/// The wired interface's name by distribution.
pub(crate) fn wired(os: crate::OsKind) -> &'static str {
    match os {
        crate::OsKind::Armbian => "end0",
        _ => "eth0",
    }
}

fn mac(name: &str) -> String {
    let digest = Sha256::digest(name.as_bytes());
    let tail: Vec<String> = digest.iter().take(5).map(|byte| format!("{byte:02x}")).collect();
    format!("02:{}", tail.join(":"))
}

fn parse_cidr(text: &str) -> Option<(IpAddr, u8)> {
    let text = text.trim().trim_matches(['"', '\'', '[', ']']);
    let (ip, prefix) = text.split_once('/').unwrap_or((text, "24"));
    Some((ip.parse().ok()?, prefix.parse().ok()?))
}

/// Reads netplan, systemd-networkd, NetworkManager and ifupdown files, the first that names an address wins.
fn configured(vfs: &Vfs) -> Static {
    for name in vfs.names_ending("/etc/netplan", ".yaml").iter().rev() {
        let text = vfs.text(&format!("/etc/netplan/{name}"));
        let Ok(document) = serde_saphyr::from_str::<serde_json::Value>(&text) else { continue };
        let Some(ethernets) = document.pointer("/network/ethernets").and_then(|e| e.as_object()) else {
            continue;
        };
        for ethernet in ethernets.values() {
            let address = ethernet.pointer("/addresses/0").and_then(|a| a.as_str()).and_then(parse_cidr);
            let routed = ethernet.pointer("/routes/0/via").and_then(|v| v.as_str());
            let gateway = ethernet.get("gateway4").and_then(|v| v.as_str()).or(routed);
            if address.is_some() {
                return Static { address, gateway: gateway.and_then(|g| g.parse().ok()) };
            }
        }
    }
    let mut texts = Vec::new();
    for name in vfs.names_ending("/etc/systemd/network", ".network") {
        texts.push((vfs.text(&format!("/etc/systemd/network/{name}")), "Address=", "Gateway="));
    }
    for name in vfs.names_ending("/etc/NetworkManager/system-connections", ".nmconnection") {
        texts.push((
            vfs.text(&format!("/etc/NetworkManager/system-connections/{name}")),
            "address1=",
            "gateway=",
        ));
    }
    texts.push((vfs.text("/etc/network/interfaces").replace("address ", "address="), "address=", "gateway="));
    for (text, address, gateway) in texts {
        let value = |key: &str| text.lines().find_map(|line| line.trim().strip_prefix(key)).map(str::trim);
        if let Some(line) = value(address) {
            let (cidr, behind) =
                line.split_once(',').map_or((line, None), |(cidr, gateway)| (cidr, Some(gateway)));
            let gateway = behind.or_else(|| value(gateway)).and_then(|g| g.trim().parse().ok());
            if let Some(address) = parse_cidr(cidr) {
                return Static { address: Some(address), gateway };
            }
        }
    }
    Static::default()
}

impl Net {
    /// The network as it comes up at boot: from the configuration files, else from DHCP.
    pub(crate) fn at_boot(os: &Os, plan: &NodePlan) -> Self {
        let name = wired(os.image.os).to_owned();
        let configured = configured(&os.vfs);
        let leased = plan.leased.or(plan.address).unwrap_or(IpAddr::V4(Ipv4Addr::new(10, 10, 88, 200)));
        let (ip, prefix) = configured.address.unwrap_or((leased, 24));
        let dynamic = configured.address.is_none();
        let gateway = if dynamic { plan.gateway.then(|| gateway_of(ip)) } else { configured.gateway };
        let mut net = Self::default();
        net.interfaces.push(Interface {
            name: "lo".into(),
            mac: "00:00:00:00:00:00".into(),
            up: true,
            mtu: 65536,
            kind: "loopback",
            addresses: vec![Address { ip: IpAddr::V4(Ipv4Addr::LOCALHOST), prefix: 8, dynamic: false }],
        });
        net.interfaces.push(Interface {
            name: name.clone(),
            mac: mac(&plan.name),
            up: true,
            mtu: 1500,
            kind: "ether",
            addresses: vec![Address { ip, prefix, dynamic }],
        });
        let proto = if dynamic { "dhcp" } else { "static" };
        if let Some(via) = gateway {
            net.routes.push(Route {
                to: None,
                via: Some(via),
                dev: name.clone(),
                src: dynamic.then_some(ip),
                proto,
            });
        }
        net.routes.push(Route {
            to: Some(network_of(ip, prefix)),
            via: None,
            dev: name,
            src: Some(ip),
            proto: "kernel",
        });
        net
    }
    /// The first address that is not the loopback's, nor of an interface that containers use.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        let outside = |i: &&Interface| i.up && i.kind == "ether";
        self.interfaces.iter().find(outside).and_then(|i| i.addresses.first()).map(|address| address.ip)
    }
    /// Whether the node owns an address.
    pub(crate) fn has(&self, ip: IpAddr) -> bool {
        self.interfaces.iter().any(|i| i.addresses.iter().any(|address| address.ip == ip))
    }
    pub(crate) fn default_route(&self) -> Option<&Route> {
        self.routes.iter().find(|route| route.to.is_none())
    }
    /// Adds an interface that something on the node makes; nothing happens when it is there.
    pub(crate) fn add(&mut self, name: &str, kind: &'static str, mtu: u32, address: Option<(IpAddr, u8)>) {
        if self.interfaces.iter().any(|i| i.name == name) {
            return;
        }
        let addresses =
            address.map(|(ip, prefix)| Address { ip, prefix, dynamic: false }).into_iter().collect();
        self.interfaces.push(Interface { name: name.into(), mac: mac(name), up: true, mtu, kind, addresses });
        if let Some((ip, prefix)) = address.filter(|(_, prefix)| *prefix < 32) {
            let to = Some(network_of(ip, prefix));
            self.routes.push(Route { to, via: None, dev: name.into(), src: Some(ip), proto: "kernel" });
        }
    }
    /// Removes an interface and its routes.
    pub(crate) fn remove(&mut self, name: &str) -> bool {
        let before = self.interfaces.len();
        self.interfaces.retain(|i| i.name != name);
        self.routes.retain(|route| route.dev != name);
        self.interfaces.len() < before
    }
}

/// `.1` of an address's /24.
fn gateway_of(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            IpAddr::V4(Ipv4Addr::new(a, b, c, 1))
        }
        IpAddr::V6(v6) => IpAddr::V6(v6),
    }
}

/// The network of an address, `10.10.88.0/24`.
pub(crate) fn network_of(ip: IpAddr, prefix: u8) -> String {
    match ip {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
            format!("{}/{prefix}", Ipv4Addr::from(u32::from(v4) & mask))
        }
        IpAddr::V6(v6) => format!("{v6}/{prefix}"),
    }
}
