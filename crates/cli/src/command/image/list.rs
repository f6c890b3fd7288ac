//! `turingpi image list`

use clap::Args;
use time::OffsetDateTime;
use turingpi_provision::images::{CachedImage, ImageStore, Listed};

use crate::render::out::say;
use crate::{
    args::{Global, Output},
    exit::{self, Exit},
    render::{
        style::{DIM, paint},
        words,
    },
    session,
};

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only images for this module: rk1, cm4
    #[arg(long, value_name = "MODULE", value_parser = ["rk1", "cm4"])]
    module: Option<String>,
}

pub(super) fn run(global: &Global, args: &List, store: &ImageStore) -> Result<u8, Exit> {
    let wanted = |listed: &Listed| {
        args.module
            .as_ref()
            .is_none_or(|m| listed.entry.modules.iter().any(|module| module.to_string() == *m))
    };
    let all = store.list()?;
    let named: Vec<_> = all.iter().filter_map(|l| Some(l.cached.as_ref()?.sha256.clone())).collect();
    let listed: Vec<&Listed> = all.iter().filter(|l| wanted(l)).collect();
    let others: Vec<CachedImage> =
        store.cached()?.into_iter().filter(|image| !named.contains(&image.sha256)).collect();
    match global.output {
        Output::Json => {
            let cache = session::cache_dir(global)?;
            say!("{:#}", serde_json::json!({ "cache": cache, "images": listed, "others": others }));
        }
        Output::Text => text(&listed, &others),
    }
    Ok(exit::DONE)
}

fn text(listed: &[&Listed], others: &[CachedImage]) {
    let mut rows = vec![["NAME", "MODULE", "VERSION", "SIZE", "HERE"].map(str::to_owned)];
    for Listed { entry, cached, .. } in listed.iter().copied() {
        let modules: Vec<String> = entry.modules.iter().map(ToString::to_string).collect();
        let bytes = cached.as_ref().map(|image| image.bytes).or(entry.bytes);
        rows.push([
            entry.name.clone(),
            modules.join(", "),
            entry.version.clone(),
            bytes.map_or_else(|| "-".to_owned(), words::bytes),
            if cached.is_some() { "yes".to_owned() } else { "-".to_owned() },
        ]);
    }
    say!("{}", columns(&rows));
    for Listed { entry, .. } in listed.iter().copied() {
        let also = match entry.aliases.as_slice() {
            [] => String::new(),
            names => format!(" (also {})", names.join(", ")),
        };
        say!("{}", words::wrap(&format!("{}{also}: {}.", entry.name, entry.title), 0, 2));
        if let Some(note) = &entry.note {
            say!("{}", paint(DIM, words::wrap(note, 2, 2)));
        }
    }
    if !others.is_empty() {
        say!("\nAlso in the cache:");
        let now = OffsetDateTime::now_utc();
        for image in others {
            let name = if image.name.is_empty() { "(no name)" } else { &image.name };
            let digest: String = image.sha256.as_str().chars().take(12).collect();
            say!(
                "  {digest}  {:>10}  used {}  {name}",
                words::bytes(image.bytes),
                words::ago(image.used_at, now)
            );
        }
    }
}

/// Cells below each other, two spaces apart.
fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |row: &[String; N]| {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}
