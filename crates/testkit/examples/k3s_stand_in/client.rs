//! Calls over HTTPS: to a server that is about to be joined, and to its Kubernetes API.

use std::time::Duration;

use reqwest::{Certificate, Client, Identity};
use sha2::{Digest as _, Sha256};

fn builder() -> reqwest::ClientBuilder {
    Client::builder().no_proxy().timeout(Duration::from_secs(10)).connect_timeout(Duration::from_secs(3))
}

/// The error with its causes, on one line.
pub(crate) fn why(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    text
}

/// A client that trusts this authority only, with or without a certificate of its own.
pub(crate) fn trusting(ca: &str, identity: Option<(&str, &str)>) -> Result<Client, String> {
    let ca = Certificate::from_pem(ca.as_bytes()).map_err(|e| why(&e))?;
    let mut builder = builder().tls_certs_only([ca]);
    if let Some((certificate, key)) = identity {
        let pem = format!("{certificate}{key}");
        builder = builder.identity(Identity::from_pem(pem.as_bytes()).map_err(|e| why(&e))?);
    }
    builder.build().map_err(|e| why(&e))
}

/// What a token says: which authority to expect, who asks, and the password.
pub(crate) struct Token {
    pub(crate) hash: Option<String>,
    pub(crate) user: String,
    pub(crate) password: String,
}

impl Token {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let Some((hash, rest)) = text.strip_prefix("K10").and_then(|t| t.split_once("::")) else {
            return Ok(Self { hash: None, user: "node".to_owned(), password: text.to_owned() });
        };
        if hash.len() != 64 {
            return Err("invalid token CA hash length".to_owned());
        }
        let (user, password) = rest.split_once(':').ok_or("invalid token format")?;
        Ok(Self { hash: Some(hash.to_owned()), user: user.to_owned(), password: password.to_owned() })
    }
}

/// The authority of the cluster at `url`, checked against what the token expects.
pub(crate) async fn cluster_ca(url: &str, token: &Token) -> Result<String, String> {
    // Nothing is known of the server yet: what it says is believed only as far as the token pins it.
    let client = builder().tls_danger_accept_invalid_certs(true).build().map_err(|e| why(&e))?;
    let answer = client.get(format!("{url}/cacerts")).send().await;
    let failed = |e: reqwest::Error| format!("failed to get CA certs: Get \"{url}/cacerts\": {}", why(&e));
    let ca = answer.map_err(failed)?.text().await.map_err(failed)?;
    let found = hex::encode(Sha256::digest(ca.as_bytes()));
    match &token.hash {
        Some(expected) if *expected != found => Err(format!(
            "token CA hash does not match the Cluster CA certificate hash: {expected} != {found}"
        )),
        _ => Ok(ca),
    }
}
