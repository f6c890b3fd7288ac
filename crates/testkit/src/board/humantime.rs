//! Durations as the daemon writes them: `3h 2m 1s 5ms 6us 7ns`.

use std::time::Duration;

/// The words of one duration: every unit that is not zero, from years to nanoseconds.
pub(crate) fn words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let nanos = u64::from(duration.subsec_nanos());
    // The daemon's library counts a year as 365.25 days and a month as 30.44 days.
    let (years, rest) = (seconds / 31_557_600, seconds % 31_557_600);
    let (months, rest) = (rest / 2_630_016, rest % 2_630_016);
    let parts = [
        (years, if years == 1 { "year" } else { "years" }),
        (months, if months == 1 { "month" } else { "months" }),
        (rest / 86_400, if rest / 86_400 == 1 { "day" } else { "days" }),
        (rest % 86_400 / 3600, "h"),
        (rest % 3600 / 60, "m"),
        (rest % 60, "s"),
        (nanos / 1_000_000, "ms"),
        (nanos / 1000 % 1000, "us"),
        (nanos % 1000, "ns"),
    ];
    let words: Vec<String> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, unit)| format!("{count}{unit}")).collect();
    if words.is_empty() { "0s".to_owned() } else { words.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_the_daemon_writes_them() {
        let just_under_a_minute = Duration::new(59, 999_925_221);
        assert_eq!(words(just_under_a_minute), "59s 999ms 925us 221ns");
        assert_eq!(words(Duration::ZERO), "0s");
        assert_eq!(words(Duration::from_secs(1024 * 60)), "17h 4m");
        assert_eq!(words(Duration::from_secs(10_920)), "3h 2m");
        assert_eq!(words(Duration::from_secs(86_400 * 2 + 1)), "2days 1s");
    }
}
