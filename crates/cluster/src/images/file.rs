//! An image that is there as a file.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use sha2::Digest as _;
use tokio::io::AsyncReadExt;
use turingpi_bmc::{ImageEncoding, ImageUpload, OpenImage};
use turingpi_engine::{Failure, FailureClass};

use super::{Packing, Unpacked, Unpacking, cache::Shelf, inspect::glance, size};
use crate::fetch::{FetchProgress, Sha256};

/// An image file: where it is, how it is packed, how large it is. Cheap to clone.
///
/// One from the cache cannot be pruned, by this process or another, as long as this lives.
#[derive(Debug, Clone)]
pub struct ImageFile {
    path: PathBuf,
    name: String,
    packing: Packing,
    packed_bytes: u64,
    raw_bytes: Option<u64>,
    sha256: Option<Sha256>,
    raw_sha256: Option<Sha256>,
    /// What the cache knows of it, and keeps.
    shelf: Option<Shelf>,
    /// Locked against pruning.
    in_use: Option<Arc<File>>,
}

impl ImageFile {
    /// What the file is instead of a disk image, as far as its beginning tells: an archive, a page, a firmware. Packed ones
    /// are unpacked for that far.
    ///
    /// # Errors
    /// `Config` when it cannot be read.
    pub async fn foreign(&self) -> Result<Option<&'static str>, Failure> {
        let path = self.path.clone();
        let looked = tokio::task::spawn_blocking(move || glance(&path)).await.map_err(io::Error::other);
        looked.and_then(|inner| inner).map_err(|e| unusable(&self.path, e))
    }

    /// Looks at a file: its first bytes, and the end of it where that tells the unpacked size. Nothing is unpacked.
    ///
    /// # Errors
    /// `Config` when it cannot be read, is empty, or is visibly not whole.
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self, Failure> {
        let path = path.into();
        let looked = {
            let path = path.clone();
            tokio::task::spawn_blocking(move || look_at(&path)).await.map_err(io::Error::other)
        };
        let (packing, packed_bytes, raw_bytes) =
            looked.and_then(|inner| inner).map_err(|e| unusable(&path, e))?;
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Ok(Self {
            path,
            name,
            packing,
            packed_bytes,
            raw_bytes,
            sha256: None,
            raw_sha256: None,
            shelf: None,
            in_use: None,
        })
    }

    /// One of the cache: its name there is a digest, which was compared.
    pub(super) async fn cached(
        path: PathBuf,
        name: String,
        sha256: Sha256,
        shelf: Shelf,
        in_use: Arc<File>,
    ) -> Result<Self, Failure> {
        let file = Self::open(path).await?;
        let notes = shelf.notes(&sha256);
        Ok(Self {
            name,
            raw_bytes: file.raw_bytes.or(notes.raw_bytes),
            raw_sha256: notes.raw_sha256,
            sha256: Some(sha256),
            shelf: Some(shelf),
            in_use: Some(in_use),
            ..file
        })
    }

    pub(super) fn with_digest(mut self, sha256: Sha256) -> Self {
        self.sha256 = Some(sha256);
        self
    }

    /// Where it is. Must not be changed.
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// Its name for people: the file's, or the last part of the address it was downloaded from.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// How it is packed.
    pub fn packing(&self) -> Packing {
        self.packing
    }
    /// Bytes of the file as it is.
    pub fn packed_bytes(&self) -> u64 {
        self.packed_bytes
    }
    /// Bytes of what it unpacks to, if the format or an earlier [`ImageFile::measured`] tells.
    pub fn raw_bytes(&self) -> Option<u64> {
        self.raw_bytes
    }
    /// SHA-256 of the file as it is, where it was computed already.
    pub fn sha256(&self) -> Option<&Sha256> {
        self.sha256.as_ref()
    }
    /// SHA-256 of what it unpacks to, where a whole pass was made already.
    pub fn raw_sha256(&self) -> Option<&Sha256> {
        match self.packing {
            Packing::Raw => self.sha256.as_ref(),
            _ => self.raw_sha256.as_ref(),
        }
    }

    /// With the SHA-256 of the file; reads it once where nobody has yet. `progress` counts bytes of the file.
    ///
    /// # Errors
    /// `Config` when it cannot be read.
    pub async fn hashed(self, progress: FetchProgress<'_>) -> Result<Self, Failure> {
        if self.sha256.is_some() {
            return Ok(self);
        }
        let (found, _) =
            crate::fetch::digest_of(&self.path, progress).await.map_err(|e| unusable(&self.path, e))?;
        Ok(Self { sha256: Some(found), ..self })
    }

    /// With the unpacked size. Where the format does not tell it (gzip, bzip2, streamed zstd) the file is unpacked once
    /// to nowhere, and the cache remembers the result. `progress` counts bytes of the file as it is.
    ///
    /// # Errors
    /// `Config` when it cannot be read or is damaged.
    pub async fn measured(self, progress: FetchProgress<'_>) -> Result<Self, Failure> {
        match self.raw_bytes {
            Some(_) => Ok(self),
            None => self.proved(progress).await,
        }
    }

    /// Unpacks it once to nowhere: proves that it is whole, and computes size and digest of what it unpacks to.
    ///
    /// # Errors
    /// As [`ImageFile::measured`].
    pub async fn proved(self, progress: FetchProgress<'_>) -> Result<Self, Failure> {
        let mut content = self.unpacked(Unpacking::default()).await?;
        let mut hasher = sha2::Sha256::new();
        let mut buffer = vec![0; 1 << 18];
        let mut bytes = 0;
        loop {
            let read = content.read(&mut buffer).await.map_err(|e| unusable(&self.path, e))?;
            let Some(piece) = buffer.get(..read).filter(|piece| !piece.is_empty()) else { break };
            hasher.update(piece);
            bytes += read as u64;
            progress(content.packed_bytes_read(), Some(self.packed_bytes));
        }
        let raw_sha256 = Sha256::finish(hasher);
        if let (Some(shelf), Some(sha256)) = (&self.shelf, &self.sha256) {
            shelf.update(sha256, |notes| {
                notes.raw_bytes = Some(bytes);
                notes.raw_sha256 = Some(raw_sha256.clone());
            });
        }
        Ok(Self { raw_bytes: Some(bytes), raw_sha256: Some(raw_sha256), ..self })
    }

    /// Its unpacked content from the beginning.
    ///
    /// # Errors
    /// `Config` when it cannot be opened. What is wrong with its content is told by the stream.
    pub async fn unpacked(&self, settings: Unpacking) -> Result<Unpacked, Failure> {
        let file = tokio::fs::File::open(&self.path).await.map_err(|e| unusable(&self.path, e))?;
        Ok(Unpacked::start(file.into_std().await, self.packing, settings))
    }

    /// The image as the BMC's client takes it: packed where the BMC itself unpacks it (`bmc_unpacks_xz`, firmware 2.1
    /// and later), and otherwise unpacked while it is sent. Needs the unpacked size for that: [`ImageFile::measured`].
    ///
    /// # Errors
    /// `Config` when the file cannot be read, or its unpacked size is needed and not known.
    pub async fn upload(&self, bmc_unpacks_xz: bool, settings: Unpacking) -> Result<ImageUpload, Failure> {
        let encoding = match self.packing {
            Packing::Xz if bmc_unpacks_xz => ImageEncoding::Xz,
            _ => ImageEncoding::Raw,
        };
        let as_it_is = self.packing == Packing::Raw || encoding == ImageEncoding::Xz;
        let (length, sha256) = match (as_it_is, self.raw_bytes) {
            (true, _) => (self.packed_bytes, self.sha256.as_ref()),
            (false, Some(bytes)) => (bytes, self.raw_sha256.as_ref()),
            (false, None) => {
                return Err(Failure::new(
                    FailureClass::Config,
                    format!("the unpacked size of `{}` is not known", self.name),
                ));
            }
        };
        let (path, packing) = (self.path.clone(), if as_it_is { Packing::Raw } else { self.packing });
        // Held by the upload: nobody may prune what is being sent.
        let in_use = self.in_use.clone();
        let open: OpenImage = Arc::new(move || {
            let _ = &in_use;
            let path = path.clone();
            Box::pin(async move {
                let file = tokio::fs::File::open(&path).await?.into_std().await;
                let reader: Box<dyn tokio::io::AsyncRead + Send + Unpin> =
                    Box::new(Unpacked::start(file, packing, settings));
                Ok(reader)
            })
        });
        let upload = ImageUpload::new(&self.name, length, encoding, open);
        match sha256 {
            None => Ok(upload),
            Some(sha256) => upload.with_sha256(sha256.as_str()).map_err(|e| {
                Failure::new(FailureClass::Config, format!("`{}` cannot be sent", self.name)).source(e)
            }),
        }
    }
}

fn look_at(path: &Path) -> io::Result<(Packing, u64, Option<u64>)> {
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    if metadata.len() == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is empty"));
    }
    let mut start = Vec::new();
    Read::by_ref(&mut file).take(Packing::SNIFF as u64).read_to_end(&mut start)?;
    let packing = Packing::of(&start);
    let raw = size::raw_size(&mut file, packing)?;
    Ok((packing, metadata.len(), raw))
}

pub(super) fn unusable(path: &Path, error: io::Error) -> Failure {
    let failure =
        Failure::new(FailureClass::Config, format!("the image `{}` cannot be used", path.display()));
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => {
            failure.hint("Get it again, and compare its SHA-256 with what its publisher shows.")
        }
        io::ErrorKind::NotFound => failure.hint("Check the path."),
        _ => failure,
    }
    .source(error)
}
