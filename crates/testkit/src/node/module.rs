//! The node as a board's hardware sees it.

use std::{
    io::{Error, ErrorKind, Result},
    sync::Arc,
};

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};

use super::{Node, disk, lock};
use crate::{Module, ModuleKind, OsImage, Uart};

/// A node in a slot.
pub(crate) struct Slotted(pub(crate) Arc<Node>);

#[async_trait]
impl Module for Slotted {
    fn kind(&self) -> ModuleKind {
        self.0.plan.kind
    }
    fn emmc_bytes(&self) -> u64 {
        if self.0.plan.kind == ModuleKind::Cm4Lite { 0 } else { self.0.plan.emmc }
    }
    fn bootable(&self) -> bool {
        self.0.bootable()
    }
    async fn set_power(&self, on: bool, loader: bool) {
        self.0.set_power(on, loader);
    }
    fn powered(&self) -> bool {
        lock(&self.0.hardware).powered
    }
    async fn write_emmc(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut hardware = lock(&self.0.hardware);
        if self.emmc_bytes() == 0 {
            return Err(Error::new(ErrorKind::NotFound, "the module has no eMMC"));
        }
        if offset == 0 {
            hardware.emmc.clear();
            hardware.flashes += 1;
            hardware.rewritten = true;
        }
        let end = offset + bytes.len() as u64;
        if end > self.emmc_bytes() {
            return Err(Error::new(ErrorKind::StorageFull, "beyond the end of the eMMC"));
        }
        let (Ok(start), Ok(end)) = (usize::try_from(offset), usize::try_from(end)) else {
            return Err(Error::from(ErrorKind::InvalidInput));
        };
        if hardware.emmc.len() < end {
            hardware.emmc.resize(end, 0);
        }
        if let Some(target) = hardware.emmc.get_mut(start..end) {
            target.copy_from_slice(bytes);
        }
        Ok(())
    }
    async fn read_emmc(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        let hardware = lock(&self.0.hardware);
        let start = usize::try_from(offset).map_err(|_| Error::from(ErrorKind::InvalidInput))?;
        let mut bytes: Vec<u8> = hardware.emmc.iter().skip(start).take(length).copied().collect();
        // Beyond what was written the eMMC is erased.
        let left = self.emmc_bytes().saturating_sub(offset + bytes.len() as u64);
        let missing = u64::try_from(length - bytes.len()).unwrap_or(u64::MAX).min(left);
        bytes.resize(bytes.len() + usize::try_from(missing).unwrap_or(0), 0);
        Ok(bytes)
    }
    fn uart(&self) -> &Uart {
        &self.0.uart
    }
    async fn type_line(&self, line: &str) {
        self.0.type_line(line);
    }
}

impl Node {
    /// Whether the eMMC holds a whole image, or a system that was installed with it.
    pub(crate) fn bootable(&self) -> bool {
        let hardware = lock(&self.hardware);
        match OsImage::parse(&hardware.emmc) {
            Some(_) => true,
            // An older system on the eMMC is gone when it was written over; one on the NVMe disk is not.
            None => {
                self.os(|os| {
                    let root = disk::root(&os.disks);
                    root.is_some_and(|root| root.starts_with("/dev/nvme") || !hardware.rewritten)
                }) == Some(true)
            }
        }
    }
    /// The image on the eMMC and the SHA-256 of its raw bytes.
    pub(crate) fn image(&self) -> Option<(OsImage, String)> {
        let hardware = lock(&self.hardware);
        let image = OsImage::parse(&hardware.emmc)?;
        let raw = hardware.emmc.get(..image.size)?;
        let digest = hex::encode(Sha256::digest(raw));
        Some((image, digest))
    }
    /// Switches the power. Switching on what is on changes nothing, except that it leaves the loader.
    pub(crate) fn set_power(self: &Arc<Self>, on: bool, loader: bool) {
        {
            let mut hardware = lock(&self.hardware);
            if hardware.powered == on && (!on || hardware.loader == loader) {
                return;
            }
            if on && !hardware.powered {
                hardware.power_ons += 1;
            }
            hardware.powered = on;
            hardware.loader = on && loader;
        }
        self.halt();
        if on && !loader {
            self.start();
        }
    }
}
