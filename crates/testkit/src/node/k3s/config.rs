//! k3s's configuration: files, drop-ins, environment and command line, merged as k3s merges them.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::node::{units::Unit, vfs::Vfs};

/// The merged settings.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Config {
    values: BTreeMap<String, Value>,
}

/// Keys whose values on all servers must be equal.
const CRITICAL: [&str; 14] = [
    "agent-token",
    "cluster-cidr",
    "service-cidr",
    "cluster-dns",
    "cluster-domain",
    "disable-cloud-controller",
    "disable-helm-controller",
    "disable-kube-proxy",
    "disable-network-policy",
    "egress-selector-mode",
    "embedded-registry",
    "flannel-backend",
    "secrets-encryption",
    "flannel-ipv6-masq",
];

fn list(value: Value) -> Vec<Value> {
    match value {
        Value::Array(list) => list,
        other => vec![other],
    }
}

impl Config {
    fn merge(&mut self, document: Value, path: &str) -> Result<(), String> {
        match document {
            Value::Null => Ok(()),
            Value::Object(map) => {
                for (key, value) in map {
                    if let Some(key) = key.strip_suffix('+') {
                        let mut old = self.values.remove(key).map(list).unwrap_or_default();
                        old.extend(list(value));
                        self.values.insert(key.to_owned(), Value::Array(old));
                    } else {
                        self.values.insert(key, value);
                    }
                }
                Ok(())
            }
            _ => Err(format!("yaml: unmarshal errors in {path}: cannot unmarshal into map")),
        }
    }
    /// Reads what a service starts with: the unit's environment, files, then its command line. k3s puts what its files
    /// say in front of its command line, so that they count more than the environment.
    pub(crate) fn read(vfs: &Vfs, unit: &Unit, args: &[String]) -> Result<Self, String> {
        let mut config = Self::default();
        let mut paths = vec!["/etc/rancher/k3s/config.yaml".to_owned()];
        for name in vfs.names_ending("/etc/rancher/k3s/config.yaml.d", "") {
            if name.ends_with(".yaml") || name.ends_with(".yml") {
                paths.push(format!("/etc/rancher/k3s/config.yaml.d/{name}"));
            }
        }
        for path in paths {
            let text = vfs.text(&path);
            if text.trim().is_empty() {
                continue;
            }
            let document = serde_saphyr::from_str::<Value>(&text).map_err(|e| {
                format!(
                    "failed to load config file {path}: yaml: {}",
                    e.to_string().lines().next().unwrap_or_default()
                )
            })?;
            config.merge(document, &path)?;
        }
        let mut environment: Vec<String> =
            unit.all("Service", "Environment").map(|line| line.trim_matches('"').to_owned()).collect();
        for file in unit.all("Service", "EnvironmentFile") {
            let text = vfs.text(&unit.expand(file.trim_start_matches('-')));
            environment.extend(text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned));
        }
        for line in environment {
            if let Some((name, value)) = line.split_once('=') {
                let key = match name.trim() {
                    "K3S_TOKEN" => "token",
                    "K3S_TOKEN_FILE" => "token-file",
                    "K3S_URL" => "server",
                    "K3S_NODE_NAME" => "node-name",
                    "K3S_CLUSTER_INIT" => "cluster-init",
                    "K3S_AGENT_TOKEN" => "agent-token",
                    _ => continue,
                };
                config
                    .values
                    .entry(key.to_owned())
                    .or_insert_with(|| value.trim_matches(['"', '\'']).to_owned().into());
            }
        }
        let mut seen: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        let mut rest = args.iter().peekable();
        while let Some(arg) = rest.next() {
            let Some(flag) = arg.strip_prefix("--") else { continue };
            let (key, value) = match flag.split_once('=') {
                Some((key, value)) => (key.to_owned(), value.to_owned().into()),
                None if rest.peek().is_some_and(|next| !next.starts_with('-')) => {
                    (flag.to_owned(), rest.next().cloned().unwrap_or_default().into())
                }
                None => (flag.to_owned(), Value::Bool(true)),
            };
            seen.entry(key).or_default().push(value);
        }
        // The command line replaces a file's list.
        for (key, mut values) in seen {
            let value = if values.len() == 1 { values.remove(0) } else { Value::Array(values) };
            config.values.insert(key, value);
        }
        if let Some(path) = config.text("token-file") {
            let token = vfs.text(&path).trim().to_owned();
            if token.is_empty() {
                return Err(format!("open {path}: no such file or directory"));
            }
            config.values.entry("token".into()).or_insert(token.into());
        }
        Ok(config)
    }
    /// A value as text; of a list, its first.
    pub(crate) fn text(&self, key: &str) -> Option<String> {
        match self.values.get(key)? {
            Value::String(text) => Some(text.clone()).filter(|t| !t.is_empty()),
            Value::Array(values) => values.first().map(plain),
            Value::Null => None,
            other => Some(other.to_string()),
        }
    }
    pub(crate) fn yes(&self, key: &str) -> bool {
        match self.values.get(key) {
            Some(Value::Bool(on)) => *on,
            Some(Value::String(text)) => matches!(text.as_str(), "true" | "1" | "yes"),
            _ => false,
        }
    }
    /// A list; a plain value is one of one.
    pub(crate) fn list(&self, key: &str) -> Vec<String> {
        match self.values.get(key) {
            Some(Value::Array(values)) => values.iter().map(plain).collect(),
            Some(Value::String(text)) => {
                text.split(',').filter(|t| !t.is_empty()).map(str::to_owned).collect()
            }
            Some(Value::Null) | None => Vec::new(),
            Some(other) => vec![other.to_string()],
        }
    }
    /// What must be equal on all servers.
    pub(crate) fn critical(&self) -> BTreeMap<String, String> {
        let defaults = |key: &str| match key {
            "cluster-cidr" => "10.42.0.0/16",
            "service-cidr" => "10.43.0.0/16",
            "cluster-domain" => "cluster.local",
            "flannel-backend" => "vxlan",
            "egress-selector-mode" => "agent",
            _ => "",
        };
        let mut map: BTreeMap<String, String> = CRITICAL
            .iter()
            .map(|key| {
                (
                    (*key).to_owned(),
                    Some(self.list(key).join(","))
                        .filter(|t| !t.is_empty() && t != "false")
                        .unwrap_or_else(|| defaults(key).to_owned()),
                )
            })
            .collect();
        map.insert(
            "disable-servicelb".into(),
            self.list("disable").iter().any(|d| d == "servicelb").to_string(),
        );
        map
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
