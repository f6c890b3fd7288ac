//! apt and dpkg over the node's own database and lock.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;

use super::{Call, Table, Tool};
use crate::node::{
    Node,
    packages::{self, Package},
};

pub(super) const TABLE: Table = &[
    ("apt-get", Tool::Later(apt)),
    ("apt", Tool::Later(apt)),
    ("apt-cache", Tool::Now(apt_cache)),
    ("apt-mark", Tool::Now(apt_mark)),
    ("dpkg", Tool::Now(dpkg)),
    ("dpkg-query", Tool::Now(dpkg_query)),
    (
        "debconf-set-selections",
        Tool::Later(|call| {
            Box::pin(async move {
                call.input().await;
                0
            })
        }),
    ),
    ("needrestart", Tool::Now(|_| 0)),
];

/// Takes the dpkg lock, waiting as long as `DPkg::Lock::Timeout` says.
async fn lock(call: &mut Call, timeout: u64) -> Result<(), i32> {
    let pid = call.session.pid;
    let mut waited = 0;
    loop {
        let holder = call.running(|r| match &r.dpkg_lock {
            Some((holder, who)) if *holder != pid => Some((*holder, who.clone())),
            _ => {
                r.dpkg_lock = Some((pid, "apt-get".into()));
                None
            }
        });
        let Some(holder) = holder else { return Err(100) };
        let Some((holder, who)) = holder else { return Ok(()) };
        if waited >= timeout {
            call.warn(format!("E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process {holder} ({who})\nN: Be aware that removing the lock file is not a solution and may break your system.\nE: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), is another process using it?\n"));
            return Err(100);
        }
        waited += 1;
        if !call.session.node.pause(Duration::from_secs(1)).await {
            return Err(-15);
        }
    }
}

/// Gives the lock back when the process ends, however it ends: the kernel does that for a lock on a file.
struct Held(Arc<Node>, u32);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.os(|os| {
            if let Some(running) = os.running.as_mut()
                && running.dpkg_lock.as_ref().is_some_and(|(holder, _)| *holder == self.1)
            {
                running.dpkg_lock = None;
            }
        });
    }
}

fn apt(call: &mut Call) -> BoxFuture<'_, i32> {
    Box::pin(async move {
        let mut words = Vec::new();
        let mut timeout = 0;
        let mut simulate = false;
        let mut args = call.args.clone().into_iter();
        while let Some(arg) = args.next() {
            let option = if arg == "-o" { args.next() } else { arg.strip_prefix("-o").map(str::to_owned) };
            if let Some(option) = option {
                if let Some(value) = option.to_lowercase().strip_prefix("dpkg::lock::timeout=") {
                    timeout = if value.starts_with('-') { u64::MAX } else { value.parse().unwrap_or(0) };
                }
            } else if matches!(arg.as_str(), "-t" | "-c") {
                args.next();
            } else if matches!(arg.as_str(), "-s" | "--simulate" | "--dry-run") {
                simulate = true;
            } else if !arg.starts_with('-') {
                words.push(arg);
            }
        }
        let Some((verb, names)) = words.split_first() else { return 0 };
        let verb = verb.as_str();
        if matches!(verb, "list" | "policy" | "show" | "search") {
            return apt_cache(call);
        }
        if simulate {
            for name in names {
                call.line(format!("Inst {name}"));
            }
            return 0;
        }
        if !call.session.root() {
            call.warn("E: Could not open lock file /var/lib/dpkg/lock-frontend - open (13: Permission denied)\nE: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), are you root?\n");
            return 100;
        }
        if let Err(code) = lock(call, timeout).await {
            return code;
        }
        let _held = Held(call.node().clone(), call.session.pid);
        locked(call, verb, names).await
    })
}

async fn locked(call: &mut Call, verb: &str, names: &[String]) -> i32 {
    let nominal = call.node().world().map(|world| world.durations.apt).unwrap_or_default();
    if crate::node::script::disk_full(&call.session)
        && !matches!(verb, "remove" | "purge" | "clean" | "autoremove")
    {
        call.warn("E: You don't have enough free space in /var/cache/apt/archives/.\n");
        return 100;
    }
    match verb {
        "update" => {
            if call.running(|r| r.net.default_route().is_none()).unwrap_or(true) {
                call.warn("W: Failed to fetch http://deb.example.org/debian/dists/stable/InRelease  Temporary failure resolving 'deb.example.org'\nW: Some index files failed to download. They have been ignored, or old ones used instead.\n");
                return 0;
            }
            call.session.node.pause(nominal.mul_f64(0.2)).await;
            call.os(|os| {
                os.vfs.put(
                    "/var/lib/apt/lists/deb.example.org_debian_dists_stable_InRelease",
                    "Origin: Debian\n",
                );
                os.vfs.put("/var/lib/apt/periodic/update-success-stamp", "");
            });
            call.line("Hit:1 http://deb.example.org/debian stable InRelease\nReading package lists...");
            0
        }
        "install" => install(call, names, nominal).await,
        "remove" | "purge" | "autoremove" => {
            call.session.node.pause(nominal.mul_f64(0.3)).await;
            let names = names.to_vec();
            call.os(|os| {
                let mut all = packages::installed(&os.vfs);
                all.retain(|p| !names.contains(&p.name));
                packages::save(&mut os.vfs, &all);
            });
            super::register(call.node());
            0
        }
        "upgrade" | "dist-upgrade" | "full-upgrade" => {
            call.session.node.pause(nominal).await;
            call.line("0 upgraded, 0 newly installed, 0 to remove and 0 not upgraded.");
            0
        }
        "clean" | "autoclean" | "check" => 0,
        other => {
            let text = format!("E: Invalid operation {other}\n");
            call.warn(text);
            100
        }
    }
}

async fn install(call: &mut Call, names: &[String], nominal: Duration) -> i32 {
    let arch = call.os(|os| os.image.arch.clone()).unwrap_or_default();
    let had: Vec<Package> = call.os(|os| packages::installed(&os.vfs)).unwrap_or_default();
    let has = |name: &str| had.iter().any(|p| p.name == name && p.status == "install ok installed");
    let lists = call
        .os(|os| os.vfs.exists("/var/lib/apt/lists/deb.example.org_debian_dists_stable_InRelease"))
        .unwrap_or(false);
    let mut wanted: Vec<String> = Vec::new();
    for name in names {
        let name = name.split(['=', ':', '/']).next().unwrap_or_default();
        if has(name) {
            call.line(format!("{name} is already the newest version."));
            continue;
        }
        let Some((_, needs)) = packages::offered(name).filter(|_| lists) else {
            call.warn(format!("E: Unable to locate package {name}\n"));
            return 100;
        };
        wanted.extend(needs.iter().filter(|need| !has(need)).map(|need| (*need).to_owned()));
        wanted.push(name.to_owned());
    }
    wanted.dedup();
    if wanted.is_empty() {
        call.line("0 upgraded, 0 newly installed, 0 to remove and 0 not upgraded.");
        return 0;
    }
    if call.running(|r| r.net.default_route().is_none()).unwrap_or(true) {
        call.warn("E: Failed to fetch http://deb.example.org/debian/pool  Temporary failure resolving 'deb.example.org'\n");
        return 100;
    }
    call.line(format!("The following NEW packages will be installed:\n  {}", wanted.join(" ")));
    if !call.session.node.pause(nominal).await {
        return -15;
    }
    let mut started = Vec::new();
    call.os(|os| {
        let mut all = packages::installed(&os.vfs);
        for name in &wanted {
            all.retain(|p| p.name != *name);
            all.push(packages::package(name, &arch));
            packages::unpack(&mut os.vfs, name);
            started.extend(
                packages::units_of(name).iter().filter(|(_, _, enabled)| *enabled).map(|(unit, ..)| *unit),
            );
        }
        packages::save(&mut os.vfs, &all);
    });
    for name in &wanted {
        call.line(format!("Setting up {name} ..."));
    }
    super::register(call.node());
    for unit in started {
        call.node().start_unit(unit);
    }
    0
}

fn apt_cache(call: &mut Call) -> i32 {
    let had = call.os(|os| packages::installed(&os.vfs)).unwrap_or_default();
    for name in call.operands().into_iter().skip(1) {
        let installed = had.iter().find(|p| p.name == name).map_or("(none)", |p| p.version.as_str());
        if let Some((version, _)) = packages::offered(&name) {
            call.line(format!("{name}:\n  Installed: {installed}\n  Candidate: {version}"));
        }
    }
    0
}

fn apt_mark(call: &mut Call) -> i32 {
    for name in call.operands().into_iter().skip(1) {
        call.line(format!("{name} set on hold."));
    }
    0
}

fn dpkg(call: &mut Call) -> i32 {
    let flag = call.args.first().cloned().unwrap_or_default();
    match flag.as_str() {
        "--print-architecture" => {
            let arch = call.os(|os| os.image.arch.clone()).unwrap_or_default();
            call.line(arch);
            0
        }
        "--configure" => {
            match call.need_root("dpkg: error: requested operation requires superuser privilege") {
                Some(_) => 2,
                None => {
                    let held = call.running(|r| r.dpkg_lock.clone()).flatten();
                    if let Some((pid, _)) = held {
                        call.warn(format!(
                            "dpkg: error: dpkg frontend lock was locked by another process with pid {pid}\n"
                        ));
                        return 2;
                    }
                    0
                }
            }
        }
        "--compare-versions" => {
            let (Some(a), Some(op), Some(b)) = (call.args.get(1), call.args.get(2), call.args.get(3)) else {
                return 2;
            };
            let key = |v: &str| {
                v.split(|c: char| !c.is_ascii_digit())
                    .filter_map(|n| n.parse::<u64>().ok())
                    .collect::<Vec<_>>()
            };
            let order = key(a).cmp(&key(b));
            let holds = match op.as_str() {
                "lt" => order.is_lt(),
                "le" => order.is_le(),
                "eq" => order.is_eq(),
                "ne" => order.is_ne(),
                "ge" => order.is_ge(),
                _ => order.is_gt(),
            };
            i32::from(!holds)
        }
        "-s" | "--status" | "-l" | "--list" | "-L" => {
            let had = call.os(|os| packages::installed(&os.vfs)).unwrap_or_default();
            let mut code = 0;
            let names = call.operands();
            for p in had.iter().filter(|_| names.is_empty()) {
                call.line(format!("ii  {} {} {}", p.name, p.version, p.arch));
            }
            for name in names {
                match had.iter().find(|p| p.name == name) {
                    Some(p) if flag == "-l" || flag == "--list" => {
                        call.line(format!("ii  {} {} {}", p.name, p.version, p.arch))
                    }
                    Some(p) => call.line(format!(
                        "Package: {}\nStatus: {}\nArchitecture: {}\nVersion: {}",
                        p.name, p.status, p.arch, p.version
                    )),
                    None => {
                        call.warn(if flag.contains('l') { format!("dpkg-query: no packages found matching {name}\n") } else { format!("dpkg-query: package '{name}' is not installed and no information is available\n") });
                        code = 1;
                    }
                }
            }
            code
        }
        "--audit" | "-C" => 0,
        other => {
            let text = format!("dpkg: error: unknown option {other}\n");
            call.warn(text);
            2
        }
    }
}

fn dpkg_query(call: &mut Call) -> i32 {
    let mut format = "${Package}\t${Version}\n".to_owned();
    let mut names = Vec::new();
    let mut args = call.args.clone().into_iter();
    while let Some(arg) = args.next() {
        if arg == "-f" || arg == "--showformat" {
            format = args.next().unwrap_or(format);
        } else if let Some(inline) = arg
            .strip_prefix("-f=")
            .or_else(|| arg.strip_prefix("--showformat="))
            .or_else(|| arg.strip_prefix("-f"))
        {
            format = inline.to_owned();
        } else if arg == "-s" || arg == "-l" || arg == "--status" {
            return dpkg(call);
        } else if !arg.starts_with('-') {
            names.push(arg);
        }
    }
    let had = call.os(|os| packages::installed(&os.vfs)).unwrap_or_default();
    let show = |p: &Package| {
        format
            .replace("${Package}", &p.name)
            .replace("${binary:Package}", &p.name)
            .replace("${Version}", &p.version)
            .replace("${Architecture}", &p.arch)
            .replace("${Status}", &p.status)
            .replace("${db:Status-Status}", p.status.rsplit(' ').next().unwrap_or_default())
            .replace("${db:Status-Abbrev}", "ii ")
            .replace("\\n", "\n")
            .replace("\\t", "\t")
    };
    if names.is_empty() {
        had.iter().for_each(|p| call.print(show(p)));
        return 0;
    }
    let mut code = 0;
    for name in names {
        match had.iter().find(|p| p.name == name) {
            Some(p) => call.print(show(p)),
            None => {
                call.warn(format!("dpkg-query: no packages found matching {name}\n"));
                code = 1;
            }
        }
    }
    code
}
