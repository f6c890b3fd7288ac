//! The two ways out: data to standard output, talk to standard error.
//!
//! A reader that went away (`| head -1`) is no reason to stop work on a cluster, so what cannot be written is dropped.

use std::{
    fmt::Display,
    io::{self, Write as _},
    sync::{Mutex, PoisonError},
};

use indicatif::MultiProgress;

/// The bars that are on the screen now: talk goes above them.
static BARS: Mutex<Option<MultiProgress>> = Mutex::new(None);

/// From now on talk goes above these bars; `None` when they are gone.
pub(crate) fn above(bars: Option<MultiProgress>) {
    *BARS.lock().unwrap_or_else(PoisonError::into_inner) = bars;
}

/// Data, as it is.
pub(crate) fn data(text: impl Display) {
    let _ = write!(anstream::stdout(), "{text}");
}

/// A line of data in one write, so that lines of several threads stay whole.
pub(crate) fn line(text: impl Display) {
    let _ = anstream::stdout().write_all(format!("{text}\n").as_bytes());
}

/// A line of talk, above the bars if there are any.
pub(crate) fn talk_line(text: impl Display) {
    let bars = BARS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let text = text.to_string();
    match bars {
        Some(bars) => {
            let colour = !matches!(anstream::AutoStream::choice(&io::stderr()), anstream::ColorChoice::Never);
            let text = if colour { text } else { anstream::adapter::strip_str(&text).to_string() };
            let _ = bars.println(text);
        }
        None => {
            let _ = anstream::stderr().write_all(format!("{text}\n").as_bytes());
        }
    }
}

/// A line on standard output.
macro_rules! say {
    ($($text:tt)*) => { $crate::render::out::line(format_args!($($text)*)) };
}

/// A line on standard error.
macro_rules! talk {
    ($($text:tt)*) => { $crate::render::out::talk_line(format_args!($($text)*)) };
}

pub(crate) use {say, talk};
