//! A fixed address as netplan, NetworkManager and systemd-networkd want it.

use std::fmt::Write;
use std::net::IpAddr;

use super::{StaticAddress, job::Job};

/// The placeholder that the script replaces.
const INTERFACE: &str = "@INTERFACE@";

pub(super) fn set_up(address: &StaticAddress) -> Job {
    let arguments = vec![
        address.interface.clone().unwrap_or_default(),
        address.address.to_string(),
        netplan(address),
        network_manager(address),
        networkd(address),
    ];
    Job { script: include_str!("network.sh"), arguments, password: None }
}

/// `0.0.0.0/0` instead of `default`, which older netplan does not know.
fn netplan(address: &StaticAddress) -> String {
    let mut text = format!(
        "network:\n  version: 2\n  ethernets:\n    {INTERFACE}:\n      dhcp4: false\n      addresses: [\"{}\"]\n",
        address.address
    );
    if let Some(gateway) = address.gateway {
        let everywhere = if gateway.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
        let _ = write!(text, "      routes:\n        - {{to: \"{everywhere}\", via: \"{gateway}\"}}\n");
    }
    if !address.dns.is_empty() {
        let servers: Vec<String> = address.dns.iter().map(|server| format!("\"{server}\"")).collect();
        let _ = writeln!(text, "      nameservers: {{addresses: [{}]}}", servers.join(", "));
    }
    text.trim_end().to_owned()
}

fn network_manager(address: &StaticAddress) -> String {
    let family = |v4: bool| {
        let section = if v4 { "ipv4" } else { "ipv6" };
        if address.address.addr().is_ipv4() != v4 {
            return format!("[{section}]\nmethod={}\n", if v4 { "disabled" } else { "auto" });
        }
        let gateway = address.gateway.map_or_else(String::new, |gateway| format!(",{gateway}"));
        let mut text = format!("[{section}]\nmethod=manual\naddress1={}{gateway}\n", address.address);
        let servers: Vec<String> =
            address.dns.iter().filter(|server| server.is_ipv4() == v4).map(IpAddr::to_string).collect();
        if !servers.is_empty() {
            let _ = writeln!(text, "dns={};", servers.join(";"));
        }
        text
    };
    format!(
        "[connection]\nid=turingpi-{INTERFACE}\ntype=ethernet\ninterface-name={INTERFACE}\nautoconnect-priority=100\n\n{}\n{}",
        family(true),
        family(false).trim_end()
    )
}

fn networkd(address: &StaticAddress) -> String {
    let mut text = format!("[Match]\nName={INTERFACE}\n\n[Network]\nAddress={}\n", address.address);
    if let Some(gateway) = address.gateway {
        let _ = writeln!(text, "Gateway={gateway}");
    }
    for server in &address.dns {
        let _ = writeln!(text, "DNS={server}");
    }
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address() -> StaticAddress {
        StaticAddress {
            address: "10.10.88.73/24".parse().unwrap(),
            gateway: Some("10.10.88.1".parse().unwrap()),
            dns: vec!["10.10.88.1".parse().unwrap(), "1.1.1.1".parse().unwrap()],
            interface: None,
        }
    }

    #[test]
    fn netplan_gets_one_interface_without_dhcp_and_is_yaml() {
        let text = netplan(&address());
        let tree: serde_json::Value = serde_saphyr::from_str(&text.replace(INTERFACE, "end0")).unwrap();
        assert_eq!(
            tree,
            serde_json::json!({"network": {"version": 2, "ethernets": {"end0": {
                "dhcp4": false,
                "addresses": ["10.10.88.73/24"],
                "routes": [{"to": "0.0.0.0/0", "via": "10.10.88.1"}],
                "nameservers": {"addresses": ["10.10.88.1", "1.1.1.1"]},
            }}}})
        );
    }

    #[test]
    fn network_manager_and_networkd_get_the_same_address() {
        let keyfile = network_manager(&address()).replace(INTERFACE, "end0");
        assert_eq!(
            keyfile,
            "[connection]\nid=turingpi-end0\ntype=ethernet\ninterface-name=end0\nautoconnect-priority=100\n\n\
             [ipv4]\nmethod=manual\naddress1=10.10.88.73/24,10.10.88.1\ndns=10.10.88.1;1.1.1.1;\n\n[ipv6]\nmethod=auto"
        );
        let unit = networkd(&address()).replace(INTERFACE, "end0");
        assert_eq!(
            unit,
            "[Match]\nName=end0\n\n[Network]\nAddress=10.10.88.73/24\nGateway=10.10.88.1\nDNS=10.10.88.1\nDNS=1.1.1.1"
        );
    }

    #[test]
    fn an_ipv6_address_goes_to_the_ipv6_section() {
        let six = StaticAddress {
            address: "fd00::73/64".parse().unwrap(),
            gateway: Some("fd00::1".parse().unwrap()),
            dns: vec![],
            interface: Some("end0".into()),
        };
        assert!(network_manager(&six).contains("[ipv6]\nmethod=manual\naddress1=fd00::73/64,fd00::1"));
        assert!(netplan(&six).contains("to: \"::/0\""));
        assert_eq!(set_up(&six).arguments[..2], ["end0", "fd00::73/64"]);
    }
}
