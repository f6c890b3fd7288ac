//! Which firmware a BMC runs, and what that firmware can do.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Attempt, BmcError, Capabilities, Capability, HttpBmcClient,
    wire::{Call, answer},
};

/// Three numbers: the version of the daemon `bmcd` for 2.x, of the firmware for 1.x.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version(u16, u16, u16);

impl Version {
    /// `major.minor.patch`.
    pub const fn new(major: u16, minor: u16, patch: u16) -> Self {
        Self(major, minor, patch)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl FromStr for Version {
    type Err = String;
    /// Reads `2.3.4`, `v2.3.4`, `2.1` and `2.4.0-rc1`; what follows the numbers is dropped.
    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.trim().trim_start_matches('v');
        let end = numbers.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(numbers.len());
        let mut parts = numbers.get(..end).unwrap_or_default().split('.').map(str::parse::<u16>);
        match (parts.next(), parts.next(), parts.next()) {
            (Some(Ok(major)), Some(Ok(minor)), None) => Ok(Self(major, minor, 0)),
            (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch))) => Ok(Self(major, minor, patch)),
            _ => Err(format!("`{text}` is not a version")),
        }
    }
}

impl TryFrom<String> for Version {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}
impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.to_string()
    }
}

/// The lines of firmware that differ in what they do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Generation {
    /// Firmware 1.x: plain HTTP, no login, no image upload.
    Legacy,
    /// bmcd 2.0.0 to 2.0.5.
    V2_0,
    /// bmcd up to 2.3.4: firmware 2.1.0.
    V2_1,
    /// bmcd 2.3.5 to 2.3.7, never in an official firmware image.
    V2_3,
    /// The community's continuation, bmcd 2.4 and later.
    Community,
}

impl Generation {
    /// All, oldest first.
    pub const ALL: [Self; 5] = [Self::Legacy, Self::V2_0, Self::V2_1, Self::V2_3, Self::Community];

    fn of(version: Version) -> Self {
        match version {
            v if v < Version(2, 0, 0) => Self::Legacy,
            v if v < Version(2, 1, 0) => Self::V2_0,
            v if v < Version(2, 3, 5) => Self::V2_1,
            v if v < Version(2, 4, 0) => Self::V2_3,
            _ => Self::Community,
        }
    }
}

/// What a BMC is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct About {
    /// The line of firmware.
    pub generation: Generation,
    /// The daemon's version for 2.x, the firmware's for 1.x.
    pub version: Version,
    /// The API version the daemon names; `1.1` for all of 2.x.
    pub api: Option<String>,
    /// Such as `Turing Pi 2`; firmware 2.1 and later.
    pub board_model: Option<String>,
    /// Such as `2.5.1`, without a `v`; firmware 2.1 and later. Boards v2.5.2 may report 2.5.1.
    pub board_revision: Option<String>,
    /// The BMC's host name; firmware 2.1 and later.
    pub hostname: Option<String>,
    /// When the firmware was built, in the firmware's words.
    pub build_time: Option<String>,
    /// The Buildroot release it was built with. Not the firmware's version.
    pub buildroot: Option<String>,
}

impl About {
    /// What is known from a version alone.
    pub fn new(version: Version) -> Self {
        Self {
            generation: Generation::of(version),
            version,
            api: None,
            board_model: None,
            board_revision: None,
            hostname: None,
            build_time: None,
            buildroot: None,
        }
    }

    /// A typical member of a generation.
    pub fn of(generation: Generation) -> Self {
        Self::new(match generation {
            Generation::Legacy => Version(1, 1, 0),
            Generation::V2_0 => Version(2, 0, 5),
            Generation::V2_1 => Version(2, 3, 4),
            Generation::V2_3 => Version(2, 3, 7),
            Generation::Community => Version(2, 4, 0),
        })
    }

    /// Whether this firmware, on this board, can do it.
    pub fn has(&self, capability: Capability) -> bool {
        match capability {
            Capability::UsbHost => self.usb_hub() != Some(true),
            Capability::UsbNode1 if self.usb_hub() == Some(false) => false,
            _ => self.version >= capability.since(),
        }
    }

    /// Everything this firmware can do on this board.
    pub fn capabilities(&self) -> Capabilities {
        Capability::ALL.into_iter().filter(|c| *c != Capability::Endpoint && self.has(*c)).collect()
    }

    /// The firmware image's version where it can be told: the daemon does not report it.
    pub fn firmware_version(&self) -> Option<Version> {
        match self.generation {
            Generation::Legacy | Generation::V2_0 => Some(self.version),
            Generation::V2_1 if self.version >= Version(2, 3, 2) => Some(Version(2, 1, 0)),
            _ => None,
        }
    }

    /// For people: `firmware 1.1.0`, `bmcd 2.3.4`.
    pub fn firmware_name(&self) -> String {
        match self.generation {
            Generation::Legacy => format!("firmware {}", self.version),
            _ => format!("bmcd {}", self.version),
        }
    }

    /// Whether the board has a USB hub (v2.5 and later), if the firmware tells its revision.
    pub fn usb_hub(&self) -> Option<bool> {
        let revision: Version = self.board_revision.as_deref()?.parse().ok()?;
        Some(revision >= Version(2, 5, 0))
    }

    /// Whether a flash goes to the first module on the USB bus, whatever the slot: official firmware on a board with a
    /// hub, or on one whose revision is not known. Power the other slots off before a flash then.
    pub fn may_flash_another_slot(&self) -> bool {
        self.generation != Generation::Community && self.usb_hub() != Some(false)
    }
}

impl HttpBmcClient {
    /// Detects the firmware. A port-80 client asks `other` first, because firmware 1.x never answers `about`.
    pub(crate) async fn read_about(&self) -> Result<About, BmcError> {
        if !self.session().encrypted() {
            let other = self.read_other().await?;
            if answer::is_legacy(&other) {
                return self.about_other(&other);
            }
        }
        let call = Call::get("detect the firmware", "about");
        let attempt = self.session().attempt(call.action());
        let about = match self.session().call(&call).await.and_then(|reply| answer::value(&reply, &attempt)) {
            Ok(value) => parse(&value, &attempt)?,
            // bmcd 2.0.0 and 2.0.1 do not know the type.
            Err(BmcError::Api { status: 400, .. }) => return self.about_other(&self.read_other().await?),
            Err(error) => return Err(error),
        };
        Ok(about)
    }

    async fn read_other(&self) -> Result<Value, BmcError> {
        let call = Call::get("detect the firmware", "other");
        let reply = self.session().call(&call).await?;
        answer::envelope(&reply, &self.session().attempt(call.action()))
    }

    fn about_other(&self, envelope: &Value) -> Result<About, BmcError> {
        parse(&answer::unwrapped(envelope), &self.session().attempt("detect the firmware"))
    }

    /// The firmware, asked once and remembered until a token is refused or the connection fails.
    pub(crate) async fn firmware(&self) -> Result<Arc<About>, BmcError> {
        if let Some(known) = self.session().known_firmware() {
            return Ok(known);
        }
        let about = Arc::new(self.read_about().await?);
        self.session().learn_firmware(&about);
        Ok(about)
    }

    /// Refuses what the firmware cannot do.
    pub(crate) async fn require(&self, capability: Capability, action: &str) -> Result<Arc<About>, BmcError> {
        let about = self.firmware().await?;
        if about.has(capability) {
            return Ok(about);
        }
        Err(BmcError::Unsupported {
            attempt: self.session().attempt(action.to_owned()),
            capability,
            firmware: about.firmware_name(),
        })
    }
}

/// `about` of 2.0.2 and later, and `other` of those without it. `version` is the daemon's until 2.3.4, the operating
/// system's from 2.3.5 on, where `bmcd_version` stands beside it.
pub(crate) fn parse(value: &Value, attempt: &Attempt) -> Result<About, BmcError> {
    let object = answer::single(value);
    let version = answer::word(&object["bmcd_version"])
        .or_else(|| answer::word(&object["version"]))
        .and_then(|text| text.parse::<Version>().ok())
        .ok_or_else(|| answer::senseless(attempt, "it names no version", value))?;
    Ok(About {
        api: answer::word(&object["api"]),
        board_model: answer::word(&object["board_model"]),
        board_revision: answer::word(&object["board_revision"]).map(|r| r.trim_start_matches('v').to_owned()),
        hostname: answer::word(&object["hostname"]),
        build_time: answer::word(&object["buildtime"]),
        buildroot: answer::word(&object["buildroot"]),
        ..About::new(version)
    })
}
