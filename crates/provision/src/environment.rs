//! What a frontend knows and a library must not look up: folders, secrets, the terminal, the clock's pace.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use secrecy::SecretString;
use tokio::sync::Mutex;
use turingpi_engine::{Failure, FailureClass, Timing};

use crate::{Proxy, document::SecretSource};

/// Everything around the document.
#[derive(Clone)]
pub struct Environment {
    /// The folder that relative paths of the document start from.
    pub base: PathBuf,
    /// The home folder that `~` stands for.
    pub home: Option<PathBuf>,
    /// Where this cluster's state, pinned keys and logs are kept. Made (0700) when it does not exist.
    pub state_dir: PathBuf,
    /// Where downloads are kept; shared by clusters.
    pub cache_dir: PathBuf,
    /// What downloads go through.
    pub proxy: Proxy,
    /// The SSH agent's socket.
    pub ssh_agent: Option<PathBuf>,
    /// Answers for secrets.
    pub secrets: Arc<dyn SecretProvider>,
    /// The pace of polls and retries.
    pub timing: Timing,
    /// Who runs this: `user@host`, for the lock.
    pub owner: String,
    /// The frontend's version, for the events.
    pub version: String,
}

/// Where secrets come from: the process environment and the terminal belong to the frontend.
#[async_trait]
pub trait SecretProvider: Send + Sync {
    /// The value of an environment variable.
    async fn env(&self, name: &str) -> Option<SecretString>;
    /// Asks the person; `None` when there is nobody to ask.
    async fn prompt(&self, what: &str) -> Option<SecretString>;
}

impl Environment {
    /// `path` of the document as a path of this machine: `~` and relative paths resolved.
    pub fn path(&self, path: &Path) -> PathBuf {
        match (path.strip_prefix("~"), &self.home) {
            (Ok(rest), Some(home)) => home.join(rest),
            _ => self.base.join(path),
        }
    }
}

/// Resolves secret sources, each at most once a run, so that nobody is asked twice.
pub(crate) struct Secrets {
    environment: Environment,
    known: Mutex<BTreeMap<String, SecretString>>,
}

impl Secrets {
    pub(crate) fn new(environment: Environment) -> Self {
        Self { environment, known: Mutex::new(BTreeMap::new()) }
    }

    /// The secret, which is `what` for the person: `password of board board1`.
    pub(crate) async fn resolve(&self, source: &SecretSource, what: &str) -> Result<SecretString, Failure> {
        let key = match source {
            SecretSource::Prompt => format!("prompt {what}"),
            SecretSource::Env(name) => format!("env {name}"),
            SecretSource::File(path) => format!("file {}", path.display()),
        };
        // Held over the prompt on purpose: two lanes that need the same answer ask once.
        let mut known = self.known.lock().await;
        if let Some(secret) = known.get(&key) {
            return Ok(secret.clone());
        }
        let secret = self.look_up(source, what).await?;
        known.insert(key, secret.clone());
        Ok(secret)
    }

    async fn look_up(&self, source: &SecretSource, what: &str) -> Result<SecretString, Failure> {
        match source {
            SecretSource::Env(name) => self.environment.secrets.env(name).await.ok_or_else(|| {
                Failure::new(FailureClass::Config, format!("the {what} is missing: the variable `{name}` is not set"))
                    .hint(format!("Run `export {name}=…`, or name another source in the document: `{{ file: PATH }}` or `prompt`."))
            }),
            SecretSource::Prompt => self.environment.secrets.prompt(what).await.ok_or_else(|| {
                Failure::new(FailureClass::Config, format!("the {what} is missing: there is no terminal to ask on"))
                    .hint("Run this on a terminal, or name another source in the document: `{ env: NAME }` or `{ file: PATH }`.")
            }),
            SecretSource::File(path) => {
                let path = self.environment.path(path);
                private(&path, what)?;
                let text = tokio::fs::read_to_string(&path).await.map_err(|e| {
                    Failure::new(FailureClass::Config, format!("cannot read the {what} from `{}`", path.display())).source(e)
                })?;
                Ok(SecretString::from(text.strip_suffix('\n').unwrap_or(&text).trim_end_matches('\r').to_owned()))
            }
        }
    }
}

/// Refuses a file with a secret that others can read.
#[cfg(unix)]
pub(crate) fn private(path: &Path, what: &str) -> Result<(), Failure> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(path).map(|m| m.permissions().mode()).unwrap_or(0o600);
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(Failure::new(FailureClass::Config, format!("others can read the {what} in `{}`", path.display()))
        .hint(format!("Run `chmod 600 {}`.", path.display())))
}

#[cfg(not(unix))]
pub(crate) fn private(_: &Path, _: &str) -> Result<(), Failure> {
    Ok(())
}
