//! The process list.

use super::{Call, Table, Tool};

pub(super) const TABLE: Table = &[
    ("ps", Tool::Now(ps)),
    ("pgrep", Tool::Now(pgrep)),
    ("pidof", Tool::Now(pgrep)),
    ("pkill", Tool::Now(pkill)),
    ("killall", Tool::Now(pkill)),
    ("kill", Tool::Now(kill)),
    ("fuser", Tool::Now(fuser)),
    ("lsof", Tool::Now(fuser)),
];

/// Processes of units and commands: pid, user, arguments.
fn list(call: &Call) -> Vec<(u32, String, String)> {
    call.running(|r| {
        let mut all = vec![(1, "root".to_owned(), "/sbin/init".to_owned())];
        for (name, unit) in &r.units {
            if unit.main_pid != 0 {
                let line = unit.unit.all("Service", "ExecStart").next().unwrap_or(name);
                all.push((unit.main_pid, "root".to_owned(), line.to_owned()));
            }
        }
        all.extend(r.processes.iter().map(|p| (p.pid, p.user.clone(), p.args.clone())));
        if let Some((pid, who)) = &r.dpkg_lock {
            all.push((*pid, "root".to_owned(), format!("/usr/bin/{who} -y upgrade")));
        }
        all
    })
    .unwrap_or_default()
}

fn ps(call: &mut Call) -> i32 {
    let all = list(call);
    call.line("  PID USER     COMMAND");
    for (pid, user, args) in all {
        call.line(format!("{pid:>5} {user:<8} {args}"));
    }
    0
}

/// The processes that match the last argument.
fn matching(call: &Call) -> Vec<(u32, String, String)> {
    let Some(pattern) = call.operands().last().cloned() else { return Vec::new() };
    let full = call.args.iter().any(|a| a.starts_with('-') && !a.starts_with("--") && a.contains('f'));
    let exact = call.args.iter().any(|a| a == "-x") || call.name == "pidof" || call.name == "killall";
    let pattern = pattern.replace("[", "").replace(']', "");
    list(call)
        .into_iter()
        .filter(|(_, _, args)| {
            let base = args.split_whitespace().next().and_then(|p| p.rsplit('/').next()).unwrap_or_default();
            let subject = if full { args.as_str() } else { base };
            if exact {
                subject == pattern
            } else {
                pattern.split('|').any(|p| subject.contains(p.trim_start_matches('^').trim_end_matches('$')))
            }
        })
        .collect()
}

fn pgrep(call: &mut Call) -> i32 {
    let found = matching(call);
    let long = call.args.iter().any(|a| a.starts_with('-') && (a.contains('l') || a.contains('a')));
    for (pid, _, args) in &found {
        call.line(if long { format!("{pid} {args}") } else { pid.to_string() });
    }
    i32::from(found.is_empty())
}

fn pkill(call: &mut Call) -> i32 {
    let found = matching(call);
    for (pid, ..) in &found {
        let token = call.running(|r| {
            let at = r.processes.iter().position(|p| p.pid == *pid)?;
            r.processes.remove(at).cancel
        });
        if let Some(Some(token)) = token {
            token.cancel();
        }
    }
    i32::from(found.is_empty())
}

fn fuser(call: &mut Call) -> i32 {
    let locked =
        call.args.iter().any(|a| a.contains("/var/lib/dpkg/lock") || a.contains("/var/lib/apt/lists/lock"));
    match call.running(|r| r.dpkg_lock.clone()).flatten().filter(|_| locked) {
        Some((pid, _)) => {
            call.line(format!(" {pid}"));
            0
        }
        None => 1,
    }
}

fn kill(call: &mut Call) -> i32 {
    let mut args = call.args.clone().into_iter().peekable();
    let mut probe = false;
    if let Some(first) = args.next_if(|a| a.starts_with('-')) {
        let signal = if matches!(first.as_str(), "-s" | "-n") {
            args.next().unwrap_or_default()
        } else {
            first.trim_start_matches('-').to_owned()
        };
        probe = signal == "0";
    }
    args.next_if(|a| a == "--");
    let mut code = 0;
    for pid in args {
        let Ok(number) = pid.trim_start_matches('-').parse::<u32>() else {
            return call.fail(1, format!("{pid}: arguments must be process or job IDs"));
        };
        let user = call.session.account.name.clone();
        let root = call.session.root();
        let found = call
            .running(|r| {
                r.processes
                    .iter()
                    .find(|p| p.pid == number)
                    .map(|p| (root || p.user == user, p.cancel.clone()))
            })
            .flatten();
        match found {
            None => code = call.fail(1, format!("({pid}) - No such process")),
            Some((false, _)) => code = call.fail(1, format!("({pid}) - Operation not permitted")),
            Some((true, cancel)) if !probe => {
                cancel.iter().for_each(tokio_util::sync::CancellationToken::cancel)
            }
            Some(_) => {}
        }
    }
    code
}
