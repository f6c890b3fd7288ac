//! Host patterns as OpenSSH has them: `*`, `?`, and a leading `!` to exclude.

/// Whether `text` matches `pattern`, letters compared without regard to case. `[` is itself.
pub(crate) fn glob(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().flat_map(char::to_lowercase).collect();
    let text: Vec<char> = text.chars().flat_map(char::to_lowercase).collect();
    let (mut p, mut t) = (0, 0);
    // After a mismatch the last star takes one more character: linear space, no recursion, no exponential time.
    let mut star: Option<(usize, usize)> = None;
    while let Some(&c) = text.get(t) {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&w) if w == '?' || w == c => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    p = at + 1;
                    t = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(p).all(|&c| c == '*')
}

/// Whether a list of patterns takes `text`: one matches, and none with `!` does.
pub(crate) fn list<'a>(patterns: impl IntoIterator<Item = &'a str>, text: &str) -> bool {
    let mut taken = false;
    for pattern in patterns {
        match pattern.strip_prefix('!') {
            Some(excluded) if glob(excluded, text) => return false,
            Some(_) => {}
            None => taken |= glob(pattern, text),
        }
    }
    taken
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("*", "", true)]
    #[case("node?", "node1", true)]
    #[case("node?", "node", false)]
    #[case("*.lan", "a.b.LAN", true)]
    #[case("*a*b*c", "xxaxxbxxc", true)]
    #[case("*a*b*c", "xxaxxcxxb", false)]
    #[case("[10.0.0.*]:2222", "[10.0.0.7]:2222", true)]
    #[case("[ab]", "a", false)]
    #[case("", "a", false)]
    #[case("a", "a", true)]
    fn a_pattern_takes_what_openssh_takes(#[case] pattern: &str, #[case] text: &str, #[case] taken: bool) {
        assert_eq!(glob(pattern, text), taken);
    }

    #[test]
    fn an_exclusion_wins_wherever_it_stands() {
        assert!(list(["*.lan", "!bad.lan"], "good.lan"));
        assert!(!list(["*.lan", "!bad.lan"], "bad.lan"));
        assert!(!list(["!bad.lan", "*.lan"], "bad.lan"));
        assert!(!list(["!bad.lan"], "good.lan"), "an exclusion alone takes nothing");
    }

    #[test]
    fn a_hostile_pattern_does_not_take_exponential_time() {
        assert!(!glob(&"*a".repeat(60), &"a".repeat(59)));
        assert!(!glob(&format!("{}b", "*a".repeat(30)), &"a".repeat(2000)));
    }
}
