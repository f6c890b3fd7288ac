//! Deciding whether the key that a host shows is its key.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use russh::{
    client,
    keys::{
        Algorithm, Certificate, EcdsaCurve, HashAlg, PublicKeyBase64, PublicKeyOrCertificate,
        ssh_key::certificate::CertType,
    },
};

use crate::{
    HostKeyPolicy, KnownHosts, SshError, SshTarget, Verdict,
    connector::{NewHostKey, OnNewHostKey, Settings},
    known_hosts::HostKey,
    link::LinkState,
    pattern,
};

/// Every host key type there is to ask for, best first. No SHA-1 signatures.
pub(crate) fn all_types() -> Vec<Algorithm> {
    vec![
        Algorithm::Ed25519,
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
        Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
        Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
    ]
}

/// The type of the key itself, which for RSA is not the name of the signature algorithm.
pub(crate) fn plain_type(algorithm: &Algorithm) -> &str {
    match algorithm {
        Algorithm::Rsa { .. } => "ssh-rsa",
        other => other.as_str(),
    }
}

/// Which key types to ask a host for.
pub(crate) struct Offer {
    pub(crate) keys: Vec<Algorithm>,
    pub(crate) certificates: Vec<Algorithm>,
    known: Vec<String>,
    name: String,
}

impl Offer {
    /// Says what a failed handshake means for the caller.
    pub(crate) fn explain(&self, target: &SshTarget, error: GuardError) -> SshError {
        let host = target.host.clone();
        match error {
            GuardError::Ssh(error) => *error,
            GuardError::PinnedOther { error, .. } => error,
            GuardError::Russh(russh::Error::NoCommonAlgo {
                kind: russh::AlgorithmKind::Key, theirs, ..
            }) if !self.known.is_empty() => SshError::HostKeyTypeGone {
                host: self.name.clone(),
                known: self.known.clone(),
                offered: theirs,
            },
            GuardError::Russh(russh::Error::IO(source)) => {
                SshError::Handshake { host, source: Box::new(source) }
            }
            // The host hung up before the key exchange was over: it is starting, or sheds load (MaxStartups).
            GuardError::Russh(russh::Error::Disconnect | russh::Error::HUP | russh::Error::SendError) => {
                SshError::Disconnected { host }
            }
            GuardError::Russh(source) => SshError::Handshake { host, source: Box::new(source) },
        }
    }
}

/// What is known about a host before it shows its key.
pub(crate) struct HostKeyCheck {
    name: String,
    port: u16,
    policy: HostKeyPolicy,
    hosts: KnownHosts,
    store: Option<PathBuf>,
    on_new: Option<OnNewHostKey>,
    accepted: Option<Vec<u8>>,
}

impl HostKeyCheck {
    pub(crate) async fn new(target: &SshTarget, settings: &Settings) -> Result<Self, SshError> {
        let (name, port) = target.known_as();
        if target.host_key == HostKeyPolicy::AcceptNew && settings.known_hosts.is_none() {
            return Err(SshError::Invalid {
                what: "host key policy accept-new".into(),
                why: "there is no known-hosts file to write to".into(),
            });
        }
        let files: Vec<PathBuf> =
            settings.known_hosts.iter().chain(&settings.extra_known_hosts).cloned().collect();
        let load = move || {
            let mut hosts = KnownHosts::default();
            files.iter().try_for_each(|file| hosts.add(file))?;
            Ok(hosts)
        };
        Ok(Self {
            name: name.to_owned(),
            port,
            policy: target.host_key.clone(),
            hosts: blocking(load).await?,
            store: settings.known_hosts.clone(),
            on_new: settings.on_new_host_key.clone(),
            accepted: None,
        })
    }

    /// The types to ask for: those the host is known by, else all of `types`. A host that chose the type itself could
    /// show a key nobody has compared yet.
    pub(crate) fn offer(&self, types: &[Algorithm]) -> Offer {
        let mut offer = Offer {
            keys: types.to_vec(),
            certificates: Vec::new(),
            known: Vec::new(),
            name: self.name.clone(),
        };
        if matches!(self.policy, HostKeyPolicy::Pinned(_)) {
            return offer;
        }
        let known = self.hosts.key_types(&self.name, self.port);
        let usable: Vec<Algorithm> = types
            .iter()
            .filter(|kind| known.iter().any(|known| known == plain_type(kind)))
            .cloned()
            .collect();
        if !usable.is_empty() {
            offer.keys = usable;
            offer.known = known;
        }
        if !self.hosts.authorities(&self.name, self.port).is_empty() {
            offer.certificates = types.to_vec();
        }
        offer
    }

    async fn check(&mut self, shown: &PublicKeyOrCertificate) -> Result<(), GuardError> {
        let blob = match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => key.public_key_bytes(),
            PublicKeyOrCertificate::Certificate(certificate) => {
                certificate.to_bytes().map_err(|e| self.unreadable(e))?
            }
        };
        // A new key exchange on the same connection: the same key again, or not at all.
        if let Some(accepted) = &self.accepted {
            return if *accepted == blob {
                Ok(())
            } else {
                Err(self.bad_certificate("the key was exchanged while the connection was up").into())
            };
        }
        match shown {
            PublicKeyOrCertificate::PublicKey { .. } => {
                let key = HostKey::from_blob(blob.clone())
                    .ok_or_else(|| self.bad_certificate("the key is malformed"))?;
                self.check_key(key).await?;
            }
            PublicKeyOrCertificate::Certificate(certificate) => self.check_certificate(certificate)?,
        }
        self.accepted = Some(blob);
        Ok(())
    }

    async fn check_key(&self, key: HostKey) -> Result<(), GuardError> {
        let host = self.name.clone();
        let found = key.fingerprint();
        if let HostKeyPolicy::Pinned(pinned) = &self.policy {
            if let Some((file, line)) = self.hosts.revoked(&self.name, self.port, &key) {
                return Err(SshError::HostKeyRevoked { host, fingerprint: found, file, line }.into());
            }
            if pinned.contains(&found) {
                return Ok(());
            }
            let error =
                SshError::HostKeyChanged { host, expected: pinned.clone(), found, file: None, line: None };
            return Err(GuardError::PinnedOther { error, key_type: key.key_type().to_owned() });
        }
        Err(match self.hosts.lookup(&self.name, self.port, &key) {
            Verdict::Known => return Ok(()),
            Verdict::Revoked { file, line } => {
                SshError::HostKeyRevoked { host, fingerprint: found, file, line }
            }
            Verdict::Changed { expected, file, line } | Verdict::OtherType { expected, file, line, .. } => {
                SshError::HostKeyChanged { host, expected, found, file, line: Some(line) }
            }
            Verdict::Unknown if self.policy == HostKeyPolicy::AcceptNew => {
                return Ok(self.remember(key).await?);
            }
            Verdict::Unknown | Verdict::AuthorityOnly => {
                SshError::HostKeyUnknown { host, key_type: key.key_type().to_owned(), fingerprint: found }
            }
        }
        .into())
    }

    async fn remember(&self, key: HostKey) -> Result<(), SshError> {
        let Some(store) = self.store.clone() else { return Ok(()) };
        let new = NewHostKey {
            host: self.name.clone(),
            port: self.port,
            key_type: key.key_type().to_owned(),
            fingerprint: key.fingerprint(),
        };
        let (name, port) = (self.name.clone(), self.port);
        blocking(move || KnownHosts::append(&store, &name, port, &key)).await?;
        tracing::info!(host = %new.host, fingerprint = %new.fingerprint, "new host key written down");
        if let Some(tell) = &self.on_new {
            tell(&new);
        }
        Ok(())
    }

    /// PROTOCOL.certkeys of OpenSSH: a host certificate, signed by a trusted authority, for this name, now.
    fn check_certificate(&self, certificate: &Certificate) -> Result<(), SshError> {
        let key_of = |data: &russh::keys::ssh_key::public::KeyData| {
            HostKey::from_blob(russh::keys::PublicKey::new(data.clone(), "").public_key_bytes())
                .ok_or_else(|| self.bad_certificate("a key in it is malformed"))
        };
        let (authority, own) = (key_of(certificate.signature_key())?, key_of(certificate.public_key())?);
        for key in [&authority, &own] {
            if let Some((file, line)) = self.hosts.revoked(&self.name, self.port, key) {
                let fingerprint = key.fingerprint();
                return Err(SshError::HostKeyRevoked { host: self.name.clone(), fingerprint, file, line });
            }
        }
        if !self.hosts.authorities(&self.name, self.port).contains(&authority) {
            return Err(
                self.bad_certificate(&format!("its authority {} is not trusted", authority.fingerprint()))
            );
        }
        if certificate.cert_type() != CertType::Host {
            return Err(self.bad_certificate("it is not a host certificate"));
        }
        if matches!(certificate.signature().algorithm(), Algorithm::Rsa { hash: None } | Algorithm::Dsa) {
            return Err(self.bad_certificate("it is signed with SHA-1"));
        }
        certificate.verify_signature().map_err(|_| self.bad_certificate("its signature is wrong"))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if now < certificate.valid_after() {
            return Err(self.bad_certificate("it is not valid yet (is the clock right?)"));
        }
        if now >= certificate.valid_before() {
            return Err(self.bad_certificate("it has expired"));
        }
        if !certificate.valid_principals().iter().any(|principal| pattern::glob(principal, &self.name)) {
            let names = certificate.valid_principals().join(", ");
            return Err(self.bad_certificate(&format!("it is for `{names}`")));
        }
        if let Some((option, _)) = certificate.critical_options().iter().next() {
            return Err(self.bad_certificate(&format!("it has a critical option `{option}`")));
        }
        Ok(())
    }

    fn bad_certificate(&self, problem: &str) -> SshError {
        SshError::HostCertificate { host: self.name.clone(), problem: problem.to_owned() }
    }
    fn unreadable(&self, error: russh::keys::ssh_key::Error) -> SshError {
        self.bad_certificate(&format!("it cannot be read ({error})"))
    }
}

/// Why the handler stopped the connection.
#[derive(Debug)]
pub(crate) enum GuardError {
    Ssh(Box<SshError>),
    /// Not the pinned key, but the host may have another one that is.
    PinnedOther {
        error: SshError,
        key_type: String,
    },
    Russh(russh::Error),
}

impl From<russh::Error> for GuardError {
    fn from(error: russh::Error) -> Self {
        Self::Russh(error)
    }
}
impl From<SshError> for GuardError {
    fn from(error: SshError) -> Self {
        Self::Ssh(Box::new(error))
    }
}

/// The callbacks of one connection.
pub(crate) struct Guard {
    check: HostKeyCheck,
    state: Arc<LinkState>,
}

impl Guard {
    pub(crate) fn new(check: HostKeyCheck, state: Arc<LinkState>) -> Self {
        Self { check, state }
    }
}

impl Drop for Guard {
    // The library drops its handler when the connection's task ends, whatever the way it ends.
    fn drop(&mut self) {
        self.state.closed.cancel();
    }
}

impl client::Handler for Guard {
    type Error = GuardError;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, GuardError> {
        self.check.check(shown).await?;
        Ok(true)
    }

    async fn auth_banner(&mut self, banner: &str, _session: &mut client::Session) -> Result<(), GuardError> {
        self.state.showed_banner(banner);
        Ok(())
    }

    async fn disconnected(&mut self, reason: client::DisconnectReason<GuardError>) -> Result<(), GuardError> {
        match &reason {
            client::DisconnectReason::ReceivedDisconnect(info) => self.state.said_goodbye(&info.message),
            // It refused a login and takes no other one: our side gives up.
            client::DisconnectReason::Error(GuardError::Russh(russh::Error::NoAuthMethod)) => {
                self.state.said_goodbye("it takes no other login");
            }
            client::DisconnectReason::Error(_) => {}
        }
        Ok(())
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SshError> + Send + 'static,
) -> Result<T, SshError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(SshError::Local {
            what: "read",
            path: PathBuf::from("known hosts"),
            source: std::io::Error::other(error),
        }),
    }
}
