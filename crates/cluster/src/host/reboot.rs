//! Reboots: asked for once for all changes that need one, proved by another boot id.

use std::time::Duration;

use turingpi_engine::{Failure, FailureClass, Probe, StepContext};

use crate::{
    Host, Hosts,
    hosts::{Refusals, rebooting_key},
};

/// Holds one line, `boot-id reason`, for each change that takes effect at the next boot. Lines of an earlier boot
/// count no more, so a reboot clears it without anybody writing.
pub(crate) const PENDING_PATH: &str = "/var/lib/turingpi/reboot-pending";

/// The reasons in `text` that were noted during the boot `boot_id`.
pub(crate) fn pending_reasons(text: &str, boot_id: &str) -> Vec<String> {
    let mut reasons: Vec<String> = text
        .lines()
        .filter_map(|l| l.trim().split_once(' '))
        .filter(|(id, _)| !boot_id.is_empty() && *id == boot_id)
        .map(|(_, reason)| reason.to_owned())
        .collect();
    reasons.sort();
    reasons.dedup();
    reasons
}

const NOTE: &str = r#"
mkdir -p /var/lib/turingpi
printf '%s %s\n' "$(cat /proc/sys/kernel/random/boot_id)" "$1" >>/var/lib/turingpi/reboot-pending
"#;

// Detached, so that the script ends with 0 before sshd goes down.
const REBOOT: &str = r#"
if command -v systemd-run >/dev/null 2>&1; then
  systemd-run --quiet --collect --on-active=1 systemctl reboot && exit 0
fi
(sleep 1; systemctl reboot || reboot) >/dev/null 2>&1 </dev/null &
"#;

impl Host {
    /// The boot id.
    ///
    /// # Errors
    /// As [`Host::output`].
    pub async fn boot_id(&self) -> Result<String, Failure> {
        let text = self.script("read the boot id", "cat /proc/sys/kernel/random/boot_id", &[]).await?;
        Ok(text.trim().to_owned())
    }

    /// Notes that a change takes effect at the next boot. Call it before the change: after a crash in between there is
    /// a reboot too many, not one too few.
    ///
    /// # Errors
    /// As [`Host::output`].
    pub async fn note_pending_reboot(&self, reason: &str) -> Result<(), Failure> {
        self.script("note that a reboot is needed", NOTE, &[reason]).await.map(drop)
    }

    /// The changes noted since the last boot.
    ///
    /// # Errors
    /// As [`Host::read_text`].
    pub async fn pending_reboot(&self) -> Result<Vec<String>, Failure> {
        let text = self.read_text(PENDING_PATH).await?.unwrap_or_default();
        if text.is_empty() {
            return Ok(Vec::new());
        }
        Ok(pending_reasons(&text, &self.boot_id().await?))
    }
}

impl Hosts {
    /// Reboots `node` and waits until it answers with another boot id. The state remembers it until then, so that a run
    /// after a crash in between knows what it waits for.
    ///
    /// # Errors
    /// As [`Hosts::client`]; `Timeout` when it does not come back within `limit`.
    pub async fn reboot(&self, node: &str, limit: Duration, cx: &StepContext) -> Result<(), Failure> {
        let host = self.host(node).await?;
        let before = host.boot_id().await?;
        if before.is_empty() {
            return Err(Failure::new(FailureClass::Unexpected, format!("{node} has no boot id")));
        }
        let key = rebooting_key(node);
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        cx.update_state(|state| state.put_record(key.as_str(), &now)).await?;
        host.script("reboot", REBOOT, &[]).await?;
        drop(host);
        let condition = format!("{node} has booted again");
        let refusals = Refusals::of_a_reboot();
        cx.wait(&condition, limit, || async {
            self.forget(node).await;
            let seen = match self.host(node).await {
                Ok(host) => host.boot_id().await,
                Err(failure) => Err(failure),
            };
            match seen {
                Ok(id) if !id.is_empty() && id != before => Ok(Probe::Ready(())),
                Ok(_) => Ok(Probe::NotYet("still up, not yet rebooting".to_owned())),
                Err(failure) if failure.class() == FailureClass::Auth && !refusals.borne(&failure) => {
                    Err(failure)
                }
                // While sshd goes down and comes up again connections end in every possible way.
                Err(failure) => Ok(Probe::NotYet(failure.message().to_owned())),
            }
        })
        .await?;
        cx.update_state(|state| {
            state.remove_record(&key);
            Ok(())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_reasons_of_the_present_boot_count() {
        let text = "old-id swap\nnew-id the log disk\nnew-id cgroups\nnew-id cgroups\n\ngarbage\n";
        assert_eq!(pending_reasons(text, "new-id"), ["cgroups", "the log disk"]);
        assert!(pending_reasons(text, "newer-id").is_empty());
        assert!(pending_reasons(text, "").is_empty());
    }
}
