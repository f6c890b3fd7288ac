//! `turingpi image inspect`

use clap::Args;
use turingpi_provision::images::{Content, ImageFile, ImageStore, InspectOptions, Inspection, Want};

use super::pull;
use crate::render::out::say;
use crate::{
    args::{Global, Output},
    exit::{self, Exit},
    render::{
        style::{BAD, BOLD, DIM, paint},
        words,
    },
    session,
};

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// A file, a name of the catalogue or an http(s) address; what is not here is downloaded
    #[arg(value_name = "FILE|NAME|URL")]
    image: String,
}

pub(super) async fn run(global: &Global, args: &Inspect, store: &ImageStore) -> Result<u8, Exit> {
    let obtained = pull::obtain(global, store, &args.image, &Want::default()).await?;
    let file = obtained.file;
    let options = InspectOptions::new(store.scratch()?);
    let inspecting = store.inspect(&file, &options);
    let inspection = session::until_stopped(Box::pin(inspecting)).await??;
    match global.output {
        Output::Json => {
            let mut told = pull::facts(&file);
            let found = serde_json::to_value(&inspection).unwrap_or_default();
            if let (Some(told), Some(found)) = (told.as_object_mut(), found.as_object()) {
                told.extend(found.iter().map(|(key, value)| (key.clone(), value.clone())));
            }
            say!("{told:#}");
        }
        Output::Text => text(&file, &inspection),
    }
    Ok(if inspection.content == Content::Disk { exit::DONE } else { exit::REFUSED })
}

fn text(file: &ImageFile, found: &Inspection) {
    say!("{}", paint(BOLD, file.name()));
    let line = |label: &str, text: String| say!("  {label:9} {}", words::wrap(&text, 12, 12).trim_start());
    let raw = found.raw_bytes.map_or_else(|| "unknown".to_owned(), words::bytes);
    line("size", format!("{} ({}), {raw} unpacked", words::bytes(found.packed_bytes), found.packing));
    match &found.content {
        Content::Disk => {}
        Content::Foreign(what) => return line("is", format!("{}: {what}", paint(BAD, "no disk image"))),
        Content::FileSystem => {
            return line(
                "is",
                format!(
                    "{}: one file system without a partition table; no module boots it",
                    paint(BAD, "no disk image")
                ),
            );
        }
        _ => {
            return line(
                "is",
                format!("{}: no partition table, and nothing that is known", paint(BAD, "no disk image")),
            );
        }
    }
    if let Some(system) = &found.system {
        let name = if system.name.is_empty() { "a Linux system" } else { &system.name };
        line("system", name.to_owned());
        if let Some(board) = system.board_name.as_ref().or(system.board.as_ref()) {
            let branch = system.branch.as_ref().map(|b| format!(", {b} kernel")).unwrap_or_default();
            line("board", format!("{board}{branch}"));
        }
        if !system.kernels.is_empty() {
            line("kernel", system.kernels.join(", "));
        }
    }
    match found.module {
        Some(module) => line("for", format!("{module}")),
        None => line("for", "unknown: it does not say which module it is made for".to_owned()),
    }
    if let Some(gb) = found.smallest_emmc_gb {
        line("fits", format!("an eMMC of {gb} GB or more"));
    } else if let Some(bytes) = found.needed_bytes {
        line("fits", format!("no eMMC there is: it needs {}", words::bytes(bytes)));
    }
    for (i, partition) in found.partitions.iter().enumerate() {
        let fs = match &partition.file_system {
            None => "-".to_owned(),
            Some(fs) if fs.label.is_empty() => fs.kind.clone(),
            Some(fs) => format!("{} `{}`", fs.kind, fs.label),
        };
        let label = if i == 0 { "parts" } else { "" };
        let named = if partition.name.is_empty() { String::new() } else { format!(" `{}`", partition.name) };
        line(
            label,
            format!(
                "{}: {}, {}{named}, {fs}",
                partition.number,
                words::bytes(partition.bytes),
                partition.kind
            ),
        );
    }
    for note in &found.notes {
        line("note", paint(DIM, note));
    }
}
