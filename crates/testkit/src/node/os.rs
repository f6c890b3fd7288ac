//! The operating system on a node's disk, and the part of it that is gone without power.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Instant, SystemTime},
};

use super::{disk::Disk, net::Net, systemd::UnitRuntime, vfs::Vfs};
use crate::OsImage;

/// What is on the disk; it survives a power cut.
pub(crate) struct Os {
    pub(crate) image: OsImage,
    pub(crate) vfs: Vfs,
    pub(crate) disks: Vec<Disk>,
    /// Runtime state; none while the node is off.
    pub(crate) running: Option<Running>,
    /// Armbian's first-run service has not ended yet.
    pub(crate) boots: u32,
}

/// A line of the journal.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) at: SystemTime,
    pub(crate) unit: String,
    pub(crate) ident: String,
    pub(crate) pid: u32,
    pub(crate) message: String,
    /// The start of the unit it belongs to; 0 when it belongs to none.
    pub(crate) invocation: u32,
}

/// A swap area in use.
#[derive(Debug, Clone)]
pub(crate) struct Swap {
    pub(crate) device: String,
    pub(crate) kind: &'static str,
    pub(crate) bytes: u64,
    pub(crate) priority: i32,
}

/// A process of the process list.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) user: String,
    pub(crate) args: String,
    pub(crate) cancel: Option<tokio_util::sync::CancellationToken>,
}

/// What exists only while the system runs.
pub(crate) struct Running {
    pub(crate) boot_id: String,
    pub(crate) since: Instant,
    pub(crate) hostname: String,
    pub(crate) modules: BTreeSet<String>,
    pub(crate) swaps: Vec<Swap>,
    pub(crate) units: BTreeMap<String, UnitRuntime>,
    pub(crate) journal: Vec<Entry>,
    pub(crate) net: Net,
    pub(crate) processes: Vec<Process>,
    /// Rules as `iptables-save` prints them, a table's name before its lines.
    pub(crate) iptables: BTreeMap<String, Vec<String>>,
    /// Who holds the dpkg lock.
    pub(crate) dpkg_lock: Option<(u32, String)>,
    pub(crate) sshd: bool,
    pub(crate) memory_cgroup: bool,
}

impl Os {
    pub(crate) fn log(&mut self, unit: &str, ident: &str, pid: u32, message: impl Into<String>) {
        if let Some(running) = &mut self.running {
            let entry = Entry {
                at: SystemTime::now(),
                unit: unit.to_owned(),
                ident: ident.to_owned(),
                pid,
                message: message.into(),
                invocation: running.units.get(unit).map_or(0, |u| u.invocation),
            };
            running.journal.push(entry);
            let over = running.journal.len().saturating_sub(5000);
            running.journal.drain(..over);
        }
    }
    pub(crate) fn hostname(&self) -> String {
        match &self.running {
            Some(running) => running.hostname.clone(),
            None => self.vfs.text("/etc/hostname").trim().to_owned(),
        }
    }
    pub(crate) fn machine_id(&self) -> String {
        self.vfs.text("/etc/machine-id").trim().to_owned()
    }
    /// Reads `NAME=value` from a file of shell assignments, quotes removed.
    pub(crate) fn setting(&self, path: &str, name: &str) -> Option<String> {
        let text = self.vfs.text(path);
        let value = text.lines().rev().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix('='))?;
        Some(value.trim().trim_matches(['"', '\'']).to_owned())
    }
}
