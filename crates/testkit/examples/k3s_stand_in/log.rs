//! Lines on standard error, as k3s writes them into the journal.

use std::io::Write as _;

pub(crate) fn plain(text: &str) {
    // Nobody is left to tell when the journal is gone.
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn line(level: &str, message: &str) {
    let at = time::OffsetDateTime::now_utc();
    let at = at.format(&time::format_description::well_known::Rfc3339).unwrap_or_default();
    plain(&format!("time=\"{at}\" level={level} msg={message:?}"));
}

pub(crate) fn info(message: &str) {
    line("info", message);
}

pub(crate) fn error(message: &str) {
    line("error", message);
}

pub(crate) fn fatal(message: &str) {
    line("fatal", message);
}
