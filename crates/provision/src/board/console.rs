//! A slot's console that bears what BMCs do: they hang while an image is uploaded, restart, and forget logins.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::future::BoxFuture;
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout},
};
use turingpi_bmc::{BmcClient as _, BmcError, Capability, Console, SerialState, Slot, Transfer, UartText};
use turingpi_engine::{Failure, FailureClass};

use super::OpenBoard;

mod plain;
mod seen;

pub use plain::PlainText;
use seen::Seen;

/// Events that wait for their reader.
const QUEUE: usize = 256;

/// What happens on a console.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConsoleEvent {
    /// The node wrote this.
    Text(UartText),
    /// The BMC has answered nothing for `silent`. It serves nobody while an image is uploaded, so this is no end.
    Hanging {
        /// For how long.
        silent: Duration,
        /// The transfer that was seen moving before.
        transfer: Option<String>,
    },
    /// The connection broke, or the BMC blocks this address; it is tried again after `again`.
    Interrupted {
        /// Why.
        failure: Failure,
        /// When the next try is.
        again: Duration,
    },
    /// It answers again.
    Answering {
        /// After how long.
        after: Duration,
    },
    /// What was typed was not sent: the firmware cannot send that key.
    NotSent(Failure),
}

/// A slot's console, followed over hang-ups. Dropping it ends it; the node does not notice.
pub struct BoardConsole {
    slot: Slot,
    history: String,
    keys: Arc<AtomicBool>,
    events: mpsc::Receiver<Result<ConsoleEvent, Failure>>,
    typed: Option<mpsc::Sender<Vec<u8>>>,
    task: JoinHandle<()>,
}

impl std::fmt::Debug for BoardConsole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BoardConsole").field("slot", &self.slot.number()).finish_non_exhaustive()
    }
}

/// Types on a console.
#[derive(Debug, Clone)]
pub struct Typist(mpsc::WeakSender<Vec<u8>>);

impl Typist {
    /// Types without waiting; false when it cannot be taken: the BMC hangs for long, or the console is gone.
    pub fn try_type(&self, bytes: Vec<u8>) -> bool {
        self.0.upgrade().is_some_and(|typed| typed.try_send(bytes).is_ok())
    }

    /// Types as soon as there is room; false when the console is gone.
    pub async fn type_soon(&self, bytes: Vec<u8>) -> bool {
        match self.0.upgrade() {
            Some(typed) => typed.send(bytes).await.is_ok(),
            None => false,
        }
    }
}

impl BoardConsole {
    /// The slot.
    pub fn slot(&self) -> Slot {
        self.slot
    }
    /// What the BMC's buffer held when it was opened, as [`Console::history`].
    pub fn history(&self) -> &str {
        &self.history
    }
    /// Whether every key reaches the node as it is typed; if not, only whole lines do. May change.
    pub fn sends_keys(&self) -> bool {
        self.keys.load(Ordering::Relaxed)
    }
    /// The way to type on it.
    pub fn typist(&self) -> Typist {
        // A console that was closed has none any more.
        Typist(
            self.typed
                .as_ref()
                .map(mpsc::Sender::downgrade)
                .unwrap_or_else(|| mpsc::channel(1).0.downgrade()),
        )
    }

    /// What happens next. Nothing is lost if the future is dropped.
    ///
    /// # Errors
    /// Why the console has ended for good: the BMC is gone for minutes, its certificate changed, it refuses the login.
    pub async fn next(&mut self) -> Result<ConsoleEvent, Failure> {
        match self.events.recv().await {
            Some(event) => event,
            None => Err(Failure::new(FailureClass::Unexpected, "the console has ended")),
        }
    }

    /// Ends it in an orderly way, after what was typed has been sent.
    pub async fn close(mut self) {
        self.typed = None;
        let rest = async { while self.events.recv().await.is_some() {} };
        let _ = timeout(Duration::from_secs(5), rest).await;
    }
}

impl Drop for BoardConsole {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How much is borne.
#[derive(Debug, Clone)]
struct Patience {
    /// After this much silence somebody asks whether the BMC still answers.
    quiet: Duration,
    /// An answer that takes longer is a hang.
    slow: Duration,
    /// Between two tries to open it again.
    retry: Duration,
    /// How long a BMC that cannot be reached is tried: a restart takes about a minute.
    unreachable: Duration,
    /// How long a BMC that takes connections and answers nothing is borne: the longest upload.
    hanging: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            quiet: Duration::from_secs(5),
            slow: Duration::from_secs(4),
            retry: Duration::from_secs(2),
            unreachable: Duration::from_secs(240),
            hanging: Duration::from_secs(45 * 60),
        }
    }
}

/// What is needed of a BMC.
#[async_trait]
trait Line: Send + Sync {
    async fn open(&self) -> Result<Console, BmcError>;
    /// Whether it answers; the transfer that moves, if one does.
    async fn probe(&self) -> Result<Option<String>, BmcError>;
    /// Whether reading leaves the buffer as it is.
    fn keeps(&self) -> bool;
    async fn failure(&self, error: BmcError) -> Failure;
}

struct BoardLine {
    board: OpenBoard,
    slot: Slot,
}

#[async_trait]
impl Line for BoardLine {
    async fn open(&self) -> Result<Console, BmcError> {
        self.board.client().console(self.slot).await
    }
    async fn probe(&self) -> Result<Option<String>, BmcError> {
        let client = self.board.client();
        if !self.board.about().has(Capability::ImageUpload) {
            return client.power().await.map(|_| None);
        }
        Ok(match client.transfer().await? {
            Transfer::Moving { process, .. } => Some(process),
            _ => None,
        })
    }
    fn keeps(&self) -> bool {
        self.board.about().has(Capability::UartKeeps)
    }
    async fn failure(&self, error: BmcError) -> Failure {
        let refused = matches!(error, BmcError::Api { .. });
        let failure = self.board.failure(error);
        // Its reader of the line may have given up.
        match refused && stopped(&self.board, self.slot).await {
            true => failure.hint(
                "The BMC's reader of this serial line gave up, and only a restart of its daemon brings it back: \
                 `turingpi board reload`.",
            ),
            false => failure,
        }
    }
}

async fn stopped(board: &OpenBoard, slot: Slot) -> bool {
    let asked = timeout(Duration::from_secs(5), board.http().serial_status()).await;
    matches!(asked, Ok(Ok(states)) if states[slot] == SerialState::Stopped)
}

impl OpenBoard {
    /// Opens a slot's console and follows it over hang-ups and restarts of the BMC.
    ///
    /// # Errors
    /// As every call to the BMC, if it cannot be opened the first time.
    pub async fn follow_console(&self, slot: Slot) -> Result<BoardConsole, Failure> {
        let line = BoardLine { board: self.clone(), slot };
        Box::pin(follow(Arc::new(line), Patience::default())).await
    }
}

async fn follow(line: Arc<dyn Line>, patience: Patience) -> Result<BoardConsole, Failure> {
    let console = match line.open().await {
        Ok(console) => console,
        Err(error) => return Err(line.failure(error).await),
    };
    let (slot, history) = (console.slot(), console.history().to_owned());
    let keys = Arc::new(AtomicBool::new(console.sends_keys()));
    let (events_in, events) = mpsc::channel(QUEUE);
    let (typed, typed_out) = mpsc::channel(QUEUE);
    let mut seen = Seen::default();
    seen.push(&history);
    let carrier = Carrier {
        line,
        patience,
        keys: keys.clone(),
        events: events_in,
        typed: typed_out,
        unsent: None,
        seen,
        heard: Instant::now(),
        transfer: None,
        hanging: false,
    };
    let task = tokio::spawn(carrier.run(console));
    Ok(BoardConsole { slot, history, keys, events, typed: Some(typed), task })
}

/// Nobody listens any more.
struct Gone;

/// Why a console is not carried on.
enum End {
    Gone,
    Broken(BmcError),
}

impl From<Gone> for End {
    fn from(Gone: Gone) -> Self {
        Self::Gone
    }
}
impl From<BmcError> for End {
    fn from(error: BmcError) -> Self {
        Self::Broken(error)
    }
}

struct Carrier {
    line: Arc<dyn Line>,
    patience: Patience,
    keys: Arc<AtomicBool>,
    events: mpsc::Sender<Result<ConsoleEvent, Failure>>,
    typed: mpsc::Receiver<Vec<u8>>,
    /// Taken from `typed` and not sent yet.
    unsent: Option<Vec<u8>>,
    seen: Seen,
    /// When the BMC last answered.
    heard: Instant,
    transfer: Option<String>,
    hanging: bool,
}

impl Carrier {
    async fn run(mut self, mut console: Console) {
        loop {
            let end = match self.carry(&mut console).await {
                End::Gone => return console.close().await,
                End::Broken(error) => self.reopen(error).await,
            };
            match end {
                Ok(opened) => console = opened,
                Err(End::Gone) => return,
                Err(End::Broken(error)) => {
                    let failure = self.line.failure(error).await;
                    let _ = self.events.send(Err(failure)).await;
                    return;
                }
            }
        }
    }

    async fn say(&self, event: ConsoleEvent) -> Result<(), Gone> {
        self.events.send(Ok(event)).await.map_err(|_| Gone)
    }

    async fn carry(&mut self, console: &mut Console) -> End {
        match self.carry_on(console).await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn carry_on(&mut self, console: &mut Console) -> Result<Infallible, End> {
        // A node that is silent and a BMC that hangs look the same: an ordinary call tells them apart.
        let mut probe: Option<Probe> = None;
        let mut deadline = Instant::now() + self.patience.quiet;
        loop {
            self.keys.store(console.sends_keys(), Ordering::Relaxed);
            if let Some(bytes) = self.unsent.take() {
                self.write(console, &bytes).await?;
            }
            tokio::select! {
                text = console.read() => {
                    self.hear(text?).await?;
                    deadline = Instant::now() + self.patience.quiet;
                }
                bytes = self.typed.recv() => match bytes {
                    Some(bytes) => self.unsent = Some(bytes),
                    None => return Err(End::Gone),
                },
                answer = answered(&mut probe), if probe.is_some() => {
                    probe = None;
                    match answer {
                        Ok(transfer) => {
                            self.transfer = transfer;
                            self.answered().await?;
                        }
                        Err(error) if error.is_transient() => self.hangs().await?,
                        Err(error) => return Err(error.into()),
                    }
                    deadline = Instant::now() + self.patience.quiet;
                }
                () = sleep_until(deadline) => {
                    if probe.is_some() {
                        self.hangs().await?;
                        deadline = Instant::now() + self.patience.hanging;
                    } else {
                        let line = self.line.clone();
                        probe = Some(Box::pin(async move { line.probe().await }));
                        deadline = Instant::now() + self.patience.slow;
                    }
                }
            }
        }
    }

    async fn hear(&mut self, text: UartText) -> Result<(), Gone> {
        self.answered().await?;
        self.seen.push(&text.text);
        self.say(ConsoleEvent::Text(text)).await
    }

    async fn answered(&mut self) -> Result<(), Gone> {
        let after = self.heard.elapsed();
        self.heard = Instant::now();
        if std::mem::take(&mut self.hanging) {
            self.say(ConsoleEvent::Answering { after }).await?;
        }
        Ok(())
    }

    async fn hangs(&mut self) -> Result<(), Gone> {
        if std::mem::replace(&mut self.hanging, true) {
            return Ok(());
        }
        let silent = self.heard.elapsed();
        self.say(ConsoleEvent::Hanging { silent, transfer: self.transfer.clone() }).await
    }

    /// Types; says so when that hangs.
    async fn write(&mut self, console: &mut Console, bytes: &[u8]) -> Result<(), End> {
        let written = {
            let mut writing = Box::pin(console.write(bytes));
            match timeout(self.patience.slow, &mut writing).await {
                Ok(written) => written,
                Err(_) => {
                    self.hangs().await?;
                    writing.await
                }
            }
        };
        match written {
            Ok(()) => Ok(self.answered().await?),
            Err(error @ BmcError::Unsupported { .. }) => {
                let failure = self.line.failure(error).await;
                Ok(self.say(ConsoleEvent::NotSent(failure)).await?)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn reopen(&mut self, first: BmcError) -> Result<Console, End> {
        let mut error = first;
        let began = Instant::now();
        let mut reached = Instant::now();
        loop {
            let again = match &error {
                BmcError::Banned { wait, .. } if began.elapsed() + *wait < self.patience.hanging => {
                    *wait + self.patience.retry
                }
                BmcError::Stalled { .. } if began.elapsed() < self.patience.hanging => {
                    // It takes connections: it is there.
                    reached = Instant::now();
                    self.patience.retry
                }
                other if other.is_transient() && reached.elapsed() < self.patience.unreachable => {
                    self.patience.retry
                }
                _ => return Err(error.into()),
            };
            if matches!(error, BmcError::Stalled { .. }) {
                self.hangs().await?;
            } else if !std::mem::replace(&mut self.hanging, true) {
                let failure = self.line.failure(error).await;
                self.say(ConsoleEvent::Interrupted { failure, again }).await?;
            }
            tokio::select! {
                () = sleep(again) => {}
                () = self.events.closed() => return Err(End::Gone),
            }
            error = match self.line.open().await {
                Ok(console) => {
                    self.keys.store(console.sends_keys(), Ordering::Relaxed);
                    let text = match self.line.keeps() {
                        true => self.seen.unseen(console.history()),
                        false => UartText::new(console.history(), false),
                    };
                    self.answered().await?;
                    if !text.text.is_empty() || text.gap {
                        self.hear(text).await?;
                    }
                    return Ok(console);
                }
                Err(error) => error,
            };
        }
    }
}

type Probe = BoxFuture<'static, Result<Option<String>, BmcError>>;

async fn answered(probe: &mut Option<Probe>) -> Result<Option<String>, BmcError> {
    match probe {
        Some(probe) => probe.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
