//! Moving files: what to send, and how to know that it arrived.

mod download;
mod local;
mod upload;

pub(crate) use download::download;
pub(crate) use upload::write;

use crate::{Command, Output, SshError, Status, error::shorten, session::RusshClient};

/// Most that is read into memory, in bytes.
const READ_LIMIT: u64 = 16 << 20;

/// Exit statuses of our own scripts. Programs use small numbers, shells 126 and up.
const NOT_A_FILE: u32 = 64;
const NOT_FOUND: u32 = 65;
const DAMAGED: u32 = 66;

const READ: &str = r#"
[ -e "$1" ] || [ -L "$1" ] || exit 65
[ ! -d "$1" ] || exit 64
exec head -c "$2" -- "$1"
"#;

/// Reads a file as root.
pub(crate) async fn read(client: &RusshClient, path: &str) -> Result<Option<Vec<u8>>, SshError> {
    check_path(path)?;
    let command = Command::script(READ).arg(path).arg((READ_LIMIT + 1).to_string());
    let output = client.collect(client.rights(true).await?, &command).await?;
    match output.status {
        Status::Code(0) if output.stdout.len() as u64 > READ_LIMIT => {
            Err(SshError::TooLarge { host: client.host(), path: path.to_owned(), limit: READ_LIMIT })
        }
        Status::Code(0) => Ok(Some(output.stdout)),
        Status::Code(NOT_FOUND) => Ok(None),
        _ => Err(failed(client, "read", path, &output)),
    }
}

fn check_path(path: &str) -> Result<(), SshError> {
    let problem = match path {
        _ if !path.starts_with('/') => "it is not absolute",
        _ if path.contains(['\0', '\n', '\r']) => "it holds a NUL or a line break",
        _ if path.ends_with('/') => "it names a folder",
        _ => return Ok(()),
    };
    Err(SshError::Invalid { what: format!("path {path:?}"), why: problem.into() })
}

/// What a script that did not end with 0 means.
fn failed(client: &RusshClient, verb: &str, path: &str, output: &Output) -> SshError {
    let host = client.host();
    let path = path.to_owned();
    match output.status {
        Status::Code(NOT_A_FILE) => SshError::NotAFile { host, path },
        Status::Code(NOT_FOUND) => SshError::NotFound { host, path },
        Status::Code(status) => SshError::Remote {
            host,
            what: format!("{verb} `{path}`"),
            status,
            stderr: shorten(&output.stderr),
        },
        Status::Signal(name) => {
            let stderr = format!("signal {name}; {}", shorten(&output.stderr));
            SshError::Remote { host, what: format!("{verb} `{path}`"), status: 128, stderr }
        }
    }
}
