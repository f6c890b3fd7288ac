//! The kubelet's part: registers its Node over the API, turns it Ready, keeps its heartbeat.

use std::{fs, net::IpAddr, time::Duration};

use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use turingpi_testkit::kubelet::{self, NodeReport};

use crate::{client, config::Config, files, log};

/// Between registering and Ready: what the network plugin takes to come up.
const SETTLING: Duration = Duration::from_millis(1500);
const HEARTBEAT: Duration = Duration::from_secs(2);

pub(crate) struct Kubelet<'a> {
    pub(crate) client: Client,
    pub(crate) url: String,
    pub(crate) name: String,
    pub(crate) address: IpAddr,
    pub(crate) version: String,
    pub(crate) config: &'a Config,
    pub(crate) server: bool,
    /// The server keeps its data in etcd, so its Node says whether it votes.
    pub(crate) voter: bool,
}

impl Kubelet<'_> {
    async fn call(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Value), String> {
        let mut request = self.client.request(method, format!("{}{path}", self.url));
        if let Some(body) = body {
            request = request.header("content-type", kind).body(body.to_string());
        }
        let answer = request.send().await.map_err(|e| client::why(&e))?;
        let status = answer.status();
        let text = answer.text().await.map_err(|e| client::why(&e))?;
        Ok((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    fn path(&self, more: &str) -> String {
        format!("/api/v1/nodes/{}{more}", self.name)
    }

    /// Registers the Node, or takes over the one that is there. Gives the range of its pods.
    pub(crate) async fn register(&self) -> Result<String, String> {
        let (status, seen) = self.call(Method::GET, &self.path(""), "", None).await?;
        let node = if status == StatusCode::NOT_FOUND {
            let object = self.object().await?;
            let (status, made) =
                self.call(Method::POST, "/api/v1/nodes", "application/json", Some(&object)).await?;
            if !status.is_success() {
                return Err(format!("Unable to register node with API server: {status}: {made}"));
            }
            made
        } else if status.is_success() {
            seen
        } else {
            return Err(format!("Unable to register node with API server: {status}: {seen}"));
        };
        self.report(false).await?;
        log::info(&format!("Successfully registered node {}", self.name));
        let cidr = node.pointer("/spec/podCIDR").and_then(Value::as_str).unwrap_or_default();
        Ok(cidr.to_owned())
    }

    /// Keeps the Node Ready for ever.
    pub(crate) async fn beat(&self) -> Result<(), String> {
        tokio::time::sleep(SETTLING).await;
        loop {
            let seen = self.report(true).await;
            match seen {
                Ok(StatusCode::NOT_FOUND) => {
                    // Deleted while it runs: it registers again.
                    if let Err(message) = self.register().await {
                        log::error(&message);
                    }
                }
                Ok(status) if !status.is_success() => {
                    log::error(&format!("Error updating node status: {status}"))
                }
                Ok(_) => {}
                Err(message) => log::error(&format!("Error updating node status: {message}")),
            }
            if let Err(message) = self.renew().await {
                log::error(&format!("Failed to update lease: {message}"));
            }
            tokio::time::sleep(HEARTBEAT).await;
        }
    }

    async fn report(&self, ready: bool) -> Result<StatusCode, String> {
        let at = kubelet::now();
        let voter = self.voter.then_some(true);
        let conditions: Vec<Value> =
            kubelet::conditions(ready, voter).iter().map(|condition| condition.value(&at)).collect();
        let patch = json!({"status": {
            "conditions": conditions, "nodeInfo": self.info(),
            "addresses": [{"type": "InternalIP", "address": self.address.to_string()}, {"type": "Hostname", "address": self.name}],
        }});
        let kind = "application/strategic-merge-patch+json";
        let (status, _) = self.call(Method::PATCH, &self.path("/status"), kind, Some(&patch)).await?;
        Ok(status)
    }

    fn info(&self) -> Value {
        let os = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let pretty =
            os.lines().find_map(|l| l.strip_prefix("PRETTY_NAME=")).unwrap_or_default().trim_matches('"');
        let file = |path: &str| files::text(path).unwrap_or_default();
        json!({
            "machineID": file("/etc/machine-id"), "systemUUID": file("/etc/machine-id"),
            "bootID": file("/proc/sys/kernel/random/boot_id"), "kernelVersion": file("/proc/sys/kernel/osrelease"),
            "osImage": pretty, "containerRuntimeVersion": "containerd://2.1.5-k3s1", "kubeletVersion": self.version,
            "kubeProxyVersion": self.version, "operatingSystem": "linux", "architecture": architecture()
        })
    }

    async fn object(&self) -> Result<Value, String> {
        let (_, nodes) = self.call(Method::GET, "/api/v1/nodes", "", None).await?;
        let taken: Vec<&str> = nodes
            .get("items")
            .and_then(Value::as_array)
            .map(|items| items.iter().filter_map(|n| n.pointer("/spec/podCIDR")?.as_str()).collect())
            .unwrap_or_default();
        let pods = self
            .config
            .text("cluster-cidr")
            .unwrap_or_else(|| taken.first().unwrap_or(&"10.42.0.0/16").to_string());
        let base = pods.split('.').take(2).collect::<Vec<_>>().join(".");
        let free = (0..255).map(|n| format!("{base}.{n}.0/24")).find(|c| !taken.contains(&c.as_str()));
        let cidr = free.ok_or("no range is left for pods")?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let report = NodeReport {
            name: self.name.clone(),
            address: self.address,
            arch: architecture().to_owned(),
            server: self.server,
            etcd_voter: self.voter.then_some(true),
            labels: self.config.list("node-label"),
            taints: self.config.list("node-taint"),
            pod_cidr: cidr,
            cores: cores.try_into().unwrap_or(1),
            memory_kib: 8_000_000,
            max_pods: 110,
            info: self.info(),
        };
        report.object()
    }

    /// Shows that the node lives, with its Lease.
    async fn renew(&self) -> Result<(), String> {
        let (status, node) = self.call(Method::GET, &self.path(""), "", None).await?;
        if !status.is_success() {
            return Ok(());
        }
        let uid = node.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default();
        let lease = kubelet::lease(&self.name, uid);
        let all = format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", kubelet::LEASE_NAMESPACE);
        let kind = "application/merge-patch+json";
        let (status, _) =
            self.call(Method::PATCH, &format!("{all}/{}", self.name), kind, Some(&lease)).await?;
        if status == StatusCode::NOT_FOUND {
            self.call(Method::POST, &all, "application/json", Some(&lease)).await?;
        }
        Ok(())
    }
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
