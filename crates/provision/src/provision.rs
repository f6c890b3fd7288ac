//! A document with everything opened around it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use turingpi_cluster::{
    Fetcher, Hosts, NodeSpec,
    first_boot::{Credentials, FirstBootSpec},
    imaging::{
        Boards, FirstBootState, FlashReason, ImageSpec, ImagingContext, ImagingLimits, KnownHostsFile,
        Neighbours, SlotRecord, flash_step_id,
    },
    kube::{ClusterApi, KubeRsApi, Kubeconfig},
};
use turingpi_engine::{
    Approval, Cancellation, Event, EventSink, Executor, ExecutorBuilder, Failure, FailureClass, FileLock,
    FileStateStore, LockOwner, Preview, State, StateStore, StepContext, Summary,
};
use turingpi_k3s::{K3sCluster, KubeconfigFile};
use turingpi_ssh::RusshConnector;

use crate::{
    boards::{self, Newcomers},
    bring_up::BringUp,
    document::Document,
    environment::{Environment, Secrets},
    lease::Lease,
    targets,
    teardown::Teardown,
};

/// A cluster of one document: plan it, apply it, look at it, take it down.
pub struct Provision {
    pub(crate) document: Document,
    pub(crate) environment: Environment,
    pub(crate) nodes: Vec<NodeSpec>,
    pub(crate) boards: Boards,
    pub(crate) newcomers: Newcomers,
    pub(crate) hosts: Hosts,
    pub(crate) images: BTreeMap<String, ImageSpec>,
    image_logins: BTreeMap<String, Credentials>,
    pub(crate) k3s: K3sCluster,
    pub(crate) store: Arc<FileStateStore>,
    fetcher: Fetcher,
    newcomer: Arc<RusshConnector>,
    /// The newcomer's known_hosts; goes away with this.
    _scratch: tempfile::TempDir,
    host_keys: Arc<KnownHostsFile>,
    authorized_keys: Vec<String>,
}

/// What is wanted beyond the document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Intent {
    /// Nodes that are flashed again, whatever they hold.
    pub reflash: BTreeSet<String>,
}

/// How a cluster is taken down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TeardownIntent {
    /// Leave datastore, volumes and token on the nodes.
    pub keep_data: bool,
    /// Switch off the nodes that sit on a board.
    pub power_off: bool,
    /// Move workloads away first.
    pub drain: bool,
    /// Go on without nodes that do not answer.
    pub skip_unreachable: bool,
}

impl Default for TeardownIntent {
    fn default() -> Self {
        Self { keep_data: false, power_off: false, drain: true, skip_unreachable: false }
    }
}

/// What would be done.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The steps.
    pub preview: Preview,
    /// What a person should know beside them: pinned certificates, new host keys.
    pub notes: Vec<String>,
}

impl Provision {
    /// Builds the clients of a document. Reads the state and the files the document names; connects to nothing.
    ///
    /// # Errors
    /// `Config` when a secret, key or file is missing or unreadable.
    pub async fn open(document: Document, environment: Environment) -> Result<Self, Failure> {
        private_folder(&environment.state_dir).await?;
        let store = Arc::new(FileStateStore::new(environment.state_dir.join("state.json")));
        let (state, _) = store.load().await?;
        let secrets = Secrets::new(environment.clone());
        let newcomers = Newcomers::default();
        let boards = boards::clients(&document, &secrets, &state, &environment.timing, &newcomers).await?;
        let nodes = targets::nodes(&document, &environment, &secrets).await?;
        let images = targets::images(&document, &environment)?;
        let image_logins = targets::image_logins(&document, &secrets).await?;
        let authorized_keys = targets::authorized_keys(&document, &environment, &secrets).await?;

        let known_hosts = environment.state_dir.join("known_hosts");
        let connect = Duration::from_secs(document.timeouts.connect_seconds);
        let mut connector = RusshConnector::builder().known_hosts(&known_hosts).connect_limit(connect);
        for extra in targets::extra_known_hosts(&document, &environment) {
            connector = connector.extra_known_hosts(extra);
        }
        let connector = Arc::new(connector.build());
        // Keys of freshly flashed systems are not known and change once more during their first boot: what this
        // connector notes is thrown away, and only the key seen at the end of the first boot is pinned.
        let scratch = tempfile::tempdir().map_err(|e| {
            Failure::new(FailureClass::Unexpected, "cannot make a temporary folder").source(e)
        })?;
        let newcomer = RusshConnector::builder()
            .known_hosts(scratch.path().join("known_hosts"))
            .extra_known_hosts(&known_hosts)
            .connect_limit(connect)
            .build();
        let hosts = Hosts::new(connector, nodes.iter().map(|n| (n.name.clone(), n.ssh.clone())));
        beware_of_newcomers(&hosts, &nodes, &state)?;
        let fetcher = Fetcher::new(&environment.cache_dir, environment.proxy.options()?)?;
        let k3s = K3sCluster::builder(&document.name)
            .nodes(nodes.clone())
            .spec(targets::k3s(&document, &environment, &secrets).await?)
            .network(document.network.clone())
            .host(document.host.clone())
            .hosts(hosts.clone())
            .fetcher(fetcher.clone())
            .kubeconfig(
                KubeconfigFile::new(environment.state_dir.join("kubeconfig"))
                    .shown_as("kubeconfig of the state folder")
                    .ours_alone(),
            )
            .build()?;
        Ok(Self {
            document,
            environment,
            nodes,
            boards,
            newcomers,
            hosts,
            images,
            image_logins,
            k3s,
            store,
            fetcher,
            newcomer: Arc::new(newcomer),
            _scratch: scratch,
            host_keys: Arc::new(KnownHostsFile::new(known_hosts)),
            authorized_keys,
        })
    }

    /// The document.
    pub fn document(&self) -> &Document {
        &self.document
    }

    /// Where `apply` keeps the cluster's kubeconfig.
    pub fn kubeconfig_path(&self) -> PathBuf {
        self.environment.state_dir.join("kubeconfig")
    }

    /// Looks at everything as it is now and says what [`Provision::apply`] would do. Waits for nobody: for a plan that is
    /// shown before an apply use [`Provision::plan_for_apply`].
    ///
    /// # Errors
    /// `Refused` or `Unreachable` when nothing sensible can be planned.
    pub async fn plan(&self, intent: &Intent) -> Result<Planned, Failure> {
        let target = BringUp::new(self, intent).await?;
        let executor = |notes| self.executor("plan", notes, &Cancellation::new()).build();
        self.planned(executor, None, |executor| async move { executor.preview(&target).await }).await
    }

    /// As [`Provision::plan`], with the patience of an apply: a node that is coming up, after a reboot that a killed run
    /// left behind, is waited for. `sink` hears of these waits.
    ///
    /// # Errors
    /// As [`Provision::plan`]; `Cancelled` after a stop.
    pub async fn plan_for_apply(
        &self,
        intent: &Intent,
        sink: Arc<dyn EventSink>,
        cancellation: &Cancellation,
    ) -> Result<Planned, Failure> {
        let target = BringUp::new(self, intent).await?;
        let executor = |notes| self.executor("plan", notes, cancellation).patient(true).build();
        self.planned(executor, Some(sink), |executor| async move { executor.preview(&target).await }).await
    }

    /// Makes the cluster be what the document says.
    ///
    /// # Errors
    /// `Locked` while another run works on this cluster; `Unapproved` when the plan goes beyond `approval`; otherwise
    /// the first failure, after everything that does not depend on it was done.
    pub async fn apply(
        &self,
        intent: &Intent,
        approval: &Approval,
        sink: Arc<dyn EventSink>,
        cancellation: &Cancellation,
    ) -> Result<Summary, Failure> {
        let _lock = self.lock("apply")?;
        let lease = self.lease().await?;
        let target = BringUp::new(self, intent).await?.run();
        let result = self.executor("apply", sink, cancellation).build().converge(&target, approval).await;
        release(lease).await;
        result
    }

    /// Looks at everything and says what [`Provision::destroy`] would do.
    ///
    /// # Errors
    /// `Unreachable` for nodes that do not answer, unless the intent leaves them.
    pub async fn plan_teardown(&self, intent: &TeardownIntent) -> Result<Planned, Failure> {
        let target = Teardown::new(self, intent.clone());
        let executor = |notes| self.executor("plan", notes, &Cancellation::new()).build();
        self.planned(executor, None, |executor| async move { executor.preview(&target).await }).await
    }

    /// Takes the cluster down and verifies that nothing is left. Works on a half-built cluster.
    ///
    /// # Errors
    /// As [`Provision::apply`].
    pub async fn destroy(
        &self,
        intent: &TeardownIntent,
        approval: &Approval,
        sink: Arc<dyn EventSink>,
        cancellation: &Cancellation,
    ) -> Result<Summary, Failure> {
        let _lock = self.lock("destroy")?;
        let lease = self.lease().await?;
        let target = Teardown::new(self, intent.clone());
        let result = self.executor("destroy", sink, cancellation).build().converge(&target, approval).await;
        release(lease).await;
        let summary = result?;
        if !intent.keep_data {
            target.forget().await?;
        }
        Ok(summary)
    }

    /// The kubeconfig that `apply` kept.
    ///
    /// # Errors
    /// `Config` when there is none yet.
    pub async fn kubeconfig(&self) -> Result<Kubeconfig, Failure> {
        let path = self.kubeconfig_path();
        let text = tokio::fs::read_to_string(&path).await.map_err(|e| {
            Failure::new(
                FailureClass::Config,
                format!("there is no kubeconfig of `{}` yet", self.document.name),
            )
            .hint("`turingpi apply` writes it; `turingpi kubeconfig --refresh` fetches it from a server.")
            .source(e)
        })?;
        Kubeconfig::parse(&text)
    }

    /// Fetches the kubeconfig anew from a server and keeps it.
    ///
    /// # Errors
    /// `Unreachable` when no server has one.
    pub async fn refresh_kubeconfig(&self) -> Result<Kubeconfig, Failure> {
        let kubeconfig = self.k3s.fetch_kubeconfig().await?;
        kubeconfig.write_file(&self.kubeconfig_path())?;
        Ok(kubeconfig)
    }

    /// Ends all connections.
    pub async fn close(&self) {
        self.hosts.close().await;
    }

    pub(crate) fn context(&self) -> StepContext {
        self.executor("look", Arc::new(|_: &Event| {}), &Cancellation::new()).build().context()
    }

    /// The imaging context of a node.
    pub(crate) fn imaging(
        &self,
        node: &NodeSpec,
        reason: FlashReason,
        neighbours: Neighbours,
    ) -> Result<ImagingContext, Failure> {
        let mut first_boot = FirstBootSpec::new(&node.name, self.authorized_keys.clone());
        first_boot.static_address = targets::static_address(&self.document, node)?;
        let wanted = self.document.nodes.iter().find(|n| n.name == node.name);
        if let Some(login) = wanted.and_then(|n| self.image_logins.get(n.image.as_ref()?)) {
            // The one that is known to be right: sshd shuts callers out that guess too often.
            first_boot.credentials = vec![login.clone()];
        }
        Ok(ImagingContext {
            boards: self.boards.clone(),
            hosts: self.hosts.clone(),
            fetcher: self.fetcher.clone(),
            newcomer: self.newcomer.clone(),
            host_keys: self.host_keys.clone(),
            first_boot,
            reason,
            neighbours,
            limits: ImagingLimits::default(),
        })
    }

    async fn planned<F, Fut>(
        &self,
        executor: impl FnOnce(Arc<dyn EventSink>) -> Executor,
        sink: Option<Arc<dyn EventSink>>,
        look: F,
    ) -> Result<Planned, Failure>
    where
        F: FnOnce(Executor) -> Fut,
        Fut: Future<Output = Result<Preview, Failure>>,
    {
        let notes = Arc::new(Notes { heard: std::sync::Mutex::default(), sink });
        let preview = look(executor(notes.clone())).await?;
        Ok(Planned { preview, notes: notes.take() })
    }

    fn executor(&self, verb: &str, sink: Arc<dyn EventSink>, cancellation: &Cancellation) -> ExecutorBuilder {
        let store: Arc<dyn StateStore> = self.store.clone();
        let mut timing = self.environment.timing.clone();
        timing.limit_factor *= self.document.timeouts.factor;
        timing.attempts = self.document.timeouts.attempts;
        Executor::builder(store, sink)
            .timing(timing)
            .cancellation(cancellation.clone())
            .verb(verb)
            .target(&self.document.name)
            .version(&self.environment.version)
    }

    /// The lock that others can see, where a cluster has an API that answers.
    async fn lease(&self) -> Result<Option<Lease>, Failure> {
        let Ok(kubeconfig) = self.kubeconfig().await else { return Ok(None) };
        let Ok(api) = KubeRsApi::from_kubeconfig(&kubeconfig, None) else { return Ok(None) };
        let api: Arc<dyn ClusterApi> = Arc::new(api);
        let answers = tokio::time::timeout(Duration::from_secs(5), api.readyz()).await;
        if !answers.is_ok_and(|checks| checks.is_ok_and(|failing| failing.is_empty())) {
            return Ok(None);
        }
        let folder = tokio::fs::canonicalize(&self.environment.state_dir).await.unwrap_or_default();
        let holder = format!("{} ({})", self.environment.owner, folder.display());
        Lease::acquire(api, &holder).await.map(Some)
    }

    fn lock(&self, verb: &str) -> Result<turingpi_engine::FileLockGuard, Failure> {
        FileLock::acquire(
            self.environment.state_dir.join("lock"),
            &LockOwner::new(&self.environment.owner, verb),
        )
    }
}

async fn release(lease: Option<Lease>) {
    if let Some(lease) = lease {
        lease.release().await;
    }
}

/// Keeps no host key of a system whose first boot is not over: it changes there, and the one seen before would stand for
/// an older system from then on.
pub(crate) fn beware_of_newcomers(hosts: &Hosts, nodes: &[NodeSpec], state: &State) -> Result<(), Failure> {
    for node in nodes {
        let Some(place) = &node.slot else { continue };
        let record = SlotRecord::read(state, place)?.filter(|record| record.node == node.name);
        let pending = record.is_some_and(|record| record.first_boot == FirstBootState::Pending);
        hosts.only_known(&node.name, pending || state.in_doubt.contains_key(&flash_step_id(&node.name)));
    }
    Ok(())
}

/// Collects notes while a plan is made, and hands everything else on.
struct Notes {
    heard: std::sync::Mutex<Vec<String>>,
    sink: Option<Arc<dyn EventSink>>,
}

impl Notes {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.heard.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

impl EventSink for Notes {
    fn emit(&self, event: &Event) {
        if let turingpi_engine::EventKind::Note { text } = &event.kind {
            self.heard.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(text.clone());
        } else if let Some(sink) = &self.sink {
            sink.emit(event);
        }
    }
}

async fn private_folder(path: &std::path::Path) -> Result<(), Failure> {
    let mut builder = tokio::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    builder.mode(0o700);
    let cannot = |what: &str, e: std::io::Error| {
        Failure::new(FailureClass::Config, format!("cannot {what} the state folder `{}`", path.display()))
            .hint("Make it possible, or name another folder for the state.")
            .source(e)
    };
    builder.create(path).await.map_err(|e| cannot("make", e))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode =
            tokio::fs::metadata(path).await.map_err(|e| cannot("look at", e))?.permissions().mode() & 0o777;
        // Who may change the folder can put a state of their own there: other pins, other tokens.
        if mode & 0o022 != 0 {
            return Err(Failure::new(
                FailureClass::Config,
                format!("others can change the state folder `{}` (mode {mode:04o})", path.display()),
            )
            .hint(format!("Run `chmod 700 '{}'`, or name a folder of your own.", path.display())));
        }
    }
    Ok(())
}
