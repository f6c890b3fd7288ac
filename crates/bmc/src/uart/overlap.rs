//! What is new in a ring that is read whole: the suffix of the last read that the next one begins with.

/// A cut in the middle of a character turns up to three of its bytes into as many replacement characters.
const CUT: usize = 3;
/// An overlap this short in a full ring may be chance.
const CHANCE: usize = 16;
const UNREADABLE: char = '\u{FFFD}';

/// Whether a read is as large as the buffer, so that older text may have been overwritten. A byte that is no UTF-8 was
/// replaced by a character of three: it counts as one.
pub(super) fn fills(ring: usize, read: &str) -> bool {
    written_bytes(read) + CUT >= ring
}

fn written_bytes(text: &str) -> usize {
    text.chars().map(|c| if c == UNREADABLE { 1 } else { c.len_utf8() }).sum()
}

/// Returns what `now` has after `before`, and whether something may be missing; `before` becomes the text reported so far.
///
/// The longest overlap wins, so nothing is ever reported twice. A ring full of one repeated pattern cannot be told from
/// itself, shifted: repetitions beyond a full ring are lost then.
pub(super) fn advance(ring: usize, before: &mut String, now: &str) -> (String, bool) {
    // The last character may still be incomplete: it is reported when the next read shows what it became.
    let settled = now.strip_suffix(UNREADABLE).unwrap_or(now);
    let (new, gap) = split(ring, before, settled);
    let new = new.to_owned();
    *before = settled.to_owned();
    (new, gap)
}

fn split<'a>(ring: usize, before: &str, now: &'a str) -> (&'a str, bool) {
    if before.is_empty() {
        return (now, fills(ring, now));
    }
    if let Some(new) = now.strip_prefix(before) {
        // A short text may stand at the beginning of a full ring by chance.
        return (new, before.len() < CHANCE && fills(ring, now));
    }
    // The ring's first character may be cut; what is left of it was reported as a whole one before.
    let cut = now.chars().take(CUT).take_while(|c| *c == UNREADABLE).count() * UNREADABLE.len_utf8();
    let whole = now.get(cut..).unwrap_or_default();
    let overlap = longest_overlap(before, whole);
    if overlap < CHANCE && written_bytes(now) + 2 * CUT < written_bytes(before) {
        // A ring never shrinks: it was emptied, and all in it is new.
        return (now, true);
    }
    (whole.get(overlap..).unwrap_or_default(), overlap < CHANCE)
}

/// Bytes of the longest suffix of `before` that is a prefix of `now`. Linear: the failure function of Knuth, Morris and
/// Pratt over `now`, run along `before`.
fn longest_overlap(before: &str, now: &str) -> usize {
    let pattern = now.as_bytes();
    let mut failure = vec![0usize; pattern.len()];
    let mut matched = 0usize;
    for (position, byte) in pattern.iter().enumerate().skip(1) {
        while matched > 0 && pattern.get(matched) != Some(byte) {
            matched = failure.get(matched - 1).copied().unwrap_or(0);
        }
        if pattern.get(matched) == Some(byte) {
            matched += 1;
        }
        if let Some(slot) = failure.get_mut(position) {
            *slot = matched;
        }
    }
    matched = 0;
    // Only the last `pattern.len()` bytes can overlap.
    let tail = before.as_bytes();
    let tail = tail.get(tail.len().saturating_sub(pattern.len())..).unwrap_or_default();
    for byte in tail {
        while matched > 0 && pattern.get(matched) != Some(byte) {
            matched = failure.get(matched - 1).copied().unwrap_or(0);
        }
        if pattern.get(matched) == Some(byte) {
            matched += 1;
        }
    }
    // Both are UTF-8 and `now` begins at a character: so does the overlap's end, unless it cuts one.
    (0..=matched).rev().find(|end| now.is_char_boundary(*end)).unwrap_or(0)
}

#[cfg(test)]
mod tests;
