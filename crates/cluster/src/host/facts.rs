//! What a host is and has, as data.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{UnitState, reboot};

/// Everything one look at a host found. Holds no secret.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct HostFacts {
    /// The operating system.
    pub os: Os,
    /// The processor.
    pub arch: Arch,
    /// The kernel's release, `uname -r`.
    pub kernel: String,
    /// Another one after every boot.
    pub boot_id: String,
    /// The host name in use.
    pub hostname: String,
    /// The host name after the next boot.
    pub static_hostname: String,
    /// The machine id; empty when there is none.
    pub machine_id: String,
    /// The user the script ran as: 0 is root.
    pub uid: u32,
    /// The user who became root through sudo; `None` when the login user is root.
    pub sudo_user: Option<String>,
    /// Global addresses.
    pub addresses: Vec<InterfaceAddress>,
    /// The default route.
    pub default_route: Option<Route>,
    /// Hardware addresses by interface.
    pub macs: BTreeMap<String, String>,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Processor cores.
    pub cores: u32,
    /// Swap that is on.
    pub swaps: Vec<Swap>,
    /// Control groups.
    pub cgroup: Cgroup,
    /// The kernel modules that were asked for and are loaded or built in.
    pub modules: BTreeSet<String>,
    /// The kernel settings that were asked for and exist.
    pub sysctl: BTreeMap<String, String>,
    /// The clock.
    pub time: HostTime,
    /// Mounted file systems.
    pub mounts: Vec<Mount>,
    /// Space under the folders that matter.
    pub space: BTreeMap<String, DiskSpace>,
    /// The packages that were asked for and are installed, with their version.
    pub packages: BTreeMap<String, String>,
    /// Firewalls.
    pub firewall: Firewall,
    /// `iptables --version`; `None` when it is not there.
    pub iptables: Option<String>,
    /// The files that were asked for and exist.
    pub files: BTreeMap<String, FileFact>,
    /// The contents of the text files that were asked for and exist.
    pub texts: BTreeMap<String, String>,
    /// The paths that were asked for and exist.
    pub paths: BTreeSet<String>,
    /// The units that were asked for.
    pub units: BTreeMap<String, UnitState>,
    /// What the vendor's first boot still has to do: `wizard`, `armbian-firstrun`.
    pub first_boot_pending: BTreeSet<String>,
    /// Why the host itself wants a reboot: `packages`, `kernel` (its modules are gone).
    pub wants_reboot: BTreeSet<String>,
    /// Answers to the caller's own scripts. They may hold anything, so they are never written out.
    #[serde(skip)]
    extras: BTreeMap<String, Extra>,
}

/// Output of a caller's script; not shown in a debug output.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Extra(pub(crate) String);

impl fmt::Debug for Extra {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl HostFacts {
    /// What the caller's script `name` printed; `None` when it was not asked for.
    pub fn extra(&self, name: &str) -> Option<&str> {
        self.extras.get(name).map(|e| e.0.as_str())
    }

    pub(crate) fn put_extra(&mut self, name: &str, text: &str) {
        self.extras.insert(name.to_owned(), Extra(text.to_owned()));
    }

    /// The state of `unit`: not found when it was not asked for.
    pub fn unit(&self, unit: &str) -> UnitState {
        self.units.get(unit).cloned().unwrap_or_default()
    }

    /// The text of `path`; empty when it does not exist.
    pub fn text(&self, path: &str) -> &str {
        self.texts.get(path).map_or("", String::as_str)
    }

    /// The digest of `path`, 64 hex digits.
    pub fn digest(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(|f| f.sha256.as_str())
    }

    /// The mount that holds `path`: the one with the longest matching mount point, the last of equals.
    pub fn mount_of(&self, path: &str) -> Option<&Mount> {
        let covers = |m: &&Mount| {
            m.path == "/"
                || path == m.path
                || path.strip_prefix(m.path.as_str()).is_some_and(|r| r.starts_with('/'))
        };
        self.mounts.iter().filter(covers).max_by_key(|m| m.path.len())
    }

    /// Changes made since the last boot that take effect at the next one.
    pub fn pending_reboot(&self) -> Vec<String> {
        reboot::pending_reasons(self.text(reboot::PENDING_PATH), &self.boot_id)
    }
}

/// The operating system, from `/etc/os-release`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Os {
    /// `debian`, `ubuntu`, `armbian`, …
    pub id: String,
    /// `12`, `24.04`, …
    pub version: String,
    /// For people.
    pub pretty: String,
    /// What it descends from.
    pub family: OsFamily,
    /// The board's name when it is an Armbian.
    pub armbian_board: Option<String>,
}

/// What an operating system descends from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum OsFamily {
    /// Debian, Ubuntu, Armbian, Raspberry Pi OS.
    Debian,
    /// Anything else.
    #[default]
    Other,
}

/// A processor architecture, in the words of release files.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Arch {
    /// 64-bit ARM: RK1, CM4, Jetson.
    #[default]
    Arm64,
    /// 64-bit x86.
    Amd64,
    /// Anything else, as `uname -m` names it.
    Other(String),
}

impl Arch {
    /// From `uname -m`.
    pub fn from_machine(machine: &str) -> Self {
        match machine {
            "aarch64" | "arm64" => Self::Arm64,
            "x86_64" | "amd64" => Self::Amd64,
            other => Self::Other(other.to_owned()),
        }
    }
    /// `arm64`, `amd64`, or what `uname -m` says.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Arm64 => "arm64",
            Self::Amd64 => "amd64",
            Self::Other(name) => name,
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct InterfaceAddress {
    /// The interface: `end0`.
    pub interface: String,
    /// The address with its prefix.
    pub address: IpNet,
}

/// A default route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Route {
    /// The gateway; `None` for a route straight to a link.
    pub via: Option<String>,
    /// The interface.
    pub interface: String,
}

/// Swap that is on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Swap {
    /// The device or file: `/dev/zram0`.
    pub path: String,
    /// Its size in KiB.
    pub kib: u64,
}

/// Control groups as the kernel offers them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Cgroup {
    /// 2 for the unified hierarchy, 1 for the old one, 0 for none.
    pub version: u8,
    /// Controllers that can be used.
    pub controllers: BTreeSet<String>,
    /// Controllers that are handed down to groups (version 2).
    pub subtree: BTreeSet<String>,
}

/// The clock of a host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct HostTime {
    /// Seconds since 1970, UTC.
    pub epoch: i64,
    /// Whether the kernel says that it is kept in time; `None` when nobody can tell.
    pub synchronized: Option<bool>,
    /// How far it is ahead of this machine's clock, in seconds.
    pub skew_seconds: i64,
    /// The time zone's name: `America/Chicago`.
    pub timezone: Option<String>,
}

impl HostTime {
    /// Whether certificates and logs can live with it: kept in time, or at most 30 s away from this machine.
    pub fn is_sane(&self) -> bool {
        self.skew_seconds.abs() <= 30 || (self.synchronized == Some(true) && self.skew_seconds.abs() <= 3600)
    }
}

/// A mounted file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Mount {
    /// The device or source.
    pub device: String,
    /// The mount point.
    pub path: String,
    /// The kind of file system.
    pub kind: String,
}

impl Mount {
    /// Whether it lives in memory: zram, tmpfs, Armbian's log disk.
    pub fn in_memory(&self) -> bool {
        matches!(self.kind.as_str(), "tmpfs" | "ramfs")
            || self.device.contains("zram")
            || self.device == "log2ram"
    }
}

/// Space under a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DiskSpace {
    /// The mount point that holds it.
    pub mount: String,
    /// Bytes in all.
    pub total_bytes: u64,
    /// Bytes free for use.
    pub free_bytes: u64,
}

/// A file, without its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct FileFact {
    /// SHA-256, 64 hex digits.
    pub sha256: String,
    /// Permission bits.
    pub mode: u32,
    /// `user:group`.
    pub owner: String,
    /// Bytes.
    pub bytes: u64,
}

/// Firewalls that are on, with the rules we may have added.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Firewall {
    /// `ufw` is on; the lines of `ufw show added`.
    pub ufw: Option<BTreeSet<String>>,
    /// `firewalld` is on; sources of the trusted zone and ports of the default zone.
    pub firewalld: Option<BTreeSet<String>>,
}
