//! The cluster's networks: pods, services, and where its API is reached.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::{IpNet, Ipv4Net};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use turingpi_engine::{Failure, FailureClass};

/// The port of a Kubernetes API.
pub const API_PORT: u16 = 6443;

/// The cluster's networks. The document's `network:` section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
#[non_exhaustive]
pub struct NetworkSpec {
    /// Addresses of pods. Cannot be changed later.
    #[schemars(with = "String")]
    pub pods: IpNet,
    /// Addresses of services. Cannot be changed later.
    #[schemars(with = "String")]
    pub services: IpNet,
    /// The DNS name services live under.
    pub domain: String,
    /// Where nodes and kubeconfigs reach the API, `host` or `host:port`: a load balancer, a virtual address, a DNS name.
    /// The first control-plane node's address when it is not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub api_endpoint: Option<Endpoint>,
    /// Where this machine reaches the API, `host` or `host:port`, when that differs: a forwarded port, a tunnel.
    /// The certificate is still checked against `api-endpoint`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub api_connect: Option<Endpoint>,
}

impl Default for NetworkSpec {
    fn default() -> Self {
        Self {
            pods: IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(10, 244, 0, 0), 16)),
            services: IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 12)),
            domain: "cluster.local".to_owned(),
            api_endpoint: None,
            api_connect: None,
        }
    }
}

impl NetworkSpec {
    /// The address of the cluster's DNS service: the tenth of `services`.
    pub fn dns_address(&self) -> IpAddr {
        match self.services.network() {
            IpAddr::V4(base) => IpAddr::V4(Ipv4Addr::from(u32::from(base).saturating_add(10))),
            IpAddr::V6(base) => IpAddr::V6(Ipv6Addr::from(u128::from(base).saturating_add(10))),
        }
    }

    /// Checks the networks against each other and against the addresses of nodes and boards.
    ///
    /// `others` are named addresses that must stay reachable from pods: nodes, BMCs, a load balancer's pool.
    ///
    /// # Errors
    /// `Config`, naming both sides of the overlap.
    pub fn validate<'a>(&self, others: impl IntoIterator<Item = (&'a str, IpNet)>) -> Result<(), Failure> {
        let own = [("pods", self.pods.trunc()), ("services", self.services.trunc())];
        if overlap(self.pods, self.services) {
            return Err(clash("pods", self.pods, "services", self.services));
        }
        for (name, other) in others {
            for (mine, net) in own {
                if overlap(net, other) {
                    return Err(clash(mine, net, name, other));
                }
            }
        }
        if self.services.max_prefix_len() - self.services.prefix_len() < 6 {
            return Err(config(format!("network.services {} is too small", self.services))
                .hint("Use a prefix that leaves room for at least 64 services, such as 10.96.0.0/12."));
        }
        if self.pods.max_prefix_len() - self.pods.prefix_len() < 10 {
            return Err(config(format!("network.pods {} is too small", self.pods))
                .hint("Each node takes a /24 of it; use a /16 such as 10.244.0.0/16."));
        }
        if self.domain.is_empty() || !self.domain.split('.').all(is_label) {
            return Err(config(format!("network.domain `{}` is not a DNS name", self.domain))
                .hint("Use lower-case labels separated by dots, such as cluster.local."));
        }
        Ok(())
    }
}

/// Whether two networks share an address. Networks of different families never do.
pub fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

fn clash(a: &str, a_net: IpNet, b: &str, b_net: IpNet) -> Failure {
    config(format!("network {a} {a_net} overlaps with {b} {b_net}"))
        .hint("Choose ranges that share no address with each other or with the LAN of the nodes.")
}

fn config(message: String) -> Failure {
    Failure::new(FailureClass::Config, message)
}

/// Whether `label` is one label of a DNS name as RFC 1123 wants it: lower-case letters, digits, inner dashes.
pub(crate) fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= 63
        && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// A host with an optional port: `10.0.0.1`, `api.example.org:6443`, `[fd00::1]:6443`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    host: String,
    port: Option<u16>,
}

impl Endpoint {
    /// A host with a port.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port: Some(port) }
    }
    /// The host name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }
    /// The port; 6443 when none was given.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(API_PORT)
    }
    /// `host:port`, brackets around an IPv6 address.
    pub fn authority(&self) -> String {
        format!("{}:{}", bracketed(&self.host), self.port())
    }
    /// `https://host:port`, brackets around an IPv6 address.
    pub fn url(&self) -> String {
        format!("https://{}", self.authority())
    }
}

impl From<IpAddr> for Endpoint {
    fn from(address: IpAddr) -> Self {
        Self { host: address.to_string(), port: None }
    }
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", bracketed(&self.host)),
            None => f.write_str(&self.host),
        }
    }
}

/// Why a text is not an [`Endpoint`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a host or host:port")]
pub struct BadEndpoint {
    text: String,
}

impl FromStr for Endpoint {
    type Err = BadEndpoint;

    fn from_str(text: &str) -> Result<Self, BadEndpoint> {
        let bad = || BadEndpoint { text: text.to_owned() };
        let (host, port) = if let Ok(address) = text.parse::<IpAddr>() {
            (address.to_string(), None)
        } else if let Some(rest) = text.strip_prefix('[') {
            let (host, after) = rest.split_once(']').ok_or_else(bad)?;
            host.parse::<Ipv6Addr>().map_err(|_| bad())?;
            (host.to_owned(), after.strip_prefix(':'))
        } else {
            match text.split_once(':') {
                Some((host, port)) => (host.to_owned(), Some(port)),
                None => (text.to_owned(), None),
            }
        };
        let port = port.map(|p| p.parse::<u16>().ok().filter(|p| *p != 0).ok_or_else(bad)).transpose()?;
        let named = host.split('.').all(|l| is_label(&l.to_ascii_lowercase()));
        if host.is_empty() || !(named || host.parse::<IpAddr>().is_ok()) {
            return Err(bad());
        }
        Ok(Self { host, port })
    }
}

impl Serialize for Endpoint {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[rstest]
    #[case("10.244.0.0/16", "10.96.0.0/12", false)]
    #[case("10.42.0.0/16", "10.42.128.0/17", true)]
    #[case("10.42.128.0/17", "10.42.0.0/16", true)]
    #[case("10.0.0.0/8", "10.96.0.0/12", true)]
    #[case("10.244.0.0/16", "10.245.0.0/16", false)]
    #[case("10.244.0.0/16", "10.244.255.255/32", true)]
    #[case("fd00::/48", "10.0.0.0/8", false)]
    #[case("fd00::/48", "fd00:0:0:1::/64", true)]
    fn networks_overlap_when_they_share_an_address(#[case] a: &str, #[case] b: &str, #[case] expected: bool) {
        assert_eq!(overlap(net(a), net(b)), expected);
        assert_eq!(overlap(net(b), net(a)), expected);
    }

    #[test]
    fn the_default_networks_are_those_of_the_reference_cluster_and_valid() {
        let spec = NetworkSpec::default();
        assert_eq!(spec.dns_address().to_string(), "10.96.0.10");
        spec.validate([("node1", net("10.10.88.73/32"))]).unwrap();
    }

    #[test]
    fn an_overlap_names_both_sides() {
        let failure = NetworkSpec::default().validate([("node1", net("10.96.3.4/32"))]).unwrap_err();
        assert_eq!(failure.class(), FailureClass::Config);
        assert_eq!(failure.message(), "network services 10.96.0.0/12 overlaps with node1 10.96.3.4/32");
    }

    #[rstest]
    #[case("10.0.0.1", "10.0.0.1", 6443, "https://10.0.0.1:6443")]
    #[case("10.0.0.1:7443", "10.0.0.1", 7443, "https://10.0.0.1:7443")]
    #[case("api.home.lan", "api.home.lan", 6443, "https://api.home.lan:6443")]
    #[case("fd00::1", "fd00::1", 6443, "https://[fd00::1]:6443")]
    #[case("[fd00::1]:16443", "fd00::1", 16443, "https://[fd00::1]:16443")]
    fn an_endpoint_reads_and_prints(
        #[case] text: &str,
        #[case] host: &str,
        #[case] port: u16,
        #[case] url: &str,
    ) {
        let endpoint: Endpoint = text.parse().unwrap();
        assert_eq!((endpoint.host(), endpoint.port(), endpoint.url().as_str()), (host, port, url));
        assert_eq!(endpoint.to_string(), text);
    }

    #[rstest]
    #[case("")]
    #[case(":6443")]
    #[case("a b")]
    #[case("host:0")]
    #[case("host:70000")]
    #[case("https://host")]
    #[case("[fd00::1")]
    fn a_bad_endpoint_is_refused(#[case] text: &str) {
        assert!(text.parse::<Endpoint>().is_err());
    }
}
