//! What to run on a node, without quoting by hand and without secrets in argv.

use std::time::Duration;

use secrecy::SecretString;

/// A POSIX shell script with arguments. It travels on standard input (`sh -s -- args`), so it has no length limit
/// and nothing of it shows in the node's process list.
#[derive(Clone)]
pub struct Command {
    pub(crate) script: String,
    pub(crate) args: Vec<String>,
    pub(crate) secrets: Vec<(String, SecretString)>,
    pub(crate) root: bool,
    pub(crate) limit: Option<Duration>,
}

impl Command {
    /// A script. It runs under `set -eu`, `umask 077`, `LC_ALL=C` and a full `PATH`; its own standard input is empty,
    /// unless it is run by [`SshClient::run_with_input`](crate::SshClient::run_with_input).
    pub fn script(text: impl Into<String>) -> Self {
        Self { script: text.into(), args: Vec::new(), secrets: Vec::new(), root: false, limit: None }
    }
    /// Adds a positional argument (`$1`, `$2`, …). Arguments show in the process list: never a secret.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }
    /// Gives the script a shell variable that shows nowhere else.
    #[must_use]
    pub fn secret(mut self, name: impl Into<String>, value: SecretString) -> Self {
        self.secrets.push((name.into(), value));
        self
    }
    /// Runs it as root: directly when the login user is root, through sudo otherwise.
    #[must_use]
    pub fn as_root(mut self) -> Self {
        self.root = true;
        self
    }
    /// Stops it on the node, and fails, when it takes longer. The connector's default limit applies otherwise.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// The script text, for doubles and tests.
    pub fn text(&self) -> &str {
        &self.script
    }
    /// The positional arguments, for doubles and tests.
    pub fn args(&self) -> &[String] {
        &self.args
    }
    /// Whether it runs as root.
    pub fn is_root(&self) -> bool {
        self.root
    }
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Command")
            .field("script", &self.script)
            .field("args", &self.args)
            .field("secrets", &self.secrets.iter().map(|(name, _)| name).collect::<Vec<_>>())
            .field("root", &self.root)
            .field("limit", &self.limit)
            .finish()
    }
}

/// How a remote program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It exited with this code.
    Code(u32),
    /// A signal ended it. Only the name is known: `KILL`, `TERM`, …
    Signal(&'static str),
}

/// What a remote program left. A non-zero exit is data, not an error.
#[derive(Debug, Clone)]
pub struct Output {
    /// How it ended.
    pub status: Status,
    /// Standard output, whole.
    pub stdout: Vec<u8>,
    /// Standard error, whole.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Whether it exited with 0.
    pub fn success(&self) -> bool {
        self.status == Status::Code(0)
    }
    /// Standard output as text, invalid UTF-8 replaced.
    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
    /// Standard error as text, invalid UTF-8 replaced.
    pub fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

/// A piece of output, as it arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chunk<'a> {
    /// Standard output.
    Stdout(&'a [u8]),
    /// Standard error.
    Stderr(&'a [u8]),
}
