//! From a complete answer to a JSON value. The order matters: status, empty, HTML, JSON, text.

use std::time::Duration;

use serde_json::Value;

use super::{Reply, auth};
use crate::{Attempt, AuthReason, BmcError, Capability};

/// Longest piece of a foreign text that goes into an error.
const SHORT: usize = 300;

static NULL: Value = Value::Null;

/// Cuts a foreign text to a printable length, on one line.
pub(crate) fn shorten(text: &str) -> String {
    let mut short = String::new();
    for (position, c) in text.trim().chars().enumerate() {
        if position == SHORT {
            short.push('…');
            break;
        }
        short.push(if c.is_control() { ' ' } else { c });
    }
    short
}

fn text(reply: &Reply) -> String {
    String::from_utf8_lossy(&reply.body).into_owned()
}

fn looks_like_html(reply: &Reply, text: &str) -> bool {
    let start: String = text.trim_start().chars().take(15).collect::<String>().to_ascii_lowercase();
    reply.html || start.starts_with("<!doctype") || start.starts_with("<html")
}

/// An answer that cannot be understood. The value is shown shortened.
pub(crate) fn senseless(attempt: &Attempt, problem: &'static str, value: &Value) -> BmcError {
    BmcError::Protocol { attempt: attempt.clone(), problem: problem.into(), raw: shorten(&value.to_string()) }
}

/// Turns every status that is no success into its error.
pub(crate) fn check_status(reply: &Reply, attempt: &Attempt) -> Result<(), BmcError> {
    if (200..300).contains(&reply.status) {
        return Ok(());
    }
    let attempt = attempt.clone();
    let text = text(reply);
    if reply.status == 429 {
        let wait = reply.retry_after.map(Duration::from_secs).or_else(|| auth::ban(&text));
        return Err(BmcError::Banned { attempt, wait: wait.unwrap_or(Duration::from_secs(60)) });
    }
    if matches!(reply.status, 401 | 403) {
        // Never the text: it may echo the token.
        return Err(match auth::ban(&text) {
            Some(wait) => BmcError::Banned { attempt, wait },
            None => {
                let reason = if reply.status == 401 { AuthReason::Rejected } else { AuthReason::Forbidden };
                BmcError::Auth { attempt, reason }
            }
        });
    }
    let text = if looks_like_html(reply, &text) { "(a web page)".to_owned() } else { message(&text) };
    Err(BmcError::Api { attempt, status: reply.status, text })
}

/// The message of an error: in the envelope, in `detail` or `title` of problem JSON, or the bare text.
pub(crate) fn message(text: &str) -> String {
    let found = first_document(text).and_then(|value| {
        let inner = unwrapped(&value);
        [&inner["result"], &inner, &value["detail"], &value["title"]]
            .into_iter()
            .find_map(|v| v.as_str().map(str::to_owned))
    });
    shorten(&deduplicated(found.as_deref().unwrap_or(text)))
}

/// `Failed to X: X` says the same twice.
fn deduplicated(text: &str) -> String {
    let text = text.trim();
    match text.strip_prefix("Failed to ").and_then(|rest| {
        let middle = rest.len().checked_sub(2)? / 2;
        let (first, second) = (rest.get(..middle)?, rest.get(middle..)?);
        (second.strip_prefix(": ")? == first).then_some(first)
    }) {
        Some(once) => once.to_owned(),
        None => text.to_owned(),
    }
}

/// The first JSON document of a text. Firmware 1.x puts lines before it and sometimes a second one behind it.
fn first_document(text: &str) -> Option<Value> {
    let read = |text: &str| serde_json::Deserializer::from_str(text).into_iter::<Value>().next()?.ok();
    read(text).or_else(|| read(text.get(text.find('{')?..)?))
}

/// The answer's JSON document, whatever its content type.
pub(crate) fn document(reply: &Reply, attempt: &Attempt) -> Result<Value, BmcError> {
    check_status(reply, attempt)?;
    let text = text(reply);
    let protocol = |problem: &'static str| BmcError::Protocol {
        attempt: attempt.clone(),
        problem: problem.into(),
        raw: shorten(&text),
    };
    if text.trim().is_empty() {
        return Err(protocol("it is empty"));
    }
    if looks_like_html(reply, &text) {
        // Unknown paths are answered with the web interface's start page.
        return Err(BmcError::Unsupported {
            attempt: attempt.clone(),
            capability: Capability::Endpoint,
            firmware: "the firmware".to_owned(),
        });
    }
    first_document(&text).ok_or_else(|| protocol("it is not JSON"))
}

/// The document of an ordinary call, which must be an envelope: `{"response":[…]}`.
pub(crate) fn envelope(reply: &Reply, attempt: &Attempt) -> Result<Value, BmcError> {
    let document = document(reply, attempt)?;
    if !document["response"].is_array() && !document["response"].is_object() {
        return Err(senseless(attempt, "it is no response of a BMC", &document));
    }
    let inner = single(&document["response"]);
    // Firmware 1.x reports errors with HTTP 200.
    if let Some(code) = number(&inner["code"]).filter(|code| *code >= 400) {
        return Err(BmcError::Api {
            attempt: attempt.clone(),
            status: u16::try_from(code).unwrap_or(400),
            text: inner["result"].as_str().map(message).unwrap_or_default(),
        });
    }
    Ok(document)
}

/// Whether an envelope is of firmware 1.x: no `result` in it.
pub(crate) fn is_legacy(envelope: &Value) -> bool {
    let inner = single(&envelope["response"]);
    inner.is_object() && inner.get("result").is_none()
}

/// What an envelope holds: the `result` of 2.x, the object itself of 1.x.
pub(crate) fn unwrapped(envelope: &Value) -> Value {
    let inner = single(&envelope["response"]);
    inner.get("result").unwrap_or(inner).clone()
}

/// What an ordinary call returned.
pub(crate) fn value(reply: &Reply, attempt: &Attempt) -> Result<Value, BmcError> {
    Ok(unwrapped(&envelope(reply, attempt)?))
}

/// Requires the `ok` of a call without a value.
pub(crate) fn ok(reply: &Reply, attempt: &Attempt) -> Result<(), BmcError> {
    let value = value(reply, attempt)?;
    match value.as_str() {
        Some(text) if text.eq_ignore_ascii_case("ok") => Ok(()),
        Some(text) => Err(BmcError::Api {
            attempt: attempt.clone(),
            status: reply.status,
            text: shorten(&deduplicated(text)),
        }),
        None => Err(senseless(attempt, "it is not `ok`", &value)),
    }
}

/// Requires success of a call that is answered with nothing at all, or with `ok`.
pub(crate) fn accepted(reply: &Reply, attempt: &Attempt) -> Result<(), BmcError> {
    check_status(reply, attempt)?;
    if reply.body.iter().all(u8::is_ascii_whitespace) { Ok(()) } else { ok(reply, attempt) }
}

/// The only element of an array, or the value itself.
pub(crate) fn single(value: &Value) -> &Value {
    match value {
        Value::Array(elements) => elements.first().unwrap_or(&NULL),
        other => other,
    }
}

/// A number, also one in quotes.
pub(crate) fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// A text without the padding the firmware leaves in: quotes, line ends, NULs. `Unknown` and nothing are `None`.
pub(crate) fn word(value: &Value) -> Option<String> {
    let text = value.as_str()?.trim_matches(|c: char| c.is_whitespace() || c.is_control() || c == '"');
    (!text.is_empty() && !text.eq_ignore_ascii_case("unknown")).then(|| text.to_owned())
}
