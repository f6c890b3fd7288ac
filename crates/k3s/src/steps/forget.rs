//! Taking the object of an earlier installation of a node out of the cluster.

use std::sync::Arc;

use async_trait::async_trait;
use turingpi_cluster::{FactsRequest, kube::ObjectRef};
use turingpi_engine::{Failure, Step, StepContext, StepDescription, Verdict};

use crate::env::Env;

pub(crate) struct ForgetNode {
    pub(crate) description: StepDescription,
    pub(crate) env: Arc<Env>,
    pub(crate) node: String,
}

const AGENT_DATA: &str = "/var/lib/rancher/k3s/agent/client-kubelet.crt";

/// The secret with the hash of a node's password, of the same name in lower case (k3s `pkg/nodepassword`).
fn password(node: &str) -> ObjectRef {
    ObjectRef::namespaced("v1", "Secret", "kube-system", format!("{}.node-password.k3s", node.to_lowercase()))
}

impl ForgetNode {
    /// A node that has joined again has an object of its own, which must stay.
    async fn has_joined(&self) -> Result<bool, Failure> {
        let host = self.env.hosts.host(&self.node).await?;
        Ok(host.facts(&FactsRequest::new().paths([AGENT_DATA]).narrow()).await?.paths.contains(AGENT_DATA))
    }
}

#[async_trait]
impl Step for ForgetNode {
    fn describe(&self) -> StepDescription {
        self.description.clone()
    }

    async fn apply(&self, _cx: &StepContext) -> Result<(), Failure> {
        if self.has_joined().await? {
            return Ok(());
        }
        let api = self.env.api().await?;
        // The node first: newer k3s deletes the secret with it.
        api.delete_node(&self.node).await?;
        api.delete(&password(&self.node)).await.map(drop)
    }

    async fn verify(&self, _cx: &StepContext) -> Result<Verdict, Failure> {
        if self.has_joined().await? {
            return Ok(Verdict::Converged);
        }
        let api = self.env.api().await?;
        Ok(match api.node(&self.node).await? {
            None => Verdict::Converged,
            Some(_) => Verdict::NotYet("the node object is still there".to_owned()),
        })
    }
}
