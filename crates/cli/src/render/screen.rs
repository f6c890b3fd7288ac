//! Where the events of a run go: screen, log file and report.

use std::{
    fs::File,
    io::{IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use turingpi_provision::engine::{Event, EventKind, EventSink};

use super::{
    bars::Bars,
    out::{say, talk},
    plain::Plain,
};
use crate::args::{Global, Output};

/// Shows events as they come and keeps them for the report.
pub(crate) struct Screen(Mutex<Inner>);

struct Inner {
    face: Face,
    label: String,
    runs: PathBuf,
    log: Option<(PathBuf, File)>,
    events: Vec<Event>,
}

enum Face {
    Json,
    Bars(Bars),
    Plain(Plain),
}

impl Screen {
    /// The face that fits: JSON on request, bars on a terminal, plain lines otherwise and beside logs. Every event but progress also
    /// goes to a file of its run in the folder `runs`, which keeps the last ten.
    pub(crate) fn new(global: &Global, simulated: bool, runs: PathBuf) -> Arc<Self> {
        let label = if simulated { "SIMULATED " } else { "" };
        let terminal =
            std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|t| t != "dumb");
        let face = match global.output {
            Output::Json => Face::Json,
            // Log lines between bars would tear them.
            Output::Text if terminal && global.verbose == 0 => Face::Bars(Bars::new(label)),
            Output::Text => Face::Plain(Plain::default()),
        };
        Arc::new(Self(Mutex::new(Inner {
            face,
            label: label.to_owned(),
            runs,
            log: None,
            events: Vec::new(),
        })))
    }

    /// All events of the run so far, without progress.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).events.clone()
    }

    /// The file with the events of the run, if one could be written.
    pub(crate) fn log(&self) -> Option<PathBuf> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).log.as_ref().map(|(path, _)| path.clone())
    }

    /// Leaves the bars, so that the next lines stand below them.
    pub(crate) fn finish(&self) {
        if let Face::Bars(bars) = &mut self.0.lock().unwrap_or_else(PoisonError::into_inner).face {
            bars.finish();
        }
    }
}

/// How many runs are kept, this one included.
const KEPT: usize = 10;

/// A new log for `run`; the oldest beyond [`KEPT`] go. A log that cannot be written must not stop the work on the
/// cluster, so there may be none.
fn open(runs: &Path, run: &str) -> Option<(PathBuf, File)> {
    std::fs::create_dir_all(runs).ok()?;
    let mut old: Vec<PathBuf> = std::fs::read_dir(runs)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "jsonl"))
        .collect();
    // Names begin with the time, so their order is the order of the runs.
    old.sort();
    for path in old.iter().take((old.len() + 1).saturating_sub(KEPT)) {
        let _ = std::fs::remove_file(path);
    }
    let path = runs.join(format!("{run}.jsonl"));
    let mut options = std::fs::OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(&path).ok()?;
    Some((path, file))
}

impl EventSink for Screen {
    fn emit(&self, event: &Event) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let inner = &mut *inner;
        let progress = matches!(event.kind, EventKind::Progress { .. });
        if inner.events.is_empty() && !progress {
            inner.log = open(&inner.runs, &event.run);
        }
        if !progress
            && let Some((_, log)) = &mut inner.log
            && let Ok(mut line) = serde_json::to_vec(event)
        {
            line.push(b'\n');
            let _ = log.write_all(&line);
        }
        match &mut inner.face {
            Face::Json => {
                if let Ok(line) = serde_json::to_string(event) {
                    say!("{line}");
                }
            }
            Face::Bars(bars) => bars.show(event),
            Face::Plain(plain) => {
                if let Some(line) = plain.line(event) {
                    talk!("{}{line}", inner.label);
                }
            }
        }
        if !progress {
            inner.events.push(event.clone());
        }
    }
}
