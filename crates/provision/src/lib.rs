//! The one entry for frontends: a document in, a converged cluster out.
//!
//! # What it is for
//! [`document::load`] reads what a person wrote; [`Provision::open`] builds every client around it; from there one can
//! [plan](Provision::plan), [apply](Provision::apply), [look](Provision::status), [diagnose](Provision::doctor) and
//! [destroy](Provision::destroy). [`images`] is for operating system images alone. What happens is told as one stream of [`engine::Event`]s.
//!
//! # What it does not do
//! It never prints, prompts, reads the process environment or the home directory, or exits. What a frontend knows of
//! those comes in through an [`Environment`].
//!
//! # Example
//! Every mistake of a document at once, each with its place:
//! ```
//! use turingpi_provision::document;
//!
//! let text = "name: homelab\nversion: v1.35.5+k3s1\nnodes:\n  - { name: node1, role: control-plane, address: 10.0.0.1 }\n";
//! let (document, warnings) = document::load(text)?;
//! assert_eq!(document.nodes[0].name, "node1");
//! assert!(warnings.is_empty());
//! # Ok::<(), document::Mistakes>(())
//! ```
//! `examples/embed.rs` applies one.
//!
//! # Invariants
//! - Planning is a pure function of document, facts and state; all I/O is in looking and in steps.
//! - Nothing that loses data runs unless its subject or the plan's digest was approved.
//! - Applying an unchanged document is zero steps.

#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

pub mod board;
mod boards;
mod bring_up;
pub mod doctor;
pub mod document;
mod environment;
mod guard;
mod identity;
pub mod images;
mod lease;
mod look;
mod provision;
mod proxy;
mod status;
mod targets;
mod teardown;

pub use environment::{Environment, SecretProvider};
pub use provision::{Intent, Planned, Provision, TeardownIntent};
pub use proxy::Proxy;
pub use status::{BoardLine, NodeLine, Status, Versions};

/// What a board says of itself, for frontends.
pub use turingpi_bmc as bmc;
/// Nodes, health and Kubernetes access, for frontends.
pub use turingpi_cluster as cluster;
/// Plans, events, failures and approvals, for frontends.
pub use turingpi_engine as engine;
