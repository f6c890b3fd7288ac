//! One slot, from look to look.

use std::{net::IpAddr, sync::Arc};

use time::OffsetDateTime;
use turingpi_bmc::{BmcClient, BmcError, Power, Slot, UartMark};

use super::{BootStage, BootState, PowerAction, SlotSnapshot, Wanted, address_in};
use crate::board::PlainText;

/// Bytes of a console that are kept.
const KEPT: usize = 16 * 1024;

pub(super) struct SlotWatch {
    wanted: Option<Wanted>,
    power: Option<Power>,
    mark: Option<UartMark>,
    plain: PlainText,
    /// The end of the console.
    console: String,
    /// The same since the slot got power.
    current: String,
    /// Whether it was seen to get power.
    seen_power_on: bool,
    state: BootState,
    since: Option<OffsetDateTime>,
    heard: Option<OffsetDateTime>,
    address: Option<IpAddr>,
    note: Option<String>,
}

impl SlotWatch {
    pub(super) fn new(wanted: Option<Wanted>) -> Self {
        Self {
            wanted,
            power: None,
            mark: None,
            plain: PlainText::default(),
            console: String::new(),
            current: String::new(),
            seen_power_on: false,
            state: BootState::Unknown,
            since: None,
            heard: None,
            address: None,
            note: None,
        }
    }

    /// Takes the power state; says what changed.
    pub(super) fn power(&mut self, power: Power) -> Option<&'static str> {
        let before = self.power.replace(power);
        match (before, power) {
            (Some(Power::Off), Power::On) => {
                self.begin();
                Some("power on")
            }
            (Some(Power::On), Power::Off) => Some("power off"),
            _ => None,
        }
    }

    /// It got power: what its console showed before tells nothing any more.
    fn begin(&mut self) {
        self.current.clear();
        self.seen_power_on = true;
        self.address = None;
    }

    pub(super) fn restarted(&mut self, action: PowerAction) {
        match action {
            PowerAction::On if self.power == Some(Power::On) => {}
            PowerAction::On | PowerAction::Cycle => {
                self.power = Some(Power::On);
                self.begin();
            }
            PowerAction::Reset => self.begin(),
            PowerAction::Off => {}
        }
    }

    /// A slot without power writes nothing; its last words are read once.
    pub(super) fn wants_reading(&self) -> bool {
        self.power == Some(Power::On) || self.mark.is_none()
    }

    pub(super) fn not_read(&mut self, why: &str) {
        self.note = Some(why.to_owned());
    }

    pub(super) async fn read(
        &mut self,
        slot: Slot,
        client: &dyn BmcClient,
        keeps: bool,
    ) -> Result<(), BmcError> {
        let first = self.mark.is_none();
        let mut mark = match self.mark.take() {
            Some(mark) => mark,
            // All that the buffer holds counts as new.
            None if keeps => UartMark::start(slot),
            None => client.uart_mark(slot).await?,
        };
        let read = client.uart_since(&mut mark).await;
        self.mark = Some(mark);
        let text = read?.text;
        self.note = None;
        if !text.is_empty() {
            self.hear(&text);
            if !first {
                self.heard = Some(OffsetDateTime::now_utc());
            }
        }
        Ok(())
    }

    pub(super) fn hear(&mut self, text: &str) {
        let text = self.plain.push(text);
        self.console.push_str(&text);
        self.current.push_str(&text);
        shorten(&mut self.console);
        shorten(&mut self.current);
    }

    /// Works out the state; says what changed since the look before.
    pub(super) fn settle(&mut self, flashing: bool) -> Vec<(String, bool)> {
        let mut changes = Vec::new();
        let state = match flashing {
            true => BootState::Flashing,
            false => BootState::of(self.power, &self.current, self.seen_power_on),
        };
        let before = std::mem::replace(&mut self.state, state);
        if before != state {
            // Nobody knows how long the first state has lasted.
            self.since = (before != BootState::Unknown).then(OffsetDateTime::now_utc);
            let news = matches!(state, BootState::Boot(_) | BootState::Flashing);
            if before != BootState::Unknown && news {
                let bad = matches!(state, BootState::Boot(BootStage::Panic | BootStage::Rescue));
                changes.push((state.words().to_owned(), bad));
            }
        }
        if state != BootState::Off
            && let Some(address) = address_in(&self.current)
            && self.address.replace(address) != Some(address)
            && before != BootState::Unknown
        {
            changes.push((format!("has the address {address}"), false));
        }
        changes
    }

    pub(super) fn snapshot(&self, slot: Slot) -> SlotSnapshot {
        let last = self.console.lines().rev().map(str::trim).find(|line| !line.is_empty());
        SlotSnapshot {
            slot,
            wanted: self.wanted.clone(),
            power: self.power,
            state: self.state,
            since: self.since,
            heard: self.heard,
            address: self.address,
            last_line: last.map(|line| line.chars().take(200).collect()),
            console_note: self.note.clone(),
            console: Arc::from(self.console.as_str()),
        }
    }
}

fn shorten(text: &mut String) {
    let mut cut = text.len().saturating_sub(KEPT);
    while !text.is_char_boundary(cut) {
        cut += 1;
    }
    text.drain(..cut);
}
