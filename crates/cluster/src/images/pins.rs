//! Digests that nobody publishes: the first one seen of an address is remembered.

use std::fs;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use turingpi_engine::Failure;
use url::Url;

use super::cache::{Shelf, exclusive, write};
use crate::fetch::{Sha256, trouble};

/// What an address held when it was first used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pin {
    pub(super) sha256: Sha256,
    #[serde(with = "time::serde::rfc3339")]
    pub(super) since: OffsetDateTime,
}

impl Pin {
    /// The pin of an address, if it was used before.
    ///
    /// # Errors
    /// A pin that is there and cannot be read: it must not count as none.
    pub(super) fn read(shelf: &Shelf, url: &Url) -> Result<Option<Self>, Failure> {
        let path = shelf.root().join("first-use").join(name(url));
        match fs::read(&path) {
            Ok(text) => {
                match serde_json::from_slice(&text) {
                    Ok(pin) => Ok(Some(pin)),
                    Err(e) => Err(trouble("read", &path, e.into())
                        .hint("Remove it to accept what the address holds now.")),
                }
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(trouble("read", &path, e)),
        }
    }

    /// Remembers a digest, in place of an older one.
    pub(super) fn write(shelf: &Shelf, url: &Url, sha256: &Sha256) -> Result<Self, Failure> {
        let folder = shelf.folder("first-use")?;
        let path = folder.join(name(url));
        let pin = Self { sha256: sha256.clone(), since: OffsetDateTime::now_utc() };
        exclusive(&folder.join("lock"))
            .and_then(|_turn| write(&folder, &path, &pin))
            .map_err(|e| trouble("write", &path, e))?;
        Ok(pin)
    }
}

/// Not the address itself: it may be presigned.
fn name(url: &Url) -> String {
    format!("{}.json", Sha256::of(url.as_str().as_bytes()))
}
