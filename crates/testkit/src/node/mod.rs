//! A simulated node: hardware that a board can power and flash, and the operating system that runs on it.

pub(crate) mod boot;
pub(crate) mod bridge;
pub(crate) mod console;
pub(crate) mod disk;
pub(crate) mod k3s;
pub(crate) mod launch;
pub(crate) mod module;
pub(crate) mod net;
pub(crate) mod os;
pub(crate) mod packages;
pub(crate) mod procfs;
pub(crate) mod rootfs;
pub(crate) mod script;
pub(crate) mod session;
pub(crate) mod sudo;
pub(crate) mod systemd;
pub(crate) mod tools;
pub(crate) mod units;
pub(crate) mod users;
pub(crate) mod vfs;

#[cfg(test)]
mod tests;

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU32, Ordering},
    },
};

use tokio_util::sync::CancellationToken;

use crate::{NodePlan, Uart, world::World};
use os::Os;

/// What a node was asked to run through SSH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecRecord {
    /// The user it ran as.
    pub user: String,
    /// The command line of the exec request: what shows in the node's process list.
    pub argv: String,
    /// The script that came on standard input, when a shell read it from there.
    pub script: String,
}

/// The power side of a node.
#[derive(Debug, Default)]
pub(crate) struct Hardware {
    pub(crate) powered: bool,
    pub(crate) loader: bool,
    pub(crate) emmc: Vec<u8>,
    /// Digest of what was written, computed when it is asked for or booted.
    pub(crate) flashes: u32,
    pub(crate) power_ons: u32,
    /// The eMMC was written since the last boot: the old root file system is gone.
    pub(crate) rewritten: bool,
}

/// One node. The world and the doors share it.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) plan: NodePlan,
    pub(crate) world: Weak<World>,
    pub(crate) hardware: Mutex<Hardware>,
    os: Mutex<Option<Os>>,
    pub(crate) uart: Uart,
    pub(crate) console: Mutex<console::State>,
    /// Ends what runs when power goes; replaced at every power-on.
    power: Mutex<CancellationToken>,
    log: Mutex<Vec<ExecRecord>>,
    pids: AtomicU32,
    pub(crate) tools: bashkit::BuiltinRegistry,
    pub(crate) kube_door: Mutex<Option<std::net::TcpListener>>,
    /// Whether a k3s server serves on the Kubernetes socket.
    pub(crate) kube_serving: tokio::sync::watch::Sender<bool>,
    /// Counts changes of unit states, for those who wait for one.
    pub(crate) unit_changed: tokio::sync::watch::Sender<u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Node {
    pub(crate) fn new(plan: NodePlan, world: Weak<World>) -> Self {
        let power = CancellationToken::new();
        power.cancel();
        Self {
            name: plan.name.clone(),
            plan,
            world,
            hardware: Mutex::default(),
            os: Mutex::new(None),
            uart: Uart::new(16 * 1024),
            console: Mutex::default(),
            power: Mutex::new(power),
            log: Mutex::default(),
            pids: AtomicU32::new(900),
            tools: bashkit::BuiltinRegistry::new(),
            kube_door: Mutex::new(None),
            kube_serving: tokio::sync::watch::Sender::new(false),
            unit_changed: tokio::sync::watch::Sender::new(0),
        }
    }
    /// Looks at or changes the operating system on its disk; `None` when there is none.
    pub(crate) fn os<R>(&self, call: impl FnOnce(&mut Os) -> R) -> Option<R> {
        lock(&self.os).as_mut().map(call)
    }
    pub(crate) fn set_os(&self, os: Option<Os>) {
        *lock(&self.os) = os;
    }
    pub(crate) fn world(&self) -> Option<Arc<World>> {
        self.world.upgrade()
    }
    /// The token of the present power-on; cancelled while there is no power.
    pub(crate) fn running_token(&self) -> CancellationToken {
        lock(&self.power).clone()
    }
    pub(crate) fn renew_token(&self) -> CancellationToken {
        let token = CancellationToken::new();
        *lock(&self.power) = token.clone();
        token
    }
    pub(crate) fn next_pid(&self) -> u32 {
        self.pids.fetch_add(1, Ordering::Relaxed)
    }
    pub(crate) fn record(&self, record: ExecRecord) {
        lock(&self.log).push(record);
    }
    pub(crate) fn exec_log(&self) -> Vec<ExecRecord> {
        lock(&self.log).clone()
    }
    /// Whether its system runs, sshd included.
    pub(crate) fn sshd_up(&self) -> bool {
        self.os(|os| os.running.as_ref().is_some_and(|running| running.sshd)).unwrap_or(false)
    }
    /// The address it has at the moment, as the world routes to it.
    pub(crate) fn present_address(&self) -> Option<IpAddr> {
        self.os(|os| os.running.as_ref().and_then(|running| running.net.address())).flatten()
    }
    /// Sleeps for a nominal duration at the world's pace; `false` when power went first.
    pub(crate) async fn pause(&self, nominal: std::time::Duration) -> bool {
        let token = self.running_token();
        let Some(world) = self.world() else { return false };
        let pace = world.pace;
        drop(world);
        tokio::select! {
            () = pace.sleep(nominal) => !token.is_cancelled(),
            () = token.cancelled() => false,
        }
    }
    /// A file was written by a program: the ones that act at once.
    pub(crate) fn file_written(self: &Arc<Self>, path: &str) {
        if path == "/proc/sysrq-trigger" {
            let command = self.os(|os| os.vfs.text(path)).unwrap_or_default();
            if command.starts_with('b') {
                self.restart();
            }
        }
    }
    pub(crate) fn set_kube_door(&self, door: std::net::TcpListener) {
        *lock(&self.kube_door) = Some(door);
    }
    pub(crate) fn flash_count(&self) -> u32 {
        lock(&self.hardware).flashes
    }
    pub(crate) fn power_on_count(&self) -> u32 {
        lock(&self.hardware).power_ons
    }
    /// Is up from the beginning, without a boot to wait for.
    pub(crate) fn start_running(self: &Arc<Self>) {
        {
            let mut hardware = lock(&self.hardware);
            hardware.powered = true;
            hardware.power_ons = hardware.power_ons.max(1);
        }
        self.running_token().cancel();
        self.renew_token();
        self.boot_now();
        self.up();
    }
    /// A unit's active state, sub-state, enabled state and restarts.
    pub(crate) fn unit_view(&self, name: &str) -> Option<(String, String, String, u32)> {
        let name = units::full_name(name);
        let state = self.unit_state(&name);
        let enabled = self.os(|os| units::enabled_state(&os.vfs, &name)).flatten();
        if state.is_none() && enabled.is_none() {
            return None;
        }
        let active = state.as_ref().map_or(systemd::Active::Inactive, |s| s.active).name().to_owned();
        let sub = state.as_ref().map_or("dead", |s| s.sub).to_owned();
        Some((active, sub, enabled.unwrap_or_default().to_owned(), state.map_or(0, |s| s.restarts)))
    }
    /// Runs a command line as root, past sshd.
    pub(crate) async fn run_as_root(self: &Arc<Self>, line: &str) -> (i32, String, String) {
        if self.os(|os| os.running.is_some()) != Some(true) {
            return (255, String::new(), "the node does not run\n".to_owned());
        }
        let (sink, kept) = session::capture();
        let session = session::Session::new(self, users::Account::root(), session::Stdin::empty(), sink);
        let code =
            launch::run(Arc::new(session), vec!["sh".to_owned(), "-c".to_owned(), line.to_owned()]).await;
        let kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        (code, String::from_utf8_lossy(&kept.0).into_owned(), String::from_utf8_lossy(&kept.1).into_owned())
    }
}
