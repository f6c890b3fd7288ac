//! What can go wrong between here and a node, and what to do about it.

use std::{path::PathBuf, time::Duration};

use crate::Fingerprint;

/// Why a connection, a command or a transfer failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SshError {
    /// No TCP connection (name not found, refused, no route), or a jump host would not forward one.
    #[error("cannot connect to {host} port {port}")]
    Connect {
        /// Host as given.
        host: String,
        /// TCP port.
        port: u16,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Connecting, the handshake and the login together took longer than the connect limit.
    #[error("{host} port {port} did not let us in within {limit:?}")]
    ConnectTimeout {
        /// Host as given.
        host: String,
        /// TCP port.
        port: u16,
        /// The limit that passed.
        limit: Duration,
    },
    /// A jump host refuses to forward connections.
    #[error("jump host {jump} does not forward connections to {host} port {port}")]
    JumpRefused {
        /// The jump host.
        jump: String,
        /// Where the connection should have gone.
        host: String,
        /// Its port.
        port: u16,
    },
    /// The key exchange failed: no common algorithm, a wrong signature, not an SSH server.
    #[error("the SSH handshake with {host} failed")]
    Handshake {
        /// Host as given.
        host: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The connection ended while it was in use.
    #[error("the connection to {host} was lost")]
    Disconnected {
        /// Host as given.
        host: String,
    },
    /// Nobody has vouched for this host's key.
    #[error("the host key of {host} is not known: {key_type} {fingerprint}")]
    HostKeyUnknown {
        /// Name under which the key was looked up.
        host: String,
        /// Key type, for example `ssh-ed25519`.
        key_type: String,
        /// The key that the host showed.
        fingerprint: Fingerprint,
    },
    /// The host shows another key than the known or pinned one.
    #[error("the host key of {host} changed: expected {}, found {found}", list(.expected))]
    HostKeyChanged {
        /// Name under which the key was looked up.
        host: String,
        /// The keys that would have been right.
        expected: Vec<Fingerprint>,
        /// The key that the host showed.
        found: Fingerprint,
        /// The file with the known key; `None` when the key was pinned.
        file: Option<PathBuf>,
        /// The line in that file, counted from one.
        line: Option<usize>,
    },
    /// The host has no key of a type it is known by, and offers others instead.
    #[error("{host} no longer has a host key of a known type ({}); it offers {}", .known.join(", "), .offered.join(", "))]
    HostKeyTypeGone {
        /// Name under which the key was looked up.
        host: String,
        /// Types in the known-hosts files.
        known: Vec<String>,
        /// Types that the host offers.
        offered: Vec<String>,
    },
    /// The host's key, or the authority that signed it, is marked `@revoked`.
    #[error("the host key of {host} is revoked: {fingerprint}")]
    HostKeyRevoked {
        /// Name under which the key was looked up.
        host: String,
        /// The revoked key.
        fingerprint: Fingerprint,
        /// The file that revokes it.
        file: Option<PathBuf>,
        /// The line in that file, counted from one.
        line: usize,
    },
    /// The host shows a certificate that does not prove what it should.
    #[error("the host certificate of {host} is not acceptable: {problem}")]
    HostCertificate {
        /// Name under which the key was looked up.
        host: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A known-hosts file cannot be read or written.
    #[error("cannot use known-hosts file `{}`", .path.display())]
    KnownHosts {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The host refused every login that was tried.
    #[error("{host} refused to log in `{user}` (tried: {}; it would still take: {})", words(.tried), words(.remaining))]
    Auth {
        /// The login name.
        user: String,
        /// Host as given.
        host: String,
        /// What was tried, in order. Never a secret.
        tried: Vec<String>,
        /// Methods the host would still take.
        remaining: Vec<String>,
    },
    /// The host ended the connection in the middle of a login, without refusing it.
    #[error("{host} hung up while `{user}` logged in (tried: {}){}", words(.tried), after_colon(.said))]
    HungUp {
        /// The login name.
        user: String,
        /// Host as given.
        host: String,
        /// What was tried, in order. Never a secret.
        tried: Vec<String>,
        /// What the host said before, shortened; often nothing.
        said: String,
    },
    /// The login password has expired and the host wants a new one before it runs anything.
    #[error("the password of `{user}` on {host} has expired")]
    PasswordExpired {
        /// The login name.
        user: String,
        /// Host as given.
        host: String,
    },
    /// A private key cannot be used.
    #[error("cannot use private key `{}`: {problem}", .path.display())]
    KeyFile {
        /// The file, or `(given key)`.
        path: PathBuf,
        /// What is wrong with it. Never key material.
        problem: String,
    },
    /// Becoming root failed.
    #[error("cannot become root on {host}: {kind}")]
    Sudo {
        /// Host as given.
        host: String,
        /// Why.
        kind: SudoProblem,
    },
    /// A command took longer than its limit. It and its children were stopped on the node.
    #[error("the command on {host} took longer than {limit:?}")]
    CommandLimit {
        /// Host as given.
        host: String,
        /// The limit that passed.
        limit: Duration,
    },
    /// The host refused to start a shell or to open a channel.
    #[error("{host} refused to run a command: {problem}")]
    Refused {
        /// Host as given.
        host: String,
        /// What the host said.
        problem: String,
    },
    /// A program that this crate ran on the node for a transfer failed.
    #[error("cannot {what} on {host}: status {status}{}", after_colon(.stderr))]
    Remote {
        /// Host as given.
        host: String,
        /// What was attempted, for example ``write `/etc/hosts` ``.
        what: String,
        /// Its exit status; 128 and more for a signal.
        status: u32,
        /// What it wrote to standard error, shortened.
        stderr: String,
    },
    /// A path on the node is not a regular file.
    #[error("`{path}` on {host} is not a regular file")]
    NotAFile {
        /// Host as given.
        host: String,
        /// The path.
        path: String,
    },
    /// A file to download is not there.
    #[error("`{path}` does not exist on {host}")]
    NotFound {
        /// Host as given.
        host: String,
        /// The path.
        path: String,
    },
    /// A file is larger than what may be read into memory.
    #[error("`{path}` on {host} is larger than {limit} bytes")]
    TooLarge {
        /// Host as given.
        host: String,
        /// The path.
        path: String,
        /// The most that is read into memory, in bytes.
        limit: u64,
    },
    /// The node's disk does not have room for the file.
    #[error("no room for `{path}` on {host}: {needed} bytes needed, {available} available")]
    NoSpace {
        /// Host as given.
        host: String,
        /// The path.
        path: String,
        /// Bytes needed.
        needed: u64,
        /// Bytes available.
        available: u64,
    },
    /// What arrived is not what was sent.
    #[error("`{path}` on {host} did not arrive whole: expected SHA-256 {expected}, found {found}")]
    DigestMismatch {
        /// Host as given.
        host: String,
        /// The path.
        path: String,
        /// The digest that it should have, 64 hex digits.
        expected: String,
        /// The digest that it has.
        found: String,
    },
    /// A local file cannot be read or written.
    #[error("cannot {what} local file `{}`", .path.display())]
    Local {
        /// `read` or `write`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// What a program should have read could not be read here. The program was stopped.
    #[error("cannot read what a command on {host} was to be given")]
    Input {
        /// Host as given.
        host: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A value that cannot be sent: a NUL in an argument, a bad variable name, a relative path.
    #[error("{what} cannot be used: {why}")]
    Invalid {
        /// The value, or its name when it is secret.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// The run was cancelled before it ended.
    #[error("the command on {host} was cancelled")]
    Cancelled {
        /// Host as given.
        host: String,
    },
}

/// Why sudo did not make us root.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SudoProblem {
    /// It asks for a password and none was given.
    PasswordNeeded,
    /// The given password is wrong. It is not tried again.
    WrongPassword,
    /// The login user may not use sudo, or not for a shell.
    NotAllowed,
    /// It insists on a terminal (`requiretty`).
    TerminalNeeded,
    /// There is no sudo on the node.
    Missing,
    /// Something else; what sudo said, shortened.
    Other(String),
}

impl std::fmt::Display for SudoProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::PasswordNeeded => f.write_str("sudo asks for a password and none was given"),
            Self::WrongPassword => f.write_str("sudo refused the password"),
            Self::NotAllowed => f.write_str("sudo does not allow it to the login user"),
            Self::TerminalNeeded => f.write_str("sudo insists on a terminal"),
            Self::Missing => f.write_str("the login user is not root and there is no sudo"),
            Self::Other(said) => write!(f, "sudo failed: {said}"),
        }
    }
}

/// The class of an [`SshError`], for exit codes and retry rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SshErrorKind {
    /// Nobody answered, or the connection was lost.
    Unreachable,
    /// The login or sudo was refused.
    Auth,
    /// The host's key is not the expected one.
    HostKey,
    /// The node said no, or did not do what it was asked.
    Refused,
    /// A limit passed.
    Timeout,
    /// The two ends do not understand each other, or a value cannot be sent.
    Protocol,
    /// A local file is the problem.
    Local,
}

impl SshError {
    /// Whether the same call may work a little later without anybody changing anything.
    ///
    /// A refused login and a wrong host key never are: repeating them gets the caller banned or fooled.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::ConnectTimeout { .. }
            | Self::Disconnected { .. }
            | Self::HungUp { .. }
            | Self::DigestMismatch { .. } => true,
            Self::Handshake { source, .. } => source.downcast_ref::<std::io::Error>().is_some(),
            _ => false,
        }
    }

    /// The class of this error.
    pub fn kind(&self) -> SshErrorKind {
        match self {
            Self::Connect { .. }
            | Self::Disconnected { .. }
            | Self::HungUp { .. }
            | Self::JumpRefused { .. } => SshErrorKind::Unreachable,
            Self::ConnectTimeout { .. } | Self::CommandLimit { .. } => SshErrorKind::Timeout,
            Self::HostKeyUnknown { .. }
            | Self::HostKeyChanged { .. }
            | Self::HostKeyTypeGone { .. }
            | Self::HostKeyRevoked { .. }
            | Self::HostCertificate { .. } => SshErrorKind::HostKey,
            Self::Auth { .. } | Self::PasswordExpired { .. } | Self::KeyFile { .. } | Self::Sudo { .. } => {
                SshErrorKind::Auth
            }
            Self::Refused { .. }
            | Self::Remote { .. }
            | Self::NotAFile { .. }
            | Self::NotFound { .. }
            | Self::TooLarge { .. }
            | Self::NoSpace { .. }
            | Self::Cancelled { .. } => SshErrorKind::Refused,
            Self::Handshake { .. } | Self::DigestMismatch { .. } | Self::Invalid { .. } => {
                SshErrorKind::Protocol
            }
            Self::KnownHosts { .. } | Self::Local { .. } | Self::Input { .. } => SshErrorKind::Local,
        }
    }

    /// The next move, when there is an obvious one.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Connect { host, port, .. } => {
                format!("check that the node is powered on and that sshd listens on {host} port {port}")
            }
            Self::ConnectTimeout { .. } => "check the address, and whether the node has finished booting".into(),
            Self::JumpRefused { jump, .. } => format!("set `AllowTcpForwarding yes` in sshd_config of {jump}"),
            Self::HostKeyUnknown { fingerprint, .. } => format!(
                "compare {fingerprint} with `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` on the node's \
                 console, then pin it or add the host to the known-hosts file"
            ),
            Self::HostKeyChanged { file, line, .. } => {
                let place = match (file, line) {
                    (Some(file), Some(line)) => format!("line {line} of `{}`", file.display()),
                    _ => "the pinned fingerprint".into(),
                };
                format!(
                    "if the node was flashed again its key is new: forget the old one ({place}); if it was not, \
                     somebody may be listening in: do not go on"
                )
            }
            Self::HostKeyTypeGone { .. } => {
                "if the node was flashed again, forget its old keys; if it was not, somebody may be listening in".into()
            }
            Self::HostKeyRevoked { .. } => "give the node a new host key; this one must not be used any more".into(),
            Self::HostCertificate { .. } => "sign the host's key again with an authority of the known-hosts file".into(),
            Self::KnownHosts { path, .. } => format!("check owner and permissions of `{}`", path.display()),
            Self::Auth { user, .. } => format!(
                "check the user name, and that the public key stands in `~{user}/.ssh/authorized_keys` on the node"
            ),
            Self::HungUp { user, .. } => format!(
                "it may be booting or shutting down, when only root is let in; if it stays so, its account rules refuse \
                 `{user}`: see `journalctl -u ssh` on the node"
            ),
            Self::PasswordExpired { .. } => "log in once at the console and set a new password".into(),
            Self::KeyFile { .. } => "give the passphrase, add the key to the agent, or name another key".into(),
            Self::Sudo { kind, .. } => match kind {
                SudoProblem::PasswordNeeded => "give the sudo password, or allow the user sudo without one".into(),
                SudoProblem::WrongPassword => "give the right sudo password; repeating a wrong one may lock the user".into(),
                SudoProblem::NotAllowed => "add the user to the group `sudo`, or log in as root".into(),
                SudoProblem::TerminalNeeded => "remove `requiretty` from the sudoers file".into(),
                SudoProblem::Missing => "install sudo, or log in as root".into(),
                SudoProblem::Other(_) => return None,
            },
            Self::CommandLimit { .. } => "raise the limit if the node is only slow".into(),
            Self::NoSpace { .. } => "free some room on the node, or use another folder".into(),
            Self::DigestMismatch { .. } => "try again; if it happens again, check the node's disk and memory".into(),
            _ => return None,
        })
    }
}

fn list(prints: &[Fingerprint]) -> String {
    prints.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
}

fn words(words: &[String]) -> String {
    if words.is_empty() { "nothing".into() } else { words.join(", ") }
}

fn after_colon(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

/// The last part of what a program said, on one line, fit for an error.
pub(crate) fn shorten(said: &[u8]) -> String {
    const MOST: usize = 400;
    let text = String::from_utf8_lossy(said);
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().rev().nth(MOST) {
        Some((at, _)) => format!("…{}", text.get(at..).unwrap_or_default()),
        None => text,
    }
}
