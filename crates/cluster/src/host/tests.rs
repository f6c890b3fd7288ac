//! The parser, on an answer recorded from an RK1 with Armbian and on anything at all.

use proptest::prelude::*;

use super::{Activity, Arch, FactsError, HostFacts, OsFamily};

const MARK: &str = "==mark==";

/// An answer of a freshly flashed RK1; `MARK` stands for the marker.
const ARMBIAN: &str = r#"motd noise
==mark== os
PRETTY_NAME="Armbian 26.2 bookworm"
NAME="Debian GNU/Linux"
VERSION_ID="12"
ID=debian
HOME_URL="https://www.armbian.com"

==mark== armbian
BOARD=turing-rk1
VERSION=26.02.0-trunk

==mark== arch
aarch64

==mark== kernel
6.1.115-vendor-rk35xx

==mark== boot-id
1c9f6d7a-0000-4000-8000-000000000001

==mark== hostname
turing-rk1

==mark== static-hostname
turing-rk1

==mark== machine-id
0123456789abcdef0123456789abcdef

==mark== user
0
ubuntu

==mark== addresses
2: end0    inet 10.10.88.73/24 metric 100 brd 10.10.88.255 scope global dynamic end0\       valid_lft 3000sec preferred_lft 3000sec
2: end0    inet6 fd00::73/64 scope global dynamic mngtmpaddr \       valid_lft forever preferred_lft forever

==mark== route
default via 10.10.88.1 dev end0 proto dhcp src 10.10.88.73 metric 100 

==mark== macs
end0 02:00:00:00:00:01
lo 00:00:00:00:00:00

==mark== memory
MemTotal:       16082524 kB

==mark== cores
8

==mark== swaps
Filename				Type		Size		Used		Priority
/dev/zram0                              partition	8041260		0		5

==mark== cgroup
cgroup2fs

==mark== cgroup-controllers
cpuset cpu io memory hugetlb pids rdma misc

==mark== cgroup-subtree
cpuset cpu io memory pids

==mark== cgroup-v1
#subsys_name	hierarchy	num_cgroups	enabled
cpuset	0	1	1

==mark== time
1790000000

==mark== timedate
NTPSynchronized=yes
Timezone=Etc/UTC

==mark== localtime
/usr/share/zoneinfo/Etc/UTC

==mark== mounts
/dev/mmcblk0p1 / ext4 rw,noatime 0 0
/dev/zram1 /var/log ext4 rw,nosuid 0 0
/dev/nvme0n1p1 /mnt/with\040space ext4 rw 0 0

==mark== space
/ /dev/mmcblk0p1 30474732 2345678 27500000 8% /
/var/log /dev/zram1 47960 12000 32000 28% /var/log

==mark== iptables
iptables v1.8.9 (nf_tables)

==mark== first-boot
wizard
armbian-firstrun

==mark== reboot
packages

==mark== ufw
active
Added user rules (see 'ufw status' for running firewall):
ufw allow 22/tcp
ufw allow from 10.10.88.74

==mark== firewalld

==mark== file:/etc/with space
e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
600 root:root 0

==mark== text:/etc/default/armbian-ramlog
ENABLED=true
SIZE=50M

==mark== path:/etc/thing
==mark== unit:k3s.service
LoadState=loaded
ActiveState=active
SubState=running
UnitFileState=enabled
NRestarts=0
ExecMainStatus=0
FragmentPath=/etc/systemd/system/k3s.service

==mark== module:overlay
==mark== sysctl:net.ipv4.tcp_rmem
4096	131072	6291456

==mark== packages
curl installed 7.88.1-10
nfs-common config-files 1:2.6.2
open-iscsi installed 2.1.8-1

==mark== extra:k3s
version k3s version v1.35.5+k3s1 (abc)

==mark== end
"#;

#[test]
fn a_recorded_answer_reads_as_what_it_says() {
    let facts = HostFacts::parse(MARK, ARMBIAN).unwrap();
    assert_eq!(
        (facts.os.id.as_str(), facts.os.version.as_str(), facts.os.family),
        ("debian", "12", OsFamily::Debian)
    );
    assert_eq!(facts.os.armbian_board.as_deref(), Some("turing-rk1"));
    assert_eq!(facts.arch, Arch::Arm64);
    assert_eq!((facts.uid, facts.sudo_user.as_deref()), (0, Some("ubuntu")));
    let addresses: Vec<String> =
        facts.addresses.iter().map(|a| format!("{} {}", a.interface, a.address)).collect();
    assert_eq!(addresses, ["end0 10.10.88.73/24", "end0 fd00::73/64"]);
    let route = facts.default_route.as_ref().unwrap();
    assert_eq!((route.via.as_deref(), route.interface.as_str()), (Some("10.10.88.1"), "end0"));
    assert_eq!(facts.memory_bytes, 16_082_524 * 1024);
    assert_eq!((facts.swaps[0].path.as_str(), facts.swaps[0].kib), ("/dev/zram0", 8_041_260));
    assert_eq!(facts.cgroup.version, 2);
    assert!(facts.cgroup.controllers.contains("memory"));
    assert_eq!((facts.time.epoch, facts.time.synchronized), (1_790_000_000, Some(true)));
    assert_eq!(facts.time.timezone.as_deref(), Some("Etc/UTC"));
    assert!(facts.mount_of("/var/log").unwrap().in_memory());
    assert!(!facts.mount_of("/var/lib/rancher").unwrap().in_memory());
    assert_eq!(facts.mount_of("/mnt/with space/x").unwrap().device, "/dev/nvme0n1p1");
    assert_eq!(facts.mount_of("/var/logs").unwrap().path, "/");
    assert_eq!(facts.space["/var/log"].free_bytes, 32_000 * 1024);
    assert_eq!(facts.first_boot_pending.len(), 2);
    assert!(facts.wants_reboot.contains("packages"));
    assert!(facts.firewall.ufw.as_ref().unwrap().contains("ufw allow from 10.10.88.74"));
    assert!(facts.firewall.firewalld.is_none());
    assert_eq!(facts.files["/etc/with space"].mode, 0o600);
    assert_eq!(facts.text("/etc/default/armbian-ramlog"), "ENABLED=true\nSIZE=50M\n");
    assert!(facts.paths.contains("/etc/thing"));
    assert_eq!(facts.unit("k3s.service").activity(), Activity::Active);
    assert!(facts.modules.contains("overlay"));
    assert_eq!(facts.sysctl["net.ipv4.tcp_rmem"], "4096 131072 6291456");
    assert_eq!(facts.packages.keys().collect::<Vec<_>>(), ["curl", "open-iscsi"]);
    assert_eq!(facts.extra("k3s"), Some("version k3s version v1.35.5+k3s1 (abc)\n"));
}

#[test]
fn facts_survive_json_without_the_callers_own_answers() {
    let facts = HostFacts::parse(MARK, ARMBIAN).unwrap();
    let json = serde_json::to_string(&facts).unwrap();
    assert!(!json.contains("v1.35.5"), "extras are never written out");
    let back: HostFacts = serde_json::from_str(&json).unwrap();
    assert_eq!(back.extra("k3s"), None);
    assert_eq!(back.packages, facts.packages);
    assert_eq!(back.cgroup, facts.cgroup);
}

#[test]
fn an_answer_without_its_end_is_cut() {
    for at in (0..ARMBIAN.len() - 1).step_by(97) {
        let cut = HostFacts::parse(MARK, &ARMBIAN[..at]);
        assert!(matches!(cut, Err(FactsError::Cut { .. })), "cut at {at}");
    }
}

proptest! {
    #[test]
    fn any_answer_is_read_or_refused_and_never_panics(text in "\\PC*") {
        let _ = HostFacts::parse(MARK, &text);
    }

    #[test]
    fn any_content_of_any_section_is_read(
        parts in proptest::collection::vec(
            (
                prop_oneof![
                    Just("os"), Just("addresses"), Just("route"), Just("memory"), Just("swaps"), Just("cgroup-v1"),
                    Just("time"), Just("timedate"), Just("mounts"), Just("space"), Just("packages"), Just("ufw"),
                    Just("firewalld"), Just("file:/x"), Just("unit:x"), Just("sysctl:x"), Just("localtime"),
                ],
                prop_oneof!["[ -~\n\t]{0,80}", "\\PC{0,40}", "[0-9 \n]{0,40}"],
            ),
            0..12,
        ),
    ) {
        let mut text = String::new();
        for (title, content) in &parts {
            text.push_str(&format!("\n{MARK} {title}\n{content}"));
        }
        text.push_str(&format!("\n{MARK} end\n"));
        prop_assert!(HostFacts::parse(MARK, &text).is_ok());
    }
}
