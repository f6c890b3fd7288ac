//! What a simulated board is like: firmware, hardware revision, credentials, SD card.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

/// The firmware a board runs. It decides the literal answers of its API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Firmware {
    /// 1.1.0: the C daemon. Plain HTTP, no login, flat pretty-printed JSON.
    #[serde(rename = "1.1.0")]
    V1_1_0,
    /// 2.0.0-RC1 with bmcd 2.0.0: HTTPS and login, but neither ban nor lock, about, reboot or cancel.
    #[serde(rename = "2.0.0")]
    V2_0_0,
    /// 2.0.5 with bmcd 2.0.5: widespread on v2.4 boards. No xz, sha256, URL or `skip_crc`; reading the UART empties it.
    #[serde(rename = "2.0.5")]
    V2_0_5,
    /// 2.1.0 with bmcd 2.3.4: the last official firmware.
    #[default]
    #[serde(rename = "2.1.0")]
    V2_1_0,
    /// bmcd 2.3.7, the last official daemon; never in an official image.
    #[serde(rename = "bmcd-2.3.7")]
    Bmcd2_3_7,
    /// bmcd 2.37.0 of the community fork: real status codes, 429 for a ban, one path per operation beside the old query,
    /// a serial websocket that works, and nothing but the password change as long as the password is `turing`.
    #[serde(rename = "fork")]
    Fork,
}

/// First line of a simulated firmware file.
const FIRMWARE_MAGIC: &str = "TURINGPI-SIM-FIRMWARE 1\n";

impl Firmware {
    /// All of them, oldest first.
    pub const ALL: [Self; 6] =
        [Self::V1_1_0, Self::V2_0_0, Self::V2_0_5, Self::V2_1_0, Self::Bmcd2_3_7, Self::Fork];

    /// `1.1.0`, `2.0.0`, `2.0.5`, `2.1.0`, `bmcd-2.3.7`, `fork`.
    pub fn name(self) -> &'static str {
        match self {
            Self::V1_1_0 => "1.1.0",
            Self::V2_0_0 => "2.0.0",
            Self::V2_0_5 => "2.0.5",
            Self::V2_1_0 => "2.1.0",
            Self::Bmcd2_3_7 => "bmcd-2.3.7",
            Self::Fork => "fork",
        }
    }
    /// A firmware file (`.tpu`) that a simulated BMC installs; it refuses anything else.
    pub fn image(self) -> Vec<u8> {
        // A unit variant: it cannot fail to be written.
        let name = serde_json::to_string(&self).unwrap_or_default();
        let mut image = format!("{FIRMWARE_MAGIC}{name}\n").into_bytes();
        image.resize(256 * 1024, b'#');
        image
    }
    /// What a firmware file holds.
    pub(crate) fn parse_image(image: &[u8]) -> Option<Self> {
        let rest = image.strip_prefix(FIRMWARE_MAGIC.as_bytes())?;
        serde_json::from_slice(rest.split(|byte| *byte == b'\n').next()?).ok()
    }
}

/// The hardware revision of a board. It decides the wiring of USB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub enum BoardRevision {
    /// v2.4: one USB switch, so the BMC sees one module at a time.
    #[serde(rename = "2.4")]
    V2_4,
    /// v2.5: a USB hub. Every module in its boot ROM is visible at once, and a flash takes the first one.
    #[default]
    #[serde(rename = "2.5")]
    V2_5,
    /// v2.5.1: as v2.5.
    #[serde(rename = "2.5.1")]
    V2_5_1,
    /// v2.5.2: as v2.5, and says that it is v2.5.1.
    #[serde(rename = "2.5.2")]
    V2_5_2,
}

impl BoardRevision {
    /// All of them, oldest first.
    pub const ALL: [Self; 4] = [Self::V2_4, Self::V2_5, Self::V2_5_1, Self::V2_5_2];

    /// `2.4`, `2.5`, `2.5.1`, `2.5.2`.
    pub fn name(self) -> &'static str {
        match self {
            Self::V2_5_2 => "2.5.2",
            other => other.number(),
        }
    }
    /// Whether all four modules hang on one USB hub.
    pub(crate) fn has_hub(self) -> bool {
        self != Self::V2_4
    }
    /// `2.5.1`, as the device tree spells it.
    pub(crate) fn number(self) -> &'static str {
        match self {
            Self::V2_4 => "2.4",
            Self::V2_5 => "2.5",
            Self::V2_5_1 | Self::V2_5_2 => "2.5.1",
        }
    }
}

/// The key of the board's self-signed certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum CertificateKey {
    /// ECDSA P-256: made in no time, and what a user's own certificate may have.
    #[default]
    Ecdsa,
    /// RSA of 2048 bits. The stock certificate has an RSA key (of 4096 bits, which takes long to make).
    Rsa,
}

/// The microSD card in the BMC's own slot, mounted at `/mnt/sdcard`.
#[derive(Debug, Clone, Default)]
pub struct SdCard {
    pub(crate) files: BTreeMap<String, Arc<[u8]>>,
}

impl SdCard {
    /// Capacity in bytes; the figure of the reference answers.
    pub const TOTAL_BYTES: u64 = 31_902_400_512;

    /// An empty card.
    pub fn new() -> Self {
        Self::default()
    }
    /// Puts a file on it; `path` as the BMC sees it, such as `/mnt/sdcard/image.img.xz`.
    #[must_use]
    pub fn file(mut self, path: impl Into<String>, bytes: impl Into<Arc<[u8]>>) -> Self {
        self.files.insert(path.into(), bytes.into());
        self
    }
}

/// One board of a simulation.
#[derive(Clone)]
pub struct BoardPlan {
    pub(crate) name: String,
    pub(crate) firmware: Firmware,
    pub(crate) revision: BoardRevision,
    pub(crate) username: String,
    pub(crate) password: String,
    pub(crate) key: CertificateKey,
    pub(crate) sd_card: Option<SdCard>,
    pub(crate) loopback_is_remote: bool,
    pub(crate) dies_at_flash: Option<u32>,
    pub(crate) certificate_age: Duration,
    pub(crate) xz_memory: u64,
    pub(crate) staging: u64,
}

impl std::fmt::Debug for BoardPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BoardPlan")
            .field("name", &self.name)
            .field("firmware", &self.firmware)
            .field("revision", &self.revision)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

impl BoardPlan {
    /// A v2.5 board with firmware 2.1.0, login `root`/`turing`, no SD card.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            firmware: Firmware::default(),
            revision: BoardRevision::default(),
            username: "root".to_owned(),
            password: "turing".to_owned(),
            key: CertificateKey::default(),
            sd_card: None,
            loopback_is_remote: true,
            dies_at_flash: None,
            certificate_age: Duration::ZERO,
            xz_memory: 48 * 1024 * 1024,
            staging: 58_720_256,
        }
    }
    /// The board's name in the simulation.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Another firmware.
    #[must_use]
    pub fn firmware(mut self, firmware: Firmware) -> Self {
        self.firmware = firmware;
        self
    }
    /// Another hardware revision.
    #[must_use]
    pub fn revision(mut self, revision: BoardRevision) -> Self {
        self.revision = revision;
        self
    }
    /// The BMC's login.
    #[must_use]
    pub fn credentials(mut self, username: impl Into<String>, password: impl Into<String>) -> Self {
        self.username = username.into();
        self.password = password.into();
        self
    }
    /// The key of its certificate.
    #[must_use]
    pub fn certificate_key(mut self, key: CertificateKey) -> Self {
        self.key = key;
        self
    }
    /// A microSD card in the BMC's slot, for flashing `local` files.
    #[must_use]
    pub fn sd_card(mut self, card: SdCard) -> Self {
        self.sd_card = Some(card);
        self
    }
    /// Lets loopback callers in without a login and without the global lock, as the real daemon does with its own host.
    /// Off by default: a simulated board is only ever called over loopback.
    #[must_use]
    pub fn trust_loopback(mut self) -> Self {
        self.loopback_is_remote = false;
        self
    }
    /// Out-of-memory hazard: the daemon dies in the middle of the `nth` flash since it was started, and comes back
    /// with state `Ready`.
    #[must_use]
    pub fn dies_at_flash(mut self, nth: u32) -> Self {
        self.dies_at_flash = Some(nth.max(1));
        self
    }
    /// Its certificate was made this long ago. It is valid for 30 days, and nothing renews it.
    #[must_use]
    pub fn certificate_age(mut self, age: Duration) -> Self {
        self.certificate_age = age;
        self
    }
    /// Memory in bytes that unpacking an `.xz` image may take; 48 MiB when not set. `xz -9` needs 65 MiB.
    #[must_use]
    pub fn xz_memory(mut self, bytes: u64) -> Self {
        self.xz_memory = bytes;
        self
    }
    /// Free bytes of the memory file system that firmware is staged to; 58 MB when not set.
    #[must_use]
    pub fn staging_space(mut self, bytes: u64) -> Self {
        self.staging = bytes;
        self
    }
}
