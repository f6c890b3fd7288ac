//! The reference pages in `docs/reference`: written from the same words as `--help`, and compared with them by this test.
//!
//! `TURINGPI_WRITE_DOCS=1 cargo test -p turingpi-cli --bin turingpi reference` writes them anew.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::PathBuf};

use clap::{Command, CommandFactory as _};

use crate::args::Cli;

/// A help text as it is on a terminal of 80 columns, without colours.
fn help(command: &mut Command) -> String {
    let text = command.render_long_help().to_string();
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n").trim_end().to_owned()
}

/// The section of one verb and of all below it.
fn section(command: &mut Command, path: &str, depth: usize, page: &mut String) {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let _ = write!(page, "{} `{path}`\n\n{about}.\n\n```text\n{}\n```\n", "#".repeat(depth), help(command));
    for verb in command.get_subcommands_mut().filter(|c| c.get_name() != "help") {
        let path = format!("{path} {}", verb.get_name());
        page.push('\n');
        section(verb, &path, depth + 1, page);
    }
}

/// Every page by its file's name: one a verb, and one a verb of `board`.
fn pages() -> BTreeMap<String, String> {
    const MADE: &str = "<!-- Made from the program's own help; see crates/cli/src/reference.rs. -->\n\n";
    let mut cli = Cli::command().term_width(80);
    cli.build();
    let mut pages = BTreeMap::new();
    let mut index = format!("{MADE}# Reference\n\nEvery verb, as its `--help` tells it.\n\n");
    for verb in cli.get_subcommands_mut().filter(|c| c.get_name() != "help") {
        let name = verb.get_name().to_owned();
        let path = format!("turingpi {name}");
        let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(index, "- [`{path}`]({name}.md): {about}");
        let mut page = MADE.to_owned();
        if name != "board" {
            section(verb, &path, 1, &mut page);
            pages.insert(format!("{name}.md"), page);
            continue;
        }
        let _ = write!(page, "# `{path}`\n\n{about}.\n\n```text\n{}\n```\n\n", help(verb));
        for below in verb.get_subcommands_mut().filter(|c| c.get_name() != "help") {
            let file = format!("board-{}.md", below.get_name());
            let path = format!("{path} {}", below.get_name());
            let about = below.get_about().map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(page, "- [`{path}`]({file}): {about}");
            let _ = writeln!(index, "  - [`{path}`]({file}): {about}");
            let mut own = MADE.to_owned();
            section(below, &path, 1, &mut own);
            pages.insert(file, own);
        }
        pages.insert(format!("{name}.md"), page);
    }
    pages.insert("README.md".to_owned(), index);
    pages
}

#[test]
fn the_reference_says_what_the_help_says() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference");
    let pages = pages();
    if std::env::var_os("TURINGPI_WRITE_DOCS").is_some() {
        fs::create_dir_all(&folder).unwrap();
        pages.iter().for_each(|(name, text)| fs::write(folder.join(name), text).unwrap());
    }
    let stale: Vec<&String> = pages
        .iter()
        .filter(|(name, text)| fs::read_to_string(folder.join(name)).unwrap_or_default() != **text)
        .map(|(name, _)| name)
        .collect();
    let write = "TURINGPI_WRITE_DOCS=1 cargo test -p turingpi-cli --bin turingpi reference";
    assert!(stale.is_empty(), "{stale:?} in docs/reference differ from the help; run\n  {write}");
    let extra: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| !pages.contains_key(name))
        .collect();
    assert!(extra.is_empty(), "{extra:?} in docs/reference belong to no verb; remove them");
}
