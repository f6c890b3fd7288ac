//! The shell: scripts run in the interpreter, over the node's own files and commands.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use bashkit::{
    Bash, ExecOptions, ExecutionExtensions, ExecutionLimits, MemoryLimits, SessionLimits, StreamData,
};

use super::{
    bridge::Bridge,
    session::{Session, Stream},
    tools,
};

/// Commands of the interpreter that a fresh Debian-family system does not have, or that the node does itself.
const HIDDEN: [&str; 40] = [
    "curl", "wget", "jq", "yq", "git", "ssh", "scp", "sftp", "python", "python3", "node", "deno", "ts", "rg",
    "http", "zip", "unzip", "vi", "vim", "nano", "csv", "json", "template", "tomlq", "semver", "dotenv",
    "retry", "parallel", "assert", "log", "verify", "tree", "sqlite3", "sqlite", "patch", "make", "bc",
    "xxd", "column", "glob",
];

/// How long a script waits for its input to be complete before it starts to run.
const GRACE: Duration = Duration::from_millis(10);

/// The session a builtin runs in.
pub(crate) struct Current(pub(crate) Arc<Session>);

fn limits() -> ExecutionLimits {
    let large = usize::MAX / 4;
    ExecutionLimits::new()
        .max_commands(large)
        .max_loop_iterations(large)
        .max_total_loop_iterations(large)
        .timeout(Duration::from_secs(24 * 3600))
        .parser_timeout(Duration::from_secs(60))
        .max_input_bytes(256 << 20)
        .max_parser_operations(100_000_000)
        .max_stdout_bytes(1 << 30)
        .max_stderr_bytes(1 << 30)
        .max_work_units(u64::MAX / 4)
        .max_aggregate_input_bytes(u64::MAX / 4)
        .max_live_intermediate_bytes(4 << 30)
}

/// An interpreter with its variables: one script, or a shell that lives longer.
pub(crate) struct Shell {
    bash: Bash,
    session: Arc<Session>,
}

impl Shell {
    pub(crate) fn new(session: &Arc<Session>) -> Self {
        let hostname = session.node.os(|os| os.hostname()).unwrap_or_default();
        let mut builder = Bash::builder()
            .fs(Arc::new(Bridge(Arc::clone(session))))
            .rootfs(false)
            .username(session.account.name.clone())
            .hostname(hostname)
            .limits(limits())
            .session_limits(SessionLimits::unlimited())
            .memory_limits(MemoryLimits::unlimited())
            .builtin_filter(|name| !HIDDEN.contains(&name))
            .builtin_registry(session.node.tools.clone())
            .cwd(session.cwd());
        for (name, value) in session.env() {
            builder = builder.env(name, value);
        }
        Self { bash: builder.build(), session: Arc::clone(session) }
    }

    /// Runs a text to its end; output goes to the session as it comes.
    pub(crate) async fn exec(
        &mut self,
        text: &str,
        arg0: &str,
        args: Vec<String>,
        stdin: Option<Vec<u8>>,
    ) -> i32 {
        let session = Arc::clone(&self.session);
        let mut options = ExecOptions::new()
            .extensions(ExecutionExtensions::new().with(Current(Arc::clone(&session))))
            .arg0(arg0)
            .positional(args);
        if let Some(stdin) = stdin {
            options = options.stdin(StreamData::from(stdin));
        }
        let (to_out, to_err) = (Arc::clone(&session.sink), Arc::clone(&session.sink));
        let execution = self
            .bash
            .execute(text)
            .options(options)
            .stdout_fn(move |bytes| {
                to_out(Stream::Out, &bytes);
                std::future::ready(Ok(()))
            })
            .stderr_fn(move |bytes| {
                to_err(Stream::Err, &bytes);
                std::future::ready(Ok(()))
            });
        let ended = tokio::select! {
            ended = execution.into_future() => ended,
            () = session.cancel.cancelled() => return -15,
        };
        match ended {
            Ok(result) => result.exit_code,
            Err(bashkit::Error::Parse { message, line, .. }) => {
                session.err(&format!("{arg0}: {line}: Syntax error: {message}\n"));
                2
            }
            Err(error) => {
                session.err(&format!("{arg0}: {error}\n"));
                2
            }
        }
    }
}

/// Whether a text is whole commands: nothing open, no here-document that waits for its end.
pub(crate) fn complete(text: &str) -> bool {
    text.ends_with('\n') && bashkit::parser::Parser::new(text).parse().is_ok()
}

/// Runs a script with its own interpreter. What it leaves in [`Session::replace`] runs afterwards in its place.
pub(crate) async fn run(session: Arc<Session>, text: String, arg0: String, args: Vec<String>) -> i32 {
    if session.tty && !tools::hands_over(&text) {
        return in_task(Arc::clone(&session), tools::terminal::mark_read(&text), arg0, args, None).await;
    }
    // A text that hands its input over to another shell reads none of it.
    if !tools::hands_over(&text) && tokio::time::timeout(GRACE, session.stdin.until_end()).await.is_ok() {
        let stdin = session.stdin.take().await;
        let own = (!stdin.is_empty()).then_some(stdin);
        return in_task(session, text, arg0, args, own).await;
    }
    let text = tools::mark_exec(&text);
    in_task(session, text, arg0, args, None).await
}

/// Polls an interpreter on a task of its own: nested shells do not share one stack.
async fn in_task(
    session: Arc<Session>,
    text: String,
    arg0: String,
    args: Vec<String>,
    stdin: Option<Vec<u8>>,
) -> i32 {
    let inner = Arc::clone(&session);
    let mut task = tokio::spawn(async move {
        let mut shell = Shell::new(&inner);
        Box::pin(shell.exec(&text, &arg0, args, stdin)).await
    });
    let guard = AbortOnDrop(task.abort_handle());
    let code = (&mut task).await.unwrap_or(-9);
    drop(guard);
    code
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Adopts what `exec` left for the session: environment and folder. Returns the program to run in its place.
pub(crate) fn take_replacement(session: &Session) -> Option<Vec<String>> {
    let replace = session.replace.lock().unwrap_or_else(PoisonError::into_inner).take()?;
    let kept: HashMap<String, String> = replace.env;
    session.env.lock().unwrap_or_else(PoisonError::into_inner).extend(kept);
    *session.cwd.lock().unwrap_or_else(PoisonError::into_inner) = replace.cwd;
    Some(replace.argv)
}

/// Whether writes of this session fail.
pub(crate) fn disk_full(session: &Session) -> bool {
    session.full.load(Ordering::Relaxed)
}
