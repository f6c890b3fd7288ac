//! `/api/bmc/serial/ws`: the serial line over a websocket.
//!
//! In the official daemons it is broken: the handshake is answered after 30 s, with a close, and nobody else is served
//! meanwhile. In the fork it works; a browser may bring its token as a subprotocol.

use std::{sync::Arc, time::Duration};

use base64::Engine as _;
use bytes::BytesMut;
use http::{HeaderMap, HeaderName, Response, StatusCode, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use sha1::{Digest as _, Sha1};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::OwnedMutexGuard,
};

use super::{
    daemon::Daemon,
    door::Call,
    legacy::node_parameter,
    query::Query,
    wire::{Answer, bare, typed, with},
};
use frame::{Frame, Opcode};

mod frame;

/// How long the official daemon lets the caller wait, and everybody else too.
const PATIENCE: Duration = Duration::from_secs(30);
const GIVEN_UP: &str = "client has not sent heartbeat in over 30s; disconnecting";
/// Between two pings.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// What the key of a handshake is hashed with (RFC 6455).
const MAGIC: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// What a subprotocol begins with that is a token. The fork selects the first one offered that is none.
const TOKEN_PREFIX: &str = "bmcd.bearer.";

fn is(headers: &HeaderMap, name: HeaderName, wanted: &str) -> bool {
    let words = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    words.flat_map(|line| line.split(',')).any(|word| word.trim().eq_ignore_ascii_case(wanted))
}

/// The subprotocols that are offered.
fn offered(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).into_iter();
    lines.filter_map(|value| value.to_str().ok()).flat_map(|line| line.split(',')).map(str::trim)
}

/// The token of a whole handshake that brings it as a subprotocol (the fork only).
pub(super) fn bearer_of(call: &Call) -> Option<String> {
    let headers = &call.head.headers;
    let whole = is(headers, header::UPGRADE, "websocket")
        && is(headers, header::CONNECTION, "upgrade")
        && headers.contains_key(header::SEC_WEBSOCKET_KEY)
        && is(headers, header::SEC_WEBSOCKET_VERSION, "13");
    if !call.daemon.profile().is_fork() || !whole {
        return None;
    }
    offered(headers).find_map(|word| word.strip_prefix(TOKEN_PREFIX)).map(str::to_owned)
}

/// Answers a handshake.
pub(super) async fn socket(mut call: Call, guard: Option<OwnedMutexGuard<()>>) -> Answer {
    let headers = &call.head.headers;
    let refused = |text: &'static str| Ok(typed(StatusCode::BAD_REQUEST, "text/plain; charset=utf-8", text));
    if !is(headers, header::UPGRADE, "websocket") {
        return refused("No WebSocket Upgrade header found");
    }
    if !is(headers, header::CONNECTION, "upgrade") {
        return refused("No Connection upgrade");
    }
    let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY) else { return refused("Bad WebSocket key") };
    let accept = Sha1::new().chain_update(key.as_bytes()).chain_update(MAGIC).finalize();
    let mut answer = switching(&base64::engine::general_purpose::STANDARD.encode(accept));
    let protocol = offered(headers).find(|word| !word.starts_with(TOKEN_PREFIX));
    if let Some(protocol) = protocol.filter(|_| call.daemon.profile().is_fork()) {
        answer = with(answer, header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    let slot = match node_parameter(&Query::parse(call.raw_query())) {
        Ok(slot) => slot,
        Err((status, text)) => return Ok(typed(status, "text/plain; charset=utf-8", text)),
    };
    let Some(upgrade) = call.head.extensions.remove::<OnUpgrade>() else {
        return refused("No WebSocket Upgrade header found");
    };
    let daemon = call.daemon.clone();
    let works = daemon.profile().is_fork();
    if !works {
        // Before the answer: that is what is broken.
        daemon.surroundings().pace.sleep(PATIENCE).await;
    }
    let network = daemon.network();
    tokio::spawn(async move {
        // The fork lets the lock go with the handshake.
        drop(guard);
        let talk = async {
            if let Ok(upgraded) = upgrade.await {
                // A caller that goes away ends the conversation, and that is all.
                let _ended = converse(&daemon, slot, works, upgraded).await;
            }
        };
        network.run_until_cancelled(talk).await;
    });
    Ok(answer)
}

fn switching(accept: &str) -> Response<super::wire::AnswerBody> {
    let answer = bare(StatusCode::SWITCHING_PROTOCOLS, "");
    let answer = with(answer, header::CONNECTION, "upgrade");
    let answer = with(answer, header::UPGRADE, "websocket");
    with(answer, header::SEC_WEBSOCKET_ACCEPT, accept)
}

async fn converse(daemon: &Arc<Daemon>, slot: usize, works: bool, upgraded: Upgraded) -> std::io::Result<()> {
    let (mut reader, mut writer) = tokio::io::split(TokioIo::new(upgraded));
    if !works {
        writer.write_all(&Frame::close(1011, GIVEN_UP).bytes()).await?;
        return writer.shutdown().await;
    }
    let mut mark = daemon.uart(slot).mark();
    let (mut pending, mut typed) = (BytesMut::new(), Vec::new());
    let mut heartbeat = tokio::time::interval(HEARTBEAT);
    loop {
        tokio::select! {
            (bytes, next) = daemon.uart(slot).after(mark) => {
                mark = next;
                writer.write_all(&Frame::new(Opcode::Binary, bytes).bytes()).await?;
            }
            read = reader.read_buf(&mut pending) => {
                if read? == 0 {
                    return Ok(());
                }
                while let Some(frame) = Frame::parse(&mut pending) {
                    match frame.opcode {
                        Opcode::Text | Opcode::Binary => type_in(daemon, slot, &mut typed, &frame.payload).await,
                        Opcode::Ping => {
                            writer.write_all(&Frame::new(Opcode::Pong, frame.payload).bytes()).await?;
                        }
                        Opcode::Pong => {}
                        Opcode::Close => {
                            writer.write_all(&Frame::new(Opcode::Close, frame.payload).bytes()).await?;
                            return writer.shutdown().await;
                        }
                        Opcode::Other => {
                            let text = "Continuation frames are not supported";
                            writer.write_all(&Frame::close(1003, text).bytes()).await?;
                            return writer.shutdown().await;
                        }
                    }
                }
            }
            _ = heartbeat.tick() => {
                writer.write_all(&Frame::new(Opcode::Ping, Vec::new()).bytes()).await?;
            }
        }
    }
}

/// Bytes go to the module as they come; it takes them line by line.
async fn type_in(daemon: &Daemon, slot: usize, typed: &mut Vec<u8>, bytes: &[u8]) {
    for byte in bytes {
        if !matches!(byte, b'\r' | b'\n') {
            typed.push(*byte);
            continue;
        }
        let line = std::mem::take(typed);
        // Of `\r\n` the second is no line of its own.
        if (*byte == b'\n' && line.is_empty()) || !daemon.module(slot).is_some_and(|module| module.powered())
        {
            continue;
        }
        if let Some(module) = daemon.module(slot) {
            module.type_line(&String::from_utf8_lossy(&line)).await;
        }
    }
}
