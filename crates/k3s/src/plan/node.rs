//! One node's lane: which parts of k3s differ on it, and the steps that change them.

use std::{collections::BTreeMap, sync::Arc};

use turingpi_cluster::{Activity, HostFacts, HostStep, NodeSpec, Preparation, Role, prepare_steps};
use turingpi_engine::{Change, Failure, Risk, Step, StepDescription};

use super::{
    API, DISRUPT, ETCD_JOIN, Round, needs,
    quorum::{healthy, server_done},
};
use crate::{
    InstallMode, JOIN_TOKEN_KEY, NodeFacts, TOKEN_KEY, UnitOwner,
    config::{self, Entry},
    facts::applied_digest,
    paths,
    steps::{
        ApiStep, BackInCluster, Binary, ConfigStep, ForgetNode, Images, RegistriesTask, RunStep, TokenStep,
        UnitTask, binary_record,
    },
    unit,
};

/// What happens to a service that runs with other files than it shall.
const RESTARTED: &str = "restarted";

/// What differs on a node, and the steps of its preparation.
pub(super) struct Parts {
    prepare: Vec<Arc<dyn Step>>,
    pub(super) reboots: bool,
    binary: Option<Vec<Change>>,
    images: bool,
    registries: Option<Vec<Change>>,
    config: Option<Vec<Change>>,
    unit: Option<Vec<Change>>,
    /// The service runs now, or tries to.
    active: bool,
    /// It does its work, as far as can be seen.
    pub(super) healthy: bool,
    /// The service has to be started, restarted or enabled, or waited for.
    pub(super) run: Option<Vec<Change>>,
    entry: Entry,
}

impl Parts {
    /// Whether k3s will find other files when it starts. A mode alone makes no difference to it.
    fn files_change(&self) -> bool {
        let parts = [&self.binary, &self.registries, &self.config, &self.unit];
        parts.into_iter().flatten().flatten().any(|change| !change.what.ends_with(" mode"))
    }
    /// Whether something that runs is interrupted.
    pub(super) fn restarts(&self) -> bool {
        let older = |changes: &Vec<Change>| changes.iter().any(|c| c.new.as_deref() == Some(RESTARTED));
        self.active && self.run.as_ref().is_some_and(|run| self.files_change() || self.images || older(run))
    }
}

pub(super) fn parts(
    round: &Round<'_>,
    node: &NodeSpec,
    hosts: &BTreeMap<String, &HostFacts>,
) -> Result<Parts, Failure> {
    let seen = round.seen(&node.name);
    let active =
        seen.is_some_and(|n| n.host.unit(unit::unit_name(node.role)).activity() != Activity::Inactive);
    let preparation = Preparation {
        cluster: &round.env.name,
        node,
        nodes: &round.env.nodes,
        spec: &round.env.host,
        needs: &needs(round.env, node),
        facts: hosts,
        disruption_lock: active.then_some(DISRUPT),
    };
    let prepare: Vec<Arc<dyn Step>> = prepare_steps(&preparation, &round.env.hosts)
        .into_iter()
        .map(|step| back_in_cluster(round, node, active, step))
        .collect();
    let reboots = prepare.iter().any(|s| s.describe().risk == Risk::Disruptive);
    let entry = round.entry(node);
    let mut parts = Parts {
        prepare,
        reboots,
        binary: binary(round, seen),
        images: false,
        registries: registries(round, seen)?,
        config: config(round, node, seen, &entry)?,
        unit: unit_changes(node, seen),
        active,
        healthy: healthy(round, node, seen),
        run: None,
        entry,
    };
    parts.images = images(round, seen, parts.binary.is_some());
    parts.run = run(node, seen, &parts);
    Ok(parts)
}

/// A reboot of a node that was well in its cluster is over when it is so again. One that was not well is not waited
/// for: the reboot may be what mends it, or only the steps after it are.
fn back_in_cluster(round: &Round<'_>, node: &NodeSpec, active: bool, step: Arc<dyn Step>) -> Arc<dyn Step> {
    let was = round.facts.object(&node.name).filter(|o| o.ready.is_ready());
    let Some(was) = was.filter(|_| active && step.describe().risk == Risk::Disruptive) else { return step };
    let voter = was.condition("EtcdIsVoter").and_then(|c| c.status) == Some(true);
    Arc::new(BackInCluster { step, env: round.handle(), node: node.clone(), voter })
}

fn binary(round: &Round<'_>, seen: Option<&NodeFacts>) -> Option<Vec<Change>> {
    let wanted = &round.version;
    let Some(seen) = seen else { return Some(vec![Change::set("k3s", wanted.to_string())]) };
    match &seen.k3s.version {
        Some(version) if version == wanted => {
            let known: Option<String> =
                round.state.record(&binary_record(wanted, &seen.host.arch)).unwrap_or(None);
            let found = seen.host.digest(paths::BINARY);
            match (known, found) {
                (Some(known), Some(found)) if known != found => {
                    Some(vec![Change::replace(paths::BINARY, short(found), short(&known))])
                }
                _ => None,
            }
        }
        Some(version) => Some(vec![Change::replace("k3s", version.to_string(), wanted.to_string())]),
        None => Some(vec![Change::set("k3s", wanted.to_string())]),
    }
}

fn short(digest: &str) -> String {
    format!("sha256:{}", digest.get(..12).unwrap_or(digest))
}

fn images(round: &Round<'_>, seen: Option<&NodeFacts>, binary: bool) -> bool {
    let InstallMode::Airgap { .. } = round.env.releases.install() else { return false };
    binary || seen.is_none_or(|n| !n.k3s.agent_data)
}

fn registries(round: &Round<'_>, seen: Option<&NodeFacts>) -> Result<Option<Vec<Change>>, Failure> {
    let Some(file) = config::render_registries(&round.env.spec)? else {
        // What we wrote once goes with its section: it may hold passwords. What a person wrote stays.
        let ours = seen.is_some_and(|n| n.k3s.registries_ours);
        return Ok(
            ours.then(|| vec![Change::remove(paths::REGISTRIES, "the registries of an earlier document")])
        );
    };
    Ok(file_change(paths::REGISTRIES, &file.sha256(), seen, "the document's registries"))
}

/// The change of a file with secrets: told by mode and digest, never by content.
fn file_change(path: &str, sha256: &str, seen: Option<&NodeFacts>, new: &str) -> Option<Vec<Change>> {
    match seen.and_then(|n| n.host.files.get(path)) {
        Some(file) if file.sha256 == sha256 && file.mode == 0o600 => None,
        Some(file) if file.sha256 == sha256 => {
            Some(vec![Change::replace(format!("{path} mode"), format!("{:04o}", file.mode), "0600")])
        }
        Some(_) => Some(vec![Change::replace(path, "other content", new)]),
        None => Some(vec![Change::set(path, new)]),
    }
}

fn config(
    round: &Round<'_>,
    node: &NodeSpec,
    seen: Option<&NodeFacts>,
    entry: &Entry,
) -> Result<Option<Vec<Change>>, Failure> {
    let servers: Vec<&NodeSpec> = round.env.servers().collect();
    let input = round.env.config_input(node, &servers, entry);
    let summary = config::settings(&input).keys().cloned().collect::<Vec<_>>().join(", ");
    // A join token of an earlier cluster pins a CA that the new one will not have.
    let token = match entry {
        Entry::Alone | Entry::Init => round.state.secret(TOKEN_KEY),
        Entry::Join(_) if round.founding => None,
        Entry::Join(_) => round.state.secret(JOIN_TOKEN_KEY),
    };
    let Some(token) = token else {
        return Ok(Some(vec![Change::set(paths::CONFIG, summary)]));
    };
    let wanted = config::render(&input, token)?.sha256();
    Ok(file_change(paths::CONFIG, &wanted, seen, &summary))
}

fn unit_changes(node: &NodeSpec, seen: Option<&NodeFacts>) -> Option<Vec<Change>> {
    let path = unit::unit_path(node.role);
    let mut changes = Vec::new();
    match seen.map(|n| (n, n.host.files.get(path))) {
        None | Some((_, None)) => changes.push(Change::set(path, "our unit")),
        Some((node_facts, Some(file))) => {
            let text = unit::render_unit(node.role);
            if file.sha256 != crate::steps::sha256(text.as_bytes()) {
                let old = match node_facts.k3s.unit(node.role) {
                    UnitOwner::Installer => "the installer's unit",
                    _ => "another version of our unit",
                };
                changes.push(Change::replace(path, old, "our unit"));
            } else if file.mode != 0o644 {
                changes.push(Change::replace(format!("{path} mode"), format!("{:04o}", file.mode), "0644"));
            }
        }
    }
    let other = unit::other(node.role);
    if seen.is_some_and(|n| n.k3s.unit(other) != UnitOwner::Nobody) {
        changes.push(Change::remove(unit::unit_path(other), format!("a unit for a {other}")));
    }
    if changes.is_empty() { None } else { Some(changes) }
}

fn run(node: &NodeSpec, seen: Option<&NodeFacts>, parts: &Parts) -> Option<Vec<Change>> {
    let unit = unit::unit_name(node.role);
    let Some(seen) = seen else { return Some(vec![Change::set(unit, "active")]) };
    let state = seen.host.unit(unit);
    let mut changes = Vec::new();
    if state.activity() != Activity::Active {
        let old = if state.exists() { state.summary() } else { "not there".to_owned() };
        changes.push(Change::replace(unit, old, "active"));
    } else if parts.files_change() || parts.images {
        changes.push(Change::replace(unit, "active", RESTARTED));
    } else if seen.k3s.applied.as_deref() != Some(applied_digest(&seen.host.files, node.role).as_str()) {
        changes.push(Change::replace(unit, "active with older files", RESTARTED));
    } else if parts.reboots {
        changes.push(Change::set(unit, "active after the reboot"));
    }
    if !state.is_enabled() {
        changes.push(Change::set(format!("{unit} at boot"), "enabled"));
    }
    if changes.is_empty() { None } else { Some(changes) }
}

/// The steps of a node's lane, in order.
pub(super) fn steps(
    round: &Round<'_>,
    node: &NodeSpec,
    all: &BTreeMap<&str, Parts>,
) -> Result<Vec<Arc<dyn Step>>, Failure> {
    let Some(parts) = all.get(node.name.as_str()) else { return Ok(Vec::new()) };
    let planner = Planner { round, node, parts, all };
    planner.check_quorum()?;
    let mut steps: Vec<Arc<dyn Step>> =
        parts.prepare.iter().map(|step| planner.after_comebacks(Arc::clone(step))).collect();
    steps.extend(planner.forget());
    steps.extend(planner.token());
    steps.extend(planner.binary());
    steps.extend(planner.images());
    steps.extend(planner.registries());
    steps.extend(planner.config());
    steps.extend(planner.unit());
    steps.extend(planner.run());
    steps.extend(planner.api());
    Ok(steps)
}

#[derive(Clone, Copy)]
pub(super) struct Planner<'a> {
    pub(super) round: &'a Round<'a>,
    pub(super) node: &'a NodeSpec,
    pub(super) parts: &'a Parts,
    pub(super) all: &'a BTreeMap<&'a str, Parts>,
}

impl Planner<'_> {
    fn describe(&self, id: &str, title: impl Into<String>) -> StepDescription {
        StepDescription::new(format!("{}/{id}", self.node.name), title, "k3s")
    }

    fn with(description: StepDescription, changes: &[Change]) -> StepDescription {
        changes.iter().cloned().fold(description, StepDescription::change)
    }

    fn host_step(
        &self,
        description: StepDescription,
        task: impl turingpi_cluster::HostTask + 'static,
    ) -> Arc<dyn Step> {
        HostStep::new(description, &self.round.env.hosts, &self.node.name, task).shared()
    }

    fn is_anchor(&self) -> bool {
        self.node.name == self.round.anchor.name
    }

    pub(super) fn joins(&self) -> bool {
        matches!(self.parts.entry, Entry::Join(_))
    }

    /// A node that comes back empty is refused while its old object and password are still in the cluster; for a
    /// server the old object also stands for its etcd member.
    fn forget(&self) -> Option<Arc<dyn Step>> {
        let empty = self.round.seen(&self.node.name).is_none_or(|n| !n.k3s.agent_data);
        if !empty || self.round.founding || self.round.facts.object(&self.node.name).is_none() {
            return None;
        }
        let description = self
            .describe("k3s-forget", "Remove the old node object")
            .risk(Risk::Disruptive)
            .change(Change::remove(format!("node {}", self.node.name), "of its earlier installation"))
            .needs(API)
            .expected_seconds(5);
        Some(Arc::new(ForgetNode { description, env: self.round.handle(), node: self.node.name.clone() }))
    }

    fn token(&self) -> Option<Arc<dyn Step>> {
        if !self.is_anchor() || self.round.state.secret(TOKEN_KEY).is_some() {
            return None;
        }
        let (title, new) = if self.round.founding {
            ("Generate the join token", "a new secret")
        } else {
            ("Take over the join token", "the cluster's secret")
        };
        let description =
            StepDescription::new("k3s/token", title, "k3s").change(Change::set("state: join token", new));
        Some(Arc::new(TokenStep { description, env: self.round.handle(), server: self.node.name.clone() }))
    }

    /// Servers are upgraded one after the other: the next one gets its binary when the one before runs with it, so that
    /// a version that does not come up stops at the first, and a server that is started by chance meanwhile starts with
    /// what it ran before. Everybody else, also a node that is only joining now, follows when all of them are done: no
    /// kubelet is newer than a server. A member that is down comes first: without it none of the others may go.
    fn after_upgrades(&self, description: StepDescription) -> StepDescription {
        let upgraded = |s: &&NodeSpec| {
            self.round.serves(s)
                && self.all.get(s.name.as_str()).is_some_and(|p| p.active && p.binary.is_some())
        };
        let back: Vec<&NodeSpec> = self.comebacks().collect();
        if back.iter().any(|s| s.name == self.node.name) {
            // The others wait for it, not the other way round.
            return description;
        }
        let before = self.round.env.servers().filter(upgraded).take_while(|s| s.name != self.node.name);
        let before = before.filter(|s| back.iter().all(|b| b.name != s.name));
        let before: Vec<&NodeSpec> = back.iter().copied().chain(before).collect();
        before.into_iter().fold(description, |d, s| d.needs(server_done(&s.name)))
    }

    fn binary(&self) -> Option<Arc<dyn Step>> {
        let changes = self.parts.binary.as_ref()?;
        // A change of version on a node that runs is all there is: what the person approves must say so.
        let title = match self.parts.active && changes.iter().any(|c| c.what == "k3s") {
            true => format!("Upgrade k3s to {}, without a snapshot and without draining", self.round.version),
            false => format!("Install k3s {}", self.round.version),
        };
        let description = self.describe("k3s-binary", title).expected_seconds(20);
        let description = self.after_upgrades(Self::with(description, changes));
        let task = Binary { env: self.round.handle(), version: self.round.version.clone() };
        let step = HostStep::new(description, &self.round.env.hosts, &self.node.name, task.clone());
        Some(task.recorded(step))
    }

    fn images(&self) -> Option<Arc<dyn Step>> {
        if !self.parts.images {
            return None;
        }
        let description = self
            .describe("k3s-images", "Upload container images")
            .change(Change::set(paths::IMAGES, format!("images of {}", self.round.version)))
            .expected_seconds(60);
        let task = Images { env: self.round.handle(), version: self.round.version.clone() };
        Some(self.host_step(description, task))
    }

    fn registries(&self) -> Option<Arc<dyn Step>> {
        let changes = self.parts.registries.as_ref()?;
        let title = if self.round.env.spec.registries.is_some() {
            "Write registries.yaml"
        } else {
            "Remove registries.yaml"
        };
        let description = Self::with(self.describe("k3s-registries", title), changes);
        Some(self.host_step(description, RegistriesTask { env: self.round.handle() }))
    }

    fn config(&self) -> Option<Arc<dyn Step>> {
        let changes = self.parts.config.as_ref()?;
        let mut description = Self::with(self.describe("k3s-config", "Write the k3s config"), changes);
        if self.waits_for_api() {
            description = description.needs(API);
        }
        Some(Arc::new(ConfigStep {
            description,
            env: self.round.handle(),
            node: self.node.clone(),
            entry: self.parts.entry.clone(),
        }))
    }

    fn unit(&self) -> Option<Arc<dyn Step>> {
        let changes = self.parts.unit.as_ref()?;
        let description = Self::with(self.describe("k3s-unit", "Write the k3s unit"), changes);
        Some(self.host_step(description, UnitTask { role: self.node.role }))
    }

    fn run(&self) -> Option<Arc<dyn Step>> {
        let changes = self.parts.run.as_ref()?;
        let server = self.node.role == Role::ControlPlane;
        let (id, title) =
            if self.parts.restarts() { ("k3s-restart", "Restart k3s") } else { ("k3s-start", "Start k3s") };
        let seconds = if server { 60 } else { 30 };
        let mut description = Self::with(self.describe(id, title), changes).expected_seconds(seconds);
        if self.parts.restarts() {
            description = description.risk(Risk::Disruptive);
            if !(server && self.round.env.is_ha() && self.quorum_is_lost()) {
                description = description.lock(DISRUPT);
            }
            description = self.before_interruption().into_iter().fold(description, StepDescription::needs);
        }
        if self.waits_for_api() {
            description = description.needs(API);
        }
        let voter = server && self.round.env.is_ha();
        if voter && self.joins() && !self.round.serves(self.node) {
            description = description.lock(ETCD_JOIN);
        }
        // While a member of etcd is away no other one may go: also joining and coming back take the turn.
        let alone = self.round.serves(self.node) && self.quorum_is_lost();
        if voter && !self.round.founding && !self.parts.restarts() && !alone {
            description = description.lock(DISRUPT);
        }
        if server {
            description = description.reaches(server_done(&self.node.name));
        }
        let founder = self.round.founding && self.is_anchor();
        Some(Arc::new(RunStep {
            description,
            env: self.round.handle(),
            node: self.node.clone(),
            version: self.round.version.clone(),
            voter: voter && !founder,
            members: self.round.env.servers().filter(|s| self.round.serves(s)).count(),
            // The server that makes the API has nobody to ask about itself before its API step.
            registered: !founder,
        }))
    }

    fn api(&self) -> Option<Arc<dyn Step>> {
        if !self.is_anchor() {
            return None;
        }
        let known = self.round.state.secret(JOIN_TOKEN_KEY).is_some() && !self.round.founding;
        if known && self.parts.run.is_none() {
            return None;
        }
        let mut description = self
            .describe("k3s-api", "Wait for the Kubernetes API")
            .change(Change::set("Kubernetes API", "serves"))
            .reaches(API)
            .expected_seconds(30);
        if !known {
            description = description.change(Change::set("state: full join token", "of the cluster"));
        }
        Some(Arc::new(ApiStep { description, env: self.round.handle(), server: self.node.clone() }))
    }
}
