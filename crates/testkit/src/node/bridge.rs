//! The shell interpreter's view of a node's file tree, with the rights of one program.

use std::{
    io::{Error, ErrorKind},
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::SystemTime,
};

use async_trait::async_trait;
use bashkit::{DirEntry, FileSystem, FileSystemExt, FileType, FsLimits, Metadata};

use super::{
    session::Session,
    vfs::{Body, Inode, Vfs},
};

type Result<T> = bashkit::Result<T>;

/// The file system of one session.
pub(crate) struct Bridge(pub(crate) Arc<Session>);

fn denied() -> Error {
    Error::new(ErrorKind::PermissionDenied, "Permission denied")
}

/// Whether an account may do what `bit` (4 read, 2 write, 1 enter) says with an inode.
fn allowed(session: &Session, inode: &Inode, bit: u32) -> bool {
    let account = &session.account;
    if account.uid == 0 {
        return true;
    }
    let shift = if inode.uid == account.uid {
        6
    } else if inode.gid == account.gid {
        3
    } else {
        0
    };
    inode.mode >> shift & bit != 0
}

/// Every folder on the way must let the account in.
fn reachable(session: &Session, vfs: &Vfs, path: &str) -> std::io::Result<()> {
    if session.account.uid == 0 {
        return Ok(());
    }
    for (at, _) in path.match_indices('/').skip(1) {
        let Some(folder) = path.get(..at) else { continue };
        if let Ok(inode) = vfs.stat(folder)
            && !allowed(session, inode, 1)
        {
            return Err(denied());
        }
    }
    Ok(())
}

/// Whether an account may read a file.
pub(crate) fn may_read(session: &Session, vfs: &Vfs, path: &str) -> std::io::Result<()> {
    reachable(session, vfs, path)?;
    if allowed(session, vfs.stat(path)?, 4) { Ok(()) } else { Err(denied()) }
}

/// Whether an account may change or make a file.
pub(crate) fn may_write(session: &Session, vfs: &Vfs, path: &str) -> std::io::Result<()> {
    reachable(session, vfs, path)?;
    match vfs.stat(path) {
        Ok(inode) if allowed(session, inode, 2) => Ok(()),
        Ok(_) => Err(denied()),
        Err(_) => may_enter(session, vfs, path),
    }
}

/// Whether an account may make or remove the entry a path names.
pub(crate) fn may_enter(session: &Session, vfs: &Vfs, path: &str) -> std::io::Result<()> {
    reachable(session, vfs, path)?;
    let parent = path
        .trim_end_matches('/')
        .rsplit_once('/')
        .map_or("/", |(parent, _)| if parent.is_empty() { "/" } else { parent });
    match vfs.stat(parent) {
        Ok(inode) if allowed(session, inode, 2) => Ok(()),
        Ok(_) => Err(denied()),
        Err(e) => Err(e),
    }
}

/// An inode as a program of this session makes it.
pub(crate) fn made(session: &Session, body: Body, mode: u32) -> Inode {
    let mask = session.umask.load(Ordering::Relaxed);
    Inode { uid: session.account.uid, gid: session.account.gid, ..Inode::new(body, mode & !mask) }
}

impl Bridge {
    fn with<R>(
        &self,
        path: &Path,
        call: impl FnOnce(&mut Vfs, &str, &Session) -> std::io::Result<R>,
    ) -> Result<R> {
        let path = path.to_string_lossy().into_owned();
        let session = &self.0;
        session
            .node
            .os(|os| {
                let full = session.full.load(Ordering::Relaxed);
                os.vfs.full += u32::from(full);
                let result = call(&mut os.vfs, &path, session);
                os.vfs.full -= u32::from(full);
                result
            })
            .unwrap_or_else(|| Err(Error::new(ErrorKind::BrokenPipe, "the node is off")))
            .map_err(Into::into)
    }
}

/// The interpreter says 1 for `$$` in every shell: what is there is the shell's own process.
fn is_own_stat(path: &Path) -> bool {
    path == Path::new("/proc/1/stat") || path == Path::new("/proc/self/stat")
}

fn metadata(inode: &Inode) -> Metadata {
    Metadata {
        file_type: match inode.body {
            Body::Dir(_) => FileType::Directory,
            Body::Link(_) => FileType::Symlink,
            Body::File(_) | Body::Device(..) => FileType::File,
        },
        size: inode.size(),
        mode: inode.mode,
        modified: inode.modified,
        created: inode.modified,
    }
}

#[async_trait]
impl FileSystemExt for Bridge {
    fn limits(&self) -> FsLimits {
        FsLimits::unlimited()
    }
}

#[async_trait]
impl FileSystem for Bridge {
    async fn read_file(&self, path: &Path) -> Result<Vec<u8>> {
        if is_own_stat(path) {
            return Ok(self.0.stat_line().into_bytes());
        }
        self.with(path, |vfs, path, session| {
            may_read(session, vfs, path)?;
            Ok(vfs.read(path)?.to_vec())
        })
    }
    async fn write_file(&self, path: &Path, content: &[u8]) -> Result<()> {
        self.with(path, |vfs, path, session| {
            may_write(session, vfs, path)?;
            let mut content = content.to_vec();
            if !content.is_empty() && session.corrupt.swap(false, Ordering::Relaxed) {
                content.iter_mut().take(1).for_each(|byte| *byte ^= 0x55);
            }
            vfs.write_as(path, content, made(session, Body::File(Arc::default()), 0o666))
        })?;
        self.0.node.file_written(&path.to_string_lossy());
        Ok(())
    }
    async fn append_file(&self, path: &Path, content: &[u8]) -> Result<()> {
        self.with(path, |vfs, path, session| {
            may_write(session, vfs, path)?;
            vfs.append_as(path, content, made(session, Body::File(Arc::default()), 0o666))
        })?;
        self.0.node.file_written(&path.to_string_lossy());
        Ok(())
    }
    async fn mkdir(&self, path: &Path, recursive: bool) -> Result<()> {
        self.with(path, |vfs, path, session| make_dir(session, vfs, path, recursive, 0o777))
    }
    async fn remove(&self, path: &Path, recursive: bool) -> Result<()> {
        self.with(path, |vfs, path, session| {
            may_enter(session, vfs, path)?;
            vfs.remove(path, recursive)
        })
    }
    async fn stat(&self, path: &Path) -> Result<Metadata> {
        if is_own_stat(path) {
            return Ok(Metadata { mode: 0o444, ..Metadata::default() });
        }
        self.with(path, |vfs, path, session| {
            reachable(session, vfs, path)?;
            vfs.lstat(path).map(metadata)
        })
    }
    async fn read_dir(&self, path: &Path) -> Result<Vec<DirEntry>> {
        self.with(path, |vfs, path, session| {
            may_read(session, vfs, path)?;
            let entries = vfs.list(path)?;
            Ok(entries
                .into_iter()
                .map(|(name, inode)| DirEntry { name, metadata: metadata(inode) })
                .collect())
        })
    }
    async fn exists(&self, path: &Path) -> Result<bool> {
        self.with(path, |vfs, path, session| {
            Ok(reachable(session, vfs, path).is_ok() && vfs.lstat(path).is_ok())
        })
    }
    async fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let to = to.to_string_lossy().into_owned();
        self.with(from, |vfs, from, session| {
            may_enter(session, vfs, from)?;
            may_enter(session, vfs, &to)?;
            vfs.rename(from, &to)
        })
    }
    async fn copy(&self, from: &Path, to: &Path) -> Result<()> {
        let to = to.to_string_lossy().into_owned();
        self.with(from, |vfs, from, session| {
            may_read(session, vfs, from)?;
            may_write(session, vfs, &to)?;
            let mode = vfs.stat(from)?.mode;
            let bytes = vfs.read(from)?.to_vec();
            vfs.write_as(&to, bytes, made(session, Body::File(Arc::default()), mode))
        })
    }
    async fn symlink(&self, target: &Path, link: &Path) -> Result<()> {
        let target = target.to_string_lossy().into_owned();
        self.with(link, |vfs, link, session| {
            may_enter(session, vfs, link)?;
            let mut inode = made(session, Body::Link(target), 0o777);
            inode.mode = 0o777;
            vfs.create(link, inode)
        })
    }
    async fn read_link(&self, path: &Path) -> Result<PathBuf> {
        self.with(path, |vfs, path, _| match &vfs.lstat(path)?.body {
            Body::Link(target) => Ok(PathBuf::from(target)),
            _ => Err(Error::new(ErrorKind::InvalidInput, "Invalid argument")),
        })
    }
    async fn chmod(&self, path: &Path, mode: u32) -> Result<()> {
        self.with(path, |vfs, path, session| {
            let inode = vfs.stat(path)?;
            if !session.root() && inode.uid != session.account.uid {
                return Err(Error::new(ErrorKind::PermissionDenied, "Operation not permitted"));
            }
            vfs.change(path, |inode| inode.mode = mode & 0o7777)
        })
    }
    async fn set_modified_time(&self, path: &Path, time: SystemTime) -> Result<()> {
        self.with(path, |vfs, path, _| vfs.change(path, |inode| inode.modified = time))
    }
}

/// Makes a folder, with `recursive` its parents too.
pub(crate) fn make_dir(
    session: &Session,
    vfs: &mut Vfs,
    path: &str,
    recursive: bool,
    mode: u32,
) -> std::io::Result<()> {
    if recursive {
        if vfs.is_dir(path) {
            return Ok(());
        }
        if let Some((parent, _)) = path.trim_end_matches('/').rsplit_once('/')
            && !parent.is_empty()
        {
            make_dir(session, vfs, parent, true, 0o777)?;
        }
    }
    may_enter(session, vfs, path)?;
    let inode = made(session, Body::Dir(std::collections::BTreeMap::new()), mode);
    vfs.create(path, inode)
}
