//! The next step for each error.

use super::{AuthReason, BmcError};
use crate::{Capability, FlashCause};

impl BmcError {
    /// What to do next, one sentence.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => {
                "check that the BMC has power and network, and that its address is right; after a BMC reboot it needs about a minute"
            }
            Self::Tls { expected: Some(_), found: Some(_), .. } => {
                "if the BMC was reinstalled, look at its new fingerprint on the board itself and pin that; otherwise somebody stands in between"
            }
            Self::Tls { .. } => {
                "check the port, and that the URL points at the BMC; firmware 1.x has no TLS: use http://"
            }
            Self::Auth { reason, .. } => match reason {
                AuthReason::Wrong => {
                    "correct the user name and password before the next try: five failed logins block this address"
                }
                AuthReason::Rejected => "the BMC may be restarting; try again in a minute",
                AuthReason::Forbidden => "log in to the BMC's web page once and change the factory password",
                AuthReason::Missing => "give credentials and an https:// URL",
            },
            Self::Banned { .. } => {
                "wait until the block ends, and look for another client that uses an old password; other machines behind the same NAT share the block"
            }
            Self::Busy { .. } => "wait until the other transfer has ended; a second one would kill it",
            Self::Unsupported { capability, .. } => match capability {
                Capability::ImageUpload => {
                    "firmware 1.x must be upgraded with an SD card first; there is no online way to 2.x"
                }
                Capability::Xz => "decompress the image first, or upgrade the BMC to firmware 2.1",
                Capability::Endpoint => {
                    "check the URL's path, and whether the BMC's firmware is recent enough"
                }
                Capability::UsbHost => {
                    "boards from v2.5 on have a USB hub; nodes are always devices of the BMC there"
                }
                Capability::UsbNode1 => {
                    "only boards from v2.5 on have a choice there, and only with firmware 2.1 or later"
                }
                Capability::SerialKeys => {
                    "type whole lines: this firmware appends a line end to whatever is sent"
                }
                Capability::SerialSocket | Capability::Thermal => {
                    "only the community's firmware has it; the other calls work without"
                }
                _ => "upgrade the BMC's firmware",
            },
            Self::Api { status: 301..=308, .. } => "the BMC redirects to HTTPS: use an https:// URL",
            Self::Api { status: 502..=504, .. } => {
                "a proxy in front of the BMC gets no answer from it; try again in a minute"
            }
            Self::Api { .. } => {
                "the message is the BMC's own; check the request against the board's revision and firmware"
            }
            Self::Flash { cause, .. } => flash_hint(cause),
            Self::Replaced { .. } => {
                "another client (web page, `tpi`, a second run) flashed at the same time; make sure it is the only one, then flash again"
            }
            Self::Stalled { .. } => {
                "the BMC serves one request at a time: another client may be uploading; otherwise reboot the BMC"
            }
            Self::Protocol { .. } => {
                "check that the URL points at a Turing Pi BMC; if it does, report the answer as a bug"
            }
            Self::Image { .. } => "check the image file, and download it again if in doubt",
            Self::Local { .. } => "check the file's folder and the free space, then try again",
            Self::Setup { .. } => "correct the setting",
        }
    }
}

fn flash_hint(cause: &FlashCause) -> &'static str {
    match cause {
        FlashCause::ModuleNotFound => {
            "check that the module is seated and of a kind the BMC can flash: RK1, or CM4 with eMMC; not CM4 Lite, CM5 or Jetson"
        }
        FlashCause::NoDisk => {
            "the module answered but showed no eMMC: CM4 Lite has none; power the slot off and try again"
        }
        FlashCause::SeveralModules => {
            "power the other slots off: another module is in flash or mass-storage mode"
        }
        FlashCause::Checksum { .. } => {
            "the image changed on the way or on disk; check its digest, and flash again"
        }
        FlashCause::ReadBack => {
            "what was read back differs from what was written: flash again; if it repeats, the eMMC is failing"
        }
        FlashCause::NotXz => "the file is not a whole .xz file; download it again, or unpack it first",
        FlashCause::Cancelled => "somebody cancelled the transfer; flash again",
        FlashCause::SendTimeout => "the upload began too late; wait 10 seconds and flash again",
        FlashCause::NoSpace => "the image is larger than the module's eMMC",
        FlashCause::DeviceIo => "the USB link to the module broke; reseat the module and flash again",
        FlashCause::NoFile => {
            "check the path on the BMC: an SD card is mounted at /mnt/sdcard, and nothing can be put there by this API"
        }
        FlashCause::Download => {
            "the BMC itself must reach that server, trust its certificate, and be told a length; upload the file instead"
        }
        FlashCause::WrongModule => {
            "power the other slots off, check that the module in this slot is seated, and flash again"
        }
        FlashCause::FirmwareRefused => {
            "the BMC goes on with the firmware it has; check that the file is whole and for this board, reboot the BMC to free memory, and try again"
        }
        FlashCause::DaemonRestarted => {
            "the BMC's daemon restarted, often for lack of memory; reboot the BMC and flash again"
        }
        FlashCause::ConnectionLost => "the network connection broke; check it, and flash again",
        FlashCause::NotProven => {
            "the BMC says done, but nothing shows that this image was written; flash again"
        }
        FlashCause::Other => "look at the BMC's message, reboot the BMC and flash again",
    }
}
