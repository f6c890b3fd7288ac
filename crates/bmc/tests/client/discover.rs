//! Finding boards without a login.

use std::time::Duration;

use futures::StreamExt;
use tokio::{io::AsyncReadExt, net::TcpListener};
use turingpi_bmc::{Candidate, DiscoveryLimits, Generation, Sighting, Version, discover, probe_board};

use crate::server::{ABOUT_2_3_4, Answer, Logins, Server};

const LIMIT: Duration = Duration::from_secs(30);
const OTHER_2_1: &str = r#"{"response":[{"result":[{"api":"1.1","build_version":"2024.05.1","buildroot":"\"Buildroot 2024.05.1\"","buildtime":"2025-01-17 17:12:52-00:00","ip":"Unknown","mac":"02:00:4a:ea:dd:34\n","version":"2.3.4"}]}]}"#;
const OTHER_2_3_7: &str = r#"{"response":[{"result":[{"api":"1.1","buildroot":"\"Buildroot 2024.05.1\"","buildtime":"2025-02-23","ip":"192.168.1.90","mac":"02:00:4a:ea:dd:34","version":"v2024.05.1"}]}]}"#;
const OTHER_2_0_5: &str = r#"{"response":[{"result":[{"api":"1.1","build_version":"2023.08","buildroot":"\"Buildroot 2023.08\"","buildtime":"2023-11-28 14:01:07-00:00","ip":"192.168.1.90","mac":"02:00:4a:ea:dd:34\n","version":"2.0.5"}]}]}"#;
const OTHER_1_1: &str = r#"{"response":[{"version":"1.1.0","buildtime":"2023-07-28","ip":"192.168.1.90","mac":"02:00:4a:ea:dd:34"}]}"#;

fn at(secure: Option<&Server>, plain: Option<&Server>) -> Candidate {
    let port = |server: Option<&Server>| server.map_or(1, |server| server.url.port().unwrap());
    Candidate { host: "127.0.0.1".into(), https_port: port(secure), http_port: port(plain) }
}

fn nothing_was_told(server: &Server) {
    for seen in server.seen() {
        assert!(!seen.line.contains("authenticate"), "{}", seen.line);
        assert!(!seen.headers.iter().any(|(name, _)| name == "authorization"));
    }
}

async fn found(secure: &Server, plain: Option<&Server>) -> Sighting {
    let sighting = probe_board(&at(Some(secure), plain), LIMIT).await.unwrap();
    nothing_was_told(secure);
    assert_eq!(sighting.fingerprint, Some(secure.fingerprint));
    assert_eq!(sighting.url.port(), secure.url.port());
    sighting
}

#[tokio::test]
async fn firmware_2_1_introduces_itself_on_its_http_port() {
    let (secure, plain) = (Server::start().await, Server::plain().await);
    plain.script("GET /info", Answer::json(OTHER_2_1), usize::MAX);
    let sighting = found(&secure, Some(&plain)).await;
    assert_eq!(
        (sighting.generation, sighting.version, sighting.mac.as_deref()),
        (Some(Generation::V2_1), Some(Version::new(2, 3, 4)), Some("02:00:4a:ea:dd:34"))
    );
    nothing_was_told(&plain);
    plain.set(|state| state.script.clear());
    plain.script("GET /info", Answer::json(OTHER_2_3_7), usize::MAX);
    let sighting = found(&secure, Some(&plain)).await;
    assert_eq!((sighting.generation, sighting.version), (Some(Generation::V2_3), None));
}

#[tokio::test]
async fn firmware_2_0_introduces_itself_elsewhere_and_guards_its_start_page() {
    let (secure, plain) = (Server::start().await, Server::plain().await);
    plain.script("GET /api/bmc/info", Answer::json(OTHER_2_0_5), usize::MAX);
    plain.script("GET /info", Answer::Reply(308, None, String::new()), usize::MAX);
    let sighting = found(&secure, Some(&plain)).await;
    assert_eq!(
        (sighting.generation, sighting.version),
        (Some(Generation::V2_0), Some(Version::new(2, 0, 5)))
    );
    // Without that port the start page tells.
    let sighting = found(&secure, None).await;
    assert_eq!((sighting.generation, sighting.version), (Some(Generation::V2_0), None));
}

#[tokio::test]
async fn firmware_that_tells_strangers_nothing_is_a_board_all_the_same() {
    let (secure, plain) = (Server::start().await, Server::plain().await);
    secure.script("GET /", Answer::Reply(401, None, "no authorization header provided".into()), 1);
    secure.script("GET /", Answer::Reply(200, Some("text/html"), "<!doctype html>".into()), usize::MAX);
    plain.script("GET /", Answer::Reply(308, None, String::new()), usize::MAX);
    let sighting = found(&secure, Some(&plain)).await;
    assert_eq!((sighting.generation, sighting.version), (None, None));
    // Blocked: it is there.
    let banned = "Exceeded allowed authentication attempts. Access blocked for 59s";
    let blocked = Server::start().await;
    blocked.script("GET /", Answer::Reply(429, None, banned.into()), usize::MAX);
    assert!(probe_board(&at(Some(&blocked), None), LIMIT).await.is_some());
}

#[tokio::test]
async fn the_daemons_own_loopback_tells_everything() {
    let secure = Server::start().await;
    secure.set(|state| state.logins = Logins::Absent);
    let sighting = found(&secure, None).await;
    assert!(ABOUT_2_3_4.contains("2.3.4"));
    assert_eq!(sighting.version, Some(Version::new(2, 3, 4)));
}

#[tokio::test]
async fn firmware_1_x_is_found_on_plain_http_and_asked_only_what_it_answers() {
    let plain = Server::plain().await;
    plain.script("type=other", Answer::plain(200, OTHER_1_1), usize::MAX);
    plain.script("/api/bmc", Answer::Hang, usize::MAX);
    let sighting = probe_board(&at(None, Some(&plain)), LIMIT).await.unwrap();
    assert_eq!(
        (sighting.generation, sighting.version, sighting.fingerprint),
        (Some(Generation::Legacy), Some(Version::new(1, 1, 0)), None)
    );
    assert_eq!(sighting.url.scheme(), "http");
    assert_eq!(plain.lines(), ["GET /api/bmc?opt=get&type=other"]);
}

#[tokio::test]
async fn strangers_and_silence_are_no_boards() {
    let web = Server::start().await;
    web.script("GET", Answer::Reply(200, Some("text/html"), "<html>a router</html>".into()), usize::MAX);
    let locked = Server::start().await;
    locked.script("GET", Answer::Reply(401, None, "who are you".into()), usize::MAX);
    let plain = Server::plain().await;
    plain.script("GET", Answer::Reply(404, Some("text/html"), "not found".into()), usize::MAX);
    let redirecting = Server::plain().await;
    redirecting.script("GET", Answer::Reply(308, None, String::new()), usize::MAX);
    for candidate in [
        at(Some(&web), Some(&plain)),
        at(Some(&locked), Some(&redirecting)),
        at(None, Some(&plain)),
        at(Some(&plain), None),
        at(None, None),
        Candidate::new("this is no host"),
    ] {
        // Nothing is expected, so a limit that is too short changes nothing.
        assert_eq!(probe_board(&candidate, Duration::from_secs(2)).await, None, "{candidate:?}");
    }
    // One that accepts and never says a word costs the limit and no more.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let swallow = tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((mut socket, _)) = silent.accept().await {
            let _ = socket.read(&mut [0; 16]).await;
            kept.push(socket);
        }
    });
    let candidate = Candidate { host: "127.0.0.1".into(), https_port: port, http_port: port };
    assert_eq!(probe_board(&candidate, Duration::from_millis(300)).await, None);
    swallow.abort();
}

#[tokio::test]
async fn many_addresses_are_asked_some_at_a_time_and_boards_come_as_they_are_found() {
    let plain = Server::plain().await;
    plain.script("type=other", Answer::plain(200, OTHER_1_1), usize::MAX);
    let candidates = (0..40).map(|n| if n % 10 == 3 { at(None, Some(&plain)) } else { at(None, None) });
    let limits = DiscoveryLimits { each: LIMIT, at_once: 4 };
    let found: Vec<Sighting> = discover(candidates.collect::<Vec<_>>(), limits).collect().await;
    assert_eq!(found.len(), 4);
}

#[test]
fn candidates_are_read_from_text_and_refuse_what_is_more_than_an_address() {
    for good in ["10.10.88.70", "turingpi.local", "::1", "[fe80::1]", " 10.0.0.1 "] {
        good.parse::<Candidate>().unwrap();
    }
    for bad in ["", "https://10.0.0.1", "root@10.0.0.1", "10.0.0.1/24", "10.0.0.1:443", "a b"] {
        let error = bad.parse::<Candidate>().unwrap_err();
        assert!(error.to_string().contains(bad), "{error}");
    }
    let candidate = "10.10.88.70".parse::<Candidate>().unwrap();
    assert_eq!((candidate.https_port, candidate.http_port), (443, 80));
}
