//! A kube-rs client over TLS that trusts exactly the kubeconfig's authority.
//!
//! kube's own constructor reads proxies from the environment, retries by itself and installs a process-wide crypto
//! provider. None of that belongs into a library, so the stack is put together here.

use std::{sync::Arc, time::Duration};

use http::Uri;
use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use kube::client::{Body, Client, middleware::BaseUriLayer};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{
        CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer, ServerName,
        pem::PemObject,
    },
};
use secrecy::ExposeSecret;
use tower::ServiceBuilder;
use turingpi_engine::{Failure, FailureClass};

use super::kubeconfig::Endpoint;

/// How long a TCP connection may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Connects lazily: nothing is sent before the first call. `dial` is where the API really answers (`host:port`), when
/// that differs from the kubeconfig's address; the certificate is still checked for the kubeconfig's name.
pub(super) fn client(endpoint: &Endpoint, dial: Option<&str>) -> Result<Client, Failure> {
    let wrong = |text: String| Failure::new(FailureClass::Config, text);
    let server: Uri = endpoint.server.parse().map_err(|e| {
        wrong(format!("`{}` is not the address of a Kubernetes API", endpoint.server)).source(e)
    })?;
    let host = server.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    if server.scheme_str() != Some("https") || host.is_empty() {
        return Err(wrong(format!("`{}` is not the address of a Kubernetes API", endpoint.server))
            .hint("It must begin with `https://`."));
    }
    let base: Uri = match dial {
        Some(dial) => format!("https://{dial}{}", server.path())
            .parse()
            .map_err(|e| wrong(format!("`{dial}` is not `host:port`")).source(e))?,
        None => server.clone(),
    };
    let checked = endpoint.tls_server_name.clone().unwrap_or(host);
    let name = ServerName::try_from(checked.clone())
        .map_err(|e| wrong(format!("`{checked}` cannot stand in a certificate")).source(e))?;

    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_connect_timeout(Some(CONNECT_LIMIT));
    http.set_nodelay(true);
    let https = HttpsConnectorBuilder::new()
        .with_tls_config(tls(endpoint)?)
        .https_only()
        .with_server_name_resolver(FixedServerNameResolver::new(name))
        .enable_http1()
        .wrap_connector(http);
    let http = HttpClient::builder(TokioExecutor::new()).build::<_, Body>(https);
    let service = ServiceBuilder::new().layer(BaseUriLayer::new(base)).service(http);
    Ok(Client::new(service, "default"))
}

fn tls(endpoint: &Endpoint) -> Result<ClientConfig, Failure> {
    let wrong =
        |what: &str| Failure::new(FailureClass::Config, format!("cannot use the kubeconfig's {what}"));
    let authority = endpoint.authority_pem.as_deref().ok_or_else(|| {
        wrong("cluster: it has no `certificate-authority-data`")
            .hint("Fetch the kubeconfig from the cluster again.")
    })?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority) {
        let certificate = certificate.map_err(|e| wrong("CA").source(e))?;
        roots.add(certificate).map_err(|e| wrong("CA").source(e))?;
    }
    if roots.is_empty() {
        return Err(wrong("CA: it holds no certificate"));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Failure::new(FailureClass::Unexpected, "cannot set up TLS").source(e))?
        .with_root_certificates(roots);
    match (&endpoint.client_certificate_pem, &endpoint.client_key_pem) {
        (Some(chain), Some(key)) => {
            let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
                .collect::<Result<_, _>>()
                .map_err(|e| wrong("client certificate").source(e))?;
            let key = private_key(key.expose_secret()).ok_or_else(|| wrong("client key"))?;
            builder.with_client_auth_cert(chain, key).map_err(|e| wrong("client certificate").source(e))
        }
        _ => Ok(builder.with_no_client_auth()),
    }
}

/// Reads a key by its PEM label. Talos writes `ED25519 PRIVATE KEY` around PKCS#8, which rustls's own reader skips.
fn private_key(pem: &[u8]) -> Option<PrivateKeyDer<'static>> {
    for block in x509_parser::pem::Pem::iter_from_buffer(pem).flatten() {
        match block.label.as_str() {
            "PRIVATE KEY" | "ED25519 PRIVATE KEY" => {
                return Some(PrivatePkcs8KeyDer::from(block.contents).into());
            }
            "EC PRIVATE KEY" => return Some(PrivateSec1KeyDer::from(block.contents).into()),
            "RSA PRIVATE KEY" => return Some(PrivatePkcs1KeyDer::from(block.contents).into()),
            _ => {}
        }
    }
    None
}
