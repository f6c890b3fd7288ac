//! Events as live bars: a lane a subject.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use turingpi_provision::engine::{Event, EventKind, Outcome, Subject};

use super::{out, words};

/// The bars of one run.
pub(crate) struct Bars {
    all: MultiProgress,
    lanes: BTreeMap<Subject, Lane>,
    titles: HashMap<String, String>,
    label: String,
    /// What is left for the message.
    room: usize,
}

struct Lane {
    bar: ProgressBar,
    done: u64,
    total: u64,
    started: bool,
    /// Its own failure stays in sight, whatever follows from it.
    failed: bool,
    room: usize,
}

/// What stands beside the message: ten for the name, eight for the bar, five for the count, six for the time, four
/// spaces. The last four columns stay free: a `^C` that the terminal echoes there must not begin a new line.
const BESIDE: usize = 37;

impl Bars {
    /// Bars on standard error. `label` stands before every note: `SIMULATED ` or nothing.
    pub(crate) fn new(label: &str) -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(12));
        out::above(Some(all.clone()));
        let width = usize::from(dialoguer::console::Term::stderr().size().1);
        let room = width.saturating_sub(BESIDE).clamp(20, 100);
        Self { all, lanes: BTreeMap::new(), titles: HashMap::new(), label: label.to_owned(), room }
    }

    /// Shows an event.
    pub(crate) fn show(&mut self, event: &Event) {
        match &event.kind {
            EventKind::Observed { preview, .. } => {
                for stage in &preview.stages {
                    for lane in &stage.lanes {
                        let entry = self.lane(&lane.subject);
                        entry.total += lane.steps.len() as u64;
                        entry.bar.set_length(entry.total);
                        for step in &lane.steps {
                            self.titles.insert(step.id.clone(), step.title.clone());
                        }
                    }
                }
            }
            EventKind::RunFinished { .. } => self.finish(),
            kind => {
                let Some(subject) = &event.subject else { return };
                let title = event.step.as_ref().and_then(|s| self.titles.get(s)).cloned().unwrap_or_default();
                let note = match kind {
                    EventKind::Note { text } => Some(format!("{}{subject}: {text}", self.label)),
                    EventKind::Retrying { failure, delay_ms, .. } => Some(format!(
                        "{}{subject}: {title}: {}; again in {}",
                        self.label,
                        failure.message,
                        words::duration(Duration::from_millis(*delay_ms))
                    )),
                    _ => None,
                };
                self.lane(subject).show(kind, &title);
                for line in note
                    .iter()
                    .flat_map(|n| words::wrap(n, 0, 4).lines().map(str::to_owned).collect::<Vec<_>>())
                {
                    let _ = self.all.println(line);
                }
            }
        }
    }

    fn lane(&mut self, subject: &Subject) -> &mut Lane {
        let (all, room) = (&self.all, self.room);
        self.lanes.entry(subject.clone()).or_insert_with(|| {
            let bar = all.add(ProgressBar::new(0));
            if let Ok(style) = ProgressStyle::with_template(&format!(
                "{{prefix:10!}} {{bar:8}} {{pos:>2}}/{{len:<2}} {{msg:{room}!}} {{elapsed:>6}}"
            )) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_prefix(subject.name.clone());
            bar.set_message("waiting");
            bar.enable_steady_tick(Duration::from_millis(250));
            Lane { bar, done: 0, total: 0, started: false, failed: false, room }
        })
    }

    /// Leaves the bars as they are, so that nothing is drawn over what follows.
    pub(crate) fn finish(&mut self) {
        out::above(None);
        for lane in self.lanes.values() {
            if lane.bar.is_finished() {
                continue;
            }
            if lane.started { lane.bar.abandon() } else { lane.bar.abandon_with_message("not reached") }
        }
    }
}

impl Lane {
    fn show(&mut self, kind: &EventKind, title: &str) {
        match kind {
            EventKind::StepQueued { waits_for, .. } => self.say(title, &format!("waits for {waits_for}")),
            EventKind::StepStarted { title, .. } => {
                self.started = true;
                self.bar.set_message(title.clone());
            }
            EventKind::Progress { done, total, unit, part } => {
                self.say(title, &words::part_of(part, *done, *total, *unit));
            }
            EventKind::Waiting { last_seen, .. } => self.say(title, last_seen),
            EventKind::Retrying { delay_ms, .. } => {
                self.say(title, &format!("again in {}", words::duration(Duration::from_millis(*delay_ms))));
            }
            EventKind::StepFinished { outcome, .. } => match outcome {
                Outcome::Done => {
                    self.done += 1;
                    self.bar.set_position(self.done);
                    if self.done == self.total {
                        self.bar.finish_with_message("done");
                    }
                }
                Outcome::Failed => {
                    self.failed = true;
                    self.bar.abandon_with_message(format!("FAILED: {title}"));
                }
                _ if self.failed || self.bar.is_finished() => {}
                Outcome::Blocked => self.bar.abandon_with_message(format!("not reached: {title}")),
                _ => self.bar.abandon_with_message(format!("stopped before: {title}")),
            },
            _ => {}
        }
    }

    /// The title as far as there is room, and all of what is new.
    fn say(&self, title: &str, detail: &str) {
        let detail = words::clip(detail, self.room.saturating_sub(18));
        let room = self.room.saturating_sub(2 + detail.chars().count());
        self.bar.set_message(format!("{}: {detail}", words::clip(title, room)));
    }
}
