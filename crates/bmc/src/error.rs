//! What can go wrong with a BMC, typed by what a caller can do about it.

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

use crate::{Capability, Fingerprint, FlashCause, FlashPhase, NodeAfter};

mod hint;

/// What was attempted, and on which BMC: `read the power state (BMC 10.10.88.70)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt(Arc<(Cow<'static, str>, Arc<str>)>);

impl Attempt {
    /// An attempt at `action`, a verb phrase such as `read the power state`, on the BMC at `bmc` (host, or host and port).
    pub fn new(action: impl Into<Cow<'static, str>>, bmc: impl Into<Arc<str>>) -> Self {
        Self(Arc::new((action.into(), bmc.into())))
    }
    /// The verb phrase.
    pub fn action(&self) -> &str {
        &self.0.0
    }
    /// The BMC's host, with its port where that is unusual.
    pub fn bmc(&self) -> &str {
        &self.0.1
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (BMC {})", self.action(), self.bmc())
    }
}

/// Why the BMC does not let us in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuthReason {
    /// User name or password is wrong. Final for the life of the client: five of these ban the caller's address.
    Wrong,
    /// The BMC refused a token straight after it had handed it out.
    Rejected,
    /// Logged in, but not allowed: community firmware answers so until the factory password is changed.
    Forbidden,
    /// The BMC asks for a login and there are no credentials, or the URL is plain `http`, over which none are sent.
    Missing,
}

impl fmt::Display for AuthReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wrong => "user name or password is wrong",
            Self::Rejected => "a new token was refused at once",
            Self::Forbidden => "logged in, but access is forbidden",
            Self::Missing => "it asks for a login and none may be sent",
        })
    }
}

/// A failed call to a BMC.
///
/// No variant carries a token or a password: answers are redacted and shortened before they get here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BmcError {
    /// No connection, or it broke before the answer was complete.
    #[error("cannot {attempt}: the connection failed")]
    Unreachable {
        /// What was attempted.
        attempt: Attempt,
        /// The transport's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The certificate is not the trusted one, or the handshake failed. Nothing was sent.
    #[error("cannot {attempt}: {}", tls_text(*expected, *found))]
    Tls {
        /// What was attempted.
        attempt: Attempt,
        /// The pinned fingerprint, if there is a pin.
        expected: Option<Fingerprint>,
        /// The fingerprint the BMC showed, if it came that far.
        found: Option<Fingerprint>,
        /// The TLS library's error.
        source: Option<Box<rustls::Error>>,
    },
    /// The login was refused.
    #[error("cannot {attempt}: {reason}")]
    Auth {
        /// What was attempted.
        attempt: Attempt,
        /// Why.
        reason: AuthReason,
    },
    /// The BMC blocks this machine's address after too many failed logins.
    #[error("cannot {attempt}: the BMC blocks this address for {} s more", wait.as_secs().max(1))]
    Banned {
        /// What was attempted.
        attempt: Attempt,
        /// How long the block still lasts.
        wait: Duration,
    },
    /// A transfer is moving, this client's or somebody else's; starting another would kill it.
    #[error("cannot {attempt}: busy with `{process}`{}", percent(*bytes, *size))]
    Busy {
        /// What was attempted.
        attempt: Attempt,
        /// The job's name as the BMC gives it, such as `Node 2 os install service`.
        process: String,
        /// Bytes written so far.
        bytes: u64,
        /// Bytes declared, where known.
        size: Option<u64>,
    },
    /// The firmware cannot do it.
    #[error("cannot {attempt}: {firmware} has no {capability}{}", first_with(*capability))]
    Unsupported {
        /// What was attempted.
        attempt: Attempt,
        /// What is missing.
        capability: Capability,
        /// The firmware, such as `bmcd 2.0.5`.
        firmware: String,
    },
    /// The BMC answered with an error of its own.
    #[error("cannot {attempt}: HTTP {status}: {text}")]
    Api {
        /// What was attempted.
        attempt: Attempt,
        /// HTTP status; 200 for firmware 1.x, which reports errors so.
        status: u16,
        /// The BMC's message, shortened.
        text: String,
    },
    /// A flash failed.
    #[error("cannot {attempt}: {phase} failed: {cause}{}", quoted(text))]
    Flash {
        /// What was attempted.
        attempt: Attempt,
        /// How far it came.
        phase: FlashPhase,
        /// The typed cause.
        cause: FlashCause,
        /// The BMC's or the transport's words; may be empty.
        text: String,
        /// How the failure leaves the node.
        node: NodeAfter,
    },
    /// Another client started a transfer, which silently killed ours.
    #[error("cannot {attempt}: another client's job took over: `{process}`")]
    Replaced {
        /// What was attempted.
        attempt: Attempt,
        /// The other job's name; empty if it is not known.
        process: String,
    },
    /// Nothing happened for too long.
    #[error("cannot {attempt}: nothing happened for {} s", limit.as_secs_f32())]
    Stalled {
        /// What was attempted.
        attempt: Attempt,
        /// The limit that was reached.
        limit: Duration,
    },
    /// The answer makes no sense.
    #[error("cannot {attempt}: {problem}; the answer was `{raw}`")]
    Protocol {
        /// What was attempted.
        attempt: Attempt,
        /// What is wrong with it.
        problem: Cow<'static, str>,
        /// The answer, redacted and shortened.
        raw: String,
    },
    /// The image cannot be used or read.
    #[error("cannot use image `{image}`: {problem}")]
    Image {
        /// The image's name.
        image: String,
        /// What is wrong with it.
        problem: Cow<'static, str>,
        /// The error of the file or stream.
        source: Option<std::io::Error>,
    },
    /// What the BMC sent cannot be written down here.
    #[error("cannot {attempt}: what was received cannot be written down")]
    Local {
        /// What was attempted.
        attempt: Attempt,
        /// The error of the file or stream.
        source: std::io::Error,
    },
    /// The client cannot be built from these settings.
    #[error("cannot set up the BMC client: {problem}")]
    Setup {
        /// Which setting, and why.
        problem: String,
    },
}

/// The variant of a [`BmcError`], for tables and exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BmcErrorKind {
    /// [`BmcError::Unreachable`].
    Unreachable,
    /// [`BmcError::Tls`].
    Tls,
    /// [`BmcError::Auth`].
    Auth,
    /// [`BmcError::Banned`].
    Banned,
    /// [`BmcError::Busy`].
    Busy,
    /// [`BmcError::Unsupported`].
    Unsupported,
    /// [`BmcError::Api`].
    Api,
    /// [`BmcError::Flash`].
    Flash,
    /// [`BmcError::Replaced`].
    Replaced,
    /// [`BmcError::Stalled`].
    Stalled,
    /// [`BmcError::Protocol`].
    Protocol,
    /// [`BmcError::Image`].
    Image,
    /// [`BmcError::Local`].
    Local,
    /// [`BmcError::Setup`].
    Setup,
}

impl BmcError {
    /// The variant.
    pub fn kind(&self) -> BmcErrorKind {
        match self {
            Self::Unreachable { .. } => BmcErrorKind::Unreachable,
            Self::Tls { .. } => BmcErrorKind::Tls,
            Self::Auth { .. } => BmcErrorKind::Auth,
            Self::Banned { .. } => BmcErrorKind::Banned,
            Self::Busy { .. } => BmcErrorKind::Busy,
            Self::Unsupported { .. } => BmcErrorKind::Unsupported,
            Self::Api { .. } => BmcErrorKind::Api,
            Self::Flash { .. } => BmcErrorKind::Flash,
            Self::Replaced { .. } => BmcErrorKind::Replaced,
            Self::Stalled { .. } => BmcErrorKind::Stalled,
            Self::Protocol { .. } => BmcErrorKind::Protocol,
            Self::Image { .. } => BmcErrorKind::Image,
            Self::Local { .. } => BmcErrorKind::Local,
            Self::Setup { .. } => BmcErrorKind::Setup,
        }
    }

    /// Whether the same call may well succeed a little later. False for everything a person must look at, for a refused
    /// login, and for a block, whose end [`BmcError::retry_after`] tells.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Stalled { .. } => true,
            Self::Api { status, .. } => matches!(status, 502..=504),
            Self::Flash { cause, .. } => cause.is_transient(),
            _ => false,
        }
    }

    /// How long to wait before the next try, where the BMC says so.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Banned { wait, .. } => Some(*wait),
            _ => None,
        }
    }

    /// How a failed flash left the node. `None` for every error but that of a flash.
    pub fn node_after(&self) -> Option<NodeAfter> {
        match self {
            Self::Flash { node, .. } => Some(*node),
            _ => None,
        }
    }
}

fn tls_text(expected: Option<Fingerprint>, found: Option<Fingerprint>) -> String {
    match (expected, found) {
        (Some(expected), Some(found)) if expected != found => {
            format!("its certificate {found} is not the pinned {expected}")
        }
        (None, Some(found)) => format!("its certificate {found} is not trusted"),
        _ => "the TLS handshake failed".to_owned(),
    }
}

fn percent(bytes: u64, size: Option<u64>) -> String {
    match size {
        Some(size) if size > 0 => format!(" ({} %)", (u128::from(bytes) * 100 / u128::from(size)).min(100)),
        _ => String::new(),
    }
}

fn first_with(capability: Capability) -> String {
    capability.first_firmware().map(|firmware| format!("; {firmware} has")).unwrap_or_default()
}

fn quoted(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}
