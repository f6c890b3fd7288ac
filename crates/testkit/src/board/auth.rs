//! Who may call: passwords, tokens and bans of bmcd.

use std::{collections::HashMap, time::Duration};

use base64::Engine as _;
use http::{HeaderMap, HeaderName, Response, StatusCode, header};
use rand::RngExt as _;
use serde::Deserialize;

use super::{
    humantime,
    profile::Profile,
    wire::{AnswerBody, bare, with},
};

/// A token's life since its last use.
const TOKEN_IDLE: Duration = Duration::from_secs(10_800);
/// Failures until the first ban.
const ATTEMPTS: u32 = 5;
/// The first ban; each further failure doubles it.
const BAN: Duration = Duration::from_secs(60);
/// The exponent of the longest ban: 60 s x 2^10.
const LONGEST_BAN: u32 = 10;
const REALM: &str = "Access to Baseboard Management Controller";

/// Logins, tokens and bans. In memory: a restart of the daemon clears all but the password.
#[derive(Debug)]
pub(crate) struct Auth {
    username: String,
    password: String,
    bans_callers: bool,
    /// The fork answers 429 to who is banned.
    tells_wait: bool,
    tokens: HashMap<String, Duration>,
    penalties: HashMap<String, Penalty>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Penalty {
    failures: u32,
    blocked_until: Duration,
}

/// A login's body.
#[derive(Deserialize)]
struct Login {
    username: String,
    password: String,
}

/// Why a caller is refused; the text is the API's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("error trying to parse credentials: {0}")]
    Unreadable(String),
    #[error("credentials incorrect")]
    Wrong,
    #[error("token expired {} ago", humantime::words(*.0))]
    Expired(Duration),
    #[error("token {0} is not registered")]
    Unknown(String),
    #[error("cannot parse authorization header: {0}")]
    Header(String),
    #[error("{0} authentication not supported")]
    Scheme(String),
    #[error("no authorization header provided")]
    Missing,
    #[error("Exceeded allowed authentication attempts. Access blocked for {}", humantime::words(*.0))]
    Banned(Duration),
}

/// The scheme a 401 challenges with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Basic,
    Bearer,
    Other,
}

impl Auth {
    pub(crate) fn new(username: &str, password: &str, profile: Profile) -> Self {
        Self {
            username: username.to_owned(),
            password: password.to_owned(),
            bans_callers: profile.bans(),
            tells_wait: profile.is_fork(),
            tokens: HashMap::new(),
            penalties: HashMap::new(),
        }
    }
    /// What a restart of the daemon does.
    pub(crate) fn forget_all(&mut self, profile: Profile) {
        self.tokens.clear();
        self.penalties.clear();
        self.bans_callers = profile.bans();
        self.tells_wait = profile.is_fork();
    }
    pub(crate) fn set_password(&mut self, password: &str) {
        password.clone_into(&mut self.password);
    }
    /// Whether this is the login.
    pub(crate) fn is_login(&self, username: &str, password: &str) -> bool {
        username == self.username && password == self.password
    }
    /// Whether the login is the one that every board is shipped with.
    pub(crate) fn is_factory(&self) -> bool {
        (self.username.as_str(), self.password.as_str()) == ("root", "turing")
    }
    /// Forgets the token of this request, as a restart would.
    pub(crate) fn forget_token(&mut self, headers: &HeaderMap) {
        let line = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        if let Some(token) = line.and_then(|line| line.strip_prefix("Bearer ")) {
            self.tokens.remove(token);
        }
    }
    /// Forgets all tokens.
    pub(crate) fn forget_tokens(&mut self) {
        self.tokens.clear();
    }
    /// Blocks a caller for `wait` from `now` on.
    pub(crate) fn ban_until(&mut self, peer: &str, until: Duration) {
        let penalty = self.penalties.entry(peer.to_owned()).or_default();
        penalty.failures = penalty.failures.max(ATTEMPTS);
        penalty.blocked_until = until;
    }

    /// `POST /api/bmc/authenticate`.
    pub(crate) fn login(&mut self, peer: &str, body: &[u8], now: Duration) -> Response<AnswerBody> {
        match self.try_login(peer, body, now) {
            Ok((token, username)) => {
                let name = serde_json::Value::from(username);
                let body = format!(
                    r#"{{"id":"{token}","name":"User Session","description":"User Session","username":{name}}}"#
                );
                with(bare(StatusCode::OK, body), HeaderName::from_static("x-auth-token"), token)
            }
            Err(refusal) => {
                self.wait(&refusal).unwrap_or_else(|| bare(StatusCode::FORBIDDEN, refusal.to_string()))
            }
        }
    }
    /// The fork's answer to who is banned: no challenge, and the time to wait.
    fn wait(&self, refusal: &Refusal) -> Option<Response<AnswerBody>> {
        match refusal {
            Refusal::Banned(left) if self.tells_wait => {
                // The rest of a second is a second to wait.
                let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
                let text = Refusal::Banned(Duration::from_secs(seconds)).to_string();
                let answer = bare(StatusCode::TOO_MANY_REQUESTS, text);
                Some(with(answer, header::RETRY_AFTER, seconds.to_string()))
            }
            _ => None,
        }
    }
    fn try_login(&mut self, peer: &str, body: &[u8], now: Duration) -> Result<(String, String), Refusal> {
        let login: Login =
            serde_json::from_slice(body).map_err(|error| Refusal::Unreadable(error.to_string()))?;
        self.check(peer, &login.username, &login.password, now)?;
        self.tokens.retain(|_, last_use| now.saturating_sub(*last_use) <= TOKEN_IDLE);
        let token: String =
            rand::rng().sample_iter(rand::distr::Alphanumeric).take(64).map(char::from).collect();
        self.tokens.insert(token.clone(), now);
        Ok((token, login.username))
    }

    /// The refusal a request gets; `None` lets it in. `token` is one that came by another way than the header.
    pub(crate) fn refuse(
        &mut self,
        peer: &str,
        headers: &HeaderMap,
        token: Option<&str>,
        now: Duration,
    ) -> Option<Response<AnswerBody>> {
        let admitted = match token.filter(|_| !headers.contains_key(header::AUTHORIZATION)) {
            Some(token) => self.check_token(peer, token, now).map_err(|refusal| (Scheme::Bearer, refusal)),
            None => self.try_admit(peer, headers, now),
        };
        let (scheme, refusal) = admitted.err()?;
        if let Some(answer) = self.wait(&refusal) {
            return Some(answer);
        }
        let challenge = match scheme {
            Scheme::Basic => format!(r#"Basic realm="{REALM}""#),
            Scheme::Bearer => {
                format!(r#"Bearer realm="{REALM}" error="invalid_token" error_description="{refusal}""#)
            }
            Scheme::Other => format!(r#"realm="{REALM}""#),
        };
        let answer = bare(StatusCode::UNAUTHORIZED, refusal.to_string());
        Some(with(answer, header::WWW_AUTHENTICATE, challenge))
    }
    fn try_admit(&mut self, peer: &str, headers: &HeaderMap, now: Duration) -> Result<(), (Scheme, Refusal)> {
        let basic = |refusal| (Scheme::Basic, refusal);
        let line = headers.get(header::AUTHORIZATION).ok_or(basic(Refusal::Missing))?;
        let line = line.to_str().map_err(|error| basic(Refusal::Header(error.to_string())))?;
        match line.split_once(' ') {
            Some(("Bearer", token)) => {
                self.check_token(peer, token, now).map_err(|refusal| (Scheme::Bearer, refusal))
            }
            Some(("Basic", pair)) => self.check_basic(peer, pair, now).map_err(basic),
            Some((other, _)) => Err((Scheme::Other, Refusal::Scheme(other.to_owned()))),
            None => Err(basic(Refusal::Header(line.to_owned()))),
        }
    }
    fn check_token(&mut self, peer: &str, token: &str, now: Duration) -> Result<(), Refusal> {
        self.check_ban(peer, now)?;
        let Some(last_use) = self.tokens.get_mut(token) else {
            return Err(self.penalise(peer, Refusal::Unknown(token.to_owned()), now));
        };
        let idle = now.saturating_sub(*last_use);
        if idle >= TOKEN_IDLE {
            self.tokens.remove(token);
            return Err(Refusal::Expired(idle));
        }
        *last_use = now;
        self.penalties.remove(peer);
        Ok(())
    }
    fn check_basic(&mut self, peer: &str, pair: &str, now: Duration) -> Result<(), Refusal> {
        let unreadable = |error: &dyn std::fmt::Display| Refusal::Unreadable(error.to_string());
        let decoded =
            base64::engine::general_purpose::STANDARD.decode(pair).map_err(|error| unreadable(&error))?;
        let text = std::str::from_utf8(&decoded).map_err(|error| unreadable(&error))?;
        let (username, password) =
            text.split_once(':').ok_or_else(|| unreadable(&"basic authentication formatted wrong"))?;
        self.check(peer, username, password, now)
    }
    fn check(&mut self, peer: &str, username: &str, password: &str, now: Duration) -> Result<(), Refusal> {
        self.check_ban(peer, now)?;
        if self.is_login(username, password) {
            self.penalties.remove(peer);
            return Ok(());
        }
        Err(self.penalise(peer, Refusal::Wrong, now))
    }
    fn check_ban(&self, peer: &str, now: Duration) -> Result<(), Refusal> {
        let left = self.penalties.get(peer).map_or(Duration::ZERO, |p| p.blocked_until.saturating_sub(now));
        if left.is_zero() { Ok(()) } else { Err(Refusal::Banned(left)) }
    }
    /// Counts a failure; the fifth and each later one is answered with a ban instead.
    fn penalise(&mut self, peer: &str, refusal: Refusal, now: Duration) -> Refusal {
        if !self.bans_callers {
            return refusal;
        }
        let penalty = self.penalties.entry(peer.to_owned()).or_default();
        penalty.failures += 1;
        let Some(level) = penalty.failures.checked_sub(ATTEMPTS) else { return refusal };
        let ban = BAN * 2_u32.pow(level.min(LONGEST_BAN));
        penalty.blocked_until = now + ban;
        Refusal::Banned(ban)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::Firmware;

    const PEER: &str = "192.168.1.7";

    fn auth() -> Auth {
        Auth::new("root", "turing", Profile::of(Firmware::V2_1_0))
    }
    fn fail(auth: &mut Auth, now: Duration) -> Refusal {
        auth.check(PEER, "root", "wrong", now).unwrap_err()
    }
    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_fifth_failure_bans_for_a_minute_and_each_later_one_doubles_it_up_to_1024_minutes() {
        let mut auth = auth();
        let mut now = secs(100);
        for _ in 0..4 {
            assert_eq!(fail(&mut auth, now), Refusal::Wrong);
        }
        for level in 0..13 {
            let ban = secs(60) * 2_u32.pow(level.min(10));
            assert_eq!(fail(&mut auth, now), Refusal::Banned(ban), "level {level}");
            // A try while it is blocked is refused and does not extend the ban, a right password included.
            now += ban - secs(1);
            assert_eq!(auth.check(PEER, "root", "turing", now), Err(Refusal::Banned(secs(1))));
            now += secs(1);
        }
        assert_eq!(auth.check(PEER, "root", "turing", now), Ok(()));
        assert_eq!(fail(&mut auth, now), Refusal::Wrong, "a success clears the counter");
    }

    #[test]
    fn a_ban_is_for_one_address_only() {
        let mut auth = auth();
        for _ in 0..5 {
            fail(&mut auth, secs(0));
        }
        assert_eq!(auth.check("192.168.1.8", "root", "turing", secs(0)), Ok(()));
    }

    #[test]
    fn an_unknown_token_counts_as_a_failure_and_an_expired_one_does_not() {
        let mut auth = auth();
        let (token, _) =
            auth.try_login(PEER, br#"{"username":"root","password":"turing"}"#, secs(0)).unwrap();
        for _ in 0..4 {
            assert_eq!(auth.check_token(PEER, "stale", secs(1)), Err(Refusal::Unknown("stale".into())));
        }
        assert_eq!(auth.check_token(PEER, &token, secs(10_800)), Err(Refusal::Expired(secs(10_800))));
        assert_eq!(auth.check_token(PEER, &token, secs(10_800)), Err(Refusal::Banned(secs(60))));
    }

    #[test]
    fn a_token_lives_three_hours_from_its_last_use() {
        let mut auth = auth();
        let (token, _) =
            auth.try_login(PEER, br#"{"username":"root","password":"turing"}"#, secs(0)).unwrap();
        assert_eq!(auth.check_token(PEER, &token, secs(10_799)), Ok(()));
        assert_eq!(auth.check_token(PEER, &token, secs(10_799 * 2)), Ok(()));
        assert_eq!(Refusal::Expired(secs(10_920)).to_string(), "token expired 3h 2m ago");
    }

    #[test]
    fn a_login_purges_expired_tokens_so_that_they_count_as_unknown() {
        let mut auth = auth();
        let login = br#"{"username":"root","password":"turing"}"#;
        let (old, _) = auth.try_login(PEER, login, secs(0)).unwrap();
        auth.try_login(PEER, login, secs(10_801)).unwrap();
        assert_eq!(auth.check_token(PEER, &old, secs(10_801)), Err(Refusal::Unknown(old)));
    }

    #[test]
    fn the_first_daemon_does_not_ban() {
        let mut auth = Auth::new("root", "turing", Profile::of(Firmware::V2_0_0));
        for _ in 0..20 {
            assert_eq!(fail(&mut auth, secs(0)), Refusal::Wrong);
        }
    }
}
