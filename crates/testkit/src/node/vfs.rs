//! A node's file tree: inodes with modes and owners, volumes, and the mount table that joins them.

use std::{
    collections::{BTreeMap, HashMap},
    io::{Error, ErrorKind, Result},
    sync::Arc,
    time::SystemTime,
};

/// How many symbolic links a lookup follows before it gives up.
const MAX_LINKS: u32 = 40;

/// Which volume: the root file system, a disk's file system, a tmpfs.
pub(crate) type VolumeId = u32;
/// The root file system's volume.
pub(crate) const ROOT: VolumeId = 0;

/// What an inode holds.
#[derive(Debug, Clone)]
pub(crate) enum Body {
    File(Arc<Vec<u8>>),
    Dir(BTreeMap<String, Inode>),
    Link(String),
    /// A device node, `b` or `c`, with major and minor.
    Device(char, u32, u32),
}

/// One file, folder, link or device node.
#[derive(Debug, Clone)]
pub(crate) struct Inode {
    pub(crate) body: Body,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) modified: SystemTime,
}

impl Inode {
    pub(crate) fn dir(mode: u32) -> Self {
        Self::new(Body::Dir(BTreeMap::new()), mode)
    }
    pub(crate) fn file(bytes: impl Into<Vec<u8>>, mode: u32) -> Self {
        Self::new(Body::File(Arc::new(bytes.into())), mode)
    }
    pub(crate) fn new(body: Body, mode: u32) -> Self {
        Self { body, mode, uid: 0, gid: 0, modified: SystemTime::now() }
    }
    pub(crate) fn size(&self) -> u64 {
        match &self.body {
            Body::File(bytes) => bytes.len() as u64,
            Body::Dir(_) => 4096,
            Body::Link(target) => target.len() as u64,
            Body::Device(..) => 0,
        }
    }
    fn tree_size(&self) -> u64 {
        match &self.body {
            Body::Dir(entries) => entries.values().map(Self::tree_size).sum::<u64>() + 4096,
            _ => self.size(),
        }
    }
}

/// An entry of the mount table.
#[derive(Debug, Clone)]
pub(crate) struct Mount {
    pub(crate) at: String,
    pub(crate) volume: VolumeId,
    /// The folder of the volume that shows, for bind mounts; empty for its root.
    pub(crate) sub: Vec<String>,
    pub(crate) source: String,
    pub(crate) fstype: String,
    pub(crate) options: String,
}

/// A volume: a tree with a capacity.
#[derive(Debug)]
pub(crate) struct Volume {
    pub(crate) root: Inode,
    pub(crate) capacity: u64,
}

/// The whole tree.
#[derive(Debug)]
pub(crate) struct Vfs {
    pub(crate) volumes: HashMap<VolumeId, Volume>,
    pub(crate) mounts: Vec<Mount>,
    next: VolumeId,
    /// How many sessions see the disk full at the moment.
    pub(crate) full: u32,
}

/// Where a path leads: its volume, the names inside it, and the path without links.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) volume: VolumeId,
    pub(crate) names: Vec<String>,
    pub(crate) real: Vec<String>,
}

pub(crate) fn not_found() -> Error {
    Error::new(ErrorKind::NotFound, "No such file or directory")
}
fn not_a_dir() -> Error {
    Error::new(ErrorKind::NotADirectory, "Not a directory")
}
fn is_a_dir() -> Error {
    Error::new(ErrorKind::IsADirectory, "Is a directory")
}
fn exists() -> Error {
    Error::new(ErrorKind::AlreadyExists, "File exists")
}
fn no_space() -> Error {
    Error::new(ErrorKind::StorageFull, "No space left on device")
}

/// The components of an absolute path; `.` dropped, `..` kept.
fn split(path: &str) -> Vec<String> {
    path.split('/').filter(|part| !part.is_empty() && *part != ".").map(str::to_owned).collect()
}

impl Vfs {
    pub(crate) fn new(root: Inode, capacity: u64) -> Self {
        Self {
            volumes: HashMap::from([(ROOT, Volume { root, capacity })]),
            mounts: Vec::new(),
            next: 1,
            full: 0,
        }
    }
    pub(crate) fn add_volume(&mut self, root: Inode, capacity: u64) -> VolumeId {
        let id = self.next;
        self.next += 1;
        self.volumes.insert(id, Volume { root, capacity });
        id
    }
    pub(crate) fn used(&self, volume: VolumeId) -> u64 {
        self.volumes.get(&volume).map_or(0, |volume| volume.root.tree_size())
    }
    /// The last mount on exactly this path.
    pub(crate) fn mount_at(&self, path: &str) -> Option<&Mount> {
        self.mounts.iter().rev().find(|mount| mount.at == path)
    }
    /// The mount a path lies on.
    pub(crate) fn mount_of(&self, real: &str) -> Option<&Mount> {
        let mut best: Option<&Mount> = None;
        for mount in &self.mounts {
            let inside = mount.at == "/"
                || real == mount.at
                || real.strip_prefix(&mount.at).is_some_and(|rest| rest.starts_with('/'));
            if inside && best.is_none_or(|b| mount.at.len() >= b.at.len()) {
                best = Some(mount);
            }
        }
        best
    }
    fn inode(&self, volume: VolumeId, names: &[String]) -> Option<&Inode> {
        let mut at = &self.volumes.get(&volume)?.root;
        for name in names {
            let Body::Dir(entries) = &at.body else { return None };
            at = entries.get(name)?;
        }
        Some(at)
    }
    fn inode_mut(&mut self, volume: VolumeId, names: &[String]) -> Option<&mut Inode> {
        let mut at = &mut self.volumes.get_mut(&volume)?.root;
        for name in names {
            let Body::Dir(entries) = &mut at.body else { return None };
            at = entries.get_mut(name)?;
        }
        Some(at)
    }
    /// Switches to a mounted volume when `real` is a mount point.
    fn cross(&self, place: &mut Place) {
        let path = format!("/{}", place.real.join("/"));
        if let Some(mount) = self.mount_at(&path) {
            place.volume = mount.volume;
            place.names.clone_from(&mount.sub);
        }
    }
    /// Finds where a path leads. The last component need not exist; with `follow` a link there is followed.
    pub(crate) fn locate(&self, path: &str, follow: bool) -> Result<Place> {
        let mut pending = split(path);
        pending.reverse();
        let mut links = 0;
        // The trail keeps each parent, so that `..` leaves a mounted volume the way it was entered.
        let start = {
            let mut root = Place { volume: ROOT, names: Vec::new(), real: Vec::new() };
            self.cross(&mut root);
            root
        };
        let mut trail = vec![start.clone()];
        while let Some(part) = pending.pop() {
            if part == ".." {
                if trail.len() > 1 {
                    trail.pop();
                }
                continue;
            }
            let here = trail.last().unwrap_or(&start);
            match self.inode(here.volume, &here.names) {
                Some(Inode { body: Body::Dir(_), .. }) => {}
                Some(_) => return Err(not_a_dir()),
                None => return Err(not_found()),
            }
            let mut next = here.clone();
            next.names.push(part.clone());
            next.real.push(part);
            let last = pending.is_empty();
            match self.inode(next.volume, &next.names).map(|inode| &inode.body) {
                Some(Body::Link(target)) if !last || follow => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Error::other("Too many levels of symbolic links"));
                    }
                    if target.starts_with('/') {
                        trail.truncate(1);
                    }
                    pending.extend(split(target).into_iter().rev());
                }
                None if !last => return Err(not_found()),
                _ => {
                    self.cross(&mut next);
                    trail.push(next);
                }
            }
        }
        Ok(trail.pop().unwrap_or(start))
    }
    /// The inode at a path, the last link followed.
    pub(crate) fn stat(&self, path: &str) -> Result<&Inode> {
        let place = self.locate(path, true)?;
        self.inode(place.volume, &place.names).ok_or_else(not_found)
    }
    /// The inode at a path, a last link not followed.
    pub(crate) fn lstat(&self, path: &str) -> Result<&Inode> {
        let place = self.locate(path, false)?;
        self.inode(place.volume, &place.names).ok_or_else(not_found)
    }
    pub(crate) fn exists(&self, path: &str) -> bool {
        self.stat(path).is_ok()
    }
    pub(crate) fn is_dir(&self, path: &str) -> bool {
        matches!(self.stat(path), Ok(Inode { body: Body::Dir(_), .. }))
    }
    /// The absolute path without links, if it exists.
    pub(crate) fn real(&self, path: &str) -> Result<String> {
        let place = self.locate(path, true)?;
        Ok(format!("/{}", place.real.join("/")))
    }
    pub(crate) fn read(&self, path: &str) -> Result<Arc<Vec<u8>>> {
        match &self.stat(path)?.body {
            Body::File(bytes) => Ok(Arc::clone(bytes)),
            Body::Dir(_) => Err(is_a_dir()),
            Body::Device('c', 1, 5) => Ok(Arc::new(vec![0; 4096])),
            _ => Ok(Arc::default()),
        }
    }
    /// A file's text; empty when there is none.
    pub(crate) fn text(&self, path: &str) -> String {
        self.read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }
    pub(crate) fn list(&self, path: &str) -> Result<Vec<(String, &Inode)>> {
        match &self.stat(path)?.body {
            Body::Dir(entries) => Ok(entries.iter().map(|(name, inode)| (name.clone(), inode)).collect()),
            _ => Err(not_a_dir()),
        }
    }
    /// The files in a folder with this ending, in name order, without their folder.
    pub(crate) fn names_ending(&self, folder: &str, ending: &str) -> Vec<String> {
        let list = self.list(folder).unwrap_or_default();
        list.into_iter().map(|(name, _)| name).filter(|name| name.ends_with(ending)).collect()
    }
    fn room(&self, volume: VolumeId, more: u64) -> Result<()> {
        let Some(v) = self.volumes.get(&volume) else { return Ok(()) };
        // Looking at the whole tree is dear: small writes are let through while nothing is known to be full.
        if (self.full > 0 && volume == ROOT) || (more > 4096 && self.used(volume) + more > v.capacity) {
            return Err(no_space());
        }
        Ok(())
    }
    /// Writes a whole file; `make` is the inode to create when it is new.
    pub(crate) fn write_as(&mut self, path: &str, bytes: Vec<u8>, make: Inode) -> Result<()> {
        let place = self.locate(path, true)?;
        let old = self.inode(place.volume, &place.names).map(|inode| match &inode.body {
            Body::Dir(_) => Err(is_a_dir()),
            Body::Device(..) => Ok(None),
            _ => Ok(Some(inode.size())),
        });
        match old {
            Some(Err(e)) => Err(e),
            Some(Ok(None)) => Ok(()),
            Some(Ok(Some(size))) => {
                if !bytes.is_empty() {
                    self.room(place.volume, (bytes.len() as u64).saturating_sub(size).max(1))?;
                }
                if let Some(inode) = self.inode_mut(place.volume, &place.names) {
                    inode.body = Body::File(Arc::new(bytes));
                    inode.modified = SystemTime::now();
                }
                Ok(())
            }
            None => {
                if !bytes.is_empty() {
                    self.room(place.volume, bytes.len() as u64)?;
                }
                self.insert(&place, Inode { body: Body::File(Arc::new(bytes)), ..make })
            }
        }
    }
    /// Writes a whole file as root, mode 0644 when it is new, making its folders.
    pub(crate) fn put(&mut self, path: &str, bytes: impl Into<Vec<u8>>) {
        self.put_mode(path, bytes, 0o644);
    }
    /// As [`Vfs::put`], with the mode set in any case. What the system itself writes does not fail for want of room.
    pub(crate) fn put_mode(&mut self, path: &str, bytes: impl Into<Vec<u8>>, mode: u32) {
        let full = std::mem::take(&mut self.full);
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.mkdirs(parent, 0o755);
        }
        let written = self.write_as(path, bytes.into(), Inode::file(Vec::new(), mode));
        if written.is_ok() && mode != 0o644 {
            let _ = self.change(path, |inode| inode.mode = mode);
        }
        self.full = full;
    }
    pub(crate) fn append_as(&mut self, path: &str, bytes: &[u8], make: Inode) -> Result<()> {
        let place = self.locate(path, true)?;
        match self.inode(place.volume, &place.names).map(|inode| &inode.body) {
            None => return self.write_as(path, bytes.to_vec(), make),
            Some(Body::Dir(_)) => return Err(is_a_dir()),
            Some(Body::File(_)) => self.room(place.volume, bytes.len() as u64)?,
            Some(_) => return Ok(()),
        }
        if let Some(inode) = self.inode_mut(place.volume, &place.names) {
            if let Body::File(old) = &mut inode.body {
                Arc::make_mut(old).extend_from_slice(bytes);
            }
            inode.modified = SystemTime::now();
        }
        Ok(())
    }
    /// Puts an inode at a place whose last component does not exist yet.
    fn insert(&mut self, place: &Place, inode: Inode) -> Result<()> {
        let Some((name, parents)) = place.names.split_last() else { return Err(is_a_dir()) };
        let parent = self.inode_mut(place.volume, parents).ok_or_else(not_found)?;
        let Body::Dir(entries) = &mut parent.body else { return Err(not_a_dir()) };
        entries.insert(name.clone(), inode);
        parent.modified = SystemTime::now();
        Ok(())
    }
    pub(crate) fn create(&mut self, path: &str, inode: Inode) -> Result<()> {
        let place = self.locate(path, false)?;
        if self.inode(place.volume, &place.names).is_some() {
            return Err(exists());
        }
        self.room(place.volume, 1)?;
        self.insert(&place, inode)
    }
    /// Makes a folder and its parents; what exists stays as it is.
    pub(crate) fn mkdirs(&mut self, path: &str, mode: u32) {
        let mut at = String::new();
        for part in split(path) {
            at.push('/');
            at.push_str(&part);
            if !self.exists(&at) {
                let full = std::mem::take(&mut self.full);
                let _ = self.create(&at, Inode::dir(mode));
                self.full = full;
            }
        }
    }
    /// Replaces whatever is at a path by a symbolic link.
    pub(crate) fn link(&mut self, path: &str, target: &str) {
        let _ = self.remove(path, false);
        let _ = self.create(path, Inode::new(Body::Link(target.to_owned()), 0o777));
    }
    pub(crate) fn remove(&mut self, path: &str, recursive: bool) -> Result<()> {
        let place = self.locate(path, false)?;
        let real = format!("/{}", place.real.join("/"));
        let below = format!("{real}/");
        if self.mounts.iter().any(|mount| mount.at == real || mount.at.starts_with(&below)) {
            return Err(Error::new(ErrorKind::ResourceBusy, "Device or resource busy"));
        }
        match self.inode(place.volume, &place.names).map(|inode| &inode.body) {
            None => return Err(not_found()),
            Some(Body::Dir(entries)) if !recursive && !entries.is_empty() => {
                return Err(Error::new(ErrorKind::DirectoryNotEmpty, "Directory not empty"));
            }
            Some(_) => {}
        }
        self.detach(&place).map(|_| ())
    }
    fn detach(&mut self, place: &Place) -> Result<Inode> {
        let Some((name, parents)) = place.names.split_last() else {
            return Err(Error::new(ErrorKind::ResourceBusy, "Device or resource busy"));
        };
        let parent = self.inode_mut(place.volume, parents).ok_or_else(not_found)?;
        let Body::Dir(entries) = &mut parent.body else { return Err(not_a_dir()) };
        parent.modified = SystemTime::now();
        entries.remove(name).ok_or_else(not_found)
    }
    /// Renames within or between volumes; the target is replaced as rename(2) does.
    pub(crate) fn rename(&mut self, from: &str, to: &str) -> Result<()> {
        let source = self.locate(from, false)?;
        let target = self.locate(to, false)?;
        let Some(moved) = self.inode(source.volume, &source.names).cloned() else { return Err(not_found()) };
        let is_dir = matches!(moved.body, Body::Dir(_));
        if is_dir
            && target.volume == source.volume
            && target.names.starts_with(&source.names)
            && target.names != source.names
        {
            return Err(Error::new(ErrorKind::InvalidInput, "Invalid argument"));
        }
        match self.inode(target.volume, &target.names).map(|inode| &inode.body) {
            Some(Body::Dir(entries)) => {
                if !is_dir {
                    return Err(is_a_dir());
                }
                if !entries.is_empty() && target.names != source.names {
                    return Err(Error::new(ErrorKind::DirectoryNotEmpty, "Directory not empty"));
                }
            }
            Some(_) if is_dir => return Err(not_a_dir()),
            _ => {}
        }
        if target.volume != source.volume {
            self.room(target.volume, moved.tree_size())?;
        }
        self.detach(&source)?;
        self.insert(&target, moved)
    }
    /// Copies a tree to a place that does not exist yet.
    pub(crate) fn graft(&mut self, path: &str, inode: Inode) -> Result<()> {
        let place = self.locate(path, false)?;
        self.room(place.volume, inode.tree_size())?;
        self.insert(&place, inode)
    }
    /// Changes an inode's attributes, the last link followed.
    pub(crate) fn change(&mut self, path: &str, change: impl FnOnce(&mut Inode)) -> Result<()> {
        let place = self.locate(path, true)?;
        change(self.inode_mut(place.volume, &place.names).ok_or_else(not_found)?);
        Ok(())
    }
    /// As [`Vfs::change`] for everything below too; links are not followed.
    pub(crate) fn change_tree(&mut self, path: &str, change: &mut dyn FnMut(&mut Inode)) -> Result<()> {
        fn walk(inode: &mut Inode, change: &mut dyn FnMut(&mut Inode)) {
            change(inode);
            if let Body::Dir(entries) = &mut inode.body {
                entries.values_mut().for_each(|child| walk(child, change));
            }
        }
        let place = self.locate(path, true)?;
        walk(self.inode_mut(place.volume, &place.names).ok_or_else(not_found)?, change);
        Ok(())
    }
    /// Empties the folder a tmpfs or another volume is mounted over, or mounts a volume there.
    pub(crate) fn mount(&mut self, at: &str, volume: VolumeId, source: &str, fstype: &str, options: &str) {
        self.mkdirs(at, 0o755);
        let at = self.real(at).unwrap_or_else(|_| at.to_owned());
        self.mounts.push(Mount {
            at,
            volume,
            sub: Vec::new(),
            source: source.to_owned(),
            fstype: fstype.to_owned(),
            options: options.to_owned(),
        });
    }
    /// Shows a folder at another place.
    pub(crate) fn bind(&mut self, from: &str, at: &str) -> Result<()> {
        let place = self.locate(from, true)?;
        if self.inode(place.volume, &place.names).is_none() || !self.exists(at) {
            return Err(not_found());
        }
        let at = self.real(at)?;
        let on = self.mount_of(&format!("/{}", place.real.join("/"))).cloned();
        self.mounts.push(Mount {
            at,
            volume: place.volume,
            sub: place.names,
            source: on.as_ref().map_or_else(|| "/dev/root".to_owned(), |mount| mount.source.clone()),
            fstype: on.map_or_else(|| "ext4".to_owned(), |mount| mount.fstype),
            options: "rw,relatime".to_owned(),
        });
        Ok(())
    }
    /// Takes the last mount away from a path; its volume stays unless it was a tmpfs.
    pub(crate) fn umount(&mut self, at: &str) -> Option<Mount> {
        let index = self.mounts.iter().rposition(|mount| mount.at == at && at != "/")?;
        let mount = self.mounts.remove(index);
        if mount.fstype == "tmpfs" && !self.mounts.iter().any(|other| other.volume == mount.volume) {
            self.volumes.remove(&mount.volume);
        }
        Some(mount)
    }
    /// The mount table as `/proc/mounts` shows it.
    pub(crate) fn mount_table(&self) -> String {
        self.mounts
            .iter()
            .map(|m| format!("{} {} {} {} 0 0\n", m.source, m.at, m.fstype, m.options))
            .collect()
    }
}
