//! One remote program on one channel: started, fed, drained, and stopped when nobody wants it any more.

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use russh::{ChannelMsg, ChannelReadHalf, Sig};
use tokio::{
    io::AsyncRead,
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::{
    SshError, Status, SudoProblem,
    error::shorten,
    feed,
    link::Link,
    noise::{Scan, StripNoise},
    stop,
    sudo::{Gate, Root},
};

/// What a remote program hands back while it runs.
pub(crate) enum Piece {
    Stdout(Bytes),
    Stderr(Bytes),
    /// That many more bytes of its standard input are on their way.
    Sent(u64),
}

/// Where pieces go.
pub(crate) enum Sink {
    /// Never makes the connection wait: for output that is kept in memory anyway.
    Memory(mpsc::UnboundedSender<Piece>),
    /// Makes the connection wait for whoever writes it away.
    Paced(mpsc::Sender<Piece>),
}

impl Sink {
    async fn put(&self, piece: Piece) {
        // A receiver that is gone has cancelled the run as well; what still comes is drained.
        match self {
            Self::Memory(sender) => drop(sender.send(piece)),
            Self::Paced(sender) => drop(sender.send(piece).await),
        }
    }
}

/// What a program reads.
pub(crate) enum Input {
    Script(Zeroizing<Vec<u8>>),
    /// A local file from an offset on.
    File {
        path: PathBuf,
        offset: u64,
        /// Gets the SHA-256 of what was sent.
        digest: Option<tokio::sync::oneshot::Sender<[u8; 32]>>,
    },
    Bytes(Bytes),
    /// A line, and then whatever comes.
    Stream {
        script: Zeroizing<String>,
        stream: Box<dyn AsyncRead + Send + Unpin>,
    },
}

/// When a program has run for too long.
#[derive(Clone, Copy)]
pub(crate) enum Limit {
    /// That long after it was started.
    Total(Duration),
    /// That long without a byte in either direction.
    Silence(Duration),
}

/// A program to run.
pub(crate) struct Job {
    /// What the login shell is given.
    pub(crate) command: String,
    /// How the program becomes root, and with it whatever stops it.
    pub(crate) root: Option<Root>,
    pub(crate) gate: Option<Gate>,
    pub(crate) marker: String,
    pub(crate) input: Input,
    pub(crate) limit: Limit,
    pub(crate) urgent: bool,
}

/// How long output may still come after the exit status when something in the background keeps the streams open.
const LINGER: Duration = Duration::from_secs(5);
/// How long sudo may think about a password. PAM delays a refusal by seconds on purpose.
const GATE_LIMIT: Duration = Duration::from_secs(60);

impl Limit {
    fn duration(self) -> Duration {
        match self {
            Self::Total(limit) | Self::Silence(limit) => limit,
        }
    }
}

enum End {
    /// The channel is closed.
    Closed,
    Failed(SshError),
    /// Still running, and shall not.
    Unwanted(SshError),
}

/// Runs a job to its end. Meant for a task of its own, so that its channel is drained whatever the caller does.
/// Stops the program on the node when `cancel` is cancelled or the limit passes.
pub(crate) async fn run(
    link: &Arc<Link>,
    job: Job,
    sink: Sink,
    cancel: &CancellationToken,
) -> Result<Status, SshError> {
    let cancelled = || SshError::Cancelled { host: link.host.clone() };
    let (channel, _permit) = tokio::select! {
        opened = link.open(job.urgent) => opened?,
        () = cancel.cancelled() => return Err(cancelled()),
        () = link.stop_all.cancelled(), if !job.urgent => return Err(cancelled()),
    };
    let (mut read, write) = channel.split();
    write.exec(true, job.command).await.map_err(|_| link.lost())?;

    let (sent, mut sending) = mpsc::unbounded_channel();
    let (opening, opened) =
        watch::channel(if job.gate.is_some() { GateState::Closed } else { GateState::Open });
    let streams = matches!(job.input, Input::Stream { .. });
    let password = job.gate.as_ref().map(|gate| gate.password.clone());
    let mut feed = Some(Box::pin(feed::feed(&link.host, &write, job.input, password, opened, sent)));
    let mut ear = Ear {
        host: &link.host,
        stdout: StripNoise::new(&job.marker, Scan::Plain),
        stderr: StripNoise::new(&job.marker, Scan::Process),
        gate: job.gate.map(|gate| (gate, opening)),
        heard: Vec::new(),
        sink,
        status: None,
    };
    let gate_deadline = ear.gate.is_some().then(|| Instant::now() + GATE_LIMIT);
    let mut deadline = Instant::now() + job.limit.duration();
    let end = loop {
        let lively = matches!(job.limit, Limit::Silence(_));
        tokio::select! {
            message = read.wait() => match message {
                None | Some(ChannelMsg::Close) => break End::Closed,
                Some(message) => {
                    if let Err(error) = ear.take(message).await {
                        break End::Failed(error);
                    }
                    if ear.status.is_some() {
                        deadline = Instant::now() + LINGER;
                    } else if lively {
                        deadline = Instant::now() + job.limit.duration();
                    }
                }
            },
            fed = poll(&mut feed), if feed.is_some() => {
                feed = None;
                if let Err(error) = fed {
                    break End::Unwanted(error);
                }
            }
            Some(bytes) = sending.recv() => {
                if lively {
                    deadline = Instant::now() + job.limit.duration();
                }
                ear.sink.put(Piece::Sent(bytes)).await;
            }
            () = cancel.cancelled() => break End::Unwanted(cancelled()),
            () = link.stop_all.cancelled(), if !job.urgent => break End::Unwanted(cancelled()),
            () = tokio::time::sleep_until(deadline) => {
                if ear.status.is_some() {
                    break End::Closed;
                }
                let limit = job.limit.duration();
                break End::Unwanted(SshError::CommandLimit { host: link.host.clone(), limit });
            }
            () = until(gate_deadline), if ear.gate.is_some() => {
                let kind = SudoProblem::Other("it did not answer".into());
                break End::Failed(SshError::Sudo { host: link.host.clone(), kind });
            }
        }
    };
    // A line in front of a stream is read long before the stream ends.
    let may_run = streams || feed.is_none();
    drop(feed);
    match end {
        End::Closed => {
            drop(write.close().await);
            ear.verdict(link)
        }
        End::Failed(error) => {
            drop(write.close().await);
            Err(error)
        }
        End::Unwanted(error) => {
            stop_program(link, job.root.as_ref(), &mut ear, &mut read, may_run).await;
            drop(write.close().await);
            Err(error)
        }
    }
}

async fn poll<F: Future + Unpin>(future: &mut Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Stops the program through another channel. Closing its channel would not: sshd lets programs run on.
async fn stop_program(
    link: &Arc<Link>,
    root: Option<&Root>,
    ear: &mut Ear<'_>,
    read: &mut ChannelReadHalf,
    may_run: bool,
) {
    const PATIENCE: Duration = Duration::from_secs(5);
    // A shell that has not read its whole script runs none of it, and ends when its input does.
    if ear.stderr.process().is_none() {
        if !may_run {
            return;
        }
        let _ = tokio::time::timeout(PATIENCE, async {
            while ear.stderr.process().is_none() {
                match read.wait().await {
                    None | Some(ChannelMsg::Close) => break,
                    Some(message) => drop(ear.take(message).await),
                }
            }
        })
        .await;
    }
    let (Some(process), Some(root)) = (ear.stderr.process().cloned(), root) else { return };
    let stopped = stop::stop(link, root, &process);
    tokio::pin!(stopped);
    let mut gone = false;
    loop {
        tokio::select! {
            result = &mut stopped => {
                if let Err(error) = result {
                    tracing::warn!(host = %link.host, process = process.pid, %error, "a command could not be stopped on the node");
                }
                return;
            }
            // Drained all the while: one full channel would hold up every other one of the connection.
            message = read.wait(), if !gone => gone = matches!(message, None | Some(ChannelMsg::Close)),
        }
    }
}

/// What has to happen before the input may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GateState {
    /// Nothing was asked yet.
    Closed,
    /// sudo asks for the password.
    Asked,
    /// The program itself is reading.
    Open,
}

/// Makes sense of what a program says.
struct Ear<'a> {
    host: &'a str,
    stdout: StripNoise,
    stderr: StripNoise,
    gate: Option<(Gate, watch::Sender<GateState>)>,
    /// What was said before the gate opened.
    heard: Vec<u8>,
    sink: Sink,
    status: Option<Status>,
}

impl Ear<'_> {
    async fn take(&mut self, message: ChannelMsg) -> Result<(), SshError> {
        match message {
            ChannelMsg::Data { data } => {
                if let Some(data) = self.stdout.pass(data) {
                    self.sink.put(Piece::Stdout(data)).await;
                }
            }
            ChannelMsg::ExtendedData { data, ext: 1 } => {
                if let Some(data) = self.through_gate(data)?
                    && let Some(data) = self.stderr.pass(data)
                {
                    self.sink.put(Piece::Stderr(data)).await;
                }
            }
            ChannelMsg::ExitStatus { exit_status } => self.status = Some(Status::Code(exit_status)),
            ChannelMsg::ExitSignal { signal_name, .. } => {
                self.status = Some(Status::Signal(name(&signal_name)))
            }
            ChannelMsg::Failure => {
                let problem = "it does not start programs for this login".to_owned();
                return Err(SshError::Refused { host: self.host.to_owned(), problem });
            }
            _ => {}
        }
        Ok(())
    }

    /// Holds standard error back until sudo has let the program through.
    fn through_gate(&mut self, data: Bytes) -> Result<Option<Bytes>, SshError> {
        let Some((gate, opening)) = &self.gate else { return Ok(Some(data)) };
        self.heard.extend_from_slice(&data);
        if let Some(end) = gate.ready_at(&self.heard) {
            opening.send_replace(GateState::Open);
            self.gate = None;
            return Ok(Some(Bytes::from(self.heard.split_off(end))));
        }
        match gate.prompts_in(&self.heard) {
            0 => {}
            1 => drop(opening.send_replace(GateState::Asked)),
            // Asked again: the password was wrong. Once is enough.
            _ => return Err(SshError::Sudo { host: self.host.to_owned(), kind: SudoProblem::WrongPassword }),
        }
        Ok(None)
    }

    fn verdict(self, link: &Link) -> Result<Status, SshError> {
        let host = self.host.to_owned();
        if let Some((gate, _)) = &self.gate
            && self.status.is_some()
        {
            return Err(SshError::Sudo { host, kind: gate.refusal(&self.heard) });
        }
        let Some(status) = self.status else { return Err(link.lost()) };
        if self.stdout.started() || self.stderr.started() {
            return Ok(status);
        }
        // The shell never ran our first line: somebody else answered.
        let said = [self.stderr.noise(), self.stdout.noise()].concat();
        let text = shorten(&said);
        if text.contains("Password change required") || text.contains("password has expired") {
            return Err(SshError::PasswordExpired { user: link.user.clone(), host });
        }
        Err(match crate::sudo::problem_in(&text) {
            Some(kind) => SshError::Sudo { host, kind },
            None if text.is_empty() => {
                SshError::Refused { host, problem: format!("no shell answered ({status:?})") }
            }
            None => SshError::Refused { host, problem: text },
        })
    }
}

fn name(signal: &Sig) -> &'static str {
    const OTHERS: [&str; 14] = [
        "BUS", "SYS", "USR2", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "XCPU", "XFSZ", "VTALRM",
        "PROF", "TRAP",
    ];
    match signal {
        Sig::ABRT => "ABRT",
        Sig::ALRM => "ALRM",
        Sig::FPE => "FPE",
        Sig::HUP => "HUP",
        Sig::ILL => "ILL",
        Sig::INT => "INT",
        Sig::KILL => "KILL",
        Sig::PIPE => "PIPE",
        Sig::QUIT => "QUIT",
        Sig::SEGV => "SEGV",
        Sig::TERM => "TERM",
        Sig::USR1 => "USR1",
        Sig::Custom(other) => OTHERS.into_iter().find(|known| known == other).unwrap_or("UNKNOWN"),
    }
}
