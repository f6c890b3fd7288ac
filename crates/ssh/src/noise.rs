//! Start files of login shells print things. What a script prints begins after its marker line.

use bytes::Bytes;

use crate::stop::Process;

/// What stands on the marker line besides the marker.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scan {
    Plain,
    /// The process data of the shell.
    Process,
}

/// Holds back one stream until the marker line is over.
pub(crate) struct StripNoise {
    marker: Vec<u8>,
    scan: Scan,
    before: Vec<u8>,
    started: bool,
    process: Option<Process>,
}

/// Most noise that is kept to be shown in an error, in bytes.
const KEPT: usize = 64 * 1024;

impl StripNoise {
    pub(crate) fn new(marker: &str, scan: Scan) -> Self {
        Self { marker: marker.as_bytes().to_vec(), scan, before: Vec::new(), started: false, process: None }
    }

    /// Whether the marker was seen.
    pub(crate) fn started(&self) -> bool {
        self.started
    }
    /// What came before the marker.
    pub(crate) fn noise(&self) -> &[u8] {
        &self.before
    }
    /// The shell, once it has said who it is.
    pub(crate) fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    /// Takes what arrived and gives back what the script printed of it.
    pub(crate) fn pass(&mut self, data: Bytes) -> Option<Bytes> {
        if self.started {
            return Some(data);
        }
        self.before.extend_from_slice(&data);
        let Some((at, end)) = self.line() else {
            let spare = self.before.len().saturating_sub(KEPT);
            self.before.drain(..spare);
            return None;
        };
        let after = Bytes::copy_from_slice(self.before.get(end + 1..).unwrap_or_default());
        if self.scan == Scan::Process {
            let said = self.before.get(at + self.marker.len()..end).unwrap_or_default();
            self.process = Process::parse(&String::from_utf8_lossy(said));
        }
        self.started = true;
        self.before.truncate(at);
        (!after.is_empty()).then_some(after)
    }

    /// Where the marker starts and where its line ends.
    fn line(&self) -> Option<(usize, usize)> {
        let at = find(&self.before, &self.marker)?;
        let length = self.before.get(at..)?.iter().position(|&byte| byte == b'\n')?;
        Some((at, at + length))
    }
}

/// The first place of `needle` in `hay`.
pub(crate) fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(scan: Scan, pieces: &[&str]) -> (String, StripNoise) {
        let mut strip = StripNoise::new("MARK", scan);
        let mut out = Vec::new();
        for piece in pieces {
            out.extend(strip.pass(Bytes::copy_from_slice(piece.as_bytes())).unwrap_or_default());
        }
        (String::from_utf8(out).unwrap(), strip)
    }

    #[test]
    fn noise_of_start_files_is_not_output() {
        let (out, strip) = passed(Scan::Plain, &["welcome! MA", "RK", "\nresult\n", "MARK\n"]);
        assert_eq!(out, "result\nMARK\n", "a marker in the output is output");
        assert_eq!(strip.noise(), b"welcome! ");
    }

    #[test]
    fn the_process_is_read_from_the_marker_line() {
        let (out, strip) = passed(Scan::Process, &["MARK 4711 (sh) S 4700 47", "11 4700 0 -1\nerror"]);
        assert_eq!(out, "error");
        assert_eq!(strip.process(), Some(&Process { pid: 4711, session: 4700 }));
    }

    #[test]
    fn endless_noise_does_not_fill_the_memory() {
        let (out, strip) = passed(Scan::Plain, &["x".repeat(1 << 20).as_str(), "y", "\nMARK\nfine"]);
        assert_eq!(out, "fine");
        assert!(strip.noise().len() <= KEPT + 16);
    }
}
