//! Files on a node, and small edits of configuration texts that are pure functions.

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use turingpi_engine::{Failure, FailureClass, StepContext, Unit};
use turingpi_ssh::{RemoteFile, Written};

use crate::{Host, HostTask, ssh_failure};

impl Host {
    /// Reads a file as root; `None` when it does not exist.
    ///
    /// # Errors
    /// As [`ssh_failure`].
    pub async fn read(&self, path: &str) -> Result<Option<Vec<u8>>, Failure> {
        self.client().read(path).await.map_err(|e| ssh_failure(self.name(), &format!("read {path}"), e))
    }

    /// Reads a text file as root; `None` when it does not exist.
    ///
    /// # Errors
    /// As [`Host::read`]; `Unexpected` when it is not UTF-8.
    pub async fn read_text(&self, path: &str) -> Result<Option<String>, Failure> {
        self.read(path)
            .await?
            .map(|bytes| {
                String::from_utf8(bytes).map_err(|e| {
                    Failure::new(FailureClass::Unexpected, format!("{path} on {} is not text", self.name()))
                        .source(e.utf8_error())
                })
            })
            .transpose()
    }

    /// Makes a file be so; tells whether anything was written.
    ///
    /// # Errors
    /// As [`ssh_failure`].
    pub async fn ensure_file(&self, file: &RemoteFile) -> Result<Written, Failure> {
        self.client()
            .write(file, &mut |_, _| {})
            .await
            .map_err(|e| ssh_failure(self.name(), &format!("write {}", file.path()), e))
    }

    /// As [`Host::ensure_file`], with progress events: for files that take a while.
    ///
    /// # Errors
    /// As [`ssh_failure`].
    pub async fn upload(&self, file: &RemoteFile, cx: &StepContext) -> Result<Written, Failure> {
        self.client()
            .write(file, &mut |done, total| cx.progress(done, Some(total), Unit::Bytes))
            .await
            .map_err(|e| ssh_failure(self.name(), &format!("upload {}", file.path()), e))
    }

    /// Removes files; missing ones are fine.
    ///
    /// # Errors
    /// As [`Host::output`].
    pub async fn remove_files(&self, paths: &[&str]) -> Result<(), Failure> {
        self.script("remove files", "rm -f -- \"$@\"", paths).await.map(drop)
    }

    /// The SHA-256 of a file as 64 hex digits; `None` when it does not exist.
    ///
    /// # Errors
    /// As [`Host::output`].
    pub async fn digest(&self, path: &str) -> Result<Option<String>, Failure> {
        let script = "if [ -f \"$1\" ]; then sha256sum \"$1\"; fi";
        let text = self.script(&format!("hash {path}"), script, &[path]).await?;
        Ok(text.split_whitespace().next().map(str::to_owned).filter(|d| d.len() == 64))
    }
}

/// A plain text file with fixed content.
pub(crate) struct FileContent {
    /// The absolute path.
    pub(crate) path: String,
    /// The content; not secret.
    pub(crate) text: String,
}

impl FileContent {
    /// The SHA-256 of the content.
    pub(crate) fn sha256(&self) -> String {
        hex::encode(Sha256::digest(self.text.as_bytes()))
    }

    /// Writes it; mode 0644.
    pub(crate) async fn write(&self, host: &Host) -> Result<Written, Failure> {
        host.ensure_file(&RemoteFile::new(&self.path, self.text.as_bytes())).await
    }
}

#[async_trait]
impl HostTask for FileContent {
    async fn differs(&self, host: &Host) -> Result<Option<String>, Failure> {
        Ok(match host.digest(&self.path).await? {
            Some(digest) if digest == self.sha256() => None,
            Some(_) => Some(format!("{} has other content", self.path)),
            None => Some(format!("{} does not exist", self.path)),
        })
    }

    async fn make(&self, host: &Host, _cx: &StepContext) -> Result<(), Failure> {
        self.write(host).await.map(drop)
    }
}

/// `text` with the shell assignment `key=value` in it, in place of the first one for `key`, at the end when there is
/// none. Comments and everything else stay. The value is written as given: quote it when it needs quotes.
pub(crate) fn set_assignment(text: &str, key: &str, value: &str) -> String {
    let wanted = format!("{key}={value}");
    let mut found = false;
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        if is_assignment(line, key) {
            if !found {
                lines.push(wanted.clone());
            }
            found = true;
        } else {
            lines.push(line.to_owned());
        }
    }
    if !found {
        lines.push(wanted);
    }
    let mut out = lines.join("\n");
    out.push('\n');
    out
}

fn is_assignment(line: &str, key: &str) -> bool {
    line.trim_start().strip_prefix(key).is_some_and(|rest| rest.starts_with('='))
}

/// The value of the last shell assignment to `key`, without quotes.
pub(crate) fn assignment<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines()
        .filter(|l| is_assignment(l, key))
        .filter_map(|l| l.split_once('='))
        .map(|(_, value)| value.trim().trim_matches(|c| c == '"' || c == '\''))
        .next_back()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_assignment_is_replaced_in_place_and_comments_stay() {
        let text = "# SWAP=true\nENABLED=true\nSWAP=true\n# end\n";
        assert_eq!(set_assignment(text, "SWAP", "false"), "# SWAP=true\nENABLED=true\nSWAP=false\n# end\n");
        assert_eq!(assignment(text, "SWAP"), Some("true"));
    }

    #[test]
    fn a_missing_assignment_is_added_at_the_end() {
        assert_eq!(set_assignment("A=1", "SWAP", "false"), "A=1\nSWAP=false\n");
        assert_eq!(set_assignment("", "SWAP", "false"), "SWAP=false\n");
        assert_eq!(assignment("SWAPPINESS=3\n", "SWAP"), None);
    }

    proptest! {
        #[test]
        fn setting_an_assignment_twice_changes_nothing_and_reads_back(text in "(\\PC*\n?){0,6}") {
            let once = set_assignment(&text, "KEY", "v");
            prop_assert_eq!(assignment(&once, "KEY"), Some("v"));
            prop_assert_eq!(set_assignment(&once, "KEY", "v"), once);
        }
    }
}
