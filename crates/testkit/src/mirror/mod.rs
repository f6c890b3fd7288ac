//! The download mirror: k3s releases in GitHub's layout, k3s's channel server, and OS images, over plain HTTP.
//!
//! | Path | What |
//! |---|---|
//! | `/k3s-io/k3s/releases/download/<tag>/<file>` | `k3s`, `k3s-arm64`, `sha256sum-<arch>.txt`, `k3s-airgap-images-<arch>.tar.zst`, `k3s-images.txt`; `+` in the tag raw or as `%2B` |
//! | `/k3s-io/k3s/releases/tag/<tag>` | the release page |
//! | `/v1-release/channels` | all channels as JSON |
//! | `/v1-release/channels/<name>` | a redirect to the release page of the channel's latest tag |
//! | `/images/<name>.img.xz`, `….sha256` | OS images, with ranges |

mod file;
mod releases;

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use serde::Serialize;
use tokio::{
    net::TcpListener,
    task::{JoinHandle, JoinSet},
};

use crate::{
    Action, Clock, Faults, OsImage, RequestRecord, Site,
    board::{
        Journal,
        wire::{self, Answer, AnswerBody, Hangup, bare, typed, with},
    },
};
use file::File;
use releases::Releases;

/// The release that is served when none is named.
const DEFAULT_RELEASE: &str = "v1.35.5+k3s1";

/// What a mirror serves.
#[derive(Debug, Clone, Default)]
pub struct MirrorPlan {
    images: BTreeMap<String, OsImage>,
    releases: Vec<String>,
    channels: BTreeMap<String, String>,
}

impl MirrorPlan {
    /// No image; the default k3s release.
    pub fn new() -> Self {
        Self::default()
    }
    /// Serves an OS image as `/images/<name>.img.xz`.
    #[must_use]
    pub fn image(mut self, name: impl Into<String>, image: OsImage) -> Self {
        self.images.insert(name.into(), image);
        self
    }
    /// Serves a k3s release; `tag` as in `v1.35.5+k3s1`. The first call replaces the default release. Channels follow
    /// the last one: `stable`, `latest`, and `v1.N` for its minor version.
    #[must_use]
    pub fn k3s_release(mut self, tag: impl Into<String>) -> Self {
        self.releases.push(tag.into());
        self
    }
    /// Points a channel at a tag.
    #[must_use]
    pub fn channel(mut self, name: impl Into<String>, tag: impl Into<String>) -> Self {
        self.channels.insert(name.into(), tag.into());
        self
    }
}

/// An OS image that a mirror serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServedImage {
    /// Its name in the plan.
    pub name: String,
    /// Where the `.img.xz` is.
    pub url: String,
    /// SHA-256 of the `.img.xz`, lower-case hex.
    pub sha256: String,
    /// Size of the `.img.xz`.
    pub bytes: u64,
}

/// A running mirror. Dropping it closes its door.
#[derive(Debug)]
pub struct Mirror {
    shop: Arc<Shop>,
    door: JoinHandle<()>,
}

/// What the door has on offer.
#[derive(Debug)]
struct Shop {
    address: SocketAddr,
    images: BTreeMap<String, File>,
    releases: Releases,
    faults: Faults,
    journal: Journal,
    clock: Clock,
}

impl Mirror {
    /// Opens the door on an ephemeral port of 127.0.0.1.
    ///
    /// # Errors
    /// No port can be had.
    pub async fn start(mut plan: MirrorPlan, faults: Faults) -> io::Result<Self> {
        if plan.releases.is_empty() {
            plan.releases.push(DEFAULT_RELEASE.to_owned());
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let pack = move || {
            let packed = plan.images.into_iter().map(|(name, image)| (name, File::new(image.shared_xz())));
            (packed.collect(), Releases::new(plan.releases, plan.channels))
        };
        let (images, releases) = tokio::task::spawn_blocking(pack).await.map_err(io::Error::other)?;
        let (journal, clock) = (Journal::default(), Clock::default());
        let shop = Arc::new(Shop { address, images, releases, faults, journal, clock });
        let door = tokio::spawn(accept(shop.clone(), listener));
        Ok(Self { shop, door })
    }
    /// `http://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        self.shop.url()
    }
    /// The base of the release downloads, install.sh's `GITHUB_URL`: `…/k3s-io/k3s/releases`.
    pub fn k3s_releases(&self) -> String {
        format!("{}/k3s-io/k3s/releases", self.url())
    }
    /// The channel server's collection, install.sh's `INSTALL_K3S_CHANNEL_URL`: `…/v1-release/channels`.
    pub fn k3s_channels(&self) -> String {
        format!("{}/v1-release/channels", self.url())
    }
    /// The OS images, by name.
    pub fn images(&self) -> Vec<ServedImage> {
        let served = |(name, file): (&String, &File)| ServedImage {
            name: name.clone(),
            url: format!("{}/images/{name}.img.xz", self.url()),
            sha256: file.sha256().to_owned(),
            bytes: file.bytes().len() as u64,
        };
        self.shop.images.iter().map(served).collect()
    }
    /// Every request so far, in order of arrival.
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.shop.journal.records()
    }
    /// Closes the door.
    pub async fn shutdown(mut self) {
        self.door.abort();
        // An aborted door answers with a cancellation, which is what was asked for.
        let _aborted = (&mut self.door).await;
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.door.abort();
    }
}

async fn accept(shop: Arc<Shop>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_ended) = connections.join_next() => continue,
        };
        if let Ok((stream, _)) = accepted {
            let shop = shop.clone();
            connections.spawn(wire::serve(stream, move |request| handle(shop.clone(), request)));
        }
    }
}

async fn handle(shop: Arc<Shop>, request: Request<Incoming>) -> Answer {
    let (head, _body) = request.into_parts();
    let entry = shop.journal.begin(&head, shop.clock.now());
    let answer = shop.with_fault(&head).await;
    if let Ok(response) = &answer {
        entry.answered(response.status());
    }
    answer
}

impl Shop {
    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
    async fn with_fault(&self, head: &http::request::Parts) -> Answer {
        let here = Site::Mirror { path: head.uri.path().to_owned() };
        match self.faults.strike(&here) {
            None => {}
            Some(Action::Delay(time)) => tokio::time::sleep(time).await,
            Some(Action::Status(status, text)) => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                return Ok(typed(status, "text/plain; charset=utf-8", text));
            }
            Some(Action::Fail(_, text)) => {
                return Ok(typed(StatusCode::INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", text));
            }
            Some(Action::CutAfter(bytes)) => return Ok(wire::cut_after(self.answer(head), bytes)),
            Some(Action::Corrupt) => return Ok(flip_a_bit(self.answer(head))),
            Some(Action::Hang) => std::future::pending().await,
            Some(_) => return Err(Hangup),
        }
        Ok(self.answer(head))
    }
    fn answer(&self, head: &http::request::Parts) -> Response<AnswerBody> {
        if !matches!(head.method, Method::GET | Method::HEAD) {
            return with(bare(StatusCode::METHOD_NOT_ALLOWED, Bytes::new()), header::ALLOW, "GET, HEAD");
        }
        let path = decode_path(head.uri.path());
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        let missing = || typed(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "Not Found");
        match segments.as_slice() {
            ["k3s-io", "k3s", "releases", "download", tag, name] => {
                self.releases.file(tag, name).map_or_else(missing, |file| file.answer(head))
            }
            ["k3s-io", "k3s", "releases", "tag", tag] if self.releases.has(tag) => typed(
                StatusCode::OK,
                "text/html; charset=utf-8",
                format!("<!doctype html><title>Release {tag}</title>"),
            ),
            ["v1-release", "channels"] => {
                typed(StatusCode::OK, "application/json", self.releases.channels(&self.url()).to_string())
            }
            ["v1-release", "channels", name] => match self.releases.channel(name) {
                Some(tag) => {
                    let page = format!("{}/k3s-io/k3s/releases/tag/{tag}", self.url());
                    with(bare(StatusCode::FOUND, Bytes::new()), header::LOCATION, page)
                }
                None => missing(),
            },
            ["images", name] => self.image(name, head).unwrap_or_else(missing),
            _ => missing(),
        }
    }
    fn image(&self, name: &str, head: &http::request::Parts) -> Option<Response<AnswerBody>> {
        if let Some(base) = name.strip_suffix(".img.xz") {
            return Some(self.images.get(base)?.answer(head));
        }
        let base = name.strip_suffix(".img.xz.sha256")?;
        let line = format!("{}  {base}.img.xz\n", self.images.get(base)?.sha256());
        Some(typed(StatusCode::OK, "text/plain; charset=utf-8", line))
    }
}

/// The same answer with one bit turned in its middle.
fn flip_a_bit(response: Response<AnswerBody>) -> Response<AnswerBody> {
    let (head, body) = response.into_parts();
    let body = match body {
        AnswerBody::Whole(Some(bytes)) => {
            let mut bytes = bytes.to_vec();
            let middle = bytes.len() / 2;
            if let Some(byte) = bytes.get_mut(middle) {
                *byte ^= 1;
            }
            AnswerBody::Whole(Some(bytes.into()))
        }
        other => other,
    };
    Response::from_parts(head, body)
}

/// Percent-decoded; a `+` stays a `+`, as it is in a path.
fn decode_path(path: &str) -> String {
    crate::board::query_decode(&path.replace('+', "%2B"))
}
