//! What a job's worker does: wake the module, write, read back, clean up.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{crc::Crc64, source::Source};
use crate::{
    Action, Module, Pace, Site,
    board::{
        Firmware, FlashRecord,
        daemon::{Comeback, Daemon, REBOOT, RELOAD},
        power::UsbFailure,
    },
    fault::Strike,
};

/// The largest block that is written or read back at once.
const BLOCK: usize = 512 * 1024;
const NO_SPACE: &str = "No space left on device (os error 28)";
const IO_ERROR: &str = "Input/output error (os error 5)";
const INTERRUPTED: &str = "operation interrupted";

/// What a job writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// A module, 0 to 3.
    Slot(usize),
    /// The BMC itself.
    Firmware,
}

/// A job, ready to run.
pub(super) struct Work {
    pub(super) target: Target,
    pub(super) source: Source,
    /// As declared.
    pub(super) size: u64,
    pub(super) written: Arc<AtomicU64>,
    pub(super) cancel: CancellationToken,
    pub(super) verifies: bool,
    /// The file's name as it was sent, without its folder.
    pub(super) name: String,
}

/// What came of the writing.
#[derive(Default)]
struct Outcome {
    /// The slot that was really written.
    slot: Option<usize>,
    bytes: u64,
    hasher: Sha256,
    crc: Crc64,
}

impl Work {
    /// Runs to the end and notes it in the job slot.
    pub(super) async fn run(mut self, daemon: Arc<Daemon>) {
        let began = daemon.clock().now();
        let result = match self.target {
            Target::Slot(slot) => self.flash(&daemon, slot).await,
            Target::Firmware => self.firmware(&daemon).await,
        };
        let took = daemon.clock().now().saturating_sub(began);
        let (size, cancel) = (self.size, self.cancel.clone());
        // Ends the upload's channel before the state changes, as the daemon's future does.
        drop(self);
        daemon.jobs().finish(result.map(|()| took), size, &cancel);
    }

    async fn flash(&mut self, daemon: &Arc<Daemon>, slot: usize) -> Result<(), String> {
        let fault = daemon.strike_flash(slot);
        let dies = daemon.count_flash();
        daemon.enter_loader(slot).await;
        daemon.surroundings().pace.sleep(daemon.surroundings().durations.flash_boot).await;
        let mut outcome = Outcome::default();
        let (found, module) = match daemon.search(slot, fault.as_ref().map(|strike| &strike.action)) {
            Ok(found) => found,
            Err(text) => {
                daemon.record(slot, outcome, Some(&text));
                return Err(text);
            }
        };
        outcome.slot = Some(found);
        let trouble = if dies { Some(Strike { action: Action::Restart, after: None }) } else { fault };
        let trouble = trouble.filter(|strike| !searches(&strike.action));
        let result = self.write_and_verify(daemon, module.as_ref(), &mut outcome, trouble).await;
        // 2.0.x leaves the module as it is after an error.
        if result.is_ok() || daemon.profile().is_modern() {
            daemon.leave_loader(slot).await;
        }
        let reason = match &result {
            Err(_) if self.cancel.is_cancelled() => Some("cancelled".to_owned()),
            other => other.clone().err(),
        };
        daemon.record(slot, outcome, reason.as_deref());
        result
    }

    async fn write_and_verify(
        &mut self,
        daemon: &Arc<Daemon>,
        module: &dyn Module,
        outcome: &mut Outcome,
        mut trouble: Option<Strike>,
    ) -> Result<(), String> {
        let cancel = self.cancel.clone();
        let interrupted = || Err(INTERRUPTED.to_owned());
        let write = self.write(daemon, module, outcome, &mut trouble);
        match cancel.run_until_cancelled(write).await {
            Some(result) => result?,
            None => return interrupted(),
        }
        if !self.verifies {
            return Ok(());
        }
        cancel.run_until_cancelled(self.verify(daemon, module, outcome)).await.unwrap_or_else(interrupted)
    }

    async fn write(
        &mut self,
        daemon: &Arc<Daemon>,
        module: &dyn Module,
        outcome: &mut Outcome,
        trouble: &mut Option<Strike>,
    ) -> Result<(), String> {
        let whole = daemon.surroundings().durations.flash_write;
        let mut owed = Owed::at(daemon.surroundings().pace);
        let block = block_size(self.size);
        let mut pending = Vec::with_capacity(block);
        let mut paid = 0;
        loop {
            let next = self.source.next().await;
            let ended = next.is_none();
            let failed = match next {
                Some(Ok(piece)) => {
                    pending.extend_from_slice(&piece);
                    None
                }
                Some(Err(text)) => Some(text),
                None => None,
            };
            let flush = ended || failed.is_some();
            while pending.len() >= block || (flush && !pending.is_empty()) {
                let rest = pending.split_off(pending.len().min(block));
                let full = std::mem::replace(&mut pending, rest);
                // The device takes its time for what was taken from the source, packed or not.
                let consumed = self.source.consumed().saturating_sub(pending.len() as u64).max(paid);
                owed.add(share(whole, consumed - paid, self.size)).await;
                paid = consumed;
                let good = Crc64::of(outcome.crc, &full);
                let full = self.disturb(daemon, full, outcome.bytes, trouble).await?;
                write_block(module, outcome, &full).await?;
                // The daemon believes that it wrote the right thing: that is what it compares with.
                outcome.crc = good;
                self.written.store(outcome.bytes, Ordering::Relaxed);
            }
            if let Some(text) = failed {
                return Err(text);
            }
            if ended {
                owed.settle().await;
                return Ok(());
            }
        }
    }

    /// Lets a fault strike once its byte is reached.
    async fn disturb(
        &self,
        daemon: &Arc<Daemon>,
        mut block: Vec<u8>,
        offset: u64,
        trouble: &mut Option<Strike>,
    ) -> Result<Vec<u8>, String> {
        let reached = offset + block.len() as u64;
        let half = self.size / 2;
        let due = trouble.as_ref().is_some_and(|strike| match (&strike.action, strike.after) {
            (_, Some(bytes)) => reached >= bytes,
            (Action::CutAfter(bytes), None) => reached >= *bytes,
            _ => reached >= half,
        });
        let Some(Strike { action, .. }) = trouble.take_if(|_| due) else { return Ok(block) };
        match action {
            Action::Delay(time) => tokio::time::sleep(time).await,
            Action::Corrupt => {
                if let Some(byte) = block.first_mut() {
                    *byte ^= 1;
                }
            }
            Action::DiskFull => return Err(NO_SPACE.to_owned()),
            Action::Status(_, text) | Action::Fail(_, text) => return Err(text),
            Action::Restart | Action::Reboot => {
                let reboot = action == Action::Reboot;
                daemon.restart(Duration::ZERO, if reboot { REBOOT } else { RELOAD }, reboot);
                // The process is gone, and this worker with it.
                std::future::pending().await
            }
            Action::Replace => {
                if let Target::Slot(slot) = self.target {
                    daemon.ghost_start(slot);
                }
            }
            Action::Hang => std::future::pending().await,
            Action::ExpireToken => daemon.auth().forget_tokens(),
            Action::Ban(time) => daemon.ban("127.0.0.1", time),
            Action::Advance(time) => daemon.clock().advance(time),
            Action::GoDark => {
                daemon.come_back(Comeback::Never);
                daemon.restart(Duration::ZERO, RELOAD, false);
                std::future::pending().await
            }
            _ => return Err(IO_ERROR.to_owned()),
        }
        Ok(block)
    }

    async fn verify(&self, daemon: &Daemon, module: &dyn Module, outcome: &Outcome) -> Result<(), String> {
        let whole = daemon.surroundings().durations.flash_verify;
        let mut owed = Owed::at(daemon.surroundings().pace);
        let modern = daemon.profile().is_modern();
        if modern {
            self.written.store(0, Ordering::Relaxed);
        }
        let mut crc = Crc64::default();
        let mut at = 0;
        while at < outcome.bytes {
            let length = (outcome.bytes - at).min(block_size(outcome.bytes) as u64);
            owed.add(share(whole, length, outcome.bytes)).await;
            let length = usize::try_from(length).unwrap_or(BLOCK);
            let block = module.read_emmc(at, length).await.map_err(|error| error.to_string())?;
            if block.is_empty() {
                break;
            }
            crc.update(&block);
            at += block.len() as u64;
            if modern {
                self.written.store(at, Ordering::Relaxed);
            }
        }
        owed.settle().await;
        match (crc == outcome.crc, modern) {
            (true, _) => Ok(()),
            (false, true) => {
                Err(format!("crc error. expected {}, calculated {}", outcome.crc.value(), crc.value()))
            }
            (false, false) => Err("integrity check of written image failed".to_owned()),
        }
    }

    async fn firmware(&mut self, daemon: &Arc<Daemon>) -> Result<(), String> {
        let mut image = Vec::new();
        let cancel = self.cancel.clone();
        let space = daemon.plan().staging;
        let here = Site::Firmware { board: Some(daemon.plan().name.clone()) };
        let fault = daemon.surroundings().faults.strike(&here);
        let copy = async {
            while let Some(piece) = self.source.next().await {
                let piece: Bytes = piece?;
                if image.len() as u64 + piece.len() as u64 > space || fault == Some(Action::DiskFull) {
                    return Err(NO_SPACE.to_owned());
                }
                image.extend_from_slice(&piece);
                self.written.store(image.len() as u64, Ordering::Relaxed);
            }
            Ok(())
        };
        cancel.run_until_cancelled(copy).await.unwrap_or_else(|| Err(INTERRUPTED.to_owned()))?;
        // The installer runs as a program of its own: nothing cancels it.
        daemon.surroundings().pace.sleep(daemon.surroundings().durations.flash_verify).await;
        let installer =
            if daemon.profile().is_modern() { "failed firmware upgrade" } else { "failed os_update" };
        let refused = |status: i32| format!("{installer} (exit status: {status})");
        match fault {
            None | Some(Action::DiskFull) => {}
            Some(Action::Delay(time)) => tokio::time::sleep(time).await,
            Some(Action::Fail(status, _)) => return Err(refused(status)),
            // It wrote something, and not to where the board boots from.
            Some(Action::OldFirmware) => return Ok(()),
            Some(Action::Restart | Action::Reboot) => {
                daemon.restart(Duration::ZERO, RELOAD, false);
                return std::future::pending().await;
            }
            Some(Action::Hang) => return std::future::pending().await,
            Some(_) => return Err(refused(255)),
        }
        // The name goes through a shell: what is more than a plain word makes the installer look for another file.
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if self.name.is_empty() || !self.name.chars().all(plain) {
            return Err(refused(2));
        }
        let firmware = Firmware::parse_image(&image).filter(|firmware| *firmware != Firmware::V1_1_0);
        daemon.stage(firmware.ok_or_else(|| refused(2))?);
        Ok(())
    }
}

/// Whether a fault is about the search for the module, not the writing.
fn searches(action: &Action) -> bool {
    matches!(action, Action::NoModule | Action::SeveralModules | Action::OtherSlot(_))
}

/// Writes a block to the eMMC behind what is there.
async fn write_block(module: &dyn Module, outcome: &mut Outcome, block: &[u8]) -> Result<(), String> {
    let room = module.emmc_bytes().saturating_sub(outcome.bytes);
    if block.len() as u64 > room {
        return Err(NO_SPACE.to_owned());
    }
    module.write_emmc(outcome.bytes, block).await.map_err(|error| error.to_string())?;
    outcome.hasher.update(block);
    outcome.bytes += block.len() as u64;
    Ok(())
}

/// Firmware 1.x: writes a whole file at once, without a job. The number is the C library's result.
pub(crate) async fn write_local(daemon: &Daemon, slot: usize, image: &[u8]) -> Result<(), u8> {
    let mut outcome = Outcome::default();
    let error = match daemon.find_on_usb(slot) {
        Err(_) => Some(2),
        Ok((found, module)) => {
            outcome.slot = Some(found);
            let mut error = None;
            for block in image.chunks(BLOCK) {
                if write_block(module.as_ref(), &mut outcome, block).await.is_err() {
                    error = Some(5);
                    break;
                }
            }
            error
        }
    };
    let text = error.map(|code: u8| format!("flashing failure: {code}"));
    daemon.record(slot, outcome, text.as_deref());
    error.map_or(Ok(()), Err)
}

impl Daemon {
    fn record(&self, slot: usize, outcome: Outcome, error: Option<&str>) {
        let number = |slot: usize| u8::try_from(slot + 1).unwrap_or(u8::MAX);
        self.record_flash(FlashRecord {
            slot: number(slot),
            written_slot: outcome.slot.map(number),
            bytes: outcome.bytes,
            sha256: hex::encode(outcome.hasher.finalize()),
            error: error.map(str::to_owned),
        });
    }
    fn strike_flash(&self, slot: usize) -> Option<Strike> {
        let here = Site::Flash { board: Some(self.plan().name.clone()), slot: u8::try_from(slot + 1).ok() };
        self.surroundings().faults.strike_within(&here)
    }
    /// The module to write to, and its slot; or the error in this firmware's words.
    fn search(&self, slot: usize, fault: Option<&Action>) -> Result<(usize, Arc<dyn Module>), String> {
        let failed = |failure| Err(self.usb_failure_text(failure).to_owned());
        match fault {
            Some(Action::NoModule) => failed(UsbFailure::NotFound),
            Some(Action::SeveralModules) => failed(UsbFailure::Several),
            Some(Action::OtherSlot(other)) => {
                let other = usize::from(other.saturating_sub(1));
                match self.module(other) {
                    Some(module) => Ok((other, module.clone())),
                    None => failed(UsbFailure::NotFound),
                }
            }
            _ if self.profile().is_fork() => self.find_by_port(slot),
            _ => self.find_on_usb(slot).or_else(failed),
        }
    }
}

/// Simulated time that passes block by block. What one sleep takes too long, the next ones take less: a timer cannot
/// sleep for less than a millisecond, a busy machine wakes late, and a fast simulation has many short blocks.
struct Owed {
    pace: Pace,
    /// When everything added so far has passed.
    due: Instant,
}

impl Owed {
    /// What is too short to sleep for.
    const GRAIN: Duration = Duration::from_millis(4);
    /// More than this is no late timer: the device had nothing to do, and cannot catch up on that.
    const LATE: Duration = Duration::from_millis(250);

    fn at(pace: Pace) -> Self {
        Self { pace, due: Instant::now() }
    }
    async fn add(&mut self, nominal: Duration) {
        let now = Instant::now();
        if now.saturating_duration_since(self.due) > Self::LATE {
            self.due = now;
        }
        self.due += self.pace.scale(nominal);
        if self.due.saturating_duration_since(now) >= Self::GRAIN {
            self.settle().await;
        }
    }
    async fn settle(&mut self) {
        if self.due > Instant::now() {
            tokio::time::sleep_until(self.due).await;
        }
    }
}

/// Blocks of half a MiB, as the daemon's; of a small image less, so that a demo has progress to show.
fn block_size(image: u64) -> usize {
    usize::try_from(image / 64).unwrap_or(BLOCK).clamp(16 * 1024, BLOCK)
}

/// The part of `whole` that `bytes` of `size` take.
fn share(whole: Duration, bytes: u64, size: u64) -> Duration {
    #[allow(clippy::cast_precision_loss, reason = "a simulated duration")]
    let part = bytes as f64 / size.max(1) as f64;
    whole.mul_f64(part.min(1.0))
}
