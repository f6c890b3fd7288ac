//! The planner: desired nodes, facts and state in, lanes of steps out. Pure.

mod adopt;
mod node;
mod quorum;
#[cfg(test)]
mod tests;
mod upgrade;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

pub(crate) use adopt::{CA_KEY, may_take_down};
use turingpi_cluster::{NodeNeeds, NodeSpec, Role};
use turingpi_engine::{Failure, FailureClass, FailureReport, Lane, State, Subject};

use crate::{
    Component, FlannelBackend, K3sFacts, K3sVersion, NodeFacts, Reach, config::Entry, env::Env,
    facts::EntrySeen, k3s_cluster::host_facts,
};

/// The milestone: the first server's API serves and its full join token is known.
pub(crate) const API: &str = "k3s/api";
/// The lock of the one etcd member that may be a learner.
pub(crate) const ETCD_JOIN: &str = "k3s/etcd-join";
/// The lock of the one node of a running cluster that may be interrupted.
pub(crate) const DISRUPT: &str = "k3s/disrupt";

/// What k3s and its add-ons need of a node.
pub(crate) fn needs(env: &Env, node: &NodeSpec) -> NodeNeeds {
    let mut needs = env.needs.clone();
    match env.spec.flannel_backend {
        FlannelBackend::Vxlan => {
            needs.modules.insert("vxlan".to_owned());
        }
        FlannelBackend::WireguardNative => {
            needs.modules.insert("wireguard".to_owned());
        }
        FlannelBackend::HostGw | FlannelBackend::None => {}
    }
    needs.trusted_networks.extend([env.network.pods, env.network.services]);
    if node.role == Role::ControlPlane {
        needs.open_ports.insert(turingpi_cluster::API_PORT);
    }
    if !env.spec.disable.contains(&Component::Traefik) {
        needs.open_ports.extend([80, 443]);
    }
    needs
}

/// The newest version a node of the cluster has, if k3s has run anywhere.
pub(crate) fn running_version(facts: &K3sFacts) -> Option<K3sVersion> {
    let up = facts.nodes.values().filter_map(|r| match r {
        Reach::Up(node) => Some(node),
        Reach::Down(_) => None,
    });
    up.filter(|n| n.k3s.agent_data || n.k3s.server_data).filter_map(|n| n.k3s.version.clone()).max()
}

/// Everything a node's lane is planned from.
pub(crate) struct Round<'a> {
    pub(crate) env: &'a Arc<Env>,
    pub(crate) facts: &'a K3sFacts,
    pub(crate) state: &'a State,
    pub(crate) fresh: &'a BTreeSet<String>,
    pub(crate) version: K3sVersion,
    /// The server that makes the cluster, or the one that others join through.
    pub(crate) anchor: &'a NodeSpec,
    /// No server has data yet: the anchor makes a new cluster.
    pub(crate) founding: bool,
}

impl<'a> Round<'a> {
    /// The cluster's parts, for a step to keep.
    pub(crate) fn handle(&self) -> Arc<Env> {
        Arc::clone(self.env)
    }

    /// The facts of a node, unless it is flashed first.
    pub(crate) fn seen(&self, node: &str) -> Option<&'a NodeFacts> {
        if self.fresh.contains(node) { None } else { self.facts.up(node) }
    }

    /// Whether a server of this cluster has run on the node.
    pub(crate) fn serves(&self, node: &NodeSpec) -> bool {
        node.role == Role::ControlPlane && self.seen(&node.name).is_some_and(|n| n.k3s.datastore.is_some())
    }

    /// How the node enters the cluster. What its config says now is kept where it still leads somewhere: changing it
    /// would restart the node for nothing.
    pub(crate) fn entry(&self, node: &NodeSpec) -> Entry {
        let seen = self.seen(&node.name).and_then(|n| n.k3s.entry.clone());
        let alone = if self.env.is_ha() { Entry::Init } else { Entry::Alone };
        let kept = match &seen {
            Some(EntrySeen::Join(url)) => {
                let mut others = self.env.servers().filter(|s| s.name != node.name);
                let leads =
                    others.any(|s| self.env.join_url(s) == *url && (self.founding_is(s) || self.serves(s)));
                leads.then(|| Entry::Join(url.clone()))
            }
            _ => None,
        };
        match node.role {
            Role::ControlPlane if self.serves(node) => match kept {
                Some(kept) if self.env.is_ha() => kept,
                _ => alone,
            },
            Role::ControlPlane if self.founding_is(node) => alone,
            _ => kept.unwrap_or_else(|| Entry::Join(self.env.join_url(self.anchor))),
        }
    }

    fn founding_is(&self, node: &NodeSpec) -> bool {
        self.founding && self.anchor.name == node.name
    }
}

pub(crate) fn lanes(
    env: &Arc<Env>,
    facts: &K3sFacts,
    state: &State,
    fresh: &BTreeSet<String>,
) -> Result<Vec<Lane>, Failure> {
    for node in env.nodes.iter().filter(|n| !fresh.contains(&n.name)) {
        match facts.nodes.get(&node.name) {
            Some(Reach::Up(_)) => {}
            Some(Reach::Down(report)) => return Err(down(&node.name, report)),
            None => {
                return Err(Failure::new(
                    FailureClass::Unexpected,
                    format!("nobody looked at the node {}", node.name),
                ));
            }
        }
    }
    let seen = |n: &NodeSpec| if fresh.contains(&n.name) { None } else { facts.up(&n.name) };
    let founded = env.servers().find(|n| seen(n).is_some_and(|f| f.k3s.datastore.is_some()));
    let anchor = founded.or_else(|| env.servers().next()).ok_or_else(|| {
        Failure::new(FailureClass::Config, format!("the cluster {} has no control-plane node", env.name))
    })?;
    let version = upgrade::wanted_version(env, facts)?;
    let round = Round { env, facts, state, fresh, version, anchor, founding: founded.is_none() };
    adopt::check(&round)?;
    upgrade::check(&round)?;
    let hosts = host_facts(facts, fresh);
    let parts: BTreeMap<&str, node::Parts> = env
        .nodes
        .iter()
        .map(|n| Ok((n.name.as_str(), node::parts(&round, n, &hosts)?)))
        .collect::<Result<_, Failure>>()?;
    let mut lanes = Vec::new();
    for spec in &env.nodes {
        let steps = node::steps(&round, spec, &parts)?;
        if !steps.is_empty() {
            lanes.push(Lane { subject: Subject::node(&spec.name), steps });
        }
    }
    Ok(lanes)
}

/// The failure for a node that is down: what was tried, and the cause that was found.
pub(crate) fn down(node: &str, report: &FailureReport) -> Failure {
    let class = match report.class {
        FailureClass::Auth => FailureClass::Auth,
        FailureClass::Refused => FailureClass::Refused,
        _ => FailureClass::Unreachable,
    };
    let causes =
        std::iter::once(&report.message).chain(&report.causes).cloned().collect::<Vec<_>>().join(": ");
    Failure::new(class, format!("the node {node} cannot be used"))
        .hint(report.hint.clone().unwrap_or_else(|| {
            format!("Switch {node} on and check its address, or take it out of the document.")
        }))
        .source(Cause(causes))
}

/// A cause that was only kept as text.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Cause(String);
