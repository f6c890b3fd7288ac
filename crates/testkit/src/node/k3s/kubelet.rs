//! The kubelet: registers the Node, makes it Ready, keeps it so.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};

use super::{Ended, Run};
use crate::{
    Gvr, OsKind, Store,
    kubelet::{self, NodeReport},
    node::{Node, vfs::Inode},
    world::{
        cluster::{Cluster, Datastore},
        objects,
    },
};

/// A kubelet that runs; dropping it takes the node out of the cluster's list of running ones.
pub(crate) struct Kubelet {
    node: Arc<Node>,
    cluster: Arc<Cluster>,
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.cluster.set_kubelet(&self.node.name, None);
        // A node that stops reports nothing more; the control plane notices after a while.
        if let Some(world) = self.node.world() {
            world.kubelet_gone(&self.node.name, &self.cluster);
        }
    }
}

fn major_minor(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.trim_start_matches('v').split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

impl Kubelet {
    /// Registers the Node, or takes over the one that is there.
    pub(crate) fn start(run: &Run<'_>, cluster: &Arc<Cluster>) -> Result<Self, String> {
        if let (Some(mine), Some(server)) = (major_minor(&run.version), major_minor(&cluster.api.version()))
            && mine > server
            && !run.server
        {
            return Err(format!(
                "kubelet version {} is newer than the API server's {}",
                run.version,
                cluster.api.version()
            ));
        }
        let store = cluster.api.store();
        let facts = facts(run);
        match store.find(&Gvr::NODES, None, &run.name) {
            Some(_) => {
                store
                    .modify(&Gvr::NODES, None, &run.name, |node| {
                        // Labels and taints of the configuration act only at the first registration.
                        if let Some(status) = node.get_mut("status").and_then(Value::as_object_mut) {
                            status.insert("nodeInfo".into(), facts.clone());
                            status.insert("addresses".into(), json!([{"type": "InternalIP", "address": run.address.to_string()}, {"type": "Hostname", "address": run.name}]));
                        }
                    })
                    .map_err(|e| e.to_string())?;
            }
            None => {
                store.create(&Gvr::NODES, None, object(run, cluster, facts)?).map_err(|e| e.to_string())?;
            }
        }
        cluster.set_kubelet(&run.node.name, Some(&run.name));
        leave_traces(run, cluster);
        run.log(
            "info",
            &format!("Running kubelet --hostname-override={} --node-ip={}", run.name, run.address),
        );
        Ok(Self { node: Arc::clone(run.node), cluster: Arc::clone(cluster) })
    }

    /// Turns the Node Ready after a while and keeps its heartbeat until the process ends.
    pub(crate) async fn beat(self, run: &Run<'_>, cluster: &Arc<Cluster>) -> Ended {
        let nominal = run.node.world().map(|world| world.durations.node_ready).unwrap_or_default();
        if !run.node.pause(nominal).await {
            return Ended::Cancelled;
        }
        loop {
            if cluster.answers() {
                let store = cluster.api.store();
                if store.find(&Gvr::NODES, None, &run.name).is_none() {
                    // Deleted while the kubelet runs: it registers again, with a new node password secret.
                    let _ = super::join::node_password(run, cluster);
                    if let Ok(object) = object(run, cluster, facts(run)) {
                        let _ = store.create(&Gvr::NODES, None, object);
                    }
                }
                renew(store, &run.name);
                let _ = store.modify(&Gvr::NODES, None, &run.name, |node| {
                    for condition in kubelet::conditions(true, None) {
                        objects::report(node, &condition);
                    }
                    if let Some(taints) = node.pointer_mut("/spec/taints").and_then(Value::as_array_mut) {
                        taints.retain(|t| {
                            !t.get("key").and_then(Value::as_str).is_some_and(|k| {
                                k.starts_with("node.kubernetes.io/not-ready")
                                    || k.starts_with("node.kubernetes.io/unreachable")
                            })
                        });
                    }
                });
            }
            if !run.node.pause(Duration::from_secs(40)).await {
                return Ended::Cancelled;
            }
            // At the fastest pace the heartbeat would be a busy loop.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn facts(run: &Run<'_>) -> Value {
    run.node
        .os(|os| {
            let arch = os.image.arch.clone();
            let runtime = if os.image.os == OsKind::Ubuntu { "containerd://2.1.5-k3s1.32" } else { "containerd://2.1.5-k3s1" };
            json!({
                "machineID": os.machine_id(), "systemUUID": os.machine_id(),
                "bootID": os.running.as_ref().map_or("", |r| r.boot_id.as_str()),
                "kernelVersion": os.image.kernel, "osImage": os.setting("/etc/os-release", "PRETTY_NAME").unwrap_or_default(),
                "containerRuntimeVersion": runtime, "kubeletVersion": run.version, "kubeProxyVersion": run.version,
                "operatingSystem": "linux", "architecture": arch
            })
        })
        .unwrap_or_default()
}

/// Shows that the node lives: its Lease, renewed or made anew.
fn renew(store: &Store, name: &str) {
    let Some(node) = store.find(&Gvr::NODES, None, name) else { return };
    let uid = node.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default();
    let lease = kubelet::lease(name, uid);
    let renewed = store.modify(&Gvr::LEASES, Some(kubelet::LEASE_NAMESPACE), name, |old| {
        for part in ["/metadata/ownerReferences", "/spec"] {
            if let (Some(old), Some(new)) = (old.pointer_mut(part), lease.pointer(part)) {
                *old = new.clone();
            }
        }
    });
    if renewed.is_err() {
        let _ = store.create(&Gvr::LEASES, Some(kubelet::LEASE_NAMESPACE), lease);
    }
}

fn object(run: &Run<'_>, cluster: &Cluster, facts: Value) -> Result<Value, String> {
    let etcd = run.server && cluster.datastore() == Datastore::Etcd;
    let member = cluster.member(&run.name).filter(|_| etcd);
    let pods = cluster
        .critical()
        .get("cluster-cidr")
        .and_then(|cidr| cidr.split('.').take(2).map(str::to_owned).reduce(|a, b| format!("{a}.{b}")))
        .unwrap_or_else(|| "10.42".into());
    let nodes = cluster.api.store().list(&Gvr::NODES, None).unwrap_or_default();
    let taken: Vec<&str> = nodes.iter().filter_map(|n| n.pointer("/spec/podCIDR")?.as_str()).collect();
    let free = (0..255).map(|n| format!("{pods}.{n}.0/24")).find(|cidr| !taken.contains(&cidr.as_str()));
    let max_pods =
        run.config.list("kubelet-arg").iter().find_map(|a| a.strip_prefix("max-pods=")?.parse().ok());
    let report = NodeReport {
        name: run.name.clone(),
        address: run.address,
        arch: facts.get("architecture").and_then(Value::as_str).unwrap_or("arm64").to_owned(),
        server: run.server,
        etcd_voter: etcd.then(|| member.as_ref().is_some_and(|m| m.voter)),
        labels: run.config.list("node-label"),
        taints: run.config.list("node-taint"),
        pod_cidr: free.ok_or("no range is left for pods")?,
        cores: run.node.plan.cores.into(),
        memory_kib: run.node.plan.memory / 1024,
        max_pods: max_pods.unwrap_or(110),
        info: facts,
    };
    let mut object = report.object()?;
    if etcd && let Some(map) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        let mark = member.map(|m| m.mark).unwrap_or_default();
        map.insert(
            "etcd.k3s.cattle.io/node-name".into(),
            format!("{}-{}", run.name, mark.get(..8).unwrap_or_default()).into(),
        );
        map.insert("etcd.k3s.cattle.io/node-address".into(), run.address.to_string().into());
    }
    Ok(object)
}

/// What k3s leaves on a host: interfaces, mounts, folders. A stop does not take them away.
fn leave_traces(run: &Run<'_>, cluster: &Cluster) {
    let servers: Vec<String> = cluster.addresses().iter().map(|ip| format!("{ip}:6443")).collect();
    let backend = cluster.critical().get("flannel-backend").cloned().unwrap_or_default();
    let pod_cidr = cluster
        .api
        .store()
        .find(&Gvr::NODES, None, &run.name)
        .and_then(|node| node.pointer("/spec/podCIDR").and_then(Value::as_str).map(str::to_owned))
        .unwrap_or_else(|| "10.42.0.0/24".into());
    let base = pod_cidr.split('/').next().unwrap_or_default().to_owned();
    let gateway = base.strip_suffix(".0").map(|b| format!("{b}.1"));
    run.node.os(|os| {
        let vfs = &mut os.vfs;
        for folder in [
            "/var/lib/rancher/k3s/agent/etc",
            "/var/lib/rancher/k3s/agent/containerd",
            "/var/lib/rancher/k3s/agent/images",
            "/var/lib/kubelet/pods",
            "/var/lib/kubelet/plugins",
            "/var/lib/cni",
            "/var/log/pods",
            "/run/k3s/containerd",
            "/run/flannel",
        ] {
            vfs.mkdirs(folder, 0o755);
        }
        vfs.put(
            "/var/lib/rancher/k3s/agent/etc/k3s-agent-load-balancer.json",
            json!({"ServerURL": run.config.text("server").unwrap_or_default(), "ServerAddresses": servers})
                .to_string(),
        );
        vfs.put("/var/lib/rancher/k3s/agent/etc/containerd/config.toml", "version = 3\n");
        vfs.put("/var/lib/rancher/k3s/agent/server-ca.crt", cluster.pki.server_ca_pem());
        vfs.put("/var/lib/rancher/k3s/agent/client-ca.crt", cluster.pki.client_ca_pem());
        vfs.put("/run/flannel/subnet.env", format!("FLANNEL_SUBNET={pod_cidr}\n"));
        for (at, kind) in [
            ("/run/k3s/containerd/io.containerd.grpc.v1.cri/sandboxes/sim/shm", "tmpfs"),
            ("/var/lib/kubelet/pods/sim/volumes/kubernetes.io~projected/kube-api-access", "tmpfs"),
        ] {
            if vfs.mount_at(at).is_none() {
                let volume = vfs.add_volume(Inode::dir(0o755), 64 << 20);
                vfs.mount(at, volume, kind, kind, "rw,nosuid,nodev,noexec,relatime");
            }
        }
        crate::node::boot::set_sysctl(os, "net.ipv4.ip_forward", "1").ok();
        if let Some(running) = &mut os.running {
            running.modules.extend(
                ["br_netfilter", "bridge", "overlay", "nf_conntrack", "veth", "vxlan"].map(str::to_owned),
            );
            running.net.add("cni0", "bridge", 1450, gateway.and_then(|g| g.parse().ok()).map(|ip| (ip, 24)));
            if backend == "vxlan" {
                running.net.add("flannel.1", "vxlan", 1450, base.parse().ok().map(|ip| (ip, 32)));
            }
            let nat = running.iptables.entry("4:nat".into()).or_default();
            if nat.is_empty() {
                nat.extend([
                    ":KUBE-SERVICES - [0:0]".to_owned(),
                    ":FLANNEL-POSTRTG - [0:0]".to_owned(),
                    "-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES"
                        .to_owned(),
                    "-A POSTROUTING -m comment --comment \"flanneld masq\" -j FLANNEL-POSTRTG".to_owned(),
                ]);
            }
        }
    });
    let memory = run.node.plan.memory;
    run.node.os(|os| crate::node::procfs::refresh(os, memory));
}
