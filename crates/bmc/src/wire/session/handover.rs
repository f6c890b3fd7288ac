//! The token's way in and out of a session: adopted from an earlier run, taken along to the next, dropped in time.

use std::{sync::PoisonError, time::SystemTime};

use http::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use tokio::io::AsyncWrite;

use super::{Line, Login, Session};
use crate::{
    BmcError, SavedToken,
    wire::{Call, Payload, Reply, answer},
};

/// The token in use, as others may take it along.
pub(super) struct Held {
    token: SecretString,
    user: String,
    last_used: SystemTime,
}

impl Session {
    /// The token with all it is bound to, if there is one.
    pub(crate) fn saved_token(&self) -> Option<SavedToken> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let held = held.as_ref()?;
        let (host, port) = self.settings.place.dial();
        Some(SavedToken {
            host: host.to_owned(),
            port,
            user: held.user.clone(),
            fingerprint: self.fingerprint()?,
            last_used: held.last_used,
            token: held.token.clone(),
        })
    }

    pub(super) fn hold(&self, login: &Login, user: &str) {
        let Login::Token(header) = login else { return };
        let Some(token) = header.to_str().ok().and_then(|h| h.strip_prefix("Bearer ")) else { return };
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(Held {
            token: token.to_owned().into(),
            user: user.to_owned(),
            last_used: SystemTime::now(),
        });
    }

    pub(super) fn token_worked(&self) {
        if let Some(held) = self.held.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            held.last_used = SystemTime::now();
        }
    }

    /// Takes the token of an earlier run into use, or drops it: the BMC has shown its certificate by now.
    pub(super) fn adopt(&self, line: &mut Line) {
        let Login::Saved(saved) = std::mem::take(&mut line.login) else { return };
        if self.fingerprint() != Some(saved.fingerprint) {
            tracing::debug!(bmc = %self.name, "the kept token belongs to another certificate");
            return;
        }
        let header = HeaderValue::from_str(&format!("Bearer {}", saved.token.expose_secret()));
        if let Ok(mut header) = header {
            header.set_sensitive(true);
            let login = Login::Token(header);
            self.hold(&login, &saved.user);
            line.login = login;
        }
    }

    /// Forgets the token, here and for others.
    pub(crate) fn drop_token(&self, line: &mut Line) {
        self.withhold_token();
        if let Login::Token(_) | Login::Saved(_) = line.login {
            line.login = Login::Needed;
        }
    }

    /// Nobody may take the token along any more: its days are numbered.
    pub(crate) fn withhold_token(&self) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// A call after which the daemon knows no token any more. It is forgotten beforehand: five uses of a stale one block
    /// this address. The connection is not used again either.
    pub(crate) async fn last_call(&self, call: &Call) -> Result<Reply, BmcError> {
        let mut line = self.line().await;
        let attempt = self.attempt(call.action());
        // So that the token is a good one: what is refused is not repeated here.
        self.call_on(&mut line, &Call::get(call.action(), "power")).await?;
        self.withhold_token();
        let connection = self.connection(&mut line).await;
        let request = self.request(&line, call, Payload::Empty);
        self.drop_token(&mut line);
        self.forget_firmware();
        let mut connection = connection.map_err(|broken| broken.into_error(attempt.clone()))?;
        let limit = self.settings.timeouts.call;
        let reply = connection.exchange(request, limit).await;
        let reply = reply.map_err(|broken| broken.into_error(attempt.clone()))?;
        answer::check_status(&reply, &attempt)?;
        Ok(reply)
    }

    /// The head of a request that is sent over a connection of its own.
    pub(crate) async fn upgrade(&self, call: &Call) -> Result<http::Request<()>, BmcError> {
        let mut line = self.line().await;
        self.ensure_login(&mut line, &self.attempt(call.action())).await?;
        Ok(self.request(&line, call, Payload::Empty).map(|_| ()))
    }

    /// Ends the connection in hand; the next call opens another.
    pub(crate) async fn hang_up(&self) {
        self.line().await.connection = None;
    }

    /// A call whose answer is as long as it likes: it goes into `into` if it is a success, and its length is returned.
    pub(crate) async fn download(
        &self,
        call: &Call,
        into: &mut (dyn AsyncWrite + Send + Unpin + '_),
    ) -> Result<(Reply, u64), BmcError> {
        let mut line = self.line().await;
        let attempt = self.attempt(call.action());
        // So that the token is a good one: half a download cannot be taken back.
        self.call_on(&mut line, &Call::get(call.action(), "power")).await?;
        let connection = self.connection(&mut line).await;
        let mut connection = connection.map_err(|broken| broken.into_error(attempt.clone()))?;
        let request = self.request(&line, call, Payload::Empty);
        let (first, stall) = (self.timeouts().slow_call, self.timeouts().upload_stall);
        let got = connection.exchange_into(request, into, first, stall).await;
        let got = got.map_err(|broken| broken.into_error(attempt))?;
        self.keep(&mut line, connection);
        Ok(got)
    }

    /// Whether somebody answers who speaks HTTP: a request without a login, which never counts as a failed one.
    pub(crate) async fn ping(&self, call: &Call) -> Result<Reply, BmcError> {
        let mut line = self.line().await;
        let attempt = self.attempt(call.action());
        // Over a connection of its own: one from before a reboot would only fail.
        line.connection = None;
        let mut connection =
            self.connection(&mut line).await.map_err(|broken| broken.into_error(attempt.clone()))?;
        let mut request = self.request(&line, call, Payload::Empty);
        request.headers_mut().remove(http::header::AUTHORIZATION);
        let reply = connection.exchange(request, self.settings.timeouts.call).await;
        let reply = reply.map_err(|broken| broken.into_error(attempt))?;
        self.keep(&mut line, connection);
        Ok(reply)
    }
}
