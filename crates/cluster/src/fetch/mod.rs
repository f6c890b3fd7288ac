//! Downloads with a digest, resumed after a cut, kept in a content-addressed cache.

mod cache;
mod digest;
mod download;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex as AsyncMutex;
use turingpi_engine::{Failure, FailureClass};
use url::Url;

use cache::Cache;
pub(crate) use cache::trouble;
pub(crate) use digest::of_file as digest_of;
pub use digest::{InvalidSha256, Sha256};
use download::Http;

/// Where something comes from: an `http`/`https` URL or a local file.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Source {
    /// Downloaded. Credentials and query never show in messages.
    Url(Url),
    /// Read in place.
    Path(PathBuf),
}

/// A URL that is neither `http` nor `https`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither a path nor an `https` address")]
pub struct InvalidSource(String);

impl FromStr for Source {
    type Err = InvalidSource;
    fn from_str(text: &str) -> Result<Self, InvalidSource> {
        match Url::parse(text) {
            Ok(url) if ["http", "https"].contains(&url.scheme()) && url.has_host() => Ok(Self::Url(url)),
            Ok(url) if url.scheme() == "file" => {
                url.to_file_path().map(Self::Path).map_err(|()| InvalidSource(text.to_owned()))
            }
            _ if text.is_empty() || text.contains("://") => Err(InvalidSource(text.to_owned())),
            _ => Ok(Self::Path(PathBuf::from(text))),
        }
    }
}
impl TryFrom<String> for Source {
    type Error = InvalidSource;
    fn try_from(text: String) -> Result<Self, InvalidSource> {
        text.parse()
    }
}
impl From<Source> for String {
    fn from(source: Source) -> Self {
        match source {
            Source::Url(url) => url.into(),
            Source::Path(path) => path.to_string_lossy().into_owned(),
        }
    }
}
impl fmt::Display for Source {
    /// The URL without credentials and query, or the path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => f.write_str(&shown(url)),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}

/// A URL as it may be shown: presigned queries and credentials are secrets.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    let _ = url.set_username("");
    let _ = url.set_password(None);
    let had_query = url.query().is_some();
    url.set_query(None);
    url.set_fragment(None);
    if had_query { format!("{url}?…") } else { url.to_string() }
}

/// How downloads are made. The environment is not read: a proxy is given here or there is none.
#[derive(Clone)]
pub struct FetchOptions {
    /// URL prefixes and what to put in their place, first match wins: mirrors.
    pub rewrites: Vec<(String, String)>,
    /// A proxy for everything but this machine itself. May carry credentials, and is never shown.
    pub proxy: Option<Url>,
    /// Hosts that are reached without it, as `NO_PROXY` lists them: `localhost,10.0.0.0/8,.home.arpa`.
    pub no_proxy: String,
    /// PEM certificates trusted beside the system's.
    pub authorities: Vec<Vec<u8>>,
    /// How many redirects are followed. Never from `https` to `http`.
    pub redirects: usize,
    /// How long a connection may take.
    pub connect_limit: Duration,
    /// How long nothing may arrive. There is no limit on the whole.
    pub stall_limit: Duration,
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self {
            rewrites: Vec::new(),
            proxy: None,
            no_proxy: String::new(),
            authorities: Vec::new(),
            redirects: 10,
            connect_limit: Duration::from_secs(20),
            stall_limit: Duration::from_secs(60),
        }
    }
}

impl fmt::Debug for FetchOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FetchOptions")
            .field("rewrites", &self.rewrites)
            .field("proxy", &self.proxy.as_ref().and_then(Url::host_str))
            .field("no_proxy", &self.no_proxy)
            .finish_non_exhaustive()
    }
}

/// Something that is there, whole, with a known digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Where: in the cache, or the local source itself. Must not be changed.
    pub path: PathBuf,
    /// The digest of its bytes, computed, equal to the expected one if one was given.
    pub sha256: Sha256,
    /// Its size.
    pub bytes: u64,
}

/// Called with bytes done and bytes in all, while downloading and while hashing.
pub type FetchProgress<'a> = &'a (dyn Fn(u64, Option<u64>) + Send + Sync);

/// Why the content is not what was asked for. The source of a [`Failure`]: downcast to tell it apart.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected SHA-256 {expected}, found {found}")]
pub struct DigestMismatch {
    /// What was asked for.
    pub expected: Sha256,
    /// What is there.
    pub found: Sha256,
}

/// Fetches. Cheap to clone; clones share cache and running downloads.
#[derive(Clone)]
pub struct Fetcher {
    inner: Arc<Inner>,
}

struct Inner {
    cache: Cache,
    http: Http,
    running: Mutex<HashMap<String, Weak<AsyncMutex<()>>>>,
}

impl Fetcher {
    /// A fetcher that keeps its files in `cache` (made 0700 on first use, files 0600).
    ///
    /// # Errors
    /// `Config` when the proxy or an authority cannot be used.
    pub fn new(cache: impl Into<PathBuf>, options: FetchOptions) -> Result<Self, Failure> {
        let inner =
            Inner { cache: Cache::new(cache.into()), http: Http::new(options)?, running: Mutex::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Makes the content of `source` be there. With `expected`, content that is already in the cache is used after its
    /// digest was checked; fetches of the same digest at the same time share one download.
    ///
    /// A cut download keeps its part; the next call goes on from there.
    ///
    /// # Errors
    /// `Unreachable` (retryable) when the connection fails, stalls or is cut, or the server is overloaded; `Refused`
    /// with [`DigestMismatch`] as its source when the content is wrong (the part is dropped); `Refused` for other
    /// answers; `Config` when a local file cannot be read.
    pub async fn fetch(
        &self,
        source: &Source,
        expected: Option<&Sha256>,
        progress: FetchProgress<'_>,
    ) -> Result<Fetched, Failure> {
        match source {
            Source::Path(path) => self.local(path, expected, progress).await,
            Source::Url(url) => {
                let key = expected.map_or_else(|| url.to_string(), Sha256::to_string);
                let turn = self.turn(&key);
                let _mine = turn.lock().await;
                if let Some(expected) = expected
                    && let Some(fetched) = self.inner.cache.verified(expected, progress).await?
                {
                    return Ok(fetched);
                }
                self.inner.http.download(&self.inner.cache, url, expected, progress).await
            }
        }
    }

    /// As [`Fetcher::fetch`] from the first of several addresses of the same content that has it. With `expected`, a
    /// part that one of them began is finished by the next.
    ///
    /// # Errors
    /// What went wrong with the first address, when none of them has it. `Locked` and a full disk end it at once.
    pub async fn fetch_from(
        &self,
        urls: &[Url],
        expected: Option<&Sha256>,
        progress: FetchProgress<'_>,
    ) -> Result<Fetched, Failure> {
        let mut first = None;
        for url in urls {
            match self.fetch(&Source::Url(url.clone()), expected, progress).await {
                Ok(fetched) => return Ok(fetched),
                Err(failure) if !elsewhere(&failure) => return Err(failure),
                Err(failure) => {
                    tracing::warn!(url = shown(url), %failure, "a download failed; trying the next address");
                    first.get_or_insert(failure);
                }
            }
        }
        Err(first
            .unwrap_or_else(|| Failure::new(FailureClass::Config, "there is no address to download from")))
    }

    /// The content of a small text: a checksum list, a channel's JSON. At most 4 MiB, never cached.
    ///
    /// # Errors
    /// As [`Fetcher::fetch`]; `Refused` when it is too large or not UTF-8.
    pub async fn text(&self, source: &Source) -> Result<String, Failure> {
        match source {
            Source::Url(url) => self.inner.http.text(url).await,
            Source::Path(path) => tokio::fs::read_to_string(path).await.map_err(|e| unreadable(path, e)),
        }
    }

    /// As [`Fetcher::text`], and `None` where there is no such file.
    ///
    /// # Errors
    /// As [`Fetcher::text`].
    pub async fn text_if_there(&self, source: &Source) -> Result<Option<String>, Failure> {
        match source {
            Source::Url(url) => self.inner.http.text_if_there(url).await,
            Source::Path(path) => match tokio::fs::read_to_string(path).await {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
                other => other.map(Some).map_err(|e| unreadable(path, e)),
            },
        }
    }

    /// The file with this digest, if the cache has it; not checked.
    pub fn cached(&self, sha256: &Sha256) -> Option<PathBuf> {
        Some(self.inner.cache.place(sha256)).filter(|path| path.exists())
    }

    async fn local(
        &self,
        path: &Path,
        expected: Option<&Sha256>,
        progress: FetchProgress<'_>,
    ) -> Result<Fetched, Failure> {
        let (found, bytes) = digest::of_file(path, progress).await.map_err(|e| unreadable(path, e))?;
        match expected {
            Some(expected) if *expected != found => {
                Err(mismatch(&format!("`{}`", path.display()), expected.clone(), found)
                    .hint("Correct the `sha256` that was given, or get the file again: never flash a file that differs."))
            }
            _ => Ok(Fetched { path: path.to_owned(), sha256: found, bytes }),
        }
    }

    /// One lock for everybody who wants the same content now.
    fn turn(&self, key: &str) -> Arc<AsyncMutex<()>> {
        let mut running = self.inner.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = running.get(key).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::new(AsyncMutex::new(()));
        running.insert(key.to_owned(), Arc::downgrade(&lock));
        lock
    }
}

/// Whether another address may do better.
fn elsewhere(failure: &Failure) -> bool {
    matches!(failure.class(), FailureClass::Unreachable | FailureClass::Refused | FailureClass::Auth)
}

fn mismatch(what: &str, expected: Sha256, found: Sha256) -> Failure {
    Failure::new(FailureClass::Refused, format!("{what} is not what was expected"))
        .source(DigestMismatch { expected, found })
}

fn unreadable(path: &Path, error: std::io::Error) -> Failure {
    Failure::new(FailureClass::Config, format!("cannot read `{}`", path.display())).source(error)
}
