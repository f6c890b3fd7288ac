use proptest::prelude::*;

use super::*;

const RING: usize = 16 * 1024;

/// The BMC's ring: bytes in, lossy text out, never emptied.
struct Ring {
    bytes: Vec<u8>,
    capacity: usize,
}

impl Ring {
    fn write(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        let over = self.bytes.len().saturating_sub(self.capacity);
        self.bytes.drain(..over);
    }
    fn read(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

fn check(before: &str, now: &str, new: &str, gap: bool) {
    let mut seen = before.to_owned();
    assert_eq!(advance(RING, &mut seen, now), (new.to_owned(), gap), "{before:?} -> {now:?}");
}

#[test]
fn what_follows_the_text_seen_is_new() {
    check("", "login: ", "login: ", false);
    check("login: ", "login: ", "", false);
    check("login: ", "login: root\r\n", "root\r\n", false);
}

#[test]
fn a_ring_that_moved_on_is_continued_after_the_longest_overlap() {
    check("0123456789abcdefghij\n", "56789abcdefghij\nmore, and more", "more, and more", false);
}

#[test]
fn a_ring_without_a_trace_of_the_last_read_is_a_gap() {
    check(
        "the first boot of this node, long gone",
        "something else entirely, and just as long",
        "something else entirely, and just as long",
        true,
    );
}

#[test]
fn an_emptied_ring_is_a_gap_and_all_in_it_is_new() {
    check("a long text of the time before the daemon restarted\n", "\nU-Boot", "\nU-Boot", true);
}

#[test]
fn a_character_that_was_incomplete_is_reported_once_it_is_whole() {
    let mut seen = String::new();
    let whole = "temperature 47 °C".as_bytes();
    let cut = whole.len() - 3; // in the middle of `°`
    assert_eq!(
        advance(RING, &mut seen, &String::from_utf8_lossy(&whole[..cut])),
        ("temperature 47 ".to_owned(), false)
    );
    assert_eq!(advance(RING, &mut seen, &String::from_utf8_lossy(whole)), ("°C".to_owned(), false));
}

#[test]
fn a_character_cut_at_the_rings_beginning_does_not_hide_the_overlap() {
    let text = "€€€ and a text that is long enough to overlap";
    let mut seen = text.to_owned();
    let later = format!("{text}, with an end");
    for cut in 1..9 {
        let now = String::from_utf8_lossy(&later.as_bytes()[cut..]).into_owned();
        assert_eq!(
            advance(RING, &mut seen.clone(), &now),
            (", with an end".to_owned(), false),
            "cut {cut}: {now:?}"
        );
    }
    seen.clear();
}

proptest! {
    /// Numbered lines, as a console writes them: whatever the sizes and moments of reading, what is returned is what was
    /// written, in order and once; when more was written than the ring holds, a gap is reported.
    #[test]
    fn the_reads_together_are_what_was_written_unless_a_gap_is_reported(
        writes in prop::collection::vec((prop::collection::vec("[ -~äß€𝄞]{0,12}", 0..40), any::<bool>()), 1..25),
        capacity in 64usize..2048,
        cut in 0usize..4,
    ) {
        let mut ring = Ring { bytes: Vec::new(), capacity };
        let (mut seen, mut returned, mut written, mut line) = (String::new(), String::new(), Vec::new(), 0u32);
        let mut unread = 0usize;
        let mut held = Vec::new();
        for (lines, read) in writes {
            let mut bytes = held.clone();
            for text in lines {
                line += 1;
                bytes.extend_from_slice(format!("[{line:>6}] {text}\n").as_bytes());
            }
            // Writes end anywhere, also within a character; the rest comes with the next one.
            let end = bytes.len().saturating_sub(cut);
            held = bytes.split_off(end);
            ring.write(&bytes);
            written.extend_from_slice(&bytes);
            unread += bytes.len();
            if !read {
                continue;
            }
            let (new, gap) = advance(capacity, &mut seen, &ring.read());
            if gap {
                // Never without reason: at most the length that may be chance was still there.
                prop_assert!(unread + CHANCE + 2 * CUT >= capacity, "a gap after {unread} of {capacity} bytes");
                // And never old text: the new text is the end of what was written.
                let all = String::from_utf8_lossy(&written).into_owned();
                let settled = all.strip_suffix(UNREADABLE).unwrap_or(&all);
                prop_assert!(settled.ends_with(new.trim_start_matches(UNREADABLE)));
                prop_assert!(new.len() <= unread + 3 * CUT, "{} new of {unread} written", new.len());
                returned = settled.to_owned();
            } else {
                prop_assert!(unread <= capacity + CUT, "no gap after {unread} of {capacity} bytes");
                returned.push_str(&new);
                let all = String::from_utf8_lossy(&written).into_owned();
                prop_assert_eq!(&returned, all.strip_suffix(UNREADABLE).unwrap_or(&all));
            }
            unread = 0;
        }
    }

    /// Binary noise, as of a wrong baud rate: no panic, and never more than was written.
    #[test]
    fn noise_never_panics_and_never_returns_more_than_was_written(
        writes in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..20),
        capacity in 1usize..400,
    ) {
        let mut ring = Ring { bytes: Vec::new(), capacity };
        let mut seen = String::new();
        for write in writes {
            ring.write(&write);
            let (new, _) = advance(capacity, &mut seen, &ring.read());
            prop_assert!(ring.read().contains(new.as_str()));
        }
    }

    #[test]
    fn the_overlap_is_the_longest_one(before in "[ab]{0,24}", now in "[ab]{0,24}") {
        let slow = (0..=before.len().min(now.len())).rev().find(|k| before.ends_with(&now[..*k])).unwrap_or(0);
        prop_assert_eq!(longest_overlap(&before, &now), slow);
    }

    #[test]
    fn any_two_texts_are_compared_without_panic(before in "\\PC{0,40}", now in "\\PC{0,40}") {
        let mut seen = before;
        let (new, _) = advance(16, &mut seen, &now);
        prop_assert!(now.contains(new.as_str()));
    }
}
