//! Units at run time: jobs, states, restarts and the journal.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio_util::sync::CancellationToken;

use super::{
    Node, k3s, launch,
    session::{Session, Sink, Stdin},
    units::{self, Unit},
    users::Account,
};
use crate::{Action, Site};

/// A unit's state, in systemd's own words.
#[allow(clippy::enum_variant_names, reason = "`active` is one of them")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Active {
    Inactive,
    Activating,
    Active,
    Deactivating,
    Failed,
}

impl Active {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Activating => "activating",
            Self::Active => "active",
            Self::Deactivating => "deactivating",
            Self::Failed => "failed",
        }
    }
}

/// What systemd knows about a loaded unit.
#[derive(Debug, Clone)]
pub(crate) struct UnitRuntime {
    pub(crate) active: Active,
    pub(crate) sub: &'static str,
    pub(crate) result: &'static str,
    pub(crate) restarts: u32,
    pub(crate) main_pid: u32,
    /// Names its last start, also when that has ended; 0 before the first one.
    pub(crate) invocation: u32,
    pub(crate) exit_status: i32,
    pub(crate) since: SystemTime,
    /// The unit as it was when it was loaded.
    pub(crate) unit: Unit,
    /// A start job waits for it.
    pub(crate) starting: bool,
    pub(crate) cancel: CancellationToken,
    /// Transient (`systemd-run`): forgotten when it ends.
    pub(crate) transient: bool,
}

/// How a program of a unit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Code(i32),
    Cancelled,
}

/// How a start job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Started {
    Done,
    Failed,
    /// There is no such unit, or it may not be started: systemctl's message and exit status.
    Refused(String, i32),
}

/// Programs of units that a simulated node has: they run until stopped.
const DAEMONS: [&str; 22] = [
    "sshd",
    "cron",
    "chronyd",
    "systemd-timesyncd",
    "systemd-networkd",
    "systemd-resolved",
    "systemd-journald",
    "systemd-logind",
    "dbus-daemon",
    "iscsid",
    "multipathd",
    "rpcbind",
    "rpc.statd",
    "agetty",
    "NetworkManager",
    "unattended-upgrade",
    "node_exporter",
    "rkllama",
    "snapd",
    "rsyslogd",
    "fake-hwclock",
    "firewalld",
];

impl Node {
    /// Changes a unit's runtime state and tells who waits.
    pub(crate) fn unit<R>(&self, name: &str, change: impl FnOnce(&mut UnitRuntime) -> R) -> Option<R> {
        let result =
            self.os(|os| os.running.as_mut().and_then(|r| r.units.get_mut(name)).map(change)).flatten();
        self.unit_changed.send_modify(|count| *count += 1);
        result
    }
    pub(crate) fn unit_state(&self, name: &str) -> Option<UnitRuntime> {
        self.os(|os| os.running.as_ref().and_then(|running| running.units.get(name).cloned())).flatten()
    }
    pub(crate) fn journal(&self, unit: &str, ident: &str, pid: u32, message: &str) {
        self.os(|os| {
            for line in message.lines() {
                os.log(unit, ident, pid, line);
            }
        });
    }

    /// Starts a unit without waiting. `Done` means the job was queued, or that nothing was to do.
    pub(crate) fn start_unit(self: &Arc<Self>, name: &str) -> Started {
        let name = name.to_owned();
        let Some(loaded) = self.os(|os| units::load(&os.vfs, &name)) else { return Started::Failed };
        let Some(unit) = loaded else {
            return Started::Refused(format!("Failed to start {name}: Unit {name} not found.\n"), 5);
        };
        if unit.masked {
            return Started::Refused(format!("Failed to start {name}: Unit {name} is masked.\n"), 1);
        }
        self.start_loaded(unit, false)
    }

    pub(crate) fn start_loaded(self: &Arc<Self>, fresh: Unit, transient: bool) -> Started {
        let name = fresh.name.clone();
        let token = self.running_token();
        let queued = self.os(|os| {
            let running = os.running.as_mut()?;
            let old = running.units.get(&name);
            if old.is_some_and(|old| matches!(old.active, Active::Active | Active::Activating)) {
                return Some(None);
            }
            // What is loaded stays as it was until daemon-reload or until it is gone from memory.
            let unit = match old {
                Some(old) if old.active == Active::Failed && old.unit.path == fresh.path => old.unit.clone(),
                _ => fresh.clone(),
            };
            let runtime = UnitRuntime {
                active: Active::Activating,
                sub: "start",
                result: "success",
                restarts: old.map_or(0, |old| if old.active == Active::Failed { old.restarts } else { 0 }),
                main_pid: 0,
                invocation: old.map_or(0, |old| old.invocation),
                exit_status: 0,
                since: SystemTime::now(),
                unit: unit.clone(),
                starting: true,
                cancel: token.child_token(),
                transient,
            };
            let cancel = runtime.cancel.clone();
            running.units.insert(name.clone(), runtime);
            Some(Some((unit, cancel)))
        });
        match queued.flatten() {
            None => Started::Failed,
            Some(None) => Started::Done,
            Some(Some((unit, cancel))) => {
                self.unit_changed.send_modify(|count| *count += 1);
                tokio::spawn(Arc::clone(self).supervise(unit, cancel));
                Started::Done
            }
        }
    }

    /// Waits until a unit's start job has ended.
    pub(crate) async fn wait_started(&self, name: &str) -> Started {
        let mut changed = self.unit_changed.subscribe();
        let token = self.running_token();
        loop {
            match self.unit_state(name) {
                Some(state) if state.starting => {}
                Some(state) if state.active == Active::Failed || state.result != "success" => {
                    return Started::Failed;
                }
                _ => return Started::Done,
            }
            tokio::select! {
                _ = changed.changed() => {}
                () = token.cancelled() => return Started::Failed,
            }
        }
    }

    /// Stops a unit and waits for it.
    pub(crate) async fn stop_unit(self: &Arc<Self>, name: &str) {
        let Some(state) = self.unit_state(name) else { return };
        state.cancel.cancel();
        if matches!(state.active, Active::Active | Active::Activating) {
            self.unit(name, |u| {
                u.active = Active::Deactivating;
                u.sub = "stop-sigterm";
            });
            let described = description(&state.unit);
            self.journal(name, "systemd", 1, &format!("Stopping {name} - {described}..."));
            self.pause(Duration::from_millis(300)).await;
            self.unit(name, |u| {
                u.active = Active::Inactive;
                u.sub = "dead";
                u.result = "success";
                u.main_pid = 0;
                u.starting = false;
                u.since = SystemTime::now();
            });
            self.journal(name, "systemd", 1, &format!("Stopped {name} - {described}."));
        }
        for line in
            state.unit.all("Service", "ExecStop").map(|line| state.unit.expand(line)).collect::<Vec<_>>()
        {
            self.run_line(name, &line, &self.running_token()).await;
        }
        if state.transient {
            self.os(|os| os.running.as_mut().map(|running| running.units.remove(name)));
        }
    }

    /// Runs a unit from its start job to its end, restarts included.
    async fn supervise(self: Arc<Self>, unit: Unit, cancel: CancellationToken) {
        let name = unit.name.clone();
        let run = async {
            loop {
                let ended = self.run_once(&unit, &cancel).await;
                let Ended::Code(code) = ended else { return };
                if self.settle(&unit, code) {
                    return;
                }
                let pause = unit.get("Service", "RestartSec").map_or(Duration::from_millis(100), seconds);
                if !self.pause(pause).await {
                    return;
                }
                self.unit(&name, |u| {
                    u.active = Active::Activating;
                    u.sub = "start";
                    u.restarts += 1;
                });
                let count = self.unit_state(&name).map_or(0, |u| u.restarts);
                self.journal(
                    &name,
                    "systemd",
                    1,
                    &format!("{name}: Scheduled restart job, restart counter is at {count}."),
                );
            }
        };
        tokio::select! {
            () = run => {}
            () = cancel.cancelled() => {}
        }
    }

    /// Books the end of a unit's main program; `true` when it is not started again.
    fn settle(&self, unit: &Unit, code: i32) -> bool {
        let name = &unit.name;
        let restart = match unit.get("Service", "Restart") {
            Some("always") => unit.kind() != "oneshot" || code != 0,
            Some("on-failure" | "on-abnormal") => code != 0,
            _ => false,
        };
        let remain = unit.yes("Service", "RemainAfterExit");
        let described = description(unit);
        if code != 0 {
            self.journal(
                name,
                "systemd",
                1,
                &format!("{name}: Main process exited, code=exited, status={code}/{}", status_name(code)),
            );
            self.journal(name, "systemd", 1, &format!("{name}: Failed with result 'exit-code'."));
            if self.unit_state(name).is_some_and(|u| u.starting) {
                self.journal(name, "systemd", 1, &format!("Failed to start {name} - {described}."));
            }
        } else if unit.kind() == "oneshot" {
            self.journal(name, "systemd", 1, &format!("Finished {name} - {described}."));
        } else {
            self.journal(name, "systemd", 1, &format!("{name}: Deactivated successfully."));
        }
        let transient = self.unit(name, |u| {
            u.exit_status = code;
            u.main_pid = 0;
            u.starting = false;
            u.since = SystemTime::now();
            u.result = if code == 0 { "success" } else { "exit-code" };
            (u.active, u.sub) = match (restart, code) {
                (true, _) => (Active::Activating, "auto-restart"),
                (false, 0) if remain => (Active::Active, "exited"),
                (false, 0) => (Active::Inactive, "dead"),
                (false, _) => (Active::Failed, "failed"),
            };
            u.transient && !restart
        });
        if transient == Some(true) {
            self.os(|os| os.running.as_mut().map(|running| running.units.remove(name)));
            self.unit_changed.send_modify(|count| *count += 1);
        }
        !restart
    }

    fn mark_running(&self, unit: &Unit) {
        let name = &unit.name;
        self.unit(name, |u| {
            u.active = Active::Active;
            u.sub = "running";
            u.starting = false;
            u.result = "success";
            u.since = SystemTime::now();
        });
        self.journal(name, "systemd", 1, &format!("Started {name} - {}.", description(unit)));
    }

    async fn run_once(self: &Arc<Self>, unit: &Unit, cancel: &CancellationToken) -> Ended {
        let name = &unit.name;
        let invocation = self.next_pid();
        self.unit(name, |u| u.invocation = invocation);
        self.journal(name, "systemd", 1, &format!("Starting {name} - {}...", description(unit)));
        if let Some(ended) = self.start_fault(name).await {
            return ended;
        }
        for path in unit
            .all("Unit", "RequiresMountsFor")
            .flat_map(str::split_whitespace)
            .map(str::to_owned)
            .collect::<Vec<_>>()
        {
            if self.os(|os| super::boot::missing_mount(os, &path)).unwrap_or(false) {
                self.journal(
                    name,
                    "systemd",
                    1,
                    &format!("Dependency failed for {name} - {}.", description(unit)),
                );
                return Ended::Code(1);
            }
        }
        for line in unit.all("Service", "ExecStartPre").map(|line| unit.expand(line)).collect::<Vec<_>>() {
            let tolerant = line.starts_with('-');
            let code = self.run_line(name, &line, cancel).await;
            if code != 0 && !tolerant {
                return Ended::Code(code);
            }
        }
        if unit.name.ends_with(".mount") {
            return Ended::Code(0);
        }
        let oneshot = unit.kind() == "oneshot";
        let lines: Vec<String> = unit.all("Service", "ExecStart").map(|line| unit.expand(line)).collect();
        if lines.is_empty() {
            self.mark_running(unit);
            cancel.cancelled().await;
            return Ended::Cancelled;
        }
        let mut last = 0;
        for line in lines {
            let line = line.trim_start_matches(['@', ':', '+', '!']).to_owned();
            let tolerant = line.starts_with('-');
            let words = launch::words(line.trim_start_matches('-')).unwrap_or_default();
            let Some(program) = words.first().cloned() else { return Ended::Code(1) };
            let pid = self.next_pid();
            self.unit(name, |u| u.main_pid = pid);
            let base = program.rsplit('/').next().unwrap_or(&program).to_owned();
            let exists =
                self.os(|os| os.vfs.stat(&program).map(|inode| inode.mode & 0o111 != 0)).unwrap_or(Ok(false));
            if DAEMONS.contains(&base.as_str()) {
                self.mark_running(unit);
                cancel.cancelled().await;
                return Ended::Cancelled;
            }
            match exists {
                Err(_) => {
                    let text =
                        format!("{name}: Failed to locate executable {program}: No such file or directory");
                    self.journal(name, "systemd", 1, &text);
                    return Ended::Code(203);
                }
                Ok(false) => {
                    self.journal(
                        name,
                        "systemd",
                        1,
                        &format!("{name}: Failed at step EXEC spawning {program}: Permission denied"),
                    );
                    return Ended::Code(203);
                }
                Ok(true) => {}
            }
            if let Some(artefact) = self.os(|os| k3s::artefact(&os.vfs, &program)).flatten() {
                let ended =
                    k3s::run(self, unit, &artefact, &words, pid, cancel, &|| self.mark_running(unit)).await;
                return ended;
            }
            if unit.kind() != "oneshot" {
                self.mark_running(unit);
            }
            last = self.run_line(name, &line, cancel).await;
            if tolerant {
                last = 0;
            }
            if last != 0 || !oneshot {
                break;
            }
        }
        Ended::Code(last)
    }

    async fn start_fault(self: &Arc<Self>, name: &str) -> Option<Ended> {
        let world = self.world()?;
        let here = Site::UnitStart { node: Some(self.name.clone()), unit: name.to_owned() };
        match world.faults.strike(&here)? {
            Action::Delay(real) => {
                tokio::time::sleep(real).await;
                None
            }
            Action::Hang => {
                self.running_token().cancelled().await;
                Some(Ended::Cancelled)
            }
            Action::Fail(code, message) => {
                self.journal(name, name.trim_end_matches(".service"), self.next_pid(), &message);
                Some(Ended::Code(code))
            }
            Action::Reboot => {
                self.restart();
                Some(Ended::Cancelled)
            }
            _ => None,
        }
    }

    /// Runs a command line of a unit to its end, its output in the journal.
    async fn run_line(self: &Arc<Self>, unit: &str, line: &str, cancel: &CancellationToken) -> i32 {
        let line = line.trim_start_matches(['-', '@', ':', '+', '!']).to_owned();
        let Some(argv) = launch::words(&line) else { return 203 };
        let ident = argv.first().and_then(|p| p.rsplit('/').next()).unwrap_or_default().to_owned();
        let (node, to) = (Arc::clone(self), unit.to_owned());
        let pid = self.next_pid();
        let sink: Sink =
            Arc::new(move |_, bytes| node.journal(&to, &ident, pid, &String::from_utf8_lossy(bytes)));
        let mut session = Session::new(self, Account::root(), Stdin::empty(), sink);
        session.cancel = cancel.child_token();
        launch::run(Arc::new(session), argv).await
    }
}

/// A unit's `Description=`.
pub(crate) fn description(unit: &Unit) -> String {
    unit.get("Unit", "Description").unwrap_or(&unit.name).to_owned()
}

fn status_name(code: i32) -> &'static str {
    match code {
        0 => "SUCCESS",
        1 => "FAILURE",
        203 => "EXEC",
        _ => "n/a",
    }
}

/// Parses `5s`, `100ms`, `2min`, `5`.
pub(crate) fn seconds(text: &str) -> Duration {
    let text = text.trim();
    let digits: String = text.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    let number: f64 = digits.parse().unwrap_or(0.0);
    let factor = match text.get(digits.len()..).unwrap_or_default().trim() {
        "ms" => 0.001,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => 1.0,
    };
    Duration::try_from_secs_f64(number * factor).unwrap_or_default()
}
