//! What to look at on a host: one script, one round trip.

use std::collections::BTreeSet;

use rand::RngExt;
use time::OffsetDateTime;
use turingpi_engine::{Failure, FailureClass};
use turingpi_ssh::Command;

use super::units::UnitState;
use crate::{Host, HostFacts};

const SCRIPT: &str = include_str!("facts.sh");
/// Where the part begins that [`FactsRequest::narrow`] leaves out, and where it ends.
const GENERAL: &str = "#== in general";
const PARTICULAR: &str = "#== in particular";

/// What to look at beside the facts that are always read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FactsRequest {
    files: BTreeSet<String>,
    texts: BTreeSet<String>,
    paths: BTreeSet<String>,
    units: BTreeSet<String>,
    packages: BTreeSet<String>,
    modules: BTreeSet<String>,
    sysctls: BTreeSet<String>,
    extras: Vec<(&'static str, String)>,
    narrow: bool,
}

fn add<S: Into<String>>(to: &mut BTreeSet<String>, words: impl IntoIterator<Item = S>) {
    to.extend(words.into_iter().map(Into::into));
}

impl FactsRequest {
    /// Nothing beside the facts that are always read.
    pub fn new() -> Self {
        Self::default()
    }
    /// Files whose digest, mode, owner and size are wanted.
    #[must_use]
    pub fn files<S: Into<String>>(mut self, paths: impl IntoIterator<Item = S>) -> Self {
        add(&mut self.files, paths);
        self
    }
    /// Small text files whose content is wanted. Never one that holds a secret: the facts are shown to people.
    #[must_use]
    pub fn texts<S: Into<String>>(mut self, paths: impl IntoIterator<Item = S>) -> Self {
        add(&mut self.texts, paths);
        self
    }
    /// Paths of which only the existence is wanted.
    #[must_use]
    pub fn paths<S: Into<String>>(mut self, paths: impl IntoIterator<Item = S>) -> Self {
        add(&mut self.paths, paths);
        self
    }
    /// systemd units.
    #[must_use]
    pub fn units<S: Into<String>>(mut self, units: impl IntoIterator<Item = S>) -> Self {
        add(&mut self.units, units);
        self
    }
    /// Debian packages.
    #[must_use]
    pub fn packages<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        add(&mut self.packages, names);
        self
    }
    /// Kernel modules, with underscores.
    #[must_use]
    pub fn modules<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        add(&mut self.modules, names);
        self
    }
    /// Kernel settings, with dots.
    #[must_use]
    pub fn sysctls<S: Into<String>>(mut self, keys: impl IntoIterator<Item = S>) -> Self {
        add(&mut self.sysctls, keys);
        self
    }
    /// A read-only script of the caller's own; its output becomes [`HostFacts::extra`] under `name`.
    #[must_use]
    pub fn extra(mut self, name: &'static str, script: impl Into<String>) -> Self {
        self.extras.push((name, script.into()));
        self
    }
    /// Only what is asked for, and the architecture: a look that is repeated many times leaves out the facts that are
    /// otherwise always read, which take a small board some fifty programs to find out.
    #[must_use]
    pub fn narrow(mut self) -> Self {
        self.narrow = true;
        self
    }
    /// Everything both ask for.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.files.extend(other.files);
        self.texts.extend(other.texts);
        self.paths.extend(other.paths);
        self.units.extend(other.units);
        self.packages.extend(other.packages);
        self.modules.extend(other.modules);
        self.sysctls.extend(other.sysctls);
        self.extras.extend(other.extras);
        self.narrow &= other.narrow;
        self
    }

    /// The command that answers, its output framed with `marker`.
    pub(crate) fn command(&self, marker: &str) -> Command {
        let mut script = SCRIPT.replace("@UNIT@", UnitState::PROPERTIES);
        if let (true, Some(from), Some(to)) = (self.narrow, script.find(GENERAL), script.find(PARTICULAR)) {
            script.replace_range(from..to, "");
        }
        for (name, text) in &self.extras {
            script.push_str(&format!("section 'extra:{name}'\n(\n{text}\n)\n"));
        }
        script.push_str("section end\n");
        let mut command = Command::script(script).as_root().arg(marker);
        let switches = [
            ("--file", &self.files),
            ("--text", &self.texts),
            ("--path", &self.paths),
            ("--unit", &self.units),
            ("--package", &self.packages),
            ("--module", &self.modules),
            ("--sysctl", &self.sysctls),
        ];
        for (switch, words) in switches {
            if !words.is_empty() {
                command = words.iter().fold(command.arg(switch), Command::arg);
            }
        }
        command
    }
}

impl Host {
    /// Reads the facts `request` asks for: one read-only script, one round trip.
    ///
    /// # Errors
    /// As [`Host::run`]; `Unexpected` when the answer was cut or is not what the script prints.
    pub async fn facts(&self, request: &FactsRequest) -> Result<HostFacts, Failure> {
        let what = "look at the host";
        let marker = format!("=={:032x}==", rand::rng().random::<u128>());
        let before = OffsetDateTime::now_utc();
        let output = self.run(what, &request.command(&marker)).await?;
        let after = OffsetDateTime::now_utc();
        let text = String::from_utf8_lossy(&output.stdout);
        let mut facts = HostFacts::parse(&marker, &text).map_err(|e| {
            let failure = Failure::new(FailureClass::Unexpected, format!("cannot {what} on {}", self.name()));
            // A connection that broke in the middle looks like this too.
            failure.source(e).retryable()
        })?;
        let half: time::Duration = (after - before) / 2;
        let middle: OffsetDateTime = before + half;
        facts.time.skew_seconds = facts.time.epoch - middle.unix_timestamp();
        Ok(facts)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        process::{Command as Program, Stdio},
    };

    use super::*;

    fn answer(request: &FactsRequest) -> HostFacts {
        let command = request.command("==mark==");
        let mut shell = Program::new("sh")
            .args(["-s", "--"])
            .args(command.args())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        shell.stdin.take().unwrap().write_all(command.text().as_bytes()).unwrap();
        let output = shell.wait_with_output().unwrap();
        HostFacts::parse("==mark==", &String::from_utf8_lossy(&output.stdout)).unwrap()
    }

    #[test]
    fn a_narrow_look_answers_what_is_asked_for_and_leaves_out_the_rest() {
        let asked = FactsRequest::new().paths(["/", "/no/such/path"]);
        let (wide, narrow) = (answer(&asked), answer(&asked.clone().narrow()));
        assert!(narrow.paths.contains("/") && narrow.paths.len() == 1);
        assert_eq!((&narrow.paths, &narrow.arch), (&wide.paths, &wide.arch));
        assert!(!wide.kernel.is_empty() && narrow.kernel.is_empty());
        let both = answer(&asked.clone().narrow().and(asked));
        assert_eq!(both.kernel, wide.kernel);
    }
}
