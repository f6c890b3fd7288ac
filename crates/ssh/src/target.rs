//! Whom to reach, and how to prove both ends.

use std::path::PathBuf;

use secrecy::SecretString;

use crate::Fingerprint;

/// One node as SSH sees it. Built with [`SshTarget::new`] and the methods below.
#[derive(Debug, Clone)]
pub struct SshTarget {
    /// Name or address to connect to.
    pub host: String,
    /// TCP port, 22 by default.
    pub port: u16,
    /// Login name, `root` by default.
    pub user: String,
    /// Logins to try. Keys go before passwords whatever their place here (a failed password may ban the caller, a failed
    /// key does not); otherwise the order is kept.
    pub auth: Vec<AuthMethod>,
    /// The name under which the host key is known, without port. Default: `host`, or `[host]:port` for another port than 22.
    pub host_key_name: Option<String>,
    /// What to do about the host's key.
    pub host_key: HostKeyPolicy,
    /// Hosts to go through, the first one reached directly. Each checks its own key and has its own login.
    pub jumps: Vec<SshTarget>,
    /// For sudo, when the login user is not root and sudo asks.
    pub sudo_password: Option<SecretString>,
}

/// One way to log in.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum AuthMethod {
    /// Every identity of a running ssh-agent, as many as the host's limit lets through.
    Agent {
        /// The agent's socket.
        socket: PathBuf,
    },
    /// Only these identities of a running ssh-agent (`IdentitiesOnly`).
    AgentKeys {
        /// The agent's socket.
        socket: PathBuf,
        /// The keys to offer.
        only: Vec<Fingerprint>,
    },
    /// A private key file: OpenSSH, PKCS#8, PKCS#1 or SEC1; ed25519, ECDSA or RSA (SHA-2 signatures). A file that cannot be
    /// read is skipped and named in the error when nothing else works. `<path>-cert.pub` beside it is offered first.
    KeyFile {
        /// The file.
        path: PathBuf,
        /// For an encrypted key.
        passphrase: Option<SecretString>,
    },
    /// A private key in memory.
    Key {
        /// The text of the key file.
        openssh_pem: SecretString,
        /// For an encrypted key.
        passphrase: Option<SecretString>,
    },
    /// A password. Also answers `keyboard-interactive` when that asks for one hidden value.
    Password(SecretString),
}

/// What to do about a host's key. There is no "accept anything".
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum HostKeyPolicy {
    /// The key, or the authority that signed it, stands in a known-hosts file.
    #[default]
    Strict,
    /// As strict, but a host that is not known at all is written down. A changed key is refused.
    AcceptNew,
    /// The key has one of these fingerprints. The known-hosts files are read only for `@revoked`.
    Pinned(Vec<Fingerprint>),
}

impl SshTarget {
    /// A target with port 22, user `root`, strict host key checking and no login yet.
    pub fn new(host: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            port: 22,
            user: "root".into(),
            auth: Vec::new(),
            host_key_name: None,
            host_key: HostKeyPolicy::Strict,
            jumps: Vec::new(),
            sudo_password: None,
        }
    }
    /// Sets the login name.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = user.into();
        self
    }
    /// Sets the TCP port.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }
    /// Adds a way to log in.
    #[must_use]
    pub fn auth(mut self, method: AuthMethod) -> Self {
        self.auth.push(method);
        self
    }
    /// Sets the name under which the host key is known.
    #[must_use]
    pub fn host_key_name(mut self, name: impl Into<String>) -> Self {
        self.host_key_name = Some(name.into());
        self
    }
    /// Sets what to do about the host's key.
    #[must_use]
    pub fn host_key(mut self, policy: HostKeyPolicy) -> Self {
        self.host_key = policy;
        self
    }
    /// Adds a host to go through, after those added before.
    #[must_use]
    pub fn jump(mut self, jump: SshTarget) -> Self {
        self.jumps.push(jump);
        self
    }
    /// Sets the sudo password.
    #[must_use]
    pub fn sudo_password(mut self, password: SecretString) -> Self {
        self.sudo_password = Some(password);
        self
    }

    /// Host and port under which known-hosts files hold the key.
    pub fn known_as(&self) -> (&str, u16) {
        match &self.host_key_name {
            Some(name) => (name, 22),
            None => (&self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_of_a_target_holds_no_secret() {
        let target = SshTarget::new("node1")
            .auth(AuthMethod::Password("pw-4711".into()))
            .auth(AuthMethod::KeyFile { path: "id".into(), passphrase: Some("phrase-4711".into()) })
            .auth(AuthMethod::Key { openssh_pem: "pem-4711".into(), passphrase: None })
            .sudo_password("sudo-4711".into())
            .jump(SshTarget::new("hop").auth(AuthMethod::Password("hop-4711".into())));
        let shown = format!("{target:?} {target:#?}");
        assert!(!shown.contains("4711"), "{shown}");
        assert!(shown.contains("node1") && shown.contains("hop"), "{shown}");
    }
}
