//! Kernel: modules, parameters, swap, memory.

use super::{Call, Table, Tool};
use crate::node::{
    boot::{self, MODULES},
    os::Swap,
};

pub(super) const TABLE: Table = &[
    ("modprobe", Tool::Now(modprobe)),
    ("rmmod", Tool::Now(rmmod)),
    ("lsmod", Tool::Now(lsmod)),
    ("modinfo", Tool::Now(modinfo)),
    ("depmod", Tool::Now(|_| 0)),
    ("sysctl", Tool::Now(sysctl)),
    ("swapoff", Tool::Now(swapoff)),
    ("swapon", Tool::Now(swapon)),
    ("mkswap", Tool::Now(|_| 0)),
    ("zramctl", Tool::Now(zramctl)),
    ("free", Tool::Now(free)),
    ("dmesg", Tool::Now(dmesg)),
];

fn modprobe(call: &mut Call) -> i32 {
    let quiet = call.has("-q");
    let dry =
        call.args.iter().any(|a| matches!(a.as_str(), "-n" | "--dry-run" | "--show" | "-nv" | "-qn" | "-nq"));
    let quiet = quiet || call.has("-qn") || call.has("-nq");
    let remove = call.has("-r");
    let many = call.has("-a") || call.has("--all");
    let kernel = call.os(|os| os.image.kernel.clone()).unwrap_or_default();
    let has_tree = call.os(|os| os.vfs.exists(&format!("/usr/lib/modules/{kernel}"))).unwrap_or(false);
    let names = call.operands();
    let count = if many { names.len() } else { 1 };
    let mut code = 0;
    for name in names.iter().take(count).map(|n| n.replace('-', "_")) {
        if !has_tree || !MODULES.contains(&name.as_str()) {
            if !quiet {
                call.warn(format!(
                    "modprobe: FATAL: Module {name} not found in directory /lib/modules/{kernel}\n"
                ));
            }
            code = 1;
        } else if !dry {
            if !call.session.root() {
                call.warn(format!("modprobe: ERROR: could not insert '{name}': Operation not permitted\n"));
                return 1;
            }
            call.running(|r| if remove { r.modules.remove(&name) } else { r.modules.insert(name.clone()) });
            if name == "iscsi_tcp" || name == "br_netfilter" {
                call.running(|r| {
                    r.modules.insert(if name == "iscsi_tcp" { "libiscsi".into() } else { "bridge".into() })
                });
            }
        }
    }
    call.refresh();
    code
}

fn rmmod(call: &mut Call) -> i32 {
    for name in call.operands() {
        if call.running(|r| r.modules.remove(&name)) != Some(true) {
            return call.fail(1, format!("ERROR: Module {name} is not currently loaded"));
        }
    }
    call.refresh();
    0
}

fn lsmod(call: &mut Call) -> i32 {
    let names: Vec<String> = call.running(|r| r.modules.iter().cloned().collect()).unwrap_or_default();
    call.line("Module                  Size  Used by");
    for name in names {
        call.line(format!("{name:<22} 32768  0"));
    }
    0
}

fn modinfo(call: &mut Call) -> i32 {
    for name in call.operands() {
        if !MODULES.contains(&name.replace('-', "_").as_str()) {
            return call.fail(1, format!("ERROR: Module {name} not found."));
        }
        call.line(format!("name:           {name}"));
    }
    0
}

fn sysctl(call: &mut Call) -> i32 {
    let flags: String =
        call.args.iter().filter(|a| a.starts_with('-') && !a.starts_with("--")).map(String::as_str).collect();
    let quiet = flags.contains('q') || call.has("--quiet");
    let mut code = 0;
    let mut files = Vec::new();
    let mut settings: Vec<String> = Vec::new();
    if call.has("--system") {
        files = call.os(|os| boot::sysctl_files(&os.vfs)).unwrap_or_default();
    } else if flags.contains('p') || call.args.iter().any(|a| a.starts_with("--load")) {
        files = call.operands();
        files.extend(call.args.iter().filter_map(|a| a.strip_prefix("--load=").map(str::to_owned)));
        if files.is_empty() {
            files.push("/etc/sysctl.conf".into());
        }
    } else if flags.contains('a') {
        let all = call.os(|os| {
            fn walk(vfs: &crate::node::vfs::Vfs, path: &str, into: &mut Vec<String>) {
                for (name, _) in vfs.list(path).unwrap_or_default() {
                    let path = format!("{path}/{name}");
                    if vfs.is_dir(&path) { walk(vfs, &path, into) } else { into.push(path) }
                }
            }
            let mut paths = Vec::new();
            walk(&os.vfs, "/proc/sys", &mut paths);
            paths
                .into_iter()
                .map(|p| {
                    format!(
                        "{} = {}",
                        p.trim_start_matches("/proc/sys/").replace('/', "."),
                        os.vfs.text(&p).trim()
                    )
                })
                .collect::<Vec<_>>()
        });
        all.unwrap_or_default().iter().for_each(|line| call.line(line));
        return 0;
    } else {
        settings = call.operands();
    }
    for file in files {
        let full = call.path(&file);
        let Some(Ok(bytes)) = call.os(|os| os.vfs.read(&full)) else {
            if !call.has("--system") {
                code = call.fail(255, format!("cannot open \"{file}\": No such file or directory"));
            }
            continue;
        };
        if call.has("--system") && !quiet {
            call.line(format!("* Applying {file} ..."));
        }
        for line in String::from_utf8_lossy(&bytes).lines() {
            if line.contains('=') && !line.trim_start().starts_with(['#', ';']) {
                settings.push(line.to_owned());
            }
        }
    }
    for setting in settings {
        if let Some((name, value)) = setting.split_once('=') {
            if !call.session.root() {
                call.warn(format!("sysctl: permission denied on key \"{}\"\n", name.trim()));
                return 255;
            }
            match call.os(|os| boot::set_sysctl(os, name, value)) {
                Some(Ok(())) if !quiet => {
                    call.line(format!("{} = {}", name.trim().trim_start_matches('-'), value.trim()))
                }
                Some(Err(text)) if !flags.contains('e') && !name.trim().starts_with('-') => {
                    call.warn(text);
                    code = 255;
                }
                _ => {}
            }
        } else {
            let path = format!("/proc/sys/{}", setting.trim().replace('.', "/"));
            match call.os(|os| os.vfs.read(&path)) {
                Some(Ok(bytes)) => {
                    let value = String::from_utf8_lossy(&bytes).trim().to_owned();
                    call.line(if flags.contains('n') {
                        value
                    } else {
                        format!("{} = {value}", setting.trim())
                    });
                }
                _ => {
                    if !flags.contains('e') {
                        call.warn(format!("sysctl: cannot stat {path}: No such file or directory\n"));
                        code = 255;
                    }
                }
            }
        }
    }
    code
}

fn swapoff(call: &mut Call) -> i32 {
    if let Some(code) = call.need_root("swapoff: Not superuser.") {
        return code;
    }
    let all = call.has("-a") || call.has("--all");
    let names = call.operands();
    let mut code = 0;
    if all {
        call.running(|r| r.swaps.clear());
    }
    for name in names {
        let gone = call.running(|r| {
            let before = r.swaps.len();
            r.swaps.retain(|swap| swap.device != name);
            r.swaps.len() < before
        });
        if gone != Some(true) {
            code = call.fail(4, format!("{name}: swapoff failed: Invalid argument"));
        }
    }
    call.refresh();
    code
}

fn swapon(call: &mut Call) -> i32 {
    if call.args.is_empty()
        || call
            .args
            .iter()
            .any(|a| a.starts_with("--show") || a == "-s" || a == "--summary" || a == "--noheadings")
    {
        let swaps = call.running(|r| r.swaps.clone()).unwrap_or_default();
        if !swaps.is_empty() && !call.has("--noheadings") {
            call.line("NAME       TYPE      SIZE USED PRIO");
        }
        for swap in swaps {
            call.line(format!("{} {} {}K 0B {}", swap.device, swap.kind, swap.bytes / 1024, swap.priority));
        }
        return 0;
    }
    if let Some(code) = call.need_root("swapon: Not superuser.") {
        return code;
    }
    let mut devices = call.operands();
    if call.has("-a") {
        devices = call
            .os(|os| {
                boot::fstab(&os.vfs)
                    .into_iter()
                    .filter(|line| line[2] == "swap")
                    .map(|line| line[0].clone())
                    .collect()
            })
            .unwrap_or_default();
    }
    for device in devices {
        if !call.os(|os| os.vfs.exists(&device)).unwrap_or(false) {
            return call.fail(255, format!("cannot open {device}: No such file or directory"));
        }
        let bytes =
            call.os(|os| os.vfs.stat(&device).map_or(0, |inode| inode.size())).unwrap_or(0).max(1 << 20);
        let kind = if device.starts_with("/dev/") { "partition" } else { "file" };
        call.running(|r| {
            if !r.swaps.iter().any(|s| s.device == device) {
                r.swaps.push(Swap { device: device.clone(), kind, bytes, priority: -2 })
            }
        });
    }
    call.refresh();
    0
}

fn zramctl(call: &mut Call) -> i32 {
    let swaps = call.running(|r| r.swaps.clone()).unwrap_or_default();
    for swap in swaps.iter().filter(|s| s.device.starts_with("/dev/zram")) {
        call.line(format!("{} lzo-rle {}K 4K 74B 12K 8 [SWAP]", swap.device, swap.bytes / 1024));
    }
    0
}

fn free(call: &mut Call) -> i32 {
    let flags: String = call.args.iter().map(|a| a.trim_start_matches('-')).collect();
    let unit = if flags.contains('b') {
        1
    } else if flags.contains('m') {
        1 << 20
    } else if flags.contains('g') {
        1 << 30
    } else {
        1024
    };
    let total = call.session.node.plan.memory;
    let swap: u64 = call.running(|r| r.swaps.iter().map(|s| s.bytes).sum()).unwrap_or(0);
    call.line("               total        used        free      shared  buff/cache   available");
    call.line(format!(
        "Mem: {} {} {} 0 {} {}",
        total / unit,
        total / 10 / unit,
        total / 10 * 8 / unit,
        total / 10 / unit,
        total / 10 * 9 / unit
    ));
    call.line(format!("Swap: {} 0 {}", swap / unit, swap / unit));
    0
}

fn dmesg(call: &mut Call) -> i32 {
    let kernel = call.os(|os| os.image.kernel.clone()).unwrap_or_default();
    call.line(format!("[    0.000000] Linux version {kernel}"));
    0
}
