//! Where the cluster's kubeconfig goes.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use turingpi_cluster::kube::{Kubeconfig, MergeOptions};
use turingpi_engine::{Failure, FailureClass};

/// Takes the cluster's kubeconfig. Its entries are named like the cluster.
#[async_trait]
pub trait KubeconfigSink: Send + Sync {
    /// Where it goes, for people: a path, or a name for it.
    fn place(&self) -> String;
    /// Whether `config` is there already.
    async fn is_current(&self, config: &Kubeconfig) -> Result<bool, Failure>;
    /// Puts it there.
    async fn save(&self, config: &Kubeconfig) -> Result<(), Failure>;
    /// Takes away the entries of the cluster `name`. Nothing there is fine.
    async fn remove(&self, name: &str) -> Result<(), Failure>;
}

/// A kubeconfig file: a new one, or one with other clusters in it, which stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubeconfigFile {
    path: PathBuf,
    shown: Option<String>,
    set_current: bool,
    ours_alone: bool,
}

impl KubeconfigFile {
    /// The file at `path`. Its current context is left alone unless there is none.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), shown: None, set_current: false, ours_alone: false }
    }
    /// Calls the file `name` in plans, which are the same then wherever it lies and however its path is written.
    #[must_use]
    pub fn shown_as(mut self, name: impl Into<String>) -> Self {
        self.shown = Some(name.into());
        self
    }
    /// Nobody else keeps anything in the file: one that cannot be read is written anew, or removed.
    #[must_use]
    pub fn ours_alone(mut self) -> Self {
        self.ours_alone = true;
        self
    }
    /// Makes the cluster's context the current one.
    #[must_use]
    pub fn set_current(mut self) -> Self {
        self.set_current = true;
        self
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(|e| {
        Failure::new(FailureClass::Unexpected, "the kubeconfig file's task ended early").source(e)
    })?
}

/// Whether merging `config` into `path` would change nothing: tried on a copy.
fn is_in(config: &Kubeconfig, path: &Path) -> Result<bool, Failure> {
    let unexpected = |e: std::io::Error| {
        Failure::new(
            FailureClass::Unexpected,
            format!("cannot compare the kubeconfig with {}", path.display()),
        )
        .source(e)
    };
    if !path.exists() {
        return Ok(false);
    }
    // A private folder (0700): the copy holds the credentials of every cluster in it.
    let folder = tempfile::tempdir().map_err(unexpected)?;
    let copy = folder.path().join("config");
    std::fs::copy(path, &copy).map_err(unexpected)?;
    Ok(!config.merge_into_file(&copy, MergeOptions::default())?.changed)
}

#[async_trait]
impl KubeconfigSink for KubeconfigFile {
    fn place(&self) -> String {
        self.shown.clone().unwrap_or_else(|| self.path.display().to_string())
    }

    async fn is_current(&self, config: &Kubeconfig) -> Result<bool, Failure> {
        let (path, config) = (self.path.clone(), config.clone());
        blocking(move || is_in(&config, &path)).await
    }

    async fn save(&self, config: &Kubeconfig) -> Result<(), Failure> {
        let (path, config) = (self.path.clone(), config.clone());
        let (options, anew) = (MergeOptions { set_current: self.set_current }, self.ours_alone);
        blocking(move || match config.merge_into_file(&path, options) {
            Err(_) if anew => config.write_file(&path),
            merged => merged.map(drop),
        })
        .await
    }

    async fn remove(&self, name: &str) -> Result<(), Failure> {
        let (path, name, whole) = (self.path.clone(), name.to_owned(), self.ours_alone);
        blocking(move || match Kubeconfig::remove_from_file(&path, &name) {
            Err(failure) if whole => std::fs::remove_file(&path).map_err(|_| failure),
            removed => removed.map(drop),
        })
        .await
    }
}
