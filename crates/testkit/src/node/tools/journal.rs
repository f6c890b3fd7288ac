//! The journal.

use std::time::{Duration, UNIX_EPOCH};

use super::{Call, Table, Tool};
use crate::node::{os::Entry, units};

pub(super) const TABLE: Table = &[("journalctl", Tool::Now(journalctl))];

/// An entry as journalctl prints it (`-o short-iso`).
pub(super) fn line_of(entry: &Entry) -> String {
    let format = time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]+0000");
    let at = time::OffsetDateTime::from(entry.at).format(&format).unwrap_or_default();
    format!("{at} node {}[{}]: {}", entry.ident, entry.pid, entry.message)
}

fn journalctl(call: &mut Call) -> i32 {
    let (mut names, mut count, mut json, mut cat, mut reverse, mut grep, mut since) =
        (Vec::new(), usize::MAX, false, false, false, None, None);
    let mut invocation = None;
    let mut args = call.args.clone().into_iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "-u" | "--unit" => names.extend(args.next().map(|n| units::full_name(&n))),
            "-n" | "--lines" => count = args.next().and_then(|n| n.parse().ok()).unwrap_or(10),
            "-o" | "--output" => match args.next().as_deref() {
                Some("json" | "json-pretty") => json = true,
                Some("cat") => cat = true,
                _ => {}
            },
            "-r" | "--reverse" => reverse = true,
            "-g" | "--grep" => grep = args.next(),
            "-S" | "--since" => since = args.next(),
            "-p" | "-t" | "--until" | "-U" | "-b" if arg != "-b" => {
                args.next();
            }
            _ if arg.starts_with("--unit=") => {
                names.extend(arg.strip_prefix("--unit=").map(units::full_name))
            }
            _ if arg.starts_with("-u") => names.extend(arg.strip_prefix("-u").map(units::full_name)),
            _ if arg.starts_with("-n") && arg.len() > 2 => {
                count = arg.get(2..).and_then(|n| n.parse().ok()).unwrap_or(10)
            }
            _ if arg.starts_with("--lines=") => {
                count = arg.strip_prefix("--lines=").and_then(|n| n.parse().ok()).unwrap_or(10)
            }
            _ if arg.starts_with("--since=") => since = arg.strip_prefix("--since=").map(str::to_owned),
            _ if arg.starts_with("_SYSTEMD_INVOCATION_ID=") => {
                invocation = arg.split_once('=').map(|(_, id)| id.to_owned());
            }
            "-ojson" | "--output=json" => json = true,
            "-ocat" | "--output=cat" => cat = true,
            _ => {}
        }
    }
    let from = since.and_then(|s| {
        s.strip_prefix('@')
            .and_then(|s| s.split('.').next().and_then(|s| s.parse::<u64>().ok()))
            .map(|s| UNIX_EPOCH + Duration::from_secs(s))
    });
    let mut entries: Vec<Entry> = call
        .running(|r| {
            r.journal
                .iter()
                .filter(|e| names.is_empty() || names.contains(&e.unit))
                .filter(|e| invocation.as_ref().is_none_or(|id| *id == format!("{:032x}", e.invocation)))
                .filter(|e| from.is_none_or(|from| e.at >= from))
                .filter(|e| grep.as_deref().is_none_or(|g| g.split('|').any(|g| e.message.contains(g))))
                .cloned()
                .collect()
        })
        .unwrap_or_default();
    let skip = entries.len().saturating_sub(count);
    entries.drain(..skip);
    if reverse {
        entries.reverse();
    }
    if entries.is_empty() {
        if !json && !cat {
            call.line("-- No entries --");
        }
        return 0;
    }
    for entry in entries {
        let text = if json {
            let micros = entry.at.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros());
            serde_json::json!({"__REALTIME_TIMESTAMP": micros.to_string(), "_SYSTEMD_UNIT": entry.unit, "SYSLOG_IDENTIFIER": entry.ident, "_PID": entry.pid.to_string(), "PRIORITY": "6", "MESSAGE": entry.message}).to_string()
        } else if cat {
            entry.message
        } else {
            line_of(&entry)
        };
        call.line(text);
    }
    0
}
