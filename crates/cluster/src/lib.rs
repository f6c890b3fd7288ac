//! What every Kubernetes distribution on a Turing Pi shares: nodes, imaging, host preparation, Kubernetes access.
//!
//! # What it is for
//! - [`imaging`] gets a slot's module from whatever it is to a system of ours that answers; [`first_boot`] takes a fresh
//!   system over, through SSH or through the BMC's serial console.
//! - [`Host`] runs typed operations on a node and [`prepare_steps`] makes it fit for Kubernetes.
//! - [`kube`] reads and changes a cluster through its API and keeps kubeconfig files; [`ready`] has the named conditions
//!   to wait for and judges a cluster's health.
//! - [`images`] knows images by name, proves and keeps them, unpacks them as streams and looks inside.
//! - [`fetch`] downloads with a digest, resumed after a cut, into a cache.
//!
//! # What it does not do
//! It does not know any distribution, decides no order between them, and reads neither environment nor home directory.
//!
//! # Example
//! Facts in, steps out: planning is pure, so it needs no host.
//! ```
//! use turingpi_cluster::{NetworkSpec, kube::Kubeconfig};
//!
//! let network = NetworkSpec::default();
//! assert_eq!(network.dns_address().to_string(), "10.96.0.10");
//!
//! let k3s_yaml = r#"{ apiVersion: v1, kind: Config, current-context: default,
//!   clusters: [{ name: default, cluster: { server: "https://127.0.0.1:6443" } }],
//!   users: [{ name: default, user: {} }],
//!   contexts: [{ name: default, context: { cluster: default, user: default } }] }"#;
//! let ours = Kubeconfig::parse(k3s_yaml)?.renamed("homelab")?.with_server("https://10.10.88.73:6443")?;
//! assert_eq!(ours.current_context(), Some("homelab"));
//! # Ok::<(), turingpi_engine::Failure>(())
//! ```
//!
//! # Invariants
//! - An image's digest is known before a slot is touched; a node that answers us is never flashed unasked.
//! - Steps look first and read back: applied twice, they change nothing the second time.
//! - Ready is a condition, never a substring.

#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

mod again;
pub mod fetch;
pub mod first_boot;
mod host;
mod hosts;
pub mod images;
pub mod imaging;
pub mod kube;
mod network;
mod node;
mod prepare;
pub mod ready;

pub use again::fetch_again;
pub use fetch::{FetchOptions, Fetched, Fetcher, Sha256, Source};
pub use host::{
    Activity, Arch, Cgroup, DiskSpace, FactsError, FactsRequest, FileFact, Firewall, Host, HostFacts,
    HostStep, HostTask, HostTime, InterfaceAddress, Mount, Os, OsFamily, RemoteExit, Route, Swap, UnitState,
    unless_same,
};
pub use hosts::{Hosts, is_rebooting, patience, rebooting_key, ssh_failure};
pub use imaging::{Boards, ImageSpec, ImagingContext, SlotRecord, imaging_steps};
pub use network::{API_PORT, BadEndpoint, Endpoint, NetworkSpec, overlap};
pub use node::{NodeSpec, Role, SlotRef};
pub use prepare::{
    Firewalling, HostSpec, HostsFile, LogDisk, NodeNeeds, Preparation, Swapping, prepare_request,
    prepare_steps,
};
pub use ready::{ClusterHealth, HealthState};
