//! Making room in the cache.

use std::{fs, time::Duration};

use serde::Serialize;
use time::OffsetDateTime;
use turingpi_engine::Failure;

use super::{CachedImage, cache::Shelf};
use crate::fetch::trouble;

/// Which images go. Rules add up: an image goes when one of them says so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneRule {
    /// Those that nobody asked for in this time.
    pub unused_for: Option<Duration>,
    /// Those used longest ago, until all images together take at most so many bytes.
    pub keep_bytes: Option<u64>,
    /// All.
    pub all: bool,
}

/// What was removed, or would be.
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct Pruned {
    /// Images that went.
    pub images: Vec<CachedImage>,
    /// Images that would have gone but are in use now.
    pub in_use: Vec<CachedImage>,
    /// Downloads begun and not ended, untouched for a week (or for as long as the rule says).
    pub partial_files: u64,
    /// Bytes that were made free.
    pub freed_bytes: u64,
    /// Bytes that the remaining images take.
    pub kept_bytes: u64,
}

/// How old the rest of a download has to be before nobody will go on with it.
const ABANDONED: Duration = Duration::from_secs(7 * 24 * 3600);

pub(super) fn prune(
    shelf: &Shelf,
    rule: &PruneRule,
    now: OffsetDateTime,
    dry_run: bool,
) -> Result<Pruned, Failure> {
    let mut pruned = Pruned::default();
    let mut room = rule.keep_bytes.unwrap_or(u64::MAX);
    // Those used last come first, so that room is for them.
    for image in shelf.images()? {
        let old = rule.unused_for.is_some_and(|limit| now - image.used_at > limit);
        let fits = image.bytes <= room;
        if !(rule.all || old || !fits) {
            room -= image.bytes;
            pruned.kept_bytes += image.bytes;
        } else if remove(shelf, &image, dry_run)? {
            pruned.freed_bytes += image.bytes;
            pruned.images.push(image);
        } else {
            room = room.saturating_sub(image.bytes);
            pruned.kept_bytes += image.bytes;
            pruned.in_use.push(image);
        }
    }
    let limit = if rule.all { Duration::ZERO } else { rule.unused_for.unwrap_or(ABANDONED) };
    partials(shelf, limit, now, dry_run, &mut pruned);
    Ok(pruned)
}

/// Removes an image unless somebody holds it; `false` when somebody does.
fn remove(shelf: &Shelf, image: &CachedImage, dry_run: bool) -> Result<bool, Failure> {
    let Ok(file) = fs::File::open(&image.path) else { return Ok(true) };
    if file.try_lock().is_err() {
        return Ok(false);
    }
    if !dry_run {
        fs::remove_file(&image.path).map_err(|e| trouble("remove", &image.path, e))?;
        shelf.forget(&image.sha256);
    }
    Ok(true)
}

/// Rests of downloads that nobody went on with. One that runs is locked.
fn partials(shelf: &Shelf, limit: Duration, now: OffsetDateTime, dry_run: bool, pruned: &mut Pruned) {
    let Ok(entries) = fs::read_dir(shelf.root().join("partial")) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(metadata) = entry.metadata() else { continue };
        let is_rest = path.extension().is_none() && metadata.is_file();
        let old = metadata.modified().is_ok_and(|at| now - OffsetDateTime::from(at) >= limit);
        let free = fs::File::open(&path).is_ok_and(|file| file.try_lock().is_ok());
        if !(is_rest && old && free) {
            continue;
        }
        let gone = dry_run || fs::remove_file(&path).is_ok();
        if gone {
            if !dry_run {
                let _ = fs::remove_file(path.with_extension("json"));
            }
            pruned.partial_files += 1;
            pruned.freed_bytes += metadata.len();
        }
    }
}
