//! Writing known-hosts files: adding a host, forgetting one.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use super::{HostKey, KnownHosts, Marker, Names, known_name, parse_line};
use crate::SshError;

impl KnownHosts {
    /// Writes a host's key down in `path`, which is made (0600, folder 0700) when it does not exist. Does nothing when the
    /// very entry stands there already. Blocks while another process writes the same file.
    ///
    /// # Errors
    /// [`SshError::KnownHosts`]; [`SshError::Invalid`] for a host name that would break the line.
    pub fn append(path: &Path, host: &str, port: u16, key: &HostKey) -> Result<(), SshError> {
        let name = known_name(host, port);
        let special = |c: char| c.is_whitespace() || c.is_control() || ",*?!|#@".contains(c);
        if name.is_empty() || name.contains(special) {
            return Err(SshError::Invalid {
                what: format!("host name {name:?}"),
                why: "it cannot stand in a known-hosts file".into(),
            });
        }
        let attempt = || -> io::Result<()> {
            let _lock = lock(path)?;
            let mut file = private().read(true).append(true).create(true).open(path)?;
            let mut before = String::new();
            file.read_to_string(&mut before)?;
            let line = format!("{name} {key}");
            if before.lines().any(|known| known.trim_end() == line) {
                return Ok(());
            }
            let gap = if before.is_empty() || before.ends_with('\n') { "" } else { "\n" };
            file.write_all(format!("{gap}{line}\n").as_bytes())?;
            file.sync_all()
        };
        attempt().map_err(|source| SshError::KnownHosts { path: path.to_owned(), source })
    }

    /// Drops what `path` says about a host under its exact name, and returns how many lines that changed. Lines of a
    /// pattern that takes other hosts as well, of authorities and of revoked keys stay.
    ///
    /// # Errors
    /// [`SshError::KnownHosts`]. A file that does not exist is not an error.
    pub fn forget(path: &Path, host: &str, port: u16) -> Result<usize, SshError> {
        let name = known_name(host, port);
        let attempt = || -> io::Result<usize> {
            if !path.exists() {
                return Ok(0);
            }
            let _lock = lock(path)?;
            let before = std::fs::read_to_string(path)?;
            let mut changed = 0;
            let mut after = String::with_capacity(before.len());
            for line in before.lines() {
                let kept = without(line, &name);
                changed += usize::from(kept.as_deref() != Some(line));
                if let Some(line) = kept {
                    after.push_str(&line);
                    after.push('\n');
                }
            }
            if changed > 0 {
                replace(path, after.as_bytes())?;
            }
            Ok(changed)
        };
        attempt().map_err(|source| SshError::KnownHosts { path: path.to_owned(), source })
    }
}

/// The line without that name, `None` when nothing of it is left.
fn without(line: &str, name: &str) -> Option<String> {
    let Some((Marker::None, names, _)) = parse_line(line.trim()) else { return Some(line.to_owned()) };
    match names {
        Names::Hashed { .. } => (!names.take(name)).then(|| line.to_owned()),
        Names::Patterns(patterns) => {
            if !patterns.iter().any(|pattern| pattern.eq_ignore_ascii_case(name)) {
                return Some(line.to_owned());
            }
            let rest: Vec<&str> =
                patterns.iter().map(String::as_str).filter(|p| !p.eq_ignore_ascii_case(name)).collect();
            if rest.is_empty() || rest.iter().all(|pattern| pattern.starts_with('!')) {
                return None;
            }
            let (_, key) = line.trim().split_once(char::is_whitespace)?;
            Some(format!("{} {}", rest.join(","), key.trim_start()))
        }
    }
}

/// Writes beside the file and renames, so that a reader sees the old or the new content and never half of one.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let beside = beside(path, ".new");
    let mut file = private().write(true).create(true).truncate(true).open(&beside)?;
    file.set_permissions(std::fs::metadata(path)?.permissions())?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)
}

/// Waits for, and holds, the lock of a file. It is a file of its own because the file itself is replaced by renaming.
fn lock(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists()) {
        let mut builder = std::fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.recursive(true).create(folder)?;
    }
    let file = private().write(true).create(true).truncate(false).open(beside(path, ".lock"))?;
    file.lock()?;
    Ok(file)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}
