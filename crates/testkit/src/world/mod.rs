//! Everything the doors share: time, faults, the nodes and the clusters they form.

pub(crate) mod cluster;
pub(crate) mod objects;

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use crate::{Durations, Faults, Pace, node::Node};
use cluster::Cluster;

/// The world.
pub(crate) struct World {
    pub(crate) pace: Pace,
    pub(crate) durations: Durations,
    pub(crate) faults: Faults,
    nodes: OnceLock<Vec<Arc<Node>>>,
    clusters: Mutex<Vec<Arc<Cluster>>>,
    /// Base of the mirror's k3s releases, and of its channels.
    mirror: OnceLock<(String, String)>,
}

impl World {
    pub(crate) fn new(pace: Pace, durations: Durations, faults: Faults) -> Self {
        Self {
            pace,
            durations,
            faults,
            nodes: OnceLock::new(),
            clusters: Mutex::default(),
            mirror: OnceLock::new(),
        }
    }
    pub(crate) fn set_nodes(&self, nodes: Vec<Arc<Node>>) {
        let _ = self.nodes.set(nodes);
    }
    pub(crate) fn nodes(&self) -> &[Arc<Node>] {
        self.nodes.get().map_or(&[], Vec::as_slice)
    }
    pub(crate) fn node(&self, name: &str) -> Option<&Arc<Node>> {
        self.nodes().iter().find(|node| node.name == name)
    }
    /// The node that answers at an address at the moment.
    pub(crate) fn at_address(&self, address: IpAddr) -> Option<&Arc<Node>> {
        self.nodes().iter().find(|node| node.present_address() == Some(address))
    }
    pub(crate) fn clusters(&self) -> Vec<Arc<Cluster>> {
        self.clusters.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    pub(crate) fn cluster(&self, id: &str) -> Option<Arc<Cluster>> {
        self.clusters().into_iter().find(|cluster| cluster.id == id)
    }
    pub(crate) fn add_cluster(&self, cluster: Arc<Cluster>) {
        self.clusters.lock().unwrap_or_else(PoisonError::into_inner).push(cluster);
    }
    pub(crate) fn set_mirror(&self, releases: String, channels: String) {
        let _ = self.mirror.set((releases, channels));
    }
    /// Bases of k3s releases and of channels on the mirror.
    pub(crate) fn mirror_bases(&self) -> (String, String) {
        self.mirror.get().cloned().unwrap_or_default()
    }
    /// A node lost power or went down: what it ran is gone at once.
    pub(crate) fn node_gone(&self, host: &str) {
        for cluster in self.clusters() {
            for (name, _) in cluster.members() {
                if cluster.member(&name).is_some_and(|member| member.host == host) {
                    cluster.set_running(&name, false);
                }
            }
        }
    }
    /// A kubelet reports nothing more: its Node is NotReady after a while, unless it comes back before.
    pub(crate) fn kubelet_gone(&self, host: &str, cluster: &Arc<Cluster>) {
        let (host, cluster, pace, nominal) =
            (host.to_owned(), Arc::clone(cluster), self.pace, self.durations.node_lost);
        let Some(name) = cluster.last_kubelet(&host) else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            pace.sleep(nominal).await;
            if cluster.kubelet(&host).is_none() {
                for kind in ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"] {
                    objects::condition(
                        &cluster.api,
                        &name,
                        kind,
                        "Unknown",
                        "NodeStatusUnknown",
                        "Kubelet stopped posting node status.",
                    );
                }
            }
        });
    }
}
