//! Armbian keeps `/var/log` on 50 MB of compressed memory. Pod logs fill it, and then pods break.

use async_trait::async_trait;
use turingpi_engine::{Change, Failure, StepContext};
use turingpi_ssh::RemoteFile;

use super::{LogDisk, Preparation, Work};
use crate::{
    Host, HostTask,
    host::{assignment, set_assignment},
};

pub(super) const RAMLOG_PATH: &str = "/etc/default/armbian-ramlog";

pub(super) fn log_disk(with: &Preparation<'_>) -> Option<Work> {
    if with.spec.log_disk == LogDisk::Keep {
        return None;
    }
    let changes = match with.facts() {
        None => vec![Change::set("/var/log", "on the real disk")],
        Some(facts) if is_on(facts.text(RAMLOG_PATH)) => {
            let device = facts.mount_of("/var/log").filter(|m| m.in_memory()).map_or("memory", |m| &m.device);
            vec![Change::replace("/var/log", device, "on the real disk")]
        }
        Some(_) => return None,
    };
    Some(Work::new(changes, RamlogOff).after_reboot())
}

fn is_on(text: &str) -> bool {
    assignment(text, "ENABLED") == Some("true")
}

struct RamlogOff;

#[async_trait]
impl HostTask for RamlogOff {
    async fn differs(&self, host: &Host) -> Result<Option<String>, Failure> {
        let text = host.read_text(RAMLOG_PATH).await?.unwrap_or_default();
        Ok(is_on(&text).then(|| "the log disk in memory is on".to_owned()))
    }

    async fn make(&self, host: &Host, _cx: &StepContext) -> Result<(), Failure> {
        // Its service copies the log back to the real disk when it is stopped at shutdown.
        host.note_pending_reboot("the log disk").await?;
        let text = host.read_text(RAMLOG_PATH).await?.unwrap_or_default();
        let text = set_assignment(&text, "ENABLED", "false");
        host.ensure_file(&RemoteFile::new(RAMLOG_PATH, text.as_bytes())).await.map(drop)
    }
}
