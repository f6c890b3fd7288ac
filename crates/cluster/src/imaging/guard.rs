//! What keeps a flash from hurting anything but its slot: transfers of others, other modules on the bus, half-done power.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use turingpi_bmc::{BmcClient, PerSlot, Power, Slot, Transfer};
use turingpi_engine::{Change, Failure, FailureClass, Probe, StepContext, StepDescription, Verdict};
use turingpi_ssh::{HostKeyPolicy, SshTarget};

use super::{
    FlashContext, FlashReason, SlotRecord, bmc_failure,
    failure::bmc_refusal,
    flash::EXPECTED_SECONDS,
    flash_step_id,
    neighbours::{leftover_key, leftover_power, to_power_off},
    record::{BmcWrote, begun_key},
};
use crate::SlotRef;

/// How long a transfer that may be ours from before can go on without its client.
const ABANDONED: Duration = Duration::from_secs(300);

/// One flash of one slot, seen from its board.
pub(super) struct Guard {
    pub(super) node: String,
    pub(super) place: SlotRef,
    pub(super) cx: FlashContext,
    /// An attempt of this run came as far as the eMMC.
    begun: AtomicBool,
    /// What was known of the slot before.
    before: Mutex<Option<Before>>,
    /// An attempt of this run may have written to it.
    touched: AtomicBool,
}

/// What a flash drops from the state when it begins.
struct Before {
    record: Option<SlotRecord>,
    wrote: Option<BmcWrote>,
}

impl Guard {
    pub(super) fn new(node: &str, place: &SlotRef, cx: FlashContext) -> Self {
        Self {
            node: node.to_owned(),
            place: place.clone(),
            cx,
            begun: AtomicBool::new(false),
            before: Mutex::default(),
            touched: AtomicBool::new(false),
        }
    }

    pub(super) fn failed(&self, error: turingpi_bmc::BmcError) -> Failure {
        bmc_failure(&self.place.board, error)
    }

    /// Looks whether a flash may be prepared at all.
    pub(super) async fn admit(&self, bmc: &dyn BmcClient, cx: &StepContext) -> Result<(), Failure> {
        if let Some(hosts) = &self.cx.hosts
            && let Some(SshTarget { host_key: HostKeyPolicy::Pinned(_), .. }) = hosts.target(&self.node)
        {
            return Err(Failure::new(
                FailureClass::Config,
                format!("the document pins the host key of {}, and a flash gives it a new one", self.node),
            )
            .hint("Take the pinned fingerprint out of the document: the new key is pinned after the first boot."));
        }
        self.no_foreign_transfer(bmc, cx).await
    }

    /// The last look before the eMMC: a stop that was asked for, a transfer that somebody else began while the image was
    /// fetched, and modules that could be taken for the target.
    pub(super) async fn clear(&self, bmc: &dyn BmcClient, cx: &StepContext) -> Result<(), Failure> {
        if cx.stopping() {
            return Err(Failure::new(
                FailureClass::Cancelled,
                format!("stopped before slot {} was flashed", self.place),
            ));
        }
        self.no_foreign_transfer(bmc, cx).await?;
        self.clear_the_bus(bmc, cx).await
    }

    /// From here on the slot's content is unknown: its record goes before the first byte does.
    pub(super) async fn begin(&self, cx: &StepContext) -> Result<(), Failure> {
        self.begun.store(true, Ordering::Relaxed);
        let key = SlotRecord::key(&self.place);
        let before = cx
            .update_state(|state| {
                let before = Before {
                    record: SlotRecord::read(state, &self.place)?,
                    wrote: BmcWrote::read(state, &self.place)?,
                };
                state.remove_record(&key);
                state.remove_record(&BmcWrote::key(&self.place));
                state.put_record(begun_key(&self.node), &self.place.to_string())?;
                Ok(before)
            })
            .await?;
        *self.before.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        Ok(())
    }

    /// The eMMC was written to: the old system's host keys and connections are no longer those of the node.
    pub(super) async fn touched(&self) {
        self.touched.store(true, Ordering::Relaxed);
        if let Some(hosts) = &self.cx.hosts {
            hosts.forget(&self.node).await;
        }
    }

    /// After a flash that failed. One that the BMC refused to begin has touched nothing: what was known of the slot counts
    /// again, and its node keeps its power. Any other may leave the module on and in flash mode, where it is in the way of
    /// every other flash.
    ///
    /// # Errors
    /// What became of the flash; those of the state.
    pub(super) async fn give_up(
        &self,
        error: turingpi_bmc::BmcError,
        bmc: &dyn BmcClient,
        cx: &StepContext,
    ) -> Failure {
        let untouched = never_began(&error);
        let failure = self.transfer_failed(error, cx);
        if untouched {
            if let Err(worse) = self.take_back(cx).await {
                return worse;
            }
        } else {
            self.touched().await;
            let _ = set_power(bmc, &[self.place.slot], Power::Off).await;
        }
        let _ = self.restore(bmc, cx).await;
        failure
    }

    /// Puts back what was known of the slot before.
    async fn take_back(&self, cx: &StepContext) -> Result<(), Failure> {
        let before = self.before.lock().unwrap_or_else(PoisonError::into_inner).take();
        if self.touched.load(Ordering::Relaxed) {
            return Ok(());
        }
        let Some(Before { record, wrote }) = before else { return Ok(()) };
        // Where nothing was known, something may have been begun there by an earlier run.
        if record.is_none() && wrote.is_none() && !self.cx.certain {
            return Ok(());
        }
        let id = flash_step_id(&self.node);
        cx.update_state(|state| {
            if let Some(record) = &record {
                state.put_record(SlotRecord::key(&self.place), record)?;
            }
            if let Some(wrote) = &wrote {
                state.put_record(BmcWrote::key(&self.place), wrote)?;
            }
            state.remove_record(&begun_key(&self.node));
            state.in_doubt.remove(&id);
            Ok(())
        })
        .await?;
        self.begun.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Powers on again what was switched off for it; once for all flashes of a plan, after the last one.
    pub(super) async fn restore(&self, bmc: &dyn BmcClient, cx: &StepContext) -> Result<(), Failure> {
        if !self.cx.neighbours.queue.is_over(&self.place.board) && !cx.stopping() {
            return Ok(());
        }
        restore_power(&self.place.board, bmc, cx).await
    }

    /// Refuses an image that is larger than the module's eMMC, as far as both are known.
    pub(super) fn fits(&self, image: &str, raw_bytes: Option<u64>) -> Result<(), Failure> {
        let (Some(room), Some(bytes)) = (self.cx.emmc_bytes, raw_bytes) else { return Ok(()) };
        if bytes <= room {
            return Ok(());
        }
        Err(Failure::new(
            FailureClass::Refused,
            format!("image `{image}` has {bytes} bytes, and the eMMC of slot {} only {room}", self.place),
        )
        .hint("Take a smaller image, or correct the size of the eMMC."))
    }

    pub(super) fn step_id(&self) -> String {
        flash_step_id(&self.node)
    }

    /// Adds what all flashes have in common to the forecast.
    pub(super) fn describe(&self, description: StepDescription) -> StepDescription {
        description
            .change(Change::set("reason", self.cx.reason.to_string()))
            .lock(format!("{}/transfer", self.place.board))
            .expected_seconds(EXPECTED_SECONDS)
    }

    /// A failure of the transfer. A start that got no upload is timed out by the BMC after ten seconds, and its timer then
    /// also kills a younger job (sheet 4.2): do not come back sooner.
    fn transfer_failed(&self, error: turingpi_bmc::BmcError, cx: &StepContext) -> Failure {
        let node = error.node_after();
        let failure = bmc_refusal(&self.place.board, error);
        tracing::debug!(?node, "a flash failed");
        if failure.is_retryable() { failure.retry_after(cx.timing().poll * 6) } else { failure }
    }

    /// Takes the in-doubt mark away again: the slot holds what it held before this run.
    pub(super) async fn nothing_begun(&self, cx: &StepContext) -> Result<(), Failure> {
        if self.begun.load(Ordering::Relaxed) {
            return Ok(());
        }
        let id = flash_step_id(&self.node);
        cx.update_state(|state| {
            // A record goes away before the first byte: where there is one, no flash was begun after it.
            let known = self.cx.certain || SlotRecord::read(state, &self.place)?.is_some();
            if known {
                state.in_doubt.remove(&id);
            }
            Ok(())
        })
        .await
    }

    /// Starting a transfer kills the one that runs. What an attempt of ours left behind ends by itself: a start without
    /// its upload after ten seconds, an upload without its client at once.
    async fn no_foreign_transfer(&self, bmc: &dyn BmcClient, cx: &StepContext) -> Result<(), Failure> {
        let busy = |process: String| {
            Failure::new(
                FailureClass::Locked,
                format!("the BMC of {} is busy with a transfer that is not ours: `{process}`", self.place.board),
            )
            .hint("Starting another one would kill it without a word. Wait until it has ended, then run this again.")
        };
        if self.cx.reason != FlashReason::InDoubt && !self.begun.load(Ordering::Relaxed) {
            return match bmc.transfer().await.map_err(|e| self.failed(e))? {
                Transfer::Moving { process, .. } => Err(busy(process)),
                _ => Ok(()),
            };
        }
        let last = Mutex::new(None);
        let condition = format!("the BMC of {} to end its last transfer", self.place.board);
        let waited = cx
            .wait(&condition, ABANDONED, || async {
                Ok(match bmc.transfer().await.map_err(|e| self.failed(e))? {
                    Transfer::Moving { process, .. } => {
                        let seen = Probe::NotYet(format!("it moves `{process}`"));
                        *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(process);
                        seen
                    }
                    _ => Probe::Ready(()),
                })
            })
            .await;
        match (waited, last.into_inner().unwrap_or_else(PoisonError::into_inner)) {
            (Err(failure), Some(process)) if failure.class() == FailureClass::Timeout => Err(busy(process)),
            (waited, _) => waited,
        }
    }

    /// Powers off whatever could be taken for the target; remembers it first, so that a crash cannot leave it off.
    async fn clear_the_bus(&self, bmc: &dyn BmcClient, cx: &StepContext) -> Result<(), Failure> {
        let about = bmc.about().await.map_err(|e| self.failed(e))?;
        if !about.may_flash_another_slot() {
            return Ok(());
        }
        let power = bmc.power().await.map_err(|e| self.failed(e))?;
        let off = to_power_off(&self.place, &power, &cx.state().await?, &self.cx.neighbours, cx.run())?;
        let board = self.place.board.clone();
        let place = |slot: &Slot| SlotRef { board: board.clone(), slot: *slot };
        let back: Vec<Slot> = off
            .iter()
            .copied()
            .filter(|slot| !self.cx.neighbours.flashed_too.contains(&place(slot)))
            .collect();
        if let Some(slot) = back.iter().find(|slot| !self.cx.neighbours.announced.contains(&place(slot))) {
            return Err(Failure::new(
                FailureClass::Refused,
                format!(
                    "slot {slot} of {board} would have to be switched off to flash slot {}, and the plan does not say so",
                    self.place.slot
                ),
            )
            .hint("It was switched on after the plan was made. Run this again: the new plan names it."));
        }
        cut_power(&board, bmc, &off, &back, cx).await?;
        // What the BMC reports is what was asked for; asking is all that can be verified.
        let now = bmc.power().await.map_err(|e| self.failed(e))?;
        match off.iter().find(|slot| now[**slot] != Power::Off) {
            None => Ok(()),
            Some(slot) => Err(Failure::new(
                FailureClass::Refused,
                format!(
                    "slot {slot} of {board} does not go off, and a flash of slot {} might hit it",
                    self.place.slot
                ),
            )
            .hint("Power it off at the board, or take the module out, then run this again.")),
        }
    }
}

/// The BMC said no before anything was begun. An answer that never came says nothing.
fn never_began(error: &turingpi_bmc::BmcError) -> bool {
    use turingpi_bmc::{BmcError, FlashCause, NodeAfter};
    match error {
        BmcError::Busy { .. } | BmcError::Unsupported { .. } => true,
        BmcError::Flash { node: NodeAfter::Untouched, cause, .. } => !matches!(
            cause,
            FlashCause::DaemonRestarted
                | FlashCause::ConnectionLost
                | FlashCause::NotProven
                | FlashCause::SendTimeout
        ),
        _ => false,
    }
}

/// Switches slots with one request.
///
/// # Errors
/// Those of the BMC.
pub async fn set_power(bmc: &dyn BmcClient, slots: &[Slot], to: Power) -> Result<(), turingpi_bmc::BmcError> {
    let mut change = PerSlot::new([None; 4]);
    for slot in slots {
        change[*slot] = Some(to);
    }
    bmc.set_power(&change).await
}

/// Powers slots off for a flash; remembers first which of them come `back`, so that a crash cannot leave them off.
pub(super) async fn cut_power(
    board: &str,
    bmc: &dyn BmcClient,
    off: &[Slot],
    back: &[Slot],
    cx: &StepContext,
) -> Result<(), Failure> {
    if off.is_empty() {
        return Ok(());
    }
    cx.update_state(|state| {
        let mut all = leftover_power(state, board);
        all.extend(back);
        all.sort();
        all.dedup();
        state.put_record(leftover_key(board), &all)
    })
    .await?;
    let list: Vec<String> = off.iter().map(ToString::to_string).collect();
    cx.note(format!(
        "powering slot {} of {board} off: on this board a flash goes to the first module that waits for one",
        list.join(", ")
    ));
    set_power(bmc, off, Power::Off).await.map_err(|e| bmc_failure(board, e))
}

/// Powers on again what a flash of this board had to power off.
///
/// # Errors
/// What [`bmc_failure`] makes of the BMC's answer; those of the state.
pub async fn restore_power(board: &str, bmc: &dyn BmcClient, cx: &StepContext) -> Result<(), Failure> {
    let slots = leftover_power(&cx.state().await?, board);
    if slots.is_empty() {
        return Ok(());
    }
    set_power(bmc, &slots, Power::On).await.map_err(|e| bmc_failure(board, e))?;
    cx.update_state(|state| {
        state.remove_record(&leftover_key(board));
        Ok(())
    })
    .await
}

/// Converged as soon as the BMC has no transfer under way.
pub(super) async fn still_moving(guard: &Guard) -> Result<Verdict, Failure> {
    let bmc = guard.cx.boards.client(&guard.place.board)?;
    Ok(match bmc.transfer().await.map_err(|e| guard.failed(e))? {
        Transfer::Moving { process, .. } => Verdict::NotYet(format!("the BMC still works on `{process}`")),
        _ => Verdict::Converged,
    })
}
