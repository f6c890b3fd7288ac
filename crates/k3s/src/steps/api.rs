//! The first server's API serves, and its full join token is in the state: others can join.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use turingpi_cluster::NodeSpec;
use turingpi_engine::{Failure, FailureClass, Probe, Step, StepContext, StepDescription, Verdict};

use crate::{JOIN_TOKEN_KEY, TOKEN_KEY, env::Env, paths, plan::CA_KEY, token};

pub(crate) struct ApiStep {
    pub(crate) description: StepDescription,
    pub(crate) env: Arc<Env>,
    pub(crate) server: NodeSpec,
}

const CA: &str = "/var/lib/rancher/k3s/server/tls/server-ca.crt";
const LIMIT: Duration = Duration::from_secs(600);

impl ApiStep {
    /// `None` when it serves, otherwise what is seen.
    async fn lacks(&self) -> Result<Option<String>, Failure> {
        let failing = match self.env.api_of(&self.server).await {
            Ok(api) => api.readyz().await,
            Err(failure) => Err(failure),
        };
        match failing {
            Ok(failing) if failing.is_empty() => Ok(None),
            Ok(failing) => Ok(Some(format!("not ready: {}", failing.join(", ")))),
            Err(failure) if failure.is_retryable() => Ok(Some(failure.message().to_owned())),
            Err(failure) => Err(failure),
        }
    }

    /// The full token; `None` while the server has not written it.
    async fn full_token(&self) -> Result<Option<(SecretString, token::FullToken)>, Failure> {
        let host = self.env.hosts.host(&self.server.name).await?;
        let Some(text) = host.read_text(paths::SERVER_TOKEN).await? else { return Ok(None) };
        let text = SecretString::from(text.trim());
        Ok(token::parse_full(text.expose_secret()).map(|full| (text, full)))
    }
}

#[async_trait]
impl Step for ApiStep {
    fn describe(&self) -> StepDescription {
        self.description.clone()
    }

    async fn apply(&self, cx: &StepContext) -> Result<(), Failure> {
        let condition = format!("the Kubernetes API of {} to serve", self.server.name);
        cx.wait(&condition, LIMIT, || async {
            Ok(self.lacks().await?.map_or(Probe::Ready(()), Probe::NotYet))
        })
        .await?;
        let condition = format!("the join token of {} to be there", self.server.name);
        let (text, full) = cx
            .wait(&condition, LIMIT, || async {
                Ok(self
                    .full_token()
                    .await?
                    .map_or_else(|| Probe::NotYet("not there".to_owned()), Probe::Ready))
            })
            .await?;
        let host = self.env.hosts.host(&self.server.name).await?;
        let ca = host.digest(CA).await?.unwrap_or(full.ca);
        cx.update_state(|state| {
            let ours = state.secret(TOKEN_KEY).map(|t| t.expose_secret() == full.password.expose_secret());
            if ours == Some(false) {
                return Err(Failure::new(
                    FailureClass::Refused,
                    format!("{} has another token than the state", self.server.name),
                )
                .hint("Its own /etc/rancher/k3s/config.yaml may set one: take `token` out of it."));
            }
            state.put_secret(TOKEN_KEY, full.password);
            state.put_secret(JOIN_TOKEN_KEY, text);
            state.put_record(CA_KEY, &ca)
        })
        .await
    }

    async fn verify(&self, cx: &StepContext) -> Result<Verdict, Failure> {
        if cx.state().await?.secret(JOIN_TOKEN_KEY).is_none() {
            return Ok(Verdict::NotYet("the state holds no join token".to_owned()));
        }
        Ok(self.lacks().await?.map_or(Verdict::Converged, Verdict::NotYet))
    }

    fn limit(&self) -> Duration {
        LIMIT
    }
}
