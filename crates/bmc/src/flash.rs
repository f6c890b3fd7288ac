//! Writing an image to a slot by uploading it.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use serde::{Deserialize, Serialize};

use crate::{Attempt, BmcError, Capability, HttpBmcClient, ImageEncoding, ImageUpload, Slot, image};

mod cause;
mod upload;
mod watch;

pub use cause::{FlashCause, NodeAfter};

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
    /// Bytes sent.
    pub bytes_sent: u64,
    /// SHA-256 of the bytes sent.
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

/// Which slot this client is flashing: a second flash is refused at once instead of waiting behind an upload.
#[derive(Debug, Default)]
pub(crate) struct Flashing(Mutex<Option<Slot>>);

impl Flashing {
    fn begin(&self, slot: Slot) -> Result<Turn<'_>, Slot> {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *current {
            Some(other) => Err(other),
            None => {
                *current = Some(slot);
                Ok(Turn(self))
            }
        }
    }
}

/// Ends with the flash, however that ends.
struct Turn<'a>(&'a Flashing);
impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// What every step of one flash needs.
pub(crate) struct Job<'a> {
    attempt: Attempt,
    slot: Slot,
    image: &'a ImageUpload,
    about: Arc<crate::About>,
    progress: &'a FlashObserver<'a>,
}

impl Job<'_> {
    fn fail(&self, phase: FlashPhase, cause: FlashCause, text: impl Into<String>) -> BmcError {
        let node = cause.leaves(phase, &self.about);
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
    pub(crate) async fn flash_upload(
        &self,
        slot: Slot,
        image: ImageUpload,
        progress: &FlashObserver<'_>,
    ) -> Result<Flashed, BmcError> {
        let attempt = self.session().attempt(format!("flash slot {slot}"));
        let _turn = self.flashing().begin(slot).map_err(|other| BmcError::Busy {
            attempt: attempt.clone(),
            process: format!("this client's flash of slot {other}"),
            bytes: 0,
            size: None,
        })?;
        let began = Instant::now();
        progress(FlashProgress::Starting);
        let about = self.require(Capability::ImageUpload, attempt.action()).await?;
        if image.encoding == ImageEncoding::Xz && !about.has(Capability::Xz) {
            let firmware = about.firmware_name();
            return Err(BmcError::Unsupported { attempt, capability: Capability::Xz, firmware });
        }
        if image.length == 0 {
            return Err(image::refuse(&image.name, "it is empty"));
        }
        // Opened before the start: from there on the upload must begin within 10 seconds.
        let reader = (image.open)().await.map_err(|error| image::unreadable(&image.name, error))?;
        let job = Job { attempt, slot, image: &image, about, progress };
        let uploaded = self.upload(&job, reader).await?;
        self.watch(&job, &uploaded).await?;
        progress(FlashProgress::Finished);
        let seconds = began.elapsed().as_secs_f64();
        tracing::info!(bmc = %self.session().name(), %slot, bytes = image.length, seconds, "flashed");
        Ok(Flashed { bytes_sent: image.length, sha256: uploaded.sha256, seconds })
    }
}
