//! Becoming root: directly, through sudo without a password, or through sudo with one.

use base64::{Engine, engine::general_purpose::STANDARD};
use secrecy::SecretString;
use tokio::io::AsyncRead;
use zeroize::Zeroizing;

use crate::{
    Command, SshError, SudoProblem,
    exec::{Input, Job, Limit},
    noise::find,
    shell::{self, FROM_LINE, Stdin},
};

/// How a program gets its rights.
#[derive(Clone)]
pub(crate) enum Root {
    /// The rights of the login.
    Login,
    /// `sudo -n`.
    Sudo,
    /// `sudo -S`, asked once.
    SudoPassword(SecretString),
}

/// The dialogue with sudo before the program runs.
pub(crate) struct Gate {
    prompt: String,
    ready: String,
    pub(crate) password: SecretString,
}

/// A word that nothing else on the stream contains. Not a secret.
pub(crate) fn marker(kind: &str) -> String {
    format!("turingpi-{kind}-{:032x}", rand::random::<u128>())
}

impl Root {
    /// A job that runs a script.
    pub(crate) fn script(&self, command: &Command, limit: Limit) -> Result<Job, SshError> {
        let marker = marker("run");
        let input = Input::Script(shell::frame(command, &marker, Stdin::Empty)?);
        Ok(self.job("/bin/sh -s", marker, input, limit))
    }

    /// A job that runs a script whose commands read `stream`.
    pub(crate) fn script_with_input(
        &self,
        command: &Command,
        stream: Box<dyn AsyncRead + Send + Unpin>,
        limit: Limit,
    ) -> Result<Job, SshError> {
        let marker = marker("run");
        let mut line = Zeroizing::new(STANDARD.encode(&*shell::frame(command, &marker, Stdin::Rest)?));
        line.push('\n');
        let input = Input::Stream { script: line, stream };
        Ok(self.job(&format!("/bin/sh -c '{FROM_LINE}'"), marker, input, limit))
    }

    /// A job that runs a program: words for the login shell, already quoted. The program prints the marker itself.
    pub(crate) fn job(&self, program: &str, marker: String, input: Input, limit: Limit) -> Job {
        let (command, gate) = match self {
            Self::Login => (format!("exec {program}"), None),
            Self::Sudo => (format!("exec env LC_ALL=C sudo -n -- {program}"), None),
            Self::SudoPassword(password) => {
                let (prompt, ready) = (self::marker("prompt"), self::marker("ready"));
                // Nothing may be sent before the shell behind sudo has answered: if sudo asks a second time, the
                // script would be taken for passwords, and if it does not ask at all, the password for a script.
                let command = format!(
                    "exec env LC_ALL=C sudo -S -k -p {prompt} -- /bin/sh -c 'echo {ready} >&2; exec \"$@\"' sh {program}"
                );
                (command, Some(Gate { prompt, ready, password: password.clone() }))
            }
        };
        Job { command, root: Some(self.clone()), gate, marker, input, limit, urgent: false }
    }
}

impl Gate {
    /// Where the program's own output begins, once it runs.
    pub(crate) fn ready_at(&self, heard: &[u8]) -> Option<usize> {
        let at = find(heard, self.ready.as_bytes())?;
        let line = heard.get(at..)?.iter().position(|&byte| byte == b'\n')?;
        Some(at + line + 1)
    }

    /// How often sudo has asked. sudo-rs puts the prompt into a text of its own, so it counts wherever it stands.
    pub(crate) fn prompts_in(&self, heard: &[u8]) -> usize {
        let mut rest = heard;
        let mut count = 0;
        while let Some(at) = find(rest, self.prompt.as_bytes()) {
            count += 1;
            rest = rest.get(at + self.prompt.len()..).unwrap_or_default();
        }
        count
    }

    /// Why sudo ended without running the program.
    pub(crate) fn refusal(&self, heard: &[u8]) -> SudoProblem {
        let text = String::from_utf8_lossy(heard).replace(&self.prompt, "");
        let text = crate::error::shorten(text.as_bytes());
        problem_in(&text).unwrap_or(SudoProblem::Other(text))
    }
}

/// What sudo's words mean. They are the only thing that tells these apart: the status is 1 for all of them. Spoken with
/// `LC_ALL=C`; sudo 1.8 to 1.9 and sudo-rs 0.2.
pub(crate) fn problem_in(text: &str) -> Option<SudoProblem> {
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if has(&["not in the sudoers", "not allowed to", "may not run sudo", "I'm afraid I can't do that"]) {
        Some(SudoProblem::NotAllowed)
    } else if has(&["must have a tty", "terminal is required to authenticate"]) {
        Some(SudoProblem::TerminalNeeded)
    } else if has(&[
        "incorrect password",
        "ncorrect authentication",
        "try again",
        "uthentication failed",
        "uthentication failure",
    ]) {
        Some(SudoProblem::WrongPassword)
    } else if has(&[
        "a password is required",
        "no askpass program",
        "terminal is required to read the password",
    ]) {
        Some(SudoProblem::PasswordNeeded)
    } else if has(&[
        "sudo: not found",
        "sudo: command not found",
        "sudo’: No such file",
        "sudo': No such file",
        "‘sudo’",
    ]) {
        Some(SudoProblem::Missing)
    } else {
        None
    }
}
