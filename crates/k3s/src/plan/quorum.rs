//! What keeps etcd's majority: who is down comes back first, and nobody goes before that.

use std::sync::Arc;

use turingpi_cluster::{Activity, NodeSpec};
use turingpi_engine::{Failure, FailureClass, Risk, Step};

use super::{Round, node::Planner};
use crate::{JOIN_TOKEN_KEY, NodeFacts, steps::After, unit};

/// The milestone: this server runs what it shall run.
pub(super) fn server_done(name: &str) -> String {
    format!("k3s/server/{name}")
}

/// Whether k3s on a node does its work, as far as can be seen.
pub(super) fn healthy(round: &Round<'_>, node: &NodeSpec, seen: Option<&NodeFacts>) -> bool {
    let runs = seen.is_some_and(|n| n.host.unit(unit::unit_name(node.role)).activity() == Activity::Active);
    runs && (round.facts.api.is_none() || round.facts.object(&node.name).is_some_and(|o| o.ready.is_ready()))
}

impl Planner<'_> {
    /// What this node's config needs of the cluster is in the state already: it need not wait for the API of another
    /// server, which may be waiting for this one.
    pub(super) fn waits_for_api(&self) -> bool {
        let known = self.round.state.secret(JOIN_TOKEN_KEY).is_some() && !self.round.founding;
        self.joins() && !(known && self.round.serves(self.node))
    }

    /// Members of etcd that do not do their work now and are brought back by this plan.
    pub(super) fn comebacks(&self) -> impl Iterator<Item = &NodeSpec> {
        let back = |s: &&NodeSpec| {
            self.round.serves(s)
                && self.all.get(s.name.as_str()).is_some_and(|p| !p.healthy && p.run.is_some())
        };
        self.round.env.servers().filter(back)
    }

    /// The milestones before a member that does its work may be interrupted: all others do theirs again.
    pub(super) fn before_interruption(&self) -> Vec<String> {
        let gated = self.round.env.is_ha() && self.parts.healthy && self.round.serves(self.node);
        let back = gated.then(|| self.comebacks().map(|s| server_done(&s.name)));
        back.into_iter().flatten().collect()
    }

    /// Whether etcd has no majority now: then its members come back together, for none can alone.
    pub(super) fn quorum_is_lost(&self) -> bool {
        let members: Vec<_> = self.round.env.servers().filter(|s| self.round.serves(s)).collect();
        let healthy =
            members.iter().filter(|s| self.all.get(s.name.as_str()).is_some_and(|p| p.healthy)).count();
        healthy < members.len() / 2 + 1
    }

    /// # Errors
    /// `Refused` where this member would be interrupted while one that is down waits for it.
    pub(super) fn check_quorum(&self) -> Result<(), Failure> {
        if self.before_interruption().is_empty() || !(self.parts.restarts() || self.parts.reboots) {
            return Ok(());
        }
        let stuck = self.comebacks().find(|s| {
            let planner = self.all.get(s.name.as_str()).map(|parts| Planner { node: s, parts, ..*self });
            planner.is_some_and(|planner| planner.waits_for_api())
        });
        match stuck {
            None => Ok(()),
            Some(down) => Err(Failure::new(
                FailureClass::Refused,
                format!("{} is not restarted while the server {} is down", self.node.name, down.name),
            )
            .hint(format!(
                "Without both of them etcd may lose its majority. Start k3s on {} first, then run this again.",
                down.name
            ))),
        }
    }

    /// A step of the preparation; a reboot of a member waits until those that are down are back.
    pub(super) fn after_comebacks(&self, step: Arc<dyn Step>) -> Arc<dyn Step> {
        let needs = self.before_interruption();
        if needs.is_empty() || step.describe().risk != Risk::Disruptive {
            return step;
        }
        Arc::new(After { step, needs })
    }
}
