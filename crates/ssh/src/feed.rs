//! Sending a program its standard input.

use std::io::{Read, Seek, SeekFrom};

use bytes::{Bytes, BytesMut};
use russh::{ChannelWriteHalf, client};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use tokio::{
    io::AsyncReadExt,
    sync::{mpsc, watch},
};

use crate::{
    SshError,
    exec::{GateState, Input},
};

/// Bytes read from a local file at a time. A multiple of the packet size of OpenSSH (32 KiB).
const BLOCK: usize = 256 * 1024;

/// Sends the input and ends it. Waits for the gate first; gives the password when it is asked for, once.
///
/// A host that stops reading makes this wait for ever: drop it when the channel is closed.
pub(crate) async fn feed(
    host: &str,
    write: &ChannelWriteHalf<client::Msg>,
    input: Input,
    password: Option<SecretString>,
    mut gate: watch::Receiver<GateState>,
    sent: mpsc::UnboundedSender<u64>,
) -> Result<(), SshError> {
    let state = wait(&mut gate, GateState::Closed).await;
    if state == GateState::Asked
        && let Some(password) = password
    {
        let mut line = password.expose_secret().as_bytes().to_vec();
        line.push(b'\n');
        // A send error is a dead connection, which the reading side reports.
        drop(write.data_bytes(line).await);
        wait(&mut gate, GateState::Asked).await;
    }
    match input {
        Input::Script(text) => drop(write.data_bytes(Bytes::copy_from_slice(&text)).await),
        Input::Bytes(bytes) => {
            let mut at = 0;
            while at < bytes.len() {
                let end = bytes.len().min(at + BLOCK);
                if write.data_bytes(bytes.slice(at..end)).await.is_err() {
                    return Ok(());
                }
                let _ = sent.send((end - at) as u64);
                at = end;
            }
        }
        Input::Stream { script, mut stream } => {
            if write.data_bytes(Bytes::copy_from_slice(script.as_bytes())).await.is_err() {
                return Ok(());
            }
            drop(script);
            loop {
                let mut block = BytesMut::with_capacity(BLOCK);
                // Filled as far as it goes, because small packets cost more than their bytes.
                while block.len() < BLOCK / 4 {
                    let count =
                        stream.read_buf(&mut block).await.map_err(|source| input_failed(host, source))?;
                    if count == 0 {
                        break;
                    }
                }
                if block.is_empty() {
                    break;
                }
                let length = block.len() as u64;
                if write.data_bytes(block.freeze()).await.is_err() {
                    return Ok(());
                }
                let _ = sent.send(length);
            }
        }
        Input::File { path, offset, digest } => {
            let (blocks, mut ready) = mpsc::channel(8);
            let file = path.clone();
            let reading = tokio::task::spawn_blocking(move || read(&file, offset, digest, &blocks));
            while let Some(block) = ready.recv().await {
                let length = block.len() as u64;
                if write.data_bytes(block).await.is_err() {
                    return Ok(());
                }
                let _ = sent.send(length);
            }
            let outcome = reading.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
            outcome.map_err(|source| SshError::Local { what: "read", path, source })?;
        }
    }
    drop(write.eof().await);
    Ok(())
}

fn input_failed(host: &str, source: std::io::Error) -> SshError {
    SshError::Input { host: host.to_owned(), source }
}

async fn wait(gate: &mut watch::Receiver<GateState>, past: GateState) -> GateState {
    let state = gate.wait_for(|state| *state != past).await.map(|state| *state);
    match state {
        Ok(state) => state,
        // The other side is gone, and drops this future with it.
        Err(_) => std::future::pending().await,
    }
}

fn read(
    path: &std::path::Path,
    offset: u64,
    digest: Option<tokio::sync::oneshot::Sender<[u8; 32]>>,
    blocks: &mpsc::Sender<Bytes>,
) -> std::io::Result<()> {
    let mut file = std::fs::File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut hasher = digest.is_some().then(Sha256::new);
    loop {
        let mut block = vec![0; BLOCK];
        let mut filled = 0;
        while let Some(room) = block.get_mut(filled..).filter(|room| !room.is_empty()) {
            match file.read(room)? {
                0 => break,
                count => filled += count,
            }
        }
        block.truncate(filled);
        if let Some(hasher) = &mut hasher {
            hasher.update(&block);
        }
        if block.is_empty() || blocks.blocking_send(block.into()).is_err() {
            break;
        }
    }
    if let (Some(digest), Some(hasher)) = (digest, hasher) {
        // Nobody waits any more when the upload was given up.
        let _ = digest.send(hasher.finalize().into());
    }
    Ok(())
}
