//! Runs that are stopped, killed, locked out or too slow, and what the next run makes of it.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, ChildStdout, Stdio},
};

use serde_json::{Value, json};

use crate::support::{Board, ONE, Place, interrupt};

const APPLY: [&str; 7] = ["apply", "sim/cluster.yaml", "--yes", "--approve", "node1", "--output", "json"];

/// A run in the background that tells its events.
struct Running {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(place: &Place, args: &[&str]) -> Self {
        let mut child = place.command(args).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn next(&mut self) -> Option<Value> {
        self.lines.next().map(|line| serde_json::from_str(&line.unwrap()).unwrap())
    }

    /// Reads on until an event of this name about `step`.
    fn until(&mut self, name: &str, step: &str) {
        while let Some(event) = self.next() {
            assert_ne!(event["event"], "result", "it ended before {step}: {event}");
            if event["event"] == name && event["step"] == step && event["part"] != "fetching the image" {
                return;
            }
        }
        panic!("the stream ended before {step}");
    }

    /// Reads to the end: the exit code and the last line.
    fn end(mut self) -> (Option<i32>, Option<Value>) {
        let mut last = None;
        while let Some(event) = self.next() {
            last = Some(event);
        }
        (self.child.wait().unwrap().code(), last)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[cfg(unix)]
fn a_run_that_is_stopped_killed_or_locked_out_is_finished_by_the_next() {
    let board = Board::start(ONE);
    let mut first = Running::start(&board.place, &APPLY);
    first.until("progress", "node1/flash");
    interrupt(&first.child);
    let (code, last) = first.end();
    let last = last.unwrap();
    assert_eq!(code, Some(130), "{last}");
    assert_eq!(
        (&last["event"], &last["outcome"], &last["error"]["class"]),
        (&json!("result"), &json!("stopped"), &json!("cancelled"))
    );

    // What was flashed is not flashed again: the plan has no data loss left, so no approval is needed for that.
    let plan = board.run(&["plan", "sim/cluster.yaml", "--output", "json"]).ends(2).json();
    assert_eq!(plan["risk"], "disruptive", "{plan:#}");

    let mut second = Running::start(&board.place, &APPLY);
    second.until("step-started", "node1/packages");
    let refused = board.run(&APPLY).ends(7);
    let told = refused.lines().pop().unwrap();
    let message = told["error"]["message"].as_str().unwrap();
    assert!(message.contains(&format!("process {}", second.child.id())), "{message}");
    second.child.kill().unwrap();
    let (code, _) = second.end_killed();
    assert_eq!(code, None);
    board.run(&["status", "sim/cluster.yaml"]).ends(10).says(&["was cut off"]);

    let third = board.run(&APPLY).ends(0);
    assert_eq!(third.lines().pop().unwrap()["outcome"], "done");
    board.run(&["plan", "sim/cluster.yaml"]).ends(0);
}

impl Running {
    /// As [`Running::end`] for a run that was killed: its last line may be cut.
    fn end_killed(mut self) -> (Option<i32>, ()) {
        for line in self.lines.by_ref() {
            let _ = line;
        }
        (self.child.wait().unwrap().code(), ())
    }
}

#[test]
fn what_does_not_happen_in_time_ends_with_9_and_names_the_limit() {
    let place = Place::new();
    let board = Board::start(ONE);
    // Takes connections and never says a word.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let identity = board.told["identity"].as_str().unwrap();
    place.write(
        "cluster.yaml",
        &format!(
            "name: lab\nversion: v1.35.5+k3s1\nssh: {{ identity: {identity} }}\nnodes:\n  \
             - {{ name: node1, role: control-plane, address: 127.0.0.1, ssh: {{ port: {port} }} }}\n\
             timeouts: {{ connect-seconds: 1 }}\n"
        ),
    );
    place.run(&["kubeconfig", "--refresh"]).ends(9).says(&["did not let us in within 1s", "next:"]);
}

#[test]
#[cfg(unix)]
fn a_simulated_board_ends_with_ctrl_c_and_takes_its_folder_with_it() {
    let place = Place::new();
    let mut command = place.command(&["simulate", "--output", "json"]);
    let mut child = command.env("TMPDIR", place.dir.path()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let told: Value = serde_json::from_str(&line).unwrap();
    let document = std::path::PathBuf::from(told["document"].as_str().unwrap());
    assert!(document.is_file() && told["endpoints"]["nodes"]["node4"].is_object(), "{told}");
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(!document.parent().unwrap().exists());
}

#[test]
fn a_folder_that_cannot_be_made_for_a_board_ends_with_1() {
    let place = Place::new();
    place.write("a-file", "");
    place.run(&["simulate", "--write", "a-file/below"]).ends(1).says(&["cannot make the folder"]);
}
