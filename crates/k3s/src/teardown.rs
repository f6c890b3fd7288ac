//! Taking a cluster away, whole or half built: agents first, then servers, then what we remember of it.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use turingpi_cluster::{
    FactsRequest, Host, HostStep, HostTask, NodeSpec, Role,
    kube::{DrainOptions, drain},
};
use turingpi_engine::{
    Change, Failure, Lane, Plan, Risk, Stage, State, Step, StepContext, StepDescription, Subject,
};

use crate::{
    JOIN_TOKEN_KEY, K3sFacts, K3sNode, Reach, TOKEN_KEY,
    env::Env,
    facts::{EXTRA, request},
    paths, plan,
};

/// How a cluster is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TeardownOptions {
    /// Remove the data too: the cluster's objects, local volumes, the token. Otherwise a later run finds it again.
    pub wipe_data: bool,
    /// Move workloads off each agent first, as far as they can go.
    pub drain: bool,
    /// Go on where a node is down, and leave it as it is.
    pub leave_unreachable: bool,
}

impl TeardownOptions {
    /// Everything goes, data too.
    pub fn wipe() -> Self {
        Self { wipe_data: true, drain: true, leave_unreachable: false }
    }
    /// k3s goes, its data and the token stay.
    pub fn keep_data() -> Self {
        Self { wipe_data: false, ..Self::wipe() }
    }
    /// Ends pods without asking their disruption budgets.
    #[must_use]
    pub fn without_drain(mut self) -> Self {
        self.drain = false;
        self
    }
    /// Goes on where a node is down.
    #[must_use]
    pub fn leaving_unreachable(mut self) -> Self {
        self.leave_unreachable = true;
        self
    }
}

const UNINSTALL: &str = include_str!("uninstall.sh");

/// What an uninstall that keeps the data leaves where it is.
const KEPT: [&str; 3] = [paths::DATA, "/etc/rancher/k3s", "/etc/rancher/node"];

fn left(node: &K3sNode, options: TeardownOptions) -> Vec<String> {
    let goes = |path: &&String| options.wipe_data || !KEPT.contains(&path.as_str());
    node.leftovers.iter().filter(goes).cloned().collect()
}

pub(crate) fn plan(
    env: &Arc<Env>,
    facts: &K3sFacts,
    state: &State,
    options: TeardownOptions,
) -> Result<Plan, Failure> {
    let mut agents = Vec::new();
    let mut servers = Vec::new();
    for node in &env.nodes {
        let seen = match facts.nodes.get(&node.name) {
            Some(Reach::Up(seen)) => seen,
            Some(Reach::Down(report)) if !options.leave_unreachable => {
                let failure = plan::down(&node.name, report);
                return Err(
                    failure.hint(format!("Switch {} on, or leave it out and wipe it later.", node.name))
                );
            }
            _ => continue,
        };
        let left = left(&seen.k3s, options);
        if left.is_empty() {
            continue;
        }
        plan::may_take_down(env, state, &node.name, &seen.k3s)?;
        let mut steps = Vec::new();
        // Workloads of the last nodes have nowhere to go: servers are not drained.
        let drained = options.drain && node.role == Role::Worker && facts.object(&node.name).is_some();
        if drained {
            steps.push(drain_step(env, node));
        }
        steps.push(uninstall_step(env, node, &left, options));
        let lane = Lane { subject: Subject::node(&node.name), steps };
        match node.role {
            Role::Worker => agents.push(lane),
            Role::ControlPlane => servers.push(lane),
        }
    }
    // The server that others joined through goes last.
    servers.reverse();
    let something = !agents.is_empty() || !servers.is_empty();
    let mut stages = Vec::new();
    let mut stage = |title: &str, lanes: Vec<Lane>| {
        if !lanes.is_empty() {
            stages.push(Stage { title: title.to_owned(), lanes });
        }
    };
    stage("Agents", agents);
    stage("Servers", servers);
    stage("Cluster", forget_step(env, state, options, something).into_iter().collect());
    Ok(Plan { stages })
}

fn drain_step(env: &Arc<Env>, node: &NodeSpec) -> Arc<dyn Step> {
    let description = StepDescription::new(format!("{}/k3s-drain", node.name), "Drain", "teardown")
        .risk(Risk::Disruptive)
        .change(Change::remove(format!("workloads on {}", node.name), "running"))
        .lock(plan::DISRUPT)
        .expected_seconds(30);
    Arc::new(DrainNode { description, env: Arc::clone(env), node: node.name.clone() })
}

fn uninstall_step(
    env: &Arc<Env>,
    node: &NodeSpec,
    left: &[String],
    options: TeardownOptions,
) -> Arc<dyn Step> {
    let (title, risk) = if options.wipe_data {
        ("Uninstall k3s and wipe its data", Risk::Destructive)
    } else {
        ("Uninstall k3s, keep its data", Risk::Disruptive)
    };
    let mut description = StepDescription::new(format!("{}/k3s-uninstall", node.name), title, "teardown")
        .risk(risk)
        .expected_seconds(20);
    for what in left {
        description = description.change(Change::remove(what, "there"));
    }
    HostStep::new(description, &env.hosts, &node.name, Uninstall { options })
        .limit(Duration::from_secs(120))
        .shared()
}

fn forget_step(env: &Arc<Env>, state: &State, options: TeardownOptions, something: bool) -> Option<Lane> {
    let remembered = options.wipe_data
        && (state.secret(TOKEN_KEY).is_some()
            || state.secret(JOIN_TOKEN_KEY).is_some()
            || state.record_keys("k3s/").next().is_some());
    if !something && !remembered {
        return None;
    }
    let mut description = StepDescription::new("k3s/forget", "Forget the cluster", "teardown");
    if let Some(sink) = &env.sink {
        description = description.change(Change::remove(sink.place(), format!("entries of {}", env.name)));
    }
    if options.wipe_data {
        description =
            description.risk(Risk::Destructive).change(Change::remove("state: join token", "a secret"));
    }
    let step = Forget { description, env: Arc::clone(env), options };
    Some(Lane { subject: Subject::cluster(&env.name), steps: vec![Arc::new(step)] })
}

struct DrainNode {
    description: StepDescription,
    env: Arc<Env>,
    node: String,
}

#[async_trait]
impl Step for DrainNode {
    fn describe(&self) -> StepDescription {
        self.description.clone()
    }

    async fn apply(&self, cx: &StepContext) -> Result<(), Failure> {
        let options =
            DrainOptions { force: true, limit: Duration::from_secs(120), ..DrainOptions::default() };
        let done = async {
            let api = self.env.api().await?;
            drain(api.as_ref(), &self.node, &options, cx).await?;
            api.delete_node(&self.node).await
        };
        // Everything goes anyway: what cannot move ends with its node.
        if let Err(failure) = done.await {
            if cx.cancellation().is_stopped_now() {
                return Err(failure);
            }
            cx.note(format!("{} was not drained: {failure}", self.node));
        }
        Ok(())
    }
}

struct Uninstall {
    options: TeardownOptions,
}

#[async_trait]
impl HostTask for Uninstall {
    async fn differs(&self, host: &Host) -> Result<Option<String>, Failure> {
        // The proof of a token is of no use here, so its salt does not matter.
        let facts = host.facts(&FactsRequest::new().and(request("none"))).await?;
        let node = K3sNode::parse(facts.extra(EXTRA).unwrap_or(""), "none");
        let left = left(&node, self.options);
        Ok((!left.is_empty()).then(|| format!("still there: {}", left.join(", "))))
    }

    async fn make(&self, host: &Host, _cx: &StepContext) -> Result<(), Failure> {
        let word = if self.options.wipe_data { "wipe" } else { "keep" };
        host.script_within("uninstall k3s", UNINSTALL, &[word], Duration::from_secs(300)).await.map(drop)
    }
}

struct Forget {
    description: StepDescription,
    env: Arc<Env>,
    options: TeardownOptions,
}

#[async_trait]
impl Step for Forget {
    fn describe(&self) -> StepDescription {
        self.description.clone()
    }

    async fn apply(&self, cx: &StepContext) -> Result<(), Failure> {
        if let Some(sink) = &self.env.sink {
            sink.remove(&self.env.name).await?;
        }
        if !self.options.wipe_data {
            return Ok(());
        }
        cx.update_state(|state| {
            state.remove_secret(TOKEN_KEY);
            state.remove_secret(JOIN_TOKEN_KEY);
            let keys: Vec<String> = state.record_keys("k3s/").map(str::to_owned).collect();
            for key in keys {
                state.remove_record(&key);
            }
            Ok(())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

    use super::UNINSTALL;

    /// Runs the script on a host below `root`, with programs of which none does anything but those of `tools`.
    fn uninstall(root: &Path, tools: &[(&str, &str)]) -> std::process::Output {
        let bin = root.join("bin");
        fs::create_dir_all(&bin).unwrap();
        let nothing =
            ["systemctl", "ip", "iptables-save", "ip6tables-save", "umount"].map(|name| (name, "exit 1"));
        for (name, text) in nothing.iter().chain(tools) {
            let path = bin.join(name);
            fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let mut script = UNINSTALL.to_owned();
        for folder in ["/var/lib/", "/etc/", "/usr/local/", "/run/", "/proc/", "/sys/"] {
            script = script.replace(folder, &format!("{}{folder}", root.display()));
        }
        let mut command = Command::new("/bin/sh");
        command.arg("-s").arg("--").arg("wipe").env("PATH", format!("{}:/usr/bin:/bin", bin.display()));
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), script.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    #[test]
    fn a_volume_that_cannot_be_unmounted_is_not_emptied() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let volume = root.join("var/lib/kubelet/pods/1/volumes/my nas");
        fs::create_dir_all(&volume).unwrap();
        fs::write(volume.join("photos"), "years of them").unwrap();
        fs::create_dir_all(root.join("proc")).unwrap();
        let mounts = root.join("proc/mounts");
        let shown = volume.display().to_string().replace(' ', "\\040");
        fs::write(&mounts, format!("nas:/export {shown} nfs rw 0 0\n")).unwrap();

        let output = uninstall(root, &[]);
        assert!(!output.status.success(), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("still mounted"), "{output:?}");
        assert_eq!(fs::read_to_string(volume.join("photos")).unwrap(), "years of them");

        // One that can be is asked for by its real name, and then the folder goes.
        let umount = format!("test \"$2\" = '{}' && : >'{}'", volume.display(), mounts.display());
        let output = uninstall(root, &[("umount", &umount)]);
        assert!(output.status.success(), "{output:?}");
        assert!(!root.join("var/lib/kubelet").exists());
    }
}
