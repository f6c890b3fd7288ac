//! What a terminal would show of what a console wrote.

/// The text without escape sequences and control characters, line ends as `\n`.
pub(crate) fn plain(raw: &str) -> String {
    let mut text = String::with_capacity(raw.len());
    let mut chars = raw.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => match chars.next() {
                // CSI: parameters, then one final character.
                Some('[') => while chars.next().is_some_and(|c| !('\u{40}'..='\u{7e}').contains(&c)) {},
                // OSC: until BEL or the string terminator.
                Some(']') => while chars.next().is_some_and(|c| c != '\u{7}' && c != '\\') {},
                _ => {}
            },
            '\r' => {
                while chars.peek() == Some(&'\r') {
                    chars.next();
                }
                if chars.peek() != Some(&'\n') {
                    text.push('\n');
                }
            }
            '\n' | '\t' => text.push(c),
            '\u{8}' => {
                if !text.ends_with('\n') {
                    text.pop();
                }
            }
            c if c.is_control() => {}
            c => text.push(c),
        }
    }
    text
}

/// The last line that says something, shortened: what a person who waits wants to see.
pub(crate) fn last_words(screen: &str) -> String {
    let line =
        screen.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or("nothing on the console");
    line.chars().take(120).collect()
}

/// The text between `start` and the next `end` after it.
pub(crate) fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let after = text.get(text.find(start)? + start.len()..)?;
    after.get(..after.find(end)?)
}
