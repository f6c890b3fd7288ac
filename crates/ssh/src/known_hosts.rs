//! Known-hosts files in the format of OpenSSH (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT").
//!
//! A parser of our own, because the one that comes with the SSH library knows no wildcards, no exclusions and no
//! markers, and takes a host that is known by a key of another type for an unknown one.

mod store;
#[cfg(test)]
mod tests;

use std::{fmt, path::Path, path::PathBuf, sync::Arc};

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{Fingerprint, SshError, pattern};

/// A host's public key: its type and its blob (RFC 4253 section 6.6).
#[derive(Clone, PartialEq, Eq)]
pub struct HostKey {
    key_type: String,
    blob: Vec<u8>,
}

impl HostKey {
    /// Reads `ssh-ed25519 AAAA… [comment]`, the form of a `.pub` file; `None` when it is not that, or when the blob is of
    /// another type than it says.
    pub fn from_openssh(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        Self::from_words(words.next()?, words.next()?)
    }
    fn from_words(key_type: &str, base64: &str) -> Option<Self> {
        Self::from_blob(STANDARD.decode(base64).ok()?).filter(|key| key.key_type == key_type)
    }
    /// Reads the wire form, which starts with the key's type.
    pub fn from_blob(blob: Vec<u8>) -> Option<Self> {
        let (length, rest) = blob.split_at_checked(4)?;
        let length = u32::from_be_bytes(length.try_into().ok()?) as usize;
        let key_type = std::str::from_utf8(rest.get(..length)?).ok()?.to_owned();
        if key_type.is_empty() || !key_type.bytes().all(|b| b.is_ascii_graphic()) {
            return None;
        }
        Some(Self { key_type, blob })
    }
    /// The key's type, for example `ssh-ed25519`.
    pub fn key_type(&self) -> &str {
        &self.key_type
    }
    /// The key's fingerprint.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of_blob(&self.blob)
    }
}

impl fmt::Display for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.key_type, STANDARD.encode(&self.blob))
    }
}
impl fmt::Debug for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.key_type, self.fingerprint())
    }
}

/// What known-hosts files say about a key that a host shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The key stands there.
    Known,
    /// The host does not stand there at all.
    Unknown,
    /// The host stands there with another key of this type.
    Changed {
        /// The keys of this type that stand there.
        expected: Vec<Fingerprint>,
        /// The file of the first of them, when it came from one.
        file: Option<PathBuf>,
        /// Its line, counted from one.
        line: usize,
    },
    /// The key is marked as one that must not be used.
    Revoked {
        /// The file, when it came from one.
        file: Option<PathBuf>,
        /// The line, counted from one.
        line: usize,
    },
    /// The host stands there, but only with keys of other types. That is no unknown host: whoever can answer in its
    /// place picks the key type.
    OtherType {
        /// The types that stand there.
        known: Vec<String>,
        /// The keys that stand there.
        expected: Vec<Fingerprint>,
        /// The file of the first of them, when it came from one.
        file: Option<PathBuf>,
        /// Its line, counted from one.
        line: usize,
    },
    /// The host is vouched for by an authority (`@cert-authority`), and by no key of its own.
    AuthorityOnly,
}

/// The entries of one or more known-hosts files.
#[derive(Debug, Clone, Default)]
pub struct KnownHosts {
    entries: Vec<Entry>,
    ignored: Vec<(Option<Arc<Path>>, usize)>,
}

#[derive(Debug, Clone)]
struct Entry {
    file: Option<Arc<Path>>,
    line: usize,
    marker: Marker,
    names: Names,
    key: HostKey,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marker {
    None,
    Authority,
    Revoked,
}

#[derive(Debug, Clone)]
enum Names {
    Patterns(Vec<String>),
    Hashed { salt: Vec<u8>, hash: Vec<u8> },
}

impl KnownHosts {
    /// Reads a text. Lines that are not understood are left out and can be seen with [`KnownHosts::ignored_lines`].
    pub fn parse(text: &str) -> Self {
        let mut hosts = Self::default();
        hosts.read(text, None);
        hosts
    }

    /// Reads a file. A file that does not exist is an empty one.
    ///
    /// # Errors
    /// [`SshError::KnownHosts`] when it exists and cannot be read: that must not make every host an unknown one.
    pub fn load(path: &Path) -> Result<Self, SshError> {
        let mut hosts = Self::default();
        hosts.add(path)?;
        Ok(hosts)
    }

    /// Reads one more file into this.
    ///
    /// # Errors
    /// As [`KnownHosts::load`].
    pub fn add(&mut self, path: &Path) -> Result<(), SshError> {
        match std::fs::read(path) {
            Ok(bytes) => self.read(&String::from_utf8_lossy(&bytes), Some(Arc::from(path))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(SshError::KnownHosts { path: path.to_owned(), source }),
        }
        Ok(())
    }

    fn read(&mut self, text: &str, file: Option<Arc<Path>>) {
        for (index, line) in text.lines().enumerate() {
            let trimmed = line.trim();
            if trimmed.is_empty() || trimmed.starts_with('#') {
                continue;
            }
            match parse_line(trimmed) {
                Some((marker, names, key)) => {
                    self.entries.push(Entry { file: file.clone(), line: index + 1, marker, names, key });
                }
                None => self.ignored.push((file.clone(), index + 1)),
            }
        }
    }

    /// Lines that were not understood, counted from one, in reading order. OpenSSH leaves such lines out as well.
    pub fn ignored_lines(&self) -> impl Iterator<Item = (Option<&Path>, usize)> {
        self.ignored.iter().map(|(file, line)| (file.as_deref(), *line))
    }

    /// What is known about `key` for a host.
    pub fn lookup(&self, host: &str, port: u16, key: &HostKey) -> Verdict {
        let name = known_name(host, port);
        let matching: Vec<&Entry> = self.entries.iter().filter(|entry| entry.names.take(&name)).collect();
        if let Some(entry) =
            matching.iter().find(|entry| entry.marker == Marker::Revoked && entry.key == *key)
        {
            return Verdict::Revoked { file: entry.file(), line: entry.line };
        }
        let own: Vec<&Entry> =
            matching.iter().copied().filter(|entry| entry.marker == Marker::None).collect();
        if own.iter().any(|entry| entry.key == *key) {
            return Verdict::Known;
        }
        let same: Vec<&Entry> =
            own.iter().copied().filter(|entry| entry.key.key_type == key.key_type).collect();
        if let Some(first) = same.first() {
            let expected = same.iter().map(|entry| entry.key.fingerprint()).collect();
            return Verdict::Changed { expected, file: first.file(), line: first.line };
        }
        if let Some(first) = own.first() {
            let expected = own.iter().map(|entry| entry.key.fingerprint()).collect();
            return Verdict::OtherType {
                known: self.key_types(host, port),
                expected,
                file: first.file(),
                line: first.line,
            };
        }
        if matching.iter().any(|entry| entry.marker == Marker::Authority) {
            return Verdict::AuthorityOnly;
        }
        Verdict::Unknown
    }

    /// The key types that a host is known by, in file order, each once. These are the ones to ask it for.
    pub fn key_types(&self, host: &str, port: u16) -> Vec<String> {
        let name = known_name(host, port);
        let mut types: Vec<String> = Vec::new();
        for entry in self.entries.iter().filter(|e| e.marker == Marker::None && e.names.take(&name)) {
            if !types.contains(&entry.key.key_type) {
                types.push(entry.key.key_type.clone());
            }
        }
        types
    }

    /// The authorities that may sign a host's key.
    pub fn authorities(&self, host: &str, port: u16) -> Vec<HostKey> {
        let name = known_name(host, port);
        let vouching = |entry: &&Entry| entry.marker == Marker::Authority && entry.names.take(&name);
        self.entries.iter().filter(vouching).map(|entry| entry.key.clone()).collect()
    }

    /// Where a key is marked as revoked for a host, whether it is the host's own or an authority's.
    pub fn revoked(&self, host: &str, port: u16, key: &HostKey) -> Option<(Option<PathBuf>, usize)> {
        let name = known_name(host, port);
        let revokes = |e: &&Entry| e.marker == Marker::Revoked && e.key == *key && e.names.take(&name);
        self.entries.iter().find(revokes).map(|entry| (entry.file(), entry.line))
    }
}

impl Entry {
    fn file(&self) -> Option<PathBuf> {
        self.file.as_deref().map(Path::to_owned)
    }
}

impl Names {
    fn take(&self, name: &str) -> bool {
        match self {
            Self::Patterns(patterns) => pattern::list(patterns.iter().map(String::as_str), name),
            Self::Hashed { salt, hash } => {
                let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, salt);
                hmac::verify(&key, name.as_bytes(), hash).is_ok()
            }
        }
    }

    fn parse(field: &str) -> Option<Self> {
        if let Some(hashed) = field.strip_prefix("|1|") {
            let (salt, hash) = hashed.split_once('|')?;
            let (salt, hash) = (STANDARD.decode(salt).ok()?, STANDARD.decode(hash).ok()?);
            return (hash.len() == 20).then_some(Self::Hashed { salt, hash });
        }
        Some(Self::Patterns(field.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()))
    }
}

fn parse_line(line: &str) -> Option<(Marker, Names, HostKey)> {
    let mut words = line.split_ascii_whitespace();
    let mut first = words.next()?;
    let marker = match first {
        "@cert-authority" => Marker::Authority,
        "@revoked" => Marker::Revoked,
        _ if first.starts_with('@') => return None,
        _ => Marker::None,
    };
    if marker != Marker::None {
        first = words.next()?;
    }
    Some((marker, Names::parse(first)?, HostKey::from_words(words.next()?, words.next()?)?))
}

/// The name under which a host stands in a file: lower case, `[host]:port` when the port is not 22.
pub(crate) fn known_name(host: &str, port: u16) -> String {
    let host = host.to_lowercase();
    if port == 22 { host } else { format!("[{host}]:{port}") }
}
