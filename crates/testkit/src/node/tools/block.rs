//! Disks: looking at them, dividing them, making file systems.

use futures::future::BoxFuture;

use super::{Call, Table, Tool};
use crate::node::{
    disk::{self, Device, Disk, Filesystem, Partition},
    procfs,
};

pub(super) const TABLE: Table = &[
    ("lsblk", Tool::Now(lsblk)),
    ("blkid", Tool::Now(blkid)),
    ("wipefs", Tool::Now(wipefs)),
    ("sfdisk", Tool::Later(sfdisk)),
    ("sgdisk", Tool::Now(sgdisk)),
    ("parted", Tool::Now(parted)),
    ("mkfs", Tool::Now(mkfs)),
    ("mkfs.ext4", Tool::Now(mkfs)),
    ("mkfs.ext3", Tool::Now(mkfs)),
    ("mkfs.xfs", Tool::Now(mkfs)),
    ("mkfs.vfat", Tool::Now(mkfs)),
    ("mke2fs", Tool::Now(mkfs)),
    ("partprobe", Tool::Now(|_| 0)),
    ("partx", Tool::Now(|_| 0)),
    ("udevadm", Tool::Now(|_| 0)),
    ("blockdev", Tool::Now(blockdev)),
    ("resize2fs", Tool::Now(|_| 0)),
    ("xfs_growfs", Tool::Now(|_| 0)),
    ("e2label", Tool::Now(|_| 0)),
    ("tune2fs", Tool::Now(|_| 0)),
    ("fstrim", Tool::Now(|_| 0)),
    ("blkdiscard", Tool::Now(wipefs)),
];

fn human(bytes: u64) -> String {
    match bytes {
        b if b >= 1 << 40 => format!("{:.1}T", b as f64 / (1_u64 << 40) as f64),
        b if b >= 1 << 30 => format!("{:.1}G", b as f64 / f64::from(1 << 30)),
        b => format!("{}M", b >> 20),
    }
}

/// A row of lsblk: the value of a column, and its children.
struct Row {
    name: String,
    kind: &'static str,
    size: u64,
    model: String,
    table: Option<String>,
    part_uuid: String,
    filesystem: Option<Filesystem>,
    mounts: Vec<String>,
    children: Vec<Row>,
    parent: String,
}

impl Row {
    fn get(&self, column: &str, bytes: bool) -> serde_json::Value {
        let fs = |pick: fn(&Filesystem) -> &str| {
            self.filesystem
                .as_ref()
                .map(pick)
                .filter(|v| !v.is_empty())
                .map_or(serde_json::Value::Null, |v| v.into())
        };
        match column {
            "NAME" | "KNAME" => self.name.clone().into(),
            "PATH" => format!("/dev/{}", self.name).into(),
            "SIZE" if bytes => self.size.into(),
            "SIZE" => human(self.size).into(),
            "TYPE" => self.kind.into(),
            "FSTYPE" => fs(|f| &f.kind),
            "UUID" => fs(|f| &f.uuid),
            "LABEL" => fs(|f| &f.label),
            "MOUNTPOINT" => self.mounts.first().cloned().map_or(serde_json::Value::Null, Into::into),
            "MOUNTPOINTS" => {
                let all: Vec<serde_json::Value> = self.mounts.iter().cloned().map(Into::into).collect();
                if all.is_empty() { vec![serde_json::Value::Null].into() } else { all.into() }
            }
            "MODEL" if !self.model.is_empty() => self.model.clone().into(),
            "PTTYPE" => self.table.clone().map_or(serde_json::Value::Null, Into::into),
            "PARTUUID" if !self.part_uuid.is_empty() => self.part_uuid.clone().into(),
            "PKNAME" if !self.parent.is_empty() => self.parent.clone().into(),
            "RO" | "RM" | "ROTA" => false.into(),
            "MAJ:MIN" => "259:0".into(),
            "TRAN" if self.name.starts_with("nvme") => "nvme".into(),
            _ => serde_json::Value::Null,
        }
    }
}

fn rows(call: &Call) -> Vec<Row> {
    call.os(|os| {
        let mounts_of = |name: &str, fs: Option<&Filesystem>| {
            let source = format!("/dev/{name}");
            let swap = os.running.as_ref().is_some_and(|r| r.swaps.iter().any(|s| s.device == source));
            let mut at: Vec<String> = os
                .vfs
                .mounts
                .iter()
                .filter(|m| m.source == source && (fs.and_then(|f| f.volume) == Some(m.volume)))
                .map(|m| m.at.clone())
                .collect();
            if swap {
                at.push("[SWAP]".into());
            }
            at
        };
        let mut rows: Vec<Row> = os
            .disks
            .iter()
            .map(|d| Row {
                name: d.name.clone(),
                kind: "disk",
                size: d.size,
                model: d.model.clone(),
                table: d.table.clone(),
                part_uuid: String::new(),
                filesystem: d.filesystem.clone(),
                mounts: mounts_of(&d.name, d.filesystem.as_ref()),
                parent: String::new(),
                children: d
                    .partitions
                    .iter()
                    .map(|p| {
                        let name = d.partition_name(p.number);
                        Row {
                            kind: "part",
                            size: p.size,
                            model: String::new(),
                            table: d.table.clone(),
                            part_uuid: p.uuid.clone(),
                            filesystem: p.filesystem.clone(),
                            mounts: mounts_of(&name, p.filesystem.as_ref()),
                            children: Vec::new(),
                            parent: d.name.clone(),
                            name,
                        }
                    })
                    .collect(),
            })
            .collect();
        let zram = os.running.iter().flat_map(|r| &r.swaps).filter(|s| s.device.starts_with("/dev/zram"));
        rows.extend(zram.map(|swap| Row {
            name: swap.device.trim_start_matches("/dev/").to_owned(),
            kind: "disk",
            size: swap.bytes,
            model: String::new(),
            table: None,
            part_uuid: String::new(),
            filesystem: None,
            mounts: vec!["[SWAP]".into()],
            children: Vec::new(),
            parent: String::new(),
        }));
        rows
    })
    .unwrap_or_default()
}

fn lsblk(call: &mut Call) -> i32 {
    let (mut columns, mut names) = (None, Vec::new());
    let (mut json, mut bytes, mut flat, mut bare, mut alone, mut pairs) =
        (false, false, false, false, false, false);
    let mut args = call.args.clone().into_iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--json" => json = true,
            "--bytes" => bytes = true,
            "--noheadings" => bare = true,
            "--nodeps" => alone = true,
            "--list" => flat = true,
            "--pairs" => pairs = true,
            "--output" => columns = args.next(),
            "-f" | "--fs" => columns = Some("NAME,FSTYPE,LABEL,UUID,MOUNTPOINTS".into()),
            _ if arg.starts_with("--output=") => columns = arg.strip_prefix("--output=").map(str::to_owned),
            _ if arg.starts_with("--") => {}
            _ => match arg.strip_prefix('-') {
                Some(flags) => {
                    for flag in flags.chars() {
                        match flag {
                            'J' => json = true,
                            'b' => bytes = true,
                            'n' => bare = true,
                            'd' => alone = true,
                            'l' | 'r' => flat = true,
                            'P' => pairs = true,
                            'p' => {}
                            'o' => columns = args.next(),
                            _ => {}
                        }
                    }
                }
                None => names.push(arg),
            },
        }
    }
    let columns: Vec<String> = columns
        .unwrap_or_else(|| "NAME,MAJ:MIN,RM,SIZE,RO,TYPE,MOUNTPOINTS".into())
        .split(',')
        .map(str::to_uppercase)
        .collect();
    let mut all = rows(call);
    if !names.is_empty() {
        let mut picked = Vec::new();
        for name in names {
            let short = name.trim_start_matches("/dev/").to_owned();
            let mut found = None;
            for row in &mut all {
                if row.name == short {
                    found = Some(std::mem::replace(row, empty()));
                } else if let Some(at) = row.children.iter().position(|child| child.name == short) {
                    found = Some(row.children.remove(at));
                }
            }
            match found {
                Some(row) => picked.push(row),
                None => return call.fail(32, format!("{name}: not a block device")),
            }
        }
        all = picked;
    }
    let object = |row: &Row| {
        serde_json::Value::Object(columns.iter().map(|c| (c.to_lowercase(), row.get(c, bytes))).collect())
    };
    if json {
        let devices: Vec<serde_json::Value> = all
            .iter()
            .map(|row| {
                let mut value = object(row);
                if !row.children.is_empty()
                    && !alone
                    && let Some(map) = value.as_object_mut()
                {
                    map.insert("children".into(), row.children.iter().map(object).collect());
                }
                value
            })
            .collect();
        call.line(
            serde_json::to_string_pretty(&serde_json::json!({ "blockdevices": devices })).unwrap_or_default(),
        );
        return 0;
    }
    if !bare && !pairs {
        call.line(columns.join(" "));
    }
    let text = |row: &Row, column: &str| match row.get(column, bytes) {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(s) => s,
        serde_json::Value::Bool(b) => u8::from(b).to_string(),
        serde_json::Value::Array(list) => {
            list.iter().filter_map(|v| v.as_str()).collect::<Vec<_>>().join(",")
        }
        other => other.to_string(),
    };
    for row in &all {
        for (row, child) in
            std::iter::once((row, false)).chain(row.children.iter().map(|c| (c, true)).filter(|_| !alone))
        {
            let cells: Vec<String> = columns
                .iter()
                .map(|c| {
                    let value = text(row, c);
                    match (pairs, child && !flat && c == "NAME" && !bare) {
                        (true, _) => format!("{c}=\"{value}\""),
                        (_, true) => format!("└─{value}"),
                        _ => value,
                    }
                })
                .collect();
            call.line(cells.join(" ").trim_end());
        }
    }
    0
}

fn empty() -> Row {
    Row {
        name: String::new(),
        kind: "disk",
        size: 0,
        model: String::new(),
        table: None,
        part_uuid: String::new(),
        filesystem: None,
        mounts: Vec::new(),
        children: Vec::new(),
        parent: String::new(),
    }
}

fn blkid(call: &mut Call) -> i32 {
    let value_of = call.args.iter().position(|a| a == "-s").and_then(|at| call.args.get(at + 1)).cloned();
    let bare = call.args.windows(2).any(|w| w[0] == "-o" && w[1] == "value");
    let export = call.args.windows(2).any(|w| w[0] == "-o" && w[1] == "export");
    let by_uuid = call.args.windows(2).find(|w| w[0] == "-U").map(|w| format!("UUID={}", w[1]));
    let by_label = call.args.windows(2).find(|w| w[0] == "-L").map(|w| format!("LABEL={}", w[1]));
    if let Some(name) = by_uuid.or(by_label) {
        return match call.os(|os| disk::find(&os.disks, &name).map(|d| disk::path(&os.disks, d))).flatten() {
            Some(path) => {
                call.line(path);
                0
            }
            None => 2,
        };
    }
    let wanted: Vec<String> = call.args.iter().filter(|a| a.starts_with("/dev/")).cloned().collect();
    let all = rows(call);
    let mut found = false;
    for row in all.iter().flat_map(|row| std::iter::once(row).chain(&row.children)) {
        let path = format!("/dev/{}", row.name);
        if !wanted.is_empty() && !wanted.contains(&path) {
            continue;
        }
        let mut fields: Vec<(&str, String)> = Vec::new();
        if let Some(fs) = &row.filesystem {
            if !fs.label.is_empty() {
                fields.push(("LABEL", fs.label.clone()));
            }
            fields.push(("UUID", fs.uuid.clone()));
            fields.push(("TYPE", fs.kind.clone()));
        } else if row.kind == "disk"
            && let Some(table) = &row.table
        {
            fields.push(("PTTYPE", table.clone()));
        }
        if !row.part_uuid.is_empty() {
            fields.push(("PARTUUID", row.part_uuid.clone()));
        }
        fields.retain(|(key, _)| value_of.as_deref().is_none_or(|wanted| wanted == *key));
        if fields.is_empty() {
            continue;
        }
        found = true;
        if bare {
            fields.iter().for_each(|(_, v)| call.line(v));
        } else if export {
            call.line(format!("DEVNAME={path}"));
            fields.iter().for_each(|(k, v)| call.line(format!("{k}={v}")));
        } else {
            let text: Vec<String> = fields.iter().map(|(k, v)| format!("{k}=\"{v}\"")).collect();
            call.line(format!("{path}: {}", text.join(" ")));
        }
    }
    if found { 0 } else { 2 }
}

fn device(call: &mut Call, name: &str) -> Result<Device, i32> {
    if !call.session.root() {
        return Err(call.fail(1, format!("{name}: Permission denied")));
    }
    match call.os(|os| disk::find(&os.disks, name)).flatten() {
        Some(device) => Ok(device),
        None => {
            Err(call
                .fail(1, format!("error: {name}: probing initialization failed: No such file or directory")))
        }
    }
}

/// Whether something of a device is mounted or swapped on.
fn busy(call: &Call, device: Device) -> bool {
    call.os(|os| {
        let Device::Disk(d) = device else {
            let path = disk::path(&os.disks, device);
            return os.vfs.mounts.iter().any(|m| m.source == path);
        };
        let name = os.disks.get(d).map(|disk| format!("/dev/{}", disk.name)).unwrap_or_default();
        os.vfs.mounts.iter().any(|m| m.source.starts_with(&name))
    })
    .unwrap_or(false)
}

fn refresh(call: &Call) {
    call.os(procfs::refresh_devices);
}

fn wipefs(call: &mut Call) -> i32 {
    let Some(name) = call.operands().last().cloned() else { return 0 };
    let device = match device(call, &name) {
        Ok(device) => device,
        Err(code) => return code,
    };
    if call.name == "wipefs"
        && !call.args.iter().any(|a| a == "-a" || a == "--all" || a == "-af" || a == "-fa")
    {
        let kind =
            call.os(|os| disk::filesystem(&mut os.disks, device).and_then(|(fs, _)| fs.clone())).flatten();
        if let Some(fs) = kind {
            call.line(format!(
                "DEVICE OFFSET TYPE UUID LABEL\n{} 0x438 {} {} {}",
                name.trim_start_matches("/dev/"),
                fs.kind,
                fs.uuid,
                fs.label
            ));
        }
        return 0;
    }
    if busy(call, device) && !call.args.iter().any(|a| a.contains('f')) {
        return call
            .fail(1, format!("error: {name}: probing initialization failed: Device or resource busy"));
    }
    call.os(|os| match device {
        Device::Disk(d) => {
            if let Some(disk) = os.disks.get_mut(d) {
                disk.filesystem = None;
                disk.partitions.clear();
                disk.table = None;
            }
        }
        Device::Partition(..) => {
            if let Some((fs, _)) = disk::filesystem(&mut os.disks, device) {
                *fs = None;
            }
        }
    });
    refresh(call);
    0
}

/// Divides a disk: `None` as a size takes the rest.
fn divide(disk: &mut Disk, table: &str, sizes: &[Option<u64>]) {
    disk.table = Some(table.to_owned());
    disk.table_uuid = disk::uuid();
    disk.filesystem = None;
    disk.partitions.clear();
    append(disk, sizes);
}

fn append(disk: &mut Disk, sizes: &[Option<u64>]) {
    for size in sizes {
        let start = disk.partitions.last().map_or(1 << 20, |p| p.start + p.size);
        let rest = disk.size.saturating_sub(start + (1 << 20));
        let number = disk.partitions.last().map_or(1, |p| p.number + 1);
        disk.partitions.push(Partition {
            number,
            start,
            size: size.unwrap_or(rest).min(rest),
            uuid: disk::uuid(),
            filesystem: None,
        });
    }
}

fn bytes(text: &str) -> Option<u64> {
    let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
    let number: u64 = digits.parse().ok()?;
    Some(match text.get(digits.len()..)?.trim() {
        "" => number * 512,
        "K" | "KiB" => number << 10,
        "M" | "MiB" | "MB" => number << 20,
        "G" | "GiB" | "GB" => number << 30,
        "T" | "TiB" => number << 40,
        _ => return None,
    })
}

fn sfdisk(call: &mut Call) -> BoxFuture<'_, i32> {
    Box::pin(async move {
        let Some(name) = call.args.iter().find(|a| a.starts_with("/dev/")).cloned() else {
            return call.fail(1, "no disk device specified");
        };
        let device = match device(call, &name) {
            Ok(device) => device,
            Err(code) => return code,
        };
        let Device::Disk(d) = device else { return call.fail(1, format!("{name}: not a disk")) };
        if call.has("-d") || call.has("--dump") || call.has("-J") || call.has("--json") || call.has("-l") {
            let disk = call.os(|os| os.disks.get(d).cloned()).flatten();
            let Some(disk) = disk.filter(|disk| disk.table.is_some()) else {
                return call.fail(1, format!("{name}: does not contain a recognized partition table"));
            };
            let table = disk.table.clone().unwrap_or_default();
            if call.has("-J") || call.has("--json") {
                let parts: Vec<serde_json::Value> = disk.partitions.iter().map(|p| serde_json::json!({"node": format!("/dev/{}", disk.partition_name(p.number)), "start": p.start / 512, "size": p.size / 512, "uuid": p.uuid})).collect();
                call.line(serde_json::json!({"partitiontable": {"label": table, "id": disk.table_uuid, "device": name, "unit": "sectors", "sectorsize": 512, "partitions": parts}}).to_string());
            } else {
                call.line(format!("label: {table}\ndevice: {name}\nunit: sectors\n"));
                for p in &disk.partitions {
                    call.line(format!(
                        "/dev/{} : start={}, size={}",
                        disk.partition_name(p.number),
                        p.start / 512,
                        p.size / 512
                    ));
                }
            }
            return 0;
        }
        if busy(call, device) && !call.has("--force") && !call.has("-f") && !call.has("--no-reread") {
            return call.fail(1, "Checking that no-one is using this disk right now ... FAILED\n\nThis disk is currently in use - repartitioning is probably a bad idea.");
        }
        if call.has("--delete") {
            call.os(|os| os.disks.get_mut(d).map(|disk| disk.partitions.clear()));
            refresh(call);
            return 0;
        }
        let input = String::from_utf8_lossy(&call.input().await).into_owned();
        let mut table =
            call.args.windows(2).find(|w| w[0] == "-X" || w[0] == "--label").map(|w| w[1].clone());
        let mut sizes = Vec::new();
        for line in input
            .lines()
            .flat_map(|l| l.split(';'))
            .map(str::trim)
            .filter(|l| !l.is_empty() && !l.starts_with('#'))
        {
            if let Some(label) = line.strip_prefix("label:") {
                table = Some(label.trim().to_owned());
            } else if !line.contains(':') {
                let named = line
                    .split([',', ' '])
                    .find_map(|field| field.trim().strip_prefix("size=").map(str::to_owned));
                let placed = if line.contains('=') {
                    None
                } else {
                    line.split(',').nth(1).map(|s| s.trim().to_owned()).filter(|s| !s.is_empty() && s != "+")
                };
                sizes.push(named.or(placed).filter(|s| s != "+").and_then(|s| bytes(&s)));
            }
        }
        if sizes.is_empty() && input.contains(',') {
            sizes.push(None);
        }
        let adds = call.has("--append") || call.has("-a");
        call.os(|os| {
            if let Some(disk) = os.disks.get_mut(d) {
                if adds {
                    append(disk, &sizes)
                } else {
                    divide(disk, table.as_deref().unwrap_or("dos"), &sizes)
                }
            }
        });
        refresh(call);
        call.line("The partition table has been altered.");
        0
    })
}

fn sgdisk(call: &mut Call) -> i32 {
    let Some(name) = call.args.iter().find(|a| a.starts_with("/dev/")).cloned() else { return 2 };
    let device = match device(call, &name) {
        Ok(device) => device,
        Err(code) => return code,
    };
    let Device::Disk(d) = device else { return 2 };
    if busy(call, device) {
        return call.fail(4, format!("{name} is in use"));
    }
    let zap = call.args.iter().any(|a| matches!(a.as_str(), "-Z" | "--zap-all" | "-o" | "--clear" | "-z"));
    let count = call
        .args
        .iter()
        .filter(|a| {
            a.starts_with("-n")
                || a.starts_with("--new")
                || a.as_str() == "-N"
                || a.starts_with("--largest-new")
        })
        .count();
    call.os(|os| {
        if let Some(disk) = os.disks.get_mut(d) {
            if zap {
                disk.partitions.clear();
                disk.filesystem = None;
                disk.table = call
                    .has("-o")
                    .then(|| "gpt".to_owned())
                    .or_else(|| call.has("--clear").then(|| "gpt".to_owned()));
            }
            if count > 0 {
                disk.table = Some("gpt".into());
                append(disk, &vec![None; count]);
            }
        }
    });
    refresh(call);
    call.line("The operation has completed successfully.");
    0
}

fn parted(call: &mut Call) -> i32 {
    let Some(name) = call.args.iter().find(|a| a.starts_with("/dev/")).cloned() else { return 1 };
    let device = match device(call, &name) {
        Ok(device) => device,
        Err(code) => return code,
    };
    let Device::Disk(d) = device else { return 1 };
    let label = call.args.windows(2).find(|w| w[0] == "mklabel" || w[0] == "mktable").map(|w| w[1].clone());
    if (label.is_some() || call.has("mkpart")) && busy(call, device) {
        return call.fail(1, format!("Error: Partition(s) on {name} are being used."));
    }
    let parts = call.args.iter().filter(|a| *a == "mkpart").count();
    call.os(|os| {
        if let Some(disk) = os.disks.get_mut(d) {
            if let Some(label) = &label {
                divide(disk, label, &[]);
            }
            append(disk, &vec![None; parts]);
        }
    });
    refresh(call);
    0
}

fn mkfs(call: &mut Call) -> i32 {
    let mut kind = match call.name.as_str() {
        "mkfs.ext4" | "mke2fs" | "mkfs" => "ext4",
        "mkfs.ext3" => "ext3",
        "mkfs.xfs" => "xfs",
        _ => "vfat",
    }
    .to_owned();
    let mut label = String::new();
    let mut force = false;
    let mut name = None;
    let mut args = call.args.clone().into_iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "-t" => kind = args.next().unwrap_or(kind),
            "-L" | "-n" => label = args.next().unwrap_or_default(),
            "-m" | "-E" | "-O" | "-b" | "-i" | "-T" | "-d" | "-U" => {
                args.next();
            }
            "-f" | "-F" => force = true,
            _ if arg.starts_with('-') => {}
            _ => name = Some(arg),
        }
    }
    let Some(name) = name else { return call.fail(1, "no device specified") };
    let found = match device(call, &name) {
        Ok(found) => found,
        Err(code) => return code,
    };
    if busy(call, found) {
        return call.fail(1, format!("{name} is mounted; will not make a filesystem here!"));
    }
    let old = call.os(|os| disk::filesystem(&mut os.disks, found).and_then(|(fs, _)| fs.clone())).flatten();
    if let Some(old) = old.filter(|_| kind == "xfs" && !force) {
        call.warn(format!("mkfs.xfs: {name} appears to contain an existing filesystem ({}).\nmkfs.xfs: Use the -f option to force overwrite.\n", old.kind));
        return 1;
    }
    let made = call.os(|os| {
        let mut disks = std::mem::take(&mut os.disks);
        let uuid = disk::format(&mut disks, &mut os.vfs, found, &kind, &label);
        os.disks = disks;
        uuid
    });
    refresh(call);
    call.line(format!("Filesystem UUID: {}", made.flatten().unwrap_or_default()));
    0
}

fn blockdev(call: &mut Call) -> i32 {
    let Some(name) = call.args.last().cloned() else { return 1 };
    let size = call
        .os(|os| {
            disk::find(&os.disks, &name)
                .and_then(|d| disk::filesystem(&mut os.disks, d).map(|(_, size)| size))
        })
        .flatten();
    let Some(size) = size else {
        return call.fail(1, format!("cannot open {name}: No such file or directory"));
    };
    if call.has("--getsize64") {
        call.line(size.to_string());
    } else if call.has("--getsz") {
        call.line((size / 512).to_string());
    }
    0
}
