//! A double of [`SshClient`] for rare branches. Prefer a simulated node.

// The macro writes the inside.
#![allow(missing_docs)]

use std::path::Path;

use async_trait::async_trait;
use tokio::io::AsyncRead;

use crate::{Chunk, Command, Output, RemoteFile, SshClient, SshError, Written};

mockall::mock! {
    /// Expectations are set per call (`expect_run`, `expect_write`, …). They leave the callbacks out: a streamed run hands
    /// out the expected output in two chunks, input is not read, a transfer reports no progress.
    pub SshClient {
        pub fn run(&self, command: &Command) -> Result<Output, SshError>;
        pub fn run_with_input(&self, command: &Command) -> Result<Output, SshError>;
        pub fn read(&self, path: &str) -> Result<Option<Vec<u8>>, SshError>;
        pub fn write(&self, file: &RemoteFile) -> Result<Written, SshError>;
        pub fn download(&self, path: &str, local: &Path) -> Result<(), SshError>;
        pub fn is_alive(&self) -> bool;
        pub fn close(&self);
    }
}

#[async_trait]
impl SshClient for MockSshClient {
    async fn run(&self, command: &Command) -> Result<Output, SshError> {
        MockSshClient::run(self, command)
    }
    async fn run_streaming(
        &self,
        command: &Command,
        on_output: &mut (dyn for<'a> FnMut(Chunk<'a>) + Send),
    ) -> Result<Output, SshError> {
        let output = MockSshClient::run(self, command)?;
        on_output(Chunk::Stdout(&output.stdout));
        on_output(Chunk::Stderr(&output.stderr));
        Ok(output)
    }
    async fn run_with_input(
        &self,
        command: &Command,
        _input: Box<dyn AsyncRead + Send + Unpin>,
        on_output: &mut (dyn for<'a> FnMut(Chunk<'a>) + Send),
    ) -> Result<Output, SshError> {
        let output = MockSshClient::run_with_input(self, command)?;
        on_output(Chunk::Stdout(&output.stdout));
        on_output(Chunk::Stderr(&output.stderr));
        Ok(output)
    }
    async fn read(&self, path: &str) -> Result<Option<Vec<u8>>, SshError> {
        MockSshClient::read(self, path)
    }
    async fn write(
        &self,
        file: &RemoteFile,
        _progress: &mut (dyn FnMut(u64, u64) + Send),
    ) -> Result<Written, SshError> {
        MockSshClient::write(self, file)
    }
    async fn download(
        &self,
        path: &str,
        local: &Path,
        _progress: &mut (dyn FnMut(u64, u64) + Send),
    ) -> Result<(), SshError> {
        MockSshClient::download(self, path, local)
    }
    fn is_alive(&self) -> bool {
        MockSshClient::is_alive(self)
    }
    async fn close(&self) {
        MockSshClient::close(self);
    }
}
