//! Logins, tokens, bans and certificates, through the door.

use std::time::Duration;

use turingpi_testkit::{BoardPlan, CertificateKey, Firmware};

use crate::support::{Bench, Reply, reply, tls_with};

const POWER: &str = "/api/bmc?opt=get&type=power";

async fn with_token(bench: &Bench, token: &str) -> Reply {
    reply(bench.http.get(bench.url(POWER)).bearer_auth(token).send().await.unwrap()).await.unwrap()
}
async fn log_in(bench: &Bench, password: &str) -> Reply {
    let body = format!(r#"{{"username":"root","password":"{password}"}}"#);
    reply(bench.http.post(bench.url("/api/bmc/authenticate")).body(body).send().await.unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_token_expires_after_three_idle_hours_and_is_then_unknown() {
    let bench = Bench::start(BoardPlan::new("b")).await;
    let token = bench.login().await;
    bench.view.clock().advance(Duration::from_secs(10_000));
    assert_eq!(with_token(&bench, &token).await.status, 200);
    bench.view.clock().advance(Duration::from_secs(10_000));
    assert_eq!(with_token(&bench, &token).await.status, 200, "its life slides with its use");
    bench.view.clock().advance(Duration::from_secs(10_920));
    let expired = with_token(&bench, &token).await;
    assert_eq!(expired.status, 401);
    assert!(expired.body.starts_with("token expired 3h 2m "), "{}", expired.body);
    assert!(expired.body.ends_with(" ago"), "{}", expired.body);
    assert_eq!(with_token(&bench, &token).await.body, format!("token {token} is not registered"));
}

#[tokio::test]
async fn the_ban_doubles_with_each_failure_after_it_and_a_success_clears_it() {
    let bench = Bench::start(BoardPlan::new("b")).await;
    for _ in 0..4 {
        assert_eq!(log_in(&bench, "wrong").await.body, "credentials incorrect");
    }
    for (minutes, text) in [(1, "59s "), (2, "1m 59s "), (4, "3m 59s ")] {
        log_in(&bench, "wrong").await;
        let banned = log_in(&bench, "turing").await;
        assert_eq!(banned.status, 403);
        let start = format!("Exceeded allowed authentication attempts. Access blocked for {text}");
        assert!(banned.body.starts_with(&start), "{}", banned.body);
        bench.view.clock().advance(Duration::from_secs(60 * minutes));
    }
    assert_eq!(log_in(&bench, "turing").await.status, 200);
    assert_eq!(log_in(&bench, "wrong").await.body, "credentials incorrect");
}

#[tokio::test]
async fn stale_tokens_ban_the_caller_and_a_request_without_a_header_is_never_counted() {
    let bench = Bench::start(BoardPlan::new("b")).await;
    for _ in 0..20 {
        let answer = bench.http.get(bench.url(POWER)).send().await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.headers().get("content-type")), (401, None));
    }
    for _ in 0..4 {
        assert_eq!(with_token(&bench, "stale").await.body, "token stale is not registered");
    }
    assert!(with_token(&bench, "stale").await.body.starts_with("Exceeded allowed"));
    assert_eq!(bench.get(POWER).await.status, 401, "valid credentials too");
}

#[tokio::test]
async fn a_restart_of_the_daemon_forgets_tokens_bans_and_the_job() {
    let bench = Bench::start(BoardPlan::new("b")).await;
    let token = bench.login().await;
    bench.get("/api/bmc/upload/0/cancel").await;
    bench.view.ban("127.0.0.1".parse().unwrap(), Duration::from_secs(60));
    assert!(with_token(&bench, &token).await.body.starts_with("Exceeded"));
    bench.view.restart_daemon();
    bench.until("the daemon to go down", || bench.job() == "Ready").await;
    bench.until("the daemon to come back", || bench.view.is_up()).await;
    assert_eq!(with_token(&bench, &token).await.body, format!("token {token} is not registered"));
    assert_eq!(bench.get(POWER).await.status, 200);
}

#[tokio::test]
async fn loopback_is_trusted_only_when_asked_for() {
    let bench = Bench::start(BoardPlan::new("b").trust_loopback()).await;
    let answer = bench.http.get(bench.url(POWER)).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let login = log_in(&bench, "turing").await;
    assert_eq!((login.status, login.content_type.as_deref()), (200, Some("text/html")));
}

#[tokio::test]
async fn credentials_are_the_plans() {
    let bench = Bench::start(BoardPlan::new("b").credentials("admin", "s3cret \"x\"")).await;
    assert_eq!(bench.get(POWER).await.status, 200);
    assert_eq!(log_in(&bench, "turing").await.status, 403);
    let plan = format!("{:?}", BoardPlan::new("b").credentials("admin", "s3cret"));
    assert!(!plan.contains("s3cret"), "{plan}");
    assert!(!format!("{:?}", bench.view).contains("s3cret"));
}

#[tokio::test]
async fn the_journal_keeps_requests_but_no_credentials() {
    let bench = Bench::start(BoardPlan::new("b")).await;
    let token = bench.login().await;
    with_token(&bench, &token).await;
    let requests = bench.view.requests();
    assert_eq!(requests[0].line(), "POST /api/bmc/authenticate");
    assert_eq!((requests[1].line(), requests[1].status), (format!("GET {POWER}"), Some(200)));
    let header = requests[1].headers.iter().find(|(name, _)| name == "authorization").unwrap();
    assert_eq!(header.1, "Bearer");
    assert!(!format!("{requests:?}").contains(&token));
}

/// The certificate and the protocol that a handshake with these versions gives.
async fn handshake(
    bench: &Bench,
    version: &'static rustls::SupportedProtocolVersion,
) -> std::io::Result<(Vec<u8>, Option<Vec<u8>>)> {
    let stream = tls_with(&bench.view.url(), version, &[b"h2", b"http/1.1"]).await?;
    let session = stream.get_ref().1;
    let certificate = session.peer_certificates().unwrap()[0].to_vec();
    Ok((certificate, session.alpn_protocol().map(<[u8]>::to_vec)))
}

#[tokio::test]
async fn the_certificate_is_self_signed_without_a_host_name_and_tls_is_1_2_only() {
    for key in [CertificateKey::Ecdsa, CertificateKey::Rsa] {
        let bench = Bench::start(BoardPlan::new("b").certificate_key(key)).await;
        let (der, protocol) = handshake(&bench, &rustls::version::TLS12).await.unwrap();
        assert_eq!(protocol.as_deref(), Some(&b"h2"[..]));
        assert_eq!(bench.view.fingerprint().unwrap(), {
            use sha2::Digest as _;
            hex::encode(sha2::Sha256::digest(&der))
        });
        let (_, certificate) = x509_parser::parse_x509_certificate(&der).unwrap();
        assert_eq!(certificate.subject().to_string(), "CN=Turing-Pi self signed");
        assert_eq!(certificate.issuer(), certificate.subject());
        assert!(certificate.is_ca());
        assert!(certificate.subject_alternative_name().unwrap().is_none());
        assert!(handshake(&bench, &rustls::version::TLS13).await.is_err());
    }
}

#[tokio::test]
async fn a_certificate_stays_for_the_boards_life_and_changes_only_on_demand() {
    let bench = Bench::start(BoardPlan::new("b")).await;
    let before = handshake(&bench, &rustls::version::TLS12).await.unwrap().0;
    assert_eq!(handshake(&bench, &rustls::version::TLS12).await.unwrap().0, before);
    bench.view.replace_certificate().unwrap();
    assert_ne!(handshake(&bench, &rustls::version::TLS12).await.unwrap().0, before);
}

#[tokio::test]
async fn http_2_is_served_as_well() {
    let bench = Bench::start(BoardPlan::new("b")).await;
    let http2 = reqwest::Client::builder().danger_accept_invalid_certs(true).no_proxy().build().unwrap();
    let answer = http2.get(bench.url(POWER)).basic_auth("root", Some("turing")).send().await.unwrap();
    assert_eq!((answer.version(), answer.status().as_u16()), (reqwest::Version::HTTP_2, 200));
    let handle = bench.start_job("type=flash&node=0&file=a.img&length=500000").await;
    let form =
        reqwest::multipart::Form::new().part("file", reqwest::multipart::Part::bytes(vec![7; 500_000]));
    let upload = http2.post(bench.url(&format!("/api/bmc/upload/{handle}"))).multipart(form);
    let answer = upload.basic_auth("root", Some("turing")).send().await.unwrap();
    assert_eq!((answer.version(), answer.status().as_u16()), (reqwest::Version::HTTP_2, 200));
    bench.job_is("Done").await;
    assert_eq!(bench.module(1).emmc(), vec![7; 500_000]);
}

#[tokio::test]
async fn firmware_1_1_0_has_neither_tls_nor_login() {
    let bench = Bench::start(BoardPlan::new("b").firmware(Firmware::V1_1_0)).await;
    assert!(bench.view.url().starts_with("http://"));
    assert_eq!(bench.view.fingerprint(), None);
    assert_eq!(bench.http.get(bench.url(POWER)).send().await.unwrap().status(), 200);
}
