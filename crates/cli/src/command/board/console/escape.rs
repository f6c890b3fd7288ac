//! The keys that are for us and not for the node: `~.` and `~?` at the beginning of a line.

use std::str::FromStr;

/// The key that begins a word for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EscapeKey(Option<u8>);

impl EscapeKey {
    /// How it is typed, if there is one: `~`, `^]`.
    pub(crate) fn name(self) -> Option<String> {
        self.0.map(|byte| match byte {
            0..0x20 => format!("^{}", char::from(byte + 0x40)),
            byte => char::from(byte).to_string(),
        })
    }
}

impl FromStr for EscapeKey {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.as_bytes() {
            b"none" => Ok(Self(None)),
            [byte @ 0x21..=0x7e] if !byte.is_ascii_alphanumeric() && !b".?".contains(byte) => {
                Ok(Self(Some(*byte)))
            }
            // Not ^M, ^J, ^C and the like, which nobody wants to lose.
            [b'^', byte @ b'['..=b'_'] => Ok(Self(Some(byte - 0x40))),
            _ => Err(format!("`{text}` is no such key: write a sign such as `~`, `^]`, or `none`")),
        }
    }
}

/// What keys turn out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Pressed {
    /// For the node.
    Keys(Vec<u8>),
    /// Leave.
    Leave,
    /// Say what can be typed.
    Help,
}

/// Tells our keys from the node's.
#[derive(Debug)]
pub(crate) struct Escape {
    key: Option<u8>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A line begins.
    Start,
    Within,
    /// The escape key was pressed at the beginning of a line.
    Armed,
}

impl Escape {
    pub(crate) fn new(key: EscapeKey) -> Self {
        Self { key: key.0, state: State::Start }
    }

    /// Sorts what was typed. What follows [`Pressed::Leave`] is dropped.
    pub(crate) fn press(&mut self, bytes: &[u8]) -> Vec<Pressed> {
        let (mut out, mut keys) = (Vec::new(), Vec::new());
        for byte in bytes {
            match (self.state, *byte) {
                (State::Start, byte) if Some(byte) == self.key => {
                    self.state = State::Armed;
                    continue;
                }
                (State::Armed, b'.' | b'?') => {
                    flush(&mut keys, &mut out);
                    self.state = State::Start;
                    if *byte == b'.' {
                        out.push(Pressed::Leave);
                        return out;
                    }
                    out.push(Pressed::Help);
                    continue;
                }
                (State::Armed, byte) if Some(byte) == self.key => {}
                // It was not for us after all.
                (State::Armed, _) => keys.extend(self.key),
                _ => {}
            }
            keys.push(*byte);
            self.state = if matches!(byte, b'\r' | b'\n') { State::Start } else { State::Within };
        }
        flush(&mut keys, &mut out);
        out
    }
}

fn flush(keys: &mut Vec<u8>, out: &mut Vec<Pressed>) {
    if !keys.is_empty() {
        out.push(Pressed::Keys(std::mem::take(keys)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Pressed {
        Pressed::Keys(text.as_bytes().to_vec())
    }

    /// What comes of keys that arrive in these pieces.
    fn typed(key: &str, pieces: &[&str]) -> Vec<Pressed> {
        let mut escape = Escape::new(key.parse().unwrap());
        pieces.iter().flat_map(|piece| escape.press(piece.as_bytes())).collect()
    }

    #[test]
    fn the_escape_key_counts_at_the_beginning_of_a_line_only() {
        assert_eq!(typed("~", &["~."]), [Pressed::Leave]);
        assert_eq!(typed("~", &["ls\r", "~", ".", "never"]), [keys("ls\r"), Pressed::Leave, keys("never")]);
        assert_eq!(typed("~", &["cd ~.\r"]), [keys("cd ~.\r")]);
        assert_eq!(typed("~", &["\r~?x"]), [keys("\r"), Pressed::Help, keys("x")]);
    }

    #[test]
    fn twice_it_is_itself_and_before_another_key_both_are_the_nodes() {
        assert_eq!(typed("~", &["~~."]), [keys("~.")]);
        assert_eq!(typed("~", &["~", "/x"]), [keys("~/x")]);
        assert_eq!(typed("~", &["~\r~."]), [keys("~\r"), Pressed::Leave]);
        assert_eq!(typed("~", &["\x03\x1b[A"]), [keys("\x03\x1b[A")], "Ctrl-C and arrows are the node's");
    }

    #[test]
    fn it_can_be_another_key_or_none() {
        assert_eq!(typed("^]", &["\x1d."]), [Pressed::Leave]);
        assert_eq!(typed("%", &["~.%."]), [keys("~.%.")]);
        assert_eq!(typed("none", &["~.\r~."]), [keys("~.\r~.")]);
        assert_eq!("^]".parse::<EscapeKey>().unwrap().name().as_deref(), Some("^]"));
        for wrong in ["", "ab", "a", ".", "^C", "^M", "ü"] {
            assert!(wrong.parse::<EscapeKey>().is_err(), "{wrong}");
        }
    }
}
