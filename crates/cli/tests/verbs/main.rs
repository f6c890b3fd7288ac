//! The program as a person meets it: every verb, every documented exit code, against a simulated board.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests outside test functions"
)]

mod board;
#[cfg(unix)]
mod console;
#[cfg(unix)]
mod destroying;
mod image;
mod offline;
#[cfg(unix)]
mod pty;
mod simulate;
mod stopping;
mod support;
#[cfg(unix)]
mod watch;
mod words;
