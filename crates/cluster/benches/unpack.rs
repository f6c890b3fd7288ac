//! How fast images are unpacked while they are read, side by side in one run.
//!
//! `cargo bench -p turingpi-cluster --bench unpack -- 2048` makes an image of so many MiB (2 GiB by default; a third of
//! it zeros, a third like programs, a third noise), packs it, and reads it through the stream that a flash uses.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::expect_used, reason = "a benchmark")]

use std::{
    fs::File,
    io::{BufWriter, Read, Write},
    path::Path,
    time::Instant,
};

use tokio::io::AsyncReadExt;
use turingpi_cluster::images::{ImageFile, Unpacking};

const MIB: usize = 1 << 20;

/// Content that packs about as well as a system does, always the same.
struct Content {
    left: usize,
    state: u64,
    page: Vec<u8>,
}

impl Content {
    fn new(mib: usize) -> Self {
        Self { left: mib, state: 7, page: Vec::new() }
    }

    fn next_page(&mut self) {
        self.page.clear();
        let kind = self.left % 3;
        while self.page.len() < MIB {
            self.state =
                self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let word = self.state >> 16;
            match kind {
                0 => self.page.extend_from_slice(&[0; 8]),
                // Words of a small vocabulary with noise between them.
                1 => {
                    let words: [&[u8; 8]; 4] =
                        [b"\x00\x00\x80\xd2add ", b"mov x0, ", b"\xfd\x7b\xbf\xa9stp ", b"ldr x19 "];
                    self.page.extend_from_slice(words[(word % 4) as usize]);
                    self.page.extend_from_slice(&word.to_le_bytes()[..2]);
                }
                _ => self.page.extend_from_slice(&word.to_le_bytes()[..6]),
            }
        }
        self.page.truncate(MIB);
        self.left -= 1;
    }
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.page.is_empty() {
            if self.left == 0 {
                return Ok(0);
            }
            self.next_page();
        }
        let length = buffer.len().min(self.page.len());
        buffer[..length].copy_from_slice(&self.page[..length]);
        self.page.drain(..length);
        Ok(length)
    }
}

fn pack(path: &Path, mib: usize, packing: &str) {
    let file = BufWriter::with_capacity(MIB, File::create(path).unwrap());
    let mut content = Content::new(mib);
    match packing {
        "xz, one block" => {
            let mut to = liblzma::write::XzEncoder::new(file, 0);
            std::io::copy(&mut content, &mut to).unwrap();
            to.finish().unwrap().flush().unwrap();
        }
        "xz, blocks of 12 MiB" => {
            let mut builder = liblzma::stream::MtStreamBuilder::new();
            let stream = builder.threads(2).preset(0).block_size(12 << 20).encoder().unwrap();
            let mut to = liblzma::write::XzEncoder::new_stream(file, stream);
            std::io::copy(&mut content, &mut to).unwrap();
            to.finish().unwrap().flush().unwrap();
        }
        "zstd" => ruzstd::encoding::compress(content, file, ruzstd::encoding::CompressionLevel::Fastest),
        "gzip" => {
            let mut to = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
            std::io::copy(&mut content, &mut to).unwrap();
            to.finish().unwrap().flush().unwrap();
        }
        "bzip2" => {
            let mut to = bzip2::write::BzEncoder::new(file, bzip2::Compression::fast());
            std::io::copy(&mut content, &mut to).unwrap();
            to.finish().unwrap().flush().unwrap();
        }
        _ => {
            let mut file = file;
            std::io::copy(&mut content, &mut file).unwrap();
            file.flush().unwrap();
        }
    }
}

/// The most memory this process has had, in MiB; Linux only.
fn peak() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse().ok());
    kib.map_or_else(|| "?".to_owned(), |kib: u64| (kib / 1024).to_string())
}

/// Starts the count of memory anew, where the system lets us.
fn forget_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn main() {
    let mib = std::env::args().find_map(|arg| arg.parse().ok()).unwrap_or(2048);
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    println!("{mib} MiB unpacked; MiB/s of output, the peak of memory in MiB");
    for packing in ["raw", "xz, one block", "xz, blocks of 12 MiB", "zstd", "gzip", "bzip2"] {
        // These are slow to make or to read, and a part tells as much.
        let mib = if ["bzip2", "zstd"].contains(&packing) { mib / 8 } else { mib }.max(1);
        let path = folder.path().join("image");
        pack(&path, mib, packing);
        for (name, settings) in [("lean", Unpacking::lean()), ("default", Unpacking::default())] {
            forget_peak();
            let started = Instant::now();
            let bytes = runtime.block_on(async {
                let image = ImageFile::open(&path).await.unwrap();
                let mut content = image.unpacked(settings).await.unwrap();
                let mut buffer = vec![0; 256 << 10];
                let mut bytes = 0;
                loop {
                    match content.read(&mut buffer).await.unwrap() {
                        0 => return bytes,
                        read => bytes += read,
                    }
                }
            });
            assert_eq!(bytes, mib * MIB);
            let rate = mib as f64 / started.elapsed().as_secs_f64();
            println!("{packing:22} {name:8} {rate:7.0} MiB/s  {:>5} MiB", peak());
        }
    }
}
