//! The terminal in raw mode, and back again however it ends.

use std::{
    io::{self, Read as _, Write as _},
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::mpsc;
use turingpi_provision::engine::{Failure, FailureClass};

use crate::exit::Exit;

/// Whether somebody has to put the terminal back.
static RAW: AtomicBool = AtomicBool::new(false);
static FULL: AtomicBool = AtomicBool::new(false);
static HOOK: Once = Once::new();

/// The terminal in raw mode until this is dropped; also a panic and the end by a signal put it back.
pub(crate) struct RawMode(());

impl RawMode {
    /// Keys come as they are typed, and nothing is shown by the terminal itself.
    pub(crate) fn enter() -> Result<Self, Exit> {
        on_panic();
        RAW.store(true, Ordering::SeqCst);
        let guard = Self(());
        crossterm::terminal::enable_raw_mode().map_err(no_terminal)?;
        Ok(guard)
    }

    /// The same on a screen of its own, which goes away at the end.
    pub(crate) fn full_screen() -> Result<Self, Exit> {
        let guard = Self::enter()?;
        FULL.store(true, Ordering::SeqCst);
        crossterm::execute!(io::stdout(), crossterm::terminal::EnterAlternateScreen, crossterm::cursor::Hide)
            .map_err(no_terminal)?;
        Ok(guard)
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

fn no_terminal(error: io::Error) -> Exit {
    Failure::new(FailureClass::Unexpected, "cannot take over the terminal").source(error).into()
}

/// Puts the terminal back; once, whoever comes first.
fn restore() {
    if FULL.swap(false, Ordering::SeqCst) {
        let _ = crossterm::execute!(
            io::stdout(),
            crossterm::terminal::LeaveAlternateScreen,
            crossterm::cursor::Show
        );
    }
    if RAW.swap(false, Ordering::SeqCst) {
        let _ = crossterm::terminal::disable_raw_mode();
        let _ = io::stdout().flush();
    }
}

/// What a panic says is to be read, and the shell behind it to be used.
fn on_panic() {
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore();
            before(info);
        }));
    });
}

/// What is typed, as it comes; ends with standard input. The thread behind it ends with the process.
pub(crate) fn keyboard() -> mpsc::Receiver<Vec<u8>> {
    let (keys, typed) = mpsc::channel(16);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        let mut input = io::stdin().lock();
        loop {
            match input.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => {
                    let bytes = buffer.get(..length).unwrap_or_default().to_vec();
                    if keys.blocking_send(bytes).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    });
    typed
}

/// Signals that ask for the end. Ctrl-C is none of them while the terminal is raw.
pub(crate) struct Signals(#[cfg(unix)] Vec<tokio::signal::unix::Signal>);

impl Signals {
    /// From now on they do not kill, but ask.
    pub(crate) fn hear() -> Self {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let kinds =
                [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup(), SignalKind::quit()];
            Self(kinds.into_iter().filter_map(|kind| signal(kind).ok()).collect())
        }
        #[cfg(not(unix))]
        Self()
    }

    /// The next of them.
    pub(crate) async fn next(&mut self) {
        #[cfg(unix)]
        {
            std::future::poll_fn(|cx| {
                match self.0.iter_mut().any(|signal| signal.poll_recv(cx).is_ready()) {
                    true => std::task::Poll::Ready(()),
                    false => std::task::Poll::Pending,
                }
            })
            .await;
        }
        #[cfg(not(unix))]
        {
            let _ = tokio::signal::ctrl_c().await;
        }
    }
}
