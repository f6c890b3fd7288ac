//! Makes images be there: from the catalogue, an address or a path, proved before anybody may use them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Serialize;
use time::OffsetDateTime;
use turingpi_engine::{Failure, FailureClass};
use url::Url;

use super::{
    CachedImage, Catalogue, CatalogueEntry, Checked, DigestSource, ImageFile, ImageSource, InspectOptions,
    Inspection, PruneRule, Pruned, cache::Shelf, catalogue::is_name, inspect::glance, pins::Pin,
    prune::prune,
};
use crate::fetch::{DigestMismatch, FetchOptions, FetchProgress, Fetched, Fetcher, Sha256, Source};

/// How one knows that an image is the right one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "by")]
#[non_exhaustive]
pub enum Trust {
    /// It has the digest that the caller gave.
    Given,
    /// It has the digest of the catalogue.
    Catalogue,
    /// It has the digest of its publisher's checksum file.
    Published {
        /// The address of that file.
        url: String,
    },
    /// Nobody publishes a digest: it is the same as when it was first used.
    Remembered {
        /// When that was.
        #[serde(with = "time::serde::rfc3339")]
        since: OffsetDateTime,
    },
    /// Nobody publishes a digest, and this was the first use: it is remembered from now on. Tell the person.
    FirstUse,
    /// A local file, taken as it is.
    Unchecked,
}

/// How an image is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Want {
    /// The digest it must have, of the file as it is. Goes before what catalogue and publisher say.
    pub sha256: Option<Sha256>,
    /// Takes what an address holds now where it differs from the first use.
    pub trust_anew: bool,
}

/// An image that is there.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Obtained {
    /// The file.
    pub file: ImageFile,
    /// How it was proved.
    pub trust: Trust,
    /// Whether something was downloaded for it now.
    pub downloaded: bool,
}

/// An entry of the catalogue, and what the cache has of it.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Listed {
    /// The entry.
    #[serde(flatten)]
    pub entry: CatalogueEntry,
    /// What the cache has of it.
    pub cached: Option<CachedImage>,
}

/// Catalogue and cache. Cheap to clone; any number of them, in any number of processes, may use one folder.
#[derive(Clone)]
pub struct ImageStore {
    fetcher: Fetcher,
    catalogue: Arc<Catalogue>,
    shelf: Shelf,
}

impl ImageStore {
    /// A store on a cache folder, which may be that of a [`Fetcher`]: they keep the same files.
    ///
    /// # Errors
    /// As [`Fetcher::new`].
    pub fn new(
        cache: impl Into<PathBuf>,
        catalogue: Catalogue,
        options: FetchOptions,
    ) -> Result<Self, Failure> {
        let cache = cache.into();
        let shelf = Shelf::new(&cache);
        Ok(Self { fetcher: Fetcher::new(cache, options)?, catalogue: Arc::new(catalogue), shelf })
    }

    /// The catalogue.
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// What a person means: an `http(s)` address, a name of the catalogue, or else a path, relative to `base`. A file
    /// that has the name of a catalogue entry is written with `./` before it.
    ///
    /// # Errors
    /// `Usage` for another kind of address, and for a name that is neither in the catalogue nor a file.
    pub fn resolve(&self, text: &str, base: &Path) -> Result<ImageSource, Failure> {
        if let Some(entry) = self.catalogue.find(text) {
            return Ok(ImageSource::Catalogue(Box::new(entry.clone())));
        }
        match text.parse() {
            Ok(Source::Url(url)) => Ok(ImageSource::Url(url)),
            Ok(Source::Path(path)) => {
                let path = base.join(path);
                if is_name(text) && !path.exists() {
                    return Err(Failure::new(
                        FailureClass::Usage,
                        format!("`{text}` is neither an image of the catalogue nor a file"),
                    )
                    .hint(
                        "`turingpi image list` shows the names; a path or an `https` address will do, too.",
                    ));
                }
                Ok(ImageSource::Path(path))
            }
            Err(e) => Err(Failure::new(FailureClass::Usage, format!("cannot get an image from `{text}`"))
                .hint("A name of the catalogue, a path, or an `http(s)` address.")
                .source(e)),
        }
    }

    /// Makes an image be there. `progress` counts bytes while downloading and while proving what is there already.
    ///
    /// A file of this machine is used in place and never copied. A cut download goes on where it was cut, also at the
    /// next mirror. Another process that downloads the same is `Locked`.
    ///
    /// # Errors
    /// As [`Fetcher::fetch`]; `Refused` when the digest is another than it was or must be, or when an address without a
    /// published digest answers with something that is no disk image.
    pub async fn obtain(
        &self,
        source: &ImageSource,
        want: &Want,
        progress: FetchProgress<'_>,
    ) -> Result<Obtained, Failure> {
        let (urls, entry) = match source {
            ImageSource::Path(path) => return self.local(path, want, progress).await,
            ImageSource::Url(url) => (vec![url.clone()], None),
            ImageSource::Catalogue(entry) => (entry.urls.clone(), Some(entry.as_ref())),
        };
        let Some(primary) = urls.first() else {
            return Err(Failure::new(FailureClass::Config, "the image has no address"));
        };
        let (expected, mut trust) = self.expected(primary, entry, want).await?;
        let name = name_of(primary);
        for _ in 0..2 {
            let there = expected.as_ref().is_some_and(|digest| self.fetcher.cached(digest).is_some());
            let fetched = self
                .fetcher
                .fetch_from(&urls, expected.as_ref(), progress)
                .await
                .map_err(|failure| changed(failure, &trust))?;
            // It may be pruned at this very moment: then it is fetched again.
            let Some(in_use) = self.shelf.hold(&fetched.sha256) else { continue };
            if trust == Trust::FirstUse {
                self.first_use(primary, &fetched).await?;
            } else if matches!(trust, Trust::Published { .. }) {
                // For the day on which the publisher cannot be asked.
                Pin::write(&self.shelf, primary, &fetched.sha256)?;
            }
            self.shelf.update(&fetched.sha256, |notes| {
                let now = OffsetDateTime::now_utc();
                notes.name.clone_from(&name);
                notes.used_at = Some(now);
                notes.fetched_at = notes.fetched_at.filter(|_| there).or(Some(now));
                if let Some(entry) = entry.filter(|entry| !notes.known_as.contains(&entry.name)) {
                    notes.known_as.push(entry.name.clone());
                }
            });
            let file =
                ImageFile::cached(fetched.path, name, fetched.sha256, self.shelf.clone(), Arc::new(in_use))
                    .await?;
            if let Trust::Remembered { since } = &mut trust
                && want.trust_anew
            {
                *since = OffsetDateTime::now_utc();
            }
            return Ok(Obtained { file, trust, downloaded: !there });
        }
        Err(Failure::new(FailureClass::Locked, "the cache is being pruned at this moment").retryable())
    }

    async fn local(
        &self,
        path: &Path,
        want: &Want,
        progress: FetchProgress<'_>,
    ) -> Result<Obtained, Failure> {
        let file = ImageFile::open(path).await?;
        let Some(expected) = &want.sha256 else {
            return Ok(Obtained { file, trust: Trust::Unchecked, downloaded: false });
        };
        let fetched = self.fetcher.fetch(&Source::Path(path.to_owned()), Some(expected), progress).await?;
        Ok(Obtained { file: file.with_digest(fetched.sha256), trust: Trust::Given, downloaded: false })
    }

    /// The digest that it must have, and who says so. None only on a first use.
    async fn expected(
        &self,
        url: &Url,
        entry: Option<&CatalogueEntry>,
        want: &Want,
    ) -> Result<(Option<Sha256>, Trust), Failure> {
        if let Some(sha256) = &want.sha256 {
            return Ok((Some(sha256.clone()), Trust::Given));
        }
        let published = match entry.map(|entry| &entry.digest) {
            Some(DigestSource::Sha256(sha256)) => return Ok((Some(sha256.clone()), Trust::Catalogue)),
            Some(DigestSource::Published(at)) => self.published(url, at).await.map(Some),
            Some(DigestSource::FirstUse) | None => self.beside(url).await,
        };
        let pin = Pin::read(&self.shelf, url)?;
        match (published, pin) {
            (Ok(Some((sha256, at))), _) => {
                Ok((Some(sha256), Trust::Published { url: Source::Url(at).to_string() }))
            }
            // Nobody can be asked, and it is there: it is what it was.
            (Err(failure), Some(pin))
                if failure.class() == FailureClass::Unreachable
                    && self.fetcher.cached(&pin.sha256).is_some() =>
            {
                tracing::warn!(%failure, "the publisher cannot be asked; using what is in the cache");
                Ok((Some(pin.sha256), Trust::Remembered { since: pin.since }))
            }
            (Err(failure), _) => Err(failure),
            (Ok(None), Some(pin)) if !want.trust_anew => {
                Ok((Some(pin.sha256), Trust::Remembered { since: pin.since }))
            }
            (Ok(None), _) => Ok((None, Trust::FirstUse)),
        }
    }

    async fn published(&self, url: &Url, at: &Url) -> Result<(Sha256, Url), Failure> {
        let text = self.fetcher.text(&Source::Url(at.clone())).await?;
        let digest = Sha256::beside(&text, &name_of(url)).ok_or_else(|| {
            Failure::new(FailureClass::Refused, format!("{} has no SHA-256", Source::Url(at.clone())))
                .hint("Look there with a browser; give the digest with `--sha256` once you know it.")
        })?;
        Ok((digest, at.clone()))
    }

    /// The checksum file that many publishers put beside a file.
    async fn beside(&self, url: &Url) -> Result<Option<(Sha256, Url)>, Failure> {
        for suffix in [".sha256", ".sha", ".sha256sum"] {
            let mut at = url.clone();
            at.set_path(&format!("{}{suffix}", url.path()));
            let text = match self.fetcher.text_if_there(&Source::Url(at.clone())).await {
                Ok(text) => text,
                // Some servers refuse what they do not have.
                Err(failure) if matches!(failure.class(), FailureClass::Auth | FailureClass::Refused) => None,
                Err(failure) => return Err(failure),
            };
            if let Some(digest) = text.and_then(|text| Sha256::beside(&text, &name_of(url))) {
                return Ok(Some((digest, at)));
            }
        }
        Ok(None)
    }

    /// Remembers what an address holds, unless that is visibly no image: the page of a hotel's network must not become
    /// what every later download is compared with.
    async fn first_use(&self, url: &Url, fetched: &Fetched) -> Result<(), Failure> {
        let path = fetched.path.clone();
        let content = tokio::task::spawn_blocking(move || glance(&path)).await;
        if let Ok(Ok(Some(what))) = content {
            let _ = std::fs::remove_file(&fetched.path);
            return Err(Failure::new(
                FailureClass::Refused,
                format!("{} is no disk image but {what}", Source::Url(url.clone())),
            )
            .hint("Check the address with a browser; a network with a login page answers everything with that page."));
        }
        Pin::write(&self.shelf, url, &fetched.sha256).map(|_| ())
    }

    /// The catalogue, each entry with what the cache has of it. Nothing is downloaded or read again.
    ///
    /// # Errors
    /// `Unexpected` when the cache cannot be read.
    pub fn list(&self) -> Result<Vec<Listed>, Failure> {
        self.catalogue
            .entries()
            .iter()
            .map(|entry| {
                let digest = match (entry.sha256(), entry.urls.first()) {
                    (Some(digest), _) => Some(digest.clone()),
                    (None, Some(url)) => Pin::read(&self.shelf, url)?.map(|pin| pin.sha256),
                    (None, None) => None,
                };
                let cached = digest.and_then(|digest| self.shelf.image(&digest));
                Ok(Listed { entry: entry.clone(), cached })
            })
            .collect()
    }

    /// All images of the cache, those used last first.
    ///
    /// # Errors
    /// `Unexpected` when the cache cannot be read.
    pub fn cached(&self) -> Result<Vec<CachedImage>, Failure> {
        self.shelf.images()
    }

    /// Reads an image of the cache again and compares it with the digest it is named by.
    ///
    /// # Errors
    /// `Unexpected` when it cannot be read.
    pub async fn verify(&self, image: CachedImage, progress: FetchProgress<'_>) -> Result<Checked, Failure> {
        let (found, _) = crate::fetch::digest_of(&image.path, progress)
            .await
            .map_err(|e| crate::fetch::trouble("read", &image.path, e))?;
        Ok(Checked { sound: found == image.sha256, image })
    }

    /// Removes images from the cache. What is in use stays; so do files of other kinds.
    ///
    /// # Errors
    /// `Unexpected` when the cache cannot be read or a file cannot be removed.
    pub fn prune(&self, rule: &PruneRule, dry_run: bool) -> Result<Pruned, Failure> {
        prune(&self.shelf, rule, OffsetDateTime::now_utc(), dry_run)
    }

    /// Looks inside an image, and remembers what was found where the image is in the cache.
    ///
    /// # Errors
    /// As [`Inspection::of`].
    pub async fn inspect(&self, file: &ImageFile, options: &InspectOptions) -> Result<Inspection, Failure> {
        let known = file.sha256().filter(|digest| self.shelf.image(digest).is_some());
        if let Some(inspection) = known.and_then(|digest| self.shelf.notes(digest).inspection) {
            return Ok(*inspection);
        }
        let inspection = Inspection::of(file, options).await?;
        if let Some(digest) = known {
            self.shelf.update(digest, |notes| {
                notes.raw_bytes = notes.raw_bytes.or(inspection.raw_bytes);
                notes.inspection = Some(Box::new(inspection.clone()));
            });
        }
        Ok(inspection)
    }

    /// A folder of the cache for what is needed for a moment.
    ///
    /// # Errors
    /// `Unexpected` when it cannot be made.
    pub fn scratch(&self) -> Result<PathBuf, Failure> {
        self.shelf.folder("scratch")
    }
}

/// The last part of an address.
fn name_of(url: &Url) -> String {
    url.path_segments().and_then(|mut parts| parts.next_back()).unwrap_or_default().to_owned()
}

/// Says what a wrong digest means when it is one that was only remembered.
fn changed(failure: Failure, trust: &Trust) -> Failure {
    let other = std::error::Error::source(&failure).is_some_and(|cause| cause.is::<DigestMismatch>());
    match trust {
        Trust::Remembered { since } if other => failure.hint(format!(
            "It is another file than on {}, and its publisher says nothing. If you know that there is a new one: \
             `turingpi image pull --trust-anew`.",
            since.date()
        )),
        Trust::Published { .. } if other => failure
            .hint("It may just be replaced at its publisher: try again in some minutes.")
            .retryable(),
        _ => failure,
    }
}

#[cfg(test)]
mod tests;
