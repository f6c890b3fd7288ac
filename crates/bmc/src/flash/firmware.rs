//! New firmware for the BMC itself.

use serde::{Deserialize, Serialize};

use super::{FlashObserver, Goal, RemoteImage};
use crate::{BmcError, Capability, Generation, HttpBmcClient, ImageUpload, image};

/// What the BMC's memory file system holds; the file must fit into it. The community's firmware has other places.
const STAGING: u64 = 58 * 1024 * 1024;

/// Where the firmware file comes from.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum FirmwareSource {
    /// Sent from here: [`ImageUpload::firmware_file`].
    Upload(ImageUpload),
    /// On the BMC, or downloaded by it.
    Remote(RemoteImage),
}

/// Firmware that is **staged**: written to the spare place, and used from the next reboot of the BMC on. Nothing has changed
/// yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StagedFirmware {
    /// Bytes of the file.
    pub bytes: u64,
    /// SHA-256 of what was sent, where somebody computed it.
    pub sha256: Option<String>,
    /// How long it took.
    pub seconds: f64,
}

impl StagedFirmware {
    /// A result, for test doubles.
    pub fn new(bytes: u64, sha256: Option<String>, seconds: f64) -> Self {
        Self { bytes, sha256, seconds }
    }
}

impl HttpBmcClient {
    pub(crate) async fn stage_firmware(
        &self,
        source: FirmwareSource,
        progress: &FlashObserver<'_>,
    ) -> Result<StagedFirmware, BmcError> {
        let about = self.require(Capability::ImageUpload, "upgrade the BMC's firmware").await?;
        let staged = match source {
            FirmwareSource::Upload(file) => {
                if about.generation != Generation::Community && file.length > STAGING {
                    return Err(image::refuse(
                        &file.name,
                        "it is larger than the 58 MiB that the BMC can stage",
                    ));
                }
                let (sha256, seconds) = self.transfer_upload(Goal::Firmware, &file, progress).await?;
                let sha256 = Some(sha256).filter(|digest| !digest.is_empty());
                StagedFirmware { bytes: file.length, sha256, seconds }
            }
            FirmwareSource::Remote(file) => {
                if !file.is_plain() {
                    return Err(image::refuse(
                        file.name(),
                        "the BMC hands its name to a shell: only letters, digits and ._-/: are safe",
                    ));
                }
                let (bytes, seconds) = self.transfer_remote(Goal::Firmware, &file, progress).await?;
                StagedFirmware { bytes, sha256: None, seconds }
            }
        };
        // A reboot is next: nobody should take the token along.
        self.session().withhold_token();
        tracing::info!(bmc = %self.session().name(), bytes = staged.bytes, "firmware staged");
        Ok(staged)
    }
}
