//! Files with their modes and owners.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use super::{Call, Table, Tool};
use crate::node::{
    bridge, users,
    vfs::{Body, Inode},
};

pub(super) const TABLE: Table = &[
    ("chmod", Tool::Now(chmod)),
    ("chown", Tool::Now(chown)),
    ("chgrp", Tool::Now(chgrp)),
    ("stat", Tool::Now(stat)),
    ("install", Tool::Now(install)),
    ("mkdir", Tool::Now(mkdir)),
    ("mktemp", Tool::Now(mktemp)),
    ("cp", Tool::Now(cp)),
    ("sync", Tool::Now(nothing)),
    ("chattr", Tool::Now(nothing)),
    ("restorecon", Tool::Now(nothing)),
    ("ldconfig", Tool::Now(nothing)),
];

fn nothing(_: &mut Call) -> i32 {
    0
}

/// Applies `0644` or `u+x,go-w` to a mode.
fn apply_mode(spec: &str, old: u32, dir: bool) -> Option<u32> {
    if spec.chars().all(|c| c.is_ascii_digit()) {
        return u32::from_str_radix(spec, 8).ok().filter(|mode| *mode <= 0o7777);
    }
    let mut mode = old;
    for clause in spec.split(',') {
        let at = clause.find(['+', '-', '='])?;
        let (who, rest) = clause.split_at(at);
        let mut mask = 0;
        for c in if who.is_empty() { "a" } else { who }.chars() {
            mask |= match c {
                'u' => 0o4700,
                'g' => 0o2070,
                'o' => 0o007,
                'a' => 0o7777,
                _ => return None,
            };
        }
        let operator = rest.chars().next()?;
        let mut bits = 0;
        for c in rest.chars().skip(1) {
            bits |= match c {
                'r' => 0o444,
                'w' => 0o222,
                'x' => 0o111,
                'X' if dir || old & 0o111 != 0 => 0o111,
                'X' => 0,
                's' => 0o6000,
                't' => 0o1000,
                _ => return None,
            };
        }
        bits &= mask;
        match operator {
            '+' => mode |= bits,
            '-' => mode &= !bits,
            _ => mode = mode & !(mask & 0o777) | bits,
        }
    }
    Some(mode)
}

fn recursive(call: &Call) -> bool {
    call.args.iter().any(|arg| {
        arg == "--recursive" || (arg.starts_with('-') && !arg.starts_with("--") && arg.contains('R'))
    })
}

fn change(call: &mut Call, path: &str, deep: bool, what: &str, apply: &mut dyn FnMut(&mut Inode)) -> i32 {
    let full = call.path(path);
    let root = call.session.root();
    let uid = call.session.account.uid;
    let done = call.os(|os| {
        let inode = os.vfs.stat(&full)?;
        if !root && inode.uid != uid {
            return Err(std::io::Error::other("Operation not permitted"));
        }
        if deep { os.vfs.change_tree(&full, apply) } else { os.vfs.change(&full, apply) }
    });
    match done {
        Some(Ok(())) => 0,
        Some(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            call.fail(1, format!("cannot access '{path}': {error}"))
        }
        Some(Err(error)) => call.fail(1, format!("changing {what} of '{path}': {error}")),
        None => 1,
    }
}

fn chmod(call: &mut Call) -> i32 {
    // `-x` is a mode, not an option.
    let words: Vec<String> = call
        .args
        .iter()
        .filter(|arg| !(arg.starts_with("--") || matches!(arg.as_str(), "-R" | "-v" | "-f" | "-c")))
        .cloned()
        .collect();
    let Some((spec, names)) = words.split_first() else { return call.fail(1, "missing operand") };
    let deep = recursive(call);
    let mut code = 0;
    for name in names {
        let mut bad = false;
        let step = change(call, name, deep, "permissions", &mut |inode| match apply_mode(
            spec,
            inode.mode,
            matches!(inode.body, Body::Dir(_)),
        ) {
            Some(mode) if !matches!(inode.body, Body::Link(_)) => inode.mode = mode,
            Some(_) => {}
            None => bad = true,
        });
        if bad {
            return call.fail(1, format!("invalid mode: '{spec}'"));
        }
        code |= step;
    }
    code
}

fn ids(call: &mut Call, spec: &str) -> Result<(Option<u32>, Option<u32>), String> {
    let (user, group) = spec.split_once([':', '.']).map_or((spec, None), |(u, g)| (u, Some(g)));
    call.os(|os| {
        let account = if user.is_empty() { None } else { Some(users::find(&os.vfs, user)) };
        let uid = match (&account, user.parse()) {
            (None, _) => None,
            (Some(Some(account)), _) => Some(account.uid),
            (Some(None), Ok(number)) => Some(number),
            (Some(None), Err(_)) => return Err(format!("invalid user: '{spec}'")),
        };
        let gid = match group {
            None => None,
            Some("") => account.flatten().map(|account| account.gid),
            Some(name) => {
                match users::groups(&os.vfs).into_iter().find(|g| g.0 == name || g.1.to_string() == name) {
                    Some(group) => Some(group.1),
                    None => Some(name.parse().map_err(|_| format!("invalid group: '{spec}'"))?),
                }
            }
        };
        Ok((uid, gid))
    })
    .unwrap_or(Ok((None, None)))
}

fn chown(call: &mut Call) -> i32 {
    let operands = call.operands();
    let Some((spec, names)) = operands.split_first() else { return call.fail(1, "missing operand") };
    let (uid, gid) = match ids(call, spec) {
        Ok(ids) => ids,
        Err(text) => return call.fail(1, text),
    };
    if !call.session.root() {
        return call.fail(
            1,
            format!(
                "changing ownership of '{}': Operation not permitted",
                names.first().map_or("", String::as_str)
            ),
        );
    }
    let deep = recursive(call);
    names.iter().fold(0, |code, name| {
        code | change(call, name, deep, "ownership", &mut |inode| {
            inode.uid = uid.unwrap_or(inode.uid);
            inode.gid = gid.unwrap_or(inode.gid);
        })
    })
}

fn chgrp(call: &mut Call) -> i32 {
    let Some(at) = call.args.iter().position(|arg| !arg.starts_with('-')) else {
        return call.fail(1, "missing operand");
    };
    if let Some(group) = call.args.get_mut(at) {
        *group = format!(":{group}");
    }
    chown(call)
}

fn letters(inode: &Inode) -> String {
    let kind = match inode.body {
        Body::Dir(_) => 'd',
        Body::Link(_) => 'l',
        Body::Device(kind, ..) => kind,
        Body::File(_) => '-',
    };
    let mut text = String::from(kind);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = inode.mode >> shift & 7;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (bits & 1 != 0, inode.mode & special != 0) {
            (true, true) => letter,
            (false, true) => letter.to_ascii_uppercase(),
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}

fn epoch(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

fn stat(call: &mut Call) -> i32 {
    let (mut format, mut fs, mut follow, mut names, mut printf) = (None, false, false, Vec::new(), false);
    let mut args = call.args.clone().into_iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "-c" | "--format" => format = args.next(),
            "-f" | "--file-system" => fs = true,
            "-L" | "--dereference" => follow = true,
            "-fc" => {
                fs = true;
                format = args.next();
            }
            "-Lc" => {
                follow = true;
                format = args.next();
            }
            "-t" | "--terse" => {}
            _ => {
                if let Some(value) = arg.strip_prefix("--format=").or_else(|| arg.strip_prefix("-c")) {
                    format = Some(value.to_owned());
                } else if let Some(value) = arg.strip_prefix("--printf=") {
                    format = Some(value.replace("\\n", "\n").replace("\\t", "\t").replace("\\0", "\0"));
                    printf = true;
                } else {
                    names.push(arg);
                }
            }
        }
    }
    let mut code = 0;
    for name in names {
        let full = call.path(&name);
        let format = format.clone();
        let session = Arc::clone(&call.session);
        let shown = call.os(|os| {
            let parent = full.rsplit_once('/').map_or("/", |(parent, _)| parent);
            if !parent.is_empty() {
                bridge::may_read(&session, &os.vfs, parent).or_else(|e| if e.kind() == std::io::ErrorKind::PermissionDenied && session.root() { Ok(()) } else { Err(e) }).or_else(|e| if os.vfs.exists(&full) && e.kind() == std::io::ErrorKind::PermissionDenied && os.vfs.stat(parent).is_ok_and(|i| i.mode & 1 != 0) { Ok(()) } else { Err(e) })?;
            }
            let inode = if follow || fs { os.vfs.stat(&full)? } else { os.vfs.lstat(&full)? };
            let user = users::name_of(&os.vfs, inode.uid).unwrap_or_else(|| "UNKNOWN".into());
            let group = users::groups(&os.vfs).into_iter().find(|g| g.1 == inode.gid).map_or_else(|| "UNKNOWN".into(), |g| g.0);
            let kind = match &inode.body {
                Body::Dir(_) => "directory",
                Body::Link(_) => "symbolic link",
                Body::File(bytes) if bytes.is_empty() => "regular empty file",
                Body::File(_) => "regular file",
                Body::Device('b', ..) => "block special file",
                Body::Device(..) => "character special file",
            };
            let target = if let Body::Link(target) = &inode.body { format!("'{name}' -> '{target}'") } else { format!("'{name}'") };
            let mount = os.vfs.mount_of(&os.vfs.real(&full)?).cloned();
            let fstype = mount.as_ref().map_or("ext2/ext3", |m| match m.fstype.as_str() {
                "cgroup2" => "cgroup2fs",
                "ext4" => "ext2/ext3",
                other => match other {
                    "tmpfs" | "devtmpfs" => "tmpfs",
                    "xfs" => "xfs",
                    "proc" => "proc",
                    "sysfs" => "sysfs",
                    _ => "UNKNOWN",
                },
            });
            let (free, size) = mount.as_ref().and_then(|m| os.vfs.volumes.get(&m.volume).map(|v| (v.capacity.saturating_sub(os.vfs.used(m.volume)), v.capacity))).unwrap_or((0, 0));
            let mounted = mount.map_or_else(|| "/".to_owned(), |m| m.at);
            let seconds = epoch(inode.modified);
            let Some(format) = format else {
                return Ok(format!("  File: {name}\n  Size: {}\t{kind}\nAccess: ({:04o}/{})  Uid: ({}/{user})   Gid: ({}/{group})\nModify: {seconds}\n", inode.size(), inode.mode, letters(inode), inode.uid, inode.gid));
            };
            let mut text = String::new();
            let mut chars = format.chars();
            while let Some(c) = chars.next() {
                if c != '%' {
                    text.push(c);
                    continue;
                }
                let c = chars.next().unwrap_or('%');
                text.push_str(&match (fs, c) {
                    (true, 'T') => fstype.to_owned(),
                    (true, 'a' | 'f') => (free / 4096).to_string(),
                    (true, 'b') => (size / 4096).to_string(),
                    (true, 'S' | 's') => "4096".to_owned(),
                    (_, 'n') => name.clone(),
                    (_, 'N') => target.clone(),
                    (_, 'a') => format!("{:o}", inode.mode),
                    (_, 'A') => letters(inode),
                    (_, 'f') => format!("{:x}", inode.mode),
                    (_, 'u') => inode.uid.to_string(),
                    (_, 'g') => inode.gid.to_string(),
                    (_, 'U') => user.clone(),
                    (_, 'G') => group.clone(),
                    (_, 's') => inode.size().to_string(),
                    (_, 'F') => kind.to_owned(),
                    (_, 'Y' | 'X' | 'Z' | 'W') => seconds.to_string(),
                    (_, 'y' | 'x' | 'z' | 'w') => format!("@{seconds}"),
                    (_, 'm') => mounted.clone(),
                    (_, 'h') => "1".to_owned(),
                    (_, 'i') => "1000".to_owned(),
                    (_, 'd') => "64512".to_owned(),
                    (_, '%') => "%".to_owned(),
                    (_, other) => format!("%{other}"),
                });
            }
            if !printf {
                text.push('\n');
            }
            Ok::<_, std::io::Error>(text)
        });
        match shown {
            Some(Ok(text)) => call.print(text),
            Some(Err(error)) => code = call.fail(1, format!("cannot statx '{name}': {error}")),
            None => return 1,
        }
    }
    code
}

/// Options of install and mkdir: mode, owner, group, flags, operands.
struct Parsed {
    mode: Option<String>,
    owner: Option<String>,
    group: Option<String>,
    flags: String,
    target: Option<String>,
    names: Vec<String>,
}

fn parse(call: &Call) -> Parsed {
    let mut parsed = Parsed {
        mode: None,
        owner: None,
        group: None,
        flags: String::new(),
        target: None,
        names: Vec::new(),
    };
    let mut args = call.args.clone().into_iter();
    while let Some(arg) = args.next() {
        if let Some((long, value)) = arg.strip_prefix("--").and_then(|long| long.split_once('=')) {
            match long {
                "mode" => parsed.mode = Some(value.into()),
                "owner" => parsed.owner = Some(value.into()),
                "group" => parsed.group = Some(value.into()),
                _ => {}
            }
        } else if arg.starts_with("--") {
            match arg.as_str() {
                "--parents" => parsed.flags.push('p'),
                "--directory" => parsed.flags.push('d'),
                _ => {}
            }
        } else if let Some(flags) = arg.strip_prefix('-').filter(|flags| !flags.is_empty()) {
            for (index, flag) in flags.char_indices() {
                if matches!(flag, 'm' | 'o' | 'g' | 't' | 'S') {
                    let inline = flags.get(index + 1..).unwrap_or_default();
                    let value = if inline.is_empty() { args.next() } else { Some(inline.to_owned()) };
                    match flag {
                        'm' => parsed.mode = value,
                        'o' => parsed.owner = value,
                        'g' => parsed.group = value,
                        't' => parsed.target = value,
                        _ => {}
                    }
                    break;
                }
                parsed.flags.push(flag);
            }
        } else {
            parsed.names.push(arg);
        }
    }
    parsed
}

fn mkdir(call: &mut Call) -> i32 {
    let parsed = parse(call);
    let mut code = 0;
    for name in &parsed.names {
        let full = call.path(name);
        let session = Arc::clone(&call.session);
        let deep = parsed.flags.contains('p');
        let existed = call.os(|os| os.vfs.exists(&full)).unwrap_or(false);
        match call.os(|os| bridge::make_dir(&session, &mut os.vfs, &full, deep, 0o777)) {
            Some(Ok(())) => {
                if let Some(spec) = parsed.mode.as_ref().filter(|_| !existed) {
                    call.os(|os| {
                        os.vfs.change(&full, |inode| {
                            inode.mode = apply_mode(spec, 0o755, true).unwrap_or(inode.mode)
                        })
                    });
                }
            }
            Some(Err(error)) => code = call.fail(1, format!("cannot create directory '{name}': {error}")),
            None => return 1,
        }
    }
    code
}

fn install(call: &mut Call) -> i32 {
    let parsed = parse(call);
    let spec = parsed.mode.clone().unwrap_or_else(|| "0755".into());
    let Some(mode) = apply_mode(&spec, 0, false) else {
        return call.fail(1, format!("invalid mode '{spec}'"));
    };
    let owner =
        format!("{}:{}", parsed.owner.clone().unwrap_or_default(), parsed.group.clone().unwrap_or_default());
    let (uid, gid) = if owner == ":" {
        (None, None)
    } else {
        match ids(call, &owner) {
            Ok((uid, gid)) => (uid, gid.filter(|_| parsed.group.is_some())),
            Err(text) => return call.fail(1, text),
        }
    };
    let session = Arc::clone(&call.session);
    let mut code = 0;
    let finish = |call: &mut Call, path: &str| {
        call.os(|os| {
            os.vfs.change(path, |inode| {
                inode.mode = mode;
                inode.uid = uid.unwrap_or(inode.uid);
                inode.gid = gid.unwrap_or(inode.gid);
            })
        });
    };
    if parsed.flags.contains('d') {
        for name in &parsed.names {
            let full = call.path(name);
            match call.os(|os| bridge::make_dir(&session, &mut os.vfs, &full, true, 0o755)) {
                Some(Ok(())) => finish(call, &full),
                Some(Err(error)) => code = call.fail(1, format!("cannot create directory '{name}': {error}")),
                None => return 1,
            }
        }
        return code;
    }
    let mut names = parsed.names.clone();
    let Some(target) = parsed.target.clone().or_else(|| names.pop()) else {
        return call.fail(1, "missing file operand");
    };
    for name in names {
        let full = call.path(&target);
        let into = call.os(|os| os.vfs.is_dir(&full)).unwrap_or(false);
        let to = if into { format!("{full}/{}", name.rsplit('/').next().unwrap_or_default()) } else { full };
        if parsed.flags.contains('D')
            && let Some((parent, _)) = to.rsplit_once('/')
        {
            call.os(|os| bridge::make_dir(&session, &mut os.vfs, parent, true, 0o755).ok());
        }
        let from = call.path(&name);
        let bytes = match call
            .os(|os| bridge::may_read(&session, &os.vfs, &from).and_then(|()| os.vfs.read(&from)))
        {
            Some(Ok(bytes)) => bytes.to_vec(),
            Some(Err(_)) if name == "/dev/stdin" => call.piped.take().unwrap_or_default(),
            Some(Err(error)) => {
                code = call.fail(1, format!("cannot stat '{name}': {error}"));
                continue;
            }
            None => return 1,
        };
        match super::streams::write(call, &to, &bytes, false) {
            Ok(()) => finish(call, &to),
            Err(error) => code = call.fail(1, format!("cannot create regular file '{to}': {error}")),
        }
    }
    code
}

fn mktemp(call: &mut Call) -> i32 {
    let dir = call.args.iter().any(|arg| {
        arg == "-d"
            || arg == "--directory"
            || (arg.starts_with('-') && !arg.starts_with("--") && arg.contains('d'))
    });
    let mut base: Option<String> = None;
    let mut template = None;
    let mut args = call.args.clone().into_iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "-p" => base = args.next(),
            "-t" => base = base.or_else(|| Some("/tmp".into())),
            _ if arg.starts_with("--tmpdir=") => base = arg.strip_prefix("--tmpdir=").map(str::to_owned),
            _ if arg == "--tmpdir" => base = Some("/tmp".into()),
            _ if arg.starts_with('-') => {}
            _ => template = Some(arg),
        }
    }
    let temporary = call.env.get("TMPDIR").cloned().unwrap_or_else(|| "/tmp".into());
    let template = match (template, base) {
        (Some(template), Some(base)) => format!("{base}/{template}"),
        (Some(template), None) => template,
        (None, base) => format!("{}/tmp.XXXXXXXXXX", base.unwrap_or(temporary)),
    };
    let wanted = template.chars().rev().take_while(|c| *c == 'X').count();
    if wanted < 3 && !template.contains("XXX") {
        return call.fail(1, format!("too few X's in template '{template}'"));
    }
    const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let name: String = template
        .chars()
        .map(|c| {
            if c == 'X' {
                char::from(*LETTERS.get(usize::from(rand::random::<u8>()) % 62).unwrap_or(&b'x'))
            } else {
                c
            }
        })
        .collect();
    let full = call.path(&name);
    let session = Arc::clone(&call.session);
    let made = call.os(|os| {
        bridge::may_enter(&session, &os.vfs, &full)?;
        let body = if dir { Body::Dir(BTreeMap::new()) } else { Body::File(Arc::default()) };
        let mut inode = bridge::made(&session, body, 0o777);
        inode.mode = if dir { 0o700 } else { 0o600 };
        os.vfs.create(&full, inode)
    });
    match made {
        Some(Ok(())) => {
            call.line(name);
            0
        }
        Some(Err(error)) => call.fail(
            1,
            format!(
                "failed to create {} via template '{template}': {error}",
                if dir { "directory" } else { "file" }
            ),
        ),
        None => 1,
    }
}

fn cp(call: &mut Call) -> i32 {
    let parsed = parse(call);
    let all = parsed.flags.contains('a') || call.has("--archive");
    let deep = all || parsed.flags.contains(['r', 'R']) || call.has("--recursive");
    let keep = all || parsed.flags.contains('p') || call.args.iter().any(|a| a.starts_with("--preserve"));
    let mut names = parsed.names.clone();
    let Some(target) = parsed.target.clone().or_else(|| names.pop()).filter(|_| !names.is_empty()) else {
        return call.fail(1, "missing file operand");
    };
    let full = call.path(&target);
    let into = call.os(|os| os.vfs.is_dir(&full)).unwrap_or(false) && !parsed.flags.contains('T');
    let session = Arc::clone(&call.session);
    let no_room = u32::from(crate::node::script::disk_full(&session));
    let mut code = 0;
    for name in names {
        let from = call.path(&name);
        let to = if into {
            format!(
                "{}/{}",
                full.trim_end_matches('/'),
                name.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
            )
        } else {
            full.clone()
        };
        let done = call.os(|os| {
            bridge::may_read(&session, &os.vfs, &from)?;
            bridge::may_write(&session, &os.vfs, &to)?;
            let mut inode = if all { os.vfs.lstat(&from)?.clone() } else { os.vfs.stat(&from)?.clone() };
            if !keep {
                inode = Inode {
                    modified: SystemTime::now(),
                    ..bridge::made(&session, inode.body, inode.mode & 0o777)
                };
            }
            os.vfs.full += no_room;
            let done = match inode.body {
                Body::Dir(_) if !deep => Err(std::io::Error::other("-r not specified; omitting directory")),
                // `cp -r dir/. there` adds to what is there.
                Body::Dir(entries) if os.vfs.is_dir(&to) => {
                    entries.into_iter().try_for_each(|(child, inode)| {
                        let path = format!("{to}/{child}");
                        let _ = os.vfs.remove(&path, true);
                        os.vfs.graft(&path, inode)
                    })
                }
                Body::File(ref bytes) if os.vfs.exists(&to) => {
                    let bytes = bytes.to_vec();
                    os.vfs.write_as(&to, bytes, inode.clone()).and_then(|()| {
                        if keep {
                            os.vfs.change(&to, |old| {
                                (old.mode, old.uid, old.gid) = (inode.mode, inode.uid, inode.gid)
                            })
                        } else {
                            Ok(())
                        }
                    })
                }
                _ => {
                    let _ = os.vfs.remove(&to, false);
                    os.vfs.graft(&to, inode)
                }
            };
            os.vfs.full -= no_room;
            done
        });
        match done {
            Some(Ok(())) => {}
            Some(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
                code = call.fail(1, format!("cannot stat '{name}': {error}"))
            }
            Some(Err(error)) => code = call.fail(1, format!("'{name}': {error}")),
            None => return 1,
        }
    }
    code
}
