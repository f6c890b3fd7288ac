//! After the upload: the BMC writes the rest, reads back, and says how it ended.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{FlashCause, FlashPhase, FlashProgress, Job, upload::Uploaded};
use crate::{BmcError, Capability, HttpBmcClient, ImageEncoding, Transfer};

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
}

impl HttpBmcClient {
    pub(super) async fn watch(&self, job: &Job<'_>, uploaded: &Uploaded) -> Result<(), BmcError> {
        let timeouts = self.session().timeouts();
        let mut seen =
            Seen { phase: FlashPhase::Write, bytes: 0, most: 0, changed: Instant::now(), counted: false };
        let mut failures = 0;
        loop {
            match self.read_transfer("follow the flash").await {
                Ok(Transfer::Moving { id, process, bytes, .. }) => {
                    // 0: this firmware does not tell.
                    if id != uploaded.id && id != 0 {
                        return Err(BmcError::Replaced { attempt: job.attempt.clone(), process });
                    }
                    failures = 0;
                    seen.look(job, bytes);
                }
                Ok(Transfer::Done { size, .. }) => return judge(job, uploaded, &seen, size),
                Ok(Transfer::Failed { text }) => return Err(job.failed(seen.phase, &text)),
                Ok(Transfer::Idle) => return Err(job.fail(seen.phase, FlashCause::DaemonRestarted, "")),
                Err(error) if error.is_transient() && failures < timeouts.poll_failures => {
                    failures += 1;
                    tracing::debug!(bmc = %self.session().name(), %error, failures, "no look at the transfer");
                }
                Err(error) => return Err(error),
            }
            let limit = timeouts.write_stall + Duration::from_micros(seen.most.max(job.image.length));
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
        let raw = (job.image.encoding == ImageEncoding::Raw).then_some(job.image.length);
        let counts_again = job.about.has(Capability::SkipCrc);
        let checking = if counts_again {
            bytes < self.bytes || raw.is_some_and(|length| bytes + QUEUE < length)
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

/// `Done` alone proves nothing: a malformed upload ends so with nothing written, and so may another client's job. The
/// upload was answered 200 by now; its size must be ours, and bytes must have been seen or the digest compared. Firmware
/// 2.0 has no digest and always reads back.
fn judge(job: &Job<'_>, uploaded: &Uploaded, seen: &Seen, size: Option<u64>) -> Result<(), BmcError> {
    if size.is_some_and(|size| size != job.image.length) {
        return Err(BmcError::Replaced { attempt: job.attempt.clone(), process: String::new() });
    }
    if seen.most > 0 || uploaded.checked_by_bmc || !job.about.has(Capability::Sha256) {
        return Ok(());
    }
    Err(job.fail(seen.phase, FlashCause::NotProven, ""))
}
