//! A simulated Turing Pi board on real sockets: BMC, SSH, Kubernetes API and download mirror.
//!
//! # What it is for
//! Production clients run against it unchanged; only endpoints differ. One world stands behind all doors: power off at the
//! BMC cuts a node's SSH and turns its Node NotReady. Scripts sent to a node are really interpreted, and the Kubernetes
//! API is a small API server that `kubectl` can use.
//!
//! # What it does not do
//! It shares no types with the clients (a fake that imports our own wire types only proves that we agree with ourselves),
//! and it is strict: what the real thing would refuse, it refuses. The feature `mocks` re-exports the mocks of the
//! clients' ports for embedders' own tests; the doors do not use them.
//!
//! # Example
//! ```
//! use turingpi_testkit::{Action, BoardPlan, Fault, NodePlan, OsImage, Pace, Simulation, Site};
//!
//! # #[tokio::main]
//! # async fn main() -> std::io::Result<()> {
//! let board = Simulation::builder()
//!     .pace(Pace::INSTANT)
//!     .board(BoardPlan::new("board1").credentials("root", "turing"))
//!     .node(NodePlan::new("node1").address([10, 10, 88, 73].into()).slot("board1", 1))
//!     .image("armbian", OsImage::armbian())
//!     .start()
//!     .await?;
//! let endpoints = board.endpoints();
//! assert!(endpoints.boards["board1"].url.starts_with("https://127.0.0.1:"));
//!
//! // The second request to any BMC is answered with a 502.
//! let anywhere = Site::Bmc { board: None, request: String::new() };
//! board.faults().add(Fault::at(anywhere, Action::Status(502, "bad gateway".into())).nth(2));
//! board.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Invariants
//! - Every duration goes through [`Pace`]: a demo shows progress in seconds, a test takes milliseconds.
//! - Only loopback sockets with ports of the system's choice; nothing outside of the process is touched.

mod board;
mod door;
mod fault;
mod hardware;
mod image;
mod kube;
pub mod kubelet;
mod mirror;
mod node;
mod pace;
mod pki;
mod simulation;
mod ssh_key;
mod world;

pub use board::{
    Board, BoardPlan, BoardRevision, BoardView, CertificateKey, Clock, Firmware, FlashRecord, HeldLock,
    RequestRecord, SdCard, Surroundings,
};
pub use fault::{Action, Fault, Faults, Site};
pub use hardware::{Module, ModuleKind, Uart};
pub use image::{OsImage, OsKind, k3s_airgap_images, k3s_binary, xz};
pub use kube::{
    ApiServer, ApiServerOptions, DeleteOptions, FieldSelector, Gvr, KubeResult, LabelSelector, ListOptions,
    ListPage, Patch, Propagation, Snapshot, StatusError, Store, WatchEvent, WatchEventKind, WatchOptions,
    Watcher, WriteOptions,
};
pub use mirror::{Mirror, MirrorPlan, ServedImage};
pub use node::ExecRecord;
pub use pace::{Durations, Pace};
pub use pki::{ClusterPki, Identity, PkiError};
pub use simulation::{
    BoardEndpoint, Endpoints, FileView, ImageEndpoint, KubeView, MirrorEndpoint, NodeEndpoint, NodePlan,
    NodeView, Simulation, SimulationBuilder, UnitView,
};
pub use ssh_key::SshKey;

/// Mocks of the clients' ports, for embedders' own tests. Our own tests prefer the simulated board.
#[cfg(feature = "mocks")]
pub mod mocks {
    pub use turingpi_bmc::MockBmcClient;
    pub use turingpi_cluster::kube::MockClusterApi;
    pub use turingpi_ssh::{MockSshClient, MockSshConnector};
}
