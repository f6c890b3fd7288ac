//! One login and one call at a time.

use std::{
    borrow::Cow,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{HeaderValue, Request, header};
use rustls::ClientConfig;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use tokio::sync::MutexGuard;

use super::{Broken, Call, Connection, Method, Payload, Place, Reply, answer, auth, patient::Stream};
use crate::{About, Attempt, AuthReason, BmcError, Fingerprint, SavedToken, client::BmcTimeouts, tls::Gate};

mod handover;

/// What a session is made of.
pub(crate) struct Settings {
    pub(crate) place: Place,
    pub(crate) tls: Option<(Arc<ClientConfig>, Arc<Gate>)>,
    pub(crate) credentials: Option<(String, SecretString)>,
    pub(crate) timeouts: BmcTimeouts,
    /// Of an earlier run; host, port and user are compared already.
    pub(crate) saved: Option<SavedToken>,
}

/// The daemon serves one authenticated request at a time and lets all others hang, so this client sends one at a time, and
/// all of them over one connection: a handshake costs the BMC's slow processor a good part of a second.
pub(crate) struct Session {
    settings: Settings,
    name: Arc<str>,
    /// Held for the length of a call; for the length of a whole upload, too.
    line: tokio::sync::Mutex<Line>,
    /// A refused login is final: five of them ban this address.
    refused: Mutex<Option<AuthReason>>,
    firmware: Mutex<Option<Arc<About>>>,
    /// The token as others may take it along.
    held: Mutex<Option<handover::Held>>,
}

/// What belongs to the one call at a time.
#[derive(Default)]
pub(crate) struct Line {
    connection: Option<Connection>,
    login: Login,
}

#[derive(Default)]
enum Login {
    #[default]
    Needed,
    /// The `Authorization` header, marked sensitive.
    Token(HeaderValue),
    /// A token of an earlier run, until the BMC has shown its certificate.
    Saved(SavedToken),
    /// There is no login here: firmware 1.x, or the daemon's loopback.
    Absent,
}

impl Line {
    /// The answer with the session's token blotted out, in case somebody on the way says it back.
    pub(crate) fn without_token(&self, mut reply: Reply) -> Reply {
        if let Login::Token(header) = &self.login
            && let Some(token) = header.to_str().ok().and_then(|h| h.strip_prefix("Bearer "))
        {
            let text = String::from_utf8_lossy(&reply.body);
            if text.contains(token) {
                reply.body = text.replace(token, "[token]").into();
            }
        }
        reply
    }
}

impl Session {
    pub(crate) fn new(settings: Settings) -> Self {
        let mut settings = settings;
        let login = match settings.saved.take() {
            _ if !settings.place.encrypted() => Login::Absent,
            Some(saved) => Login::Saved(saved),
            None => Login::Needed,
        };
        Self {
            name: settings.place.name(),
            settings,
            line: tokio::sync::Mutex::new(Line { connection: None, login }),
            refused: Mutex::new(None),
            firmware: Mutex::new(None),
            held: Mutex::new(None),
        }
    }

    pub(crate) fn encrypted(&self) -> bool {
        self.settings.place.encrypted()
    }
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }
    pub(crate) fn timeouts(&self) -> &BmcTimeouts {
        &self.settings.timeouts
    }
    pub(crate) fn base(&self) -> &str {
        self.settings.place.base()
    }
    pub(crate) fn fingerprint(&self) -> Option<Fingerprint> {
        self.settings.tls.as_ref().and_then(|(_, gate)| gate.found())
    }
    pub(crate) fn attempt(&self, action: impl Into<Cow<'static, str>>) -> Attempt {
        Attempt::new(action, self.name.clone())
    }
    pub(crate) fn known_firmware(&self) -> Option<Arc<About>> {
        self.firmware.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    pub(crate) fn learn_firmware(&self, about: &Arc<About>) {
        *self.firmware.lock().unwrap_or_else(PoisonError::into_inner) = Some(about.clone());
    }
    pub(crate) fn forget_firmware(&self) {
        *self.firmware.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The right to talk to the BMC. Calls of others wait for it.
    pub(crate) async fn line(&self) -> MutexGuard<'_, Line> {
        match self.line.try_lock() {
            Ok(line) => line,
            Err(_) => {
                tracing::debug!(bmc = %self.name, "waits for the call before, which may be an upload");
                self.line.lock().await
            }
        }
    }

    /// An ordinary call.
    pub(crate) async fn call(&self, call: &Call) -> Result<Reply, BmcError> {
        let mut line = self.line().await;
        self.call_on(&mut line, call).await
    }

    /// A call that takes longer than others.
    pub(crate) async fn call_within(&self, call: &Call, limit: Duration) -> Result<Reply, BmcError> {
        let mut line = self.line().await;
        self.call_on_within(&mut line, call, limit).await
    }

    /// A call that answers `ok`.
    pub(crate) async fn command(&self, call: &Call) -> Result<(), BmcError> {
        let reply = self.call(call).await?;
        answer::ok(&reply, &self.attempt(call.action()))
    }

    /// A call on a line already held. A refused token is replaced once.
    pub(crate) async fn call_on(&self, line: &mut Line, call: &Call) -> Result<Reply, BmcError> {
        self.call_on_within(line, call, self.settings.timeouts.call).await
    }

    pub(crate) async fn call_on_within(
        &self,
        line: &mut Line,
        call: &Call,
        limit: Duration,
    ) -> Result<Reply, BmcError> {
        let attempt = self.attempt(call.action());
        self.ensure_login(line, &attempt).await?;
        let reply = self.exchange(line, call, limit).await.map_err(|broken| self.broken(broken, &attempt))?;
        if reply.status != 401 {
            self.token_worked();
            return self.admitted(reply, &attempt);
        }
        if !self.encrypted() {
            return Err(BmcError::Auth { attempt, reason: AuthReason::Missing });
        }
        if let Err(banned @ BmcError::Banned { .. }) = answer::check_status(&reply, &attempt) {
            return Err(banned);
        }
        // The token is unknown: the daemon restarted, perhaps with another firmware.
        self.forget_firmware();
        self.drop_token(line);
        self.ensure_login(line, &attempt).await?;
        let reply = self.exchange(line, call, limit).await.map_err(|broken| self.broken(broken, &attempt))?;
        if reply.status == 401 {
            self.drop_token(line);
        } else {
            self.token_worked();
        }
        self.admitted(reply, &attempt)
    }

    /// Refusals that are the same for every call.
    fn admitted(&self, reply: Reply, attempt: &Attempt) -> Result<Reply, BmcError> {
        match reply.status {
            401 | 403 | 429 => answer::check_status(&reply, attempt).map(|()| reply),
            _ => Ok(reply),
        }
    }

    fn broken(&self, broken: Broken, attempt: &Attempt) -> BmcError {
        self.forget_firmware();
        broken.into_error(attempt.clone())
    }

    /// Forgets the token, so that the next call gets a fresh one. Without a password there is none to be had.
    pub(crate) fn renew_login(&self, line: &mut Line) {
        if self.settings.credentials.is_some() {
            self.drop_token(line);
        }
    }

    pub(crate) async fn ensure_login(&self, line: &mut Line, attempt: &Attempt) -> Result<(), BmcError> {
        if let Login::Saved(_) = line.login {
            // First the certificate: the token is bound to it.
            let connection = self.connection(line).await.map_err(|broken| self.broken(broken, attempt))?;
            self.keep(line, connection);
            self.adopt(line);
        }
        if !matches!(line.login, Login::Needed) {
            return Ok(());
        }
        let mut refused = *self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((user, password)) = &self.settings.credentials else {
            return Err(BmcError::Auth { attempt: attempt.clone(), reason: AuthReason::Missing });
        };
        if refused.is_none() {
            let body = json!({ "username": user, "password": password.expose_secret() });
            let call = Call::path("log in", Method::Post, "/authenticate").json(&body);
            let limit = self.settings.timeouts.call;
            let reply =
                self.exchange(line, &call, limit).await.map_err(|broken| self.broken(broken, attempt))?;
            match self.logged_in(&reply, attempt)? {
                Ok(login) => {
                    self.hold(&login, user);
                    line.login = login;
                }
                Err(reason) => {
                    tracing::warn!(bmc = %self.name, "login refused");
                    *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
                    refused = Some(reason);
                }
            }
        }
        match refused {
            Some(reason) => Err(BmcError::Auth { attempt: attempt.clone(), reason }),
            None => Ok(()),
        }
    }

    /// The inner error is a refusal for good. Nothing of the answer's text gets into an error: it may hold the token.
    fn logged_in(&self, reply: &Reply, attempt: &Attempt) -> Result<Result<Login, AuthReason>, BmcError> {
        let text = String::from_utf8_lossy(&reply.body);
        let unreadable = |problem: &'static str| BmcError::Protocol {
            attempt: attempt.clone(),
            problem: problem.into(),
            raw: "(withheld)".to_owned(),
        };
        match reply.status {
            200..=299 => {}
            401 | 403 => {
                return match auth::ban(&text) {
                    Some(wait) => Err(BmcError::Banned { attempt: attempt.clone(), wait }),
                    None if text.contains("trying to parse credentials") => {
                        Err(unreadable("the BMC could not read the login"))
                    }
                    None => Ok(Err(AuthReason::Wrong)),
                };
            }
            _ => {
                if let Err(mut error) = answer::check_status(reply, attempt) {
                    // A proxy may say back what it could not read: the user and the password.
                    if let BmcError::Api { text, .. } = &mut error {
                        *text = "(withheld)".to_owned();
                    }
                    return Err(error);
                }
            }
        }
        match answer::document(reply, attempt) {
            Ok(document) => {
                let token = document["id"].as_str().filter(|id| !id.is_empty());
                let header = token.and_then(|token| HeaderValue::from_str(&format!("Bearer {token}")).ok());
                let mut header = header.ok_or_else(|| unreadable("the login's answer has no token"))?;
                header.set_sensitive(true);
                Ok(Ok(Login::Token(header)))
            }
            // The web page instead of a login: the daemon asks nothing of its own loopback.
            Err(BmcError::Unsupported { .. }) => Ok(Ok(Login::Absent)),
            Err(_) => Err(unreadable("the login's answer is not JSON")),
        }
    }

    /// Sends one request. A connection whose exchange did not end well is never used again.
    async fn exchange(&self, line: &mut Line, call: &Call, limit: Duration) -> Result<Reply, Broken> {
        let mut connection = self.connection(line).await?;
        let payload = call.body().map_or(Payload::Empty, |body| Payload::Whole(body.clone()));
        let request = self.request(line, call, payload);
        let reply = connection.exchange(request, limit).await?;
        let reply = line.without_token(reply);
        tracing::debug!(bmc = %self.name, action = %call.action(), status = reply.status, "answered");
        line.connection = Some(connection);
        Ok(reply)
    }

    /// Takes the connection out of the line, or opens one: a dropped future takes it along.
    pub(crate) async fn connection(&self, line: &mut Line) -> Result<Connection, Broken> {
        if let Some(mut connection) = line.connection.take()
            && connection.is_usable().await
        {
            return Ok(connection);
        }
        let tls = self.settings.tls.as_ref().map(|(config, gate)| (config.clone(), gate));
        Connection::open(&self.settings.place, tls, self.settings.timeouts.connect).await
    }

    /// A connection of its own, trusted, with nothing sent over it yet: for a websocket.
    pub(crate) async fn stream(&self) -> Result<Box<dyn Stream>, Broken> {
        let tls = self.settings.tls.as_ref().map(|(config, gate)| (config.clone(), gate));
        super::handshake(&self.settings.place, tls, self.settings.timeouts.connect).await
    }

    pub(crate) fn keep(&self, line: &mut Line, connection: Connection) {
        line.connection = Some(connection);
    }

    pub(crate) fn request(&self, line: &Line, call: &Call, payload: Payload) -> Request<Payload> {
        let mut request = Request::new(payload);
        *request.method_mut() = match call.method() {
            Method::Get => http::Method::GET,
            Method::Post => http::Method::POST,
        };
        // `Call` encodes everything but unreserved characters, and the base is part of a parsed URL.
        if let Ok(uri) = format!("{}{}", self.base(), call.target()).parse() {
            *request.uri_mut() = uri;
        }
        let headers = request.headers_mut();
        if let Ok(host) = HeaderValue::from_str(self.settings.place.authority()) {
            headers.insert(header::HOST, host);
        }
        headers.insert(
            header::USER_AGENT,
            HeaderValue::from_static(concat!("turingpi/", env!("CARGO_PKG_VERSION"))),
        );
        if call.body().is_some() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Login::Token(token) = &line.login {
            headers.insert(header::AUTHORIZATION, token.clone());
        }
        request
    }
}
