//! The client over a live connection.

use std::{path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use secrecy::SecretString;
use tokio::{
    io::AsyncRead,
    sync::{OnceCell, mpsc},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Chunk, Command, Output, RemoteFile, SshClient, SshError, SshTarget, Status, SudoProblem, Written,
    connector::Settings,
    error::shorten,
    exec::{self, Job, Limit, Piece, Sink},
    link::Link,
    sudo::{self, Root},
    transfer,
};

/// One live connection, made by [`crate::RusshConnector`].
///
/// Each command and transfer runs on a task of its own: a caller that goes away, or is slow, holds up nobody else, and a
/// future that is dropped stops its command on the node. That takes a moment in the background: call
/// [`SshClient::close`] before the program ends, or the runtime takes these tasks down with it.
pub struct RusshClient {
    link: Arc<Link>,
    sudo_password: Option<SecretString>,
    command_limit: Duration,
    /// How to become root, or why not: found out once, so that a wrong password is tried once.
    root: OnceCell<Result<Root, SudoProblem>>,
}

impl std::fmt::Debug for RusshClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Link { host, user, .. } = &*self.link;
        f.debug_struct("RusshClient").field("host", host).field("user", user).finish_non_exhaustive()
    }
}

/// Says how the login can become root. `-n` keeps sudo from asking.
const ROOT_PROBE: &str = r#"
if [ "$(id -u)" = 0 ]; then echo root
elif ! command -v sudo >/dev/null 2>&1; then echo missing
elif sudo -n true; then echo free
else echo asks
fi
"#;

impl RusshClient {
    pub(crate) fn new(link: Arc<Link>, target: SshTarget, settings: &Settings) -> Self {
        Self {
            link,
            sudo_password: target.sudo_password,
            command_limit: settings.command_limit,
            root: OnceCell::new(),
        }
    }

    pub(crate) fn host(&self) -> String {
        self.link.host.clone()
    }
    pub(crate) fn stall_limit(&self) -> Limit {
        Limit::Silence(self.command_limit)
    }

    /// The rights to run with.
    pub(crate) async fn rights(&self, root: bool) -> Result<Root, SshError> {
        // The user `root` needs no looking: it saves a round trip for the most frequent login of all.
        if !root || self.link.user == "root" {
            return Ok(Root::Login);
        }
        let found = self.root.get_or_try_init(|| self.find_root()).await?;
        found.clone().map_err(|kind| SshError::Sudo { host: self.host(), kind })
    }

    async fn find_root(&self) -> Result<Result<Root, SudoProblem>, SshError> {
        let probe =
            self.collect(Root::Login, &Command::script(ROOT_PROBE).limit(Duration::from_secs(60))).await?;
        let said = probe.stdout_text();
        let words = shorten(&probe.stderr);
        match (said.trim(), &self.sudo_password) {
            ("root", _) => Ok(Ok(Root::Login)),
            ("free", _) => Ok(Ok(Root::Sudo)),
            ("missing", _) => Ok(Err(SudoProblem::Missing)),
            ("asks", None) => Ok(Err(sudo::problem_in(&words).unwrap_or(SudoProblem::PasswordNeeded))),
            ("asks", Some(password)) => {
                let root = Root::SudoPassword(password.clone());
                match self.collect(root.clone(), &Command::script(":").limit(Duration::from_secs(60))).await {
                    Ok(_) => Ok(Ok(root)),
                    Err(SshError::Sudo { kind, .. }) => Ok(Err(kind)),
                    Err(other) => Err(other),
                }
            }
            _ => Ok(Err(SudoProblem::Other(words))),
        }
    }

    /// Runs a script with given rights and keeps what it prints.
    pub(crate) async fn collect(&self, rights: Root, command: &Command) -> Result<Output, SshError> {
        self.collect_streaming(rights, command, &mut |_| {}).await
    }

    async fn collect_streaming(
        &self,
        rights: Root,
        command: &Command,
        on_output: &mut (dyn for<'a> FnMut(Chunk<'a>) + Send),
    ) -> Result<Output, SshError> {
        let limit = Limit::Total(command.limit.unwrap_or(self.command_limit));
        self.hear(rights.script(command, limit)?, on_output).await
    }

    async fn hear(
        &self,
        job: Job,
        on_output: &mut (dyn for<'a> FnMut(Chunk<'a>) + Send),
    ) -> Result<Output, SshError> {
        let (sender, mut pieces) = mpsc::unbounded_channel();
        let running = self.start(job, Sink::Memory(sender));
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        while let Some(piece) = pieces.recv().await {
            match piece {
                Piece::Stdout(data) => {
                    on_output(Chunk::Stdout(&data));
                    stdout.extend_from_slice(&data);
                }
                Piece::Stderr(data) => {
                    on_output(Chunk::Stderr(&data));
                    stderr.extend_from_slice(&data);
                }
                Piece::Sent(_) => {}
            }
        }
        Ok(Output { status: running.outcome().await?, stdout, stderr })
    }

    /// Starts a job on a task of its own. Dropping what is returned stops the program on the node.
    pub(crate) fn start(&self, job: Job, sink: Sink) -> Running {
        let cancel = CancellationToken::new();
        let (link, token) = (Arc::clone(&self.link), cancel.clone());
        let lost = link.lost();
        let task = self.link.runs.spawn(async move { exec::run(&link, job, sink, &token).await });
        Running { _cancel: cancel.drop_guard(), task, lost }
    }
}

/// A job that runs.
pub(crate) struct Running {
    _cancel: tokio_util::sync::DropGuard,
    task: tokio::task::JoinHandle<Result<Status, SshError>>,
    lost: SshError,
}

impl Running {
    pub(crate) async fn outcome(self) -> Result<Status, SshError> {
        self.task.await.unwrap_or(Err(self.lost))
    }
}

#[async_trait]
impl SshClient for RusshClient {
    async fn run(&self, command: &Command) -> Result<Output, SshError> {
        self.run_streaming(command, &mut |_| {}).await
    }

    async fn run_streaming(
        &self,
        command: &Command,
        on_output: &mut (dyn for<'a> FnMut(Chunk<'a>) + Send),
    ) -> Result<Output, SshError> {
        let rights = self.rights(command.root).await?;
        self.collect_streaming(rights, command, on_output).await
    }

    async fn run_with_input(
        &self,
        command: &Command,
        input: Box<dyn AsyncRead + Send + Unpin>,
        on_output: &mut (dyn for<'a> FnMut(Chunk<'a>) + Send),
    ) -> Result<Output, SshError> {
        let rights = self.rights(command.root).await?;
        let limit = Limit::Silence(command.limit.unwrap_or(self.command_limit));
        self.hear(rights.script_with_input(command, input, limit)?, on_output).await
    }

    async fn read(&self, path: &str) -> Result<Option<Vec<u8>>, SshError> {
        transfer::read(self, path).await
    }

    async fn write(
        &self,
        file: &RemoteFile,
        progress: &mut (dyn FnMut(u64, u64) + Send),
    ) -> Result<Written, SshError> {
        transfer::write(self, file, progress).await
    }

    async fn download(
        &self,
        path: &str,
        local: &Path,
        progress: &mut (dyn FnMut(u64, u64) + Send),
    ) -> Result<(), SshError> {
        transfer::download(self, path, local, progress).await
    }

    fn is_alive(&self) -> bool {
        self.link.is_alive()
    }

    async fn close(&self) {
        self.link.close().await;
    }
}
