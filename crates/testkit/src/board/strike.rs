//! Faults at the doors: what happens before, instead of or after a handler.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode};
use tokio::sync::mpsc;

use super::{
    daemon::{Comeback, REBOOT, RELOAD},
    door::{Call, Door, route},
    request_line,
    wire::{self, Answer, AnswerBody, Hangup, typed},
};
use crate::{Action, Site, fault::Strike};

/// Answers a call, with whatever fault is armed for it.
pub(super) async fn answer(mut call: Call, door: Door) -> Answer {
    let line = request_line(call.head.method.as_str(), call.path(), call.raw_query());
    let daemon = call.daemon.clone();
    let here = Site::Bmc { board: Some(daemon.plan().name.clone()), request: line };
    let Some(strike) = daemon.surroundings().faults.strike_within(&here) else {
        return route(call, door).await;
    };
    let uploads = call.head.method == Method::POST && call.path().starts_with("/api/bmc/upload/");
    if uploads && strikes_within(&strike) {
        call.trouble = Some(strike);
        return route(call, door).await;
    }
    match strike.action {
        Action::Delay(time) => tokio::time::sleep(time).await,
        Action::Busy(time) => {
            let held = daemon.hold_lock().await;
            tokio::spawn(async move {
                tokio::time::sleep(time).await;
                drop(held);
            });
        }
        Action::Advance(time) => daemon.clock().advance(time),
        Action::Status(status, text) => return Ok(foreign(status, text)),
        Action::Fail(_, text) => return Ok(foreign(500, text)),
        Action::ExpireToken => daemon.auth().forget_token(&call.head.headers),
        Action::Ban(time) => daemon.ban(&call.peer().to_string(), time),
        Action::Restart => {
            daemon.restart(Duration::ZERO, RELOAD, false);
            return Err(Hangup);
        }
        Action::Reboot => {
            daemon.restart(Duration::ZERO, REBOOT, true);
            return Err(Hangup);
        }
        Action::GoDark => daemon.come_back(Comeback::Never),
        Action::Move => daemon.come_back(Comeback::Elsewhere),
        Action::OldFirmware => daemon.keep_firmware(),
        Action::Replace => daemon.ghost_start(0),
        Action::Hang => std::future::pending().await,
        Action::CutAfter(bytes) => return Ok(wire::cut_after(route(call, door).await?, bytes)),
        Action::Corrupt => return Ok(halved(route(call, door).await?)),
        Action::Body(text) => return Ok(with_body(route(call, door).await?, text)),
        Action::Header(name, value) => return Ok(with_header(route(call, door).await?, &name, value)),
        Action::Trickle(bytes, pause) => return Ok(trickled(route(call, door).await?, bytes, pause)),
        _ => return Err(Hangup),
    }
    route(call, door).await
}

/// Whether a fault of an upload strikes while its body is read.
fn strikes_within(strike: &Strike) -> bool {
    strike.after.is_some() || matches!(strike.action, Action::CutAfter(_) | Action::Corrupt | Action::Malform)
}

/// An answer that something in front of the daemon gives.
fn foreign(status: u16, text: String) -> Response<AnswerBody> {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let media = if text.starts_with('<') { "text/html" } else { "text/plain; charset=utf-8" };
    typed(status, media, text)
}

/// The answer, cut in the middle and presented as whole.
fn halved(response: Response<AnswerBody>) -> Response<AnswerBody> {
    response.map(|body| match body {
        AnswerBody::Whole(Some(body)) => AnswerBody::Whole(Some(body.slice(..body.len() / 2))),
        other => other,
    })
}

fn with_body(response: Response<AnswerBody>, text: String) -> Response<AnswerBody> {
    response.map(|_| AnswerBody::Whole((!text.is_empty()).then(|| text.into())))
}

/// A header that cannot be one is left alone.
fn with_header(
    mut response: Response<AnswerBody>,
    name: &str,
    value: Option<String>,
) -> Response<AnswerBody> {
    if let Ok(name) = HeaderName::try_from(name) {
        match value.map(HeaderValue::try_from) {
            Some(Ok(value)) => {
                response.headers_mut().insert(name, value);
            }
            Some(Err(_)) => {}
            None => {
                response.headers_mut().remove(name);
            }
        }
    }
    response
}

/// The answer with its length, piece by piece.
fn trickled(response: Response<AnswerBody>, bytes: usize, pause: Duration) -> Response<AnswerBody> {
    response.map(|body| {
        let AnswerBody::Whole(Some(mut rest)) = body else { return body };
        let length = Some(rest.len() as u64);
        let (sender, pieces) = mpsc::channel(1);
        tokio::spawn(async move {
            while !rest.is_empty() {
                let piece: Bytes = rest.split_to(bytes.clamp(1, rest.len()));
                if sender.send(Ok(piece)).await.is_err() {
                    return;
                }
                tokio::time::sleep(pause).await;
            }
        });
        AnswerBody::Pieces { pieces, length }
    })
}
