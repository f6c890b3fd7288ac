//! The words of `turingpi board watch`.

use std::time::Duration;

use clap::Args;

use crate::command::board::console::duration;

pub(crate) const HELP: &str = "\
Without --board all boards of the document are watched. Keys: arrows or 1-4 choose
a slot, Enter shows its console, p switches its power (asks first), q leaves.

A BMC serves one request at a time. A look is about six short ones, one after the
other, and the next begins --interval after it has ended; a BMC that is silent is
asked ever more rarely, at most every 30 s, and one that blocks this address not
before the block ends. While an image is uploaded it answers nobody.

Power is what was last asked for. The boot is read from the console, the address
from the console or the document. Firmware up to 2.0.5 empties a console by
reading it, so that others (an `apply` that waits for a boot) would miss it: there
consoles are left alone unless --take-consoles is given.

JSON: one object a look and board:
{\"at\",\"board\",\"url\",\"firmware\",\"model\",\"slots\":[{\"slot\",\"wanted\",\"power\",
\"state\",\"since\",\"heard\",\"address\",\"last_line\",\"console_note\"}],\"transfer\",
\"fans\",\"temperatures\",\"trouble\",\"events\",\"next_look_seconds\"}

Examples:
  turingpi board watch
  turingpi board watch --board 10.10.88.70 --interval 5s
  turingpi board watch --once
  turingpi board watch --output json | jq -c '.slots[] | [.slot, .state]'";

#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// From the end of a look to the next, `2s` or `1m`; at least a second
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = interval)]
    pub(crate) interval: Duration,
    /// Look once, and print it as plain text
    #[arg(long)]
    pub(crate) once: bool,
    /// Read consoles also where that empties them
    #[arg(long)]
    pub(crate) take_consoles: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    match time < Duration::from_secs(1) {
        true => Err("a BMC has a slow processor: not more often than every second".to_owned()),
        false => Ok(time),
    }
}
