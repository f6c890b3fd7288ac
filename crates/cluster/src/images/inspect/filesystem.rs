//! File systems, by their superblocks.

use std::io;

use serde::{Deserialize, Serialize};

use super::{
    peek::Peek,
    table::{printable, u16_at, u32_at, u64_at},
};

/// A file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FileSystem {
    /// `ext4`, `ext3`, `ext2`, `btrfs`, `vfat`, `xfs` or `squashfs`.
    pub kind: String,
    /// Its label; often empty.
    pub label: String,
    /// Its UUID, or the serial number of a FAT as `1234-ABCD`.
    pub uuid: Option<String>,
    /// Its size.
    pub bytes: Option<u64>,
}

/// The file system that starts at `at`, if it is a known one.
pub(super) fn read(peek: &Peek, at: u64) -> io::Result<Option<FileSystem>> {
    let mut start = vec![0; 2048];
    let have = peek.up_to(at, &mut start)?;
    start.truncate(have);
    if let Some(found) =
        ext(&start).or_else(|| fat(&start)).or_else(|| xfs(&start)).or_else(|| squash(&start))
    {
        return Ok(Some(found));
    }
    let Some(at) = at.checked_add(64 << 10) else { return Ok(None) };
    Ok(peek.exactly(at, 4096)?.as_deref().and_then(btrfs))
}

fn text(bytes: &[u8], at: usize, length: usize) -> Option<String> {
    let bytes = bytes.get(at..)?.get(..length)?;
    let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    Some(printable(&String::from_utf8_lossy(bytes)))
}

/// A UUID as it is written down, big-endian.
fn uuid(bytes: &[u8], at: usize) -> Option<String> {
    let digits = hex::encode(bytes.get(at..)?.get(..16)?);
    let part = |range| digits.get::<std::ops::Range<usize>>(range);
    Some([part(0..8)?, part(8..12)?, part(12..16)?, part(16..20)?, part(20..32)?].join("-"))
}

/// Source: Linux, Documentation/filesystems/ext4/super.rst.
fn ext(start: &[u8]) -> Option<FileSystem> {
    let block = start.get(1024..2048)?;
    if u16_at(block, 56)? != 0xef53 {
        return None;
    }
    let (compatible, incompatible) = (u32_at(block, 92)?, u32_at(block, 96)?);
    let kind = match (incompatible & 0x2c0 != 0, compatible & 4 != 0) {
        (true, _) => "ext4",
        (false, true) => "ext3",
        (false, false) => "ext2",
    };
    let high = if incompatible & 0x80 != 0 { u64::from(u32_at(block, 0x150)?) << 32 } else { 0 };
    let blocks = high | u64::from(u32_at(block, 4)?);
    let block_bytes = 1024_u64.checked_shl(u32_at(block, 24)?).filter(|bytes| (1024..=65536).contains(bytes));
    Some(FileSystem {
        kind: kind.to_owned(),
        label: text(block, 120, 16)?,
        uuid: uuid(block, 104),
        bytes: block_bytes.and_then(|bytes| blocks.checked_mul(bytes)),
    })
}

fn fat(start: &[u8]) -> Option<FileSystem> {
    if start.get(510..512)? != [0x55, 0xaa] {
        return None;
    }
    let (label_at, serial_at) = if start.get(82..87)? == b"FAT32" {
        (71, 67)
    } else if start.get(54..58)? == b"FAT1" {
        (43, 39)
    } else {
        return None;
    };
    let sector = u64::from(u16_at(start, 11)?);
    let sectors = match u16_at(start, 19)? {
        0 => u64::from(u32_at(start, 32)?),
        count => u64::from(count),
    };
    let serial = u32_at(start, serial_at)?;
    let label = text(start, label_at, 11)?;
    Some(FileSystem {
        kind: "vfat".to_owned(),
        label: if label == "NO NAME" { String::new() } else { label },
        uuid: Some(format!("{:04X}-{:04X}", serial >> 16, serial & 0xffff)),
        bytes: sectors.checked_mul(sector),
    })
}

fn xfs(start: &[u8]) -> Option<FileSystem> {
    let big = |at: usize, length: usize| {
        Some(start.get(at..)?.get(..length)?.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte)))
    };
    (start.get(..4)? == b"XFSB").then_some(())?;
    Some(FileSystem {
        kind: "xfs".to_owned(),
        label: text(start, 108, 12)?,
        uuid: uuid(start, 32),
        bytes: big(8, 8)?.checked_mul(big(4, 4)?),
    })
}

fn squash(start: &[u8]) -> Option<FileSystem> {
    (start.get(..4)? == b"hsqs").then_some(())?;
    Some(FileSystem {
        kind: "squashfs".to_owned(),
        label: String::new(),
        uuid: None,
        bytes: u64_at(start, 40),
    })
}

fn btrfs(block: &[u8]) -> Option<FileSystem> {
    (block.get(64..72)? == b"_BHRfS_M").then_some(())?;
    Some(FileSystem {
        kind: "btrfs".to_owned(),
        label: text(block, 0x12b, 256)?,
        uuid: uuid(block, 32),
        bytes: u64_at(block, 112),
    })
}
