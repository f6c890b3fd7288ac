//! How a cluster is, and why.

use serde::Serialize;
use time::OffsetDateTime;
use turingpi_bmc::Power;
use turingpi_cluster::{
    ClusterHealth, Role,
    kube::Readiness,
    ready::{HealthState, Reason},
};
use turingpi_engine::{Failure, FailureReport, Preview, Reconcile as _, RunRecord, StateStore as _};
use turingpi_k3s::Reach;

use crate::{Intent, Provision, bring_up::BringUp};

/// One look at a cluster.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// The cluster's name.
    pub cluster: String,
    /// When this was seen, UTC.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// In one word.
    pub state: HealthState,
    /// Why it is not ready.
    pub reasons: Vec<Reason>,
    /// Versions.
    pub versions: Versions,
    /// The nodes, in the document's order.
    pub nodes: Vec<NodeLine>,
    /// The boards.
    pub boards: Vec<BoardLine>,
    /// What differs from the document; `None` when it could not be told, and why stands in `drift_failure`.
    pub drift: Option<Preview>,
    /// Why drift could not be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drift_failure: Option<FailureReport>,
    /// Destructive steps that were begun and not seen to end.
    pub in_doubt: Vec<String>,
    /// Days until the kubeconfig's certificate expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubeconfig_days_left: Option<i64>,
    /// The last run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_run: Option<RunRecord>,
}

/// Versions of the distribution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Versions {
    /// What the document wants.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wanted: Option<String>,
    /// What kubelets say they are, without repetitions.
    pub seen: Vec<String>,
}

/// One node.
#[derive(Debug, Clone, Serialize)]
pub struct NodeLine {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Its address.
    pub address: String,
    /// Its slot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<String>,
    /// Power as last asked for; `None` without a board, or when that does not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power: Option<Power>,
    /// Why SSH does not work; `None` when it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreachable: Option<FailureReport>,
    /// What Kubernetes says; `None` when it does not know the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<Readiness>,
    /// The kubelet's version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The operating system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub os: Option<String>,
}

/// One board.
#[derive(Debug, Clone, Serialize)]
pub struct BoardLine {
    /// Its name.
    pub name: String,
    /// Its firmware, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firmware: Option<String>,
    /// Why it does not answer; `None` when it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreachable: Option<FailureReport>,
}

impl Provision {
    /// Looks at boards, nodes and cluster. A node or board that does not answer is part of the answer.
    ///
    /// # Errors
    /// `Config` when the state cannot be read.
    pub async fn status(&self) -> Result<Status, Failure> {
        let target = BringUp::new(self, &Intent::default()).await?;
        let cx = self.context();
        let facts = target.observe(&cx).await?;
        let (state, _) = self.store.load().await?;
        let drift = target.plan(&facts, &state);
        let ClusterHealth { state: health, reasons } = self.k3s.health(&facts.k3s, &state);
        let nodes: Vec<NodeLine> = self
            .nodes
            .iter()
            .map(|node| {
                let object = facts.k3s.object(&node.name);
                let (unreachable, os) = match facts.k3s.nodes.get(&node.name) {
                    Some(Reach::Up(up)) => (None, Some(up.host.os.pretty.clone())),
                    Some(Reach::Down(report)) => (Some(report.clone()), None),
                    None => (None, None),
                };
                let power = node.slot.as_ref().and_then(|place| match facts.boards.get(&place.board) {
                    Some(Ok(board)) => Some(board.power[place.slot]),
                    _ => None,
                });
                NodeLine {
                    name: node.name.clone(),
                    role: node.role,
                    address: node.address.to_string(),
                    slot: node.slot.as_ref().map(ToString::to_string),
                    power,
                    unreachable,
                    ready: object.map(|o| o.ready.clone()),
                    version: object.map(|o| o.kubelet_version.clone()),
                    os,
                }
            })
            .collect();
        let mut seen: Vec<String> = nodes.iter().filter_map(|n| n.version.clone()).collect();
        seen.sort();
        seen.dedup();
        let boards = facts
            .boards
            .iter()
            .map(|(name, facts)| BoardLine {
                name: name.clone(),
                firmware: facts.as_ref().ok().map(|f| crate::doctor::board_in_words(&f.about)),
                unreachable: facts.as_ref().err().cloned(),
            })
            .collect();
        let expiry = match self.kubeconfig().await {
            Ok(kubeconfig) => kubeconfig.client_certificate_expiry().ok().flatten(),
            Err(_) => None,
        };
        let (drift, drift_failure) = match drift {
            Ok(plan) => (Some(plan.preview()), None),
            Err(failure) => (None, Some(failure.report())),
        };
        Ok(Status {
            cluster: self.document.name.clone(),
            at: OffsetDateTime::now_utc(),
            state: health,
            reasons,
            versions: Versions {
                wanted: self.document.version.clone().or_else(|| self.document.channel.clone()),
                seen,
            },
            nodes,
            boards,
            drift,
            drift_failure,
            in_doubt: state.in_doubt.keys().cloned().collect(),
            kubeconfig_days_left: expiry.map(|e| e.days_left(OffsetDateTime::now_utc())),
            last_run: state.runs.last().cloned(),
        })
    }
}
