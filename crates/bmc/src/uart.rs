//! The serial lines: what a node wrote since a mark, over a buffer that is read whole each time.

use std::fmt;

use serde_json::Value;

use crate::{
    Attempt, BmcError, Capability, Generation, HttpBmcClient, Slot,
    wire::{Call, answer},
};

mod overlap;

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

impl HttpBmcClient {
    pub(crate) async fn mark_uart(&self, slot: Slot) -> Result<UartMark, BmcError> {
        let read = self.buffer(slot).await?;
        let about = self.firmware().await?;
        let ring = if about.generation == Generation::Legacy { LEGACY_RING } else { RING };
        let seen = if about.has(Capability::UartKeeps) { Seen::Ring(String::new()) } else { Seen::Drained };
        let mut mark = UartMark { slot, ring, seen };
        mark.advance(&read);
        Ok(mark)
    }

    pub(crate) async fn read_uart(&self, mark: &mut UartMark) -> Result<UartText, BmcError> {
        let read = self.buffer(mark.slot).await?;
        Ok(mark.advance(&read))
    }

    async fn buffer(&self, slot: Slot) -> Result<String, BmcError> {
        let call = Call::get(format!("read the serial line of slot {slot}"), "uart")
            .with("node", &slot.wire().to_string());
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
