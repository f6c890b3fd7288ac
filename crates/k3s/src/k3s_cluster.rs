//! A k3s cluster: its parts, and what can be done with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use async_trait::async_trait;
use ipnet::IpNet;
use turingpi_cluster::{
    Activity, ClusterHealth, FetchOptions, Fetcher, HostSpec, Hosts, NetworkSpec, NodeNeeds, NodeSpec, Role,
    ready::{HealthInput, Reason},
};
use turingpi_engine::{Failure, FailureClass, Lane, Plan, Preview, Reconcile, Stage, State, StepContext};

use crate::{
    ApiConnector, K3sFacts, K3sSpec, KubeconfigSink, TeardownOptions,
    env::{Env, KubeRs},
    finish, observe, plan,
    release::Releases,
    spec::validate_topology,
    teardown,
    unit::unit_name,
};

/// A k3s cluster on hosts that can be reached over SSH. Cheap to clone.
#[derive(Clone)]
pub struct K3sCluster {
    env: Arc<Env>,
}

/// Puts a [`K3sCluster`] together.
#[must_use]
pub struct K3sClusterBuilder {
    name: String,
    nodes: Vec<NodeSpec>,
    spec: K3sSpec,
    network: NetworkSpec,
    host: HostSpec,
    needs: NodeNeeds,
    hosts: Option<Hosts>,
    fetcher: Option<Fetcher>,
    sink: Option<Arc<dyn KubeconfigSink>>,
    connector: Arc<dyn ApiConnector>,
}

impl K3sClusterBuilder {
    /// Adds nodes. Control-plane nodes: one, three or five.
    pub fn nodes(mut self, nodes: impl IntoIterator<Item = NodeSpec>) -> Self {
        self.nodes.extend(nodes);
        self
    }
    /// How k3s shall be.
    pub fn spec(mut self, spec: K3sSpec) -> Self {
        self.spec = spec;
        self
    }
    /// The cluster's networks.
    pub fn network(mut self, network: NetworkSpec) -> Self {
        self.network = network;
        self
    }
    /// How hosts shall be.
    pub fn host(mut self, host: HostSpec) -> Self {
        self.host = host;
        self
    }
    /// What add-ons need of nodes, beside what k3s itself needs.
    pub fn needs(mut self, needs: NodeNeeds) -> Self {
        self.needs = self.needs.and(needs);
        self
    }
    /// The connections to the nodes.
    pub fn hosts(mut self, hosts: Hosts) -> Self {
        self.hosts = Some(hosts);
        self
    }
    /// What downloads releases.
    pub fn fetcher(mut self, fetcher: Fetcher) -> Self {
        self.fetcher = Some(fetcher);
        self
    }
    /// A fetcher that keeps releases in `cache`.
    ///
    /// # Errors
    /// As [`Fetcher::new`].
    pub fn cache(self, cache: impl Into<std::path::PathBuf>) -> Result<Self, Failure> {
        let fetcher = Fetcher::new(cache, FetchOptions::default())?;
        Ok(self.fetcher(fetcher))
    }
    /// Where the kubeconfig goes; nowhere when not set.
    pub fn kubeconfig(mut self, sink: impl KubeconfigSink + 'static) -> Self {
        self.sink = Some(Arc::new(sink));
        self
    }
    /// Another way to open the Kubernetes API than kube-rs.
    pub fn api_connector(mut self, connector: Arc<dyn ApiConnector>) -> Self {
        self.connector = connector;
        self
    }

    /// Checks everything and makes the cluster. No I/O.
    ///
    /// # Errors
    /// `Config` for a number of control-plane nodes etcd cannot use, clashing names, addresses or networks, and bad
    /// values of the sections; `Usage` when hosts or fetcher were not given.
    pub fn build(self) -> Result<K3sCluster, Failure> {
        let usage = |what: &str| {
            Failure::new(FailureClass::Usage, format!("the cluster {} has no {what}", self.name))
        };
        let hosts = self.hosts.ok_or_else(|| usage("hosts"))?;
        let fetcher = self.fetcher.ok_or_else(|| usage("fetcher"))?;
        validate_topology(&self.nodes)?;
        self.spec.validate()?;
        self.host.validate()?;
        let nets: Vec<(&str, IpNet)> =
            self.nodes.iter().map(|n| (n.name.as_str(), single(n.address))).collect();
        self.network.validate(nets)?;
        if let Some(node) = self.nodes.iter().find(|n| hosts.target(&n.name).is_none()) {
            return Err(usage(&format!("host for the node `{}`", node.name)));
        }
        let mut nodes = self.nodes;
        nodes.sort_by_key(|n| n.role != Role::ControlPlane);
        let releases = Releases::new(&self.spec, fetcher);
        let env = Env {
            name: self.name,
            nodes,
            spec: self.spec,
            network: self.network,
            host: self.host,
            needs: self.needs,
            hosts,
            releases,
            sink: self.sink,
            connector: self.connector,
            client: tokio::sync::Mutex::default(),
        };
        Ok(K3sCluster { env: Arc::new(env) })
    }
}

fn single(address: IpAddr) -> IpNet {
    IpNet::from(address)
}

impl K3sCluster {
    /// Begins to put together the cluster `name`.
    pub fn builder(name: impl Into<String>) -> K3sClusterBuilder {
        K3sClusterBuilder {
            name: name.into(),
            nodes: Vec::new(),
            spec: K3sSpec::default(),
            network: NetworkSpec::default(),
            host: HostSpec::default(),
            needs: NodeNeeds::kubernetes(),
            hosts: None,
            fetcher: None,
            sink: None,
            connector: Arc::new(KubeRs),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.env.name
    }

    /// Its nodes, control plane first.
    pub fn nodes(&self) -> &[NodeSpec] {
        &self.env.nodes
    }

    /// Its connections.
    pub fn hosts(&self) -> &Hosts {
        &self.env.hosts
    }

    /// Looks at all nodes side by side, and at the API where there is one. A node that does not answer is a fact too; one
    /// that may only be coming up is waited for where the look may wait ([`StepContext::is_patient`]).
    ///
    /// # Errors
    /// `Cancelled` when a stop was asked for. Never because a node is down.
    pub async fn observe(&self, cx: &StepContext) -> Result<K3sFacts, Failure> {
        self.observe_rest(cx, BTreeMap::new()).await
    }

    /// As [`K3sCluster::observe`], for a caller that tried to reach some nodes already: those of `silent` are not asked
    /// again.
    ///
    /// # Errors
    /// As [`K3sCluster::observe`].
    pub async fn observe_rest(
        &self,
        cx: &StepContext,
        silent: BTreeMap<String, Failure>,
    ) -> Result<K3sFacts, Failure> {
        observe::observe(&self.env, cx, silent).await
    }

    /// The lanes that bring every node into the cluster, control plane first; lanes without steps are left out. Pure.
    ///
    /// `fresh` names the nodes that steps of the caller flash first: their facts count for nothing and everything is
    /// forecast. Prepend those steps to the lane of the node; one stage then brings the first node up while the last
    /// one is still being written.
    ///
    /// # Errors
    /// `Unreachable` for a node that is down and not fresh; `Refused` where going on would lose something: another
    /// cluster's data, a unit with settings of its own, a downgrade, a skipped minor version.
    pub fn lanes(
        &self,
        facts: &K3sFacts,
        state: &State,
        fresh: &BTreeSet<String>,
    ) -> Result<Vec<Lane>, Failure> {
        plan::lanes(&self.env, facts, state, fresh)
    }

    /// The lane of the cluster as a whole, for a stage after that of the nodes: kubeconfig, labels and taints, all
    /// nodes Ready, k3s's own workloads available. `None` when nothing is left. Pure.
    pub fn finish(&self, facts: &K3sFacts, state: &State) -> Option<Lane> {
        finish::lane(&self.env, facts, state)
    }

    /// The plan that takes the cluster away: agents first, then servers. Works on what is half built. Pure.
    ///
    /// # Errors
    /// `Unreachable` for nodes that are down, unless the options leave them; `Refused` for a k3s that is not this
    /// cluster's.
    pub fn teardown(
        &self,
        facts: &K3sFacts,
        state: &State,
        options: TeardownOptions,
    ) -> Result<Plan, Failure> {
        teardown::plan(&self.env, facts, state, options)
    }

    /// What differs from what is wanted, as a preview; empty when nothing does. Pure.
    ///
    /// # Errors
    /// As [`K3sCluster::lanes`].
    pub fn drift(&self, facts: &K3sFacts, state: &State) -> Result<Preview, Failure> {
        Ok(self.plan(facts, state)?.preview())
    }

    /// How the cluster is, and why it is not well. Pure.
    pub fn health(&self, facts: &K3sFacts, state: &State) -> ClusterHealth {
        let no_api = [match &facts.api_failure {
            Some(failure) => failure.message.clone(),
            None => "no control-plane node has an API that answers".to_owned(),
        }];
        let wanted = self.env.spec.system_deployments();
        let api = facts.api.clone().unwrap_or_default();
        let workloads: Vec<_> =
            api.system.iter().filter(|w| wanted.contains(&w.name.as_str())).cloned().collect();
        ClusterHealth::judge(&HealthInput {
            expected: self.env.nodes.iter().map(|n| n.name.as_str()).collect(),
            nodes: &api.nodes,
            workloads: &workloads,
            failing_checks: if facts.api.is_some() { &api.failing } else { &no_api },
            more: &self.stopped(facts),
            complete_before: state.secret(crate::JOIN_TOKEN_KEY).is_some(),
        })
    }

    /// Services that ran once and do not now. A node stays Ready in the API for a while after its kubelet ended.
    fn stopped(&self, facts: &K3sFacts) -> Vec<Reason> {
        let service = |node: &NodeSpec| {
            let seen = facts.up(&node.name)?;
            let unit = unit_name(node.role);
            let state = seen.host.unit(unit);
            let ends = matches!(state.activity(), Activity::Inactive | Activity::Failed);
            (ends && seen.k3s.has_run(node.role)).then(|| Reason {
                about: format!("node {}", node.name),
                condition: "Service".to_owned(),
                since: None,
                message: format!("{unit} is {}", state.summary()),
            })
        };
        self.env.nodes.iter().filter_map(service).collect()
    }

    /// Steps outside of plans, for frontends: the kubeconfig as a server has it now, under the cluster's name.
    ///
    /// # Errors
    /// `Unreachable` when no server has one.
    pub async fn fetch_kubeconfig(&self) -> Result<turingpi_cluster::kube::Kubeconfig, Failure> {
        self.env.kubeconfig().await
    }

    /// An open API of a server that serves.
    ///
    /// # Errors
    /// `Unreachable`, retryable, when none serves.
    pub async fn api(&self) -> Result<Arc<dyn turingpi_cluster::kube::ClusterApi>, Failure> {
        self.env.api().await
    }
}

/// What hosts alone need: no boards, nothing is flashed.
#[async_trait]
impl Reconcile for K3sCluster {
    type Observed = K3sFacts;

    async fn observe(&self, cx: &StepContext) -> Result<K3sFacts, Failure> {
        K3sCluster::observe(self, cx).await
    }

    fn plan(&self, observed: &K3sFacts, state: &State) -> Result<Plan, Failure> {
        let mut stages = Vec::new();
        let lanes = self.lanes(observed, state, &BTreeSet::new())?;
        if !lanes.is_empty() {
            stages.push(Stage { title: "Nodes".to_owned(), lanes });
        }
        if let Some(lane) = self.finish(observed, state) {
            stages.push(Stage { title: "Cluster".to_owned(), lanes: vec![lane] });
        }
        Ok(Plan { stages })
    }
}

/// The facts of the hosts of nodes that answer, by name.
pub(crate) fn host_facts<'a>(
    facts: &'a K3sFacts,
    fresh: &BTreeSet<String>,
) -> BTreeMap<String, &'a turingpi_cluster::HostFacts> {
    let up = |name: &String| facts.up(name).map(|n| (name.clone(), &n.host));
    facts.nodes.keys().filter(|n| !fresh.contains(*n)).filter_map(up).collect()
}

#[cfg(test)]
pub(crate) fn env_of(cluster: &K3sCluster) -> &Arc<Env> {
    &cluster.env
}
