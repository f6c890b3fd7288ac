//! systemd units: state as data, and the few verbs we need.

use serde::{Deserialize, Serialize};
use turingpi_engine::Failure;

use crate::Host;

/// What systemd says about one unit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct UnitState {
    /// `loaded`, `not-found`, `masked`, …
    pub load: String,
    /// `active`, `activating`, `inactive`, `failed`, …
    pub active: String,
    /// `running`, `exited`, `auto-restart`, …
    pub sub: String,
    /// `enabled`, `disabled`, `masked`, `static`, or empty.
    pub file: String,
    /// `success`, `exit-code`, `timeout`, …
    pub result: String,
    /// How often systemd restarted it by itself.
    pub restarts: u32,
    /// The exit status of its main process, when it ended.
    pub exit_status: i32,
    /// The file it was read from.
    pub path: String,
}

/// What a unit does, seen by somebody who waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activity {
    /// It runs.
    Active,
    /// It starts, stops or waits to be started again.
    Changing,
    /// It does not run.
    Inactive,
    /// It failed and nobody starts it again.
    Failed,
}

impl UnitState {
    /// The properties to ask for, in `systemctl show -p` form.
    pub(crate) const PROPERTIES: &'static str =
        "LoadState,ActiveState,SubState,UnitFileState,Result,NRestarts,ExecMainStatus,FragmentPath";

    /// Reads `Key=value` lines of `systemctl show`.
    pub fn parse(text: &str) -> Self {
        let mut state = Self::default();
        for (key, value) in text.lines().filter_map(|l| l.trim_end().split_once('=')) {
            match key {
                "LoadState" => state.load = value.to_owned(),
                "ActiveState" => state.active = value.to_owned(),
                "SubState" => state.sub = value.to_owned(),
                "UnitFileState" => state.file = value.to_owned(),
                "Result" => state.result = value.to_owned(),
                "NRestarts" => state.restarts = value.parse().unwrap_or(0),
                "ExecMainStatus" => state.exit_status = value.parse().unwrap_or(0),
                "FragmentPath" => state.path = value.to_owned(),
                _ => {}
            }
        }
        state
    }

    /// Whether systemd knows the unit.
    pub fn exists(&self) -> bool {
        !matches!(self.load.as_str(), "" | "not-found")
    }

    /// Whether it starts at boot.
    pub fn is_enabled(&self) -> bool {
        matches!(
            self.file.as_str(),
            "enabled" | "enabled-runtime" | "alias" | "static" | "indirect" | "generated"
        )
    }

    /// What it does now.
    pub fn activity(&self) -> Activity {
        match self.active.as_str() {
            "active" | "reloading" => Activity::Active,
            "activating" | "deactivating" => Activity::Changing,
            "failed" => Activity::Failed,
            _ => Activity::Inactive,
        }
    }

    /// One line for a person: `activating (auto-restart), 3 restarts, exit status 1`.
    pub fn summary(&self) -> String {
        if !self.exists() {
            return "no such unit".to_owned();
        }
        let mut text = format!("{} ({})", self.active, self.sub);
        if self.restarts > 0 {
            text.push_str(&format!(", {} restarts", self.restarts));
        }
        if self.exit_status != 0 {
            text.push_str(&format!(", exit status {}", self.exit_status));
        }
        text
    }
}

// systemd gives every start an id of its own, which stays readable until the next start.
const JOURNAL: &str = r#"
id=$(systemctl show -p InvocationID --value "$1" 2>/dev/null || true)
journalctl -u "$1" ${id:+_SYSTEMD_INVOCATION_ID="$id"} -b --no-pager -q -n "$2" -o cat 2>/dev/null || true
"#;

impl Host {
    /// The state of `unit`; a unit nobody knows is a state too.
    ///
    /// # Errors
    /// As [`Host::output`].
    pub async fn unit(&self, unit: &str) -> Result<UnitState, Failure> {
        let script = format!("systemctl show -p {} \"$1\"", UnitState::PROPERTIES);
        let text = self.script(&format!("ask systemd about {unit}"), &script, &[unit]).await?;
        Ok(UnitState::parse(&text))
    }

    /// Lets `unit` start at boot.
    ///
    /// # Errors
    /// As [`Host::output`].
    pub async fn enable(&self, unit: &str) -> Result<(), Failure> {
        self.systemctl(&format!("enable {unit}"), "systemctl enable --quiet \"$1\"", unit).await
    }

    /// Keeps `unit` from starting at boot. A unit nobody knows is fine.
    ///
    /// # Errors
    /// As [`Host::output`].
    pub async fn disable(&self, unit: &str) -> Result<(), Failure> {
        let script = "if systemctl cat \"$1\" >/dev/null 2>&1; then systemctl disable --quiet \"$1\"; fi";
        self.systemctl(&format!("disable {unit}"), script, unit).await
    }

    /// Asks systemd to start `unit` and does not wait: a unit of type notify may take for ever.
    ///
    /// # Errors
    /// As [`Host::output`].
    pub async fn start_no_block(&self, unit: &str) -> Result<(), Failure> {
        let script = "systemctl reset-failed \"$1\" 2>/dev/null || true; systemctl start --no-block \"$1\"";
        self.systemctl(&format!("start {unit}"), script, unit).await
    }

    /// Asks systemd to restart `unit` and does not wait.
    ///
    /// # Errors
    /// As [`Host::output`].
    pub async fn restart_no_block(&self, unit: &str) -> Result<(), Failure> {
        let script = "systemctl reset-failed \"$1\" 2>/dev/null || true; systemctl restart --no-block \"$1\"";
        self.systemctl(&format!("restart {unit}"), script, unit).await
    }

    /// Stops `unit` and waits for it. A unit nobody knows is fine.
    ///
    /// # Errors
    /// As [`Host::output`].
    pub async fn stop(&self, unit: &str) -> Result<(), Failure> {
        let script = "if systemctl cat \"$1\" >/dev/null 2>&1; then systemctl stop \"$1\"; fi";
        self.systemctl(&format!("stop {unit}"), script, unit).await
    }

    /// Lets systemd read changed unit files.
    ///
    /// # Errors
    /// As [`Host::output`].
    pub async fn daemon_reload(&self) -> Result<(), Failure> {
        self.script("reload systemd", "systemctl daemon-reload", &[]).await.map(drop)
    }

    /// The last lines `unit` wrote to the journal since it was last started, oldest first; empty when there are none.
    /// What it said before an earlier start is left out: its cause may be mended.
    ///
    /// # Errors
    /// As [`Host::run`].
    pub async fn journal(&self, unit: &str, lines: u32) -> Result<String, Failure> {
        self.script(&format!("read the journal of {unit}"), JOURNAL, &[unit, &lines.to_string()]).await
    }

    async fn systemctl(&self, what: &str, script: &str, unit: &str) -> Result<(), Failure> {
        self.script(what, script, &[unit]).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_loop_is_changing_and_says_so() {
        let state = UnitState::parse(
            "LoadState=loaded\nActiveState=activating\nSubState=auto-restart\nUnitFileState=enabled\nResult=exit-code\nNRestarts=3\nExecMainStatus=1\n",
        );
        assert_eq!(state.activity(), Activity::Changing);
        assert!(state.is_enabled());
        assert_eq!(state.summary(), "activating (auto-restart), 3 restarts, exit status 1");
    }

    #[test]
    fn a_unit_nobody_knows_neither_exists_nor_runs() {
        let state = UnitState::parse("LoadState=not-found\nActiveState=inactive\nSubState=dead\n");
        assert!(!state.exists());
        assert_eq!(state.activity(), Activity::Inactive);
        assert_eq!(state.summary(), "no such unit");
    }
}
