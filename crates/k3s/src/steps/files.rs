//! The files k3s reads at start: config, registries, unit.

use std::sync::Arc;

use async_trait::async_trait;
use secrecy::SecretString;
use turingpi_cluster::{FactsRequest, Host, HostTask, NodeSpec, Role};
use turingpi_engine::{Failure, FailureClass, State, Step, StepContext, StepDescription, Verdict};
use turingpi_ssh::RemoteFile;

use crate::{
    JOIN_TOKEN_KEY, TOKEN_KEY,
    config::{self, Entry, SecretFile},
    env::Env,
    paths, unit,
};

/// Writes a node's config with its token. The token is read from the state when it runs: the full one is known only
/// after the first server is up.
pub(crate) struct ConfigStep {
    pub(crate) description: StepDescription,
    pub(crate) env: Arc<Env>,
    pub(crate) node: NodeSpec,
    pub(crate) entry: Entry,
}

impl ConfigStep {
    fn token<'a>(&self, state: &'a State) -> Result<&'a SecretString, Failure> {
        let key = match self.entry {
            Entry::Alone | Entry::Init => TOKEN_KEY,
            Entry::Join(_) => JOIN_TOKEN_KEY,
        };
        state.secret(key).ok_or_else(|| {
            Failure::new(
                FailureClass::Unexpected,
                format!("the state holds no `{key}` for the config of {}", self.node.name),
            )
            .hint("Run the same command again: the step that stores it comes first.")
        })
    }

    async fn file(&self, cx: &StepContext) -> Result<SecretFile, Failure> {
        let servers: Vec<&NodeSpec> = self.env.servers().collect();
        let state = cx.state().await?;
        config::render(&self.env.config_input(&self.node, &servers, &self.entry), self.token(&state)?)
    }
}

async fn differs(host: &Host, path: &str, file: &SecretFile) -> Result<Option<String>, Failure> {
    let facts = host.facts(&FactsRequest::new().files([path]).narrow()).await?;
    Ok(match facts.files.get(path) {
        Some(found) if found.sha256 == file.sha256() && found.mode == 0o600 => None,
        Some(_) => Some(format!("{path} has other content or permissions")),
        None => Some(format!("{path} does not exist")),
    })
}

#[async_trait]
impl Step for ConfigStep {
    fn describe(&self) -> StepDescription {
        self.description.clone()
    }

    async fn apply(&self, cx: &StepContext) -> Result<(), Failure> {
        let file = self.file(cx).await?;
        let host = self.env.hosts.host(&self.node.name).await?;
        // First whose it is: nobody else's teardown shall take it for its own.
        let cluster = format!("{}\n", self.env.name);
        host.ensure_file(&RemoteFile::new(paths::CLUSTER, cluster.as_bytes())).await?;
        host.ensure_file(&RemoteFile::secret(paths::CONFIG, file.bytes())).await.map(drop)
    }

    async fn verify(&self, cx: &StepContext) -> Result<Verdict, Failure> {
        let file = self.file(cx).await?;
        let host = self.env.hosts.host(&self.node.name).await?;
        Ok(match differs(&host, paths::CONFIG, &file).await? {
            None => Verdict::Converged,
            Some(seen) => Verdict::NotYet(seen),
        })
    }
}

/// `registries.yaml` as the spec has it: without the section ours goes, and one that somebody else wrote stays.
pub(crate) struct RegistriesTask {
    pub(crate) env: Arc<Env>,
}

const FIRST_LINE: &str = "if [ -f \"$1\" ]; then head -n 1 \"$1\"; fi";

#[async_trait]
impl HostTask for RegistriesTask {
    async fn differs(&self, host: &Host) -> Result<Option<String>, Failure> {
        match config::render_registries(&self.env.spec)? {
            Some(file) => differs(host, paths::REGISTRIES, &file).await,
            None => {
                let first = host.script("look at registries.yaml", FIRST_LINE, &[paths::REGISTRIES]).await?;
                Ok(first.starts_with(unit::MARK).then(|| format!("{} is still there", paths::REGISTRIES)))
            }
        }
    }

    async fn make(&self, host: &Host, _cx: &StepContext) -> Result<(), Failure> {
        let Some(file) = config::render_registries(&self.env.spec)? else {
            return host.remove_files(&[paths::REGISTRIES]).await;
        };
        host.ensure_file(&RemoteFile::secret(paths::REGISTRIES, file.bytes())).await.map(drop)
    }
}

/// The unit of a role, and none for the other role: a server's unit on an agent would make it a cluster of its own at
/// the next boot (k3s-ansible issue 504).
pub(crate) struct UnitTask {
    pub(crate) role: Role,
}

const REMOVE: &str = r#"
if systemctl cat "$1" >/dev/null 2>&1; then
  systemctl stop "$1" || true
  systemctl disable --quiet "$1" || true
fi
rm -f "$2" "$2.env"
"#;

#[async_trait]
impl HostTask for UnitTask {
    async fn differs(&self, host: &Host) -> Result<Option<String>, Failure> {
        let (path, other) = (unit::unit_path(self.role), unit::unit_path(unit::other(self.role)));
        let facts = host.facts(&FactsRequest::new().files([path]).paths([other]).narrow()).await?;
        let wanted = super::sha256(unit::render_unit(self.role).as_bytes());
        Ok(match facts.files.get(path) {
            None => Some(format!("{path} does not exist")),
            Some(file) if file.sha256 != wanted || file.mode != 0o644 => Some(format!("{path} differs")),
            Some(_) => facts.paths.contains(other).then(|| format!("{other} exists")),
        })
    }

    async fn make(&self, host: &Host, _cx: &StepContext) -> Result<(), Failure> {
        let other = unit::other(self.role);
        let name = unit::unit_name(other);
        host.script(&format!("remove {name}"), REMOVE, &[name, unit::unit_path(other)]).await?;
        let text = unit::render_unit(self.role);
        host.ensure_file(&RemoteFile::new(unit::unit_path(self.role), text.as_bytes())).await?;
        host.daemon_reload().await
    }
}
