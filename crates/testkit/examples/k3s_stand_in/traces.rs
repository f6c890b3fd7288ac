//! What a running k3s leaves on its host and a stop of the service does not take away: interfaces, mounts, packet
//! filter rules, a container's shim.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Stdio},
};

use crate::{files, log};

const SANDBOX: &str = "5f1c0ffee5f1c0ffee";

fn run(words: &[&str]) -> bool {
    let Some((program, args)) = words.split_first() else { return false };
    let done = Command::new(program).args(args).stdin(Stdio::null()).stdout(Stdio::null()).output();
    let failed = match done {
        Ok(output) if output.status.success() => return true,
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    log::info(&format!("{}: {failed}", words.join(" ")));
    false
}

fn mount(path: &str) {
    let mounted = fs::read_to_string("/proc/mounts").unwrap_or_default();
    if mounted.lines().any(|line| line.split(' ').nth(1) == Some(path)) {
        return;
    }
    if files::folder(path, 0o755).is_ok() {
        run(&["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", path]);
    }
}

fn link(name: &str, kind: &[&str], address: &str) {
    if Path::new("/sys/class/net").join(name).exists() {
        return;
    }
    let mut words = vec!["ip", "link", "add", name, "type"];
    words.extend(kind);
    if run(&words) {
        run(&["ip", "addr", "add", address, "dev", name]);
        run(&["ip", "link", "set", name, "up"]);
    }
}

/// Leaves all of it; what is there already stays.
pub(crate) fn leave(server: &str, pods: &str, cidr: &str) {
    let base = cidr.split('/').next().unwrap_or("10.42.0.0").trim_end_matches(".0").to_owned();
    for folder in ["agent/etc", "agent/containerd", "agent/images", "data/current/bin"] {
        let _ = files::folder(&format!("{}/{folder}", files::DATA), 0o755);
    }
    for folder in
        ["/var/lib/kubelet/pods", "/var/lib/kubelet/plugins", "/var/lib/cni", "/var/log/pods", "/run/flannel"]
    {
        let _ = files::folder(folder, 0o755);
    }
    let balancer = format!("{}/agent/etc/k3s-agent-load-balancer.json", files::DATA);
    let _ = files::write(&balancer, serde_json::json!({ "ServerURL": server }).to_string().as_bytes(), 0o600);
    let subnet = format!("FLANNEL_NETWORK={pods}\nFLANNEL_SUBNET={base}.1/24\nFLANNEL_MTU=1450\n");
    let _ = files::write("/run/flannel/subnet.env", subnet.as_bytes(), 0o644);
    link("cni0", &["bridge"], &format!("{base}.1/24"));
    link("flannel.1", &["vxlan", "id", "1", "dstport", "8472"], &format!("{base}.0/32"));
    mount(&format!("/run/k3s/containerd/io.containerd.grpc.v1.cri/sandboxes/{SANDBOX}/shm"));
    mount("/var/lib/kubelet/pods/0b5e55ed/volumes/kubernetes.io~projected/kube-api-access");
    if !Path::new("/run/netns/cni-0b5e55ed").exists() {
        run(&["ip", "netns", "add", "cni-0b5e55ed"]);
    }
    if !run(&["iptables", "-t", "nat", "-S", "KUBE-SERVICES"]) {
        run(&["iptables", "-t", "nat", "-N", "KUBE-SERVICES"]);
        run(&["iptables", "-t", "nat", "-A", "PREROUTING", "-j", "KUBE-SERVICES"]);
    }
    shim();
}

/// Starts a container's shim, which outlives the service.
fn shim() {
    let path = format!("{}/data/current/bin/containerd-shim-runc-v2", files::DATA);
    let _ = symlink("/usr/local/bin/k3s", &path);
    let runs = fs::read_dir("/proc").into_iter().flatten().flatten().any(|entry| {
        fs::read_to_string(entry.path().join("comm")).is_ok_and(|comm| comm.starts_with("containerd-shim"))
    });
    if !runs {
        let socket = "/run/k3s/containerd/containerd.sock";
        // Its streams are nobody's: whoever waited for their end would wait as long as the container lives.
        let started = Command::new("setsid")
            .args(["--fork", &path, "-namespace", "k8s.io", "-id", SANDBOX, "-address", socket])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if let Err(error) = started {
            log::info(&format!("setsid: {error}"));
        }
    }
}
