//! What can be wrong with hosts, judged from their facts alone. Sources: the failure catalogues of k3s and of the
//! repositories this tool replaces.

use std::collections::BTreeMap;

use turingpi_cluster::{Activity, Arch, HostFacts, NodeSpec, OsFamily, Role};
use turingpi_engine::Subject;

use super::finding::{Finding, Weight};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The extra questions the doctor asks beside the facts.
pub(crate) const PORTS: (&str, &str) = ("doctor-ports", "ss -Hltn 2>/dev/null || netstat -ltn 2>/dev/null");
pub(crate) const DNS: (&str, &str) = (
    "doctor-dns",
    "grep '^nameserver' /etc/resolv.conf 2>/dev/null; getent hosts github.com >/dev/null 2>&1 && echo resolves",
);
pub(crate) const MODULES: (&str, &str) = (
    "doctor-modules",
    "for m in vxlan overlay br_netfilter; do modprobe -n $m >/dev/null 2>&1 || echo missing $m; done",
);

/// A node with its facts.
pub(crate) struct Seen<'a> {
    pub(crate) node: &'a NodeSpec,
    pub(crate) facts: &'a HostFacts,
    /// Whether a k3s of ours, or any, runs there already: its ports are then taken rightly.
    pub(crate) runs_k3s: bool,
}

/// Everything that is wrong with one host.
pub(crate) fn one(seen: &Seen<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    system(seen, &mut found);
    kernel(seen, &mut found);
    clock(seen, &mut found);
    network(seen, &mut found);
    disks(seen, &mut found);
    found
}

fn subject(seen: &Seen<'_>) -> Subject {
    Subject::node(&seen.node.name)
}

fn system(seen: &Seen<'_>, found: &mut Vec<Finding>) {
    let Seen { node, facts, .. } = seen;
    if facts.os.family != OsFamily::Debian {
        found.push(
            Finding::new("os-family", Weight::Problem, subject(seen), format!("runs {}", facts.os.pretty))
                .cause("hosts are prepared with apt and dpkg, which this system does not have")
                .remedy("Install Armbian, Debian or Ubuntu; a node with a `slot` and an `image` is flashed by `turingpi apply --reflash NODE`."),
        );
    }
    if matches!(facts.arch, Arch::Other(_)) {
        found.push(
            Finding::new("arch", Weight::Problem, subject(seen), format!("its processor is {}", facts.arch))
                .cause("k3s is released for arm64 and amd64 here")
                .remedy("Use a 64-bit system image."),
        );
    }
    let least = if node.role == Role::ControlPlane { 2 * GIB } else { GIB };
    if facts.memory_bytes > 0 && facts.memory_bytes < least - 200 * MIB {
        found.push(
            Finding::new(
                "memory",
                Weight::Problem,
                subject(seen),
                format!("has {} MiB of memory", facts.memory_bytes / MIB),
            )
            .cause(format!("a {} needs at least {} GiB", node.role, least / GIB))
            .remedy("Give the role to a bigger node."),
        );
    }
    if facts.hostname != node.name {
        found.push(
            Finding::new(
                "hostname",
                Weight::Warning,
                subject(seen),
                format!("calls itself `{}`", facts.hostname),
            )
            .cause("Kubernetes knows a node by its host name")
            .remedy("`turingpi apply` sets it.")
            .mended(),
        );
    }
    if facts.machine_id.is_empty() {
        found.push(
            Finding::new("machine-id", Weight::Warning, subject(seen), "has no machine id")
                .cause("DHCP and systemd need one; an image can be shipped without")
                .remedy("`turingpi apply` makes one.")
                .mended(),
        );
    }
    if facts.wants_reboot.contains("kernel") {
        found.push(
            Finding::new(
                "kernel-modules-gone",
                Weight::Problem,
                subject(seen),
                format!("the modules of its running kernel {} are gone", facts.kernel),
            )
            .cause("the kernel was updated and the host not rebooted: no module can be loaded")
            .remedy(format!("Reboot {}.", node.name)),
        );
    }
    for pending in facts.pending_reboot() {
        found.push(
            Finding::new(
                "reboot-pending",
                Weight::Warning,
                subject(seen),
                format!("waits for a reboot: {pending}"),
            )
            .cause("a setting takes effect at boot only")
            .remedy("`turingpi apply` reboots it.")
            .mended(),
        );
    }
    if !facts.first_boot_pending.is_empty() {
        let what: Vec<&str> = facts.first_boot_pending.iter().map(String::as_str).collect();
        found.push(
            Finding::new(
                "first-boot",
                Weight::Warning,
                subject(seen),
                format!("has not finished its first boot: {}", what.join(", ")),
            )
            .cause("Armbian's wizard waits on the console, or its first-run service still makes host keys")
            .remedy("`turingpi apply` finishes it.")
            .mended(),
        );
    }
    let both = facts.unit("k3s.service").exists() && facts.unit("k3s-agent.service").exists();
    if both {
        found.push(
            Finding::new("both-units", Weight::Problem, subject(seen), "has both k3s.service and k3s-agent.service")
                .cause("an installer ran without its role; at the next boot the wrong one may start (k3s-ansible #504)")
                .remedy("Disable and remove the unit of the wrong role, then run this again."),
        );
    }
}

fn kernel(seen: &Seen<'_>, found: &mut Vec<Finding>) {
    let facts = seen.facts;
    for controller in ["memory", "cpu", "cpuset", "pids"] {
        if facts.cgroup.version > 0 && !facts.cgroup.controllers.contains(controller) {
            let id = match controller {
                "memory" => "cgroup-memory",
                "cpu" => "cgroup-cpu",
                _ => "cgroup-other",
            };
            let mut finding = Finding::new(
                id,
                Weight::Problem,
                subject(seen),
                format!("the {controller} control group is off"),
            )
            .cause(format!(
                "k3s ends with \"failed to find {controller} cgroup\" and the node never gets Ready"
            ));
            finding = match controller {
                "memory" => finding
                    .remedy("`turingpi apply` adds `cgroup_enable=memory` to the boot arguments and reboots.")
                    .mended(),
                "cpu" => finding.remedy(
                    "A realtime process outside the root group keeps it off (rtkit, multipathd): stop and disable it, then reboot.",
                ),
                _ => finding.remedy("Use a kernel that has it; Armbian's `vendor` kernel does."),
            };
            found.push(finding);
        }
    }
    for line in facts.extra(MODULES.0).unwrap_or_default().lines() {
        if let Some(module) = line.strip_prefix("missing ") {
            found.push(
                Finding::new("kernel-module", Weight::Problem, subject(seen), format!("the kernel module `{module}` cannot be loaded"))
                    .cause("pods of different nodes reach each other through it; flannel says \"operation not supported\"")
                    .remedy("Install the kernel's extra modules (`linux-modules-extra-$(uname -r)` on Ubuntu), or use another kernel."),
            );
        }
    }
    if !facts.swaps.is_empty() {
        let paths: Vec<&str> = facts.swaps.iter().map(|s| s.path.as_str()).collect();
        found.push(
            Finding::new("swap", Weight::Warning, subject(seen), format!("swap is on: {}", paths.join(", ")))
                .cause("memory limits of pods do not hold with swap")
                .remedy("`turingpi apply` turns it off for good.")
                .mended(),
        );
    }
    if let Some(version) = facts.iptables.as_deref()
        && (0..=4).any(|patch| {
            version.contains(&format!("v1.8.{patch} ")) || version.ends_with(&format!("v1.8.{patch}"))
        })
    {
        found.push(
            Finding::new("iptables-old", Weight::Warning, subject(seen), format!("has {version}"))
                .cause("iptables 1.8.0 to 1.8.4 in nft mode duplicates rules until the node is slow (k3s #3117)")
                .remedy("Set `k3s: { server: { prefer-bundled-bin: true } }` (and `agent`), or update the package."),
        );
    }
    if facts.unit("multipathd.service").activity() == Activity::Active {
        found.push(
            Finding::new("multipathd", Weight::Warning, subject(seen), "multipathd runs")
                .cause("it takes block devices that Longhorn attaches, so volumes hang")
                .remedy("Disable it, or blacklist `^sd[a-z0-9]+` in /etc/multipath.conf."),
        );
    }
}

fn clock(seen: &Seen<'_>, found: &mut Vec<Finding>) {
    let time = &seen.facts.time;
    if !time.is_sane() {
        found.push(
            Finding::new("clock", Weight::Problem, subject(seen), format!("its clock is {} s away from this machine's", time.skew_seconds))
                .cause("certificates are not yet valid or expired already; RK1 modules have no battery, so they wake up years ago until NTP answers")
                .remedy("Let it reach an NTP server (UDP 123) and look at `timedatectl`."),
        );
    } else if time.synchronized == Some(false) {
        found.push(
            Finding::new("ntp", Weight::Warning, subject(seen), "its clock is not kept in time")
                .cause("it will drift, and be wrong after a power cut")
                .remedy("`turingpi apply` turns time synchronisation on.")
                .mended(),
        );
    }
}

fn network(seen: &Seen<'_>, found: &mut Vec<Finding>) {
    let Seen { node, facts, runs_k3s } = seen;
    if facts.default_route.is_none() {
        found.push(
            Finding::new("default-route", Weight::Problem, subject(seen), "has no default route")
                .cause("k3s does not start without one, even in a closed network")
                .remedy("Set the gateway, or add a dummy interface with a default route."),
        );
    }
    if !facts.addresses.is_empty() && !facts.addresses.iter().any(|a| a.address.addr() == node.address) {
        let has: Vec<String> = facts.addresses.iter().map(|a| a.address.addr().to_string()).collect();
        found.push(
            Finding::new("address", Weight::Problem, subject(seen), format!("has the addresses {} and not {}", has.join(", "), node.address))
                .cause("the node would register with an address that is not its own, or DHCP has given it another one")
                .remedy("Reserve the address at your DHCP server, use `first-boot: { static: … }`, or correct `address`."),
        );
    }
    let dns = facts.extra(DNS.0).unwrap_or_default();
    let servers: Vec<&str> =
        dns.lines().filter_map(|l| l.strip_prefix("nameserver")).map(str::trim).collect();
    if !dns.is_empty() && servers.is_empty() {
        found.push(
            Finding::new("dns", Weight::Problem, subject(seen), "has no name server")
                .cause("images cannot be pulled, and CoreDNS has nowhere to ask")
                .remedy("Set one in the network configuration (`dns` of `first-boot: { static: … }` for flashed nodes)."),
        );
    } else if !servers.is_empty() && !dns.lines().any(|l| l.trim() == "resolves") {
        found.push(
            Finding::new(
                "dns-resolve",
                Weight::Warning,
                subject(seen),
                format!("cannot resolve `github.com` through {}", servers.join(", ")),
            )
            .cause("without internet access images must come from a mirror or an air-gap folder")
            .remedy("Check DNS; or set `k3s: { install: … }` to `airgap` and `registries` to your mirror."),
        );
    }
    if !runs_k3s {
        let ports: &[u16] =
            if node.role == Role::ControlPlane { &[6443, 6444, 10250, 2379, 2380] } else { &[6444, 10250] };
        for port in ports {
            if listens(facts.extra(PORTS.0).unwrap_or_default(), *port) {
                found.push(
                    Finding::new("port", Weight::Problem, subject(seen), format!("port {port} is taken"))
                        .cause("something else listens where k3s wants to; perhaps another Kubernetes")
                        .remedy(format!(
                            "Find it with `ss -ltnp 'sport = :{port}'` on {} and stop it.",
                            node.name
                        )),
                );
            }
        }
    }
    if facts.firewall.ufw.is_some() || facts.firewall.firewalld.is_some() {
        found.push(
            Finding::new("firewall", Weight::Note, subject(seen), "a firewall is on")
                .cause("nodes must reach each other on 6443, 10250 (TCP) and 8472 (UDP), and pods everything")
                .remedy("`turingpi apply` adds the rules, unless `host: { firewall: leave }`."),
        );
    }
}

fn listens(table: &str, port: u16) -> bool {
    let end = format!(":{port}");
    table.lines().any(|line| line.split_whitespace().any(|word| word.ends_with(&end)))
}

fn disks(seen: &Seen<'_>, found: &mut Vec<Finding>) {
    let facts = seen.facts;
    if facts.mount_of("/var/log").is_some_and(|m| m.path == "/var/log" && m.in_memory()) {
        found.push(
            Finding::new("log-disk", Weight::Warning, subject(seen), "/var/log is a small disk in memory")
                .cause("pod logs go there; when it is full, pods break and logs vanish (Armbian's ramlog)")
                .remedy("`turingpi apply` turns it off, and reboots.")
                .mended(),
        );
    }
    let data = facts
        .space
        .get("/var/lib/rancher")
        .or_else(|| facts.space.get("/var/lib"))
        .or_else(|| facts.space.get("/"));
    if let Some(space) = data
        && space.total_bytes > 0
    {
        let percent = space.free_bytes * 100 / space.total_bytes;
        if space.free_bytes < 4 * GIB {
            found.push(
                Finding::new(
                    "disk-full",
                    Weight::Problem,
                    subject(seen),
                    format!("{} MiB are free on {}", space.free_bytes / MIB, space.mount),
                )
                .cause("images and volumes live there; k3s needs 4 GiB at the least")
                .remedy("Make room, or use a bigger disk."),
            );
        } else if percent < 15 {
            found.push(
                Finding::new(
                    "disk-pressure",
                    Weight::Warning,
                    subject(seen),
                    format!("{percent}% are free on {}", space.mount),
                )
                .cause("below 15% the kubelet evicts pods and removes images, again and again")
                .remedy("Make room, or use a bigger disk."),
            );
        }
    }
}

/// What can only be seen by comparing hosts.
pub(crate) fn together(all: &[Seen<'_>]) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut ids: BTreeMap<&str, Vec<&Seen<'_>>> = BTreeMap::new();
    let mut names: BTreeMap<&str, Vec<&Seen<'_>>> = BTreeMap::new();
    let mut macs: BTreeMap<&str, Vec<&Seen<'_>>> = BTreeMap::new();
    for seen in all {
        if !seen.facts.machine_id.is_empty() {
            ids.entry(&seen.facts.machine_id).or_default().push(seen);
        }
        names.entry(&seen.facts.hostname).or_default().push(seen);
        if let Some(route) = &seen.facts.default_route
            && let Some(mac) = seen.facts.macs.get(&route.interface)
        {
            macs.entry(mac).or_default().push(seen);
        }
    }
    let mut twins = |groups: BTreeMap<&str, Vec<&Seen<'_>>>, make: fn(Finding) -> Finding, id, what: &str| {
        for twins in groups.into_values().filter(|t| t.len() > 1) {
            let all: Vec<&str> = twins.iter().map(|s| s.node.name.as_str()).collect();
            for seen in twins {
                found.push(make(Finding::new(
                    id,
                    Weight::Problem,
                    subject(seen),
                    format!(
                        "shares its {what} with {}",
                        all.iter().filter(|n| **n != seen.node.name).copied().collect::<Vec<_>>().join(", ")
                    ),
                )));
            }
        }
    };
    twins(
        ids,
        |f| {
            f.cause("a booted disk was cloned: DHCP gives both one address, and iSCSI mixes them up")
                .remedy("`turingpi apply` makes new ones.")
                .mended()
        },
        "machine-id-twins",
        "machine id",
    );
    twins(
        names,
        |f| {
            f.cause("every image comes with the same name; two nodes would fight for one entry")
                .remedy("`turingpi apply` sets the names of the document.")
                .mended()
        },
        "hostname-twins",
        "host name",
    );
    twins(
        macs,
        |f| {
            f.cause("two addresses lead to one host, or two network cards were given one address")
                .remedy("Check the addresses in the document; then the cards.")
        },
        "mac-twins",
        "hardware address",
    );
    found
}
