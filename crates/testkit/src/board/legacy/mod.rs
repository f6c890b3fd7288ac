//! `/api/bmc` of bmcd: the envelope, the order of checks, and the table of types.

mod backup;
mod fork;
mod info;
mod nodes;
mod settings;

use std::sync::Arc;

use http::{Method, Response, StatusCode, header};
use serde_json::{Value, json};
use tokio::sync::OwnedMutexGuard;

use super::{
    daemon::{Daemon, REBOOT, RELOAD},
    door::{Call, plain},
    job::{self, JobError},
    profile::Profile,
    query::Query,
    wire::{Answer, AnswerBody, Hangup, bare, typed, with},
};

pub(crate) use backup::backup;
pub(crate) use fork::{answer as fork_paths, refuse_factory_password};
pub(crate) use info::{c_daemon_other, card_free, other};
pub(crate) use nodes::node_parameter;

/// What a handler of an ordinary type gives.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Reply {
    Ok,
    Value(Value),
    Uart(String),
    Error(StatusCode, String),
}

impl Reply {
    fn bad_request(text: impl Into<String>) -> Self {
        Self::Error(StatusCode::BAD_REQUEST, text.into())
    }
    /// An action failed: `Failed to <what>: <cause>`.
    fn failed(what: &str, cause: &str) -> Self {
        Self::Error(StatusCode::INTERNAL_SERVER_ERROR, format!("Failed to {what}: {cause}"))
    }
    /// The envelope.
    pub(crate) fn into_response(self) -> Response<AnswerBody> {
        let (status, body) = match self {
            Self::Ok => (StatusCode::OK, json!({"response": [{"result": "ok"}]})),
            Self::Value(value) => (StatusCode::OK, json!({"response": [{ "result": value }]})),
            Self::Uart(text) => (StatusCode::OK, json!({"response": [{ "uart": text }]})),
            Self::Error(status, text) => (status, json!({"response": [{ "result": text }]})),
        };
        typed(status, "application/json", body.to_string())
    }
}

/// A parameter that is missing or wrong.
impl From<(StatusCode, String)> for Reply {
    fn from((status, text): (StatusCode, String)) -> Self {
        Self::Error(status, text)
    }
}

/// `/api/bmc` itself: routed by parts of the raw query first, then by `opt` and `type`.
pub(crate) async fn entry(call: Call) -> Answer {
    let raw = call.raw_query().to_owned();
    let query = Query::parse(&raw);
    let is_job = if call.daemon.profile().is_fork() {
        matches!(query.get("type"), Some("flash" | "firmware"))
    } else {
        raw.contains("type=flash") || raw.contains("type=firmware")
    };
    match call.head.method {
        Method::GET if raw.contains("opt=get") && is_job => {
            Ok(plain(call.daemon.jobs().with(|job| job.to_json().to_string())))
        }
        Method::GET if raw.contains("opt=set") && is_job => start(call, &query).await,
        Method::POST
            if call.daemon.profile().is_modern()
                && raw.contains("opt=set")
                && raw.contains("type=node_info") =>
        {
            nodes::set_notes(call).await
        }
        Method::GET => ordinary(&call, &query).await,
        _ => Ok(with(bare(StatusCode::METHOD_NOT_ALLOWED, ""), header::ALLOW, "GET, POST")),
    }
}

async fn start(call: Call, query: &Query) -> Answer {
    let kind = query.get("type");
    if !call.daemon.profile().is_modern() && !matches!(kind, Some("flash" | "firmware")) {
        // 2.0.x panics here.
        return Err(Hangup);
    }
    Ok(match job::start(&call.daemon, query).await {
        Ok(handle) => plain(handle),
        Err(error) => job_error(call.daemon.profile(), error),
    })
}

/// `POST /api/bmc/upload/{handle}`. It runs on when the caller goes away: a broken upload is an event of the job.
pub(crate) async fn upload(call: Call, handle: &str, guard: Option<OwnedMutexGuard<()>>) -> Answer {
    let Ok(id) = handle.parse::<u32>() else {
        let text = format!("can not parse {handle:?} to a u32");
        return Ok(typed(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", text));
    };
    let (life, profile) = (call.daemon.life(), call.daemon.profile());
    let task = tokio::spawn(async move {
        let _held = guard;
        let Call { daemon, head, body, trouble, .. } = call;
        let trouble = job::Trouble::new(trouble);
        life.run_until_cancelled(job::upload(&daemon, id, &head.headers, body, trouble)).await
    });
    match task.await {
        Ok(Some(Ok(()))) => Ok(bare(StatusCode::OK, "")),
        Ok(Some(Err(job::UploadEnd::Error(error)))) => Ok(job_error(profile, error)),
        Ok(Some(Err(job::UploadEnd::Early(status, text)))) => {
            Ok(typed(status, "text/plain; charset=utf-8", text))
        }
        Ok(Some(Err(job::UploadEnd::Hangup | job::UploadEnd::Gone)) | None) | Err(_) => Err(Hangup),
    }
}

/// The official daemons lose the status and the envelope of these errors.
fn job_error(profile: Profile, JobError(status, text): JobError) -> Response<AnswerBody> {
    if profile.is_fork() {
        Reply::Error(status, text).into_response()
    } else {
        typed(StatusCode::INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", text)
    }
}

async fn ordinary(call: &Call, query: &Query) -> Answer {
    let is_set = match query.get("opt") {
        Some("set") => true,
        Some("get") => false,
        _ => return Ok(Reply::bad_request("Missing `opt` parameter").into_response()),
    };
    let Some(kind) = query.get("type") else {
        return Ok(Reply::bad_request("Missing `type` parameter").into_response());
    };
    Ok(dispatch(&call.daemon, kind, is_set, query).await?.into_response())
}

/// One type, asked for or set.
pub(super) async fn dispatch(
    daemon: &Arc<Daemon>,
    kind: &str,
    is_set: bool,
    query: &Query,
) -> Result<Reply, Hangup> {
    let profile = daemon.profile();
    let (modern, second) = (profile.is_modern(), std::time::Duration::from_secs(1));
    Ok(match (kind, is_set) {
        ("about", false) if profile.since(2, 0, 2) => info::about(daemon),
        ("other", false) => info::other(daemon),
        ("info", false) if profile.since(2, 0, 2) => info::info(daemon),
        ("sdcard", false) => info::sd_card(daemon),
        ("sdcard", true) => not_implemented("microSD card formatting is not implemented"),
        ("power", false) => nodes::power(daemon),
        ("power", true) => nodes::set_power(daemon, query).await,
        ("reset", true) => nodes::reset(daemon, query).await,
        ("uart", false) => nodes::uart(daemon, query),
        ("uart", true) => nodes::set_uart(daemon, query).await,
        ("nodeinfo", false) => Reply::Value(json!([{"node1": 0, "node2": 0, "node3": 0, "node4": 0}])),
        ("nodeinfo", true) => not_implemented("Method type `set` on parameter `nodeinfo` is deprecated"),
        ("node_info", false) if modern => nodes::notes(daemon),
        ("usb", false) => settings::usb(daemon),
        ("usb", true) => settings::set_usb(daemon, query)?,
        ("usb_node1", false) if modern => Reply::Value(json!(daemon.hardware().usb_node1)),
        ("usb_node1", true) if modern => settings::set_usb_node1(daemon, query),
        ("usb_boot", true) => settings::usb_boot(daemon, query),
        ("clear_usb_boot", true) => {
            daemon.hardware().boot_pins = [false; 4];
            Reply::Ok
        }
        ("node_to_msd", true) => nodes::to_disk(daemon, query).await,
        ("cooling", false) if modern => settings::cooling(daemon),
        ("cooling", true) if modern => settings::set_cooling(daemon, query),
        ("thermal", false) if profile.is_fork() => fork::thermal(daemon),
        ("health", false) if profile.is_fork() => fork::health(daemon),
        ("network", true) => {
            if modern {
                daemon.bounce_network(second);
            }
            Reply::Ok
        }
        ("reload", true) if profile.since(2, 0, 2) => {
            daemon.restart(second, RELOAD, false);
            Reply::Ok
        }
        ("reboot", true) if profile.since(2, 0, 1) => {
            if modern && query.has("fel") {
                daemon.go_dark();
            } else {
                daemon.restart(second, REBOOT, true);
            }
            Reply::Ok
        }
        _ => Reply::bad_request(format!("Invalid `type` parameter {kind}")),
    })
}

fn not_implemented(text: &str) -> Reply {
    Reply::Error(StatusCode::NOT_IMPLEMENTED, text.to_owned())
}
