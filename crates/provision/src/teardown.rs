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
    /// Slots of the document that are on.
    powered: Vec<(String, SlotRef)>,
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

    /// The slots of the document that are on, when they are to be switched off.
    fn powered(&self, look: &mut Look) -> Result<Vec<(String, SlotRef)>, Failure> {
        if !self.intent.power_off {
            return Ok(Vec::new());
        }
        let mut on = Vec::new();
        for node in &self.cluster.nodes {
            let Some(place) = &node.slot else { continue };
            match look.boards.get(&place.board) {
                Some(Ok(facts)) if facts.power[place.slot] == Power::On => {
                    on.push((node.name.clone(), place.clone()))
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
        let mut look = Look::at(self.cluster, cx, &cx.state().await?, waits).await?;
        let powered = self.powered(&mut look)?;
        let names = powered.iter().map(|(name, _)| name.clone());
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
                    && !left.powered.iter().any(|(on, _)| on == name)
                    && (forgotten || was_on.contains(name) || is_done(state, name))
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
                .map(|(node, place)| Lane {
                    subject: Subject::node(node),
                    steps: vec![std::sync::Arc::new(PowerOff {
                        node: node.clone(),
                        place: place.clone(),
                        boards: self.cluster.boards.clone(),
                        hosts: self.cluster.hosts.clone(),
                        clean: left.k3s.up(node).is_some(),
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
    /// The steps before this one took everything off the node; it was not left out.
    clean: bool,
}

fn is_done(state: &State, node: &str) -> bool {
    let key = powered_off_key(node);
    state.record_keys(&key).any(|k| k == key)
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
        if self.clean {
            let run = cx.run().to_owned();
            cx.update_state(|state| state.put_record(powered_off_key(&self.node), &run)).await?;
        }
        // The BMC cuts the power: what is still in memory goes to the disk first, where the node can be asked.
        if let Ok(host) = self.hosts.host(&self.node).await {
            let _ = host.script_within("write out its disks", "sync", &[], Duration::from_secs(60)).await;
        }
        let mut change = PerSlot::new([None; 4]);
        change[self.place.slot] = Some(Power::Off);
        let client = self.boards.client(&self.place.board)?;
        client.set_power(&change).await.map_err(|e| bmc_failure(&self.place.board, e))
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
