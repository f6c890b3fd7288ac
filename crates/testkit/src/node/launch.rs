//! Starting programs: what a login shell's `-c` does, with standard input that may still be arriving.

use std::{sync::Arc, sync::atomic::Ordering, time::Duration};

use futures::future::BoxFuture;

use super::{
    ExecRecord,
    script::{self, Shell},
    session::{Session, Stream},
    sudo,
    vfs::Body,
};
use crate::{Action, Site};

/// The exit status that stands for "the connection is cut without an answer".
pub(crate) const CUT: i32 = i32::MIN;
/// How long a shell waits for more of its script before it runs what it has.
const IDLE: Duration = Duration::from_millis(25);

/// Splits a command line that has no shell syntax besides quotes; `None` when there is more.
pub(crate) fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.trim().chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' => words.extend(word.take()),
            '\'' => loop {
                match chars.next()? {
                    '\'' => {
                        word.get_or_insert_default();
                        break;
                    }
                    inner => word.get_or_insert_default().push(inner),
                }
            },
            '"' => loop {
                match chars.next()? {
                    '"' => {
                        word.get_or_insert_default();
                        break;
                    }
                    '$' | '`' => return None,
                    '\\' => {
                        let next = chars.next()?;
                        if !matches!(next, '"' | '\\' | '$' | '`') {
                            word.get_or_insert_default().push('\\');
                        }
                        word.get_or_insert_default().push(next);
                    }
                    inner => word.get_or_insert_default().push(inner),
                }
            },
            '\\' => word.get_or_insert_default().push(chars.next()?),
            '>' if word.is_none() => words.push(">".to_owned()),
            ';' | '|' | '&' | '<' | '>' | '(' | ')' | '$' | '`' | '*' | '?' | '[' | '#' | '\n' | '{'
            | '}' | '!' => return None,
            '~' if word.is_none() => return None,
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    (!words.is_empty()).then_some(words)
}

/// Quotes words for the shell.
pub(crate) fn quote(words: &[String]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("'{}'", word.replace('\'', "'\\''"))).collect();
    quoted.join(" ")
}

/// Runs the command line of an exec request and records it.
pub(crate) async fn command_line(session: Arc<Session>, line: String) -> i32 {
    session.node.record(ExecRecord {
        user: session.account.name.clone(),
        argv: line.clone(),
        script: String::new(),
    });
    *session.command.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = line.clone();
    let _listed = session.listed(&line);
    match words(&line) {
        Some(argv) if native(&argv) => run(session, argv).await,
        _ => shell_text(session, line, "bash".to_owned(), Vec::new()).await,
    }
}

/// Programs that are started without the interpreter, because they pass standard input on.
fn native(argv: &[String]) -> bool {
    let Some(program) = argv.first() else { return false };
    let base = program.rsplit('/').next().unwrap_or(program);
    let wraps = matches!(
        base,
        "sh" | "bash" | "dash" | "sudo" | "exec" | "env" | "nohup" | "setsid" | "nice" | "ionice" | "stdbuf"
    );
    let stores = base == "cat" && matches!(argv.get(1).map(String::as_str), Some(">"));
    (wraps && !argv.iter().any(|word| word == ">")) || (stores && argv.len() == 3)
}

/// Runs a program with its arguments.
pub(crate) fn run(session: Arc<Session>, argv: Vec<String>) -> BoxFuture<'static, i32> {
    Box::pin(async move {
        let Some((program, args)) = argv.split_first() else { return 0 };
        let base = program.rsplit('/').next().unwrap_or(program).to_owned();
        match base.as_str() {
            "sh" | "bash" | "dash" if shell_flags(args).is_some() => shell(session, args.to_vec()).await,
            "sudo" => {
                let sink = Arc::clone(&session.sink);
                let stdin = session.stdin.clone();
                sudo::run(session, args.to_vec(), stdin, sink).await
            }
            "exec" | "nohup" | "setsid" | "stdbuf" | "nice" | "ionice" => {
                let skip =
                    args.iter().take_while(|arg| arg.starts_with('-') || arg.parse::<i32>().is_ok()).count();
                run(session, args.get(skip..).unwrap_or_default().to_vec()).await
            }
            "env" => {
                let mut rest = args;
                while let Some((first, more)) = rest.split_first() {
                    match first.split_once('=') {
                        Some((name, value)) if !name.starts_with('-') => session.set_env(name, value),
                        _ if first == "-i" || first == "-" => {
                            session.env.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clear();
                        }
                        _ => break,
                    }
                    rest = more;
                }
                if rest.is_empty() {
                    shell_text(session, "env".into(), base, Vec::new()).await
                } else {
                    run(session, rest.to_vec()).await
                }
            }
            "cat" if args.first().is_some_and(|arg| arg == ">") && args.len() == 2 => {
                store(session, args.get(1).cloned().unwrap_or_default()).await
            }
            _ => shell_text(session, quote(&argv), "sh".to_owned(), Vec::new()).await,
        }
    })
}

/// What a shell's arguments ask for.
enum Asked {
    Text(String, String, Vec<String>),
    Stdin(Vec<String>),
    File(String, Vec<String>),
}

fn shell_flags(args: &[String]) -> Option<(Asked, String)> {
    let mut set = String::new();
    let mut rest = args.iter();
    let (mut text, mut stdin) = (false, false);
    let mut operands: Vec<String> = Vec::new();
    while let Some(arg) = rest.next() {
        match arg.as_str() {
            "--" => {
                operands.extend(rest.cloned());
                break;
            }
            "--login" | "--norc" | "--noprofile" | "-l" => {}
            "-o" => set.push_str(&format!("set -o {}; ", rest.next()?)),
            flags if flags.starts_with('-') && flags.len() > 1 => {
                for flag in flags.chars().skip(1) {
                    match flag {
                        'c' => text = true,
                        's' => stdin = true,
                        'l' | 'i' => {}
                        'e' | 'u' | 'x' | 'f' => set.push_str(&format!("set -{flag}; ")),
                        _ => return None,
                    }
                }
            }
            _ => {
                operands.push(arg.clone());
                operands.extend(rest.cloned());
                break;
            }
        }
    }
    let mut operands = operands.into_iter();
    let asked = if text {
        let script = operands.next()?;
        Asked::Text(script, operands.next().unwrap_or_else(|| "sh".to_owned()), operands.collect())
    } else if stdin || operands.len() == 0 {
        Asked::Stdin(operands.collect())
    } else {
        Asked::File(operands.next()?, operands.collect())
    };
    Some((asked, set))
}

async fn shell(session: Arc<Session>, args: Vec<String>) -> i32 {
    match shell_flags(&args) {
        Some((Asked::Text(text, arg0, rest), set)) => {
            shell_text(session, format!("{set}{text}"), arg0, rest).await
        }
        Some((Asked::Stdin(rest), set)) => from_stdin(session, set, rest).await,
        Some((Asked::File(path, rest), set)) => {
            let path = if path.starts_with('/') { path } else { format!("{}/{path}", session.cwd()) };
            match session.node.os(|os| os.vfs.read(&path)) {
                Some(Ok(bytes)) => {
                    let text = format!("{set}{}", String::from_utf8_lossy(&bytes));
                    shell_text(session, text, path, rest).await
                }
                _ => {
                    session.err(&format!("sh: 0: cannot open {path}: No such file\n"));
                    2
                }
            }
        }
        None => 2,
    }
}

/// Runs a text, then what `exec` put in its place.
async fn shell_text(session: Arc<Session>, text: String, arg0: String, args: Vec<String>) -> i32 {
    if !super::tools::hands_over(&text)
        && let Some(code) = strike(&session, &text).await
    {
        return code;
    }
    let cut = session.cut_after.load(Ordering::Relaxed);
    let code = script::run(Arc::clone(&session), text, arg0, args).await;
    if let Some(argv) = script::take_replacement(&session) {
        return run(session, argv).await;
    }
    if cut { CUT } else { end_of_fault(&session, code) }
}

/// A shell that reads its script from standard input: at once when all of it is there, command by command otherwise.
async fn from_stdin(session: Arc<Session>, set: String, args: Vec<String>) -> i32 {
    let whole = tokio::time::timeout(IDLE, session.stdin.until_end()).await.is_ok();
    let mut text = String::from_utf8_lossy(&session.stdin.take().await).into_owned();
    let mut shell: Option<Shell> = None;
    let mut ended = whole;
    let mut code = 0;
    let mut struck = false;
    loop {
        while !ended && !script::complete(&text) {
            ended = tokio::select! {
                more = session.stdin.wait_more() => !more,
                () = session.cancel.cancelled() => return -15,
            };
            text.push_str(&String::from_utf8_lossy(&session.stdin.take().await));
            if !ended {
                // More may follow at once: a script in several packets is one script.
                while tokio::time::timeout(Duration::from_millis(2), session.stdin.wait_more())
                    .await
                    .is_ok_and(|more| more)
                {
                    text.push_str(&String::from_utf8_lossy(&session.stdin.take().await));
                }
            }
        }
        let argv = session.command.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        if !text.trim().is_empty() {
            session.node.record(ExecRecord {
                user: session.account.name.clone(),
                argv,
                script: text.clone(),
            });
            if !struck {
                struck = true;
                if let Some(code) = strike(&session, &text).await {
                    return code;
                }
            }
            let text = format!("{set}{}", std::mem::take(&mut text));
            if ended && shell.is_none() {
                code = script::run(Arc::clone(&session), text, "sh".to_owned(), args.clone()).await;
            } else {
                let live = shell.get_or_insert_with(|| Shell::new(&session));
                code = Box::pin(live.exec(&text, "sh", args.clone(), None)).await;
            }
        }
        if let Some(argv) = script::take_replacement(&session) {
            return run(session, argv).await;
        }
        if ended || session.cancel.is_cancelled() {
            break;
        }
    }
    end_of_fault(&session, code)
}

/// `cat > path`: bytes as they come, of any kind and size.
async fn store(session: Arc<Session>, path: String) -> i32 {
    if let Some(code) = strike(&session, "").await {
        return code;
    }
    let path = if path.starts_with('/') { path } else { format!("{}/{path}", session.cwd()) };
    let mut first = true;
    let mut corrupt = session.corrupt.swap(false, Ordering::Relaxed);
    loop {
        let chunk = if first {
            Some(Vec::new())
        } else {
            tokio::select! {
                chunk = session.stdin.chunk() => chunk,
                () = session.cancel.cancelled() => return -15,
            }
        };
        let Some(mut bytes) = chunk else { return end_of_fault(&session, 0) };
        if corrupt && !bytes.is_empty() {
            corrupt = false;
            bytes.iter_mut().take(1).for_each(|byte| *byte ^= 0x55);
        }
        let full = u32::from(script::disk_full(&session));
        let done = session.node.os(|os| {
            super::bridge::may_write(&session, &os.vfs, &path)?;
            os.vfs.full += full;
            let made = super::bridge::made(&session, Body::File(Arc::default()), 0o666);
            let done = if first {
                os.vfs.write_as(&path, bytes, made)
            } else {
                os.vfs.append_as(&path, &bytes, made)
            };
            os.vfs.full -= full;
            done
        });
        if let Some(Err(error)) = done {
            let text = if first {
                format!("bash: {path}: {error}\n")
            } else {
                format!("cat: write error: {error}\n")
            };
            (session.sink)(Stream::Err, text.as_bytes());
            // What the client still sends has nowhere to go.
            session.stdin.rest().await;
            return end_of_fault(&session, 1);
        }
        first = false;
    }
}

/// Asks the faults about what is about to run; an exit status ends it here.
async fn strike(session: &Arc<Session>, text: &str) -> Option<i32> {
    if !session.remote.load(Ordering::Relaxed) {
        return None;
    }
    let world = session.node.world()?;
    let argv = session.command.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    let script = if text.is_empty() || argv == text { argv } else { format!("{argv}\n{text}") };
    match world.faults.strike(&Site::SshExec { node: Some(session.node.name.clone()), script })? {
        Action::Delay(real) => {
            tokio::time::sleep(real).await;
            None
        }
        Action::Fail(code, message) => {
            session.err(&format!("{message}\n"));
            Some(code)
        }
        Action::Drop => Some(CUT),
        Action::CutAfter(_) => {
            session.cut_after.store(true, Ordering::Relaxed);
            None
        }
        Action::Hang => {
            session.cancel.cancelled().await;
            Some(-15)
        }
        Action::DiskFull => {
            session.full.store(true, Ordering::Relaxed);
            None
        }
        Action::Corrupt => {
            session.corrupt.store(true, Ordering::Relaxed);
            None
        }
        Action::Reboot => {
            session.reboot_after.store(true, Ordering::Relaxed);
            None
        }
        _ => None,
    }
}

/// Faults that come after the work is done: the answer is lost, or the node goes down.
fn end_of_fault(session: &Arc<Session>, code: i32) -> i32 {
    if session.reboot_after.swap(false, Ordering::Relaxed) {
        session.node.restart();
        return CUT;
    }
    if session.cut_after.load(Ordering::Relaxed) { CUT } else { code }
}
