//! The first login to a system that nobody of ours has logged in to.

use std::sync::Arc;

use secrecy::SecretString;
use tokio::time::Instant;
use turingpi_engine::{Failure, FailureClass, Probe, StepContext};
use turingpi_ssh::{
    AuthMethod, Command, HostKeyPolicy, SshClient, SshConnector, SshError, SshErrorKind, SshTarget,
};

use super::FirstBootSpec;

/// Rounds over all logins before it is hopeless. An image may set its password late in its first start.
const ROUNDS: u32 = 4;
/// Between two rounds, in polls: failed passwords stay below sshd's penalties.
const REST: u32 = 8;
/// How long nobody may answer before the console is used instead, in polls.
const SILENCE: u32 = 10;

/// A login that works.
pub(super) enum WayIn {
    /// Over SSH.
    Ssh(Arc<dyn SshClient>),
    /// Over SSH only after a new password was typed at a terminal: the console does that.
    PasswordExpired,
    /// Nothing answers at the address.
    Silent,
}

pub(super) struct Door<'a> {
    pub(super) node: &'a str,
    pub(super) target: &'a SshTarget,
    pub(super) connector: &'a dyn SshConnector,
    pub(super) spec: &'a FirstBootSpec,
}

/// `target` for a host whose key nobody can know yet: its name is one that no known-hosts file holds.
pub(super) fn unknown_host(target: &SshTarget) -> SshTarget {
    SshTarget {
        host_key: HostKeyPolicy::AcceptNew,
        host_key_name: Some(format!("first-boot-{}.invalid", super::nonce())),
        ..target.clone()
    }
}

impl Door<'_> {
    /// Logs in with our key, the password that is already ours (`stored`), or one of the image's logins.
    ///
    /// Passwords are tried as seldom as possible: sshd locks callers out that fail too often.
    pub(super) async fn open(
        &self,
        stored: Option<&SecretString>,
        cx: &StepContext,
    ) -> Result<WayIn, Failure> {
        let mut logins = vec![unknown_host(self.target)];
        let with_password = |user: &str, password: &SecretString| {
            let mut target = unknown_host(self.target).user(user).sudo_password(password.clone());
            target.auth = vec![AuthMethod::Password(password.clone())];
            target
        };
        if let Some(password) = stored {
            logins.push(with_password("root", password));
        }
        logins.extend(self.spec.credentials.iter().map(|login| with_password(&login.user, &login.password)));
        let (rest, patience) = (cx.timing().poll * REST, cx.timing().poll * SILENCE);
        // (rounds that found every login refused, when the last of them ended, since when nobody answers)
        let so_far = tokio::sync::Mutex::new((0, None::<Instant>, None::<Instant>));
        let condition = format!("a first login to {}", self.node);
        let limit = (rest * (ROUNDS + 1)).max(std::time::Duration::from_secs(60));
        cx.wait(&condition, limit, || async {
            let mut so_far = so_far.lock().await;
            let (rounds, last, silent) = &mut *so_far;
            if last.is_some_and(|last| last.elapsed() < rest) {
                return Ok(Probe::NotYet("every login was refused".to_owned()));
            }
            let mut refused = None;
            for login in &logins {
                match self.try_one(login).await {
                    Ok(client) => return Ok(Probe::Ready(WayIn::Ssh(client))),
                    Err(SshError::PasswordExpired { .. }) => return Ok(Probe::Ready(WayIn::PasswordExpired)),
                    Err(error) => match error.kind() {
                        SshErrorKind::Auth => refused = Some(error),
                        SshErrorKind::Unreachable | SshErrorKind::Timeout => {
                            // It is restarted when the image has made its host keys: a moment later it is back.
                            let since = *silent.get_or_insert_with(Instant::now);
                            return Ok(match since.elapsed() < patience {
                                true => Probe::NotYet(error.to_string()),
                                false => Probe::Ready(WayIn::Silent),
                            });
                        }
                        _ => return Err(crate::ssh_failure(self.node, "log in for the first time", error)),
                    },
                }
            }
            *silent = None;
            *last = Some(Instant::now());
            *rounds += 1;
            match *rounds >= ROUNDS {
                true => Err(self.refused(refused)),
                false => Ok(Probe::NotYet("every login was refused".to_owned())),
            }
        })
        .await
    }

    /// Connects, and runs something: an expired password may show only then.
    async fn try_one(&self, target: &SshTarget) -> Result<Arc<dyn SshClient>, SshError> {
        let client = self.connector.connect(target).await?;
        client.run(&Command::script("true").as_root()).await?;
        Ok(client)
    }

    fn refused(&self, error: Option<SshError>) -> Failure {
        let users: Vec<&str> = self.spec.credentials.iter().map(|login| login.user.as_str()).collect();
        let failure = Failure::new(
            FailureClass::Auth,
            format!("{} answers, but lets in neither our key nor a login of its image (tried: {})", self.node, users.join(", ")),
        )
        .hint(format!(
            "If the image has another login, set it as `images.<name>.login` in the document. If an older system answers instead of the one just \
             written: {}",
            super::evidence::NVME_HINT
        ));
        match error {
            Some(error) => failure.source(error),
            None => failure,
        }
    }
}
