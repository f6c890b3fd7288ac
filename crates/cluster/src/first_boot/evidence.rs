//! Whose system answers: the one we just wrote, or an older one from another disk.

use turingpi_ssh::HostKey;

/// What a look at a node shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Evidence {
    /// What `/` is mounted from.
    pub(crate) root_device: String,
    /// Armbian's wizard has not run.
    pub(crate) wizard: bool,
    /// The id that the first boot of a flash of ours left behind.
    pub(crate) flash: Option<String>,
    /// Its public host keys.
    pub(crate) host_keys: Vec<HostKey>,
    /// The service of the image's own first start that still runs.
    pub(crate) pending: Option<String>,
    /// `interface address/length` of each global address.
    pub(crate) addresses: Vec<String>,
}

pub(crate) const SCRIPT: &str = include_str!("evidence.sh");

impl Evidence {
    /// Reads what the script printed; anything else in the text is left out.
    pub(crate) fn parse(text: &str) -> Self {
        let mut evidence = Self::default();
        for line in text.lines() {
            let Some((key, value)) = line.trim().split_once('=') else { continue };
            let value = value.trim();
            match key {
                "root" => evidence.root_device = value.to_owned(),
                "wizard" => evidence.wizard = true,
                "flash" if !value.is_empty() => evidence.flash = Some(value.to_owned()),
                "hostkey" => evidence.host_keys.extend(HostKey::from_openssh(value)),
                "pending" if !value.is_empty() => evidence.pending = Some(value.to_owned()),
                "address" if !value.is_empty() => evidence.addresses.push(value.to_owned()),
                _ => {}
            }
        }
        evidence
    }

    fn on_nvme(&self) -> bool {
        self.root_device.starts_with("/dev/nvme")
    }
}

/// Whose system it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// That of the flash, and its first boot was already completed.
    Ours,
    /// That of the flash, untouched.
    Fresh,
    /// An older one.
    Old(OldSystem),
}

/// Why it is an older one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OldSystem {
    #[error("its root file system is on {0}, and a flash writes the eMMC")]
    OnNvme(String),
    #[error("it has the host key that the node had before the flash")]
    SameHostKey,
    #[error("it carries the mark of an earlier flash")]
    EarlierFlash,
}

/// Judges. `flash` is the id of the flash; `known_key` whether its host key is the one that was known before (`None`: none
/// was known). Pure.
pub(crate) fn judge(evidence: &Evidence, flash: &str, known_key: Option<bool>) -> Origin {
    match &evidence.flash {
        Some(mark) if mark == flash => return Origin::Ours,
        Some(_) => return Origin::Old(OldSystem::EarlierFlash),
        None => {}
    }
    if evidence.on_nvme() {
        return Origin::Old(OldSystem::OnNvme(evidence.root_device.clone()));
    }
    // The wizard's marker and the image's delivered login do not outweigh this: an untouched Armbian on the NVMe has both.
    if known_key == Some(true) {
        return Origin::Old(OldSystem::SameHostKey);
    }
    Origin::Fresh
}

/// What to do about an older system, for the person.
pub(crate) const NVME_HINT: &str = "U-Boot starts a bootable NVMe disk before the eMMC. Take the disk out or wipe its \
     boot partition (`wipefs -a /dev/nvme0n1` from the running system, if nothing on it is needed), or set U-Boot's \
     `boot_targets` to `mmc0 nvme0` on the serial console and `saveenv`; then run this again.";

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(text: &str) -> Evidence {
        Evidence::parse(text)
    }

    #[test]
    fn a_fresh_armbian_is_fresh_and_its_details_are_read_through_console_noise() {
        let evidence = seen(
            "[   12.3] end0: Link is Up\r\nroot=/dev/mmcblk0p1\r\nwizard=yes\n  pending=armbian-firstrun\nnonsense\n=x\n\
             address=end0 10.10.88.155/24\nhostkey=ssh-ed25519 not-base64\n",
        );
        assert_eq!(evidence.root_device, "/dev/mmcblk0p1");
        assert!(evidence.wizard);
        assert_eq!(evidence.pending.as_deref(), Some("armbian-firstrun"));
        assert_eq!(evidence.addresses, ["end0 10.10.88.155/24"]);
        assert_eq!(evidence.host_keys, []);
        assert_eq!(judge(&evidence, "f1", None), Origin::Fresh);
        assert_eq!(judge(&evidence, "f1", Some(false)), Origin::Fresh);
    }

    #[test]
    fn the_mark_of_this_flash_makes_it_ours_wherever_its_root_is() {
        for root in ["/dev/mmcblk0p1", "/dev/nvme0n1p1", ""] {
            let evidence = seen(&format!("root={root}\nflash=f1"));
            assert_eq!(judge(&evidence, "f1", Some(true)), Origin::Ours, "{root}");
        }
    }

    #[test]
    fn an_older_system_is_told_by_disk_by_host_key_or_by_an_earlier_mark() {
        let nvme = seen("root=/dev/nvme0n1p1\nwizard=yes");
        assert_eq!(judge(&nvme, "f1", Some(false)), Origin::Old(OldSystem::OnNvme("/dev/nvme0n1p1".into())));
        let same = seen("root=/dev/mmcblk0p1");
        assert_eq!(judge(&same, "f1", Some(true)), Origin::Old(OldSystem::SameHostKey));
        let earlier = seen("root=/dev/mmcblk0p1\nflash=f0");
        assert_eq!(judge(&earlier, "f1", Some(false)), Origin::Old(OldSystem::EarlierFlash));
    }
}
