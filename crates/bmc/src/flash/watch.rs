//! After the upload, or after the start of a job that the BMC does by itself: it writes, reads back, and says how it ended.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{FlashCause, FlashPhase, FlashProgress, Job, upload::Uploaded};
use crate::{BmcError, Capability, HttpBmcClient, Transfer};

/// The BMC's queue behind an upload's end is at most this long: far fewer bytes written mean that it counts again.
const QUEUE: u64 = 16 * 1024 * 1024;

/// What the looks at a job have shown so far.
struct Seen {
    phase: FlashPhase,
    bytes: u64,
    most: u64,
    changed: Instant,
    /// This firmware counts while it reads back.
    counted: bool,
    /// Bytes to be written, where they are known.
    raw: Option<u64>,
    /// Whether the job was seen under its own number.
    own: bool,
}

impl HttpBmcClient {
    /// Returns the size of what was written, as declared.
    pub(super) async fn watch(&self, job: &Job<'_>, uploaded: &Uploaded) -> Result<u64, BmcError> {
        let timeouts = self.session().timeouts();
        let mut seen = Seen {
            phase: FlashPhase::Write,
            bytes: 0,
            most: 0,
            changed: Instant::now(),
            counted: false,
            raw: job.raw,
            own: false,
        };
        let mut failures = 0;
        loop {
            match self.read_transfer("follow the flash").await {
                Ok(Transfer::Moving { id, process, bytes, size, .. }) => {
                    // 0: this firmware does not tell.
                    if id != uploaded.id && id != 0 {
                        return Err(BmcError::Replaced { attempt: job.attempt.clone(), process });
                    }
                    failures = 0;
                    seen.own |= id == uploaded.id;
                    if seen.raw.is_none() && !job.uploaded() && !job.unpacks() {
                        seen.raw = size.filter(|size| *size > 0);
                    }
                    seen.look(job, bytes);
                }
                Ok(Transfer::Done { size, .. }) => {
                    judge(job, uploaded, &seen, size)?;
                    return Ok(size.or(seen.raw).unwrap_or(seen.most));
                }
                Ok(Transfer::Failed { text }) => return Err(job.failed(seen.phase, &text)),
                Ok(Transfer::Idle) => return Err(job.fail(seen.phase, FlashCause::DaemonRestarted, "")),
                Err(error) if error.is_transient() && failures < timeouts.poll_failures => {
                    failures += 1;
                    tracing::debug!(bmc = %self.session().name(), %error, failures, "no look at the transfer");
                }
                Err(error) => return Err(error),
            }
            let limit =
                timeouts.write_stall + Duration::from_micros(seen.most.max(job.declared.unwrap_or(0)));
            if seen.changed.elapsed() > limit {
                return Err(BmcError::Stalled { attempt: job.attempt.clone(), limit });
            }
            sleep(if seen.ends_soon() { timeouts.poll / 4 } else { timeouts.poll }).await;
        }
    }
}

impl Seen {
    /// The last twentieth is being read back: the next flash of this board waits for its end.
    fn ends_soon(&self) -> bool {
        self.counted && self.phase == FlashPhase::Verify && self.bytes / 19 >= self.most / 20
    }

    fn look(&mut self, job: &Job<'_>, bytes: u64) {
        let raw = self.raw;
        let counts_again = job.about.has(Capability::SkipCrc);
        let checking = if !job.reads_back {
            false
        } else if counts_again {
            // After an upload hardly anything is left to be written; otherwise all of it is.
            bytes < self.bytes || job.uploaded() && raw.is_some_and(|length| bytes + QUEUE < length)
        } else {
            raw.is_some_and(|length| bytes >= length)
        };
        if checking {
            self.phase = FlashPhase::Verify;
        }
        if bytes != self.bytes {
            self.changed = Instant::now();
        }
        self.bytes = bytes;
        self.counted = counts_again;
        self.most = self.most.max(bytes);
        (job.progress)(match self.phase {
            FlashPhase::Verify if counts_again => {
                FlashProgress::Verifying { done: bytes, total: raw.or(Some(self.most)) }
            }
            // Firmware 2.0 does not count while reading back.
            FlashPhase::Verify => FlashProgress::Verifying { done: 0, total: raw },
            _ => FlashProgress::Writing { done: bytes, total: raw },
        });
    }
}

/// `Done` alone proves nothing: a malformed upload ends so with nothing written, and so may another client's job. An upload
/// was answered 200 by now; its size must be ours, and bytes must have been seen or the digest compared. Firmware 2.0 has no
/// digest and always reads back. A job the BMC does by itself must have been seen at work.
fn judge(job: &Job<'_>, uploaded: &Uploaded, seen: &Seen, size: Option<u64>) -> Result<(), BmcError> {
    if job.declared.is_some_and(|declared| size.is_some_and(|size| size != declared)) {
        return Err(BmcError::Replaced { attempt: job.attempt.clone(), process: String::new() });
    }
    let sign = if job.uploaded() { !job.about.has(Capability::Sha256) } else { seen.own };
    if seen.most > 0 || uploaded.checked_by_bmc || sign {
        return Ok(());
    }
    Err(job.fail(seen.phase, FlashCause::NotProven, ""))
}
