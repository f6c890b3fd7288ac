//! The console for scripts: wait for this, type that, in order.

use std::time::Duration;

use regex::Regex;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};
use turingpi_provision::{
    board::{ConsoleEvent, PlainText},
    engine::{Failure, FailureClass},
};

use super::{
    GAP, Opened,
    args::{History, Step},
    ended,
    follow::Lines,
    notice, print_line, result, tell,
    terminal::{Signals, keyboard},
};
use crate::{
    exit::{self, Exit},
    render::out::say,
};

/// How long something expected may take where nothing else is said.
const PATIENCE: Duration = Duration::from_secs(60);
/// A match at the very end of what came may still grow: it is taken when nothing more came for this long.
const SETTLE: Duration = Duration::from_secs(1);
/// Bytes of text that are kept to match.
const KEPT: usize = 256 * 1024;
/// Lines that are told of what was seen last.
const TOLD: usize = 6;

pub(super) async fn run(mut opened: Opened<'_>) -> Result<u8, Exit> {
    let mut signals = Signals::hear();
    let json = opened.json;
    let history = opened.history(History::Lines(0))?;
    if json && !history.is_empty() {
        say!("{}", json!({ "event": "text", "text": history, "gap": false, "history": true }));
    }
    let mut seen = Seen::default();
    seen.push(&history);
    let steps = opened.args.script.0.clone();
    // Read only where a step wants a line of it.
    let secret = steps.iter().any(|step| matches!(step, Step::Send(line) if line == "-"));
    let mut lines = secret.then(|| Lines::new(keyboard()));
    let mut matches = Vec::new();
    for step in &steps {
        match step {
            Step::Send(line) => send(&opened, line, &mut lines).await?,
            Step::Expect(pattern) => match expect(&mut opened, pattern, &mut seen, &mut signals).await? {
                Some(found) => {
                    let event = json!({
                        "event": "match",
                        "expect": pattern.as_str(),
                        "match": found.text,
                        "groups": found.groups,
                    });
                    if json {
                        say!("{event}");
                    } else {
                        print_line(&found.text);
                    }
                    matches.push(event);
                }
                None => {
                    if json {
                        result(exit::STOPPED, &matches);
                    }
                    return Ok(exit::STOPPED);
                }
            },
        }
    }
    opened.console.close().await;
    if json {
        let matches: Vec<Value> = matches
            .iter()
            .map(|event| json!({ "expect": event["expect"], "match": event["match"], "groups": event["groups"] }))
            .collect();
        result(exit::DONE, &matches);
    }
    Ok(exit::DONE)
}

async fn send(opened: &Opened<'_>, line: &str, lines: &mut Option<Lines>) -> Result<(), Exit> {
    let bytes = match (line, lines) {
        ("-", Some(lines)) => lines.next().await.ok_or_else(|| {
            Failure::new(FailureClass::Usage, "standard input has no line for `--send -`")
                .hint("Give one line for each: `printf '%s\\n' \"$PASSWORD\" | turingpi board console …`.")
        })?,
        _ => format!("{line}\r").into_bytes(),
    };
    opened.console.typist().type_soon(bytes).await;
    Ok(())
}

/// `None` when it was stopped.
async fn expect(
    opened: &mut Opened<'_>,
    pattern: &Regex,
    seen: &mut Seen,
    signals: &mut Signals,
) -> Result<Option<Found>, Exit> {
    let limit = opened.args.timeout.unwrap_or(PATIENCE);
    let deadline = Instant::now() + limit;
    let mut settled = Instant::now() + SETTLE;
    loop {
        let growing = match seen.find(pattern) {
            Some(place) if place.end < seen.text.len() => return Ok(Some(seen.take(pattern, place.end))),
            Some(place) => Some(place.end),
            None => None,
        };
        tokio::select! {
            event = opened.console.next() => match event {
                Ok(ConsoleEvent::Text(text)) => {
                    opened.log.write(&text.text)?;
                    if opened.json {
                        say!("{}", json!({ "event": "text", "text": text.text, "gap": text.gap, "history": false }));
                    } else if text.gap {
                        tell(false, GAP);
                    }
                    seen.push(&text.text);
                    settled = Instant::now() + SETTLE;
                }
                Ok(ConsoleEvent::NotSent(failure)) => return Err(failure.into()),
                Ok(event) => {
                    if let Some(text) = notice(&event) {
                        tell(opened.json, &text);
                    }
                }
                Err(failure) => return Err(ended(&opened.name(), failure)),
            },
            () = sleep_until(settled), if growing.is_some() => {
                return Ok(growing.map(|end| seen.take(pattern, end)));
            }
            () = sleep_until(deadline), if growing.is_none() => {
                return Err(too_late(&opened.name(), pattern, limit, seen));
            }
            () = signals.next() => return Ok(None),
        }
    }
}

fn too_late(name: &str, pattern: &Regex, limit: Duration, seen: &Seen) -> Exit {
    let limit = crate::render::words::duration(limit);
    let failure = Failure::new(
        FailureClass::Timeout,
        format!("the console of {name} did not show `{pattern}` within {limit}"),
    );
    let last = seen.last_lines(TOLD);
    let failure = match last.is_empty() {
        true => failure.source(std::io::Error::other("it showed nothing at all")).hint(
            "Is the slot on (`turingpi board power status`)? What came before counts only with `--history`.",
        ),
        false => failure
            .source(std::io::Error::other(format!("it showed last:\n{last}")))
            .hint("Look at it with `turingpi board console`; give more time with `--timeout`."),
    };
    failure.into()
}

/// What came so far and was not matched yet, as plain text.
#[derive(Debug, Default)]
struct Seen {
    plain: PlainText,
    text: String,
    /// Everything, also what was matched: to be told.
    last: String,
}

/// What matched.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    text: String,
    groups: Vec<Option<String>>,
}

impl Seen {
    fn push(&mut self, text: &str) {
        let text = self.plain.push(text);
        for kept in [&mut self.text, &mut self.last] {
            kept.push_str(&text);
            let mut cut = kept.len().saturating_sub(KEPT);
            while !kept.is_char_boundary(cut) {
                cut += 1;
            }
            kept.drain(..cut);
        }
    }

    fn find(&self, pattern: &Regex) -> Option<std::ops::Range<usize>> {
        pattern.find(&self.text).map(|found| found.range())
    }

    /// Takes the match; what comes next is looked for behind it.
    fn take(&mut self, pattern: &Regex, end: usize) -> Found {
        let found = pattern.captures(&self.text).map(|groups| Found {
            text: groups.get(0).map(|all| all.as_str().to_owned()).unwrap_or_default(),
            groups: groups.iter().skip(1).map(|group| group.map(|g| g.as_str().to_owned())).collect(),
        });
        self.text.drain(..end);
        found.unwrap_or(Found { text: String::new(), groups: Vec::new() })
    }

    fn last_lines(&self, count: usize) -> String {
        let lines: Vec<&str> = self.last.lines().filter(|line| !line.trim().is_empty()).collect();
        let from = lines.len().saturating_sub(count);
        lines.get(from..).unwrap_or_default().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_come_in_order_and_each_text_matches_once() {
        let mut seen = Seen::default();
        seen.push("\u{1b}[32mnode1\u{1b}[0m login: ");
        let login = Regex::new("login: ").unwrap();
        let place = seen.find(&login).unwrap();
        assert_eq!(seen.take(&login, place.end).text, "login: ");
        assert!(seen.find(&login).is_none());
        seen.push("root\r\n    inet 10.10.88.73/24\r\n");
        let address = Regex::new(r"inet ([0-9.]+)(/x)?").unwrap();
        let place = seen.find(&address).unwrap();
        let found = seen.take(&address, place.end);
        assert_eq!(found.groups, [Some("10.10.88.73".to_owned()), None]);
        assert_eq!(seen.last_lines(2), "node1 login: root\n    inet 10.10.88.73/24");
    }

    #[test]
    fn what_is_kept_has_a_limit_and_stays_whole_text() {
        let mut seen = Seen::default();
        for _ in 0..600 {
            seen.push(&"é".repeat(1000));
        }
        assert!(seen.text.len() <= KEPT && seen.text.chars().all(|c| c == 'é'));
    }
}
