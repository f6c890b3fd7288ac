//! What every board verb needs: which board, the way in, a question before something is cut, and an answer.

use std::{
    io::IsTerminal as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use etcetera::BaseStrategy as _;
use serde_json::Value;
use turingpi_provision::{
    Environment,
    bmc::{BmcClient, BmcError, Slot},
    board::{BoardChoice, BoardDesk, OpenBoard, of_document},
    document::SecretSource,
    engine::{Cancellation, Event, EventKind, EventSink, Failure, FailureClass, StepContext},
};

use super::args::{Which, Yes};
use crate::{
    args::{Global, Output},
    exit::{self, Exit},
    render::{
        out::{self, say, talk},
        style::{WARN, paint},
        words,
    },
    session::{self, Loaded},
};

/// The document that is meant when none is named.
const USUAL: &str = "cluster.yaml";

/// The chosen boards, not called yet.
pub(super) async fn desk(global: &Global, which: &Which) -> Result<BoardDesk, Exit> {
    let loaded = document(global, which)?;
    chosen(global, which, loaded).await
}

/// The same, where without a choice all boards of the document are meant.
pub(super) async fn all(global: &Global, which: &Which) -> Result<BoardDesk, Exit> {
    let loaded = document(global, which)?;
    let mut which = which.clone();
    if which.board.is_empty() {
        which.board = loaded.iter().flat_map(|loaded| loaded.document.boards.keys().cloned()).collect();
    }
    chosen(global, &which, loaded).await
}

async fn chosen(global: &Global, which: &Which, loaded: Option<Loaded>) -> Result<BoardDesk, Exit> {
    let loaded = match loaded {
        Some(loaded) if of_document(&loaded.document, &which.board)? => Some(loaded),
        _ => None,
    };
    let choice = BoardChoice {
        document: loaded.as_ref().map(|loaded| loaded.document.clone()),
        boards: which.board.clone(),
        username: which.user.clone(),
        // A path on the command line starts from here, not from the document.
        password: which
            .password_file
            .as_ref()
            .map(|file| SecretSource::File(std::path::absolute(file).unwrap_or_else(|_| file.clone()))),
    };
    let environment = environment(global, which, loaded.as_ref())?;
    Ok(BoardDesk::open(choice, environment).await?)
}

/// The document: the named one, or the usual one if it is there.
fn document(global: &Global, which: &Which) -> Result<Option<Loaded>, Exit> {
    match &which.document {
        Some(path) => session::load(path, global.output).map(Some),
        None if Path::new(USUAL).is_file() => match session::load(Path::new(USUAL), global.output) {
            Ok(loaded) => Ok(Some(loaded)),
            // A board by its address does not need the document, so its mistakes are in nobody's way.
            Err(_) if !which.board.is_empty() && which.board.iter().all(|b| b.contains(['.', ':'])) => {
                Ok(None)
            }
            Err(exit) => Err(exit),
        },
        None => Ok(None),
    }
}

fn environment(global: &Global, which: &Which, loaded: Option<&Loaded>) -> Result<Environment, Exit> {
    let mut environment = match loaded {
        Some(loaded) => session::environment(global, loaded)?,
        None => session::bare_environment(global, personal_state()?)?,
    };
    environment.timing.poll = Duration::from_millis(which.poll_ms.clamp(1, 60_000));
    Ok(environment)
}

/// Where what is remembered of boards without a document is kept.
fn personal_state() -> Result<PathBuf, Exit> {
    etcetera::choose_base_strategy()
        .map(|base| base.state_dir().unwrap_or_else(|| base.data_dir()).join("turingpi"))
        .map_err(|e| Failure::new(FailureClass::Config, "cannot find the state folder").source(e).into())
}

/// A board that lets us in, and the words around it.
pub(super) struct Open {
    pub(super) desk: BoardDesk,
    pub(super) board: OpenBoard,
    pub(super) text: bool,
}

impl Open {
    /// Opens the one board that is meant.
    pub(super) async fn only(global: &Global, which: &Which) -> Result<Self, Exit> {
        let desk = desk(global, which).await?;
        let board = session::until_stopped(desk.only()).await??;
        tell_notes(global, &board);
        Ok(Self { desk, board, text: global.output == Output::Text })
    }

    pub(super) fn client(&self) -> Arc<dyn BmcClient> {
        self.board.client()
    }

    pub(super) fn keep_login(&self) -> Result<(), Exit> {
        Ok(self.desk.keep_login(&self.board)?)
    }

    /// Asks the BMC something that changes nothing: Ctrl-C ends it.
    pub(super) async fn ask<T>(&self, call: impl Future<Output = Result<T, BmcError>>) -> Result<T, Exit> {
        session::until_stopped(call).await?.map_err(|e| self.board.failure(e).into())
    }

    /// Has the BMC do something: once sent it is not taken back.
    pub(super) async fn have<T>(&self, call: impl Future<Output = Result<T, BmcError>>) -> Result<T, Exit> {
        call.await.map_err(|e| self.board.failure(e).into())
    }

    /// A sentence about who is cut off with these slots.
    pub(super) async fn cuts(&self, slots: &[Slot]) -> String {
        let all = self.desk.occupants(&self.board, slots).await;
        let list: Vec<String> = all.iter().map(|occupant| occupant.words()).collect();
        list.join(", ")
    }

    /// A context for waits that tells what it waits for.
    pub(super) fn waiting(&self, cancellation: &Cancellation) -> StepContext {
        self.desk.context(voice(self.text), cancellation)
    }
}

/// Tells what there is to know of the way in.
pub(super) fn tell_notes(global: &Global, board: &OpenBoard) {
    if global.output == Output::Text {
        for note in board.notes() {
            talk!("{}", words::wrap(&format!("note: {note}"), 0, 6));
        }
    }
}

/// Asks before something that runs is cut. `what` is a sentence about what happens.
pub(super) async fn agree(text: bool, yes: Yes, what: &str) -> Result<(), Exit> {
    if yes.yes {
        return Ok(());
    }
    if !text || !std::io::stdin().is_terminal() {
        return Err(Failure::new(FailureClass::Unapproved, format!("{what} Nobody has agreed to that"))
            .hint("Add `--yes` when it is fine.")
            .into());
    }
    talk!("{} {}", paint(WARN, "Caution."), words::wrap(what, 9, 0).trim_start());
    let question = || dialoguer::Confirm::new().with_prompt("Go on?").default(false).interact();
    match session::ask(question).await? {
        Ok(true) => Ok(()),
        Ok(false) => {
            Err(Failure::new(FailureClass::Unapproved, "nobody agreed, so nothing was changed").into())
        }
        Err(_) => Err(Exit::silent(exit::STOPPED)),
    }
}

/// The answer of a verb, for people and for programs.
pub(super) struct Told {
    pub(super) json: Value,
    pub(super) text: String,
}

impl Told {
    pub(super) fn new(json: Value, text: impl Into<String>) -> Self {
        Self { json, text: text.into() }
    }

    pub(super) fn tell(&self, global: &Global) {
        match global.output {
            Output::Json => say!("{:#}", self.json),
            Output::Text => out::data(format!("{}\n", self.text.trim_end_matches('\n'))),
        }
    }
}

/// Tells notes and what is waited for; programs get none of it.
pub(super) fn voice(text: bool) -> Arc<dyn EventSink> {
    let last: Mutex<String> = Mutex::default();
    Arc::new(move |event: &Event| {
        let line = match &event.kind {
            EventKind::Note { text } => text.clone(),
            EventKind::Waiting { condition, .. } => format!("waiting for {condition}"),
            _ => return,
        };
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if text && *last != line {
            talk!("{line}");
            *last = line;
        }
    })
}

/// A line that does not stand on the command line, where others could read it.
pub(super) fn from_stdin(what: &str) -> Result<String, Exit> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(|e| {
        Failure::new(FailureClass::Usage, format!("cannot read {what} from standard input")).source(e)
    })?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
