//! Power: on after a flash, and back to what it was.

use std::sync::Arc;

use async_trait::async_trait;
use turingpi_bmc::{Power, Slot};
use turingpi_engine::{Change, Failure, Step, StepContext, StepDescription, Verdict};

use super::{
    Boards, UartLog, bmc_failure, flash_step_id,
    guard::{restore_power, set_power},
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
