//! Reads a stream of events once, from front to back.

use std::collections::HashMap;

use super::{
    ConditionWait, GateWait, LaneLine, NoteMark, ProgressMark, RetryMark, RoundMark, StageSpan, StepLine,
    Timeline, critical,
};
use crate::{Event, EventKind, Outcome, Preview, StepDescription, Subject};

/// What the critical path needs to know about a step beyond its line. Positions count the events of the run.
pub(super) struct Track {
    pub(super) lane: usize,
    pub(super) step: usize,
    pub(super) round: u32,
    pub(super) stage: Option<usize>,
    pub(super) locks: Vec<String>,
    pub(super) needs: Vec<String>,
    pub(super) reaches: Option<String>,
    pub(super) started: Option<usize>,
    pub(super) ended: Option<usize>,
}

#[derive(Default)]
struct Reader {
    timeline: Timeline,
    tracks: Vec<Track>,
    /// Round and step id to the position in `tracks`.
    known: HashMap<(u32, String), usize>,
    round: u32,
    /// Position in the timeline's stages of the first one of this round.
    first_stage: usize,
    stage: Option<usize>,
    /// When the last thing before the next look ended.
    idle_since: u64,
    now: u64,
}

pub(super) fn timeline(events: &[Event]) -> Timeline {
    let Some(first) = events.first() else { return Timeline::default() };
    let mut reader = Reader::default();
    reader.timeline.run.clone_from(&first.run);
    reader.timeline.started = Some(first.at);
    for (position, event) in events.iter().filter(|e| e.run == first.run).enumerate() {
        let since = (event.at - first.at).whole_milliseconds();
        // A stream from a log may have been written by a host that set its clock: time never goes back here.
        reader.now = reader.now.max(u64::try_from(since).unwrap_or(0));
        reader.take(position, event);
    }
    reader.timeline.millis = reader.now;
    reader.timeline.critical_path = critical::path(&reader.timeline.lanes, &reader.tracks);
    reader.timeline
}

impl Reader {
    fn take(&mut self, position: usize, event: &Event) {
        match &event.kind {
            EventKind::RunStarted { verb, target, version } => {
                self.timeline.verb.clone_from(verb);
                self.timeline.target.clone_from(target);
                self.timeline.version.clone_from(version);
            }
            EventKind::Observed { round, preview, digest } => self.observed(*round, preview, digest),
            EventKind::StageStarted { title, index, .. } => {
                let planned = index.checked_sub(1).and_then(|i| self.first_stage.checked_add(i));
                let planned = planned.filter(|i| *i < self.timeline.stages.len());
                let at = planned.unwrap_or_else(|| self.add_stage(title));
                if let Some(stage) = self.timeline.stages.get_mut(at) {
                    stage.start_ms = stage.start_ms.or(Some(self.now));
                }
                self.stage = Some(at);
            }
            EventKind::StageFinished { outcome, .. } => {
                if let Some(stage) = self.stage.and_then(|i| self.timeline.stages.get_mut(i)) {
                    stage.end_ms = Some(self.now);
                    stage.outcome = Some(*outcome);
                }
                self.idle_since = self.now;
            }
            EventKind::RunFinished { summary } => self.timeline.summary = Some(summary.clone()),
            kind => {
                if let (Some(subject), Some(id)) = (&event.subject, &event.step) {
                    self.step(position, subject, id, kind);
                }
            }
        }
    }

    fn observed(&mut self, round: u32, preview: &Preview, digest: &str) {
        self.round = round;
        self.first_stage = self.timeline.stages.len();
        self.stage = None;
        self.timeline.rounds.push(RoundMark {
            round,
            start_ms: self.idle_since,
            end_ms: self.now,
            digest: digest.to_owned(),
            steps: preview.steps().count(),
        });
        for stage in &preview.stages {
            let at = self.add_stage(&stage.title);
            for lane in &stage.lanes {
                for step in &lane.steps {
                    self.add_step(&lane.subject, step.clone(), Some(at));
                }
            }
        }
    }

    fn add_stage(&mut self, title: &str) -> usize {
        let stage = StageSpan {
            round: self.round,
            title: title.to_owned(),
            start_ms: None,
            end_ms: None,
            outcome: None,
        };
        self.timeline.stages.push(stage);
        self.timeline.stages.len() - 1
    }

    fn add_step(&mut self, subject: &Subject, step: StepDescription, stage: Option<usize>) -> usize {
        let lanes = &mut self.timeline.lanes;
        let lane = lanes.iter().position(|l| l.subject == *subject).unwrap_or_else(|| {
            lanes.push(LaneLine { subject: subject.clone(), steps: Vec::new() });
            lanes.len() - 1
        });
        let at = self.tracks.len();
        self.known.insert((self.round, step.id.clone()), at);
        let line = StepLine {
            id: step.id,
            title: step.title,
            phase: step.phase,
            risk: step.risk,
            round: self.round,
            stage,
            start_ms: None,
            end_ms: None,
            outcome: None,
            failure: None,
            attempts: 0,
            waits: Vec::new(),
            conditions: Vec::new(),
            retries: Vec::new(),
            notes: Vec::new(),
            progress: None,
        };
        let steps = lanes.get_mut(lane).map(|l| &mut l.steps);
        let position = steps.map_or(0, |steps| {
            steps.push(line);
            steps.len() - 1
        });
        self.tracks.push(Track {
            lane,
            step: position,
            round: self.round,
            stage,
            locks: step.locks,
            needs: step.needs,
            reaches: step.reaches,
            started: None,
            ended: None,
        });
        at
    }

    fn step(&mut self, position: usize, subject: &Subject, id: &str, kind: &EventKind) {
        let known = self.known.get(&(self.round, id.to_owned())).copied();
        // Unknown where the stream begins in the middle of a round.
        let at =
            known.unwrap_or_else(|| self.add_step(subject, StepDescription::new(id, id, ""), self.stage));
        let Some(track) = self.tracks.get_mut(at) else { return };
        let Some(line) = self.timeline.lanes.get_mut(track.lane).and_then(|l| l.steps.get_mut(track.step))
        else {
            return;
        };
        if track.ended.is_some() {
            return;
        }
        let now = self.now;
        let open_wait = |line: &mut StepLine| {
            for wait in line.waits.iter_mut().filter(|w| w.end_ms.is_none()) {
                wait.end_ms = Some(now);
            }
        };
        match kind {
            EventKind::StepQueued { waits_for, gate } => {
                // Several locks are waited for together; a milestone before the next is waited for alone.
                if line.waits.last().is_some_and(|w| w.gate != *gate || *gate == crate::Gate::Milestone) {
                    open_wait(line);
                }
                line.waits.push(GateWait {
                    gate: *gate,
                    name: waits_for.clone(),
                    start_ms: now,
                    end_ms: None,
                });
            }
            EventKind::StepStarted { title, phase, risk, .. } => {
                open_wait(line);
                line.title.clone_from(title);
                line.phase.clone_from(phase);
                line.risk = *risk;
                line.attempts = line.attempts.saturating_add(1);
                line.start_ms = line.start_ms.or(Some(now));
                track.started = track.started.or(Some(position));
            }
            EventKind::Progress { done, total, unit, .. } => {
                line.progress = Some(ProgressMark { done: *done, total: *total, unit: *unit });
            }
            EventKind::Waiting { condition, last_seen } => match line.conditions.last_mut() {
                Some(wait) if wait.condition == *condition => {
                    wait.end_ms = now;
                    wait.last_seen.clone_from(last_seen);
                }
                _ => line.conditions.push(ConditionWait {
                    condition: condition.clone(),
                    start_ms: now,
                    end_ms: now,
                    last_seen: last_seen.clone(),
                }),
            },
            EventKind::Note { text } => line.notes.push(NoteMark { at_ms: now, text: text.clone() }),
            EventKind::Retrying { attempt, delay_ms, failure } => line.retries.push(RetryMark {
                attempt: *attempt,
                at_ms: now,
                delay_ms: *delay_ms,
                failure: failure.clone(),
            }),
            EventKind::StepFinished { outcome, failure, .. } => {
                open_wait(line);
                line.end_ms = Some(now);
                line.outcome = Some(*outcome);
                line.failure.clone_from(failure);
                track.ended = Some(position);
                if *outcome != Outcome::Done {
                    // It reached nothing for anybody.
                    track.reaches = None;
                }
            }
            EventKind::RunStarted { .. }
            | EventKind::Observed { .. }
            | EventKind::StageStarted { .. }
            | EventKind::StageFinished { .. }
            | EventKind::RunFinished { .. }
            | EventKind::Unknown => {}
        }
    }
}
