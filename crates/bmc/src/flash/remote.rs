//! Images the BMC reads itself: a file it has, or one it downloads. No upload holds its lock, so it answers meanwhile.

use std::time::Instant;

use url::Url;

use super::{FlashObserver, FlashProgress, Flashed, Goal, Job, upload::Uploaded};
use crate::{
    BmcError, Capability, HttpBmcClient, ImageEncoding, Slot, image,
    wire::{Call, answer},
};

/// An image, or firmware, that the BMC fetches itself.
///
/// The BMC decides by the name alone whether to unpack: exactly what ends in `.xz` is, and only by firmware 2.1 and later.
/// Names that say another packing are refused here: the BMC would write the packed bytes and report success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteImage {
    place: Place,
    sha256: Option<String>,
    skip_check: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    File(String),
    Url(Url),
}

impl RemoteImage {
    /// A file on the BMC, by its absolute path: an SD card hangs at `/mnt/sdcard`. The BMC compares no digest of it.
    ///
    /// # Errors
    /// [`BmcError::Image`] for a path that is not absolute, or whose name says a packing the BMC does not unpack.
    pub fn file(path: impl Into<String>) -> Result<Self, BmcError> {
        let path = path.into();
        if !path.starts_with('/') || path.ends_with('/') || path.chars().any(char::is_control) {
            return Err(image::refuse(&path, "a file on the BMC is named by its absolute path"));
        }
        check_name(&path, &path)?;
        Ok(Self { place: Place::File(path), sha256: None, skip_check: false })
    }

    /// A file the BMC downloads over `http` or `https`. The server must tell its length, and the BMC must trust its
    /// certificate.
    ///
    /// # Errors
    /// [`BmcError::Image`] for another scheme, for credentials in the URL (the BMC repeats it in its messages), and for a
    /// name that says a packing the BMC does not unpack.
    pub fn url(url: Url) -> Result<Self, BmcError> {
        let shown = format!("{}{}", url.host_str().unwrap_or_default(), url.path());
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(image::refuse(&shown, "the BMC downloads over http and https only"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(image::refuse(&shown, "its URL carries credentials"));
        }
        check_name(url.path(), &shown)?;
        if url.path().ends_with(".xz") && !url.as_str().ends_with(".xz") {
            return Err(image::refuse(
                &shown,
                "its URL does not end with .xz, so the BMC would write the packed bytes",
            ));
        }
        Ok(Self { place: Place::Url(url), sha256: None, skip_check: false })
    }

    /// With the SHA-256 of the file as it is downloaded, which firmware 2.1 and later compares.
    ///
    /// # Errors
    /// [`BmcError::Image`] if it is not 64 hexadecimal digits, or for a file on the BMC: no firmware would compare it.
    pub fn with_sha256(mut self, sha256: &str) -> Result<Self, BmcError> {
        if let Place::File(path) = &self.place {
            return Err(image::refuse(path, "the BMC compares no digest of its own files"));
        }
        self.sha256 = Some(image::digits(self.name(), sha256)?);
        Ok(self)
    }

    /// Without the check that reads back what was written. Firmware 2.1 and later.
    #[must_use]
    pub fn without_check(mut self) -> Self {
        self.skip_check = true;
        self
    }

    /// The path, or the URL.
    pub fn name(&self) -> &str {
        match &self.place {
            Place::File(path) => path,
            Place::Url(url) => url.as_str(),
        }
    }

    /// How the BMC will take it: by its name.
    pub fn encoding(&self) -> ImageEncoding {
        if self.name().ends_with(".xz") { ImageEncoding::Xz } else { ImageEncoding::Raw }
    }

    /// What the BMC's updater gets as a shell word must be harmless.
    pub(super) fn is_plain(&self) -> bool {
        self.name().bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/:".contains(&b))
    }

    fn onto(&self, call: Call) -> Call {
        let call = match &self.place {
            Place::File(path) => call.flag("local").with("file", path),
            Place::Url(url) => call.with("file", url.as_str()),
        };
        match &self.sha256 {
            Some(sha256) => call.with("sha256", sha256),
            None => call,
        }
    }
}

fn check_name(path: &str, shown: &str) -> Result<(), BmcError> {
    let lower = path.to_ascii_lowercase();
    let packed = [".gz", ".tgz", ".zst", ".bz2", ".zip", ".7z", ".lz4", ".lzma"];
    if packed.iter().any(|ending| lower.ends_with(ending)) {
        return Err(image::refuse(shown, "its name says a packing that the BMC would write as it is"));
    }
    if lower.ends_with(".xz") && !path.ends_with(".xz") {
        return Err(image::refuse(
            shown,
            "its name does not end with .xz in small letters: the BMC would not unpack it",
        ));
    }
    Ok(())
}

impl HttpBmcClient {
    pub(crate) async fn flash_by_itself(
        &self,
        slot: Slot,
        image: &RemoteImage,
        progress: &FlashObserver<'_>,
    ) -> Result<Flashed, BmcError> {
        let (bytes, seconds) = self.transfer_remote(Goal::Slot(slot), image, progress).await?;
        tracing::info!(bmc = %self.session().name(), %slot, bytes, seconds, "flashed");
        Ok(Flashed { bytes_sent: bytes, sha256: image.sha256.clone().unwrap_or_default(), seconds })
    }

    /// Returns the size as the BMC tells it, and how long it took.
    pub(super) async fn transfer_remote(
        &self,
        goal: Goal,
        image: &RemoteImage,
        progress: &FlashObserver<'_>,
    ) -> Result<(u64, f64), BmcError> {
        let (attempt, _turn) = self.begin_transfer(goal, false)?;
        let began = Instant::now();
        progress(FlashProgress::Starting);
        let about = self.require(Capability::ImageUpload, attempt.action()).await?;
        let flash = goal != Goal::Firmware;
        let wanted = [
            (Capability::Url, matches!(image.place, Place::Url(_))),
            (Capability::Xz, flash && image.encoding() == ImageEncoding::Xz),
            (Capability::SkipCrc, flash && image.skip_check),
        ];
        if let Some((capability, _)) = wanted.into_iter().find(|(c, wanted)| *wanted && !about.has(*c)) {
            let firmware = about.firmware_name();
            return Err(BmcError::Unsupported { attempt, capability, firmware });
        }
        let job = Job {
            attempt,
            goal,
            about,
            progress,
            declared: None,
            raw: None,
            reads_back: flash && !image.skip_check,
            unpacks: flash && image.encoding() == ImageEncoding::Xz,
        };
        let mut call = image.onto(goal.start());
        if flash && image.skip_check {
            call = call.flag("skip_crc");
        }
        let id = {
            let mut line = self.session().line().await;
            self.refuse_if_busy(&job, &mut line).await?;
            // The answer to a URL comes when the web server has answered.
            self.start(&job, &mut line, &call, self.session().timeouts().slow_call).await?
        };
        tracing::debug!(bmc = %self.session().name(), attempt = %job.attempt, id, "started");
        let checked_by_bmc = image.sha256.is_some();
        let started = Uploaded { id, sha256: String::new(), checked_by_bmc };
        let bytes = self.watch(&job, &started).await?;
        progress(FlashProgress::Finished);
        Ok((bytes, began.elapsed().as_secs_f64()))
    }

    /// Whether there was anything to cancel.
    pub(crate) async fn cancel_job(&self) -> Result<bool, BmcError> {
        let action = "cancel the transfer";
        let attempt = self.session().attempt(action);
        // The BMC would not answer before the upload ends.
        if let Some(process) = self.flashing().uploading() {
            return Err(BmcError::Busy { attempt, process, bytes: 0, size: None });
        }
        self.require(Capability::Cancel, action).await?;
        // An idle BMC would report "cancelled" from then on.
        let crate::Transfer::Moving { id, .. } = self.read_transfer(action).await? else { return Ok(false) };
        let call = Call::path(action, crate::wire::Method::Get, &format!("/upload/{id}/cancel"));
        let reply = self.session().call(&call).await?;
        answer::accepted(&reply, &attempt)?;
        Ok(true)
    }
}
