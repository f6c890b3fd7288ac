//! k3s on a node: what `k3s server` and `k3s agent` do, from reading their files to a Node that is Ready.

pub(crate) mod cli;
mod config;
pub(crate) mod door;
mod join;
mod kubelet;
mod server;

use std::{net::IpAddr, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{Node, systemd::Ended, units::Unit, vfs::Vfs};
use crate::world::cluster::Cluster;
use config::Config;

/// A simulated k3s binary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Artefact {
    pub(crate) version: String,
    pub(crate) arch: String,
}

/// Reads the second line of a simulated binary.
pub(crate) fn artefact(vfs: &Vfs, path: &str) -> Option<Artefact> {
    let bytes = vfs.read(path).ok()?;
    let head = String::from_utf8_lossy(bytes.get(..bytes.len().min(256))?).into_owned();
    let mut words = head.lines().nth(1)?.strip_prefix("# simulated-k3s ")?.split_whitespace();
    Some(Artefact { version: words.next()?.to_owned(), arch: words.next()?.to_owned() })
}

/// A run of k3s: what every part of it needs.
pub(crate) struct Run<'a> {
    pub(crate) node: &'a Arc<Node>,
    pub(crate) unit: &'a str,
    pub(crate) version: String,
    pub(crate) config: Config,
    pub(crate) name: String,
    pub(crate) address: IpAddr,
    pub(crate) pid: u32,
    pub(crate) server: bool,
    pub(crate) ready: &'a (dyn Fn() + Send + Sync),
}

impl Run<'_> {
    pub(crate) fn log(&self, level: &str, message: &str) {
        let quoted = message.replace('"', "\\\"");
        self.node.journal(
            self.unit,
            "k3s",
            self.pid,
            &format!("time=\"{}\" level={level} msg=\"{quoted}\"", crate::world::objects::now()),
        );
    }
    pub(crate) fn fatal(&self, message: &str) -> Ended {
        self.log("fatal", message);
        Ended::Code(1)
    }
}

/// Runs `k3s <role> …` as a unit's main program until it ends or is stopped.
pub(crate) async fn run(
    node: &Arc<Node>,
    unit: &Unit,
    artefact: &Artefact,
    words: &[String],
    pid: u32,
    cancel: &CancellationToken,
    ready: &(dyn Fn() + Send + Sync),
) -> Ended {
    let name = &unit.name;
    let fatal = |message: &str| {
        node.journal(
            name,
            "k3s",
            pid,
            &format!(
                "time=\"{}\" level=fatal msg=\"{}\"",
                crate::world::objects::now(),
                message.replace('"', "\\\"")
            ),
        );
        Ended::Code(1)
    };
    if node.os(|os| os.image.arch != artefact.arch).unwrap_or(true) {
        node.journal(
            name,
            "systemd",
            1,
            &format!(
                "{name}: Failed at step EXEC spawning {}: Exec format error",
                words.first().map_or("", String::as_str)
            ),
        );
        return Ended::Code(203);
    }
    let role = words.iter().skip(1).find(|word| !word.starts_with('-')).map(String::as_str);
    let server = match role {
        Some("server") => true,
        Some("agent") => false,
        _ => {
            node.journal(name, "k3s", pid, "NAME:\n   k3s - Kubernetes, but small and simple");
            return Ended::Code(0);
        }
    };
    let Some(read) = node.os(|os| {
        let config = Config::read(&os.vfs, unit, words.get(2..).unwrap_or_default());
        let hostname = os.hostname();
        let (address, route, cgroup) = match &os.running {
            Some(running) => {
                (running.net.address(), running.net.default_route().is_some(), running.memory_cgroup)
            }
            None => (None, false, false),
        };
        (config, hostname, address, route, cgroup, os.vfs.text("/etc/rancher/k3s/registries.yaml"))
    }) else {
        return Ended::Cancelled;
    };
    let (config, hostname, address, route, cgroup, registries) = read;
    let config = match config {
        Ok(config) => config,
        Err(message) => return fatal(&message),
    };
    node.journal(
        name,
        "k3s",
        pid,
        &format!(
            "time=\"{}\" level=info msg=\"Starting k3s {}\"",
            crate::world::objects::now(),
            artefact.version
        ),
    );
    if !cgroup {
        return fatal("failed to find memory cgroup (v2)");
    }
    if !registries.trim().is_empty()
        && serde_saphyr::from_str::<serde_json::Value>(&registries).map_or(true, |value| !value.is_object())
    {
        return fatal(
            "failed to configure registries: yaml: unmarshal errors: cannot unmarshal /etc/rancher/k3s/registries.yaml",
        );
    }
    if !route {
        return fatal("no default routes found in \"/proc/net/route\" or \"/proc/net/ipv6_route\"");
    }
    let Some(own) = address else { return fatal("unable to select an IP from default routes.") };
    let address = match config.list("node-ip").first().map(|ip| ip.parse::<IpAddr>()) {
        None => own,
        Some(Ok(ip)) if node.os(|os| os.running.as_ref().is_some_and(|r| r.net.has(ip))) == Some(true) => ip,
        Some(Ok(ip)) => return fatal(&format!("failed to find interface with specified node ip {ip}")),
        Some(Err(_)) => return fatal("invalid node-ip"),
    };
    let node_name = config.text("node-name").unwrap_or(hostname).to_lowercase();
    let run = Run {
        node,
        unit: name,
        version: artefact.version.clone(),
        config,
        name: node_name,
        address,
        pid,
        server,
        ready,
    };
    tokio::select! {
        ended = async { if server { server::serve(&run).await } else { join::agent(&run).await } } => ended,
        () = cancel.cancelled() => Ended::Cancelled,
    }
}

impl Node {
    /// The cluster whose member this node's k3s is at the moment.
    pub(crate) fn cluster(&self) -> Option<Arc<Cluster>> {
        self.world()?.clusters().into_iter().find(|cluster| cluster.kubelet(&self.name).is_some())
    }
    /// Ports that something listens on.
    pub(crate) fn listening(&self) -> Vec<(u16, &'static str)> {
        let mut ports = vec![(22, "sshd")];
        let server = self
            .os(|os| os.running.iter().flat_map(|r| r.units.keys()).any(|name| name.starts_with("k3s")))
            .unwrap_or(false);
        if server && self.cluster().is_some() {
            ports.extend([(10250, "k3s"), (10248, "k3s")]);
        }
        if *self.kube_serving.borrow() {
            ports.push((6443, "k3s"));
        }
        ports
    }
}

/// Answers a URL that leads to a k3s process inside the world: health of the kubelet, `/cacerts`, `/ping`.
pub(crate) fn local_answer(node: &Node, url: &str) -> Option<(u16, String)> {
    let rest = url.split("://").nth(1)?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (host, port) = host.rsplit_once(':')?;
    if matches!(host, "127.0.0.1" | "localhost") && port == "10248" && path == "healthz" {
        return node.cluster().map(|_| (200, "ok".to_owned()));
    }
    if port != "6443" {
        return None;
    }
    let world = node.world()?;
    let target: IpAddr = if matches!(host, "127.0.0.1" | "localhost") {
        node.present_address()?
    } else {
        host.parse().ok()?
    };
    let cluster = world.clusters().into_iter().find(|cluster| cluster.answers_at(target))?;
    Some(match path {
        "cacerts" => (200, cluster.pki.server_ca_pem().to_owned()),
        "ping" => (200, "pong".to_owned()),
        _ => (401, "{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"status\":\"Failure\",\"message\":\"Unauthorized\",\"reason\":\"Unauthorized\",\"code\":401}\n".to_owned()),
    })
}

/// The pause between two attempts of k3s.
pub(crate) const RETRY: Duration = Duration::from_secs(2);
