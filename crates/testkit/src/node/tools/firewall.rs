//! Packet filter: rules are kept and shown, nothing is filtered.

use std::collections::BTreeMap;

use futures::future::BoxFuture;

use super::{Call, Table, Tool};

pub(super) const TABLE: Table = &[
    ("iptables", Tool::Now(iptables)),
    ("ip6tables", Tool::Now(iptables)),
    ("iptables-save", Tool::Now(save)),
    ("ip6tables-save", Tool::Now(save)),
    ("iptables-restore", Tool::Later(restore)),
    ("ip6tables-restore", Tool::Later(restore)),
    ("nft", Tool::Now(nft)),
    ("ufw", Tool::Now(ufw)),
];

fn family(call: &Call) -> &'static str {
    if call.name.starts_with("ip6") { "6:" } else { "4:" }
}

fn iptables(call: &mut Call) -> i32 {
    if call.has("--version") || call.has("-V") {
        let name = call.name.clone();
        call.line(format!("{name} v1.8.11 (nf_tables)"));
        return 0;
    }
    if let Some(code) = call.need_root("iptables v1.8.11 (nf_tables): Could not fetch rule set generation id: Permission denied (you must be root)") {
        return code;
    }
    let mut table = "filter".to_owned();
    let mut words = Vec::new();
    let mut args = call.args.clone().into_iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "-t" | "--table" => table = args.next().unwrap_or(table),
            "-w" | "--wait" | "-n" | "-v" | "--line-numbers" => {}
            _ => words.push(arg),
        }
    }
    let key = format!("{}{table}", family(call));
    let Some((verb, rest)) = words.split_first() else { return 2 };
    let line = |verb: &str| format!("-{verb} {}", rest.join(" "));
    let verb = verb.clone();
    let result = call.running(|r| {
        let rules = r.iptables.entry(key).or_default();
        match verb.as_str() {
            "-A" | "--append" => rules.push(line("A")),
            "-I" | "--insert" => rules.insert(0, line("A")),
            "-N" | "--new-chain" => {
                rules.insert(0, format!(":{} - [0:0]", rest.first().map_or("", String::as_str)))
            }
            "-P" | "--policy" => {}
            "-F" | "--flush" => rules.retain(|rule| {
                rule.starts_with(':')
                    || rest.first().is_some_and(|chain| !rule.starts_with(&format!("-A {chain} ")))
            }),
            "-X" | "--delete-chain" => rules.retain(|rule| {
                rest.first().map_or(!rule.starts_with(':'), |chain| !rule.starts_with(&format!(":{chain} ")))
            }),
            "-C" | "--check" => return Err(rules.contains(&line("A"))),
            "-D" | "--delete" => match rules.iter().position(|rule| *rule == line("A")) {
                Some(at) => {
                    rules.remove(at);
                }
                None => return Err(false),
            },
            "-L" | "-S" | "--list" | "--list-rules" => return Ok(Some(rules.clone())),
            _ => {}
        }
        Ok(None)
    });
    match result {
        Some(Ok(Some(rules))) => {
            rules.iter().for_each(|rule| call.line(rule));
            0
        }
        Some(Err(false)) => {
            call.warn("iptables: Bad rule (does a matching rule exist in that chain?).\n");
            1
        }
        _ => 0,
    }
}

fn save(call: &mut Call) -> i32 {
    let prefix = family(call);
    let tables: BTreeMap<String, Vec<String>> = call.running(|r| r.iptables.clone()).unwrap_or_default();
    for (name, rules) in
        tables.iter().filter_map(|(key, rules)| key.strip_prefix(prefix).map(|name| (name, rules)))
    {
        call.line(format!("*{name}"));
        rules.iter().filter(|rule| rule.starts_with(':')).for_each(|rule| call.line(rule));
        rules.iter().filter(|rule| !rule.starts_with(':')).for_each(|rule| call.line(rule));
        call.line("COMMIT");
    }
    0
}

fn restore(call: &mut Call) -> BoxFuture<'_, i32> {
    Box::pin(async move {
        let input = match call.operands().first().cloned() {
            Some(path) => call.os(|os| os.vfs.text(&path)).unwrap_or_default().into_bytes(),
            None => call.input().await,
        };
        let keep = call.has("-n") || call.has("--noflush");
        let prefix = family(call);
        call.running(|r| {
            if !keep {
                r.iptables.retain(|key, _| !key.starts_with(prefix));
            }
            let mut table = String::new();
            for line in String::from_utf8_lossy(&input).lines() {
                if let Some(name) = line.strip_prefix('*') {
                    table = format!("{prefix}{name}");
                    r.iptables.entry(table.clone()).or_default();
                } else if line.starts_with([':', '-'])
                    && let Some(rules) = r.iptables.get_mut(&table)
                {
                    rules.push(line.to_owned());
                }
            }
        });
        0
    })
}

fn nft(call: &mut Call) -> i32 {
    if call.operands().first().is_some_and(|o| o == "list") {
        let tables: Vec<String> = call.running(|r| r.iptables.keys().cloned().collect()).unwrap_or_default();
        for key in tables {
            let (family, name) = key.split_once(':').unwrap_or(("4", "filter"));
            call.line(format!("table {} {name} {{\n}}", if family == "6" { "ip6" } else { "ip" }));
        }
    }
    0
}

fn ufw(call: &mut Call) -> i32 {
    if let Some(code) = call.need_root("ERROR: You need to be root to run this script") {
        return code;
    }
    let enabled =
        call.os(|os| os.setting("/etc/ufw/ufw.conf", "ENABLED").as_deref() == Some("yes")).unwrap_or(false);
    let words: Vec<String> = call.operands();
    match words.first().map(String::as_str) {
        Some("status") => {
            call.line(if enabled { "Status: active" } else { "Status: inactive" });
            if enabled {
                let rules = call.os(|os| os.vfs.text("/etc/ufw/user.rules")).unwrap_or_default();
                if !rules.is_empty() {
                    call.print(format!("\nTo                         Action      From\n--                         ------      ----\n{rules}"));
                }
            }
        }
        Some("enable" | "disable") => {
            let on = words.first().is_some_and(|w| w == "enable");
            call.os(|os| {
                os.vfs.put(
                    "/etc/ufw/ufw.conf",
                    format!("ENABLED={}\nLOGLEVEL=low\n", if on { "yes" } else { "no" }),
                )
            });
            call.line(if on {
                "Firewall is active and enabled on system startup"
            } else {
                "Firewall stopped and disabled on system startup"
            });
        }
        Some("allow" | "deny" | "reject" | "limit") => {
            let rule = words.join(" ");
            let known = call.os(|os| {
                let text = os.vfs.text("/etc/ufw/user.rules");
                let known = text.lines().any(|line| line == rule);
                if !known {
                    os.vfs.put_mode("/etc/ufw/user.rules", format!("{text}{rule}\n"), 0o640);
                }
                known
            });
            call.line(if known == Some(true) {
                "Skipping adding existing rule"
            } else if enabled {
                "Rule added"
            } else {
                "Rules updated"
            });
        }
        Some("reload" | "--force") | None => call.line("Firewall reloaded"),
        Some(other) => {
            let text = format!("ERROR: Invalid syntax {other}\n");
            call.warn(text);
            return 1;
        }
    }
    0
}
