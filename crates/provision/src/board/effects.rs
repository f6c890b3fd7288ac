//! What a disruptive step on a board cuts: told before anybody is asked.

use std::time::Duration;

use serde::Serialize;
use turingpi_bmc::Slot;
use turingpi_cluster::kube::{ClusterApi as _, KubeRsApi, Kubeconfig, Readiness};

use super::{BoardDesk, OpenBoard};

/// How long the cluster is asked. It only helps to tell; nothing waits for it.
const ASKED: Duration = Duration::from_secs(3);

/// Who sits in a slot, as far as a document and its cluster tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Occupant {
    /// The slot.
    pub slot: Slot,
    /// The document's node.
    pub node: Option<String>,
    /// Whether it is Ready in its cluster; `None` where nobody could tell.
    pub ready: Option<bool>,
}

impl Occupant {
    /// In words: `slot 2 (node2, a Ready node)`.
    pub fn words(&self) -> String {
        match (&self.node, self.ready) {
            (Some(node), Some(true)) => format!("slot {} ({node}, a Ready node of the cluster)", self.slot),
            (Some(node), Some(false)) => format!("slot {} ({node}, not Ready)", self.slot),
            (Some(node), None) => format!("slot {} ({node})", self.slot),
            (None, _) => format!("slot {}", self.slot),
        }
    }
}

impl BoardDesk {
    /// Who sits in these slots.
    pub async fn occupants(&self, board: &OpenBoard, slots: &[Slot]) -> Vec<Occupant> {
        let known = slots.iter().any(|slot| board.node(*slot).is_some());
        let ready = if known { self.readiness().await } else { None };
        let occupant = |slot: &Slot| {
            let node = board.node(*slot).map(str::to_owned);
            let ready = node.as_ref().and_then(|name| {
                ready.as_ref().map(|nodes| nodes.iter().any(|(n, ready)| n == name && *ready))
            });
            Occupant { slot: *slot, node, ready }
        };
        slots.iter().map(occupant).collect()
    }

    /// The nodes of the document's cluster, if that answers.
    async fn readiness(&self) -> Option<Vec<(String, bool)>> {
        self.document.as_ref()?;
        let path = self.environment.state_dir.join("kubeconfig");
        let text = tokio::fs::read_to_string(path).await.ok()?;
        let api = KubeRsApi::from_kubeconfig(&Kubeconfig::parse(&text).ok()?, None).ok()?;
        let nodes = tokio::time::timeout(ASKED, api.nodes()).await.ok()?.ok()?;
        Some(nodes.into_iter().map(|node| (node.name, matches!(node.ready, Readiness::Ready))).collect())
    }
}
