//! The one step that erases.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use time::OffsetDateTime;
use turingpi_bmc::{BmcClient, FlashProgress, ImageUpload, PerSlot, Power, Slot, Transfer};
use turingpi_engine::{
    Change, Failure, FailureClass, Probe, Risk, Step, StepContext, StepDescription, Unit, Verdict,
};
use turingpi_ssh::{HostKeyPolicy, SshTarget};

use super::{
    FirstBootState, FlashReason, ImageSpec, ImagingContext, SlotRecord, bmc_failure,
    failure::bmc_refusal,
    flash_step_id,
    neighbours::{leftover_key, leftover_power, to_power_off},
    record::begun_key,
};
use crate::{
    NodeSpec, SlotRef,
    fetch::{Fetched, Sha256, Source},
    fetch_again,
    first_boot::{nonce, root_password_key},
};

/// What a flash of an RK1 takes, for the progress bar: sheet 4.9, about 2 MB/s and a read-back.
const EXPECTED_SECONDS: u64 = 900;

/// How long a transfer that may be ours from before can go on without its client.
const ABANDONED: Duration = Duration::from_secs(300);

pub(super) struct FlashStep {
    node: String,
    place: SlotRef,
    image: ImageSpec,
    cx: ImagingContext,
    /// An attempt of this run came as far as the eMMC.
    begun: AtomicBool,
}

impl FlashStep {
    pub(super) fn new(node: &NodeSpec, place: &SlotRef, image: &ImageSpec, cx: ImagingContext) -> Self {
        let begun = AtomicBool::new(false);
        Self { node: node.name.clone(), place: place.clone(), image: image.clone(), cx, begun }
    }

    fn failed(&self, error: turingpi_bmc::BmcError) -> Failure {
        bmc_failure(&self.place.board, error)
    }

    /// Gets the image and proves its digest before the board is touched.
    async fn image(&self, cx: &StepContext) -> Result<Fetched, Failure> {
        let expected = expected_digest(&self.image, &self.cx).await?;
        tracing::info!(image = self.image.name, source = %self.image.source, "fetching");
        let progress = |done, total| cx.progress_of("fetching the image", done, total, Unit::Bytes);
        fetch_again(&self.cx.fetcher, &self.image.source, expected.as_ref(), &progress, cx).await
    }

    /// Everything that comes before the eMMC is touched.
    async fn ready(&self, bmc: &dyn BmcClient, cx: &StepContext) -> Result<Fetched, Failure> {
        if matches!(
            self.cx.hosts.target(&self.node),
            Some(SshTarget { host_key: HostKeyPolicy::Pinned(_), .. })
        ) {
            return Err(Failure::new(
                FailureClass::Config,
                format!("the document pins the host key of {}, and a flash gives it a new one", self.node),
            )
            .hint("Take the pinned fingerprint out of the document: the new key is pinned after the first boot."));
        }
        self.no_foreign_transfer(bmc, cx).await?;
        let image = self.image(cx).await?;
        if cx.stopping() {
            return Err(Failure::new(
                FailureClass::Cancelled,
                format!("stopped before slot {} was flashed", self.place),
            ));
        }
        self.clear_the_bus(bmc, cx).await?;
        Ok(image)
    }

    /// Takes the in-doubt mark away again: the slot holds what it held before this run.
    async fn nothing_begun(&self, cx: &StepContext) -> Result<(), Failure> {
        if self.begun.load(Ordering::Relaxed) {
            return Ok(());
        }
        let id = flash_step_id(&self.node);
        cx.update_state(|state| {
            // A record goes away before the first byte: where there is one, no flash was begun after it.
            let known = self.cx.reason == FlashReason::NeverFlashed
                || SlotRecord::read(state, &self.place)?.is_some();
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

    async fn write(&self, bmc: &dyn BmcClient, image: &Fetched, cx: &StepContext) -> Result<(), Failure> {
        let mut upload = ImageUpload::file_with_sha256(&image.path, image.sha256.as_str())
            .await
            .map_err(|e| self.failed(e))?;
        // In the cache it is named by its digest.
        upload.name.clone_from(&self.image.name);
        let progress = |now: FlashProgress| {
            let (name, done, total) = match now {
                FlashProgress::Uploading { sent, total } => ("uploading", sent, Some(total)),
                FlashProgress::Writing { done, total } => ("writing", done, total),
                FlashProgress::Verifying { done, total } => ("reading back", done, total),
                _ => return,
            };
            cx.progress_of(name, done, total, Unit::Bytes);
        };
        let flashed = bmc.flash(self.place.slot, upload, &progress).await.map_err(|error| {
            let node = error.node_after();
            let failure = bmc_refusal(&self.place.board, error);
            tracing::debug!(?node, "a flash failed");
            match failure.is_retryable() {
                // A start that got no upload is timed out by the BMC after ten seconds, and its timer then also kills a
                // younger job (sheet 4.2): do not come back sooner.
                true => failure.retry_after(cx.timing().poll * 6),
                false => failure,
            }
        })?;
        if flashed.sha256 != image.sha256.as_str() {
            return Err(Failure::new(
                FailureClass::Refused,
                format!("what was written to slot {} is not image `{}`", self.place, self.image.name),
            )
            .hint("The file changed while it was sent. Run this again."));
        }
        Ok(())
    }

    /// Powers on again what was switched off for it; once for all flashes of a plan, after the last one.
    async fn restore(&self, bmc: &dyn BmcClient, cx: &StepContext) -> Result<(), Failure> {
        if !self.cx.neighbours.queue.is_over(&self.place.board) && !cx.stopping() {
            return Ok(());
        }
        restore_power(&self.place.board, bmc, cx).await
    }

    fn is_mine(&self, record: &SlotRecord, run: &str) -> bool {
        record.run == run
            && record.node == self.node
            && record.image == self.image.name
            && self.image.sha256.as_ref().is_none_or(|wanted| *wanted == record.sha256)
    }
}

#[async_trait]
impl Step for FlashStep {
    fn describe(&self) -> StepDescription {
        let id = flash_step_id(&self.node);
        let digest = self.image.sha256.as_ref().map_or("digest from the publisher", Sha256::as_str);
        StepDescription::new(id, format!("Flash {} to slot {}", self.image.name, self.place), "flash")
            .risk(Risk::Destructive)
            .change(Change::set(
                format!("eMMC of slot {}", self.place),
                format!("{} ({digest})", self.image.name),
            ))
            .change(Change::set("reason", self.cx.reason.to_string()))
            .lock(format!("{}/transfer", self.place.board))
            .expected_seconds(EXPECTED_SECONDS)
    }

    async fn apply(&self, cx: &StepContext) -> Result<(), Failure> {
        let bmc = Arc::clone(self.cx.boards.client(&self.place.board)?);
        let key = SlotRecord::key(&self.place);
        self.cx.neighbours.queue.begin(&self.place);
        // Written by this very run: a retry after the flash itself had succeeded.
        if SlotRecord::read(&cx.state().await?, &self.place)?
            .is_some_and(|record| self.is_mine(&record, cx.run()))
        {
            return self.restore(bmc.as_ref(), cx).await;
        }
        let image = match self.ready(bmc.as_ref(), cx).await {
            Ok(image) => image,
            Err(failure) => {
                self.nothing_begun(cx).await?;
                let _ = self.restore(bmc.as_ref(), cx).await;
                return Err(failure);
            }
        };
        self.begun.store(true, Ordering::Relaxed);
        cx.update_state(|state| {
            state.remove_record(&key);
            state.put_record(begun_key(&self.node), &self.place.to_string())
        })
        .await?;
        self.cx.hosts.forget(&self.node).await;
        if let Err(failure) = self.write(bmc.as_ref(), &image, cx).await {
            // A failed flash may leave the module on and in flash mode, where it is in the way of every other flash.
            let _ = set_power(bmc.as_ref(), &[self.place.slot], Power::Off).await;
            let _ = self.restore(bmc.as_ref(), cx).await;
            return Err(failure);
        }
        // At once, before anything else may fail: from here on a crash does not lead to a second flash.
        let record = SlotRecord {
            image: self.image.name.clone(),
            sha256: image.sha256,
            node: self.node.clone(),
            at: OffsetDateTime::now_utc(),
            run: cx.run().to_owned(),
            flash: nonce(),
            first_boot: FirstBootState::Pending,
        };
        cx.update_state(|state| {
            // The old system is gone, and its root password with it.
            state.remove_secret(&root_password_key(&self.node));
            state.put_record(key, &record)
        })
        .await?;
        self.restore(bmc.as_ref(), cx).await
    }

    async fn verify(&self, cx: &StepContext) -> Result<Verdict, Failure> {
        let record = SlotRecord::read(&cx.state().await?, &self.place)?;
        if !record.is_some_and(|record| self.is_mine(&record, cx.run())) {
            return Ok(Verdict::NotYet(format!("slot {} has no verified image", self.place)));
        }
        let bmc = self.cx.boards.client(&self.place.board)?;
        Ok(match bmc.transfer().await.map_err(|e| self.failed(e))? {
            Transfer::Moving { process, .. } => {
                Verdict::NotYet(format!("the BMC still works on `{process}`"))
            }
            _ => Verdict::Converged,
        })
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(120)
    }
}

/// Switches slots with one request.
pub(super) async fn set_power(
    bmc: &dyn BmcClient,
    slots: &[Slot],
    to: Power,
) -> Result<(), turingpi_bmc::BmcError> {
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
pub(super) async fn restore_power(board: &str, bmc: &dyn BmcClient, cx: &StepContext) -> Result<(), Failure> {
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

/// The digest that the image must have. A URL without one in the document needs its publisher's checksum file.
async fn expected_digest(image: &ImageSpec, cx: &ImagingContext) -> Result<Option<Sha256>, Failure> {
    let url = match (&image.sha256, &image.source) {
        (Some(digest), _) => return Ok(Some(digest.clone())),
        (None, Source::Path(_)) => return Ok(None),
        (None, Source::Url(url)) => url,
    };
    let file = url.path_segments().and_then(|mut segments| segments.next_back()).unwrap_or_default();
    for suffix in [".sha256", ".sha", ".sha256sum"] {
        let mut beside = url.clone();
        beside.set_path(&format!("{}{suffix}", url.path()));
        if let Some(text) = cx.fetcher.text_if_there(&Source::Url(beside)).await?
            && let Some(digest) = Sha256::beside(&text, file)
        {
            return Ok(Some(digest));
        }
    }
    Err(Failure::new(
        FailureClass::Config,
        format!("nothing says what the digest of image `{}` is", image.name),
    )
    .hint("Add its `sha256` to the document: an image whose digest is not known is never flashed."))
}
