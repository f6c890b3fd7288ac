//! One authenticated connection and its channels.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use russh::{ChannelOpenFailure, Disconnect, client};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{SshError, hostkey::Guard};

/// What the connection's callbacks leave for its users.
#[derive(Default)]
pub(crate) struct LinkState {
    /// Cancelled when the connection is over.
    pub(crate) closed: CancellationToken,
    goodbye: Mutex<Option<String>>,
    banner: Mutex<Option<String>>,
}

impl LinkState {
    pub(crate) fn said_goodbye(&self, message: &str) {
        *self.goodbye.lock().unwrap_or_else(PoisonError::into_inner) = Some(message.to_owned());
    }
    pub(crate) fn showed_banner(&self, banner: &str) {
        *self.banner.lock().unwrap_or_else(PoisonError::into_inner) = Some(banner.to_owned());
    }
    /// The last thing the host said during the login.
    pub(crate) fn banner(&self) -> Option<String> {
        self.banner.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    pub(crate) fn goodbye(&self) -> Option<String> {
        self.goodbye.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A connection after the login. Dropping the last handle ends it.
pub(crate) struct Link {
    pub(crate) host: String,
    pub(crate) user: String,
    handle: client::Handle<Guard>,
    state: Arc<LinkState>,
    channels: Arc<Semaphore>,
    /// Open channels that came from `channels`. Each holds a place, so giving one up while another is open leaves one.
    in_use: AtomicUsize,
    /// Whether this login has ever been given a session.
    opened_before: AtomicBool,
    /// Kept back for stopping commands, which must not wait for the commands to be stopped.
    urgent: Arc<Semaphore>,
    /// Runs whose caller may be gone.
    pub(crate) runs: TaskTracker,
    /// Asks every run to stop.
    pub(crate) stop_all: CancellationToken,
    /// The hop this connection goes through; it lives as long as this one.
    _via: Option<Arc<Link>>,
}

/// The right to use one channel.
pub(crate) struct Permit {
    permit: Option<OwnedSemaphorePermit>,
    counted: bool,
    link: Arc<Link>,
}

impl Permit {
    /// Its channel is open.
    fn count(&mut self, urgent: bool) {
        if !urgent {
            self.link.in_use.fetch_add(1, Ordering::AcqRel);
            self.counted = true;
        }
    }

    /// Ends this use, and does not give the place back.
    fn give_up(mut self) {
        if let Some(permit) = self.permit.take() {
            permit.forget();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.counted {
            self.link.in_use.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

pub(crate) type Channel = russh::Channel<client::Msg>;

/// How long a host may take to clear a session away whose channel is closed.
const BURIAL: Duration = Duration::from_secs(5);

impl Link {
    pub(crate) fn new(
        (host, user): (String, String),
        handle: client::Handle<Guard>,
        state: Arc<LinkState>,
        channels: usize,
        via: Option<Arc<Link>>,
    ) -> Self {
        Self {
            host,
            user,
            handle,
            state,
            channels: Arc::new(Semaphore::new(channels)),
            in_use: AtomicUsize::new(0),
            opened_before: AtomicBool::new(false),
            urgent: Arc::new(Semaphore::new(2)),
            runs: TaskTracker::new(),
            stop_all: CancellationToken::new(),
            _via: via,
        }
    }

    pub(crate) fn is_alive(&self) -> bool {
        !self.state.closed.is_cancelled() && !self.handle.is_closed()
    }

    pub(crate) fn lost(&self) -> SshError {
        SshError::Disconnected { host: self.host.clone() }
    }

    /// Resolves when the connection is over.
    pub(crate) async fn closed(&self) {
        self.state.closed.cancelled().await;
    }

    /// Opens a session channel, waiting for one to become free.
    ///
    /// A host frees the place of a session when it has buried its program, which can be after it closed the channel. A
    /// refusal is therefore final only for the first session of a connection, or after [`BURIAL`] without any other one.
    pub(crate) async fn open(self: &Arc<Self>, urgent: bool) -> Result<(Channel, Permit), SshError> {
        let mut refused_since = None;
        loop {
            let pool = Arc::clone(if urgent { &self.urgent } else { &self.channels });
            let permit = tokio::select! {
                permit = pool.acquire_owned() => permit.map_err(|_| self.lost())?,
                () = self.closed() => return Err(self.lost()),
            };
            let mut permit = Permit { permit: Some(permit), counted: false, link: Arc::clone(self) };
            let opened = tokio::select! {
                opened = self.handle.channel_open_session() => opened,
                () = self.closed() => return Err(self.lost()),
            };
            match opened {
                Ok(channel) => {
                    self.opened_before.store(true, Ordering::Release);
                    permit.count(urgent);
                    return Ok((channel, permit));
                }
                Err(russh::Error::ChannelOpenFailure(reason))
                    if !urgent && self.in_use.load(Ordering::Acquire) > 0 =>
                {
                    // The host allows fewer (MaxSessions): use one less from now on, and wait for another to end.
                    tracing::debug!(host = %self.host, ?reason, "the host opens no more channels at once");
                    refused_since = None;
                    permit.give_up();
                }
                Err(russh::Error::ChannelOpenFailure(reason))
                    if self.opened_before.load(Ordering::Acquire)
                        && refused_since.get_or_insert_with(Instant::now).elapsed() < BURIAL =>
                {
                    tracing::debug!(host = %self.host, ?reason, "the host has not buried the last session yet");
                    drop(permit);
                    tokio::select! {
                        () = tokio::time::sleep(BURIAL / 100) => {}
                        () = self.closed() => return Err(self.lost()),
                    }
                }
                Err(russh::Error::ChannelOpenFailure(reason)) => return Err(self.refused(&reason)),
                Err(_) => return Err(self.lost()),
            }
        }
    }

    fn refused(&self, reason: &ChannelOpenFailure) -> SshError {
        SshError::Refused { host: self.host.clone(), problem: format!("no channel ({reason:?})") }
    }

    /// A stream to another host, by way of this one.
    pub(crate) async fn forward(
        &self,
        host: &str,
        port: u16,
    ) -> Result<russh::ChannelStream<client::Msg>, SshError> {
        match self.handle.channel_open_direct_tcpip(host, u32::from(port), "127.0.0.1", 0).await {
            Ok(channel) => Ok(channel.into_stream()),
            Err(russh::Error::ChannelOpenFailure(ChannelOpenFailure::ConnectFailed)) => {
                Err(SshError::Connect {
                    host: host.to_owned(),
                    port,
                    source: std::io::Error::new(
                        std::io::ErrorKind::ConnectionRefused,
                        format!("jump host {} could not connect", self.host),
                    ),
                })
            }
            Err(russh::Error::ChannelOpenFailure(_)) => {
                Err(SshError::JumpRefused { jump: self.host.clone(), host: host.to_owned(), port })
            }
            Err(_) => Err(self.lost()),
        }
    }

    /// Stops what runs, says goodbye and waits a moment for the connection to end.
    pub(crate) async fn close(&self) {
        const PATIENCE: Duration = Duration::from_secs(8);
        self.stop_all.cancel();
        self.runs.close();
        let _ = tokio::time::timeout(PATIENCE, self.runs.wait()).await;
        if self.handle.disconnect(Disconnect::ByApplication, "", "").await.is_ok() {
            let _ = tokio::time::timeout(PATIENCE, self.closed()).await;
        }
    }
}
