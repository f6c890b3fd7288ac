//! What every step of a cluster is given: its parts, and the way to its API.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use tokio::sync::Mutex;
use turingpi_cluster::{
    Endpoint, HostSpec, Hosts, NetworkSpec, NodeNeeds, NodeSpec, Role,
    kube::{ClusterApi, KubeRsApi, Kubeconfig},
};
use turingpi_engine::{Failure, FailureClass};

use crate::{K3sSpec, KubeconfigSink, config, paths, release::Releases};

/// Opens a Kubernetes API. The default one is kube-rs; another one serves tests and embedders with their own client.
pub trait ApiConnector: Send + Sync {
    /// The API of `kubeconfig`'s current context; `dial` (`host:port`) is where it really answers, when that differs.
    ///
    /// # Errors
    /// `Config` when the kubeconfig cannot be used.
    fn connect(&self, kubeconfig: &Kubeconfig, dial: Option<&str>) -> Result<Arc<dyn ClusterApi>, Failure>;
}

pub(crate) struct KubeRs;

impl ApiConnector for KubeRs {
    fn connect(&self, kubeconfig: &Kubeconfig, dial: Option<&str>) -> Result<Arc<dyn ClusterApi>, Failure> {
        Ok(Arc::new(KubeRsApi::from_kubeconfig(kubeconfig, dial)?))
    }
}

/// A cluster's parts. Immutable but for the open API client.
pub(crate) struct Env {
    pub(crate) name: String,
    /// Control-plane nodes first, otherwise in the document's order.
    pub(crate) nodes: Vec<NodeSpec>,
    pub(crate) spec: K3sSpec,
    pub(crate) network: NetworkSpec,
    pub(crate) host: HostSpec,
    pub(crate) needs: NodeNeeds,
    pub(crate) hosts: Hosts,
    pub(crate) releases: Releases,
    pub(crate) sink: Option<Arc<dyn KubeconfigSink>>,
    pub(crate) connector: Arc<dyn ApiConnector>,
    pub(crate) client: Mutex<Option<OpenApi>>,
}

/// An open client, and what it was opened with.
pub(crate) struct OpenApi {
    key: String,
    api: Arc<dyn ClusterApi>,
}

impl Env {
    pub(crate) fn servers(&self) -> impl Iterator<Item = &NodeSpec> {
        self.nodes.iter().filter(|n| n.role == Role::ControlPlane)
    }

    pub(crate) fn is_ha(&self) -> bool {
        self.servers().count() > 1
    }

    /// The admin kubeconfig a server keeps, under the cluster's name and for `url`; `None` when there is none yet.
    pub(crate) async fn kubeconfig_of(&self, server: &str, url: &str) -> Result<Option<Kubeconfig>, Failure> {
        let host = self.hosts.host(server).await?;
        let Some(text) = host.read_text(paths::KUBECONFIG).await? else { return Ok(None) };
        Ok(Some(Kubeconfig::parse(&text)?.renamed(&self.name)?.with_server(url)?))
    }

    /// The kubeconfig for people: with the cluster's endpoint, and the detour of this machine if it needs one.
    pub(crate) async fn kubeconfig(&self) -> Result<Kubeconfig, Failure> {
        let mut last = None;
        for server in self.servers() {
            let endpoint =
                self.network.api_endpoint.clone().unwrap_or_else(|| Endpoint::from(server.address));
            let url = self.network.api_connect.as_ref().unwrap_or(&endpoint).url();
            match self.kubeconfig_of(&server.name, &url).await {
                Ok(Some(config)) => {
                    let checked = self.network.api_connect.is_some().then(|| endpoint.host());
                    return config.with_tls_server_name(checked);
                }
                Ok(None) => {}
                Err(failure) => last = Some(failure),
            }
        }
        Err(last.unwrap_or_else(|| self.no_api()))
    }

    /// The API of one server.
    pub(crate) async fn api_of(&self, server: &NodeSpec) -> Result<Arc<dyn ClusterApi>, Failure> {
        let url = Endpoint::from(server.address).url();
        let config = self.kubeconfig_of(&server.name, &url).await?.ok_or_else(|| self.no_api())?;
        let dial = self.network.api_connect.as_ref().map(|e| e.authority());
        let yaml = config.to_yaml()?;
        let key = hex::encode(Sha256::digest(secrecy::ExposeSecret::expose_secret(&yaml).as_bytes()));
        let mut open = self.client.lock().await;
        if let Some(open) = open.as_ref().filter(|o| o.key == key) {
            return Ok(Arc::clone(&open.api));
        }
        let api = self.connector.connect(&config, dial.as_deref())?;
        *open = Some(OpenApi { key, api: Arc::clone(&api) });
        Ok(api)
    }

    /// The API of the first server that has one and serves.
    ///
    /// # Errors
    /// `Unreachable`, retryable, when no server serves.
    pub(crate) async fn api(&self) -> Result<Arc<dyn ClusterApi>, Failure> {
        // The one that is open, while it serves: many nodes wait for the API at the same time, and each look at a
        // server's kubeconfig is a login's worth of work there. Another cluster does not serve to this one's keys.
        let open = self.client.lock().await.as_ref().map(|open| Arc::clone(&open.api));
        if let Some(api) = open
            && api.readyz().await.is_ok_and(|failing| failing.is_empty())
        {
            return Ok(api);
        }
        let mut last = None;
        for server in self.servers() {
            let served = match self.api_of(server).await {
                Ok(api) => api.readyz().await.map(|failing| (api, failing)),
                Err(failure) => Err(failure),
            };
            match served {
                Ok((api, failing)) if failing.is_empty() => return Ok(api),
                Ok((_, failing)) => {
                    last = Some(self.no_api().hint(format!("Its checks fail: {}.", failing.join(", "))));
                }
                Err(failure) => last = Some(failure),
            }
        }
        let failure = last.unwrap_or_else(|| self.no_api());
        Err(if failure.is_retryable() { failure } else { failure.retryable() })
    }

    fn no_api(&self) -> Failure {
        Failure::new(
            FailureClass::Unreachable,
            format!("the Kubernetes API of {} does not serve yet", self.name),
        )
        .retryable()
    }

    /// The address a node joins through `server`. The server's own, not the endpoint: a virtual address may be served
    /// by something that runs in the cluster and is not there yet. k3s learns all other servers at first contact.
    pub(crate) fn join_url(&self, server: &NodeSpec) -> String {
        Endpoint::from(server.address).url()
    }

    pub(crate) fn config_input<'a>(
        &'a self,
        node: &'a NodeSpec,
        servers: &'a [&'a NodeSpec],
        entry: &'a config::Entry,
    ) -> config::ConfigInput<'a> {
        config::ConfigInput { spec: &self.spec, network: &self.network, node, servers, entry }
    }
}
