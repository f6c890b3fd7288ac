//! Images that suit a Turing Pi's modules.
//!
//! The facts stand in `catalogue.yaml`, which is built in; a person's own file of the same shape is laid over it.

use std::fmt;

use serde::{Deserialize, Serialize};
use turingpi_engine::{Failure, FailureClass};
use url::Url;

use super::Packing;
use crate::fetch::Sha256;

const EMBEDDED: &str = include_str!("catalogue.yaml");

/// A compute module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Module {
    /// Turing RK1 (Rockchip RK3588).
    Rk1,
    /// Raspberry Pi Compute Module 4 with eMMC.
    Cm4,
}

impl fmt::Display for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rk1 => "rk1",
            Self::Cm4 => "cm4",
        })
    }
}

/// A line of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Family {
    /// Armbian with the SoC vendor's kernel: the one with the NPU driver.
    ArmbianVendor,
    /// Armbian with the mainline long-term kernel.
    ArmbianCurrent,
    /// Armbian with the newest mainline kernel.
    ArmbianEdge,
    /// Ubuntu.
    Ubuntu,
    /// Raspberry Pi OS.
    RaspberryPiOs,
    /// Talos Linux.
    Talos,
    /// Anything else.
    Other,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ArmbianVendor => "armbian vendor",
            Self::ArmbianCurrent => "armbian current",
            Self::ArmbianEdge => "armbian edge",
            Self::Ubuntu => "ubuntu",
            Self::RaspberryPiOs => "raspberry pi os",
            Self::Talos => "talos",
            Self::Other => "other",
        })
    }
}

/// How one knows that a download is the right one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DigestSource {
    /// The digest of the file as it is downloaded.
    Sha256(Sha256),
    /// A checksum file of the publisher, asked each time. For images that are replaced under the same address.
    Published(Url),
    /// Nobody publishes one: the first one seen is remembered, and every later one compared.
    FirstUse,
}

/// An image of the catalogue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogueEntry {
    /// Its name: lower-case letters, digits, dashes and dots.
    pub name: String,
    /// Other names; they may move to a newer image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// What it is, in a few words.
    pub title: String,
    /// The modules that boot it.
    pub modules: Vec<Module>,
    /// The line it belongs to.
    pub family: Family,
    /// Its version, or `rolling`.
    pub version: String,
    /// Its address first, then mirrors of the same bytes.
    pub urls: Vec<Url>,
    /// How a download is proved.
    pub digest: DigestSource,
    /// How it is packed.
    pub packing: Packing,
    /// Bytes of the download, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Bytes unpacked, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw_bytes: Option<u64>,
    /// What a person should know before choosing it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl CatalogueEntry {
    /// The digest, where it does not have to be asked for.
    pub fn sha256(&self) -> Option<&Sha256> {
        match &self.digest {
            DigestSource::Sha256(sha256) => Some(sha256),
            _ => None,
        }
    }
}

/// Named images, in the order in which they are shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    images: Vec<CatalogueEntry>,
}

impl Catalogue {
    /// The built-in one.
    ///
    /// # Errors
    /// None in a release: a test reads it.
    pub fn embedded() -> Result<Self, Failure> {
        Self::parse(EMBEDDED)
    }

    /// Reads a catalogue: YAML of the shape of the built-in one.
    ///
    /// # Errors
    /// `Config` when it cannot be read, a name is not one, stands twice, or an entry has no address.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let catalogue: Self = serde_saphyr::from_str(text).map_err(|e| {
            Failure::new(FailureClass::Config, "the catalogue of images cannot be read").source(e)
        })?;
        let wrong = |text: String| Err(Failure::new(FailureClass::Config, text));
        let mut names = std::collections::BTreeSet::new();
        for entry in &catalogue.images {
            for name in std::iter::once(&entry.name).chain(&entry.aliases) {
                if !is_name(name) {
                    return wrong(format!(
                        "`{name}` is not the name of an image: lower-case letters, digits, dashes and dots"
                    ));
                }
                if !names.insert(name) {
                    return wrong(format!("the catalogue has the name `{name}` twice"));
                }
            }
            let web = |url: &Url| ["http", "https"].contains(&url.scheme()) && url.has_host();
            let published = match &entry.digest {
                DigestSource::Published(url) => Some(url),
                _ => None,
            };
            if entry.urls.is_empty() || !entry.urls.iter().chain(published).all(web) {
                return wrong(format!("image `{}` of the catalogue needs `http(s)` addresses", entry.name));
            }
        }
        Ok(catalogue)
    }

    /// This one with another laid over it: its entries come first and replace those whose names they take.
    #[must_use]
    pub fn with(self, over: Self) -> Self {
        let taken = |name: &String| over.images.iter().any(|e| e.name == *name || e.aliases.contains(name));
        let kept: Vec<CatalogueEntry> = self
            .images
            .into_iter()
            .filter(|entry| !taken(&entry.name))
            .map(|mut entry| {
                entry.aliases.retain(|alias| !taken(alias));
                entry
            })
            .collect();
        Self { images: over.images.into_iter().chain(kept).collect() }
    }

    /// All entries.
    pub fn entries(&self) -> &[CatalogueEntry] {
        &self.images
    }

    /// The entry with this name or alias.
    pub fn find(&self, name: &str) -> Option<&CatalogueEntry> {
        self.images.iter().find(|e| e.name == name || e.aliases.iter().any(|alias| alias == name))
    }
}

/// Whether a text could be a name of the catalogue rather than a path.
pub(super) fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c))
}

#[cfg(test)]
mod tests;
