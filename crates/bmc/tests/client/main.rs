//! The client against a small BMC on a real socket.

#![allow(unreachable_pub)] // a test binary has no outside
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests

mod calls;
mod flash;
mod golden;
mod login;
mod server;
mod trust;
