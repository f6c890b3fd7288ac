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
    /// A TCP connection to a BMC's API door, before TLS: [`Action::Drop`], [`Action::Delay`], [`Action::Hang`] and
    /// [`Action::WrongHostKey`] (another certificate).
    BmcConnect {
        /// The board.
        board: Option<String>,
    },
    /// A slot is being flashed. What interrupts the writing does so when half of the declared size is written, or at the
    /// byte of [`Fault::after`].
    Flash {
        /// The board.
        board: Option<String>,
        /// 1 to 4.
        slot: Option<u8>,
    },
    /// A BMC's own firmware is being staged: [`Action::Fail`] (the installer's exit status), [`Action::DiskFull`],
    /// [`Action::Restart`], [`Action::Hang`], [`Action::OldFirmware`] (it says `Done`, and changes nothing).
    Firmware {
        /// The board.
        board: Option<String>,
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
    /// It hangs and never comes. An upload that hangs keeps the global lock until the daemon restarts, as a half-open
    /// connection does; [`Action::Delay`] stalls it for a while.
    Hang,
    /// The answer keeps its status and headers, and its body is this text.
    Body(String),
    /// One header of the answer is set to a value, or removed.
    Header(String, Option<String>),
    /// The answer's body comes this many bytes at a time, with this (real) time between them.
    Trickle(usize, Duration),
    /// The board's clock is wound forward first: tokens age, bans end, the window of an upload closes.
    Advance(Duration),
    /// Another client's request is served first and takes this (real) time: all others wait for the global lock.
    Busy(Duration),
    /// An upload arrives as something that is no form: it is refused, and the job ends as `Done` with nothing written.
    Malform,
    /// A flash finds no module on USB: it stays on, in flash mode.
    NoModule,
    /// A flash finds more than one module in disk mode.
    SeveralModules,
    /// A flash writes to the module in this slot (1 to 4) instead, and reports success.
    OtherSlot(u8),
    /// The BMC does not come back from its next restart.
    GoDark,
    /// The BMC comes back from its next reboot with the firmware it had.
    OldFirmware,
    /// The BMC comes back from its next restart at another address: other ports, here.
    Move,
}

/// One fault: where, what, from which hit on, how many times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    site: Site,
    action: Action,
    nth: u32,
    times: u32,
    after: Option<u64>,
}

impl Fault {
    /// Strikes once, at the first hit.
    pub fn at(site: Site, action: Action) -> Self {
        Self { site, action, nth: 1, times: 1, after: None }
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
    /// Strikes in the middle of a transfer, once this many bytes of it have passed: of an upload's body
    /// (`POST /api/bmc/upload/`), or of what a flash has written. Elsewhere it means nothing.
    #[must_use]
    pub fn after(mut self, bytes: u64) -> Self {
        self.after = Some(bytes);
        self
    }
}

/// What a fault does at one hit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Strike {
    pub(crate) action: Action,
    /// See [`Fault::after`].
    pub(crate) after: Option<u64>,
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
        self.strike_within(here).map(|strike| strike.action)
    }
    /// The same, with the byte it is meant for.
    pub(crate) fn strike_within(&self, here: &Site) -> Option<Strike> {
        self.lock().iter_mut().find_map(|armed| {
            if !matches(&armed.fault.site, here) {
                return None;
            }
            armed.hits += 1;
            if armed.hits < armed.fault.nth || armed.struck >= armed.fault.times {
                return None;
            }
            armed.struck += 1;
            Some(Strike { action: armed.fault.action.clone(), after: armed.fault.after })
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
        (Site::BmcConnect { board: p }, Site::BmcConnect { board })
        | (Site::Firmware { board: p }, Site::Firmware { board }) => name(p, board),
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
