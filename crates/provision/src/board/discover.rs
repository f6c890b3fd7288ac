//! Looking for boards: the name that every board announces, and a bounded scan where somebody asks for one.

use std::collections::BTreeMap;

use futures::StreamExt as _;
use ipnet::IpNet;
use serde::Serialize;
use turingpi_bmc::{Candidate, DiscoveryLimits, Generation, find_by_name};
use turingpi_engine::{Failure, FailureClass};

/// Addresses that one scan may knock at: a /22.
const MOST: u32 = 1024;

/// What to look for.
#[derive(Debug, Clone, Default)]
pub struct Discovery {
    /// A network whose every address is knocked at, at most 1024 of them. Nothing is scanned without it.
    pub scan: Option<IpNet>,
    /// The port of the API where it is not the usual one. Then `turingpi.local` is not asked for.
    pub port: Option<u16>,
    /// How far to go.
    pub limits: DiscoveryLimits,
}

/// A board that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// Its address or name, as it was asked.
    pub host: String,
    /// What `--board` takes.
    pub url: String,
    /// How: `mdns` or `scan`.
    pub by: &'static str,
    /// The line of firmware, where it is told to strangers.
    pub generation: Option<Generation>,
    /// The daemon's version (firmware 1.x: the firmware's), where it is told to strangers.
    pub version: Option<String>,
    /// Of the certificate it showed; firmware 1.x has none. Seen, not trusted.
    pub fingerprint: Option<String>,
    /// The BMC's hardware address, where it is told to strangers.
    pub mac: Option<String>,
}

/// Looks for boards. Sends no credentials to anybody, and asks only addresses that were named or that announce themselves.
///
/// # Errors
/// `Usage` for a network that is too large; `Unreachable` when nothing but the name was to be asked for, and the network
/// takes no such question.
pub async fn discover(wanted: &Discovery) -> Result<Vec<Found>, Failure> {
    let mut ways: BTreeMap<String, &'static str> = BTreeMap::new();
    let scanned = wanted.scan.as_ref().map(hosts).transpose()?.unwrap_or_default();
    let mut candidates: Vec<Candidate> = Vec::new();
    for mut candidate in scanned {
        if let Some(port) = wanted.port {
            (candidate.https_port, candidate.http_port) = (port, port);
        }
        ways.insert(candidate.host.clone(), "scan");
        candidates.push(candidate);
    }
    if wanted.port.is_none() {
        match find_by_name(wanted.limits.each).await {
            Ok(announced) => {
                for candidate in announced {
                    if ways.insert(candidate.host.clone(), "mdns").is_none() {
                        candidates.push(candidate);
                    }
                }
            }
            Err(problem) if wanted.scan.is_none() => {
                return Err(Failure::new(
                    FailureClass::Unreachable,
                    "cannot ask the network for `turingpi.local`",
                )
                .hint("Look through a network instead: `turingpi board discover --scan 10.10.88.0/24`.")
                .source(problem));
            }
            // The scan goes on without it.
            Err(problem) => tracing::info!(problem, "no multicast question"),
        }
    }
    let mut found: Vec<Found> = turingpi_bmc::discover(candidates, wanted.limits)
        .map(|seen| Found {
            url: seen.url.to_string().trim_end_matches('/').to_owned(),
            by: ways.get(&seen.host).copied().unwrap_or("scan"),
            host: seen.host,
            generation: seen.generation,
            version: seen.version.map(|version| version.to_string()),
            fingerprint: seen.fingerprint.map(|fingerprint| fingerprint.to_string()),
            mac: seen.mac,
        })
        .collect()
        .await;
    found.sort_by(|a, b| a.url.cmp(&b.url));
    Ok(found)
}

/// Every address of a network that may be a host.
fn hosts(net: &IpNet) -> Result<Vec<Candidate>, Failure> {
    let bits = u32::from(net.max_prefix_len() - net.prefix_len());
    if 1_u32.checked_shl(bits).is_none_or(|addresses| addresses > MOST) {
        return Err(Failure::new(FailureClass::Usage, format!("{net} has too many addresses to knock at"))
            .hint(format!("At most {MOST}: `--scan 10.10.88.0/24` is the usual size.")));
    }
    Ok(net.hosts().map(Candidate::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_that_is_too_large_is_refused_with_the_usual_size() {
        assert_eq!(hosts(&"10.10.88.0/24".parse().unwrap()).unwrap().len(), 254);
        assert_eq!(hosts(&"127.0.0.1/32".parse().unwrap()).unwrap().len(), 1);
        for large in ["10.0.0.0/8", "fd00::/64", "0.0.0.0/0", "::/0"] {
            let failure = hosts(&large.parse().unwrap()).unwrap_err();
            assert!(failure.hint_text().unwrap().contains("/24"));
        }
    }
}
