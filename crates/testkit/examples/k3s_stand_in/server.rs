//! `k3s server`: a new cluster, or the one whose data lies on the disk.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::{net::TcpListener, sync::watch};
use turingpi_testkit::{ApiServer, ApiServerOptions, ClusterPki, Gvr, Snapshot};

use crate::{
    client::{self, Token},
    config::Config,
    files::{self, DATA},
    kubelet::Kubelet,
    log,
    supervisor::{Door, router},
    traces,
};

const URL: &str = "https://127.0.0.1:6443";
const ETCD: &str = "server/db/etcd/member/snap/db";
const SQLITE: &str = "server/db/state.db";

fn path(name: &str) -> String {
    format!("{DATA}/{name}")
}

fn digest(text: &str) -> String {
    hex::encode(Sha256::digest(text))
}

/// The cluster as its datastore holds it.
struct Cluster {
    pki: ClusterPki,
    token: String,
    objects: Option<Snapshot>,
    etcd: bool,
}

impl Cluster {
    fn load(config: &Config) -> Result<Self, String> {
        let etcd = std::path::Path::new(&path(ETCD)).exists();
        let given = config.text("token").map(|t| Token::parse(&t)).transpose()?.map(|t| t.password);
        let kept =
            || -> Option<String> { Some(Token::parse(&files::text(&path("server/token"))?).ok()?.password) };
        let mut sans = config.list("tls-san");
        sans.extend([files::node_name(config), files::node_ip(config)?.to_string()]);
        match files::text(&path(if etcd { ETCD } else { SQLITE })) {
            Some(text) => {
                let data: Value =
                    serde_json::from_str(&text).map_err(|e| format!("file is not a database: {e}"))?;
                let field = |key: &str| data.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
                let token = given.or_else(kept).ok_or("the token is missing")?;
                if digest(&token) != field("token-digest") {
                    return Err("starting kubernetes: preparing server: bootstrap data already found and encrypted with different token".to_owned());
                }
                let pki = ClusterPki::restore(
                    (&field("server-ca.crt"), &field("server-ca.key")),
                    (&field("client-ca.crt"), &field("client-ca.key")),
                    sans,
                )
                .map_err(|e| client::why(&e))?;
                let objects = data.get("objects").and_then(Snapshot::from_json);
                Ok(Self { pki, token, objects, etcd: etcd || config.yes("cluster-init") })
            }
            None => {
                let token = given.or_else(kept).unwrap_or_else(files::random);
                let pki = ClusterPki::generate(sans).map_err(|e| client::why(&e))?;
                Ok(Self { pki, token, objects: None, etcd: config.yes("cluster-init") })
            }
        }
    }

    fn save(&self, api: &ApiServer) -> Result<(), String> {
        let data = json!({
            "token-digest": digest(&self.token),
            "server-ca.crt": self.pki.server_ca_pem(), "server-ca.key": self.pki.server_ca_key_pem(),
            "client-ca.crt": self.pki.client_ca_pem(), "client-ca.key": self.pki.client_ca_key_pem(),
            "objects": api.store().snapshot().to_json(),
        });
        files::write(&path(if self.etcd { ETCD } else { SQLITE }), data.to_string().as_bytes(), 0o600)
    }

    /// The files of a server that starts.
    fn write_files(&self, config: &Config) -> Result<(), String> {
        files::folder(&path("server"), 0o700)?;
        for folder in ["tls", "cred", "manifests", "static"] {
            files::folder(&path(&format!("server/{folder}")), 0o700)?;
        }
        let put = |name: &str, text: &str, mode: u32| files::write(&path(name), text.as_bytes(), mode);
        put("server/tls/server-ca.crt", self.pki.server_ca_pem(), 0o644)?;
        put("server/tls/server-ca.key", self.pki.server_ca_key_pem(), 0o600)?;
        put("server/tls/client-ca.crt", self.pki.client_ca_pem(), 0o644)?;
        put("server/tls/client-ca.key", self.pki.client_ca_key_pem(), 0o600)?;
        put("agent/server-ca.crt", self.pki.server_ca_pem(), 0o644)?;
        put("server/cred/passwd", "stand-in\n", 0o600)?;
        put("server/token", &format!("K10{}::server:{}\n", self.pki.ca_hash(), self.token), 0o600)?;
        for name in ["node-token", "agent-token"] {
            // Links to the file just written; a second start finds them.
            let _ = std::os::unix::fs::symlink(path("server/token"), path(&format!("server/{name}")));
        }
        let (certificate, key) = self.admin()?;
        let kubeconfig = format!(
            "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: {}\n    server: {URL}\n  name: default\n\
             contexts:\n- context:\n    cluster: default\n    user: default\n  name: default\ncurrent-context: default\n\
             kind: Config\nusers:\n- name: default\n  user:\n    client-certificate-data: {}\n    client-key-data: {}\n",
            STANDARD.encode(self.pki.server_ca_pem()),
            STANDARD.encode(certificate),
            STANDARD.encode(key),
        );
        let mode = config.text("write-kubeconfig-mode").and_then(|m| u32::from_str_radix(&m, 8).ok());
        files::write("/etc/rancher/k3s/k3s.yaml", kubeconfig.as_bytes(), mode.unwrap_or(0o600))
    }

    /// The administrator's certificate: renewed when it is missing or another authority's, not at every start.
    fn admin(&self) -> Result<(String, String), String> {
        let (certificate, key) = (path("server/tls/client-admin.crt"), path("server/tls/client-admin.key"));
        if let (Some(old), Some(old_key)) = (files::text(&certificate), files::text(&key))
            && old.ends_with(self.pki.client_ca_pem().trim())
        {
            return Ok((format!("{old}\n"), format!("{old_key}\n")));
        }
        let new = self.pki.issue_client("system:admin", &["system:masters"]).map_err(|e| client::why(&e))?;
        files::write(&certificate, new.chain_pem().as_bytes(), 0o644)?;
        files::write(&key, new.key_pem().as_bytes(), 0o600)?;
        Ok((new.chain_pem().to_owned(), new.key_pem().to_owned()))
    }
}

pub(crate) async fn run(config: &Config, version: &str) -> Result<(), String> {
    if config.text("server").is_some() {
        return Err("the stand-in cannot join as a second server".to_owned());
    }
    let cluster = Cluster::load(config)?;
    cluster.write_files(config)?;
    let network = |key: &str, default: &str| config.text(key).unwrap_or_else(|| default.to_owned());
    let (pods, services) = (network("cluster-cidr", "10.42.0.0/16"), network("service-cidr", "10.43.0.0/16"));
    let range = |text: &str| text.parse().map_err(|e| format!("invalid range {text}: {e}"));
    let door = Arc::new(Door {
        token: cluster.token.clone(),
        agent_token: config.text("agent-token"),
        pods: pods.clone(),
        api: OnceLock::new(),
    });
    let options = ApiServerOptions::new(version, cluster.pki.clone())
        .networks(range(&pods)?, range(&services)?)
        .supervisor(router(Arc::clone(&door)));
    let api = ApiServer::new(options);
    if let Some(objects) = &cluster.objects {
        api.store().restore(objects);
    }
    components(&api, config);
    cluster.save(&api)?;
    let listener =
        TcpListener::bind(("0.0.0.0", 6443)).await.map_err(|e| format!("listen tcp :6443: bind: {e}"))?;
    let (_open, enabled) = watch::channel(true);
    tokio::spawn(Arc::clone(&api).serve(listener, enabled));
    if door.api.set(Arc::clone(&api)).is_err() {
        return Err("the door is open already".to_owned());
    }
    let (name, password) = (files::node_name(config), files::node_password()?);
    door.node_password(&name, &password).map_err(|(_, why)| why)?;
    let client = cluster
        .pki
        .issue_client(&format!("system:node:{name}"), &["system:nodes"])
        .map_err(|e| client::why(&e))?;
    let client = client::trusting(cluster.pki.server_ca_pem(), Some((client.chain_pem(), client.key_pem())))?;
    let kubelet = Kubelet {
        client,
        url: URL.to_owned(),
        name,
        address: files::node_ip(config)?,
        version: version.to_owned(),
        config,
        server: true,
        voter: cluster.etcd,
    };
    let cidr = kubelet.register().await?;
    traces::leave(URL, &pods, &cidr);
    files::notify_ready()?;
    log::info("k3s is up and running");
    tokio::try_join!(kubelet.beat(), keep(&cluster, &api), watch_nodes(&api)).map(drop)
}

/// Saves the objects whenever they changed.
async fn keep(cluster: &Cluster, api: &ApiServer) -> Result<(), String> {
    let mut saved = 0;
    loop {
        let now = api.store().version();
        if now != saved {
            cluster.save(api)?;
            saved = now;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// How long a node may say nothing. Kubernetes itself waits 40 s.
const SILENCE: Duration = Duration::from_secs(8);

/// Turns nodes that say nothing any more to Unknown.
async fn watch_nodes(api: &ApiServer) -> Result<(), String> {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        for node in api.store().list(&Gvr::NODES, None).map_err(|e| e.to_string())? {
            let name = node.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
            let ready = node.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
            let ready = ready.into_iter().find(|c| c.get("type").is_some_and(|t| t == "Ready"));
            let Some(ready) = ready.filter(|r| r.get("status").is_some_and(|s| s != "Unknown")) else {
                continue;
            };
            let at = ready.get("lastHeartbeatTime").and_then(Value::as_str).unwrap_or_default();
            let at = time::OffsetDateTime::parse(at, &time::format_description::well_known::Rfc3339);
            if at.is_ok_and(|at| time::OffsetDateTime::now_utc() - at > SILENCE) {
                let _ = api.store().modify(&Gvr::NODES, None, name, unknown);
            }
        }
    }
}

fn unknown(node: &mut Value) {
    let conditions = node.pointer_mut("/status/conditions").and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten() {
        if let Some(map) = condition.as_object_mut().filter(|c| c.get("type").is_some_and(|t| t == "Ready")) {
            map.insert("status".into(), "Unknown".into());
            map.insert("reason".into(), "NodeStatusUnknown".into());
            map.insert("message".into(), "Kubelet stopped posting node status.".into());
        }
    }
}

/// k3s's own workloads, without those that are disabled.
fn components(api: &ApiServer, config: &Config) {
    let disabled = config.list("disable");
    for (component, name) in [
        ("coredns", "coredns"),
        ("local-storage", "local-path-provisioner"),
        ("metrics-server", "metrics-server"),
        ("traefik", "traefik"),
    ] {
        if disabled.iter().any(|d| d == component) {
            let _ = api.store().delete(
                &Gvr::DEPLOYMENTS,
                Some("kube-system"),
                name,
                &turingpi_testkit::DeleteOptions::default(),
            );
            continue;
        }
        let manifest = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": name, "namespace": "kube-system", "labels": {"k8s-app": name}},
            "spec": {
                "replicas": 1, "selector": {"matchLabels": {"k8s-app": name}},
                "template": {
                    "metadata": {"labels": {"k8s-app": name}},
                    "spec": {"containers": [{"name": name, "image": format!("rancher/{name}")}]}
                }
            }
        });
        if let Err(error) = api.store().apply("deploy@k3s", &manifest) {
            log::error(&format!("cannot make {name}: {error}"));
        }
    }
}
