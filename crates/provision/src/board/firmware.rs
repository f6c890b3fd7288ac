//! New firmware for a BMC: staged and verified, then activated by a reboot, then looked at.
//!
//! Two runs, because a person decides between them: staging changes nothing that runs, the reboot does.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use serde::Serialize;
use turingpi_bmc::{
    About, FirmwareSource, FlashProgress, Generation, ImageUpload, PerSlot, Power, Transfer, UsbBus,
};
use turingpi_cluster::{Fetcher, Sha256, Source};
use turingpi_engine::{
    Approval, Cancellation, Change, EventSink, Executor, Failure, FailureClass, Lane, Plan, Reconcile, Risk,
    Stage, State, Step, StepContext, StepDescription, Subject, Summary, Unit,
};

use super::{BoardDesk, OpenBoard};

/// A firmware file to install.
#[derive(Debug, Clone)]
pub struct FirmwareRequest {
    /// The `.tpu` file: a path or a URL that this machine downloads.
    pub source: Source,
    /// Its digest. A URL needs one.
    pub sha256: Option<Sha256>,
}

/// Firmware that waits in the BMC's spare slot for a reboot.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Staged {
    /// What runs now: `bmcd 2.3.4`.
    pub running: String,
    /// Bytes of the file.
    pub bytes: u64,
    /// SHA-256 of what the BMC got.
    pub sha256: String,
}

/// A BMC after its reboot.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Activated {
    /// What ran before: `bmcd 2.0.5`.
    pub before: String,
    /// What runs now.
    pub after: String,
    /// Whether the version is another one; false only where the same one was expected.
    pub changed: bool,
    /// The slots' power, as last asked for.
    pub power: PerSlot<Power>,
}

/// What a reboot of this BMC does to the nodes, in a sentence.
pub fn reboot_effect(about: &About, bus: Option<UsbBus>) -> &'static str {
    match (about.generation, bus) {
        (Generation::Community, _) => "The nodes keep running: this firmware leaves their power alone.",
        (Generation::V2_0 | Generation::Legacy, _) | (_, Some(UsbBus::Single)) => {
            "ALL NODES LOSE POWER while the BMC restarts, and come on again as they were."
        }
        _ => {
            "The nodes should keep running, but boards were seen whose nodes restarted with the BMC: expect that."
        }
    }
}

impl BoardDesk {
    /// Writes firmware to the BMC's spare slot and has it verified. What runs stays as it is until a reboot.
    ///
    /// # Errors
    /// `Refused` with the next step when the BMC does not take the file; `Locked` while a transfer moves.
    pub async fn stage_firmware(
        &self,
        board: &OpenBoard,
        request: &FirmwareRequest,
        sink: Arc<dyn EventSink>,
        cancellation: &Cancellation,
    ) -> Result<Staged, Failure> {
        let _lock = self.lock("board firmware")?;
        if board.about().generation == Generation::Legacy {
            return Err(Failure::new(
                FailureClass::Refused,
                format!("firmware {} cannot be upgraded over the network", board.about().version),
            )
            .hint(
                "Write the image of firmware 2.x to a microSD card, put it into the board's slot, and follow the vendor's \
                 page on upgrading from 1.x. The nodes' disks are not touched by it.",
            ));
        }
        let fetcher = Fetcher::new(&self.environment.cache_dir, self.environment.proxy.options()?)?;
        let done: Done<Staged> = Arc::default();
        let step = Stage1 { board: board.clone(), request: request.clone(), fetcher, done: done.clone() };
        self.script(board, "board firmware", Arc::new(step), sink, cancellation, || is_done(&done)).await?;
        taken(&done)
    }

    /// Reboots the BMC into staged firmware, waits, logs in anew and compares the versions.
    ///
    /// Nothing tells which version a file holds. So a version that is as before is no success: the BMC may have fallen back
    /// to its old firmware, because the new one did not start. With `reinstall` the same version is expected.
    ///
    /// # Errors
    /// `Locked` while a transfer moves: nothing was restarted then. `Timeout` when the BMC does not come back; `Refused`
    /// when it did not restart, or came back with the same version and `reinstall` is false; each with the next step.
    pub async fn activate_firmware(
        &self,
        board: &OpenBoard,
        reinstall: bool,
        sink: Arc<dyn EventSink>,
        cancellation: &Cancellation,
    ) -> Result<(Activated, OpenBoard), Failure>
    where
        Self: Sync,
    {
        let _lock = self.lock("board firmware")?;
        let cx = self.context(sink, cancellation).scoped(Subject::board(board.name()), "firmware/reboot");
        self.reboot(board).await.map_err(|failure| still_staged(board, failure))?;
        cx.note(format!("the BMC of {} restarts now", board.name()));
        let back = self.wait_until_back(board, &cx).await?;
        let bmc = back.client();
        if let Ok(Transfer::Done { .. }) = bmc.transfer().await {
            return Err(Failure::new(
                FailureClass::Refused,
                format!("the BMC of {} answers and has not restarted", board.name()),
            )
            .hint(format!(
                "The new firmware is staged and waits for a reboot: `turingpi board reboot --board {}`.",
                board.name()
            )));
        }
        let (before, after) = (version(board.about()), version(back.about()));
        let changed = before != after;
        if !changed && !reinstall {
            return Err(Failure::new(
                FailureClass::Refused,
                format!(
                    "the BMC of {} runs {after}: it came back with the same version: either the file holds it, or the BMC \
                     fell back to its old firmware",
                    board.name()
                ),
            )
            .hint(format!(
                "If the file holds that version, all is well, and `--reinstall` says that it is expected. If not, compare the \
                 file's digest with its publisher's and run this again. The BMC has restarted: look at the slots with \
                 `turingpi board power status --board {}`.",
                board.name()
            )));
        }
        let power = bmc.power().await.map_err(|e| back.failure(e))?;
        Ok((Activated { before, after, changed, power }, back))
    }

    async fn script(
        &self,
        board: &OpenBoard,
        verb: &str,
        step: Arc<dyn Step>,
        sink: Arc<dyn EventSink>,
        cancellation: &Cancellation,
        done: impl Fn() -> bool + Send + Sync,
    ) -> Result<Summary, Failure> {
        let executor = Executor::builder(self.store.clone(), sink)
            .timing(self.environment.timing.clone())
            .cancellation(cancellation.clone())
            .verb(verb)
            .target(board.name())
            .version(&self.environment.version)
            .build();
        let script = Script { subject: Subject::board(board.name()), step, done };
        executor.converge(&script, &Approval::disruptive()).await
    }
}

/// A reboot that did not happen leaves what is staged where it is.
fn still_staged(board: &OpenBoard, failure: Failure) -> Failure {
    match failure.class() {
        FailureClass::Locked => failure.hint(format!(
            "Nothing was restarted; the new firmware is staged. Wait until the transfer has ended (`turingpi board transfer \
             --board {name}` shows it, `--cancel` ends it), then run this again, or activate what is staged with \
             `turingpi board reboot --board {name}`.",
            name = board.name()
        )),
        _ => failure,
    }
}

/// The daemon's version and when it was built: two builds of one version are two.
fn version(about: &About) -> String {
    match &about.build_time {
        Some(built) => format!("{} ({built})", about.firmware_name()),
        None => about.firmware_name(),
    }
}

type Done<T> = Arc<Mutex<Option<T>>>;

fn is_done<T>(done: &Done<T>) -> bool {
    done.lock().unwrap_or_else(PoisonError::into_inner).is_some()
}

fn taken<T>(done: &Done<T>) -> Result<T, Failure> {
    done.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take()
        .ok_or_else(|| Failure::new(FailureClass::Unexpected, "the run ended without a result"))
}

/// One step, once.
struct Script<F> {
    subject: Subject,
    step: Arc<dyn Step>,
    done: F,
}

#[async_trait]
impl<F: Fn() -> bool + Send + Sync> Reconcile for Script<F> {
    type Observed = bool;
    async fn observe(&self, _: &StepContext) -> Result<bool, Failure> {
        Ok((self.done)())
    }
    fn plan(&self, done: &bool, _: &State) -> Result<Plan, Failure> {
        let steps = if *done { Vec::new() } else { vec![Arc::clone(&self.step)] };
        let lanes = vec![Lane { subject: self.subject.clone(), steps }];
        Ok(Plan { stages: vec![Stage { title: "Firmware".to_owned(), lanes }] })
    }
}

/// Gets the file, sends it, and has the BMC write it to the spare slot.
struct Stage1 {
    board: OpenBoard,
    request: FirmwareRequest,
    fetcher: Fetcher,
    done: Done<Staged>,
}

impl Stage1 {
    async fn file(&self, cx: &StepContext) -> Result<(PathBuf, Sha256), Failure> {
        if let (Source::Url(_), None) = (&self.request.source, &self.request.sha256) {
            return Err(Failure::new(
                FailureClass::Config,
                "nothing says what the digest of this firmware is",
            )
            .hint("Give it with `--sha256`: the BMC does not check what it is sent."));
        }
        let progress = |done, total| cx.progress_of("fetching the firmware", done, total, Unit::Bytes);
        let fetched =
            self.fetcher.fetch(&self.request.source, self.request.sha256.as_ref(), &progress).await?;
        Ok((fetched.path, fetched.sha256))
    }
}

#[async_trait]
impl Step for Stage1 {
    fn describe(&self) -> StepDescription {
        StepDescription::new(
            format!("{}/firmware", self.board.name()),
            "Write the firmware to the BMC's spare slot",
            "firmware",
        )
        .risk(Risk::Disruptive)
        .change(Change::set(
            format!("spare firmware slot of {}", self.board.name()),
            self.request.source.to_string(),
        ))
        .lock(format!("{}/transfer", self.board.name()))
        .expected_seconds(60)
    }

    async fn apply(&self, cx: &StepContext) -> Result<(), Failure> {
        let (path, sha256) = self.file(cx).await?;
        let mut upload = ImageUpload::firmware_file(&path).await.map_err(|e| self.board.failure(e))?;
        if let Source::Url(url) = &self.request.source {
            // In the cache it is named by its digest.
            upload.name =
                url.path_segments().and_then(|mut s| s.next_back()).unwrap_or("firmware.tpu").to_owned();
        }
        let progress = |now: FlashProgress| {
            let (part, done, total) = match now {
                FlashProgress::Uploading { sent, total } => ("uploading", sent, Some(total)),
                FlashProgress::Writing { done, total } => ("writing", done, total),
                _ => return,
            };
            cx.progress_of(part, done, total, Unit::Bytes);
        };
        let client = self.board.client();
        let staged = client
            .upgrade_firmware(FirmwareSource::Upload(upload), &progress)
            .await
            .map_err(|e| self.not_staged(e))?;
        if staged.sha256.as_deref().is_some_and(|sent| sent != sha256.as_str()) {
            return Err(Failure::new(FailureClass::Refused, "the file changed while it was sent")
                .hint("Nothing was activated. Run this again."));
        }
        let running = version(self.board.about());
        *self.done.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Staged { running, bytes: staged.bytes, sha256: sha256.to_string() });
        Ok(())
    }
}

impl Stage1 {
    /// Staging writes to the spare slot only, so whatever goes wrong, the old firmware still runs.
    fn not_staged(&self, error: turingpi_bmc::BmcError) -> Failure {
        let failure = self.board.failure(error);
        // What may pass is tried again by whoever reads this; the engine must not send a firmware twice by itself.
        Failure::new(
            failure.class(),
            format!(
                "the firmware was not staged; {} still runs, and a reboot changes nothing",
                version(self.board.about())
            ),
        )
        .hint(format!(
            "Check that the file is a `.tpu` for Turing Pi 2. The BMC has little memory: `turingpi board reboot --board {}`, \
             then try again. If it is refused again, the file is not for this firmware.",
            self.board.name()
        ))
        .source(failure)
    }
}
