//! The client against a real OpenSSH server, started for each test on an ephemeral loopback port, and against small
//! servers in this process where OpenSSH cannot be made to behave as wanted.

// The lints let `#[test]` functions unwrap; these modules are nothing but tests and what they need.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod commands;
mod host_keys;
mod jumps;
mod logins;
mod small_server;
mod sshd;
mod stopping;
mod sudo;
mod transfers;
