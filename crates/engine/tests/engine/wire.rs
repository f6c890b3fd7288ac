use proptest::prelude::*;
use serde_json::json;
use time::macros::datetime;
use turingpi_engine::{
    Event, EventKind, Failure, FailureClass, Gate, Outcome, Risk, State, Subject, Summary, Unit,
    report::Timeline,
};

fn event(kind: EventKind) -> Event {
    Event {
        run: "r".to_owned(),
        seq: 7,
        at: datetime!(2026-11-23 08:00:00.5 UTC),
        subject: Some(Subject::node("node1")),
        step: Some("node1/flash".to_owned()),
        kind,
    }
}

fn every_kind() -> Vec<(EventKind, serde_json::Value)> {
    let failure = Failure::new(FailureClass::Timeout, "waited").retryable().report();
    let failed = json!({ "class": "timeout", "message": "waited", "retryable": true });
    let preview = crate::support::plan(vec![crate::support::step(
        crate::support::describe("a")
            .risk(Risk::Disruptive)
            .lock("l")
            .needs("n")
            .reaches("m")
            .expected_seconds(9),
    )])
    .preview();
    let summary = Summary {
        outcome: Outcome::Done,
        steps_done: 3,
        steps_failed: 0,
        retries: 1,
        rounds: 2,
        millis: 99,
        failures: Vec::new(),
    };
    vec![
        (
            EventKind::RunStarted { verb: "apply".into(), target: "homelab".into(), version: "0.1.0".into() },
            json!({ "event": "run-started", "verb": "apply", "target": "homelab", "version": "0.1.0" }),
        ),
        (
            EventKind::Observed { round: 1, preview, digest: "d".into() },
            json!({ "event": "observed", "round": 1, "digest": "d", "preview": { "stages": [{
                "title": "only",
                "lanes": [{ "subject": { "kind": "node", "name": "node1" }, "steps": [{
                    "id": "a", "title": "Do a", "phase": "test", "risk": "disruptive",
                    "locks": ["l"], "needs": ["n"], "reaches": "m", "expected_seconds": 9,
                }] }],
            }] } }),
        ),
        (
            EventKind::StageStarted { title: "Flash".into(), index: 1, of: 3 },
            json!({ "event": "stage-started", "title": "Flash", "index": 1, "of": 3 }),
        ),
        (
            EventKind::StepQueued { waits_for: "board1/transfer".into(), gate: Gate::Lock },
            json!({ "event": "step-queued", "waits_for": "board1/transfer", "gate": "lock" }),
        ),
        (
            EventKind::StepStarted {
                title: "Flash".into(),
                phase: "flash".into(),
                risk: Risk::Destructive,
                attempt: 2,
                expected_seconds: None,
            },
            json!({ "event": "step-started", "title": "Flash", "phase": "flash", "risk": "destructive", "attempt": 2 }),
        ),
        (
            EventKind::Progress { done: u64::MAX, total: None, unit: Unit::Bytes, part: String::new() },
            json!({ "event": "progress", "done": u64::MAX, "unit": "bytes" }),
        ),
        (
            EventKind::Progress { done: 1, total: Some(2), unit: Unit::Bytes, part: "writing".into() },
            json!({ "event": "progress", "done": 1, "total": 2, "unit": "bytes", "part": "writing" }),
        ),
        (
            EventKind::Waiting { condition: "ssh".into(), last_seen: "refused".into() },
            json!({ "event": "waiting", "condition": "ssh", "last_seen": "refused" }),
        ),
        (EventKind::Note { text: "n".into() }, json!({ "event": "note", "text": "n" })),
        (
            EventKind::Retrying { attempt: 1, delay_ms: 500, failure: failure.clone() },
            json!({ "event": "retrying", "attempt": 1, "delay_ms": 500, "failure": failed }),
        ),
        (
            EventKind::StepFinished { outcome: Outcome::Blocked, millis: 0, failure: Some(failure) },
            json!({ "event": "step-finished", "outcome": "blocked", "millis": 0, "failure": failed }),
        ),
        (
            EventKind::StageFinished { title: "Flash".into(), outcome: Outcome::Cancelled },
            json!({ "event": "stage-finished", "title": "Flash", "outcome": "cancelled" }),
        ),
        (
            EventKind::RunFinished { summary },
            json!({ "event": "run-finished", "summary": { "outcome": "done", "steps_done": 3, "steps_failed": 0,
                "retries": 1, "rounds": 2, "millis": 99 } }),
        ),
    ]
}

#[test]
fn every_kind_of_event_has_its_form_on_the_wire() {
    for (kind, expected) in every_kind() {
        let event = event(kind);
        let mut told = serde_json::to_value(&event).unwrap();
        let frame = told.as_object_mut().unwrap();
        assert_eq!(frame.remove("run"), Some(json!("r")));
        assert_eq!(frame.remove("seq"), Some(json!(7)));
        assert_eq!(frame.remove("at"), Some(json!("2026-11-23T08:00:00.5Z")));
        assert_eq!(frame.remove("subject"), Some(json!({ "kind": "node", "name": "node1" })));
        assert_eq!(frame.remove("step"), Some(json!("node1/flash")));
        assert_eq!(told, expected);
        let text = serde_json::to_string(&event).unwrap();
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
    }
}

#[test]
fn a_kind_or_field_of_a_newer_release_does_not_break_a_reader() {
    let text = r#"{"run":"r","seq":1,"at":"2026-11-23T08:00:00Z","event":"step-undone","why":{"a":[1]}}"#;
    assert_eq!(serde_json::from_str::<Event>(text).unwrap().kind, EventKind::Unknown);
    let text =
        r#"{"run":"r","seq":1,"at":"2026-11-23T08:00:00Z","event":"note","text":"t","new":1,"lane":2}"#;
    assert_eq!(serde_json::from_str::<Event>(text).unwrap().kind, EventKind::Note { text: "t".to_owned() });
}

/// The bytes of a real event or state, with some of them changed.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let mut texts: Vec<_> =
        every_kind().into_iter().map(|(k, _)| serde_json::to_vec(&event(k)).unwrap()).collect();
    texts.push(include_bytes!("fixtures/state-v1.json").to_vec());
    let damage = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (prop::sample::select(texts), damage, any::<prop::sample::Index>(), any::<bool>()).prop_map(
        |(mut text, damage, end, cut)| {
            for (at, byte) in damage {
                let at = at.index(text.len());
                text[at] = byte;
            }
            if cut {
                text.truncate(end.index(text.len()));
            }
            text
        },
    )
}

proptest! {
    #[test]
    fn reading_arbitrary_bytes_never_panics_and_what_is_read_can_be_written(
        bytes in prop_oneof![damaged(), prop::collection::vec(any::<u8>(), 0..200)]
    ) {
        if let Ok(event) = serde_json::from_slice::<Event>(&bytes) {
            let again: Event = serde_json::from_slice(&serde_json::to_vec(&event).unwrap()).unwrap();
            prop_assert_eq!(&again, &event);
            Timeline::from_events(&[event]);
        }
        if let Ok(state) = serde_json::from_slice::<State>(&bytes) {
            serde_json::to_vec(&state).unwrap();
        }
    }
}
