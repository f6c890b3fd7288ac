//! The time zone, and a clock that certificates can live with.

use std::time::Duration;

use async_trait::async_trait;
use turingpi_engine::{Change, Failure, FailureClass, Probe, StepContext};

use super::{Preparation, Work};
use crate::{FactsRequest, Host, HostFacts, HostTask, host::FileContent, unless_same};

pub(super) const TIMESYNCD_PATH: &str = "/etc/systemd/timesyncd.conf.d/50-turingpi.conf";
pub(super) const CHRONY_PATH: &str = "/etc/chrony/sources.d/turingpi.sources";
const TIMESYNCD: &str = "systemd-timesyncd.service";
const CHRONY: &str = "chrony.service";
/// Services that keep a clock in time; the first one a host has is used.
pub(super) const UNITS: [&str; 5] = [CHRONY, "chronyd.service", "ntpsec.service", "ntp.service", TIMESYNCD];

pub(super) fn timezone(with: &Preparation<'_>) -> Option<Work> {
    let wanted = with.spec.timezone.as_ref()?;
    let change = match with.facts().map(|f| f.time.timezone.as_deref()) {
        Some(Some(zone)) if zone == wanted => return None,
        Some(Some(zone)) => Change::replace("time zone", zone, wanted),
        _ => Change::set("time zone", wanted),
    };
    Some(Work::new(vec![change], Timezone(wanted.clone())))
}

struct Timezone(String);

#[async_trait]
impl HostTask for Timezone {
    async fn differs(&self, host: &Host) -> Result<Option<String>, Failure> {
        let facts = host.facts(&FactsRequest::new()).await?;
        Ok(unless_same("the time zone", facts.time.timezone.as_deref(), &self.0))
    }

    async fn make(&self, host: &Host, _cx: &StepContext) -> Result<(), Failure> {
        let script = r#"
if command -v timedatectl >/dev/null 2>&1; then timedatectl set-timezone "$1"; exit; fi
test -e "/usr/share/zoneinfo/$1"
ln -sf "/usr/share/zoneinfo/$1" /etc/localtime
printf '%s\n' "$1" >/etc/timezone
"#;
        host.script(&format!("set the time zone to {}", self.0), script, &[&self.0])
            .await
            .map(drop)
            .map_err(|f| f.hint("Use a name from `timedatectl list-timezones`."))
    }
}

/// The time service of a host and its file with our servers.
fn service(facts: &HostFacts) -> Option<&'static str> {
    let running = UNITS.iter().find(|u| facts.unit(u).active == "active");
    running.or_else(|| UNITS.iter().find(|u| facts.unit(u).load == "loaded")).copied()
}

fn servers_file(unit: &str, servers: &[String]) -> Option<FileContent> {
    if servers.is_empty() {
        return None;
    }
    match unit {
        TIMESYNCD => Some(FileContent {
            path: TIMESYNCD_PATH.to_owned(),
            text: format!("[Time]\nNTP={}\n", servers.join(" ")),
        }),
        CHRONY | "chronyd.service" => Some(FileContent {
            path: CHRONY_PATH.to_owned(),
            text: servers.iter().map(|s| format!("server {s} iburst\n")).collect(),
        }),
        // The old ntp daemons have no folder for additions; their own file is the user's.
        _ => None,
    }
}

pub(super) fn time_sync(with: &Preparation<'_>) -> Option<Work> {
    let task = TimeSync { servers: with.spec.ntp.clone() };
    let Some(facts) = with.facts() else {
        return Some(Work::new(vec![Change::set("clock", "kept in time")], task));
    };
    let changes = task.changes(facts);
    if changes.is_empty() { None } else { Some(Work::new(changes, task)) }
}

struct TimeSync {
    servers: Vec<String>,
}

impl TimeSync {
    fn changes(&self, facts: &HostFacts) -> Vec<Change> {
        let mut changes = Vec::new();
        match service(facts) {
            None => changes.push(Change::set("time service", TIMESYNCD)),
            Some(unit) => {
                let state = facts.unit(unit);
                if state.active != "active" {
                    changes.push(Change::replace(unit, &state.active, "active"));
                }
                if !state.is_enabled() {
                    changes.push(Change::replace(format!("{unit} at boot"), &state.file, "enabled"));
                }
                if let Some(file) = servers_file(unit, &self.servers)
                    && facts.digest(&file.path) != Some(file.sha256().as_str())
                {
                    changes.push(Change::set("time servers", self.servers.join(", ")));
                }
            }
        }
        if !facts.time.is_sane() {
            changes.push(Change::replace("clock", off_by(facts.time.skew_seconds), "in time"));
        }
        changes
    }

    fn request() -> FactsRequest {
        FactsRequest::new().units(UNITS).files([TIMESYNCD_PATH, CHRONY_PATH])
    }
}

fn off_by(seconds: i64) -> String {
    format!("{} s {}", seconds.unsigned_abs(), if seconds < 0 { "behind" } else { "ahead" })
}

#[async_trait]
impl HostTask for TimeSync {
    async fn differs(&self, host: &Host) -> Result<Option<String>, Failure> {
        let facts = host.facts(&Self::request()).await?;
        let seen = |c: &Change| format!("{} is {}", c.what, c.old.as_deref().unwrap_or("not set"));
        Ok(self.changes(&facts).first().map(seen))
    }

    async fn make(&self, host: &Host, cx: &StepContext) -> Result<(), Failure> {
        let mut facts = host.facts(&Self::request()).await?;
        if service(&facts).is_none() {
            // Mirrors are signed with dates, so the clock has to be roughly right before a time service can be installed.
            if !facts.time.is_sane() {
                let now = time::OffsetDateTime::now_utc().unix_timestamp();
                cx.note(format!(
                    "{}: the clock is {}; set from this machine",
                    host.name(),
                    off_by(facts.time.skew_seconds)
                ));
                host.script("set the clock", "date -u -s \"@$1\" >/dev/null", &[&now.to_string()]).await?;
            }
            host.install_packages(&["systemd-timesyncd".to_owned()], cx).await?;
            facts = host.facts(&Self::request()).await?;
        }
        let unit = service(&facts).ok_or_else(|| {
            Failure::new(FailureClass::Refused, format!("{} has no time service", host.name()))
                .hint("Install systemd-timesyncd or chrony on it.")
        })?;
        let written = match servers_file(unit, &self.servers) {
            Some(file) => file.write(host).await? == turingpi_ssh::Written::Changed,
            None => false,
        };
        host.enable(unit).await?;
        if written {
            host.restart_no_block(unit).await?;
        } else {
            host.start_no_block(unit).await?;
        }
        let condition = format!("the clock of {} is in time", host.name());
        let waited = host
            .wait(cx, &condition, Duration::from_secs(180), || async {
                let facts = host.facts(&Self::request()).await?;
                let time = facts.time;
                Ok(if time.is_sane() { Probe::Ready(()) } else { Probe::NotYet(off_by(time.skew_seconds)) })
            })
            .await;
        waited.map_err(|f| match f.class() {
            FailureClass::Timeout => f.hint(
                "Let the node reach a time server (UDP port 123), or name one it can reach under `host.ntp`.",
            ),
            _ => f,
        })
    }
}
