//! The texts of the login.

use std::time::Duration;

/// How long a block still lasts: `Exceeded allowed authentication attempts. Access blocked for 59s 999ms 925us 221ns`.
/// `None` if the text speaks of no block.
pub(crate) fn ban(text: &str) -> Option<Duration> {
    let (_, rest) = text.split_once("blocked for")?;
    let mut wait = Duration::ZERO;
    for group in rest.split_whitespace() {
        match part(group.trim_end_matches(['.', ','])) {
            Some(part) => wait = wait.saturating_add(part),
            None => break,
        }
    }
    // A text without a readable time still tells of a block; the first one lasts a minute.
    Some(if wait.is_zero() { Duration::from_secs(60) } else { wait })
}

fn part(group: &str) -> Option<Duration> {
    let unit_at = group.find(|c: char| !c.is_ascii_digit())?;
    let (digits, unit) = group.split_at(unit_at);
    let count: u64 = digits.parse().ok()?;
    let seconds = |each: u64| Duration::from_secs(count.saturating_mul(each));
    Some(match unit {
        "ns" => Duration::from_nanos(count),
        "us" | "µs" => Duration::from_micros(count),
        "ms" => Duration::from_millis(count),
        "s" => seconds(1),
        "m" => seconds(60),
        "h" => seconds(3600),
        "d" | "day" | "days" => seconds(86400),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_a_block_is_read_from_its_text() {
        let text = "Exceeded allowed authentication attempts. Access blocked for 59s 999ms 925us 221ns";
        assert_eq!(ban(text), Some(Duration::new(59, 999_925_221)));
        assert_eq!(ban("Access blocked for 17h 4m 1s"), Some(Duration::from_secs(17 * 3600 + 241)));
        assert_eq!(ban("Access blocked for a while"), Some(Duration::from_secs(60)));
        assert_eq!(ban("credentials incorrect"), None);
    }
}
