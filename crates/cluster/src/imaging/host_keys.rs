//! Host keys around a flash: what a node was known by, and pinning what it is known by now.

use std::path::PathBuf;

use async_trait::async_trait;
use turingpi_engine::{Failure, FailureClass};
use turingpi_ssh::{HostKey, KnownHosts, SshError, SshTarget, Verdict};

/// Where host keys are remembered. Only a flash of ours may make one be forgotten.
#[async_trait]
pub trait HostKeys: Send + Sync {
    /// Whether `target` is known by one of `keys`; `None` when it is not known at all.
    async fn recognises(&self, target: &SshTarget, keys: &[HostKey]) -> Result<Option<bool>, Failure>;
    /// Makes `keys` the only ones that `target` is known by.
    async fn replace(&self, target: &SshTarget, keys: &[HostKey]) -> Result<(), Failure>;
}

/// A known-hosts file.
#[derive(Debug, Clone)]
pub struct KnownHostsFile {
    path: PathBuf,
}

impl KnownHostsFile {
    /// The file at `path`, the one the connector reads and appends to. It need not exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(PathBuf) -> Result<T, SshError> + Send + 'static,
    ) -> Result<T, Failure> {
        let path = self.path.clone();
        let failed = || {
            Failure::new(
                FailureClass::Config,
                format!("cannot use the known-hosts file `{}`", self.path.display()),
            )
        };
        match tokio::task::spawn_blocking(move || work(path)).await {
            Ok(result) => result.map_err(|e| failed().source(e)),
            Err(e) => Err(failed().source(e)),
        }
    }
}

#[async_trait]
impl HostKeys for KnownHostsFile {
    async fn recognises(&self, target: &SshTarget, keys: &[HostKey]) -> Result<Option<bool>, Failure> {
        let (host, port) = target.known_as();
        let (host, keys) = (host.to_owned(), keys.to_vec());
        self.with(move |path| {
            if !path.exists() {
                return Ok(None);
            }
            let known = KnownHosts::load(&path)?;
            if known.key_types(&host, port).is_empty() {
                return Ok(None);
            }
            Ok(Some(keys.iter().any(|key| known.lookup(&host, port, key) == Verdict::Known)))
        })
        .await
    }

    async fn replace(&self, target: &SshTarget, keys: &[HostKey]) -> Result<(), Failure> {
        let (host, port) = target.known_as();
        let (host, keys) = (host.to_owned(), keys.to_vec());
        self.with(move |path| {
            if path.exists() {
                KnownHosts::forget(&path, &host, port)?;
            }
            keys.iter().try_for_each(|key| KnownHosts::append(&path, &host, port, key))
        })
        .await
    }
}
