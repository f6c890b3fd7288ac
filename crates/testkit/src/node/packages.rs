//! The dpkg database, and which commands come with which package.

use super::vfs::Vfs;
use crate::OsKind;

/// Commands that are there only with a package.
const PROVIDES: &[(&str, &[&str])] = &[
    ("curl", &["curl"]),
    ("wget", &["wget"]),
    (
        "iptables",
        &[
            "iptables",
            "iptables-save",
            "iptables-restore",
            "ip6tables",
            "ip6tables-save",
            "ip6tables-restore",
            "iptables-nft",
            "iptables-legacy",
        ],
    ),
    ("nftables", &["nft"]),
    ("ufw", &["ufw"]),
    ("open-iscsi", &["iscsiadm", "iscsi-iname"]),
    ("nfs-common", &["mount.nfs", "showmount"]),
    ("cryptsetup-bin", &["cryptsetup"]),
    ("xfsprogs", &["mkfs.xfs", "xfs_repair"]),
    ("parted", &["parted", "partprobe"]),
    ("gdisk", &["sgdisk"]),
    ("apparmor", &["apparmor_parser", "aa-status"]),
    ("cloud-init", &["cloud-init"]),
    ("ethtool", &["ethtool"]),
    ("sudo", &["sudo"]),
    ("jq", &["jq"]),
];

/// Packages that the simulated archive offers: name, version, and what they bring along.
const ARCHIVE: &[(&str, &str, &[&str])] = &[
    ("curl", "8.14.1-2", &["libcurl4"]),
    ("libcurl4", "8.14.1-2", &[]),
    ("wget", "1.25.0-2", &[]),
    ("ca-certificates", "20250419", &[]),
    ("iptables", "1.8.11-2", &["libip4tc2"]),
    ("libip4tc2", "1.8.11-2", &[]),
    ("nftables", "1.1.3-1", &[]),
    ("open-iscsi", "2.1.11-1", &["libisns0t64"]),
    ("libisns0t64", "0.101-1", &[]),
    ("nfs-common", "1:2.8.3-1", &["rpcbind"]),
    ("rpcbind", "1.2.7-1", &[]),
    ("cryptsetup", "2:2.7.5-2", &["cryptsetup-bin"]),
    ("cryptsetup-bin", "2:2.7.5-2", &[]),
    ("xfsprogs", "6.13.0-2", &[]),
    ("parted", "3.6-5", &[]),
    ("gdisk", "1.0.10-2", &[]),
    ("jq", "1.7.1-6", &[]),
    ("git", "1:2.47.3-0", &[]),
    ("htop", "3.4.1-5", &[]),
    ("btop", "1.3.2-0", &[]),
    ("vim", "2:9.1.1230-2", &[]),
    ("tmux", "3.5a-3", &[]),
    ("unzip", "6.0-29", &[]),
    ("yq", "3.4.3-2", &[]),
    ("rsync", "3.4.1-1", &[]),
    ("python3-pip", "25.1.1-1", &[]),
    ("chrony", "4.6.1-3", &[]),
    ("systemd-timesyncd", "257.8-1", &[]),
    ("apparmor", "4.1.0-1", &[]),
    ("apparmor-utils", "4.1.0-1", &["apparmor"]),
    ("ufw", "0.36.2-9", &["iptables"]),
    ("ethtool", "1:6.14.2-1", &[]),
    ("util-linux", "2.41-5", &[]),
    ("multipath-tools", "0.11.1-2", &[]),
    ("nvme-cli", "2.13-2", &[]),
    ("python3", "3.13.5-1", &[]),
    ("python3-venv", "3.13.5-1", &[]),
    ("python3-numpy", "1:2.2.4-1", &[]),
    ("python3-dev", "3.13.5-1", &[]),
    ("socat", "1.8.0.3-1", &[]),
    ("conntrack", "1:1.4.8-2", &[]),
    ("ipset", "7.22-1", &[]),
    ("ipvsadm", "1:1.31-2", &[]),
    ("lvm2", "2.03.31-2", &[]),
    ("smartmontools", "7.4-3", &[]),
    ("sqlite3", "3.46.1-7", &[]),
    ("logrotate", "3.22.0-1", &[]),
    ("gnupg", "2.4.7-21", &[]),
    ("sudo", "1.9.16p2-3", &[]),
    ("zstd", "1.5.7-1", &[]),
    ("xz-utils", "5.8.1-1", &[]),
];

/// What every image has.
const BASE: &[&str] = &[
    "apt",
    "base-files",
    "bash",
    "coreutils",
    "dash",
    "dpkg",
    "e2fsprogs",
    "fdisk",
    "init",
    "iproute2",
    "kmod",
    "login",
    "mount",
    "openssh-server",
    "passwd",
    "procps",
    "sudo",
    "systemd",
    "tar",
    "udev",
    "util-linux",
    "xz-utils",
    "gzip",
    "sed",
    "grep",
    "gawk",
    "ca-certificates",
];

/// Packages of an image besides the base.
pub(crate) fn of_image(os: OsKind) -> &'static [&'static str] {
    match os {
        OsKind::Armbian => &[
            "curl",
            "wget",
            "iptables",
            "chrony",
            "parted",
            "network-manager",
            "armbian-bsp-cli-turing-rk1-vendor",
            "htop",
            "apparmor",
        ],
        OsKind::Ubuntu => &[
            "curl",
            "wget",
            "iptables",
            "cloud-init",
            "ufw",
            "systemd-timesyncd",
            "snapd",
            "unattended-upgrades",
            "multipath-tools",
            "open-iscsi",
            "libisns0t64",
            "apparmor",
        ],
        _ => &["wget", "systemd-timesyncd", "apparmor"],
    }
}

/// A package of the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) arch: String,
    pub(crate) status: String,
}

const STATUS: &str = "/var/lib/dpkg/status";

/// The database.
pub(crate) fn installed(vfs: &Vfs) -> Vec<Package> {
    vfs.text(STATUS)
        .split("\n\n")
        .filter_map(|paragraph| {
            let field = |key: &str| {
                paragraph.lines().find_map(|line| line.strip_prefix(key)).map(|v| v.trim().to_owned())
            };
            Some(Package {
                name: field("Package:")?,
                version: field("Version:").unwrap_or_default(),
                arch: field("Architecture:").unwrap_or_default(),
                status: field("Status:").unwrap_or_default(),
            })
        })
        .collect()
}

/// Writes the database.
pub(crate) fn save(vfs: &mut Vfs, packages: &[Package]) {
    let text: String = packages
        .iter()
        .map(|p| {
            format!(
                "Package: {}\nStatus: {}\nPriority: optional\nArchitecture: {}\nVersion: {}\n\n",
                p.name, p.status, p.arch, p.version
            )
        })
        .collect();
    vfs.put(STATUS, text);
}

/// The packages of a fresh image.
pub(crate) fn fresh(vfs: &mut Vfs, os: OsKind, arch: &str) {
    let packages: Vec<Package> = BASE.iter().chain(of_image(os)).map(|name| package(name, arch)).collect();
    save(vfs, &packages);
}

/// A package as it is after its installation.
pub(crate) fn package(name: &str, arch: &str) -> Package {
    let version = offered(name).map_or("1.0-1", |(version, _)| version);
    Package {
        name: name.to_owned(),
        version: version.to_owned(),
        arch: arch.to_owned(),
        status: "install ok installed".to_owned(),
    }
}

/// Version and dependencies of a package in the archive.
pub(crate) fn offered(name: &str) -> Option<(&'static str, &'static [&'static str])> {
    ARCHIVE.iter().find(|(offered, _, _)| *offered == name).map(|(_, version, needs)| (*version, *needs))
}

/// Commands of packages that are not installed.
pub(crate) fn missing_commands(vfs: &Vfs) -> Vec<&'static str> {
    let installed = installed(vfs);
    let has = |name: &str| installed.iter().any(|p| p.name == name && p.status == "install ok installed");
    PROVIDES
        .iter()
        .filter(|(name, _)| !has(name))
        .flat_map(|(_, commands)| commands.iter().copied())
        .collect()
}

/// Units that come with a package: file name, text, enabled at once.
pub(crate) fn units_of(name: &str) -> &'static [(&'static str, &'static str, bool)] {
    match name {
        "open-iscsi" => &[
            (
                "iscsid.service",
                "[Unit]\nDescription=iSCSI initiator daemon (iscsid)\n[Service]\nType=notify\nExecStart=/usr/sbin/iscsid -f\n[Install]\nWantedBy=sysinit.target\nAlso=iscsid.socket\n",
                false,
            ),
            (
                "iscsid.socket",
                "[Unit]\nDescription=Open-iSCSI iscsid Socket\n[Socket]\nListenStream=@ISCSIADM_ABSTRACT_NAMESPACE\n[Install]\nWantedBy=sockets.target\n",
                true,
            ),
            (
                "open-iscsi.service",
                "[Unit]\nDescription=Login to default iSCSI targets\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n[Install]\nWantedBy=sysinit.target\n",
                true,
            ),
        ],
        "rpcbind" => &[(
            "rpcbind.service",
            "[Unit]\nDescription=RPC bind portmap service\n[Service]\nType=notify\nExecStart=/usr/sbin/rpcbind\n[Install]\nWantedBy=multi-user.target\n",
            true,
        )],
        "chrony" => &[(
            "chrony.service",
            "[Unit]\nDescription=chrony, an NTP client/server\n[Service]\nType=forking\nExecStart=/usr/sbin/chronyd\n[Install]\nWantedBy=multi-user.target\nAlias=chronyd.service\n",
            true,
        )],
        "systemd-timesyncd" => &[(
            "systemd-timesyncd.service",
            "[Unit]\nDescription=Network Time Synchronization\n[Service]\nType=notify\nExecStart=/usr/lib/systemd/systemd-timesyncd\n[Install]\nWantedBy=sysinit.target\nAlias=dbus-org.freedesktop.timesync1.service\n",
            true,
        )],
        "multipath-tools" => &[(
            "multipathd.service",
            "[Unit]\nDescription=Device-Mapper Multipath Device Controller\n[Service]\nType=notify\nExecStart=/sbin/multipathd -d -s\n[Install]\nWantedBy=sysinit.target\n",
            true,
        )],
        "unattended-upgrades" => &[(
            "unattended-upgrades.service",
            "[Unit]\nDescription=Unattended Upgrades Shutdown\n[Service]\nType=simple\nExecStart=/usr/bin/unattended-upgrade\n[Install]\nWantedBy=multi-user.target\n",
            true,
        )],
        "ufw" => &[(
            "ufw.service",
            "[Unit]\nDescription=Uncomplicated firewall\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n",
            true,
        )],
        "cloud-init" => &[(
            "cloud-init.service",
            "[Unit]\nDescription=Cloud-init: Network Stage\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n",
            true,
        )],
        "nfs-common" => &[(
            "rpc-statd.service",
            "[Unit]\nDescription=NFS status monitor\n[Service]\nType=forking\nExecStart=/usr/sbin/rpc.statd\n",
            false,
        )],
        "apparmor" => &[(
            "apparmor.service",
            "[Unit]\nDescription=Load AppArmor profiles\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n[Install]\nWantedBy=sysinit.target\n",
            true,
        )],
        _ => &[],
    }
}

/// Puts a package's own files in place.
pub(crate) fn unpack(vfs: &mut Vfs, name: &str) {
    for (unit, text, enabled) in units_of(name) {
        vfs.put(&format!("/usr/lib/systemd/system/{unit}"), *text);
        if *enabled {
            let _ = super::units::enable(vfs, unit);
        }
    }
    match name {
        "open-iscsi" => {
            vfs.put_mode(
                "/etc/iscsi/initiatorname.iscsi",
                format!(
                    "InitiatorName=iqn.1993-08.org.debian:01:{}\n",
                    hex::encode(rand::random::<[u8; 6]>())
                ),
                0o600,
            );
            vfs.put_mode("/etc/iscsi/iscsid.conf", "node.startup = manual\n", 0o600);
        }
        "ufw" => vfs.put("/etc/ufw/ufw.conf", "ENABLED=no\nLOGLEVEL=low\n"),
        "chrony" => vfs.put("/etc/chrony/chrony.conf", "pool 2.debian.pool.ntp.org iburst\n"),
        "apparmor" => vfs.mkdirs("/etc/apparmor.d", 0o755),
        _ => {}
    }
    for daemon in ["iscsid", "rpcbind", "chronyd", "rpc.statd"] {
        let owner = match daemon {
            "iscsid" => "open-iscsi",
            "rpcbind" => "rpcbind",
            "chronyd" => "chrony",
            _ => "nfs-common",
        };
        if owner == name {
            vfs.put_mode(&format!("/usr/sbin/{daemon}"), "\u{7f}ELF\n", 0o755);
        }
    }
}
