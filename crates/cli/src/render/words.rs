//! Numbers as people read them.

use std::time::Duration;

use turingpi_provision::engine::{Risk, Unit};

/// `850 ms`, `4.2 s`, `1 min 05 s`, `2 h 03 min`.
pub(crate) fn duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{millis} ms"),
        1..60 => format!("{:.1} s", duration.as_secs_f64()),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// `512 B`, `4.0 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// `3 of 7`, `4.0 MiB of 64.0 MiB`.
pub(crate) fn progress(done: u64, total: Option<u64>, unit: Unit) -> String {
    let show = |n: u64| match unit {
        Unit::Bytes => bytes(n),
        _ => n.to_string(),
    };
    match total {
        Some(total) => format!("{} of {}", show(done), show(total)),
        None => show(done),
    }
}

/// `writing 45% of 3.8 GiB`, `uploading 12.0 MiB`, `3 of 7`.
pub(crate) fn part_of(part: &str, done: u64, total: Option<u64>, unit: Unit) -> String {
    let count = match (total, unit) {
        (Some(total), Unit::Bytes) if total > 0 => {
            format!("{}% of {}", done.saturating_mul(100) / total, bytes(total))
        }
        _ => progress(done, total, unit),
    };
    if part.is_empty() { count } else { format!("{part} {count}") }
}

/// The word for a risk.
pub(crate) fn risk(risk: Risk) -> &'static str {
    match risk {
        Risk::Safe => "safe",
        Risk::Disruptive => "disruptive",
        Risk::Destructive => "destructive",
    }
}

/// `1 step`, `2 steps`.
pub(crate) fn count(n: usize, thing: &str) -> String {
    if n == 1 { format!("1 {thing}") } else { format!("{n} {thing}s") }
}

/// The text cut to `width` characters, with an ellipsis when something is missing.
pub(crate) fn clip(text: &str, width: usize) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() <= width {
        return line.to_owned();
    }
    let mut short: String = line.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// The width that text is made for.
pub(crate) const WIDTH: usize = 80;

/// Lines of at most [`WIDTH`] characters, broken at spaces, the first indented by `first` and the others by `rest`.
pub(crate) fn wrap(text: &str, first: usize, rest: usize) -> String {
    let mut out = String::new();
    for (i, paragraph) in text.lines().enumerate() {
        if i > 0 {
            out.push('\n');
        }
        let mut line = " ".repeat(if i == 0 { first } else { rest });
        let mut empty = true;
        for word in paragraph.split(' ') {
            if !empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
                out.push_str(&line);
                out.push('\n');
                line = " ".repeat(rest);
                empty = true;
            }
            if !empty {
                line.push(' ');
            }
            line.push_str(word);
            empty = false;
        }
        out.push_str(&line);
    }
    out
}

/// One text for several that differ in single words: those are listed in their place. `None` when they differ in more.
pub(crate) fn merge(texts: &[&str]) -> Option<String> {
    let split: Vec<Vec<&str>> = texts.iter().map(|t| t.split(' ').collect()).collect();
    let first = split.first()?;
    if split.iter().any(|words| words.len() != first.len()) {
        return None;
    }
    let mut out = Vec::with_capacity(first.len());
    for (i, word) in first.iter().enumerate() {
        let mut all: Vec<&str> = split.iter().filter_map(|words| words.get(i).copied()).collect();
        all.dedup();
        if all.len() == 1 {
            out.push((*word).to_owned());
            continue;
        }
        // What all of them end with stands once, after the last.
        let end =
            word.chars().last().filter(|c| ":;,.)`".contains(*c) && all.iter().all(|w| w.ends_with(*c)));
        let bare: Vec<&str> = all.iter().map(|w| w.strip_suffix(|c| Some(c) == end).unwrap_or(w)).collect();
        out.push(format!("{}{}", bare.join(", "), end.map(String::from).unwrap_or_default()));
    }
    Some(out.join(" "))
}

/// The text with long hexadecimal digests cut to their first twelve digits.
pub(crate) fn short_digests(text: &str) -> String {
    let mut out = String::new();
    let mut run = String::new();
    for c in text.chars().chain(['\0']) {
        if c.is_ascii_hexdigit() {
            run.push(c);
            continue;
        }
        match run.get(..12) {
            Some(start) if run.len() >= 40 => {
                out.push_str(start);
                out.push('…');
            }
            _ => out.push_str(&run),
        }
        run.clear();
        out.push(c);
    }
    out.pop();
    out
}

/// The text with its first letter small, unless the second is a capital too.
pub(crate) fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(a), Some(b)) if a.is_uppercase() && !b.is_uppercase() => {
            a.to_lowercase().chain([b]).chain(chars).collect()
        }
        _ => text.to_owned(),
    }
}

/// `just now`, `3 min ago`, `2 days ago`; `in 5 min` for what is to come.
pub(crate) fn ago(at: time::OffsetDateTime, now: time::OffsetDateTime) -> String {
    let seconds = (now - at).whole_seconds();
    let far = seconds.unsigned_abs();
    let text = match far {
        0..10 => return "just now".to_owned(),
        10..60 => format!("{far} s"),
        60..3600 => format!("{} min", far / 60),
        3600..86_400 => format!("{} h", far / 3600),
        _ => count(usize::try_from(far / 86_400).unwrap_or(usize::MAX), "day"),
    };
    if seconds < 0 { format!("in {text}") } else { format!("{text} ago") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_read_well() {
        assert_eq!(duration(Duration::from_millis(850)), "850 ms");
        assert_eq!(duration(Duration::from_millis(4240)), "4.2 s");
        assert_eq!(duration(Duration::from_secs(65)), "1 min 05 s");
        assert_eq!(duration(Duration::from_secs(7380)), "2 h 03 min");
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(4 << 20), "4.0 MiB");
        assert_eq!(clip("a longer line", 8), "a longe…");
    }

    #[test]
    fn texts_that_differ_in_words_become_one_and_others_do_not() {
        assert_eq!(merge(&["same", "same"]).unwrap(), "same");
        assert_eq!(merge(&["slot b/1: on", "slot b/2: on"]).unwrap(), "slot b/1, b/2: on");
        assert_eq!(merge(&["a b", "a b c"]), None);
    }

    #[test]
    fn long_text_is_broken_at_spaces_and_no_word_is_lost() {
        let text = "word ".repeat(60);
        let wrapped = wrap(text.trim(), 2, 4);
        assert!(wrapped.lines().all(|l| l.chars().count() <= WIDTH && l.starts_with("  ")), "{wrapped}");
        assert_eq!(wrapped.split_whitespace().count(), 60);
        assert_eq!(wrap("one\ntwo", 0, 2), "one\n  two");
        let two = wrap(&format!("{0}\n{0}", text.trim()), 2, 4);
        assert!(two.lines().all(|l| l.chars().count() <= WIDTH && l.starts_with("  ")), "{two}");
        assert_eq!(two.lines().count(), 2 * wrapped.lines().count());
    }

    #[test]
    fn digests_are_cut_and_short_numbers_are_not() {
        assert_eq!(short_digests(&format!("armbian ({})", "ab".repeat(32))), "armbian (abababababab…)");
        assert_eq!(short_digests("v1.35.5 and cafe"), "v1.35.5 and cafe");
    }

    #[test]
    fn times_are_told_from_now() {
        let now = time::OffsetDateTime::UNIX_EPOCH + Duration::from_secs(10_000_000);
        assert_eq!(ago(now, now), "just now");
        assert_eq!(ago(now - Duration::from_secs(200), now), "3 min ago");
        assert_eq!(ago(now - Duration::from_secs(86_400), now), "1 day ago");
        assert_eq!(ago(now + Duration::from_secs(7200), now), "in 2 h");
    }
}
