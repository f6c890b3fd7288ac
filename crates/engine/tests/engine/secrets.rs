use std::{io, sync::Arc};

use secrecy::{ExposeSecret, SecretString};
use turingpi_engine::{
    Approval, Change, EventKind, Failure, FailureClass, FileStateStore, MemoryStateStore, State, StateStore,
};

use crate::support::{Bench, Plans, describe, lane, step};

const TOKEN: &str = "K10c0ffee::server:5ecre7";
const KEY: &str =
    "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJrXqZvG3hHnYtUe2m\nabc\n-----END PRIVATE KEY-----\n";
const KEY_LINE: &str = "MC4CAQAwBQYDK2VwBCIEIJrXqZvG3hHnYtUe2m";

fn with_secrets() -> State {
    let mut state = State::default();
    state.put_secret("k3s/token", SecretString::from(TOKEN));
    state.put_secret("ssh/key", SecretString::from(KEY));
    state
}

#[test]
fn the_debug_form_of_a_state_names_its_secrets_and_shows_none() {
    let text = format!("{:?} {:#?}", with_secrets(), with_secrets());
    assert!(text.contains("k3s/token") && text.contains("ssh/key"));
    assert!(!text.contains(TOKEN) && !text.contains(KEY_LINE), "{text}");
}

#[test]
fn a_state_keeps_its_secrets_through_its_file_form() {
    let text = serde_json::to_string(&with_secrets()).unwrap();
    let state: State = serde_json::from_str(&text).unwrap();
    assert_eq!(state.secret("k3s/token").unwrap().expose_secret(), TOKEN);
}

#[tokio::test]
async fn no_secret_gets_into_the_events_or_the_run_record_whatever_steps_say() {
    let bench = Bench::new();
    let keeper = step(describe("token")).apply(|cx| async move {
        cx.update_state(|s| {
            let runs = std::mem::take(&mut s.runs);
            *s = with_secrets();
            s.runs = runs;
            Ok(())
        })
        .await?;
        cx.note(format!("k3s agent --token {TOKEN} --server https://node1:6443"));
        cx.note(format!("wrote {KEY} to the node"));
        Ok(())
    });
    let talker = step(describe("talk")).apply(|cx| async move {
        let probe = || async { Ok(turingpi_engine::Probe::<()>::NotYet(format!("curl -u root:{TOKEN}"))) };
        let timeout = cx.wait(TOKEN, std::time::Duration::ZERO, probe).await.unwrap_err();
        Err(Failure::new(FailureClass::Unexpected, format!("cannot use {TOKEN}"))
            .hint(format!("Try {KEY_LINE}."))
            .source(timeout)
            .retryable())
    });
    let plans = Plans::one_stage(vec![lane("node1", vec![keeper, talker])]);
    let failure = bench.executor.converge(&plans, &Approval::everything()).await.unwrap_err();
    assert_eq!(failure.class(), FailureClass::Unexpected);
    assert!(failure.is_retryable());
    let causes = [
        "cannot use [redacted]".to_owned(),
        "waited 0ns for [redacted]; last seen: curl -u root:[redacted]".to_owned(),
    ];
    assert_eq!(failure.report().causes, causes);
    assert_eq!(failure.hint_text(), Some("Try [redacted]."));
    let returned = format!("{failure:?}");
    let told = bench.sink.json();
    assert!(told.contains("k3s agent --token [redacted] --server"), "{told}");
    assert!(told.contains("curl -u root:[redacted]") && told.contains("cannot use [redacted]"), "{told}");
    assert!(bench.sink.events().iter().any(|e| matches!(e.kind, EventKind::Retrying { .. })));
    let runs = serde_json::to_string(&bench.store.snapshot().runs).unwrap();
    for text in [told, runs, returned] {
        assert!(!text.contains("5ecre7") && !text.contains(KEY_LINE), "{text}");
    }
}

#[tokio::test]
async fn secrets_of_earlier_runs_stay_out_of_plans_in_events() {
    let store = MemoryStateStore::with(with_secrets());
    let bench = Bench::new();
    let executor = turingpi_engine::Executor::builder(Arc::new(store), Arc::new(bench.sink.clone())).build();
    let change = Change::replace("token", TOKEN, "new");
    let plans = Plans::one_stage(vec![lane("node1", vec![step(describe("rotate").change(change))])]);
    executor.converge(&plans, &Approval::safe_only()).await.unwrap();
    assert!(bench.sink.json().contains("[redacted]"));
    assert!(!bench.sink.json().contains(TOKEN));
}

#[tokio::test]
async fn a_state_file_that_cannot_be_read_does_not_quote_its_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.json");
    for text in [
        format!("{{\"version\": 1, \"secrets\": \"{TOKEN}\"}}"),
        format!("{{\"version\": \"{TOKEN}\"}}"),
        format!("{{\"version\": 1, \"secrets\": {{\"a\": \"{TOKEN}\" \"b\"}}}}"),
        format!("\"{TOKEN}\""),
    ] {
        crate::store::write_private(&path, &text);
        let failure = FileStateStore::new(&path).load().await.unwrap_err();
        let told = format!("{failure:?} {failure} {:?}", failure.report());
        assert!(!told.contains("5ecre7"), "{told}");
    }
}

#[test]
fn a_failure_shows_its_causes_once_each() {
    let failure = Failure::new(FailureClass::Unreachable, "cannot reach node1")
        .source(io::Error::new(io::ErrorKind::ConnectionRefused, "connection refused"));
    assert_eq!(failure.to_string(), "cannot reach node1");
    assert_eq!(failure.report().causes, ["connection refused"]);
}
