//! `turingpi board` through the program itself, against simulated boards that run beside it.

#[allow(dead_code, reason = "the other tests of the program use the rest")]
#[path = "../verbs/support.rs"]
mod support;

mod access;
mod bench;
mod calls;
mod firmware;
mod flash;
mod help;
