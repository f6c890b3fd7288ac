//! `/proc`, `/sys` and `/dev`: rebuilt at boot, kept true while the system runs.

use super::{
    disk,
    os::{Os, Swap},
    vfs::{Body, Inode},
};
use crate::{ModuleKind, NodePlan};

/// Kernel parameters and their values after a boot without configuration.
const SYSCTL: &[(&str, &str)] = &[
    ("net/ipv4/ip_forward", "0"),
    ("net/ipv4/conf/all/forwarding", "0"),
    ("net/ipv4/conf/default/forwarding", "0"),
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv6/conf/all/forwarding", "0"),
    ("net/ipv6/conf/all/disable_ipv6", "0"),
    ("net/core/somaxconn", "4096"),
    ("net/core/rmem_max", "212992"),
    ("net/core/wmem_max", "212992"),
    ("net/netfilter/nf_conntrack_max", "262144"),
    ("fs/inotify/max_user_watches", "62500"),
    ("fs/inotify/max_user_instances", "128"),
    ("fs/inotify/max_queued_events", "16384"),
    ("fs/file-max", "9223372036854775807"),
    ("fs/aio-max-nr", "65536"),
    ("vm/swappiness", "60"),
    ("vm/overcommit_memory", "0"),
    ("vm/panic_on_oom", "0"),
    ("vm/max_map_count", "65530"),
    ("kernel/panic", "0"),
    ("kernel/panic_on_oops", "0"),
    ("kernel/pid_max", "4194304"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/ostype", "Linux"),
];

/// Builds the volatile trees of a boot. The mount table is empty before.
pub(crate) fn at_boot(os: &mut Os, plan: &NodePlan, boot_id: &str, hostname: &str, memory_cgroup: bool) {
    let vfs = &mut os.vfs;
    let tmpfs = "rw,nosuid,nodev";
    let root = disk::root(&os.disks).unwrap_or_else(|| "/dev/mmcblk0p1".to_owned());
    vfs.mount("/", super::vfs::ROOT, &root, "ext4", "rw,relatime,errors=remount-ro");
    for (at, source, kind, options) in [
        ("/proc", "proc", "proc", "rw,nosuid,nodev,noexec,relatime"),
        ("/sys", "sysfs", "sysfs", "rw,nosuid,nodev,noexec,relatime"),
        ("/sys/fs/cgroup", "cgroup2", "cgroup2", "rw,nosuid,nodev,noexec,relatime,nsdelegate"),
        ("/dev", "udev", "devtmpfs", "rw,nosuid,relatime"),
        ("/run", "tmpfs", "tmpfs", tmpfs),
    ] {
        let volume = vfs.add_volume(Inode::dir(0o755), plan.memory / 5);
        vfs.mount(at, volume, source, kind, options);
    }
    for folder in ["/run/lock", "/run/systemd", "/run/systemd/system", "/run/sshd"] {
        vfs.mkdirs(folder, 0o755);
    }
    for (name, value) in SYSCTL {
        vfs.put(&format!("/proc/sys/{name}"), format!("{value}\n"));
    }
    vfs.put("/proc/sys/kernel/random/boot_id", format!("{boot_id}\n"));
    vfs.put("/proc/sys/kernel/hostname", format!("{hostname}\n"));
    vfs.put("/proc/sys/kernel/osrelease", format!("{}\n", os.image.kernel));
    vfs.put("/proc/version", format!("Linux version {} (build@host) (gcc 13) #1 SMP\n", os.image.kernel));
    vfs.put("/proc/loadavg", "0.08 0.03 0.01 1/212 1024\n");
    vfs.put(
        "/proc/filesystems",
        "nodev\tsysfs\nnodev\ttmpfs\nnodev\tproc\nnodev\tcgroup2\nnodev\toverlay\n\text4\n\txfs\n\tvfat\n",
    );
    let arm = os.image.arch == "arm64";
    let cores: String = (0..plan.cores)
        .map(|core| {
            if arm {
                format!("processor\t: {core}\nBogoMIPS\t: 48.00\nFeatures\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: 0xd0b\n\n")
            } else {
                format!("processor\t: {core}\nvendor_id\t: GenuineIntel\nmodel name\t: Simulated CPU\n\n")
            }
        })
        .collect();
    vfs.put("/proc/cpuinfo", cores);
    if arm {
        let model = match plan.kind {
            ModuleKind::Rk1 => "Turing Machines RK1",
            ModuleKind::Cm4 | ModuleKind::Cm4Lite => "Raspberry Pi Compute Module 4 Rev 1.0",
            ModuleKind::Jetson => "NVIDIA Jetson Orin NX",
        };
        vfs.put("/sys/firmware/devicetree/base/model", format!("{model}\0"));
        vfs.link("/proc/device-tree", "/sys/firmware/devicetree/base");
    }
    let mut arguments = format!("root={root} rootwait rootfstype=ext4 console=ttyS9,115200 console=tty1");
    if memory_cgroup && os.image.os == crate::OsKind::Armbian {
        arguments.push_str(" cgroup_enable=cpuset cgroup_memory=1 cgroup_enable=memory");
    }
    let extra = os.setting("/boot/armbianEnv.txt", "extraargs").unwrap_or_default();
    os.vfs.put("/proc/cmdline", format!("{arguments} {extra}").trim().to_owned() + "\n");
    let controllers =
        if memory_cgroup { "cpuset cpu io memory hugetlb pids" } else { "cpuset cpu io hugetlb pids" };
    let vfs = &mut os.vfs;
    vfs.put("/sys/fs/cgroup/cgroup.controllers", format!("{controllers}\n"));
    vfs.put("/sys/fs/cgroup/cgroup.subtree_control", format!("{controllers}\n"));
    vfs.put("/sys/fs/cgroup/cgroup.procs", "1\n");
    vfs.mkdirs("/sys/fs/cgroup/system.slice", 0o755);
    vfs.mkdirs("/sys/module/overlay", 0o755);
    vfs.put("/sys/module/apparmor/parameters/enabled", "Y\n");
    for (name, kind, major, minor) in [
        ("null", 'c', 1, 3),
        ("zero", 'c', 1, 5),
        ("full", 'c', 1, 7),
        ("random", 'c', 1, 8),
        ("urandom", 'c', 1, 9),
        ("tty", 'c', 5, 0),
        ("console", 'c', 5, 1),
        ("kmsg", 'c', 1, 11),
    ] {
        let _ = vfs.create(&format!("/dev/{name}"), Inode::new(Body::Device(kind, major, minor), 0o666));
    }
    vfs.mkdirs("/dev/shm", 0o1777);
    vfs.mkdirs("/dev/disk/by-uuid", 0o755);
    refresh_devices(os);
    refresh(os, plan.memory);
}

/// Device nodes of disks and partitions as they are now.
pub(crate) fn refresh_devices(os: &mut Os) {
    let wanted: Vec<(String, Option<String>)> = os
        .disks
        .iter()
        .flat_map(|disk| {
            let whole = (disk.name.clone(), disk.filesystem.as_ref().map(|fs| fs.uuid.clone()));
            let parts = disk.partitions.iter().map(|part| {
                (disk.partition_name(part.number), part.filesystem.as_ref().map(|fs| fs.uuid.clone()))
            });
            std::iter::once(whole).chain(parts)
        })
        .collect();
    let stale: Vec<String> = os
        .vfs
        .list("/dev")
        .unwrap_or_default()
        .into_iter()
        .filter(|(name, inode)| {
            matches!(inode.body, Body::Device('b', 259, _)) && !wanted.iter().any(|w| w.0 == *name)
        })
        .map(|(name, _)| name)
        .collect();
    for name in stale {
        let _ = os.vfs.remove(&format!("/dev/{name}"), false);
    }
    let _ = os.vfs.remove("/dev/disk/by-uuid", true);
    os.vfs.mkdirs("/dev/disk/by-uuid", 0o755);
    for (index, (name, uuid)) in wanted.into_iter().enumerate() {
        let minor = u32::try_from(index).unwrap_or(0);
        let _ = os.vfs.create(&format!("/dev/{name}"), Inode::new(Body::Device('b', 259, minor), 0o660));
        if let Some(uuid) = uuid {
            os.vfs.link(&format!("/dev/disk/by-uuid/{uuid}"), &format!("../../{name}"));
        }
        let size = disk::find(&os.disks, &format!("/dev/{name}"))
            .and_then(|device| disk::filesystem(&mut os.disks, device).map(|(_, size)| size))
            .unwrap_or(0);
        os.vfs.put(&format!("/sys/class/block/{name}/size"), format!("{}\n", size / 512));
        if !name.contains('p') || !name.starts_with("nvme") {
            os.vfs.put(&format!("/sys/block/{name}/size"), format!("{}\n", size / 512));
            os.vfs.put(&format!("/sys/block/{name}/queue/rotational"), "0\n");
        }
    }
}

/// Files that follow the runtime state: mounts, swaps, memory, modules.
pub(crate) fn refresh(os: &mut Os, memory: u64) {
    let table = os.vfs.mount_table();
    os.vfs.put("/proc/mounts", table.clone());
    os.vfs.put("/proc/self/mounts", table);
    let Some(running) = &os.running else { return };
    let total: u64 = running.swaps.iter().map(|swap| swap.bytes).sum();
    let line =
        |s: &Swap| format!("{:<40}{:<16}{}\t\t0\t\t{}\n", s.device, s.kind, s.bytes / 1024, s.priority);
    let mut swaps = String::from("Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n");
    swaps.extend(running.swaps.iter().map(line));
    let kib = memory / 1024;
    let info = format!(
        "MemTotal:       {kib:>8} kB\nMemFree:        {:>8} kB\nMemAvailable:   {:>8} kB\nBuffers:           18000 kB\nCached:           420000 kB\nSwapTotal:      {:>8} kB\nSwapFree:       {:>8} kB\n",
        kib / 10 * 8,
        kib / 10 * 9,
        total / 1024,
        total / 1024
    );
    let modules: String =
        running.modules.iter().map(|name| format!("{name} 32768 0 - Live 0x0000000000000000\n")).collect();
    let names: Vec<String> = running.modules.iter().cloned().collect();
    let bridge = running.modules.contains("br_netfilter");
    let uptime = running.since.elapsed().as_secs_f64() + 30.0;
    os.vfs.put("/proc/swaps", swaps);
    os.vfs.put("/proc/meminfo", info);
    os.vfs.put("/proc/modules", modules);
    os.vfs.put("/proc/uptime", format!("{uptime:.2} {:.2}\n", uptime * 7.0));
    for name in names {
        os.vfs.mkdirs(&format!("/sys/module/{name}"), 0o755);
    }
    // These parameters exist only while the module is loaded, and they begin with 1.
    for name in ["iptables", "ip6tables", "arptables"] {
        let path = format!("/proc/sys/net/bridge/bridge-nf-call-{name}");
        if bridge && !os.vfs.exists(&path) {
            os.vfs.put(&path, "1\n");
        } else if !bridge && os.vfs.exists(&path) {
            let _ = os.vfs.remove(&path, false);
        }
    }
}
