//! Which other modules must be off while one is flashed: pure.

use std::collections::BTreeSet;

use turingpi_bmc::{PerSlot, Power, Slot};
use turingpi_engine::{Failure, State};

use super::SlotRecord;
use crate::SlotRef;

/// What is known about the other slots when a plan is made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Neighbours {
    /// Slots whose node answered our login: their system boots, so they never wait in boot-ROM mode.
    pub running: BTreeSet<SlotRef>,
    /// Slots that this plan flashes too: they are not powered on again in between.
    pub flashed_too: BTreeSet<SlotRef>,
}

/// The slots to power off before `target` is flashed, on a board where a flash goes to the first module on the USB bus:
/// every other one that is on and whose system is not proven, by a record of ours or by answering.
///
/// A slot that this very `run` wrote and verified is left on: its eMMC holds a system that was read back, so the module
/// boots and does not wait in boot-ROM mode, and cutting its power now would cut its first boot.
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
        if record.as_ref().is_some_and(|record| record.run == run) {
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
