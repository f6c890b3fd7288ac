//! A server's Kubernetes port.

use std::sync::Arc;

use tokio::{net::TcpListener, task::JoinHandle};

use crate::{node::Node, world::cluster::Cluster};

/// A second handle of a node's Kubernetes socket.
fn listener(node: &Node) -> Option<TcpListener> {
    let door = node.kube_door.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    TcpListener::from_std(door.as_ref()?.try_clone().ok()?).ok()
}

/// Accepts and closes connections while no server runs on the node.
pub(crate) async fn closed(node: Arc<Node>) {
    let mut serving = node.kube_serving.subscribe();
    loop {
        if serving.wait_for(|serving| !*serving).await.is_err() {
            return;
        }
        let Some(listener) = listener(&node) else { return };
        loop {
            tokio::select! {
                _ = listener.accept() => {}
                _ = serving.wait_for(|serving| *serving) => break,
            }
        }
    }
}

/// Serves the cluster's API on a node until the guard is dropped.
pub(crate) struct Serving {
    node: Arc<Node>,
    task: Option<JoinHandle<()>>,
}

impl Serving {
    pub(crate) fn start(node: &Arc<Node>, cluster: &Arc<Cluster>, name: &str) -> Self {
        node.kube_serving.send_replace(true);
        let enabled = cluster.door(name);
        let task =
            listener(node).map(|listener| tokio::spawn(Arc::clone(&cluster.api).serve(listener, enabled)));
        Self { node: Arc::clone(node), task }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
        self.node.kube_serving.send_replace(false);
    }
}
