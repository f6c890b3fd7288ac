//! Text for a POSIX shell: quoting, and the frame around a script.

use secrecy::ExposeSecret;
use zeroize::Zeroizing;

use crate::{Command, SshError};

/// Quotes one word for a POSIX shell: whatever is in it, the shell sees it as one word with the same bytes.
///
/// # Errors
/// [`SshError::Invalid`] when the text holds a NUL, which no shell word can.
pub fn quote(arg: &str) -> Result<String, SshError> {
    if arg.contains('\0') {
        return Err(SshError::Invalid { what: format!("argument {arg:?}"), why: "it holds a NUL".into() });
    }
    Ok(quote_unchecked(arg))
}

fn quote_unchecked(arg: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=@%+,".contains(c);
    // A word that starts with `=` or `~` is special to zsh or everybody; an empty one must not vanish.
    if !arg.is_empty() && !arg.starts_with('=') && arg.chars().all(plain) {
        return arg.to_owned();
    }
    format!("'{}'", arg.replace('\'', r"'\''"))
}

/// Quotes a word for a login shell that may be fish, where a backslash inside single quotes is not always itself.
pub(crate) fn quote_for_login_shell(arg: &str) -> Result<String, SshError> {
    if arg.contains(['\n', '\r']) {
        return Err(SshError::Invalid { what: format!("path {arg:?}"), why: "it holds a line break".into() });
    }
    let quoted = quote(arg)?;
    if !arg.contains('\\') {
        return Ok(quoted);
    }
    let outside = arg.replace('\'', "\u{0}").replace('\\', r"'\\'").replace('\u{0}', r"'\''");
    Ok(format!("'{outside}'"))
}

/// What a script's commands read.
#[derive(Clone, Copy)]
pub(crate) enum Stdin {
    /// Nothing.
    Empty,
    /// What comes behind the script, which has to be in the shell's memory by then: [`FROM_LINE`] sees to that.
    Rest,
}

/// A program that takes its script from the first line of its input, in base64, and leaves it the rest. `read` takes a byte
/// at a time, as POSIX wants it; `sh -s` itself reads ahead in dash. No single quotes, because it stands in some.
pub(crate) const FROM_LINE: &str = r#"IFS= read -r t; eval "$(printf %s "$t" | base64 -d)""#;

/// Frames a command for `sh -s`: the marker lines, the environment, secrets, arguments, and the script as one group.
///
/// The shell reads a group to its end before it runs any of it, so nothing in the script can eat the rest of the
/// script; the group's own standard input is empty. Everything before the marker on either stream is noise of the
/// login shell's start files. The marker line on standard error carries the shell's process data, from which the
/// process session is known that is to be stopped on cancellation.
pub(crate) fn frame(command: &Command, marker: &str, stdin: Stdin) -> Result<Zeroizing<Vec<u8>>, SshError> {
    let mut text = Zeroizing::new(String::with_capacity(command.script.len() + 1024));
    text.push_str("set -eu\numask 077\nLC_ALL=C\n");
    // What the login brings stays in front; a login that is not root often lacks the folders of the administrator.
    text.push_str("PATH=${PATH:+$PATH:}/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n");
    text.push_str("export LC_ALL PATH\n");
    text.push_str("{ read -r _turingpi < /proc/$$/stat; } 2>/dev/null || _turingpi=$$\n");
    text.push_str(&format!("echo {marker}\necho \"{marker} $_turingpi\" >&2\nunset _turingpi\n"));
    for (name, value) in &command.secrets {
        check_variable(name)?;
        let value = value.expose_secret();
        if value.contains('\0') {
            return Err(SshError::Invalid { what: format!("secret `{name}`"), why: "it holds a NUL".into() });
        }
        text.push_str(name);
        text.push_str("='");
        let mut parts = value.split('\'');
        text.push_str(parts.next().unwrap_or_default());
        for part in parts {
            text.push_str(r"'\''");
            text.push_str(part);
        }
        text.push_str("'\n");
    }
    text.push_str("set --");
    for arg in &command.args {
        text.push(' ');
        text.push_str(&quote(arg)?);
    }
    if command.script.contains('\0') {
        return Err(SshError::Invalid { what: "script".into(), why: "it holds a NUL".into() });
    }
    // `:` keeps an empty script valid; the blank line ends a trailing comment or backslash.
    text.push_str("\n{ :\n");
    text.push_str(&command.script);
    text.push_str(match stdin {
        Stdin::Empty => "\n\n} </dev/null\n",
        Stdin::Rest => "\n\n}\n",
    });
    Ok(Zeroizing::new(std::mem::take(&mut *text).into_bytes()))
}

fn check_variable(name: &str) -> Result<(), SshError> {
    let mut chars = name.chars();
    let valid = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_');
    let reserved = ["PATH", "IFS", "LC_ALL", "ENV", "PS4", "LD_PRELOAD"].contains(&name);
    if valid && !reserved {
        return Ok(());
    }
    Err(SshError::Invalid {
        what: format!("variable name `{name}`"),
        why: "a name is letters, digits and `_`, and none the shell uses itself".into(),
    })
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        process::{Command as Process, Stdio},
    };

    use proptest::prelude::*;

    use super::*;

    /// What a real shell makes of a text on its standard input.
    fn sh(text: &[u8]) -> (Option<i32>, Vec<u8>) {
        let mut child = Process::new("sh")
            .arg("-s")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(text).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code(), output.stdout)
    }

    fn after_marker(stdout: &[u8]) -> &[u8] {
        let at = crate::noise::find(stdout, b"MARK\n").expect("the marker line");
        &stdout[at + 5..]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn a_quoted_word_reaches_a_real_shell_unharmed(words in prop::collection::vec("[^\u{0}]{0,30}", 1..8)) {
            let quoted: Vec<String> = words.iter().map(|word| quote(word).unwrap()).collect();
            let (code, stdout) = sh(format!("printf '%s\\0' {}", quoted.join(" ")).as_bytes());
            let expected: String = words.iter().map(|word| format!("{word}\0")).collect();
            prop_assert_eq!((code, stdout), (Some(0), expected.into_bytes()));
        }

        #[test]
        fn a_path_for_the_login_shell_reaches_it_unharmed(word in "[^\u{0}\r\n]{0,30}") {
            let (code, stdout) = sh(format!("printf '%s' {}", quote_for_login_shell(&word).unwrap()).as_bytes());
            prop_assert_eq!((code, stdout), (Some(0), word.into_bytes()));
        }

        #[test]
        fn arguments_and_secrets_reach_a_framed_script_unharmed(argument in "[^\u{0}]{0,30}", secret in "[^\u{0}]{0,30}") {
            let command = Command::script("printf '%s\\0%s' \"$1\" \"$key\"").arg(&argument).secret("key", secret.clone().into());
            let (code, stdout) = sh(&frame(&command, "MARK", Stdin::Empty).unwrap());
            prop_assert_eq!(code, Some(0));
            prop_assert_eq!(after_marker(&stdout), format!("{argument}\0{secret}").into_bytes());
        }
    }

    #[test]
    fn a_nul_cannot_be_quoted() {
        assert!(matches!(quote("a\0b"), Err(SshError::Invalid { .. })));
        assert!(matches!(quote_for_login_shell("a\nb"), Err(SshError::Invalid { .. })));
        assert!(matches!(
            frame(&Command::script("a\0"), "MARK", Stdin::Empty),
            Err(SshError::Invalid { .. })
        ));
    }

    #[test]
    fn plain_words_stay_readable() {
        assert_eq!(quote("/etc/hosts").unwrap(), "/etc/hosts");
        assert_eq!(quote("").unwrap(), "''");
        assert_eq!(quote("it's").unwrap(), r"'it'\''s'");
        assert_eq!(quote("=x").unwrap(), "'=x'");
    }

    #[test]
    fn backslashes_for_the_login_shell_stand_outside_of_quotes() {
        // fish takes `\\` and `\'` inside single quotes for one character.
        assert_eq!(quote_for_login_shell(r"a\b").unwrap(), r"'a'\\'b'");
        assert_eq!(quote_for_login_shell(r"\'").unwrap(), r"''\\''\'''");
    }
}
