//! Events as plain lines, for logs, pipes and terminals that cannot move the cursor.

use std::{collections::HashMap, time::Duration};

use time::OffsetDateTime;
use turingpi_provision::engine::{Event, EventKind, Outcome, Risk};

use super::{
    style::{BAD, DIM, GOOD, WARN, paint},
    words,
};

/// Remembers just enough of the stream to say each thing once.
#[derive(Default)]
pub(crate) struct Plain {
    started: Option<OffsetDateTime>,
    titles: HashMap<String, String>,
    /// The part and the quarter of it that were told last, by step.
    quarters: HashMap<String, (String, u64)>,
    waits: HashMap<String, String>,
    /// Steps of the stage that ended without a start, by lane in order of their first.
    not_begun: Vec<(String, usize)>,
}

impl Plain {
    /// The line for an event, if it is worth one.
    pub(crate) fn line(&mut self, event: &Event) -> Option<String> {
        let since = *self.started.get_or_insert(event.at);
        let at = Duration::try_from(event.at - since).unwrap_or_default();
        let text = self.text(event)?;
        let subject = event.subject.as_ref().map(|s| s.name.as_str()).unwrap_or("");
        Some(format!("{} {subject:<10} {text}", paint(DIM, format!("{:>7.1}s", at.as_secs_f64()))))
    }

    fn text(&mut self, event: &Event) -> Option<String> {
        let step = event.step.clone().unwrap_or_default();
        let title =
            |titles: &HashMap<String, String>| titles.get(&step).cloned().unwrap_or_else(|| step.clone());
        match &event.kind {
            EventKind::StepStarted { title, attempt: 1, risk, .. } => {
                self.titles.insert(step, title.clone());
                let mark = if *risk == Risk::Destructive { " [destructive]" } else { "" };
                Some(format!("{title}{mark}"))
            }
            EventKind::Progress { done, total, unit, part } => {
                let quarter = total.filter(|t| *t > 0).map_or(0, |t| done.saturating_mul(4) / t).min(3);
                let now = (part.clone(), quarter);
                let last = self.quarters.insert(step.clone(), now.clone()).unwrap_or_default();
                (last != now).then(|| match quarter {
                    0 => format!("{}: {part}", title(&self.titles)),
                    _ => format!("{}: {}", title(&self.titles), words::part_of(part, *done, *total, *unit)),
                })
            }
            EventKind::Waiting { condition, last_seen } => {
                let said = self.waits.insert(step.clone(), condition.clone());
                (said.as_ref() != Some(condition))
                    .then(|| paint(DIM, format!("waiting for {condition}: {}", words::clip(last_seen, 60))))
            }
            EventKind::Note { text } => Some(text.clone()),
            EventKind::Retrying { attempt, delay_ms, failure } => Some(format!(
                "{} {} (attempt {attempt}): {}; again in {}",
                paint(WARN, "retry"),
                title(&self.titles),
                failure.message,
                words::duration(Duration::from_millis(*delay_ms)),
            )),
            EventKind::StepFinished { outcome: Outcome::Cancelled | Outcome::Blocked, .. }
                if !self.titles.contains_key(&step) =>
            {
                let lane = event.subject.as_ref().map(|s| s.name.clone()).unwrap_or_default();
                match self.not_begun.iter_mut().find(|(known, _)| *known == lane) {
                    Some((_, steps)) => *steps += 1,
                    None => self.not_begun.push((lane, 1)),
                }
                None
            }
            EventKind::StageFinished { .. } if !self.not_begun.is_empty() => {
                let lanes: Vec<String> = self
                    .not_begun
                    .drain(..)
                    .map(|(lane, steps)| format!("{lane} {}", words::count(steps, "step")))
                    .collect();
                Some(format!("{} {}", paint(WARN, "not begun"), lanes.join(", ")))
            }
            EventKind::StepFinished { outcome, millis, failure } => {
                let took = words::duration(Duration::from_millis(*millis));
                Some(match outcome {
                    Outcome::Done => format!("{} {} ({took})", paint(GOOD, "ok"), title(&self.titles)),
                    Outcome::Failed => format!(
                        "{} {}: {}",
                        paint(BAD, "failed"),
                        title(&self.titles),
                        failure.as_ref().map(|f| f.message.as_str()).unwrap_or_default()
                    ),
                    Outcome::Cancelled => format!("{} {}", paint(WARN, "stopped"), title(&self.titles)),
                    Outcome::Blocked => format!("{} {}", paint(WARN, "blocked"), title(&self.titles)),
                    _ => return None,
                })
            }
            EventKind::Observed { round, preview, .. } if *round > 1 && !preview.is_empty() => {
                Some(format!("looked again: {} to go", words::count(preview.steps().count(), "step")))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use turingpi_provision::engine::Subject;

    use super::*;

    fn event(lane: &str, step: &str, kind: EventKind) -> Event {
        let subject = (!lane.is_empty()).then(|| Subject::node(lane));
        let step = (!step.is_empty()).then(|| step.to_owned());
        Event { run: "r".into(), seq: 1, at: OffsetDateTime::UNIX_EPOCH, subject, step, kind }
    }

    #[test]
    fn steps_that_were_not_begun_are_one_line_and_stopped_ones_a_line_each() {
        let mut plain = Plain::default();
        let ended = || EventKind::StepFinished { outcome: Outcome::Cancelled, millis: 0, failure: None };
        let begun = EventKind::StepStarted {
            title: "write the image".into(),
            phase: "flash".into(),
            risk: Risk::Safe,
            attempt: 1,
            expected_seconds: None,
        };
        assert!(plain.line(&event("node1", "a", begun)).is_some());
        assert!(plain.line(&event("node1", "a", ended())).unwrap().ends_with(" write the image"));
        for step in ["b", "c"] {
            assert_eq!(plain.line(&event("node1", step, ended())), None);
        }
        assert_eq!(plain.line(&event("node2", "d", ended())), None);
        let stage = || EventKind::StageFinished { title: "nodes".into(), outcome: Outcome::Cancelled };
        let line = plain.line(&event("", "", stage())).unwrap();
        assert!(line.ends_with(" node1 2 steps, node2 1 step"), "{line}");
        assert_eq!(plain.line(&event("", "", stage())), None);
    }
}
