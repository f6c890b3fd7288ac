//! Running scripts on a node and telling what went wrong.

use std::{sync::Arc, time::Duration};

use turingpi_engine::{Failure, FailureClass, Probe, StepContext};
use turingpi_ssh::{Command, Output, SshClient, Status};

use crate::ssh_failure;

/// One node with a live connection. Cheap to clone.
#[derive(Clone)]
pub struct Host {
    name: Arc<str>,
    client: Arc<dyn SshClient>,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A script that ended with something else than 0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it ended with {}{}", describe(.status), quoted(.stderr))]
pub struct RemoteExit {
    /// How it ended.
    pub status: Status,
    /// The last lines of its standard error.
    pub stderr: String,
}

fn describe(status: &Status) -> String {
    match status {
        Status::Code(code) => format!("exit code {code}"),
        Status::Signal(name) => format!("signal {name}"),
    }
}

fn quoted(stderr: &str) -> String {
    if stderr.is_empty() { String::new() } else { format!(": {stderr}") }
}

/// The last lines of a program's error output, for a message.
pub(crate) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|l| !l.is_empty()).collect();
    let from = lines.len().saturating_sub(6);
    lines.get(from..).unwrap_or_default().join("\n")
}

impl Host {
    /// The operations over `client`, which is connected to the node `name`.
    pub fn new(name: &str, client: Arc<dyn SshClient>) -> Self {
        Self { name: name.into(), client }
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits as [`StepContext::wait`], for a `probe` that looks over this connection. When that is lost the wait ends: the
    /// step is tried again over another one, and this one does not come back however long one waits.
    pub(crate) async fn wait<T: Send, F, Fut>(
        &self,
        cx: &StepContext,
        condition: &str,
        limit: Duration,
        mut probe: F,
    ) -> Result<T, Failure>
    where
        F: FnMut() -> Fut + Send,
        Fut: Future<Output = Result<Probe<T>, Failure>> + Send,
    {
        cx.wait(condition, limit, || {
            let look = probe();
            async move {
                Ok(match look.await {
                    Ok(Probe::Ready(value)) => Probe::Ready(Ok(value)),
                    Ok(Probe::NotYet(seen)) => Probe::NotYet(seen),
                    Err(failure) if failure.class() == FailureClass::Unreachable => {
                        Probe::Ready(Err(failure))
                    }
                    Err(failure) => return Err(failure),
                })
            }
        })
        .await?
    }

    /// The connection itself.
    pub fn client(&self) -> &Arc<dyn SshClient> {
        &self.client
    }

    /// Runs `command`. A non-zero exit is data. `what` completes "cannot … on node1".
    ///
    /// # Errors
    /// As [`ssh_failure`].
    pub async fn run(&self, what: &str, command: &Command) -> Result<Output, Failure> {
        self.client.run(command).await.map_err(|e| ssh_failure(&self.name, what, e))
    }

    /// Runs `command` and returns its standard output.
    ///
    /// # Errors
    /// As [`Host::run`]; `Refused` with a [`RemoteExit`] as source when it did not exit with 0.
    pub async fn output(&self, what: &str, command: &Command) -> Result<String, Failure> {
        let output = self.run(what, command).await?;
        if output.success() {
            return Ok(output.stdout_text());
        }
        Err(self.refused(what, &output))
    }

    /// Runs a script as root with arguments and returns its standard output. Arguments show in the process list.
    ///
    /// # Errors
    /// As [`Host::output`].
    pub async fn script(&self, what: &str, text: &str, args: &[&str]) -> Result<String, Failure> {
        self.output(what, &root(text, args)).await
    }

    /// As [`Host::script`], ended on the node after `limit`.
    ///
    /// # Errors
    /// As [`Host::output`].
    pub async fn script_within(
        &self,
        what: &str,
        text: &str,
        args: &[&str],
        limit: Duration,
    ) -> Result<String, Failure> {
        self.output(what, &root(text, args).limit(limit)).await
    }

    /// Runs a script as root; whether it exited with 0.
    ///
    /// # Errors
    /// As [`Host::run`]; `Refused` when the script was ended by a signal.
    pub async fn test(&self, what: &str, text: &str, args: &[&str]) -> Result<bool, Failure> {
        let output = self.run(what, &root(text, args)).await?;
        match output.status {
            Status::Code(0) => Ok(true),
            Status::Code(_) => Ok(false),
            Status::Signal(_) => Err(self.refused(what, &output)),
        }
    }

    /// The failure that says `what` was answered with a bad exit.
    pub fn refused(&self, what: &str, output: &Output) -> Failure {
        Failure::new(FailureClass::Refused, format!("cannot {what} on {}", self.name))
            .source(RemoteExit { status: output.status, stderr: tail(&output.stderr_text()) })
    }
}

fn root(text: &str, args: &[&str]) -> Command {
    args.iter().fold(Command::script(text).as_root(), |command, arg| command.arg(*arg))
}
