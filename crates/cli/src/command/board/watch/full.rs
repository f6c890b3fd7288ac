//! The live view on a terminal.

use std::{io, time::Duration};

use crossterm::event::{self, Event};
use ratatui::{Terminal, backend::CrosstermBackend};
use time::OffsetDateTime;
use tokio::sync::mpsc;
use turingpi_provision::board::WatchEvent;

use super::{
    Attendants, Order, Told,
    face::{Face, Over, Wish},
};
use crate::{
    command::board::console::terminal::{RawMode, Signals},
    exit::{self, Exit},
    render,
};

/// How soon a key is noticed at the latest.
const LISTEN: Duration = Duration::from_millis(100);

pub(super) async fn run(
    mut face: Face,
    mut told: mpsc::Receiver<Told>,
    attendants: &Attendants,
) -> Result<u8, Exit> {
    let mut signals = Signals::hear();
    let raw = RawMode::full_screen()?;
    let mut keys = keys();
    let mut terminal = Terminal::new(CrosstermBackend::new(io::stdout())).map_err(lost)?;
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    let result = loop {
        face.now = OffsetDateTime::now_utc();
        // A terminal that is gone is no reason to complain.
        if terminal.draw(|frame| render::watch::draw(frame, &face)).is_err() {
            break Ok(exit::DONE);
        }
        tokio::select! {
            event = keys.recv() => match event {
                Some(Event::Key(key)) => match face.key(key) {
                    Some(Wish::Leave) => break Ok(exit::DONE),
                    Some(wish) => wished(&mut face, attendants, wish),
                    None => {}
                },
                // A new size is drawn.
                Some(_) => {}
                None => break Ok(exit::DONE),
            },
            // Those who attend tell nothing more only after the end.
            Some(told) = told.recv() => hear(&mut face, told),
            _ = tick.tick() => {}
            () = signals.next() => break Ok(exit::STOPPED),
        }
    };
    drop(raw);
    // Those who attend hear by this that nobody listens any more.
    drop(told);
    result
}

fn lost(error: io::Error) -> Exit {
    use turingpi_provision::engine::{Failure, FailureClass};
    Failure::new(FailureClass::Unexpected, "cannot draw on the terminal").source(error).into()
}

fn wished(face: &mut Face, attendants: &Attendants, wish: Wish) {
    let (board, order, slot, what) = match wish {
        Wish::Leave => return,
        Wish::Occupant { board, slot } => {
            attendants.order(board, Order::Occupant(slot));
            return;
        }
        Wish::Power { board, slot, action } => (board, Order::Power(slot, action), slot, action.words()),
    };
    let taken = attendants.order(board, order);
    let text = match taken {
        true => format!("{what}: asked for"),
        false => format!("{what}: not taken, because the board is not open"),
    };
    let name = face.panels.get(board).map(|panel| panel.name.clone()).unwrap_or_default();
    face.tell(WatchEvent { at: face.now, board: name, slot: Some(slot), text, bad: !taken });
}

fn hear(face: &mut Face, told: Told) {
    let now = OffsetDateTime::now_utc();
    match told {
        Told::Asking(board) => {
            if let Some(panel) = face.panels.get_mut(board) {
                panel.asking = Some(now);
            }
        }
        Told::Looked(board, seen) => face.looked(board, *seen),
        Told::Closed { board, report, again, .. } => {
            if let Some(panel) = face.panels.get_mut(board) {
                let why = report.causes.first().unwrap_or(&report.message).clone();
                let news = panel.closed.as_ref() != Some(&why);
                panel.asking = None;
                panel.next = again.map(|again| now + again);
                panel.closed = Some(why.clone());
                let board = panel.name.clone();
                if news {
                    face.tell(WatchEvent { at: now, board, slot: None, text: why, bad: true });
                }
            }
        }
        Told::Occupant { board, slot, words } => {
            if face.over != Over::None && (face.board, face.slot) == (board, slot) {
                face.occupant = Some(words);
            }
        }
        Told::Done(event) => face.tell(event),
    }
}

/// What happens on the terminal. The thread behind it ends when nobody listens.
fn keys() -> mpsc::Receiver<Event> {
    let (tell, told) = mpsc::channel(64);
    std::thread::spawn(move || {
        while !tell.is_closed() {
            match event::poll(LISTEN) {
                Ok(false) => {}
                Ok(true) => {
                    let Ok(event) = event::read() else { return };
                    if tell.blocking_send(event).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    });
    told
}
