//! The binary and, without internet, the container images.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use turingpi_cluster::{Arch, FactsRequest, Host, HostFacts, HostStep, HostTask};
use turingpi_engine::{Failure, Step, StepContext, StepDescription, Verdict};
use turingpi_ssh::RemoteFile;

use crate::{InstallMode, K3sVersion, env::Env, paths, release::ReleaseFiles};

/// The state's key of the digest a binary was verified with.
pub(crate) fn binary_record(version: &K3sVersion, arch: &Arch) -> String {
    format!("k3s/binary/{version}/{arch}")
}

/// The binary of a version, verified against the release's checksums.
#[derive(Clone)]
pub(crate) struct Binary {
    pub(crate) env: Arc<Env>,
    pub(crate) version: K3sVersion,
}

// The node's own download: to a name beside the final one, verified, then renamed.
const DOWNLOAD: &str = r#"
part=/usr/local/bin/.k3s.turingpi
mkdir -p /usr/local/bin
trap 'rm -f "$part"' EXIT
# An address that begins with https is not left for http.
case $1 in https:*) only='=https' ;; *) only='=http,https' ;; esac
curl -fsSL --proto-redir "$only" --retry 3 -o "$part" "$1"
printf '%s  %s\n' "$2" "$part" | sha256sum -c - >/dev/null
chmod 0755 "$part"
mv -f "$part" /usr/local/bin/k3s
"#;

// A kubectl that somebody installed stays.
const LINK: &str = r#"
for link in "$@"; do
  if [ -L "$link" ] || [ ! -e "$link" ]; then ln -sfn k3s "$link"; fi
done
"#;

impl Binary {
    async fn look(&self, host: &Host) -> Result<HostFacts, Failure> {
        host.facts(&FactsRequest::new().files([paths::BINARY]).paths(paths::LINKS).narrow()).await
    }

    /// The step, which also notes the digest that was verified.
    pub(crate) fn recorded(self, step: HostStep) -> Arc<dyn Step> {
        Arc::new(Recorded { task: self, node: step.node().to_owned(), step })
    }
}

#[async_trait]
impl HostTask for Binary {
    async fn differs(&self, host: &Host) -> Result<Option<String>, Failure> {
        let facts = self.look(host).await?;
        let file = ReleaseFiles::of(&facts.arch)?.binary;
        let wanted = self.env.releases.digest(&self.version, &facts.arch, &file).await?;
        Ok(match facts.files.get(paths::BINARY) {
            None => Some("k3s is not installed".to_owned()),
            Some(found) if found.sha256 != wanted.as_str() => Some("the binary is another one".to_owned()),
            Some(found) if found.mode & 0o111 == 0 => Some("the binary is not executable".to_owned()),
            Some(_) => {
                paths::LINKS.iter().find(|l| !facts.paths.contains(**l)).map(|l| format!("{l} is missing"))
            }
        })
    }

    async fn make(&self, host: &Host, cx: &StepContext) -> Result<(), Failure> {
        let facts = self.look(host).await?;
        let file = ReleaseFiles::of(&facts.arch)?.binary;
        let releases = &self.env.releases;
        match releases.install() {
            InstallMode::Node => {
                let digest = releases.digest(&self.version, &facts.arch, &file).await?;
                if facts.digest(paths::BINARY) != Some(digest.as_str()) {
                    let url = releases.url(&self.version, &file);
                    let what = format!("download k3s {}", self.version);
                    let limit = Duration::from_secs(1200);
                    let done = host.script_within(&what, DOWNLOAD, &[&url, digest.as_str()], limit).await;
                    done.map_err(|f| {
                        f.retryable()
                            .hint("Check that the node reaches the address, or use `install: upload`.")
                    })?;
                }
            }
            InstallMode::Upload | InstallMode::Airgap { .. } => {
                let (path, digest) = releases.file(&self.version, &facts.arch, &file, cx).await?;
                let binary = RemoteFile::local(paths::BINARY, path, Some(digest.to_string())).mode(0o755);
                host.upload(&binary, cx).await?;
            }
        }
        host.script("link kubectl", LINK, &paths::LINKS).await.map(drop)
    }
}

/// A binary step that notes which digest was verified, so that a later look notices another binary without asking
/// the release.
struct Recorded {
    task: Binary,
    node: String,
    step: HostStep,
}

#[async_trait]
impl Step for Recorded {
    fn describe(&self) -> StepDescription {
        self.step.describe()
    }

    async fn apply(&self, cx: &StepContext) -> Result<(), Failure> {
        self.step.apply(cx).await?;
        let host = self.task.env.hosts.host(&self.node).await?;
        let facts = self.task.look(&host).await?;
        let file = ReleaseFiles::of(&facts.arch)?.binary;
        let digest = self.task.env.releases.digest(&self.task.version, &facts.arch, &file).await?;
        let key = binary_record(&self.task.version, &facts.arch);
        cx.update_state(|state| state.put_record(key, &digest.as_str())).await
    }

    async fn verify(&self, cx: &StepContext) -> Result<Verdict, Failure> {
        self.step.verify(cx).await
    }
}

/// The container images of a version, from the air-gap folder.
pub(crate) struct Images {
    pub(crate) env: Arc<Env>,
    pub(crate) version: K3sVersion,
}

impl Images {
    /// Name on the node and verified local path.
    async fn wanted(&self, host: &Host) -> Result<Option<(Arch, String)>, Failure> {
        let arch = host.facts(&FactsRequest::new().narrow()).await?.arch;
        Ok(self.env.releases.images(&arch)?.map(|name| (arch, name)))
    }
}

#[async_trait]
impl HostTask for Images {
    async fn differs(&self, host: &Host) -> Result<Option<String>, Failure> {
        let Some((arch, name)) = self.wanted(host).await? else { return Ok(None) };
        let digest = self.env.releases.digest(&self.version, &arch, &name).await?;
        let found = host.digest(&format!("{}/{name}", paths::IMAGES)).await?;
        Ok((found.as_deref() != Some(digest.as_str())).then(|| format!("{name} is not there")))
    }

    async fn make(&self, host: &Host, cx: &StepContext) -> Result<(), Failure> {
        let Some((arch, name)) = self.wanted(host).await? else { return Ok(()) };
        let (path, digest) = self.env.releases.file(&self.version, &arch, &name, cx).await?;
        // Archives of an earlier version would be imported again at every start.
        let script = "for old in \"$1\"/k3s-airgap-images-*; do if [ \"$old\" != \"$1/$2\" ]; then rm -f \"$old\"; fi; done";
        host.script("remove older images", script, &[paths::IMAGES, &name]).await?;
        let target = format!("{}/{name}", paths::IMAGES);
        host.upload(&RemoteFile::local(target, path, Some(digest.to_string())), cx).await.map(drop)
    }
}
