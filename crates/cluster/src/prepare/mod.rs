//! Host preparation: what a Debian-family host needs before it can carry Kubernetes, as steps that look first.
//!
//! The planner is pure. What it is given facts for, it compares; what it has no facts for (a node that this very plan
//! flashes first), it forecasts: the steps are all there, and each finds out at its turn whether there is work.

mod clock;
mod firewall;
mod identity;
mod kernel;
mod logs;
mod packages;
mod restart;
mod spec;
mod swap;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use turingpi_engine::{Change, Risk, Step, StepDescription};

pub use spec::{Firewalling, HostSpec, HostsFile, LogDisk, NodeNeeds, Swapping};

use crate::{FactsRequest, HostFacts, HostStep, HostTask, Hosts, NodeSpec};

/// The phase of all preparation steps.
const PHASE: &str = "prepare";

/// What [`prepare_steps`] plans from.
#[derive(Debug, Clone, Copy)]
pub struct Preparation<'a> {
    /// The cluster's name; marks the block in `/etc/hosts`.
    pub cluster: &'a str,
    /// The node.
    pub node: &'a NodeSpec,
    /// All nodes of the cluster, this one too.
    pub nodes: &'a [NodeSpec],
    /// The document's `host:` section.
    pub spec: &'a HostSpec,
    /// What the cluster and its add-ons need of the node.
    pub needs: &'a NodeNeeds,
    /// Facts by node name. A node without facts cannot be reached yet: everything is forecast for it.
    pub facts: &'a BTreeMap<String, &'a HostFacts>,
    /// A lock for steps that interrupt the node, when its cluster already runs and may lose only one node at a time.
    pub disruption_lock: Option<&'a str>,
}

impl<'a> Preparation<'a> {
    /// The facts of the node itself.
    fn facts(&self) -> Option<&'a HostFacts> {
        self.facts.get(&self.node.name).copied()
    }

    /// `value` of the first other node, in the document's order, that comes before this one and has the same.
    fn duplicate_of<T: PartialEq>(&self, value: impl Fn(&HostFacts) -> Option<T>) -> Option<&'a str> {
        let mine = self.facts().and_then(&value)?;
        self.nodes
            .iter()
            .take_while(|n| n.name != self.node.name)
            .find(|n| self.facts.get(&n.name).copied().and_then(&value).as_ref() == Some(&mine))
            .map(|n| n.name.as_str())
    }

    fn describe(&self, id: &str, title: &str) -> StepDescription {
        StepDescription::new(format!("{}/{id}", self.node.name), title, PHASE)
    }

    fn interrupting(&self, description: StepDescription) -> StepDescription {
        let description = description.risk(Risk::Disruptive);
        match self.disruption_lock {
            Some(lock) => description.lock(lock),
            None => description,
        }
    }

    fn packages(&self) -> Vec<String> {
        let mut all: Vec<String> = self.needs.packages.iter().chain(&self.spec.packages).cloned().collect();
        all.sort();
        all.dedup();
        all
    }
}

/// What a part of the preparation wants to do: the changes it sees, and the task that makes them.
struct Work {
    changes: Vec<Change>,
    task: Box<dyn HostTask>,
    /// Whether it takes effect at the next boot only.
    reboot: bool,
}

impl Work {
    fn new(changes: Vec<Change>, task: impl HostTask + 'static) -> Self {
        Self { changes, task: Box::new(task), reboot: false }
    }
    fn after_reboot(mut self) -> Self {
        self.reboot = true;
        self
    }
}

#[async_trait::async_trait]
impl HostTask for Box<dyn HostTask> {
    async fn differs(&self, host: &crate::Host) -> Result<Option<String>, turingpi_engine::Failure> {
        (**self).differs(host).await
    }
    async fn make(
        &self,
        host: &crate::Host,
        cx: &turingpi_engine::StepContext,
    ) -> Result<(), turingpi_engine::Failure> {
        (**self).make(host, cx).await
    }
}

/// A part: gives work when there are no facts, or when they differ from what is wanted.
type Part = fn(&Preparation<'_>) -> Option<Work>;

struct Entry {
    id: &'static str,
    title: &'static str,
    seconds: u64,
    limit: u64,
    part: Part,
}

const fn entry(id: &'static str, title: &'static str, seconds: u64, limit: u64, part: Part) -> Entry {
    Entry { id, title, seconds, limit, part }
}

/// In order: names first, then the clock (packages come from signed, dated mirrors), then what packages bring.
const PARTS: [Entry; 12] = [
    entry("hostname", "Set the host name", 1, 30, identity::hostname),
    entry("machine-id", "Give the machine an id of its own", 1, 30, identity::machine_id),
    entry("hosts-file", "Write the nodes into /etc/hosts", 1, 30, identity::hosts_file),
    entry("timezone", "Set the time zone", 1, 30, clock::timezone),
    entry("time-sync", "Keep the clock in time", 5, 180, clock::time_sync),
    entry("packages", "Install packages", 60, 60, packages::packages),
    entry("iscsi", "Start the iSCSI service", 2, 60, packages::iscsi),
    entry("swap", "Turn swap off", 2, 60, swap::swap),
    entry("modules", "Load kernel modules", 1, 30, kernel::modules),
    entry("sysctl", "Set kernel parameters", 1, 30, kernel::sysctl),
    entry("firewall", "Let the cluster through the firewall", 3, 60, firewall::firewall),
    entry("log-disk", "Keep logs on the real disk", 1, 30, logs::log_disk),
];

/// The steps that prepare a node, in order; empty when nothing differs.
///
/// Without facts every step that the spec asks for is forecast. Changes that need a reboot share one at the end.
pub fn prepare_steps(with: &Preparation<'_>, hosts: &Hosts) -> Vec<Arc<dyn Step>> {
    let mut steps = Vec::new();
    let mut reboot_for = Vec::new();
    for entry in &PARTS {
        let Some(work) = (entry.part)(with) else { continue };
        let mut description = with.describe(entry.id, entry.title).expected_seconds(entry.seconds);
        description.changes = work.changes;
        if work.reboot {
            reboot_for.push(entry.id);
        }
        let step = HostStep::new(description, hosts, &with.node.name, work.task);
        steps.push(step.limit(std::time::Duration::from_secs(entry.limit)).shared());
    }
    steps.extend(kernel::cgroup_step(with, hosts, &mut reboot_for));
    steps.extend(restart::reboot_step(with, hosts, &reboot_for));
    steps
}

/// What has to be looked at so that [`prepare_steps`] can compare.
pub fn prepare_request(spec: &HostSpec, needs: &NodeNeeds) -> FactsRequest {
    let packages = needs.packages.iter().chain(&spec.packages).cloned();
    swap::request()
        .texts([identity::HOSTS_PATH, packages::INITIATOR_PATH, logs::RAMLOG_PATH, crate::host::PENDING_PATH])
        .files([kernel::MODULES_PATH, kernel::SYSCTL_PATH, clock::TIMESYNCD_PATH, clock::CHRONY_PATH])
        .units(clock::UNITS.iter().chain(&[packages::ISCSI_UNIT]).copied())
        .packages(packages)
        .modules(spec.modules.iter().chain(&needs.modules).cloned())
        .sysctls(spec.sysctl.keys().chain(needs.sysctl.keys()).cloned())
}
