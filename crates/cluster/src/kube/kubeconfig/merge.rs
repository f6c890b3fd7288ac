//! Merging into, and removing from, a kubeconfig file that also holds the entries of others.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use secrecy::ExposeSecret;
use serde_json::{Map, Value};
use turingpi_engine::{Failure, FailureClass};

use super::{
    Kubeconfig,
    document::{self, Section},
};

/// How a kubeconfig is merged into a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MergeOptions {
    /// Makes our context the current one. Otherwise the file's choice stays; a file without a choice gets ours.
    pub set_current: bool,
}

/// What merging did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    /// The file that was written, symbolic links followed.
    pub path: PathBuf,
    /// Whether its content changed.
    pub changed: bool,
    /// The copy of the content before, 0600; `None` when there was no file or nothing changed.
    pub backup: Option<PathBuf>,
}

/// The file to write to out of the several that a `KUBECONFIG` may name: the first that has the context `name`,
/// otherwise the first. `None` when there are no files to choose from. Unreadable files count as without the context.
pub fn choose_kubeconfig_file<'a>(candidates: &'a [PathBuf], name: &str) -> Option<&'a Path> {
    let has = |path: &&PathBuf| {
        fs::read_to_string(path)
            .ok()
            .and_then(|text| Kubeconfig::parse(&text).ok())
            .is_some_and(|config| config.contexts().contains(&name))
    };
    candidates.iter().find(has).or(candidates.first()).map(PathBuf::as_path)
}

impl Kubeconfig {
    /// Puts the entries of this kubeconfig into the file at `path`: only entries with the same names are replaced, and
    /// of those only address and credentials (a namespace or proxy that somebody added stays). Order and unknown
    /// fields stay. The file is replaced atomically, 0600, and a backup of it is kept beside it. Blocking file I/O.
    ///
    /// # Errors
    /// `Config` when the file cannot be parsed (it stays untouched), `Locked` when kubectl or another run is writing
    /// it, `Unexpected` on I/O errors.
    pub fn merge_into_file(&self, path: &Path, options: MergeOptions) -> Result<Merged, Failure> {
        edit(path, |tree| {
            for section in Section::ALL {
                for name in document::names(&self.tree, section) {
                    if let Some(body) = document::body(&self.tree, section, name) {
                        document::put_entry(tree, section, name, body);
                    }
                }
            }
            for (key, value) in [("apiVersion", "v1"), ("kind", "Config")] {
                if tree.get(key).is_none_or(Value::is_null) {
                    document::set(tree, key, Value::from(value));
                }
            }
            let undecided = tree.get("current-context").and_then(Value::as_str).is_none_or(str::is_empty);
            if let Some(current) = self.current_context().filter(|_| options.set_current || undecided) {
                document::set(tree, "current-context", Value::from(current));
            }
        })
    }

    /// Drops context, cluster and user `name` from the file at `path`, and the current context if it was that one.
    /// A cluster or user that a context of somebody else refers to stays. A missing file is no error. Blocking file I/O.
    ///
    /// # Errors
    /// As [`Kubeconfig::merge_into_file`].
    pub fn remove_from_file(path: &Path, name: &str) -> Result<Merged, Failure> {
        if !path.exists() {
            return Ok(Merged { path: path.to_owned(), changed: false, backup: None });
        }
        edit(path, |tree| {
            document::drop_entry(tree, Section::Contexts, name);
            let used = |tree: &Value, key: &str| {
                document::names(tree, Section::Contexts).iter().any(|context| {
                    document::body(tree, Section::Contexts, context)
                        .and_then(|c| c.get(key))
                        .and_then(Value::as_str)
                        == Some(name)
                })
            };
            for (section, key) in [(Section::Clusters, "cluster"), (Section::Users, "user")] {
                if !used(tree, key) {
                    document::drop_entry(tree, section, name);
                }
            }
            if tree.get("current-context").and_then(Value::as_str) == Some(name) {
                document::set(tree, "current-context", Value::from(""));
            }
        })
    }

    /// Writes this kubeconfig alone into the file at `path`, atomically, 0600, replacing what is there.
    ///
    /// # Errors
    /// `Locked` when somebody else writes it, `Unexpected` on I/O errors.
    pub fn write_file(&self, path: &Path) -> Result<(), Failure> {
        let path = resolve(path)?;
        let _lock = Lock::take(&path)?;
        replace(&path, self.to_yaml()?.expose_secret().as_bytes())
    }
}

fn edit(path: &Path, change: impl FnOnce(&mut Value)) -> Result<Merged, Failure> {
    let path = resolve(path)?;
    let _lock = Lock::take(&path)?;
    let old = match fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) if e.kind() == io::ErrorKind::InvalidData => {
            return Err(Failure::new(
                FailureClass::Config,
                format!("cannot read `{}`: it is not text", path.display()),
            )
            .hint("Nothing was changed. Repair the file, or move it away and run this again."));
        }
        Err(e) => return Err(failed("read", &path, e)),
    };
    let before = match &old {
        Some(text) => document::parse(text, &format!("`{}`", path.display()))?,
        None => Value::Object(Map::new()),
    };
    let mut tree = before.clone();
    change(&mut tree);
    if tree == before && old.is_some() {
        tighten(&path)?;
        return Ok(Merged { path, changed: false, backup: None });
    }
    let backup = match &old {
        Some(text) => {
            let backup = beside(&path, ".turingpi-backup");
            replace(&backup, text.as_bytes())?;
            Some(backup)
        }
        None => None,
    };
    replace(&path, document::write(&tree)?.as_bytes())?;
    Ok(Merged { path, changed: true, backup })
}

/// Follows a symbolic link, so that the link stays one, and makes the folder (0700).
fn resolve(path: &Path) -> Result<PathBuf, Failure> {
    if let Ok(real) = fs::canonicalize(path) {
        return Ok(real);
    }
    let target = match fs::read_link(path) {
        Ok(target) => path.parent().unwrap_or(Path::new("")).join(target),
        Err(_) => path.to_owned(),
    };
    if let Some(folder) = target.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists())
    {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|e| failed("make", folder, e))?;
    }
    Ok(target)
}

fn tighten(path: &Path) -> Result<(), Failure> {
    let mode = fs::metadata(path).map_err(|e| failed("look at", path, e))?.permissions().mode();
    if mode & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
            .map_err(|e| failed("protect", path, e))?;
    }
    Ok(())
}

fn replace(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // `tempfile` creates with 0600.
    let mut temporary = tempfile::Builder::new()
        .prefix(".turingpi-kubeconfig-")
        .tempfile_in(folder)
        .map_err(|e| failed("write beside", path, e))?;
    temporary
        .write_all(content)
        .and_then(|()| temporary.as_file().sync_all())
        .map_err(|e| failed("write", path, e))?;
    temporary.persist(path).map_err(|e| failed("replace", path, e.error))?;
    // The rename is durable once the folder is.
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|e| failed("write", folder, e))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    path.with_file_name(name)
}

fn failed(verb: &str, path: &Path, error: io::Error) -> Failure {
    Failure::new(FailureClass::Unexpected, format!("cannot {verb} `{}`", path.display())).source(error)
}

/// The lock that kubectl takes too: `<file>.lock`, made exclusively, removed afterwards (client-go, `clientcmd`).
struct Lock(PathBuf);

impl Lock {
    fn take(path: &Path) -> Result<Self, Failure> {
        let lock = beside(path, ".lock");
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&lock) {
            Ok(_) => Ok(Self(lock)),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(Failure::new(
                FailureClass::Locked,
                format!("`{}` is being written by kubectl or another run", path.display()),
            )
            .hint(format!("If nothing is writing it, remove `{}` and run this again.", lock.display()))
            .retryable()),
            Err(e) => Err(failed("lock", path, e)),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
