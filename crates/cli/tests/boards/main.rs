//! `turingpi board` through the program itself, against simulated boards that run beside it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests outside test functions"
)]

#[allow(dead_code, reason = "the other tests of the program use the rest")]
#[path = "../verbs/support.rs"]
mod support;

mod access;
mod bench;
mod calls;
mod firmware;
mod flash;
mod help;
