//! k3s's own config files: rendered in memory, kept as secrets, compared by digest.

use secrecy::{ExposeSecret, SecretSlice, SecretString};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use turingpi_cluster::{NetworkSpec, NodeSpec, Role};
use turingpi_engine::{Failure, FailureClass};

use crate::{K3sSpec, unit::MARK};

/// How a node gets into its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    /// It is the only server: data in sqlite.
    Alone,
    /// It is the first of several servers: makes the etcd.
    Init,
    /// It joins the cluster whose API is at this address.
    Join(String),
}

/// What a config file is made from.
pub(crate) struct ConfigInput<'a> {
    pub(crate) spec: &'a K3sSpec,
    pub(crate) network: &'a NetworkSpec,
    pub(crate) node: &'a NodeSpec,
    pub(crate) servers: &'a [&'a NodeSpec],
    pub(crate) entry: &'a Entry,
}

/// A file that holds a secret.
#[derive(Clone)]
pub(crate) struct SecretFile(SecretString);

impl SecretFile {
    /// SHA-256, 64 hex digits. Of a file with a long random token in it, so it tells nothing about the token.
    pub(crate) fn sha256(&self) -> String {
        hex::encode(Sha256::digest(self.0.expose_secret().as_bytes()))
    }
    pub(crate) fn bytes(&self) -> SecretSlice<u8> {
        SecretSlice::from(self.0.expose_secret().as_bytes().to_vec())
    }
    #[cfg(test)]
    pub(crate) fn text(&self) -> &str {
        self.0.expose_secret()
    }
}

/// The certificate's names: every server by name and address, the endpoint, and those of the spec.
fn sans(input: &ConfigInput<'_>) -> Vec<String> {
    let mut sans: Vec<String> = Vec::new();
    let servers = input.servers.iter().flat_map(|s| [s.address.to_string(), s.name.clone()]);
    let endpoint = input.network.api_endpoint.iter().map(|e| e.host().to_owned());
    for san in servers.chain(endpoint).chain(input.spec.tls_sans.iter().cloned()) {
        if !sans.contains(&san) {
            sans.push(san);
        }
    }
    sans
}

/// The settings without the token: what can be shown.
pub(crate) fn settings(input: &ConfigInput<'_>) -> Map<String, Value> {
    let mut map = Map::new();
    let mut set = |key: &str, value: Value| {
        map.insert(key.to_owned(), value);
    };
    match input.entry {
        Entry::Alone => {}
        Entry::Init => set("cluster-init", json!(true)),
        Entry::Join(url) => set("server", json!(url)),
    }
    set("node-name", json!(input.node.name));
    set("node-ip", json!([input.node.address.to_string()]));
    let extra = match input.node.role {
        Role::Worker => &input.spec.agent,
        Role::ControlPlane => {
            set("tls-san", json!(sans(input)));
            set("cluster-cidr", json!(input.network.pods.trunc().to_string()));
            set("service-cidr", json!(input.network.services.trunc().to_string()));
            set("cluster-dns", json!(input.network.dns_address().to_string()));
            set("cluster-domain", json!(input.network.domain));
            set("flannel-backend", json!(input.spec.flannel_backend.as_str()));
            set("write-kubeconfig-mode", json!("0600"));
            if !input.spec.disable.is_empty() {
                set("disable", input.spec.disable.iter().map(|c| json!(c.as_str())).collect());
            }
            &input.spec.server
        }
    };
    for (key, value) in extra {
        map.insert(key.clone(), value.clone());
    }
    map
}

/// The config file of a node, with its token.
///
/// # Errors
/// `Config` when a value of the spec cannot be written as YAML.
pub(crate) fn render(input: &ConfigInput<'_>, token: &SecretString) -> Result<SecretFile, Failure> {
    let mut map = Map::new();
    map.insert("token".to_owned(), json!(token.expose_secret()));
    map.extend(settings(input));
    let head = format!("{MARK} Your own settings belong into /etc/rancher/k3s/config.yaml.\n");
    Ok(SecretFile(SecretString::from(head + &yaml(&Value::Object(map), "k3s.server")?)))
}

/// `registries.yaml`; it may hold passwords.
///
/// # Errors
/// `Config` when a value of the spec cannot be written as YAML.
pub(crate) fn render_registries(spec: &K3sSpec) -> Result<Option<SecretFile>, Failure> {
    let Some(registries) = &spec.registries else { return Ok(None) };
    let value = registries.0.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    let text = format!("{MARK}\n{}", yaml(&Value::Object(value), "k3s.registries")?);
    Ok(Some(SecretFile(SecretString::from(text))))
}

fn yaml(value: &Value, what: &str) -> Result<String, Failure> {
    let mut text = serde_saphyr::to_string(value)
        .map_err(|e| Failure::new(FailureClass::Config, format!("cannot write {what} as YAML")).source(e))?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}
