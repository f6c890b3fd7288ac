//! Whether a caller is still there, without reading what it sends.

use std::sync::{Arc, Weak};

use tokio::net::TcpStream;

/// A second handle of a connection's socket. It does not keep the connection open.
#[derive(Debug, Clone)]
pub(crate) struct Line(Weak<Socket>);

#[cfg(unix)]
type Socket = std::os::fd::OwnedFd;
#[cfg(not(unix))]
type Socket = ();

impl Line {
    /// The handle, and what keeps it usable: to be dropped with the connection.
    #[cfg(unix)]
    pub(super) fn of(stream: &TcpStream) -> (Option<Arc<Socket>>, Self) {
        use std::os::fd::AsFd as _;
        let kept = stream.as_fd().try_clone_to_owned().ok().map(Arc::new);
        let line = Self(kept.as_ref().map_or_else(Weak::new, Arc::downgrade));
        (kept, line)
    }
    #[cfg(not(unix))]
    pub(super) fn of(_: &TcpStream) -> (Option<Arc<Socket>>, Self) {
        (None, Self(Weak::new()))
    }

    /// Waits until the caller has closed its side. Where that cannot be told it waits for ever.
    #[cfg(unix)]
    pub(crate) async fn closed(&self) {
        /// What arrived and is not read makes a socket ready at once, so it is asked again and again.
        const LOOK: std::time::Duration = std::time::Duration::from_millis(10);
        let socket = self.0.upgrade().and_then(|socket| socket.try_clone().ok());
        let stream =
            socket.map(std::net::TcpStream::from).and_then(|stream| TcpStream::from_std(stream).ok());
        let Some(stream) = stream else { return std::future::pending().await };
        while let Ok(ready) = stream.ready(tokio::io::Interest::READABLE).await {
            if ready.is_read_closed() {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
    #[cfg(not(unix))]
    pub(crate) async fn closed(&self) {
        std::future::pending().await
    }
}
