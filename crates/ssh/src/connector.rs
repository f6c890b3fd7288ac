//! Opening connections: hop by hop, host key first, then the login.

use std::{
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use russh::client;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};

use crate::{
    Fingerprint, SshClient, SshConnector, SshError, SshTarget,
    hostkey::{self, Guard, GuardError, HostKeyCheck},
    link::{Link, LinkState},
    login,
    session::RusshClient,
};

/// A host key that was written down for the first time (policy accept-new).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewHostKey {
    /// Name under which it is known.
    pub host: String,
    /// Port that goes with the name.
    pub port: u16,
    /// Key type, for example `ssh-ed25519`.
    pub key_type: String,
    /// The key.
    pub fingerprint: Fingerprint,
}

pub(crate) type OnNewHostKey = Arc<dyn Fn(&NewHostKey) + Send + Sync>;

/// Opens SSH connections with the `russh` library. Cheap to clone.
///
/// Reads its known-hosts files anew for each connection; touches nothing else on the local machine.
#[derive(Clone)]
pub struct RusshConnector {
    settings: Arc<Settings>,
}

#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) known_hosts: Option<PathBuf>,
    pub(crate) extra_known_hosts: Vec<PathBuf>,
    pub(crate) connect_limit: Duration,
    pub(crate) command_limit: Duration,
    pub(crate) keepalive: Duration,
    pub(crate) keepalive_misses: u32,
    pub(crate) auth_tries: usize,
    pub(crate) channels: usize,
    pub(crate) on_new_host_key: Option<OnNewHostKey>,
}

/// Makes a [`RusshConnector`].
#[derive(Clone)]
#[must_use]
pub struct RusshConnectorBuilder {
    settings: Settings,
}

impl RusshConnector {
    /// Starts with: no known-hosts file, connect limit 30 s, command limit 10 min, keepalive 15 s × 4, 6 login tries,
    /// 6 channels a connection.
    pub fn builder() -> RusshConnectorBuilder {
        RusshConnectorBuilder {
            settings: Settings {
                known_hosts: None,
                extra_known_hosts: Vec::new(),
                connect_limit: Duration::from_secs(30),
                command_limit: Duration::from_secs(600),
                keepalive: Duration::from_secs(15),
                keepalive_misses: 4,
                auth_tries: 6,
                channels: 6,
                on_new_host_key: None,
            },
        }
    }
}

impl RusshConnectorBuilder {
    /// The file that known host keys are read from, and that accept-new appends to.
    pub fn known_hosts(mut self, path: impl Into<PathBuf>) -> Self {
        self.settings.known_hosts = Some(path.into());
        self
    }
    /// A file that known host keys are also read from, and that is never written.
    pub fn extra_known_hosts(mut self, path: impl Into<PathBuf>) -> Self {
        self.settings.extra_known_hosts.push(path.into());
        self
    }
    /// How long one hop may take from the first packet to the end of the login.
    pub fn connect_limit(mut self, limit: Duration) -> Self {
        self.settings.connect_limit = limit;
        self
    }
    /// How long a command may take that has no limit of its own, and how long a transfer may stand still.
    pub fn command_limit(mut self, limit: Duration) -> Self {
        self.settings.command_limit = limit;
        self
    }
    /// Asks for a sign of life after that much silence, and gives up after `misses` unanswered ones.
    pub fn keepalive(mut self, interval: Duration, misses: u32) -> Self {
        self.settings.keepalive = interval;
        self.settings.keepalive_misses = misses.max(1);
        self
    }
    /// How many failed logins the host puts up with (`MaxAuthTries` of sshd, 6 by default).
    pub fn auth_tries(mut self, tries: usize) -> Self {
        self.settings.auth_tries = tries.max(1);
        self
    }
    /// How many commands and transfers run side by side on one connection, 1 to 8 (`MaxSessions` of sshd is 10; two are
    /// kept back for stopping commands). Others wait.
    pub fn channels(mut self, channels: usize) -> Self {
        self.settings.channels = channels.clamp(1, 8);
        self
    }
    /// Is told of each host key that accept-new writes down. Called on the connection's task: it must not block.
    pub fn on_new_host_key(mut self, callback: impl Fn(&NewHostKey) + Send + Sync + 'static) -> Self {
        self.settings.on_new_host_key = Some(Arc::new(callback));
        self
    }
    /// The connector.
    #[must_use]
    pub fn build(self) -> RusshConnector {
        RusshConnector { settings: Arc::new(self.settings) }
    }
}

#[async_trait]
impl SshConnector for RusshConnector {
    async fn connect(&self, target: &SshTarget) -> Result<Arc<dyn SshClient>, SshError> {
        let link = self.link(target, None).await?;
        Ok(Arc::new(RusshClient::new(link, target.clone(), &self.settings)))
    }
}

impl RusshConnector {
    async fn link(&self, target: &SshTarget, mut via: Option<Arc<Link>>) -> Result<Arc<Link>, SshError> {
        for jump in &target.jumps {
            via = Some(Box::pin(self.link(jump, via)).await?);
        }
        let limit = self.settings.connect_limit;
        match tokio::time::timeout(limit, Box::pin(self.hop(target, via))).await {
            Ok(result) => result,
            Err(_) => Err(SshError::ConnectTimeout { host: target.host.clone(), port: target.port, limit }),
        }
    }

    async fn hop(&self, target: &SshTarget, via: Option<Arc<Link>>) -> Result<Arc<Link>, SshError> {
        let (mut handle, state, leash) = self.handshake(target, via.as_ref()).await?;
        login::login(&mut handle, target, &state, self.settings.auth_tries).await?;
        leash.disarm();
        tracing::debug!(host = %target.host, user = %target.user, "logged in");
        Ok(Arc::new(Link::new(
            (target.host.clone(), target.user.clone()),
            handle,
            state,
            self.settings.channels,
            via,
        )))
    }

    /// Connects and exchanges keys. A pinned fingerprint does not tell the type of its key, so a host with keys of
    /// several types is asked for one type after the other until one fits.
    async fn handshake(&self, target: &SshTarget, via: Option<&Arc<Link>>) -> Result<Opened, SshError> {
        let mut types = hostkey::all_types();
        let mut first_mismatch = None;
        loop {
            let check = HostKeyCheck::new(target, &self.settings).await?;
            let offer = check.offer(&types);
            let error = match self.exchange(target, via, check, &offer).await {
                Ok(opened) => return Ok(opened),
                Err(error) => error,
            };
            match error {
                GuardError::PinnedOther { error, key_type } => {
                    types.retain(|known| hostkey::plain_type(known) != key_type);
                    first_mismatch.get_or_insert(error);
                }
                // The host has no key of the types that are left.
                GuardError::Russh(russh::Error::NoCommonAlgo { kind: russh::AlgorithmKind::Key, .. })
                    if first_mismatch.is_some() =>
                {
                    types.clear();
                }
                error => return Err(offer.explain(target, error)),
            }
            if types.is_empty() {
                return Err(
                    first_mismatch.unwrap_or_else(|| SshError::Disconnected { host: target.host.clone() })
                );
            }
        }
    }

    async fn exchange(
        &self,
        target: &SshTarget,
        via: Option<&Arc<Link>>,
        check: HostKeyCheck,
        offer: &hostkey::Offer,
    ) -> Result<Opened, GuardError> {
        let stream = open_stream(target, via).await.map_err(|error| GuardError::Ssh(Box::new(error)))?;
        let cut = CancellationToken::new();
        let leash = cut.clone().drop_guard();
        let state = Arc::new(LinkState::default());
        let guard = Guard::new(check, Arc::clone(&state));
        let stream = Leashed { stream, cut: Box::pin(cut.cancelled_owned()) };
        let handle = client::connect_stream(Arc::new(self.config(offer)), stream, guard).await?;
        Ok((handle, state, leash))
    }

    fn config(&self, offer: &hostkey::Offer) -> client::Config {
        let preferred = russh::Preferred {
            key: offer.keys.clone().into(),
            host_key_certificates: offer.certificates.clone().into(),
            cipher: ciphers().into(),
            compression: vec![russh::compression::NONE].into(),
            ..russh::Preferred::DEFAULT
        };
        client::Config {
            client_id: russh::SshId::Standard(concat!("SSH-2.0-turingpi_", env!("CARGO_PKG_VERSION")).into()),
            window_size: 8 << 20,
            maximum_packet_size: 65535,
            channel_buffer_size: 256,
            preferred,
            inactivity_timeout: None,
            keepalive_interval: Some(self.settings.keepalive),
            keepalive_max: self.settings.keepalive_misses as usize,
            nodelay: true,
            ..client::Config::default()
        }
    }
}

type Opened = (client::Handle<Guard>, Arc<LinkState>, DropGuard);

/// AES-GCM first where the processor has instructions for it, ChaCha20-Poly1305 first elsewhere.
fn ciphers() -> Vec<russh::cipher::Name> {
    use russh::cipher::{AES_128_CTR, AES_128_GCM, AES_192_CTR, AES_256_CTR, AES_256_GCM, CHACHA20_POLY1305};
    #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
    let in_hardware = std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    let in_hardware = std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64")))]
    let in_hardware = false;
    let mut names = vec![AES_256_GCM, AES_128_GCM, CHACHA20_POLY1305, AES_256_CTR, AES_192_CTR, AES_128_CTR];
    if !in_hardware {
        names.swap(0, 2);
    }
    names
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

async fn open_stream(target: &SshTarget, via: Option<&Arc<Link>>) -> Result<Box<dyn Stream>, SshError> {
    let Some(via) = via else {
        let failed = |source| SshError::Connect { host: target.host.clone(), port: target.port, source };
        let stream = TcpStream::connect((target.host.as_str(), target.port)).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        return Ok(Box::new(stream));
    };
    Ok(Box::new(via.forward(&target.host, target.port).await?))
}

/// A stream that ends when its leash is let go: a handshake that is given up must not live on in the background.
struct Leashed {
    stream: Box<dyn Stream>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl AsyncRead for Leashed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(std::io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Leashed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
