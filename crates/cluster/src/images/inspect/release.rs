//! What the system of an image says of itself, read from its ext4 root without mounting it.

use std::{collections::BTreeMap, error::Error, io};

use ext4_view::{Ext4, Ext4Read};
use serde::{Deserialize, Serialize};

use super::{Partition, peek::Peek, table::printable};
use crate::images::Module;

/// A file that is longer than this is not what it should be.
const LONGEST: u64 = 64 << 10;

/// What a system says of itself. Everything comes from the image and is shown, never believed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SystemRelease {
    /// The partition that is its root.
    pub partition: u32,
    /// `PRETTY_NAME` of `/etc/os-release`: `Armbian 26.2.1 trixie`.
    pub name: String,
    /// `ID`: `debian`, `ubuntu`.
    pub id: Option<String>,
    /// `VERSION_ID`: `13`, `24.04`.
    pub version: Option<String>,
    /// `VERSION_CODENAME`: `trixie`.
    pub codename: Option<String>,
    /// Armbian: the board's id, `turing-rk1`.
    pub board: Option<String>,
    /// Armbian: the board's name, `Turing RK1`.
    pub board_name: Option<String>,
    /// Armbian: the kernel's branch, `vendor`, `current` or `edge`.
    pub branch: Option<String>,
    /// Armbian: its version.
    pub armbian_version: Option<String>,
    /// Kernels in `/lib/modules`.
    pub kernels: Vec<String>,
    /// Raspberry Pi OS: `/etc/rpi-issue` is there.
    pub raspberry_pi: bool,
}

impl SystemRelease {
    /// The module it is made for, where it says so.
    pub fn module(&self) -> Option<Module> {
        match self.board.as_deref() {
            Some("turing-rk1") => Some(Module::Rk1),
            Some(_) => None,
            None => {
                let raspberry =
                    self.raspberry_pi || self.kernels.iter().any(|kernel| kernel.ends_with("-raspi"));
                raspberry.then_some(Module::Cm4)
            }
        }
    }
}

/// The first of the partitions, largest first, that holds a system.
pub(super) fn read(
    peek: &Peek,
    partitions: &[Partition],
    notes: &mut Vec<String>,
) -> io::Result<Option<SystemRelease>> {
    let kind = |p: &Partition| p.file_system.as_ref().map(|fs| fs.kind.clone()).unwrap_or_default();
    let mut roots: Vec<&Partition> = partitions.iter().filter(|p| kind(p).starts_with("ext")).collect();
    roots.sort_by_key(|p| std::cmp::Reverse(p.bytes));
    for partition in roots {
        let part = Part { peek: peek.clone(), start: partition.start_bytes };
        match Ext4::load(Box::new(part)).map_err(|e| e.to_string()).map(|fs| system(&fs, partition.number)) {
            Ok(Some(system)) => return Ok(Some(system)),
            Ok(None) => {}
            Err(text) => notes.push(format!(
                "the file system of partition {} cannot be read: {}",
                partition.number,
                printable(&text)
            )),
        }
    }
    if partitions.iter().any(|p| ["btrfs", "xfs"].contains(&kind(p).as_str())) {
        notes.push("release names are read from ext4 only".to_owned());
    }
    Ok(None)
}

fn system(fs: &Ext4, partition: u32) -> Option<SystemRelease> {
    let release = variables(&text(fs, "/etc/os-release").or_else(|| text(fs, "/usr/lib/os-release"))?);
    let armbian = text(fs, "/etc/armbian-release").map(|text| variables(&text)).unwrap_or_default();
    let said = |of: &BTreeMap<String, String>, key: &str| of.get(key).filter(|v| !v.is_empty()).cloned();
    let mut kernels: Vec<String> = ["/lib/modules", "/usr/lib/modules"]
        .into_iter()
        .find_map(|folder| fs.read_dir(folder).ok())
        .into_iter()
        .flatten()
        .take(64)
        .filter_map(|entry| Some(printable(entry.ok()?.file_name().as_str().ok()?)))
        .filter(|name| !name.starts_with('.'))
        .collect();
    kernels.sort();
    Some(SystemRelease {
        partition,
        name: said(&release, "PRETTY_NAME").or_else(|| said(&release, "NAME")).unwrap_or_default(),
        id: said(&release, "ID"),
        version: said(&release, "VERSION_ID"),
        codename: said(&release, "VERSION_CODENAME"),
        board: said(&armbian, "BOARD"),
        board_name: said(&armbian, "BOARD_NAME"),
        branch: said(&armbian, "BRANCH"),
        armbian_version: said(&armbian, "VERSION"),
        kernels,
        raspberry_pi: fs.exists("/etc/rpi-issue").unwrap_or(false),
    })
}

fn text(fs: &Ext4, path: &str) -> Option<String> {
    fs.metadata(path).ok().filter(|found| found.len() <= LONGEST)?;
    Some(String::from_utf8_lossy(&fs.read(path).ok()?).into_owned())
}

/// `KEY=value` and `KEY="a value"` lines; everything else is left out.
pub(super) fn variables(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| {
            let (key, value) = line.trim().split_once('=')?;
            let value = value.trim();
            let bare = ['"', '\'']
                .into_iter()
                .find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote))
                .unwrap_or(value);
            let is_key = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            is_key.then(|| (key.to_owned(), printable(bare)))
        })
        .collect()
}

/// A partition as the file system's reader wants it.
struct Part {
    peek: Peek,
    start: u64,
}

impl Ext4Read for Part {
    fn read(&mut self, at: u64, buffer: &mut [u8]) -> Result<(), Box<dyn Error + Send + Sync + 'static>> {
        let at = self.start.checked_add(at).ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        match self.peek.up_to(at, buffer)? == buffer.len() {
            true => Ok(()),
            false => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
    }
}
