//! The address that a node tells on its console.

use std::net::{IpAddr, Ipv4Addr};

/// What stands before an address that is the node's own.
const SIGNS: [&str; 12] = [
    "inet ",
    "inet addr:",
    "IPv4: (LAN) ",
    "IP address: ",
    "IP Address: ",
    "IPv4 address for ",
    "address: ",
    "bound to ",
    "leased ",
    "IP:",
    "my address is ",
    "addr: ",
];

/// The last address that a console's plain text gives as the node's own: a login banner's, DHCP's, `ip addr`'s. `None` when
/// there is none; loopback, link-local, container and broadcast addresses are none.
///
/// ```
/// use turingpi_provision::board::address_in;
///
/// let screen = "IPv4: (LAN) 10.10.88.73 (WAN) 203.0.113.9\nnode1 login: ";
/// assert_eq!(address_in(screen), "10.10.88.73".parse().ok());
/// ```
pub fn address_in(text: &str) -> Option<IpAddr> {
    text.lines().rev().find_map(in_line)
}

fn in_line(line: &str) -> Option<IpAddr> {
    // Interfaces of containers have addresses of their own.
    if ["docker", "cni", "flannel", "veth", "br-"].iter().any(|word| line.contains(word)) {
        return None;
    }
    SIGNS.iter().find_map(|sign| {
        let (_, rest) = line.split_once(sign)?;
        // `IPv4 address for end0: 10.0.0.7`
        let rest = match (sign.ends_with("for "), rest.split_once(": ")) {
            (true, Some((_, rest))) => rest,
            (true, None) => return None,
            (false, _) => rest,
        };
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let address: Ipv4Addr = rest.get(..end)?.trim_end_matches('.').parse().ok()?;
        is_of_a_node(address).then_some(IpAddr::V4(address))
    })
}

fn is_of_a_node(address: Ipv4Addr) -> bool {
    let [a, _, _, d] = address.octets();
    !address.is_loopback()
        && !address.is_link_local()
        && !address.is_unspecified()
        && !address.is_multicast()
        && a < 224
        && d != 255
        && d != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_where_systems_tell_them() {
        for (text, address) in [
            ("    inet 10.10.88.73/24 brd 10.10.88.255 scope global end0", "10.10.88.73"),
            ("end0: inet addr:192.168.1.5  Bcast:192.168.1.255", "192.168.1.5"),
            ("  IPv4 address for end0: 10.0.0.7", "10.0.0.7"),
            ("bound to 10.0.0.8 -- renewal in 300 seconds.", "10.0.0.8"),
            ("dhcpcd: eth0: leased 10.0.0.9 for 3600 seconds", "10.0.0.9"),
            ("IP-Config: Complete:\n     device=eth0, hwaddr=02:00, my address is 10.0.0.4.", "10.0.0.4"),
            ("inet 10.0.0.1\n\ninet 10.0.0.2/24", "10.0.0.2"),
        ] {
            assert_eq!(address_in(text), address.parse().ok(), "{text}");
        }
    }

    #[test]
    fn what_is_not_the_nodes_own_is_none() {
        for text in [
            "inet 127.0.0.1/8 scope host lo",
            "inet 169.254.3.4/16",
            "    inet 172.17.0.1/16 brd 172.17.255.255 scope global docker0",
            "listening on 0.0.0.0:22",
            "version 10.10.88.73 of something",
            "IP address: none",
            "inet 999.1.1.1",
        ] {
            assert_eq!(address_in(text), None, "{text}");
        }
    }
}
