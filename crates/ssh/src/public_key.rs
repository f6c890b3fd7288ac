//! The public half of a private key file, for authorized_keys.

use std::path::{Path, PathBuf};

use secrecy::SecretString;

use crate::{SshError, login::decode};

/// Reads the line that goes into an authorized_keys file: from `PATH.pub` where there is one, else out of the private
/// key itself, which may need its passphrase.
///
/// # Errors
/// [`SshError::KeyFile`] when neither can be read.
pub async fn public_key_line(private: &Path, passphrase: Option<&SecretString>) -> Result<String, SshError> {
    let unusable = |problem: String| SshError::KeyFile { path: PathBuf::from(private), problem };
    let mut beside = private.as_os_str().to_owned();
    beside.push(".pub");
    if let Ok(text) = tokio::fs::read_to_string(&beside).await
        && let Some(line) = text.lines().map(str::trim).find(|l| !l.is_empty() && !l.starts_with('#'))
        && russh::keys::ssh_key::PublicKey::from_openssh(line).is_ok()
    {
        return Ok(line.to_owned());
    }
    let text =
        tokio::fs::read_to_string(private).await.map_err(|e| unusable(format!("it cannot be read ({e})")))?;
    let key = decode(SecretString::from(text), passphrase.cloned()).await.map_err(unusable)?;
    key.public_key().to_openssh().map_err(|e| unusable(e.to_string()))
}
