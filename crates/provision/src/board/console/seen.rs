//! What was seen of a console before its connection broke, to go on at the right place afterwards.

use turingpi_bmc::UartText;

/// Bytes of what was seen last that are kept.
const KEPT: usize = 1024;
/// A place found by fewer bytes than this may be chance.
const CHANCE: usize = 16;

/// The last of what was seen.
#[derive(Debug, Default)]
pub(super) struct Seen(String);

impl Seen {
    pub(super) fn push(&mut self, text: &str) {
        self.0.push_str(text);
        let mut cut = self.0.len().saturating_sub(KEPT);
        while !self.0.is_char_boundary(cut) {
            cut += 1;
        }
        self.0.drain(..cut);
    }

    /// What the BMC's buffer holds after what was seen; all of it, with a gap, if that is not found there.
    pub(super) fn unseen(&self, buffer: &str) -> UartText {
        if self.0.is_empty() {
            return UartText::new(buffer, false);
        }
        for length in [512, 128, 32, CHANCE] {
            let mut from = self.0.len().saturating_sub(length);
            while !self.0.is_char_boundary(from) {
                from += 1;
            }
            let end = self.0.get(from..).unwrap_or_default();
            if let Some(at) = buffer.rfind(end) {
                return UartText::new(buffer.get(at + end.len()..).unwrap_or_default(), false);
            }
        }
        UartText::new(buffer, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unseen(seen: &str, buffer: &str) -> (String, bool) {
        let mut before = Seen::default();
        before.push(seen);
        let text = before.unseen(buffer);
        (text.text, text.gap)
    }

    #[test]
    fn reading_goes_on_where_it_stopped() {
        let boot: String = (0..400).map(|n| format!("[{n:5}.000000] line {n} – é\r\n")).collect();
        let (seen, after) = boot.split_at(boot.find("line 300").unwrap());
        assert_eq!(unseen(seen, &boot), (after.to_owned(), false));
        // The buffer lost its beginning meanwhile.
        let from = boot.find("[  290").unwrap();
        assert_eq!(unseen(seen, &boot[from..]), (after.to_owned(), false));
        assert_eq!(unseen(&boot, &boot), (String::new(), false));
    }

    #[test]
    fn what_is_not_found_is_a_gap_and_nothing_is_left_out() {
        assert_eq!(unseen("the system before the restart", "U-Boot"), ("U-Boot".to_owned(), true));
        assert_eq!(unseen("all that was seen", ""), (String::new(), true));
        assert_eq!(unseen("", "login: "), ("login: ".to_owned(), false));
    }
}
