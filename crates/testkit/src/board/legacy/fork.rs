//! What the community fork has beside the old query: one path for each operation, and the change of the password.
//!
//! A success answers with the bare result or 204, a refusal with `application/problem+json`; the handlers are those of
//! the query. Source: excavador-turing/bmcd, `api/paths.rs`, `api/access.rs`, `authentication/factory_password.rs`, and
//! the answers of a board that BMC-UI keeps as `demo/fixtures`.

use http::{Method, Response, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Reply, dispatch};
use crate::board::{
    daemon::Daemon,
    door::{Call, index},
    query::Query,
    wire::{Answer, AnswerBody, Hangup, bare, typed},
};

/// A JSON or form body that is longer is not read on.
const BODY_LIMIT: usize = 64 * 1024;
/// The shortest password that is taken.
const SHORTEST_PASSWORD: usize = 12;
/// What is answered as long as the password is the one of the quick-start guide.
const FACTORY: &str = "This board is still using the password it shipped with, which is printed in the quick-start \
                       guide and is the same on every board. Until it is changed, this is the only thing it will do. \
                       Change it from the interface, or POST /api/bmc/access/password.";

/// Path below `/api/bmc/`, and the `type` of the query that does the same. A POST sets.
const PATHS: [(&str, Method, &str, &str); 20] = [
    ("about", Method::GET, "about", "Firmware, daemon, kernel and board identity"),
    ("health", Method::GET, "health", "The board's own condition"),
    ("thermal", Method::GET, "thermal", "Temperature sensors with their trip points, and the fan's step"),
    ("cooling", Method::GET, "cooling", "Cooling devices with their setpoints"),
    ("power", Method::GET, "power", "Which nodes are powered"),
    ("nodes", Method::GET, "node_info", "Node names, module names and power-on times"),
    ("usb", Method::GET, "usb", "The USB bus: which node holds it, in which mode"),
    ("sdcard", Method::GET, "sdcard", "SD card capacity and use"),
    ("info", Method::GET, "info", "Storage and interfaces"),
    ("power", Method::POST, "power", "Power nodes on or off"),
    ("reset", Method::POST, "reset", "Restart one node"),
    ("reboot", Method::POST, "reboot", "Reboot the BMC; the compute modules keep running"),
    ("reload", Method::POST, "reload", "Restart the daemon"),
    ("usb", Method::POST, "usb", "Route the USB bus to a node, in a mode"),
    ("usb-boot", Method::POST, "usb_boot", "Hold a node's usbboot pin for the next power-on"),
    ("usb-boot/clear", Method::POST, "clear_usb_boot", "Release the usbboot pin"),
    ("node-to-msd", Method::POST, "node_to_msd", "Expose a node's storage as a mass-storage device"),
    ("network/reset", Method::POST, "network", "Reset the network configuration"),
    ("sdcard/format", Method::POST, "sdcard", "Format the SD card"),
    ("cooling", Method::POST, "cooling", "Set a cooling device's step"),
];

/// Temperatures and the fan, as a board told them; the fan's step is the one that is set.
pub(super) fn thermal(daemon: &Daemon) -> Reply {
    let trip =
        |index: u8, kind: &str, celsius: f64| json!({"index": index, "kind": kind, "temperature_c": celsius});
    Reply::Value(json!({
        "cooling": [{
            "cur_state": daemon.hardware().fan_speed,
            "levels": [0, 16, 32, 64, 102, 170, 254],
            "max_level": 254,
            "max_state": 6,
            "name": "pwm-fan",
            "present": true,
        }],
        "sensors": [{
            "name": "bmc-thermal",
            "present": true,
            "temperature_c": 48.2,
            "trips": [
                trip(0, "active", 20.0),
                trip(1, "active", 45.0),
                trip(2, "active", 60.0),
                trip(3, "active", 70.0),
                trip(4, "hot", 95.0),
            ],
        }],
    }))
}

/// The board's own condition, as a board told it.
pub(super) fn health(daemon: &Daemon) -> Reply {
    Reply::Value(json!({
        "clock": {
            "measured_by": "chronyc tracking",
            "offset_seconds": -7.836e-6,
            "rtc": [
                {"device": "rtc0", "name": "rtc-pcf8563 0-0051"},
                {"device": "rtc1", "name": "sun6i-rtc 7090000.rtc"},
            ],
            "source": "pool.ntp.org",
            "stratum": 4,
            "synchronised": true,
        },
        "load": {"fifteen_minutes": 1.7, "five_minutes": 3.52, "one_minute": 4.32, "present": true},
        "memory": {
            "available_bytes": 89_497_600,
            "free_bytes": 46_870_528,
            "present": true,
            "self_resident_bytes": 20_398_080,
            "self_threads": 13,
            "total_bytes": 121_839_616,
        },
        "nand": {
            "available_bytes": 634_880,
            "available_eraseblocks": 5,
            "bad_eraseblocks": 0,
            "eraseblock_size_bytes": 126_976,
            "present": true,
            "reserved_eraseblocks": 40,
            "total_eraseblocks": 2040,
        },
        "uptime_seconds": daemon.clock().now().as_secs(),
    }))
}

/// Whether a path is served before the password was changed.
fn is_open_to_factory(path: &str) -> bool {
    matches!(path, "/api/bmc/authenticate" | "/api/bmc/access" | "/api/bmc/access/password")
}

/// Refuses everything but the change of the password while it is the factory's.
pub(crate) fn refuse_factory_password(call: &Call) -> Option<Response<AnswerBody>> {
    let refused = call.daemon.auth().is_factory() && !is_open_to_factory(call.path());
    refused.then(|| {
        let title = "This board is still using its factory password";
        problem_titled(StatusCode::FORBIDDEN, title, FACTORY)
    })
}

/// Answers a path below `/api/bmc/`; unknown ones get the web UI.
pub(crate) async fn answer(mut call: Call) -> Answer {
    let path = call.path().strip_prefix("/api/bmc/").unwrap_or_default().to_owned();
    let method = call.head.method.clone();
    match (path.as_str(), &method) {
        ("openapi.json", &Method::GET) => return Ok(json_answer(&openapi(&call.daemon))),
        ("access", &Method::GET) => return Ok(json_answer(&access(&call))),
        ("access/password", &Method::POST) => return change_password(call).await,
        _ => {}
    }
    let known = PATHS.iter().find(|(known, verb, ..)| *known == path && *verb == method);
    let Some((_, _, kind, _)) = known else { return Ok(index()) };
    let mut query = Query::parse(call.raw_query());
    if method == Method::POST {
        let body = call.body.collect(BODY_LIMIT).await.map_err(|_| Hangup)?;
        if let Err(text) = merge(&mut query, &call, &body) {
            return Ok(problem(StatusCode::BAD_REQUEST, &text));
        }
    }
    let reply = dispatch(&call.daemon, kind, method == Method::POST, &query).await?;
    Ok(match reply {
        Reply::Ok => bare(StatusCode::NO_CONTENT, ""),
        Reply::Value(value) => json_answer(&value),
        Reply::Uart(text) => typed(StatusCode::OK, "text/plain; charset=utf-8", text),
        Reply::Error(status, text) => problem(status, &text),
    })
}

/// Takes the parameters of a form or a JSON body; those of the query win.
fn merge(query: &mut Query, call: &Call, body: &[u8]) -> Result<(), String> {
    if body.is_empty() {
        return Ok(());
    }
    match media_type(call).as_str() {
        "application/x-www-form-urlencoded" => {
            let form = std::str::from_utf8(body).map_err(|_| "the form body is not UTF-8")?;
            query.add(&Query::parse(form));
        }
        "application/json" => {
            let value: Value = serde_json::from_slice(body)
                .map_err(|error| format!("the JSON body could not be read: {error}"))?;
            let members = value.as_object().ok_or("the JSON body must be an object")?;
            for (key, value) in members {
                query.add_one(key, value.as_str().map_or_else(|| value.to_string(), str::to_owned));
            }
        }
        "" => return Err("a body needs a Content-Type".to_owned()),
        other => {
            return Err(format!(
                "{other} is not accepted; send application/x-www-form-urlencoded or application/json"
            ));
        }
    }
    Ok(())
}

fn media_type(call: &Call) -> String {
    let value = call.head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value.and_then(|value| value.split(';').next()).unwrap_or_default().trim().to_owned()
}

#[derive(Deserialize)]
struct PasswordChange {
    username: String,
    current_password: String,
    new_password: String,
}

async fn change_password(mut call: Call) -> Answer {
    let body = call.body.collect(BODY_LIMIT).await.map_err(|_| Hangup)?;
    let refused = |text: String| Ok(typed(StatusCode::BAD_REQUEST, "text/plain; charset=utf-8", text));
    if media_type(&call) != "application/json" {
        return refused("Content type error".to_owned());
    }
    let change: PasswordChange = match serde_json::from_slice(&body) {
        Ok(change) => change,
        Err(error) => return refused(format!("Json deserialize error: {error}")),
    };
    let mut auth = call.daemon.auth();
    let refusal = if change.username.is_empty() {
        Some((StatusCode::BAD_REQUEST, "`username` is required"))
    } else if change.new_password.chars().count() < SHORTEST_PASSWORD {
        Some((StatusCode::BAD_REQUEST, "the new password is too short: at least 12 characters"))
    } else if change.new_password == change.current_password {
        Some((StatusCode::BAD_REQUEST, "the new password is the same as the current one"))
    } else if !auth.is_login(&change.username, &change.current_password) {
        Some((StatusCode::FORBIDDEN, "the current password is wrong"))
    } else {
        None
    };
    Ok(match refusal {
        Some((status, text)) => Reply::Error(status, text.to_owned()).into_response(),
        None => {
            auth.set_password(&change.new_password);
            bare(StatusCode::NO_CONTENT, "")
        }
    })
}

fn access(call: &Call) -> Value {
    let authorization = call.head.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let scheme = if authorization.is_some_and(|line| line.starts_with("Basic ")) { "basic" } else { "token" };
    json!({
        "actor": { "name": call.daemon.plan().username, "scheme": scheme },
        "local_account": "root",
        "client_ca": null,
        "identity_header": { "name": "x-auth-request-email", "source": "default" },
        "client_ca_pinned_in_config": false,
        "factory_password": call.daemon.auth().is_factory(),
    })
}

/// A document of the operations that are there.
fn openapi(daemon: &Daemon) -> Value {
    let mut paths = serde_json::Map::new();
    for (path, method, _, summary) in &PATHS {
        let entry = paths.entry(format!("/api/bmc/{path}")).or_insert_with(|| json!({}));
        if let Some(entry) = entry.as_object_mut() {
            let verb = method.as_str().to_ascii_lowercase();
            entry.insert(
                verb,
                json!({"responses": {"default": {"description": "problem"}}, "summary": summary}),
            );
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": "Turing Pi 2 BMC", "version": daemon.profile().version },
        "paths": paths,
    })
}

fn json_answer(value: &Value) -> Response<AnswerBody> {
    typed(StatusCode::OK, "application/json", value.to_string())
}

fn problem(status: StatusCode, detail: &str) -> Response<AnswerBody> {
    problem_titled(status, status.canonical_reason().unwrap_or("Error"), detail)
}

fn problem_titled(status: StatusCode, title: &str, detail: &str) -> Response<AnswerBody> {
    let body = json!({"detail": detail, "status": status.as_u16(), "title": title, "type": "about:blank"});
    typed(status, "application/problem+json", body.to_string())
}
