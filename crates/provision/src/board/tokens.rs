//! Tokens of logins, kept from one command to the next in a file that only its owner can read.
//!
//! A token is bound to host, port, user and certificate, and is offered to no other. One that is too old is dropped and
//! never sent: a BMC counts an unknown token as a failed login.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use secrecy::ExposeSecret as _;
use turingpi_bmc::SavedToken;
use turingpi_engine::{Failure, FailureClass};
use url::Url;

use crate::environment::private;

/// The file of tokens.
#[derive(Debug, Clone)]
pub(super) struct TokenFile {
    path: PathBuf,
}

/// Whether a token is for this host, port and user. The client compares the certificate.
fn is_for(token: &SavedToken, url: &Url, user: &str) -> bool {
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    (token.host() == host || token.host() == bare)
        && Some(token.port()) == url.port_or_known_default()
        && token.user() == user
}

impl TokenFile {
    pub(super) fn new(folder: &Path) -> Self {
        Self { path: folder.join("tokens.json") }
    }

    /// The token for this place, if there is a fresh one.
    pub(super) fn find(&self, url: &Url, user: &str) -> Result<Option<SavedToken>, Failure> {
        private(&self.path, "tokens of BMC logins")?;
        let now = SystemTime::now();
        Ok(self.read().into_iter().find(|token| is_for(token, url, user) && token.is_fresh(now)))
    }

    /// Keeps a token in the place of the one before it, and drops those that are too old.
    pub(super) fn keep(&self, token: &SavedToken) -> Result<(), Failure> {
        let same = |other: &SavedToken| {
            other.host() == token.host() && other.port() == token.port() && other.user() == token.user()
        };
        self.change(|tokens| {
            tokens.retain(|other| !same(other));
            tokens.push(token.clone());
        })
    }

    /// Forgets the tokens for this place. Whether there were any.
    pub(super) fn forget(&self, url: &Url, user: &str) -> Result<bool, Failure> {
        if !self.path.exists() {
            return Ok(false);
        }
        let mut found = false;
        self.change(|tokens| {
            tokens.retain(|token| {
                let it = is_for(token, url, user);
                found |= it;
                !it
            });
        })?;
        Ok(found)
    }

    /// One line a token. What cannot be read is dropped: a login replaces it.
    fn read(&self) -> Vec<SavedToken> {
        let text = zeroize(fs::read_to_string(&self.path).unwrap_or_default());
        text.expose_secret().lines().filter_map(|line| SavedToken::from_json(line).ok()).collect()
    }

    fn change(&self, change: impl FnOnce(&mut Vec<SavedToken>)) -> Result<(), Failure> {
        let write = || -> io::Result<()> {
            let folder = self.path.parent().unwrap_or(Path::new("."));
            make(folder)?;
            // Two commands at a time must not lose each other's token.
            let lock = open_private(&self.path.with_extension("lock"))?;
            lock.lock()?;
            let mut tokens = self.read();
            change(&mut tokens);
            let now = SystemTime::now();
            tokens.retain(|token| token.is_fresh(now));
            let mut builder = tempfile::Builder::new();
            builder.prefix(".tokens-").suffix(".tmp");
            #[cfg(unix)]
            builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600));
            let mut file = builder.tempfile_in(folder)?;
            for token in &tokens {
                file.write_all(token.to_json().expose_secret().as_bytes())?;
                file.write_all(b"\n")?;
            }
            file.persist(&self.path)?;
            Ok(())
        };
        write().map_err(|e| {
            Failure::new(FailureClass::Config, format!("cannot write `{}`", self.path.display()))
                .hint("Check the free space and the owner of the folder, or name another one with `--state-dir`.")
                .source(e)
        })
    }
}

fn zeroize(text: String) -> secrecy::SecretString {
    text.into()
}

/// A folder of the person's own.
pub(super) fn make(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

fn open_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(host: &str, user: &str, seconds_ago: u64) -> SavedToken {
        let last_used = SystemTime::now() - std::time::Duration::from_secs(seconds_ago);
        let last_used = last_used.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let pin = "AB:".repeat(31) + "AB";
        SavedToken::from_json(&format!(
            r#"{{"host":"{host}","port":443,"user":"{user}","fingerprint":"{pin}","last_used":{last_used},"token":"t-{host}-{user}"}}"#
        ))
        .unwrap()
    }

    #[test]
    fn a_token_is_found_by_its_host_and_user_only_and_not_when_it_is_too_old() {
        let folder = tempfile::tempdir().unwrap();
        let file = TokenFile::new(&folder.path().join("boards"));
        let url = |text: &str| Url::parse(text).unwrap();
        file.keep(&token("10.0.0.1", "root", 10)).unwrap();
        file.keep(&token("10.0.0.2", "root", 20_000)).unwrap();
        assert!(file.find(&url("https://10.0.0.1"), "root").unwrap().is_some());
        for (place, user) in [
            ("https://10.0.0.1", "admin"),
            ("https://10.0.0.1:8443", "root"),
            ("https://10.0.0.3", "root"),
            ("https://10.0.0.2", "root"),
        ] {
            assert!(file.find(&url(place), user).unwrap().is_none(), "{place} {user}");
        }
        assert!(file.forget(&url("https://10.0.0.1"), "root").unwrap());
        assert!(!file.forget(&url("https://10.0.0.1"), "root").unwrap());
        assert!(file.find(&url("https://10.0.0.1"), "root").unwrap().is_none());
    }

    #[cfg(unix)]
    #[test]
    fn the_file_is_its_owners_alone_and_one_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let file = TokenFile::new(folder.path());
        file.keep(&token("10.0.0.1", "root", 10)).unwrap();
        let mode = || fs::metadata(&file.path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o600);
        fs::set_permissions(&file.path, fs::Permissions::from_mode(0o644)).unwrap();
        let failure = file.find(&Url::parse("https://10.0.0.1").unwrap(), "root").unwrap_err();
        assert!(failure.hint_text().unwrap().contains("chmod 600"), "{failure}");
    }
}
