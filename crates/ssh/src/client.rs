//! The two ports: something that connects, and one live connection.

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use tokio::io::AsyncRead;

use crate::{Chunk, Command, Output, RemoteFile, SshError, SshTarget, Written};

/// Opens connections. Implemented by [`crate::RusshConnector`].
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait SshConnector: Send + Sync {
    /// Connects, checks the host key and logs in.
    ///
    /// # Errors
    /// See [`SshError`]: whether trying again may help is said by [`SshError::is_transient`].
    async fn connect(&self, target: &SshTarget) -> Result<Arc<dyn SshClient>, SshError>;
}

/// One live connection to one node. Cheap to share: calls run side by side on their own channels.
#[async_trait]
pub trait SshClient: Send + Sync {
    /// Runs a script and returns what it left. A non-zero exit is not an error.
    async fn run(&self, command: &Command) -> Result<Output, SshError>;

    /// As [`SshClient::run`], and hands out output as it arrives. The returned [`Output`] holds all of it too.
    async fn run_streaming(
        &self,
        command: &Command,
        on_output: &mut (dyn for<'a> FnMut(Chunk<'a>) + Send),
    ) -> Result<Output, SshError>;

    /// As [`SshClient::run_streaming`], with `input` as the script's standard input: streamed, with at most a few blocks of
    /// it in memory, to its end or to the end of the script, whichever comes first.
    ///
    /// The limit of the command, or the connector's, counts the time without a byte in either direction, since nobody
    /// knows how long the input is.
    ///
    /// # Errors
    /// [`SshError::Input`] when `input` fails: the script is stopped and does not see an end of its input before.
    async fn run_with_input(
        &self,
        command: &Command,
        input: Box<dyn AsyncRead + Send + Unpin>,
        on_output: &mut (dyn for<'a> FnMut(Chunk<'a>) + Send),
    ) -> Result<Output, SshError>;

    /// Reads a file as root; `None` when it does not exist. Refuses files over 16 MiB.
    async fn read(&self, path: &str) -> Result<Option<Vec<u8>>, SshError>;

    /// Makes a file be so: nothing is sent when digest, mode and owner already match. Parent folders are made (0755).
    /// `progress` is called with bytes sent and bytes in all.
    async fn write(
        &self,
        file: &RemoteFile,
        progress: &mut (dyn FnMut(u64, u64) + Send),
    ) -> Result<Written, SshError>;

    /// Fetches a file as root into `local` (0600, atomic) and checks its digest against the node's.
    async fn download(
        &self,
        path: &str,
        local: &Path,
        progress: &mut (dyn FnMut(u64, u64) + Send),
    ) -> Result<(), SshError>;

    /// Whether the connection is still usable.
    fn is_alive(&self) -> bool;

    /// Ends the connection. Dropping the last handle does the same without waiting.
    async fn close(&self);
}
