//! Where a job's bytes come from: an upload, a file on the SD card, or a web server; and how they are unpacked.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use liblzma::stream::{Action, CONCATENATED, Status, Stream};
use sha2::{Digest as _, Sha256};
use tokio::{io::AsyncReadExt as _, net::TcpStream, sync::mpsc};

/// Unpacked bytes that are handed on at once.
const UNPACKED: usize = 64 * 1024;
/// What a local file is read in.
const FILE_PIECE: usize = 64 * 1024;

/// The raw bytes of a job.
#[derive(Debug)]
pub(super) enum Origin {
    Upload(mpsc::Receiver<Bytes>),
    File { bytes: Arc<[u8]>, at: usize },
    Web(WebBody),
}

/// A download by the BMC itself: a plain HTTP answer of known length.
#[derive(Debug)]
pub(super) struct WebBody {
    pub(super) stream: TcpStream,
    /// What was read together with the head.
    pub(super) early: Bytes,
    pub(super) left: u64,
}

impl WebBody {
    async fn next(&mut self) -> Option<Result<Bytes, String>> {
        if self.left == 0 {
            return None;
        }
        let mut piece = std::mem::take(&mut self.early);
        if piece.is_empty() {
            let mut buffer = BytesMut::with_capacity(FILE_PIECE);
            match self.stream.read_buf(&mut buffer).await {
                Ok(1..) => piece = buffer.freeze(),
                Ok(0) | Err(_) => return Some(Err("error decoding response body".to_owned())),
            }
        }
        piece.truncate(usize::try_from(self.left).unwrap_or(piece.len()));
        self.left -= piece.len() as u64;
        Some(Ok(piece))
    }
}

impl Origin {
    async fn next(&mut self) -> Option<Result<Bytes, String>> {
        match self {
            Self::Upload(receiver) => receiver.recv().await.map(Ok),
            Self::File { bytes, at } => {
                let end = (*at + FILE_PIECE).min(bytes.len());
                let piece = bytes.get(*at..end).filter(|piece| !piece.is_empty())?;
                *at = end;
                Some(Ok(Bytes::copy_from_slice(piece)))
            }
            Self::Web(body) => body.next().await,
        }
    }
}

/// A job's bytes as they are to be written: checked and, by the name `.xz` only, unpacked.
#[derive(Debug)]
pub(super) struct Source {
    origin: Origin,
    /// Of the bytes as sent.
    hasher: Sha256,
    expected: Option<Vec<u8>>,
    unpacker: Option<Unpacker>,
    consumed: u64,
    ready: Vec<Bytes>,
    ended: bool,
}

impl Source {
    /// `unpacks` is the memory that the unpacker may take.
    pub(super) fn new(origin: Origin, expected: Option<Vec<u8>>, unpacks: Option<u64>) -> Self {
        Self {
            origin,
            hasher: Sha256::new(),
            expected,
            unpacker: unpacks.map(|memory| Unpacker { memory, stream: None }),
            consumed: 0,
            ready: Vec::new(),
            ended: false,
        }
    }
    /// Bytes taken from the origin: of a packed source, packed bytes.
    pub(super) fn consumed(&self) -> u64 {
        self.consumed
    }
    /// The next bytes to write; `None` at the end. A wrong hash shows only there, when all has been handed out.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, String>> {
        loop {
            if !self.ready.is_empty() {
                return Some(Ok(self.ready.remove(0)));
            }
            if self.ended {
                return None;
            }
            match self.origin.next().await {
                Some(Ok(piece)) => {
                    self.consumed += piece.len() as u64;
                    self.hasher.update(&piece);
                    match &mut self.unpacker {
                        None => return Some(Ok(piece)),
                        Some(unpacker) => match unpacker.feed(&piece) {
                            Ok(unpacked) => self.ready = unpacked,
                            Err(text) => return self.fail(text),
                        },
                    }
                }
                Some(Err(text)) => return self.fail(text),
                None => {
                    self.ended = true;
                    if let Err(text) = self.check_end() {
                        return Some(Err(text));
                    }
                }
            }
        }
    }
    fn fail(&mut self, text: String) -> Option<Result<Bytes, String>> {
        self.ended = true;
        Some(Err(text))
    }
    fn check_end(&mut self) -> Result<(), String> {
        let got = std::mem::take(&mut self.hasher).finalize();
        if let Some(expected) = &self.expected
            && expected.as_slice() != got.as_slice()
        {
            let (expected, got) = (hex::encode(expected), hex::encode(got));
            return Err(format!("sha256 checksum failed. Expected: {expected}, got: {got}"));
        }
        match &mut self.unpacker {
            // Nothing at all was sent: there is nothing to unpack either.
            Some(unpacker) if self.consumed > 0 => unpacker.finish().map(|rest| self.ready = rest),
            _ => Ok(()),
        }
    }
}

/// Streamed xz, several members one after the other.
struct Unpacker {
    memory: u64,
    stream: Option<Stream>,
}

impl std::fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Unpacker")
    }
}

impl Unpacker {
    fn stream(&mut self) -> Result<&mut Stream, String> {
        if self.stream.is_none() {
            let stream = Stream::new_stream_decoder(self.memory, CONCATENATED).map_err(|e| e.to_string())?;
            self.stream = Some(stream);
        }
        self.stream.as_mut().ok_or_else(|| "lzma data error".to_owned())
    }
    fn feed(&mut self, packed: &[u8]) -> Result<Vec<Bytes>, String> {
        let stream = self.stream()?;
        let (mut unpacked, mut at) = (Vec::new(), 0);
        loop {
            let mut piece = Vec::with_capacity(UNPACKED);
            let before = stream.total_in();
            let rest = packed.get(at..).unwrap_or_default();
            stream.process_vec(rest, &mut piece, Action::Run).map_err(|error| error.to_string())?;
            at += usize::try_from(stream.total_in() - before).unwrap_or(rest.len());
            let full = piece.len() == piece.capacity();
            if !piece.is_empty() {
                unpacked.push(piece.into());
            }
            if at >= packed.len() && !full {
                return Ok(unpacked);
            }
        }
    }
    fn finish(&mut self) -> Result<Vec<Bytes>, String> {
        let stream = self.stream()?;
        let mut unpacked = Vec::new();
        loop {
            let mut piece = Vec::with_capacity(UNPACKED);
            let status =
                stream.process_vec(&[], &mut piece, Action::Finish).map_err(|error| error.to_string())?;
            let ended = status == Status::StreamEnd;
            let stuck = piece.is_empty();
            if !stuck {
                unpacked.push(piece.into());
            }
            if ended {
                return Ok(unpacked);
            }
            if stuck {
                return Err("lzma data error".to_owned());
            }
        }
    }
}

/// Whether the daemon unpacks a file of this name: the extension is exactly `xz`.
pub(super) fn is_xz_name(name: &str) -> bool {
    std::path::Path::new(name).extension().is_some_and(|extension| extension == "xz")
}
