//! The HTTP machinery under the board's and the mirror's doors: answers byte for byte, or none at all.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
};

/// The connection ends without (the rest of) an answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection is closed on purpose")]
pub(crate) struct Hangup;

/// What a door sends back.
pub(crate) type Answer = Result<Response<AnswerBody>, Hangup>;

/// An answer's body: all at once, or piece by piece with the liberty to break off.
#[derive(Debug)]
pub(crate) enum AnswerBody {
    Whole(Option<Bytes>),
    /// The beginning of a body of `length` bytes; then the connection breaks.
    Cut {
        length: u64,
        beginning: Option<Bytes>,
        flushed: bool,
    },
    /// As it comes; of unknown length, if none is given.
    Pieces {
        pieces: mpsc::Receiver<Result<Bytes, Hangup>>,
        length: Option<u64>,
    },
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Hangup;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Hangup>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Cut { beginning, flushed, .. } => match beginning.take() {
                Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                // The server sends what it has when a body makes it wait, and forgets it when a body fails.
                None if !std::mem::replace(flushed, true) => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                None => Poll::Ready(Some(Err(Hangup))),
            },
            Self::Pieces { pieces, .. } => {
                pieces.poll_recv(cx).map(|piece| piece.map(|piece| piece.map(Frame::data)))
            }
        }
    }
    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }
    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Cut { length, .. } => SizeHint::with_exact(*length),
            Self::Pieces { length, .. } => length.map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}

/// An answer with a body and nothing else: no `Content-Type`.
pub(crate) fn bare(status: StatusCode, body: impl Into<Bytes>) -> Response<AnswerBody> {
    let body = body.into();
    let mut response = Response::new(AnswerBody::Whole((!body.is_empty()).then_some(body)));
    *response.status_mut() = status;
    response
}

/// An answer of a media type.
pub(crate) fn typed(status: StatusCode, media: &'static str, body: impl Into<Bytes>) -> Response<AnswerBody> {
    with(bare(status, body), header::CONTENT_TYPE, media)
}

/// The answer with one header more; a value that no header can hold is left out.
pub(crate) fn with(
    mut response: Response<AnswerBody>,
    name: HeaderName,
    value: impl AsRef<str>,
) -> Response<AnswerBody> {
    if let Ok(value) = HeaderValue::from_str(value.as_ref()) {
        response.headers_mut().insert(name, value);
    }
    response
}

/// The answer with its length, but only the first bytes of it before the connection breaks.
pub(crate) fn cut_after(response: Response<AnswerBody>, bytes: u64) -> Response<AnswerBody> {
    let (head, body) = response.into_parts();
    let AnswerBody::Whole(Some(body)) = body else { return Response::from_parts(head, body) };
    let kept = usize::try_from(bytes).unwrap_or(body.len()).min(body.len());
    let (length, beginning) = (body.len() as u64, Some(body.slice(..kept)));
    Response::from_parts(head, AnswerBody::Cut { length, beginning, flushed: false })
}

/// A request's body, read piece by piece; counts what was read.
#[derive(Debug)]
pub(crate) struct RequestBody {
    incoming: Incoming,
    read: Arc<AtomicU64>,
}

impl RequestBody {
    pub(crate) fn new(incoming: Incoming, read: Arc<AtomicU64>) -> Self {
        Self { incoming, read }
    }
    /// The next piece; `None` at its end.
    ///
    /// # Errors
    /// The connection was lost in the middle.
    pub(crate) async fn piece(&mut self) -> Option<Result<Bytes, hyper::Error>> {
        loop {
            let frame = std::future::poll_fn(|cx| Pin::new(&mut self.incoming).poll_frame(cx)).await?;
            match frame.map(Frame::into_data) {
                Ok(Ok(data)) => {
                    self.read.fetch_add(data.len() as u64, Ordering::Relaxed);
                    return Some(Ok(data));
                }
                Ok(Err(_trailers)) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
    /// All of it, up to `limit` bytes; what comes after is not read.
    pub(crate) async fn collect(&mut self, limit: usize) -> Result<Vec<u8>, hyper::Error> {
        let mut all = Vec::new();
        while let Some(piece) = self.piece().await {
            all.extend_from_slice(&piece?);
            if all.len() > limit {
                break;
            }
        }
        Ok(all)
    }
    /// How many bytes were read.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }
}

/// Serves HTTP/1.1 and HTTP/2 on one connection until it ends.
pub(crate) async fn serve<S, H, F>(stream: S, handler: H)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(http::Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let service = TowerToHyperService::new(tower::service_fn(handler));
    // A connection that breaks is the peer's business; the journal has what was asked on it.
    let _ended = auto::Builder::new(TokioExecutor::new())
        .serve_connection_with_upgrades(TokioIo::new(stream), service)
        .await;
}
