//! A running simulated API server with nodes, and clients for it.
#![allow(dead_code, unreachable_pub, reason = "every test file uses another part")]

use std::{sync::Arc, time::Duration};

use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tokio::sync::watch;
use turingpi_testkit::{ApiServer, ApiServerOptions, ClusterPki, Gvr, WatchOptions};

/// How long a test waits for what must happen; far more than it takes.
pub const LIMIT: Duration = Duration::from_secs(60);

pub struct Cluster {
    pub server: Arc<ApiServer>,
    pub url: String,
    pub enabled: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Cluster {
    pub async fn start() -> Self {
        Self::with(|options| options).await
    }

    pub async fn with(change: impl FnOnce(ApiServerOptions) -> ApiServerOptions) -> Self {
        let pki = ClusterPki::generate(["node1"]).unwrap();
        let server = ApiServer::new(change(ApiServerOptions::new("v1.35.5+k3s1", pki)));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let (enabled, on) = watch::channel(true);
        let task = tokio::spawn(Arc::clone(&server).serve(listener, on));
        Self { server, url, enabled, task }
    }

    /// With this many ready nodes.
    pub async fn with_nodes(count: usize) -> Self {
        let cluster = Self::start().await;
        for i in 1..=count {
            cluster.add_node(&format!("node{i}"), i == 1);
        }
        cluster
    }

    pub fn add_node(&self, name: &str, control_plane: bool) {
        let mut labels = json!({"kubernetes.io/hostname": name});
        if control_plane {
            labels["node-role.kubernetes.io/control-plane"] = json!("true");
        }
        let number = name.trim_start_matches("node");
        let node = json!({
            "metadata": {"name": name, "labels": labels},
            "status": {
                "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
                "addresses": [{"type": "InternalIP", "address": format!("10.10.88.7{number}")}, {"type": "Hostname", "address": name}],
                "capacity": {"cpu": "8", "memory": "16Gi", "pods": "110"},
                "allocatable": {"cpu": "8", "memory": "16Gi", "pods": "110"},
                "nodeInfo": {
                    "kubeletVersion": "v1.35.5+k3s1", "osImage": "Armbian 26.2", "kernelVersion": "6.1.99",
                    "containerRuntimeVersion": "containerd://2.1.1", "architecture": "arm64", "operatingSystem": "linux",
                    "machineID": "", "systemUUID": "", "bootID": "", "kubeProxyVersion": "",
                },
            },
        });
        self.server.store().create(&Gvr::NODES, None, node).unwrap();
    }

    pub fn set_ready(&self, node: &str, status: &str) {
        self.server
            .store()
            .modify(&Gvr::NODES, None, node, |n| n["status"]["conditions"][0]["status"] = json!(status))
            .unwrap();
    }

    pub fn kubeconfig(&self) -> String {
        self.server.pki().admin_kubeconfig(&self.url).unwrap()
    }

    pub async fn client(&self) -> kube::Client {
        client(&self.kubeconfig()).await
    }

    /// A plain HTTP client with the admin's certificate.
    pub fn http(&self) -> reqwest::Client {
        let admin = self.server.pki().issue_client("system:admin", &["system:masters"]).unwrap();
        let pem = format!("{}{}", admin.chain_pem(), admin.key_pem());
        self.http_builder().identity(reqwest::Identity::from_pem(pem.as_bytes()).unwrap()).build().unwrap()
    }

    /// A plain HTTP client that trusts the server and shows nothing.
    pub fn http_builder(&self) -> reqwest::ClientBuilder {
        let ca = reqwest::Certificate::from_pem(self.server.pki().server_ca_pem().as_bytes()).unwrap();
        reqwest::Client::builder().tls_certs_only([ca]).no_proxy()
    }

    /// Waits until an object is as it should be.
    pub async fn until(
        &self,
        gvr: &Gvr,
        namespace: Option<&str>,
        name: &str,
        is: impl Fn(&Value) -> bool,
    ) -> Value {
        let options = WatchOptions { namespace: namespace.map(str::to_owned), ..WatchOptions::default() };
        let mut watcher = self.server.store().watch(gvr, options).unwrap();
        let mut last = Value::Null;
        let found = tokio::time::timeout(LIMIT, async {
            loop {
                let event = watcher.next().await.unwrap();
                if event.object["metadata"]["name"] == name {
                    last = event.object;
                    if event.kind != turingpi_testkit::WatchEventKind::Deleted && is(&last) {
                        break;
                    }
                }
            }
        });
        let in_time = found.await.is_ok();
        assert!(in_time, "{gvr} {name} did not get there; last seen: {last:#}");
        last
    }

    /// Waits until something holds for the whole store.
    pub async fn holds(&self, what: &str, check: impl Fn() -> bool) {
        let mut watcher = self.server.store().watch(&Gvr::PODS, WatchOptions::default()).unwrap();
        let limit = tokio::time::Instant::now() + LIMIT;
        while !check() {
            assert!(tokio::time::Instant::now() < limit, "it never came to this: {what}");
            // Not every change is one of a pod.
            let _ = tokio::time::timeout(Duration::from_millis(20), watcher.next()).await;
        }
    }

    /// Waits until an object is gone.
    pub async fn gone(&self, gvr: &Gvr, namespace: Option<&str>, name: &str) {
        self.holds(&format!("{gvr} {name} is gone"), || {
            self.server.store().find(gvr, namespace, name).is_none()
        })
        .await;
    }
}

pub async fn client(kubeconfig: &str) -> kube::Client {
    let parsed = Kubeconfig::from_yaml(kubeconfig).unwrap();
    let mut config =
        kube::Config::from_custom_kubeconfig(parsed, &KubeConfigOptions::default()).await.unwrap();
    // By default kube-rs repeats a 429 for minutes; here the answers themselves matter.
    config.default_retry = false;
    kube::Client::try_from(config).unwrap()
}

pub fn deployment(name: &str, replicas: i64, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "main", "image": image}]}},
        },
    })
}

pub fn pod_names(cluster: &Cluster, app: &str) -> Vec<(String, String)> {
    let pods = cluster.server.store().list(&Gvr::PODS, Some("default")).unwrap();
    let mine = pods.iter().filter(|p| p["metadata"]["labels"]["app"] == app);
    mine.map(|p| {
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        (text(&p["metadata"]["name"]), text(&p["spec"]["nodeName"]))
    })
    .collect()
}

pub fn widgets() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
                "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "required": ["size"], "properties": {
                        "size": {"type": "integer", "maximum": 5}, "replicas": {"type": "integer"},
                        "mode": {"type": "string", "default": "plain"},
                        "parts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id"],
                            "items": {"type": "object", "properties": {"id": {"type": "string"}, "note": {"type": "string"}}}},
                    }},
                    "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                }}},
            }],
        },
    })
}
pub const WIDGETS: Gvr = Gvr::fixed("example.com", "v1", "widgets");
