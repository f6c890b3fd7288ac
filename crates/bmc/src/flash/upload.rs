//! Start and upload, over one connection and without letting another call in between.

use std::{pin::pin, sync::Arc, time::Duration};

use http::{HeaderValue, header};
use tokio::{
    io::AsyncRead,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{FlashCause, FlashPhase, FlashProgress, Goal, Job};
use crate::{
    BmcError, Capability, HttpBmcClient, ImageUpload, Transfer, transfer,
    wire::{Broken, Call, Connection, ImageBody, Line, Method, Payload, Reply, Sent, answer},
};

/// Between two reports of progress while sending.
const REPORT: Duration = Duration::from_millis(200);

/// An upload the BMC took with HTTP 200, or a job it does by itself.
pub(super) struct Uploaded {
    /// The job's number.
    pub(super) id: u64,
    /// Of the bytes sent.
    pub(super) sha256: String,
    /// Whether the BMC compares the digest before it reports success.
    pub(super) checked_by_bmc: bool,
}

impl HttpBmcClient {
    pub(super) async fn upload(
        &self,
        job: &Job<'_>,
        image: &ImageUpload,
        reader: Box<dyn AsyncRead + Send + Unpin>,
    ) -> Result<Uploaded, BmcError> {
        let session = self.session();
        let mut line = session.line().await;
        self.refuse_if_busy(job, &mut line).await?;
        let checked_by_bmc = image.sha256.is_some() && job.about.has(Capability::Sha256);
        let mut call =
            job.goal.start().with("file", &image.wire_name()).with("length", &image.length.to_string());
        if let Some(sha256) = image.sha256.as_ref().filter(|_| checked_by_bmc) {
            call = call.with("sha256", sha256);
        }
        if image.skip_check && job.goal != Goal::Firmware {
            call = call.flag("skip_crc");
        }
        let id = self.start(job, &mut line, &call, session.timeouts().call).await?;
        tracing::debug!(bmc = %session.name(), attempt = %job.attempt, id, "started");

        let sent = Arc::new(Sent::default());
        // A digest the BMC checks need not be computed a second time here.
        let boundary = format!("turingpi-{id:016x}-{:016x}", image.length);
        let body = ImageBody::new(
            reader,
            image.length,
            &boundary,
            !checked_by_bmc,
            image.sha256.clone(),
            sent.clone(),
        );
        let total = body.total();
        let call = Call::path("upload", Method::Post, &format!("/upload/{id}"));
        let mut request = session.request(&line, &call, Payload::Image(Box::new(body)));
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(total));
        if let Ok(kind) = HeaderValue::from_str(&format!("multipart/form-data; boundary={boundary}")) {
            headers.insert(header::CONTENT_TYPE, kind);
        }
        // Taken out of the line: if this future is dropped the connection goes with it, which cancels the job.
        let outcome = match session.connection(&mut line).await {
            Ok(connection) => self.send(job, image.length, connection, request, &sent).await,
            Err(broken) => Outcome::Broken(broken),
        };
        match outcome {
            Outcome::Answered(connection, reply) if reply.status == 200 && sent.complete() => {
                session.keep(&mut line, connection);
            }
            failed => return Err(self.explain(job, image, &mut line, (id, failed), &sent).await),
        }
        let sha256 = sent.sha256().or_else(|| image.sha256.clone()).unwrap_or_default();
        Ok(Uploaded { id, sha256, checked_by_bmc })
    }

    /// A new start would silently kill what moves.
    pub(super) async fn refuse_if_busy(&self, job: &Job<'_>, line: &mut Line) -> Result<(), BmcError> {
        let session = self.session();
        // The start cannot be repeated: its token must not be one that a restart has made worthless.
        session.renew_login(line);
        let status = session.call_on(line, &Call::get("look for another transfer", "flash")).await?;
        match transfer::parse(&status, &job.attempt)? {
            Transfer::Moving { process, bytes, size, .. } => {
                Err(BmcError::Busy { attempt: job.attempt.clone(), process, bytes, size })
            }
            _ => Ok(()),
        }
    }

    /// Starts the job, and returns its number.
    pub(super) async fn start(
        &self,
        job: &Job<'_>,
        line: &mut Line,
        call: &Call,
        limit: Duration,
    ) -> Result<u64, BmcError> {
        let reply = self.session().call_on_within(line, call, limit).await?;
        match answer::document(&reply, &job.attempt) {
            Ok(document) => answer::number(&document["handle"])
                .ok_or_else(|| answer::senseless(&job.attempt, "it names no handle", &document)),
            Err(BmcError::Api { status, text, .. }) if status < 502 => {
                Err(job.failed(FlashPhase::Start, &text))
            }
            Err(error) => Err(error),
        }
    }

    async fn send(
        &self,
        job: &Job<'_>,
        total: u64,
        mut connection: Connection,
        request: hyper::Request<Payload>,
        sent: &Sent,
    ) -> Outcome {
        let limit = self.session().timeouts().upload_stall;
        let report = |bytes| (job.progress)(FlashProgress::Uploading { sent: bytes, total });
        report(0);
        let mut last = (0, Instant::now());
        let ended = {
            let mut exchange = pin!(connection.exchange_unlimited(request));
            let mut ticks = interval(REPORT.min(limit / 4).max(Duration::from_millis(1)));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    biased;
                    reply = &mut exchange => break reply,
                    _ = ticks.tick() => {
                        let bytes = sent.bytes();
                        if bytes != last.0 {
                            last = (bytes, Instant::now());
                            report(bytes);
                        } else if last.1.elapsed() >= limit {
                            break Err(Broken::Late(limit));
                        }
                    }
                }
            }
        };
        if sent.bytes() != last.0 {
            report(sent.bytes());
        }
        match ended {
            Ok(reply) => Outcome::Answered(connection, reply),
            Err(broken) => Outcome::Broken(broken),
        }
    }

    /// Finds the true cause of a failed upload: the BMC's own state is asked once.
    async fn explain(
        &self,
        job: &Job<'_>,
        image: &ImageUpload,
        line: &mut Line,
        (id, failed): (u64, Outcome),
        sent: &Sent,
    ) -> BmcError {
        let session = self.session();
        if let Some((problem, source)) = sent.problem() {
            let image = image.name.clone();
            return BmcError::Image { image, problem: problem.into(), source };
        }
        let (text, broken) = match failed {
            Outcome::Answered(connection, reply) => {
                drop(connection);
                let reply = line.without_token(reply);
                match reply.status {
                    200..=299 => ("it was answered before all was sent".to_owned(), None),
                    401 | 403 | 429 => {
                        return answer::check_status(&reply, &job.attempt)
                            .err()
                            .unwrap_or_else(|| job.fail(FlashPhase::Upload, FlashCause::Other, ""));
                    }
                    _ => (answer::message(&String::from_utf8_lossy(&reply.body)), None),
                }
            }
            Outcome::Broken(broken) => (broken.text(), Some(broken)),
        };
        let state = session.call_on(line, &Call::get("ask why the upload failed", "flash")).await;
        let state = state.and_then(|reply| transfer::parse(&reply, &job.attempt));
        match state {
            Ok(Transfer::Moving { id: other, process, .. }) if other != id && other != 0 => {
                return BmcError::Replaced { attempt: job.attempt.clone(), process };
            }
            Ok(Transfer::Idle) => return job.fail(FlashPhase::Upload, FlashCause::DaemonRestarted, text),
            Ok(Transfer::Failed { text: cause }) if FlashCause::of(&cause) != FlashCause::Cancelled => {
                return job.failed(FlashPhase::Upload, &cause);
            }
            _ => {}
        }
        match broken {
            Some(Broken::Late(limit)) => BmcError::Stalled { attempt: job.attempt.clone(), limit },
            Some(_) => job.fail(FlashPhase::Upload, FlashCause::ConnectionLost, text),
            None if text.contains("unauthorized request for handle") => {
                BmcError::Replaced { attempt: job.attempt.clone(), process: String::new() }
            }
            None => job.failed(FlashPhase::Upload, &text),
        }
    }
}

enum Outcome {
    Answered(Connection, Reply),
    Broken(Broken),
}
