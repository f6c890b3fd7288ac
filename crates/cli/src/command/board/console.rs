//! `turingpi board console`

use std::{io::IsTerminal as _, time::Duration};

use serde_json::{Value, json};
use turingpi_provision::{
    board::{BoardConsole, ConsoleEvent, PlainText},
    engine::{Failure, FailureClass},
};

use super::{args::Which, desk::Open};
use crate::{
    args::{Global, Output},
    exit::{self, Exit},
    render::{
        out::{self, say, talk},
        style::{DIM, paint},
        words,
    },
    session,
};

mod args;
mod attached;
mod escape;
mod follow;
mod line;
mod log;
mod script;
pub(super) mod terminal;

pub(crate) use args::{Console, HELP, duration};
use args::{History, Script};
use log::Log;

/// A console that is open, and what belongs to it.
struct Opened<'a> {
    open: &'a Open,
    console: BoardConsole,
    args: &'a Console,
    log: Log,
    json: bool,
}

pub(super) async fn run(global: &Global, which: &Which, args: &Console) -> Result<u8, Exit> {
    let json = global.output == Output::Json;
    // Before anything is asked: a file that cannot be written is no reason to stop later.
    let log = Log::open(args.log.as_deref())?;
    let open = Open::only(global, which).await?;
    let result = follow(&open, args, log, json).await;
    open.keep_login()?;
    result
}

async fn follow(open: &Open, args: &Console, log: Log, json: bool) -> Result<u8, Exit> {
    let console = session::until_stopped(open.board.follow_console(args.slot.node)).await??;
    let opened = Opened { open, console, args, log, json };
    if json {
        opened.tell_opened();
    }
    let Script(steps) = &args.script;
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    if !steps.is_empty() {
        script::run(opened).await
    } else if terminal && !json && !args.no_input {
        attached::run(opened).await
    } else {
        follow::run(opened).await
    }
}

impl Opened<'_> {
    /// How the slot is called: `slot 2 of board1 (node2)`.
    fn name(&self) -> String {
        let (slot, board) = (self.console.slot(), self.open.board.name());
        match self.open.board.node(slot) {
            Some(node) => format!("slot {slot} of {board} ({node})"),
            None => format!("slot {slot} of {board}"),
        }
    }

    fn tell_opened(&self) {
        let slot = self.console.slot();
        say!(
            "{}",
            json!({
                "event": "opened",
                "board": self.open.board.name(),
                "slot": slot,
                "node": self.open.board.node(slot),
                "sends_keys": self.console.sends_keys(),
            })
        );
    }

    /// What the BMC still has, as far as it is wanted; logged, too.
    fn history(&mut self, default: History) -> Result<String, Exit> {
        let wanted = self.args.history.unwrap_or(default);
        let part = last_lines(self.console.history(), wanted).to_owned();
        self.log.write(&part)?;
        Ok(part)
    }
}

/// The last lines of a text; a line that has not ended counts, too.
fn last_lines(text: &str, wanted: History) -> &str {
    let History::Lines(count) = wanted else { return text };
    if count == 0 {
        return "";
    }
    let ended = text.strip_suffix('\n').unwrap_or(text);
    let start = ended.rmatch_indices('\n').nth(count - 1).map_or(0, |(at, _)| at + 1);
    text.get(start..).unwrap_or_default()
}

/// What the person should know of an event that is not text.
fn notice(event: &ConsoleEvent) -> Option<String> {
    match event {
        ConsoleEvent::Hanging { silent, transfer } => Some(match transfer {
            Some(process) => format!(
                "the BMC has not answered for {}: it serves nobody while it takes an image (`{process}`); waiting",
                words::duration(*silent)
            ),
            None => format!(
                "the BMC has not answered for {}; it does not while an image is uploaded; waiting",
                words::duration(*silent)
            ),
        }),
        ConsoleEvent::Interrupted { failure, again } => {
            let report = failure.report();
            let why = report.causes.first().unwrap_or(&report.message).clone();
            Some(format!("{why}; trying again every {}", words::duration(*again)))
        }
        ConsoleEvent::Answering { after } => {
            Some(format!("the BMC answers again, after {}", words::duration(*after)))
        }
        ConsoleEvent::NotSent(_) => Some(CANNOT.to_owned()),
        _ => None,
    }
}

/// Why a key does nothing.
const CANNOT: &str = "this firmware sends whole lines only: Ctrl-C, arrows and the like cannot be sent";
/// Instead of text that is missing.
const GAP: &str = "text may be missing here: more came than the BMC keeps, or it restarted";

/// A notice on standard error, or as an event.
fn tell(json: bool, text: &str) {
    if json {
        say!("{}", json!({ "event": "notice", "text": text }));
    } else {
        talk!("{}", paint(DIM, words::wrap(&format!("[{text}]"), 0, 1)));
    }
}

/// The end of a stream of events.
fn result(code: u8, matches: &[Value]) {
    say!(
        "{}",
        json!({
            "event": "result",
            "outcome": match code { exit::DONE => "done", exit::STOPPED => "stopped", _ => "failed" },
            "exit_code": code,
            "error": null,
            "matches": matches,
        })
    );
}

/// The time after which it is over, if there is one.
async fn sleep(limit: Option<Duration>) {
    match limit {
        Some(limit) => tokio::time::sleep(limit).await,
        None => std::future::pending().await,
    }
}

/// The console ended by itself.
fn ended(name: &str, failure: Failure) -> Exit {
    let class = failure.class();
    let hint = failure.hint_text().map(str::to_owned);
    let mut told = Failure::new(class, format!("the console of {name} has ended")).source(failure);
    if class == FailureClass::Unreachable {
        told = told.hint(
            "The BMC was gone for minutes. Look whether it has power and network (`turingpi board info`), then open the \
             console again: the node has not noticed.",
        );
    } else if let Some(hint) = hint {
        told = told.hint(hint);
    }
    told.into()
}

/// Cleans text for wherever it goes.
struct Cleaner(Option<PlainText>);

impl Cleaner {
    fn new(raw: bool) -> Self {
        Self((!raw).then(PlainText::default))
    }
    fn clean(&mut self, text: &str) -> String {
        match &mut self.0 {
            Some(plain) => plain.push(text),
            None => text.to_owned(),
        }
    }
}

/// Text as it is: not through `anstream`, which would take escape sequences out that were asked for.
fn print(text: &str) {
    use std::io::Write as _;
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// Whether standard output is still read by somebody.
fn print_line(text: &str) {
    out::line(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_include_one_that_has_not_ended() {
        let text = "one\r\ntwo\r\nlogin: ";
        assert_eq!(last_lines(text, History::Lines(1)), "login: ");
        assert_eq!(last_lines(text, History::Lines(2)), "two\r\nlogin: ");
        assert_eq!(last_lines(text, History::Lines(9)), text);
        assert_eq!(last_lines("one\ntwo\n", History::Lines(1)), "two\n");
        assert_eq!(last_lines(text, History::Lines(0)), "");
        assert_eq!(last_lines(text, History::All), text);
    }
}
