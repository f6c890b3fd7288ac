//! One world with all its doors open.

mod endpoints;
mod plan;
mod view;

use std::{
    collections::BTreeMap,
    io::{Error, ErrorKind, Result},
    net::SocketAddr,
    sync::Arc,
};

pub use endpoints::{BoardEndpoint, Endpoints, ImageEndpoint, MirrorEndpoint, NodeEndpoint};
pub use plan::NodePlan;
pub use view::{FileView, KubeView, NodeView, UnitView};

use crate::{
    Board, BoardPlan, BoardView, Durations, Faults, Mirror, MirrorPlan, Module, ModuleKind, OsImage, Pace,
    Surroundings,
    door::sshd,
    node::{Node, module::Slotted, rootfs},
    world::World,
};

/// A running simulation. Dropping it closes its doors and ends its nodes.
///
/// ```no_run
/// use turingpi_testkit::{BoardPlan, NodePlan, OsImage, Simulation};
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let simulation = Simulation::builder()
///     .board(BoardPlan::new("board1"))
///     .node(NodePlan::new("node1").address("10.10.88.73".parse()?).slot("board1", 1))
///     .image("armbian", OsImage::armbian())
///     .start()
///     .await?;
/// let url = &simulation.endpoints().boards["board1"].url;
/// # let _ = url;
/// simulation.shutdown().await;
/// # Ok(())
/// # }
/// ```
pub struct Simulation {
    world: Arc<World>,
    boards: BTreeMap<String, Board>,
    mirror: Mirror,
    doors: BTreeMap<String, Doors>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

#[derive(Debug, Clone, Copy)]
struct Doors {
    ssh: SocketAddr,
    kube: SocketAddr,
}

/// Writes down what a simulation consists of.
#[derive(Debug, Default)]
pub struct SimulationBuilder {
    pace: Option<Pace>,
    durations: Option<Durations>,
    faults: Option<Faults>,
    boards: Vec<BoardPlan>,
    nodes: Vec<NodePlan>,
    mirror: MirrorPlan,
}

impl SimulationBuilder {
    /// How fast simulated time passes; [`Pace::INSTANT`] when not set.
    #[must_use]
    pub fn pace(mut self, pace: Pace) -> Self {
        self.pace = Some(pace);
        self
    }
    /// The nominal durations.
    #[must_use]
    pub fn durations(mut self, durations: Durations) -> Self {
        self.durations = Some(durations);
        self
    }
    /// Faults that are armed before anything starts.
    #[must_use]
    pub fn faults(mut self, faults: Faults) -> Self {
        self.faults = Some(faults);
        self
    }
    /// Adds a board.
    #[must_use]
    pub fn board(mut self, board: BoardPlan) -> Self {
        self.boards.push(board);
        self
    }
    /// Adds a node.
    #[must_use]
    pub fn node(mut self, node: NodePlan) -> Self {
        self.nodes.push(node);
        self
    }
    /// Lets the mirror serve an OS image as `/images/<name>.img.xz`.
    #[must_use]
    pub fn image(mut self, name: impl Into<String>, image: OsImage) -> Self {
        self.mirror = self.mirror.image(name, image);
        self
    }
    /// Lets the mirror serve a k3s release. A default set is served when none is named.
    #[must_use]
    pub fn k3s_release(mut self, tag: impl Into<String>) -> Self {
        self.mirror = self.mirror.k3s_release(tag);
        self
    }
    /// Lets the mirror's channel server answer with a release.
    #[must_use]
    pub fn k3s_channel(mut self, name: impl Into<String>, tag: impl Into<String>) -> Self {
        self.mirror = self.mirror.channel(name, tag);
        self
    }
    /// Opens all doors on ephemeral ports of 127.0.0.1.
    ///
    /// # Errors
    /// No port can be had, or the plan contradicts itself: two nodes of one name, a slot of a board that is not there,
    /// two nodes in one slot, a node that runs without a system.
    pub async fn start(self) -> Result<Simulation> {
        check(&self.boards, &self.nodes)?;
        let faults = self.faults.unwrap_or_default();
        let pace = self.pace.unwrap_or(Pace::INSTANT);
        let durations = self.durations.unwrap_or_default();
        let world = Arc::new(World::new(pace, durations, faults.clone()));
        let mirror = Mirror::start(self.mirror, faults.clone()).await?;
        world.set_mirror(mirror.k3s_releases(), mirror.k3s_channels());
        let mut doors = BTreeMap::new();
        let mut tasks = Vec::new();
        let mut nodes = Vec::new();
        for plan in self.nodes {
            let node = Arc::new(Node::new(plan, Arc::downgrade(&world)));
            let kube = std::net::TcpListener::bind(("127.0.0.1", 0))?;
            kube.set_nonblocking(true)?;
            let kube_address = kube.local_addr()?;
            node.set_kube_door(kube);
            let (ssh, task) = sshd::open(&node).await?;
            tasks.push(task);
            tasks.push(tokio::spawn(crate::node::k3s::door::closed(Arc::clone(&node))));
            doors.insert(node.name.clone(), Doors { ssh, kube: kube_address });
            install(&node);
            nodes.push(node);
        }
        world.set_nodes(nodes);
        let surroundings = Surroundings { pace, durations, faults };
        let mut boards = BTreeMap::new();
        for plan in self.boards {
            let name = plan.name().to_owned();
            let module = |slot: u8| {
                let here = |node: &&Arc<Node>| {
                    node.plan.slot.as_ref().is_some_and(|(board, number)| *board == name && *number == slot)
                };
                world
                    .nodes()
                    .iter()
                    .find(here)
                    .map(|node| Arc::new(Slotted(Arc::clone(node))) as Arc<dyn Module>)
            };
            let modules = [module(1), module(2), module(3), module(4)];
            let board = Board::start(plan, modules, surroundings.clone()).await?;
            boards.insert(name, board);
        }
        for node in world.nodes() {
            if node.plan.running {
                // It has been up for long: no boot to wait for.
                node.start_running();
            }
        }
        Ok(Simulation { world, boards, mirror, doors, tasks })
    }
}

fn check(boards: &[BoardPlan], nodes: &[NodePlan]) -> Result<()> {
    let refuse = |text: String| Err(Error::new(ErrorKind::InvalidInput, text));
    for (index, node) in nodes.iter().enumerate() {
        let others = nodes.get(index + 1..).unwrap_or_default();
        if others.iter().any(|other| other.name == node.name) {
            return refuse(format!("two nodes are called `{}`", node.name));
        }
        if let Some((board, slot)) = &node.slot {
            if !boards.iter().any(|b| b.name() == board) {
                return refuse(format!(
                    "node `{}` sits in board `{board}`, which is not part of the simulation",
                    node.name
                ));
            }
            if !(1..=4).contains(slot) {
                return refuse(format!("node `{}` sits in slot {slot}; slots are 1 to 4", node.name));
            }
            if others.iter().any(|other| other.slot == node.slot) {
                return refuse(format!("two nodes sit in slot {slot} of board `{board}`"));
            }
        }
        if node.running && node.installed.is_none() {
            return refuse(format!("node `{}` cannot run without an installed system", node.name));
        }
        if node.kind == ModuleKind::Cm4Lite && node.slot.is_some() && node.installed.is_some() {
            return refuse(format!("node `{}` has no eMMC to install a system on", node.name));
        }
    }
    Ok(())
}

/// Puts the plan's system on a node's disk.
fn install(node: &Arc<Node>) {
    if let Some(image) = &node.plan.nvme_system {
        let mut os = rootfs::from_image(image, &node.plan);
        rootfs::move_to_nvme(&mut os);
        node.set_os(Some(os));
    } else if let Some(image) = &node.plan.installed {
        let mut os = rootfs::from_image(image, &node.plan);
        rootfs::settle(&mut os, &node.plan);
        node.set_os(Some(os));
    }
}

impl Simulation {
    /// Starts to write a simulation down.
    pub fn builder() -> SimulationBuilder {
        SimulationBuilder::default()
    }
    /// Where the doors are.
    pub fn endpoints(&self) -> Endpoints {
        let boards = self.boards.iter().map(|(name, board)| {
            let view = board.view();
            let endpoint = BoardEndpoint {
                url: view.url(),
                plain_url: view.plain_url(),
                firmware: view.firmware(),
                revision: view.revision(),
                username: view.username().to_owned(),
                password: view.password().to_owned(),
                fingerprint: view.fingerprint().unwrap_or_default(),
            };
            (name.clone(), endpoint)
        });
        let nodes = self.world.nodes().iter().filter_map(|node| {
            let doors = self.doors.get(&node.name)?;
            let endpoint = NodeEndpoint {
                address: node.plan.address,
                ssh: doors.ssh,
                kube: doors.kube,
                slot: node.plan.slot.clone(),
                host_key: node.os(|os| sshd::host_key(&os.vfs)).flatten(),
            };
            Some((node.name.clone(), endpoint))
        });
        let image = |served: crate::ServedImage| {
            (served.name, ImageEndpoint { url: served.url, sha256: served.sha256, bytes: served.bytes })
        };
        Endpoints {
            boards: boards.collect(),
            nodes: nodes.collect(),
            mirror: MirrorEndpoint {
                k3s_releases: self.mirror.k3s_releases(),
                k3s_channels: self.mirror.k3s_channels(),
                images: self.mirror.images().into_iter().map(image).collect(),
            },
        }
    }
    /// The faults, to arm more of them.
    pub fn faults(&self) -> &Faults {
        &self.world.faults
    }
    /// A node, for assertions.
    ///
    /// # Panics
    /// The plan has no node of this name: a mistake in the test.
    pub fn node(&self, name: &str) -> NodeView {
        match self.world.node(name) {
            Some(node) => NodeView::new(Arc::clone(node)),
            None => missing("node", name),
        }
    }
    /// All nodes' names.
    pub fn node_names(&self) -> Vec<String> {
        self.world.nodes().iter().map(|node| node.name.clone()).collect()
    }
    /// A board, for assertions.
    ///
    /// # Panics
    /// The plan has no board of this name: a mistake in the test.
    pub fn board(&self, name: &str) -> BoardView {
        match self.boards.get(name) {
            Some(board) => board.view(),
            None => missing("board", name),
        }
    }
    /// The download mirror.
    pub fn mirror(&self) -> &Mirror {
        &self.mirror
    }
    /// The cluster that was started last, once there is one.
    pub fn kube(&self) -> Option<KubeView> {
        self.world.clusters().pop().map(KubeView::new)
    }
    /// All clusters, oldest first.
    pub fn clusters(&self) -> Vec<KubeView> {
        self.world.clusters().into_iter().map(KubeView::new).collect()
    }
    /// The power of a node fails: everything that runs on it ends at once, and nothing is written any more.
    ///
    /// # Panics
    /// The plan has no node of this name: a mistake in the test.
    pub async fn power_cut(&self, node: &str) {
        match self.world.node(node) {
            Some(node) => node.set_power(false, false),
            None => missing("node", node),
        }
    }
    /// The power of a node comes back.
    ///
    /// # Panics
    /// The plan has no node of this name: a mistake in the test.
    pub async fn power_restore(&self, node: &str) {
        match self.world.node(node) {
            Some(node) => node.set_power(true, false),
            None => missing("node", node),
        }
    }
    /// Closes all doors and ends what runs.
    pub async fn shutdown(mut self) {
        for board in std::mem::take(&mut self.boards).into_values() {
            board.shutdown().await;
        }
        self.end();
    }
    fn end(&mut self) {
        for node in self.world.nodes() {
            node.halt();
        }
        for task in self.tasks.drain(..) {
            task.abort();
        }
    }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        self.end();
    }
}

impl std::fmt::Debug for Simulation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Simulation")
            .field("boards", &self.boards.keys())
            .field("nodes", &self.doors.keys())
            .finish_non_exhaustive()
    }
}

#[allow(clippy::panic, reason = "a test names something that its own plan does not have")]
fn missing(what: &str, name: &str) -> ! {
    panic!("the simulation has no {what} `{name}`")
}
