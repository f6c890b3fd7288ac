//! The cluster's token: in the state before anything uses it.

use std::sync::Arc;

use async_trait::async_trait;
use secrecy::ExposeSecret;
use turingpi_engine::{Failure, Step, StepContext, StepDescription, Verdict};

use crate::{TOKEN_KEY, env::Env, paths, token};

pub(crate) struct TokenStep {
    pub(crate) description: StepDescription,
    pub(crate) env: Arc<Env>,
    /// The server that may have a token already.
    pub(crate) server: String,
}

#[async_trait]
impl Step for TokenStep {
    fn describe(&self) -> StepDescription {
        self.description.clone()
    }

    async fn apply(&self, cx: &StepContext) -> Result<(), Failure> {
        if cx.state().await?.secret(TOKEN_KEY).is_some() {
            return Ok(());
        }
        let host = self.env.hosts.host(&self.server).await?;
        let found = host.read_text(paths::SERVER_TOKEN).await?.map(secrecy::SecretString::from);
        let token = match &found {
            Some(text) if !text.expose_secret().trim().is_empty() => token::password(text.expose_secret()),
            _ => token::generate(),
        };
        cx.update_state(|state| {
            state.put_secret(TOKEN_KEY, token);
            Ok(())
        })
        .await
    }

    async fn verify(&self, cx: &StepContext) -> Result<Verdict, Failure> {
        Ok(match cx.state().await?.secret(TOKEN_KEY) {
            Some(_) => Verdict::Converged,
            None => Verdict::NotYet("the state holds no token".to_owned()),
        })
    }
}
