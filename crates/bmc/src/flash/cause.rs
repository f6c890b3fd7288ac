//! Why a flash failed, from the only thing the BMC gives: a sentence.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::FlashPhase;
use crate::{About, Capability};

/// Why a flash failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FlashCause {
    /// No module the BMC can flash answered on USB: empty slot, not seated, Jetson, CM5.
    ModuleNotFound,
    /// The module answered, but showed no disk.
    NoDisk,
    /// More than one module showed a disk.
    SeveralModules,
    /// The BMC computed another SHA-256 than the declared one. All was written by then.
    Checksum {
        /// The declared one.
        expected: String,
        /// The computed one.
        found: String,
    },
    /// What was read back differs.
    ReadBack,
    /// The image calls itself xz and is not, or is cut.
    NotXz,
    /// Somebody cancelled it.
    Cancelled,
    /// The upload did not begin within 10 seconds, or the timer of an earlier start struck.
    SendTimeout,
    /// The image is larger than the eMMC.
    NoSpace,
    /// Reading or writing the module failed.
    DeviceIo,
    /// The file is not on the BMC.
    NoFile,
    /// The BMC could not download the image.
    Download,
    /// Another slot's module answered instead; the community's firmware refuses to write to it.
    WrongModule,
    /// The BMC's own updater refused the firmware, or failed to write it.
    FirmwareRefused,
    /// The BMC's daemon forgot the job: it restarted.
    DaemonRestarted,
    /// The connection broke while sending.
    ConnectionLost,
    /// The BMC reports success, but nothing shows that this image was written.
    NotProven,
    /// Something else; the text tells.
    Other,
}

impl FlashCause {
    /// Reads the BMC's message. There is no code beside it in any firmware.
    pub(crate) fn of(text: &str) -> Self {
        let has = |part: &str| text.contains(part);
        if let Some((_, rest)) = text.split_once("sha256 checksum failed") {
            let after = |word: &str| {
                let digits = rest.split_once(word).map(|(_, rest)| rest.trim_start()).unwrap_or_default();
                digits.chars().take_while(char::is_ascii_hexdigit).collect::<String>()
            };
            return Self::Checksum { expected: after("Expected:"), found: after("got:") };
        }
        if has("interface not found or supported") || text == "No supported devices found" {
            Self::ModuleNotFound
        } else if has("No supported USB devices found") || has("No MSD USB devices found") {
            Self::NoDisk
        } else if has("Several supported devices found") {
            Self::SeveralModules
        } else if has("requested on") && has("instead") {
            Self::WrongModule
        } else if has("failed firmware upgrade") || has("failed os_update") {
            Self::FirmwareRefused
        } else if has("No such file or directory") {
            Self::NoFile
        } else if has("http file request error") || has("could not be parsed to a url") {
            Self::Download
        } else if has("crc error") || has("integrity check of written image failed") {
            Self::ReadBack
        } else if has("lzma data error") || has("stream/file format not recognized") {
            Self::NotXz
        } else if has("Send timeout") {
            Self::SendTimeout
        } else if has("No space left on device") {
            Self::NoSpace
        } else if has("Input/output error") || has("(os error 5)") {
            Self::DeviceIo
        } else if has("cancelled by user") || has("transfer cancel") {
            Self::Cancelled
        } else if has("current=Ready") {
            Self::DaemonRestarted
        } else {
            Self::Other
        }
    }

    /// Whether the same flash may well succeed a little later.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::SendTimeout
                | Self::DaemonRestarted
                | Self::ConnectionLost
                | Self::NotProven
                | Self::ReadBack
        )
    }

    /// How such a failure leaves the node. Source: turing-machines/bmcd, `upgrade_worker.rs`: 2.1 and later switch the node
    /// off after every error but that of finding the module; older ones leave it on after any.
    pub(crate) fn leaves(&self, phase: FlashPhase, about: &About) -> NodeAfter {
        match self {
            _ if phase == FlashPhase::Start => NodeAfter::Untouched,
            Self::DaemonRestarted | Self::ConnectionLost | Self::NotProven | Self::Other => {
                NodeAfter::Unknown
            }
            Self::ModuleNotFound | Self::NoDisk | Self::SeveralModules | Self::WrongModule => {
                NodeAfter::OnInFlashMode
            }
            // The worker's own repair came with the unpacking of xz.
            _ if about.has(Capability::Xz) => NodeAfter::Off,
            _ => NodeAfter::OnInFlashMode,
        }
    }
}

impl fmt::Display for FlashCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ModuleNotFound => "no module that can be flashed was found",
            Self::NoDisk => "the module showed no disk",
            Self::SeveralModules => "several modules showed a disk",
            Self::Checksum { expected, found } => {
                return write!(f, "the BMC received SHA-256 {found} instead of {expected}");
            }
            Self::ReadBack => "what was read back differs from what was written",
            Self::NotXz => "the image is not a whole xz file",
            Self::Cancelled => "it was cancelled",
            Self::SendTimeout => "the BMC waited for the upload in vain",
            Self::NoSpace => "the image is larger than the eMMC",
            Self::DeviceIo => "reading or writing the module failed",
            Self::NoFile => "the BMC has no such file",
            Self::Download => "the BMC could not download the image",
            Self::WrongModule => "another slot's module answered",
            Self::FirmwareRefused => "the BMC's updater refused the file",
            Self::DaemonRestarted => "the BMC's daemon restarted",
            Self::ConnectionLost => "the connection broke",
            Self::NotProven => "the BMC reports success without a sign of it",
            Self::Other => "the BMC gave up",
        })
    }
}

/// How a failed flash leaves the node. Read and set the power state before going on, whatever this says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum NodeAfter {
    /// As it was before.
    Untouched,
    /// Off.
    Off,
    /// On, in its loader, with the USB still at the BMC.
    OnInFlashMode,
    /// Not known.
    Unknown,
}
