//! Operating system images for frontends: the store of `turingpi-cluster`, opened with what only a frontend knows.

use std::path::PathBuf;

pub use turingpi_cluster::{
    fetch::{InvalidSha256, Sha256},
    images::*,
};
use turingpi_engine::{Failure, FailureClass};

use crate::Proxy;

/// What a frontend knows and a library must not look up.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ImageSettings {
    /// The folder for downloads, shared by all clusters.
    pub cache_dir: PathBuf,
    /// A person's own catalogue, laid over the built-in one.
    pub catalogue: Option<PathBuf>,
    /// What downloads go through.
    pub proxy: Proxy,
}

impl ImageSettings {
    /// Settings with a cache folder and nothing else.
    pub fn new(cache_dir: impl Into<PathBuf>) -> Self {
        Self { cache_dir: cache_dir.into(), ..Self::default() }
    }

    /// Opens the store.
    ///
    /// # Errors
    /// `Config` when the catalogue cannot be read or is wrong, or the proxy is not an address.
    pub async fn open(self) -> Result<ImageStore, Failure> {
        let mut catalogue = Catalogue::embedded()?;
        if let Some(path) = &self.catalogue {
            let wrong = || {
                Failure::new(
                    FailureClass::Config,
                    format!("cannot use the catalogue of images `{}`", path.display()),
                )
            };
            let text = tokio::fs::read_to_string(path).await.map_err(|e| wrong().source(e))?;
            catalogue = catalogue.with(Catalogue::parse(&text).map_err(|e| wrong().source(e))?);
        }
        let options = self.proxy.options()?;
        ImageStore::new(self.cache_dir, catalogue, options)
    }
}
