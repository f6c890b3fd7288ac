//! A token that goes from one run to the next.

use std::time::{Duration, SystemTime};

use secrecy::{ExposeSecret, SecretString};
use turingpi_bmc::{AuthReason, BmcClient, BmcError, Fingerprint, HttpBmcClient, SavedToken, Trust};

use crate::server::{Answer, PASSWORD, Server, timeouts};

fn client(server: &Server, saved: SavedToken, password: Option<&str>) -> HttpBmcClient {
    let builder = HttpBmcClient::builder(server.url.clone())
        .trust(Trust::Pin(server.fingerprint))
        .timeouts(timeouts())
        .saved_token(saved);
    match password {
        Some(password) => builder.credentials("root", SecretString::from(password)).build().unwrap(),
        None => builder.build().unwrap(),
    }
}

async fn token_of(server: &Server) -> SavedToken {
    let first = server.client();
    first.about().await.unwrap();
    first.saved_token().unwrap()
}

/// The same token with one thing changed.
fn changed(saved: &SavedToken, key: &str, value: serde_json::Value) -> SavedToken {
    let mut document: serde_json::Value = serde_json::from_str(saved.to_json().expose_secret()).unwrap();
    document[key] = value;
    SavedToken::from_json(&document.to_string()).unwrap()
}

fn tokens_sent(server: &Server) -> usize {
    server.seen().iter().filter(|s| s.headers.iter().any(|(_, v)| v.ends_with("TOKEN1"))).count()
}

#[tokio::test]
async fn a_token_of_an_earlier_run_needs_no_login_and_no_password() {
    let server = Server::start().await;
    let saved = token_of(&server).await;
    assert_eq!((saved.host(), saved.user()), ("127.0.0.1", "root"));
    assert_eq!(Some(saved.port()), server.url.port());
    assert_eq!(saved.fingerprint(), server.fingerprint);
    let kept = SavedToken::from_json(saved.to_json().expose_secret()).unwrap();
    for password in [None, Some(PASSWORD)] {
        let second = client(&server, kept.clone(), password);
        second.about().await.unwrap();
        assert!(second.saved_token().unwrap().last_used() >= saved.last_used());
        assert!(!format!("{second:?} {kept:?}").contains("TOKEN"));
    }
    assert_eq!(server.count("authenticate"), 1);
}

#[tokio::test]
async fn a_refused_token_costs_one_login_and_without_a_password_none() {
    let server = Server::start().await;
    let saved = token_of(&server).await;
    server.set(|state| state.tokens.clear());
    let second = client(&server, saved.clone(), Some(PASSWORD));
    second.about().await.unwrap();
    assert_eq!((server.count("authenticate"), tokens_sent(&server)), (2, 2));
    let third = client(&server, saved, None);
    for _ in 0..3 {
        let error = third.about().await.unwrap_err();
        assert!(matches!(error, BmcError::Auth { reason: AuthReason::Missing, .. }), "{error:?}");
        assert!(third.saved_token().is_none());
    }
    assert_eq!(
        (server.count("authenticate"), tokens_sent(&server)),
        (2, 3),
        "it was sent once more, not thrice"
    );
}

#[tokio::test]
async fn a_token_never_goes_to_another_host_port_user_or_certificate() {
    let server = Server::start().await;
    let saved = token_of(&server).await;
    let other = Fingerprint::of_der(b"another").to_string();
    let long_ago = SystemTime::now() - Duration::from_secs(4 * 3600);
    let long_ago = long_ago.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let strangers = [
        changed(&saved, "host", "127.0.0.2".into()),
        changed(&saved, "port", 443.into()),
        changed(&saved, "user", "somebody".into()),
        changed(&saved, "fingerprint", other.clone().into()),
        changed(&saved, "last_used", long_ago.into()),
    ];
    let before = tokens_sent(&server);
    for stranger in strangers {
        client(&server, stranger, Some(PASSWORD)).about().await.unwrap();
    }
    // The certificate is not known beforehand either.
    let anybody = HttpBmcClient::builder(server.url.clone())
        .trust(Trust::first_use(|_| true))
        .credentials("root", SecretString::from(PASSWORD))
        .saved_token(changed(&saved, "fingerprint", other.into()))
        .build()
        .unwrap();
    anybody.about().await.unwrap();
    assert_eq!(tokens_sent(&server), before);
    assert_eq!(server.count("authenticate"), 7);
}

#[tokio::test]
async fn a_first_use_accepts_the_token_with_the_certificate_it_was_seen_with() {
    let server = Server::start().await;
    let saved = token_of(&server).await;
    let client = HttpBmcClient::builder(server.url.clone())
        .trust(Trust::first_use(|_| true))
        .saved_token(saved)
        .build()
        .unwrap();
    client.about().await.unwrap();
    assert_eq!(server.count("authenticate"), 1);
}

#[tokio::test]
async fn a_token_never_goes_over_plain_http() {
    let secure = Server::start().await;
    let saved = token_of(&secure).await;
    let plain = Server::plain().await;
    let saved = changed(&saved, "port", plain.url.port().unwrap().into());
    let client =
        HttpBmcClient::builder(plain.url.clone()).saved_token(saved).timeouts(timeouts()).build().unwrap();
    client.about().await.unwrap_err();
    assert_eq!(tokens_sent(&plain), 0);
    assert!(!plain.seen().is_empty());
}

#[tokio::test]
async fn a_block_met_with_a_kept_token_is_told_and_the_token_stays() {
    let server = Server::start().await;
    let saved = token_of(&server).await;
    let text = "Exceeded allowed authentication attempts. Access blocked for 59s 1ms";
    server.script("type=power", Answer::Reply(401, None, text.to_owned()), 1);
    let second = client(&server, saved, None);
    let error = second.power().await.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_millis(59_001)), "{error:?}");
    assert!(second.saved_token().is_some(), "it is as good as before, once the block is over");
}
