//! From bare slots and hosts to a ready cluster: what to look at, and what follows from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

use async_trait::async_trait;
use turingpi_cluster::{
    NodeSpec, Role, SlotRef,
    imaging::{
        BoardFacts, Decision, FlashQueue, FlashReason, Neighbours, Reach, SlotRecord, bystanders, decide,
        powered_off_key, restore_power_step, slot_steps, stand_by_step,
    },
    rebooting_key,
};
use turingpi_engine::{
    Failure, FailureClass, FailureReport, Lane, Plan, Reconcile, Stage, State, StepContext, Subject,
};
use turingpi_k3s::K3sFacts;

use crate::{
    Intent, Provision, guard,
    look::{Look, Waits},
    provision::beware_of_newcomers,
};

/// The target of `apply`.
pub(crate) struct BringUp<'a> {
    cluster: &'a Provision,
    /// Nodes to flash again, with the flash that their slot's record named when this was asked for.
    reflash: BTreeMap<String, Option<String>>,
    /// It is run, not only looked at.
    runs: bool,
    /// What was told already.
    noted: Mutex<BTreeSet<String>>,
}

/// One look at everything.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) boards: BTreeMap<String, Result<BoardFacts, FailureReport>>,
    pub(crate) reach: BTreeMap<String, Reach>,
    pub(crate) k3s: K3sFacts,
}

impl<'a> BringUp<'a> {
    pub(crate) async fn new(cluster: &'a Provision, intent: &Intent) -> Result<Self, Failure> {
        use turingpi_engine::StateStore as _;
        let known = |name: &&String| cluster.nodes.iter().any(|node| node.name == **name);
        if let Some(name) = intent.reflash.iter().find(|name| !known(name)) {
            return Err(Failure::new(FailureClass::Usage, format!("there is no node `{name}` to flash"))
                .hint("Use one of the names under `nodes:` in the document."));
        }
        let mut reflash = BTreeMap::new();
        if !intent.reflash.is_empty() {
            let (state, _) = cluster.store.load().await?;
            for node in &cluster.nodes {
                if !intent.reflash.contains(&node.name) {
                    continue;
                }
                let (Some(place), Some(_)) = (&node.slot, &node.image) else {
                    return Err(Failure::new(
                        FailureClass::Usage,
                        format!("node `{}` cannot be flashed", node.name),
                    )
                    .hint("It needs `slot` and `image` in the document."));
                };
                reflash.insert(node.name.clone(), SlotRecord::read(&state, place)?.map(|r| r.flash));
            }
        }
        Ok(Self { cluster, reflash, runs: false, noted: Mutex::default() })
    }

    /// The same target, to be run under the lock.
    pub(crate) fn run(self) -> Self {
        Self { runs: true, ..self }
    }

    /// What each slot needs.
    fn decisions(&self, facts: &Facts, state: &State) -> Result<BTreeMap<String, Decision>, Failure> {
        let mut decisions = BTreeMap::new();
        for node in &self.cluster.nodes {
            let Some(place) = &node.slot else { continue };
            decisions.insert(node.name.clone(), self.decision(node, place, facts, state)?);
        }
        Ok(decisions)
    }

    fn decision(
        &self,
        node: &NodeSpec,
        place: &SlotRef,
        facts: &Facts,
        state: &State,
    ) -> Result<Decision, Failure> {
        if let Some(before) = self.reflash.get(&node.name) {
            let now = SlotRecord::read(state, place)?.map(|r| r.flash);
            if now == *before {
                return Ok(Decision::Flash(FlashReason::Requested));
            }
        }
        let reach = facts.reach.get(&node.name).copied().unwrap_or(Reach::Silent);
        match facts.boards.get(&place.board) {
            Some(Ok(board)) => decide(node, node.image.is_some(), board.slot(place.slot, reach), state),
            // A node that answers needs nothing of its board.
            _ if reach == Reach::LoggedIn => Ok(Decision::Leave),
            Some(Err(report)) => Err(Failure::new(
                report.class,
                format!("node {} does not answer, and neither does its board {}", node.name, place.board),
            )
            .hint(
                report
                    .hint
                    .clone()
                    .unwrap_or_else(|| "Look at the board first: `turingpi doctor`.".to_owned()),
            )
            .source(
                std::iter::once(&report.message)
                    .chain(&report.causes)
                    .cloned()
                    .collect::<Vec<_>>()
                    .join(": "),
            )),
            None => Ok(Decision::Leave),
        }
    }
}

#[async_trait]
impl Reconcile for BringUp<'_> {
    type Observed = Facts;

    async fn observe(&self, cx: &StepContext) -> Result<Facts, Failure> {
        let cluster = self.cluster;
        beware_of_newcomers(&cluster.hosts, &cluster.nodes, &cx.state().await?)?;
        let look = Look::at(cluster, cx, &cx.state().await?, Waits::UnlessStarted).await?;
        cluster.newcomers.remember(cx).await?;
        if self.runs {
            is_back(cx, &look.reach).await?;
        }
        for note in look.notes(cluster) {
            if self.noted.lock().unwrap_or_else(PoisonError::into_inner).insert(note.clone()) {
                cx.note(note);
            }
        }
        let k3s = cluster.k3s.observe_rest(cx, look.silent).await?;
        let boards =
            look.boards.into_iter().map(|(name, facts)| (name, facts.map_err(|f| f.report()))).collect();
        Ok(Facts { boards, reach: look.reach, k3s })
    }

    fn plan(&self, facts: &Facts, state: &State) -> Result<Plan, Failure> {
        let decisions = self.decisions(facts, state)?;
        guard::refuse_unknown(&self.cluster.nodes, &decisions)?;
        let named: BTreeSet<&str> = self.reflash.keys().map(String::as_str).collect();
        guard::refuse_swapped(&self.cluster.nodes, &named, &decisions, facts, state)?;
        let neighbours = neighbours(&self.cluster.nodes, facts, &decisions, state)?;
        let mut fresh = BTreeSet::new();
        let mut starting = BTreeSet::new();
        let mut imaging = BTreeMap::new();
        for node in &self.cluster.nodes {
            let Some(decision) = decisions.get(&node.name) else { continue };
            let reason = match decision {
                Decision::Flash(reason) => *reason,
                _ => FlashReason::NeverFlashed,
            };
            match decision {
                Decision::Flash(_) | Decision::Start { first_boot: true, .. } => {
                    fresh.insert(node.name.clone())
                }
                Decision::Start { .. } => starting.insert(node.name.clone()),
                _ => continue,
            };
            let image = node.image.as_ref().and_then(|name| self.cluster.images.get(name));
            let context = self.cluster.imaging(node, reason, neighbours.clone())?;
            imaging.insert(node.name.clone(), slot_steps(node, image, decision, &context));
        }
        let mut lanes: Vec<Lane> = self
            .cluster
            .boards
            .names()
            .filter_map(|board| {
                let (nodes, boards) = (&self.cluster.nodes, &self.cluster.boards);
                // Nothing is flashed before everything that shall run does.
                let stand_by = stand_by_step(board, nodes, &neighbours, boards);
                let step = stand_by
                    .filter(|_| starting.is_empty())
                    .or_else(|| restore_power_step(board, state, boards))?;
                Some(Lane { subject: Subject::board(board), steps: vec![step] })
            })
            .collect();
        if !starting.is_empty() {
            // What runs on a node that is off cannot be known before it is on: start it, then look again.
            lanes.extend(self.in_order().filter(|n| starting.contains(&n.name)).filter_map(|node| {
                Some(Lane { subject: Subject::node(&node.name), steps: imaging.remove(&node.name)? })
            }));
            return Ok(Plan { stages: vec![Stage { title: "Start nodes".to_owned(), lanes }] });
        }
        let mut k3s: BTreeMap<String, Lane> = self
            .cluster
            .k3s
            .lanes(&facts.k3s, state, &fresh)?
            .into_iter()
            .map(|lane| (lane.subject.name.clone(), lane))
            .collect();
        for node in self.in_order() {
            let mut steps = imaging.remove(&node.name).unwrap_or_default();
            steps.extend(k3s.remove(&node.name).map(|lane| lane.steps).unwrap_or_default());
            if !steps.is_empty() {
                lanes.push(Lane { subject: Subject::node(&node.name), steps });
            }
        }
        let mut stages = vec![Stage { title: "Bring up nodes".to_owned(), lanes }];
        if let Some(lane) = self.cluster.k3s.finish(&facts.k3s, state) {
            stages.push(Stage { title: "Finish the cluster".to_owned(), lanes: vec![lane] });
        }
        Ok(Plan { stages })
    }
}

impl BringUp<'_> {
    /// Servers first: everybody else waits for them, so their slots are flashed first.
    fn in_order(&self) -> impl Iterator<Item = &NodeSpec> {
        let (servers, agents): (Vec<_>, Vec<_>) =
            self.cluster.nodes.iter().partition(|n| n.role == Role::ControlPlane);
        servers.into_iter().chain(agents)
    }
}

/// A node that answers is back from whatever reboot it was in, and may get from now on what a `destroy` has to take off
/// it again.
async fn is_back(cx: &StepContext, reach: &BTreeMap<String, Reach>) -> Result<(), Failure> {
    let state = cx.state().await?;
    let up = reach.iter().filter(|(_, reach)| **reach == Reach::LoggedIn);
    let keys: Vec<String> = up
        .flat_map(|(name, _)| [powered_off_key(name), rebooting_key(name)])
        .filter(|key| state.record_keys(key).any(|k| k == key))
        .collect();
    if keys.is_empty() {
        return Ok(());
    }
    cx.update_state(|state| {
        keys.iter().for_each(|key| state.remove_record(key));
        Ok(())
    })
    .await
}

fn neighbours(
    nodes: &[NodeSpec],
    facts: &Facts,
    decisions: &BTreeMap<String, Decision>,
    state: &State,
) -> Result<Neighbours, Failure> {
    let mut neighbours = Neighbours::default();
    for node in nodes {
        let Some(place) = &node.slot else { continue };
        if matches!(decisions.get(&node.name), Some(Decision::Flash(_))) {
            neighbours.flashed_too.insert(place.clone());
        } else if facts.reach.get(&node.name) == Some(&Reach::LoggedIn) {
            neighbours.running.insert(place.clone());
        }
    }
    for (name, board) in &facts.boards {
        if let Ok(board) = board {
            let announced = bystanders(name, board, state, &neighbours)?;
            neighbours.announced.extend(announced);
        }
    }
    neighbours.queue = FlashQueue::new(neighbours.flashed_too.iter().cloned());
    Ok(neighbours)
}
