//! A throw-away key to log in to simulated nodes with.

use russh::keys::{
    PrivateKey,
    ssh_key::{LineEnding, private::Ed25519Keypair},
};

/// An Ed25519 key pair in OpenSSH's formats. Made for a simulation and worth nothing outside of it.
#[derive(Debug, Clone)]
pub struct SshKey {
    private: String,
    public: String,
}

impl SshKey {
    /// A new one.
    ///
    /// # Errors
    /// When the key cannot be written down.
    pub fn generate() -> std::io::Result<Self> {
        let key = PrivateKey::from(Ed25519Keypair::from_seed(&rand::random::<[u8; 32]>()));
        Ok(Self {
            private: key.to_openssh(LineEnding::LF).map_err(std::io::Error::other)?.to_string(),
            public: key.public_key().to_openssh().map_err(std::io::Error::other)?,
        })
    }

    /// The private key file's content.
    pub fn private_openssh(&self) -> &str {
        &self.private
    }

    /// The line for an authorized_keys file.
    pub fn public_line(&self) -> &str {
        &self.public
    }
}
