//! `turingpi simulate`: the board that is asked for.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::Stdio,
};

use serde_json::Value;

use crate::support::Place;

#[test]
fn the_firmware_the_revision_and_the_card_are_those_that_were_asked_for() {
    let place = Place::new();
    place.write("a.img", &"x".repeat(3 << 20));
    let asked = ["simulate", "--firmware", "1.1.0", "--sd-card", "a.img", "--output", "json"];
    let mut command = place.command(&asked);
    let mut child = command.env("TMPDIR", place.dir.path()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let told: Value = serde_json::from_str(&line).unwrap();
    let board = told["endpoints"]["boards"].as_object().unwrap().values().next().unwrap().clone();
    assert_eq!((&board["firmware"], &board["revision"]), (&"1.1.0".into(), &"2.4".into()), "{told}");
    let address = board["url"].as_str().unwrap().strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET /api/bmc?opt=get&type=sdcard HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    // 668 MiB are used on an empty card.
    assert!(answer.contains("\"use\":\t671"), "{answer}");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_firmware_that_nobody_knows_is_a_mistake_of_usage_and_a_card_that_is_not_there_is_said() {
    let place = Place::new();
    place.run(&["simulate", "--firmware", "3.0"]).ends(64).says(&["2.0.5", "fork"]);
    place.run(&["simulate", "--sd-card", "nowhere.img"]).ends(1).says(&["cannot read `nowhere.img`"]);
}
