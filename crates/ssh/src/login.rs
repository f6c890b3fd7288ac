//! Logging in: which proofs to offer, in which order, and how many.

use std::{path::Path, sync::Arc, time::Duration};

use russh::{
    Error, MethodKind, MethodSet,
    client::{AuthResult, Handle, KeyboardInteractiveAuthResponse as Answer, Prompt},
    keys::{
        Algorithm, HashAlg, PrivateKey, PrivateKeyWithHashAlg,
        agent::{AgentIdentity, client::AgentClient},
    },
};
use secrecy::{ExposeSecret, SecretString};

use crate::{AuthMethod, Fingerprint, SshError, SshTarget, error::shorten, hostkey::Guard, link::LinkState};

/// Tries the target's logins: keys first, then passwords, otherwise in the given order, within the host's limit.
pub(crate) async fn login(
    handle: &mut Handle<Guard>,
    target: &SshTarget,
    state: &LinkState,
    tries: usize,
) -> Result<(), SshError> {
    let mut login = Login {
        handle,
        target,
        state,
        left: tries,
        tried: Vec::new(),
        remaining: MethodSet::empty(),
        key_problem: None,
        gave_password: false,
    };
    // Costs no try, and tells what the host takes at all.
    let offered = login.handle.authenticate_none(&target.user).await;
    if login.note(None, offered).await? {
        return Ok(());
    }
    let (keys, passwords): (Vec<_>, Vec<_>) =
        target.auth.iter().partition(|method| !matches!(method, AuthMethod::Password(_)));
    let reserved = passwords.len();
    for method in keys {
        if login.left <= reserved {
            login.tried.push("further keys not offered (limit of the host)".into());
            break;
        }
        if login.key(method, reserved).await? {
            return Ok(());
        }
    }
    for method in passwords {
        if let AuthMethod::Password(password) = method
            && login.password(password).await?
        {
            return Ok(());
        }
    }
    Err(login.refused())
}

/// How long the end of a connection takes to be noticed here.
const MOMENT: Duration = Duration::from_millis(200);

struct Login<'a> {
    handle: &'a mut Handle<Guard>,
    target: &'a SshTarget,
    state: &'a LinkState,
    left: usize,
    tried: Vec<String>,
    remaining: MethodSet,
    key_problem: Option<SshError>,
    /// A password went to the host: what it answers with silence may be a refusal, and it is not told again.
    gave_password: bool,
}

impl Login<'_> {
    fn takes(&self, kind: MethodKind) -> bool {
        self.remaining.contains(&kind)
    }

    /// Books the outcome of one try; `true` means we are in.
    async fn note(
        &mut self,
        what: Option<String>,
        result: Result<AuthResult, Error>,
    ) -> Result<bool, SshError> {
        let counted = what.is_some();
        match result {
            Ok(AuthResult::Success) => return Ok(true),
            Ok(AuthResult::Failure { remaining_methods, partial_success }) => {
                // A connection that ends meanwhile also reads as a failure, one with nothing left to try.
                if remaining_methods.is_empty() {
                    self.tried.extend(what);
                    // Which of the two it was is known when the connection's end has been noticed.
                    let _ = tokio::time::timeout(MOMENT, self.state.closed.cancelled()).await;
                    return Err(self.hung_up());
                }
                self.remaining = remaining_methods;
                self.tried.extend(what.map(|what| {
                    if partial_success { format!("{what} (accepted, more asked)") } else { what }
                }));
                if counted && !partial_success {
                    self.left = self.left.saturating_sub(1);
                }
            }
            Err(_) => {
                self.tried.extend(what);
                return Err(self.hung_up());
            }
        }
        Ok(false)
    }

    /// A host that says goodbye, or has had all its tries, has refused. One that hangs up without a word may be busy,
    /// or on its way up or down: sshd does so to everybody but root while the system boots or shuts down.
    fn hung_up(&mut self) -> SshError {
        if self.tried.is_empty() {
            return SshError::Disconnected { host: self.target.host.clone() };
        }
        let goodbye = self.state.goodbye();
        let banner = self.state.banner();
        let ambiguous = self.gave_password && banner.is_none();
        if goodbye.is_none() && self.left > 0 && !ambiguous {
            return SshError::HungUp {
                user: self.target.user.clone(),
                host: self.target.host.clone(),
                tried: std::mem::take(&mut self.tried),
                said: banner.map(|said| shorten(said.as_bytes())).unwrap_or_default(),
            };
        }
        let said = goodbye.map(|said| format!(": {said}")).unwrap_or_default();
        self.tried.push(format!("then the host hung up{said}"));
        self.remaining = MethodSet::empty();
        self.refused()
    }

    fn refused(&mut self) -> SshError {
        let only_keys = self.tried.iter().all(|tried| tried.ends_with(')'));
        match self.key_problem.take() {
            Some(problem) if only_keys => problem,
            _ => SshError::Auth {
                user: self.target.user.clone(),
                host: self.target.host.clone(),
                tried: std::mem::take(&mut self.tried),
                remaining: self.remaining.iter().map(String::from).collect(),
            },
        }
    }

    async fn key(&mut self, method: &AuthMethod, reserved: usize) -> Result<bool, SshError> {
        if !self.takes(MethodKind::PublicKey) {
            return Ok(false);
        }
        match method {
            AuthMethod::Agent { socket } => self.agent(socket, None, reserved).await,
            AuthMethod::AgentKeys { socket, only } => self.agent(socket, Some(only), reserved).await,
            AuthMethod::KeyFile { path, passphrase } => self.key_file(path, passphrase.as_ref()).await,
            AuthMethod::Key { openssh_pem, passphrase } => {
                let name = Path::new("(given key)");
                self.private_key(name, openssh_pem.expose_secret(), passphrase.as_ref(), None).await
            }
            AuthMethod::Password(_) => Ok(false),
        }
    }

    async fn key_file(&mut self, path: &Path, passphrase: Option<&SecretString>) -> Result<bool, SshError> {
        let text = match tokio::fs::read_to_string(path).await {
            Ok(text) => zeroize::Zeroizing::new(text),
            Err(error) => {
                self.unusable(path, &format!("it cannot be read ({error})"));
                return Ok(false);
            }
        };
        let mut certificate = path.as_os_str().to_owned();
        certificate.push("-cert.pub");
        let certificate = tokio::fs::read_to_string(&certificate).await.ok();
        self.private_key(path, &text, passphrase, certificate).await
    }

    fn unusable(&mut self, path: &Path, problem: &str) {
        self.tried.push(format!("key {} (not usable: {problem})", path.display()));
        self.key_problem = Some(SshError::KeyFile { path: path.to_owned(), problem: problem.to_owned() });
    }

    async fn private_key(
        &mut self,
        name: &Path,
        text: &str,
        passphrase: Option<&SecretString>,
        certificate: Option<String>,
    ) -> Result<bool, SshError> {
        let key = match decode(text.to_owned().into(), passphrase.cloned()).await {
            Ok(key) => Arc::new(key),
            Err(problem) => {
                self.unusable(name, &problem);
                return Ok(false);
            }
        };
        let certificate =
            certificate.and_then(|text| russh::keys::Certificate::from_openssh(text.trim()).ok());
        if let Some(certificate) = certificate
            && certificate.public_key() == key.public_key().key_data()
        {
            let result =
                self.handle.authenticate_openssh_cert(&self.target.user, Arc::clone(&key), certificate).await;
            if self.note(Some(format!("certificate of {}", name.display())), result).await? {
                return Ok(true);
            }
        }
        for hash in self.hashes(&key.algorithm()).await? {
            if !self.takes(MethodKind::PublicKey) {
                return Ok(false);
            }
            let key = PrivateKeyWithHashAlg::new(Arc::clone(&key), hash);
            let what = format!("key {}", name.display());
            let result = self.handle.authenticate_publickey(&self.target.user, key).await;
            if self.note(Some(what), result).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The hashes to sign with: for RSA what the host announces, both SHA-2 ones when it announces nothing, never SHA-1.
    async fn hashes(&mut self, algorithm: &Algorithm) -> Result<Vec<Option<HashAlg>>, SshError> {
        if !matches!(algorithm, Algorithm::Rsa { .. }) {
            return Ok(vec![None]);
        }
        match self.handle.best_supported_rsa_hash().await {
            Ok(Some(Some(hash))) => Ok(vec![Some(hash)]),
            Ok(Some(None)) => {
                self.tried.push("RSA key (not offered: the host takes only SHA-1 signatures)".into());
                Ok(Vec::new())
            }
            Ok(None) => Ok(vec![Some(HashAlg::Sha512), Some(HashAlg::Sha256)]),
            Err(_) => Err(self.hung_up()),
        }
    }

    async fn agent(
        &mut self,
        socket: &Path,
        only: Option<&[Fingerprint]>,
        reserved: usize,
    ) -> Result<bool, SshError> {
        let unreachable = |error: &dyn std::fmt::Display| format!("agent (not usable: {error})");
        let mut agent = match AgentClient::connect_uds(socket).await {
            Ok(agent) => agent,
            Err(error) => {
                self.tried.push(unreachable(&error));
                return Ok(false);
            }
        };
        if let Some(binding) = self.handle.agent_session_binding() {
            // An agent that does not know the extension answers with a failure, which is fine.
            let _ = agent.bind_session(binding, false).await;
        }
        let identities = match agent.request_identities().await {
            Ok(identities) => identities,
            Err(error) => {
                self.tried.push(unreachable(&error));
                return Ok(false);
            }
        };
        let wanted = |identity: &AgentIdentity| {
            only.is_none_or(|only| only.contains(&Fingerprint::of_key(&identity.public_key())))
        };
        let identities: Vec<AgentIdentity> = identities.into_iter().filter(wanted).collect();
        if identities.is_empty() {
            self.tried.push("agent (it has no such key)".into());
        }
        for (index, identity) in identities.iter().enumerate() {
            if self.left <= reserved {
                self.tried.push(format!(
                    "{} more keys of the agent (not offered: limit of the host)",
                    identities.len() - index
                ));
                break;
            }
            if !self.takes(MethodKind::PublicKey) {
                break;
            }
            if self.agent_identity(&mut agent, identity).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn agent_identity<S>(
        &mut self,
        agent: &mut AgentClient<S>,
        identity: &AgentIdentity,
    ) -> Result<bool, SshError>
    where
        S: russh::keys::agent::client::AgentStream + Send + Unpin,
    {
        let key = identity.public_key().into_owned();
        let what = format!("agent key {}", Fingerprint::of_key(&key));
        for hash in self.hashes(&key.algorithm()).await? {
            let user = &self.target.user;
            let result = match identity {
                AgentIdentity::PublicKey { .. } => {
                    self.handle.authenticate_publickey_with(user, key.clone(), hash, agent).await
                }
                AgentIdentity::Certificate { certificate, .. } => {
                    self.handle.authenticate_certificate_with(user, certificate.clone(), hash, agent).await
                }
            };
            match result {
                Ok(result) => {
                    if self.note(Some(what.clone()), Ok(result)).await? {
                        return Ok(true);
                    }
                }
                Err(russh::AgentAuthError::Key(error)) => {
                    self.tried.push(format!("{what} (the agent did not sign: {error})"));
                    self.left = self.left.saturating_sub(1);
                    break;
                }
                Err(russh::AgentAuthError::Send(_)) => return Err(self.hung_up()),
            }
        }
        Ok(false)
    }

    async fn password(&mut self, password: &SecretString) -> Result<bool, SshError> {
        self.gave_password = true;
        let mut answered = false;
        if self.takes(MethodKind::KeyboardInteractive) && self.left > 0 {
            match self.keyboard_interactive(password).await? {
                Dialogue::In => return Ok(true),
                Dialogue::Refused => answered = true,
                Dialogue::NotAsked => {}
            }
        }
        // The same password by another way is the same password: a second refusal only gets the caller banned.
        if answered || !self.takes(MethodKind::Password) || self.left == 0 {
            return Ok(false);
        }
        let result = self.handle.authenticate_password(&self.target.user, password.expose_secret()).await;
        self.note(Some("password".into()), result).await
    }

    async fn keyboard_interactive(&mut self, password: &SecretString) -> Result<Dialogue, SshError> {
        let mut answer = self.handle.authenticate_keyboard_interactive_start(&self.target.user, None).await;
        let mut answered = false;
        loop {
            let what = "keyboard-interactive";
            match answer {
                Ok(Answer::Success) => return Ok(Dialogue::In),
                Ok(Answer::Failure { remaining_methods, partial_success }) => {
                    let what = answered.then(|| what.to_owned());
                    self.note(what, Ok(AuthResult::Failure { remaining_methods, partial_success })).await?;
                    return Ok(if answered && !partial_success {
                        Dialogue::Refused
                    } else {
                        Dialogue::NotAsked
                    });
                }
                Ok(Answer::InfoRequest { prompts, .. }) => {
                    let responses = match prompts.as_slice() {
                        [] => Vec::new(),
                        prompts if prompts.iter().any(wants_new_password) => {
                            let (user, host) = (self.target.user.clone(), self.target.host.clone());
                            return Err(SshError::PasswordExpired { user, host });
                        }
                        [only] if !only.echo && !answered && !wants_code(only) => {
                            answered = true;
                            vec![password.expose_secret().to_owned()]
                        }
                        other => {
                            self.tried
                                .push(format!("{what} (not answered: it asked for {} values)", other.len()));
                            // An empty answer ends the dialogue without giving anything away.
                            vec![String::new(); other.len()]
                        }
                    };
                    answer = self.handle.authenticate_keyboard_interactive_respond(responses).await;
                }
                Err(_) => {
                    self.tried.push(what.into());
                    return Err(self.hung_up());
                }
            }
        }
    }
}

enum Dialogue {
    In,
    Refused,
    NotAsked,
}

fn wants_new_password(prompt: &Prompt) -> bool {
    let text = prompt.prompt.to_lowercase();
    text.contains("new password") || text.contains("current password") || text.contains("retype")
}

fn wants_code(prompt: &Prompt) -> bool {
    let text = prompt.prompt.to_lowercase();
    !text.contains("password") && ["code", "token", "otp", "one-time"].iter().any(|word| text.contains(word))
}

/// Deriving the key from a passphrase takes a good part of a second, so it runs beside the event loop.
pub(crate) async fn decode(
    text: SecretString,
    passphrase: Option<SecretString>,
) -> Result<PrivateKey, String> {
    let work = move || {
        russh::keys::decode_secret_key(
            text.expose_secret(),
            passphrase.as_ref().map(ExposeSecret::expose_secret),
        )
        .map_err(|error| match error {
            russh::keys::Error::KeyIsEncrypted => "it is encrypted and no passphrase was given".into(),
            russh::keys::Error::SshKey(_) if passphrase.is_some() => {
                "the passphrase is wrong, or the file is damaged".into()
            }
            error => format!("it is not a private key that can be read ({error})"),
        })
    };
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err("it cannot be read".into()))
}
