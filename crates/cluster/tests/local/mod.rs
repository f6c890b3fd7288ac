//! An SSH client whose node is this machine: scripts really run, with a shell of the test's choice.

use std::{path::Path, process::Stdio, sync::Arc};

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncRead, AsyncWriteExt},
    process,
};
use turingpi_ssh::{Chunk, Command, Content, Output, RemoteFile, SshClient, SshError, Status, Written};

pub(crate) struct LocalClient {
    pub(crate) shell: &'static str,
}

impl LocalClient {
    pub(crate) fn shared(shell: &'static str) -> Arc<dyn SshClient> {
        Arc::new(Self { shell })
    }
}

// Helpers of tests may panic as tests do.
#[allow(clippy::unwrap_used, clippy::panic)]
#[async_trait]
impl SshClient for LocalClient {
    async fn run(&self, command: &Command) -> Result<Output, SshError> {
        let mut child = process::Command::new(self.shell)
            .arg("-s")
            .arg("--")
            .args(command.args())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        // As the real client runs it: in braces, so that all of it is read before it starts, its input empty.
        let script = format!(
            "set -eu; umask 077; LC_ALL=C; export LC_ALL\nmain() {{\n{}\n}}\nmain \"$@\" </dev/null\n",
            command.text()
        );
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(script.as_bytes()).await.unwrap();
        drop(stdin);
        let output = child.wait_with_output().await.unwrap();
        let status = Status::Code(u32::try_from(output.status.code().unwrap()).unwrap());
        Ok(Output { status, stdout: output.stdout, stderr: output.stderr })
    }

    async fn run_streaming(
        &self,
        command: &Command,
        on_output: &mut (dyn for<'a> FnMut(Chunk<'a>) + Send),
    ) -> Result<Output, SshError> {
        let output = self.run(command).await?;
        on_output(Chunk::Stdout(&output.stdout));
        Ok(output)
    }

    async fn run_with_input(
        &self,
        command: &Command,
        mut input: Box<dyn AsyncRead + Send + Unpin>,
        on_output: &mut (dyn for<'a> FnMut(Chunk<'a>) + Send),
    ) -> Result<Output, SshError> {
        let mut child = process::Command::new(self.shell)
            .args(["-euc", command.text(), "sh"])
            .args(command.args())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A script may end before its input does.
        let feeding = async move {
            let _ = tokio::io::copy(&mut input, &mut stdin).await;
        };
        let ((), output) = tokio::join!(feeding, child.wait_with_output());
        let output = output.unwrap();
        on_output(Chunk::Stdout(&output.stdout));
        let status = Status::Code(u32::try_from(output.status.code().unwrap()).unwrap());
        Ok(Output { status, stdout: output.stdout, stderr: output.stderr })
    }

    async fn read(&self, path: &str) -> Result<Option<Vec<u8>>, SshError> {
        Ok(std::fs::read(path).ok())
    }

    async fn write(
        &self,
        file: &RemoteFile,
        progress: &mut (dyn FnMut(u64, u64) + Send),
    ) -> Result<Written, SshError> {
        let Content::Bytes(bytes) = file.content() else { panic!("{:?} is not plain bytes", file) };
        progress(bytes.len() as u64, bytes.len() as u64);
        let old = std::fs::read(file.path()).ok();
        if old.map(Sha256::digest) == Some(Sha256::digest(bytes)) {
            return Ok(Written::Unchanged);
        }
        std::fs::write(file.path(), bytes).unwrap();
        Ok(Written::Changed)
    }

    async fn download(
        &self,
        path: &str,
        local: &Path,
        progress: &mut (dyn FnMut(u64, u64) + Send),
    ) -> Result<(), SshError> {
        let bytes = std::fs::copy(path, local).unwrap();
        progress(bytes, bytes);
        Ok(())
    }

    fn is_alive(&self) -> bool {
        true
    }

    async fn close(&self) {}
}
