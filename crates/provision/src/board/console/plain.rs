//! What a node wrote, without what would steer a terminal.

use std::mem;

/// A string sequence (a title, a clipboard) that is longer than this is none: a node must not be able to hide all it
/// writes by beginning one.
const LONGEST: usize = 4096;

/// Makes plain text of console text, piece by piece: escape sequences and control characters go, lines end with LF.
///
/// ```
/// use turingpi_provision::board::PlainText;
///
/// let mut plain = PlainText::default();
/// assert_eq!(plain.push("\u{1b}[32m[  OK  ]\u{1b}[0m up\r"), "[  OK  ] up");
/// assert_eq!(plain.push("\nlogin: "), "\nlogin: ");
/// ```
#[derive(Debug, Clone, Default)]
pub struct PlainText {
    state: State,
    /// A CR that may belong to a line end.
    cr: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    Escape,
    /// `ESC (` and the like: one more character.
    Designation,
    Csi,
    /// OSC, DCS, APC, PM, SOS: up to BEL or ST; the number of characters so far.
    String(usize),
    /// ESC within such a string.
    StringEscape(usize),
}

impl PlainText {
    /// The plain text of the next piece. A sequence may be cut between two pieces.
    pub fn push(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        for c in text.chars() {
            self.take(c, &mut out);
        }
        out
    }

    /// The plain text of a whole.
    pub fn of(text: &str) -> String {
        Self::default().push(text)
    }

    fn take(&mut self, c: char, out: &mut String) {
        self.state = match (self.state, c) {
            // A line end is never part of a sequence.
            (_, '\n' | '\r') => {
                self.end(c, out);
                State::Text
            }
            (State::String(_), '\u{7}' | '\u{9c}') | (State::StringEscape(_), '\\') => State::Text,
            (State::String(n), '\u{1b}') => State::StringEscape(n),
            (State::String(n) | State::StringEscape(n), _) if n < LONGEST => State::String(n + 1),
            (_, '\u{1b}') => State::Escape,
            (State::Escape, '[') | (State::Text, '\u{9b}') => State::Csi,
            (State::Escape, ']' | 'P' | '_' | '^' | 'X')
            | (State::Text, '\u{9d}' | '\u{90}' | '\u{9f}' | '\u{9e}' | '\u{98}') => State::String(0),
            (State::Escape, ' '..='/') => State::Designation,
            (State::Csi, ' '..='?') => State::Csi,
            (State::Escape | State::Designation, ' '..='~') | (State::Csi, '@'..='~') => State::Text,
            (_, c) => {
                if c == '\t' || !c.is_control() {
                    self.settle(out);
                    out.push(c);
                }
                State::Text
            }
        };
    }

    /// CR LF, CR CR LF and LF end a line, and so does a CR alone: what was written stays readable.
    fn end(&mut self, c: char, out: &mut String) {
        if c == '\r' {
            self.cr = true;
        } else {
            self.cr = false;
            out.push('\n');
        }
    }

    fn settle(&mut self, out: &mut String) {
        if mem::take(&mut self.cr) {
            out.push('\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_steers_a_terminal_is_left_out_and_what_is_written_stays() {
        for (raw, plain) in [
            ("\u{1b}[1;32mgreen\u{1b}[0m", "green"),
            ("a\r\nb\r\r\nc\nd\re", "a\nb\nc\nd\ne"),
            ("\u{1b}]0;title\u{7}text", "text"),
            ("\u{1b}]52;c;cm0gLXJm\u{1b}\\text", "text"),
            ("\u{1b}Pq data\u{1b}\\x", "x"),
            ("\u{1b}[6n\u{1b}[?1049h\u{1b}(Bx\u{8}\u{7}\u{0}y\tz", "xy\tz"),
            ("\u{9b}31mred\u{85}", "red"),
            ("grüße – 日本", "grüße – 日本"),
            // Never ended: a line end ends it.
            ("\u{1b}]0;hidden\r\nshown", "\nshown"),
            ("\u{1b}[12\nshown", "\nshown"),
        ] {
            assert_eq!(PlainText::of(raw), plain, "{raw:?}");
        }
    }

    #[test]
    fn a_string_that_never_ends_hides_no_more_than_a_page() {
        let raw = format!("\u{1b}]0;{}", "x".repeat(LONGEST + 100));
        assert!(!PlainText::of(&raw).is_empty());
    }

    proptest! {
        #[test]
        fn plain_text_is_the_same_however_it_is_cut_and_steers_nothing(
            parts in prop::collection::vec("[\u{1b}\\[\\]a-c0-9;\\\\\u{7}\r\n\u{9b}é~(]{0,6}", 0..12)
        ) {
            let mut plain = PlainText::default();
            let pieces: String = parts.iter().map(|part| plain.push(part)).collect();
            prop_assert_eq!(&pieces, &PlainText::of(&parts.concat()));
            prop_assert!(pieces.chars().all(|c| c == '\n' || c == '\t' || !c.is_control()), "{:?}", pieces);
        }
    }
}
