//! From power to something that lets one in.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::Instant;
use turingpi_engine::{Failure, FailureClass, Probe, Step, StepContext, StepDescription};
use turingpi_ssh::{SshError, SshErrorKind, SshTarget};

use super::{ImagingContext, UartLog};
use crate::{NodeSpec, SlotRef, first_boot::screen::last_words};

pub(super) struct BootStep {
    node: String,
    place: SlotRef,
    target: SshTarget,
    log: Arc<UartLog>,
    fresh: bool,
    cx: ImagingContext,
}

impl BootStep {
    pub(super) fn new(
        node: &NodeSpec,
        place: &SlotRef,
        log: Arc<UartLog>,
        fresh: bool,
        cx: ImagingContext,
    ) -> Self {
        Self { node: node.name.clone(), place: place.clone(), target: node.ssh.clone(), log, fresh, cx }
    }

    /// Whether sshd answers; for a node of ours, whether it lets us in.
    async fn ssh(&self) -> Result<bool, Failure> {
        if !self.fresh {
            return match self.cx.hosts.client(&self.node).await {
                Ok(_) => Ok(true),
                Err(failure) if failure.is_retryable() => Ok(false),
                Err(failure) => Err(failure),
            };
        }
        sshd_answers(&self.cx, &self.target).await
    }
}

/// Whether an SSH server answers at all. Offers no login, so that no attempt is counted against anybody.
pub(crate) async fn sshd_answers(cx: &ImagingContext, target: &SshTarget) -> Result<bool, Failure> {
    let target = SshTarget { auth: Vec::new(), ..target.clone() };
    match cx.newcomer.connect(&target).await {
        Ok(client) => {
            client.close().await;
            Ok(true)
        }
        // Nothing that the node does could mend this: it would look like silence for ever.
        Err(error @ (SshError::Invalid { .. } | SshError::KnownHosts { .. })) => {
            Err(Failure::new(FailureClass::Config, "cannot try to connect over SSH").source(error))
        }
        Err(error) => match error.kind() {
            SshErrorKind::Auth | SshErrorKind::HostKey => Ok(true),
            // sshd is restarted during a first boot, and a socket may open before it serves.
            SshErrorKind::Unreachable
            | SshErrorKind::Timeout
            | SshErrorKind::Protocol
            | SshErrorKind::Refused => Ok(false),
            _ => Err(Failure::new(FailureClass::Config, "cannot try to connect over SSH").source(error)),
        },
    }
}

#[async_trait]
impl Step for BootStep {
    fn describe(&self) -> StepDescription {
        StepDescription::new(format!("{}/boot", self.node), "Wait for the system to boot", "boot")
            .expected_seconds(90)
    }

    async fn apply(&self, cx: &StepContext) -> Result<(), Failure> {
        let bmc = self.cx.boards.client(&self.place.board)?;
        let grace = cx.timing().limit(self.cx.limits.grace);
        let login_since: Mutex<Option<Instant>> = Mutex::default();
        let condition = format!("{} to boot", self.node);
        let booted = cx
            .wait(&condition, self.cx.limits.boot, || async {
                if self.ssh().await? {
                    return Ok(Probe::Ready(true));
                }
                // The console is a second witness; a BMC that cannot be read now does not end the wait.
                let _ = self.log.listen(bmc.as_ref()).await;
                let screen = self.log.screen().await;
                let seen = last_words(&screen);
                if !self.fresh || !asks_for_login(&screen) {
                    return Ok(Probe::NotYet(seen));
                }
                let mut since = login_since.lock().unwrap_or_else(PoisonError::into_inner);
                let since = *since.get_or_insert_with(Instant::now);
                Ok(match since.elapsed() >= grace {
                    true => Probe::Ready(false),
                    false => Probe::NotYet(format!(
                        "the console shows `{seen}`, SSH is silent at {}",
                        self.target.host
                    )),
                })
            })
            .await;
        match booted {
            Ok(true) => Ok(()),
            Ok(false) => {
                cx.note(format!(
                    "{} has booted and does not answer at {}: going on over the serial console",
                    self.node, self.target.host
                ));
                Ok(())
            }
            Err(failure) if failure.class() == FailureClass::Timeout => Err(self.not_booted(failure).await),
            Err(failure) => Err(failure),
        }
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(10)
    }
}

impl BootStep {
    async fn not_booted(&self, failure: Failure) -> Failure {
        let tail = self.log.tail().await;
        let hint = match tail.is_empty() {
            true => format!(
                "Nothing came over the serial line of slot {}: check that the module is seated and its image is for this module; power it off for five seconds and run this again.",
                self.place
            ),
            false => format!(
                "Read the console's last lines below. If it shows a login, {} has another address than {}; if it stands still, power the slot off for five seconds and run this again.",
                self.node, self.target.host
            ),
        };
        Failure::new(
            FailureClass::Timeout,
            format!("{}; the system of slot {} did not come up", failure.message(), self.place),
        )
        .hint(hint)
        .source(tail)
    }
}

/// Whether the console waits for a person: a login, a root shell, or Armbian's wizard.
fn asks_for_login(screen: &str) -> bool {
    let Some(line) = screen.lines().rev().map(str::trim_end).find(|line| !line.is_empty()) else {
        return false;
    };
    let lower = line.to_lowercase();
    lower.ends_with("login:")
        || lower.ends_with("password:")
        || (line.contains('@') && line.ends_with(['#', '$']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_counts_only_while_it_is_the_last_thing_on_the_console() {
        for yes in [
            "Armbian 26.2\n\nturing-rk1 login: ",
            "Create root password: ",
            "root@turing-rk1:~# ",
            "x\nlogin:\n\n",
        ] {
            assert!(asks_for_login(yes), "{yes:?}");
        }
        for no in [
            "",
            "\n",
            "login: \n[   9.1] reboot: Restarting system",
            "Last login: Mon Jan 1",
            "Starting kernel ...",
        ] {
            assert!(!asks_for_login(no), "{no:?}");
        }
        assert_eq!(last_words("a\n\n  b \n\n"), "b");
    }
}
