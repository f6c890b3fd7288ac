//! Whom the client believes.

use crate::server::{PASSWORD, Server};
use secrecy::SecretString;
use turingpi_bmc::{BmcClient, BmcError, Fingerprint, HttpBmcClient, Trust, probe_fingerprint};

fn client(server: &Server, trust: Trust) -> HttpBmcClient {
    let credentials = SecretString::from(PASSWORD);
    HttpBmcClient::builder(server.url.clone()).credentials("root", credentials).trust(trust).build().unwrap()
}

#[tokio::test]
async fn the_pinned_certificate_is_accepted_though_it_is_expired_and_names_nobody() {
    let server = Server::start().await;
    let about = client(&server, Trust::Pin(server.fingerprint)).about().await.unwrap();
    assert_eq!(about.version.to_string(), "2.3.4");
}

#[tokio::test]
async fn another_certificate_is_refused_before_anything_is_sent() {
    let server = Server::start().await;
    let pinned = Fingerprint::of_der(b"another certificate");
    let error = client(&server, Trust::Pin(pinned)).about().await.unwrap_err();
    let BmcError::Tls { expected, found, .. } = &error else { panic!("{error:?}") };
    assert_eq!((*expected, *found), (Some(pinned), Some(server.fingerprint)));
    let text = error.to_string();
    assert!(text.contains(&pinned.to_string()) && text.contains(&server.fingerprint.to_string()), "{text}");
    assert!(server.seen().is_empty());
    assert!(!error.is_transient());
}

#[tokio::test]
async fn the_first_use_is_decided_by_the_observer_and_pinned_for_the_life_of_the_client() {
    let server = Server::start().await;
    let asked = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let observer = asked.clone();
    let client = client(
        &server,
        Trust::first_use(move |fingerprint| {
            observer.lock().unwrap().push(*fingerprint);
            true
        }),
    );
    client.about().await.unwrap();
    // A second connection: the observer is not asked again.
    server.script("type=power", crate::server::Answer::Close, 1);
    client.power().await.unwrap_err();
    client.about().await.unwrap();
    assert_eq!(*asked.lock().unwrap(), [server.fingerprint]);
    assert_eq!(client.fingerprint(), Some(server.fingerprint));
    assert_eq!(server.state.lock().unwrap().connections, 2);
}

#[tokio::test]
async fn a_first_use_the_observer_refuses_sends_nothing() {
    let server = Server::start().await;
    let error = client(&server, Trust::first_use(|_| false)).about().await.unwrap_err();
    let BmcError::Tls { expected: None, found: Some(found), .. } = error else { panic!("{error:?}") };
    assert_eq!(found, server.fingerprint);
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn an_installed_certificate_is_checked_against_its_authority_and_name() {
    let server = Server::named("localhost").await;
    let mut url = server.url.clone();
    let build = |url: url::Url| {
        HttpBmcClient::builder(url)
            .credentials("root", SecretString::from(PASSWORD))
            .trust(Trust::Authority(server.certificate_pem.clone()))
            .build()
            .unwrap()
    };
    let error = build(url.clone()).about().await.unwrap_err();
    assert!(matches!(error, BmcError::Tls { expected: None, found: Some(_), .. }), "{error:?}");
    url.set_host(Some("localhost")).unwrap();
    build(url).about().await.unwrap();
}

#[tokio::test]
async fn the_fingerprint_is_probed_without_a_request() {
    let server = Server::start().await;
    assert_eq!(probe_fingerprint(&server.url).await.unwrap(), server.fingerprint);
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_peer_that_does_not_hold_the_certificates_key_is_refused() {
    // The handshake is signed with another key than the certificate's.
    let shown = rcgen::generate_simple_self_signed(vec!["bmc".to_owned()]).unwrap();
    let other = rcgen::KeyPair::generate().unwrap();
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let key = rustls::pki_types::PrivateKeyDer::try_from(other.serialize_der()).unwrap();
    let key = provider.key_provider.load_private_key(key).unwrap();
    let certified = rustls::sign::CertifiedKey::new(vec![shown.cert.der().clone()], key);
    let config = rustls::ServerConfig::builder_with_provider(std::sync::Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(std::sync::Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = url::Url::parse(&format!("https://{}", listener.local_addr().unwrap())).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let _ = acceptor.accept(socket).await;
        }
    });
    let error = probe_fingerprint(&url).await.unwrap_err();
    assert!(matches!(error, BmcError::Tls { .. }), "{error:?}");
    let client = HttpBmcClient::builder(url)
        .trust(Trust::Pin(Fingerprint::of_der(shown.cert.der())))
        .credentials("root", SecretString::from(PASSWORD))
        .build()
        .unwrap();
    let error = client.about().await.unwrap_err();
    assert!(matches!(error, BmcError::Tls { .. }), "{error:?}");
}

#[tokio::test]
async fn a_peer_without_tls_is_an_error_of_tls() {
    use tokio::io::AsyncWriteExt;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let error = probe_fingerprint(&url).await.unwrap_err();
    assert!(matches!(error, BmcError::Tls { expected: None, found: None, .. }), "{error:?}");
}

#[test]
fn https_without_trust_and_urls_that_are_none_of_a_bmc_are_refused() {
    let build = |url: &str| HttpBmcClient::builder(url.parse().unwrap()).build().unwrap_err().to_string();
    assert!(build("https://10.10.88.70").contains("which certificate to trust"));
    assert!(build("ftp://10.10.88.70").contains("`ftp`"));
    let secret =
        HttpBmcClient::builder("https://root:hunter2@10.10.88.70".parse().unwrap()).build().unwrap_err();
    assert!(!format!("{secret} {secret:?}").contains("hunter2"));
}

#[test]
fn fingerprints_are_read_in_every_usual_form() {
    let fingerprint = Fingerprint::of_der(b"x");
    let shown = fingerprint.to_string();
    assert_eq!(shown.len(), 95);
    for form in [
        shown.clone(),
        shown.replace(':', "").to_lowercase(),
        format!("SHA256:{}", shown.to_lowercase()),
        format!("sha256 Fingerprint={shown}"),
    ] {
        assert_eq!(form.parse::<Fingerprint>().unwrap(), fingerprint, "{form}");
    }
    for bad in ["", "AB:CD", &"G".repeat(64), &"é".repeat(40)] {
        bad.parse::<Fingerprint>().unwrap_err();
    }
}
