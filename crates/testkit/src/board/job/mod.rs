//! The one job slot for flash and firmware, its states, and the rules of who may change them.

mod crc;
mod multipart;
mod source;
mod start;
mod trouble;
mod upload;
mod worker;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::StatusCode;
use serde_json::json;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

pub(crate) use start::start;
pub(crate) use trouble::Trouble;
pub(crate) use upload::{UploadEnd, first_part, upload};
pub(crate) use worker::write_local;

/// An upload must begin within this time of its start, on the board's clock.
const UPLOAD_WINDOW: Duration = Duration::from_secs(10);

/// The state that `type=flash` and `type=firmware` report.
#[derive(Debug, Default)]
pub(crate) enum Job {
    #[default]
    Ready,
    Transferring(Transfer),
    Done {
        took: Duration,
        /// The declared size, not what was written.
        size: u64,
    },
    Error(String),
}

/// A job that runs. Dropping it cancels its worker.
#[derive(Debug)]
pub(crate) struct Transfer {
    id: u32,
    process: String,
    size: u64,
    written: Arc<AtomicU64>,
    /// Where an upload goes; taken by the first one, absent for local and URL jobs.
    sender: Option<mpsc::Sender<Bytes>>,
    cancel: CancellationToken,
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Job {
    /// The state as the API words it.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Ready => json!("Ready"),
            Self::Transferring(job) => json!({"Transferring": {
                "id": job.id,
                "process_name": job.process,
                "size": job.size,
                "cancelled": job.cancel.is_cancelled(),
                "bytes_written": job.written.load(Ordering::Relaxed),
            }}),
            Self::Done { took, size } => {
                json!({"Done": [{"secs": took.as_secs(), "nanos": took.subsec_nanos()}, size]})
            }
            Self::Error(text) => json!({ "Error": text }),
        }
    }
    fn word(&self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Transferring(_) => "Transferring",
            Self::Done { .. } => "Done",
            Self::Error(_) => "Error",
        }
    }
}

/// An error of the job routes. The official daemons answer 500 `text/plain`, whatever it means; the fork answers with
/// this status and the envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JobError(pub(crate) StatusCode, pub(crate) String);

impl JobError {
    /// Something went wrong.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, text.into())
    }
    /// The caller asked for something that cannot be.
    pub(crate) fn bad_request(text: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, text.into())
    }
}

/// The job slot. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Jobs(Arc<Slot>);

#[derive(Debug, Default)]
struct Slot {
    job: Mutex<Job>,
    changed: Notify,
    started: AtomicU32,
    /// When the upload windows of all starts close, on the board's clock.
    windows: Mutex<Vec<Duration>>,
}

impl Jobs {
    /// Looks at the state.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&Job) -> T) -> T {
        look(&self.0.job.lock().unwrap_or_else(PoisonError::into_inner))
    }
    fn change<T>(&self, change: impl FnOnce(&mut Job) -> T) -> T {
        let result = change(&mut self.0.job.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.changed.notify_waiters();
        result
    }
    /// How many jobs were started.
    pub(crate) fn started(&self) -> u32 {
        self.0.started.load(Ordering::Relaxed)
    }
    /// What a restart of the daemon does.
    pub(crate) fn reset(&self) {
        self.windows().clear();
        self.change(|job| *job = Job::Ready);
    }
    /// `GET /api/bmc/upload/{any}/cancel`: whatever the state, idle included.
    pub(crate) fn cancel(&self) {
        self.fail("cancelled by user");
    }
    /// Ends whatever runs with an error.
    pub(super) fn fail(&self, text: &str) {
        self.change(|job| *job = Job::Error(text.to_owned()));
    }
    /// An upload ended before its end, or after it.
    fn break_off(&self, modern: bool, missing: u64) {
        if modern {
            self.cancel();
        } else {
            self.fail(&format!("missing {missing} bytes"));
        }
    }
    /// Puts a new job into the slot; the one that runs is cancelled without a trace.
    fn begin(&self, transfer: Transfer) {
        self.0.started.fetch_add(1, Ordering::Relaxed);
        self.change(|job| *job = Job::Transferring(transfer));
    }
    /// The end of a job's worker. Its success is noted even over a job that replaced it: the daemon does not compare.
    fn finish(&self, outcome: Result<Duration, String>, size: u64, cancel: &CancellationToken) {
        self.change(|job| {
            if !matches!(job, Job::Transferring(_)) {
                return;
            }
            match outcome {
                Ok(took) => *job = Job::Done { took, size },
                Err(text) if !cancel.is_cancelled() => *job = Job::Error(text),
                Err(_) => {}
            }
        });
    }
    fn windows(&self) -> std::sync::MutexGuard<'_, Vec<Duration>> {
        self.0.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Arms the timer of a start.
    fn arm(&self, closes: Duration) {
        self.windows().push(closes);
    }
    /// Upload windows that have closed kill the job that waits for its upload, whichever start armed the timer.
    fn expire(&self, now: Duration) {
        let before = self.windows().len();
        self.windows().retain(|closes| *closes > now);
        if self.windows().len() == before {
            return;
        }
        let waits = |job: &Job| matches!(job, Job::Transferring(transfer) if transfer.sender.is_some());
        self.change(|job| {
            if waits(job) {
                *job = Job::Error("Send timeout".to_owned());
            }
        });
    }
    /// Takes the running job's upload channel and declared size.
    fn take_sender(&self, id: u32) -> Result<(mpsc::Sender<Bytes>, u64), JobError> {
        self.change(|job| {
            let word = job.word();
            let Job::Transferring(transfer) = job else {
                return Err(JobError::bad_request(format!(
                    "cannot execute command in current state. current={word}, expected=Transferring"
                )));
            };
            if transfer.id != id {
                return Err(JobError::bad_request("unauthorized request for handle"));
            }
            let sender = transfer.sender.take().ok_or_else(|| {
                JobError::bad_request(
                    "cannot transfer bytes to worker. This is either because the transfer happens locally, or is \
                     already ongoing.",
                )
            })?;
            Ok((sender, transfer.size))
        })
    }
    /// Waits until the job has failed and says why.
    async fn error_text(&self) -> String {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(text) = self.with(|job| match job {
                Job::Error(text) => Some(text.clone()),
                _ => None,
            }) {
                return text;
            }
            changed.await;
        }
    }
}
