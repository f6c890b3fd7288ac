//! What an image puts on a node's disk.

use russh::keys::{
    PrivateKey,
    ssh_key::{LineEnding, private::Ed25519Keypair},
};

use super::{
    disk::{Disk, Filesystem, Partition, uuid},
    os::Os,
    packages, tools, units, users,
    vfs::{Inode, ROOT, Vfs},
};
use crate::{ModuleKind, NodePlan, OsImage, OsKind};

/// Commands of the interpreter that also exist as files, so that scripts may name them by path.
const INTERPRETED: [&str; 79] = [
    "sh",
    "bash",
    "dash",
    "true",
    "false",
    "echo",
    "printf",
    "ls",
    "cp",
    "mv",
    "rm",
    "rmdir",
    "ln",
    "touch",
    "readlink",
    "realpath",
    "basename",
    "dirname",
    "grep",
    "egrep",
    "fgrep",
    "sed",
    "awk",
    "gawk",
    "sort",
    "uniq",
    "cut",
    "tr",
    "wc",
    "tail",
    "find",
    "xargs",
    "test",
    "expr",
    "seq",
    "env",
    "diff",
    "cmp",
    "comm",
    "paste",
    "nl",
    "od",
    "base64",
    "md5sum",
    "sha1sum",
    "sha512sum",
    "tac",
    "rev",
    "fold",
    "split",
    "join",
    "yes",
    "printenv",
    "which",
    "timeout",
    "du",
    "file",
    "gzip",
    "gunzip",
    "zcat",
    "less",
    "more",
    "factor",
    "shuf",
    "numfmt",
    "pr",
    "fmt",
    "tsort",
    "truncate",
    "csplit",
    "expand",
    "unexpand",
    "cksum",
    "sum",
    "b2sum",
    "mkfifo",
    "pathchk",
    "tty",
    "nproc",
];

/// A fresh SSH host key.
pub(crate) fn new_host_key() -> PrivateKey {
    PrivateKey::from(Ed25519Keypair::from_seed(&rand::random::<[u8; 32]>()))
}

/// Writes an SSH host key as `ssh-keygen -A` does.
pub(crate) fn put_host_key(vfs: &mut Vfs, key: &PrivateKey) {
    if let (Ok(private), Ok(public)) = (key.to_openssh(LineEnding::LF), key.public_key().to_openssh()) {
        vfs.put_mode("/etc/ssh/ssh_host_ed25519_key", private.as_bytes(), 0o600);
        vfs.put("/etc/ssh/ssh_host_ed25519_key.pub", format!("{public} root@host\n"));
    }
}

/// The disks of a node, a root file system on the first.
fn disks(plan: &NodePlan) -> Vec<Disk> {
    let (name, model) = if plan.slot.is_some() || plan.kind != ModuleKind::Cm4Lite {
        ("mmcblk0", "")
    } else {
        ("sda", "Simulated disk")
    };
    let mut root = Disk::new(name, plan.emmc.max(8 << 30), model);
    root.table = Some("gpt".into());
    root.table_uuid = uuid();
    let start = 16 << 20;
    root.partitions.push(Partition {
        number: 1,
        start,
        size: root.size - start,
        uuid: uuid(),
        filesystem: Some(Filesystem {
            kind: "ext4".into(),
            uuid: uuid(),
            label: "rootfs".into(),
            volume: Some(ROOT),
        }),
    });
    let mut disks = vec![root];
    if plan.nvme > 0 {
        disks.push(Disk::new("nvme0n1", plan.nvme, "CT500P3SSD8"));
    }
    disks
}

fn os_release(image: &OsImage) -> String {
    let v = &image.version;
    match image.os {
        OsKind::Armbian => format!(
            "PRETTY_NAME=\"Armbian {v} bookworm\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\nVERSION=\"12 (bookworm)\"\nVERSION_CODENAME=bookworm\nID=debian\nHOME_URL=\"https://www.armbian.com\"\n"
        ),
        OsKind::Ubuntu => format!(
            "PRETTY_NAME=\"Ubuntu {v} LTS\"\nNAME=\"Ubuntu\"\nVERSION_ID=\"24.04\"\nVERSION=\"{v} LTS (Noble Numbat)\"\nVERSION_CODENAME=noble\nID=ubuntu\nID_LIKE=debian\n"
        ),
        _ => "PRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"13\"\nVERSION=\"13 (trixie)\"\nVERSION_CODENAME=trixie\nID=debian\nHOME_URL=\"https://www.debian.org/\"\n".to_owned(),
    }
}

/// Units that every image, or Armbian's, brings: name, text, enabled.
const UNITS: &[(&str, &str, bool)] = &[
    (
        "ssh.service",
        "[Unit]\nDescription=OpenBSD Secure Shell server\n[Service]\nType=notify\nExecStart=/usr/sbin/sshd -D\nRestart=on-failure\n[Install]\nWantedBy=multi-user.target\nAlias=sshd.service\n",
        true,
    ),
    (
        "cron.service",
        "[Unit]\nDescription=Regular background program processing daemon\n[Service]\nType=simple\nExecStart=/usr/sbin/cron -f\n[Install]\nWantedBy=multi-user.target\n",
        true,
    ),
    (
        "systemd-journald.service",
        "[Unit]\nDescription=Journal Service\n[Service]\nType=notify\nExecStart=/usr/lib/systemd/systemd-journald\n",
        false,
    ),
    (
        "dbus.service",
        "[Unit]\nDescription=D-Bus System Message Bus\n[Service]\nType=notify\nExecStart=/usr/bin/dbus-daemon --system\n",
        false,
    ),
    (
        "serial-getty@.service",
        "[Unit]\nDescription=Serial Getty on %I\n[Service]\nType=idle\nExecStart=/sbin/agetty -o '-p -- \\\\u' --keep-baud 115200 %I\nRestart=always\n[Install]\nWantedBy=getty.target\n",
        false,
    ),
    (
        "getty@.service",
        "[Unit]\nDescription=Getty on %I\n[Service]\nType=idle\nExecStart=/sbin/agetty -o '-p -- \\\\u' --noclear %I\nRestart=always\n[Install]\nWantedBy=getty.target\n",
        false,
    ),
    ("multi-user.target", "[Unit]\nDescription=Multi-User System\n", false),
    ("network-online.target", "[Unit]\nDescription=Network is Online\n", false),
    ("network.target", "[Unit]\nDescription=Network\n", false),
];

const ARMBIAN_UNITS: &[(&str, &str, bool)] = &[
    (
        "armbian-firstrun.service",
        "[Unit]\nDescription=Armbian first run tasks\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/usr/lib/armbian/armbian-firstrun start\n[Install]\nWantedBy=multi-user.target\n",
        true,
    ),
    (
        "armbian-resize-filesystem.service",
        "[Unit]\nDescription=Armbian filesystem resize\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/usr/lib/armbian/armbian-resize-filesystem start\nTimeoutStartSec=6min\n[Install]\nWantedBy=basic.target\n",
        true,
    ),
    (
        "armbian-zram-config.service",
        "[Unit]\nDescription=Armbian ZRAM config\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/usr/lib/armbian/armbian-zram-config start\n[Install]\nWantedBy=sysinit.target\n",
        true,
    ),
    (
        "armbian-ramlog.service",
        "[Unit]\nDescription=Armbian memory supported logging\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/usr/lib/armbian/armbian-ramlog start\n[Install]\nWantedBy=sysinit.target\n",
        true,
    ),
];

/// A disk with an image's file system on it, as the flash left it: nothing has booted yet.
pub(crate) fn from_image(image: &OsImage, plan: &NodePlan) -> Os {
    let disks = disks(plan);
    let capacity = disks.first().and_then(|d| d.partitions.first()).map_or(8 << 30, |p| p.size);
    let mut vfs = Vfs::new(Inode::dir(0o755), capacity);
    for folder in [
        "/usr/bin",
        "/usr/sbin",
        "/usr/lib/systemd/system",
        "/usr/local/bin",
        "/usr/local/sbin",
        "/etc/systemd/system",
        "/var/log",
        "/var/lib/dpkg",
        "/var/lib/apt/lists",
        "/var/cache",
        "/home",
        "/boot",
        "/mnt",
        "/opt",
        "/srv",
        "/media",
        "/proc",
        "/sys",
        "/dev",
        "/run",
        "/etc/modules-load.d",
        "/etc/sysctl.d",
        "/etc/apt/sources.list.d",
        "/etc/cron.d",
        "/etc/profile.d",
        "/etc/sudoers.d",
        "/etc/ssh/sshd_config.d",
        "/etc/netplan",
        "/var/spool/cron",
    ] {
        vfs.mkdirs(folder, 0o755);
    }
    for (link, target) in [
        ("/bin", "usr/bin"),
        ("/sbin", "usr/sbin"),
        ("/lib", "usr/lib"),
        ("/var/run", "/run"),
        ("/etc/mtab", "../proc/self/mounts"),
    ] {
        vfs.link(link, target);
    }
    for (folder, mode) in [("/tmp", 0o1777), ("/var/tmp", 0o1777), ("/root", 0o700)] {
        let _ = vfs.create(folder, Inode::dir(mode));
    }
    for name in INTERPRETED.iter().copied().chain(tools::names()) {
        vfs.put_mode(&format!("/usr/bin/{name}"), tools::stub(name), 0o755);
    }
    for name in [
        "sshd",
        "cron",
        "agetty",
        "modprobe",
        "sysctl",
        "swapoff",
        "swapon",
        "ip",
        "mkfs.ext4",
        "blkid",
        "sfdisk",
        "wipefs",
        "iptables",
        "reboot",
    ] {
        vfs.link(&format!("/usr/sbin/{name}"), &format!("../bin/{name}"));
    }
    for daemon in [
        "/usr/bin/sshd",
        "/usr/bin/cron",
        "/usr/bin/agetty",
        "/usr/bin/dbus-daemon",
        "/usr/lib/systemd/systemd-journald",
        "/usr/lib/systemd/systemd-timesyncd",
    ] {
        vfs.put_mode(daemon, "\u{7f}ELF\n", 0o755);
    }
    for script in ["armbian-firstrun", "armbian-resize-filesystem", "armbian-zram-config", "armbian-ramlog"] {
        if image.os == OsKind::Armbian {
            vfs.put_mode(&format!("/usr/lib/armbian/{script}"), "#!/bin/sh\nexit 0\n", 0o755);
        }
    }
    vfs.put("/etc/passwd", "root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\nwww-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n");
    vfs.put("/etc/group", "root:x:0:\ndaemon:x:1:\nadm:x:4:\ntty:x:5:\ndisk:x:6:\nsudo:x:27:\nwww-data:x:33:\nshadow:x:42:\nusers:x:100:\nrender:x:104:\nnogroup:x:65534:\n");
    vfs.put_mode("/etc/shadow", "root:*:20400:0:99999:7:::\n", 0o640);
    vfs.put_mode("/etc/sudoers", "Defaults\tenv_reset\nroot\tALL=(ALL:ALL) ALL\n%sudo\tALL=(ALL:ALL) ALL\n@includedir /etc/sudoers.d\n", 0o440);
    vfs.put("/etc/os-release", os_release(image));
    vfs.put("/etc/debian_version", "13.2\n");
    vfs.put("/etc/hosts", "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n");
    vfs.put("/etc/resolv.conf", "nameserver 10.10.88.1\n");
    vfs.put("/etc/timezone", "Etc/UTC\n");
    vfs.link("/etc/localtime", "/usr/share/zoneinfo/Etc/UTC");
    for zone in [
        "Etc/UTC",
        "UTC",
        "Europe/Berlin",
        "Europe/London",
        "Europe/Paris",
        "America/New_York",
        "America/Chicago",
        "America/Los_Angeles",
        "Asia/Tokyo",
    ] {
        vfs.put(&format!("/usr/share/zoneinfo/{zone}"), "TZif2\n");
    }
    vfs.put("/etc/apt/sources.list", "deb http://deb.example.org/debian stable main\n");
    vfs.put("/etc/sysctl.conf", "#\n");
    vfs.put("/etc/profile", "# /etc/profile\n");
    vfs.put("/root/.bashrc", "# ~/.bashrc\n");
    let root_uuid = disks
        .first()
        .and_then(|d| d.partitions.first())
        .and_then(|p| p.filesystem.as_ref())
        .map_or("", |fs| fs.uuid.as_str())
        .to_owned();
    vfs.put("/etc/fstab", format!("UUID={root_uuid} / ext4 defaults,noatime,commit=120,errors=remount-ro 0 1\ntmpfs /tmp tmpfs defaults,nosuid 0 0\n"));
    vfs.put(
        &format!("/boot/config-{}", image.kernel),
        "CONFIG_MEMCG=y\nCONFIG_VXLAN=m\nCONFIG_OVERLAY_FS=m\nCONFIG_BRIDGE_NETFILTER=m\n",
    );
    vfs.mkdirs(&format!("/usr/lib/modules/{}", image.kernel), 0o755);
    packages::fresh(&mut vfs, image.os, &image.arch);
    for (name, text, enabled) in
        UNITS.iter().chain(if image.os == OsKind::Armbian { ARMBIAN_UNITS } else { &[] })
    {
        vfs.put(&format!("/usr/lib/systemd/system/{name}"), *text);
        if *enabled {
            let _ = units::enable(&mut vfs, name);
        }
    }
    for name in packages::of_image(image.os) {
        packages::unpack(&mut vfs, name);
    }
    // Keys of the image itself: the same on every node that was flashed with it, until the first boot.
    let mut seed = [7_u8; 32];
    seed.iter_mut().zip(image.version.bytes()).for_each(|(to, byte)| *to = byte);
    if let Some(last) = seed.last_mut() {
        *last = u8::try_from(image.build & 0xff).unwrap_or(0);
    }
    put_host_key(&mut vfs, &PrivateKey::from(Ed25519Keypair::from_seed(&seed)));
    distribution(&mut vfs, image);
    Os { image: image.clone(), vfs, disks, running: None, boots: 0 }
}

/// Puts the root file system on the NVMe disk, and nothing on the eMMC.
pub(crate) fn move_to_nvme(os: &mut Os) {
    let [emmc, nvme, ..] = os.disks.as_mut_slice() else { return };
    nvme.table = emmc.table.take();
    nvme.table_uuid = std::mem::take(&mut emmc.table_uuid);
    nvme.partitions = std::mem::take(&mut emmc.partitions);
    for partition in &mut nvme.partitions {
        partition.size = nvme.size - partition.start;
    }
}

fn distribution(vfs: &mut Vfs, image: &OsImage) {
    let (hostname, root_login) = match image.os {
        OsKind::Armbian => ("turing-rk1", "yes"),
        OsKind::Ubuntu => ("ubuntu", "prohibit-password"),
        _ => ("debian", "prohibit-password"),
    };
    vfs.put("/etc/hostname", format!("{hostname}\n"));
    let hosts = vfs.text("/etc/hosts");
    vfs.put("/etc/hosts", format!("{hosts}127.0.1.1 {hostname}\n"));
    vfs.put("/etc/ssh/sshd_config", format!("Include /etc/ssh/sshd_config.d/*.conf\nPermitRootLogin {root_login}\nPasswordAuthentication yes\nKbdInteractiveAuthentication no\nUsePAM yes\nAcceptEnv LANG LC_*\nSubsystem sftp /usr/lib/openssh/sftp-server\n"));
    vfs.put("/etc/machine-id", "");
    match image.os {
        OsKind::Armbian => {
            users::set_password(vfs, "root", "1234");
            vfs.put("/root/.not_logged_in_yet", "");
            vfs.put("/etc/armbian-release", format!("BOARD=turing-rk1\nBOARD_NAME=\"Turing RK1\"\nVERSION={}\nLINUXFAMILY=rockchip64\nARCH=arm64\nBRANCH=vendor\n", image.version));
            vfs.put("/etc/default/armbian-zram-config", "ENABLED=true\n# ZRAM_PERCENTAGE=50\n");
            vfs.put("/etc/default/armbian-ramlog", "ENABLED=true\nSIZE=50M\nUSE_RSYNC=true\n");
            vfs.put("/boot/armbianEnv.txt", "verbosity=1\nbootlogo=false\noverlay_prefix=rockchip-rk3588\nfdtfile=rockchip/rk3588-turing-rk1.dtb\nrootfstype=ext4\n");
            vfs.put("/etc/netplan/10-dhcp-all-interfaces.yaml", "network:\n  version: 2\n  renderer: NetworkManager\n  ethernets:\n    all-eth-interfaces:\n      match:\n        name: \"e*\"\n      dhcp4: yes\n");
            for unit in ["getty@.service.d", "serial-getty@.service.d"] {
                vfs.put(&format!("/etc/systemd/system/{unit}/override.conf"), "[Service]\nExecStartPre=/bin/sh -c 'exec /bin/sleep 10'\nExecStart=\nExecStart=-/sbin/agetty --noissue --autologin root %I $TERM\nType=idle\n");
            }
        }
        OsKind::Ubuntu => {
            users::add(vfs, "ubuntu", Some(1000), None, "/bin/bash", true);
            let field = users::hash("ubuntu", "ubuntu");
            users::set_shadow(vfs, "ubuntu", &field, 0);
            users::join(vfs, "sudo", "ubuntu");
            vfs.put(
                "/etc/netplan/50-cloud-init.yaml",
                "network:\n  version: 2\n  ethernets:\n    eth0:\n      dhcp4: true\n",
            );
        }
        _ => {
            users::set_shadow(vfs, "root", "*", 20_400);
        }
    }
    if let Some((user, password)) = &image.login {
        users::add(vfs, user, None, None, "/bin/bash", true);
        users::set_password(vfs, user, password);
        users::join(vfs, "sudo", user);
    }
}

/// Does to a fresh file system what a first boot and an owner would have done: the plan's users, keys, hostname.
pub(crate) fn settle(os: &mut Os, plan: &NodePlan) {
    let vfs = &mut os.vfs;
    put_host_key(vfs, &new_host_key());
    vfs.put("/etc/machine-id", format!("{}\n", hex::encode(rand::random::<[u8; 16]>())));
    let _ = vfs.remove("/root/.not_logged_in_yet", false);
    for unit in ["getty@.service.d", "serial-getty@.service.d"] {
        let _ = vfs.remove(&format!("/etc/systemd/system/{unit}"), true);
    }
    units::disable(vfs, "armbian-firstrun.service");
    units::disable(vfs, "armbian-resize-filesystem.service");
    let old = vfs.text("/etc/hostname").trim().to_owned();
    vfs.put("/etc/hostname", format!("{}\n", plan.name));
    let hosts = vfs.text("/etc/hosts").replace(&old, &plan.name);
    vfs.put("/etc/hosts", hosts);
    if users::expired(vfs, "ubuntu") {
        users::set_password(vfs, "ubuntu", "ubuntu");
    }
    let mut keyed = vec![users::Account::root()];
    for (name, password) in &plan.users {
        if name == "root" {
            let config = vfs
                .text("/etc/ssh/sshd_config")
                .replace("PermitRootLogin prohibit-password", "PermitRootLogin yes");
            vfs.put("/etc/ssh/sshd_config", config);
        } else {
            keyed.push(users::add(vfs, name, None, None, "/bin/bash", true));
            users::join(vfs, "sudo", name);
            if plan.passwordless_sudo {
                vfs.put_mode(
                    &format!("/etc/sudoers.d/90-{name}"),
                    format!("{name} ALL=(ALL) NOPASSWD:ALL\n"),
                    0o440,
                );
            }
        }
        users::set_password(vfs, name, password);
    }
    if !plan.authorized.is_empty() {
        for account in keyed {
            let folder = format!("{}/.ssh", account.home);
            vfs.mkdirs(&folder, 0o700);
            vfs.put_mode(&format!("{folder}/authorized_keys"), plan.authorized.join("\n") + "\n", 0o600);
            for path in [folder.clone(), format!("{folder}/authorized_keys")] {
                let _ = vfs.change(&path, |inode| {
                    inode.uid = account.uid;
                    inode.gid = account.gid;
                });
            }
        }
    }
}
