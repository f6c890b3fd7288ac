//! The proxy between this machine and the places things are downloaded from. Boards and nodes are never asked through it.

use std::fmt;

use turingpi_cluster::FetchOptions;
use turingpi_engine::{Failure, FailureClass};

/// A proxy for downloads, as people write it down. Libraries do not read `HTTPS_PROXY`: a frontend does.
#[derive(Clone, Default)]
pub struct Proxy {
    /// Its address: `http://proxy.home.arpa:3128`. May carry credentials, and is never shown.
    pub address: Option<String>,
    /// Hosts that are reached without it, as `NO_PROXY` lists them.
    pub except: String,
}

impl Proxy {
    /// How downloads are made with it.
    ///
    /// # Errors
    /// `Config` when it is not an address.
    pub(crate) fn options(&self) -> Result<FetchOptions, Failure> {
        let parse = |text: &String| {
            text.parse().map_err(|e: url::ParseError| {
                Failure::new(FailureClass::Config, "the proxy for downloads is not an address")
                    .hint("It looks like `http://proxy.home.arpa:3128`: see `HTTPS_PROXY` and `ALL_PROXY`.")
                    .source(e)
            })
        };
        let proxy = self.address.as_ref().map(parse).transpose()?;
        Ok(FetchOptions { proxy, no_proxy: self.except.clone(), ..FetchOptions::default() })
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.address.as_ref().map(|_| "given");
        f.debug_struct("Proxy").field("address", &address).field("except", &self.except).finish()
    }
}
