//! Partition tables: GPT (UEFI 2.10, chapter 5) and MBR, in sectors of 512 bytes.

use std::io;

use serde::{Deserialize, Serialize};

use super::{FileSystem, peek::Peek};

const SECTOR: u64 = 512;

/// The kind of a partition table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PartitionTable {
    /// GUID partition table.
    Gpt,
    /// Master boot record.
    Mbr,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Partition {
    /// Its number in the table, from 1.
    pub number: u32,
    /// Where it starts.
    pub start_bytes: u64,
    /// Its size.
    pub bytes: u64,
    /// Its type: a word for the usual ones, else the GUID or `0x83`.
    pub kind: String,
    /// Its name; GPT only, often empty.
    pub name: String,
    /// The file system in it.
    pub file_system: Option<FileSystem>,
}

pub(super) fn read(
    peek: &Peek,
    notes: &mut Vec<String>,
) -> io::Result<(Option<PartitionTable>, Vec<Partition>)> {
    let Some(sectors) = peek.exactly(0, 1024)? else { return Ok((None, Vec::new())) };
    let (boot, header) = sectors.split_at(512);
    if header.starts_with(b"EFI PART") {
        return Ok((Some(PartitionTable::Gpt), gpt(peek, header, notes)?));
    }
    match mbr(boot) {
        Some(partitions) => Ok((Some(PartitionTable::Mbr), partitions)),
        None => Ok((None, Vec::new())),
    }
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..)?.get(..2)?.try_into().ok()?))
}
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..)?.get(..4)?.try_into().ok()?))
}
pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..)?.get(..8)?.try_into().ok()?))
}

fn gpt(peek: &Peek, header: &[u8], notes: &mut Vec<String>) -> io::Result<Vec<Partition>> {
    let length = u32_at(header, 12).map_or(0, |n| n as usize);
    let said = u32_at(header, 16);
    let mut summed = header.get(..length).unwrap_or_default().to_vec();
    if let Some(field) = summed.get_mut(16..20) {
        field.fill(0);
    }
    if length < 92 || said != Some(crc32fast::hash(&summed)) {
        notes.push("the header of the partition table is damaged".to_owned());
        return Ok(Vec::new());
    }
    let at = u64_at(header, 72).and_then(|sector| sector.checked_mul(SECTOR)).unwrap_or(0);
    let count = u32_at(header, 80).unwrap_or(0).min(1024);
    let size = u32_at(header, 84).unwrap_or(0);
    if !(128..=4096).contains(&size) {
        notes.push("the header of the partition table is damaged".to_owned());
        return Ok(Vec::new());
    }
    let Some(entries) = peek.exactly(at, count as usize * size as usize)? else {
        notes.push("the partition table is cut".to_owned());
        return Ok(Vec::new());
    };
    if u32_at(header, 88) != Some(crc32fast::hash(&entries)) {
        notes.push("the entries of the partition table are damaged".to_owned());
    }
    let partition = |(number, entry): (u32, &[u8])| {
        let guid = guid(entry.get(..16)?)?;
        let (first, last) = (u64_at(entry, 32)?, u64_at(entry, 40)?);
        let sectors = last.checked_sub(first)?.checked_add(1)?;
        let name: Vec<u16> = entry
            .get(56..128)?
            .chunks_exact(2)
            .filter_map(|pair| u16_at(pair, 0))
            .take_while(|unit| *unit != 0)
            .collect();
        Some(Partition {
            number,
            start_bytes: first.checked_mul(SECTOR)?,
            bytes: sectors.checked_mul(SECTOR)?,
            kind: gpt_kind(&guid),
            name: printable(&String::from_utf16_lossy(&name)),
            file_system: None,
        })
    };
    Ok((1..)
        .zip(entries.chunks_exact(size as usize))
        .filter(|(_, entry)| entry.get(..16).is_some_and(|kind| kind != [0; 16]))
        .filter_map(partition)
        .collect())
}

/// The first three groups of a GUID are little-endian.
pub(super) fn guid(bytes: &[u8]) -> Option<String> {
    let (first, rest) = (u32_at(bytes, 0)?, bytes.get(8..16)?);
    let (head, tail) = rest.split_at(2);
    Some(format!(
        "{first:08x}-{:04x}-{:04x}-{}-{}",
        u16_at(bytes, 4)?,
        u16_at(bytes, 6)?,
        hex::encode(head),
        hex::encode(tail)
    ))
}

fn gpt_kind(guid: &str) -> String {
    match guid {
        "0fc63daf-8483-4772-8e79-3d69d8477de4" => "linux",
        "b921b045-1df0-41c3-af44-4c6f280d3fae" => "linux root (arm64)",
        "c12a7328-f81f-11d2-ba4b-00a0c93ec93b" => "efi system",
        "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7" => "data",
        "bc13c2ff-59e6-4262-a352-b275fd6f7172" => "linux boot",
        "21686148-6449-6e6f-744e-656564454649" => "bios boot",
        "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f" => "linux swap",
        other => other,
    }
    .to_owned()
}

/// The four entries of a boot record; `None` when it is none: a boot sector of a file system ends in the same bytes.
fn mbr(sector: &[u8]) -> Option<Vec<Partition>> {
    if sector.get(510..512)? != [0x55, 0xaa] {
        return None;
    }
    let mut partitions = Vec::new();
    for (number, entry) in (1..).zip(sector.get(446..510)?.chunks_exact(16)) {
        let (status, kind) = (*entry.first()?, *entry.get(4)?);
        let (first, count) = (u64::from(u32_at(entry, 8)?), u64::from(u32_at(entry, 12)?));
        if ![0, 0x80].contains(&status) {
            return None;
        }
        if kind == 0 || count == 0 {
            continue;
        }
        partitions.push(Partition {
            number,
            start_bytes: first * SECTOR,
            bytes: count * SECTOR,
            kind: match kind {
                0x83 => "linux".to_owned(),
                0x0b | 0x0c => "fat32".to_owned(),
                0x0e | 0x06 | 0x04 => "fat16".to_owned(),
                0x05 | 0x0f => "extended".to_owned(),
                0x82 => "linux swap".to_owned(),
                0xef => "efi system".to_owned(),
                0xee => "protective".to_owned(),
                other => format!("{other:#04x}"),
            },
            name: String::new(),
            file_system: None,
        });
    }
    (!partitions.is_empty()).then_some(partitions)
}

/// Text of an image as it may be shown: it could hold codes that a terminal obeys.
pub(super) fn printable(text: &str) -> String {
    text.trim_matches(|c: char| c == '\0' || c.is_whitespace())
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .take(200)
        .collect()
}
