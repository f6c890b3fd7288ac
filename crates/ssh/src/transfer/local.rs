//! The local side of transfers.

use std::{
    io::{Read, Write},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::SshError;

pub(super) fn failed(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> SshError {
    let path = path.to_owned();
    move |source| SshError::Local { what, path, source }
}

/// Size and, on demand, SHA-256 of the first `length` bytes of a file (all of it without).
pub(super) async fn digest(path: &Path, length: Option<u64>) -> Result<String, SshError> {
    let file = path.to_owned();
    let work = move || -> std::io::Result<String> {
        let mut rest = std::fs::File::open(file)?.take(length.unwrap_or(u64::MAX));
        let mut hasher = Sha256::new();
        let mut block = vec![0; 256 * 1024];
        loop {
            match rest.read(&mut block)? {
                0 => return Ok(hex::encode(hasher.finalize())),
                count => hasher.update(block.get(..count).unwrap_or_default()),
            }
        }
    };
    blocking(work).await.map_err(failed("read", path))
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(std::io::Error::other(error)))
}

/// A file beside its final place, 0600, removed again unless it is kept.
pub(super) struct Pending {
    beside: PathBuf,
    place: PathBuf,
    file: Option<std::fs::File>,
}

impl Pending {
    pub(super) fn new(place: &Path) -> std::io::Result<Self> {
        let name = place.file_name().ok_or(std::io::ErrorKind::InvalidInput)?.to_string_lossy();
        let beside = place.with_file_name(format!(".{name}.{:016x}.tpi-part", rand::random::<u64>()));
        let mut options = std::fs::OpenOptions::new();
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.write(true).create_new(true).open(&beside)?;
        Ok(Self { beside, place: place.to_owned(), file: Some(file) })
    }

    pub(super) fn write(&mut self, data: &[u8]) -> std::io::Result<()> {
        match &mut self.file {
            Some(file) => file.write_all(data),
            None => Err(std::io::ErrorKind::NotConnected.into()),
        }
    }

    pub(super) fn keep(mut self) -> std::io::Result<()> {
        if let Some(file) = &self.file {
            file.sync_all()?;
            std::fs::rename(&self.beside, &self.place)?;
            self.file = None;
        }
        Ok(())
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            let _ = std::fs::remove_file(&self.beside);
        }
    }
}
