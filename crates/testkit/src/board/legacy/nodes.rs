//! `power`, `reset`, `uart`, `node_info`, `node_to_msd`: the compute modules.

use std::collections::HashMap;

use http::{StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Reply;
use crate::board::{
    daemon::Daemon,
    door::Call,
    query::Query,
    state::NodeNote,
    wire::{Answer, Hangup, bare, typed},
};

/// A JSON body that is longer is not read on.
const BODY_LIMIT: usize = 64 * 1024;

/// `node`, 0 to 3. The daemon cuts the number to eight bits, so 256 is node 1.
pub(crate) fn node_parameter(query: &Query) -> Result<usize, (StatusCode, String)> {
    let bad = |text: &str| (StatusCode::BAD_REQUEST, text.to_owned());
    let text = query.get("node").ok_or_else(|| bad("Missing `node` parameter"))?;
    let number: i32 = text.parse().map_err(|_| bad("Parameter `node` is not a number"))?;
    let [low, ..] = number.to_le_bytes();
    if low > 3 {
        return Err(bad("Parameter `node` is out of range 0..3 of node IDs"));
    }
    Ok(usize::from(low))
}

pub(super) fn power(daemon: &Daemon) -> Reply {
    let [one, two, three, four] = daemon.hardware().intent.map(|on| if on { "1" } else { "0" });
    Reply::Value(json!([{"node1": one, "node2": two, "node3": three, "node4": four}]))
}

pub(super) async fn set_power(daemon: &Daemon, query: &Query) -> Reply {
    let mut change = [None; 4];
    for (slot, on) in change.iter_mut().enumerate() {
        let key = format!("node{}", slot + 1);
        *on = match query.get(&key) {
            None => None,
            Some("0") => Some(false),
            Some("1") => Some(true),
            Some(other) => {
                return Reply::bad_request(format!("Invalid value `{other}` for parameter `{key}`"));
            }
        };
    }
    if change == [None; 4] {
        return Reply::failed("set power state", "Condition failed: `mask != 0` (0 vs 0)");
    }
    daemon.request_power(&change).await;
    Reply::Ok
}

pub(super) async fn reset(daemon: &Daemon, query: &Query) -> Reply {
    match node_parameter(query) {
        Ok(slot) => {
            daemon.reset(slot).await;
            Reply::Ok
        }
        Err(error) => error.into(),
    }
}

pub(super) fn uart(daemon: &Daemon, query: &Query) -> Reply {
    let slot = match node_parameter(query) {
        Ok(slot) => slot,
        Err(error) => return error.into(),
    };
    let uart = daemon.uart(slot);
    let bytes = if daemon.profile().uart_drains() { uart.drain() } else { uart.peek() };
    match decode(&bytes, query.get("encoding").unwrap_or("utf8")) {
        Some(text) => Reply::Uart(text),
        None => Reply::bad_request(
            "Invalid `encoding` parameter. Expected: utf8, utf16, utf16le, utf16be, utf32, utf32le, utf32be.",
        ),
    }
}

/// Text in one of the daemon's encodings; what is invalid is replaced.
fn decode(bytes: &[u8], encoding: &str) -> Option<String> {
    let pairs = |of: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = bytes.as_chunks().0.iter().map(|pair| of(*pair)).collect();
        String::from_utf16_lossy(&units)
    };
    let fours = |of: fn([u8; 4]) -> u32| {
        let units = bytes.as_chunks().0.iter().map(|four| of(*four));
        units.map(|unit| char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
    };
    Some(match encoding {
        "utf8" => String::from_utf8_lossy(bytes).into_owned(),
        "utf16" | "utf16le" => pairs(u16::from_le_bytes),
        "utf16be" => pairs(u16::from_be_bytes),
        "utf32" | "utf32le" => fours(u32::from_le_bytes),
        "utf32be" => fours(u32::from_be_bytes),
        _ => return None,
    })
}

pub(super) async fn set_uart(daemon: &Daemon, query: &Query) -> Reply {
    let slot = match node_parameter(query) {
        Ok(slot) => slot,
        Err(error) => return error.into(),
    };
    let Some(line) = query.get("cmd") else { return Reply::bad_request("Missing `cmd` parameter") };
    if let Some(module) = daemon.module(slot).filter(|module| module.powered()) {
        module.type_line(line).await;
    }
    Reply::Ok
}

pub(super) fn notes(daemon: &Daemon) -> Reply {
    let now = daemon.clock().now();
    let hardware = daemon.hardware();
    let notes = hardware.notes.iter().zip(hardware.on_since).map(|(note, since)| {
        json!({
            "module_name": note.module_name,
            "name": note.name,
            "power_on_time": since.map(|since| now.saturating_sub(since).as_secs()),
            "uart_baud": note.uart_baud,
        })
    });
    // Twice in brackets: the list of four is itself the one element of the result.
    Reply::Value(Value::Array(notes.collect()))
}

/// A module's name in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
enum NodeKey {
    Node1,
    Node2,
    Node3,
    Node4,
}

/// `POST ?opt=set&type=node_info`: 200 with nothing in it. A null does not clear a field.
pub(super) async fn set_notes(mut call: Call) -> Answer {
    let body = call.body.collect(BODY_LIMIT).await.map_err(|_| Hangup)?;
    let refused = |text: String| Ok(typed(StatusCode::BAD_REQUEST, "text/plain; charset=utf-8", text));
    let media = call.head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if media.and_then(|media| media.split(';').next()).map(str::trim) != Some("application/json") {
        return refused("Content type error".to_owned());
    }
    let notes: HashMap<NodeKey, NodeNote> = match serde_json::from_slice(&body) {
        Ok(notes) => notes,
        Err(error) => return refused(format!("Json deserialize error: {error}")),
    };
    let mut hardware = call.daemon.hardware();
    for (key, note) in notes {
        let stored = &mut hardware.notes[key as usize];
        stored.name = note.name.or(stored.name.take());
        stored.module_name = note.module_name.or(stored.module_name.take());
        stored.uart_baud = note.uart_baud.or(stored.uart_baud);
    }
    Ok(bare(StatusCode::OK, ""))
}

/// Presents a module's eMMC as a disk to the BMC. It stays on in that mode.
pub(super) async fn to_disk(daemon: &Daemon, query: &Query) -> Reply {
    let slot = match node_parameter(query) {
        Ok(slot) => slot,
        Err(error) => return error.into(),
    };
    daemon.enter_loader(slot).await;
    daemon.surroundings().pace.sleep(daemon.surroundings().durations.flash_boot).await;
    match daemon.find_on_usb(slot) {
        Ok((found, _)) => {
            daemon.hardware().disk[found] = true;
            Reply::Ok
        }
        Err(failure) => {
            let text = daemon.usb_failure_text(failure);
            Reply::failed(text, text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_node_is_cut_to_eight_bits() {
        let node =
            |text: &str| node_parameter(&Query::parse(&format!("node={text}"))).map_err(|(_, text)| text);
        assert_eq!(node("3"), Ok(3));
        assert_eq!(node("256"), Ok(0));
        assert_eq!(node("4"), Err("Parameter `node` is out of range 0..3 of node IDs".into()));
        assert_eq!(node("-1"), Err("Parameter `node` is out of range 0..3 of node IDs".into()));
        assert_eq!(node("x"), Err("Parameter `node` is not a number".into()));
    }

    #[test]
    fn serial_text_is_decoded_lossily() {
        assert_eq!(decode(b"ok \xff", "utf8").unwrap(), "ok \u{fffd}");
        assert_eq!(decode(b"o\0k\0", "utf16le").unwrap(), "ok");
        assert_eq!(decode(b"\0o\0k", "utf16be").unwrap(), "ok");
        assert_eq!(decode(b"\0\0\0o", "utf32be").unwrap(), "o");
        assert_eq!(decode(b"", "latin1"), None);
    }
}
