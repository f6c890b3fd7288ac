//! Frames, as a terminal shows them.

use std::time::Duration;

use ratatui::{Terminal, backend::TestBackend};
use time::OffsetDateTime;
use turingpi_provision::{
    bmc::{CoolingDevice, Power, Slot, Temperature},
    board::{
        BoardSnapshot, BootStage, BootState, SlotSnapshot, TransferSnapshot, Trouble, Wanted, WatchEvent,
    },
    cluster::Role,
    engine::{Failure, FailureClass},
};

use super::*;
use crate::command::board::watch::face::Panel;

fn now() -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn wanted(slot: u8) -> Option<Wanted> {
    Some(Wanted {
        node: format!("node{slot}"),
        role: if slot == 1 { Role::ControlPlane } else { Role::Worker },
        address: format!("10.10.88.7{slot}"),
        image: Some("armbian".into()),
    })
}

fn slot(number: u8, power: Power, state: BootState) -> SlotSnapshot {
    SlotSnapshot {
        slot: Slot::try_from(number).unwrap(),
        wanted: wanted(number),
        power: Some(power),
        state,
        since: Some(now() - Duration::from_secs(200)),
        heard: None,
        address: None,
        last_line: None,
        console_note: None,
        console: "".into(),
    }
}

fn snapshot(name: &str) -> BoardSnapshot {
    let mut login = slot(1, Power::On, BootState::Boot(BootStage::Login));
    login.address = "10.10.88.73".parse().ok();
    login.heard = Some(now() - Duration::from_secs(3700));
    login.console = "Armbian 26.2 node1 ttyS0\n\nnode1 login: ".into();
    BoardSnapshot {
        at: now(),
        board: name.into(),
        url: "https://10.10.88.70/".into(),
        firmware: Some("bmcd 2.3.4".into()),
        model: Some("Turing Pi 2 v2.5.1".into()),
        slots: vec![
            login,
            slot(2, Power::On, BootState::Flashing),
            slot(3, Power::On, BootState::Boot(BootStage::Panic)),
            slot(4, Power::Off, BootState::Off),
        ],
        transfer: Some(TransferSnapshot {
            process: "Node 2 os install service".into(),
            slot: Slot::try_from(2).ok(),
            bytes: 45 << 20,
            size: Some(100 << 20),
            bytes_per_second: Some(5 << 20),
            seconds_left: Some(75),
            checking: false,
            cancelled: false,
        }),
        fans: vec![CoolingDevice::new("system fan", 3, 6)],
        temperatures: vec![Temperature::new("bmc-thermal", Some(48.2))],
        trouble: None,
        events: vec![WatchEvent {
            at: now(),
            board: name.into(),
            slot: Slot::try_from(3).ok(),
            text: "kernel panic".into(),
            bad: true,
        }],
        next_look_seconds: Some(2),
    }
}

fn face(boards: usize) -> Face {
    let names: Vec<String> = (1..=boards).map(|n| format!("board{n}")).collect();
    let panel = |name: &String| Panel {
        name: name.clone(),
        wanted: [1, 2, 3, 4].map(wanted),
        seen: None,
        asking: None,
        next: None,
        closed: None,
    };
    let mut face = Face::new(names.iter().map(panel).collect(), Duration::from_secs(2), true);
    face.now = now();
    for (index, name) in names.iter().enumerate() {
        face.looked(index, snapshot(name));
    }
    face
}

fn buffer(face: &Face, width: u16, height: u16) -> ratatui::buffer::Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, face)).unwrap();
    terminal.backend().buffer().clone()
}

fn screen(face: &Face, width: u16, height: u16) -> String {
    let buffer = buffer(face, width, height);
    let rows = buffer.content().chunks(usize::from(width));
    rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>().trim_end().to_owned() + "\n")
        .collect()
}

/// The first rows of a board's screen.
const FRAME: &str = "\
\u{20}turingpi board watch  1 board, every 2 s
┌ board1  10.10.88.70  bmcd 2.3.4  Turing Pi 2 v2.5.1 ─────────────────────────┐
│>1 node1          on  login        idle 1 h  10.10.88.73      control-plane, …│
│ 2 node2          on  flashing     3 min     (10.10.88.72)    worker, armbian │
│ 3 node3          on  kernel panic 3 min     (10.10.88.73)    worker, armbian │
│ 4 node4          off off          3 min     (10.10.88.74)    worker, armbian │
│  writing slot 2: 45% of 100.0 MiB  5.0 MiB/s  1 min left  [#######..........]│
│  system fan 3/6   bmc-thermal 48 °C                                          │
└──────────────────────────────────────────────────────────────────────────────┘
┌ what happened (UTC) ─────────────────────────────────────────────────────────┐
│08:00:00 node3: ! kernel panic                                                │
";

#[test]
fn a_board_fits_80_by_24_with_all_that_is_known() {
    let shown = screen(&face(1), 80, 24);
    assert!(shown.starts_with(FRAME), "{shown}");
    let (below, footer) = (shown.lines().nth(22).unwrap(), shown.lines().nth(23).unwrap());
    assert!(
        below.starts_with('└') && footer.starts_with(" q leave") && footer.ends_with("? help"),
        "{shown}"
    );
}

#[test]
fn boards_stand_side_by_side_where_there_is_room_and_below_each_other_elsewhere() {
    let wide = screen(&face(2), 170, 30);
    let title = wide.lines().nth(1).unwrap();
    assert!(title.contains("board1") && title.contains("board2"), "{wide}");
    let narrow = screen(&face(2), 80, 24);
    assert!(
        narrow.contains("board1") && narrow.contains("board2") && narrow.contains("what happened"),
        "{narrow}"
    );
    // No room for both: the chosen one is there.
    let mut low = face(3);
    low.board = 2;
    let shown = screen(&low, 80, 12);
    assert!(shown.contains("board3") && !shown.contains("board1"), "{shown}");
}

#[test]
fn every_size_is_drawn_without_stumbling() {
    let mut faces = [face(0), face(1), face(4)];
    for face in &mut faces {
        for over in
            [Over::None, Over::Menu, Over::Help, Over::Confirm(turingpi_provision::board::PowerAction::Off)]
        {
            face.over = over;
            for console in [false, true] {
                face.console = console;
                for width in [1, 2, 20, 39, 40, 41, 60, 80, 156, 300] {
                    for height in [1, 2, 8, 9, 10, 12, 17, 24, 80] {
                        let _ = buffer(face, width, height);
                    }
                }
            }
        }
    }
    assert!(screen(&faces[1], 30, 5).contains("too small"));
}

#[test]
fn without_colours_nothing_is_coloured_and_nothing_is_missing() {
    let mut plain = face(1);
    plain.colour = false;
    let coloured = |face: &Face| {
        buffer(face, 80, 24).content().iter().any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
    };
    assert!(coloured(&face(1)) && !coloured(&plain));
    assert_eq!(screen(&face(1), 80, 24), screen(&plain, 80, 24));
    assert!(screen(&plain, 80, 24).contains(">1 node1"), "the choice is a sign, too");
}

#[test]
fn a_console_is_shown_to_its_last_line_and_long_lines_are_broken() {
    let mut shown = face(1);
    shown.console = true;
    let mut seen = snapshot("board1");
    let lines: String = (0..100).map(|n| format!("line {n}\n")).collect();
    seen.slots[0].console = format!("{lines}{}\nnode1 login: ", "x".repeat(100)).into();
    shown.looked(0, seen);
    let text = screen(&shown, 80, 24);
    assert!(text.contains("console of node1") && text.contains("│node1 login:"), "{text}");
    assert!(text.contains(&"x".repeat(78)) && text.contains(&format!("│{} ", "x".repeat(22))), "{text}");
    assert!(text.contains("line 99") && !text.contains("line 50"), "{text}");
}

#[test]
fn trouble_is_told_with_what_comes_next() {
    let mut face = face(1);
    let mut seen = snapshot("board1");
    let failure = Failure::new(FailureClass::Auth, "the BMC of board1 does not let us in").report();
    seen.trouble = Some(Trouble {
        since: now(),
        failure: failure.clone(),
        blocked_until: Some(now() + Duration::from_secs(59)),
    });
    face.looked(0, seen.clone());
    assert!(screen(&face, 80, 24).contains("! blocked for 59 s more"));
    face.now = now() + Duration::from_secs(20);
    assert!(screen(&face, 80, 24).contains("! blocked for 39 s more"));
    seen.trouble = Some(Trouble { since: now(), failure, blocked_until: None });
    seen.next_look_seconds = None;
    face.looked(0, seen);
    assert!(screen(&face, 80, 24).contains("does not let us in; not asked again"));
    // A look that does not end.
    let mut hanging = super::tests::face(1);
    hanging.panels[0].asking = Some(now() - Duration::from_secs(12));
    assert!(screen(&hanging, 80, 24).contains("! no answer for 12 s: a BMC serves nobody while"));
}

#[test]
fn the_question_before_power_is_cut_says_who_it_hits() {
    let mut face = face(1);
    face.over = Over::Confirm(turingpi_provision::board::PowerAction::Off);
    face.occupant = Some("slot 1 (node1, a Ready node of the cluster)".into());
    let text = screen(&face, 80, 24);
    assert!(text.contains("power off") && text.contains("a Ready node of the"), "{text}");
    assert!(text.contains("Press y to do it."), "{text}");
}
