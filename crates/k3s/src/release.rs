//! Releases of k3s: file names, addresses, checksums, and getting them once for all nodes.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::sync::Mutex;
use turingpi_cluster::{
    Arch,
    fetch::{Fetcher, Sha256, Source},
    fetch_again,
};
use turingpi_engine::{Failure, FailureClass, StepContext, Unit};

use crate::{InstallMode, K3sSpec, K3sVersion};

/// Files of one release for one architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReleaseFiles {
    pub(crate) binary: String,
    pub(crate) checksums: String,
    /// Container images, by preference: zstd is the smallest.
    pub(crate) images: [String; 3],
}

impl ReleaseFiles {
    /// # Errors
    /// `Refused` for an architecture k3s has no release for.
    pub(crate) fn of(arch: &Arch) -> Result<Self, Failure> {
        let suffix = match arch {
            Arch::Arm64 => "-arm64",
            Arch::Amd64 => "",
            other => {
                return Err(Failure::new(
                    FailureClass::Refused,
                    format!("there is no k3s for the architecture {other}"),
                )
                .hint("Use arm64 or amd64 hosts."));
            }
        };
        let images = ["tar.zst", "tar.gz", "tar"].map(|end| format!("k3s-airgap-images-{arch}.{end}"));
        Ok(Self { binary: format!("k3s{suffix}"), checksums: format!("sha256sum-{arch}.txt"), images })
    }
}

/// The releases of one spec. Clones share what was read.
#[derive(Clone)]
pub(crate) struct Releases {
    inner: Arc<Inner>,
}

struct Inner {
    fetcher: Fetcher,
    install: InstallMode,
    base: String,
    checksums: Mutex<BTreeMap<String, String>>,
}

impl Releases {
    pub(crate) fn new(spec: &K3sSpec, fetcher: Fetcher) -> Self {
        let base = spec.releases_url.trim_end_matches('/').to_owned();
        let install = spec.install.clone();
        Self { inner: Arc::new(Inner { fetcher, install, base, checksums: Mutex::default() }) }
    }

    pub(crate) fn fetcher(&self) -> &Fetcher {
        &self.inner.fetcher
    }

    pub(crate) fn install(&self) -> &InstallMode {
        &self.inner.install
    }

    /// The address of a file. The `+` of a tag stays as it is.
    pub(crate) fn url(&self, version: &K3sVersion, file: &str) -> String {
        format!("{}/download/{version}/{file}", self.inner.base)
    }

    fn source(&self, version: &K3sVersion, file: &str) -> Result<Source, Failure> {
        match &self.inner.install {
            InstallMode::Airgap { folder } => Ok(Source::Path(folder.join(file))),
            InstallMode::Upload | InstallMode::Node => {
                let url = self.url(version, file);
                url.parse().map_err(|e: turingpi_cluster::fetch::InvalidSource| {
                    Failure::new(FailureClass::Config, format!("`{url}` is not an address"))
                        .source(e)
                        .hint("Check `k3s.releases-url`.")
                })
            }
        }
    }

    /// The digest the release promises for `file`.
    pub(crate) async fn digest(
        &self,
        version: &K3sVersion,
        arch: &Arch,
        file: &str,
    ) -> Result<Sha256, Failure> {
        let list = ReleaseFiles::of(arch)?.checksums;
        let source = self.source(version, &list)?;
        let key = format!("{version}/{list}");
        let mut known = self.inner.checksums.lock().await;
        let text = match known.get(&key) {
            Some(text) => text,
            None => {
                let text = self.inner.fetcher.text(&source).await?;
                known.entry(key).or_insert(text)
            }
        };
        Sha256::find(text, file).ok_or_else(|| {
            Failure::new(
                FailureClass::Refused,
                format!("`{list}` of k3s {version} has no checksum for `{file}`"),
            )
            .hint("Check that the version exists, and that the mirror or folder has all of its files.")
        })
    }

    /// A verified local copy of `file`, with its digest.
    pub(crate) async fn file(
        &self,
        version: &K3sVersion,
        arch: &Arch,
        file: &str,
        cx: &StepContext,
    ) -> Result<(PathBuf, Sha256), Failure> {
        let digest = self.digest(version, arch, file).await?;
        let source = self.source(version, file)?;
        let progress = |done: u64, total: Option<u64>| cx.progress(done, total, Unit::Bytes);
        let fetched = fetch_again(&self.inner.fetcher, &source, Some(&digest), &progress, cx).await?;
        Ok((fetched.path, digest))
    }

    /// The archive of container images in the air-gap folder; `None` when k3s is not installed from a folder.
    pub(crate) fn images(&self, arch: &Arch) -> Result<Option<String>, Failure> {
        let InstallMode::Airgap { folder } = &self.inner.install else { return Ok(None) };
        let names = ReleaseFiles::of(arch)?.images;
        let there = names.iter().find(|name| Path::new(folder).join(name).is_file());
        there.cloned().map(Some).ok_or_else(|| {
            Failure::new(
                FailureClass::Config,
                format!("there are no container images for {arch} in {}", folder.display()),
            )
            .hint(format!("Put one of {} there.", names.join(", ")))
        })
    }
}
