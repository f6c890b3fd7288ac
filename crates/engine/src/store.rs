//! The state in a file that only its owner can read.

use std::{
    collections::HashMap,
    fs, io,
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, PoisonError, Weak},
};

use async_trait::async_trait;
use secrecy::ExposeSecret as _;
use secrecy::zeroize::Zeroizing;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::{Failure, FailureClass, Generation, STATE_VERSION, State, StateStore, memory::conflict};

/// Keeps the state as JSON in one file, mode 0600.
///
/// A save writes a new file, syncs it and puts it in the place of the old one, which stays beside it with `.bak` at
/// the end of its name. At every moment one of the two is whole.
pub struct FileStateStore {
    path: PathBuf,
    /// Held while a blocking task works on the file, also when its caller has gone: a load never sees half a save.
    turn: Arc<Mutex<()>>,
}

/// Read before the rest, so that a file of a newer release is told apart from a broken one.
#[derive(Deserialize)]
struct Head {
    version: u32,
    #[serde(default)]
    generation: u64,
}

#[derive(Serialize)]
struct Stored<'a> {
    generation: u64,
    #[serde(flatten)]
    state: &'a State,
}

impl FileStateStore {
    /// A store in the file at `path`. The first save creates it, with its folder.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self { turn: turn_of(&path), path }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Path) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let turn: OwnedMutexGuard<()> = Arc::clone(&self.turn).lock_owned().await;
        let path = self.path.clone();
        let task = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            // A link stays a link: what it points to is replaced.
            work(&fs::canonicalize(&path).unwrap_or(path))
        });
        task.await.map_err(|e| {
            Failure::new(FailureClass::Unexpected, "the task that works on the state file was lost").source(e)
        })?
    }
}

/// Turns at a file, shared by all its stores in this process: a save that outlives the run that was dropped around it
/// still comes before the load of the next run.
fn turn_of(path: &Path) -> Arc<Mutex<()>> {
    type Turns = std::sync::Mutex<HashMap<PathBuf, Weak<Mutex<()>>>>;
    static TURNS: LazyLock<Turns> = LazyLock::new(Turns::default);
    let key = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut turns = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
    turns.retain(|_, turn| turn.strong_count() > 0);
    if let Some(turn) = turns.get(&key).and_then(Weak::upgrade) {
        return turn;
    }
    let turn = Arc::default();
    turns.insert(key, Arc::downgrade(&turn));
    turn
}

#[async_trait]
impl StateStore for FileStateStore {
    async fn load(&self) -> Result<(State, Generation), Failure> {
        self.blocking(|path| match read(path)? {
            None => Ok((State::default(), Generation::default())),
            Some(text) => {
                let head = head(path, &text)?;
                let mut state: State = serde_json::from_slice(&text).map_err(|e| unreadable(path, &e))?;
                state.version = STATE_VERSION;
                Ok((state, Generation(head.generation)))
            }
        })
        .await
    }

    async fn save(&self, state: &State, seen: Generation) -> Result<Generation, Failure> {
        let next = Generation(seen.0.saturating_add(1));
        let mut text = Zeroizing::new(Vec::new());
        serde_json::to_writer_pretty(&mut *text, &Stored { generation: next.0, state }).map_err(|e| {
            Failure::new(FailureClass::Unexpected, "cannot write the state as JSON").source(e)
        })?;
        text.push(b'\n');
        self.blocking(move |path| {
            let old = read(path)?;
            let generation =
                old.as_ref().map(|text| head(path, text)).transpose()?.map_or(0, |h| h.generation);
            if generation != seen.0 {
                return Err(conflict(&format!("the state file `{}`", path.display())));
            }
            // A secret that is forgotten must not live on beside the file.
            let kept = match &old {
                Some(old) if forgets(old, &text) => Some(text.as_slice()),
                old => old.as_deref().map(Vec::as_slice),
            };
            replace(path, &text, kept).map_err(|e| {
                Failure::new(
                    FailureClass::Config,
                    format!("cannot write the state file `{}`", path.display()),
                )
                .hint("Check the free space and the owner of the folder, then run the same command again.")
                .source(e)
            })?;
            Ok(next)
        })
        .await
    }
}

/// The bytes of the file; `None` where there is none.
fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
    let mut file = match fs::File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(cannot_read(path, e)),
    };
    check_mode(path, &file.metadata().map_err(|e| cannot_read(path, e))?)?;
    let mut text = Zeroizing::new(Vec::new());
    file.read_to_end(&mut text).map_err(|e| cannot_read(path, e))?;
    Ok(Some(text))
}

fn cannot_read(path: &Path, error: io::Error) -> Failure {
    Failure::new(FailureClass::Config, format!("cannot read the state file `{}`", path.display()))
        .hint("Check that the file is yours.")
        .source(error)
}

#[cfg(unix)]
fn check_mode(path: &Path, metadata: &fs::Metadata) -> Result<(), Failure> {
    let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let text = format!(
        "others can read or write the state file `{}` (mode {mode:04o}), which holds secrets",
        path.display()
    );
    Err(Failure::new(FailureClass::Config, text).hint(format!(
        "Run `chmod 600 '{}'`, and think about whether somebody may have read the cluster's secrets.",
        path.display()
    )))
}

#[cfg(not(unix))]
fn check_mode(_: &Path, _: &fs::Metadata) -> Result<(), Failure> {
    Ok(())
}

fn head(path: &Path, text: &[u8]) -> Result<Head, Failure> {
    let head: Head = serde_json::from_slice(text).map_err(|e| unreadable(path, &e))?;
    if head.version > STATE_VERSION {
        let text = format!(
            "the state file `{}` has version {}, and this release reads up to {STATE_VERSION}",
            path.display(),
            head.version
        );
        return Err(
            Failure::new(FailureClass::Config, text).hint("Use the newer release that wrote the file.")
        );
    }
    Ok(head)
}

/// The JSON error is not kept as a cause: it may quote a value, and the value may be a secret.
fn unreadable(path: &Path, error: &serde_json::Error) -> Failure {
    let what = match error.classify() {
        serde_json::error::Category::Eof => "it ends too early",
        serde_json::error::Category::Data => "a value has another type than expected or a field is missing",
        serde_json::error::Category::Syntax | serde_json::error::Category::Io => "it is not JSON",
    };
    let text = format!(
        "cannot read the state file `{}`, line {}, column {}: {what}",
        path.display(),
        error.line(),
        error.column()
    );
    let hint =
        format!("The save before it is in `{}`; compare the two and put one back.", backup(path).display());
    Failure::new(FailureClass::Config, text).hint(hint)
}

/// Whether a secret of `old` stands nowhere in `new`.
fn forgets(old: &[u8], new: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Secrets {
        #[serde(default)]
        secrets: std::collections::BTreeMap<String, secrecy::SecretString>,
    }
    let read = |text: &[u8]| serde_json::from_slice::<Secrets>(text).map(|found| found.secrets).ok();
    match (read(old), read(new)) {
        (Some(old), Some(new)) => {
            old.values().any(|secret| new.values().all(|kept| kept.expose_secret() != secret.expose_secret()))
        }
        // What cannot be read was loaded by nobody, so it is not what was forgotten.
        _ => false,
    }
}

fn backup(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".bak");
    PathBuf::from(name)
}

/// Puts `new` in the place of the file and `old` beside it. Whatever happens, the file is one or the other.
fn replace(path: &Path, new: &[u8], old: Option<&[u8]>) -> io::Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    create_folder(folder)?;
    let new = written(folder, new)?;
    if let Some(old) = old {
        written(folder, old)?.persist(backup(path))?;
    }
    new.persist(path)?;
    // Without it a power cut could bring the old file back after the save was reported as durable.
    #[cfg(unix)]
    fs::File::open(folder)?.sync_all()?;
    Ok(())
}

fn create_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// A new file beside the old one, whole and on the disk, mode 0600 from its first moment.
fn written(folder: &Path, text: &[u8]) -> io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".state-").suffix(".tmp");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600));
    let mut file = builder.tempfile_in(folder)?;
    file.write_all(text)?;
    file.as_file().sync_all()?;
    Ok(file)
}
