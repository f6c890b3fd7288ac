//! What is inside an image, without root and without mounting anything.

mod filesystem;
mod foreign;
mod peek;
mod release;
mod table;

#[cfg(test)]
mod tests;

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use turingpi_engine::Failure;

use super::{ImageFile, Module, Packing, file::unusable};
pub use filesystem::FileSystem;
use peek::Peek;
pub use release::SystemRelease;
pub use table::{Partition, PartitionTable};

/// What a file is, once unpacked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Content {
    /// A disk: a partition table, and partitions.
    Disk,
    /// One file system without a partition table: no module boots it.
    FileSystem,
    /// No disk image, and what it is instead: `an HTML page`.
    Foreign(String),
    /// Nothing that is known.
    Unknown,
}

/// How far to look.
#[derive(Debug, Clone)]
pub struct InspectOptions {
    /// Where a packed image is unpacked to for the moment, as far as is needed, into a file with holes.
    pub scratch: PathBuf,
    /// Bytes of an image that are unpacked at most. What lies beyond stays unknown.
    pub most: u64,
}

impl InspectOptions {
    /// With `scratch` as the place to unpack to, 32 GiB at most.
    pub fn new(scratch: impl Into<PathBuf>) -> Self {
        Self { scratch: scratch.into(), most: 32 << 30 }
    }
}

/// What is inside an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Inspection {
    /// What it is.
    pub content: Content,
    /// How it is packed.
    pub packing: Packing,
    /// Bytes of the file.
    pub packed_bytes: u64,
    /// Bytes that are written to the eMMC; unknown where neither the format told nor all was unpacked.
    pub raw_bytes: Option<u64>,
    /// Bytes an eMMC needs at least: where the last partition ends, or all there is.
    pub needed_bytes: Option<u64>,
    /// The smallest of the usual eMMC sizes that it fits, in GB as they are sold.
    pub smallest_emmc_gb: Option<u32>,
    /// The kind of partition table.
    pub table: Option<PartitionTable>,
    /// Its partitions in the order of the table.
    pub partitions: Vec<Partition>,
    /// What the system in it says of itself.
    pub system: Option<SystemRelease>,
    /// Whether a Rockchip boot loader lies where the RK1 looks for one.
    pub rockchip_loader: bool,
    /// The module it is made for, where that can be told.
    pub module: Option<Module>,
    /// What else a person should know.
    pub notes: Vec<String>,
}

impl Inspection {
    /// Looks inside an image. A packed one is unpacked as far as is needed, in pieces, to a file that is gone afterwards.
    ///
    /// # Errors
    /// `Config` when the file cannot be read or what was needed of it is damaged. Content that is no image is no error.
    pub async fn of(file: &ImageFile, options: &InspectOptions) -> Result<Self, Failure> {
        let (image, options) = (file.clone(), options.clone());
        let looked = tokio::task::spawn_blocking(move || look(&image, &options)).await;
        looked
            .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::InvalidData, "it cannot be made sense of")))
            .map_err(|e| unusable(file.path(), e))
    }
}

/// The usual sizes of an eMMC, in GB as they are sold.
const EMMC_GB: [u32; 6] = [8, 16, 32, 64, 128, 256];

/// Where the boot ROM of an RK3588 looks for its loader: sector 64.
const LOADER_AT: u64 = 64 * 512;

fn look(image: &ImageFile, options: &InspectOptions) -> io::Result<Inspection> {
    let peek = Peek::open(image.path(), image.packing(), image.packed_bytes(), options)?;
    let mut notes = Vec::new();
    let mut start = vec![0; foreign::NEEDED];
    let have = peek.up_to(0, &mut start)?;
    start.truncate(have);

    let foreign = foreign::kind(&start);
    let (table, mut partitions) = match foreign {
        Some(_) => (None, Vec::new()),
        None => table::read(&peek, &mut notes)?,
    };
    let mut content = match (foreign, &table) {
        (Some(kind), _) => Content::Foreign(kind.to_owned()),
        (None, Some(_)) => Content::Disk,
        (None, None) => Content::Unknown,
    };
    for partition in &mut partitions {
        partition.file_system = filesystem::read(&peek, partition.start_bytes)?;
    }
    if content == Content::Unknown && filesystem::read(&peek, 0)?.is_some() {
        content = Content::FileSystem;
    }
    let system = match content {
        Content::Disk => release::read(&peek, &partitions, &mut notes)?,
        _ => None,
    };
    let mut magic = [0; 4];
    let rockchip_loader = content == Content::Disk
        && peek.up_to(LOADER_AT, &mut magic)? == 4
        && (&magic == b"RKNS" || magic == [0x3b, 0x8c, 0xdc, 0xfc]);

    let raw_bytes = match image.raw_bytes() {
        Some(bytes) => Some(bytes),
        None => peek.size()?,
    };
    let end = partitions.iter().map(|p| p.start_bytes.saturating_add(p.bytes)).max();
    let needed_bytes = match content {
        Content::Disk => raw_bytes.max(end),
        _ => None,
    };
    if let (Some(raw), Some(end)) = (raw_bytes, end)
        && end > raw
    {
        notes.push(format!("the last partition ends {} bytes behind the end of the image", end - raw));
    }
    let module = system.as_ref().and_then(SystemRelease::module).or(rockchip_loader.then_some(Module::Rk1));
    if content == Content::Disk && module == Some(Module::Rk1) && !rockchip_loader {
        notes.push("no Rockchip boot loader lies at sector 64: an RK1 does not start from it".to_owned());
    }
    Ok(Inspection {
        content,
        packing: image.packing(),
        packed_bytes: image.packed_bytes(),
        raw_bytes,
        needed_bytes,
        smallest_emmc_gb: needed_bytes.and_then(smallest_emmc),
        table,
        partitions,
        system,
        rockchip_loader,
        module,
        notes,
    })
}

/// An eMMC holds somewhat less than it is sold as: at least nine tenths.
fn smallest_emmc(bytes: u64) -> Option<u32> {
    EMMC_GB.into_iter().find(|gb| bytes <= u64::from(*gb) * 900_000_000)
}

/// What a file is instead of a disk image, by its beginning alone; packed files are unpacked for that far.
pub(super) fn glance(path: &Path) -> io::Result<Option<&'static str>> {
    let mut start = vec![0; Packing::SNIFF];
    let have = super::unpack::fill(&mut File::open(path)?, &mut start)?;
    let packing = Packing::of(start.get(..have).unwrap_or_default());
    let mut reader = super::unpack::open(path, packing, super::Unpacking::lean())?;
    let mut start = vec![0; foreign::NEEDED];
    let have = super::unpack::fill(&mut reader, &mut start)?;
    Ok(foreign::kind(start.get(..have).unwrap_or_default()))
}
