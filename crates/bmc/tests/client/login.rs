//! Login, tokens and what happens when they are refused.

use std::time::Duration;

use crate::server::{Answer, Logins, OK, PASSWORD, Server};
use turingpi_bmc::{AuthReason, BmcClient, BmcError, PerSlot, Power, Slot};

#[tokio::test]
async fn the_client_logs_in_once_and_keeps_one_connection() {
    let server = Server::start().await;
    let client = server.client();
    assert!(server.seen().is_empty(), "nothing is sent before the first call");
    for _ in 0..5 {
        client.about().await.unwrap();
    }
    client.reset(Slot::ALL[2]).await.unwrap();
    assert_eq!(server.count("POST /api/bmc/authenticate"), 1);
    assert_eq!(server.state.lock().unwrap().connections, 1);
    assert_eq!(server.lines().last().unwrap(), "GET /api/bmc?opt=set&type=reset&node=2");
}

#[tokio::test]
async fn calls_of_several_tasks_wait_for_each_other() {
    let server = Server::start().await;
    let client = server.client();
    let calls = (0..8).map(|_| {
        let client = client.clone();
        async move { client.about().await.unwrap() }
    });
    futures::future::join_all(calls).await;
    assert_eq!(server.count("POST /api/bmc/authenticate"), 1);
    assert_eq!(server.state.lock().unwrap().connections, 1, "two at a time would need two connections");
}

#[tokio::test]
async fn a_wrong_password_is_final_and_is_sent_once() {
    let server = Server::start().await;
    let client = server.client_with(crate::server::timeouts(), "hunter2");
    for _ in 0..3 {
        let error = client.power().await.unwrap_err();
        assert!(matches!(error, BmcError::Auth { reason: AuthReason::Wrong, .. }), "{error:?}");
        assert!(!error.is_transient());
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
    client.clone().about().await.unwrap_err();
    assert_eq!(server.lines(), ["POST /api/bmc/authenticate"]);
    assert!(!format!("{client:?}").contains("hunter2"));
}

#[tokio::test]
async fn a_block_tells_how_long_to_wait_and_is_not_final() {
    let server = Server::start().await;
    let text = "Exceeded allowed authentication attempts. Access blocked for 59s 999ms 925us 221ns";
    server.set(|state| state.logins = Logins::Refused(text.to_owned()));
    let client = server.client();
    let error = client.power().await.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::new(59, 999_925_221)), "{error:?}");
    assert!(!error.is_transient(), "a blind repetition is no use");
    server.set(|state| state.logins = Logins::Open);
    client.about().await.unwrap();
}

#[tokio::test]
async fn a_block_on_an_ordinary_call_costs_no_login() {
    let server = Server::start().await;
    let client = server.client();
    client.about().await.unwrap();
    let text = "Exceeded allowed authentication attempts. Access blocked for 2m 1s";
    server.script("type=power", Answer::Reply(401, None, text.to_owned()), 1);
    server.script(
        "type=power",
        Answer::Raw(b"HTTP/1.1 429 X\r\nretry-after: 33\r\ncontent-length: 0\r\n\r\n".to_vec()),
        1,
    );
    let error = client.power().await.unwrap_err();
    assert!(matches!(error, BmcError::Banned { wait, .. } if wait == Duration::from_secs(121)), "{error:?}");
    let error = client.power().await.unwrap_err();
    assert!(matches!(error, BmcError::Banned { wait, .. } if wait == Duration::from_secs(33)), "{error:?}");
    assert_eq!(server.count("authenticate"), 1);
}

#[tokio::test]
async fn a_refused_token_is_replaced_once_and_the_call_repeated() {
    let server = Server::start().await;
    let client = server.client();
    client.about().await.unwrap();
    server.set(|state| state.tokens.clear()); // the daemon restarted
    let mut change = PerSlot::new([None; 4]);
    change[Slot::ALL[0]] = Some(Power::On);
    change[Slot::ALL[2]] = Some(Power::Off);
    client.set_power(&change).await.unwrap();
    assert_eq!(
        server.lines()[2..],
        [
            "GET /api/bmc?opt=set&type=power&node1=1&node3=0",
            "POST /api/bmc/authenticate",
            "GET /api/bmc?opt=set&type=power&node1=1&node3=0"
        ]
    );
}

#[tokio::test]
async fn a_token_refused_twice_ends_without_a_loop_and_without_showing_it() {
    let server = Server::start().await;
    let client = server.client();
    let token = format!("{:0>64}", "TOKEN1");
    server.script("type=power", Answer::Reply(401, None, format!("token {token} is not registered")), 2);
    let error = client.power().await.unwrap_err();
    assert!(matches!(error, BmcError::Auth { reason: AuthReason::Rejected, .. }), "{error:?}");
    assert!(!format!("{error} {error:?} {client:?}").contains("TOKEN"));
    assert_eq!(server.count("type=power"), 2);
    assert_eq!(server.count("authenticate"), 2);
}

#[tokio::test]
async fn an_answer_to_the_login_that_makes_no_sense_is_withheld() {
    let answers = [r#"{"token":"SECRETSECRET"}"#, "SECRETSECRET", ""];
    for answer in answers {
        let raw = format!("HTTP/1.1 200 X\r\ncontent-length: {}\r\n\r\n{answer}", answer.len());
        let url = one_answer(raw).await;
        let client = turingpi_bmc::HttpBmcClient::builder(url.0)
            .credentials("root", secrecy::SecretString::from(PASSWORD))
            .trust(turingpi_bmc::Trust::Pin(url.1))
            .build()
            .unwrap();
        let error = client.power().await.unwrap_err();
        assert!(matches!(error, BmcError::Protocol { .. }), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("SECRET"));
    }
}

/// A server whose every request gets these bytes.
async fn one_answer(raw: String) -> (url::Url, turingpi_bmc::Fingerprint) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let made = rcgen::generate_simple_self_signed(vec!["bmc".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let mut stream = acceptor.accept(socket).await.unwrap();
            let mut buffer = [0; 4096];
            while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                if stream.write_all(raw.as_bytes()).await.is_err() {
                    break;
                }
            }
        }
    });
    (url, turingpi_bmc::Fingerprint::of_der(made.cert.der()))
}

#[tokio::test]
async fn the_daemons_loopback_asks_for_no_login() {
    let server = Server::start().await;
    server.set(|state| state.logins = Logins::Absent);
    let client = server.client();
    client.about().await.unwrap();
    client.about().await.unwrap();
    assert_eq!(server.count("authenticate"), 1);
}

#[tokio::test]
async fn credentials_never_go_over_plain_http() {
    let server = Server::plain().await;
    let client = server.client();
    let error = client.power().await.unwrap_err();
    assert!(matches!(error, BmcError::Auth { reason: AuthReason::Missing, .. }), "{error:?}");
    for seen in server.seen() {
        assert!(!seen.line.contains("authenticate"));
        assert!(!seen.headers.iter().any(|(name, _)| name == "authorization"));
    }
}

#[tokio::test]
async fn community_firmware_with_the_factory_password_says_what_to_do() {
    let server = Server::start().await;
    let client = server.client();
    let problem =
        r#"{"type":"about:blank","title":"Forbidden","status":403,"detail":"change the factory password"}"#;
    server.script("type=power", Answer::Reply(403, Some("application/problem+json"), problem.to_owned()), 1);
    let error = client.power().await.unwrap_err();
    assert!(matches!(error, BmcError::Auth { reason: AuthReason::Forbidden, .. }), "{error:?}");
    assert!(error.hint().contains("factory password"));
}

#[tokio::test]
async fn a_line_typed_on_a_console_is_in_no_error() {
    let server = Server::start().await;
    let client = server.client();
    for answer in [Answer::Close, Answer::json("{}"), Answer::plain(500, "serial worker not started")] {
        server.script("type=uart", answer, 1);
        let error = client.uart_send(Slot::ALL[0], "hunter2").await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }
    server.script("type=uart", Answer::json(OK), 1);
    client.uart_send(Slot::ALL[0], "a b&c").await.unwrap();
    assert_eq!(server.lines().last().unwrap(), "GET /api/bmc?opt=set&type=uart&node=0&cmd=a%20b%26c");
}
