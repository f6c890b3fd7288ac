//! The file lock: one run at a time, also over processes.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{Failure, FailureClass};

/// Who holds a [`FileLock`], as JSON inside the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockOwner {
    /// The process.
    pub pid: u32,
    /// The host it runs on.
    pub host: String,
    /// What it does: `apply`, `destroy`, …
    pub verb: String,
    /// Since when, UTC.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
}

impl LockOwner {
    /// This process, now.
    pub fn new(host: impl Into<String>, verb: impl Into<String>) -> Self {
        Self {
            pid: std::process::id(),
            host: host.into(),
            verb: verb.into(),
            since: OffsetDateTime::now_utc(),
        }
    }
}

/// A lock that the operating system holds for a process and gives back when the process ends, however it ends.
pub struct FileLock;

/// The lock is held as long as this lives.
#[derive(Debug)]
#[must_use = "the lock is released when the guard is dropped"]
pub struct FileLockGuard {
    file: File,
    path: PathBuf,
}

impl FileLock {
    /// Takes the lock at `path`, creating the file (mode 0600) where it is missing. Does not wait.
    ///
    /// # Errors
    /// `Locked`, saying who holds it; `Config` where the file cannot be opened or locked, or is a link.
    pub fn acquire(path: impl Into<PathBuf>, owner: &LockOwner) -> Result<FileLockGuard, Failure> {
        let path = path.into();
        // It is written to, and a link may lead to a file of somebody.
        if path.is_symlink() {
            return Err(Failure::new(
                FailureClass::Config,
                format!(
                    "the lock `{}` is a link, and the file it leads to would be overwritten",
                    path.display()
                ),
            )
            .hint("Remove the link; the lock is made anew."));
        }
        let mut file = open(&path).map_err(|e| unusable(&path, e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(held(&path, &mut file)),
            Err(TryLockError::Error(e)) => return Err(unusable(&path, e)),
        }
        let mut guard = FileLockGuard { file, path };
        guard.write(owner).map_err(|e| unusable(&guard.path, e))?;
        Ok(guard)
    }
}

impl FileLockGuard {
    /// The locked file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn write(&mut self, owner: &LockOwner) -> std::io::Result<()> {
        let text = serde_json::to_vec(owner)?;
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&text)?;
        self.file.flush()
    }
}

impl Drop for FileLockGuard {
    fn drop(&mut self) {
        // The file stays: whoever removes it could remove one that somebody else has just locked.
        let _ = self.file.set_len(0);
        let _ = self.file.unlock();
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn unusable(path: &Path, error: std::io::Error) -> Failure {
    Failure::new(FailureClass::Config, format!("cannot lock `{}`", path.display()))
        .hint("Check that the folder exists, is yours, and lies on a file system with locks.")
        .source(error)
}

fn held(path: &Path, file: &mut File) -> Failure {
    let mut text = Vec::new();
    // Bounded: the file may be anything.
    let owner = file
        .take(4096)
        .read_to_end(&mut text)
        .ok()
        .and_then(|_| serde_json::from_slice::<LockOwner>(&text).ok());
    let who = match owner {
        Some(LockOwner { pid, host, verb, since }) => {
            format!("`{verb}` (process {pid} on {host}, since {})", second(since))
        }
        // The holder has locked the file and not yet written to it, or ends just now.
        None => "another process".to_owned(),
    };
    Failure::new(FailureClass::Locked, format!("`{}` is held by {who}", path.display()))
        .hint("Wait until it ends, or end that process; the lock goes with it.")
}

fn second(at: OffsetDateTime) -> String {
    let at = at.to_offset(time::UtcOffset::UTC).replace_nanosecond(0).unwrap_or(at);
    at.format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
}
