//! The public half of a private key, as the private key itself has it.

use std::path::Path;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use turingpi_engine::{Failure, FailureClass};

const BEGIN: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";
const END: &str = "-----END OPENSSH PRIVATE KEY-----";
const MAGIC: &[u8] = b"openssh-key-v1\0";

/// Refuses a public key `line` that is not that of the private key at `path`: from a stale `.pub` beside it. A freshly
/// flashed node would let in somebody else, and not us.
///
/// Keys in OpenSSH's own format carry their public half outside of what the passphrase locks; for other formats nothing
/// is said.
///
/// # Errors
/// `Config`, with the next step.
pub(crate) async fn belongs(path: &Path, line: &str) -> Result<(), Failure> {
    let Ok(text) = tokio::fs::read_to_string(path).await else { return Ok(()) };
    let text = zeroize::Zeroizing::new(text);
    let Some(own) = public_half(&text) else { return Ok(()) };
    let beside = line.split_whitespace().nth(1).and_then(|word| STANDARD.decode(word).ok());
    if beside.is_some_and(|beside| beside == own) {
        return Ok(());
    }
    let shown = path.display();
    Err(Failure::new(FailureClass::Config, format!("`{shown}.pub` is not the public key of `{shown}`"))
        .hint(format!("It is left over from an older key. Run `ssh-keygen -y -f {shown} > {shown}.pub`.")))
}

/// The public key's bytes in a private key file of OpenSSH's format (its `PROTOCOL.key`).
fn public_half(text: &str) -> Option<Vec<u8>> {
    let body = text.split_once(BEGIN)?.1.split_once(END)?.0;
    let packed: String = body.split_whitespace().collect();
    let bytes = zeroize::Zeroizing::new(STANDARD.decode(packed).ok()?);
    let rest = bytes.strip_prefix(MAGIC)?;
    // Cipher, key derivation and its options.
    let (_, rest) = string(rest)?;
    let (_, rest) = string(rest)?;
    let (_, rest) = string(rest)?;
    let (count, rest) = rest.split_first_chunk::<4>()?;
    if u32::from_be_bytes(*count) != 1 {
        return None;
    }
    string(rest).map(|(key, _)| key.to_vec())
}

/// A string with its length in front, and what follows it.
fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_file_is_read(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut key = MAGIC.to_vec();
            key.extend(bytes);
            let _ = public_half(&format!("{BEGIN}\n{}\n{END}\n", STANDARD.encode(key)));
        }
    }
}
