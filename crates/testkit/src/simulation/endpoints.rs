//! Where the doors of a running simulation are, for clients and for people.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use serde::Serialize;

use crate::{BoardRevision, Firmware};

/// All doors of a simulation.
#[derive(Debug, Clone, Serialize)]
pub struct Endpoints {
    /// The boards by name.
    pub boards: BTreeMap<String, BoardEndpoint>,
    /// The nodes by name.
    pub nodes: BTreeMap<String, NodeEndpoint>,
    /// The download mirror.
    pub mirror: MirrorEndpoint,
}

/// A board's BMC.
#[derive(Debug, Clone, Serialize)]
pub struct BoardEndpoint {
    /// `https://127.0.0.1:<port>`; `http://…` for firmware 1.1.0.
    pub url: String,
    /// The door that stands for port 80: `http://127.0.0.1:<port>`.
    pub plain_url: String,
    /// The firmware it runs.
    pub firmware: Firmware,
    /// Its hardware revision.
    pub revision: BoardRevision,
    /// A user that may log in.
    pub username: String,
    /// That user's password.
    pub password: String,
    /// SHA-256 of the BMC's certificate (DER), 64 lower-case hex digits; empty for firmware 1.1.0, which has none.
    pub fingerprint: String,
}

/// A node.
#[derive(Debug, Clone, Serialize)]
pub struct NodeEndpoint {
    /// Its planned address inside the world.
    pub address: Option<IpAddr>,
    /// Where its sshd answers while it runs. Stable for the simulation's life.
    pub ssh: SocketAddr,
    /// Where its Kubernetes API answers while it runs a k3s server. Stable for the simulation's life.
    pub kube: SocketAddr,
    /// Board and slot.
    pub slot: Option<(String, u8)>,
    /// `SHA256:…` of its present ed25519 host key; none before the first boot.
    pub host_key: Option<String>,
}

/// The download mirror.
#[derive(Debug, Clone, Serialize)]
pub struct MirrorEndpoint {
    /// Base of k3s releases, usable as `GITHUB_URL`.
    pub k3s_releases: String,
    /// Base of the channel server, usable as `INSTALL_K3S_CHANNEL_URL`.
    pub k3s_channels: String,
    /// The OS images by name.
    pub images: BTreeMap<String, ImageEndpoint>,
}

/// An OS image on the mirror.
#[derive(Debug, Clone, Serialize)]
pub struct ImageEndpoint {
    /// Where to get the `.img.xz`.
    pub url: String,
    /// SHA-256 of the `.img.xz`, hex.
    pub sha256: String,
    /// Its size in bytes.
    pub bytes: u64,
}
