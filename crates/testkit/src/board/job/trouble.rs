//! What a fault does to an upload while its body is read.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::StatusCode;

use super::{JobError, UploadEnd};
use crate::{
    Action,
    board::daemon::{Daemon, REBOOT, RELOAD},
    fault::Strike,
};

/// A fault that waits for its byte.
#[derive(Debug)]
pub(crate) struct Trouble(Option<Strike>);

impl Trouble {
    pub(crate) fn new(strike: Option<Strike>) -> Self {
        Self(strike)
    }
    /// The body is to be taken for something that is no form.
    pub(super) fn malforms(&self) -> bool {
        self.0.as_ref().is_some_and(|strike| strike.action == Action::Malform)
    }
    /// Whether it strikes now that so many bytes of the body were read.
    pub(super) fn is_due(&self, read: u64) -> bool {
        self.0.as_ref().is_some_and(|strike| match (&strike.action, strike.after) {
            (_, Some(bytes)) => read >= bytes,
            (Action::CutAfter(bytes), None) => read >= *bytes,
            // In the data, past the head of the form.
            _ => read > 0,
        })
    }
    /// Strikes. The piece of data goes on as it is returned; an error ends the upload.
    pub(super) async fn strike(&mut self, daemon: &Arc<Daemon>, data: Bytes) -> Result<Bytes, UploadEnd> {
        if data.is_empty() && self.0.as_ref().is_some_and(|strike| strike.action == Action::Corrupt) {
            return Ok(data);
        }
        let Some(Strike { action, .. }) = self.0.take() else { return Ok(data) };
        match action {
            Action::Delay(time) => tokio::time::sleep(time).await,
            Action::Advance(time) => daemon.clock().advance(time),
            Action::ExpireToken => daemon.auth().forget_tokens(),
            Action::Ban(time) => daemon.ban("127.0.0.1", time),
            Action::Replace => daemon.ghost_start(0),
            Action::Corrupt => return Ok(flipped(&data)),
            Action::Status(status, text) => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                return Err(UploadEnd::Early(status, text));
            }
            Action::Fail(_, text) => return Err(JobError::new(text).into()),
            Action::Restart => return Err(die(daemon, RELOAD, false)),
            Action::Reboot => return Err(die(daemon, REBOOT, true)),
            // Nothing is read any more. That the caller gave up would show behind what it sent, so nobody notices.
            Action::Hang => std::future::pending().await,
            _ => return Err(UploadEnd::Hangup),
        }
        Ok(data)
    }
}

fn die(daemon: &Arc<Daemon>, away: Duration, reboot: bool) -> UploadEnd {
    daemon.restart(Duration::ZERO, away, reboot);
    UploadEnd::Gone
}

/// The data with its first bit turned.
fn flipped(data: &[u8]) -> Bytes {
    let mut data = data.to_vec();
    if let Some(byte) = data.first_mut() {
        *byte ^= 1;
    }
    data.into()
}
