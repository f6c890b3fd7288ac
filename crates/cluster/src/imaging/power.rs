//! Power: on after a flash, and back to what it was.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use turingpi_bmc::{Power, Slot};
use turingpi_engine::{Change, Failure, Risk, Step, StepContext, StepDescription, Verdict};

use super::{
    Boards, UartLog, bmc_failure, flash_step_id,
    guard::{cut_power, restore_power, set_power},
    powered_off_key,
};
use crate::{NodeSpec, SlotRef};

pub(super) struct PowerOnStep {
    node: String,
    place: SlotRef,
    log: Arc<UartLog>,
    boards: Boards,
}

impl PowerOnStep {
    pub(super) fn new(node: &str, place: &SlotRef, log: Arc<UartLog>, boards: Boards) -> Self {
        Self { node: node.to_owned(), place: place.clone(), log, boards }
    }
}

#[async_trait]
impl Step for PowerOnStep {
    fn describe(&self) -> StepDescription {
        StepDescription::new(
            format!("{}/power-on", self.node),
            format!("Power slot {} on", self.place),
            "boot",
        )
        .change(Change::set(format!("power of slot {}", self.place), "on"))
        .expected_seconds(2)
    }

    async fn apply(&self, cx: &StepContext) -> Result<(), Failure> {
        let bmc = self.boards.client(&self.place.board)?;
        let failed = |e| bmc_failure(&self.place.board, e);
        // Before the power, so that not a line of the boot is missed. A board whose serial line is in trouble still boots.
        if let Err(error) = self.log.restart(bmc.as_ref()).await {
            cx.note(format!("slot {}: the serial console cannot be read: {error}", self.place));
        }
        let key = powered_off_key(&self.node);
        if cx.state().await?.record_keys(&key).any(|k| k == key) {
            cx.update_state(|state| {
                state.remove_record(&key);
                Ok(())
            })
            .await?;
        }
        if bmc.power().await.map_err(failed)?[self.place.slot] != Power::On {
            set_power(bmc.as_ref(), &[self.place.slot], Power::On).await.map_err(failed)?;
        }
        Ok(())
    }

    async fn verify(&self, _: &StepContext) -> Result<Verdict, Failure> {
        let bmc = self.boards.client(&self.place.board)?;
        let power = bmc.power().await.map_err(|e| bmc_failure(&self.place.board, e))?;
        Ok(match power[self.place.slot] {
            Power::On => Verdict::Converged,
            Power::Off => Verdict::NotYet("off".to_owned()),
        })
    }
}

/// Takes an in-doubt mark away whose flash did end.
pub(super) struct SettleStep {
    node: String,
}

impl SettleStep {
    pub(super) fn new(node: &NodeSpec) -> Self {
        Self { node: node.name.clone() }
    }
}

#[async_trait]
impl Step for SettleStep {
    fn describe(&self) -> StepDescription {
        StepDescription::new(
            format!("{}/flash-settled", self.node),
            "Note that the interrupted flash had ended",
            "flash",
        )
    }

    async fn apply(&self, cx: &StepContext) -> Result<(), Failure> {
        cx.update_state(|state| {
            state.in_doubt.remove(&flash_step_id(&self.node));
            Ok(())
        })
        .await
    }
}

/// Powers on again what an interrupted flash left off.
pub(super) struct RestorePowerStep {
    board: String,
    slots: Vec<Slot>,
    boards: Boards,
}

impl RestorePowerStep {
    pub(super) fn new(board: &str, slots: Vec<Slot>, boards: Boards) -> Self {
        Self { board: board.to_owned(), slots, boards }
    }
}

#[async_trait]
impl Step for RestorePowerStep {
    fn describe(&self) -> StepDescription {
        let title = "Power on again what an interrupted flash left off";
        self.slots.iter().fold(
            StepDescription::new(format!("{}/restore-power", self.board), title, "boot")
                .lock(format!("{}/transfer", self.board)),
            |description, slot| {
                description.change(Change::replace(
                    format!("power of slot {}/{slot}", self.board),
                    "off",
                    "on",
                ))
            },
        )
    }

    async fn apply(&self, cx: &StepContext) -> Result<(), Failure> {
        restore_power(&self.board, self.boards.client(&self.board)?.as_ref(), cx).await
    }
}

/// Cuts the power of modules that stand by while others of their board are flashed. The last flash gives it back.
pub(super) struct StandByStep {
    pub(super) board: String,
    /// Slots, each with what the document calls its node.
    pub(super) slots: Vec<(Slot, Option<String>)>,
    /// The nodes that are flashed.
    pub(super) flashed: Vec<String>,
    pub(super) boards: Boards,
}

#[async_trait]
impl Step for StandByStep {
    fn describe(&self) -> StepDescription {
        let flashed = self.flashed.join(", ");
        let list: Vec<String> = self.slots.iter().map(|(slot, _)| slot.to_string()).collect();
        let title = format!("Cut the power of slot {} while {flashed} is flashed", list.join(", "));
        let description = StepDescription::new(format!("{}/neighbours-off", self.board), title, "flash")
            .risk(Risk::Disruptive)
            .lock(format!("{}/transfer", self.board))
            .expected_seconds(2);
        self.slots.iter().fold(description, |description, (slot, node)| {
            let name = node.as_deref().unwrap_or("not in the document");
            description.change(Change::replace(
                format!("power of slot {}/{slot} ({name})", self.board),
                "as it is",
                format!("off while {flashed} is flashed, then on again"),
            ))
        })
    }

    async fn apply(&self, cx: &StepContext) -> Result<(), Failure> {
        let bmc = self.boards.client(&self.board)?;
        let power = bmc.power().await.map_err(|e| bmc_failure(&self.board, e))?;
        let on: Vec<Slot> =
            self.slots.iter().map(|(slot, _)| *slot).filter(|slot| power[*slot] == Power::On).collect();
        cut_power(&self.board, bmc.as_ref(), &on, &on, cx).await
    }

    async fn verify(&self, _: &StepContext) -> Result<Verdict, Failure> {
        let power =
            self.boards.client(&self.board)?.power().await.map_err(|e| bmc_failure(&self.board, e))?;
        Ok(match self.slots.iter().find(|(slot, _)| power[*slot] == Power::On) {
            None => Verdict::Converged,
            Some((slot, _)) => Verdict::NotYet(format!("slot {slot} is on")),
        })
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(10)
    }
}
