//! The console as a stream.

use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_tungstenite::tungstenite::Message;
use turingpi_bmc::{BmcClient, BmcError, BmcTimeouts, Capability, Console, Slot, UartText};

use crate::server::{ABOUT_COMMUNITY, Answer, OK, PASSWORD, Server, Socket, timeouts};

const SLOT: Slot = Slot::ALL[1];

fn uart(text: &str) -> Answer {
    Answer::json(&serde_json::json!({ "response": [{ "uart": text }] }).to_string())
}

fn socket(server: &Server) -> (UnboundedSender<Message>, UnboundedReceiver<Message>) {
    let (say, said) = unbounded_channel();
    let (hear, heard) = unbounded_channel();
    server.set(|state| state.socket = Some(Socket { say: said, hear }));
    (say, heard)
}

async fn read_until(console: &mut Console, end: &str) -> String {
    let mut text = String::new();
    let read = async {
        while !text.ends_with(end) {
            text += &console.read().await.unwrap().text;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), read).await.unwrap();
    text
}

#[tokio::test]
async fn official_firmware_is_polled_and_never_asked_for_a_websocket() {
    let server = Server::start().await;
    server.script("type=uart&node=1&cmd", Answer::json(OK), usize::MAX);
    for text in ["old\r\n", "old\r\n", "old\r\nturing login: "] {
        server.script("opt=get&type=uart", uart(text), 1);
    }
    server.script("opt=get&type=uart", uart("old\r\nturing login: root\r\nPassword: "), usize::MAX);
    let client = server.client();
    let mut console = client.console(SLOT).await.unwrap();
    assert_eq!((console.history(), console.sends_keys(), console.slot()), ("old\r\n", false, SLOT));
    assert_eq!(read_until(&mut console, "Password: ").await, "turing login: root\r\nPassword: ");
    console.write(b"hun").await.unwrap();
    console.write(b"ter2\r").await.unwrap();
    assert_eq!(server.count("cmd="), 1, "a line, not its pieces");
    assert!(server.lines().iter().any(|line| line.ends_with("&cmd=hunter2")));
    let error = console.write(b"\x03").await.unwrap_err();
    assert!(matches!(error, BmcError::Unsupported { capability: Capability::SerialKeys, .. }), "{error:?}");
    assert_eq!(server.count("serial/ws"), 0, "it blocks the whole BMC for 30 seconds");
    console.close().await;
    // Others use the client meanwhile, and afterwards.
    client.about().await.unwrap();
}

#[tokio::test]
async fn a_read_can_be_dropped_at_any_time_and_loses_nothing() {
    let server = Server::start().await;
    server.set(|state| state.about = crate::server::ABOUT_2_0_5.to_owned());
    let lines: Vec<String> = (0..60).map(|n| format!("line {n}\r\n")).collect();
    server.script("opt=get&type=uart", uart("drained before"), 1);
    for line in &lines {
        // This firmware empties its buffer by reading: what is lost here is gone.
        server.script("opt=get&type=uart", Answer::Late(Duration::from_millis(3), Box::new(uart(line))), 1);
    }
    server.script("opt=get&type=uart", uart(""), usize::MAX);
    let mut console = server.client().console(SLOT).await.unwrap();
    let mut text = String::new();
    let read = async {
        while !text.ends_with("line 59\r\n") {
            tokio::select! {
                biased;
                heard = console.read() => text += &heard.unwrap().text,
                () = tokio::time::sleep(Duration::from_millis(1)) => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), read).await.unwrap();
    assert_eq!(text, lines.concat());
}

#[tokio::test]
async fn failed_looks_are_borne_for_a_while_and_then_end_the_console() {
    let server = Server::start().await;
    server.script("opt=get&type=uart", uart("a"), 1);
    for _ in 0..3 {
        server.script("opt=get&type=uart", Answer::Close, 1);
    }
    server.script("opt=get&type=uart", uart("ab"), 1);
    server.script("opt=get&type=uart", Answer::plain(500, "Stopped"), 1);
    let mut console = server.client().console(SLOT).await.unwrap();
    assert_eq!(console.read().await.unwrap(), UartText::new("b", false));
    let error = console.read().await.unwrap_err();
    assert!(matches!(error, BmcError::Api { status: 500, .. }), "{error:?}");
    console.read().await.unwrap_err();
    console.write(b"x\r").await.unwrap_err();
}

#[tokio::test]
async fn community_firmware_gets_every_key_over_its_websocket() {
    let server = Server::start().await;
    server.set(|state| state.about = ABOUT_COMMUNITY.to_owned());
    let (say, mut heard) = socket(&server);
    server.script("opt=get&type=uart", uart("old\r\n"), 1);
    server.script("opt=get&type=uart", uart("old\r\nbetween "), usize::MAX);
    let client = server.client();
    let mut console = client.console(SLOT).await.unwrap();
    assert_eq!((console.history(), console.sends_keys()), ("old\r\n", true));
    for bytes in [&b"turing log"[..], b"in: \xc3", b"\xa4"] {
        say.send(Message::Binary(bytes.to_vec().into())).unwrap();
    }
    say.send(Message::Ping("".into())).unwrap();
    assert_eq!(read_until(&mut console, "ä").await, "between turing login: ä");
    console.write(b"\x03").await.unwrap();
    console.write(b"\x1b[A").await.unwrap();
    let mut typed = Vec::new();
    while typed.len() < 4 {
        if let Message::Binary(bytes) = heard.recv().await.unwrap() {
            typed.extend_from_slice(&bytes);
        }
    }
    assert_eq!(typed, b"\x03\x1b[A");
    let handshake = server.seen().into_iter().find(|seen| seen.line.contains("serial/ws")).unwrap();
    assert_eq!(handshake.line, "GET /api/bmc/serial/ws?node=1");
    assert!(
        handshake.headers.iter().any(|(name, value)| name == "authorization" && value.starts_with("Bearer "))
    );
    assert_eq!(server.count("cmd="), 0);
    // Ordinary calls go on beside it.
    client.about().await.unwrap();
    console.close().await;
    let closed = async { while !matches!(heard.recv().await, Some(Message::Close(_)) | None) {} };
    tokio::time::timeout(Duration::from_secs(60), closed).await.unwrap();
}

#[tokio::test]
async fn a_websocket_that_breaks_is_replaced_by_polling_and_says_so() {
    let server = Server::start().await;
    server.set(|state| state.about = ABOUT_COMMUNITY.to_owned());
    let (say, _heard) = socket(&server);
    for text in ["old", "old", "old new"] {
        server.script("opt=get&type=uart", uart(text), 1);
    }
    server.script("opt=get&type=uart", uart("old new newer"), usize::MAX);
    let mut console = server.client().console(SLOT).await.unwrap();
    say.send(Message::Text(" new".into())).unwrap();
    assert_eq!(console.read().await.unwrap(), UartText::new(" new", false));
    drop(say);
    assert_eq!(console.read().await.unwrap(), UartText::new("", true), "something may be missing here");
    assert!(!console.sends_keys());
    assert_eq!(console.read().await.unwrap(), UartText::new(" newer", false));
}

#[tokio::test]
async fn a_websocket_that_is_refused_or_locks_the_bmc_is_given_up() {
    // Refused.
    let server = Server::start().await;
    server.set(|state| state.about = ABOUT_COMMUNITY.to_owned());
    server.script("opt=get&type=uart", uart("old"), 1);
    server.script("opt=get&type=uart", uart("old new"), usize::MAX);
    let mut console = server.client().console(SLOT).await.unwrap();
    assert!(!console.sends_keys());
    assert_eq!(read_until(&mut console, "new").await, " new");
    // Open, and nobody else is served meanwhile.
    let server = Server::start().await;
    server.set(|state| state.about = ABOUT_COMMUNITY.to_owned());
    let (_say, mut heard) = socket(&server);
    server.script("opt=get&type=uart", uart("old"), 1);
    server.script("opt=get&type=uart", Answer::Hang, 1);
    server.script("opt=get&type=uart", uart("old new"), usize::MAX);
    let short = BmcTimeouts { call: Duration::from_secs(2), ..timeouts() };
    let mut console = server.client_with(short, PASSWORD).console(SLOT).await.unwrap();
    assert!(!console.sends_keys());
    assert_eq!(read_until(&mut console, "new").await, " new");
    assert!(heard.recv().await.is_none(), "the websocket is gone");
}

#[tokio::test]
async fn a_console_ends_with_its_owner() {
    let server = Server::start().await;
    server.script("opt=get&type=uart", uart("old"), usize::MAX);
    let console = server.client().console(SLOT).await.unwrap();
    drop(console);
    // Looks come every 2 ms; one may be under way.
    let mut before = usize::MAX;
    let quiet = async {
        while before != server.count("opt=get&type=uart") {
            before = server.count("opt=get&type=uart");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), quiet).await.unwrap();
}

#[tokio::test]
async fn a_double_plays_the_node_for_tests_of_others() {
    let (mut console, mut peer) = Console::pair(SLOT, true, "U-Boot");
    let node = tokio::spawn(async move {
        assert!(peer.say(Ok(UartText::new("login: ", false))).await);
        peer.typed().await
    });
    assert_eq!(console.history(), "U-Boot");
    assert_eq!(console.read().await.unwrap().text, "login: ");
    console.write_line("root").await.unwrap();
    assert_eq!(node.await.unwrap().unwrap(), b"root\r");
    console.read().await.unwrap_err();
}
