//! What the cache knows of its images: a note beside each, and the list of them.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use turingpi_engine::Failure;

use super::{Inspection, Packing};
use crate::fetch::{Sha256, trouble};

/// `<cache>/sha256/<digest>` are the files (as [`Fetcher`](crate::Fetcher) keeps them), `<cache>/images/<digest>.json` what
/// is known of those that are images.
#[derive(Debug, Clone)]
pub(super) struct Shelf {
    root: PathBuf,
}

/// What is known of an image of the cache. Facts about its bytes never change; the rest is for people.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Notes {
    /// The last part of its address.
    #[serde(default)]
    pub(super) name: String,
    /// Names of the catalogue it was obtained by.
    #[serde(default)]
    pub(super) known_as: Vec<String>,
    #[serde(default, with = "time::serde::rfc3339::option")]
    pub(super) fetched_at: Option<OffsetDateTime>,
    #[serde(default, with = "time::serde::rfc3339::option")]
    pub(super) used_at: Option<OffsetDateTime>,
    #[serde(default)]
    pub(super) raw_bytes: Option<u64>,
    #[serde(default)]
    pub(super) raw_sha256: Option<Sha256>,
    #[serde(default)]
    pub(super) inspection: Option<Box<Inspection>>,
}

/// An image of the cache.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct CachedImage {
    /// SHA-256 of the file as it is; its name in the cache.
    pub sha256: Sha256,
    /// Where it is.
    pub path: PathBuf,
    /// The last part of the address it came from; empty when the cache was not told.
    pub name: String,
    /// The names of the catalogue it was obtained by.
    pub known_as: Vec<String>,
    /// How it is packed.
    pub packing: Packing,
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes unpacked, where known.
    pub raw_bytes: Option<u64>,
    /// When it was downloaded.
    #[serde(with = "time::serde::rfc3339")]
    pub fetched_at: OffsetDateTime,
    /// When it was last asked for.
    #[serde(with = "time::serde::rfc3339")]
    pub used_at: OffsetDateTime,
}

/// An image of the cache that was read again.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Checked {
    /// The image.
    #[serde(flatten)]
    pub image: CachedImage,
    /// Whether its bytes still have the digest that it is named by.
    pub sound: bool,
}

impl Shelf {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn file(&self, sha256: &Sha256) -> PathBuf {
        self.root.join("sha256").join(sha256.as_str())
    }

    pub(super) fn folder(&self, name: &str) -> Result<PathBuf, Failure> {
        let folder = self.root.join(name);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(|e| trouble("make", &folder, e))?;
        Ok(folder)
    }

    fn note(&self, sha256: &Sha256) -> PathBuf {
        self.root.join("images").join(format!("{sha256}.json"))
    }

    /// What is known; nothing where there is no note, or one that cannot be read.
    pub(super) fn notes(&self, sha256: &Sha256) -> Notes {
        fs::read(self.note(sha256))
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default()
    }

    /// Changes a note, one writer at a time. What cannot be noted is found out again.
    pub(super) fn update(&self, sha256: &Sha256, change: impl FnOnce(&mut Notes)) {
        let written = (|| -> io::Result<()> {
            let folder = self.folder("images").map_err(io::Error::other)?;
            let _turn = exclusive(&folder.join("lock"))?;
            let mut notes = self.notes(sha256);
            change(&mut notes);
            write(&folder, &self.note(sha256), &notes)
        })();
        if let Err(error) = written {
            tracing::warn!(%sha256, %error, "cannot note what an image is");
        }
    }

    pub(super) fn forget(&self, sha256: &Sha256) {
        let _ = fs::remove_file(self.note(sha256));
    }

    /// A lock that keeps the file from being pruned; `None` when it is not there (any more).
    pub(super) fn hold(&self, sha256: &Sha256) -> Option<File> {
        let path = self.file(sha256);
        let file = File::open(&path).ok()?;
        file.try_lock_shared().ok()?;
        // Between opening and locking it may have been pruned.
        path.exists().then_some(file)
    }

    /// All images, those used last first. Files of other kinds (k3s releases) are not among them.
    pub(super) fn images(&self) -> Result<Vec<CachedImage>, Failure> {
        let folder = self.root.join("sha256");
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(trouble("read", &folder, e)),
        };
        let mut images: Vec<CachedImage> = entries
            .flatten()
            .filter_map(|entry| self.image(&entry.file_name().to_str()?.parse().ok()?))
            .collect();
        images.sort_by(|a, b| b.used_at.cmp(&a.used_at).then_with(|| a.sha256.cmp(&b.sha256)));
        Ok(images)
    }

    /// One image; `None` when it is not there or no image.
    pub(super) fn image(&self, sha256: &Sha256) -> Option<CachedImage> {
        let path = self.file(sha256);
        let mut start = Vec::new();
        let file = File::open(&path).ok()?;
        let metadata = file.metadata().ok().filter(fs::Metadata::is_file)?;
        io::Read::read_to_end(&mut io::Read::take(file, 1024), &mut start).ok()?;
        let packing = Packing::of(&start);
        let noted = self.note(sha256).is_file();
        let notes = self.notes(sha256);
        let disk = packing == Packing::Xz || start.get(510..512) == Some(&[0x55, 0xaa]);
        if !noted && !disk {
            return None;
        }
        let written = metadata.modified().map_or(OffsetDateTime::UNIX_EPOCH, OffsetDateTime::from);
        let fetched_at = notes.fetched_at.unwrap_or(written);
        Some(CachedImage {
            sha256: sha256.clone(),
            path,
            name: notes.name,
            known_as: notes.known_as,
            packing,
            bytes: metadata.len(),
            raw_bytes: match packing {
                Packing::Raw => Some(metadata.len()),
                _ => notes.raw_bytes,
            },
            fetched_at,
            used_at: notes.used_at.unwrap_or(fetched_at),
        })
    }
}

/// A lock file, held until it is dropped.
pub(super) fn exclusive(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    file.lock()?;
    Ok(file)
}

/// Writes a note whole or not at all.
pub(super) fn write(folder: &Path, path: &Path, value: &impl Serialize) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    serde_json::to_writer(&mut file, value)?;
    file.persist(path)?;
    Ok(())
}
