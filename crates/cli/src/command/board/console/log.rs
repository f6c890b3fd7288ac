//! The file that gets what is received.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
};

use turingpi_provision::engine::{Failure, FailureClass};

use crate::exit::Exit;

/// The log, if one is wanted.
pub(super) struct Log(Option<(PathBuf, File)>);

impl Log {
    /// Opens it for appending; made for its owner alone. A console shows passwords and keys, so one that others can read
    /// is refused.
    pub(super) fn open(path: Option<&Path>) -> Result<Self, Exit> {
        let Some(path) = path else { return Ok(Self(None)) };
        let mut options = OpenOptions::new();
        options.create(true).append(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path).map_err(|e| cannot(path, e))?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let about = file.metadata().map_err(|e| cannot(path, e))?;
            if about.is_file() && about.permissions().mode() & 0o077 != 0 {
                let what =
                    format!("others can read the log `{}`, and a console shows passwords", path.display());
                return Err(Failure::new(FailureClass::Config, what)
                    .hint(format!("Run `chmod 600 {}`, or name another file.", path.display()))
                    .into());
            }
        }
        Ok(Self(Some((path.to_owned(), file))))
    }

    /// Appends what was received, as it is.
    pub(super) fn write(&mut self, text: &str) -> Result<(), Exit> {
        match &mut self.0 {
            Some((path, file)) if !text.is_empty() => {
                file.write_all(text.as_bytes()).map_err(|e| cannot(path, e))
            }
            _ => Ok(()),
        }
    }
}

fn cannot(path: &Path, error: std::io::Error) -> Exit {
    Failure::new(FailureClass::Config, format!("cannot write the log `{}`", path.display()))
        .hint("Check the free space and the owner of the folder, or name another file.")
        .source(error)
        .into()
}
