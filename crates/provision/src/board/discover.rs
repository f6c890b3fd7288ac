//! Looking for boards: the name that every board announces, and a bounded scan where somebody asks for one.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use futures::{StreamExt as _, stream};
use ipnet::IpNet;
use serde::Serialize;
use tokio::net::UdpSocket;
use turingpi_bmc::{BmcClient as _, BmcTimeouts, Generation, HttpBmcClient, Trust};
use turingpi_engine::{Failure, FailureClass};
use url::Url;

/// The name a BMC announces since firmware 1.1.
const NAME: &str = "turingpi.local";
/// Where questions of multicast DNS go.
pub const MDNS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(224, 0, 0, 251)), 5353);
/// Addresses that one scan may knock at: a /22.
const MOST: u128 = 1024;
/// Doors knocked at at a time.
const AT_ONCE: usize = 48;
/// How long one may take to open.
const KNOCK: Duration = Duration::from_millis(1500);

/// What to look for.
#[derive(Debug, Clone)]
pub struct Discovery {
    /// Where the multicast question goes; [`MDNS`] outside of tests.
    pub mdns: SocketAddr,
    /// How long answers are waited for.
    pub patience: Duration,
    /// A network whose every address is knocked at, at most 1024.
    pub scan: Option<IpNet>,
    /// The port of the BMC's API; 443, and 80 for firmware 1.x, when it is not given.
    pub port: Option<u16>,
}

impl Default for Discovery {
    fn default() -> Self {
        Self { mdns: MDNS, patience: Duration::from_secs(4), scan: None, port: None }
    }
}

/// A board that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// Its address.
    pub address: IpAddr,
    /// What `--board` takes.
    pub url: String,
    /// How: `mdns` or `scan`.
    pub by: &'static str,
    /// Its certificate; firmware 1.x has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// `1.x` or `2.x`: no more is told without a login.
    pub firmware: &'static str,
}

/// Looks for boards. Sends no credentials to anybody.
///
/// # Errors
/// `Usage` for a network that is too large.
pub async fn discover(wanted: &Discovery) -> Result<Vec<Found>, Failure> {
    let mut addresses: BTreeMap<IpAddr, &'static str> = BTreeMap::new();
    if let Some(net) = &wanted.scan {
        addresses.extend(hosts(net)?.into_iter().map(|address| (address, "scan")));
    }
    for address in announced(wanted).await {
        addresses.insert(address, "mdns");
    }
    let looks = stream::iter(addresses).map(|(address, by)| look(address, by, wanted.port));
    let mut found: Vec<Found> =
        looks.buffer_unordered(AT_ONCE).filter_map(|found| async move { found }).collect().await;
    found.sort_by_key(|found| found.address);
    Ok(found)
}

/// Every address of a network that may be a host.
fn hosts(net: &IpNet) -> Result<Vec<IpAddr>, Failure> {
    let bits = net.max_prefix_len() - net.prefix_len();
    if bits > 10 || (1_u128 << bits) > MOST {
        return Err(Failure::new(FailureClass::Usage, format!("{net} has too many addresses to knock at"))
            .hint(format!("At most {MOST}: `--scan 10.10.88.0/24` is the usual size.")));
    }
    Ok(net.hosts().collect())
}

/// Addresses that answer to the board's name: by our own question, and by the system's resolver.
async fn announced(wanted: &Discovery) -> Vec<IpAddr> {
    let own = ask(wanted.mdns, wanted.patience);
    let system = async {
        let looked = tokio::time::timeout(wanted.patience, tokio::net::lookup_host((NAME, 443))).await;
        match looked {
            Ok(Ok(found)) => found.map(|address| address.ip()).collect(),
            _ => Vec::new(),
        }
    };
    let (mut own, system) = futures::join!(own, system);
    own.extend(system);
    // An IPv6 link-local address is of no use without its interface.
    own.retain(|address| !matches!(address, IpAddr::V6(v6) if v6.segments()[0] & 0xffc0 == 0xfe80));
    own
}

/// One question for the board's addresses, asking for an answer to this very port.
async fn ask(mdns: SocketAddr, patience: Duration) -> Vec<IpAddr> {
    let mut found = Vec::new();
    let Ok(socket) = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await else { return found };
    if socket.send_to(&question(), mdns).await.is_err() {
        return found;
    }
    let deadline = tokio::time::Instant::now() + patience;
    let mut packet = [0_u8; 1500];
    while let Ok(Ok((length, _))) = tokio::time::timeout_at(deadline, socket.recv_from(&mut packet)).await {
        let answers = addresses(packet.get(..length).unwrap_or_default());
        if !answers.is_empty() {
            found.extend(answers);
            // More boards than one announce the same name with a number behind it; a second answer comes at once.
            break;
        }
    }
    found
}

/// A question for the A records of `turingpi.local`. Source: RFC 1035 section 4, RFC 6762 section 5.4 (unicast answer).
fn question() -> Vec<u8> {
    let mut packet = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in NAME.split('.') {
        packet.push(u8::try_from(label.len()).unwrap_or(0));
        packet.extend_from_slice(label.as_bytes());
    }
    packet.extend_from_slice(&[0, 0, 1, 0x80, 1]);
    packet
}

/// The addresses in the answers of a packet. Whatever cannot be read ends the reading.
fn addresses(packet: &[u8]) -> Vec<IpAddr> {
    read(packet).unwrap_or_default()
}

fn read(packet: &[u8]) -> Option<Vec<IpAddr>> {
    let word = |at: usize| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]));
    // A question has the first bit of its flags clear.
    if word(2)? & 0x8000 == 0 {
        return None;
    }
    let mut at = 12;
    for _ in 0..word(4)? {
        at = skip_name(packet, at)? + 4;
    }
    let records = usize::from(word(6)?) + usize::from(word(8)?) + usize::from(word(10)?);
    let mut found = Vec::new();
    for _ in 0..records {
        let ours = name(packet, at)?.eq_ignore_ascii_case(NAME);
        at = skip_name(packet, at)?;
        let (kind, length) = (word(at)?, usize::from(word(at + 8)?));
        let data = packet.get(at + 10..at + 10 + length)?;
        at += 10 + length;
        match (ours, kind, data) {
            (true, 1, [a, b, c, d]) => found.push(IpAddr::from([*a, *b, *c, *d])),
            (true, 28, data) => found.push(IpAddr::from(<[u8; 16]>::try_from(data).ok()?)),
            _ => {}
        }
    }
    Some(found)
}

fn skip_name(packet: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *packet.get(at)? {
            0 => return Some(at + 1),
            pointer if pointer & 0xc0 == 0xc0 => return Some(at + 2),
            length => at += 1 + usize::from(length),
        }
    }
}

fn name(packet: &[u8], mut at: usize) -> Option<String> {
    let mut labels: Vec<String> = Vec::new();
    // Pointers may form a ring.
    for _ in 0..32 {
        match *packet.get(at)? {
            0 => return Some(labels.join(".")),
            pointer if pointer & 0xc0 == 0xc0 => {
                at = usize::from(u16::from_be_bytes([pointer & 0x3f, *packet.get(at + 1)?]));
            }
            length => {
                let label = packet.get(at + 1..at + 1 + usize::from(length))?;
                labels.push(String::from_utf8_lossy(label).into_owned());
                at += 1 + usize::from(length);
            }
        }
    }
    None
}

/// Whether a board's BMC answers there.
async fn look(address: IpAddr, by: &'static str, port: Option<u16>) -> Option<Found> {
    let host = match address {
        IpAddr::V6(v6) => format!("[{v6}]"),
        IpAddr::V4(v4) => v4.to_string(),
    };
    let at = |scheme: &str, usual: u16| {
        let port = port.unwrap_or(usual);
        let url = if port == usual { format!("{scheme}://{host}") } else { format!("{scheme}://{host}:{port}") };
        Some((Url::parse(&url).ok()?, port))
    };
    if let Some((url, port)) = at("https", 443)
        && opens(address, port).await
        && let Some(fingerprint) = answers_as_bmc(&url).await
    {
        let url = url.to_string().trim_end_matches('/').to_owned();
        return Some(Found { address, url, by, fingerprint: Some(fingerprint), firmware: "2.x" });
    }
    let (url, port) = at("http", 80)?;
    if !opens(address, port).await {
        return None;
    }
    let client = HttpBmcClient::builder(url.clone()).timeouts(hasty()).build().ok()?;
    let about = tokio::time::timeout(KNOCK * 2, client.about()).await.ok()?.ok()?;
    let url = url.to_string().trim_end_matches('/').to_owned();
    (about.generation == Generation::Legacy).then_some(Found { address, url, by, fingerprint: None, firmware: "1.x" })
}

async fn opens(address: IpAddr, port: u16) -> bool {
    let connected = tokio::time::timeout(KNOCK, tokio::net::TcpStream::connect((address, port))).await;
    matches!(connected, Ok(Ok(_)))
}

fn hasty() -> BmcTimeouts {
    BmcTimeouts { connect: KNOCK * 2, call: KNOCK * 2, ..BmcTimeouts::default() }
}

/// The fingerprint of a TLS server that talks as a BMC does. Other devices have web pages too.
async fn answers_as_bmc(url: &Url) -> Option<String> {
    let client = HttpBmcClient::builder(url.clone())
        .trust(Trust::first_use(|_| true))
        .timeouts(hasty())
        .build()
        .ok()?;
    tokio::time::timeout(KNOCK * 4, client.reach()).await.ok()?.ok()?;
    client.fingerprint().map(|fingerprint| fingerprint.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer as avahi gives it: the question's name, then a record with a pointer to it.
    fn answer(last: u8) -> Vec<u8> {
        let mut packet = question();
        packet[2] = 0x84;
        packet[7] = 1;
        packet.extend_from_slice(&[0xc0, 12, 0, 1, 0x80, 1, 0, 0, 0, 120, 0, 4, 10, 10, 88, last]);
        packet
    }

    #[test]
    fn the_address_in_an_answer_is_read_and_nonsense_is_nothing() {
        assert_eq!(addresses(&answer(70)), [IpAddr::from([10, 10, 88, 70])]);
        assert!(addresses(&question()).is_empty(), "a question is no answer");
        let whole = answer(70);
        for cut in 0..whole.len() {
            assert!(addresses(&whole[..cut]).is_empty());
        }
        let mut ring = answer(70);
        let at = ring.len() - 15;
        ring[at] = u8::try_from(at - 1).unwrap();
        assert!(addresses(&ring).is_empty(), "a name that points to itself");
        let mut other = answer(70);
        other[13] = b'x';
        assert!(addresses(&other).is_empty(), "somebody else's name");
    }

    #[tokio::test]
    async fn a_board_that_announces_itself_is_asked_by_name() {
        let board = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mdns = board.local_addr().unwrap();
        let answering = tokio::spawn(async move {
            let mut packet = [0; 512];
            let (length, from) = board.recv_from(&mut packet).await.unwrap();
            assert_eq!(&packet[..length], question());
            board.send_to(&answer(71), from).await.unwrap();
        });
        assert_eq!(ask(mdns, Duration::from_secs(60)).await, [IpAddr::from([10, 10, 88, 71])]);
        answering.await.unwrap();
    }

    #[test]
    fn a_network_that_is_too_large_is_refused_with_the_usual_size() {
        assert_eq!(hosts(&"10.10.88.0/24".parse().unwrap()).unwrap().len(), 254);
        assert_eq!(hosts(&"127.0.0.1/32".parse().unwrap()).unwrap().len(), 1);
        for large in ["10.0.0.0/8", "fd00::/64", "0.0.0.0/0"] {
            let failure = hosts(&large.parse().unwrap()).unwrap_err();
            assert!(failure.hint_text().unwrap().contains("/24"));
        }
    }
}
