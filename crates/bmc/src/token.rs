//! A session's token, to be kept from one run of a program to the next.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use crate::Fingerprint;

/// A token dies this long after its last use. Source: turing-machines/bmcd, `default_config.yaml`, `token_expires`.
const LIFE: Duration = Duration::from_secs(10_800);
/// Clocks differ, and requests take time: a token this close to its end is not worth a failed login.
const SLACK: Duration = Duration::from_secs(120);

/// A session's token with what it is bound to: host, port, user and the BMC's certificate. A client that is not the same in
/// all four never sends it. A password's little brother: keep it in a file only its owner can read.
///
/// From [`HttpBmcClient::saved_token`](crate::HttpBmcClient::saved_token), back with
/// [`HttpBmcClientBuilder::saved_token`](crate::HttpBmcClientBuilder::saved_token).
#[derive(Clone)]
pub struct SavedToken {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) last_used: SystemTime,
    pub(crate) token: SecretString,
}

/// Text that is no saved token. Nothing of the text is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not a saved token")]
#[non_exhaustive]
pub struct InvalidSavedToken;

impl SavedToken {
    /// The BMC's host, as in the URL.
    pub fn host(&self) -> &str {
        &self.host
    }
    /// The BMC's port.
    pub fn port(&self) -> u16 {
        self.port
    }
    /// Who logged in.
    pub fn user(&self) -> &str {
        &self.user
    }
    /// The certificate the BMC showed.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
    /// When the BMC last accepted it.
    pub fn last_used(&self) -> SystemTime {
        self.last_used
    }
    /// Whether the BMC should still know it: a token dies three hours after its last use. An unknown one counts as a failed
    /// login, so one that is not fresh is not sent. One used in the future is not fresh either: the clock was changed.
    pub fn is_fresh(&self, now: SystemTime) -> bool {
        now.duration_since(self.last_used).is_ok_and(|age| age + SLACK < LIFE)
            || self.last_used.duration_since(now).is_ok_and(|ahead| ahead < SLACK)
    }

    /// As JSON, **with the token in clear text**.
    pub fn to_json(&self) -> SecretString {
        let seconds = self.last_used.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let document = json!({
            "host": self.host,
            "port": self.port,
            "user": self.user,
            "fingerprint": self.fingerprint.to_string(),
            "last_used": seconds,
            "token": self.token.expose_secret(),
        });
        document.to_string().into()
    }

    /// From [`SavedToken::to_json`].
    ///
    /// # Errors
    /// [`InvalidSavedToken`] if it is anything else.
    pub fn from_json(text: &str) -> Result<Self, InvalidSavedToken> {
        let read = || {
            let document: Value = serde_json::from_str(text).ok()?;
            let text = |key: &str| document[key].as_str().filter(|text| !text.is_empty());
            let token = text("token")?;
            // What goes into a header; anything else was not written here.
            if !token.bytes().all(|b| b.is_ascii_graphic()) {
                return None;
            }
            let last_used = UNIX_EPOCH.checked_add(Duration::from_secs(document["last_used"].as_u64()?))?;
            Some(Self {
                host: text("host")?.to_owned(),
                port: u16::try_from(document["port"].as_u64()?).ok()?,
                user: text("user")?.to_owned(),
                fingerprint: text("fingerprint")?.parse().ok()?,
                last_used,
                token: token.to_owned().into(),
            })
        };
        read().ok_or(InvalidSavedToken)
    }
}

impl fmt::Debug for SavedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SavedToken")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(last_used: SystemTime) -> SavedToken {
        SavedToken {
            host: "10.10.88.70".into(),
            port: 443,
            user: "root".into(),
            fingerprint: Fingerprint::of_der(b"certificate"),
            last_used,
            token: "hunter2".to_owned().into(),
        }
    }

    #[test]
    fn a_token_survives_a_file_and_is_in_no_debug_output() {
        let saved = token(UNIX_EPOCH + Duration::from_secs(1_700_000_000));
        let json = saved.to_json();
        let read = SavedToken::from_json(json.expose_secret()).unwrap();
        assert_eq!(read.to_json().expose_secret(), json.expose_secret());
        assert_eq!((read.host(), read.port(), read.user()), ("10.10.88.70", 443, "root"));
        assert!(!format!("{saved:?}").contains("hunter2"));
    }

    #[test]
    fn whatever_else_the_file_holds_is_refused_without_showing_it() {
        let good = token(UNIX_EPOCH).to_json().expose_secret().to_owned();
        for broken in [
            String::new(),
            "hunter2".to_owned(),
            good.replace("443", "70000"),
            good.replace("hunter2", "hunter\\r\\nx: y"),
            good.replace("\"token\"", "\"tok\""),
            good.get(..40).unwrap().to_owned(),
        ] {
            let error = SavedToken::from_json(&broken).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter"));
        }
    }

    #[test]
    fn a_token_is_fresh_for_not_quite_three_hours() {
        let saved = token(UNIX_EPOCH + Duration::from_secs(1_000_000));
        let at = |seconds: u64| UNIX_EPOCH + Duration::from_secs(seconds);
        assert!(saved.is_fresh(at(1_000_000)) && saved.is_fresh(at(1_010_000)));
        assert!(!saved.is_fresh(at(1_010_700)), "nearly three hours");
        assert!(saved.is_fresh(at(999_990)), "two clocks");
        assert!(!saved.is_fresh(at(900_000)), "the clock was set back");
    }
}
