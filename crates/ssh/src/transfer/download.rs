//! From the node to a local file.

use std::path::Path;

use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::{check_path, failed, local};
use crate::{
    Command, Output, SshError, Status,
    exec::{Piece, Sink},
    session::RusshClient,
};

/// Says size and digest on standard error and the content on standard output. The digest is computed meanwhile.
const SEND: &str = r#"
[ -e "$1" ] || [ -L "$1" ] || exit 65
[ -f "$1" ] || exit 64
echo "size $(wc -c <"$1")" >&2
{ if command -v openssl >/dev/null 2>&1; then openssl dgst -sha256 -r; else sha256sum; fi; } <"$1" >&2 &
hash=$!
cat -- "$1"
wait "$hash"
"#;

pub(crate) async fn download(
    client: &RusshClient,
    path: &str,
    place: &Path,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<(), SshError> {
    check_path(path)?;
    let rights = client.rights(true).await?;
    let job = rights.script(&Command::script(SEND).arg(path), client.stall_limit())?;
    let to = place.to_owned();
    let mut pending =
        local::blocking(move || local::Pending::new(&to)).await.map_err(local::failed("write", place))?;
    // Some megabytes on their way to the disk at most; a slow disk slows the connection down, not the memory.
    let (sender, mut pieces) = mpsc::channel(128);
    let running = client.start(job, Sink::Paced(sender));
    let mut hasher = Sha256::new();
    let mut stderr = Vec::new();
    let (mut arrived, mut size) = (0, 0);
    while let Some(piece) = pieces.recv().await {
        match piece {
            Piece::Stdout(data) => {
                arrived += data.len() as u64;
                hasher.update(&data);
                pending = local::blocking(move || pending.write(&data).map(|()| pending))
                    .await
                    .map_err(local::failed("write", place))?;
                progress(arrived, size.max(arrived));
            }
            Piece::Stderr(data) => {
                stderr.extend_from_slice(&data);
                size = announced(&stderr).0.unwrap_or(size);
            }
            Piece::Sent(_) => {}
        }
    }
    let status = running.outcome().await?;
    if status != Status::Code(0) {
        return Err(failed(client, "download", path, &Output { status, stdout: Vec::new(), stderr }));
    }
    let found = hex::encode(hasher.finalize());
    match announced(&stderr).1 {
        Some(expected) if expected == found => {}
        expected => {
            let expected = expected.unwrap_or_else(|| "(none given)".into());
            return Err(SshError::DigestMismatch {
                host: client.host(),
                path: path.to_owned(),
                expected,
                found,
            });
        }
    }
    local::blocking(move || pending.keep()).await.map_err(local::failed("write", place))
}

/// Size and digest out of what the script says on standard error.
fn announced(stderr: &[u8]) -> (Option<u64>, Option<String>) {
    let text = String::from_utf8_lossy(stderr);
    let size = text.lines().find_map(|line| line.strip_prefix("size ")?.trim().parse().ok());
    let digest = |line: &str| {
        let word = line.split_ascii_whitespace().next()?;
        (word.len() == 64 && word.bytes().all(|b| b.is_ascii_hexdigit())).then(|| word.to_ascii_lowercase())
    };
    (size, text.lines().find_map(digest))
}
