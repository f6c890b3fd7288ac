//! Files on a node: written beside their final place, checked by digest, then renamed.

use std::path::PathBuf;

use secrecy::SecretSlice;

/// A file as it shall be on the node.
#[derive(Debug, Clone)]
pub struct RemoteFile {
    pub(crate) path: String,
    pub(crate) mode: u32,
    pub(crate) owner: Option<String>,
    pub(crate) content: Content,
    pub(crate) root: bool,
}

/// Where a file's bytes come from.
#[derive(Debug, Clone)]
pub enum Content {
    /// Bytes in memory.
    Bytes(Vec<u8>),
    /// Bytes in memory that must not show in a debug output.
    Secret(SecretSlice<u8>),
    /// A local file, streamed. Its SHA-256 (64 hex digits) is computed first when it is not given.
    Local {
        /// The local path.
        path: PathBuf,
        /// The digest the node must find after the upload.
        sha256: Option<String>,
    },
}

impl RemoteFile {
    /// A file with plain content, mode 0644, written as root.
    pub fn new(path: impl Into<String>, content: impl Into<Vec<u8>>) -> Self {
        Self {
            path: path.into(),
            mode: 0o644,
            owner: None,
            content: Content::Bytes(content.into()),
            root: true,
        }
    }
    /// A file with secret content, mode 0600, written as root.
    pub fn secret(path: impl Into<String>, content: SecretSlice<u8>) -> Self {
        Self { path: path.into(), mode: 0o600, owner: None, content: Content::Secret(content), root: true }
    }
    /// A file uploaded from `local`, mode 0644, written as root.
    pub fn local(path: impl Into<String>, local: impl Into<PathBuf>, sha256: Option<String>) -> Self {
        Self {
            path: path.into(),
            mode: 0o644,
            owner: None,
            content: Content::Local { path: local.into(), sha256 },
            root: true,
        }
    }
    /// Sets the permission bits.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }
    /// Sets owner and group, as chown understands them: `root:root`.
    #[must_use]
    pub fn owner(mut self, owner: impl Into<String>) -> Self {
        self.owner = Some(owner.into());
        self
    }
    /// Writes it as the login user instead of root.
    #[must_use]
    pub fn as_login_user(mut self) -> Self {
        self.root = false;
        self
    }
    /// The absolute path on the node.
    pub fn path(&self) -> &str {
        &self.path
    }
    /// The permission bits.
    pub fn mode_bits(&self) -> u32 {
        self.mode
    }
    /// Where the bytes come from.
    pub fn content(&self) -> &Content {
        &self.content
    }
}

/// What writing a file did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// Content, mode and owner were already so.
    Unchanged,
    /// The file is new, or differed.
    Changed,
}
