//! A terminal for the program: what it shows, what is typed, and how it leaves it.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::OwnedFd,
    process::{Child, Command, ExitStatus},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use rustix::{
    fs::{Mode, OFlags},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize},
};

/// Generous: the machine may be busy with other tests.
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) struct Pty {
    keyboard: File,
    slave: OwnedFd,
    pub(crate) child: Child,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Pty {
    /// Starts the program on a terminal of this size.
    pub(crate) fn start(mut command: Command, columns: u16, rows: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        tcsetwinsize(&slave, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        command.env("TERM", "xterm-256color");
        command.stdin(slave.try_clone().unwrap());
        command.stdout(slave.try_clone().unwrap()).stderr(slave.try_clone().unwrap());
        let child = command.spawn().unwrap();
        let keyboard = File::from(master);
        let mut screen = keyboard.try_clone().unwrap();
        let shown = Arc::new(Mutex::new(Vec::new()));
        let all = shown.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = screen.read(&mut buffer) {
                all.lock().unwrap().extend_from_slice(&buffer[..length]);
            }
        });
        Self { keyboard, slave, child, shown }
    }

    /// Everything that was written to the terminal so far.
    pub(crate) fn shown(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned()
    }

    pub(crate) fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until all of this was shown after what `before` saw; returns how much was shown then.
    #[track_caller]
    pub(crate) fn shows(&self, after: usize, text: &str) -> usize {
        self.until(&format!("`{text}` is shown"), || {
            let shown = self.shown();
            shown.get(after..).unwrap_or_default().find(text).map(|at| after + at + text.len())
        })
    }

    /// Waits until the screen of a full-screen program has this in one of its rows. Such a program writes only what has
    /// changed, so what it writes is not what stands there.
    #[track_caller]
    pub(crate) fn displays(&self, text: &str) {
        self.until(&format!("`{text}` is on the screen"), || {
            screen(&self.shown()).iter().any(|row| row.contains(text)).then_some(())
        });
    }

    #[track_caller]
    pub(crate) fn until<T>(&self, what: &str, mut done: impl FnMut() -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(value) = done() {
                return value;
            }
            assert!(began.elapsed() < LIMIT, "not {what}:\n{}", self.shown());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether the terminal shows what is typed and waits for whole lines, as a shell's does.
    pub(crate) fn is_cooked(&self) -> bool {
        let modes = tcgetattr(&self.slave).unwrap().local_modes;
        modes.contains(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG)
    }

    pub(crate) fn signal(&self, name: &str) {
        let killed = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(killed.unwrap().success());
    }

    /// Waits for the end of the program.
    #[track_caller]
    pub(crate) fn ends(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < LIMIT, "it does not end:\n{}", self.shown());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The rows that a terminal shows: cursor positions and text, everything else is left out.
fn screen(written: &str) -> Vec<String> {
    let mut rows = vec![vec![' '; 300]; 100];
    let (mut row, mut column) = (0, 0);
    let mut chars = written.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' if chars.next_if_eq(&'[').is_some() => {
                let numbers: String =
                    std::iter::from_fn(|| chars.next_if(|c| !c.is_ascii_alphabetic())).collect();
                match chars.next() {
                    Some('H') => {
                        let (r, c) = numbers.split_once(';').unwrap_or(("1", "1"));
                        (row, column) = (r.parse::<usize>().unwrap() - 1, c.parse::<usize>().unwrap() - 1);
                    }
                    Some('J') => rows.iter_mut().for_each(|row| row.fill(' ')),
                    _ => {}
                }
            }
            c if !c.is_control() => {
                if let Some(cell) = rows.get_mut(row).and_then(|row| row.get_mut(column)) {
                    *cell = c;
                }
                column += 1;
            }
            _ => {}
        }
    }
    rows.into_iter().map(String::from_iter).collect()
}

impl Drop for Pty {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
