//! Reaching a cluster: the server's address, the token, the node password.

use std::{net::IpAddr, sync::Arc};

use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{Ended, RETRY, Run, kubelet::Kubelet};
use crate::{Gvr, world::cluster::Cluster};

/// The address a `server:` URL leads to, as the node's resolver sees it.
pub(crate) fn resolve(run: &Run<'_>, url: &str) -> Result<IpAddr, String> {
    let rest = url
        .strip_prefix("https://")
        .ok_or_else(|| format!("invalid server URL {url}: must start with https://"))?;
    let host = rest.split('/').next().unwrap_or_default();
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host).trim_matches(['[', ']']);
    if let Ok(ip) = host.parse() {
        return Ok(ip);
    }
    let found = run.node.os(|os| {
        let text = os.vfs.text("/etc/hosts");
        text.lines()
            .filter(|line| !line.trim_start().starts_with('#'))
            .find(|line| line.split_whitespace().skip(1).any(|name| name == host))
            .and_then(|line| line.split_whitespace().next()?.parse::<IpAddr>().ok())
    });
    found
        .flatten()
        .filter(|ip| !ip.is_loopback())
        .ok_or_else(|| format!("dial tcp: lookup {host}: no such host"))
}

/// Why a token is not good for a cluster.
pub(crate) fn check_token(cluster: &Cluster, token: &str, server: bool) -> Result<(), String> {
    let password = match token.strip_prefix("K10") {
        Some(rest) if rest.contains("::") => {
            let (hash, credentials) = rest.split_once("::").unwrap_or((rest, ""));
            if hash.len() != 64 {
                return Err("invalid token CA hash length".to_owned());
            }
            let own = cluster.pki.ca_hash();
            if hash != own {
                return Err(format!(
                    "token CA hash does not match the Cluster CA certificate hash: {hash} != {own}"
                ));
            }
            credentials.split_once(':').map_or(credentials, |(_, password)| password).to_owned()
        }
        _ => token.to_owned(),
    };
    let agent = !server && cluster.agent_token.as_deref() == Some(password.as_str());
    if password == cluster.token || agent { Ok(()) } else { Err("not authorized".to_owned()) }
}

/// Finds the cluster behind a URL, if its API answers there; an agent also knows the servers it has seen.
pub(crate) fn reach(run: &Run<'_>, url: &str) -> Result<Arc<Cluster>, String> {
    let world = run.node.world().ok_or("the world is gone")?;
    let cached = run
        .node
        .os(|os| os.vfs.text("/var/lib/rancher/k3s/agent/etc/k3s-agent-load-balancer.json"))
        .and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok())
        .and_then(|value| value.get("ServerAddresses").and_then(|a| a.as_array().cloned()))
        .unwrap_or_default();
    let cached = cached.iter().filter_map(|a| a.as_str()?.rsplit_once(':')?.0.parse::<IpAddr>().ok());
    let first = resolve(run, url);
    let mut last = match &first {
        Ok(ip) => format!("dial tcp {ip}:6443: connect: connection refused"),
        Err(text) => text.clone(),
    };
    for ip in first.ok().into_iter().chain(cached.filter(|_| !run.server)) {
        if let Some(cluster) = world.clusters().into_iter().find(|cluster| cluster.answers_at(ip)) {
            return Ok(cluster);
        }
        last = match world.at_address(ip) {
            Some(_) => format!("dial tcp {ip}:6443: connect: connection refused"),
            None => format!("dial tcp {ip}:6443: connect: no route to host"),
        };
    }
    Err(last)
}

/// Checks the node password against the cluster's secret, or registers it.
pub(crate) fn node_password(run: &Run<'_>, cluster: &Cluster) -> Result<(), String> {
    let password = run
        .node
        .os(|os| {
            let path = "/etc/rancher/node/password";
            if os.vfs.text(path).trim().is_empty() {
                os.vfs.mkdirs("/etc/rancher/node", 0o755);
                os.vfs.put_mode(path, format!("{}\n", hex::encode(rand::random::<[u8; 16]>())), 0o600);
            }
            os.vfs.text(path).trim().to_owned()
        })
        .unwrap_or_default();
    let hash = format!("$1:{}:15:8:1", hex::encode(Sha256::digest(password)));
    let name = format!("{}.node-password.k3s", run.name);
    let store = cluster.api.store();
    if let Some(secret) = store.find(&Gvr::SECRETS, Some("kube-system"), &name) {
        let stored = secret.pointer("/data/hash").and_then(|h| h.as_str()).unwrap_or_default();
        if stored != encode(&hash) {
            return Err("Node password rejected, duplicate hostname or contents of '/etc/rancher/node/password' may not match server node-password entry, try enabling a unique node name with the --with-node-id flag".to_owned());
        }
        return Ok(());
    }
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "kube-system"}, "type": "Opaque", "immutable": true, "data": {"hash": encode(&hash)}});
    store.create(&Gvr::SECRETS, Some("kube-system"), secret).map(|_| ()).map_err(|e| e.to_string())
}

fn encode(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// `k3s agent`: tries until it has its configuration, then runs the kubelet.
pub(crate) async fn agent(run: &Run<'_>) -> Ended {
    let Some(url) = run.config.text("server") else { return run.fatal("--server is required") };
    let Some(token) = run.config.text("token") else { return run.fatal("--token is required") };
    if !url.starts_with("https://") {
        return run.fatal(&format!("invalid URL {url}: only https:// URLs are supported for --server"));
    }
    let cluster = loop {
        let tried =
            reach(run, &url).map_err(|e| format!("failed to get CA certs: Get \"{url}/cacerts\": {e}"));
        let checked = tried.and_then(|cluster| match check_token(&cluster, &token, false) {
            Ok(()) => Ok(cluster),
            Err(e) if e == "not authorized" => Err(format!("Waiting to retrieve agent configuration; server is not ready: {url}/v1-k3s/config: 401 Unauthorized")),
            Err(e) => Err(format!("failed to validate connection to cluster at {url}: {e}")),
        });
        let checked = checked.and_then(|cluster| {
            node_password(run, &cluster)
                .map(|()| cluster)
                .map_err(|e| format!("Waiting to retrieve agent configuration; server is not ready: {e}"))
        });
        match checked {
            Ok(cluster) => break cluster,
            Err(message) => run.log("error", &message),
        }
        if !run.node.pause(RETRY).await {
            return Ended::Cancelled;
        }
    };
    let nominal = run.node.world().map(|world| world.durations.k3s_agent).unwrap_or_default();
    if !run.node.pause(nominal).await {
        return Ended::Cancelled;
    }
    let kubelet = match Kubelet::start(run, &cluster) {
        Ok(kubelet) => kubelet,
        Err(message) => return run.fatal(&message),
    };
    (run.ready)();
    kubelet.beat(run, &cluster).await
}
