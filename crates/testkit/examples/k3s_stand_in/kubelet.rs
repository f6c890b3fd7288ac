//! The kubelet's part: registers its Node over the API, turns it Ready, keeps its heartbeat.

use std::{fs, net::IpAddr, time::Duration};

use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

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

fn now() -> String {
    let format = time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    time::OffsetDateTime::now_utc().format(&format).unwrap_or_default()
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
            tokio::time::sleep(HEARTBEAT).await;
        }
    }

    async fn report(&self, ready: bool) -> Result<StatusCode, String> {
        let at = now();
        let condition = |kind: &str, status: &str, reason: &str, message: &str| json!({"type": kind, "status": status, "reason": reason, "message": message, "lastHeartbeatTime": at});
        let mut conditions = vec![
            condition(
                "MemoryPressure",
                "False",
                "KubeletHasSufficientMemory",
                "kubelet has sufficient memory available",
            ),
            condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            condition(
                "PIDPressure",
                "False",
                "KubeletHasSufficientPID",
                "kubelet has sufficient PID available",
            ),
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
        if self.voter {
            let message = "Node is a voting member of the etcd cluster";
            conditions.push(condition("EtcdIsVoter", "True", "MemberNotLearner", message));
        }
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
        let arch = architecture();
        let mut labels = json!({
            "beta.kubernetes.io/arch": arch, "beta.kubernetes.io/os": "linux", "kubernetes.io/arch": arch,
            "kubernetes.io/os": "linux", "kubernetes.io/hostname": self.name, "node.kubernetes.io/instance-type": "k3s"
        });
        let roles: &[&str] = match (self.server, self.voter) {
            (true, true) => &["control-plane", "master", "etcd"],
            (true, false) => &["control-plane", "master"],
            (false, _) => &[],
        };
        if let Some(map) = labels.as_object_mut() {
            map.extend(
                roles.iter().map(|role| (format!("node-role.kubernetes.io/{role}"), Value::from("true"))),
            );
            for label in self.config.list("node-label") {
                let (key, value) = label.split_once('=').unwrap_or((&label, ""));
                map.insert(key.to_owned(), value.into());
            }
        }
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
        let resources = json!({"cpu": cores.to_string(), "memory": "8000000Ki", "pods": "110", "ephemeral-storage": "28Gi"});
        let taints: Vec<Value> = self
            .config
            .list("node-taint")
            .iter()
            .filter_map(|taint| {
                let (rest, effect) = taint.rsplit_once(':')?;
                let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
                Some(json!({"key": key, "value": value, "effect": effect}))
            })
            .collect();
        Ok(json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": self.name, "labels": labels, "annotations": {"k3s.io/internal-ip": self.address.to_string()}},
            "spec": {"podCIDR": cidr, "podCIDRs": [cidr], "providerID": format!("k3s://{}", self.name), "taints": taints},
            "status": {"capacity": resources, "allocatable": resources, "nodeInfo": self.info()}
        }))
    }
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
