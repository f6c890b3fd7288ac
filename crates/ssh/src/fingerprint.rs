//! The short name of a key: `SHA256:` and the unpadded base64 of the digest of its blob.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use russh::keys::{PublicKey, PublicKeyBase64};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// SHA-256 fingerprint of a public key, as `ssh-keygen -l` prints it: `SHA256:` and 43 base64 characters.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of a key blob (the wire form, which the base64 of a `known_hosts` line holds).
    pub fn of_blob(blob: &[u8]) -> Self {
        Self(Sha256::digest(blob).into())
    }
    pub(crate) fn of_key(key: &PublicKey) -> Self {
        Self::of_blob(&key.public_key_bytes())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SHA256:{}", STANDARD_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no `SHA256:` fingerprint.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a fingerprint of the form `SHA256:` and 43 base64 characters")]
pub struct FingerprintError(String);

impl FromStr for Fingerprint {
    type Err = FingerprintError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || FingerprintError(text.to_owned());
        let digest = text.strip_prefix("SHA256:").ok_or_else(wrong)?.trim_end_matches('=');
        let bytes = STANDARD_NO_PAD.decode(digest).map_err(|_| wrong())?;
        Ok(Self(bytes.try_into().map_err(|_| wrong())?))
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // `ssh-keygen -lf` prints this fingerprint for this key.
    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";

    #[test]
    fn a_fingerprint_reads_back_what_it_prints() {
        let key = PublicKey::from_openssh(KEY).unwrap();
        let print = Fingerprint::of_key(&key);
        assert_eq!(print.to_string(), key.fingerprint(russh::keys::HashAlg::Sha256).to_string());
        assert_eq!(print.to_string().parse::<Fingerprint>().unwrap(), print);
        assert_eq!(format!("{print}=").parse::<Fingerprint>().unwrap(), print, "padding is tolerated");
    }

    #[test]
    fn other_texts_are_refused() {
        for text in
            ["", "SHA256:", "MD5:00:11", "SHA256:short", "sha256:LwDcbWkwQ1gIV3tKCUPqtV7Dw9TEBI7bUFPaGZ7SvkM"]
        {
            assert!(text.parse::<Fingerprint>().is_err(), "{text}");
        }
    }
}
