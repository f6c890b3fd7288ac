//! The proof that the right slot boots what was written: its own serial console says so.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use turingpi_engine::{Change, Failure, FailureClass, Probe, Step, StepContext, StepDescription};

use super::{Boards, UartLog, last_flash, neighbours::boots_key};
use crate::{SlotRef, first_boot::screen::last_words};

/// Watches one slot's console since its power-on. What other slots say is not looked at.
pub(super) struct ProveBootStep {
    node: String,
    place: SlotRef,
    log: Arc<UartLog>,
    boards: Boards,
    limit: Duration,
}

impl ProveBootStep {
    pub(super) fn new(
        node: &str,
        place: &SlotRef,
        log: Arc<UartLog>,
        boards: Boards,
        limit: Duration,
    ) -> Self {
        Self { node: node.to_owned(), place: place.clone(), log, boards, limit }
    }

    async fn unproven(&self, failure: Failure) -> Failure {
        let tail = self.log.tail().await;
        let written = format!("slot {} was written and read back, and is on", self.place);
        let (message, hint) = if tail.is_empty() {
            (
                format!("{written}; that it boots cannot be proved: its serial console said nothing"),
                "Look for it on the network. An image without a console on the serial line is silent too: \
                 `--no-boot-check` leaves this out. If it does not come up, reseat the module and flash again.",
            )
        } else {
            (
                format!(
                    "{written}; that it boots cannot be proved: its console shows no kernel and no login"
                ),
                "Read the console's last lines below. A boot loader that stands still means that the image is not for \
                 this module, or that another medium comes first in its boot order.",
            )
        };
        Failure::new(FailureClass::Timeout, message).hint(hint).source(match tail.is_empty() {
            true => Box::<dyn std::error::Error + Send + Sync>::from(failure),
            false => Box::from(tail),
        })
    }
}

#[async_trait]
impl Step for ProveBootStep {
    fn describe(&self) -> StepDescription {
        StepDescription::new(
            format!("{}/prove-boot", self.node),
            format!("See slot {} boot on its serial console", self.place),
            "boot",
        )
        .change(Change::set(format!("serial console of slot {}", self.place), "shows a kernel or a login"))
        .expected_seconds(60)
    }

    async fn apply(&self, cx: &StepContext) -> Result<(), Failure> {
        let bmc = self.boards.client(&self.place.board)?;
        let seen = cx
            .wait(&format!("slot {} to boot", self.place), self.limit, || async {
                // A BMC that cannot be read now does not end the wait.
                let _ = self.log.listen(bmc.as_ref()).await;
                let screen = self.log.screen().await;
                Ok(match sign_of_life(&screen) {
                    Some(sign) => Probe::Ready(sign),
                    None => Probe::NotYet(last_words(&screen)),
                })
            })
            .await;
        match seen {
            Ok(sign) => {
                cx.update_state(|state| match last_flash(state, &self.place)? {
                    Some(flash) => state.put_record(boots_key(&self.place), &flash),
                    None => Ok(()),
                })
                .await?;
                cx.note(format!("slot {} boots after the flash: its console shows `{sign}`", self.place));
                Ok(())
            }
            Err(failure) if failure.class() == FailureClass::Timeout => Err(self.unproven(failure).await),
            Err(failure) => Err(failure),
        }
    }
}

/// The line that only a running kernel, or what it started, writes. A boot loader alone proves nothing: it may sit in the
/// module's flash chip.
fn sign_of_life(screen: &str) -> Option<String> {
    let sign = |line: &&str| {
        let lower = line.to_lowercase();
        line.contains("Linux version ")
            || line.contains("Booting Linux on physical CPU")
            || line.contains("systemd[1]:")
            || lower.trim_end().ends_with(" login:")
            || line.contains("[talos]")
    };
    let line = screen.lines().map(str::trim).rfind(|line| sign(line))?;
    Some(line.chars().take(80).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_kernel_or_what_it_starts_is_a_proof_and_a_boot_loader_is_none() {
        for yes in [
            "Starting kernel ...\n[    0.0] Booting Linux on physical CPU 0x0\n",
            "[    0.000000] Linux version 6.1.115-vendor-rk35xx\n",
            "Debian GNU/Linux 13 node1 ttyS0\n\nnode1 login: ",
            "[    7.1] systemd[1]: Detected architecture arm64.",
        ] {
            assert!(sign_of_life(yes).is_some(), "{yes:?}");
        }
        for no in
            ["", "U-Boot 2024.01\nHit any key to stop autoboot", "Starting kernel ...", "Last login: Mon"]
        {
            assert_eq!(sign_of_life(no), None, "{no:?}");
        }
    }
}
