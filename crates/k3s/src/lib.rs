//! Brings k3s up on hosts one can reach over SSH, and keeps it converged.
//!
//! A [`K3sCluster`] looks at its nodes ([`K3sFacts`]), plans what is left to do and does it: host preparation, the
//! verified binary, config, units, joins one etcd member at a time, kubeconfig, labels. It also upgrades, restarts
//! what runs with older files, and takes a cluster away. It implements [`engine::Reconcile`], so that it needs nothing
//! but hosts; a tool that also flashes boards asks it for [`K3sCluster::lanes`] and prepends its own steps.
//!
//! It does not flash, does not install add-ons, and does not make backups.
//!
//! - Planning is pure and looks at facts, never at what an earlier run remembers. Unchanged means zero steps.
//! - A token is in the state before it is used, and nowhere else but in files with mode 0600.
//! - What belongs to another cluster, or starts k3s with settings of its own, is refused, not overwritten.
//! - Nothing is downgraded, no minor version is skipped; agents are never newer than their servers.
//! - Files come first, then `systemctl start --no-block`, then waiting for named conditions.
//!
//! ```
//! use std::sync::Arc;
//! use turingpi_k3s::{
//!     K3sCluster, KubeconfigFile,
//!     cluster::{Hosts, NodeSpec, Role},
//!     ssh::{RusshConnector, SshTarget},
//! };
//!
//! # fn main() -> Result<(), turingpi_k3s::engine::Failure> {
//! let node = NodeSpec::new("node1", Role::ControlPlane, [10, 10, 88, 73].into(), SshTarget::new("10.10.88.73"));
//! let ssh = RusshConnector::builder().known_hosts("known_hosts").build();
//! let cluster = K3sCluster::builder("home")
//!     .hosts(Hosts::new(Arc::new(ssh), [(node.name.clone(), node.ssh.clone())]))
//!     .nodes([node])
//!     .cache("cache")?
//!     .kubeconfig(KubeconfigFile::new("kubeconfig"))
//!     .build()?;
//! assert_eq!(cluster.nodes().len(), 1);
//! // `Executor::converge(&cluster, &approval)` does the rest: see examples/converge.rs.
//! # Ok(())
//! # }
//! ```

#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

mod channel;
mod config;
mod env;
mod facts;
mod finish;
mod k3s_cluster;
mod observe;
mod paths;
mod plan;
mod release;
mod sink;
mod spec;
mod steps;
mod teardown;
mod token;
mod unit;
mod version;

pub use channel::channel_version;
pub use env::ApiConnector;
pub use facts::{ApiFacts, Datastore, EntrySeen, K3sFacts, K3sNode, NodeFacts, Reach};
pub use k3s_cluster::{K3sCluster, K3sClusterBuilder};
pub use sink::{KubeconfigFile, KubeconfigSink};
pub use spec::{Component, FlannelBackend, InstallMode, K3sSpec, Registries, validate_topology};
pub use teardown::TeardownOptions;
pub use token::{JOIN_TOKEN_KEY, TOKEN_KEY, TokenProof};
pub use unit::{UnitOwner, render_unit};
pub use version::{BadVersion, K3sVersion};

// What an embedder needs beside this crate.
pub use turingpi_cluster as cluster;
pub use turingpi_engine as engine;
pub use turingpi_ssh as ssh;
