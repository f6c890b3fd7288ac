//! A board as it is now, look by look: power, boot, addresses, the transfer.
//!
//! A look is a handful of short calls, one after the other, and the next one begins a while after it has ended: a BMC
//! serves one request at a time, and others want to be served too. One that does not answer is asked more rarely; one that
//! blocks this address is left alone until the block ends; one that refuses the login is not asked again.

use std::{net::IpAddr, sync::Arc, time::Duration};

use serde::{Serialize, Serializer};
use time::OffsetDateTime;
use tokio::time::Instant;
use turingpi_bmc::{
    AuthReason, BmcClient, BmcError, Capability, CoolingDevice, PerSlot, Power, Slot, Temperature, Transfer,
};
use turingpi_cluster::Role;
use turingpi_engine::{Failure, FailureReport};

use super::{BoardDesk, OpenBoard};

mod address;
mod meter;
mod slot;
mod stage;

pub use address::address_in;
use meter::Meter;
pub use meter::TransferSnapshot;
use slot::SlotWatch;
pub use stage::{BootStage, boot_stage};

/// The longest wait between two looks at a BMC that does not answer.
const RARELY: Duration = Duration::from_secs(30);
/// Fans and temperatures change slowly: they are read at every so many looks.
const SLOWLY: u64 = 15;

/// How a board is watched.
#[derive(Debug, Clone)]
pub struct WatchOptions {
    /// From the end of a look to the next.
    pub interval: Duration,
    /// Read consoles also where that empties the BMC's buffer (firmware before 2.1), so that others miss what was read.
    pub take_consoles: bool,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self { interval: Duration::from_secs(2), take_consoles: false }
    }
}

/// What a slot does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BootState {
    /// Not known: the BMC has not answered yet.
    Unknown,
    /// It has no power.
    Off,
    /// It got power, and has shown nothing since.
    PoweringOn,
    /// It has power, and its console shows nothing that tells more.
    On,
    /// It is being flashed.
    Flashing,
    /// What its console shows.
    Boot(BootStage),
}

impl BootState {
    /// From power, the console's text since it got power, and whether that was seen. A pure function.
    pub fn of(power: Option<Power>, console: &str, seen_power_on: bool) -> Self {
        match power {
            None => Self::Unknown,
            Some(Power::Off) => Self::Off,
            Some(Power::On) => match boot_stage(console) {
                Some(stage) => Self::Boot(stage),
                None if seen_power_on => Self::PoweringOn,
                None => Self::On,
            },
        }
    }

    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Unknown => "?",
            Self::Off => "off",
            Self::PoweringOn => "powering on",
            Self::On => "on",
            Self::Flashing => "flashing",
            Self::Boot(stage) => stage.words(),
        }
    }
}

impl Serialize for BootState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Unknown => serializer.serialize_str("unknown"),
            Self::Off => serializer.serialize_str("off"),
            Self::PoweringOn => serializer.serialize_str("powering-on"),
            Self::On => serializer.serialize_str("on"),
            Self::Flashing => serializer.serialize_str("flashing"),
            Self::Boot(stage) => stage.serialize(serializer),
        }
    }
}

/// What the document says of a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Wanted {
    /// The node's name.
    pub node: String,
    /// What it is for.
    pub role: Role,
    /// Its address.
    pub address: String,
    /// Its image; `None` for a system that nobody flashes.
    pub image: Option<String>,
}

/// One slot, as a look shows it.
#[derive(Debug, Clone, Serialize)]
pub struct SlotSnapshot {
    /// The slot.
    pub slot: Slot,
    /// What the document says.
    pub wanted: Option<Wanted>,
    /// Its power as last asked for, which is no measurement.
    pub power: Option<Power>,
    /// What it does.
    pub state: BootState,
    /// Since when.
    #[serde(with = "time::serde::rfc3339::option")]
    pub since: Option<OffsetDateTime>,
    /// When its console last showed something new; `None` if nothing was seen to change.
    #[serde(with = "time::serde::rfc3339::option")]
    pub heard: Option<OffsetDateTime>,
    /// The address that its console showed.
    pub address: Option<IpAddr>,
    /// The last line of its console with something in it.
    pub last_line: Option<String>,
    /// Why its console is not read, if it is not.
    pub console_note: Option<String>,
    /// The end of its console, as plain text.
    #[serde(skip)]
    pub console: Arc<str>,
}

/// Something that changed between two looks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WatchEvent {
    /// When it was seen.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The board.
    pub board: String,
    /// The slot, if it is about one.
    pub slot: Option<Slot>,
    /// In words.
    pub text: String,
    /// Whether something is wrong.
    pub bad: bool,
}

/// Why a look failed, and when the next one is.
#[derive(Debug, Clone, Serialize)]
pub struct Trouble {
    /// Since when.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
    /// What is wrong.
    pub failure: FailureReport,
    /// Until when the BMC blocks this address.
    #[serde(with = "time::serde::rfc3339::option")]
    pub blocked_until: Option<OffsetDateTime>,
}

/// A board, as a look shows it. What a failed look could not ask is as it was before.
#[derive(Debug, Clone, Serialize)]
pub struct BoardSnapshot {
    /// When the look ended.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The board.
    pub board: String,
    /// Where its BMC is.
    pub url: String,
    /// The firmware, for people: `bmcd 2.3.4`.
    pub firmware: Option<String>,
    /// The board's model and revision, where the firmware tells.
    pub model: Option<String>,
    /// The four slots.
    pub slots: Vec<SlotSnapshot>,
    /// The transfer, while one moves.
    pub transfer: Option<TransferSnapshot>,
    /// The fans.
    pub fans: Vec<CoolingDevice>,
    /// The BMC's own temperatures.
    pub temperatures: Vec<Temperature>,
    /// What is wrong, if this look failed.
    pub trouble: Option<Trouble>,
    /// What changed since the look before.
    pub events: Vec<WatchEvent>,
    /// Seconds to the next look; `None` when there will be none, because a person has to act first.
    pub next_look_seconds: Option<u64>,
}

/// What can be done to a slot's power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerAction {
    /// Switch it on.
    On,
    /// Cut its power.
    Off,
    /// Off, three seconds, on.
    Cycle,
    /// Off, one second, on; the stored state stays.
    Reset,
}

impl PowerAction {
    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::On => "power on",
            Self::Off => "power off",
            Self::Cycle => "power cycle",
            Self::Reset => "reset",
        }
    }
}

/// Watches one board.
pub struct BoardWatch {
    board: OpenBoard,
    options: WatchOptions,
    slots: PerSlot<SlotWatch>,
    meter: Meter,
    moving: Option<TransferSnapshot>,
    fans: Vec<CoolingDevice>,
    temperatures: Vec<Temperature>,
    looks: u64,
    /// Failed ones in a row.
    failures: u32,
    trouble: Option<Trouble>,
}

impl std::fmt::Debug for BoardWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BoardWatch").field("board", &self.board.name()).finish_non_exhaustive()
    }
}

impl BoardDesk {
    /// Watches a board. Nothing is asked yet.
    pub fn watch(&self, board: OpenBoard, options: WatchOptions) -> BoardWatch {
        let wanted = self.wanted(board.name());
        BoardWatch {
            board,
            options,
            slots: PerSlot::new(wanted.map(SlotWatch::new)),
            meter: Meter::default(),
            moving: None,
            fans: Vec::new(),
            temperatures: Vec::new(),
            looks: 0,
            failures: 0,
            trouble: None,
        }
    }

    /// What the document says of each slot of a board.
    pub fn wanted(&self, board: &str) -> [Option<Wanted>; 4] {
        Slot::ALL.map(|slot| {
            let nodes = self.document.iter().flat_map(|document| &document.nodes);
            let mut here = nodes.filter(|node| {
                matches!(node.slot_ref(), Ok(Some(place)) if place.board == board && place.slot == slot)
            });
            here.next().map(|node| Wanted {
                node: node.name.clone(),
                role: node.role,
                address: node.address.clone(),
                image: node.image.clone(),
            })
        })
    }
}

impl BoardWatch {
    /// The board.
    pub fn board(&self) -> &OpenBoard {
        &self.board
    }

    /// Asks the BMC once, and tells what is. Never fails: what went wrong is part of what is told.
    pub async fn look(&mut self) -> BoardSnapshot {
        let mut events = Vec::new();
        let result = self.ask(&mut events).await;
        self.looks += 1;
        let now = OffsetDateTime::now_utc();
        let next = match result {
            Ok(()) => {
                self.failures = 0;
                if let Some(trouble) = self.trouble.take() {
                    let after = (now - trouble.since).whole_seconds().max(0);
                    events.push(self.event(None, format!("answers again after {after} s"), false));
                }
                Some(self.options.interval)
            }
            Err(error) => self.in_trouble(error, now, &mut events),
        };
        self.snapshot(now, next, events)
    }

    fn event(&self, slot: Option<Slot>, text: String, bad: bool) -> WatchEvent {
        WatchEvent { at: OffsetDateTime::now_utc(), board: self.board.name().to_owned(), slot, text, bad }
    }

    /// When to look again after a failed look.
    fn in_trouble(
        &mut self,
        error: BmcError,
        now: OffsetDateTime,
        events: &mut Vec<WatchEvent>,
    ) -> Option<Duration> {
        self.failures += 1;
        let (next, wait) = next_look(&error, self.failures, self.options.interval);
        let failure = self.board.failure(error).report();
        let before = self.trouble.take();
        if before.as_ref().is_none_or(|before| before.failure.message != failure.message) {
            let cause = failure.causes.first().unwrap_or(&failure.message);
            events.push(self.event(None, cause.clone(), true));
        }
        self.trouble = Some(Trouble {
            since: before.map_or(now, |before| before.since),
            failure,
            blocked_until: wait.map(|wait| now + wait),
        });
        next
    }

    async fn ask(&mut self, events: &mut Vec<WatchEvent>) -> Result<(), BmcError> {
        let client = self.board.client();
        let about = self.board.about().clone();
        let power = client.power().await?;
        for slot in Slot::ALL {
            if let Some(change) = self.slots[slot].power(power[slot]) {
                events.push(self.event(Some(slot), change.to_owned(), false));
            }
        }
        if about.has(Capability::ImageUpload) {
            let transfer = client.transfer().await?;
            self.transfer(&transfer, events);
        }
        if self.looks.is_multiple_of(SLOWLY) {
            if about.has(Capability::Cooling) {
                self.fans = client.cooling().await?;
            }
            if about.has(Capability::Thermal) {
                self.temperatures = client.temperatures().await?;
            }
        }
        let keeps = about.has(Capability::UartKeeps);
        for slot in Slot::ALL {
            self.console(slot, client.as_ref(), keeps, events).await?;
        }
        Ok(())
    }

    fn transfer(&mut self, transfer: &Transfer, events: &mut Vec<WatchEvent>) {
        let now = self.meter.look(Instant::now(), transfer);
        let before = std::mem::replace(&mut self.moving, now);
        let (began, ended) = match (&before, &self.moving) {
            (None, Some(now)) => (Some(now.process.clone()), None),
            (Some(before), None) => (None, Some(before.process.clone())),
            (Some(before), Some(now)) if before.process != now.process => {
                (Some(now.process.clone()), Some(before.process.clone()))
            }
            _ => (None, None),
        };
        if let Some(process) = ended {
            let (text, bad) = match transfer {
                Transfer::Failed { text } => (format!("transfer failed: {process}: {text}"), true),
                _ => (format!("transfer ended: {process}"), false),
            };
            events.push(self.event(None, text, bad));
        }
        if let Some(process) = began {
            events.push(self.event(None, format!("transfer began: {process}"), false));
        }
    }

    async fn console(
        &mut self,
        slot: Slot,
        client: &dyn BmcClient,
        keeps: bool,
        events: &mut Vec<WatchEvent>,
    ) -> Result<(), BmcError> {
        let read = match (keeps || self.options.take_consoles, self.slots[slot].wants_reading()) {
            (true, true) => self.slots[slot].read(slot, client, keeps).await,
            (true, false) => Ok(()),
            (false, _) => {
                self.slots[slot]
                    .not_read("not read: this firmware empties its buffer, and others would miss it");
                Ok(())
            }
        };
        match read {
            Ok(()) => {}
            // About this one line: its reader gave up.
            Err(BmcError::Api { text, .. }) => self.slots[slot].not_read(&text),
            Err(error) => return Err(error),
        }
        let flashing = self.moving.as_ref().is_some_and(|moving| moving.slot == Some(slot));
        for (text, bad) in self.slots[slot].settle(flashing) {
            events.push(self.event(Some(slot), text, bad));
        }
        Ok(())
    }

    /// Changes a slot's power, and follows it from there.
    ///
    /// # Errors
    /// As every call to the BMC.
    pub async fn act(&mut self, slot: Slot, action: PowerAction) -> Result<(), Failure> {
        let client = self.board.client();
        let mut change = PerSlot::new([None; 4]);
        let done = match action {
            PowerAction::On | PowerAction::Off => {
                change[slot] = Some(if action == PowerAction::On { Power::On } else { Power::Off });
                client.set_power(&change).await
            }
            PowerAction::Cycle => client.power_cycle(slot, Duration::from_secs(3)).await,
            PowerAction::Reset => client.reset(slot).await,
        };
        done.map_err(|error| self.board.failure(error))?;
        self.slots[slot].restarted(action);
        Ok(())
    }

    fn snapshot(
        &self,
        now: OffsetDateTime,
        next: Option<Duration>,
        events: Vec<WatchEvent>,
    ) -> BoardSnapshot {
        let about = self.board.about();
        let model = about.board_model.as_ref().map(|model| match &about.board_revision {
            Some(revision) => format!("{model} v{revision}"),
            None => model.clone(),
        });
        BoardSnapshot {
            at: now,
            board: self.board.name().to_owned(),
            url: self.board.url().to_string(),
            firmware: Some(about.firmware_name()),
            model,
            slots: self.slots.iter().map(|(slot, watch)| watch.snapshot(slot)).collect(),
            transfer: self.moving.clone(),
            fans: self.fans.clone(),
            temperatures: self.temperatures.clone(),
            trouble: self.trouble.clone(),
            events,
            next_look_seconds: next.map(|next| next.as_secs().max(1)),
        }
    }
}

/// When to look again after an error, and how long the BMC blocks this address.
fn next_look(error: &BmcError, failures: u32, interval: Duration) -> (Option<Duration>, Option<Duration>) {
    match error {
        BmcError::Banned { wait, .. } => (Some(*wait + Duration::from_secs(1)), Some(*wait)),
        // The BMC is restarting, in all likelihood; another login this soon could count as a failed one.
        BmcError::Auth { reason: AuthReason::Rejected, .. } => (Some(Duration::from_secs(60)), None),
        BmcError::Auth { .. } | BmcError::Tls { .. } | BmcError::Setup { .. } => (None, None),
        _ => {
            let longer = interval.saturating_mul(1 << failures.min(5));
            (Some(longer.min(RARELY).max(interval)), None)
        }
    }
}

#[cfg(test)]
mod tests;
