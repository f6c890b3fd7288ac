//! A line that is typed here, because the firmware sends whole lines only: shown at the cursor, behind what the node
//! writes, and taken back when it is sent, because the node shows it again.

use turingpi_provision::board::PlainText;

/// Characters of a line that are kept; a serial line's own limit.
const LONGEST: usize = 4000;

/// What comes of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The line is to be sent.
    Send(String),
    /// This key cannot be sent.
    Cannot,
}

/// The line being typed, and where it stands.
#[derive(Debug, Default)]
pub(crate) struct Line {
    typed: String,
    /// Bytes of a character that is not complete.
    rest: Vec<u8>,
    keys: Keys,
    /// The node's line that the cursor stands behind.
    before: String,
    plain: PlainText,
    /// Cells of `typed` that are on the screen.
    shown: usize,
}

/// Sequences of keys such as arrows.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Keys {
    #[default]
    Text,
    Escape,
    Sequence,
}

impl Line {
    /// Begins behind what the screen shows.
    pub(crate) fn behind(text: &str) -> Self {
        let mut line = Self::default();
        line.note(text);
        line
    }

    fn note(&mut self, text: &str) {
        let plain = self.plain.push(text);
        match plain.rsplit_once('\n') {
            Some((_, last)) => last.clone_into(&mut self.before),
            None => self.before.push_str(&plain),
        }
        if text.ends_with(['\r', '\n']) {
            self.before.clear();
        }
    }

    /// What to write to the screen for what the node wrote.
    pub(crate) fn hear(&mut self, text: &str, width: usize) -> String {
        let mut out = self.hide();
        out.push_str(text);
        self.note(text);
        out.push_str(&self.show(width));
        out
    }

    /// Takes keys: what to write to the screen, and what comes of them.
    pub(crate) fn press(&mut self, bytes: &[u8], width: usize) -> (String, Vec<Outcome>) {
        let mut out = self.hide();
        let mut outcomes = Vec::new();
        for byte in bytes {
            if let Some(outcome) = self.key(*byte) {
                outcomes.push(outcome);
            }
        }
        out.push_str(&self.show(width));
        (out, outcomes)
    }

    fn key(&mut self, byte: u8) -> Option<Outcome> {
        match (self.keys, byte) {
            (Keys::Escape, b'[' | b'O') => self.keys = Keys::Sequence,
            (Keys::Sequence, 0x20..=0x3f) => {}
            (Keys::Escape | Keys::Sequence, _) => self.keys = Keys::Text,
            (Keys::Text, b'\r' | b'\n') => {
                self.rest.clear();
                return Some(Outcome::Send(std::mem::take(&mut self.typed)));
            }
            (Keys::Text, 0x08 | 0x7f) => {
                self.typed.pop();
            }
            (Keys::Text, 0x15) => self.typed.clear(),
            (Keys::Text, 0x17) => {
                let kept = self.typed.trim_end().rfind(' ').map_or(0, |space| space + 1);
                self.typed.truncate(kept);
            }
            (Keys::Text, 0x1b) => {
                self.keys = Keys::Escape;
                return Some(Outcome::Cannot);
            }
            (Keys::Text, 0..0x20) => return Some(Outcome::Cannot),
            (Keys::Text, byte) => {
                self.rest.push(byte);
                if let Ok(text) = std::str::from_utf8(&self.rest) {
                    if self.typed.len() < LONGEST {
                        self.typed.push_str(text);
                    }
                    self.rest.clear();
                } else if self.rest.len() >= 4 {
                    self.rest.clear();
                }
            }
        }
        None
    }

    /// Takes the line off the screen.
    fn hide(&mut self) -> String {
        match std::mem::take(&mut self.shown) {
            0 => String::new(),
            cells => format!("\x1b[{cells}D\x1b[K"),
        }
    }

    /// Puts the line behind the cursor: its end, if there is no room for all of it.
    fn show(&mut self, width: usize) -> String {
        if self.typed.is_empty() || asks_for_secret(&self.before) {
            return String::new();
        }
        // The last column stays free: a cursor behind it is at no certain place.
        let column = cells(&self.before) % width.max(1);
        let room = width.saturating_sub(column + 1);
        let mut start = self.typed.len();
        for (at, _) in self.typed.char_indices().rev() {
            if self.typed.get(at..).map_or(0, cells) > room {
                break;
            }
            start = at;
        }
        let part = self.typed.get(start..).unwrap_or_default();
        self.shown = cells(part);
        part.to_owned()
    }
}

fn cells(text: &str) -> usize {
    ratatui::text::Span::raw(text).width()
}

/// Whether what stands before the cursor asks for something that nobody else should see.
fn asks_for_secret(prompt: &str) -> bool {
    let prompt = prompt.trim_end().to_lowercase();
    prompt.ends_with(':')
        && ["password", "passphrase", "passcode", "secret", "pin:"].iter().any(|w| prompt.contains(w))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a screen of one row shows after these writes.
    fn screen(writes: &[String]) -> String {
        let mut row: Vec<char> = Vec::new();
        let mut column = 0usize;
        let all = writes.concat();
        let mut chars = all.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '\r' | '\n' => (row.clear(), column = 0).1,
                '\x1b' => {
                    assert_eq!(chars.next(), Some('['));
                    let number: String = std::iter::from_fn(|| chars.next_if(char::is_ascii_digit)).collect();
                    match chars.next().unwrap() {
                        'D' => column -= number.parse::<usize>().unwrap(),
                        'K' => row.truncate(column),
                        other => panic!("{other}"),
                    }
                }
                c => {
                    row.truncate(column);
                    row.push(c);
                    column += 1;
                }
            }
        }
        row.into_iter().collect()
    }

    #[test]
    fn what_is_typed_stays_behind_what_the_node_writes_and_goes_when_it_is_sent() {
        let mut line = Line::behind("node1 login: ");
        let mut writes = vec!["node1 login: ".to_owned()];
        let (out, outcomes) = line.press("roö".as_bytes(), 80);
        writes.push(out);
        assert!(outcomes.is_empty());
        writes.push(line.hear("\r\n[ 12.0] usb 1-1\r\nnode1 login: ", 80));
        assert_eq!(screen(&writes), "node1 login: roö");
        let (out, outcomes) = line.press(b"\x7fot\r", 80);
        writes.push(out);
        assert_eq!(outcomes, [Outcome::Send("root".into())]);
        assert_eq!(screen(&writes), "node1 login: ");
    }

    #[test]
    fn a_password_is_not_shown() {
        for prompt in [
            "Password: ",
            "root@node1's password: ",
            "Create root password: ",
            "Enter passphrase for /dev/sda: ",
        ] {
            let mut line = Line::behind("login: root\r\n");
            line.hear(prompt, 80);
            let (out, outcomes) = line.press(b"hunter2\r", 80);
            assert_eq!((out.as_str(), outcomes), ("", vec![Outcome::Send("hunter2".into())]), "{prompt}");
        }
        let mut line = Line::behind("the password was changed\r\n$ ");
        assert_eq!(line.press(b"ls", 80).0, "ls");
    }

    #[test]
    fn a_long_line_shows_its_end_and_never_wraps() {
        let mut line = Line::behind("$ ");
        let mut writes = vec!["$ ".to_owned()];
        for c in "abcdefghijklmnop".bytes() {
            writes.push(line.press(&[c], 10).0);
        }
        assert_eq!(screen(&writes), "$ jklmnop");
        assert_eq!(line.press(b"\r", 10).1, [Outcome::Send("abcdefghijklmnop".into())]);
    }

    #[test]
    fn keys_that_cannot_be_sent_are_told_and_leave_the_line_as_it_is() {
        let mut line = Line::default();
        for keys in [&b"\x03"[..], b"\x1b[A", b"\x1bOP", b"\x04", b"\t"] {
            let (_, outcomes) = line.press(keys, 80);
            assert_eq!(outcomes, [Outcome::Cannot], "{keys:?}");
        }
        line.press(b"one two\x17 three\x15four", 80);
        assert_eq!(line.press(b"\r", 80).1, [Outcome::Send("four".into())]);
    }
}
