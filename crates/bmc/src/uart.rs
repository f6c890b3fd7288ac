//! The serial lines: what a node wrote since a mark, over a buffer that is read whole each time.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Attempt, BmcError, Capability, Generation, HttpBmcClient, PerSlot, Slot,
    wire::{Call, Method, answer},
};

pub(crate) mod overlap;

/// Bytes the BMC keeps of a line. Source: turing-machines/bmcd, `serial_handler.rs`.
const RING: usize = 16 * 1024;
/// The same in firmware 1.x.
const LEGACY_RING: usize = 64 * 1024;

/// A place in the stream of a slot's serial line. Firmware 2.1 and later returns its whole 16 KiB ring at every read, so
/// the mark holds the last one; older firmware empties its buffer, and there is nothing to hold.
#[derive(Clone, PartialEq, Eq)]
pub struct UartMark {
    slot: Slot,
    /// Bytes the BMC keeps of a line.
    ring: usize,
    seen: Seen,
}

#[derive(Clone, PartialEq, Eq)]
enum Seen {
    /// The buffer is emptied by reading.
    Drained,
    /// The ring as last read.
    Ring(String),
}

impl UartMark {
    /// The slot it belongs to.
    pub fn slot(&self) -> Slot {
        self.slot
    }
    /// A mark in a line of which nothing was read yet: everything in the buffer counts as new. For test doubles.
    pub fn start(slot: Slot) -> Self {
        Self { slot, ring: RING, seen: Seen::Ring(String::new()) }
    }

    /// What is new in a read of the buffer.
    fn advance(&mut self, read: &str) -> UartText {
        match &mut self.seen {
            Seen::Drained => UartText { text: read.to_owned(), gap: overlap::fills(self.ring, read) },
            Seen::Ring(before) => {
                let (text, gap) = overlap::advance(self.ring, before, read);
                UartText { text, gap }
            }
        }
    }
}

/// The text is left out: a console may show passwords.
impl fmt::Debug for UartMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UartMark").field("slot", &self.slot.number()).finish_non_exhaustive()
    }
}

/// What a node wrote on its serial line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct UartText {
    /// Oldest first. Bytes that are no UTF-8 stand here as U+FFFD. Nothing that was returned before.
    pub text: String,
    /// Whether text may be missing before or within this one: more was written than the BMC's 16 KiB hold, or its daemon
    /// restarted.
    pub gap: bool,
}

impl UartText {
    /// A text, for test doubles.
    pub fn new(text: impl Into<String>, gap: bool) -> Self {
        Self { text: text.into(), gap }
    }
}

/// How the bytes of a serial line are read as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UartEncoding {
    /// UTF-8.
    #[default]
    Utf8,
    /// UTF-16 with the BMC's own order of bytes.
    Utf16,
    /// UTF-16, low byte first.
    Utf16le,
    /// UTF-16, high byte first.
    Utf16be,
    /// UTF-32 with the BMC's own order of bytes.
    Utf32,
    /// UTF-32, low byte first.
    Utf32le,
    /// UTF-32, high byte first.
    Utf32be,
}

impl UartEncoding {
    fn wire(self) -> &'static str {
        match self {
            Self::Utf8 => "utf8",
            Self::Utf16 => "utf16",
            Self::Utf16le => "utf16le",
            Self::Utf16be => "utf16be",
            Self::Utf32 => "utf32",
            Self::Utf32le => "utf32le",
            Self::Utf32be => "utf32be",
        }
    }
}

/// What the BMC's reader of a serial line does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SerialState {
    /// Not begun.
    Initialized,
    /// It reads.
    Running,
    /// It gave up; it comes back only when the daemon restarts.
    Stopped,
}

impl HttpBmcClient {
    pub(crate) async fn mark_uart(&self, slot: Slot) -> Result<UartMark, BmcError> {
        Ok(self.mark_uart_with(slot).await?.0)
    }

    /// With what the buffer held.
    pub(crate) async fn mark_uart_with(&self, slot: Slot) -> Result<(UartMark, String), BmcError> {
        let read = self.buffer(slot).await?;
        let about = self.firmware().await?;
        let ring = if about.generation == Generation::Legacy { LEGACY_RING } else { RING };
        let seen = if about.has(Capability::UartKeeps) { Seen::Ring(String::new()) } else { Seen::Drained };
        let mut mark = UartMark { slot, ring, seen };
        mark.advance(&read);
        Ok((mark, read))
    }

    pub(crate) async fn read_uart(&self, mark: &mut UartMark) -> Result<UartText, BmcError> {
        self.read_uart_within(mark, self.session().timeouts().call).await
    }

    pub(crate) async fn read_uart_within(
        &self,
        mark: &mut UartMark,
        limit: Duration,
    ) -> Result<UartText, BmcError> {
        let call = question(mark.slot);
        let reply = self.session().call_within(&call, limit).await?;
        Ok(mark.advance(&parse(&reply, &self.session().attempt(call.action()))?))
    }

    async fn buffer(&self, slot: Slot) -> Result<String, BmcError> {
        self.read_uart_buffer(slot, UartEncoding::Utf8).await
    }

    pub(crate) async fn read_uart_buffer(
        &self,
        slot: Slot,
        encoding: UartEncoding,
    ) -> Result<String, BmcError> {
        let mut call = question(slot);
        // Utf8 is the default everywhere, and firmware 1.x knows no other.
        if encoding != UartEncoding::Utf8 {
            self.require(Capability::ImageUpload, &call.action()).await?;
            call = call.with("encoding", encoding.wire());
        }
        let reply = self.session().call(&call).await?;
        parse(&reply, &self.session().attempt(call.action()))
    }

    pub(crate) async fn type_uart(&self, slot: Slot, line: &str) -> Result<(), BmcError> {
        let call = Call::set(format!("type on the serial line of slot {slot}"), "uart")
            .with("node", &slot.wire().to_string())
            .with("cmd", line);
        self.session().command(&call).await
    }
}

impl HttpBmcClient {
    pub(crate) async fn read_serial_status(&self) -> Result<PerSlot<SerialState>, BmcError> {
        let call = Call::path("ask for the serial lines' state", Method::Post, "/serial/status");
        self.require(Capability::SerialStatus, &call.action()).await?;
        let reply = self.session().call(&call).await?;
        let attempt = self.session().attempt(call.action());
        parse_status(&answer::document(&reply, &attempt)?, &attempt)
    }
}

fn question(slot: Slot) -> Call {
    Call::get(format!("read the serial line of slot {slot}"), "uart").with("node", &slot.wire().to_string())
}

/// `["Running","Running","Running","Running"]`
pub(crate) fn parse_status(value: &Value, attempt: &Attempt) -> Result<PerSlot<SerialState>, BmcError> {
    let mut states = PerSlot::new([SerialState::Initialized; 4]);
    for (position, slot) in Slot::ALL.into_iter().enumerate() {
        states[slot] = match value[position].as_str() {
            Some("Running") => SerialState::Running,
            Some("Stopped") => SerialState::Stopped,
            Some("Initialized") => SerialState::Initialized,
            _ => return Err(answer::senseless(attempt, "it does not tell of four lines", value)),
        };
    }
    Ok(states)
}

pub(crate) fn parse(reply: &crate::wire::Reply, attempt: &Attempt) -> Result<String, BmcError> {
    let envelope = answer::envelope(reply, attempt)?;
    match &answer::single(&envelope["response"])["uart"] {
        Value::String(text) => Ok(text.clone()),
        _ => Err(BmcError::Protocol {
            attempt: attempt.clone(),
            problem: "it holds no serial text".into(),
            // A console may show passwords.
            raw: "(withheld)".to_owned(),
        }),
    }
}
