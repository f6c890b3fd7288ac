//! SHA-256 as a type, and of files.

use std::{fmt, io, path::Path, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use tokio::io::AsyncReadExt;

use super::FetchProgress;

/// A SHA-256 digest, 64 lower-case hex digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256(String);

/// A text that is not a SHA-256 digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a SHA-256 digest: 64 hex digits")]
pub struct InvalidSha256(String);

impl Sha256 {
    /// The digest of bytes in memory.
    pub fn of(bytes: &[u8]) -> Self {
        Self(hex::encode(sha2::Sha256::digest(bytes)))
    }
    /// The 64 hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// Finds the digest of `file` in the text of a checksum file: `<digest>  <name>` lines as `sha256sum` writes them
    /// (a `*` or a folder before the name is fine), or a lone digest.
    pub fn find(text: &str, file: &str) -> Option<Self> {
        let mut lone = None;
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let Some(digest) = words.next().and_then(|word| word.parse().ok()) else { continue };
            match words.next() {
                Some(name) if name.trim_start_matches('*').rsplit('/').next() == Some(file) => {
                    return Some(digest);
                }
                Some(_) => {}
                None if lone.is_none() => lone = Some(digest),
                None => return None,
            }
        }
        lone
    }
    /// As [`Sha256::find`] for a checksum file that lies beside one file and is about nothing else: where it has only one
    /// digest, the name does not count. Armbian's `Trixie_vendor_minimal.sha` names the file that this week's is.
    pub fn beside(text: &str, file: &str) -> Option<Self> {
        Self::find(text, file).or_else(|| {
            let mut all = text.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok());
            let first = all.next()?;
            all.next().is_none().then_some(first)
        })
    }
    pub(crate) fn finish(hasher: sha2::Sha256) -> Self {
        Self(hex::encode(hasher.finalize()))
    }
}

impl FromStr for Sha256 {
    type Err = InvalidSha256;
    fn from_str(text: &str) -> Result<Self, InvalidSha256> {
        let text = text.strip_prefix("sha256:").unwrap_or(text);
        match text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            true => Ok(Self(text.to_ascii_lowercase())),
            false => Err(InvalidSha256(text.chars().take(80).collect())),
        }
    }
}
impl TryFrom<String> for Sha256 {
    type Error = InvalidSha256;
    fn try_from(text: String) -> Result<Self, InvalidSha256> {
        text.parse()
    }
}
impl From<Sha256> for String {
    fn from(digest: Sha256) -> Self {
        digest.0
    }
}
impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Feeds a file to `hasher`; returns its size.
pub(super) async fn feed(
    path: &Path,
    hasher: &mut sha2::Sha256,
    progress: FetchProgress<'_>,
) -> io::Result<u64> {
    let mut file = tokio::fs::File::open(path).await?;
    let metadata = file.metadata().await?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut buffer = vec![0; 1 << 18];
    let mut done = 0;
    loop {
        let read = file.read(&mut buffer).await?;
        let Some(chunk) = buffer.get(..read).filter(|chunk| !chunk.is_empty()) else { return Ok(done) };
        hasher.update(chunk);
        done += read as u64;
        progress(done, Some(metadata.len()));
    }
}

/// The digest and size of a file.
pub(crate) async fn of_file(path: &Path, progress: FetchProgress<'_>) -> io::Result<(Sha256, u64)> {
    let mut hasher = sha2::Sha256::new();
    let bytes = feed(path, &mut hasher, progress).await?;
    Ok((Sha256::finish(hasher), bytes))
}
