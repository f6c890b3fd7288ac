//! One script that runs the same over SSH and on a console.

use base64::{Engine, engine::general_purpose::STANDARD};
use secrecy::SecretString;
use turingpi_ssh::{Command, quote};

use super::FirstBootSpec;

/// A script with arguments and perhaps the root password as a shell variable.
pub(super) struct Job {
    pub(super) script: &'static str,
    pub(super) arguments: Vec<String>,
    pub(super) password: Option<SecretString>,
}

/// Longest piece of a script typed in one line; a terminal takes 4095 characters and the BMC a query of a few thousand.
const PIECE: usize = 512;

impl Job {
    pub(super) fn command(&self) -> Command {
        let command = self.arguments.iter().fold(Command::script(self.script).as_root(), |c, a| c.arg(a));
        match &self.password {
            Some(password) => command.secret("ROOT_PASSWORD", password.clone()),
            None => command,
        }
    }

    /// The lines to type at a root prompt. Each prints `TPA<nonce><n>:` when it is done, the last one `TPZ<nonce>:<status>:`;
    /// when the script wants the password it prints `TPQ<nonce>:` with the echo off. The quotes inside the markers keep the
    /// echo of a line from looking like its output.
    pub(super) fn lines(&self, nonce: &str) -> Result<Vec<String>, String> {
        let arguments: Vec<String> =
            self.arguments.iter().map(|a| quote(a)).collect::<Result<_, _>>().map_err(|e| e.to_string())?;
        let ask = match &self.password {
            Some(_) => format!(
                "stty -echo || exit 90\nprintf 'TP%s\\n' 'Q{nonce}:'\nIFS= read -r ROOT_PASSWORD\nstty echo\n"
            ),
            None => String::new(),
        };
        let text = format!(
            "set -eu\numask 077\nLC_ALL=C\nexport LC_ALL\n{ask}set -- {}\n{}",
            arguments.join(" "),
            self.script
        );
        let packed = STANDARD.encode(text);
        let file = format!("/root/.turingpi-{nonce}");
        let mut lines = vec![format!(" rm -f {file}; echo \"TP\"\"A{nonce}0:\"")];
        let mut rest = packed.as_str();
        while !rest.is_empty() {
            let (piece, left) = rest.split_at_checked(PIECE).unwrap_or((rest, ""));
            lines.push(format!(" printf %s '{piece}' >>{file}; echo \"TP\"\"A{nonce}{}:\"", lines.len()));
            rest = left;
        }
        lines.push(format!(
            " base64 -d <{file} >{file}.sh && sh {file}.sh; echo \"TP\"\"Z{nonce}:$?:\"; rm -f {file} {file}.sh"
        ));
        Ok(lines)
    }
}

/// Looks whose system it is.
pub(super) fn look() -> Job {
    Job { script: super::evidence::SCRIPT, arguments: Vec::new(), password: None }
}

/// Where a take-over runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Ssh,
    Console,
}

/// Takes the system over. `password`: root's, unless it is set already.
pub(super) fn take_over(
    spec: &FirstBootSpec,
    login: &str,
    flash: &str,
    remove: Option<&str>,
    place: Place,
    password: Option<&SecretString>,
) -> Job {
    // Delivered passwords are public: every user that has one gets ours.
    let mut users = Vec::new();
    if password.is_some() {
        users.push("root");
        users.extend(spec.credentials.iter().map(|c| c.user.as_str()).filter(|user| *user != "root"));
        users.dedup();
    }
    let place = if place == Place::Console { "console" } else { "ssh" };
    let mut arguments: Vec<String> =
        [&spec.hostname, login, flash, remove.unwrap_or(""), &users.join(" "), place]
            .map(str::to_owned)
            .into();
    arguments.extend(spec.authorized_keys.iter().map(|key| key.trim().to_owned()));
    Job { script: include_str!("takeover.sh"), arguments, password: password.cloned() }
}
