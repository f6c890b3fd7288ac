//! A small simulated world, a document that leads to it, and the verbs to try on it.

#![allow(dead_code, reason = "each test file uses a part of this")]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use secrecy::SecretString;
use tempfile::TempDir;
use tokio::sync::Notify;
use turingpi_provision::{
    Environment, Intent, Planned, Provision, SecretProvider, TeardownIntent,
    bmc::{BmcClient as _, HttpBmcClient, PerSlot, Power, Slot, Trust},
    cluster::{
        Endpoint, Role,
        kube::{ClusterApi, KubeRsApi},
    },
    document::{self, BoardCredentials, Document, SecretSource, Ssh},
    engine::{
        Approval, Cancellation, Event, EventKind, EventSink, Failure, FailureClass, FailureReport, Outcome,
        Summary, Timing,
    },
};
use turingpi_testkit::{
    BoardPlan, Durations, Gvr, ModuleKind, NodePlan, OsImage, Pace, Simulation, SimulationBuilder, SshKey,
};

/// The size of the raw image.
pub(crate) const IMAGE_BYTES: usize = 256 * 1024;
pub(crate) const USER: &str = "root";
pub(crate) const PASSWORD: &str = "turing-pw";

/// One server and one agent, both to be flashed.
pub(crate) const SMALL: &str = "
nodes:
  - { name: node1, role: control-plane, address: 10.10.88.73, slot: board1/1, image: armbian }
  - { name: node2, role: worker,        address: 10.10.88.74, slot: board1/2, image: armbian }
";

/// The same two as hosts that already run, without a board.
pub(crate) const HOSTS: &str = "
nodes:
  - { name: node1, role: control-plane, address: 10.10.88.73 }
  - { name: node2, role: worker,        address: 10.10.88.74 }
";

/// What a test changes of the world before it starts.
pub(crate) type Tweak = Box<dyn Fn(NodePlan) -> NodePlan>;

/// Writes a world down.
pub(crate) struct Plan {
    yaml: String,
    board: Box<dyn Fn(BoardPlan) -> BoardPlan>,
    tweak: Tweak,
    pace: Pace,
    durations: Durations,
    releases: Vec<String>,
    image: OsImage,
    strangers: Vec<NodePlan>,
}

/// A simulation, the document that leads to it, and a state folder.
pub(crate) struct World {
    pub(crate) simulation: Simulation,
    pub(crate) document: Document,
    pub(crate) timing: Timing,
    folder: TempDir,
}

/// A run and everything it said.
pub(crate) struct Run {
    pub(crate) result: Result<Summary, Failure>,
    pub(crate) events: Vec<Event>,
}

/// What is run.
pub(crate) enum Verb {
    Apply,
    ApplyWith(Intent, Approval),
    Destroy(TeardownIntent),
}

/// Nothing to ask and nobody to ask it.
struct NoSecrets;

#[async_trait]
impl SecretProvider for NoSecrets {
    async fn env(&self, _: &str) -> Option<SecretString> {
        None
    }
    async fn prompt(&self, _: &str) -> Option<SecretString> {
        None
    }
}

/// A world for the nodes (and whatever else) of `yaml`; name, version, board, keys and images are filled in.
pub(crate) fn world(yaml: &str) -> Plan {
    Plan {
        yaml: yaml.to_owned(),
        board: Box::new(|b| b),
        tweak: Box::new(|n| n),
        pace: Pace::scaled(0.0001),
        durations: Durations::default(),
        releases: Vec::new(),
        image: OsImage::armbian().with_size(IMAGE_BYTES),
        strangers: Vec::new(),
    }
}

impl Plan {
    /// Changes how nodes are planned, before they start.
    pub(crate) fn nodes(mut self, tweak: impl Fn(NodePlan) -> NodePlan + 'static) -> Self {
        self.tweak = Box::new(tweak);
        self
    }
    pub(crate) fn board(mut self, tweak: impl Fn(BoardPlan) -> BoardPlan + 'static) -> Self {
        self.board = Box::new(tweak);
        self
    }
    pub(crate) fn durations(mut self, change: impl Fn(&mut Durations)) -> Self {
        change(&mut self.durations);
        self
    }
    /// A node that the document does not name.
    pub(crate) fn stranger(mut self, node: NodePlan) -> Self {
        self.strangers.push(node);
        self
    }
    pub(crate) fn release(mut self, tag: &str) -> Self {
        self.releases.push(tag.to_owned());
        self
    }

    /// Another image than Armbian is served as every image.
    pub(crate) fn image(mut self, image: OsImage) -> Self {
        self.image = image.with_size(IMAGE_BYTES);
        self
    }

    pub(crate) async fn start(self) -> World {
        let mut text = "name: homelab\n".to_owned();
        if !self.yaml.contains("\nversion:") && !self.yaml.contains("\nchannel:") {
            text.push_str("version: v1.35.5+k3s1\n");
        }
        if self.yaml.contains("board1/") {
            text.push_str("boards: { board1: { bmc: 10.10.88.70, credentials: { password: prompt } } }\n");
        }
        if self.yaml.contains("image:") && !self.yaml.contains("images:") {
            text.push_str("images: { armbian: { source: ./armbian.img.xz } }\n");
        }
        text.push_str("ssh: { identity: id_ed25519, agent: false }\n");
        text.push_str(&self.yaml);
        let (document, _) = document::load(&text).unwrap_or_else(|m| panic!("{text}\n{:?}", m.0));
        self.start_document(document).await
    }

    /// A world for a document as it stands, with the logins of the simulation.
    pub(crate) async fn start_document(self, mut document: Document) -> World {
        let user = document.ssh.user.clone();
        document.ssh = Ssh { identity: Some("id_ed25519".into()), agent: Some(false), ..Ssh::default() };
        for node in &mut document.nodes {
            let own = node.ssh.take().unwrap_or_default();
            // What is reached through another host is reached directly here.
            node.ssh = Some(Ssh { user: own.user.clone().or(user.clone()), jump: Vec::new(), ..own });
        }
        let key = SshKey::generate().unwrap();
        let mut builder = self.build(&document, &key);
        if let Some(channel) = &document.channel {
            builder = builder.k3s_release("v1.35.5+k3s1").k3s_channel(channel, "v1.35.5+k3s1");
        }
        for tag in &self.releases {
            builder = builder.k3s_release(tag);
        }
        let simulation = builder.start().await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        private(&folder.path().join("id_ed25519"), key.private_openssh());
        private(&folder.path().join("password"), PASSWORD);
        let document = lead(document, &simulation, folder.path());
        World { simulation, document, timing: timing(), folder }
    }

    fn build(&self, document: &Document, key: &SshKey) -> SimulationBuilder {
        let mut builder = Simulation::builder().pace(self.pace).durations(self.durations);
        for board in document.boards.keys() {
            builder = builder.board((self.board)(BoardPlan::new(board).credentials(USER, PASSWORD)));
        }
        for node in &document.nodes {
            let mut plan = NodePlan::new(&node.name).address(node.address.parse().unwrap());
            if let Some(slot) = node.slot_ref().unwrap() {
                plan = plan.slot(&slot.board, slot.slot.number()).kind(ModuleKind::Rk1);
            }
            // A node without an image runs already, as it would have to for real.
            if node.image.is_none() {
                let user = node.ssh.as_ref().and_then(|s| s.user.as_deref()).unwrap_or("root");
                let image = OsImage::debian().with_size(64 * 1024);
                plan = plan.installed(image).running().user(user, PASSWORD).authorized_key(key.public_line());
            }
            builder = builder.node((self.tweak)(plan));
        }
        for stranger in &self.strangers {
            builder = builder.node(stranger.clone());
        }
        for image in document.images.keys() {
            builder = builder.image(image, self.image.clone());
        }
        if let Some(version) = &document.version {
            builder = builder.k3s_release(version);
        }
        builder
    }
}

/// Polls as fast as simulated time passes. A wait that ends after minutes for real ends after seconds here.
fn timing() -> Timing {
    Timing {
        poll: Duration::from_millis(5),
        retry_base: Duration::from_millis(5),
        retry_cap: Duration::from_millis(50),
        limit_factor: 0.05,
        ..Timing::default()
    }
}

/// The document with its endpoints replaced by those of the simulation.
pub(crate) fn at_endpoints(mut document: Document, simulation: &Simulation) -> Document {
    let endpoints = simulation.endpoints();
    for (name, board) in &mut document.boards {
        board.bmc.clone_from(&endpoints.boards[name].url);
    }
    let mut api = None;
    for node in &mut document.nodes {
        let endpoint = &endpoints.nodes[&node.name];
        let own = node.ssh.take().unwrap_or_default();
        let (host, port) = (Some(endpoint.ssh.ip().to_string()), Some(endpoint.ssh.port()));
        node.ssh = Some(Ssh { host, port, ..own });
        if node.role == Role::ControlPlane && api.is_none() {
            api = Some(Endpoint::new(endpoint.kube.ip().to_string(), endpoint.kube.port()));
        }
    }
    document.network.api_connect = api;
    for (name, image) in &mut document.images {
        let served = &endpoints.mirror.images[name];
        image.source.clone_from(&served.url);
        image.sha256 = Some(served.sha256.clone());
    }
    document.k3s.releases_url.clone_from(&endpoints.mirror.k3s_releases);
    document.k3s.channels_url.clone_from(&endpoints.mirror.k3s_channels);
    document
}

/// The same with the simulation's credentials, which lie in `folder`.
fn lead(document: Document, simulation: &Simulation, folder: &Path) -> Document {
    let mut document = at_endpoints(document, simulation);
    let endpoints = simulation.endpoints();
    let password = || SecretSource::File(folder.join("password"));
    for (name, board) in &mut document.boards {
        let username = endpoints.boards[name].username.clone();
        board.credentials = BoardCredentials { username, password: password() };
    }
    for ssh in document.nodes.iter_mut().filter_map(|node| node.ssh.as_mut()) {
        let sudo = ssh.user.as_ref().is_some_and(|user| user != "root");
        ssh.sudo_password = sudo.then(password);
    }
    document
}

/// Writes a file that is nobody else's.
pub(crate) fn private(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// Every file below a folder.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

impl World {
    /// The folder that paths of the document begin in.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
    pub(crate) fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }
    /// What is remembered, as it stands in the file.
    pub(crate) fn state(&self) -> serde_json::Value {
        let text =
            fs::read_to_string(self.state_dir().join("state.json")).unwrap_or_else(|_| "{}".to_owned());
        serde_json::from_str(&text).expect("the state is whole")
    }
    pub(crate) fn state_text(&self) -> String {
        fs::read_to_string(self.state_dir().join("state.json")).unwrap_or_default()
    }
    pub(crate) fn kubeconfig_text(&self) -> Option<String> {
        fs::read_to_string(self.state_dir().join("kubeconfig")).ok()
    }
    pub(crate) fn node(&self, name: &str) -> turingpi_testkit::NodeView {
        self.simulation.node(name)
    }
    pub(crate) fn flashes(&self) -> Vec<u32> {
        self.simulation.node_names().iter().map(|n| self.node(n).flash_count()).collect()
    }

    pub(crate) async fn open(&self) -> Provision {
        self.try_open().await.unwrap()
    }
    pub(crate) fn environment(&self) -> Environment {
        Environment {
            base: self.folder.path().to_owned(),
            home: None,
            state_dir: self.state_dir(),
            cache_dir: self.folder.path().join("cache"),
            proxy: turingpi_provision::Proxy::default(),
            ssh_agent: None,
            secrets: Arc::new(NoSecrets),
            timing: self.timing.clone(),
            owner: "me@here".to_owned(),
            version: "0.0.0".to_owned(),
        }
    }
    pub(crate) async fn try_open(&self) -> Result<Provision, Failure> {
        Provision::open(self.document.clone(), self.environment()).await
    }

    pub(crate) async fn plan(&self) -> Result<Planned, Failure> {
        self.open().await.plan(&Intent::default()).await
    }
    /// `id: what old -> new` of every change that a plan holds.
    pub(crate) async fn planned(&self) -> Vec<String> {
        lines(&self.plan().await.unwrap())
    }
    pub(crate) async fn apply(&self) -> Run {
        self.run(&Verb::Apply).await
    }
    pub(crate) async fn apply_with(&self, intent: &Intent, approval: &Approval) -> Run {
        self.go(&Verb::ApplyWith(intent.clone(), approval.clone()), &Cancellation::new(), |_| false).await.0
    }
    pub(crate) async fn destroy(&self, intent: &TeardownIntent) -> Run {
        self.run(&Verb::Destroy(intent.clone())).await
    }
    pub(crate) async fn run(&self, verb: &Verb) -> Run {
        self.go(verb, &Cancellation::new(), |_| false).await.0
    }
    /// Runs, and drops the run at the first event of which `crash` says so: what a kill does. Whether it was dropped.
    pub(crate) async fn go(
        &self,
        verb: &Verb,
        cancellation: &Cancellation,
        mut crash: impl FnMut(&Event) -> bool + Send + 'static,
    ) -> (Run, bool) {
        let signal = Arc::new(Notify::new());
        let heard = Arc::new(Mutex::new(Vec::new()));
        let watch = Mutex::new({
            let (signal, heard) = (Arc::clone(&signal), Arc::clone(&heard));
            move |event: &Event| {
                heard.lock().unwrap().push(event.clone());
                if crash(event) {
                    signal.notify_one();
                }
            }
        });
        let sink = Arc::new(move |event: &Event| (watch.lock().unwrap())(event));
        let end = tokio::select! {
            biased;
            () = signal.notified() => None,
            end = self.execute(verb, sink, cancellation) => Some(end),
        };
        let dropped = end.is_none();
        let result = end.unwrap_or_else(|| Err(Failure::new(FailureClass::Cancelled, "dropped by the test")));
        let events = heard.lock().unwrap().clone();
        (Run { result, events }, dropped)
    }
    pub(crate) async fn execute(
        &self,
        verb: &Verb,
        sink: Arc<dyn EventSink>,
        cancellation: &Cancellation,
    ) -> Result<Summary, Failure> {
        let provision = self.try_open().await?;
        let all = Approval::everything();
        match verb {
            Verb::Apply => provision.apply(&Intent::default(), &all, sink, cancellation).await,
            Verb::ApplyWith(intent, approval) => provision.apply(intent, approval, sink, cancellation).await,
            Verb::Destroy(intent) => provision.destroy(intent, &all, sink, cancellation).await,
        }
    }
    /// Applies, and insists that it converges and that there is nothing left to do.
    pub(crate) async fn converge(&self) -> Summary {
        let summary = self.apply().await.done();
        self.settled().await;
        summary
    }
    /// Insists that nothing is left to do, and that the cluster is ready.
    pub(crate) async fn settled(&self) {
        let left = self.planned().await;
        assert!(left.is_empty(), "still to do: {left:#?}");
        self.ready().await;
    }
    /// All nodes of the document are Ready in the world's own eyes.
    pub(crate) async fn ready(&self) {
        let kube = self.simulation.kube().expect("a cluster");
        for node in &self.document.nodes {
            let view = kube.store().get(&Gvr::NODES, None, &node.name).unwrap();
            assert_eq!(condition(&view, "Ready"), Some("True"), "{}", node.name);
        }
    }
    /// Somebody else switches a slot of `board1`.
    pub(crate) async fn switch(&self, slot: u8, power: Power) {
        let endpoint = &self.simulation.endpoints().boards["board1"];
        let client = HttpBmcClient::builder(endpoint.url.parse().unwrap())
            .credentials(USER, SecretString::from(PASSWORD))
            .trust(Trust::first_use(|_| true))
            .build()
            .unwrap();
        let mut change = PerSlot::new([None; 4]);
        change[Slot::try_from(slot).unwrap()] = Some(power);
        client.set_power(&change).await.unwrap();
    }
    /// A Kubernetes client made from the kubeconfig that was written.
    pub(crate) async fn kube(&self) -> impl ClusterApi + use<> {
        let kubeconfig = self.open().await.kubeconfig().await.unwrap();
        KubeRsApi::from_kubeconfig(&kubeconfig, None).unwrap()
    }
}

/// The status of a condition of a Node object.
pub(crate) fn condition<'a>(node: &'a serde_json::Value, kind: &str) -> Option<&'a str> {
    node["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == kind)?["status"].as_str()
}

/// `id: what old -> new` of every change that a plan holds.
pub(crate) fn lines(planned: &Planned) -> Vec<String> {
    let mut lines = Vec::new();
    for (_, step) in planned.preview.steps() {
        for change in &step.changes {
            let word = |v: &Option<String>| v.clone().unwrap_or_else(|| "-".to_owned());
            lines.push(format!(
                "{}: {} {} -> {}",
                step.id,
                change.what,
                word(&change.old),
                word(&change.new)
            ));
        }
        if step.changes.is_empty() {
            lines.push(format!("{}:", step.id));
        }
    }
    lines
}

impl Run {
    /// The summary of a run that must have converged.
    #[track_caller]
    pub(crate) fn done(self) -> Summary {
        match self.result {
            Ok(summary) => summary,
            Err(failure) => panic!("{:#?}\n{}", failure.report(), story(&self.events)),
        }
    }
    /// The failure of a run that must not have.
    #[track_caller]
    pub(crate) fn failed(&self) -> FailureReport {
        match &self.result {
            Ok(summary) => panic!("it converged: {summary:#?}\n{}", story(&self.events)),
            Err(failure) => failure.report(),
        }
    }
    /// Ids of steps that were done, in order.
    pub(crate) fn done_steps(&self) -> Vec<String> {
        let done = |e: &&Event| matches!(e.kind, EventKind::StepFinished { outcome: Outcome::Done, .. });
        self.events.iter().filter(done).filter_map(|e| e.step.clone()).collect()
    }
    pub(crate) fn said(&self, text: &str) -> bool {
        self.events.iter().any(|e| serde_json::to_string(e).unwrap().contains(text))
    }
}

/// What happened, one line an event.
pub(crate) fn story(events: &[Event]) -> String {
    let Some(first) = events.first() else { return "nothing".to_owned() };
    let line = |e: &Event| {
        let millis = (e.at - first.at).whole_milliseconds();
        format!("{millis:6} {:4} {}", e.seq, said(e))
    };
    events.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn said(e: &Event) -> String {
    match &e.kind {
        EventKind::Observed { round, preview, .. } => {
            let ids: Vec<&str> = preview.steps().map(|(_, s)| s.id.as_str()).collect();
            format!("observed, round {round}: {}", ids.join(" "))
        }
        kind => format!("{} {}", e.step.as_deref().unwrap_or("-"), serde_json::to_string(kind).unwrap()),
    }
}
