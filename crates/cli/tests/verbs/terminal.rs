//! The program on a pseudo-terminal, with somebody who types.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    process::{Child, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use rustix::{
    fs::OFlags,
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
};

use crate::support::{Place, interrupt};

const LIMIT: Duration = Duration::from_secs(60);

pub(crate) struct Terminal {
    child: Child,
    master: File,
    heard: mpsc::Receiver<Vec<u8>>,
    screen: String,
}

impl Terminal {
    pub(crate) fn start(place: &Place, args: &[&str]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let flags = i32::try_from(OFlags::NOCTTY.bits()).unwrap();
        let mut open = OpenOptions::new();
        let slave = open.read(true).write(true).custom_flags(flags).open(name.to_str().unwrap()).unwrap();
        let end = || Stdio::from(slave.try_clone().unwrap());
        let mut command = place.command(args);
        command.env("TERM", "xterm").stdin(end()).stdout(end()).stderr(end());
        let child = command.spawn().unwrap();
        drop(command);
        drop(slave);
        let master = File::from(master);
        let (to, heard) = mpsc::channel();
        let mut from = master.try_clone().unwrap();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            // The last of the other side closes it: Linux says so with an error.
            while let Ok(count @ 1..) = from.read(&mut piece) {
                if to.send(piece[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, master, heard, screen: String::new() }
    }

    /// Waits until `text` is on the screen.
    #[track_caller]
    pub(crate) fn shows(&mut self, text: &str) {
        let until = Instant::now() + LIMIT;
        while !self.screen.contains(text) {
            let left = until.saturating_duration_since(Instant::now());
            match self.heard.recv_timeout(left) {
                Ok(piece) => self.screen.push_str(&String::from_utf8_lossy(&piece)),
                Err(_) => panic!("`{text}` is not shown:\n{}", self.screen),
            }
        }
    }

    pub(crate) fn types(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// What Ctrl-C sends. Typed, it would go to the processes that this terminal controls, which are none.
    pub(crate) fn interrupted(&self) {
        interrupt(&self.child);
    }

    /// Its exit code and everything it showed.
    pub(crate) fn ends(mut self) -> (Option<i32>, String) {
        while let Ok(piece) = self.heard.recv_timeout(LIMIT) {
            self.screen.push_str(&String::from_utf8_lossy(&piece));
        }
        let code = self.child.wait().unwrap().code();
        (code, std::mem::take(&mut self.screen))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
