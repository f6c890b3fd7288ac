//! Interrupting a node that carries a part of a running cluster, and letting nobody else go before it is back.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use turingpi_cluster::{Activity, FactsRequest, NodeSpec};
use turingpi_engine::{Failure, Step, StepContext, StepDescription, Verdict};

use crate::{env::Env, unit};

/// A step that interrupts its node, a reboot: done when the node was Ready again, and for a server that was one, a
/// voting etcd member. Its lock is held until then: two members of three that are away at once stop the cluster.
pub(crate) struct BackInCluster {
    pub(crate) step: Arc<dyn Step>,
    pub(crate) env: Arc<Env>,
    pub(crate) node: NodeSpec,
    /// It was a voting etcd member before.
    pub(crate) voter: bool,
}

impl BackInCluster {
    fn unit(&self) -> &'static str {
        unit::unit_name(self.node.role)
    }

    async fn lacks(&self) -> Result<Option<String>, Failure> {
        let api = self.env.api().await?;
        let Some(node) = api.node(&self.node.name).await? else {
            return Ok(Some("not registered".to_owned()));
        };
        if !node.ready.is_ready() {
            return Ok(Some("registered, not Ready".to_owned()));
        }
        let votes = node.condition("EtcdIsVoter").and_then(|c| c.status) == Some(true);
        Ok((self.voter && !votes).then(|| "not yet a voting etcd member again".to_owned()))
    }
}

#[async_trait]
impl Step for BackInCluster {
    fn describe(&self) -> StepDescription {
        self.step.describe()
    }

    async fn apply(&self, cx: &StepContext) -> Result<(), Failure> {
        self.step.apply(cx).await?;
        // It ran before, so it shall run again, also when it was not enabled.
        let host = self.env.hosts.host(&self.node.name).await?;
        let facts = host.facts(&FactsRequest::new().units([self.unit()])).await?;
        match facts.unit(self.unit()).activity() {
            Activity::Active | Activity::Changing => Ok(()),
            Activity::Inactive | Activity::Failed => host.start_no_block(self.unit()).await,
        }
    }

    async fn verify(&self, cx: &StepContext) -> Result<Verdict, Failure> {
        if let Verdict::NotYet(seen) = self.step.verify(cx).await? {
            return Ok(Verdict::NotYet(seen));
        }
        // Asked of the host first: for a while the API goes on calling a node Ready that is away.
        let host = self.env.hosts.host(&self.node.name).await?;
        let facts = host.facts(&FactsRequest::new().units([self.unit()])).await?;
        let unit = facts.unit(self.unit());
        if unit.activity() != Activity::Active {
            return Ok(Verdict::NotYet(unit.summary()));
        }
        match self.lacks().await {
            Ok(None) => Ok(Verdict::Converged),
            Ok(Some(seen)) => Ok(Verdict::NotYet(seen)),
            Err(failure) if failure.is_retryable() => Ok(Verdict::NotYet(failure.message().to_owned())),
            Err(failure) => Err(failure),
        }
    }

    fn limit(&self) -> Duration {
        self.step.limit().max(Duration::from_secs(600))
    }
}

/// A step that starts only when others reached what it needs.
pub(crate) struct After {
    pub(crate) step: Arc<dyn Step>,
    pub(crate) needs: Vec<String>,
}

#[async_trait]
impl Step for After {
    fn describe(&self) -> StepDescription {
        self.needs.iter().fold(self.step.describe(), |description, need| description.needs(need))
    }
    async fn apply(&self, cx: &StepContext) -> Result<(), Failure> {
        self.step.apply(cx).await
    }
    async fn verify(&self, cx: &StepContext) -> Result<Verdict, Failure> {
        self.step.verify(cx).await
    }
    fn limit(&self) -> Duration {
        self.step.limit()
    }
}
