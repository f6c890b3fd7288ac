//! What a firmware can do: detected, never configured.

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};

use crate::Version;

macro_rules! capabilities {
    ($($(#[$doc:meta])* $name:ident, $since:expr, $words:literal;)*) => {
        /// Something a firmware or board can do or not.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        #[non_exhaustive]
        pub enum Capability {
            $($(#[$doc])* $name,)*
        }

        impl Capability {
            /// All, roughly in the order in which firmware learned them.
            pub const ALL: [Self; [$(stringify!($name)),*].len()] = [$(Self::$name),*];

            /// The first version that has it.
            pub(crate) fn since(self) -> Version {
                match self { $(Self::$name => $since,)* }
            }

            fn words(self) -> &'static str {
                match self { $(Self::$name => $words,)* }
            }
        }
    };
}

const ANY: Version = Version::new(0, 0, 0);
const V1_1_0: Version = Version::new(1, 1, 0);
const V2_0_0: Version = Version::new(2, 0, 0);
const V2_0_1: Version = Version::new(2, 0, 1);
const V2_0_2: Version = Version::new(2, 0, 2);
const V2_0_3: Version = Version::new(2, 0, 3);
const V2_0_4: Version = Version::new(2, 0, 4);
const V2_1_0: Version = Version::new(2, 1, 0);
const V2_4_0: Version = Version::new(2, 4, 0);

// Source: turing-machines/bmcd, tags v2.0.0 to v2.3.7 compared; the C daemon of firmware 1.1.0; the changelog of
// excavador-turing/bmcd for 2.4.0.
capabilities! {
    /// The API endpoint that was called.
    Endpoint, ANY, "such API endpoint";
    /// A node as USB host: not on boards with a hub.
    UsbHost, ANY, "USB host role on this board";
    /// Resetting a slot.
    Reset, V1_1_0, "reset of a slot";
    /// Releasing the boot pins.
    ClearUsbBoot, V1_1_0, "release of the boot pins";
    /// Showing a node's eMMC as a disk.
    MassStorage, V1_1_0, "mass-storage mode";
    /// Flashing, by upload and from a file on the BMC, and upgrading the BMC's firmware.
    ImageUpload, V2_0_0, "flashing by upload";
    /// Routing USB to the BMC.
    UsbRoute, V2_0_0, "USB route to the BMC";
    /// Holding a node's boot pin.
    UsbBoot, V2_0_0, "boot pin";
    /// Blocking callers after failed logins.
    Ban, V2_0_1, "blocking of callers";
    /// Rebooting the BMC.
    Reboot, V2_0_1, "reboot call";
    /// Telling addresses and storage.
    Info, V2_0_2, "address and storage report";
    /// Downloading a backup of the BMC.
    Backup, V2_0_2, "backup";
    /// Restarting the daemon.
    Reload, V2_0_2, "daemon restart";
    /// Cancelling a transfer by a call.
    Cancel, V2_0_3, "cancelling of transfers";
    /// The USB mode `flash`.
    UsbFlash, V2_0_4, "USB mode `flash`";
    /// Unpacking `.xz` while writing.
    Xz, V2_1_0, "unpacking of .xz images";
    /// Checking the SHA-256 of what arrives.
    Sha256, V2_1_0, "SHA-256 check";
    /// Downloading an image itself.
    Url, V2_1_0, "downloading of images";
    /// Leaving out the read-back check.
    SkipCrc, V2_1_0, "way to leave out the read-back check";
    /// Telling how the board's USB is wired.
    UsbBus, V2_1_0, "report of the USB wiring";
    /// Choosing what node 1 shares its USB with: boards with a hub only.
    UsbNode1, V2_1_0, "choice of node 1's USB port";
    /// Reading the serial line without emptying its buffer.
    UartKeeps, V2_1_0, "serial reads that keep the buffer";
    /// Telling whether the serial lines are being read.
    SerialStatus, V2_1_0, "report of the serial lines";
    /// Fans.
    Cooling, V2_1_0, "fan control";
    /// Names and modules of nodes.
    NodeInfo, V2_1_0, "names for nodes";
    /// A serial console by websocket that works. The endpoint of bmcd 2.1 to 2.3.7 blocks the whole BMC for 30 seconds
    /// and then closes.
    SerialSocket, V2_4_0, "working serial websocket";
    /// Single keys on the serial line, such as Ctrl-C.
    SerialKeys, V2_4_0, "single keys on the serial line";
    /// Temperatures.
    Thermal, V2_4_0, "temperature report";
}

impl Capability {
    /// The oldest firmware that has it, for people; `None` where the board decides, not the firmware.
    pub fn first_firmware(self) -> Option<&'static str> {
        match self.since() {
            ANY => None,
            V1_1_0 => Some("firmware 1.1.0"),
            V2_1_0 => Some("firmware 2.1.0"),
            V2_4_0 => Some("community firmware 2.7"),
            _ => Some("firmware 2.0.5"),
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

/// What one BMC can do, as detected. From [`About::capabilities`](crate::About::capabilities).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Capabilities(BTreeSet<Capability>);

impl Capabilities {
    /// Whether it can do this.
    pub fn has(&self, capability: Capability) -> bool {
        self.0.contains(&capability)
    }
    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = Capability> + '_ {
        self.0.iter().copied()
    }
}

impl FromIterator<Capability> for Capabilities {
    fn from_iter<I: IntoIterator<Item = Capability>>(capabilities: I) -> Self {
        Self(capabilities.into_iter().collect())
    }
}

/// Whether an `.xz` image may be sent as it is: firmware 2.1 and later unpacks it while writing. Any other packing, and xz
/// for older firmware, must be unpacked by the caller: the BMC would write the packed bytes and report success.
pub fn sends_xz_packed(capabilities: &Capabilities) -> bool {
    capabilities.has(Capability::Xz)
}
