//! `POST /api/bmc/upload/{handle}`: the upload of a job's bytes.

use std::sync::Arc;

use http::{HeaderMap, StatusCode, header};

use super::{
    JobError,
    multipart::{FirstPart, boundary},
    start::LAST_WORDS,
    trouble::Trouble,
};
use crate::board::{daemon::Daemon, wire::RequestBody};

/// What the queue to the worker is counted in: sixteen of them make the MB that is accepted while the module boots.
const CHUNK: usize = 64 * 1024;

/// Feeds the first part of the body to the worker. It is done when the last byte is queued; writing goes on.
///
pub(crate) async fn upload(
    daemon: &Arc<Daemon>,
    id: u32,
    headers: &HeaderMap,
    mut body: RequestBody,
    mut trouble: Trouble,
) -> Result<(), UploadEnd> {
    daemon.jobs().expire(daemon.clock().now());
    let (sender, size) = daemon.jobs().take_sender(id)?;
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    // With a body that is no form the sender goes out of scope here: to the worker that is the end of a file without a
    // single byte, and the job ends as `Done`.
    let malformed = || JobError::bad_request("Multipart form invalid");
    if trouble.malforms() {
        return Err(malformed().into());
    }
    let mut part = FirstPart::new(&content_type.and_then(boundary).ok_or_else(malformed)?);
    let (mut sent, mut broken, mut ended) = (0_u64, false, false);
    while !(part.is_over() || ended) {
        let mut data = match body.piece().await {
            Some(Ok(piece)) => part.feed(&piece).map_err(|_| malformed())?,
            other => {
                broken = other.is_some();
                ended = true;
                part.finish()
            }
        };
        sent += data.len() as u64;
        if trouble.is_due(body.bytes_read()) {
            data = trouble.strike(daemon, data).await.inspect_err(|end| {
                if !matches!(end, UploadEnd::Gone) {
                    daemon.jobs().break_off(daemon.profile().is_modern(), size.wrapping_sub(sent));
                }
            })?;
        }
        while !data.is_empty() {
            let chunk = data.split_to(data.len().min(CHUNK));
            if sender.send(chunk).await.is_err() {
                return Err(worker_error(daemon).await.into());
            }
        }
    }
    if !part.has_begun() && !broken {
        return Err(malformed().into());
    }
    if sent == size {
        return Ok(());
    }
    let (modern, missing) = (daemon.profile().is_modern(), size.wrapping_sub(sent));
    daemon.jobs().break_off(modern, missing);
    if modern {
        return Err(JobError::bad_request(format!("missing {} bytes", decimal(missing))).into());
    }
    Ok(())
}

/// The first part of a form, all at once; empty if the body is no form.
///
/// # Errors
/// The connection was lost in the middle.
pub(crate) async fn first_part(headers: &HeaderMap, body: &mut RequestBody) -> Result<Vec<u8>, hyper::Error> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let Some(boundary) = content_type.and_then(boundary) else { return Ok(Vec::new()) };
    let (mut part, mut data) = (FirstPart::new(&boundary), Vec::new());
    while let Some(piece) = body.piece().await {
        match part.feed(&piece?) {
            Ok(bytes) => data.extend_from_slice(&bytes),
            Err(_) => return Ok(Vec::new()),
        }
    }
    data.extend_from_slice(&part.finish());
    Ok(data)
}

/// How an upload ends that is not done.
#[derive(Debug)]
pub(crate) enum UploadEnd {
    Error(JobError),
    /// Answered before the body was read to its end.
    Early(StatusCode, String),
    /// The connection is broken off.
    Hangup,
    /// The daemon is.
    Gone,
}

impl From<JobError> for UploadEnd {
    fn from(error: JobError) -> Self {
        Self::Error(error)
    }
}

/// The worker has stopped: the daemon waits a while for the reason.
async fn worker_error(daemon: &Daemon) -> JobError {
    let limit = daemon.surroundings().pace.scale(LAST_WORDS).max(std::time::Duration::from_millis(500));
    match tokio::time::timeout(limit, daemon.jobs().error_text()).await {
        Ok(text) => JobError::new(text),
        Err(_) if daemon.profile().is_modern() => JobError::new("transfer canceled"),
        Err(_) => JobError::new("transfer cancelled"),
    }
}

/// A size with a decimal unit, two digits at most: `1 kB`, `18.45 EB`.
fn decimal(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    #[allow(clippy::cast_precision_loss, reason = "two digits are shown")]
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let number = format!("{value:.2}");
    let number = number.trim_end_matches('0').trim_end_matches('.');
    format!("{number} {}", UNITS.get(unit).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_the_daemon_writes_them() {
        assert_eq!(decimal(1000), "1 kB");
        assert_eq!(decimal(10_u64.wrapping_sub(20)), "18.45 EB");
        assert_eq!(decimal(1234), "1.23 kB");
        assert_eq!(decimal(7), "7 B");
        assert_eq!(decimal(100), "100 B");
    }
}
