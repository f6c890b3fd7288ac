//! `<cache>/sha256/<digest>` for whole files, `<cache>/partial/` for those under way.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use turingpi_engine::{Failure, FailureClass};
use url::Url;

use super::{FetchProgress, Fetched, Sha256, digest};

pub(super) struct Cache {
    root: PathBuf,
}

/// What is known about a part, to go on with it later.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PartNotes {
    /// A strong entity tag or a date: what `If-Range` takes.
    pub(super) validator: Option<String>,
    /// Whose validator it is: mirrors have their own.
    #[serde(default)]
    pub(super) from: Option<String>,
}

/// A download under way. Holds an OS lock, so that another process does not write the same part.
pub(super) struct Part {
    pub(super) path: PathBuf,
    notes: PathBuf,
    pub(super) file: File,
}

impl Cache {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(super) fn place(&self, sha256: &Sha256) -> PathBuf {
        self.root.join("sha256").join(sha256.as_str())
    }

    /// The cached file, if it is there and still has its digest. A damaged one is dropped.
    pub(super) async fn verified(
        &self,
        sha256: &Sha256,
        progress: FetchProgress<'_>,
    ) -> Result<Option<Fetched>, Failure> {
        let path = self.place(sha256);
        match digest::of_file(&path, progress).await {
            Ok((found, bytes)) if found == *sha256 => Ok(Some(Fetched { path, sha256: found, bytes })),
            Ok(_) => {
                tracing::warn!(path = %path.display(), "a cached file is damaged and is fetched again");
                fs::remove_file(&path).map_err(|e| trouble("remove", &path, e))?;
                Ok(None)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(trouble("read", &path, e)),
        }
    }

    /// Opens the part of `url` (for `expected`), making it where there is none.
    pub(super) fn part(&self, url: &Url, expected: Option<&Sha256>) -> Result<Part, Failure> {
        let folder = self.root.join("partial");
        make(&folder)?;
        // Mirrors of one digest share their part. What a part is of must not be readable from its name: a presigned
        // address is a secret.
        let key = match expected {
            Some(digest) => Sha256::of(digest.as_str().as_bytes()),
            None => Sha256::of(url.as_str().as_bytes()),
        };
        let path = folder.join(key.as_str());
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|e| trouble("open", &path, e))?;
        file.try_lock().map_err(|_| {
            Failure::new(
                FailureClass::Locked,
                format!("another process is downloading {}", super::shown(url)),
            )
            .hint("Wait until it is done; this one goes on with what it fetched.")
            .retryable()
        })?;
        // Between opening and locking, another process may have moved the file to its place: then this handle is the
        // finished file, which nobody may write to.
        let same = |a: &fs::Metadata, b: &fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
        let mine = file.metadata().map_err(|e| trouble("open", &path, e))?;
        if !fs::metadata(&path).is_ok_and(|there| same(&there, &mine)) {
            return Err(Failure::new(
                FailureClass::Locked,
                format!("{} was just downloaded by another process", super::shown(url)),
            )
            .retryable());
        }
        Ok(Part { notes: path.with_extension("json"), path, file })
    }

    /// Moves a finished part to its place.
    pub(super) fn keep(&self, part: &Part, sha256: &Sha256) -> Result<PathBuf, Failure> {
        let place = self.place(sha256);
        make(place.parent().unwrap_or(&self.root))?;
        part.file.sync_all().map_err(|e| trouble("write", &part.path, e))?;
        fs::rename(&part.path, &place).map_err(|e| trouble("move", &part.path, e))?;
        let _ = fs::remove_file(&part.notes);
        Ok(place)
    }
}

impl Part {
    pub(super) fn notes(&self) -> PartNotes {
        fs::read(&self.notes).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    pub(super) fn note(&self, notes: &PartNotes) -> Result<(), Failure> {
        let text = serde_json::to_vec(notes).unwrap_or_default();
        fs::write(&self.notes, text).map_err(|e| trouble("write", &self.notes, e))
    }

    pub(super) fn discard(&self) {
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_file(&self.notes);
    }
}

fn make(folder: &Path) -> Result<(), Failure> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|e| trouble("make", folder, e))
}

pub(crate) fn trouble(verb: &str, path: &Path, error: io::Error) -> Failure {
    let failure = Failure::new(FailureClass::Unexpected, format!("cannot {verb} `{}`", path.display()));
    match error.kind() {
        io::ErrorKind::StorageFull => {
            failure.hint("The disk is full: free space, or choose another cache folder.")
        }
        io::ErrorKind::PermissionDenied => failure.hint("Choose a cache folder that you may write to."),
        _ => failure,
    }
    .source(error)
}
