//! `turingpi image prune`

use std::time::Duration;

use clap::{ArgGroup, Args};
use turingpi_provision::images::{ImageStore, PruneRule};

use crate::render::out::say;
use crate::{
    args::{Global, Output},
    exit::{self, Exit},
    render::{
        style::{GOOD, paint},
        words,
    },
};

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("rule").required(true).multiple(true))]
pub(crate) struct Prune {
    /// Remove images that nobody used for so long: 12h, 30d, 8w
    #[arg(long, value_name = "TIME", group = "rule", value_parser = time)]
    unused: Option<Duration>,

    /// Remove those used longest ago until the others take at most so much: 500MiB, 8GiB
    #[arg(long, value_name = "SIZE", group = "rule", value_parser = size)]
    keep: Option<u64>,

    /// Remove all images, and what is left of downloads that were cut
    #[arg(long, group = "rule")]
    all: bool,

    /// Say what would go, and remove nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
}

pub(super) fn run(global: &Global, args: &Prune, store: &ImageStore) -> Result<u8, Exit> {
    let rule = PruneRule { unused_for: args.unused, keep_bytes: args.keep, all: args.all };
    let pruned = store.prune(&rule, args.dry_run)?;
    match global.output {
        Output::Json => {
            let mut told = serde_json::to_value(&pruned).unwrap_or_default();
            told["dry_run"] = args.dry_run.into();
            say!("{told:#}");
        }
        Output::Text => {
            let word = if args.dry_run { "would remove" } else { "removed" };
            for image in &pruned.images {
                say!("{word} {} ({})", called(image), words::bytes(image.bytes));
            }
            if pruned.partial_files > 0 {
                let files = usize::try_from(pruned.partial_files).unwrap_or(usize::MAX);
                say!("{word} {} that was cut", words::count(files, "download"));
            }
            for image in &pruned.in_use {
                say!("kept {}: it is in use", called(image));
            }
            let free = if args.dry_run { "would be free" } else { "free" };
            say!(
                "{} {} {free}, {} kept",
                paint(GOOD, "ok"),
                words::bytes(pruned.freed_bytes),
                words::bytes(pruned.kept_bytes)
            );
        }
    }
    Ok(exit::DONE)
}

fn called(image: &turingpi_provision::images::CachedImage) -> String {
    let name = image.known_as.first().unwrap_or(&image.name);
    if name.is_empty() { image.sha256.as_str().chars().take(12).collect() } else { name.clone() }
}

/// `90m`, `12h`, `30d`, `8w`.
fn time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a time such as `12h`, `30d` or `8w`");
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let seconds: u64 = match unit.as_str() {
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => return Err(wrong()),
    };
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

/// `500MiB`, `8GiB`, `8GB`, `0`.
fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a size such as `500MiB` or `8GiB`");
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let bytes: u64 = match unit.as_str() {
        "" | "b" => 1,
        "kib" | "k" => 1 << 10,
        "mib" | "m" => 1 << 20,
        "gib" | "g" => 1 << 30,
        "tib" | "t" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(bytes).ok_or_else(wrong)
}

/// A number and what follows it, in small letters.
fn split(text: &str) -> Option<(u64, String)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end)?;
    Some((number.parse().ok()?, unit.trim().to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_read_as_people_write_them() {
        assert_eq!(time("30d"), Ok(Duration::from_secs(30 * 86_400)));
        assert_eq!(time("12 h"), Ok(Duration::from_secs(43_200)));
        assert_eq!(size("8GiB"), Ok(8 << 30));
        assert_eq!((size("1gb"), size("0")), (Ok(1_000_000_000), Ok(0)));
        for wrong in ["", "d", "-1d", "1.5d", "30 months", "99999999999999999999d", "18446744073709551615w"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
        assert!(size("18446744073709551615TiB").is_err() && size("8 giga").is_err());
    }
}
