//! Block devices: disks, partitions and the file systems on them.

use super::vfs::{Inode, ROOT, Vfs, VolumeId};

/// A file system on a disk or partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filesystem {
    pub(crate) kind: String,
    pub(crate) uuid: String,
    pub(crate) label: String,
    /// Its tree, once it was made; none for swap.
    pub(crate) volume: Option<VolumeId>,
}

/// A partition. Start and size are in bytes.
#[derive(Debug, Clone)]
pub(crate) struct Partition {
    pub(crate) number: u32,
    pub(crate) start: u64,
    pub(crate) size: u64,
    pub(crate) uuid: String,
    pub(crate) filesystem: Option<Filesystem>,
}

/// A disk.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    pub(crate) name: String,
    pub(crate) size: u64,
    pub(crate) model: String,
    /// `gpt`, `dos`, or none yet.
    pub(crate) table: Option<String>,
    pub(crate) table_uuid: String,
    pub(crate) partitions: Vec<Partition>,
    /// A file system on the whole disk.
    pub(crate) filesystem: Option<Filesystem>,
}

impl Disk {
    pub(crate) fn new(name: &str, size: u64, model: &str) -> Self {
        Self {
            name: name.to_owned(),
            size,
            model: model.to_owned(),
            table: None,
            table_uuid: String::new(),
            partitions: Vec::new(),
            filesystem: None,
        }
    }
    /// A partition's name: `nvme0n1p1`, `sda1`.
    pub(crate) fn partition_name(&self, number: u32) -> String {
        let p = if self.name.ends_with(|c: char| c.is_ascii_digit()) { "p" } else { "" };
        format!("{}{p}{number}", self.name)
    }
}

/// A random UUID (version 4).
pub(crate) fn uuid() -> String {
    let b: [u8; 16] = rand::random();
    let hex = hex::encode(b);
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default().to_owned();
    format!("{}-{}-4{}-a{}-{}", part(0, 8), part(8, 12), part(13, 16), part(17, 20), part(20, 32))
}

/// What a device path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Device {
    Disk(usize),
    Partition(usize, usize),
}

/// Finds a device by `/dev/…`, `UUID=`, `LABEL=` or `PARTUUID=`.
pub(crate) fn find(disks: &[Disk], name: &str) -> Option<Device> {
    let by = |test: &dyn Fn(Option<&Filesystem>, &str, &str) -> bool| {
        disks.iter().enumerate().find_map(|(d, disk)| {
            if test(disk.filesystem.as_ref(), &disk.name, "") {
                return Some(Device::Disk(d));
            }
            disk.partitions.iter().enumerate().find_map(|(p, part)| {
                test(part.filesystem.as_ref(), &disk.partition_name(part.number), &part.uuid)
                    .then_some(Device::Partition(d, p))
            })
        })
    };
    if let Some(uuid) = name.strip_prefix("UUID=").or_else(|| name.strip_prefix("/dev/disk/by-uuid/")) {
        let uuid = uuid.trim_matches('"');
        return by(&|fs, _, _| fs.is_some_and(|fs| fs.uuid == uuid));
    }
    if let Some(label) = name.strip_prefix("LABEL=").or_else(|| name.strip_prefix("/dev/disk/by-label/")) {
        let label = label.trim_matches('"');
        return by(&|fs, _, _| fs.is_some_and(|fs| fs.label == label));
    }
    if let Some(id) = name.strip_prefix("PARTUUID=") {
        return by(&|_, _, part| part == id);
    }
    let short = name.strip_prefix("/dev/")?;
    by(&|_, name, _| name == short)
}

/// The `/dev` path of the partition that the root file system is on.
pub(crate) fn root(disks: &[Disk]) -> Option<String> {
    disks.iter().find_map(|disk| {
        let is_root = |p: &&Partition| p.filesystem.as_ref().is_some_and(|fs| fs.volume == Some(ROOT));
        let partition = disk.partitions.iter().find(is_root)?;
        Some(format!("/dev/{}", disk.partition_name(partition.number)))
    })
}

/// The `/dev` path of a device.
pub(crate) fn path(disks: &[Disk], device: Device) -> String {
    match device {
        Device::Disk(d) => disks.get(d).map(|disk| format!("/dev/{}", disk.name)),
        Device::Partition(d, p) => disks
            .get(d)
            .and_then(|disk| Some(format!("/dev/{}", disk.partition_name(disk.partitions.get(p)?.number)))),
    }
    .unwrap_or_default()
}

/// The slot for a device's file system, and the device's size.
pub(crate) fn filesystem(disks: &mut [Disk], device: Device) -> Option<(&mut Option<Filesystem>, u64)> {
    match device {
        Device::Disk(d) => disks.get_mut(d).map(|disk| (&mut disk.filesystem, disk.size)),
        Device::Partition(d, p) => {
            disks.get_mut(d)?.partitions.get_mut(p).map(|part| (&mut part.filesystem, part.size))
        }
    }
}

/// Makes a file system on a device; what was there is gone.
pub(crate) fn format(
    disks: &mut [Disk],
    vfs: &mut Vfs,
    device: Device,
    kind: &str,
    label: &str,
) -> Option<String> {
    if let Device::Disk(d) = device {
        let disk = disks.get_mut(d)?;
        disk.partitions.clear();
        disk.table = None;
    }
    let (slot, size) = filesystem(disks, device)?;
    let volume = (kind != "swap").then(|| {
        let mut root = Inode::dir(0o755);
        if kind == "ext4"
            && let super::vfs::Body::Dir(entries) = &mut root.body
        {
            entries.insert("lost+found".into(), Inode::dir(0o700));
        }
        vfs.add_volume(root, size)
    });
    let made = Filesystem { kind: kind.to_owned(), uuid: uuid(), label: label.to_owned(), volume };
    let uuid = made.uuid.clone();
    *slot = Some(made);
    Some(uuid)
}
