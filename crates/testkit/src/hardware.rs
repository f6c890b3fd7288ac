//! The seam between a board and the compute modules in its slots.

use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::Notify;

/// What sits in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ModuleKind {
    /// Turing RK1 (RK3588), eMMC on board.
    Rk1,
    /// Raspberry Pi CM4 with eMMC.
    Cm4,
    /// Raspberry Pi CM4 Lite: no eMMC.
    Cm4Lite,
    /// An NVIDIA Jetson: cannot be flashed over the board's USB.
    Jetson,
}

/// A compute module as the board's hardware sees it: power, a USB loader, a serial line.
#[async_trait]
pub trait Module: Send + Sync {
    /// What it is.
    fn kind(&self) -> ModuleKind;
    /// The eMMC's size in bytes; 0 when there is none.
    fn emmc_bytes(&self) -> u64;
    /// Whether the eMMC holds something the module can boot. A module without it waits in its boot ROM when powered,
    /// and the board's USB bus sees it.
    fn bootable(&self) -> bool;
    /// Switches the real power. On: it boots what is on its eMMC, or waits in the loader when `loader` is set.
    /// Off: everything that runs on it ends at once.
    async fn set_power(&self, on: bool, loader: bool);
    /// Whether it really has power.
    fn powered(&self) -> bool;
    /// Writes to the eMMC through the loader. The first write of a flash is at offset 0 and drops what was there.
    async fn write_emmc(&self, offset: u64, bytes: &[u8]) -> std::io::Result<()>;
    /// Reads the eMMC back through the loader; up to `length` bytes.
    async fn read_emmc(&self, offset: u64, length: usize) -> std::io::Result<Vec<u8>>;
    /// The serial line.
    fn uart(&self) -> &Uart;
    /// A line the BMC typed on the serial line, without its line end.
    async fn type_line(&self, line: &str);
}

/// What a node wrote on its serial line: the ring buffer the BMC keeps.
#[derive(Debug)]
pub struct Uart {
    ring: Mutex<Ring>,
    written: Notify,
}

#[derive(Debug)]
struct Ring {
    bytes: Vec<u8>,
    capacity: usize,
    /// Bytes ever written.
    total: u64,
}

impl Uart {
    /// A ring of `capacity` bytes (16 KiB on the real one, 64 KiB with firmware 1.x).
    pub fn new(capacity: usize) -> Self {
        let ring = Ring { bytes: Vec::new(), capacity, total: 0 };
        Self { ring: Mutex::new(ring), written: Notify::new() }
    }
    /// The node writes.
    pub fn write(&self, bytes: &[u8]) {
        {
            let mut ring = self.ring();
            ring.bytes.extend_from_slice(bytes);
            ring.total += bytes.len() as u64;
            ring.shorten();
        }
        self.written.notify_waiters();
    }
    /// Everything in the ring, left in place (firmware 2.1 and later).
    pub fn peek(&self) -> Vec<u8> {
        self.ring().bytes.clone()
    }
    /// Everything in the ring, which is empty afterwards (firmware up to 2.0.5).
    pub fn drain(&self) -> Vec<u8> {
        std::mem::take(&mut self.ring().bytes)
    }
    /// A ring of another size: the BMC's firmware decides it.
    pub(crate) fn resize(&self, capacity: usize) {
        let mut ring = self.ring();
        ring.capacity = capacity;
        ring.shorten();
    }
    /// Bytes ever written: a mark to read on from.
    pub(crate) fn mark(&self) -> u64 {
        self.ring().total
    }
    /// Waits for bytes written after `mark`; what is still in the ring of them, and the next mark.
    pub(crate) async fn after(&self, mark: u64) -> (Vec<u8>, u64) {
        loop {
            let written = self.written.notified();
            tokio::pin!(written);
            written.as_mut().enable();
            {
                let ring = self.ring();
                let fresh = usize::try_from(ring.total.saturating_sub(mark)).unwrap_or(usize::MAX);
                if fresh > 0 {
                    let from = ring.bytes.len().saturating_sub(fresh);
                    return (ring.bytes.get(from..).unwrap_or_default().to_vec(), ring.total);
                }
            }
            written.await;
        }
    }
    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    fn shorten(&mut self) {
        let over = self.bytes.len().saturating_sub(self.capacity);
        self.bytes.drain(..over);
    }
}
