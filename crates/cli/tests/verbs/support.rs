//! The program as a person starts it, in a folder and a home of its own, and a simulated board beside it.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

/// A folder with nothing of this machine's person in it.
pub(crate) struct Place {
    pub(crate) dir: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("home")).unwrap();
        Self { dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// The program with `args`, not started yet.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("turingpi"));
        command.args(args).current_dir(self.dir.path()).env_clear().stdin(Stdio::null());
        command.env("HOME", self.path("home")).env("TURINGPI_CACHE_DIR", self.path("cache"));
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        // Coverage and sanitizers talk through these.
        for (name, value) in std::env::vars_os().filter(|(n, _)| n.to_string_lossy().starts_with("LLVM_")) {
            command.env(name, value);
        }
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        Ran::of(args, self.command(args).output().unwrap())
    }
}

/// What a run said, and how it ended.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
    args: String,
}

impl Ran {
    pub(crate) fn of(args: &[&str], output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
            args: args.join(" "),
        }
    }

    /// Checks the exit code; what was said is shown when it is another.
    #[track_caller]
    pub(crate) fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, code, "turingpi {}\n--- out\n{}\n--- err\n{}", self.args, self.out, self.err);
        self
    }

    /// Checks that all of `parts` were said, on either stream; line breaks count as spaces.
    #[track_caller]
    pub(crate) fn says(self, parts: &[&str]) -> Self {
        let all = format!("{}\n{}", self.out, self.err);
        let flat = all.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in parts {
            assert!(flat.contains(part), "turingpi {} does not say `{part}`:\n{all}", self.args);
        }
        self
    }

    /// Standard output as one JSON document.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|e| panic!("turingpi {}: {e}\n{}", self.args, self.out))
    }

    /// Standard output as JSON lines.
    #[track_caller]
    pub(crate) fn lines(&self) -> Vec<Value> {
        self.out.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect()
    }
}

/// A simulated board that `turingpi simulate` serves, and the document that leads to it.
pub(crate) struct Board {
    child: Child,
    pub(crate) place: Place,
    pub(crate) told: Value,
}

impl Board {
    /// Starts a board for `document`; the folder `sim` of its place has the document for `apply`.
    pub(crate) fn start(document: &str) -> Self {
        let place = Place::new();
        place.write("wanted.yaml", document);
        let args = ["simulate", "wanted.yaml", "--output", "json", "--write", "sim", "--pace", "0.001"];
        let mut child = place.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        if line.is_empty() {
            let mut said = String::new();
            child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            panic!("no board: {said}");
        }
        let told = serde_json::from_str(&line).unwrap();
        Self { child, place, told }
    }

    /// The document with `change` made to it, as `name` beside the original.
    pub(crate) fn changed(&self, name: &str, change: impl FnOnce(String) -> String) -> String {
        let name = format!("sim/{name}");
        let text = change(self.document());
        self.place.write(&name, &text);
        name
    }

    pub(crate) fn document(&self) -> String {
        fs::read_to_string(self.place.path("sim/cluster.yaml")).unwrap()
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.place.run(args)
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One flashed module; nothing is downloaded that the simulated mirror does not have.
pub(crate) const ONE: &str = "\
name: lab
version: v1.35.5+k3s1
boards:
  board1: { bmc: 10.0.0.2, credentials: { password: { env: TPI_PASSWORD } } }
ssh: { identity: ~/.ssh/id_ed25519 }
images:
  armbian: { source: ./armbian.img.xz }
nodes:
  - { name: node1, role: control-plane, address: 10.0.0.3, slot: board1/1, image: armbian }
";

/// A host without a board that already runs.
pub(crate) const HOST: &str = "\
name: lab
version: v1.35.5+k3s1
ssh: { identity: ~/.ssh/id_ed25519 }
nodes:
  - { name: node1, role: control-plane, address: 10.0.0.3 }
";

/// All text of all files below `folder`.
pub(crate) fn texts(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(texts(&path));
        } else {
            found.push((path.clone(), String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned()));
        }
    }
    found
}

/// Asks a process to stop, as Ctrl-C does.
#[cfg(unix)]
pub(crate) fn interrupt(child: &Child) {
    let status = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}
