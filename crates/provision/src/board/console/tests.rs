//! A console over a line that breaks.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use turingpi_bmc::{Attempt, ConsolePeer};

use super::*;

/// What the line does when it is opened, in order.
enum Opening {
    /// It opens; the buffer holds this.
    Opens(&'static str),
    Fails(fn() -> BmcError),
}

struct Broken {
    slot: Slot,
    openings: Mutex<VecDeque<Opening>>,
    /// The far ends of consoles that were opened.
    peers: mpsc::UnboundedSender<ConsolePeer>,
    /// Whether an ordinary call is answered.
    answers: Arc<AtomicBool>,
    answered: mpsc::UnboundedSender<()>,
    keeps: bool,
}

#[async_trait]
impl Line for Broken {
    async fn open(&self) -> Result<Console, BmcError> {
        let opening = self.openings.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        match opening {
            Some(Opening::Opens(history)) => {
                let (console, peer) = Console::pair(self.slot, false, history);
                self.peers.send(peer).unwrap();
                Ok(console)
            }
            Some(Opening::Fails(error)) => Err(error()),
            None => Err(unreachable()),
        }
    }
    async fn probe(&self) -> Result<Option<String>, BmcError> {
        while !self.answers.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let _ = self.answered.send(());
        Ok(Some("Node 2 os install service".to_owned()))
    }
    fn keeps(&self) -> bool {
        self.keeps
    }
    async fn failure(&self, error: BmcError) -> Failure {
        turingpi_cluster::imaging::bmc_failure("board1", error)
    }
}

fn unreachable() -> BmcError {
    BmcError::Unreachable { attempt: attempt(), source: "no route".into() }
}
fn attempt() -> Attempt {
    Attempt::new("look at the console", "bmc")
}
fn stalled() -> BmcError {
    BmcError::Stalled { attempt: attempt(), limit: Duration::from_secs(30) }
}
fn banned() -> BmcError {
    BmcError::Banned { attempt: attempt(), wait: Duration::from_millis(10) }
}
fn changed() -> BmcError {
    BmcError::Tls { attempt: attempt(), expected: None, found: None, source: None }
}

struct Bench {
    console: BoardConsole,
    peers: mpsc::UnboundedReceiver<ConsolePeer>,
    answers: Arc<AtomicBool>,
    answered: mpsc::UnboundedReceiver<()>,
}

async fn bench(openings: Vec<Opening>, keeps: bool) -> Bench {
    let (peers_in, peers) = mpsc::unbounded_channel();
    let answers = Arc::new(AtomicBool::new(true));
    let (answered_in, answered) = mpsc::unbounded_channel();
    let line = Broken {
        slot: Slot::ALL[1],
        openings: Mutex::new(openings.into()),
        peers: peers_in,
        answers: answers.clone(),
        answered: answered_in,
        keeps,
    };
    let patience = Patience {
        quiet: Duration::from_millis(10),
        slow: Duration::from_millis(20),
        retry: Duration::from_millis(5),
        unreachable: Duration::from_millis(200),
        hanging: Duration::from_secs(120),
    };
    Bench { console: follow(Arc::new(line), patience).await.unwrap(), peers, answers, answered }
}

impl Bench {
    async fn next(&mut self) -> Result<ConsoleEvent, Failure> {
        timeout(Duration::from_secs(60), self.console.next()).await.expect("nothing happens")
    }
    async fn text(&mut self) -> UartText {
        match self.next().await.unwrap() {
            ConsoleEvent::Text(text) => text,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_console_goes_on_after_a_broken_connection_without_repeating_or_losing_anything() {
    let after = Opening::Opens("booting the system\r\nlogin: and more");
    let openings =
        vec![Opening::Opens("booting the "), Opening::Fails(unreachable), Opening::Fails(banned), after];
    let mut bench = bench(openings, true).await;
    assert_eq!(bench.console.history(), "booting the ");
    let peer = bench.peers.recv().await.unwrap();
    peer.say(Ok(UartText::new("system\r\nlogin: ", false))).await;
    assert_eq!(bench.text().await.text, "system\r\nlogin: ");
    peer.say(Err(unreachable())).await;
    assert!(matches!(bench.next().await.unwrap(), ConsoleEvent::Interrupted { .. }));
    assert!(matches!(bench.next().await.unwrap(), ConsoleEvent::Answering { .. }));
    let text = bench.text().await;
    assert_eq!((text.text.as_str(), text.gap), ("and more", false));
    let mut peer = bench.peers.recv().await.unwrap();
    assert!(bench.console.typist().type_soon(b"root\r".to_vec()).await);
    assert_eq!(peer.typed().await.unwrap(), b"root\r");
}

#[tokio::test]
async fn a_bmc_that_hangs_is_told_once_with_the_transfer_and_is_no_end() {
    let mut bench =
        bench(vec![Opening::Opens(""), Opening::Fails(stalled), Opening::Opens("after")], false).await;
    let peer = bench.peers.recv().await.unwrap();
    // Every silence is asked about; only one that is not answered is told.
    for _ in 0..3 {
        bench.answered.recv().await.unwrap();
    }
    bench.answers.store(false, Ordering::Relaxed);
    match bench.next().await.unwrap() {
        ConsoleEvent::Hanging { transfer, .. } => {
            assert_eq!(transfer.as_deref(), Some("Node 2 os install service"));
        }
        other => panic!("{other:?}"),
    }
    peer.say(Err(stalled())).await;
    assert!(matches!(bench.next().await.unwrap(), ConsoleEvent::Answering { .. }));
    assert_eq!(bench.text().await.text, "after");
}

#[tokio::test]
async fn what_is_gone_for_good_ends_it_with_the_reason() {
    let mut bench_gone = bench(vec![Opening::Opens("")], true).await;
    bench_gone.peers.recv().await.unwrap().say(Err(unreachable())).await;
    assert!(matches!(bench_gone.next().await.unwrap(), ConsoleEvent::Interrupted { .. }));
    assert_eq!(bench_gone.next().await.unwrap_err().class(), FailureClass::Unreachable);

    let mut other = bench(vec![Opening::Opens(""), Opening::Opens("")], true).await;
    other.peers.recv().await.unwrap().say(Err(changed())).await;
    assert_eq!(other.next().await.unwrap_err().class(), FailureClass::Auth);
    assert!(!other.console.typist().type_soon(vec![b'x']).await || other.next().await.is_err());
}

#[tokio::test]
async fn what_was_typed_is_sent_before_the_end() {
    let mut bench = bench(vec![Opening::Opens("")], true).await;
    let mut peer = bench.peers.recv().await.unwrap();
    let typist = bench.console.typist();
    for line in ["one\r", "two\r", "three\r"] {
        assert!(typist.try_type(line.as_bytes().to_vec()));
    }
    let node = tokio::spawn(async move {
        let mut all = Vec::new();
        while let Some(bytes) = peer.typed().await {
            all.extend(bytes);
        }
        all
    });
    bench.console.close().await;
    assert_eq!(node.await.unwrap(), b"one\rtwo\rthree\r");
    assert!(!typist.try_type(vec![b'x']));
}
