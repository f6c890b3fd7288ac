//! The client against a small BMC on a real socket.

#![allow(unreachable_pub)] // a test binary has no outside
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests

mod calls;
mod console;
mod discover;
mod flash;
mod golden;
mod lifecycle;
mod login;
mod matrix;
mod remote;
mod server;
mod token;
mod trust;
