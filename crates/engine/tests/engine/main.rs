//! The engine from outside: runs, stops, crashes, files and streams.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "all of it is test code")]

mod approval;
mod context;
mod crash;
mod lock;
mod look;
mod properties;
mod report;
mod run;
mod secrets;
mod stop;
mod store;
mod support;
mod toy;
mod wire;
