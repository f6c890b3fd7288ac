//! One reboot for all changes that need one.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use turingpi_engine::{Change, Failure, Step, StepContext, StepDescription, Verdict};

use super::Preparation;
use crate::{HostFacts, Hosts};

/// Why a host has to reboot before it can carry the cluster, beside changes that this plan makes.
fn reasons(with: &Preparation<'_>, facts: &HostFacts) -> Vec<String> {
    let mut reasons = facts.pending_reboot();
    if facts.wants_reboot.contains("kernel") && !facts.modules.is_superset(&with.needs.modules) {
        reasons.push("the modules of the running kernel are gone".to_owned());
    }
    reasons
}

/// The reboot, last of the preparation, when something asks for one. Forecast for a node without facts: it looks first,
/// and does nothing when nothing asked.
pub(super) fn reboot_step(
    with: &Preparation<'_>,
    hosts: &Hosts,
    planned_for: &[&str],
) -> Option<Arc<dyn Step>> {
    let mut reasons = with.facts().map(|f| reasons(with, f)).unwrap_or_default();
    reasons.extend(planned_for.iter().map(|id| describe(id).to_owned()));
    reasons.sort();
    reasons.dedup();
    if reasons.is_empty() {
        return None;
    }
    let title = if with.facts().is_some() { "Reboot" } else { "Reboot if a change needs it" };
    let description = with
        .interrupting(with.describe("reboot", title))
        .change(Change::set("takes effect", reasons.join(", ")))
        .expected_seconds(90);
    let stale_kernel = with.facts().is_some_and(|f| f.wants_reboot.contains("kernel"));
    Some(Arc::new(Reboot { description, hosts: hosts.clone(), node: with.node.name.clone(), stale_kernel }))
}

fn describe(id: &str) -> &str {
    match id {
        "machine-id" => "the machine id",
        "log-disk" => "the log disk",
        "cgroups" => "cgroups",
        other => other,
    }
}

struct Reboot {
    description: StepDescription,
    hosts: Hosts,
    node: String,
    /// The modules of the running kernel were removed by an update.
    stale_kernel: bool,
}

impl Reboot {
    async fn asked_for(&self) -> Result<Option<String>, Failure> {
        let host = self.hosts.host(&self.node).await?;
        let mut reasons = host.pending_reboot().await?;
        let script = "test -d /lib/modules && ! test -d \"/lib/modules/$(uname -r)\"";
        if self.stale_kernel && host.test("look for kernel modules", script, &[]).await? {
            reasons.push("the modules of the running kernel are gone".to_owned());
        }
        Ok((!reasons.is_empty()).then(|| reasons.join(", ")))
    }
}

#[async_trait]
impl Step for Reboot {
    fn describe(&self) -> StepDescription {
        self.description.clone()
    }

    async fn apply(&self, cx: &StepContext) -> Result<(), Failure> {
        if self.asked_for().await?.is_some() {
            self.hosts.reboot(&self.node, Duration::from_secs(600), cx).await?;
        }
        Ok(())
    }

    async fn verify(&self, _cx: &StepContext) -> Result<Verdict, Failure> {
        Ok(match self.asked_for().await? {
            None => Verdict::Converged,
            Some(reasons) => Verdict::NotYet(format!("a reboot is still needed for {reasons}")),
        })
    }
}
