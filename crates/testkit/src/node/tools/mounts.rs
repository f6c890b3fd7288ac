//! Mounts, and the room on what is mounted.

use super::{Call, Table, Tool};
use crate::node::{boot, disk, vfs::Mount};

pub(super) const TABLE: Table = &[
    ("mount", Tool::Now(mount)),
    ("umount", Tool::Now(umount)),
    ("findmnt", Tool::Now(findmnt)),
    ("mountpoint", Tool::Now(mountpoint)),
    ("df", Tool::Now(df)),
];

fn mount(call: &mut Call) -> i32 {
    let (mut kind, mut options, mut names) = ("auto".to_owned(), "defaults".to_owned(), Vec::new());
    let (mut all, mut bind) = (false, false);
    let mut args = call.args.clone().into_iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "-t" | "--types" => kind = args.next().unwrap_or(kind),
            "-o" | "--options" => options = args.next().unwrap_or(options),
            "-a" | "--all" => all = true,
            "-B" | "--bind" | "--rbind" => bind = true,
            _ if arg.starts_with('-') => {}
            _ => names.push(arg),
        }
    }
    if names.is_empty() && !all {
        let table = call
            .os(|os| {
                os.vfs
                    .mounts
                    .iter()
                    .map(|m| format!("{} on {} type {} ({})\n", m.source, m.at, m.fstype, m.options))
                    .collect::<String>()
            })
            .unwrap_or_default();
        call.print(table);
        return 0;
    }
    if let Some(code) = call.need_root("mount: only root can do that") {
        return code;
    }
    if bind {
        options = "bind".into();
    }
    let mut lines = Vec::new();
    if all {
        lines = call
            .os(|os| {
                boot::fstab(&os.vfs)
                    .into_iter()
                    .filter(|l| {
                        l[2] != "swap"
                            && l[1] != "/"
                            && !l[3].split(',').any(|o| o == "noauto")
                            && os.vfs.mount_at(&l[1]).is_none()
                    })
                    .collect()
            })
            .unwrap_or_default();
    } else if let [one] = names.as_slice() {
        let one = one.clone();
        let found = call
            .os(|os| {
                boot::fstab(&os.vfs).into_iter().find(|l| l[1] == one.trim_end_matches('/') || l[0] == one)
            })
            .flatten();
        match found {
            Some(line) => lines.push(line),
            None => return call.fail(1, format!("{one}: can't find in /etc/fstab.")),
        }
    } else if let [source, at] = names.as_slice() {
        if options.split(',').any(|o| o == "remount") {
            return 0;
        }
        lines.push([source.clone(), call.path(at).trim_end_matches('/').to_owned(), kind, options]);
    }
    let mut code = 0;
    for line in lines {
        let nofail = line[3].split(',').any(|o| o == "nofail");
        if !call.os(|os| os.vfs.exists(&line[1])).unwrap_or(false) && !all {
            code = call.fail(32, format!("{}: mount point does not exist.", line[1]));
            continue;
        }
        if let Some(Err(text)) = call.os(|os| boot::mount_line(os, &line))
            && !(all && nofail)
        {
            call.warn(text);
            code = 32;
        }
    }
    call.refresh();
    code
}

fn umount(call: &mut Call) -> i32 {
    if let Some(code) = call.need_root("umount: must be superuser to unmount.") {
        return code;
    }
    let mut code = 0;
    for name in call.operands() {
        let full = call.path(&name);
        let at = call
            .os(|os| {
                os.vfs
                    .mounts
                    .iter()
                    .rev()
                    .find(|m| m.source == name)
                    .map(|m| m.at.clone())
                    .or_else(|| os.vfs.real(&full).ok())
            })
            .flatten()
            .unwrap_or(full);
        let below = format!("{at}/");
        let deep = call.has("-R") || call.has("--recursive");
        let lazy = call.args.iter().any(|a| a == "-l" || a == "-lf" || a == "--lazy");
        let inner: Vec<String> = call
            .os(|os| {
                os.vfs.mounts.iter().filter(|m| m.at.starts_with(&below)).map(|m| m.at.clone()).collect()
            })
            .unwrap_or_default();
        if !inner.is_empty() && !deep && !lazy {
            code = call.fail(32, format!("{name}: target is busy."));
            continue;
        }
        for path in inner.iter().rev() {
            call.os(|os| os.vfs.umount(path));
        }
        if call.os(|os| os.vfs.umount(&at)).flatten().is_none() {
            code = call.fail(32, format!("{name}: not mounted."));
        }
    }
    call.refresh();
    code
}

fn cell(call: &Call, mount: &Mount, column: &str) -> serde_json::Value {
    let size = || {
        call.os(|os| (os.vfs.used(mount.volume), os.vfs.volumes.get(&mount.volume).map_or(0, |v| v.capacity)))
            .unwrap_or((0, 0))
    };
    let filesystem = || {
        call.os(|os| {
            disk::find(&os.disks, &mount.source)
                .and_then(|d| disk::filesystem(&mut os.disks, d).and_then(|(fs, _)| fs.clone()))
        })
        .flatten()
    };
    match column {
        "TARGET" => mount.at.clone().into(),
        "SOURCE" => mount.source.clone().into(),
        "FSTYPE" => mount.fstype.clone().into(),
        "OPTIONS" => mount.options.clone().into(),
        "SIZE" => size().1.to_string().into(),
        "USED" => size().0.to_string().into(),
        "AVAIL" => size().1.saturating_sub(size().0).to_string().into(),
        "UUID" => filesystem().map_or(serde_json::Value::Null, |fs| fs.uuid.into()),
        "LABEL" => filesystem()
            .filter(|fs| !fs.label.is_empty())
            .map_or(serde_json::Value::Null, |fs| fs.label.into()),
        "FSROOT" => {
            if mount.sub.is_empty() {
                "/".into()
            } else {
                format!("/{}", mount.sub.join("/")).into()
            }
        }
        _ => serde_json::Value::Null,
    }
}

fn findmnt(call: &mut Call) -> i32 {
    let (mut columns, mut json, mut bare, mut by_target, mut by_mountpoint, mut first, mut kind) =
        (None, false, false, None, None, false, None);
    let mut names = Vec::new();
    let mut args = call.args.clone().into_iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--json" => json = true,
            "--noheadings" => bare = true,
            "--target" => by_target = args.next(),
            "--mountpoint" => by_mountpoint = args.next(),
            "--source" => names.extend(args.next()),
            "--output" => columns = args.next(),
            "--types" => kind = args.next(),
            _ if arg.starts_with("--output=") => columns = arg.strip_prefix("--output=").map(str::to_owned),
            _ if arg.starts_with("--target=") => by_target = arg.strip_prefix("--target=").map(str::to_owned),
            _ if arg.starts_with("--") => {}
            _ => match arg.strip_prefix('-') {
                Some(flags) => {
                    for flag in flags.chars() {
                        match flag {
                            'J' => json = true,
                            'n' => bare = true,
                            'f' => first = true,
                            'o' => columns = args.next(),
                            'T' => by_target = args.next(),
                            'M' => by_mountpoint = args.next(),
                            'S' => names.extend(args.next()),
                            't' => kind = args.next(),
                            _ => {}
                        }
                    }
                }
                None => names.push(arg),
            },
        }
    }
    let all: Vec<Mount> = call.os(|os| os.vfs.mounts.clone()).unwrap_or_default();
    let mut found: Vec<Mount> = if let Some(path) = by_target {
        let full = call.path(&path);
        call.os(|os| {
            os.vfs
                .real(&full)
                .ok()
                .filter(|real| os.vfs.exists(real))
                .and_then(|real| os.vfs.mount_of(&real).cloned())
        })
        .flatten()
        .into_iter()
        .collect()
    } else if let Some(name) = by_mountpoint.or_else(|| names.first().cloned()) {
        let device = call
            .os(|os| disk::find(&os.disks, &name).map(|d| disk::path(&os.disks, d)))
            .flatten()
            .unwrap_or_else(|| name.clone());
        let at = if name == "/" { "/" } else { name.trim_end_matches('/') };
        let hits: Vec<Mount> = all.iter().filter(|m| m.at == at || m.source == device).cloned().collect();
        // Only the last mount on a path shows.
        if hits.iter().all(|m| m.at == at) {
            hits.into_iter().next_back().into_iter().collect()
        } else {
            hits
        }
    } else {
        all
    };
    if let Some(kind) = kind {
        found.retain(|m| kind.split(',').any(|k| k == m.fstype));
    }
    if first {
        found.truncate(1);
    }
    if found.is_empty() {
        return 1;
    }
    let columns: Vec<String> = columns
        .unwrap_or_else(|| "TARGET,SOURCE,FSTYPE,OPTIONS".into())
        .split(',')
        .map(str::to_uppercase)
        .collect();
    if json {
        let list: Vec<serde_json::Value> = found
            .iter()
            .map(|m| {
                serde_json::Value::Object(
                    columns.iter().map(|c| (c.to_lowercase(), cell(call, m, c))).collect(),
                )
            })
            .collect();
        call.line(
            serde_json::to_string_pretty(&serde_json::json!({ "filesystems": list })).unwrap_or_default(),
        );
        return 0;
    }
    if !bare {
        call.line(columns.join(" "));
    }
    for mount in &found {
        let cells: Vec<String> =
            columns.iter().map(|c| cell(call, mount, c).as_str().unwrap_or_default().to_owned()).collect();
        call.line(cells.join(" "));
    }
    0
}

fn mountpoint(call: &mut Call) -> i32 {
    let Some(name) = call.operands().first().cloned() else { return 1 };
    let full = call.path(&name);
    let is =
        call.os(|os| os.vfs.real(&full).is_ok_and(|real| os.vfs.mount_at(&real).is_some())).unwrap_or(false);
    if !call.has("-q") {
        call.line(format!("{name} is {}a mountpoint", if is { "" } else { "not " }));
    }
    if is { 0 } else { 32 }
}

fn df(call: &mut Call) -> i32 {
    let short: String =
        call.args.iter().filter(|a| a.starts_with('-') && !a.starts_with("--")).map(String::as_str).collect();
    let output = call.args.iter().find_map(|a| a.strip_prefix("--output=").map(str::to_owned));
    let unit: u64 = if short.contains('m') || call.has("-BM") {
        1 << 20
    } else if call.has("-B1") || call.has("--block-size=1") {
        1
    } else {
        1024
    };
    let human = short.contains('h');
    let with_type = short.contains('T');
    let names = call.operands();
    let mut rows = Vec::new();
    let mut code = 0;
    let mounts: Vec<_> = if names.is_empty() {
        call.os(|os| {
            os.vfs
                .mounts
                .iter()
                .filter(|m| !matches!(m.fstype.as_str(), "proc" | "sysfs" | "cgroup2"))
                .cloned()
                .collect()
        })
        .unwrap_or_default()
    } else {
        let mut found = Vec::new();
        for name in names {
            let full = call.path(&name);
            match call.os(|os| {
                os.vfs
                    .real(&full)
                    .ok()
                    .filter(|real| os.vfs.exists(real))
                    .and_then(|real| os.vfs.mount_of(&real).cloned())
            }) {
                Some(Some(mount)) => found.push(mount),
                _ => code = call.fail(1, format!("{name}: No such file or directory")),
            }
        }
        found
    };
    for mount in mounts {
        let (used, size) = call
            .os(|os| (os.vfs.used(mount.volume), os.vfs.volumes.get(&mount.volume).map_or(0, |v| v.capacity)))
            .unwrap_or((0, 0));
        let percent = if size == 0 { 0 } else { (used * 100).div_ceil(size) };
        let show = |bytes: u64| {
            if human {
                format!("{:.1}G", bytes as f64 / f64::from(1 << 30))
            } else {
                (bytes / unit).to_string()
            }
        };
        let free = size.saturating_sub(used);
        rows.push(match &output {
            Some(columns) => columns
                .split(',')
                .map(|column| match column {
                    "source" => mount.source.clone(),
                    "fstype" => mount.fstype.clone(),
                    "size" => show(size),
                    "used" => show(used),
                    "avail" => show(free),
                    "pcent" => format!("{percent}%"),
                    _ => mount.at.clone(),
                })
                .collect::<Vec<_>>()
                .join(" "),
            None => {
                let kind = if with_type { format!(" {}", mount.fstype) } else { String::new() };
                format!(
                    "{:<20}{kind} {} {} {} {percent}% {}",
                    mount.source,
                    show(size),
                    show(used),
                    show(free),
                    mount.at
                )
            }
        });
    }
    if !rows.is_empty() {
        let header = match &output {
            Some(columns) => columns
                .split(',')
                .map(|c| match c {
                    "source" => "Filesystem",
                    "fstype" => "Type",
                    "size" => "1K-blocks",
                    "used" => "Used",
                    "avail" => "Avail",
                    "pcent" => "Use%",
                    _ => "Mounted on",
                })
                .collect::<Vec<_>>()
                .join(" "),
            None => format!(
                "Filesystem          {} {} Used Available {} Mounted on",
                if with_type { " Type" } else { "" },
                if unit == 1024 { "1024-blocks" } else { "1M-blocks" },
                if short.contains('P') { "Capacity" } else { "Use%" }
            ),
        };
        call.line(header);
        rows.iter().for_each(|row| call.line(row));
    }
    code
}
