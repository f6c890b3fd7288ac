//! Join tokens. They are secrets, and the key of the cluster's bootstrap data: without it no backup can be restored.

use rand::RngExt;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The state's key of the cluster's token in its short form: the password alone.
pub const TOKEN_KEY: &str = "k3s/token";
/// The state's key of the full form `K10<CA hash>::server:<password>`, which pins the cluster's CA.
pub const JOIN_TOKEN_KEY: &str = "k3s/join-token";

const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// A new token: 48 letters and digits, about 285 bits.
pub(crate) fn generate() -> SecretString {
    let mut random = rand::rng();
    let text: String = (0..48)
        .filter_map(|_| ALPHABET.get(random.random_range(0..ALPHABET.len())))
        .map(|b| char::from(*b))
        .collect();
    SecretString::from(text)
}

/// A full token, taken apart.
#[derive(Debug, Clone)]
pub(crate) struct FullToken {
    /// SHA-256 of the cluster's server CA, 64 hex digits.
    pub(crate) ca: String,
    /// The password.
    pub(crate) password: SecretString,
}

/// Reads `K10<64 hex>::server:<password>`; `None` for anything else.
pub(crate) fn parse_full(text: &str) -> Option<FullToken> {
    let (ca, rest) = text.trim().strip_prefix("K10")?.split_once("::")?;
    let password = rest.strip_prefix("server:")?;
    let valid = ca.len() == 64 && ca.bytes().all(|b| b.is_ascii_hexdigit()) && !password.is_empty();
    valid.then(|| FullToken { ca: ca.to_ascii_lowercase(), password: SecretString::from(password) })
}

/// The password of a token in either form.
pub(crate) fn password(text: &str) -> SecretString {
    parse_full(text).map_or_else(|| SecretString::from(text.trim()), |full| full.password)
}

/// Tells whether a node has a given token, without telling the token: a salted digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenProof {
    salt: String,
    digest: String,
}

impl TokenProof {
    pub(crate) fn new(salt: &str, digest: &str) -> Self {
        Self { salt: salt.to_owned(), digest: digest.to_owned() }
    }

    /// Whether it was made from this password.
    pub fn matches(&self, password: &SecretString) -> bool {
        let mut hash = Sha256::new();
        hash.update(self.salt.as_bytes());
        hash.update(password.expose_secret().as_bytes());
        hex::encode(hash.finalize()) == self.digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_tokens_are_long_plain_and_never_the_same() {
        let (a, b) = (generate(), generate());
        assert_eq!(a.expose_secret().len(), 48);
        assert!(a.expose_secret().bytes().all(|c| c.is_ascii_alphanumeric()));
        assert_ne!(a.expose_secret(), b.expose_secret());
    }

    #[test]
    fn a_full_token_is_taken_apart_and_never_shown() {
        let ca = "ab".repeat(32);
        let full = parse_full(&format!("K10{ca}::server:hush-hush\n")).unwrap();
        assert_eq!((full.ca.as_str(), full.password.expose_secret()), (ca.as_str(), "hush-hush"));
        assert!(!format!("{full:?}").contains("hush"));
        assert!(parse_full("hush-hush").is_none());
        assert!(parse_full(&format!("K10{ca}::node:x")).is_none());
        assert!(parse_full("K10abc::server:x").is_none());
        assert_eq!(password("hush-hush\n").expose_secret(), "hush-hush");
    }

    #[test]
    fn a_proof_matches_its_password_only() {
        let digest = hex::encode(Sha256::digest(b"saltpassword"));
        let proof = TokenProof::new("salt", &digest);
        assert!(proof.matches(&SecretString::from("password")));
        assert!(!proof.matches(&SecretString::from("passwort")));
    }
}
