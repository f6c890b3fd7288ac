//! `board watch`: once, as data, and on a terminal.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use serde_json::{Value, json};

use crate::{
    console::RUNNING,
    pty::Pty,
    support::{Board, interrupt},
};

const WATCH: [&str; 6] = ["board", "watch", "--document", "sim/cluster.yaml", "--interval", "1s"];

fn watch<'a>(more: &[&'a str]) -> Vec<&'a str> {
    WATCH.iter().chain(more).copied().collect()
}

/// A board whose BMC was asked for the power that its module has.
fn running() -> Board {
    let board = Board::start(RUNNING);
    board.run(&["board", "power", "on", "-n", "1", "--document", "sim/cluster.yaml"]).ends(0);
    board
}

#[test]
fn a_board_is_printed_once_as_text_and_as_data() {
    let board = running();
    board.run(&watch(&[])).ends(64).says(&["needs a terminal", "--once", "board info"]);
    let page = board.run(&watch(&["--once"])).ends(0);
    let node = page.out.lines().find(|line| line.contains("node1")).unwrap();
    assert!(
        node.contains(" on ") && node.contains("login") && node.contains("control-plane"),
        "{}",
        page.out
    );
    assert!(page.out.lines().all(|l| l.chars().count() <= 80) && !page.out.contains('\x1b'), "{}", page.out);
    let seen = board.run(&watch(&["--once", "--output", "json"])).ends(0).json();
    assert_eq!((&seen["board"], &seen["slots"][0]["state"]), (&json!("board1"), &json!("login")), "{seen:#}");
    assert_eq!((&seen["slots"][1]["power"], &seen["trouble"]), (&json!("off"), &Value::Null), "{seen:#}");
}

#[test]
fn power_is_switched_from_the_live_view_after_a_yes_and_the_terminal_is_as_it_was_afterwards() {
    let board = running();
    let mut pty = Pty::start(board.place.command(&watch(&[])), 80, 24);
    pty.shows(0, "\x1b[?1049h");
    pty.displays("node1");
    pty.displays("login");
    assert!(!pty.is_cooked());
    pty.press("p");
    pty.displays("power of node1");
    pty.press("f");
    pty.displays("Press y");
    pty.press("n");
    pty.press("p");
    pty.press("f");
    pty.press("y");
    pty.until("off", || {
        let told =
            board.run(&["board", "power", "status", "--document", "sim/cluster.yaml", "--output", "json"]);
        (told.ends(0).json()["slots"][0]["power"] == "off").then_some(())
    });
    pty.press("\r");
    pty.displays("console of node1");
    pty.press("\x1b");
    pty.displays("what happened");
    pty.press("q");
    assert_eq!(pty.ends().code(), Some(0));
    // What it wrote last may still be on its way to here.
    pty.until("the screen is given back", || {
        let shown = pty.shown();
        (shown.contains("\x1b[?1049l") && shown.ends_with("\x1b[?25h")).then_some(())
    });
    assert!(pty.is_cooked());
}

#[test]
fn ctrl_c_and_a_signal_leave_the_live_view_and_a_tiny_terminal_is_told_so() {
    let board = running();
    let mut pty = Pty::start(board.place.command(&watch(&[])), 30, 6);
    pty.displays("too small");
    pty.press("\x03");
    assert_eq!(pty.ends().code(), Some(0));
    assert!(pty.is_cooked());
    let mut pty = Pty::start(board.place.command(&watch(&[])), 80, 24);
    pty.displays("node1");
    pty.signal("TERM");
    assert_eq!(pty.ends().code(), Some(130));
    // What it wrote last may still be on its way to here.
    pty.until("the screen is given back", || pty.shown().contains("\x1b[?1049l").then_some(()));
    assert!(pty.is_cooked());
}

#[test]
fn a_block_is_told_with_its_end_and_the_bmc_is_left_alone() {
    let board = running();
    let mut command = board.place.command(&watch(&["--output", "json"]));
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    assert_eq!(next()["trouble"], Value::Null);
    // Somebody else behind the same address knows no better than to guess.
    let wrong = board.place.write("wrong", "guessed");
    std::fs::set_permissions(&wrong, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    for _ in 0..5 {
        let login = [
            "board",
            "login",
            "--document",
            "sim/cluster.yaml",
            "--password-file",
            "wrong",
            "--state-dir",
            "elsewhere",
        ];
        board.run(&login).ends(6);
    }
    let blocked = loop {
        let seen = next();
        if !seen["trouble"].is_null() {
            break seen;
        }
    };
    assert!(blocked["trouble"]["blocked_until"].is_string(), "{blocked:#}");
    let wait = blocked["next_look_seconds"].as_u64().unwrap();
    assert!((2..=61).contains(&wait), "{blocked:#}");
    assert_eq!(blocked["slots"][0]["state"], "login", "what was seen before stays");
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
