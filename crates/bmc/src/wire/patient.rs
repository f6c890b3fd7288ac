//! A stream whose broken write side does not hide the answer that is already on its way.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Reads and writes of one socket, plain or TLS.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Waits for the read side after a failed write.
///
/// The BMC answers an upload early when the job died, and closes. What is then still being sent fails with a broken pipe,
/// while the reason lies unread in the receive buffer. So a failed write is kept back: it never finishes, and the read side
/// brings either the answer or the end.
pub(crate) struct Patient {
    inner: Box<dyn Stream>,
    write_failed: Option<io::Error>,
}

impl Patient {
    pub(crate) fn new(inner: Box<dyn Stream>) -> Self {
        Self { inner, write_failed: None }
    }

    fn keep<T>(&mut self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match result {
            Poll::Ready(Err(error)) => {
                self.write_failed = Some(error);
                Poll::Pending
            }
            other => other,
        }
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.inner).poll_read(cx, buf);
        match (&result, self.write_failed.take()) {
            // The end came without an answer: the failed write is the better reason.
            (Poll::Ready(Ok(())), Some(error)) if buf.filled().len() == before => Poll::Ready(Err(error)),
            (_, failed) => {
                self.write_failed = failed;
                result
            }
        }
    }
}

impl AsyncWrite for Patient {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.write_failed.is_some() {
            return Poll::Pending;
        }
        let result = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.keep(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.write_failed.is_some() {
            return Poll::Pending;
        }
        let result = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.keep(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.write_failed.is_some() {
            return Poll::Pending;
        }
        let result = Pin::new(&mut self.inner).poll_flush(cx);
        self.keep(result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.write_failed.is_some() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
