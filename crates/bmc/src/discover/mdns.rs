//! Boards by their name on the local network: `turingpi.local`, and `turingpi-2.local` and so on for further ones.

use std::{net::IpAddr, time::Duration};

use mdns_sd::{HostnameResolutionEvent, ServiceDaemon};
use tokio::time::{Instant, timeout_at};

use super::Candidate;

/// A second board that finds the name taken calls itself `turingpi-2`, and so on. As many are asked for.
const BOARDS: u32 = 4;

/// Asks the local network by multicast DNS for boards under their factory name, for `limit`, and returns an address of each
/// one that answers. Not whether a board is really there: [`probe_board`](crate::probe_board) tells.
///
/// # Errors
/// The text of the trouble with the network, such as no interface for multicast.
pub async fn find_by_name(limit: Duration) -> Result<Vec<Candidate>, String> {
    let daemon = ServiceDaemon::new().map_err(|error| error.to_string())?;
    let until = Instant::now() + limit;
    let millis = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    let mut asked = Vec::new();
    for name in names() {
        asked.push(daemon.resolve_hostname(&name, Some(millis)).map_err(|error| error.to_string())?);
    }
    let mut found = Vec::new();
    for events in asked {
        while let Ok(Ok(event)) = timeout_at(until, events.recv_async()).await {
            if let HostnameResolutionEvent::AddressesFound(_, addresses) = event {
                let mut addresses: Vec<IpAddr> = addresses.iter().map(|a| a.to_ip_addr()).collect();
                // Firmware 2.0 listens on IPv4 alone, and link-local addresses need more than an address.
                addresses.sort_by_key(|ip| (ip.is_ipv6(), *ip));
                found.extend(addresses.first().copied().map(Candidate::from));
                break;
            }
        }
    }
    // It ends by itself; nobody waits for that.
    let _ = daemon.shutdown();
    found.dedup();
    Ok(found)
}

fn names() -> impl Iterator<Item = String> {
    let further = (2..=BOARDS).map(|number| format!("turingpi-{number}.local."));
    std::iter::once("turingpi.local.".to_owned()).chain(further)
}

#[cfg(test)]
mod tests {
    #[test]
    fn further_boards_are_asked_for_by_the_names_they_give_themselves() {
        let names: Vec<_> = super::names().collect();
        assert_eq!(names[..2], ["turingpi.local.", "turingpi-2.local."]);
    }
}
