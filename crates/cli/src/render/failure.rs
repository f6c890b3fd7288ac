//! A failure as a person reads it: what, why, what next.

use std::fmt::Write as _;

use turingpi_provision::engine::FailureReport;

use super::{
    style::{BAD, BOLD, DIM, paint},
    words,
};

/// A cause of more lines than this (a console, an installer's output) is shortened.
const LINES: usize = 8;

/// The lines of a failure, without a line end after the last.
pub(crate) fn text(report: &FailureReport, place: Option<&str>) -> String {
    let mut out = String::new();
    let message = place.map(|p| format!("{p}: ")).unwrap_or_default() + &report.message;
    let message = words::wrap(&short(&message), 7, 2);
    let _ = write!(out, "{} {}", paint(BAD, "error:"), message.trim_start());
    let mut part = |style, word: &str, text: &str| {
        let text = words::wrap(&short(text), word.len() + 3, word.len() + 3);
        let _ = write!(out, "\n  {} {}", paint(style, word), text.trim_start());
    };
    for cause in &report.causes {
        part(DIM, "because:", cause);
    }
    if let Some(hint) = &report.hint {
        part(BOLD, "next:", hint);
    }
    out
}

/// The beginning and the end of a long text; what failed stands at the end.
fn short(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    let Some(left_out) = lines.len().checked_sub(LINES).filter(|n| *n > 0) else {
        return text.trim_end().to_owned();
    };
    let (start, end) = (lines.iter().take(2), lines.iter().skip(2 + left_out));
    let middle = format!("… {left_out} more lines; the log of the run has them all …");
    start.copied().chain([middle.as_str()]).chain(end.copied()).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use turingpi_provision::engine::{Failure, FailureClass};

    use super::*;

    #[test]
    fn a_whole_console_is_shortened_to_its_beginning_and_its_end() {
        let console: String = (1..=200).map(|i| format!("[{i}] line\n")).collect();
        let report = Failure::new(FailureClass::Timeout, "the node did not boot")
            .source(std::io::Error::other(console))
            .hint("Look at the console.")
            .report();
        let text = anstream::adapter::strip_str(&text(&report, Some("node1/boot"))).to_string();
        assert!(
            text.starts_with("error: node1/boot: the node did not boot\n  because: [1] line\n"),
            "{text}"
        );
        assert!(text.contains("192 more lines") && text.contains("[200] line"), "{text}");
        assert!(text.lines().count() < 13 && text.ends_with("  next: Look at the console."), "{text}");
    }
}
