//! `board console`: on a terminal, in a pipe, and as a script.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::PermissionsExt as _,
    process::Stdio,
};

use serde_json::json;

use crate::{
    pty::Pty,
    support::{Board, interrupt},
};

/// A module whose system runs already.
pub(crate) const RUNNING: &str = "\
name: lab
version: v1.35.5+k3s1
boards:
  board1: { bmc: 10.0.0.2, credentials: { password: { env: TPI_PASSWORD } } }
ssh: { identity: ~/.ssh/id_ed25519 }
nodes:
  - { name: node1, role: control-plane, address: 10.0.0.3, slot: board1/1 }
";
const CONSOLE: [&str; 6] = ["board", "console", "--document", "sim/cluster.yaml", "-n", "1"];

fn console<'a>(more: &[&'a str]) -> Vec<&'a str> {
    CONSOLE.iter().chain(more).copied().collect()
}

fn password(board: &Board) -> String {
    fs::read_to_string(board.place.path("sim/bmc-password")).unwrap().trim().to_owned()
}

#[test]
fn a_console_on_a_terminal_is_typed_on_left_with_its_escape_key_and_leaves_the_terminal_as_it_was() {
    let board = Board::start(RUNNING);
    let command = board.place.command(&console(&["--history", "--log", "node1.log"]));
    let mut pty = Pty::start(command, 80, 24);
    assert!(pty.is_cooked());
    let at = pty.shows(0, "~. after Enter leaves");
    let at = pty.shows(at, "login: ");
    pty.until("raw", || (!pty.is_cooked()).then_some(()));
    pty.press("root\r");
    let at = pty.shows(at, "Password: ");
    pty.press(&format!("{}\r", password(&board)));
    let at = pty.shows(at, "root@");
    pty.press("echo answer-$((6*7))\r");
    let at = pty.shows(at, "answer-42");
    // This firmware sends whole lines: Ctrl-C is told to be none, and does not end the program.
    pty.press("\x03");
    let at = pty.shows(at, "Ctrl-C, arrows");
    pty.press("\r~?");
    let at = pty.shows(at, "send ~");
    pty.press("\r~~x\r");
    let at = pty.shows(at, "~x");
    assert!(!pty.is_cooked());
    pty.press("~.");
    pty.shows(at, "left the console of slot 1 of board1 (node1)");
    assert_eq!(pty.ends().code(), Some(0));
    assert!(pty.is_cooked(), "the terminal is as it was");
    assert!(!pty.shown().contains(&password(&board)), "the password was shown");

    let log = board.place.path("node1.log");
    assert_eq!(fs::metadata(&log).unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.contains("login: root\r\n") && text.contains("answer-42") && !text.contains("~?"), "{text}");
}

#[test]
fn a_signal_leaves_the_terminal_as_it_was() {
    let board = Board::start(RUNNING);
    for signal in ["TERM", "HUP"] {
        let mut pty = Pty::start(board.place.command(&console(&[])), 80, 24);
        pty.until("raw", || (!pty.is_cooked()).then_some(()));
        pty.signal(signal);
        assert_eq!(pty.ends().code(), Some(130), "{signal}:\n{}", pty.shown());
        assert!(pty.is_cooked(), "{signal}");
    }
}

#[test]
fn a_script_expects_and_sends_in_order_and_prints_what_matched() {
    let board = Board::start(RUNNING);
    let login = [
        "--history",
        "--expect",
        "login: ",
        "--send",
        "root",
        "--expect",
        "assword",
        "--send",
        "-",
        "--expect",
        "root@[a-z0-9]+",
        "--send",
        "echo a$((40+2))b",
        "--expect",
        r"a(\d+)b\n",
    ];
    let mut command = board.place.command(&console(&login));
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "{}", password(&board)).unwrap();
    let ran = crate::support::Ran::of(&["console"], child.wait_with_output().unwrap()).ends(0);
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_eq!((lines[0], lines[1], lines[2]), ("login: ", "assword", "root@node1"), "{}", ran.out);
    assert_eq!(lines[3], "a42b");

    let more = ["--send", "echo c$((1+1))d", "--expect", r"c(\d)d", "--output", "json"];
    let told = board.run(&console(&more)).ends(0).lines();
    assert_eq!((&told[0]["event"], &told[0]["node"]), (&json!("opened"), &json!("node1")));
    assert!(told.iter().any(|line| line["event"] == "text" && line["text"].is_string()), "{told:#?}");
    let last = told.last().unwrap();
    assert_eq!((&last["event"], &last["exit_code"]), (&json!("result"), &json!(0)));
    assert_eq!(last["matches"][0]["groups"], json!(["2"]), "{last}");
}

#[test]
fn what_does_not_come_in_time_ends_with_9_and_shows_what_came_last() {
    let board = Board::start(RUNNING);
    let never = ["--history", "--expect", "never comes", "--timeout", "300ms"];
    board.run(&console(&never)).ends(9).says(&[
        "did not show `never comes` within 300 ms",
        "login:",
        "next:",
    ]);
    let json = [&never[..], &["--output", "json"]].concat();
    let last = board.run(&console(&json)).ends(9).lines().pop().unwrap();
    assert_eq!(
        (&last["event"], &last["outcome"], &last["error"]["class"]),
        (&json!("result"), &json!("failed"), &json!("timeout"))
    );
    let quiet = ["--expect", "never comes", "--timeout", "300ms"];
    board.run(&console(&quiet)).ends(9).says(&["it showed nothing at all", "--history"]);
}

#[test]
fn in_a_pipe_lines_are_sent_and_what_the_node_writes_cannot_steer_a_terminal() {
    let board = Board::start(RUNNING);
    let mut command = board.place.command(&console(&["--history", "--log", "raw.log"]));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    write!(input, "root\n{}\nprintf '\\033]0;evil\\007x\\033[31mred\\033[0m-%s\\n' end\n", password(&board))
        .unwrap();
    let mut all = String::new();
    while !all.contains("xred-end\n") {
        assert_ne!(output.read_line(&mut all).unwrap(), 0, "it ended: {all}");
    }
    assert!(!all.contains(['\x1b', '\x07', '\r']), "{all:?}");
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(0), "Ctrl-C is the usual end of listening");
    let raw = fs::read_to_string(board.place.path("raw.log")).unwrap();
    assert!(raw.contains("\x1b[31mred"), "the log has it as it came: {raw:?}");

    // Only listening needs no input, and ends after its time.
    let heard = board.run(&console(&["--no-input", "--history=1", "--timeout", "100ms"])).ends(0);
    assert!(heard.out.lines().count() <= 2, "{}", heard.out);
}

#[test]
fn a_log_that_others_can_read_is_refused() {
    let board = Board::start(RUNNING);
    let log = board.place.write("open.log", "");
    fs::set_permissions(&log, fs::Permissions::from_mode(0o644)).unwrap();
    board.run(&console(&["--no-input", "--log", "open.log"])).ends(4).says(&["others can read", "chmod 600"]);
}
