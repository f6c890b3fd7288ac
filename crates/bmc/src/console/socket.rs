//! The websocket of the community's firmware: bytes of the line in binary frames, both ways. Source: excavador-turing/bmcd
//! and BMC-UI: `/api/bmc/serial/ws?node=0..3`, the token in `Authorization`, a ping every 5 seconds.

use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::time::timeout;
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{self, Message, handshake::client::generate_key, protocol::WebSocketConfig},
};

use super::{BESIDE, Ends};
use crate::{
    Attempt, BmcError, HttpBmcClient, Slot, UartMark, UartText,
    wire::{Call, Method, patient::Stream},
};

/// The daemon pings every 5 seconds: without a sign of it for this long it is gone.
const SILENCE: Duration = Duration::from_secs(60);
/// Larger than any frame of a serial line.
const FRAME: usize = 1024 * 1024;
/// Text that may wait for its reader; the line itself stands still behind it.
const WAITING: usize = 256 * 1024;

pub(super) type Socket = WebSocketStream<Box<dyn Stream>>;

impl HttpBmcClient {
    /// Returns the websocket, and what was written between the mark and its opening.
    pub(super) async fn open_socket(
        &self,
        slot: Slot,
        mark: &mut UartMark,
    ) -> Result<(Socket, UartText), BmcError> {
        let call =
            Call::path("open a websocket", Method::Get, "/serial/ws").first("node", &slot.wire().to_string());
        let attempt = self.session().attempt(call.action());
        let limit = self.session().timeouts().call.min(BESIDE * 2);
        let mut request = self.session().upgrade(&call).await?;
        // The library wants to know the scheme; only the path goes out.
        let scheme = if self.session().encrypted() { "wss" } else { "ws" };
        if let Ok(uri) = format!("{scheme}://{}{}", attempt.bmc(), request.uri()).parse() {
            *request.uri_mut() = uri;
        }
        for (name, value) in
            [("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13")]
        {
            request.headers_mut().insert(name, http::HeaderValue::from_static(value));
        }
        if let Ok(key) = http::HeaderValue::from_str(&generate_key()) {
            request.headers_mut().insert("sec-websocket-key", key);
        }
        let stream = self.session().stream().await.map_err(|broken| broken.into_error(attempt.clone()))?;
        let config = WebSocketConfig::default().max_message_size(Some(FRAME)).max_frame_size(Some(FRAME));
        let shaken = timeout(limit, client_async_with_config(request, stream, Some(config))).await;
        let (socket, _) = shaken
            .map_err(|_| BmcError::Stalled { attempt: attempt.clone(), limit })?
            .map_err(|error| refused(error, &attempt))?;
        // A daemon that serves one request at a time would not answer this one before the websocket ends.
        let between = self.read_uart_within(mark, self.session().timeouts().call.min(BESIDE)).await?;
        Ok((socket, between))
    }
}

fn refused(error: tungstenite::Error, attempt: &Attempt) -> BmcError {
    match error {
        // Never the answer's text: it may echo the token.
        tungstenite::Error::Http(answer) => BmcError::Api {
            attempt: attempt.clone(),
            status: answer.status().as_u16(),
            text: "no websocket".to_owned(),
        },
        error => BmcError::Unreachable { attempt: attempt.clone(), source: error.into() },
    }
}

/// Returns whether the console itself has ended, and not just the websocket.
pub(super) async fn run(mut socket: Socket, ends: &mut Ends) -> bool {
    let mut text = Text::default();
    loop {
        let waiting = text.ready.len();
        tokio::select! {
            permit = ends.heard.reserve(), if waiting > 0 => match permit {
                Ok(permit) => permit.send(Ok(UartText::new(std::mem::take(&mut text.ready), false))),
                Err(_) => return true,
            },
            message = timeout(SILENCE, socket.next()), if waiting < WAITING => match message {
                Ok(Some(Ok(Message::Binary(bytes)))) => text.push(&bytes),
                Ok(Some(Ok(Message::Text(words)))) => text.push(words.as_bytes()),
                Ok(Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)))) => {}
                Ok(Some(Ok(Message::Close(_)) | Err(_)) | None) | Err(_) => {
                    return !text.ready.is_empty()
                        && ends.heard.send(Ok(UartText::new(text.ready, false))).await.is_err();
                }
            },
            typed = ends.typed.recv() => {
                let Some(typed) = typed else {
                    let _ = timeout(BESIDE, socket.close(None)).await;
                    return true;
                };
                let sent = socket.send(Message::Binary(Bytes::from(typed.bytes))).await;
                let attempt = || Attempt::new(format!("type on the console of slot {}", ends.slot), "websocket");
                let result =
                    sent.map_err(|error| BmcError::Unreachable { attempt: attempt(), source: error.into() });
                let broken = result.is_err();
                let _ = typed.done.send(result);
                if broken {
                    return false;
                }
            }
        }
    }
}

/// Bytes to text, where a character may be cut between two frames.
#[derive(Default)]
struct Text {
    ready: String,
    rest: Vec<u8>,
}

impl Text {
    fn push(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        let rest = std::mem::take(&mut self.rest);
        let mut bytes = rest.as_slice();
        while !bytes.is_empty() {
            let error = match std::str::from_utf8(bytes) {
                Ok(text) => return self.ready.push_str(text),
                Err(error) => error,
            };
            let (valid, broken) = bytes.split_at(error.valid_up_to());
            self.ready.push_str(&String::from_utf8_lossy(valid));
            match error.error_len() {
                Some(length) => {
                    self.ready.push(char::REPLACEMENT_CHARACTER);
                    bytes = broken.get(length..).unwrap_or_default();
                }
                None => {
                    self.rest = broken.to_vec();
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn text_is_the_same_however_it_is_cut(bytes in prop::collection::vec(any::<u8>(), 0..60), cuts in prop::collection::vec(1usize..5, 0..60), words in "\\PC{0,10}") {
            let mut whole = bytes;
            whole.extend_from_slice(words.as_bytes());
            whole.push(b'.');
            let mut text = Text::default();
            let (mut rest, mut cuts) = (whole.as_slice(), cuts.into_iter());
            while !rest.is_empty() {
                let (piece, behind) = rest.split_at(cuts.next().unwrap_or(7).min(rest.len()));
                text.push(piece);
                rest = behind;
            }
            prop_assert_eq!(text.ready, String::from_utf8_lossy(&whole).into_owned());
        }
    }
}
