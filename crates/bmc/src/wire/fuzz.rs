//! Whatever a BMC, a proxy or something quite different answers: every parser ends with a value or an error.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Reply, answer, auth};
use crate::{
    Attempt, BmcError, SavedToken, about, cooling, info, node_info, power, sd_card, transfer, uart, usb,
};

/// Runs every parser, and returns the texts of all errors.
fn parse_all(reply: &Reply) -> Vec<String> {
    let attempt = Attempt::new("try", "bmc");
    let value = answer::value(reply, &attempt);
    let from_value = |parse: &dyn Fn(&Value) -> Result<(), BmcError>| match &value {
        Ok(value) => parse(value),
        Err(_) => answer::ok(reply, &attempt),
    };
    let text = String::from_utf8_lossy(&reply.body);
    let _ = (auth::ban(&text), crate::FlashCause::of(&text), SavedToken::from_json(&text));
    [
        from_value(&|v| about::parse(v, &attempt).map(drop)),
        from_value(&|v| info::parse(v, &attempt).map(drop)),
        from_value(&|v| power::parse(v, &attempt).map(drop)),
        from_value(&|v| usb::parse(v, &attempt).map(drop)),
        from_value(&|v| node_info::parse(v, &attempt).map(drop)),
        from_value(&|v| cooling::parse(v, &attempt).map(drop)),
        from_value(&|v| cooling::parse_temperatures(v, &attempt).map(drop)),
        from_value(&|v| sd_card::parse(v, true, &attempt).map(drop)),
        from_value(&|v| sd_card::parse(v, false, &attempt).map(drop)),
        from_value(&|v| uart::parse_status(v, &attempt).map(drop)),
        answer::accepted(reply, &attempt),
        answer::ok(reply, &attempt),
        answer::check_status(reply, &attempt),
        transfer::parse(reply, &attempt).map(drop),
        uart::parse(reply, &attempt).map(drop),
    ]
    .into_iter()
    .filter_map(Result::err)
    .map(|error| {
        let _ = (error.is_transient(), error.kind(), error.retry_after());
        assert!(!error.hint().is_empty());
        error.to_string()
    })
    .collect()
}

fn reply(status: u16, html: bool, body: impl Into<Bytes>) -> Reply {
    Reply { status, html, retry_after: None, body: body.into() }
}

/// JSON made of the API's own words, in places where they do not belong.
fn json_like() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "ok",
        "Ready",
        "Unknown",
        "0",
        "1",
        "Node 1",
        "Node1",
        "Node 9",
        "Host",
        "Flash",
        "UsbA",
        "Bmc",
        "2.3.4",
        "Usb hub",
        "Failed to x: x",
        "Failed to é: é",
        "Failed to : ",
        "blocked for 1s",
        "",
    ]);
    let key = prop::sample::select(vec![
        "response",
        "result",
        "uart",
        "code",
        "node",
        "node1",
        "node2",
        "node3",
        "node4",
        "mode",
        "route",
        "bus_type",
        "version",
        "bmcd_version",
        "ip",
        "mac",
        "storage",
        "name",
        "bytes_free",
        "total_bytes",
        "Transferring",
        "Flashing",
        "Done",
        "Error",
        "id",
        "size",
        "bytes_written",
        "process_name",
        "secs",
        "nanos",
        "handle",
        "module_name",
        "power_on_time",
        "uart_baud",
        "device",
        "speed",
        "max_speed",
        "sensors",
        "temperature_c",
        "free",
        "total",
        "use",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word.prop_map(Value::from),
        "\\PC{0,30}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..6)
                .prop_map(|pairs| Value::Object(pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())),
        ]
    })
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(status in 100u16..1000, html: bool, body in prop::collection::vec(any::<u8>(), 0..400)) {
        parse_all(&reply(status, html, body));
    }

    #[test]
    fn arbitrary_json_never_panics(status in prop::sample::select(vec![200u16, 400, 500]), value in json_like()) {
        parse_all(&reply(status, false, value.to_string()));
        parse_all(&reply(status, false, json!({ "response": [{ "result": value }] }).to_string()));
        parse_all(&reply(status, false, json!({ "response": [value] }).to_string()));
    }

    #[test]
    fn a_cut_answer_never_panics(cut in 0usize..120) {
        let whole = r#"{"response":[{"result":[{"node1":"0","node2":"0","node3":"é","node4":"0"}]}]}{"response":[]}"#;
        let cut = cut.min(whole.len());
        parse_all(&reply(200, false, whole.as_bytes()[..cut].to_vec()));
    }

    #[test]
    fn a_refusal_never_repeats_what_the_bmc_said(secret in "[A-Za-z0-9]{24,64}", status in prop::sample::select(vec![401u16, 403])) {
        let body = format!("token {secret} is not registered");
        for text in parse_all(&reply(status, false, body)) {
            prop_assert!(!text.contains(&secret), "{}", text);
        }
    }

    #[test]
    fn no_error_grows_with_the_answer(body in "[a-z ]{2000,4000}", status in prop::sample::select(vec![200u16, 400, 500])) {
        for text in parse_all(&reply(status, false, body)) {
            prop_assert!(text.chars().count() < 600, "{} characters", text.chars().count());
        }
    }
}
