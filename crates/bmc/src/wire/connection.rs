//! One HTTP/1.1 connection, driven by the future that uses it: dropping that future drops the connection.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use hyper::{
    Request, Response,
    body::{Body, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{Payload, Place, Reply, patient::Patient, patient::Stream};
use crate::{Attempt, BmcError, Fingerprint, tls::Gate};

/// An answer is small; a ring of the serial line is the largest, 16 KiB that JSON may blow up sixfold.
const ANSWER_LIMIT: usize = 4 * 1024 * 1024;
/// A connection that rested longer is not used again: the BMC may have rebooted meanwhile.
const REST: Duration = Duration::from_secs(10);
/// Plaintext that TLS may hold; two of hyper's writes.
const TLS_BUFFER: usize = 512 * 1024;

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Broken {
    Connect(io::Error),
    Tls {
        expected: Option<Fingerprint>,
        found: Option<Fingerprint>,
        source: Option<Box<rustls::Error>>,
    },
    Closed(hyper::Error),
    Late(Duration),
    TooLong,
    /// What was downloaded cannot be kept.
    Kept(io::Error),
}

impl Broken {
    pub(crate) fn into_error(self, attempt: Attempt) -> BmcError {
        match self {
            Self::Connect(source) => BmcError::Unreachable { attempt, source: source.into() },
            Self::Closed(source) => BmcError::Unreachable { attempt, source: source.into() },
            Self::Tls { expected, found, source } => BmcError::Tls { attempt, expected, found, source },
            Self::Late(limit) => BmcError::Stalled { attempt, limit },
            Self::Kept(source) => BmcError::Local { attempt, source },
            Self::TooLong => {
                BmcError::Protocol { attempt, problem: "it is larger than 4 MiB".into(), raw: String::new() }
            }
        }
    }
    /// For the text of a failed upload.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Closed(error) => {
                let error: &dyn std::error::Error = error;
                let mut deepest = error;
                while let Some(source) = deepest.source() {
                    deepest = source;
                }
                deepest.to_string()
            }
            Self::Connect(error) => error.to_string(),
            _ => String::new(),
        }
    }
}

/// Connects, and shakes hands if `tls` is given.
pub(crate) async fn handshake(
    place: &Place,
    tls: Option<(Arc<ClientConfig>, &Arc<Gate>)>,
    limit: Duration,
) -> Result<Box<dyn Stream>, Broken> {
    let late = || {
        Broken::Connect(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no connection within {} s", limit.as_secs_f32()),
        ))
    };
    timeout(limit, shake(place, tls)).await.unwrap_or_else(|_| Err(late()))
}

async fn shake(
    place: &Place,
    tls: Option<(Arc<ClientConfig>, &Arc<Gate>)>,
) -> Result<Box<dyn Stream>, Broken> {
    // IPv4 first: firmware 2.0 listens on nothing else, and mDNS likes to offer link-local addresses.
    let mut addresses: Vec<_> = lookup_host(place.dial()).await.map_err(Broken::Connect)?.collect();
    addresses.sort_by_key(|address| address.is_ipv6());
    let socket = TcpStream::connect(addresses.as_slice()).await.map_err(Broken::Connect)?;
    // Many small requests, and an upload that flushes itself.
    socket.set_nodelay(true).map_err(Broken::Connect)?;
    let Some((config, gate)) = tls else { return Ok(Box::new(socket)) };
    let connector = TlsConnector::from(config);
    let shaken = connector
        .connect_with(place.server_name(), socket, |connection| connection.set_buffer_limit(Some(TLS_BUFFER)))
        .await;
    match shaken {
        Ok(stream) if gate.confirm() => Ok(Box::new(stream)),
        Ok(_) => Err(Broken::Tls { expected: None, found: gate.found(), source: None }),
        Err(error) => match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(source) => {
                let found =
                    matches!(source, rustls::Error::InvalidCertificate(_)).then(|| gate.found()).flatten();
                Err(Broken::Tls { expected: gate.pinned(), found, source: Some(Box::new(source.clone())) })
            }
            None => Err(Broken::Connect(error)),
        },
    }
}

pub(crate) struct Connection {
    sender: http1::SendRequest<Payload>,
    driver: Pin<Box<http1::Connection<TokioIo<Patient>, Payload>>>,
    ended: bool,
    rested_since: Instant,
}

impl Connection {
    pub(crate) async fn open(
        place: &Place,
        tls: Option<(Arc<ClientConfig>, &Arc<Gate>)>,
        limit: Duration,
    ) -> Result<Self, Broken> {
        Self::over(handshake(place, tls, limit).await?).await
    }

    async fn over(stream: Box<dyn Stream>) -> Result<Self, Broken> {
        let (sender, connection) = http1::Builder::new()
            .handshake(TokioIo::new(Patient::new(stream)))
            .await
            .map_err(Broken::Closed)?;
        Ok(Self { sender, driver: Box::pin(connection), ended: false, rested_since: Instant::now() })
    }

    /// Whether the next request may go over this connection: it rested only shortly and the other side has not closed.
    pub(crate) async fn is_usable(&mut self) -> bool {
        if self.ended || self.rested_since.elapsed() > REST {
            return false;
        }
        let driver = &mut self.driver;
        let ended = poll_fn(|cx| Poll::Ready(driver.as_mut().poll_once(cx))).await;
        self.ended |= ended;
        !self.ended && self.sender.is_ready()
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn exchange(
        &mut self,
        request: Request<Payload>,
        limit: Duration,
    ) -> Result<Reply, Broken> {
        timeout(limit, self.exchange_unlimited(request)).await.unwrap_or(Err(Broken::Late(limit)))
    }

    /// The same without a limit: for an upload, whose caller watches its progress.
    pub(crate) async fn exchange_unlimited(&mut self, request: Request<Payload>) -> Result<Reply, Broken> {
        Ok(self.drive(request, None, None).await?.0)
    }

    /// A request whose successful answer goes into `into`, however long it is. `first` is the limit for its head, `stall`
    /// that for each piece. Returns how much went there.
    pub(crate) async fn exchange_into(
        &mut self,
        request: Request<Payload>,
        into: &mut Sink<'_>,
        first: Duration,
        stall: Duration,
    ) -> Result<(Reply, u64), Broken> {
        self.drive(request, Some(first), Some((into, stall))).await
    }

    async fn drive(
        &mut self,
        request: Request<Payload>,
        first: Option<Duration>,
        into: Option<(&mut Sink<'_>, Duration)>,
    ) -> Result<(Reply, u64), Broken> {
        let Self { sender, driver, ended, rested_since } = self;
        let mut work = pin!(async {
            let head = sender.send_request(request);
            let response = match first {
                Some(limit) => timeout(limit, head).await.map_err(|_| Broken::Late(limit))?,
                None => head.await,
            };
            let response = response.map_err(Broken::Closed)?;
            match into {
                Some((into, stall)) if response.status().is_success() && !is_html(&response) => {
                    store(response, into, stall).await
                }
                _ => Ok((complete(response).await?, 0)),
            }
        });
        let reply = poll_fn(|cx| {
            // First the request goes into the driver's queue, then the driver moves bytes, then its answer is fetched.
            if let Poll::Ready(reply) = work.as_mut().poll(cx) {
                return Poll::Ready(reply);
            }
            if !*ended && driver.as_mut().poll_once(cx) {
                *ended = true;
            }
            work.as_mut().poll(cx)
        })
        .await;
        *rested_since = Instant::now();
        reply
    }
}

/// Polls a connection and tells whether it has ended. Its error reaches the waiting request anyway.
trait PollOnce {
    fn poll_once(self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> bool;
}
impl PollOnce for http1::Connection<TokioIo<Patient>, Payload> {
    fn poll_once(self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> bool {
        Future::poll(self, cx).is_ready()
    }
}

fn is_html(response: &Response<Incoming>) -> bool {
    let kind = response.headers().get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    kind.is_some_and(|kind| kind.to_ascii_lowercase().contains("html"))
}

fn empty_reply(response: &Response<Incoming>) -> Reply {
    let wait = response.headers().get(http::header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    Reply {
        status: response.status().as_u16(),
        html: is_html(response),
        retry_after: wait.and_then(|seconds| seconds.trim().parse().ok()),
        body: Bytes::new(),
    }
}

/// Where a download goes.
pub(crate) type Sink<'a> = dyn AsyncWrite + Send + Unpin + 'a;

async fn store(
    response: Response<Incoming>,
    into: &mut Sink<'_>,
    stall: Duration,
) -> Result<(Reply, u64), Broken> {
    let reply = empty_reply(&response);
    let mut body = response.into_body();
    let mut length = 0;
    loop {
        let frame = timeout(stall, poll_fn(|cx| Pin::new(&mut body).poll_frame(cx))).await;
        let Some(frame) = frame.map_err(|_| Broken::Late(stall))? else { return Ok((reply, length)) };
        if let Ok(data) = frame.map_err(Broken::Closed)?.into_data() {
            into.write_all(&data).await.map_err(Broken::Kept)?;
            length += data.len() as u64;
        }
    }
}

async fn complete(response: Response<Incoming>) -> Result<Reply, Broken> {
    let reply = empty_reply(&response);
    let mut body = response.into_body();
    let mut whole = BytesMut::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        if let Ok(data) = frame.map_err(Broken::Closed)?.into_data() {
            if whole.len() + data.len() > ANSWER_LIMIT {
                return Err(Broken::TooLong);
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok(Reply { body: Bytes::from(whole), ..reply })
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use tokio::io::{AsyncRead, ReadBuf};

    use super::*;

    /// Takes some bytes, then fails every write; what was received before can still be read. So does a socket whose other
    /// side answered, closed, and was sent more.
    struct Reset {
        takes: usize,
        answer: Option<&'static [u8]>,
        reader: Option<Waker>,
    }

    impl AsyncRead for Reset {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if self.takes > 0 {
                self.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
            if let Some(answer) = self.answer.take() {
                buf.put_slice(answer);
            }
            Poll::Ready(Ok(()))
        }
    }
    impl AsyncWrite for Reset {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            let taken = buf.len().min(self.takes);
            self.takes -= taken;
            if taken > 0 {
                return Poll::Ready(Ok(taken));
            }
            if let Some(reader) = self.reader.take() {
                reader.wake();
            }
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    async fn send(answer: Option<&'static [u8]>) -> Result<Reply, Broken> {
        let stream = Reset { takes: 100_000, answer, reader: None };
        let mut connection = Connection::over(Box::new(stream)).await.unwrap();
        let body = Payload::Whole(Bytes::from(vec![0; 1_000_000]));
        let request = Request::post("/").header("host", "bmc").body(body).unwrap();
        connection.exchange(request, Duration::from_secs(20)).await
    }

    #[tokio::test]
    async fn an_answer_that_lies_behind_a_failed_write_is_read() {
        let reply = send(Some(b"HTTP/1.1 500 X\r\ncontent-length: 6\r\n\r\nreason")).await.unwrap();
        assert_eq!((reply.status, &reply.body[..]), (500, &b"reason"[..]));
    }

    #[tokio::test]
    async fn a_failed_write_without_an_answer_is_the_reason() {
        let broken = send(None).await.unwrap_err();
        assert!(broken.text().to_lowercase().contains("broken pipe"), "{broken:?}");
    }
}
