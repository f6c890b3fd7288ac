//! The simulated board, looked at from outside: raw HTTP against its doors.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "helpers of tests are tests too")]

mod faults;
mod fork;
mod golden;
mod jobs;
mod lock;
mod login;
mod peers;
mod power;
mod serial;
mod support;
mod tpi;
mod wire;
