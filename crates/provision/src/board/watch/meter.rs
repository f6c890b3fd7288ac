//! How fast the BMC's transfer moves, and how long it will take.

use std::{collections::VecDeque, time::Duration};

use serde::Serialize;
use tokio::time::Instant;
use turingpi_bmc::{Slot, Transfer};

/// The speed is that of the last so many seconds.
const WINDOW: Duration = Duration::from_secs(15);

/// The BMC's transfer, while it moves.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TransferSnapshot {
    /// The job's name as the BMC gives it: `Node 2 os install service`.
    pub process: String,
    /// The slot that it names.
    pub slot: Option<Slot>,
    /// Bytes written, unpacked; or read back, while it checks.
    pub bytes: u64,
    /// Bytes declared: packed ones for .xz.
    pub size: Option<u64>,
    /// Bytes a second, over the last seconds.
    pub bytes_per_second: Option<u64>,
    /// Seconds until `bytes` is `size`; `None` where that cannot be told: packed images get larger than declared.
    pub seconds_left: Option<u64>,
    /// Whether it reads back what it wrote.
    pub checking: bool,
    /// Whether it was cancelled and is winding up.
    pub cancelled: bool,
}

/// Measures a transfer from look to look.
#[derive(Debug, Default)]
pub(super) struct Meter {
    job: Option<(u64, String)>,
    looks: VecDeque<(Instant, u64)>,
    checking: bool,
}

impl Meter {
    /// What a look at `now` shows; `None` while nothing moves.
    pub(super) fn look(&mut self, now: Instant, transfer: &Transfer) -> Option<TransferSnapshot> {
        let Transfer::Moving { id, process, bytes, size, cancelled } = transfer else {
            *self = Self::default();
            return None;
        };
        let job = (*id, process.clone());
        if self.job.as_ref() != Some(&job) {
            *self = Self { job: Some(job), ..Self::default() };
        }
        if self.looks.back().is_some_and(|(_, before)| bytes < before) {
            // It counts from the beginning again.
            self.checking = true;
            self.looks.clear();
        }
        self.looks.push_back((now, *bytes));
        while self.looks.len() > 2 && self.looks.get(1).is_some_and(|(at, _)| now - *at >= WINDOW) {
            self.looks.pop_front();
        }
        let rate = self.rate();
        let left = match (rate, size) {
            (Some(rate @ 1..), Some(size)) if !cancelled => {
                size.checked_sub(*bytes).map(|left| left.div_ceil(rate))
            }
            _ => None,
        };
        Some(TransferSnapshot {
            process: process.clone(),
            slot: slot_in(process),
            bytes: *bytes,
            size: *size,
            bytes_per_second: rate,
            seconds_left: left,
            checking: self.checking,
            cancelled: *cancelled,
        })
    }

    fn rate(&self) -> Option<u64> {
        let ((from, first), (to, last)) = (self.looks.front()?, self.looks.back()?);
        let millis = u64::try_from((*to - *from).as_millis()).ok().filter(|millis| *millis > 0)?;
        Some(last.saturating_sub(*first).saturating_mul(1000) / millis)
    }
}

/// The slot in `Node 2 os install service`.
fn slot_in(process: &str) -> Option<Slot> {
    let (_, rest) = process.split_once("Node ")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moving(bytes: u64, size: u64) -> Transfer {
        Transfer::Moving {
            id: 7,
            process: "Node 2 os install service".into(),
            bytes,
            size: Some(size),
            cancelled: false,
        }
    }

    #[test]
    fn speed_and_time_left_come_from_the_last_looks() {
        let (mut meter, start) = (Meter::default(), Instant::now());
        let first = meter.look(start, &moving(0, 100_000)).unwrap();
        assert_eq!((first.bytes_per_second, first.seconds_left), (None, None));
        assert_eq!(first.slot, Some(Slot::ALL[1]));
        for second in 1..=60_u64 {
            // The second half is twice as fast.
            let bytes = second * 1000 + second.saturating_sub(30) * 1000;
            let seen = meter.look(start + Duration::from_secs(second), &moving(bytes, 100_000)).unwrap();
            match second {
                20 => assert_eq!((seen.bytes_per_second, seen.seconds_left), (Some(1000), Some(80))),
                60 => assert_eq!((seen.bytes_per_second, seen.seconds_left), (Some(2000), Some(5))),
                _ => {}
            }
        }
    }

    #[test]
    fn packed_images_have_no_time_left_and_a_count_that_begins_again_is_the_check() {
        let (mut meter, start) = (Meter::default(), Instant::now());
        let at = |second| start + Duration::from_secs(second);
        meter.look(at(0), &moving(5000, 1000));
        let seen = meter.look(at(1), &moving(9000, 1000)).unwrap();
        assert_eq!((seen.seconds_left, seen.bytes_per_second, seen.checking), (None, Some(4000), false));
        let seen = meter.look(at(2), &moving(100, 1000)).unwrap();
        assert_eq!((seen.checking, seen.bytes_per_second), (true, None));
        assert_eq!(meter.look(at(3), &Transfer::Idle), None);
        assert!(!meter.look(at(4), &moving(1, 2)).unwrap().checking);
    }
}
