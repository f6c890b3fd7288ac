//! Unpacking while reading: a decoder on a thread of its own, and a short queue of pieces.
//!
//! Memory does not depend on the image's size: the decoder's dictionary, for xz at most [`Unpacking::memory`] more for
//! blocks that are unpacked side by side, and a queue of about two MiB.

mod xz;
mod zstd;

#[cfg(test)]
mod tests;

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    thread,
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, ReadBuf},
    sync::mpsc,
};

use super::Packing;

/// One piece of unpacked data.
const PIECE: usize = 256 << 10;
/// How many pieces may wait for the reader.
const QUEUE: usize = 6;

/// How much may be spent on unpacking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unpacking {
    /// Threads for xz files of several blocks (`xz -T0` and Armbian's images). Others are unpacked by one.
    pub threads: u32,
    /// Bytes that blocks unpacked side by side may take; with less room fewer threads are used. A single thread takes
    /// what the file's dictionary needs whatever this says: 9 MiB after `xz -6`, 65 MiB after `xz -9`.
    pub memory: u64,
}

impl Default for Unpacking {
    /// As many threads as there are cores, at most four, within 64 MiB.
    fn default() -> Self {
        let cores = thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1));
        Self { threads: cores.min(4), memory: 64 << 20 }
    }
}

impl Unpacking {
    /// One thread and the least memory: the dictionary and two MiB.
    pub fn lean() -> Self {
        Self { threads: 1, memory: 0 }
    }
}

/// The unpacked content of an image as a stream.
///
/// Ends without an error only after the whole file was unpacked and found sound: cut or damaged data, and anything that
/// follows it, is an error. Dropping it stops the decoder.
#[derive(Debug)]
pub struct Unpacked {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
    ended: bool,
    packed_read: Arc<AtomicU64>,
}

/// Counts what the decoder takes.
struct Counted {
    file: File,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

impl Unpacked {
    /// Starts unpacking a file. Must be called within a tokio runtime.
    pub(super) fn start(file: File, packing: Packing, settings: Unpacking) -> Self {
        let (sender, pieces) = mpsc::channel(QUEUE);
        let packed_read = Arc::new(AtomicU64::new(0));
        let input = Counted { file, read: Arc::clone(&packed_read) };
        // Not joined: it ends with the file, with an error, or when nobody listens any more.
        tokio::task::spawn_blocking(move || {
            let failed = decoder(input, packing, settings).and_then(|reader| pump(reader, &sender));
            if let Err(error) = failed {
                let _ = sender.blocking_send(Err(error));
            }
        });
        Self { pieces, current: Bytes::new(), ended: false, packed_read }
    }

    /// How far the decoder is in the packed file, in bytes: a progress that has a total even when the unpacked size is
    /// not known.
    pub fn packed_bytes_read(&self) -> u64 {
        self.packed_read.load(Ordering::Relaxed)
    }
}

/// Hands on pieces until the end, which is an empty one: a decoder that dies must not look like the end.
fn pump(mut reader: Box<dyn Read + Send>, to: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
    loop {
        let mut piece = BytesMut::zeroed(PIECE);
        let length = fill(&mut reader, &mut piece)?;
        piece.truncate(length);
        if to.blocking_send(Ok(piece.freeze())).is_err() || length == 0 {
            return Ok(());
        }
    }
}

/// Reads until the buffer is full or the end is there.
pub(super) fn fill(reader: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut have = 0;
    while let Some(rest) = buffer.get_mut(have..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest) {
            Ok(0) => break,
            Ok(read) => have += read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(have)
}

impl AsyncRead for Unpacked {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.current.is_empty() && !self.ended {
            match ready!(self.pieces.poll_recv(cx)) {
                Some(Ok(piece)) => {
                    self.ended = piece.is_empty();
                    self.current = piece;
                }
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => return Poll::Ready(Err(spoiled("the packed data broke the decoder"))),
            }
        }
        let length = self.current.len().min(buffer.remaining());
        buffer.put_slice(&self.current.split_to(length));
        Poll::Ready(Ok(()))
    }
}

/// The unpacked content of `input`, strictly: cut, damaged or followed by something is an error.
pub(super) fn decoder(
    input: impl Read + Send + 'static,
    packing: Packing,
    settings: Unpacking,
) -> io::Result<Box<dyn Read + Send>> {
    let mut input = BufReader::with_capacity(PIECE, input);
    let empty = input.fill_buf()?.is_empty();
    Ok(match packing {
        Packing::Raw => Box::new(input),
        _ if empty => return Err(spoiled("the file is empty")),
        Packing::Xz => Box::new(xz::Xz::new(input, settings)?),
        Packing::Zstd => Box::new(zstd::Zstd::new(input)),
        Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        Packing::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(input)),
    })
}

pub(super) fn open(path: &Path, packing: Packing, settings: Unpacking) -> io::Result<Box<dyn Read + Send>> {
    decoder(File::open(path)?, packing, settings)
}

fn spoiled(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}
