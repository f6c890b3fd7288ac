//! `turingpi validate`

use turingpi_provision::document::Diagnostic;

use crate::render::out::say;
use crate::{
    args::{Document, Global, Output},
    exit::{self, Exit},
    render::style::{GOOD, paint},
    session,
};

pub(crate) fn run(global: &Global, args: &Document) -> Result<u8, Exit> {
    let json = |valid: bool, findings: &[Diagnostic]| {
        say!("{}", serde_json::json!({ "document": args.document, "valid": valid, "findings": findings }));
    };
    let loaded = match session::load(&args.document, global.output) {
        Err(exit) if global.output == Output::Json && !exit.findings.is_empty() => {
            json(false, &exit.findings);
            return Err(Exit::silent(exit.code));
        }
        other => other?,
    };
    match global.output {
        Output::Json => json(true, &loaded.warnings),
        Output::Text => {
            let boards = loaded.document.boards.len();
            let nodes = loaded.document.nodes.len();
            say!(
                "{} {}: cluster `{}`, {}, {}",
                paint(GOOD, "valid"),
                args.document.display(),
                loaded.document.name,
                crate::render::words::count(nodes, "node"),
                crate::render::words::count(boards, "board"),
            );
        }
    }
    Ok(exit::DONE)
}
