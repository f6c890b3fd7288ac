//! A toy world: slots that are flashed, nodes that boot and join. It can be cut off at any moment.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::sleep;
use turingpi_engine::{
    Event, EventSink, Failure, Generation, Lane, Plan, Reconcile, Risk, Stage, State, StateStore, Step,
    StepContext, StepDescription, Subject, Unit, Verdict,
};

pub(crate) const NODES: [&str; 3] = ["node1", "node2", "node3"];

#[derive(Default, Clone, Debug, PartialEq)]
pub(crate) struct Slot {
    /// What a look sees: set by the first byte that is written.
    pub(crate) image: Option<&'static str>,
    /// What no look can see: whether every byte was written.
    pub(crate) whole: bool,
    pub(crate) up: bool,
    pub(crate) joined: bool,
    pub(crate) flashes: usize,
}

/// Cuts the power of the tool: after that, nothing it does reaches the world or the store.
#[derive(Clone, Default)]
pub(crate) struct Power {
    off: Arc<AtomicBool>,
    cut: Arc<tokio::sync::Notify>,
}

impl Power {
    pub(crate) fn cut(&self) {
        self.off.store(true, Ordering::SeqCst);
        self.cut.notify_one();
    }
    /// Never returns once the power is off.
    pub(crate) async fn needed(&self) {
        if self.off.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
    }
    pub(crate) async fn gone(&self) {
        self.cut.notified().await;
    }
}

#[derive(Clone)]
pub(crate) struct World {
    slots: Arc<Mutex<BTreeMap<&'static str, Slot>>>,
    pub(crate) power: Power,
}

impl World {
    pub(crate) fn new() -> Self {
        let slots = NODES.iter().map(|n| (*n, Slot::default())).collect();
        Self { slots: Arc::new(Mutex::new(slots)), power: Power::default() }
    }
    /// The same world seen by a tool that was started again.
    pub(crate) fn restarted(&self) -> Self {
        Self { slots: Arc::clone(&self.slots), power: Power::default() }
    }
    pub(crate) fn slots(&self) -> MutexGuard<'_, BTreeMap<&'static str, Slot>> {
        self.slots.lock().unwrap()
    }
    pub(crate) fn slot(&self, node: &str) -> Slot {
        self.slots()[node].clone()
    }
    async fn change(&self, node: &str, change: impl FnOnce(&mut Slot)) {
        self.power.needed().await;
        change(self.slots().get_mut(node).unwrap());
    }
}

/// A sink that cuts the power at event number `at`.
pub(crate) struct CutAt {
    pub(crate) at: usize,
    pub(crate) seen: Arc<AtomicUsize>,
    pub(crate) power: Power,
}

impl EventSink for CutAt {
    fn emit(&self, _: &Event) {
        if self.seen.fetch_add(1, Ordering::SeqCst) + 1 == self.at {
            self.power.cut();
        }
    }
}

/// A store that needs power.
pub(crate) struct PoweredStore<S> {
    pub(crate) store: S,
    pub(crate) power: Power,
}

#[async_trait]
impl<S: StateStore> StateStore for PoweredStore<S> {
    async fn load(&self) -> Result<(State, Generation), Failure> {
        self.power.needed().await;
        self.store.load().await
    }
    async fn save(&self, state: &State, seen: Generation) -> Result<Generation, Failure> {
        self.power.needed().await;
        self.store.save(state, seen).await
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Work {
    Flash,
    Boot,
    Join,
}

struct NodeStep {
    world: World,
    node: &'static str,
    work: Work,
}

#[async_trait]
impl Step for NodeStep {
    fn describe(&self) -> StepDescription {
        let node = self.node;
        match self.work {
            Work::Flash => StepDescription::new(format!("{node}/flash"), "Flash the image", "flash")
                .risk(Risk::Destructive)
                .lock("board/transfer"),
            Work::Boot => StepDescription::new(format!("{node}/boot"), "Boot", "boot").risk(Risk::Disruptive),
            Work::Join if node == "node1" => {
                StepDescription::new(format!("{node}/join"), "Begin the cluster", "join").reaches("api")
            }
            Work::Join => {
                StepDescription::new(format!("{node}/join"), "Join the cluster", "join").needs("api")
            }
        }
    }

    async fn apply(&self, cx: &StepContext) -> Result<(), Failure> {
        let (world, node) = (&self.world, self.node);
        match self.work {
            Work::Flash => {
                world.power.needed().await;
                *world.slots().get_mut(node).unwrap() =
                    Slot { image: Some("armbian"), flashes: world.slot(node).flashes + 1, ..Slot::default() };
                for part in 1..=3 {
                    sleep(Duration::from_millis(200)).await;
                    cx.progress(part, Some(3), Unit::Items);
                }
                world.change(node, |s| s.whole = true).await;
            }
            Work::Boot => {
                world.change(node, |s| s.up = true).await;
            }
            Work::Join => {
                if node != "node1" {
                    assert!(world.slot("node1").joined, "joined before there was an API");
                }
                world.change(node, |s| s.joined = true).await;
            }
        }
        Ok(())
    }

    async fn verify(&self, _: &StepContext) -> Result<Verdict, Failure> {
        let slot = self.world.slot(self.node);
        let holds = match self.work {
            Work::Flash => slot.image.is_some(),
            Work::Boot => slot.up,
            Work::Join => slot.joined,
        };
        Ok(if holds { Verdict::Converged } else { Verdict::NotYet("not there".to_owned()) })
    }
}

#[async_trait]
impl Reconcile for World {
    type Observed = BTreeMap<&'static str, Slot>;

    async fn observe(&self, cx: &StepContext) -> Result<Self::Observed, Failure> {
        self.power.needed().await;
        cx.note("looked at three slots");
        Ok(self.slots().clone())
    }

    fn plan(&self, observed: &Self::Observed, state: &State) -> Result<Plan, Failure> {
        let step = |node, work| Arc::new(NodeStep { world: self.clone(), node, work }) as Arc<dyn Step>;
        let lane = |node: &&'static str, works: &[(Work, bool)]| Lane {
            subject: Subject::node(*node),
            steps: works.iter().filter(|(_, wanted)| *wanted).map(|(work, _)| step(*node, *work)).collect(),
        };
        let flash =
            |n: &str| observed[n].image.is_none() || state.in_doubt.contains_key(&format!("{n}/flash"));
        let image = |n| lane(n, &[(Work::Flash, flash(n)), (Work::Boot, flash(n) || !observed[*n].up)]);
        let join = |n| lane(n, &[(Work::Join, flash(n) || !observed[*n].joined)]);
        Ok(Plan {
            stages: vec![
                Stage { title: "image".to_owned(), lanes: NODES.iter().map(image).collect() },
                Stage { title: "cluster".to_owned(), lanes: NODES.iter().map(join).collect() },
            ],
        })
    }
}
