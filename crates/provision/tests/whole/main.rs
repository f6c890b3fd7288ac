//! Whole bring-ups of the less common kinds: clusters of others, other images and disks, other ways to install, several
//! servers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

#[path = "../common/mod.rs"]
mod common;

mod adopt;
mod first_boot;
mod install;
mod servers;
