//! Where a BMC's API is.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use url::{Host, Url};

use crate::BmcError;

/// A BMC's URL, taken apart once.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    host: String,
    port: u16,
    encrypted: bool,
    base: String,
    authority: String,
    server_name: ServerName<'static>,
}

impl Place {
    /// `https://10.10.88.70`, with a port and a path if need be. `/api/bmc` is added to a path without it.
    pub(crate) fn new(url: &Url) -> Result<Self, BmcError> {
        let setup = |problem: String| BmcError::Setup { problem };
        let encrypted = match url.scheme() {
            "https" => true,
            "http" => false,
            other => return Err(setup(format!("`{other}` is no scheme of a BMC's URL: use https"))),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(setup("the URL carries credentials: give them apart from it".to_owned()));
        }
        let host = url.host().ok_or_else(|| setup(format!("`{url}` names no host")))?;
        let (dial, server_name) = match host {
            Host::Domain(name) => (
                name.to_owned(),
                ServerName::try_from(name.to_owned())
                    .map_err(|_| setup(format!("`{name}` is no host name")))?,
            ),
            Host::Ipv4(ip) => (ip.to_string(), ServerName::from(std::net::IpAddr::from(ip))),
            Host::Ipv6(ip) => (ip.to_string(), ServerName::from(std::net::IpAddr::from(ip))),
        };
        let port = url.port_or_known_default().unwrap_or(if encrypted { 443 } else { 80 });
        let authority = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_string(),
        };
        let path = url.path().trim_end_matches('/');
        let base = if path.ends_with("/api/bmc") { path.to_owned() } else { format!("{path}/api/bmc") };
        Ok(Self { host: dial, port, encrypted, base, authority, server_name })
    }

    pub(crate) fn encrypted(&self) -> bool {
        self.encrypted
    }
    pub(crate) fn dial(&self) -> (&str, u16) {
        (&self.host, self.port)
    }
    pub(crate) fn server_name(&self) -> ServerName<'static> {
        self.server_name.clone()
    }
    /// The `Host` header.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }
    /// For people: the host, with its port where that is unusual.
    pub(crate) fn name(&self) -> Arc<str> {
        Arc::from(self.authority.as_str())
    }
    /// The path of the API, `/api/bmc`.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }
}
