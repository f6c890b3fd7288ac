//! Who and what: accounts, names, machine identity, time.

use futures::future::BoxFuture;

use super::{Call, Table, Tool};
use crate::node::{rootfs, users};

pub(super) const TABLE: Table = &[
    ("id", Tool::Now(id)),
    ("whoami", Tool::Now(whoami)),
    ("groups", Tool::Now(groups)),
    ("getent", Tool::Now(getent)),
    ("useradd", Tool::Now(useradd)),
    ("adduser", Tool::Now(useradd)),
    ("userdel", Tool::Now(userdel)),
    ("usermod", Tool::Now(usermod)),
    ("groupadd", Tool::Now(groupadd)),
    ("chpasswd", Tool::Later(chpasswd)),
    ("passwd", Tool::Later(passwd)),
    ("chage", Tool::Now(chage)),
    ("visudo", Tool::Now(|_| 0)),
    ("hostname", Tool::Now(hostname)),
    ("hostnamectl", Tool::Now(hostnamectl)),
    ("timedatectl", Tool::Now(timedatectl)),
    ("systemd-machine-id-setup", Tool::Now(machine_id)),
    ("dbus-uuidgen", Tool::Now(|_| 0)),
    ("ssh-keygen", Tool::Now(ssh_keygen)),
    ("iscsi-iname", Tool::Now(iscsi_iname)),
    ("cloud-init", Tool::Now(cloud_init)),
    ("uname", Tool::Now(uname)),
    ("arch", Tool::Now(arch)),
    ("nproc", Tool::Now(nproc)),
    ("locale-gen", Tool::Now(|_| 0)),
    ("update-locale", Tool::Now(|_| 0)),
];

fn id(call: &mut Call) -> i32 {
    let account = match call.operands().first() {
        Some(name) => match call.os(|os| users::find(&os.vfs, name)).flatten() {
            Some(account) => account,
            None => return call.fail(1, format!("'{name}': no such user")),
        },
        None => call.session.account.clone(),
    };
    let groups = call.os(|os| users::groups_of(&os.vfs, &account)).unwrap_or_default();
    let flags: String =
        call.args.iter().filter(|a| a.starts_with('-')).map(|a| a.trim_start_matches('-')).collect();
    let named = flags.contains('n');
    let text = if flags.contains('u') {
        if named { account.name } else { account.uid.to_string() }
    } else if flags.contains('g') {
        groups
            .first()
            .map_or_else(|| account.gid.to_string(), |g| if named { g.0.clone() } else { g.1.to_string() })
    } else if flags.contains('G') {
        groups.iter().map(|g| if named { g.0.clone() } else { g.1.to_string() }).collect::<Vec<_>>().join(" ")
    } else {
        let all: Vec<String> = groups.iter().map(|g| format!("{}({})", g.1, g.0)).collect();
        let own = groups.first().map_or_else(String::new, |g| g.0.clone());
        format!("uid={}({}) gid={}({own}) groups={}", account.uid, account.name, account.gid, all.join(","))
    };
    call.line(text);
    0
}

fn whoami(call: &mut Call) -> i32 {
    let name = call.session.account.name.clone();
    call.line(name);
    0
}

fn groups(call: &mut Call) -> i32 {
    let account = call.session.account.clone();
    let names: Vec<String> = call
        .os(|os| users::groups_of(&os.vfs, &account).into_iter().map(|g| g.0).collect())
        .unwrap_or_default();
    call.line(names.join(" "));
    0
}

fn getent(call: &mut Call) -> i32 {
    let operands = call.operands();
    let (database, keys) = operands.split_first().map_or(("", &[] as &[String]), |(d, k)| (d.as_str(), k));
    let file = match database {
        "passwd" | "group" | "shadow" => format!("/etc/{database}"),
        "hosts" | "ahosts" | "ahostsv4" => {
            let Some(name) = keys.first() else { return 1 };
            let found = call
                .os(|os| {
                    let text = os.vfs.text("/etc/hosts");
                    let line = text
                        .lines()
                        .filter(|l| !l.starts_with('#'))
                        .find(|l| l.split_whitespace().any(|word| word == name));
                    line.map(|l| l.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
                })
                .flatten();
            return match found {
                Some(words) => {
                    let ip = words.first().cloned().unwrap_or_default();
                    call.line(if database == "hosts" {
                        format!("{ip:<15} {}", words.get(1..).unwrap_or_default().join(" "))
                    } else {
                        format!("{ip:<15} STREAM {name}")
                    });
                    0
                }
                None => 2,
            };
        }
        _ => return call.fail(1, format!("Unknown database: {database}")),
    };
    let text = call.os(|os| os.vfs.text(&file)).unwrap_or_default();
    let mut code = 0;
    if keys.is_empty() {
        call.print(text);
        return 0;
    }
    for key in keys {
        let found = text.lines().find(|line| {
            let mut fields = line.split(':');
            fields.next() == Some(key) || fields.nth(1) == Some(key)
        });
        match found {
            Some(line) => call.line(line),
            None => code = 2,
        }
    }
    code
}

fn option(call: &Call, names: &[&str]) -> Option<String> {
    let mut args = call.args.iter();
    while let Some(arg) = args.next() {
        if names.contains(&arg.as_str()) {
            return args.next().cloned();
        }
        if let Some(value) = names.iter().find_map(|name| arg.strip_prefix(&format!("{name}="))) {
            return Some(value.to_owned());
        }
    }
    None
}

fn useradd(call: &mut Call) -> i32 {
    if let Some(code) =
        call.need_root("useradd: Permission denied.\nuseradd: cannot lock /etc/passwd; try again later.")
    {
        return code;
    }
    let Some(name) = call.args.last().cloned() else { return 2 };
    if call.os(|os| users::find(&os.vfs, &name)).flatten().is_some() {
        return call.fail(9, format!("user '{name}' already exists"));
    }
    let home = option(call, &["-d", "--home-dir", "--home"]);
    let shell = option(call, &["-s", "--shell"])
        .unwrap_or_else(|| if call.name == "adduser" { "/bin/bash".into() } else { "/bin/sh".into() });
    let uid = option(call, &["-u", "--uid"]).and_then(|uid| uid.parse().ok());
    let make_home = call.name == "adduser"
        || call.args.iter().any(|a| {
            a == "-m"
                || a == "--create-home"
                || (a.starts_with('-') && !a.starts_with("--") && a.contains('m'))
        });
    let joins = option(call, &["-G", "--groups"]).unwrap_or_default();
    call.os(|os| {
        users::add(&mut os.vfs, &name, uid, home.as_deref(), &shell, make_home);
        for group in joins.split(',').filter(|g| !g.is_empty()) {
            users::join(&mut os.vfs, group, &name);
        }
    });
    0
}

fn userdel(call: &mut Call) -> i32 {
    if let Some(code) = call.need_root("userdel: Permission denied.") {
        return code;
    }
    let Some(name) = call.args.last().cloned() else { return 2 };
    let Some(account) = call.os(|os| users::find(&os.vfs, &name)).flatten() else {
        return call.fail(6, format!("user '{name}' does not exist"));
    };
    let wipe = call.has("-r") || call.has("--remove");
    call.os(|os| {
        for file in ["/etc/passwd", "/etc/shadow", "/etc/group"] {
            let kept: String = os
                .vfs
                .text(file)
                .lines()
                .filter(|line| line.split(':').next() != Some(&name))
                .map(|line| format!("{line}\n"))
                .collect();
            let mode = os.vfs.stat(file).map_or(0o644, |inode| inode.mode);
            os.vfs.put_mode(file, kept, mode);
        }
        if wipe {
            let _ = os.vfs.remove(&account.home, true);
        }
    });
    0
}

fn usermod(call: &mut Call) -> i32 {
    if let Some(code) = call.need_root("usermod: Permission denied.") {
        return code;
    }
    let Some(name) = call.args.last().cloned() else { return 2 };
    if call.os(|os| users::find(&os.vfs, &name)).flatten().is_none() {
        return call.fail(6, format!("user '{name}' does not exist"));
    }
    let joins = option(call, &["-G", "-aG", "--groups"]).unwrap_or_default();
    let lock = call.has("-L") || call.has("--lock");
    let unlock = call.has("-U") || call.has("--unlock");
    call.os(|os| {
        for group in joins.split(',').filter(|g| !g.is_empty()) {
            users::join(&mut os.vfs, group, &name);
        }
        let shadow = os.vfs.text("/etc/shadow");
        let field = shadow
            .lines()
            .find(|l| l.split(':').next() == Some(&name))
            .and_then(|l| l.split(':').nth(1))
            .unwrap_or("!")
            .to_owned();
        if lock && !field.starts_with('!') {
            users::set_shadow(&mut os.vfs, &name, &format!("!{field}"), 20_400);
        }
        if unlock {
            users::set_shadow(&mut os.vfs, &name, field.trim_start_matches('!'), 20_400);
        }
    });
    0
}

fn groupadd(call: &mut Call) -> i32 {
    let Some(name) = call.args.last().cloned() else { return 2 };
    call.os(|os| {
        if !users::groups(&os.vfs).iter().any(|g| g.0 == name) {
            let text = os.vfs.text("/etc/group");
            let gid =
                users::groups(&os.vfs).iter().map(|g| g.1).filter(|gid| *gid < 60_000).max().unwrap_or(1000)
                    + 1;
            os.vfs.put("/etc/group", format!("{text}{name}:x:{gid}:\n"));
        }
    });
    0
}

fn chpasswd(call: &mut Call) -> BoxFuture<'_, i32> {
    Box::pin(async move {
        let input = call.input().await;
        if let Some(code) = call
            .need_root("chpasswd: Permission denied.\nchpasswd: cannot lock /etc/passwd; try again later.")
        {
            return code;
        }
        let encrypted = call.has("-e") || call.has("--encrypted");
        let mut code = 0;
        for (index, line) in String::from_utf8_lossy(&input).lines().enumerate() {
            let Some((name, password)) = line.split_once(':') else {
                code = call.fail(1, format!("line {}: missing new password", index + 1));
                continue;
            };
            if call.os(|os| users::find(&os.vfs, name)).flatten().is_none() {
                call.warn(format!("chpasswd: (user {name}) pam_chauthtok() failed, error:\nAuthentication token manipulation error\nchpasswd: (line {}, user {name}) password not changed\n", index + 1));
                code = 1;
                continue;
            }
            call.os(|os| {
                if encrypted {
                    users::set_shadow(&mut os.vfs, name, password, 20_400)
                } else {
                    users::set_password(&mut os.vfs, name, password)
                }
            });
        }
        code
    })
}

fn passwd(call: &mut Call) -> BoxFuture<'_, i32> {
    Box::pin(async move {
        let name = call.operands().first().cloned().unwrap_or_else(|| call.session.account.name.clone());
        if !call.session.root() && name != call.session.account.name {
            return call.fail(1, format!("You may not view or modify password information for {name}."));
        }
        for (flag, long) in [("-l", "--lock"), ("-d", "--delete"), ("-e", "--expire"), ("-u", "--unlock")] {
            if call.has(flag) || call.has(long) {
                call.os(|os| {
                    let shadow = os.vfs.text("/etc/shadow");
                    let field = shadow
                        .lines()
                        .find(|l| l.split(':').next() == Some(&name))
                        .and_then(|l| l.split(':').nth(1))
                        .unwrap_or("!")
                        .to_owned();
                    match flag {
                        "-l" => users::set_shadow(
                            &mut os.vfs,
                            &name,
                            &format!("!{}", field.trim_start_matches('!')),
                            20_400,
                        ),
                        "-u" => users::set_shadow(&mut os.vfs, &name, field.trim_start_matches('!'), 20_400),
                        "-e" => users::set_shadow(&mut os.vfs, &name, &field, 0),
                        _ => users::set_shadow(&mut os.vfs, &name, "", 20_400),
                    }
                });
                return 0;
            }
        }
        let input = String::from_utf8_lossy(&call.input().await).into_owned();
        let mut lines = input.lines();
        if !call.session.root() {
            let current = lines.next().unwrap_or_default();
            if call.os(|os| users::check(&os.vfs, &name, current)) == Some(users::Login::Refused) {
                call.warn("passwd: Authentication token manipulation error\npasswd: password unchanged\n");
                return 10;
            }
        }
        match (lines.next(), lines.next()) {
            (Some(first), Some(second)) if first == second && !first.is_empty() => {
                call.os(|os| users::set_password(&mut os.vfs, &name, first));
                call.warn("New password: Retype new password: passwd: password updated successfully\n");
                0
            }
            _ => {
                call.warn("New password: Retype new password: Sorry, passwords do not match.\npasswd: Authentication token manipulation error\npasswd: password unchanged\n");
                10
            }
        }
    })
}

fn chage(call: &mut Call) -> i32 {
    let Some(name) = call.args.last().cloned() else { return 2 };
    if let Some(day) = option(call, &["-d", "--lastday"]) {
        let day = day.parse().unwrap_or(20_400);
        call.os(|os| {
            let shadow = os.vfs.text("/etc/shadow");
            let field = shadow
                .lines()
                .find(|l| l.split(':').next() == Some(&name))
                .and_then(|l| l.split(':').nth(1))
                .unwrap_or("!")
                .to_owned();
            users::set_shadow(&mut os.vfs, &name, &field, day);
        });
    }
    if call.has("-l") {
        let expired = call.os(|os| users::expired(&os.vfs, &name)).unwrap_or(false);
        call.line(format!(
            "Last password change\t\t\t\t\t: {}",
            if expired { "password must be changed" } else { "Nov 09, 2025" }
        ));
    }
    0
}

fn set_hostname(call: &mut Call, name: &str, keep: bool) {
    call.os(|os| {
        if let Some(running) = &mut os.running {
            name.clone_into(&mut running.hostname);
        }
        os.vfs.put("/proc/sys/kernel/hostname", format!("{name}\n"));
        if keep {
            os.vfs.put("/etc/hostname", format!("{name}\n"));
        }
    });
}

fn hostname(call: &mut Call) -> i32 {
    let flags: String =
        call.args.iter().filter(|a| a.starts_with('-')).map(|a| a.trim_start_matches('-')).collect();
    if flags.contains('I') {
        let addresses: Vec<String> = call
            .running(|r| {
                r.net
                    .interfaces
                    .iter()
                    .filter(|i| i.kind != "loopback")
                    .flat_map(|i| i.addresses.iter().map(|a| a.ip.to_string()))
                    .collect()
            })
            .unwrap_or_default();
        call.line(addresses.join(" "));
        return 0;
    }
    if let Some(name) = call.operands().first().cloned() {
        if let Some(code) = call.need_root("hostname: you must be root to change the host name") {
            return code;
        }
        set_hostname(call, &name, false);
        return 0;
    }
    let name = call.os(|os| os.hostname()).unwrap_or_default();
    call.line(if flags.contains('s') { name.split('.').next().unwrap_or_default().to_owned() } else { name });
    0
}

fn hostnamectl(call: &mut Call) -> i32 {
    let operands = call.operands();
    match operands.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["set-hostname" | "hostname", name] => {
            if let Some(code) =
                call.need_root("Could not set static hostname: Interactive authentication required.")
            {
                return code;
            }
            let valid = !name.is_empty()
                && name.len() <= 64
                && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'));
            if !valid {
                call.warn(format!("Could not set static hostname: Invalid hostname '{name}'\n"));
                return 1;
            }
            let name = (*name).to_owned();
            set_hostname(call, &name, true);
        }
        ["hostname"] => {
            let name = call.os(|os| os.hostname()).unwrap_or_default();
            call.line(name);
        }
        _ => {
            let (name, machine, pretty, kernel) = call
                .os(|os| {
                    (
                        os.hostname(),
                        os.machine_id(),
                        os.setting("/etc/os-release", "PRETTY_NAME").unwrap_or_default(),
                        os.image.kernel.clone(),
                    )
                })
                .unwrap_or_default();
            if call.has("--static") || call.has("--transient") {
                call.line(name);
            } else if call.has("--json=short") || call.has("-j") {
                call.line(serde_json::json!({"Hostname": name, "StaticHostname": name, "MachineID": machine, "OperatingSystemPrettyName": pretty, "KernelRelease": kernel}).to_string());
            } else {
                call.line(format!(" Static hostname: {name}\n       Icon name: computer\n      Machine ID: {machine}\nOperating System: {pretty}\n          Kernel: Linux {kernel}\n    Architecture: arm64"));
            }
        }
    }
    0
}

fn timedatectl(call: &mut Call) -> i32 {
    let operands = call.operands();
    match operands.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["set-timezone", zone] => {
            if !call.os(|os| os.vfs.exists(&format!("/usr/share/zoneinfo/{zone}"))).unwrap_or(false) {
                call.warn(format!("Failed to set time zone: Invalid or not installed time zone '{zone}'\n"));
                return 1;
            }
            call.os(|os| {
                os.vfs.link("/etc/localtime", &format!("/usr/share/zoneinfo/{zone}"));
                os.vfs.put("/etc/timezone", format!("{zone}\n"));
            });
        }
        ["set-ntp", value] => {
            let on = matches!(*value, "true" | "yes" | "1" | "on");
            let unit = time_unit(call);
            let Some(unit) = unit else {
                call.warn("Failed to set ntp: NTP not supported\n");
                return 1;
            };
            call.os(|os| {
                if on {
                    crate::node::units::enable(&mut os.vfs, unit).is_ok()
                } else {
                    !crate::node::units::disable(&mut os.vfs, unit).is_empty()
                }
            });
            if on {
                call.node().start_unit(unit);
            }
        }
        _ => {
            let zone = call.os(|os| os.vfs.text("/etc/timezone").trim().to_owned()).unwrap_or_default();
            let unit = time_unit(call);
            let running = unit.is_some_and(|unit| {
                call.node()
                    .unit_state(unit)
                    .is_some_and(|state| state.active == crate::node::systemd::Active::Active)
            });
            let yes = |on: bool| if on { "yes" } else { "no" };
            let values = [
                ("Timezone", zone.as_str()),
                ("LocalRTC", "no"),
                ("CanNTP", yes(unit.is_some())),
                ("NTP", yes(running)),
                ("NTPSynchronized", yes(running)),
            ];
            let wanted: Vec<String> = properties(&call.args);
            let plain = call.has("--value");
            if operands.first().is_some_and(|o| o == "show") {
                for (name, value) in
                    values.iter().filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|w| w == name))
                {
                    call.line(if plain { (*value).to_owned() } else { format!("{name}={value}") });
                }
            } else {
                call.line(format!("               Local time: now\n                Time zone: {zone} (UTC, +0000)\nSystem clock synchronized: {}\n              NTP service: {}", yes(running), if running { "active" } else { "inactive" }));
            }
        }
    }
    0
}

/// The property names of `-p A,B -p C`.
pub(super) fn properties(args: &[String]) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let value = match arg.as_str() {
            "-p" | "-P" | "--property" => rest.next().map(String::as_str),
            _ => arg.strip_prefix("--property=").or_else(|| {
                arg.strip_prefix("-p").or_else(|| arg.strip_prefix("-P")).filter(|v| !v.is_empty())
            }),
        };
        names.extend(value.into_iter().flat_map(|value| value.split(',')).map(str::to_owned));
    }
    names
}

fn time_unit(call: &Call) -> Option<&'static str> {
    call.os(|os| {
        ["chrony.service", "systemd-timesyncd.service"]
            .into_iter()
            .find(|name| crate::node::units::load(&os.vfs, name).is_some())
    })
    .flatten()
}

fn machine_id(call: &mut Call) -> i32 {
    call.os(|os| {
        if os.machine_id().is_empty() || os.machine_id() == "uninitialized" {
            os.vfs.put("/etc/machine-id", format!("{}\n", hex::encode(rand::random::<[u8; 16]>())));
        }
    });
    call.warn("Initializing machine ID from random generator.\n");
    0
}

fn ssh_keygen(call: &mut Call) -> i32 {
    if call.has("-A") {
        call.os(|os| {
            if !os.vfs.exists("/etc/ssh/ssh_host_ed25519_key") {
                rootfs::put_host_key(&mut os.vfs, &rootfs::new_host_key());
            }
        });
        call.line("ssh-keygen: generating new host keys: ED25519");
        return 0;
    }
    if call.has("-l") {
        let Some(path) = option(call, &["-f", "-lf"]) else { return 1 };
        let text = call.os(|os| os.vfs.text(&path)).unwrap_or_default();
        let Ok(key) = russh::keys::PublicKey::from_openssh(text.trim()) else {
            return call.fail(255, format!("{path} is not a public key file."));
        };
        let comment = text.split_whitespace().nth(2).unwrap_or("no comment").to_owned();
        call.line(format!("256 {} {comment} (ED25519)", key.fingerprint(russh::keys::HashAlg::Sha256)));
        return 0;
    }
    call.fail(1, "unsupported use")
}

fn iscsi_iname(call: &mut Call) -> i32 {
    call.line(format!("iqn.1993-08.org.debian:01:{}", hex::encode(rand::random::<[u8; 6]>())));
    0
}

fn cloud_init(call: &mut Call) -> i32 {
    if call.operands().first().is_some_and(|o| o == "status") {
        call.line(if call.has("--format=json") {
            "{\"status\": \"done\", \"extended_status\": \"done\"}"
        } else {
            "status: done"
        });
    }
    0
}

fn uname(call: &mut Call) -> i32 {
    let (kernel, arch, hostname) =
        call.os(|os| (os.image.kernel.clone(), os.image.arch.clone(), os.hostname())).unwrap_or_default();
    let machine = if arch == "arm64" { "aarch64" } else { "x86_64" };
    let flags: String = call.args.iter().map(|a| a.trim_start_matches('-')).collect();
    let all = flags.contains('a') || flags == "all";
    let mut words = Vec::new();
    for (flag, value) in [
        ('s', "Linux"),
        ('n', hostname.as_str()),
        ('r', kernel.as_str()),
        ('v', "#1 SMP"),
        ('m', machine),
        ('o', "GNU/Linux"),
    ] {
        if all || flags.contains(flag) || (flags.is_empty() && flag == 's') {
            words.push(value);
        }
    }
    call.line(words.join(" "));
    0
}

fn arch(call: &mut Call) -> i32 {
    let arch = call.os(|os| os.image.arch.clone()).unwrap_or_default();
    call.line(if arch == "arm64" { "aarch64" } else { "x86_64" });
    0
}

fn nproc(call: &mut Call) -> i32 {
    let cores = call.session.node.plan.cores;
    call.line(cores.to_string());
    0
}
