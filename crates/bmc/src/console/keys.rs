//! Keys collected to lines, for firmware that sends nothing else.

/// The line being typed.
#[derive(Default)]
pub(super) struct Line {
    text: Vec<u8>,
    after_cr: bool,
}

impl Line {
    /// Returns the lines that these keys completed, or `None` if there is one that cannot be sent; nothing is taken then.
    pub(super) fn press(&mut self, bytes: &[u8]) -> Option<Vec<String>> {
        let sendable = |b: &u8| *b >= 0x20 || matches!(b, b'\r' | b'\n' | b'\t' | 0x08 | 0x15);
        if !bytes.iter().all(sendable) {
            return None;
        }
        let mut lines = Vec::new();
        for byte in bytes {
            let after_cr = std::mem::replace(&mut self.after_cr, *byte == b'\r');
            match byte {
                b'\n' if after_cr => {}
                b'\r' | b'\n' => {
                    let line = std::mem::take(&mut self.text);
                    lines.push(String::from_utf8_lossy(&line).into_owned());
                }
                0x08 | 0x7f => self.rub_out(),
                0x15 => self.text.clear(),
                other => self.text.push(*other),
            }
        }
        Some(lines)
    }

    /// Removes a whole character, however many bytes it has.
    fn rub_out(&mut self) {
        while let Some(byte) = self.text.pop() {
            if byte & 0b1100_0000 != 0b1000_0000 {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &[&str]) -> Vec<String> {
        let mut line = Line::default();
        keys.iter().flat_map(|keys| line.press(keys.as_bytes()).unwrap()).collect()
    }

    #[test]
    fn keys_become_lines_however_enter_is_sent() {
        assert_eq!(typed(&["ro", "ot\r"]), ["root"]);
        assert_eq!(typed(&["a\r\nb\nc\r", "\nd\r"]), ["a", "b", "c", "d"]);
        assert_eq!(typed(&["\r\r"]), ["", ""]);
        assert_eq!(typed(&["not yet"]), [""; 0]);
    }

    #[test]
    fn a_line_can_be_corrected_before_it_is_sent() {
        assert_eq!(typed(&["roooü\x7f\x08t\r"]), ["root"]);
        assert_eq!(typed(&["wrong\x15root\r"]), ["root"]);
        assert_eq!(typed(&["\x7f\x7fx\r"]), ["x"]);
    }

    #[test]
    fn keys_that_cannot_be_sent_are_refused_and_change_nothing() {
        let mut line = Line::default();
        line.press(b"half").unwrap();
        assert!(line.press(b" a line\x03\r").is_none(), "Ctrl-C");
        assert!(line.press(b"\x1b[A").is_none(), "an arrow");
        assert_eq!(line.press(b"\r").unwrap(), ["half"]);
    }
}
