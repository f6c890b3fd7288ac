//! Request bodies: small ones, and an image that streams.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame, SizeHint};
use sha2::{Digest, Sha256};
use tokio::io::AsyncRead;

/// One read of the image, and one piece handed to the connection. The connection keeps at most two on their way.
const PIECE: usize = 256 * 1024;

pub(crate) enum Payload {
    Empty,
    Whole(Bytes),
    Image(Box<ImageBody>),
}

impl Body for Payload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Self::Image(image) => {
                Poll::Ready(ready!(image.poll_piece(cx)).transpose().map(|piece| piece.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Empty)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Self::Empty => 0,
            Self::Whole(bytes) => bytes.len() as u64,
            Self::Image(image) => image.total(),
        })
    }
}

/// What the streaming body tells the one who waits for the answer.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    bytes: AtomicU64,
    outcome: Mutex<Outcome>,
}

#[derive(Debug, Default, Clone)]
struct Outcome {
    problem: Option<(&'static str, Option<(io::ErrorKind, String)>)>,
    sha256: Option<String>,
    complete: bool,
}

impl Sent {
    /// Bytes of the image handed to the connection.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
    /// Whether the whole body went out.
    pub(crate) fn complete(&self) -> bool {
        self.lock().complete
    }
    /// The digest of what went out, if it was asked for and all of it went out.
    pub(crate) fn sha256(&self) -> Option<String> {
        self.lock().sha256.clone()
    }
    /// What is wrong with the image, if that ended the upload.
    pub(crate) fn problem(&self) -> Option<(&'static str, Option<io::Error>)> {
        let (problem, source) = self.lock().problem.clone()?;
        Some((problem, source.map(|(kind, text)| io::Error::new(kind, text))))
    }
    fn lock(&self) -> std::sync::MutexGuard<'_, Outcome> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An image as `multipart/form-data` with exactly one part, of a length known beforehand.
pub(crate) struct ImageBody {
    reader: Box<dyn AsyncRead + Send + Unpin>,
    stage: Stage,
    head: Bytes,
    tail: Bytes,
    length: u64,
    left: u64,
    piece: BytesMut,
    last: Bytes,
    hasher: Option<Sha256>,
    expected: Option<String>,
    sent: Arc<Sent>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Head,
    Data,
    Tail,
    End,
}

impl ImageBody {
    /// `hash` computes the digest while sending, and compares it with `expected` before the last byte goes out, so that
    /// the BMC takes a changed image for an aborted upload.
    pub(crate) fn new(
        reader: Box<dyn AsyncRead + Send + Unpin>,
        length: u64,
        boundary: &str,
        hash: bool,
        expected: Option<String>,
        sent: Arc<Sent>,
    ) -> Self {
        let head = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"image\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        Self {
            reader,
            stage: Stage::Head,
            head: Bytes::from(head),
            tail: Bytes::from(format!("\r\n--{boundary}--\r\n")),
            length,
            left: length,
            piece: BytesMut::new(),
            last: Bytes::new(),
            hasher: hash.then(Sha256::new),
            expected,
            sent,
        }
    }

    pub(crate) fn total(&self) -> u64 {
        self.length + self.head.len() as u64 + self.tail.len() as u64
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        match self.stage {
            Stage::Head => {
                self.stage = Stage::Data;
                Poll::Ready(Ok(Some(self.head.clone())))
            }
            Stage::Data => {
                if self.left > 0 {
                    let piece = ready!(self.poll_data(cx))?;
                    if self.left > 0 {
                        return Poll::Ready(Ok(Some(self.count(piece))));
                    }
                    self.last = piece;
                }
                // The last piece waits here until the image has proved to be the declared one.
                ready!(self.poll_end(cx))?;
                self.stage = Stage::Tail;
                let last = std::mem::take(&mut self.last);
                Poll::Ready(Ok(Some(self.count(last))))
            }
            Stage::Tail => {
                self.stage = Stage::End;
                self.sent.lock().complete = true;
                Poll::Ready(Ok(Some(self.tail.clone())))
            }
            Stage::End => Poll::Ready(Ok(None)),
        }
    }

    fn count(&self, piece: Bytes) -> Bytes {
        self.sent.bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
        piece
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        if self.piece.capacity() < PIECE / 4 {
            self.piece.reserve(PIECE);
        }
        let read = ready!(tokio_util::io::poll_read_buf(Pin::new(&mut self.reader), cx, &mut self.piece));
        let read = read.map_err(|error| self.fail("it cannot be read", Some(&error)))? as u64;
        if read == 0 {
            return Poll::Ready(Err(self.fail("it is shorter than declared", None)));
        }
        if read > self.left {
            return Poll::Ready(Err(self.fail("it is longer than declared", None)));
        }
        self.left -= read;
        let piece = self.piece.split().freeze();
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&piece);
        }
        Poll::Ready(Ok(piece))
    }

    /// The image must end here, and be the declared one.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.piece.reserve(1);
        let read = ready!(tokio_util::io::poll_read_buf(Pin::new(&mut self.reader), cx, &mut self.piece));
        if read.map_err(|error| self.fail("it cannot be read", Some(&error)))? > 0 {
            return Poll::Ready(Err(self.fail("it is longer than declared", None)));
        }
        if let Some(hasher) = self.hasher.take() {
            let digest = hex::encode(hasher.finalize());
            if self.expected.as_ref().is_some_and(|expected| *expected != digest) {
                return Poll::Ready(Err(self.fail("its SHA-256 is not the declared one", None)));
            }
            self.sent.lock().sha256 = Some(digest);
        }
        Poll::Ready(Ok(()))
    }

    fn fail(&mut self, problem: &'static str, source: Option<&io::Error>) -> io::Error {
        self.sent.lock().problem = Some((problem, source.map(|e| (e.kind(), e.to_string()))));
        io::Error::other(problem)
    }
}
