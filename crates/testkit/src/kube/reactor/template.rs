//! Pods from templates, and telling templates apart.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Pass, controlled_by};
use crate::kube::{
    registry::Gvr,
    value::{self, list, set},
};

const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Ten characters that change with the template.
pub(super) fn hash(template: &Value) -> String {
    let canonical = sorted(template).to_string();
    let digest = Sha256::digest(canonical.as_bytes());
    digest.iter().take(10).map(|b| char::from(ALPHABET[usize::from(*b) % ALPHABET.len()])).collect()
}

/// The same document whatever the order of its keys.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let ordered: std::collections::BTreeMap<_, _> =
                map.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), sorted(v))).collect();
            ordered.into_iter().collect::<serde_json::Map<_, _>>().into()
        }
        Value::Array(list) => list.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

/// A pod as its controller makes it.
pub(super) fn pod(owner: &Value, template: &Value, labels: &[(&str, &str)]) -> Value {
    let mut metadata = json!({});
    for map in ["labels", "annotations"] {
        if let Some(given) = template["metadata"].get(map) {
            set(&mut metadata, &[map], given.clone());
        }
    }
    for (key, v) in labels {
        set(&mut metadata, &["labels", key], *v);
    }
    set(&mut metadata, &["namespace"], value::namespace(owner));
    set(&mut metadata, &["ownerReferences"], json!([controlled_by(owner)]));
    json!({"metadata": metadata, "spec": template["spec"]})
}

/// Creates a pod, with an event either way.
pub(super) fn create(pass: &Pass<'_>, component: &str, owner: &Value, mut pod: Value) -> bool {
    if value::name(&pod).is_empty() {
        set(&mut pod, &["metadata", "generateName"], format!("{}-", value::name(owner)));
    }
    match pass.create("kube-controller-manager", &Gvr::PODS, value::namespace(owner), pod) {
        Ok(made) => {
            pass.event(
                owner,
                component,
                "Normal",
                "SuccessfulCreate",
                &format!("Created pod: {}", value::name(&made)),
            );
            true
        }
        Err(error) => {
            // Terminating namespaces are no news.
            if error.reason != "Forbidden" || !error.message.contains("being terminated") {
                pass.event(owner, component, "Warning", "FailedCreate", &format!("Error creating: {error}"));
            }
            false
        }
    }
}

/// A number of pods from an integer or a percentage of `total`.
pub(super) fn share(value: &Value, total: i64, up: bool) -> i64 {
    match value {
        Value::Number(n) => n.as_i64().unwrap_or(0),
        Value::String(s) => {
            let percent: i64 = s.trim_end_matches('%').parse().unwrap_or(0);
            if up { (percent * total + 99) / 100 } else { percent * total / 100 }
        }
        _ => 0,
    }
}

/// Adds a finalizer-like text to a list once.
pub(super) fn add_text(object: &mut Value, path: &[&str], text: &str) {
    let all = list(object, path);
    if !all.iter().any(|v| v == text) {
        all.push(json!(text));
    }
}
