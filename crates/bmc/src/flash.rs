//! Writing an image to a slot, or new firmware to the BMC: uploaded, from a file on the BMC, or downloaded by it.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use serde::{Deserialize, Serialize};

use crate::{
    Attempt, BmcError, Capability, HttpBmcClient, ImageEncoding, ImageUpload, Slot, image, wire::Call,
};

mod cause;
mod firmware;
mod remote;
mod upload;
mod watch;

pub use cause::{FlashCause, NodeAfter};
pub use firmware::{FirmwareSource, StagedFirmware};
pub use remote::RemoteImage;

/// How far a flash came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FlashPhase {
    /// The BMC was asked to begin. Nothing was written.
    Start,
    /// The image was being sent; the BMC writes at the same time.
    Upload,
    /// All was sent, the BMC was still writing.
    Write,
    /// The BMC was reading back.
    Verify,
}

impl fmt::Display for FlashPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "the start",
            Self::Upload => "the upload",
            Self::Write => "writing",
            Self::Verify => "the check",
        })
    }
}

/// Where a flash is. Bytes are counted here while uploading: the BMC answers no questions then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FlashProgress {
    /// Log in, look for another transfer, begin.
    Starting,
    /// Sending; both in bytes of the file as it is sent.
    Uploading {
        /// Bytes sent.
        sent: u64,
        /// Bytes in all.
        total: u64,
    },
    /// Sent, and the BMC still writes; in unpacked bytes.
    Writing {
        /// Bytes written.
        done: u64,
        /// Bytes in all; unknown for xz.
        total: Option<u64>,
    },
    /// The BMC reads back; in unpacked bytes.
    Verifying {
        /// Bytes read.
        done: u64,
        /// Bytes in all, if known.
        total: Option<u64>,
    },
    /// Written and read back.
    Finished,
}

/// Hears of progress: `&|progress| …`. Called from the flash's own future; it should return at once.
pub type FlashObserver<'a> = dyn Fn(FlashProgress) + Send + Sync + 'a;

/// A flash that succeeded. The node is off.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Flashed {
    /// Bytes sent; those the BMC read, if it took the image from a file or from the network.
    pub bytes_sent: u64,
    /// SHA-256 of the bytes sent. Empty if nobody computed it: for a file on the BMC.
    pub sha256: String,
    /// From the start to the end of the read-back.
    pub seconds: f64,
}

impl Flashed {
    /// A result, for test doubles.
    pub fn new(bytes_sent: u64, sha256: impl Into<String>, seconds: f64) -> Self {
        Self { bytes_sent, sha256: sha256.into(), seconds }
    }
}

/// What this client is transferring: a second transfer is refused at once instead of waiting behind an upload.
#[derive(Debug, Default)]
pub(crate) struct Flashing(Mutex<Option<Current>>);

#[derive(Debug, Clone)]
struct Current {
    what: String,
    uploading: bool,
}

impl Flashing {
    fn begin(&self, what: String, uploading: bool) -> Result<Turn<'_>, String> {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*current {
            Some(other) => Err(other.what.clone()),
            None => {
                *current = Some(Current { what, uploading });
                Ok(Turn(self))
            }
        }
    }
    /// All is sent: from here on the BMC answers other calls again.
    fn sent(&self) {
        if let Some(current) = self.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            current.uploading = false;
        }
    }
    /// What is being uploaded. Only dropping it ends it: the BMC answers no call meanwhile.
    pub(crate) fn uploading(&self) -> Option<String> {
        let current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        current.as_ref().filter(|current| current.uploading).map(|current| current.what.clone())
    }
}

/// Ends with the flash, however that ends.
struct Turn<'a>(&'a Flashing);
impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// What is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    Slot(Slot),
    Firmware,
}

impl Goal {
    fn action(self) -> String {
        match self {
            Self::Slot(slot) => format!("flash slot {slot}"),
            Self::Firmware => "upgrade the BMC's firmware".to_owned(),
        }
    }
    fn words(self) -> String {
        match self {
            Self::Slot(slot) => format!("this client's flash of slot {slot}"),
            Self::Firmware => "this client's firmware upgrade".to_owned(),
        }
    }
    /// The call that starts it.
    fn start(self) -> Call {
        match self {
            Self::Slot(slot) => Call::set(self.action(), "flash").with("node", &slot.wire().to_string()),
            Self::Firmware => Call::set(self.action(), "firmware"),
        }
    }
}

/// What every step of one transfer needs.
pub(crate) struct Job<'a> {
    attempt: Attempt,
    goal: Goal,
    about: Arc<crate::About>,
    progress: &'a FlashObserver<'a>,
    /// Bytes declared at the start; a BMC that reads a file itself is told nothing.
    declared: Option<u64>,
    /// Bytes that will be written, if nothing is unpacked.
    raw: Option<u64>,
    /// Whether it reads back what it wrote.
    reads_back: bool,
    /// Whether the BMC unpacks what it reads.
    unpacks: bool,
}

impl Job<'_> {
    fn uploaded(&self) -> bool {
        self.declared.is_some()
    }
    fn unpacks(&self) -> bool {
        self.unpacks
    }
    fn fail(&self, phase: FlashPhase, cause: FlashCause, text: impl Into<String>) -> BmcError {
        let node = match self.goal {
            Goal::Slot(_) => cause.leaves(phase, &self.about),
            Goal::Firmware => NodeAfter::Untouched,
        };
        BmcError::Flash { attempt: self.attempt.clone(), phase, cause, text: text.into(), node }
    }
    /// An error of the BMC's own words.
    fn failed(&self, phase: FlashPhase, text: &str) -> BmcError {
        let cause = FlashCause::of(text);
        let text = if matches!(cause, FlashCause::Checksum { .. }) { "" } else { text };
        self.fail(phase, cause, text)
    }
}

impl HttpBmcClient {
    fn begin_transfer(&self, goal: Goal, uploading: bool) -> Result<(Attempt, Turn<'_>), BmcError> {
        let attempt = self.session().attempt(goal.action());
        let turn = self.flashing().begin(goal.words(), uploading).map_err(|process| BmcError::Busy {
            attempt: attempt.clone(),
            process,
            bytes: 0,
            size: None,
        })?;
        Ok((attempt, turn))
    }

    pub(crate) async fn flash_upload(
        &self,
        slot: Slot,
        image: ImageUpload,
        progress: &FlashObserver<'_>,
    ) -> Result<Flashed, BmcError> {
        let (sha256, seconds) = self.transfer_upload(Goal::Slot(slot), &image, progress).await?;
        tracing::info!(bmc = %self.session().name(), %slot, bytes = image.length, seconds, "flashed");
        Ok(Flashed { bytes_sent: image.length, sha256, seconds })
    }

    /// Returns the digest of what was sent, and how long it took.
    async fn transfer_upload(
        &self,
        goal: Goal,
        image: &ImageUpload,
        progress: &FlashObserver<'_>,
    ) -> Result<(String, f64), BmcError> {
        let (attempt, _turn) = self.begin_transfer(goal, true)?;
        let began = Instant::now();
        progress(FlashProgress::Starting);
        let about = self.require(Capability::ImageUpload, attempt.action()).await?;
        let wanted = [
            (Capability::Xz, goal != Goal::Firmware && image.encoding == ImageEncoding::Xz),
            (Capability::SkipCrc, image.skip_check),
        ];
        if let Some((capability, _)) = wanted.into_iter().find(|(c, wanted)| *wanted && !about.has(*c)) {
            let firmware = about.firmware_name();
            return Err(BmcError::Unsupported { attempt, capability, firmware });
        }
        if image.length == 0 {
            return Err(image::refuse(&image.name, "it is empty"));
        }
        // Opened before the start: from there on the upload must begin within 10 seconds.
        let reader = (image.open)().await.map_err(|error| image::unreadable(&image.name, error))?;
        let job = Job {
            attempt,
            goal,
            about,
            progress,
            declared: Some(image.length),
            raw: (image.encoding == ImageEncoding::Raw).then_some(image.length),
            reads_back: goal != Goal::Firmware && !image.skip_check,
            unpacks: image.encoding == ImageEncoding::Xz,
        };
        let uploaded = self.upload(&job, image, reader).await?;
        self.flashing().sent();
        self.watch(&job, &uploaded).await?;
        progress(FlashProgress::Finished);
        Ok((uploaded.sha256, began.elapsed().as_secs_f64()))
    }
}
