//! The kernel: modules, parameters and control groups.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use turingpi_engine::{Change, Failure, FailureClass, Step, StepContext};
use turingpi_ssh::RemoteFile;

use super::{Preparation, Work};
use crate::{
    FactsRequest, Host, HostFacts, HostStep, HostTask, Hosts,
    host::{FileContent, assignment, set_assignment},
};

pub(super) const MODULES_PATH: &str = "/etc/modules-load.d/50-turingpi.conf";
pub(super) const SYSCTL_PATH: &str = "/etc/sysctl.d/90-turingpi.conf";

pub(super) fn modules(with: &Preparation<'_>) -> Option<Work> {
    let mut wanted: Vec<String> = with.needs.modules.iter().chain(&with.spec.modules).cloned().collect();
    wanted.sort();
    wanted.dedup();
    if wanted.is_empty() {
        return None;
    }
    let text = wanted.iter().map(|m| format!("{m}\n")).collect();
    let task = Modules { file: FileContent { path: MODULES_PATH.to_owned(), text }, wanted };
    let mut changes = Vec::new();
    let missing: Vec<String> = match with.facts() {
        None => task.wanted.clone(),
        Some(facts) => {
            if facts.digest(MODULES_PATH) != Some(task.file.sha256().as_str()) {
                changes.push(Change::set(MODULES_PATH, task.wanted.join(" ")));
            }
            task.wanted.iter().filter(|m| !facts.modules.contains(*m)).cloned().collect()
        }
    };
    changes.extend(missing.iter().map(|m| Change::set(format!("module {m}"), "loaded")));
    if changes.is_empty() { None } else { Some(Work::new(changes, task)) }
}

struct Modules {
    wanted: Vec<String>,
    file: FileContent,
}

#[async_trait]
impl HostTask for Modules {
    async fn differs(&self, host: &Host) -> Result<Option<String>, Failure> {
        let request = FactsRequest::new().modules(self.wanted.iter().cloned()).files([MODULES_PATH]).narrow();
        let facts = host.facts(&request).await?;
        if facts.digest(MODULES_PATH) != Some(self.file.sha256().as_str()) {
            return Ok(Some(format!("{MODULES_PATH} is missing or differs")));
        }
        Ok(self
            .wanted
            .iter()
            .find(|m| !facts.modules.contains(*m))
            .map(|m| format!("module {m} is not loaded")))
    }

    async fn make(&self, host: &Host, _cx: &StepContext) -> Result<(), Failure> {
        for module in &self.wanted {
            host.script(&format!("load the kernel module {module}"), "modprobe \"$1\"", &[module]).await.map_err(|f| {
                f.hint("The running kernel lacks it. Install linux-modules-extra for it, reboot after a kernel update, or flash an image whose kernel has it.")
            })?;
        }
        self.file.write(host).await.map(drop)
    }
}

pub(super) fn sysctl(with: &Preparation<'_>) -> Option<Work> {
    let mut wanted = with.needs.sysctl.clone();
    wanted.extend(with.spec.sysctl.clone());
    if wanted.is_empty() {
        return None;
    }
    let text = wanted.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
    let task = Sysctl { file: FileContent { path: SYSCTL_PATH.to_owned(), text }, wanted };
    let changes = match with.facts() {
        None => task.wanted.iter().map(|(key, value)| Change::set(key, value)).collect(),
        Some(facts) => task.changes(facts),
    };
    if changes.is_empty() { None } else { Some(Work::new(changes, task)) }
}

struct Sysctl {
    wanted: BTreeMap<String, String>,
    file: FileContent,
}

/// Values with inner white space are compared word by word: the kernel prints tabs.
fn same_value(a: &str, b: &str) -> bool {
    a.split_whitespace().eq(b.split_whitespace())
}

impl Sysctl {
    fn changes(&self, facts: &HostFacts) -> Vec<Change> {
        let mut changes = Vec::new();
        for (key, value) in &self.wanted {
            match facts.sysctl.get(key) {
                Some(seen) if same_value(seen, value) => {}
                Some(seen) => changes.push(Change::replace(key, seen, value)),
                None => changes.push(Change::set(key, value)),
            }
        }
        if facts.digest(SYSCTL_PATH) != Some(self.file.sha256().as_str()) {
            changes.push(Change::set(SYSCTL_PATH, format!("{} values", self.wanted.len())));
        }
        changes
    }
}

#[async_trait]
impl HostTask for Sysctl {
    async fn differs(&self, host: &Host) -> Result<Option<String>, Failure> {
        let request = FactsRequest::new().sysctls(self.wanted.keys().cloned()).files([SYSCTL_PATH]).narrow();
        let changes = self.changes(&host.facts(&request).await?);
        Ok(changes.first().map(|c| format!("{} is {}", c.what, c.old.as_deref().unwrap_or("not set"))))
    }

    async fn make(&self, host: &Host, _cx: &StepContext) -> Result<(), Failure> {
        self.file.write(host).await?;
        // Fails on the first key the kernel refuses, and says which.
        host.script("set kernel parameters", "sysctl -q -p \"$1\"", &[SYSCTL_PATH]).await.map(drop)
    }
}

/// Controllers a kubelet cannot start without.
const CONTROLLERS: [&str; 4] = ["cpu", "cpuset", "memory", "pids"];

fn missing_controllers(facts: &HostFacts) -> Vec<&'static str> {
    // Version 0: there is no cgroup file system to look at, so nothing can be said.
    if facts.cgroup.version == 0 {
        return Vec::new();
    }
    CONTROLLERS.iter().filter(|c| !facts.cgroup.controllers.contains(**c)).copied().collect()
}

/// The step that switches control groups on, if they are not. They are on in every image for the RK1, so nothing is
/// forecast for a node without facts.
pub(super) fn cgroup_step(
    with: &Preparation<'_>,
    hosts: &Hosts,
    reboot_for: &mut Vec<&'static str>,
) -> Option<Arc<dyn Step>> {
    let facts = with.facts()?;
    let missing = missing_controllers(facts);
    if missing.is_empty() || !facts.pending_reboot().is_empty() {
        return None;
    }
    reboot_for.push("cgroups");
    let mut description = with.describe("cgroups", "Switch control groups on").expected_seconds(2);
    description.changes =
        missing.iter().map(|c| Change::set(format!("cgroup {c}"), "on after a reboot")).collect();
    Some(HostStep::new(description, hosts, &with.node.name, Cgroups).shared())
}

const ARGUMENTS: [&str; 3] = ["cgroup_enable=cpuset", "cgroup_enable=memory", "cgroup_memory=1"];

/// Where a system keeps the arguments of its kernel: the file, the variable in it (none: the whole line), and what has
/// to run afterwards.
const BOOT_FILES: [(&str, Option<&str>, Option<&str>); 6] = [
    ("/boot/armbianEnv.txt", Some("extraargs"), None),
    ("/boot/orangepiEnv.txt", Some("extraargs"), None),
    ("/etc/default/u-boot", Some("U_BOOT_PARAMETERS"), Some("u-boot-update")),
    ("/boot/firmware/cmdline.txt", None, None),
    ("/boot/cmdline.txt", None, None),
    ("/etc/default/grub", Some("GRUB_CMDLINE_LINUX"), Some("update-grub")),
];

/// The boot file with our arguments in it; `None` when they are there already.
fn with_arguments(text: &str, variable: Option<&str>) -> Option<String> {
    let old = match variable {
        Some(name) => assignment(text, name).unwrap_or(""),
        None => text.lines().next().unwrap_or(""),
    };
    let mut words: Vec<&str> = old.split_whitespace().collect();
    let before = words.len();
    for argument in ARGUMENTS {
        if !words.contains(&argument) {
            words.push(argument);
        }
    }
    if words.len() == before {
        return None;
    }
    let new = words.join(" ");
    Some(match variable {
        // The Armbian boot script reads its file without a shell: no quotes there.
        Some(name @ "extraargs") => set_assignment(text, name, &new),
        Some(name) => set_assignment(text, name, &format!("\"{new}\"")),
        None => format!("{new}\n"),
    })
}

struct Cgroups;

#[async_trait]
impl HostTask for Cgroups {
    async fn differs(&self, host: &Host) -> Result<Option<String>, Failure> {
        if host.pending_reboot().await?.iter().any(|r| r == "cgroups") {
            return Ok(None);
        }
        let missing = missing_controllers(&host.facts(&FactsRequest::new()).await?);
        Ok((!missing.is_empty()).then(|| format!("cgroup {} is off", missing.join(", "))))
    }

    async fn make(&self, host: &Host, _cx: &StepContext) -> Result<(), Failure> {
        for (path, variable, after) in BOOT_FILES {
            let Some(text) = host.read_text(path).await? else { continue };
            let Some(new) = with_arguments(&text, variable) else {
                return Err(refused(host, "its kernel was started with them on").hint(
                    "Its kernel was built without these controllers: flash an image with another kernel. A missing `cpu` alone means that a real-time process (rtkit, multipathd) holds it.",
                ));
            };
            host.note_pending_reboot("cgroups").await?;
            host.ensure_file(&RemoteFile::new(path, new.as_bytes())).await?;
            if let Some(program) = after {
                host.script(&format!("run {program}"), "\"$1\"", &[program]).await?;
            }
            return Ok(());
        }
        Err(refused(host, "none of the boot files we know is there")
            .hint(format!("Add `{}` to the arguments of its kernel and reboot it.", ARGUMENTS.join(" "))))
    }
}

fn refused(host: &Host, why: &str) -> Failure {
    Failure::new(FailureClass::Refused, format!("cannot switch control groups on, on {}: {why}", host.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_arguments_are_added_once_and_keep_what_was_there() {
        let armbian = "verbosity=1\nextraargs=cma=256M\n";
        let new = with_arguments(armbian, Some("extraargs")).unwrap();
        assert_eq!(
            new,
            "verbosity=1\nextraargs=cma=256M cgroup_enable=cpuset cgroup_enable=memory cgroup_memory=1\n"
        );
        assert_eq!(with_arguments(&new, Some("extraargs")), None);

        let line = with_arguments("root=LABEL=x rootwait\n", None).unwrap();
        assert_eq!(line, "root=LABEL=x rootwait cgroup_enable=cpuset cgroup_enable=memory cgroup_memory=1\n");
        assert_eq!(with_arguments(&line, None), None);

        let grub = with_arguments("GRUB_CMDLINE_LINUX=\"quiet\"\n", Some("GRUB_CMDLINE_LINUX")).unwrap();
        assert!(grub.contains("GRUB_CMDLINE_LINUX=\"quiet cgroup_enable=cpuset"), "{grub}");
        assert_eq!(with_arguments(&grub, Some("GRUB_CMDLINE_LINUX")), None);
    }
}
