//! A running program's surroundings: who it runs as, where its bytes come from and go to.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Node, users::Account};

/// Which of the two output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Out,
    Err,
}

/// Takes output as it is written.
pub(crate) type Sink = Arc<dyn Fn(Stream, &[u8]) + Send + Sync>;

/// Standard input that may still be arriving. Clones share the position.
#[derive(Clone)]
pub(crate) struct Stdin(Arc<tokio::sync::Mutex<Arriving>>);

struct Arriving {
    from: mpsc::UnboundedReceiver<Bytes>,
    held: VecDeque<u8>,
    ended: bool,
}

impl Arriving {
    async fn more(&mut self) -> bool {
        if self.ended {
            return false;
        }
        match self.from.recv().await {
            Some(bytes) => self.held.extend(bytes.iter()),
            None => self.ended = true,
        }
        !self.ended
    }
}

impl Stdin {
    /// Input that arrives through a channel and ends when its sender is dropped.
    pub(crate) fn new(from: mpsc::UnboundedReceiver<Bytes>) -> Self {
        Self(Arc::new(tokio::sync::Mutex::new(Arriving { from, held: VecDeque::new(), ended: false })))
    }
    /// Input that is at its end: `/dev/null`.
    pub(crate) fn empty() -> Self {
        Self::new(mpsc::unbounded_channel().1)
    }
    /// These bytes, then the end.
    pub(crate) fn bytes(bytes: impl Into<Bytes>) -> Self {
        let (to, from) = mpsc::unbounded_channel();
        let _ = to.send(bytes.into());
        Self::new(from)
    }
    /// The next piece; `None` at the end.
    pub(crate) async fn chunk(&self) -> Option<Vec<u8>> {
        let mut at = self.0.lock().await;
        while at.held.is_empty() {
            if !at.more().await {
                return None;
            }
        }
        Some(at.held.drain(..).collect())
    }
    /// A line without its end; `None` at the end of input.
    pub(crate) async fn line(&self) -> Option<String> {
        let mut at = self.0.lock().await;
        loop {
            if let Some(end) = at.held.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = at.held.drain(..=end).take(end).collect();
                return Some(String::from_utf8_lossy(&line).into_owned());
            }
            if !at.more().await {
                let rest: Vec<u8> = at.held.drain(..).collect();
                return (!rest.is_empty()).then(|| String::from_utf8_lossy(&rest).into_owned());
            }
        }
    }
    /// Up to `count` bytes; fewer only at the end.
    pub(crate) async fn exactly(&self, count: usize) -> Vec<u8> {
        let mut at = self.0.lock().await;
        while at.held.len() < count && at.more().await {}
        let count = count.min(at.held.len());
        at.held.drain(..count).collect()
    }
    /// Everything that is left.
    pub(crate) async fn rest(&self) -> Vec<u8> {
        let mut at = self.0.lock().await;
        while at.more().await {}
        at.held.drain(..).collect()
    }
    /// Everything, if the end arrives while this future is polled; a caller may drop it without losing bytes.
    pub(crate) async fn until_end(&self) {
        let mut at = self.0.lock().await;
        while at.more().await {}
    }
    /// Waits for the next bytes or the end without taking them; `false` at the end.
    pub(crate) async fn wait_more(&self) -> bool {
        self.0.lock().await.more().await
    }
    /// Takes what has arrived.
    pub(crate) async fn take(&self) -> Vec<u8> {
        self.0.lock().await.held.drain(..).collect()
    }
}

/// A program to run in place of the script that asked for it (`exec`).
#[derive(Debug, Clone)]
pub(crate) struct Replace {
    pub(crate) argv: Vec<String>,
    pub(crate) env: HashMap<String, String>,
    pub(crate) cwd: String,
}

/// One process tree as the node sees it: a login, an exec, a service.
pub(crate) struct Session {
    pub(crate) node: Arc<Node>,
    pub(crate) account: Account,
    pub(crate) umask: AtomicU32,
    pub(crate) stdin: Stdin,
    pub(crate) sink: Sink,
    /// A terminal: prompts and wizards speak.
    pub(crate) tty: bool,
    /// Who called sudo.
    pub(crate) sudo_user: Option<String>,
    pub(crate) env: Mutex<HashMap<String, String>>,
    pub(crate) cwd: Mutex<String>,
    pub(crate) replace: Mutex<Option<Replace>>,
    /// Ends when the node loses power or the program is killed.
    pub(crate) cancel: CancellationToken,
    /// Writes fail: the disk is full for this program.
    pub(crate) full: AtomicBool,
    /// The next file written reads back differently.
    pub(crate) corrupt: AtomicBool,
    /// The work is done, but the connection is cut before the answer.
    pub(crate) cut_after: AtomicBool,
    /// The node reboots when the work is done.
    pub(crate) reboot_after: AtomicBool,
    /// sudo runs something for it at the moment.
    pub(crate) elevated: AtomicBool,
    /// Came through SSH: faults look at it.
    pub(crate) remote: AtomicBool,
    /// The command line of the exec request it came from.
    pub(crate) command: Mutex<String>,
    pub(crate) pid: u32,
}

impl Session {
    /// A program of `account` on a node that runs.
    pub(crate) fn new(node: &Arc<Node>, account: Account, stdin: Stdin, sink: Sink) -> Self {
        let cancel = node.running_token().child_token();
        let pid = node.next_pid();
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let path =
            if account.uid == 0 { path } else { "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games" };
        let env = HashMap::from([
            ("HOME".to_owned(), account.home.clone()),
            ("USER".to_owned(), account.name.clone()),
            ("LOGNAME".to_owned(), account.name.clone()),
            ("SHELL".to_owned(), account.shell.clone()),
            ("PATH".to_owned(), path.to_owned()),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
        ]);
        let cwd = account.home.clone();
        Self {
            node: Arc::clone(node),
            account,
            umask: AtomicU32::new(0o022),
            stdin,
            sink,
            tty: false,
            sudo_user: None,
            env: Mutex::new(env),
            cwd: Mutex::new(cwd),
            replace: Mutex::new(None),
            cancel,
            full: AtomicBool::new(false),
            corrupt: AtomicBool::new(false),
            cut_after: AtomicBool::new(false),
            reboot_after: AtomicBool::new(false),
            elevated: AtomicBool::new(false),
            remote: AtomicBool::new(false),
            command: Mutex::default(),
            pid,
        }
    }
    /// The same program tree under another account (sudo) or with other streams.
    pub(crate) fn child(&self, account: Account, stdin: Stdin, sink: Sink) -> Self {
        let mut child = Self::new(&self.node, account, stdin, sink);
        child.cancel = self.cancel.child_token();
        child.pid = self.pid;
        child.umask = AtomicU32::new(self.umask.load(Ordering::Relaxed));
        child.full = AtomicBool::new(self.full.load(Ordering::Relaxed));
        child.corrupt = AtomicBool::new(self.corrupt.load(Ordering::Relaxed));
        child.remote = AtomicBool::new(self.remote.load(Ordering::Relaxed));
        child.command = Mutex::new(self.command.lock().unwrap_or_else(PoisonError::into_inner).clone());
        child.tty = self.tty;
        child.cwd = Mutex::new(self.cwd());
        if child.account.uid == self.account.uid {
            child.env = Mutex::new(self.env());
        }
        child
    }
    pub(crate) fn env(&self) -> HashMap<String, String> {
        self.env.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    pub(crate) fn cwd(&self) -> String {
        self.cwd.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    pub(crate) fn set_env(&self, name: &str, value: &str) {
        self.env.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), value.to_owned());
    }
    /// `/proc/<pid>/stat` of the program's shell, which leads its process session.
    pub(crate) fn stat_line(&self) -> String {
        format!("{0} (sh) S 700 {0} {0} 0 -1 4194304 100 0 0 0 0 0 0 0 20 0 1 0 100 2580480 200\n", self.pid)
    }
    /// Puts the program in the process list until the guard is dropped.
    pub(crate) fn listed(&self, args: &str) -> Listed {
        let process = super::os::Process {
            pid: self.pid,
            user: self.account.name.clone(),
            args: args.to_owned(),
            cancel: Some(self.cancel.clone()),
        };
        let (path, text) = (format!("/proc/{}/stat", self.pid), self.stat_line());
        self.node.os(|os| {
            os.vfs.put(&path, text);
            if let Some(running) = &mut os.running {
                running.processes.push(process);
            }
        });
        Listed { node: Arc::clone(&self.node), pid: self.pid }
    }
    pub(crate) fn root(&self) -> bool {
        self.account.uid == 0
    }
    pub(crate) fn err(&self, text: &str) {
        (self.sink)(Stream::Err, text.as_bytes());
    }
    pub(crate) fn out(&self, text: &str) {
        (self.sink)(Stream::Out, text.as_bytes());
    }
}

/// A program in the process list.
pub(crate) struct Listed {
    node: Arc<Node>,
    pid: u32,
}

impl Drop for Listed {
    fn drop(&mut self) {
        let (folder, pid) = (format!("/proc/{}", self.pid), self.pid);
        self.node.os(|os| {
            if let Some(running) = &mut os.running {
                running.processes.retain(|process| process.pid != pid);
                let _ = os.vfs.remove(&folder, true);
            }
        });
    }
}

/// Standard output and standard error of a program that was captured.
pub(crate) type Kept = Arc<Mutex<(Vec<u8>, Vec<u8>)>>;

/// A sink that keeps what it is given.
pub(crate) fn capture() -> (Sink, Kept) {
    let kept = Arc::new(Mutex::new((Vec::new(), Vec::new())));
    let to = Arc::clone(&kept);
    let sink: Sink = Arc::new(move |stream, bytes| {
        let mut kept = to.lock().unwrap_or_else(PoisonError::into_inner);
        match stream {
            Stream::Out => kept.0.extend_from_slice(bytes),
            Stream::Err => kept.1.extend_from_slice(bytes),
        }
    });
    (sink, kept)
}
