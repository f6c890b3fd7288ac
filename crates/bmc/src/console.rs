//! The serial console as a stream: text in, keys out, by websocket where the firmware has a working one, else by polling.
//!
//! bmcd 2.1 to 2.3.7 has a websocket too, but answers its handshake only after 30 seconds, with a close, and serves nobody
//! meanwhile; it is never tried. The community's firmware mended it. Since nobody knows whether every build of it did, an
//! ordinary call is made beside the open websocket; if that hangs, the websocket is given up.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use crate::{Attempt, BmcError, Capability, HttpBmcClient, Slot, UartText};

mod keys;
mod poll;
mod socket;

/// Pieces of text that wait for their reader.
const QUEUE: usize = 64;
/// How long an ordinary call may take beside an open websocket.
const BESIDE: Duration = Duration::from_secs(5);

/// A slot's serial console. Dropping it ends it; the node does not notice.
///
/// For a terminal: `select!` over [`Console::read`] and the keyboard. For a script: [`Console::read`] in a loop until the
/// text collected so far shows what is waited for, then [`Console::write`].
pub struct Console {
    slot: Slot,
    attempt: Attempt,
    history: String,
    keys: Arc<AtomicBool>,
    heard: mpsc::Receiver<Result<UartText, BmcError>>,
    typed: mpsc::Sender<Typed>,
    task: Task,
}

struct Typed {
    bytes: Vec<u8>,
    done: oneshot::Sender<Result<(), BmcError>>,
}

/// The other ends of a console's channels.
struct Ends {
    slot: Slot,
    keys: Arc<AtomicBool>,
    heard: mpsc::Sender<Result<UartText, BmcError>>,
    typed: mpsc::Receiver<Typed>,
}

struct Task(Option<JoinHandle<()>>);
impl Drop for Task {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

impl Console {
    fn new(slot: Slot, attempt: Attempt, keys: bool, history: String) -> (Self, Ends) {
        let (heard_in, heard) = mpsc::channel(QUEUE);
        let (typed, typed_out) = mpsc::channel(1);
        let keys = Arc::new(AtomicBool::new(keys));
        let ends = Ends { slot, keys: keys.clone(), heard: heard_in, typed: typed_out };
        (Self { slot, attempt, history, keys, heard, typed, task: Task(None) }, ends)
    }

    /// A console without a BMC, and its far end: for tests of what uses one.
    pub fn pair(slot: Slot, sends_keys: bool, history: impl Into<String>) -> (Self, ConsolePeer) {
        let attempt = Attempt::new(format!("follow the console of slot {slot}"), "test");
        let (console, ends) = Self::new(slot, attempt, sends_keys, history.into());
        (console, ConsolePeer { heard: ends.heard, typed: ends.typed })
    }

    /// The slot.
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// What the BMC's buffer held when the console was opened: the last 16 KiB at most, and nothing where somebody else
    /// emptied it. It is not repeated by [`Console::read`].
    pub fn history(&self) -> &str {
        &self.history
    }

    /// Whether every key reaches the node as it is typed. If not, only whole lines do: a terminal has to echo what is typed
    /// until Enter, and Ctrl-C is refused. May change from true to false when a websocket breaks.
    pub fn sends_keys(&self) -> bool {
        self.keys.load(Ordering::Relaxed)
    }

    /// Waits for what the node writes next. Nothing is lost if the future is dropped: use it in `select!`.
    ///
    /// # Errors
    /// What ended the console; a few failed looks in a row are borne, a broken websocket is replaced by polling.
    pub async fn read(&mut self) -> Result<UartText, BmcError> {
        match self.heard.recv().await {
            Some(heard) => heard,
            None => Err(self.over()),
        }
    }

    /// Types. Where [`Console::sends_keys`], the bytes go out as they are. Otherwise they are collected to lines: CR, LF or
    /// both end one, Backspace and DEL remove a character, Ctrl-U all of them.
    ///
    /// # Errors
    /// [`BmcError::Unsupported`] for other control characters where only lines can be sent (nothing of `bytes` is taken
    /// then), and what kept the BMC from taking it. The text is in no error: it may be a password.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), BmcError> {
        let (done, answered) = oneshot::channel();
        let typed = Typed { bytes: bytes.to_vec(), done };
        if self.typed.send(typed).await.is_err() {
            return Err(self.over());
        }
        match answered.await {
            Ok(result) => result,
            Err(_) => Err(self.over()),
        }
    }

    /// Types a line, with what ends it: CR alone where keys are sent, as a terminal's Enter.
    ///
    /// # Errors
    /// As [`Console::write`].
    pub async fn write_line(&mut self, line: &str) -> Result<(), BmcError> {
        self.write(format!("{line}\r").as_bytes()).await
    }

    /// Ends it in an orderly way: a websocket is closed, and not just dropped.
    pub async fn close(mut self) {
        let Self { typed, task, heard, .. } = &mut self;
        heard.close();
        let (closed, _) = mpsc::channel(1);
        *typed = closed;
        if let Some(task) = task.0.take() {
            let abort = task.abort_handle();
            if tokio::time::timeout(BESIDE, task).await.is_err() {
                abort.abort();
            }
        }
    }

    fn over(&self) -> BmcError {
        BmcError::Unreachable { attempt: self.attempt.clone(), source: "the console has ended".into() }
    }
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console")
            .field("slot", &self.slot.number())
            .field("sends_keys", &self.sends_keys())
            .finish_non_exhaustive()
    }
}

/// The far end of [`Console::pair`]: plays the node.
pub struct ConsolePeer {
    heard: mpsc::Sender<Result<UartText, BmcError>>,
    typed: mpsc::Receiver<Typed>,
}

impl fmt::Debug for ConsolePeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConsolePeer")
    }
}

impl ConsolePeer {
    /// Writes text, or ends the console with an error. False if nobody listens any more.
    pub async fn say(&self, heard: Result<UartText, BmcError>) -> bool {
        self.heard.send(heard).await.is_ok()
    }
    /// The next thing that was typed; `None` when the console is gone.
    pub async fn typed(&mut self) -> Option<Vec<u8>> {
        let Typed { bytes, done } = self.typed.recv().await?;
        let _ = done.send(Ok(()));
        Some(bytes)
    }
}

impl HttpBmcClient {
    pub(crate) async fn open_console(&self, slot: Slot) -> Result<Console, BmcError> {
        let attempt = self.session().attempt(format!("follow the console of slot {slot}"));
        let (mut mark, history) = self.mark_uart_with(slot).await?;
        let mut first = None;
        let socket = if self.firmware().await?.has(Capability::SerialSocket) {
            match self.open_socket(slot, &mut mark).await {
                Ok((socket, between)) => {
                    first = Some(between);
                    Some(socket)
                }
                Err(error) => {
                    tracing::debug!(bmc = %self.session().name(), %slot, %error, "polls instead");
                    None
                }
            }
        } else {
            None
        };
        let (mut console, ends) = Console::new(slot, attempt, socket.is_some(), history);
        let client = self.clone();
        let task = async move {
            if let Some(text) = first.filter(|text| !text.text.is_empty() || text.gap)
                && ends.heard.send(Ok(text)).await.is_err()
            {
                return;
            }
            client.carry(mark, socket, ends).await;
        };
        console.task = Task(Some(tokio::spawn(task)));
        Ok(console)
    }

    async fn carry(self, mark: crate::UartMark, socket: Option<socket::Socket>, mut ends: Ends) {
        let Some(socket) = socket else { return poll::run(&self, mark, ends).await };
        if socket::run(socket, &mut ends).await {
            return;
        }
        tracing::debug!(bmc = %self.session().name(), slot = %ends.slot, "the websocket broke; polls from now on");
        ends.keys.store(false, Ordering::Relaxed);
        // What was written meanwhile cannot be told from what was read before.
        match self.mark_uart(ends.slot).await {
            Ok(mark) => {
                if ends.heard.send(Ok(UartText::new("", true))).await.is_ok() {
                    poll::run(&self, mark, ends).await;
                }
            }
            Err(error) => {
                let _ = ends.heard.send(Err(error)).await;
            }
        }
    }
}
