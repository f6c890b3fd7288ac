//! An image to be uploaded.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use futures::future::BoxFuture;
use sha2::{Digest, Sha256};
use tokio::io::AsyncRead;

use crate::BmcError;

/// How an image is packed, by its first bytes and not by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ImageEncoding {
    /// As it goes to the eMMC.
    Raw,
    /// xz; firmware 2.1 and later unpacks it while writing.
    Xz,
}

/// Opens an image from its beginning.
pub type OpenImage =
    Arc<dyn Fn() -> BoxFuture<'static, io::Result<Box<dyn AsyncRead + Send + Unpin>>> + Send + Sync>;

/// An image of a known length that can be opened. Cheap to clone.
#[derive(Clone)]
#[non_exhaustive]
pub struct ImageUpload {
    /// A name for people. The BMC gets a harmless form of it.
    pub name: String,
    /// Bytes that are sent: of the packed form for xz.
    pub length: u64,
    /// SHA-256 of the bytes that are sent, 64 lower-case hexadecimal digits.
    pub sha256: Option<String>,
    /// How it is packed.
    pub encoding: ImageEncoding,
    /// Whether the BMC leaves out the check that reads back what it wrote. Firmware 2.1 and later.
    pub skip_check: bool,
    /// Opens it.
    pub open: OpenImage,
}

impl fmt::Debug for ImageUpload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImageUpload")
            .field("name", &self.name)
            .field("length", &self.length)
            .field("sha256", &self.sha256)
            .field("encoding", &self.encoding)
            .finish_non_exhaustive()
    }
}

impl ImageUpload {
    /// An image from anything that can be opened, also unpacked on the fly as long as its length is known.
    pub fn new(name: impl Into<String>, length: u64, encoding: ImageEncoding, open: OpenImage) -> Self {
        Self { name: name.into(), length, sha256: None, encoding, skip_check: false, open }
    }

    /// An image that is made while it is sent, such as one that is unpacked from `.zst`: any reader of a length known
    /// beforehand. It can be sent once. The digest of what is sent is computed on the way.
    ///
    /// A reader that ends early, or goes on, breaks the upload off: the BMC takes it for aborted, and never for done.
    pub fn stream(
        name: impl Into<String>,
        length: u64,
        encoding: ImageEncoding,
        reader: impl AsyncRead + Send + Unpin + 'static,
    ) -> Self {
        let reader: Box<dyn AsyncRead + Send + Unpin> = Box::new(reader);
        let reader = Mutex::new(Some(reader));
        let open: OpenImage = Arc::new(move || {
            let taken = reader.lock().unwrap_or_else(PoisonError::into_inner).take();
            let taken = taken.ok_or_else(|| io::Error::other("this stream was read before"));
            Box::pin(std::future::ready(taken))
        });
        Self::new(name, length, encoding, open)
    }

    /// Without the check that reads back what was written: faster, and blind to a failing eMMC.
    #[must_use]
    pub fn without_check(mut self) -> Self {
        self.skip_check = true;
        self
    }

    /// With the digest of the bytes that are sent.
    ///
    /// # Errors
    /// [`BmcError::Image`] if it is not 64 hexadecimal digits.
    pub fn with_sha256(mut self, sha256: &str) -> Result<Self, BmcError> {
        self.sha256 = Some(digits(&self.name, sha256)?);
        Ok(self)
    }

    /// A file: looks at its length and first bytes, and reads it once for its SHA-256.
    ///
    /// # Errors
    /// [`BmcError::Image`] if it cannot be read, is empty, or is packed in a way no BMC unpacks (gzip, zstd, bzip2, zip):
    /// the BMC would write the packed bytes and report success.
    pub async fn file(path: impl AsRef<Path>) -> Result<Self, BmcError> {
        let image = Self::look_at(path.as_ref()).await?;
        let path = path.as_ref().to_owned();
        let digest = tokio::task::spawn_blocking(move || digest(&path)).await.map_err(io::Error::other);
        match digest.and_then(|inner| inner) {
            Ok(sha256) => Ok(Self { sha256: Some(sha256), ..image }),
            Err(error) => Err(unreadable(&image.name, error)),
        }
    }

    /// A firmware file (`.tpu`), for [`FirmwareSource`](crate::FirmwareSource): sent as it is, whatever its first bytes.
    ///
    /// # Errors
    /// [`BmcError::Image`] if it cannot be read or is empty.
    pub async fn firmware_file(path: impl AsRef<Path>) -> Result<Self, BmcError> {
        let path = path.as_ref().to_owned();
        let name = base_name(&path);
        let looked = {
            let path = path.clone();
            tokio::task::spawn_blocking(move || Ok((std::fs::metadata(&path)?.len(), digest(&path)?)))
        };
        let looked = looked.await.map_err(io::Error::other).and_then(|inner: io::Result<_>| inner);
        let (length, sha256) = looked.map_err(|error| unreadable(&name, error))?;
        if length == 0 {
            return Err(refuse(&name, "it is empty"));
        }
        let image = Self::new(name, length, ImageEncoding::Raw, open_file(path));
        Ok(Self { sha256: Some(sha256), ..image })
    }

    /// A file whose SHA-256 is known already, and is not computed again. It is compared where the firmware can.
    ///
    /// # Errors
    /// As [`ImageUpload::file`], and if `sha256` is not a digest.
    pub async fn file_with_sha256(path: impl AsRef<Path>, sha256: &str) -> Result<Self, BmcError> {
        Self::look_at(path.as_ref()).await?.with_sha256(sha256)
    }

    /// An image in memory.
    ///
    /// # Errors
    /// As [`ImageUpload::file`].
    pub fn bytes(name: impl Into<String>, bytes: impl Into<Bytes>) -> Result<Self, BmcError> {
        let (name, bytes) = (name.into(), bytes.into());
        let encoding = encoding(&name, bytes.get(..MAGIC).unwrap_or(&bytes))?;
        let sha256 = hex::encode(Sha256::digest(&bytes));
        let length = bytes.len() as u64;
        let open: OpenImage = Arc::new(move || {
            let reader: Box<dyn AsyncRead + Send + Unpin> = Box::new(io::Cursor::new(bytes.clone()));
            Box::pin(std::future::ready(Ok(reader)))
        });
        Ok(Self { sha256: Some(sha256), ..Self::new(name, length, encoding, open) })
    }

    async fn look_at(path: &Path) -> Result<Self, BmcError> {
        let name = base_name(path);
        let owned = path.to_owned();
        let looked = tokio::task::spawn_blocking(move || {
            let mut start = Vec::new();
            let file = std::fs::File::open(&owned)?;
            let metadata = file.metadata()?;
            io::Read::read_to_end(&mut io::Read::take(file, MAGIC as u64), &mut start)?;
            Ok((metadata.len(), start))
        });
        let (length, start) = looked
            .await
            .map_err(io::Error::other)
            .and_then(|inner| inner)
            .map_err(|error| unreadable(&name, error))?;
        let encoding = encoding(&name, &start)?;
        Ok(Self::new(name, length, encoding, open_file(path.to_owned())))
    }

    /// The name for the wire. The BMC decides by it: `.xz` is unpacked, and what begins with `http` is downloaded.
    pub(crate) fn wire_name(&self) -> String {
        let harmless =
            |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '_' };
        let base: String = self
            .name
            .rsplit(['/', '\\'])
            .next()
            .unwrap_or_default()
            .chars()
            .map(harmless)
            .take(100)
            .collect();
        let base = base.trim_start_matches(['.', '-']);
        let mut name = if base.is_empty() || base.to_ascii_lowercase().starts_with("http") {
            format!("image-{base}")
        } else {
            base.to_owned()
        };
        let says_xz = name.ends_with(".xz");
        match self.encoding {
            ImageEncoding::Xz if !says_xz => name.push_str(".xz"),
            ImageEncoding::Raw if says_xz => name.push_str(".img"),
            _ => {}
        }
        name
    }
}

fn base_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn open_file(path: PathBuf) -> OpenImage {
    Arc::new(move || {
        let path = path.clone();
        Box::pin(async move {
            let reader: Box<dyn AsyncRead + Send + Unpin> = Box::new(tokio::fs::File::open(&path).await?);
            Ok(reader)
        })
    })
}

/// Bytes that tell how a file is packed.
const MAGIC: usize = 6;

fn encoding(name: &str, start: &[u8]) -> Result<ImageEncoding, BmcError> {
    const PACKED: [(&[u8], &str); 4] = [
        (&[0x1f, 0x8b], "it is packed with gzip, which the BMC would write as it is"),
        (&[0x28, 0xb5, 0x2f, 0xfd], "it is packed with zstd, which the BMC would write as it is"),
        (b"BZh", "it is packed with bzip2, which the BMC would write as it is"),
        (b"PK\x03\x04", "it is a zip archive, which the BMC would write as it is"),
    ];
    if start.is_empty() {
        return Err(refuse(name, "it is empty"));
    }
    if start.starts_with(&[0xfd, b'7', b'z', b'X', b'Z', 0]) {
        return Ok(ImageEncoding::Xz);
    }
    match PACKED.iter().find(|(magic, _)| start.starts_with(magic)) {
        Some((_, problem)) => Err(refuse(name, problem)),
        None => Ok(ImageEncoding::Raw),
    }
}

fn digest(path: &Path) -> io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let mut hasher = Sha256::new();
    let mut piece = vec![0; 1024 * 1024];
    loop {
        let read = io::Read::read(&mut file, &mut piece)?;
        if read == 0 {
            return Ok(hex::encode(hasher.finalize()));
        }
        hasher.update(piece.get(..read).unwrap_or_default());
    }
}

/// A digest in small letters.
pub(crate) fn digits(name: &str, sha256: &str) -> Result<String, BmcError> {
    let digits = sha256.trim().to_ascii_lowercase();
    if digits.len() != 64 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(refuse(name, "its SHA-256 is not 64 hexadecimal digits"));
    }
    Ok(digits)
}

pub(crate) fn refuse(name: &str, problem: &'static str) -> BmcError {
    BmcError::Image { image: name.to_owned(), problem: problem.into(), source: None }
}

pub(crate) fn unreadable(name: &str, error: io::Error) -> BmcError {
    BmcError::Image { image: name.to_owned(), problem: "it cannot be read".into(), source: Some(error) }
}
