//! Starting a job: the checks in the daemon's order, the upload window, and ghost clients.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;

use super::{
    JobError, Transfer, UPLOAD_WINDOW,
    source::{Origin, Source, WebBody, is_xz_name},
    worker::{Target, Work},
};
use crate::board::{daemon::Daemon, legacy::node_parameter, query::Query};

/// Longest head of a web server's answer.
const HEAD_LIMIT: usize = 16 * 1024;

/// What a start call asks for, checked.
struct Order {
    origin: Origin,
    sender: Option<mpsc::Sender<Bytes>>,
    size: u64,
    expected: Option<Vec<u8>>,
    unpacks: bool,
}

/// `opt=set&type=flash|firmware`: the answer is `{"handle":…}`.
pub(crate) async fn start(daemon: &Arc<Daemon>, query: &Query) -> Result<String, JobError> {
    let modern = daemon.profile().is_modern();
    let kind = query.get("type");
    // 2.0.x looks at `file` before `node`.
    if !modern && query.get("file").is_none() {
        return Err(JobError::bad_request("Invalid `file` query parameter"));
    }
    let target = match kind {
        Some("firmware") => Target::Firmware,
        Some("flash") => {
            Target::Slot(node_parameter(query).map_err(|(status, text)| JobError(status, text))?)
        }
        _ => return Err(JobError::bad_request("`type` should equal 'firmware' or 'flash'")),
    };
    if target == Target::Firmware && daemon.profile().is_fork() && !query.has("force") {
        refuse_second_stage(daemon)?;
    }
    let order = order(daemon, query).await?;
    let name = query.get("file").unwrap_or_default().rsplit('/').next().unwrap_or_default().to_owned();
    let verifies = !(modern && query.has("skip_crc"));
    let id = begin(daemon, target, order, verifies, name);
    Ok(format!(r#"{{"handle":{id}}}"#))
}

/// The fork does not overwrite what is about to boot.
fn refuse_second_stage(daemon: &Daemon) -> Result<(), JobError> {
    match daemon.staged() {
        None => Ok(()),
        Some(staged) => Err(JobError(
            StatusCode::CONFLICT,
            format!(
                "{} is already staged for the next boot; reboot to take it, or pass force=1 to replace it",
                staged.name()
            ),
        )),
    }
}

async fn order(daemon: &Daemon, query: &Query) -> Result<Order, JobError> {
    let modern = daemon.profile().is_modern();
    let file = query.get("file").ok_or_else(|| JobError::bad_request("Invalid `file` query parameter"))?;
    if query.has("local") {
        let card = daemon.plan().sd_card.as_ref();
        let bytes = card.and_then(|card| card.files.get(file)).cloned().ok_or_else(|| {
            JobError::new(format!("Failed to {file}: No such file or directory (os error 2)"))
        })?;
        return Ok(Order {
            sender: None,
            size: bytes.len() as u64,
            origin: Origin::File { bytes, at: 0 },
            expected: None,
            unpacks: modern && is_xz_name(file),
        });
    }
    let expected = match query.get("sha256").filter(|_| modern) {
        Some(text) => Some(hex::decode(text).map_err(|error| {
            JobError::bad_request(format!("`sha256` parameter contains invalid hex values: {error}"))
        })?),
        None => None,
    };
    if modern && file.starts_with("http") {
        let (name, body) = download(file).await?;
        let size = body.left;
        let origin = Origin::Web(body);
        return Ok(Order { origin, sender: None, size, expected, unpacks: is_xz_name(&name) });
    }
    let length = query.get("length").ok_or_else(|| {
        JobError(StatusCode::LENGTH_REQUIRED, "Invalid `length` query parameter".to_owned())
    })?;
    let size = length.parse().map_err(|_| JobError::bad_request("`length` parameter is not a number"))?;
    let (sender, receiver) = mpsc::channel(daemon.profile().upload_queue());
    let origin = Origin::Upload(receiver);
    Ok(Order { origin, sender: Some(sender), size, expected, unpacks: modern && is_xz_name(file) })
}

/// Puts the job into the slot, sets its worker going and arms the timer of its upload window. Timers of earlier starts
/// stay armed.
fn begin(daemon: &Arc<Daemon>, target: Target, order: Order, verifies: bool, name: String) -> u32 {
    let cancel = CancellationToken::new();
    let written = Arc::new(AtomicU64::new(0));
    let id = rand::random();
    daemon.jobs().begin(Transfer {
        id,
        process: process_name(daemon, target),
        size: order.size,
        written: written.clone(),
        sender: order.sender,
        cancel: cancel.clone(),
    });
    let unpacks = order.unpacks.then_some(daemon.plan().xz_memory);
    let source = Source::new(order.origin, order.expected, unpacks);
    let work = Work { target, source, size: order.size, written, cancel, verifies, name };
    let life = daemon.life();
    let worker = daemon.clone();
    tokio::spawn(async move { life.run_until_cancelled_owned(work.run(worker)).await });

    let life = daemon.life();
    let timer = daemon.clone();
    let closes = daemon.clock().now() + UPLOAD_WINDOW;
    daemon.jobs().arm(closes);
    tokio::spawn(async move {
        let clock = timer.clock().clone();
        if life.run_until_cancelled_owned(clock.wait_until(closes)).await.is_some() {
            timer.jobs().expire(clock.now());
        }
    });
    id
}

fn process_name(daemon: &Daemon, target: Target) -> String {
    let profile = daemon.profile();
    match target {
        Target::Firmware if profile.is_modern() => "firmware upgrade service".to_owned(),
        Target::Firmware => "os upgrade service".to_owned(),
        Target::Slot(slot) if profile.is_modern() => format!("Node {} os install service", slot + 1),
        Target::Slot(slot) if profile.since(2, 0, 2) => format!("Node {} upgrade service", slot + 1),
        Target::Slot(slot) => format!("node {} upgrade service", slot + 1),
    }
}

impl Daemon {
    /// Another client starts an upload job for a slot (0 to 3) and never uploads.
    pub(crate) fn ghost_start(self: &Arc<Self>, slot: usize) {
        let (sender, receiver) = mpsc::channel(self.profile().upload_queue());
        let order = Order {
            origin: Origin::Upload(receiver),
            sender: Some(sender),
            size: 1_000_000,
            expected: None,
            unpacks: false,
        };
        begin(self, Target::Slot(slot), order, true, String::new());
    }
}

/// Asks a web server for a file, as the BMC itself does. Plain HTTP only: the simulated BMC trusts no certificate.
async fn download(url: &str) -> Result<(String, WebBody), JobError> {
    let unparsable =
        |why: &str| JobError::bad_request(format!("{url} could not be parsed to a url object: {why}"));
    let request_error =
        |why: &dyn std::fmt::Display| JobError::new(format!("Failed to http file request error: {why}"));
    let (scheme, rest) = url.split_once("://").ok_or_else(|| unparsable("relative URL without a base"))?;
    let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    if authority.is_empty() {
        return Err(unparsable("empty host"));
    }
    if scheme != "http" {
        return Err(request_error(&"invalid peer certificate: UnknownIssuer"));
    }
    let address = if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
    let name = path.split('?').next().and_then(|path| path.rsplit('/').next()).unwrap_or_default().to_owned();
    let mut stream = TcpStream::connect(&address).await.map_err(|error| request_error(&error))?;
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nAccept: */*\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(|error| request_error(&error))?;
    let mut buffer = BytesMut::with_capacity(HEAD_LIMIT);
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break at;
        }
        if buffer.len() > HEAD_LIMIT
            || stream.read_buf(&mut buffer).await.map_err(|e| request_error(&e))? == 0
        {
            return Err(request_error(&"connection closed before message completed"));
        }
    };
    let head = buffer.split_to(end + 4);
    let head = String::from_utf8_lossy(&head);
    // The daemon does not look at the status: an error page is taken for the image.
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<u64>().ok())?
    });
    let left = length.ok_or_else(|| JobError::new("Failed to no content-length: no content-length"))?;
    Ok((name, WebBody { stream, early: buffer.freeze(), left }))
}

/// The 5 s that the daemon gives a stopped worker to say why.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(5);
