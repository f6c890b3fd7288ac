//! Things that go wrong on purpose: a matcher, an action, and how often.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Where a fault may strike. A `None` or empty text matches everything.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Site {
    /// A request to a BMC: the board's name and a part of `METHOD path?query`.
    Bmc {
        /// The board.
        board: Option<String>,
        /// A part of `METHOD path?query`.
        request: String,
    },
    /// A TCP connection to a node's sshd.
    SshConnect {
        /// The node.
        node: Option<String>,
    },
    /// A script or program a node's sshd runs: a part of its text.
    SshExec {
        /// The node.
        node: Option<String>,
        /// A part of the script.
        script: String,
    },
    /// A request to a Kubernetes API: a part of `METHOD path?query`.
    Kube {
        /// A part of `METHOD path?query`.
        request: String,
    },
    /// A request to the download mirror: a part of its path.
    Mirror {
        /// A part of the path.
        path: String,
    },
    /// A node boots.
    Boot {
        /// The node.
        node: Option<String>,
    },
    /// A slot is being flashed, at any byte.
    Flash {
        /// The board.
        board: Option<String>,
        /// 1 to 4.
        slot: Option<u8>,
    },
    /// A systemd unit starts on a node.
    UnitStart {
        /// The node.
        node: Option<String>,
        /// A part of the unit's name.
        unit: String,
    },
}

/// What happens there.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// It takes this much longer (real time, not scaled).
    Delay(Duration),
    /// The connection is closed without an answer.
    Drop,
    /// The answer is this HTTP status with this text.
    Status(u16, String),
    /// The transfer is cut after this many bytes.
    CutAfter(u64),
    /// The caller's token is forgotten first.
    ExpireToken,
    /// The caller's address is banned for this long.
    Ban(Duration),
    /// sshd shows another host key.
    WrongHostKey,
    /// The node's disk is full.
    DiskFull,
    /// The node reboots in the middle.
    Reboot,
    /// The program or unit fails with this exit code and message.
    Fail(i32, String),
    /// What was written reads back differently.
    Corrupt,
    /// The daemon restarts: state, tokens and bans are gone.
    Restart,
    /// Another client's job takes over.
    Replace,
    /// It hangs and never comes.
    Hang,
}

/// One fault: where, what, from which hit on, how many times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    site: Site,
    action: Action,
    nth: u32,
    times: u32,
}

impl Fault {
    /// Strikes once, at the first hit.
    pub fn at(site: Site, action: Action) -> Self {
        Self { site, action, nth: 1, times: 1 }
    }
    /// Strikes from the `nth` hit on, counted from 1.
    #[must_use]
    pub fn nth(mut self, nth: u32) -> Self {
        self.nth = nth.max(1);
        self
    }
    /// Strikes this many times; `u32::MAX` is for ever.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = times;
        self
    }
}

/// The faults of one simulation. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Mutex<Vec<Armed>>>);

#[derive(Debug)]
struct Armed {
    fault: Fault,
    hits: u32,
    struck: u32,
}

impl Faults {
    /// Arms a fault.
    pub fn add(&self, fault: Fault) {
        self.lock().push(Armed { fault, hits: 0, struck: 0 });
    }
    /// Disarms all.
    pub fn clear(&self) {
        self.lock().clear();
    }
    /// How many times any fault has struck.
    pub fn struck(&self) -> u32 {
        self.lock().iter().map(|a| a.struck).sum()
    }
    /// Asked by a door at `here`, with the real values filled in: the action of the first fault that strikes.
    pub fn strike(&self, here: &Site) -> Option<Action> {
        self.lock().iter_mut().find_map(|armed| {
            if !matches(&armed.fault.site, here) {
                return None;
            }
            armed.hits += 1;
            if armed.hits < armed.fault.nth || armed.struck >= armed.fault.times {
                return None;
            }
            armed.struck += 1;
            Some(armed.fault.action.clone())
        })
    }
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Armed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn matches(pattern: &Site, here: &Site) -> bool {
    fn name(p: &Option<String>, h: &Option<String>) -> bool {
        p.is_none() || p == h
    }
    match (pattern, here) {
        (Site::Bmc { board: pb, request: pr }, Site::Bmc { board, request }) => {
            name(pb, board) && request.contains(pr.as_str())
        }
        (Site::SshConnect { node: p }, Site::SshConnect { node }) => name(p, node),
        (Site::SshExec { node: pn, script: ps }, Site::SshExec { node, script }) => {
            name(pn, node) && script.contains(ps.as_str())
        }
        (Site::Kube { request: p }, Site::Kube { request }) => request.contains(p.as_str()),
        (Site::Mirror { path: p }, Site::Mirror { path }) => path.contains(p.as_str()),
        (Site::Boot { node: p }, Site::Boot { node }) => name(p, node),
        (Site::Flash { board: pb, slot: ps }, Site::Flash { board, slot }) => {
            name(pb, board) && (ps.is_none() || ps == slot)
        }
        (Site::UnitStart { node: pn, unit: pu }, Site::UnitStart { node, unit }) => {
            name(pn, node) && unit.contains(pu.as_str())
        }
        _ => false,
    }
}
