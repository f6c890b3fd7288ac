//! The commands of a simulated node: what is not in the interpreter, and what the node must do itself.

mod apt;
mod archive;
mod block;
mod download;
mod files;
mod firewall;
mod identity;
mod journal;
mod kernel;
mod manage;
mod mounts;
mod network;
mod processes;
mod streams;
pub(crate) mod terminal;
mod transient;

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError},
};

use async_trait::async_trait;
use bashkit::{Builtin, BuiltinContext, ControlFlow, ExecResult, StreamData};
use futures::future::BoxFuture;

use super::{
    Node, k3s, launch,
    os::{Os, Running},
    script::Current,
    session::{Kept, Replace, Session, Stdin, capture},
    sudo,
};

/// One call of a command.
pub(crate) struct Call {
    pub(crate) name: String,
    pub(crate) args: Vec<String>,
    pub(crate) env: HashMap<String, String>,
    pub(crate) cwd: String,
    pub(crate) session: Arc<Session>,
    /// Input from a pipe, a file or a here-document; none when the program's own standard input is meant.
    pub(crate) piped: Option<Vec<u8>>,
    pub(crate) out: Vec<u8>,
    pub(crate) err: Vec<u8>,
    /// The shell that called it ends.
    pub(crate) end_shell: bool,
}

/// How a command is done: at once, or waiting for something.
#[derive(Clone, Copy)]
pub(crate) enum Tool {
    Now(fn(&mut Call) -> i32),
    Later(for<'a> fn(&'a mut Call) -> BoxFuture<'a, i32>),
}

/// A table of commands.
pub(crate) type Table = &'static [(&'static str, Tool)];

impl Call {
    /// Looks at or changes the node's system. A node that lost power gives `None`, and the command ends.
    pub(crate) fn os<R>(&self, call: impl FnOnce(&mut Os) -> R) -> Option<R> {
        self.session.node.os(call)
    }
    /// As [`Call::os`] with the runtime state.
    pub(crate) fn running<R>(&self, call: impl FnOnce(&mut Running) -> R) -> Option<R> {
        self.session.node.os(|os| os.running.as_mut().map(call)).flatten()
    }
    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.session.node
    }
    pub(crate) fn print(&mut self, text: impl AsRef<str>) {
        self.out.extend_from_slice(text.as_ref().as_bytes());
    }
    pub(crate) fn line(&mut self, text: impl AsRef<str>) {
        self.print(text);
        self.out.push(b'\n');
    }
    pub(crate) fn warn(&mut self, text: impl AsRef<str>) {
        self.err.extend_from_slice(text.as_ref().as_bytes());
    }
    /// Says `name: text` on standard error and returns the status.
    pub(crate) fn fail(&mut self, code: i32, text: impl AsRef<str>) -> i32 {
        let line = format!("{}: {}\n", self.name, text.as_ref());
        self.warn(line);
        code
    }
    /// A path made absolute.
    pub(crate) fn path(&self, path: &str) -> String {
        if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("{}/{path}", self.cwd.trim_end_matches('/'))
        }
    }
    pub(crate) fn has(&self, flag: &str) -> bool {
        self.args.iter().any(|arg| arg == flag)
    }
    /// The arguments that are not options.
    pub(crate) fn operands(&self) -> Vec<String> {
        self.args.iter().filter(|arg| !arg.starts_with('-') || *arg == "-").cloned().collect()
    }
    /// Everything on standard input.
    pub(crate) async fn input(&mut self) -> Vec<u8> {
        match self.piped.take() {
            Some(bytes) => bytes,
            None => self.session.stdin.rest().await,
        }
    }
    /// Refuses what only root may do.
    pub(crate) fn need_root(&mut self, message: &str) -> Option<i32> {
        if self.session.root() {
            return None;
        }
        self.warn(format!("{message}\n"));
        Some(1)
    }
    /// Makes `/proc` follow a change of the runtime state.
    pub(crate) fn refresh(&self) {
        let memory = self.session.node.plan.memory;
        self.os(|os| super::procfs::refresh(os, memory));
    }
}

struct Registered(&'static str, Tool);

#[async_trait]
impl Builtin for Registered {
    async fn execute(&self, ctx: BuiltinContext<'_>) -> bashkit::Result<ExecResult> {
        let current = ctx
            .execution_extension::<Current>()
            .and_then(|current| current.try_with(|c| Arc::clone(&c.0)).ok());
        let Some(session) = current else { return Ok(ExecResult::err("no session\n", 126)) };
        let mut call = Call {
            name: self.0.to_owned(),
            args: ctx.args.to_vec(),
            env: ctx.env.clone(),
            cwd: ctx.cwd.to_string_lossy().into_owned(),
            session,
            piped: ctx.stdin.map(|stdin| stdin.as_bytes().to_vec()),
            out: Vec::new(),
            err: Vec::new(),
            end_shell: false,
        };
        let code = match self.1 {
            Tool::Now(tool) => tool(&mut call),
            Tool::Later(tool) => tool(&mut call).await,
        };
        let code = if code < 0 { 128 - code.max(-64) } else { code };
        Ok(ExecResult {
            stdout: StreamData::from(call.out),
            stderr: StreamData::from(call.err),
            exit_code: code,
            control_flow: if call.end_shell { ControlFlow::Exit(code) } else { ControlFlow::None },
            ..ExecResult::default()
        })
    }
}

const OWN: Table = &[
    ("sudo", Tool::Later(run_sudo)),
    ("simulated-exec", Tool::Later(run_exec)),
    ("setsid", Tool::Later(run_rest)),
    ("nohup", Tool::Later(run_rest)),
    ("ionice", Tool::Later(run_rest)),
    ("k3s-simulated", Tool::Later(k3s::cli::run)),
];

/// All tables.
const TABLES: [Table; 17] = [
    OWN,
    apt::TABLE,
    archive::TABLE,
    block::TABLE,
    download::TABLE,
    files::TABLE,
    firewall::TABLE,
    identity::TABLE,
    journal::TABLE,
    kernel::TABLE,
    manage::TABLE,
    mounts::TABLE,
    network::TABLE,
    processes::TABLE,
    streams::TABLE,
    terminal::TABLE,
    transient::TABLE,
];

/// Makes the commands of the installed packages available, and those of removed ones not.
pub(crate) fn register(node: &Node) {
    let missing: Vec<&str> = node.os(|os| super::packages::missing_commands(&os.vfs)).unwrap_or_default();
    for (name, tool) in TABLES.iter().flat_map(|table| table.iter()) {
        let known = node.tools.lookup(name).is_some();
        if missing.contains(name) {
            node.tools.remove(name);
        } else if !known {
            node.tools.insert(*name, Arc::new(Registered(name, *tool)));
        }
        // A file without its command would start itself for ever.
        node.os(|os| {
            let path = format!("/usr/bin/{name}");
            let there = os.vfs.lstat(&path).is_ok();
            if missing.contains(name) && there {
                let _ = os.vfs.remove(&path, false);
            } else if !missing.contains(name) && !there && !known {
                os.vfs.put_mode(&path, stub(name), 0o755);
            }
        });
    }
}

/// The file of a command, so that scripts may name it by path.
pub(crate) fn stub(name: &str) -> String {
    format!("#!/bin/sh\n# bashkit builtin: {name}\nexec {name} \"$@\"\n")
}

/// All names, for the stubs in `/usr/bin`.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    TABLES.iter().flat_map(|table| table.iter()).map(|(name, _)| *name)
}

/// Programs that a script may hand standard input over to.
const TAKERS: [&str; 7] = ["sh", "/bin/sh", "/usr/bin/sh", "bash", "/bin/bash", "sudo", "\"$@\""];

/// Where a statement `exec <shell or sudo>` begins in a text.
fn exec_at(text: &str) -> Option<usize> {
    text.match_indices("exec ").map(|(at, _)| at).find(|at| {
        let before = text.get(..*at).unwrap_or_default().trim_end_matches([' ', '\t']);
        let starts = before.is_empty()
            || before.ends_with([';', '\n', '&', '|', '{', '('])
            || before.ends_with("then")
            || before.ends_with("else");
        let after = text.get(at + 5..).unwrap_or_default().split_whitespace().next().unwrap_or_default();
        starts && TAKERS.contains(&after.trim_end_matches(';'))
    })
}

/// Whether a text ends by putting another shell in its place.
pub(crate) fn hands_over(text: &str) -> bool {
    text.len() < 16 * 1024 && exec_at(text).is_some()
}

/// Marks `exec sh …` so that the new program gets the standard input that is still arriving.
pub(crate) fn mark_exec(text: &str) -> String {
    if !hands_over(text) {
        return text.to_owned();
    }
    let mut marked = text.to_owned();
    while let Some(at) = exec_at(&marked) {
        marked.replace_range(at..at + 5, "simulated-exec ");
    }
    marked
}

fn run_exec(call: &mut Call) -> BoxFuture<'_, i32> {
    Box::pin(async move {
        call.end_shell = true;
        if call.piped.is_some() {
            return run_rest(call).await;
        }
        let replace = Replace { argv: call.args.clone(), env: call.env.clone(), cwd: call.cwd.clone() };
        *call.session.replace.lock().unwrap_or_else(PoisonError::into_inner) = Some(replace);
        0
    })
}

/// Runs the arguments as a program, its output as the command's own.
fn run_rest(call: &mut Call) -> BoxFuture<'_, i32> {
    Box::pin(async move {
        let skip = call.args.iter().take_while(|arg| arg.starts_with('-')).count();
        let argv = call.args.get(skip..).unwrap_or_default().to_vec();
        let (child, kept) = captured(call);
        let code = launch::run(Arc::new(child), argv).await;
        collect(call, &kept);
        code
    })
}

fn run_sudo(call: &mut Call) -> BoxFuture<'_, i32> {
    Box::pin(async move {
        let (child, kept) = captured(call);
        let (stdin, sink) = (child.stdin.clone(), Arc::clone(&child.sink));
        let code = sudo::run(Arc::new(child), call.args.clone(), stdin, sink).await;
        collect(call, &kept);
        code
    })
}

/// A child of the calling program whose output is kept.
pub(crate) fn captured(call: &mut Call) -> (Session, Kept) {
    let (sink, kept) = capture();
    let stdin = match call.piped.take() {
        Some(bytes) => Stdin::bytes(bytes),
        None => call.session.stdin.clone(),
    };
    let mut child = call.session.child(call.session.account.clone(), stdin, sink);
    child.env = std::sync::Mutex::new(call.env.clone());
    child.cwd = std::sync::Mutex::new(call.cwd.clone());
    (child, kept)
}

/// Takes over what a child wrote.
pub(crate) fn collect(call: &mut Call, kept: &Kept) {
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    call.out.append(&mut kept.0);
    call.err.append(&mut kept.1);
}
