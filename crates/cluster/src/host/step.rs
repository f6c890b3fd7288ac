//! A step on one host: looks first, changes, reads back.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use turingpi_engine::{Failure, Step, StepContext, StepDescription, Verdict};

use crate::{Host, Hosts};

/// Something wanted on a host, that can tell whether it already is so.
#[async_trait]
pub trait HostTask: Send + Sync {
    /// What is seen instead of what is wanted; `None` when it is as wanted. Changes nothing.
    async fn differs(&self, host: &Host) -> Result<Option<String>, Failure>;

    /// Makes it so. Called only after [`HostTask::differs`] saw a difference.
    async fn make(&self, host: &Host, cx: &StepContext) -> Result<(), Failure>;
}

/// A [`HostTask`] as a [`Step`]: `apply` looks first and does nothing where nothing differs, `verify` reads back.
#[derive(Clone)]
pub struct HostStep {
    description: StepDescription,
    hosts: Hosts,
    node: String,
    task: Arc<dyn HostTask>,
    limit: Duration,
}

impl HostStep {
    /// A step that does `task` on `node`.
    pub fn new(
        description: StepDescription,
        hosts: &Hosts,
        node: &str,
        task: impl HostTask + 'static,
    ) -> Self {
        Self {
            description,
            hosts: hosts.clone(),
            node: node.to_owned(),
            task: Arc::new(task),
            limit: Duration::from_secs(60),
        }
    }

    /// How long reading back may show the old value.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The node it works on.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The step as plans hold it.
    pub fn shared(self) -> Arc<dyn Step> {
        Arc::new(self)
    }
}

#[async_trait]
impl Step for HostStep {
    fn describe(&self) -> StepDescription {
        self.description.clone()
    }

    async fn apply(&self, cx: &StepContext) -> Result<(), Failure> {
        let host = self.hosts.host(&self.node).await?;
        if self.task.differs(&host).await?.is_none() {
            return Ok(());
        }
        self.task.make(&host, cx).await
    }

    async fn verify(&self, _cx: &StepContext) -> Result<Verdict, Failure> {
        let host = self.hosts.host(&self.node).await?;
        Ok(match self.task.differs(&host).await? {
            None => Verdict::Converged,
            Some(seen) => Verdict::NotYet(seen),
        })
    }

    fn limit(&self) -> Duration {
        self.limit
    }
}

/// `None` when `seen` is `wanted`, otherwise what was seen, for [`HostTask::differs`].
pub fn unless_same(what: &str, seen: Option<&str>, wanted: &str) -> Option<String> {
    match seen {
        Some(seen) if seen == wanted => None,
        Some(seen) => Some(format!("{what} is {seen}")),
        None => Some(format!("{what} is not set")),
    }
}
