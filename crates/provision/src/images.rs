//! Operating system images for frontends: the store of `turingpi-cluster`, opened with what only a frontend knows.

use std::path::PathBuf;

use turingpi_cluster::FetchOptions;
pub use turingpi_cluster::{
    fetch::{InvalidSha256, Sha256},
    images::*,
};
use turingpi_engine::{Failure, FailureClass};

/// What a frontend knows and a library must not look up.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ImageSettings {
    /// The folder for downloads, shared by all clusters.
    pub cache_dir: PathBuf,
    /// A person's own catalogue, laid over the built-in one.
    pub catalogue: Option<PathBuf>,
    /// A proxy for downloads. May carry credentials, and is never shown.
    pub proxy: Option<String>,
    /// Hosts that are reached without it, as `NO_PROXY` lists them.
    pub no_proxy: String,
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
        let proxy = match &self.proxy {
            None => None,
            Some(text) => Some(text.parse().map_err(|e: url::ParseError| {
                Failure::new(FailureClass::Config, "the proxy for downloads is not an address")
                    .hint("It looks like `http://proxy.home.arpa:3128`.")
                    .source(e)
            })?),
        };
        let options = FetchOptions { proxy, no_proxy: self.no_proxy, ..FetchOptions::default() };
        ImageStore::new(self.cache_dir, catalogue, options)
    }
}
