//! Which other modules must be off while one is flashed: pure, but for the count of flashes that are still to come.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use turingpi_bmc::{PerSlot, Power, Slot};
use turingpi_engine::{Failure, State};

use super::{BoardFacts, SlotRecord};
use crate::SlotRef;

/// What is known about the other slots when a plan is made.
#[derive(Debug, Clone, Default)]
pub struct Neighbours {
    /// Slots whose node answered our login: their system boots, so they never wait in boot-ROM mode.
    pub running: BTreeSet<SlotRef>,
    /// Slots that are off and that this plan switches on, because a flash of an earlier run wrote a system there.
    pub started: BTreeSet<SlotRef>,
    /// Slots that this plan flashes too: they are not powered on again in between.
    pub flashed_too: BTreeSet<SlotRef>,
    /// Slots of which the plan says that they lose their power meanwhile ([`bystanders`]). No other one is switched off.
    pub announced: BTreeSet<SlotRef>,
    /// Flashes of this plan that have not begun.
    pub queue: FlashQueue,
}

/// The flashes of one plan that have not begun: what was switched off for them comes back when there is none left.
/// Clones share it.
#[derive(Debug, Clone, Default)]
pub struct FlashQueue(Arc<Mutex<BTreeSet<SlotRef>>>);

impl FlashQueue {
    /// A queue of flashes of these slots.
    pub fn new(slots: impl IntoIterator<Item = SlotRef>) -> Self {
        Self(Arc::new(Mutex::new(slots.into_iter().collect())))
    }
    pub(super) fn begin(&self, place: &SlotRef) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(place);
    }
    pub(super) fn is_over(&self, board: &str) -> bool {
        !self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|place| place.board == board)
    }
}

/// The slots of a board that the flashes of a plan switch off beside the flashed ones, for as long as these last: on a
/// board where a flash goes to the first module on the USB bus. Also what an interrupted flash left off: it comes back
/// afterwards.
///
/// # Errors
/// `Config` when a slot's record cannot be read.
pub fn bystanders(
    board: &str,
    facts: &BoardFacts,
    state: &State,
    neighbours: &Neighbours,
) -> Result<BTreeSet<SlotRef>, Failure> {
    let mut targets = neighbours.flashed_too.iter().filter(|place| place.board == board).peekable();
    if targets.peek().is_none() || !facts.about.may_flash_another_slot() {
        return Ok(BTreeSet::new());
    }
    let mut off: BTreeSet<Slot> = leftover_power(state, board).into_iter().collect();
    for target in targets {
        off.extend(to_power_off(target, &facts.power, state, neighbours, "")?);
    }
    let places = off.into_iter().map(|slot| SlotRef { board: board.to_owned(), slot });
    Ok(places.filter(|place| !neighbours.flashed_too.contains(place)).collect())
}

/// The slots to power off before `target` is flashed, on a board where a flash goes to the first module on the USB bus:
/// every other one that is on and whose system is not proven, by a record of ours or by answering.
///
/// A slot that this very `run` wrote and verified, or switched on because an earlier one did, is left on: its eMMC holds a
/// system that was read back, so the module boots and does not wait in boot-ROM mode, and cutting its power now would cut
/// its first boot.
///
/// # Errors
/// `Config` when a record has another shape.
pub fn to_power_off(
    target: &SlotRef,
    power: &PerSlot<Power>,
    state: &State,
    neighbours: &Neighbours,
    run: &str,
) -> Result<Vec<Slot>, Failure> {
    let mut off = Vec::new();
    for slot in Slot::ALL {
        let place = SlotRef { board: target.board.clone(), slot };
        if slot == target.slot || power[slot] == Power::Off || neighbours.running.contains(&place) {
            continue;
        }
        let in_doubt = |record: &SlotRecord| state.in_doubt.contains_key(&super::flash_step_id(&record.node));
        let record = SlotRecord::read(state, &place)?.filter(|record| !in_doubt(record));
        if record.as_ref().is_some_and(|record| record.run == run || neighbours.started.contains(&place)) {
            continue;
        }
        // Seen to boot counts like a login: what boots from its eMMC does not wait in boot-ROM mode.
        let seen =
            record.as_ref().is_some_and(|record| boots(state, &place).as_deref() == Some(&*record.flash));
        let proven = seen || record.is_some_and(|record| record.is_proven());
        if !proven || neighbours.flashed_too.contains(&place) {
            off.push(slot);
        }
    }
    Ok(off)
}

/// The key under which the state keeps which flash of a slot was seen to boot.
pub(super) fn boots_key(place: &SlotRef) -> String {
    format!("slot-boots/{}/{}", place.board, place.slot)
}

/// The flash that was seen to boot in a slot.
fn boots(state: &State, place: &SlotRef) -> Option<String> {
    state.record(&boots_key(place)).ok().flatten()
}

/// The key under which the state keeps the slots of a board that a flash powered off and has to power on again.
pub(super) fn leftover_key(board: &str) -> String {
    format!("board/{board}/powered-off-for-flash")
}

/// The slots of a board that an interrupted flash left powered off.
pub fn leftover_power(state: &State, board: &str) -> Vec<Slot> {
    state.record(&leftover_key(board)).ok().flatten().unwrap_or_default()
}
