//! Starting and restarting k3s, and waiting until it really runs.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use turingpi_cluster::{Activity, Host, HostFacts, NodeSpec, UnitState};
use turingpi_engine::{Failure, FailureClass, Step, StepContext, StepDescription, Verdict};
use turingpi_ssh::RemoteFile;

use super::quorum;
use crate::{
    FlannelBackend, K3sVersion,
    env::Env,
    facts::{applied_digest, applied_request},
    paths, unit,
};

/// Lets a node run k3s with the files that are on it now.
pub(crate) struct RunStep {
    pub(crate) description: StepDescription,
    pub(crate) env: Arc<Env>,
    pub(crate) node: NodeSpec,
    pub(crate) version: K3sVersion,
    /// It has to become a voting etcd member.
    pub(crate) voter: bool,
    /// How many servers of the document have data of the cluster's etcd.
    pub(crate) members: usize,
    /// It has to be Ready in the API. Not asked of the server that makes the API.
    pub(crate) registered: bool,
}

/// What k3s says when it will not come up however often it starts, and what to do then. Only texts decide here: k3s
/// ends with code 1 for all of them.
const HOPELESS: [(&str, &str); 7] = [
    (
        "failed to find memory cgroup",
        "The kernel was started without it: add `cgroup_enable=memory` to its arguments and reboot the node.",
    ),
    (
        "failed to find cpu cgroup (v2)",
        "A real-time process keeps the kernel from handing the cpu controller on: stop and disable rtkit or multipathd on the node, or use a kernel without CONFIG_RT_GROUP_SCHED.",
    ),
    (
        "token CA hash does not match",
        "The node was given the token of another cluster. Run the command again; if it stays, wipe the node's k3s data.",
    ),
    (
        "bootstrap data already found and encrypted with different token",
        "The server's data belongs to another token: put the original token into the state, or wipe the node.",
    ),
    (
        "critical configuration value mismatch",
        "Settings under `k3s.server` must be the same on all servers; check /etc/rancher/k3s/config.yaml of this node.",
    ),
    (
        "etcd cluster join failed: duplicate node name found",
        "An old etcd member has this name: delete the node object of that name, then run this again.",
    ),
    (
        "has been permanently removed from the cluster",
        "This etcd member was removed: wipe /var/lib/rancher/k3s/server/db on it, then run this again.",
    ),
];

impl RunStep {
    fn unit(&self) -> &'static str {
        unit::unit_name(self.node.role)
    }

    async fn look(&self, host: &Host) -> Result<(HostFacts, UnitState, bool), Failure> {
        let facts = host.facts(&applied_request().units([self.unit()]).narrow()).await?;
        let state = facts.unit(self.unit());
        let current = facts.text(paths::APPLIED).trim() == applied_digest(&facts.files, self.node.role);
        Ok((facts, state, current))
    }

    async fn note_applied(&self, host: &Host, facts: &HostFacts) -> Result<(), Failure> {
        let text = format!("{}\n", applied_digest(&facts.files, self.node.role));
        host.ensure_file(&RemoteFile::new(paths::APPLIED, text.as_bytes())).await.map(drop)
    }

    /// Why it does not run, from its journal; a failure when starting again cannot help.
    async fn trouble(&self, host: &Host, state: &UnitState) -> Result<String, Failure> {
        let journal = host.journal(self.unit(), 200).await?;
        if let Some((text, hint)) = HOPELESS.iter().find(|(text, _)| journal.contains(text)) {
            return Err(Failure::new(
                FailureClass::Refused,
                format!("k3s does not start on {}: {text}", self.node.name),
            )
            .hint(*hint));
        }
        let last = journal.lines().rev().find(|l| l.contains("level=fatal") || l.contains("level=error"));
        Ok(match last {
            Some(line) => format!("{}: {}", state.summary(), line.trim()),
            None => state.summary(),
        })
    }

    /// What the API still lacks of the node.
    async fn lacks(&self) -> Result<Option<String>, Failure> {
        let api = self.env.api().await?;
        let Some(node) = api.node(&self.node.name).await? else {
            return Ok(Some("not registered".to_owned()));
        };
        if !node.ready.is_ready() && self.env.spec.flannel_backend != FlannelBackend::None {
            return Ok(Some("registered, not Ready".to_owned()));
        }
        if node.kubelet_version != self.version.to_string() {
            return Ok(Some(format!("its kubelet is still {}", node.kubelet_version)));
        }
        if !self.voter {
            return Ok(None);
        }
        Ok(match node.condition("EtcdIsVoter") {
            Some(condition) if condition.status == Some(true) => None,
            Some(condition) => Some(format!("etcd: {}", condition.reason)),
            None => Some("no etcd member yet".to_owned()),
        })
    }
}

#[async_trait]
impl Step for RunStep {
    fn describe(&self) -> StepDescription {
        self.description.clone()
    }

    async fn apply(&self, cx: &StepContext) -> Result<(), Failure> {
        let host = self.env.hosts.host(&self.node.name).await?;
        let (facts, state, current) = self.look(&host).await?;
        host.daemon_reload().await?;
        if !state.is_enabled() {
            host.enable(self.unit()).await?;
        }
        match (state.activity(), current) {
            // It starts, or runs, with the files that are there.
            (Activity::Active | Activity::Changing, true) => return Ok(()),
            // Stopped first: between stop and start nothing runs with older files, so what is noted holds even after
            // a crash in between. Pods go on running.
            (Activity::Active | Activity::Changing, false) => {
                if self.voter && state.activity() == Activity::Active {
                    let look = || async { self.env.api().await?.nodes().await };
                    quorum::may_go(cx, &self.node.name, self.members, look).await?;
                }
                host.stop(self.unit()).await?;
            }
            (Activity::Inactive | Activity::Failed, _) => {}
        }
        self.note_applied(&host, &facts).await?;
        host.start_no_block(self.unit()).await
    }

    async fn verify(&self, _cx: &StepContext) -> Result<Verdict, Failure> {
        let host = self.env.hosts.host(&self.node.name).await?;
        let (_, state, current) = self.look(&host).await?;
        if state.activity() != Activity::Active {
            return Ok(Verdict::NotYet(self.trouble(&host, &state).await?));
        }
        if !current {
            return Ok(Verdict::NotYet("it runs with older files".to_owned()));
        }
        if !state.is_enabled() {
            return Ok(Verdict::NotYet("it does not start at boot".to_owned()));
        }
        if !self.registered {
            return Ok(Verdict::Converged);
        }
        match self.lacks().await {
            Ok(None) => Ok(Verdict::Converged),
            Ok(Some(seen)) => Ok(Verdict::NotYet(seen)),
            Err(failure) if failure.is_retryable() => Ok(Verdict::NotYet(failure.message().to_owned())),
            Err(failure) => Err(failure),
        }
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(600)
    }
}
