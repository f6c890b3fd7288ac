//! `turingpi board watch`

use std::{io::IsTerminal as _, sync::Arc, time::Duration};

use ratatui::{Terminal, backend::TestBackend};
use serde_json::json;
use time::OffsetDateTime;
use tokio::{
    sync::mpsc,
    task::{JoinHandle, JoinSet},
};
use turingpi_provision::{
    bmc::Slot,
    board::{BoardDesk, BoardSnapshot, BoardWatch, OpenBoard, PowerAction, WatchEvent, WatchOptions},
    engine::{Failure, FailureClass, FailureReport},
};

use super::{
    args::Which,
    console::terminal::Signals,
    desk::{self, tell_notes},
};
use crate::{
    args::{Global, Output},
    exit::{self, Exit},
    render::{self, out::say},
    session,
};

mod args;
pub(crate) mod face;
mod full;

pub(crate) use args::{HELP, Watch};
use face::{Face, Panel};

pub(super) async fn run(global: &Global, which: &Which, args: &Watch) -> Result<u8, Exit> {
    let json = global.output == Output::Json;
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    if !json && !args.once && !terminal {
        return Err(Failure::new(FailureClass::Usage, "a live view needs a terminal to show itself on")
            .hint(
                "`turingpi board watch --once` prints it once, `--output json` tells every look; `turingpi board info` \
                 and `turingpi status --watch` work in a pipe, too.",
            )
            .into());
    }
    let desk = Arc::new(desk::all(global, which).await?);
    let opened = session::until_stopped(open(&desk)).await??;
    for board in opened.iter().filter_map(|(_, board)| board.as_ref().ok()) {
        tell_notes(global, board);
    }
    let options = WatchOptions { interval: args.interval, take_consoles: args.take_consoles };
    if args.once {
        return session::until_stopped(once(&desk, opened, options, json)).await?;
    }
    let (mut attendants, told) = Attendants::start(&desk, opened, &options);
    let result = match json {
        true => lines(told).await,
        false => full::run(face(&desk, args.interval), told, &attendants).await,
    };
    attendants.end().await;
    result
}

type Opening = (String, Result<OpenBoard, Failure>);

/// Opens all boards side by side.
///
/// # Errors
/// When none can be opened, and trying again would not help.
async fn open(desk: &Arc<BoardDesk>) -> Result<Vec<Opening>, Exit> {
    let mut set = JoinSet::new();
    for (index, name) in desk.names().map(str::to_owned).enumerate() {
        let desk = desk.clone();
        set.spawn(async move {
            let board = desk.connect(&name).await;
            (index, name, board)
        });
    }
    let mut all = set.join_all().await;
    all.sort_by_key(|(index, ..)| *index);
    if all.iter().all(|(.., board)| board.as_ref().is_err_and(|failure| !failure.is_retryable()))
        && let Some((.., Err(failure))) = all.pop()
    {
        return Err(failure.into());
    }
    Ok(all.into_iter().map(|(_, name, board)| (name, board)).collect())
}

fn face(desk: &BoardDesk, interval: Duration) -> Face {
    let panel = |name: &str| Panel {
        name: name.to_owned(),
        wanted: desk.wanted(name),
        seen: None,
        asking: None,
        next: None,
        closed: None,
    };
    let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    Face::new(desk.names().map(panel).collect(), interval, colour)
}

/// One look at each board, printed.
async fn once(
    desk: &Arc<BoardDesk>,
    opened: Vec<Opening>,
    options: WatchOptions,
    json: bool,
) -> Result<u8, Exit> {
    let mut face = face(desk, options.interval);
    let mut worst: Option<(u8, FailureReport)> = None;
    let mut set = JoinSet::new();
    for (index, (name, board)) in opened.into_iter().enumerate() {
        match board {
            Ok(board) => {
                let (desk, options) = (desk.clone(), options.clone());
                set.spawn(async move {
                    let mut watch = desk.watch(board, options);
                    let seen = watch.look().await;
                    (index, seen, desk.keep_login(watch.board()))
                });
            }
            Err(failure) => {
                let report = failure.report();
                if json {
                    say!("{}", closed_json(&name, &report, None));
                }
                if let Some(panel) = face.panels.get_mut(index) {
                    panel.closed = Some(report.causes.first().unwrap_or(&report.message).clone());
                }
                worst.get_or_insert((exit::code(failure.class()), report));
            }
        }
    }
    for (index, seen, kept) in set.join_all().await {
        kept?;
        if json {
            say!("{}", serde_json::to_value(&seen).unwrap_or_default());
        }
        if let Some(trouble) = &seen.trouble {
            worst.get_or_insert((exit::code(trouble.failure.class), trouble.failure.clone()));
        }
        face.looked(index, seen);
    }
    if !json {
        face.now = OffsetDateTime::now_utc();
        say!("{}", page(&face));
    }
    match worst {
        None => Ok(exit::DONE),
        // Programs were told already.
        Some((code, _)) if json => Ok(code),
        Some((code, report)) => Err(Exit { code, report: Some(report), findings: Vec::new() }),
    }
}

/// The boards as plain text, as wide as the terminal.
fn page(face: &Face) -> String {
    let width = match std::io::stdout().is_terminal() {
        true => crossterm::terminal::size().map_or(80, |(columns, _)| columns),
        false => 80,
    };
    let width = width.clamp(40, 400);
    let height = render::watch::page_height(face, width);
    let Ok(mut terminal) = Terminal::new(TestBackend::new(width, height));
    let Ok(_) = terminal.draw(|frame| render::watch::draw_page(frame, face));
    let buffer = terminal.backend().buffer();
    let rows = buffer.content().chunks(usize::from(width));
    let rows = rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>().trim_end().to_owned());
    rows.collect::<Vec<_>>().join("\n")
}

/// Every look as a line, until somebody asks to stop or no board is left to be asked.
async fn lines(mut told: mpsc::Receiver<Told>) -> Result<u8, Exit> {
    let mut signals = Signals::hear();
    loop {
        tokio::select! {
            told = told.recv() => match told {
                Some(Told::Looked(_, seen)) => say!("{}", serde_json::to_value(&seen).unwrap_or_default()),
                Some(Told::Closed { name, report, again, .. }) => {
                    say!("{}", closed_json(&name, &report, again));
                }
                Some(_) => {}
                None => return Ok(exit::AUTH),
            },
            () = signals.next() => return Ok(exit::DONE),
        }
    }
}

fn closed_json(name: &str, report: &FailureReport, again: Option<Duration>) -> serde_json::Value {
    json!({
        "board": name,
        "slots": [],
        "trouble": { "failure": report },
        "events": [],
        "next_look_seconds": again.map(|again| again.as_secs()),
    })
}

/// What those who attend to boards tell.
pub(crate) enum Told {
    /// A look begins.
    Asking(usize),
    /// A look has ended.
    Looked(usize, Box<BoardSnapshot>),
    /// A board cannot be opened.
    Closed { board: usize, name: String, report: FailureReport, again: Option<Duration> },
    /// Who sits in the slot that was asked about.
    Occupant { board: usize, slot: Slot, words: String },
    /// What came of switching power.
    Done(WatchEvent),
}

/// What they are asked to do between two looks.
pub(crate) enum Order {
    Occupant(Slot),
    Power(Slot, PowerAction),
}

/// One attendant for each board: looks, one after the other.
pub(crate) struct Attendants {
    orders: Vec<mpsc::Sender<Order>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Attendants {
    fn start(
        desk: &Arc<BoardDesk>,
        opened: Vec<Opening>,
        options: &WatchOptions,
    ) -> (Self, mpsc::Receiver<Told>) {
        let (tell, told) = mpsc::channel(64);
        let (mut orders, mut tasks) = (Vec::new(), Vec::new());
        for (index, opening) in opened.into_iter().enumerate() {
            let (order, ordered) = mpsc::channel(8);
            orders.push(order);
            let attendant = Attendant {
                index,
                desk: desk.clone(),
                options: options.clone(),
                ordered,
                tell: tell.clone(),
            };
            tasks.push(tokio::spawn(attendant.attend(opening)));
        }
        (Self { orders, tasks }, told)
    }

    /// Has something done; false when the board is busy with other things, or given up.
    pub(crate) fn order(&self, board: usize, order: Order) -> bool {
        self.orders.get(board).is_some_and(|orders| orders.try_send(order).is_ok())
    }

    /// Ends them: what is asked now is not waited for, what switches power is.
    async fn end(&mut self) {
        self.orders.clear();
        for mut task in self.tasks.drain(..) {
            if tokio::time::timeout(Duration::from_secs(8), &mut task).await.is_err() {
                task.abort();
            }
        }
    }
}

struct Attendant {
    index: usize,
    desk: Arc<BoardDesk>,
    options: WatchOptions,
    ordered: mpsc::Receiver<Order>,
    tell: mpsc::Sender<Told>,
}

impl Attendant {
    async fn attend(mut self, (name, opening): Opening) {
        let Some(board) = self.reach(&name, opening).await else { return };
        let mut watch = self.desk.watch(board, self.options.clone());
        self.look_after(&mut watch).await;
        // What could not be kept costs a login the next time.
        let _ = self.desk.keep_login(watch.board());
    }

    /// Opens the board, again and again if it has to be.
    async fn reach(&mut self, name: &str, opening: Result<OpenBoard, Failure>) -> Option<OpenBoard> {
        let mut opening = opening;
        let mut wait = self.options.interval;
        loop {
            let failure = match opening {
                Ok(board) => return Some(board),
                Err(failure) => failure,
            };
            wait = (wait * 2).min(Duration::from_secs(30)).max(self.options.interval);
            let again = failure.is_retryable().then(|| failure.delay().unwrap_or(wait).max(wait));
            let report = failure.report();
            let closed = Told::Closed { board: self.index, name: name.to_owned(), report, again };
            self.tell.send(closed).await.ok()?;
            self.rest(again).await?;
            self.tell.send(Told::Asking(self.index)).await.ok()?;
            opening = tokio::select! {
                opened = self.desk.connect(name) => opened,
                () = self.tell.closed() => return None,
            };
        }
    }

    /// Waits while the board is not open; there is nothing to be done with it meanwhile.
    async fn rest(&mut self, time: Option<Duration>) -> Option<()> {
        let sleep = async {
            match time {
                Some(time) => tokio::time::sleep(time).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(sleep);
        loop {
            tokio::select! {
                () = &mut sleep => return Some(()),
                order = self.ordered.recv() => order.map(|_| ())?,
            }
        }
    }

    async fn look_after(&mut self, watch: &mut BoardWatch) {
        loop {
            if self.tell.send(Told::Asking(self.index)).await.is_err() {
                return;
            }
            let seen = tokio::select! {
                seen = watch.look() => seen,
                () = self.tell.closed() => return,
            };
            let next = seen.next_look_seconds;
            if self.tell.send(Told::Looked(self.index, Box::new(seen))).await.is_err() {
                return;
            }
            let sleep = async {
                match next {
                    Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::pin!(sleep);
            loop {
                tokio::select! {
                    () = &mut sleep => break,
                    order = self.ordered.recv() => match order {
                        None => return,
                        Some(Order::Occupant(slot)) => {
                            let all = self.desk.occupants(watch.board(), &[slot]).await;
                            if let Some(occupant) = all.first() {
                                let words = occupant.words();
                                let _ = self.tell.send(Told::Occupant { board: self.index, slot, words }).await;
                            }
                        }
                        Some(Order::Power(slot, action)) => {
                            let event = power(watch, slot, action).await;
                            let _ = self.tell.send(Told::Done(event)).await;
                            // What came of it is looked at straight away.
                            break;
                        }
                    },
                }
            }
        }
    }
}

async fn power(watch: &mut BoardWatch, slot: Slot, action: PowerAction) -> WatchEvent {
    let (text, bad) = match watch.act(slot, action).await {
        Ok(()) => (format!("{} done", action.words()), false),
        Err(failure) => {
            let report = failure.report();
            let why = report.causes.first().unwrap_or(&report.message);
            (format!("{} failed: {why}", action.words()), true)
        }
    };
    WatchEvent {
        at: OffsetDateTime::now_utc(),
        board: watch.board().name().to_owned(),
        slot: Some(slot),
        text,
        bad,
    }
}
