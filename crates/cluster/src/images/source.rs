//! What a person may write where an image is wanted.

use std::{fmt, path::PathBuf};

use url::Url;

use super::CatalogueEntry;
use crate::fetch::Source;

/// Where an image comes from.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ImageSource {
    /// A file of this machine, read in place.
    Path(PathBuf),
    /// An `http` or `https` address.
    Url(Url),
    /// An entry of the catalogue.
    Catalogue(Box<CatalogueEntry>),
}

impl fmt::Display for ImageSource {
    /// The path, the address without credentials and query, or the entry's name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Url(url) => Source::Url(url.clone()).fmt(f),
            Self::Catalogue(entry) => f.write_str(&entry.name),
        }
    }
}
