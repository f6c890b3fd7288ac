//! Commands that move bytes, of any kind, from standard input that may still be arriving.

use futures::future::BoxFuture;
use sha2::{Digest as _, Sha256};

use super::{Call, Table, Tool};
use crate::node::{bridge, vfs::Body};

pub(super) const TABLE: Table = &[
    ("cat", Tool::Later(cat)),
    ("tee", Tool::Later(tee)),
    ("head", Tool::Later(head)),
    ("dd", Tool::Later(dd)),
    ("sha256sum", Tool::Later(sha256sum)),
    ("openssl", Tool::Later(openssl)),
    ("sleep", Tool::Later(sleep)),
    ("umask", Tool::Now(umask)),
];

/// Reads a file with the caller's rights.
fn read(call: &mut Call, path: &str) -> Result<Vec<u8>, String> {
    let full = call.path(path);
    let session = std::sync::Arc::clone(&call.session);
    let done = call.os(|os| {
        bridge::may_read(&session, &os.vfs, &full)?;
        os.vfs.read(&full).map(|bytes| bytes.to_vec())
    });
    match done {
        Some(Ok(bytes)) => Ok(bytes),
        Some(Err(error)) => Err(error.to_string()),
        None => Err("Input/output error".to_owned()),
    }
}

/// Writes a file with the caller's rights.
pub(super) fn write(call: &mut Call, path: &str, bytes: &[u8], append: bool) -> Result<(), String> {
    let full = call.path(path);
    let session = std::sync::Arc::clone(&call.session);
    let no_room = u32::from(crate::node::script::disk_full(&session));
    let done = call.os(|os| {
        bridge::may_write(&session, &os.vfs, &full)?;
        let made = bridge::made(&session, Body::File(std::sync::Arc::default()), 0o666);
        os.vfs.full += no_room;
        let done = if append {
            os.vfs.append_as(&full, bytes, made)
        } else {
            os.vfs.write_as(&full, bytes.to_vec(), made)
        };
        os.vfs.full -= no_room;
        done
    });
    call.node().file_written(&full);
    match done {
        Some(Ok(())) => Ok(()),
        Some(Err(error)) => Err(error.to_string()),
        None => Err("Input/output error".to_owned()),
    }
}

fn cat(call: &mut Call) -> BoxFuture<'_, i32> {
    Box::pin(async move {
        let mut code = 0;
        let mut names: Vec<String> =
            call.args.iter().filter(|arg| *arg == "-" || !arg.starts_with('-')).cloned().collect();
        if names.is_empty() {
            names.push("-".into());
        }
        for name in names {
            if name == "-" || name == "/dev/stdin" {
                let bytes = call.input().await;
                call.out.extend(bytes);
                continue;
            }
            match read(call, &name) {
                Ok(bytes) => call.out.extend(bytes),
                Err(error) => code = call.fail(1, format!("{name}: {error}")),
            }
        }
        code
    })
}

fn tee(call: &mut Call) -> BoxFuture<'_, i32> {
    Box::pin(async move {
        let mut append = call.has("-a") || call.has("--append");
        let names = call.operands();
        let mut code = 0;
        let mut first = true;
        // What has arrived is in the file, also when the rest never comes.
        loop {
            let bytes = match (first, call.piped.take()) {
                (true, Some(bytes)) => bytes,
                (true, None) => Vec::new(),
                (false, _) => match call.session.stdin.chunk().await {
                    Some(bytes) => bytes,
                    None => return code,
                },
            };
            let whole = first && !bytes.is_empty();
            for name in &names {
                if let Err(error) = write(call, name, &bytes, append) {
                    code = call.fail(1, format!("{name}: {error}"));
                }
            }
            call.out.extend(bytes);
            append = true;
            first = false;
            if whole {
                return code;
            }
        }
    })
}

fn size(text: &str) -> Option<usize> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match text.get(digits.len()..)? {
        "" | "c" => 1,
        "k" | "K" | "KiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        "G" | "GiB" => 1 << 30,
        "b" => 512,
        _ => return None,
    };
    digits.parse::<usize>().ok()?.checked_mul(factor)
}

fn head(call: &mut Call) -> BoxFuture<'_, i32> {
    Box::pin(async move {
        let (mut lines, mut bytes) = (10_usize, None);
        let mut names = Vec::new();
        let mut args = call.args.clone().into_iter();
        while let Some(arg) = args.next() {
            let mut value = |inline: &str| {
                if inline.is_empty() { args.next() } else { Some(inline.trim_start_matches('=').to_owned()) }
            };
            if let Some(inline) = arg.strip_prefix("-c").or_else(|| arg.strip_prefix("--bytes")) {
                bytes = value(inline).and_then(|v| size(&v));
            } else if let Some(inline) = arg.strip_prefix("-n").or_else(|| arg.strip_prefix("--lines")) {
                lines = value(inline).and_then(|v| v.parse().ok()).unwrap_or(10);
            } else if let Some(count) = arg.strip_prefix('-').and_then(|n| n.parse().ok()) {
                lines = count;
            } else if arg != "-q" && arg != "--" {
                names.push(arg);
            }
        }
        let mut code = 0;
        if names.is_empty() {
            names.push("-".into());
        }
        for name in names {
            let content = if name == "-" {
                match (bytes, call.piped.is_some()) {
                    // Only what is asked for is taken: the rest is for the next reader.
                    (Some(count), false) => call.session.stdin.exactly(count).await,
                    _ => call.input().await,
                }
            } else {
                match read(call, &name) {
                    Ok(content) => content,
                    Err(error) => {
                        code = call.fail(1, format!("cannot open '{name}' for reading: {error}"));
                        continue;
                    }
                }
            };
            let part: Vec<u8> = match bytes {
                Some(count) => content.into_iter().take(count).collect(),
                None => {
                    content.split_inclusive(|byte| *byte == b'\n').take(lines).flatten().copied().collect()
                }
            };
            call.out.extend(part);
        }
        code
    })
}

fn dd(call: &mut Call) -> BoxFuture<'_, i32> {
    Box::pin(async move {
        let get = |key: &str| call.args.iter().find_map(|arg| arg.strip_prefix(key)).map(str::to_owned);
        let (from, to) = (get("if="), get("of="));
        let block = get("bs=").and_then(|v| size(&v)).unwrap_or(512);
        let count = get("count=").and_then(|v| v.parse::<usize>().ok());
        let append = get("oflag=").is_some_and(|v| v.contains("append"));
        let quiet = get("status=").as_deref() == Some("none");
        let limit = count.map(|count| count * block);
        let mut bytes = match from {
            Some(path) if path == "/dev/zero" => vec![0; limit.unwrap_or(0).min(64 << 20)],
            Some(path) => match read(call, &path) {
                Ok(bytes) => bytes,
                Err(error) => return call.fail(1, format!("failed to open '{path}': {error}")),
            },
            None => match limit {
                Some(limit) if call.piped.is_none() => call.session.stdin.exactly(limit).await,
                _ => call.input().await,
            },
        };
        if let Some(limit) = limit {
            bytes.truncate(limit);
        }
        let length = bytes.len();
        match to {
            Some(path) => {
                if let Err(error) = write(call, &path, &bytes, append) {
                    return call.fail(1, format!("failed to open '{path}': {error}"));
                }
            }
            None => call.out.extend(bytes),
        }
        if !quiet {
            let full = length / block.max(1);
            let part = usize::from(length % block.max(1) > 0);
            call.warn(format!("{full}+{part} records in\n{full}+{part} records out\n{length} bytes copied, 0.01 s, 100 MB/s\n"));
        }
        0
    })
}

fn sha256sum(call: &mut Call) -> BoxFuture<'_, i32> {
    Box::pin(async move {
        let check = call.args.iter().any(|arg| {
            arg == "--check" || (arg.starts_with('-') && !arg.starts_with("--") && arg.contains('c'))
        });
        let quiet = call.has("--status") || call.has("--quiet");
        let mut names = call.operands();
        if names.is_empty() {
            names.push("-".into());
        }
        let mut code = 0;
        for name in names {
            let content = if name == "-" { Ok(call.input().await) } else { read(call, &name) };
            let content = match content {
                Ok(content) => content,
                Err(error) => {
                    code = call.fail(1, format!("{name}: {error}"));
                    continue;
                }
            };
            if !check {
                call.line(format!("{}  {name}", hex::encode(Sha256::digest(&content))));
                continue;
            }
            let (mut seen, mut bad) = (0, 0);
            for line in String::from_utf8_lossy(&content).lines() {
                let Some((digest, file)) = line.split_once("  ").or_else(|| line.split_once(" *")) else {
                    continue;
                };
                seen += 1;
                let good = read(call, file)
                    .is_ok_and(|bytes| hex::encode(Sha256::digest(&bytes)) == digest.to_lowercase());
                bad += usize::from(!good);
                if !quiet || (!good && !call.has("--status")) {
                    call.line(format!("{file}: {}", if good { "OK" } else { "FAILED" }));
                }
            }
            if seen == 0 {
                code = call.fail(1, format!("{name}: no properly formatted checksum lines found"));
            } else if bad > 0 {
                code = 1;
                if !call.has("--status") {
                    call.warn(format!(
                        "sha256sum: WARNING: {bad} computed checksum{} did NOT match\n",
                        if bad == 1 { "" } else { "s" }
                    ));
                }
            }
        }
        code
    })
}

/// Only `openssl dgst -sha256 -r` and `openssl rand -hex`.
fn openssl(call: &mut Call) -> BoxFuture<'_, i32> {
    Box::pin(async move {
        match call.args.first().map(String::as_str) {
            Some("dgst") if call.has("-sha256") => {
                let name = call.operands().into_iter().nth(1);
                let content = match &name {
                    Some(name) => read(call, name),
                    None => Ok(call.input().await),
                };
                match content {
                    Ok(content) => {
                        let digest = hex::encode(Sha256::digest(&content));
                        let name = name.unwrap_or_else(|| "stdin".to_owned());
                        call.line(if call.has("-r") {
                            format!("{digest} *{name}")
                        } else {
                            format!("SHA2-256({name})= {digest}")
                        });
                        0
                    }
                    Err(error) => call.fail(1, error),
                }
            }
            Some("rand") => {
                let count =
                    call.operands().last().and_then(|n| n.parse::<usize>().ok()).unwrap_or(16).min(4096);
                let bytes: Vec<u8> = std::iter::repeat_with(rand::random::<u8>).take(count).collect();
                call.line(hex::encode(bytes));
                0
            }
            other => {
                let text =
                    format!("Invalid command '{}'; type \"help\" for a list.", other.unwrap_or_default());
                call.warn(text + "\n");
                1
            }
        }
    })
}

fn sleep(call: &mut Call) -> BoxFuture<'_, i32> {
    Box::pin(async move {
        for arg in call.operands() {
            let nominal = crate::node::systemd::seconds(&arg);
            tokio::select! {
                up = call.session.node.pause(nominal) => if !up { return -15 },
                () = call.session.cancel.cancelled() => return -15,
            }
        }
        0
    })
}

fn umask(call: &mut Call) -> i32 {
    let current = call.session.umask.load(std::sync::atomic::Ordering::Relaxed);
    let Some(value) = call.operands().first().cloned() else {
        call.line(format!("{current:04o}"));
        return 0;
    };
    match u32::from_str_radix(&value, 8) {
        Ok(mask) => {
            call.session.umask.store(mask & 0o777, std::sync::atomic::Ordering::Relaxed);
            0
        }
        Err(_) => call.fail(1, format!("{value}: invalid symbolic mode operator")),
    }
}
