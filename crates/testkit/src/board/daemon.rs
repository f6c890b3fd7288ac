//! One board's daemon: everything its doors, its jobs and its view share.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    net::TcpListener,
    sync::{OwnedMutexGuard, mpsc},
};
use tokio_util::sync::CancellationToken;

use super::{
    Addresses, BoardPlan, Clock, Firmware, FlashRecord, Journal, Surroundings, auth::Auth, job::Jobs,
    profile::Profile, state::Hardware, tls::Identity,
};
use crate::{Module, Uart};

/// How long the doors are closed when the daemon restarts.
pub(crate) const RELOAD: Duration = Duration::from_millis(1500);
/// How long they are closed when the whole BMC reboots (48 s were measured on a real one).
pub(crate) const REBOOT: Duration = Duration::from_secs(48);
/// An answer gets this much real time to leave before the daemon goes down.
const LAST_WORDS: Duration = Duration::from_millis(50);

/// The daemon and the hardware under it.
pub(crate) struct Daemon {
    plan: BoardPlan,
    surroundings: Surroundings,
    modules: [Option<Arc<dyn Module>>; 4],
    /// Serial lines of empty slots: always silent.
    silent: Uart,
    clock: Clock,
    journal: Journal,
    firmware: Mutex<Firmware>,
    addresses: Mutex<Addresses>,
    /// Where an open door takes a new listener: the API's, and the redirect's if there is one.
    doors: Mutex<Vec<mpsc::UnboundedSender<TcpListener>>>,
    identity: Mutex<Identity>,
    auth: Mutex<Auth>,
    hardware: Mutex<Hardware>,
    jobs: Jobs,
    flashes: Mutex<Vec<FlashRecord>>,
    lock: Arc<tokio::sync::Mutex<()>>,
    life: Mutex<Life>,
    /// Firmware in the spare slot: it runs after the next reboot.
    staged: Mutex<Option<Firmware>>,
    comeback: Mutex<Comeback>,
}

/// How the next restart ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Comeback {
    /// At the same address.
    #[default]
    Here,
    /// At other ports.
    Elsewhere,
    Never,
}

/// One run of the daemon's process.
#[derive(Debug)]
struct Life {
    /// Cancelled when it ends: connections, handlers and workers go with it.
    token: CancellationToken,
    /// Cancelled when the network goes down; a child of `token`.
    network: CancellationToken,
    up: bool,
    /// The board is shut down for good.
    ended: bool,
    /// Flash jobs since it started.
    flashes: u32,
}

impl Default for Life {
    fn default() -> Self {
        let token = CancellationToken::new();
        Self { network: token.child_token(), token, up: true, ended: false, flashes: 0 }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for Daemon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Daemon").field("plan", &self.plan).finish_non_exhaustive()
    }
}

impl Daemon {
    pub(crate) fn new(
        plan: BoardPlan,
        modules: [Option<Arc<dyn Module>>; 4],
        surroundings: Surroundings,
    ) -> std::io::Result<Arc<Self>> {
        let profile = Profile::of(plan.firmware);
        for module in modules.iter().flatten() {
            module.uart().resize(profile.uart_ring());
        }
        let clock = Clock::default();
        Ok(Arc::new(Self {
            identity: Mutex::new(Identity::generate(plan.key, plan.certificate_age)?),
            auth: Mutex::new(Auth::new(&plan.username, &plan.password, profile)),
            hardware: Mutex::new(Hardware::default()),
            jobs: Jobs::default(),
            flashes: Mutex::default(),
            lock: Arc::default(),
            life: Mutex::new(Life::default()),
            staged: Mutex::new(None),
            comeback: Mutex::default(),
            firmware: Mutex::new(plan.firmware),
            addresses: Mutex::new(Addresses::NOWHERE),
            doors: Mutex::default(),
            silent: Uart::new(0),
            journal: Journal::default(),
            clock,
            plan,
            surroundings,
            modules,
        }))
    }

    pub(crate) fn plan(&self) -> &BoardPlan {
        &self.plan
    }
    pub(crate) fn surroundings(&self) -> &Surroundings {
        &self.surroundings
    }
    pub(crate) fn profile(&self) -> Profile {
        Profile::of(self.firmware())
    }
    /// The firmware that runs.
    pub(crate) fn firmware(&self) -> Firmware {
        *locked(&self.firmware)
    }
    pub(crate) fn addresses(&self) -> Addresses {
        *locked(&self.addresses)
    }
    /// Takes note of the doors that were opened.
    pub(super) fn set_doors(&self, addresses: Addresses, doors: Vec<mpsc::UnboundedSender<TcpListener>>) {
        *locked(&self.addresses) = addresses;
        *locked(&self.doors) = doors;
    }
    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }
    pub(crate) fn journal(&self) -> &Journal {
        &self.journal
    }
    pub(crate) fn jobs(&self) -> &Jobs {
        &self.jobs
    }
    pub(crate) fn auth(&self) -> MutexGuard<'_, Auth> {
        locked(&self.auth)
    }
    pub(crate) fn hardware(&self) -> MutexGuard<'_, Hardware> {
        locked(&self.hardware)
    }
    pub(crate) fn identity(&self) -> Identity {
        locked(&self.identity).clone()
    }
    /// A certificate that is not the board's.
    pub(crate) fn other_identity(&self) -> std::io::Result<Identity> {
        Identity::generate(self.plan.key, self.plan.certificate_age)
    }
    pub(crate) fn replace_identity(&self) -> std::io::Result<()> {
        *locked(&self.identity) = Identity::generate(self.plan.key, self.plan.certificate_age)?;
        Ok(())
    }
    pub(crate) fn flashes(&self) -> Vec<FlashRecord> {
        locked(&self.flashes).clone()
    }
    pub(crate) fn record_flash(&self, record: FlashRecord) {
        locked(&self.flashes).push(record);
    }
    /// The module in a slot, 0 to 3.
    pub(crate) fn module(&self, slot: usize) -> Option<&Arc<dyn Module>> {
        self.modules.get(slot).and_then(Option::as_ref)
    }
    /// The serial line of a slot, 0 to 3.
    pub(crate) fn uart(&self, slot: usize) -> &Uart {
        self.module(slot).map_or(&self.silent, |module| module.uart())
    }
    /// Blocks `peer` for `wait`.
    pub(crate) fn ban(&self, peer: &str, wait: Duration) {
        self.auth().ban_until(peer, self.clock.now() + wait);
    }
    /// Takes the global lock.
    pub(crate) async fn hold_lock(&self) -> OwnedMutexGuard<()> {
        self.lock.clone().lock_owned().await
    }
    /// Decides how the next restart ends.
    pub(crate) fn come_back(&self, how: Comeback) {
        *locked(&self.comeback) = how;
    }
    /// What runs after the next reboot, if it is not what runs now.
    pub(crate) fn staged(&self) -> Option<Firmware> {
        *locked(&self.staged)
    }
    /// Drops what is staged.
    pub(crate) fn keep_firmware(&self) {
        *locked(&self.staged) = None;
    }
    /// What is staged runs after the next reboot.
    pub(crate) fn stage(&self, firmware: Firmware) {
        *locked(&self.staged) = Some(firmware);
    }
    /// Counts a flash; true if the daemon is to die of it.
    pub(crate) fn count_flash(&self) -> bool {
        let mut life = locked(&self.life);
        life.flashes += 1;
        self.plan.dies_at_flash == Some(life.flashes)
    }

    pub(crate) fn is_up(&self) -> bool {
        let life = locked(&self.life);
        life.up && !life.ended
    }
    /// The token of the running process; cancelled when it ends.
    pub(crate) fn life(&self) -> CancellationToken {
        locked(&self.life).token.clone()
    }
    /// The token of the network; cancelled when it goes down or the process ends.
    pub(crate) fn network(&self) -> CancellationToken {
        locked(&self.life).network.clone()
    }
    /// Takes the network down and up again after `delay` (nominal): connections break, the daemon goes on.
    pub(crate) fn bounce_network(self: &Arc<Self>, delay: Duration) {
        let daemon = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(daemon.surroundings.pace.scale(delay).max(LAST_WORDS)).await;
            let mut life = locked(&daemon.life);
            let network = life.token.child_token();
            std::mem::replace(&mut life.network, network).cancel();
        });
    }
    /// Goes down and does not come back: the recovery mode that `fel` asks for.
    pub(crate) fn go_dark(self: &Arc<Self>) {
        let daemon = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(LAST_WORDS).await;
            daemon.go_down();
        });
    }
    /// Ends everything for good.
    pub(crate) fn end(&self) {
        let mut life = locked(&self.life);
        life.ended = true;
        life.token.cancel();
    }

    /// The daemon goes down after `delay` (nominal), stays away for `away` (nominal) and comes back without tokens, bans
    /// and job. A `reboot` of the whole BMC also starts staged firmware, and on old hardware or firmware takes the power
    /// of the modules away.
    pub(crate) fn restart(self: &Arc<Self>, delay: Duration, away: Duration, reboot: bool) {
        let daemon = self.clone();
        let at_once = delay.is_zero();
        if at_once && !self.go_down() {
            return;
        }
        tokio::spawn(async move {
            let pace = daemon.surroundings.pace;
            if !at_once {
                tokio::time::sleep(pace.scale(delay).max(LAST_WORDS)).await;
                if !daemon.go_down() {
                    return;
                }
            }
            let cuts_power = reboot && daemon.reboot_cuts_power();
            if cuts_power {
                daemon.cut_all().await;
            }
            pace.sleep(away).await;
            let comeback = std::mem::take(&mut *locked(&daemon.comeback));
            if comeback == Comeback::Never {
                return;
            }
            if reboot && let Some(firmware) = locked(&daemon.staged).take() {
                *locked(&daemon.firmware) = firmware;
            }
            if comeback == Comeback::Elsewhere {
                let doors = locked(&daemon.doors).clone();
                super::door::reopen(&daemon, &doors).await;
            }
            daemon.auth().forget_all(daemon.profile());
            daemon.boot_modules().await;
            locked(&daemon.life).up = true;
        });
    }
    fn go_down(&self) -> bool {
        let mut life = locked(&self.life);
        if life.ended || !life.up {
            return false;
        }
        let before = std::mem::replace(&mut *life, Life { up: false, ..Life::default() });
        before.token.cancel();
        drop(life);
        self.jobs.reset();
        true
    }
    fn reboot_cuts_power(&self) -> bool {
        let profile = self.profile();
        !profile.is_modern() || !(self.plan.revision.has_hub() || profile.is_fork())
    }
}
