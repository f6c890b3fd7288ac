//! The words of `turingpi board console`.

use std::{path::PathBuf, str::FromStr, time::Duration};

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use regex::Regex;

use super::escape::EscapeKey;
use crate::command::board::args::OneSlot;

pub(crate) const HELP: &str = "\
On a terminal every key goes to the node, Ctrl-C too; after Enter, ~. leaves,
~? helps and ~~ is a ~. Firmware up to 2.1 sends whole lines only: what you type
is shown here and sent with Enter, and Ctrl-C or arrows cannot be sent.

In a pipe the lines of standard input are sent, and it listens on after their end.
What the node writes is then cleaned of escape sequences and control characters,
so that it cannot steer a terminal that shows it later; --raw leaves them in. What
is shown of the past is always cleaned; --log has everything as it came.

With --expect and --send, in their order, it is a script: only what was matched is
printed. A text from before it was opened counts only with --history.

JSON: one event a line: {\"event\":\"opened\",\"board\",\"slot\",\"node\",\"sends_keys\"},
{\"event\":\"text\",\"text\",\"gap\",\"history\"}, {\"event\":\"notice\",\"text\"},
{\"event\":\"match\",\"expect\",\"match\",\"groups\"}; the last is
{\"event\":\"result\",\"outcome\",\"exit_code\",\"error\",\"matches\"}.
Exits 9 when something expected did not come in time.

Examples:
  turingpi board console -n 2
  turingpi board console -n 2 --history --log node2.log
  turingpi board console -n 2 --no-input --timeout 10m | grep -i error
  turingpi board console -n 2 --expect 'login: ' --timeout 3m
  turingpi board console -n 2 --send root --expect 'assword' --send - \\
    --expect '[#$] ' --send 'ip -4 -o addr' --expect 'inet (10[0-9.]+)'";

#[derive(Debug, Args)]
pub(crate) struct Console {
    #[command(flatten)]
    pub(crate) slot: OneSlot,
    /// First show what the BMC still has: all, or its last LINES [default: a screenful on a terminal]
    #[arg(long, value_name = "LINES", num_args = 0..=1, require_equals = true, default_missing_value = "all")]
    pub(crate) history: Option<History>,
    /// Also write what is received to this file, as it is; made for you alone, appended to
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
    /// Only listen
    #[arg(long)]
    pub(crate) no_input: bool,
    #[command(flatten)]
    pub(crate) script: Script,
    /// How long each --expect waits, `90s` or `5m` [default: 60s]; without one, how long to listen
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// The key that begins `~.` and `~?`: a character, `^]`, or `none`
    #[arg(long, value_name = "KEY", default_value = "~", conflicts_with = "no_input")]
    pub(crate) escape: EscapeKey,
    /// Leave escape sequences in what a pipe gets
    #[arg(long)]
    pub(crate) raw: bool,
}

/// How much of the past is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum History {
    All,
    Lines(usize),
}

impl FromStr for History {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self::All),
            "none" => Ok(Self::Lines(0)),
            number => number
                .parse()
                .map(Self::Lines)
                .map_err(|_| format!("`{text}` is not a number of lines: write `20`, `all` or `none`")),
        }
    }
}

/// One step of a script.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Wait until the node writes this.
    Expect(Regex),
    /// Type this line.
    Send(String),
}

/// `--expect` and `--send` in the order in which they stand on the command line.
#[derive(Debug, Clone, Default)]
pub(crate) struct Script(pub(crate) Vec<Step>);

impl Args for Script {
    fn augment_args(command: Command) -> Command {
        command
            .arg(
                Arg::new("expect")
                    .long("expect")
                    .value_name("REGEX")
                    .action(ArgAction::Append)
                    .allow_hyphen_values(true)
                    .value_parser(pattern)
                    .help("Wait until the node writes this, print what matched, and end with 0; may stand several times"),
            )
            .arg(
                Arg::new("send")
                    .long("send")
                    .value_name("LINE")
                    .action(ArgAction::Append)
                    .allow_hyphen_values(true)
                    .help("Type this line; `-` takes a line of standard input, for passwords; may stand several times"),
            )
    }
    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Script {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let expects = matches.get_many::<Regex>("expect").unwrap_or_default().cloned().map(Step::Expect);
        let sends = matches.get_many::<String>("send").unwrap_or_default().cloned().map(Step::Send);
        let at = |name| matches.indices_of(name).unwrap_or_default();
        let mut steps: Vec<(usize, Step)> = at("expect").zip(expects).chain(at("send").zip(sends)).collect();
        steps.sort_by_key(|(index, _)| *index);
        Ok(Self(steps.into_iter().map(|(_, step)| step).collect()))
    }
    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn pattern(text: &str) -> Result<Regex, String> {
    let regex = regex::RegexBuilder::new(text).multi_line(true).size_limit(1 << 20).build();
    let regex = regex.map_err(|error| error.to_string())?;
    match regex.is_match("") {
        true => Err("it matches an empty text, so there would be nothing to wait for".to_owned()),
        false => Ok(regex),
    }
}

/// Reads `90`, `90s`, `5m`, `1h` and `500ms`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let millis: u64 = match unit.trim() {
        "" | "s" => 1000,
        "ms" => 1,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => 0,
    };
    match number.parse::<u64>().ok().and_then(|number| number.checked_mul(millis)) {
        Some(millis) if millis > 0 => Ok(Duration::from_millis(millis)),
        _ => Err(format!("`{text}` is not a time: write `90s`, `5m` or `1h`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        console: Console,
    }

    #[test]
    fn a_script_has_the_order_of_the_command_line() {
        let words = ["x", "-n", "2", "--send", "root", "--expect", "a.*b", "--send", "-", "--expect=-c"];
        let line = <Line as clap::Parser>::try_parse_from(words).unwrap();
        let shown: Vec<String> = line
            .console
            .script
            .0
            .iter()
            .map(|step| match step {
                Step::Expect(regex) => format!("expect {regex}"),
                Step::Send(text) => format!("send {text}"),
            })
            .collect();
        assert_eq!(shown, ["send root", "expect a.*b", "send -", "expect -c"]);
        for wrong in [["--expect", "("], ["--expect", "x*"], ["--timeout", "0s"], ["--escape", "ab"]] {
            let words = ["x", "-n", "2"].into_iter().chain(wrong);
            assert!(<Line as clap::Parser>::try_parse_from(words).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn times_and_amounts_of_history_are_read() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        for wrong in ["", "s", "-1", "1d", "99999999999999999999h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert_eq!("20".parse(), Ok(History::Lines(20)));
        assert_eq!("all".parse(), Ok(History::All));
        assert!("some".parse::<History>().is_err());
    }
}
