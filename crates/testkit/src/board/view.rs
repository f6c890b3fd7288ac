//! Looking at a running board, and making things happen to it.

use std::{sync::Arc, time::Duration};

use super::{
    BoardPlan, BoardRevision, Clock, Firmware, RequestRecord,
    daemon::{Comeback, Daemon},
    job::Job,
};

/// One flash that ended, well or badly.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FlashRecord {
    /// The slot that was asked for, 1 to 4.
    pub slot: u8,
    /// The slot whose eMMC was written: on a v2.5 board it may be another one. `None` when no module was found.
    pub written_slot: Option<u8>,
    /// Bytes that went to the eMMC.
    pub bytes: u64,
    /// SHA-256 of those bytes, lower-case hex.
    pub sha256: String,
    /// What went wrong, as the API words it; `None` after a success.
    pub error: Option<String>,
}

/// A handle to a running board. Clones are handles to the same board.
#[derive(Clone)]
pub struct BoardView {
    daemon: Arc<Daemon>,
}

impl std::fmt::Debug for BoardView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BoardView")
            .field("plan", self.plan())
            .field("url", &self.url())
            .finish_non_exhaustive()
    }
}

impl BoardView {
    pub(super) fn new(daemon: Arc<Daemon>) -> Self {
        Self { daemon }
    }
    pub(super) fn daemon(&self) -> &Arc<Daemon> {
        &self.daemon
    }
    fn plan(&self) -> &BoardPlan {
        self.daemon.plan()
    }
    /// The board's name in the simulation.
    pub fn name(&self) -> &str {
        &self.plan().name
    }
    /// The firmware it runs now: after an upgrade and a reboot, the new one.
    pub fn firmware(&self) -> Firmware {
        self.daemon.firmware()
    }
    /// Its hardware revision.
    pub fn revision(&self) -> BoardRevision {
        self.plan().revision
    }
    /// `https://127.0.0.1:<port>`; `http://…` for firmware 1.1.0.
    pub fn url(&self) -> String {
        let scheme = if self.daemon.profile().is_c_daemon() { "http" } else { "https" };
        format!("{scheme}://{}", self.daemon.addresses().api)
    }
    /// The plain HTTP door, which stands for port 80: `http://127.0.0.1:<port>`.
    pub fn plain_url(&self) -> String {
        format!("http://{}", self.daemon.addresses().redirect)
    }
    /// The login's user name.
    pub fn username(&self) -> &str {
        &self.plan().username
    }
    /// The login's password, as planned.
    pub fn password(&self) -> &str {
        &self.plan().password
    }
    /// Changes the login's password on the BMC itself, as `passwd` there does. Tokens stay valid.
    pub fn set_password(&self, password: &str) {
        self.daemon.auth().set_password(password);
    }
    /// SHA-256 of the certificate's DER form, 64 lower-case hex digits; `None` for firmware 1.1.0, which has none.
    pub fn fingerprint(&self) -> Option<String> {
        (!self.daemon.profile().is_c_daemon()).then(|| self.daemon.identity().fingerprint())
    }
    /// The certificate in PEM form; `None` for firmware 1.1.0.
    pub fn certificate_pem(&self) -> Option<String> {
        (!self.daemon.profile().is_c_daemon()).then(|| self.daemon.identity().pem)
    }
    /// Makes a new certificate: new connections see another fingerprint.
    ///
    /// # Errors
    /// No certificate can be made.
    pub fn replace_certificate(&self) -> std::io::Result<()> {
        self.daemon.replace_identity()
    }
    /// The clock that bans, tokens and the upload window go by.
    pub fn clock(&self) -> Clock {
        self.daemon.clock().clone()
    }
    /// Every request so far, in order of arrival, both doors.
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.daemon.journal().records()
    }
    /// The power state as the API reports it: what was last asked for. Slots 1 to 4.
    pub fn power_intent(&self) -> [bool; 4] {
        self.daemon.hardware().intent
    }
    /// The power state as it is. Slots 1 to 4; an empty slot is off.
    pub fn power(&self) -> [bool; 4] {
        self.daemon.actual_power()
    }
    /// Stores the real power state as the one that was asked for.
    pub fn adopt_power(&self) {
        self.daemon.adopt_power();
    }
    /// Flashes that ended, oldest first.
    pub fn flashes(&self) -> Vec<FlashRecord> {
        self.daemon.flashes()
    }
    /// The job's state as the API words it: `"Ready"`, `{"Transferring":…}`, `{"Done":…}` or `{"Error":…}`.
    pub fn job(&self) -> serde_json::Value {
        self.daemon.jobs().with(Job::to_json)
    }
    /// How many flash and firmware jobs were started.
    pub fn jobs_started(&self) -> u32 {
        self.daemon.jobs().started()
    }
    /// Whether the doors answer: they do not while the daemon restarts.
    pub fn is_up(&self) -> bool {
        self.daemon.is_up()
    }
    /// Takes the power of a slot (1 to 4) away behind the daemon's back: the API still says what was asked for.
    pub async fn cut_power(&self, slot: u8) {
        self.daemon.cut_power(usize::from(slot.clamp(1, 4) - 1)).await;
    }
    /// How USB is set for the board: the slot (1 to 4), `Host`, `Device` or `Flash`, and whether it is routed to the BMC.
    pub fn usb(&self) -> (u8, &'static str, bool) {
        let usb = self.daemon.hardware().usb;
        (u8::try_from(usb.node + 1).unwrap_or(u8::MAX), usb.mode.word(), usb.to_bmc)
    }
    /// Which boot pins are held high. Slots 1 to 4.
    pub fn boot_pins(&self) -> [bool; 4] {
        self.daemon.hardware().boot_pins
    }
    /// Takes the board off the network for good.
    pub fn go_dark(&self) {
        self.daemon.come_back(Comeback::Never);
        self.daemon.restart(Duration::ZERO, Duration::ZERO, false);
    }
    /// Restarts the daemon, as `reload` does: tokens, bans and job are gone, the stored power state is applied again.
    pub fn restart_daemon(&self) {
        self.daemon.restart(Duration::ZERO, super::daemon::RELOAD, false);
    }
    /// Presses KEY1: all modules off if any is on, else all on.
    pub async fn press_power_key(&self) {
        self.daemon.toggle_all().await;
    }
    /// Bans an address as if it had failed too often.
    pub fn ban(&self, peer: std::net::IpAddr, wait: Duration) {
        self.daemon.ban(&peer.to_string(), wait);
    }
    /// Lets another client start a flash of `slot` (1 to 4) now: whatever runs is replaced without a word.
    pub fn ghost_flash(&self, slot: u8) {
        self.daemon.ghost_start(usize::from(slot.clamp(1, 4) - 1));
    }
    /// Holds the global lock, as another client's long request does, until the guard is dropped.
    pub async fn hold_lock(&self) -> HeldLock {
        HeldLock { _guard: self.daemon.hold_lock().await }
    }
}

/// The board's global lock, held: nobody else is served.
#[derive(Debug)]
pub struct HeldLock {
    _guard: tokio::sync::OwnedMutexGuard<()>,
}
