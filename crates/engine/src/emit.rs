//! Numbers events and hands them to the sink one at a time.

use std::sync::{Arc, Mutex, PoisonError};

use time::OffsetDateTime;
use tokio::time::Instant;

use crate::{Event, EventKind, EventSink, Subject, redact::Redactor};

/// The one door to the sink of a run: what goes through it is numbered, dated and free of stored secrets.
pub(crate) struct Emitter {
    run: String,
    sink: Arc<dyn EventSink>,
    started: OffsetDateTime,
    clock: Instant,
    line: Mutex<Line>,
    redactor: Arc<Redactor>,
}

struct Line {
    seq: u64,
    closed: bool,
}

impl Emitter {
    pub(crate) fn new(sink: Arc<dyn EventSink>, redactor: Arc<Redactor>) -> Self {
        let started = OffsetDateTime::now_utc();
        Self {
            run: run_id(started),
            sink,
            started,
            clock: Instant::now(),
            line: Mutex::new(Line { seq: 0, closed: false }),
            redactor,
        }
    }

    pub(crate) fn run(&self) -> &str {
        &self.run
    }

    pub(crate) fn started(&self) -> OffsetDateTime {
        self.started
    }

    pub(crate) fn millis(&self) -> u64 {
        millis_since(self.clock)
    }

    /// Emits one event. The sink runs under a lock, so that the order of numbers is the order it sees.
    pub(crate) fn emit(&self, subject: Option<&Subject>, step: Option<&str>, kind: EventKind) {
        self.emit_and(subject, step, kind, false);
    }

    /// Emits the last event.
    pub(crate) fn finish(&self, kind: EventKind) {
        self.emit_and(None, None, kind, true);
    }

    /// From now on nothing is emitted.
    pub(crate) fn close(&self) {
        self.line.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
    }

    fn emit_and(&self, subject: Option<&Subject>, step: Option<&str>, mut kind: EventKind, last: bool) {
        self.redactor.scrub(&mut kind);
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        if line.closed {
            return;
        }
        line.closed = last;
        line.seq += 1;
        // Wall time at the start plus a clock that only goes forward: a host that sets its clock while we run does
        // not turn the stream around.
        let at =
            self.started.saturating_add(time::Duration::try_from(self.clock.elapsed()).unwrap_or_default());
        let event = Event {
            run: self.run.clone(),
            seq: line.seq,
            at,
            subject: subject.cloned(),
            step: step.map(str::to_owned),
            kind,
        };
        self.sink.emit(&event);
    }
}

/// Milliseconds since `start`.
pub(crate) fn millis_since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Sorts by time, and two of the same second differ.
fn run_id(at: OffsetDateTime) -> String {
    format!(
        "{:04}{:02}{:02}T{:02}{:02}{:02}Z-{:06x}",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
        rand::random_range(0..0x100_0000_u32)
    )
}
