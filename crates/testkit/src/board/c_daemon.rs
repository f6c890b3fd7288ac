//! Firmware 1.x: one handler, every answer 200 `text/plain`, pretty-printed JSON with tabs, no login.

use std::time::Duration;

use http::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::{
    door::Call,
    job,
    legacy::{c_daemon_other, card_free},
    query::Query,
    query_decode,
    state::{UsbMode, UsbSetting},
    wire::{Answer, AnswerBody, Hangup, bare, typed},
};
use crate::board::{
    Firmware, SdCard,
    daemon::{Daemon, REBOOT},
};

/// What the installer takes before the BMC reboots.
const INSTALL: Duration = Duration::from_secs(30);

const OK: &str = r#"{"response":[{"result":"ok"}]}"#;

pub(super) async fn answer(mut call: Call) -> Answer {
    // The web server finds its handler by the first word below `/api/` and looks at nothing behind it: a login is asked
    // for its `opt`, too.
    if call.path().strip_prefix("/api/").and_then(|rest| rest.split('/').next()) != Some("bmc") {
        return Ok(bare(StatusCode::NOT_FOUND, ""));
    }
    let query = Query::parse(call.raw_query());
    let (Some(opt), Some(kind)) = (query.get("opt"), query.get("type")) else {
        return Ok(text(error(400, "opt type error")));
    };
    let kind = kind.to_ascii_lowercase();
    match opt.to_ascii_lowercase().as_str() {
        "get" => match get(&call.daemon, &kind, &query) {
            Some(value) => Ok(text(pretty(&value))),
            // Nobody answers a type that is not known.
            None => std::future::pending().await,
        },
        "set" if kind == "firmware" => firmware(&mut call).await,
        "set" => Ok(text(set(&call, &kind, &query).await)),
        _ => Ok(text(error(401, "opt error"))),
    }
}

fn text(body: String) -> Response<AnswerBody> {
    typed(StatusCode::OK, "text/plain", body)
}

fn get(daemon: &Daemon, kind: &str, query: &Query) -> Option<Value> {
    Some(match kind {
        "power" => {
            let [one, two, three, four] = daemon.hardware().intent.map(u8::from);
            json!({"node1": one, "node2": two, "node3": three, "node4": four})
        }
        "usb" => {
            let usb = daemon.hardware().usb;
            json!({"mode": u8::from(usb.mode != UsbMode::Host), "node": usb.node})
        }
        "other" => c_daemon_other(daemon.profile().version, daemon.profile().build_time),
        "nodeinfo" => {
            let unknown = "unknown";
            json!({"node1": unknown, "node2": unknown, "node3": unknown, "node4": unknown})
        }
        "sdcard" => {
            let card = daemon.plan().sd_card.as_ref();
            let (total, free) =
                card.map_or((0, 0), |card| (SdCard::TOTAL_BYTES >> 20, card_free(card) >> 20));
            json!({"total": total, "free": free, "use": total - free})
        }
        "uart" => {
            let bytes = node(query).map(|slot| daemon.uart(slot).drain()).unwrap_or_default();
            json!({"uart": String::from_utf8_lossy(&bytes)})
        }
        _ => return None,
    })
}

/// Several types write an answer of their own first, and `ok` follows it.
async fn set(call: &Call, kind: &str, query: &Query) -> String {
    let daemon = &call.daemon;
    match kind {
        "power" => {
            let intent = daemon.hardware().intent;
            let change = std::array::from_fn(|slot| {
                let on = query.get(&format!("node{}", slot + 1)).map(|value| number(value) != 0);
                on.filter(|on| *on != intent[slot])
            });
            daemon.request_power(&change).await;
        }
        "reset" if query.get("node").is_none() => {
            return format!("{}{OK}", error(400, "node argument is not set"));
        }
        "reset" => {
            if let Some(slot) = node(query) {
                daemon.reset(slot).await;
            }
        }
        "usb" => {
            let (Some(mode), Some(slot)) = (query.get("mode"), query.get("node")) else {
                return error(400, "mode or node is null");
            };
            let mode = if number(mode) == 0 { UsbMode::Host } else { UsbMode::Device };
            let node = usize::try_from(number(slot)).unwrap_or(0).min(3);
            daemon.hardware().usb = UsbSetting { node, mode, to_bmc: false };
        }
        "clear_usb_boot" => {
            daemon.hardware().boot_pins = [false; 4];
            return format!("{OK}{OK}");
        }
        "node_to_msd" => {
            if let Some(slot) = node(query) {
                daemon.enter_loader(slot).await;
                if let Ok((found, _)) = daemon.find_on_usb(slot) {
                    daemon.hardware().disk[found] = true;
                }
            }
        }
        "uart" => {
            if let (Some(slot), Some(line)) = (node(query), query.get("cmd"))
                && let Some(module) = daemon.module(slot).filter(|module| module.powered())
            {
                module.type_line(line).await;
            }
        }
        "flash" => return format!("{}{OK}", flash(daemon, query).await),
        // network, nodeinfo, sdcard, reboot and whatever is not known: ok, nothing done.
        _ => {}
    }
    OK.to_owned()
}

/// Takes an upload to the SD card and installs it. The BMC reboots by itself, whether that worked or not.
async fn firmware(call: &mut Call) -> Answer {
    let daemon = call.daemon.clone();
    if daemon.plan().sd_card.is_none() {
        return Ok(text(format!(r#"{{"response":[{{"result":"err:no sdcard"}}]}}{OK}"#)));
    }
    let mut answer = String::new();
    if call.head.method == Method::POST {
        let image = job::first_part(&call.head.headers, &mut call.body).await.map_err(|_| Hangup)?;
        answer.push_str("\r\nVARS:\r\n");
        for pair in call.raw_query().split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            answer.push_str(&format!("{}={}\r\n", query_decode(key), query_decode(value)));
        }
        // Firmware 2.x comes on an SD card only: this daemon does not install it.
        let firmware = Firmware::parse_image(&image).filter(|firmware| *firmware == Firmware::V1_1_0);
        if let Some(firmware) = firmware {
            daemon.stage(firmware);
        }
    }
    daemon.restart(INSTALL, REBOOT, true);
    answer.push_str(OK);
    Ok(text(answer))
}

/// Writes a file of the SD card while the caller waits.
async fn flash(daemon: &Daemon, query: &Query) -> String {
    let Some(slot) = query.get("node").map(number) else { return error(400, "No node specified") };
    let Some(file) = query.get("file") else { return error(400, "No file specified") };
    let slot = usize::try_from(slot).unwrap_or(usize::MAX);
    let result = match &daemon.plan().sd_card {
        None => "err:no sdcard".to_owned(),
        Some(card) => match card.files.get(file) {
            None => "flashing failure: 4".to_owned(),
            Some(image) => {
                daemon.enter_loader(slot).await;
                match job::write_local(daemon, slot, image).await {
                    Ok(()) => {
                        daemon.leave_loader(slot).await;
                        "ok".to_owned()
                    }
                    Err(code) => format!("flashing failure: {code}"),
                }
            }
        },
    };
    format!(r#"{{"response":[{{"result":"{result}"}}]}}"#)
}

/// Numbers go through `atoi`: what is none is 0.
fn number(text: &str) -> i64 {
    let digits = text.trim_start();
    let end = digits
        .char_indices()
        .find(|(at, c)| !(c.is_ascii_digit() || (*at == 0 && matches!(c, '-' | '+'))))
        .map_or(digits.len(), |(at, _)| at);
    digits.get(..end).and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// `node`; missing is 0. The real daemon reads beyond its tables above 3; here nothing happens.
fn node(query: &Query) -> Option<usize> {
    usize::try_from(query.get("node").map_or(0, number)).ok().filter(|slot| *slot < 4)
}

fn error(code: u16, result: &str) -> String {
    pretty(&json!({"code": code, "result": result}))
}

/// One flat object in the envelope, as the C library prints it.
fn pretty(object: &Value) -> String {
    let members: Vec<String> = object
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("\t\t\t\"{key}\":\t{value}"))
        .collect();
    format!("{{\n\t\"response\":\t[{{\n{}\n\t\t}}]\n}}", members.join(",\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_c_reads_them() {
        assert_eq!([number("1"), number("on"), number("3x"), number("-2"), number("")], [1, 0, 3, -2, 0]);
    }
}
