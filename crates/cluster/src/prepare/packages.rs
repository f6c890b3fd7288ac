//! Packages, and the iSCSI service that storage add-ons attach volumes with.

use async_trait::async_trait;
use rand::RngExt;
use turingpi_engine::{Change, Failure, StepContext};
use turingpi_ssh::RemoteFile;

use super::{Preparation, Work};
use crate::{FactsRequest, Host, HostFacts, HostTask};

pub(super) const INITIATOR_PATH: &str = "/etc/iscsi/initiatorname.iscsi";
pub(super) const ISCSI_UNIT: &str = "iscsid.service";
const ISCSI_PACKAGE: &str = "open-iscsi";

/// The name apt knows it by, without a version (`curl=8.1`) or architecture (`libc6:arm64`).
fn bare(package: &str) -> &str {
    package.split(['=', ':']).next().unwrap_or(package)
}

pub(super) fn packages(with: &Preparation<'_>) -> Option<Work> {
    let wanted = with.packages();
    let missing: Vec<String> = match with.facts() {
        None => wanted.clone(),
        Some(facts) => wanted.iter().filter(|p| !facts.packages.contains_key(bare(p))).cloned().collect(),
    };
    if missing.is_empty() {
        return None;
    }
    let changes = missing.iter().map(|p| Change::set(format!("package {p}"), "installed")).collect();
    Some(Work::new(changes, Packages(wanted)))
}

struct Packages(Vec<String>);

impl Packages {
    async fn missing(&self, host: &Host) -> Result<Vec<String>, Failure> {
        let names = self.0.iter().map(|p| bare(p).to_owned());
        let facts = host.facts(&FactsRequest::new().packages(names).narrow()).await?;
        Ok(self.0.iter().filter(|p| !facts.packages.contains_key(bare(p))).cloned().collect())
    }
}

#[async_trait]
impl HostTask for Packages {
    async fn differs(&self, host: &Host) -> Result<Option<String>, Failure> {
        let missing = self.missing(host).await?;
        Ok((!missing.is_empty()).then(|| format!("{} not installed", missing.join(", "))))
    }

    async fn make(&self, host: &Host, cx: &StepContext) -> Result<(), Failure> {
        let missing = self.missing(host).await?;
        host.install_packages(&missing, cx).await
    }
}

/// The initiator's name, which has to be another one on every node.
fn initiator(facts: &HostFacts) -> Option<String> {
    let line = facts.text(INITIATOR_PATH).lines().find_map(|l| l.trim().strip_prefix("InitiatorName="))?;
    Some(line.trim().to_owned()).filter(|n| !n.is_empty())
}

pub(super) fn iscsi(with: &Preparation<'_>) -> Option<Work> {
    if !with.packages().iter().any(|p| bare(p) == ISCSI_PACKAGE) {
        return None;
    }
    let Some(facts) = with.facts() else {
        return Some(Work::new(vec![Change::set(ISCSI_UNIT, "active")], Iscsi { bad: None }));
    };
    let twin = with.duplicate_of(initiator);
    let task = Iscsi { bad: twin.and_then(|_| initiator(facts)) };
    let mut changes = task.changes(facts);
    if let (Some(twin), Some(change)) = (twin, changes.iter_mut().find(|c| c.what == INITIATOR_PATH)) {
        change.old = Some(format!("the same as on {twin}"));
    }
    if changes.is_empty() { None } else { Some(Work::new(changes, task)) }
}

struct Iscsi {
    /// A name that another node has too.
    bad: Option<String>,
}

impl Iscsi {
    fn changes(&self, facts: &HostFacts) -> Vec<Change> {
        let mut changes = Vec::new();
        match (initiator(facts), &self.bad) {
            (None, _) => changes.push(Change::set(INITIATOR_PATH, "a name of its own")),
            (Some(name), Some(bad)) if name == *bad => {
                changes.push(Change::replace(INITIATOR_PATH, name, "a name of its own"));
            }
            _ => {}
        }
        let unit = facts.unit(ISCSI_UNIT);
        if unit.active != "active" {
            changes.push(Change::set(ISCSI_UNIT, "active"));
        }
        if !unit.is_enabled() {
            changes.push(Change::set(format!("{ISCSI_UNIT} at boot"), "enabled"));
        }
        changes
    }

    async fn look(&self, host: &Host) -> Result<Vec<Change>, Failure> {
        let request = FactsRequest::new().texts([INITIATOR_PATH]).units([ISCSI_UNIT]).narrow();
        Ok(self.changes(&host.facts(&request).await?))
    }
}

#[async_trait]
impl HostTask for Iscsi {
    async fn differs(&self, host: &Host) -> Result<Option<String>, Failure> {
        Ok(self
            .look(host)
            .await?
            .first()
            .map(|c| format!("{} is not {}", c.what, c.new.as_deref().unwrap_or("set"))))
    }

    async fn make(&self, host: &Host, _cx: &StepContext) -> Result<(), Failure> {
        let renamed = self.look(host).await?.iter().any(|c| c.what == INITIATOR_PATH);
        if renamed {
            let unique: u64 = rand::rng().random();
            let text = format!("InitiatorName=iqn.1993-08.org.debian:01:{unique:016x}\n");
            host.ensure_file(&RemoteFile::new(INITIATOR_PATH, text.as_bytes()).mode(0o600)).await?;
        }
        host.enable(ISCSI_UNIT).await?;
        if renamed { host.restart_no_block(ISCSI_UNIT).await } else { host.start_no_block(ISCSI_UNIT).await }
    }
}
