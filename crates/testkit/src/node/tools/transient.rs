//! Transient units.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::future::BoxFuture;

use super::{Call, Table, Tool, captured, collect};
use crate::node::{
    launch,
    os::Process,
    session::{Session, Sink, Stdin},
    systemd::{Active, UnitRuntime},
    units,
    users::Account,
};

pub(super) const TABLE: Table = &[("systemd-run", Tool::Later(systemd_run))];

fn systemd_run(call: &mut Call) -> BoxFuture<'_, i32> {
    Box::pin(async move {
        if let Some(code) =
            call.need_root("Failed to start transient service unit: Interactive authentication required.")
        {
            return code;
        }
        let (mut name, mut wait, mut pipe, mut delay, mut collect_it, mut quiet) =
            (None, false, false, None, false, false);
        let mut env = Vec::new();
        let mut command = Vec::new();
        let mut args = call.args.clone().into_iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--unit" | "-u" => name = args.next(),
                "--wait" => wait = true,
                "--pipe" | "-P" => pipe = true,
                "--collect" | "-G" => collect_it = true,
                "--quiet" | "-q" => quiet = true,
                "--on-active" => delay = args.next(),
                "--setenv" | "-E" => env.extend(args.next()),
                "--description" | "-p" | "--property" | "--slice" | "--uid" => {
                    args.next();
                }
                "--" => {
                    command.extend(args.by_ref());
                }
                _ if arg.starts_with("--unit=") => name = arg.strip_prefix("--unit=").map(str::to_owned),
                _ if arg.starts_with("--on-active=") => {
                    delay = arg.strip_prefix("--on-active=").map(str::to_owned)
                }
                _ if arg.starts_with("--setenv=") => {
                    env.extend(arg.strip_prefix("--setenv=").map(str::to_owned))
                }
                _ if arg.starts_with('-') => {}
                _ => {
                    command.push(arg);
                    command.extend(args.by_ref());
                }
            }
        }
        let node = Arc::clone(call.node());
        let name = units::full_name(&name.unwrap_or_else(|| format!("run-{:x}", rand::random::<u32>())));
        if node
            .unit_state(&name)
            .is_some_and(|s| matches!(s.active, Active::Active | Active::Activating | Active::Failed))
        {
            call.warn(format!("Failed to start transient service unit: Unit {name} was already loaded or has a fragment file.\n"));
            return 1;
        }
        if wait || pipe {
            let (mut child, kept) = captured(call);
            for (key, value) in env.iter().filter_map(|pair| pair.split_once('=')) {
                child.set_env(key, value);
            }
            child.cwd = std::sync::Mutex::new("/".into());
            let code = launch::run(Arc::new(child), command).await;
            if pipe {
                collect(call, &kept);
            }
            if !quiet {
                call.warn(format!("Running as unit: {name}\n"));
            }
            return code;
        }
        let cancel = node.child_token();
        let pid = node.next_pid();
        let (journal, unit) = (Arc::clone(&node), name.clone());
        let ident = command.first().and_then(|p| p.rsplit('/').next()).unwrap_or_default().to_owned();
        let sink: Sink =
            Arc::new(move |_, bytes| journal.journal(&unit, &ident, pid, &String::from_utf8_lossy(bytes)));
        let mut session = Session::new(&node, Account::root(), Stdin::empty(), sink);
        session.cancel = cancel.clone();
        session.cwd = std::sync::Mutex::new("/".into());
        for (key, value) in env.iter().filter_map(|pair| pair.split_once('=')) {
            session.set_env(key, value);
        }
        let unit = units::Unit::transient(&name);
        call.running(|r| {
            r.units.insert(
                name.clone(),
                UnitRuntime {
                    active: Active::Active,
                    sub: "running",
                    result: "success",
                    restarts: 0,
                    main_pid: pid,
                    invocation: pid,
                    exit_status: 0,
                    since: SystemTime::now(),
                    unit,
                    starting: false,
                    cancel: cancel.clone(),
                    transient: true,
                },
            );
            r.processes.push(Process {
                pid,
                user: "root".into(),
                args: command.join(" "),
                cancel: Some(cancel),
            });
        });
        if !quiet {
            call.warn(format!("Running as unit: {name}; invocation ID: {pid:032x}\n"));
        }
        let unit = name;
        tokio::spawn(async move {
            let nominal = delay.map_or(Duration::ZERO, |d| crate::node::systemd::seconds(&d));
            if !node.pause(nominal).await {
                return;
            }
            let code = launch::run(Arc::new(session), command).await;
            node.unit(&unit, |u| {
                u.exit_status = code;
                u.main_pid = 0;
                u.active = if code == 0 { Active::Inactive } else { Active::Failed };
                u.sub = if code == 0 { "dead" } else { "failed" };
                u.result = if code == 0 { "success" } else { "exit-code" };
            });
            node.os(|os| {
                if let Some(running) = &mut os.running {
                    running.processes.retain(|p| p.pid != pid);
                    // Without --collect a failed unit stays to be looked at.
                    if code == 0 || collect_it {
                        running.units.remove(&unit);
                    }
                }
            });
        });
        0
    })
}
