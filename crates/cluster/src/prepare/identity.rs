//! Who the host is: its name, its machine id, and the names of the other nodes.

use async_trait::async_trait;
use rand::RngExt;
use turingpi_engine::{Change, Failure, StepContext};
use turingpi_ssh::RemoteFile;

use super::{HostsFile, Preparation, Work};
use crate::{Host, HostFacts, HostTask, NodeSpec, unless_same};

pub(super) const HOSTS_PATH: &str = "/etc/hosts";

pub(super) fn hostname(with: &Preparation<'_>) -> Option<Work> {
    let wanted = with.node.name.clone();
    let change = match with.facts() {
        None => Change::set("host name", &wanted),
        Some(facts) if facts.hostname == wanted && facts.static_hostname == wanted => return None,
        Some(facts) if facts.hostname == wanted => {
            Change::replace("host name at boot", &facts.static_hostname, &wanted)
        }
        Some(facts) => Change::replace("host name", &facts.hostname, &wanted),
    };
    Some(Work::new(vec![change], Hostname(wanted)))
}

struct Hostname(String);

#[async_trait]
impl HostTask for Hostname {
    async fn differs(&self, host: &Host) -> Result<Option<String>, Failure> {
        let script =
            "cat /proc/sys/kernel/hostname 2>/dev/null || hostname; cat /etc/hostname 2>/dev/null || true";
        let text = host.script("read the host name", script, &[]).await?;
        let mut lines = text.lines().map(str::trim);
        let live = unless_same("the host name", lines.next(), &self.0);
        Ok(live.or_else(|| unless_same("the host name at boot", lines.next(), &self.0)))
    }

    async fn make(&self, host: &Host, _cx: &StepContext) -> Result<(), Failure> {
        let script = r#"
if command -v hostnamectl >/dev/null 2>&1; then hostnamectl set-hostname "$1"; else hostname "$1"; fi
printf '%s\n' "$1" >/etc/hostname
chmod 0644 /etc/hostname
"#;
        host.script("set the host name", script, &[&self.0]).await.map(drop)
    }
}

pub(super) fn machine_id(with: &Preparation<'_>) -> Option<Work> {
    let id = |facts: &HostFacts| is_machine_id(&facts.machine_id).then(|| facts.machine_id.clone());
    let Some(facts) = with.facts() else {
        return Some(
            Work::new(vec![Change::set("machine id", "one of its own")], MachineId { bad: None })
                .after_reboot(),
        );
    };
    if let Some(twin) = with.duplicate_of(id) {
        let old = format!("{}, the same as {twin}", facts.machine_id);
        let change = Change::replace("machine id", old, "one of its own");
        return Some(
            Work::new(vec![change], MachineId { bad: Some(facts.machine_id.clone()) }).after_reboot(),
        );
    }
    if id(facts).is_some() {
        return None;
    }
    Some(Work::new(vec![Change::set("machine id", "one of its own")], MachineId { bad: None }).after_reboot())
}

fn is_machine_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit()) && text.bytes().any(|b| b != b'0')
}

struct MachineId {
    /// An id that another node has too.
    bad: Option<String>,
}

#[async_trait]
impl HostTask for MachineId {
    async fn differs(&self, host: &Host) -> Result<Option<String>, Failure> {
        let id = host.read_text("/etc/machine-id").await?.unwrap_or_default();
        let id = id.trim();
        Ok(match &self.bad {
            _ if !is_machine_id(id) => Some("there is no machine id".to_owned()),
            Some(bad) if bad == id => Some("the machine id is another node's".to_owned()),
            _ => None,
        })
    }

    async fn make(&self, host: &Host, _cx: &StepContext) -> Result<(), Failure> {
        host.note_pending_reboot("the machine id").await?;
        // A random UUID of version 4, as systemd itself writes.
        let mut bytes: [u8; 16] = rand::rng().random();
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let id = format!("{}\n", hex::encode(bytes));
        host.ensure_file(&RemoteFile::new("/etc/machine-id", id.as_bytes()).mode(0o444)).await?;
        // dbus keeps a copy of its own on some systems, a link on others.
        let script =
            "f=/var/lib/dbus/machine-id; if [ -f $f ] && [ ! -L $f ]; then cp /etc/machine-id $f; fi";
        host.script("copy the machine id", script, &[]).await.map(drop)
    }
}

pub(super) fn hosts_file(with: &Preparation<'_>) -> Option<Work> {
    if with.spec.hosts_file == HostsFile::Leave {
        return None;
    }
    let task = HostsBlock {
        cluster: with.cluster.to_owned(),
        name: with.node.name.clone(),
        lines: with.nodes.iter().map(host_line).collect(),
    };
    let changes = match with.facts() {
        None => vec![Change::set(HOSTS_PATH, task.lines.join(", "))],
        Some(facts) => {
            let old = facts.text(HOSTS_PATH);
            let new = task.render(old);
            if new == old {
                return None;
            }
            let old = block(old, &task.cluster).join(", ");
            let new = task.lines.join(", ");
            vec![if old.is_empty() || old == new {
                Change::set(HOSTS_PATH, new)
            } else {
                Change::replace(HOSTS_PATH, old, new)
            }]
        }
    };
    Some(Work::new(changes, task))
}

fn host_line(node: &NodeSpec) -> String {
    format!("{} {}", node.address, node.name)
}

fn begin(cluster: &str) -> String {
    format!("# BEGIN turingpi {cluster}")
}

fn end(cluster: &str) -> String {
    format!("# END turingpi {cluster}")
}

/// The lines inside the block of `cluster`.
fn block<'a>(text: &'a str, cluster: &str) -> Vec<&'a str> {
    let (begin, end) = (begin(cluster), end(cluster));
    text.lines().skip_while(|l| *l != begin).skip(1).take_while(|l| *l != end).collect()
}

struct HostsBlock {
    cluster: String,
    name: String,
    lines: Vec<String>,
}

impl HostsBlock {
    /// `text` with our block in it, in the place of an older one, and with the name on its `127.0.1.1` line.
    fn render(&self, text: &str) -> String {
        let (begin, end) = (begin(&self.cluster), end(&self.cluster));
        let mut out = Vec::new();
        let mut placed = false;
        let mut inside = false;
        for line in text.lines() {
            if line == begin {
                inside = true;
                self.place(&mut out, &mut placed);
            } else if inside && line == end {
                inside = false;
            } else if !inside {
                out.push(self.own_line(line));
            }
        }
        self.place(&mut out, &mut placed);
        let mut text = out.join("\n");
        text.push('\n');
        text
    }

    fn place(&self, out: &mut Vec<String>, placed: &mut bool) {
        if !*placed {
            *placed = true;
            out.push(begin(&self.cluster));
            out.extend(self.lines.iter().cloned());
            out.push(end(&self.cluster));
        }
    }

    /// Debian resolves a host's own name through a `127.0.1.1` line; the old name there makes sudo and others wait.
    fn own_line(&self, line: &str) -> String {
        let mut words = line.split_whitespace();
        if words.next() == Some("127.0.1.1") && !words.any(|w| w == self.name) {
            return format!("127.0.1.1\t{}", self.name);
        }
        line.to_owned()
    }
}

#[async_trait]
impl HostTask for HostsBlock {
    async fn differs(&self, host: &Host) -> Result<Option<String>, Failure> {
        let text = host.read_text(HOSTS_PATH).await?.unwrap_or_default();
        Ok((self.render(&text) != text).then(|| format!("{HOSTS_PATH} does not list the nodes")))
    }

    async fn make(&self, host: &Host, _cx: &StepContext) -> Result<(), Failure> {
        let text = host.read_text(HOSTS_PATH).await?.unwrap_or_default();
        host.ensure_file(&RemoteFile::new(HOSTS_PATH, self.render(&text).as_bytes())).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hosts_block() -> HostsBlock {
        HostsBlock {
            cluster: "home".to_owned(),
            name: "node1".to_owned(),
            lines: vec!["10.0.0.1 node1".to_owned(), "10.0.0.2 node2".to_owned()],
        }
    }

    #[test]
    fn the_block_replaces_its_older_self_and_the_old_own_name() {
        let old = "127.0.0.1 localhost\n127.0.1.1 turing-rk1\n# BEGIN turingpi home\n10.0.0.9 gone\n# END turingpi home\n10.9.9.9 nas\n";
        let new = "127.0.0.1 localhost\n127.0.1.1\tnode1\n# BEGIN turingpi home\n10.0.0.1 node1\n10.0.0.2 node2\n# END turingpi home\n10.9.9.9 nas\n";
        assert_eq!(hosts_block().render(old), new);
        assert_eq!(block(old, "home"), ["10.0.0.9 gone"]);
    }

    #[test]
    fn the_block_of_another_cluster_stays() {
        let old = "# BEGIN turingpi lab\n10.5.0.1 a\n# END turingpi lab\n";
        assert!(hosts_block().render(old).starts_with(old));
    }

    proptest! {
        #[test]
        fn rendering_the_hosts_file_again_changes_nothing(
            lines in proptest::collection::vec(
                prop_oneof![
                    "[ -~]{0,20}",
                    Just("# BEGIN turingpi home".to_owned()),
                    Just("# END turingpi home".to_owned()),
                    Just("127.0.1.1 old".to_owned()),
                ],
                0..12,
            ),
        ) {
            let once = hosts_block().render(&lines.join("\n"));
            prop_assert_eq!(hosts_block().render(&once), once);
        }
    }
}
