//! Swap off, now and at every boot: partitions and files, systemd units, and Armbian's compressed memory.

use async_trait::async_trait;
use turingpi_engine::{Change, Failure, StepContext};
use turingpi_ssh::RemoteFile;

use super::{Preparation, Swapping, Work};
use crate::{
    FactsRequest, Host, HostFacts, HostTask,
    host::{assignment, set_assignment},
};

const FSTAB_PATH: &str = "/etc/fstab";
pub(super) const ZRAM_PATH: &str = "/etc/default/armbian-zram-config";
/// Empty, it overrides the vendor's file and makes no device (systemd's zram generator).
pub(super) const GENERATOR_PATH: &str = "/etc/systemd/zram-generator.conf";

/// The name of fstab among the facts. Not one of their texts: it may hold passwords of network shares, and texts are
/// shown.
pub(super) const FSTAB: &str = "fstab";

pub(super) fn request() -> FactsRequest {
    let request = FactsRequest::new().texts([ZRAM_PATH, GENERATOR_PATH]).files([FSTAB_PATH]);
    request.extra(FSTAB, "cat /etc/fstab 2>/dev/null")
}

fn fstab(facts: &HostFacts) -> &str {
    facts.extra(FSTAB).unwrap_or("")
}

pub(super) fn swap(with: &Preparation<'_>) -> Option<Work> {
    if with.spec.swap == Swapping::Keep {
        return None;
    }
    let changes = match with.facts() {
        None => vec![Change::set("swap", "off")],
        Some(facts) => changes(facts),
    };
    if changes.is_empty() { None } else { Some(Work::new(changes, SwapOff)) }
}

fn changes(facts: &HostFacts) -> Vec<Change> {
    let mut changes = Vec::new();
    for swap in &facts.swaps {
        changes.push(Change::replace(
            format!("swap {}", swap.path),
            format!("{} MiB", swap.kib / 1024),
            "off",
        ));
    }
    for line in fstab(facts).lines().filter(|l| is_swap_line(l)) {
        changes.push(Change::remove(FSTAB_PATH, line.split_whitespace().collect::<Vec<_>>().join(" ")));
    }
    if zram_swaps(facts.text(ZRAM_PATH)) {
        changes.push(Change::set(ZRAM_PATH, "SWAP=false"));
    }
    if facts.text(GENERATOR_PATH).lines().any(|l| l.trim_start().starts_with("[zram")) {
        changes.push(Change::set(GENERATOR_PATH, "no device"));
    }
    changes
}

/// Whether a line of fstab mounts swap.
fn is_swap_line(line: &str) -> bool {
    let mut words = line.split_whitespace();
    !line.trim_start().starts_with('#') && words.nth(2) == Some("swap")
}

/// Whether Armbian's zram service would bring swap back. `ENABLED=false` turns all of it off, also /tmp.
fn zram_swaps(text: &str) -> bool {
    !text.is_empty()
        && assignment(text, "ENABLED") != Some("false")
        && assignment(text, "SWAP") != Some("false")
}

/// fstab with its swap lines as comments.
fn without_swap(fstab: &str) -> String {
    let keep =
        |line: &str| if is_swap_line(line) { format!("# turingpi: {line}\n") } else { format!("{line}\n") };
    fstab.lines().map(keep).collect()
}

struct SwapOff;

impl SwapOff {
    async fn look(host: &Host) -> Result<HostFacts, Failure> {
        host.facts(&request()).await
    }
}

#[async_trait]
impl HostTask for SwapOff {
    async fn differs(&self, host: &Host) -> Result<Option<String>, Failure> {
        let facts = Self::look(host).await?;
        Ok(changes(&facts)
            .first()
            .map(|c| format!("{}: {}", c.what, c.old.as_deref().unwrap_or("on at boot"))))
    }

    async fn make(&self, host: &Host, _cx: &StepContext) -> Result<(), Failure> {
        let facts = Self::look(host).await?;
        // The files first: a crash after `swapoff` must not leave swap that comes back unseen.
        let fstab = fstab(&facts);
        if fstab.lines().any(is_swap_line) {
            // Who made it unreadable to others had a reason.
            let mode = facts.files.get(FSTAB_PATH).map_or(0o644, |f| f.mode);
            host.ensure_file(&RemoteFile::new(FSTAB_PATH, without_swap(fstab).as_bytes()).mode(mode)).await?;
        }
        let zram = facts.text(ZRAM_PATH);
        if zram_swaps(zram) {
            host.ensure_file(&RemoteFile::new(ZRAM_PATH, set_assignment(zram, "SWAP", "false").as_bytes()))
                .await?;
        }
        if facts.texts.contains_key(GENERATOR_PATH) {
            host.ensure_file(&RemoteFile::new(GENERATOR_PATH, "# turingpi: no swap\n".as_bytes())).await?;
        }
        let script = r#"
for unit in zramswap.service dphys-swapfile.service; do
  if systemctl cat "$unit" >/dev/null 2>&1; then systemctl disable --quiet --now "$unit"; fi
done
for unit in $(systemctl list-units --type=swap --state=active --plain --no-legend 2>/dev/null | cut -d ' ' -f 1); do
  systemctl mask --quiet "$unit" || true
done
swapoff -a
"#;
        host.script("turn swap off", script, &[]).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("UUID=1 none swap sw 0 0", true)]
    #[case("/swapfile\tnone\tswap\tsw\t0\t0", true)]
    #[case("# UUID=1 none swap sw 0 0", false)]
    #[case("UUID=2 /swap ext4 defaults 0 1", false)]
    #[case("", false)]
    fn a_swap_line_is_known_by_its_file_system(#[case] line: &str, #[case] expected: bool) {
        assert_eq!(is_swap_line(line), expected);
        assert!(!is_swap_line(without_swap(line).trim_end()));
    }

    #[rstest]
    #[case("", false)]
    #[case("ENABLED=true\n", true)]
    #[case("ENABLED=true\nSWAP=true\n", true)]
    #[case("ENABLED=true\nSWAP=false\n", false)]
    #[case("ENABLED=false\n", false)]
    #[case("# SWAP=false\n", true)]
    fn zram_swap_is_on_unless_turned_off(#[case] text: &str, #[case] expected: bool) {
        assert_eq!(zram_swaps(text), expected);
    }
}
