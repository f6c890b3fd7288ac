//! From a cluster to hosts without one.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use turingpi_bmc::{PerSlot, Power};
use turingpi_cluster::{
    Hosts, SlotRef,
    imaging::{Boards, bmc_failure, powered_off_key},
};
use turingpi_engine::{
    Change, Failure, Lane, Plan, Reconcile, Risk, Stage, State, Step, StepContext, StepDescription, Subject,
    Verdict,
};
use turingpi_k3s::{K3sFacts, Reach, TOKEN_KEY, TeardownOptions};

use crate::{
    Provision, TeardownIntent,
    look::{Look, Waits},
    provision::beware_of_newcomers,
};

/// The target of `destroy`.
pub(crate) struct Teardown<'a> {
    cluster: &'a Provision,
    intent: TeardownIntent,
    /// Nodes that were seen with power in this run.
    was_on: Mutex<BTreeSet<String>>,
}

/// What is left of a cluster.
#[derive(Debug)]
pub(crate) struct Left {
    k3s: K3sFacts,
    /// Slots of the document to switch off.
    powered: Vec<Powered>,
}

/// A slot that is on, or may be.
#[derive(Debug)]
struct Powered {
    node: String,
    place: SlotRef,
    /// The BMC says that it is on. What it says is what it was last asked for: when a request of ours was cut off, it may
    /// say "off" of a module that runs on.
    says_on: bool,
}

impl<'a> Teardown<'a> {
    pub(crate) fn new(cluster: &'a Provision, intent: TeardownIntent) -> Self {
        Self { cluster, intent, was_on: Mutex::default() }
    }

    /// Removes the kubeconfig of a cluster that is gone. Its tokens went with the plan; records of flashed slots stay,
    /// for the slots still hold what was written.
    pub(crate) async fn forget(&self) -> Result<(), Failure> {
        let path = self.cluster.kubeconfig_path();
        let mut backup = path.clone().into_os_string();
        // What merging into it left beside it holds the same certificates.
        backup.push(".turingpi-backup");
        for path in [path, backup.into()] {
            match tokio::fs::remove_file(&path).await {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Failure::new(
                        turingpi_engine::FailureClass::Config,
                        format!("cannot remove the kubeconfig `{}`", path.display()),
                    )
                    .source(e));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether a run that was interrupted took all off the node that this one would, and switched it off.
    fn is_done(&self, state: &State, node: &str) -> bool {
        let done: Option<String> = state.record(&powered_off_key(node)).ok().flatten();
        done.is_some_and(|done| done == WIPED || (done == KEPT && self.intent.keep_data))
    }

    /// The slots of the document that are on, when they are to be switched off.
    fn powered(&self, look: &mut Look, state: &State) -> Result<Vec<Powered>, Failure> {
        if !self.intent.power_off {
            return Ok(Vec::new());
        }
        let mut on = Vec::new();
        for node in &self.cluster.nodes {
            let Some(place) = &node.slot else { continue };
            match look.boards.get(&place.board) {
                Some(Ok(facts)) => {
                    let says_on = facts.power[place.slot] == Power::On;
                    if says_on || is_recorded(state, &switching_key(&node.name)) {
                        on.push(Powered { node: node.name.clone(), place: place.clone(), says_on });
                    }
                }
                Some(Err(_)) => {
                    if let Some(Err(failure)) = look.boards.remove(&place.board) {
                        return Err(failure);
                    }
                }
                _ => {}
            }
        }
        Ok(on)
    }
}

#[async_trait]
impl Reconcile for Teardown<'_> {
    type Observed = Left;

    async fn observe(&self, cx: &StepContext) -> Result<Left, Failure> {
        beware_of_newcomers(&self.cluster.hosts, &self.cluster.nodes, &cx.state().await?)?;
        let waits = if self.intent.skip_unreachable { Waits::ForNone } else { Waits::ForAll };
        let state = cx.state().await?;
        let mut look = Look::at(self.cluster, cx, &state, waits).await?;
        let powered = self.powered(&mut look, &state)?;
        let names = powered.iter().filter(|p| p.says_on).map(|p| p.node.clone());
        self.was_on.lock().unwrap_or_else(PoisonError::into_inner).extend(names);
        self.cluster.newcomers.remember(cx).await?;
        Ok(Left { k3s: self.cluster.k3s.observe_rest(cx, look.silent).await?, powered })
    }

    fn plan(&self, left: &Left, state: &State) -> Result<Plan, Failure> {
        let mut facts = left.k3s.clone();
        if self.intent.power_off {
            // A node that we switched off ourselves, in this run or in one that was interrupted, has nothing left to take
            // down: that was done before. So has one of a cluster that is forgotten: that is the last thing done before
            // power goes. Any other node that is off may hold all of it.
            let was_on = self.was_on.lock().unwrap_or_else(PoisonError::into_inner);
            let forgotten = state.secret(TOKEN_KEY).is_none() && state.record_keys("k3s/").next().is_none();
            let off = |name: &str| {
                self.cluster.nodes.iter().any(|n| n.name == name && n.slot.is_some())
                    && !left.powered.iter().any(|p| p.says_on && p.node == name)
                    && (forgotten || was_on.contains(name) || self.is_done(state, name))
            };
            facts.nodes.retain(|name, reach| matches!(reach, Reach::Up(_)) || !off(name));
        }
        let mut options =
            if self.intent.keep_data { TeardownOptions::keep_data() } else { TeardownOptions::wipe() };
        if !self.intent.drain {
            options = options.without_drain();
        }
        if self.intent.skip_unreachable {
            options = options.leaving_unreachable();
        }
        let mut plan = self.cluster.k3s.teardown(&facts, state, options)?;
        if !left.powered.is_empty() {
            let lanes = left
                .powered
                .iter()
                .map(|Powered { node, place, .. }| Lane {
                    subject: Subject::node(node),
                    steps: vec![std::sync::Arc::new(PowerOff {
                        node: node.clone(),
                        place: place.clone(),
                        boards: self.cluster.boards.clone(),
                        hosts: self.cluster.hosts.clone(),
                        clean: left.k3s.up(node).map(|_| if self.intent.keep_data { KEPT } else { WIPED }),
                    }) as std::sync::Arc<dyn Step>],
                })
                .collect();
            plan.stages.push(Stage { title: "Switch off".to_owned(), lanes });
        }
        Ok(plan)
    }
}

/// Switches a slot off.
struct PowerOff {
    node: String,
    place: SlotRef,
    boards: Boards,
    hosts: Hosts,
    /// What the steps before this one left of the node's data; `None` when it was left out.
    clean: Option<&'static str>,
}

/// What [`powered_off_key`] holds: k3s is gone, and its data is kept.
const KEPT: &str = "kept";
/// Its data is gone, too.
const WIPED: &str = "wiped";

/// The key under which the state keeps that a request to switch the node off is on its way.
fn switching_key(node: &str) -> String {
    format!("switching-off/{node}")
}

fn is_recorded(state: &State, key: &str) -> bool {
    state.record_keys(key).any(|k| k == key)
}

#[async_trait]
impl Step for PowerOff {
    fn describe(&self) -> StepDescription {
        StepDescription::new(
            format!("{}/power-off", self.node),
            format!("Switch off slot {}", self.place),
            "power",
        )
        .risk(Risk::Disruptive)
        .change(Change::replace("power", "on", "off"))
    }

    async fn apply(&self, cx: &StepContext) -> Result<(), Failure> {
        // Before the power: a run after a crash cannot ask the node any more.
        let run = cx.run().to_owned();
        cx.update_state(|state| {
            if let Some(left) = self.clean {
                state.put_record(powered_off_key(&self.node), &left)?;
            }
            state.put_record(switching_key(&self.node), &run)
        })
        .await?;
        // The BMC cuts the power: what is still in memory goes to the disk first, where the node can be asked.
        if let Ok(host) = self.hosts.host(&self.node).await {
            let _ = host.script_within("write out its disks", "sync", &[], Duration::from_secs(60)).await;
        }
        let mut change = PerSlot::new([None; 4]);
        change[self.place.slot] = Some(Power::Off);
        let client = self.boards.client(&self.place.board)?;
        client.set_power(&change).await.map_err(|e| bmc_failure(&self.place.board, e))?;
        cx.update_state(|state| {
            state.remove_record(&switching_key(&self.node));
            Ok(())
        })
        .await
    }

    async fn verify(&self, _: &StepContext) -> Result<Verdict, Failure> {
        let client = self.boards.client(&self.place.board)?;
        let power = client.power().await.map_err(|e| bmc_failure(&self.place.board, e))?;
        Ok(match power[self.place.slot] {
            Power::Off => Verdict::Converged,
            _ => Verdict::NotYet("the BMC still says on".to_owned()),
        })
    }
}
