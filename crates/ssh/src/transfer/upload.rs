//! From here to the node: compared first, sent beside its place, compared again, renamed.

use std::path::PathBuf;

use base64::{Engine, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

use super::{DAMAGED, check_path, failed, local};
use crate::{
    Command, Content, Output, RemoteFile, SshError, Status, Written,
    exec::{Input, Piece, Sink},
    session::RusshClient,
    shell,
    sudo::{self, Root},
};

/// Content up to this size travels inside the script: one round trip compares, writes and renames.
const SMALL: u64 = 64 * 1024;

/// Defines what both ways share. `$1` place, `$2` mode, `$3` owner or nothing, `$4` digest.
const COMPARE: &str = r#"
place=$1 mode=$2 owner=$3 digest=$4
folder=${place%/*}
folder=${folder:-/}
sum() { if [ "${1:-}" = large ] && command -v openssl >/dev/null 2>&1; then openssl dgst -sha256 -r; else sha256sum; fi; }
owned() {
    [ -n "$owner" ] || return 0
    user=${owner%%:*} group=
    case $owner in *:*) group=${owner#*:} ;; esac
    [ -z "$user" ] || [ "$user" = "$(stat -L -c %U "$1")" ] || [ "$user" = "$(stat -L -c %u "$1")" ] || return 1
    [ -z "$group" ] || [ "$group" = "$(stat -L -c %G "$1")" ] || [ "$group" = "$(stat -L -c %g "$1")" ]
}
finish() {
    # Without a wanted owner the one of the file that is replaced stays.
    if [ -n "$owner" ]; then chown "$owner" "$1"
    elif [ -f "$place" ]; then chown "$(stat -L -c %u:%g "$place")" "$1" 2>/dev/null || :
    fi
    chmod "$mode" "$1"
    sync "$1" 2>/dev/null || sync
    mv -f "$1" "$place"
    sync "$folder" 2>/dev/null || :
    echo changed
}
compare() {
    if [ -f "$place" ]; then
        found=$(sum "${1:-}" <"$place")
        [ "${found%% *}" = "$digest" ] || return 0
        if [ "$(stat -L -c %a "$place")" = "$mode" ] && owned "$place"; then echo unchanged; exit 0; fi
        [ -z "$owner" ] || chown "$owner" "$place"
        chmod "$mode" "$place"
        echo changed
        exit 0
    elif [ -e "$place" ]; then
        exit 64
    fi
}
"#;

/// The whole of a small upload. `$content` is base64.
const SMALL_UPLOAD: &str = r#"
compare
(umask 022; mkdir -p "$folder")
part=$folder/.turingpi-$5.tpi-part
trap 'rm -f "$part"' EXIT
trap 'exit 1' HUP INT TERM
(set -C; : >"$part")
base64 -d >"$part" <<END
$content
END
found=$(sum <"$part")
[ "${found%% *}" = "$digest" ] || { echo "found ${found%% *}"; exit 66; }
finish "$part"
trap - EXIT
"#;

/// Before a large upload: `$5` name of the part, `$6` bytes needed.
const PREPARE: &str = r#"
compare large
(umask 022; mkdir -p "$folder")
find "$folder" -maxdepth 1 -type f -name '.*.tpi-part' ! -name "$5" -mmin +30 -exec rm -f {} + 2>/dev/null || :
part=$folder/$5
# A part that somebody else could have put there is none of ours.
if [ -f "$part" ] && [ ! -L "$part" ] && [ -O "$part" ]; then
    chmod 600 "$part"
    have=$(wc -c <"$part")
else
    rm -rf "$part"
    (set -C; : >"$part")
    have=0
fi
set -- "$6" $(df -Pk "$folder" | tail -n 1)
echo "space $(( ${5:-0} * 1024 ))"
if [ "$have" -gt 0 ]; then found=$(sum large <"$part"); echo "part $((have)) ${found%% *}"; fi
echo send
"#;

/// Takes the bytes: `$1` the part, `$2` what to do with what is in it. One line without single quotes, because it stands in the command for the login shell.
/// What is printed is the digest of what came in by this way.
const RECEIVE: &str = "set -u; echo MARKER; echo \"MARKER $(cat /proc/$$/stat 2>/dev/null || echo $$)\" >&2; \
                       if command -v openssl >/dev/null 2>&1; then sum=\"openssl dgst -sha256 -r\"; else sum=sha256sum; fi; \
                       if [ \"$2\" = replace ]; then : >\"$1\"; fi; tee -a \"$1\" | $sum";

/// After a large upload: `$5` name of the part, `$6` its size, `$7` whether to read it all again.
const FINISH: &str = r#"
part=$folder/$5
[ "$(($(wc -c <"$part")))" = "$6" ] || { echo "found $(wc -c <"$part") bytes"; exit 66; }
if [ "$7" = reread ]; then
    found=$(sum large <"$part")
    [ "${found%% *}" = "$digest" ] || { echo "found ${found%% *}"; rm -f "$part"; exit 66; }
fi
finish "$part"
"#;

/// Makes the file be as wanted.
pub(crate) async fn write(
    client: &RusshClient,
    file: &RemoteFile,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<Written, SshError> {
    check_path(&file.path)?;
    if file.mode > 0o7777 {
        let what = format!("mode {:o} of `{}`", file.mode, file.path);
        return Err(SshError::Invalid { what, why: "it is more than 7777".into() });
    }
    let rights = client.rights(file.root).await?;
    match &file.content {
        Content::Bytes(bytes) if bytes.len() as u64 <= SMALL => {
            small(client, rights, file, bytes, progress).await
        }
        Content::Secret(bytes) => small(client, rights, file, bytes.expose_secret(), progress).await,
        Content::Bytes(bytes) => {
            let source = Source::Memory(bytes::Bytes::copy_from_slice(bytes));
            let digest = hex::encode(Sha256::digest(bytes));
            Upload { client, rights, file, source, size: bytes.len() as u64, digest, given: false }
                .run(progress)
                .await
        }
        Content::Local { path, sha256 } => {
            let size = tokio::fs::metadata(path).await.map_err(local::failed("read", path))?.len();
            let digest = match sha256 {
                Some(given) => given.to_ascii_lowercase(),
                None => local::digest(path, None).await?,
            };
            if digest.len() != 64 || !digest.bytes().all(|b| b.is_ascii_hexdigit()) {
                let what = format!("digest `{digest}` of `{}`", path.display());
                return Err(SshError::Invalid { what, why: "a SHA-256 is 64 hex digits".into() });
            }
            let source = Source::File(path.clone());
            Upload { client, rights, file, source, size, digest, given: sha256.is_some() }.run(progress).await
        }
    }
}

fn arguments(script: String, file: &RemoteFile, digest: &str) -> Command {
    Command::script(script)
        .arg(&file.path)
        .arg(format!("{:o}", file.mode))
        .arg(file.owner.clone().unwrap_or_default())
        .arg(digest)
}

async fn small(
    client: &RusshClient,
    rights: Root,
    file: &RemoteFile,
    bytes: &[u8],
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<Written, SshError> {
    let digest = hex::encode(Sha256::digest(bytes));
    let content = Zeroizing::new(STANDARD.encode(bytes));
    let command = arguments([COMPARE, SMALL_UPLOAD].concat(), file, &digest)
        .arg(format!("{:016x}", rand::random::<u64>()))
        .secret("content", SecretString::from(content.as_str()));
    let output = client.collect(rights, &command).await?;
    let written = outcome(client, file, &digest, &output)?;
    let size = bytes.len() as u64;
    progress(size, size);
    Ok(written)
}

/// What the last line of a script says.
fn outcome(
    client: &RusshClient,
    file: &RemoteFile,
    digest: &str,
    output: &Output,
) -> Result<Written, SshError> {
    let said = output.stdout_text();
    let last = said.lines().last().unwrap_or_default();
    match (output.status, last) {
        (Status::Code(0), "unchanged") => Ok(Written::Unchanged),
        (Status::Code(0), "changed") => Ok(Written::Changed),
        (Status::Code(DAMAGED), _) => Err(SshError::DigestMismatch {
            host: client.host(),
            path: file.path.clone(),
            expected: digest.to_owned(),
            found: last.trim_start_matches("found ").to_owned(),
        }),
        _ => Err(failed(client, "write", &file.path, output)),
    }
}

enum Source {
    File(PathBuf),
    Memory(bytes::Bytes),
}

/// A large upload: prepare, send, finish.
struct Upload<'a> {
    client: &'a RusshClient,
    rights: Root,
    file: &'a RemoteFile,
    source: Source,
    size: u64,
    digest: String,
    /// Whether the digest was given by the caller and not computed from the content.
    given: bool,
}

impl Upload<'_> {
    async fn run(self, progress: &mut (dyn FnMut(u64, u64) + Send)) -> Result<Written, SshError> {
        let part = part_name(&self.file.path, &self.digest);
        let prepare = arguments([COMPARE, PREPARE].concat(), self.file, &self.digest).arg(&part);
        let output = self.client.collect(self.rights.clone(), &prepare.arg(self.size.to_string())).await?;
        let said = output.stdout_text();
        if !output.success() || !said.ends_with("send\n") {
            let written = outcome(self.client, self.file, &self.digest, &output)?;
            progress(self.size, self.size);
            return Ok(written);
        }
        let offset = self.resume_at(&said).await?;
        self.check_space(&said, offset)?;
        progress(offset, self.size);
        self.send(&part, offset, progress).await?;
        let reread = if offset > 0 { "reread" } else { "as-sent" };
        let finish = arguments([COMPARE, FINISH].concat(), self.file, &self.digest);
        let finish = finish.arg(&part).arg(self.size.to_string()).arg(reread);
        let output = self.client.collect(self.rights.clone(), &finish).await?;
        outcome(self.client, self.file, &self.digest, &output)
    }

    /// Where to go on: behind a part that an earlier upload left, when it is the beginning of this content.
    async fn resume_at(&self, said: &str) -> Result<u64, SshError> {
        let Some(part) = said.lines().find_map(|line| line.strip_prefix("part ")) else { return Ok(0) };
        let mut words = part.split_ascii_whitespace();
        let (Some(have), Some(found)) = (words.next().and_then(|have| have.parse().ok()), words.next())
        else {
            return Ok(0);
        };
        let ours = match &self.source {
            _ if have > self.size => return self.restart(),
            Source::Memory(bytes) => {
                hex::encode(Sha256::digest(bytes.get(..have as usize).unwrap_or_default()))
            }
            Source::File(path) => local::digest(path, Some(have)).await?,
        };
        if ours != found {
            return self.restart();
        }
        tracing::info!(path = %self.file.path, have, size = self.size, "going on with a broken upload");
        Ok(have)
    }

    fn restart(&self) -> Result<u64, SshError> {
        tracing::info!(path = %self.file.path, "what an earlier upload left does not fit; starting anew");
        Ok(0)
    }

    fn check_space(&self, said: &str, offset: u64) -> Result<(), SshError> {
        // Some room stays for what else the node writes meanwhile.
        const SPARE: u64 = 8 << 20;
        let available = said.lines().find_map(|line| line.strip_prefix("space ")?.trim().parse().ok());
        let needed = (self.size - offset).saturating_add(SPARE);
        match available {
            Some(available) if available < needed => Err(SshError::NoSpace {
                host: self.client.host(),
                path: self.file.path.clone(),
                needed,
                available,
            }),
            _ => Ok(()),
        }
    }

    async fn send(
        &self,
        part: &str,
        offset: u64,
        progress: &mut (dyn FnMut(u64, u64) + Send),
    ) -> Result<(), SshError> {
        let folder = self.file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let marker = sudo::marker("send");
        let keep = if offset > 0 { "append" } else { "replace" };
        let program = format!(
            "/bin/sh -c '{}' turingpi-receive {} {keep}",
            RECEIVE.replace("MARKER", &marker),
            shell::quote_for_login_shell(&format!("{folder}/{part}"))?
        );
        let (tell, sent_digest) = oneshot::channel();
        // Without a resumed part the digest of everything sent is the one that is wanted; no need to compute it twice.
        let mut known = (offset == 0).then(|| self.digest.clone());
        let input = match &self.source {
            Source::File(path) => {
                let digest = known.is_none().then_some(tell);
                Input::File { path: path.clone(), offset, digest }
            }
            Source::Memory(bytes) => {
                let rest = bytes.slice(offset as usize..);
                known.get_or_insert_with(|| hex::encode(Sha256::digest(&rest)));
                Input::Bytes(rest)
            }
        };
        let job = self.rights.job(&program, marker, input, self.client.stall_limit());
        let (sender, mut pieces) = mpsc::unbounded_channel();
        let running = self.client.start(job, Sink::Memory(sender));
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let mut sent = offset;
        while let Some(piece) = pieces.recv().await {
            match piece {
                Piece::Sent(bytes) => {
                    sent += bytes;
                    progress(sent, self.size);
                }
                Piece::Stdout(data) => stdout.extend_from_slice(&data),
                Piece::Stderr(data) => stderr.extend_from_slice(&data),
            }
        }
        let status = running.outcome().await?;
        let output = Output { status, stdout, stderr };
        // `tee` says on standard error what its place in a pipe keeps from the status.
        if !output.success() || !output.stderr.is_empty() {
            return Err(failed(self.client, "upload", &self.file.path, &output));
        }
        let said = output.stdout_text();
        let found = said.split_ascii_whitespace().next().unwrap_or_default().to_owned();
        let expected = match known {
            Some(known) => known,
            None => sent_digest
                .await
                .map(hex::encode)
                .map_err(|_| SshError::Disconnected { host: self.client.host() })?,
        };
        if found == expected {
            return Ok(());
        }
        self.blame(found).await
    }

    /// Tells a local file that is not what its given digest says from one that was damaged on the way.
    async fn blame(&self, found: String) -> Result<(), SshError> {
        if let (Source::File(path), true) = (&self.source, self.given) {
            let ours = local::digest(path, None).await?;
            if ours != self.digest {
                let why = format!("its SHA-256 is {ours}, not {}", self.digest);
                return Err(SshError::Invalid { what: format!("local file `{}`", path.display()), why });
            }
        }
        let (host, path) = (self.client.host(), self.file.path.clone());
        Err(SshError::DigestMismatch { host, path, expected: self.digest.clone(), found })
    }
}

/// The part's name: the same for the same content and place, so that a broken upload is found again.
fn part_name(path: &str, digest: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or_default();
    let short: String = name.chars().take(60).collect();
    format!(".{short}.{}.tpi-part", digest.get(..24).unwrap_or_default())
}
