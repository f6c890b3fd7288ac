//! What scripts do with the terminal they run on, and what has no other home: `stty`, `logger`, shells that read what
//! is typed.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::{Call, Table, Tool, launch};
use crate::node::users;

pub(super) const TABLE: Table = &[
    ("stty", Tool::Now(stty)),
    ("logger", Tool::Later(logger)),
    ("su", Tool::Later(su)),
    ("simulated-sh", Tool::Later(shell)),
    ("simulated-read", Tool::Later(read)),
];

/// Echo is the console's business: what a program asks for is never echoed there.
fn stty(call: &mut Call) -> i32 {
    if !call.session.tty {
        return call.fail(1, "'standard input': Inappropriate ioctl for device");
    }
    match call.args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => call.line("speed 115200 baud; line = 0;\n-brkint -imaxbel"),
        ["size"] => call.line("24 80"),
        ["-g"] => call.line("500:5:1cb2:8a3b:3:1c:7f:15:4:0:1:0:11:13:1a:0:12:f:17:16:0:0:0:0:0"),
        _ => {}
    }
    0
}

/// Writes into the journal, as logger(1) does.
fn logger(call: &mut Call) -> BoxFuture<'_, i32> {
    Box::pin(async move {
        let (mut tag, mut words) = (call.session.account.name.clone(), Vec::new());
        let mut args = call.args.clone().into_iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "-t" | "--tag" => tag = args.next().unwrap_or_default(),
                "-p" | "--priority" | "-f" | "--file" => drop(args.next()),
                "-i" | "-s" | "--stderr" | "--id" | "-e" => {}
                "--" => words.extend(args.by_ref()),
                _ if arg.starts_with('-') && words.is_empty() => {
                    return call.fail(1, format!("unrecognized option '{arg}'"));
                }
                _ => words.push(arg),
            }
        }
        let message = match words.is_empty() {
            true => String::from_utf8_lossy(&call.input().await).into_owned(),
            false => words.join(" "),
        };
        let node = Arc::clone(call.node());
        node.journal("", &tag, node.next_pid(), &message);
        0
    })
}

/// `su [-] [USER] -c COMMAND`, for root only: others would be asked for a password.
fn su(call: &mut Call) -> BoxFuture<'_, i32> {
    Box::pin(async move {
        let (mut command, mut user) = (None, None);
        let mut args = call.args.clone().into_iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "-c" | "--command" => command = args.next(),
                "-s" | "--shell" => drop(args.next()),
                "-" | "-l" | "--login" | "-m" | "-p" => {}
                _ => user = Some(arg),
            }
        }
        if !call.session.root() {
            return call.fail(1, "Authentication failure");
        }
        let user = user.unwrap_or_else(|| "root".to_owned());
        let Some(account) = call.os(|os| users::find(&os.vfs, &user)).flatten() else {
            return call.fail(
                1,
                format!(
                    "user {user} does not exist or the user entry does not contain all the required fields"
                ),
            );
        };
        let Some(command) = command else {
            return call.fail(1, "the simulated node runs `su` with -c only");
        };
        let (child, kept) = super::captured(call);
        let child = child.child(account, child.stdin.clone(), Arc::clone(&child.sink));
        let code = launch::run(Arc::new(child), vec!["sh".into(), "-c".into(), command]).await;
        super::collect(call, &kept);
        code
    })
}

/// `sh FILE` on a terminal: what it says is seen at once, and what is typed is its input.
fn shell(call: &mut Call) -> BoxFuture<'_, i32> {
    Box::pin(async move {
        let session = &call.session;
        let child = session.child(session.account.clone(), session.stdin.clone(), Arc::clone(&session.sink));
        let argv = std::iter::once("sh".to_owned()).chain(call.args.clone()).collect();
        launch::run(Arc::new(child), argv).await
    })
}

/// A line of what is typed.
fn read(call: &mut Call) -> BoxFuture<'_, i32> {
    Box::pin(async move {
        match call.session.stdin.line().await {
            Some(line) => {
                call.line(line.trim_end_matches('\r'));
                0
            }
            None => 1,
        }
    })
}

/// Lets a line that was typed start its scripts with the terminal as their input.
pub(crate) fn mark_shell(line: &str) -> String {
    let mut marked = line.to_owned();
    for before in ["&& ", "; ", "then "] {
        marked = marked.replace(&format!("{before}sh /"), &format!("{before}simulated-sh /"));
    }
    match marked.trim_start().strip_prefix("sh /") {
        Some(rest) => format!("simulated-sh /{rest}"),
        None => marked,
    }
}

/// Lets a script on a terminal read the lines that are typed: those commands `read` that have no other input, which in
/// our scripts stand alone on a line.
pub(crate) fn mark_read(text: &str) -> String {
    let marked = text.lines().map(|line| {
        let plain = line.trim();
        let name = plain.strip_prefix("IFS= read -r ").or_else(|| plain.strip_prefix("read -r "));
        match name.filter(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')) {
            Some(name) => format!("{name}=$(simulated-read)"),
            None => line.to_owned(),
        }
    });
    marked.collect::<Vec<_>>().join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_read_that_stands_alone_reads_the_terminal() {
        let text =
            "stty -echo\nIFS= read -r PASSWORD\nwhile read -r a; do :; done </etc/passwd\n  read -r x\n";
        assert_eq!(
            mark_read(text),
            "stty -echo\nPASSWORD=$(simulated-read)\nwhile read -r a; do :; done </etc/passwd\nx=$(simulated-read)\n"
        );
    }

    #[test]
    fn a_typed_line_starts_its_scripts_with_the_terminal() {
        assert_eq!(mark_shell(" a <b && sh /x.sh; echo $?"), " a <b && simulated-sh /x.sh; echo $?");
        assert_eq!(mark_shell("sh /x.sh"), "simulated-sh /x.sh");
        assert_eq!(mark_shell("echo sh /x"), "echo sh /x");
    }
}
