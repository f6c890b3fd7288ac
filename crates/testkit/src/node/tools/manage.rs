//! systemd's commands for units, and the ways to reboot.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures::future::BoxFuture;

use super::{Call, Table, Tool, identity::properties};
use crate::node::{
    Node,
    systemd::{Active, Started, UnitRuntime, description},
    units,
};

pub(super) const TABLE: Table = &[
    ("systemctl", Tool::Later(systemctl)),
    ("service", Tool::Later(service)),
    (
        "systemd-detect-virt",
        Tool::Now(|call| {
            call.line("none");
            1
        }),
    ),
    ("systemd-escape", Tool::Now(escape)),
    ("loginctl", Tool::Now(|_| 0)),
    ("reboot", Tool::Now(|call| power(call, "reboot"))),
    ("poweroff", Tool::Now(|call| power(call, "poweroff"))),
    ("halt", Tool::Now(|call| power(call, "poweroff"))),
    ("shutdown", Tool::Now(shutdown)),
];

/// Ends the system after this command has answered.
fn power(call: &mut Call, verb: &str) -> i32 {
    if let Some(code) = call.need_root("Call to Reboot failed: Interactive authentication required.") {
        return code;
    }
    let node = Arc::clone(call.node());
    let again = verb == "reboot";
    let token = node.running_token();
    tokio::spawn(async move {
        // The shutdown takes a moment: the command's answer still gets out.
        tokio::time::sleep(Duration::from_millis(3)).await;
        node.pause(Duration::from_millis(500)).await;
        if !token.is_cancelled() {
            node.uart.write(b"[  OK  ] Reached target shutdown.target - System Shutdown.\r\n");
            if again { node.restart() } else { node.power_off() }
        }
    });
    0
}

fn shutdown(call: &mut Call) -> i32 {
    if call.has("-c") {
        return 0;
    }
    let verb = if call.has("-r") || call.has("--reboot") { "reboot" } else { "poweroff" };
    power(call, verb)
}

fn escape(call: &mut Call) -> i32 {
    let path = call.has("-p") || call.has("--path");
    for name in call.operands() {
        let name = if path { name.trim_matches('/').to_owned() } else { name };
        let text: String = name
            .chars()
            .map(|c| match c {
                '/' => "-".to_owned(),
                '-' => "\\x2d".to_owned(),
                c => c.to_string(),
            })
            .collect();
        let suffix = call
            .args
            .iter()
            .find_map(|a| a.strip_prefix("--suffix="))
            .map_or_else(String::new, |s| format!(".{s}"));
        call.line(format!("{text}{suffix}"));
    }
    0
}

fn service(call: &mut Call) -> BoxFuture<'_, i32> {
    Box::pin(async move {
        if let [name, verb] = call.args.clone().as_slice() {
            call.args = vec![verb.clone(), name.clone()];
        }
        systemctl(call).await
    })
}

fn systemctl(call: &mut Call) -> BoxFuture<'_, i32> {
    Box::pin(async move {
        let mut words = Vec::new();
        let (mut now, mut no_block, mut quiet, mut plain, mut bare, mut value, mut kind, mut state, mut all) =
            (false, false, false, false, false, false, None, None, false);
        let mut args = call.args.clone().into_iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--now" => now = true,
                "--no-block" => no_block = true,
                "-q" | "--quiet" => quiet = true,
                "--plain" => plain = true,
                "--no-legend" | "--legend=false" => bare = true,
                "--value" => value = true,
                "-a" | "--all" => all = true,
                "-P" => {
                    value = true;
                    args.next();
                }
                "-p" | "--property" | "-n" | "--lines" | "-o" => {
                    args.next();
                }
                "-t" | "--type" => kind = args.next(),
                _ if arg.starts_with("--type=") => kind = arg.strip_prefix("--type=").map(str::to_owned),
                _ if arg.starts_with("--state=") => state = arg.strip_prefix("--state=").map(str::to_owned),
                _ if arg.starts_with('-') => {}
                _ => words.push(arg),
            }
        }
        let Some((verb, names)) = words.split_first() else { return 0 };
        let names: Vec<String> = names.iter().map(|name| units::full_name(name)).collect();
        let changes = matches!(
            verb.as_str(),
            "start"
                | "stop"
                | "restart"
                | "try-restart"
                | "reload-or-restart"
                | "enable"
                | "disable"
                | "mask"
                | "unmask"
                | "daemon-reload"
                | "reset-failed"
                | "reload"
                | "kill"
                | "isolate"
                | "reboot"
                | "poweroff"
                | "edit"
                | "revert"
                | "preset"
                | "reenable"
        );
        if changes && !call.session.root() {
            call.warn(format!(
                "Failed to {verb} {}: Interactive authentication required.\n",
                names.first().map_or("", String::as_str)
            ));
            return 1;
        }
        let node = Arc::clone(call.node());
        match verb.as_str() {
            "daemon-reload" | "daemon-reexec" => {
                call.os(|os| {
                    let fresh: Vec<(String, units::Unit)> = os
                        .running
                        .iter()
                        .flat_map(|r| r.units.keys())
                        .filter_map(|name| Some((name.clone(), units::load(&os.vfs, name)?)))
                        .collect();
                    if let Some(running) = &mut os.running {
                        for (name, unit) in fresh {
                            if let Some(state) = running.units.get_mut(&name).filter(|state| !state.transient)
                            {
                                state.unit = unit;
                            }
                        }
                    }
                });
                0
            }
            "reset-failed" => {
                call.running(|r| {
                    for (name, unit) in &mut r.units {
                        if unit.active == Active::Failed && (names.is_empty() || names.contains(name)) {
                            unit.active = Active::Inactive;
                            unit.sub = "dead";
                            unit.result = "success";
                            unit.restarts = 0;
                        }
                    }
                });
                0
            }
            "reboot" | "poweroff" | "halt" => {
                let verb = verb.clone();
                power(call, &verb)
            }
            "enable" | "disable" | "mask" | "unmask" | "reenable" | "preset" => {
                let verb = verb.clone();
                change_files(call, &verb, &names, now, no_block, quiet).await
            }
            "start" | "restart" | "try-restart" | "reload-or-restart" | "stop" => {
                let mut code = 0;
                for name in &names {
                    code |= job(call, &node, verb, name, no_block).await;
                }
                code
            }
            "reload" | "kill" | "isolate" | "set-default" => 0,
            "is-active" | "is-failed" => {
                let mut good = false;
                for name in &names {
                    let active = node.unit_state(name).map_or(Active::Inactive, |state| state.active);
                    good |=
                        if verb == "is-active" { active == Active::Active } else { active == Active::Failed };
                    if !quiet {
                        call.line(active.name());
                    }
                }
                if good {
                    0
                } else if verb == "is-active" {
                    3
                } else {
                    1
                }
            }
            "is-enabled" => {
                let mut good = false;
                let mut code = 1;
                for name in &names {
                    match call.os(|os| units::enabled_state(&os.vfs, name)).flatten() {
                        Some(state) => {
                            good |= matches!(state, "enabled" | "static" | "alias");
                            if !quiet {
                                call.line(state);
                            }
                        }
                        None => {
                            code = 4;
                            if !quiet {
                                call.line("not-found");
                            }
                        }
                    }
                }
                if good { 0 } else { code }
            }
            "is-system-running" => {
                let failed =
                    call.running(|r| r.units.values().any(|u| u.active == Active::Failed)).unwrap_or(false);
                call.line(if failed { "degraded" } else { "running" });
                i32::from(failed)
            }
            "show" => show(call, &node, &names, value),
            "status" => status(call, &node, &names),
            "cat" => {
                for name in &names {
                    let Some(unit) = call.os(|os| units::load(&os.vfs, name)).flatten() else {
                        call.warn(format!("No files found for {name}.\n"));
                        return 1;
                    };
                    for path in std::iter::once(&unit.path).chain(&unit.drop_ins) {
                        let text = call.os(|os| os.vfs.text(path)).unwrap_or_default();
                        call.print(format!("# {path}\n{text}\n"));
                    }
                }
                0
            }
            "list-units" | "list-unit-files" => {
                list(call, verb == "list-units", &words[1..], &kind, &state, all, plain, bare)
            }
            "get-default" => {
                call.line("multi-user.target");
                0
            }
            "list-timers" | "list-dependencies" | "list-jobs" | "show-environment" => 0,
            other => {
                let text = format!("Unknown command verb {other}.\n");
                call.warn(text);
                1
            }
        }
    })
}

async fn job(call: &mut Call, node: &Arc<Node>, verb: &str, name: &str, no_block: bool) -> i32 {
    let state = node.unit_state(name);
    let up = state.as_ref().is_some_and(|s| matches!(s.active, Active::Active | Active::Activating));
    if verb == "stop" {
        if state.is_none() && call.os(|os| units::load(&os.vfs, name)).flatten().is_none() {
            call.warn(format!("Failed to stop {name}: Unit {name} not loaded.\n"));
            return 5;
        }
        if no_block {
            let (node, name) = (Arc::clone(node), name.to_owned());
            tokio::spawn(async move { node.stop_unit(&name).await });
        } else {
            node.stop_unit(name).await;
        }
        return 0;
    }
    if verb == "try-restart" && !up {
        return 0;
    }
    if verb != "start" && up {
        node.stop_unit(name).await;
    }
    if state.as_ref().is_some_and(|s| {
        call.os(|os| units::load(&os.vfs, name).is_some_and(|fresh| fresh != s.unit)).unwrap_or(false)
    }) {
        call.warn(format!("Warning: The unit file, source configuration file or drop-ins of {name} changed on disk. Run 'systemctl daemon-reload' to reload units.\n"));
    }
    match node.start_unit(name) {
        Started::Refused(text, code) => {
            call.warn(text);
            return code;
        }
        Started::Failed => return 1,
        Started::Done => {}
    }
    if no_block {
        return 0;
    }
    let waited = tokio::select! {
        waited = node.wait_started(name) => waited,
        () = call.session.cancel.cancelled() => return -15,
    };
    if waited == Started::Done {
        return 0;
    }
    call.warn(format!("Job for {name} failed because the control process exited with error code.\nSee \"systemctl status {name}\" and \"journalctl -xeu {name}\" for details.\n"));
    1
}

async fn change_files(
    call: &mut Call,
    verb: &str,
    names: &[String],
    now: bool,
    no_block: bool,
    quiet: bool,
) -> i32 {
    let node = Arc::clone(call.node());
    let mut code = 0;
    for name in names {
        match verb {
            "enable" | "reenable" | "preset" => match call.os(|os| units::enable(&mut os.vfs, name)) {
                Some(Ok(made)) => {
                    for (link, path) in made.iter().filter(|_| !quiet) {
                        call.warn(format!("Created symlink '{link}' → '{path}'.\n"));
                    }
                    if now {
                        code |= job(call, &node, "start", name, no_block).await;
                    }
                }
                Some(Err(text)) => {
                    call.warn(text);
                    code = 1;
                }
                None => return 1,
            },
            "disable" => {
                if call.os(|os| units::load(&os.vfs, name)).flatten().is_none() {
                    call.warn(format!("Failed to disable unit: Unit file {name} does not exist.\n"));
                    code = 1;
                    continue;
                }
                for link in call.os(|os| units::disable(&mut os.vfs, name)).unwrap_or_default() {
                    if !quiet {
                        call.warn(format!("Removed '{link}'.\n"));
                    }
                }
                if now {
                    code |= job(call, &node, "stop", name, no_block).await;
                }
            }
            "mask" => {
                let path = format!("/etc/systemd/system/{name}");
                if call
                    .os(|os| {
                        os.vfs
                            .lstat(&path)
                            .is_ok_and(|inode| matches!(inode.body, crate::node::vfs::Body::File(_)))
                    })
                    .unwrap_or(false)
                {
                    call.warn(format!("Failed to mask unit: File '{path}' already exists.\n"));
                    code = 1;
                    continue;
                }
                call.os(|os| os.vfs.link(&path, "/dev/null"));
                if !quiet {
                    call.warn(format!("Created symlink '{path}' → '/dev/null'.\n"));
                }
                if now {
                    code |= job(call, &node, "stop", name, no_block).await;
                }
            }
            _ => {
                let path = format!("/etc/systemd/system/{name}");
                if call
                    .os(|os| units::load(&os.vfs, name).is_some_and(|unit| unit.masked && unit.path == path))
                    .unwrap_or(false)
                {
                    call.os(|os| os.vfs.remove(&path, false));
                }
            }
        }
    }
    code
}

fn stamp(time: SystemTime) -> String {
    let format = time::macros::format_description!(
        "[weekday repr:short] [year]-[month]-[day] [hour]:[minute]:[second] UTC"
    );
    time::OffsetDateTime::from(time).format(&format).unwrap_or_default()
}

fn show(call: &mut Call, node: &Node, names: &[String], value: bool) -> i32 {
    let wanted = properties(&call.args);
    for (at, name) in names.iter().enumerate() {
        if at > 0 {
            call.line("");
        }
        let state: Option<UnitRuntime> = node.unit_state(name);
        let file = call.os(|os| units::load(&os.vfs, name)).flatten();
        let enabled = call.os(|os| units::enabled_state(&os.vfs, name)).flatten().unwrap_or("");
        let load = match &file {
            Some(unit) if unit.masked => "masked",
            Some(_) => "loaded",
            None if state.is_some() => "loaded",
            None => "not-found",
        };
        let reload = state
            .as_ref()
            .zip(file.as_ref())
            .is_some_and(|(state, file)| !state.transient && state.unit != *file);
        let unit = file.clone().or_else(|| state.as_ref().map(|s| s.unit.clone()));
        let get = |section: &str, key: &str| {
            unit.as_ref().and_then(|u| u.get(section, key)).unwrap_or("").to_owned()
        };
        let s = state.as_ref();
        let properties: Vec<(&str, String)> = vec![
            ("Type", unit.as_ref().map_or_else(String::new, |u| u.kind().to_owned())),
            (
                "Restart",
                Some(get("Service", "Restart")).filter(|v| !v.is_empty()).unwrap_or_else(|| "no".into()),
            ),
            ("NotifyAccess", "none".into()),
            ("MainPID", s.map_or(0, |s| s.main_pid).to_string()),
            ("Result", s.map_or("success", |s| s.result).into()),
            ("NRestarts", s.map_or(0, |s| s.restarts).to_string()),
            ("ExecMainStatus", s.map_or(0, |s| s.exit_status).to_string()),
            ("ExecMainCode", if s.is_some_and(|s| s.exit_status != 0) { "1" } else { "0" }.into()),
            (
                "KillMode",
                Some(get("Service", "KillMode"))
                    .filter(|v| !v.is_empty())
                    .unwrap_or_else(|| "control-group".into()),
            ),
            (
                "ExecStart",
                Some(get("Service", "ExecStart"))
                    .filter(|v| !v.is_empty())
                    .map(|line| {
                        format!(
                            "{{ path={} ; argv[]={line} ; }}",
                            line.split_whitespace().next().unwrap_or_default()
                        )
                    })
                    .unwrap_or_default(),
            ),
            (
                "Environment",
                unit.as_ref().map_or_else(String::new, |u| {
                    u.all("Service", "Environment").collect::<Vec<_>>().join(" ")
                }),
            ),
            ("EnvironmentFiles", get("Service", "EnvironmentFile")),
            ("Id", name.clone()),
            ("Names", name.clone()),
            ("Description", unit.as_ref().map_or_else(|| name.clone(), description)),
            ("LoadState", load.into()),
            ("ActiveState", s.map_or(Active::Inactive, |s| s.active).name().into()),
            ("SubState", s.map_or("dead", |s| s.sub).into()),
            ("FragmentPath", file.as_ref().map_or_else(String::new, |u| u.path.clone())),
            ("DropInPaths", file.as_ref().map_or_else(String::new, |u| u.drop_ins.join(" "))),
            ("UnitFileState", enabled.into()),
            ("UnitFilePreset", if enabled.is_empty() { "" } else { "enabled" }.into()),
            (
                "ActiveEnterTimestamp",
                s.filter(|s| s.active == Active::Active).map_or_else(String::new, |s| stamp(s.since)),
            ),
            ("StateChangeTimestamp", s.map_or_else(String::new, |s| stamp(s.since))),
            (
                "ActiveEnterTimestampMonotonic",
                s.map_or(0, |s| s.since.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros())).to_string(),
            ),
            (
                "InvocationID",
                s.filter(|s| s.invocation != 0)
                    .map_or_else(String::new, |s| format!("{:032x}", s.invocation)),
            ),
            ("NeedDaemonReload", if reload { "yes" } else { "no" }.into()),
            ("CanStart", "yes".into()),
        ];
        // systemd prints what was asked for in its own order.
        for (key, text) in
            properties.iter().filter(|(key, _)| wanted.is_empty() || wanted.iter().any(|w| w == key))
        {
            call.line(if value { text.clone() } else { format!("{key}={text}") });
        }
    }
    0
}

fn status(call: &mut Call, node: &Node, names: &[String]) -> i32 {
    let mut code = 0;
    for name in names {
        let file = call.os(|os| units::load(&os.vfs, name)).flatten();
        let state = node.unit_state(name);
        if file.is_none() && state.is_none() {
            call.warn(format!("Unit {name} could not be found.\n"));
            code = 4;
            continue;
        }
        let active = state.as_ref().map_or(Active::Inactive, |s| s.active);
        let sub = state.as_ref().map_or("dead", |s| s.sub);
        let enabled = call.os(|os| units::enabled_state(&os.vfs, name)).flatten().unwrap_or("");
        let path = file.as_ref().map_or("", |u| u.path.as_str()).to_owned();
        call.line(format!("● {name} - {}\n     Loaded: loaded ({path}; {enabled}; preset: enabled)\n     Active: {} ({sub})", file.as_ref().map_or_else(|| name.clone(), description), active.name()));
        let lines: Vec<String> = call
            .running(|r| {
                r.journal
                    .iter()
                    .filter(|e| e.unit == *name)
                    .rev()
                    .take(10)
                    .map(super::journal::line_of)
                    .collect()
            })
            .unwrap_or_default();
        lines.iter().rev().for_each(|line| call.line(line));
        if active != Active::Active {
            code = 3;
        }
    }
    code
}

#[allow(clippy::too_many_arguments, reason = "one per option of the real command")]
fn list(
    call: &mut Call,
    loaded: bool,
    patterns: &[String],
    kind: &Option<String>,
    state: &Option<String>,
    all: bool,
    plain: bool,
    bare: bool,
) -> i32 {
    let fits = |name: &str| {
        let typed =
            kind.as_deref().is_none_or(|kinds| kinds.split(',').any(|k| name.ends_with(&format!(".{k}"))));
        let named = patterns.is_empty()
            || patterns.iter().any(|pattern| match pattern.split_once('*') {
                Some((before, after)) => {
                    name.starts_with(before) && name.ends_with(after.trim_end_matches('*'))
                }
                None => name == pattern || name == units::full_name(pattern),
            });
        typed && named
    };
    if loaded {
        let rows: Vec<(String, Active, &'static str, String)> = call
            .running(|r| {
                r.units
                    .iter()
                    .filter(|(name, _)| fits(name))
                    .map(|(name, u)| (name.clone(), u.active, u.sub, description(&u.unit)))
                    .collect()
            })
            .unwrap_or_default();
        if !bare {
            call.line("  UNIT LOAD ACTIVE SUB DESCRIPTION");
        }
        for (name, active, sub, text) in rows {
            let matches =
                state.as_deref().is_none_or(|s| s.split(',').any(|s| s == active.name() || s == sub));
            if matches && (all || active != Active::Inactive || state.is_some()) {
                let dot = if plain {
                    ""
                } else if active == Active::Failed {
                    "● "
                } else {
                    "  "
                };
                call.line(format!("{dot}{name} loaded {} {sub} {text}", active.name()));
            }
        }
        return 0;
    }
    let rows: Vec<(String, &'static str)> = call
        .os(|os| {
            units::all_names(&os.vfs)
                .into_iter()
                .filter(|n| fits(n))
                .filter_map(|n| units::enabled_state(&os.vfs, &n).map(|s| (n, s)))
                .collect()
        })
        .unwrap_or_default();
    if !bare {
        call.line("UNIT FILE STATE PRESET");
    }
    for (name, enabled) in rows {
        if state.as_deref().is_none_or(|s| s.split(',').any(|s| s == enabled)) {
            call.line(format!("{name} {enabled} {}", if enabled == "static" { "-" } else { "enabled" }));
        }
    }
    if !bare {
        call.line("\nunit files listed.");
    }
    0
}
