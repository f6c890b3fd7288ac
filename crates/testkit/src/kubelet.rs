//! What a kubelet of k3s writes into the Kubernetes API about its node: the Node, its conditions, its Lease.
//!
//! Used by the simulated nodes, and by programs that stand in for k3s on a real host.

use std::net::IpAddr;

use serde_json::{Value, json};
use time::OffsetDateTime;

/// The namespace of the Leases by which kubelets show that they live.
pub const LEASE_NAMESPACE: &str = "kube-node-lease";
/// A node whose Lease is older than this, in seconds, is given up.
pub const LEASE_SECONDS: u32 = 40;

/// A node as its kubelet sees it.
#[derive(Debug, Clone)]
pub struct NodeReport {
    /// The Node's name.
    pub name: String,
    /// Its address in the cluster.
    pub address: IpAddr,
    /// `arm64` or `amd64`.
    pub arch: String,
    /// It runs a control plane.
    pub server: bool,
    /// It is a member of the embedded etcd; whether it votes.
    pub etcd_voter: Option<bool>,
    /// Labels of the configuration, `key=value`.
    pub labels: Vec<String>,
    /// Taints of the configuration, `key=value:effect`.
    pub taints: Vec<String>,
    /// The range of its pods.
    pub pod_cidr: String,
    /// Processor cores.
    pub cores: u64,
    /// Memory in KiB.
    pub memory_kib: u64,
    /// How many pods it takes at most.
    pub max_pods: u32,
    /// `status.nodeInfo`.
    pub info: Value,
}

impl NodeReport {
    /// The Node to register: not Ready yet.
    ///
    /// # Errors
    /// A label that a kubelet may not give itself.
    pub fn object(&self) -> Result<Value, String> {
        let at = now();
        let mut labels = json!({
            "beta.kubernetes.io/arch": self.arch, "beta.kubernetes.io/os": "linux", "kubernetes.io/arch": self.arch,
            "kubernetes.io/os": "linux", "kubernetes.io/hostname": self.name,
            "beta.kubernetes.io/instance-type": "k3s", "node.kubernetes.io/instance-type": "k3s"
        });
        let map = labels.as_object_mut().ok_or("labels")?;
        if self.server {
            for role in ["control-plane", "master"].into_iter().chain(self.etcd_voter.map(|_| "etcd")) {
                map.insert(format!("node-role.kubernetes.io/{role}"), "true".into());
            }
        }
        for label in &self.labels {
            let (key, value) = label.split_once('=').unwrap_or((label, ""));
            if !own_label(key) {
                return Err(format!(
                    "failed to validate kubelet flags: unknown 'kubernetes.io' or 'k8s.io' labels specified with --node-labels: [{key}]"
                ));
            }
            map.insert(key.to_owned(), value.into());
        }
        let ready = conditions(false, self.etcd_voter).into_iter().filter(|c| !c.kind.ends_with("Pressure"));
        let conditions: Vec<Value> = ready
            .map(|condition| {
                let mut value = condition.value(&at);
                if let Some(map) = value.as_object_mut() {
                    map.insert("lastTransitionTime".into(), at.clone().into());
                }
                value
            })
            .collect();
        let address = self.address.to_string();
        let resources = json!({
            "cpu": self.cores.to_string(), "memory": format!("{}Ki", self.memory_kib),
            "pods": self.max_pods.to_string(), "ephemeral-storage": "28Gi"
        });
        Ok(json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": self.name, "labels": labels, "annotations": {
                "k3s.io/internal-ip": address, "k3s.io/hostname": self.name,
                "flannel.alpha.coreos.com/public-ip": address, "alpha.kubernetes.io/provided-node-ip": address
            }},
            "spec": {
                "podCIDR": self.pod_cidr, "podCIDRs": [self.pod_cidr], "providerID": format!("k3s://{}", self.name),
                "taints": self.taints.iter().filter_map(|t| taint(t)).collect::<Vec<_>>()
            },
            "status": {
                "addresses": self.addresses(), "capacity": resources, "allocatable": resources,
                "nodeInfo": self.info, "conditions": conditions,
                "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}}
            }
        }))
    }

    /// `status.addresses`.
    pub fn addresses(&self) -> Value {
        json!([
            {"type": "InternalIP", "address": self.address.to_string()},
            {"type": "Hostname", "address": self.name}
        ])
    }
}

/// Whether a kubelet may give itself this label.
fn own_label(key: &str) -> bool {
    !key.starts_with("node-role.kubernetes.io/")
        && (!key.contains("kubernetes.io/")
            || key.starts_with("node.kubernetes.io/")
            || key.contains("kubelet.kubernetes.io/")
            || key.starts_with("topology.kubernetes.io/"))
}

fn taint(text: &str) -> Option<Value> {
    let (rest, effect) = text.rsplit_once(':')?;
    let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
    Some(json!({"key": key, "value": value, "effect": effect}))
}

/// One condition of a Node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeCondition {
    /// `Ready`, …
    pub kind: &'static str,
    /// `True` or `False`.
    pub status: &'static str,
    /// The word of it.
    pub reason: &'static str,
    /// The sentence of it.
    pub message: &'static str,
}

impl NodeCondition {
    /// As a report, with the time of its heartbeat.
    pub fn value(&self, at: &str) -> Value {
        json!({
            "type": self.kind, "status": self.status, "reason": self.reason, "message": self.message,
            "lastHeartbeatTime": at
        })
    }
}

/// The conditions a healthy kubelet reports; of a member of etcd also whether it votes.
pub fn conditions(ready: bool, etcd_voter: Option<bool>) -> Vec<NodeCondition> {
    let condition = |kind, status, reason, message| NodeCondition { kind, status, reason, message };
    let mut all = vec![
        condition(
            "MemoryPressure",
            "False",
            "KubeletHasSufficientMemory",
            "kubelet has sufficient memory available",
        ),
        condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        if ready {
            condition("Ready", "True", "KubeletReady", "kubelet is posting ready status")
        } else {
            condition(
                "Ready",
                "False",
                "KubeletNotReady",
                "container runtime network not ready: cni plugin not initialized",
            )
        },
    ];
    match etcd_voter {
        Some(true) => all.push(condition(
            "EtcdIsVoter",
            "True",
            "MemberNotLearner",
            "Node is a voting member of the etcd cluster",
        )),
        Some(false) => all.push(condition(
            "EtcdIsVoter",
            "False",
            "MemberIsLearner",
            "Node has not been promoted to voting member of the etcd cluster",
        )),
        None => {}
    }
    all
}

/// The Lease of a node that lives now. It goes with its Node, whose UID this is.
pub fn lease(node: &str, uid: &str) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": node, "namespace": LEASE_NAMESPACE, "ownerReferences": [
            {"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid}
        ]},
        "spec": {"holderIdentity": node, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": renew_time()}
    })
}

/// The present time as a Lease has it: with microseconds.
pub fn renew_time() -> String {
    let format = time::macros::format_description!(
        "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z"
    );
    OffsetDateTime::now_utc().format(&format).unwrap_or_default()
}

/// The present time as Kubernetes writes it elsewhere.
pub fn now() -> String {
    let format = time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    OffsetDateTime::now_utc().format(&format).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubelet_may_not_give_itself_every_label() {
        for key in ["rack", "example.com/rack", "node.kubernetes.io/kind", "topology.kubernetes.io/zone"] {
            assert!(own_label(key), "{key}");
        }
        for key in ["node-role.kubernetes.io/worker", "storage.kubernetes.io/disk"] {
            assert!(!own_label(key), "{key}");
        }
    }
}
