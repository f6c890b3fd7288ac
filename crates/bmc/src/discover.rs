//! Is there a Turing Pi board at an address? Asked without any login, and only of addresses the caller names.
//!
//! What is asked of a stranger: a TLS handshake and two or three harmless GETs on the API's port, and one or two on the HTTP
//! port. No credentials exist here that could be sent, and the questions never count as a failed login.

use std::{net::IpAddr, str::FromStr, sync::Arc, time::Duration};

use futures::{Stream, StreamExt};
use http::{HeaderValue, Request, header};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use url::Url;

use crate::{
    About, Attempt, BmcError, Fingerprint, Generation, Version, about, info,
    tls::{Gate, client_config},
    wire::{Call, Connection, Method, Payload, Place, Reply, answer},
};

#[cfg(feature = "discovery")]
mod mdns;
#[cfg(feature = "discovery")]
pub use mdns::find_by_name;

/// An address that may be a board's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Candidate {
    /// An address or a name.
    pub host: String,
    /// Where firmware 2.x has its API: 443.
    pub https_port: u16,
    /// Where firmware 1.x has it, and 2.x a redirect and a short introduction: 80.
    pub http_port: u16,
}

/// Text that is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an address: a name or an IP address, without a scheme")]
pub struct InvalidCandidate(String);

impl Candidate {
    /// With the usual ports.
    pub fn new(host: impl Into<String>) -> Self {
        Self { host: host.into(), https_port: 443, http_port: 80 }
    }

    fn url(&self, scheme: &str, port: u16) -> Option<Url> {
        let host = match self.host.parse::<IpAddr>() {
            Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
            _ => self.host.clone(),
        };
        Url::parse(&format!("{scheme}://{host}:{port}")).ok()
    }
}

impl From<IpAddr> for Candidate {
    fn from(ip: IpAddr) -> Self {
        Self::new(ip.to_string())
    }
}
impl FromStr for Candidate {
    type Err = InvalidCandidate;
    fn from_str(text: &str) -> Result<Self, InvalidCandidate> {
        let host = text.trim().trim_start_matches('[').trim_end_matches(']');
        let candidate = Self::new(host);
        let plain = !host.is_empty() && !host.contains(['/', '@', '?', '#', ' ']);
        let known = host.parse::<IpAddr>().is_ok() || !host.contains(':');
        if plain && known && candidate.url("https", 443).is_some_and(|url| url.has_host()) {
            Ok(candidate)
        } else {
            Err(InvalidCandidate(text.chars().take(100).collect()))
        }
    }
}

/// A board that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Sighting {
    /// The address as it was asked.
    pub host: String,
    /// For [`HttpBmcClient::builder`](crate::HttpBmcClient::builder).
    pub url: Url,
    /// The line of firmware; `None` where it takes a login to tell.
    pub generation: Option<Generation>,
    /// The version as in [`About`], where it is told to strangers.
    pub version: Option<Version>,
    /// Of the certificate it showed; `None` for firmware 1.x, which has none. Seen, not trusted: compare it with the board's
    /// own before pinning it.
    pub fingerprint: Option<Fingerprint>,
    /// The BMC's hardware address, where it is told to strangers.
    pub mac: Option<String>,
}

/// How far a search goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiscoveryLimits {
    /// For each address, all questions together.
    pub each: Duration,
    /// Addresses that are asked at the same time.
    pub at_once: usize,
}

impl Default for DiscoveryLimits {
    /// 4 seconds each, 32 at once: a /24 in about half a minute.
    fn default() -> Self {
        Self { each: Duration::from_secs(4), at_once: 32 }
    }
}

/// Looks at each address, some at the same time, and returns the boards as they are found. Dropping the stream ends the
/// search.
pub fn discover(
    candidates: impl IntoIterator<Item = Candidate, IntoIter: Send> + Send,
    limits: DiscoveryLimits,
) -> impl Stream<Item = Sighting> + Send {
    futures::stream::iter(candidates)
        .map(move |candidate| async move { probe_board(&candidate, limits.each).await })
        .buffer_unordered(limits.at_once.max(1))
        .filter_map(std::future::ready)
}

/// Returns the board at an address, or `None` if nobody answers within the limit, or something else does.
pub async fn probe_board(candidate: &Candidate, limit: Duration) -> Option<Sighting> {
    timeout(limit, look(candidate, limit)).await.ok().flatten()
}

async fn look(candidate: &Candidate, limit: Duration) -> Option<Sighting> {
    // Half of the time for a port that swallows everything: the other one may still answer.
    let secure = candidate.url("https", candidate.https_port);
    let found = match secure {
        Some(url) => timeout(limit / 2, look_secure(candidate, url, limit)).await.ok().flatten(),
        None => None,
    };
    match found {
        Some(sighting) => Some(sighting),
        None => look_plain(candidate, limit).await,
    }
}

/// Firmware 2.x: the API asks for a login in words of its own.
async fn look_secure(candidate: &Candidate, url: Url, limit: Duration) -> Option<Sighting> {
    let mut door = Door::open(&url, limit).await?;
    let about = door.ask("?opt=get&type=about").await?;
    let attempt = Attempt::new("look for a board", candidate.host.as_str());
    let mut sighting = Sighting {
        host: candidate.host.clone(),
        url: url.clone(),
        generation: None,
        version: None,
        fingerprint: door.fingerprint(),
        mac: None,
    };
    if is_banned(&about) {
        // It would answer nothing else either.
        return Some(sighting);
    }
    if about.status != 401 {
        // The daemon asks nothing of its own loopback.
        let about = about::parse(&answer::value(&about, &attempt).ok()?, &attempt).ok()?;
        sighting.know(&about);
        return Some(sighting);
    }
    if !String::from_utf8_lossy(&about.body).contains("no authorization header provided") {
        return None;
    }
    // What firmware 2.x tells strangers on its HTTP port; 2.0 has it elsewhere. The redirect of others is not followed.
    for (path, generation) in [("/info", None), ("/api/bmc/info", Some(Generation::V2_0))] {
        let Some(reply) = ask_plain(candidate, path, limit).await else { break };
        let Ok(value) = answer::value(&reply, &attempt) else { continue };
        if let Ok(about) = about::parse(&value, &attempt) {
            sighting.know(&about);
            // From bmcd 2.3.5 on this version is the operating system's.
            sighting.version = sighting.version.filter(|version| *version < Version::new(2000, 0, 0));
            sighting.generation = generation.or(sighting.generation);
            if sighting.version.is_none() {
                sighting.generation = Some(Generation::V2_3);
            }
            let told = info::parse(&value, &attempt).ok();
            sighting.mac = told.and_then(|info| info.interfaces.into_iter().find_map(|one| one.mac));
            return Some(sighting);
        }
    }
    // It tells nothing there: the community's firmware, or no way to that port. Firmware 2.0 guards its start page too.
    if door.ask_at("/").await.is_some_and(|page| page.status == 401) {
        sighting.generation = Some(Generation::V2_0);
    }
    Some(sighting)
}

/// Firmware 1.x: the API on plain HTTP. `other` is a question it does answer; others it lets hang.
async fn look_plain(candidate: &Candidate, limit: Duration) -> Option<Sighting> {
    let reply = ask_plain(candidate, "/api/bmc?opt=get&type=other", limit).await?;
    let attempt = Attempt::new("look for a board", candidate.host.as_str());
    let envelope = answer::envelope(&reply, &attempt).ok()?;
    if !answer::is_legacy(&envelope) {
        return None;
    }
    let value = answer::unwrapped(&envelope);
    let about = about::parse(&value, &attempt).ok()?;
    let told = info::parse(&value, &attempt).ok();
    let mut sighting = Sighting {
        host: candidate.host.clone(),
        url: candidate.url("http", candidate.http_port)?,
        generation: None,
        version: None,
        fingerprint: None,
        mac: told.and_then(|info| info.interfaces.into_iter().find_map(|one| one.mac)),
    };
    sighting.know(&about);
    Some(sighting)
}

fn is_banned(reply: &Reply) -> bool {
    let attempt = Attempt::new("", "");
    matches!(answer::check_status(reply, &attempt), Err(BmcError::Banned { .. }))
}

async fn ask_plain(candidate: &Candidate, path: &str, limit: Duration) -> Option<Reply> {
    let url = candidate.url("http", candidate.http_port)?;
    Door::open(&url, limit).await?.ask_at(path).await
}

impl Sighting {
    fn know(&mut self, about: &About) {
        self.generation = Some(about.generation);
        self.version = Some(about.version);
    }
}

/// One connection for a few questions.
struct Door {
    place: Place,
    gate: Option<Arc<Gate>>,
    connection: Connection,
    limit: Duration,
}

impl Door {
    async fn open(url: &Url, limit: Duration) -> Option<Self> {
        let place = Place::new(url).ok()?;
        let gate = place.encrypted().then(|| Arc::new(Gate::curious()));
        let tls = match &gate {
            Some(gate) => Some((client_config(gate).ok()?, gate)),
            None => None,
        };
        let connection = Connection::open(&place, tls, limit).await.ok()?;
        Some(Self { place, gate, connection, limit })
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        self.gate.as_ref().and_then(|gate| gate.found())
    }

    async fn ask(&mut self, query: &str) -> Option<Reply> {
        let call = Call::path("look for a board", Method::Get, query);
        self.ask_at(&format!("{}{}", self.place.base(), call.target())).await
    }

    async fn ask_at(&mut self, path: &str) -> Option<Reply> {
        let mut request = Request::get(path).body(Payload::Empty).ok()?;
        let host = HeaderValue::from_str(self.place.authority()).ok()?;
        request.headers_mut().insert(header::HOST, host);
        self.connection.exchange(request, self.limit).await.ok()
    }
}
