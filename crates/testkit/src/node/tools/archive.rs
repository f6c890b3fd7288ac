//! Archives.

use super::{Call, Table, Tool};
use crate::node::vfs::{Body, Inode};

pub(super) const TABLE: Table = &[("tar", Tool::Now(tar))];

/// Archives are kept in a simple form of their own: names, modes and bytes.
fn tar(call: &mut Call) -> i32 {
    let Some(first) = call.args.first().cloned() else {
        return call.fail(2, "You must specify one of the '-Acdtrux' options");
    };
    let flags: String = first.trim_start_matches('-').to_owned();
    let mut rest = call.args.iter().skip(1).cloned();
    let file = if flags.contains('f') { rest.next() } else { None };
    let mut base = call.cwd.clone();
    let mut names = Vec::new();
    while let Some(arg) = rest.next() {
        match arg.as_str() {
            "-C" => base = rest.next().map_or(base, |dir| call.path(&dir)),
            "-f" => {}
            _ if arg.starts_with('-') && arg != "-" => {}
            _ => names.push(arg),
        }
    }
    if flags.contains('c') {
        fn add(path: &str, inode: &Inode, into: &mut Vec<serde_json::Value>) {
            let entry = |kind: &str, data: String| serde_json::json!({"path": path, "mode": inode.mode, "kind": kind, "data": data});
            match &inode.body {
                Body::Dir(entries) => {
                    into.push(entry("dir", String::new()));
                    entries.iter().for_each(|(name, child)| add(&format!("{path}/{name}"), child, into));
                }
                Body::File(bytes) => into.push(entry("file", hex::encode(bytes.as_slice()))),
                Body::Link(target) => into.push(entry("link", target.clone())),
                Body::Device(..) => {}
            }
        }
        let mut entries = Vec::new();
        for name in names {
            let full = if name.starts_with('/') { name.clone() } else { format!("{base}/{name}") };
            let missing = call.os(|os| {
                os.vfs
                    .lstat(&full)
                    .map(|inode| add(name.trim_start_matches('/'), inode, &mut entries))
                    .is_err()
            });
            if missing != Some(false) {
                return call.fail(2, format!("{name}: Cannot stat: No such file or directory"));
            }
        }
        let bytes = format!("TURINGPI-SIM-TAR 1\n{}", serde_json::Value::Array(entries)).into_bytes();
        return match file.as_deref() {
            None | Some("-") => {
                call.out.extend(bytes);
                0
            }
            Some(path) => match super::streams::write(call, path, &bytes, false) {
                Ok(()) => 0,
                Err(error) => call.fail(2, format!("{path}: Cannot open: {error}")),
            },
        };
    }
    let bytes = match file.as_deref() {
        None | Some("-") => call.piped.take().unwrap_or_default(),
        Some(path) => {
            let full = call.path(path);
            match call.os(|os| os.vfs.read(&full)) {
                Some(Ok(bytes)) => bytes.to_vec(),
                _ => return call.fail(2, format!("{path}: Cannot open: No such file or directory")),
            }
        }
    };
    let text = String::from_utf8_lossy(&bytes);
    let Some(entries) = text
        .strip_prefix("TURINGPI-SIM-TAR 1\n")
        .and_then(|json| serde_json::from_str::<Vec<serde_json::Value>>(json).ok())
    else {
        return call.fail(2, "This does not look like a tar archive");
    };
    for entry in entries {
        let field = |key: &str| entry.get(key).and_then(|v| v.as_str()).unwrap_or_default().to_owned();
        if flags.contains('t') {
            call.line(field("path"));
            continue;
        }
        let path = format!("{base}/{}", field("path"));
        let mode = entry
            .get("mode")
            .and_then(serde_json::Value::as_u64)
            .and_then(|m| u32::try_from(m).ok())
            .unwrap_or(0o644);
        call.os(|os| match field("kind").as_str() {
            "dir" => os.vfs.mkdirs(&path, mode),
            "link" => os.vfs.link(&path, &field("data")),
            _ => os.vfs.put_mode(&path, hex::decode(field("data")).unwrap_or_default(), mode),
        });
    }
    0
}
