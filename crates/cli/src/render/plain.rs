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
