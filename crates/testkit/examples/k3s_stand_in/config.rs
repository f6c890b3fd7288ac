//! k3s's configuration: the file, its drop-ins in the order of their names, the command line; later ones win.

use std::{collections::BTreeMap, fs, path::PathBuf};

use serde_json::Value;

const FILE: &str = "/etc/rancher/k3s/config.yaml";

#[derive(Default)]
pub(crate) struct Config(BTreeMap<String, Value>);

impl Config {
    pub(crate) fn read(args: &[&str]) -> Result<Self, String> {
        let mut config = Self::default();
        let mut paths = vec![PathBuf::from(FILE)];
        let mut more: Vec<PathBuf> = fs::read_dir(format!("{FILE}.d"))
            .map(|dir| dir.filter_map(|entry| Some(entry.ok()?.path())).collect())
            .unwrap_or_default();
        more.retain(|path| path.extension().is_some_and(|e| e == "yaml" || e == "yml"));
        more.sort();
        paths.append(&mut more);
        for path in paths {
            let Ok(text) = fs::read_to_string(&path) else { continue };
            config.merge(&text).map_err(|e| format!("failed to load config file {}: {e}", path.display()))?;
        }
        for (flag, value) in flags(args) {
            config.0.insert(flag, value);
        }
        if let Some(path) = config.text("token-file") {
            let token = fs::read_to_string(&path).map_err(|e| format!("open {path}: {e}"))?;
            config.0.entry("token".to_owned()).or_insert_with(|| token.trim().into());
        }
        Ok(config)
    }

    fn merge(&mut self, text: &str) -> Result<(), String> {
        let value: Value = serde_saphyr::from_str(text).map_err(|e| format!("yaml: {e}"))?;
        match value {
            Value::Null => Ok(()),
            Value::Object(map) => {
                for (key, value) in map {
                    match key.strip_suffix('+') {
                        Some(key) => {
                            let mut all = list(self.0.remove(key).unwrap_or(Value::Null));
                            all.extend(list(value));
                            self.0.insert(key.to_owned(), Value::Array(all));
                        }
                        None => {
                            self.0.insert(key, value);
                        }
                    }
                }
                Ok(())
            }
            _ => Err("yaml: cannot unmarshal into a map".to_owned()),
        }
    }

    /// A value as text; of a list, its first.
    pub(crate) fn text(&self, key: &str) -> Option<String> {
        self.list(key).into_iter().next().filter(|text| !text.is_empty())
    }

    pub(crate) fn list(&self, key: &str) -> Vec<String> {
        let plain = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        list(self.0.get(key).cloned().unwrap_or(Value::Null)).into_iter().map(plain).collect()
    }

    pub(crate) fn yes(&self, key: &str) -> bool {
        self.text(key).is_some_and(|text| text == "true")
    }
}

fn list(value: Value) -> Vec<Value> {
    match value {
        Value::Null => Vec::new(),
        Value::Array(list) => list,
        other => vec![other],
    }
}

/// `--key=value`, `--key value` and `--key`; a repeated one is a list.
fn flags(args: &[&str]) -> BTreeMap<String, Value> {
    let mut found: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let mut rest = args.iter().peekable();
    while let Some(arg) = rest.next() {
        let Some(flag) = arg.strip_prefix("--") else { continue };
        let (key, value) = match flag.split_once('=') {
            Some((key, value)) => (key, Value::from(value)),
            None => match rest.next_if(|next| !next.starts_with('-')) {
                Some(value) => (flag, Value::from(*value)),
                None => (flag, Value::Bool(true)),
            },
        };
        found.entry(key.to_owned()).or_default().push(value);
    }
    found.into_iter().map(|(key, values)| (key, Value::Array(values))).collect()
}
