//! Access to a Kubernetes API: the port, the kube-rs adapter, draining, and kubeconfig files.

mod api;
mod client;
mod connect;
mod drain;
mod kubeconfig;
mod node;
mod path;
#[cfg(test)]
mod tests;
mod workload;

#[cfg(feature = "mock")]
pub use api::MockClusterApi;
pub use api::{
    Applied, ClusterApi, ClusterEvent, Eviction, NodePod, NodeStatus, ObjectRef, PodOwner, Readiness, Version,
};
pub use client::KubeRsApi;
pub use drain::{Blocked, DrainOptions, DrainProgress, Drained, Skipped, drain};
pub use kubeconfig::{CertificateExpiry, Kubeconfig, MergeOptions, Merged, choose_kubeconfig_file};
pub use node::{NodeCondition, Taint, parse_node};
pub use workload::{WorkloadKind, WorkloadStatus, parse_workload};
