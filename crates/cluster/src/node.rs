//! A node as the document wants it.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use serde::{Deserialize, Serialize};
use turingpi_bmc::Slot;
use turingpi_ssh::SshTarget;

/// What a node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Runs the Kubernetes API and, with three or five of them, etcd.
    ControlPlane,
    /// Runs workloads only.
    Worker,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ControlPlane => "control-plane",
            Self::Worker => "worker",
        })
    }
}

/// A slot of a named board.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SlotRef {
    /// The board's name in the document.
    pub board: String,
    /// The slot.
    pub slot: Slot,
}

impl fmt::Display for SlotRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.board, self.slot)
    }
}

/// One node, complete: nothing in it is looked up or defaulted later.
#[derive(Debug, Clone)]
pub struct NodeSpec {
    /// Its host name and its Kubernetes name.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Its address inside the cluster's network.
    pub address: IpAddr,
    /// How to reach its sshd: usually port 22 of `address`, but a forwarded port or a jump host works too.
    pub ssh: SshTarget,
    /// Where it sits, if it sits on a board that we manage.
    pub slot: Option<SlotRef>,
    /// The image its eMMC shall hold when we have to flash it.
    pub image: Option<String>,
    /// Kubernetes labels.
    pub labels: BTreeMap<String, String>,
    /// Kubernetes taints, `key=value:Effect`.
    pub taints: Vec<String>,
}

impl NodeSpec {
    /// A node without slot, image, labels and taints.
    pub fn new(name: impl Into<String>, role: Role, address: IpAddr, ssh: SshTarget) -> Self {
        Self {
            name: name.into(),
            role,
            address,
            ssh,
            slot: None,
            image: None,
            labels: BTreeMap::new(),
            taints: Vec::new(),
        }
    }
}
