//! Showing a stored object as one of its versions.

use serde_json::{Value, json};

use super::{
    registry::ResourceType,
    value::{object, remove, set},
};

/// A stored object in the version of `t`.
pub(crate) fn shown(stored: &Value, t: &ResourceType) -> Value {
    let mut out = stored.clone();
    if t.plural == "events" && t.group == "events.k8s.io" {
        rename(&mut out, &CORE_TO_NEW);
    }
    stamp(&mut out, t);
    out
}

/// A received object in the form in which it is stored.
pub(crate) fn stored(mut received: Value, t: &ResourceType) -> Value {
    if t.plural == "events" && t.group == "events.k8s.io" {
        let pairs = CORE_TO_NEW.map(|(a, b)| (b, a));
        rename(&mut received, &pairs);
        set(&mut received, &["apiVersion"], "v1");
    }
    received
}

/// apiVersion and kind first, as every answer has them.
fn stamp(value: &mut Value, t: &ResourceType) {
    let map = object(value);
    let mut out = serde_json::Map::with_capacity(map.len());
    out.insert("apiVersion".into(), t.api_version().into());
    out.insert("kind".into(), json!(t.kind));
    for (k, v) in std::mem::take(map) {
        out.entry(k).or_insert(v);
    }
    *map = out;
}

const CORE_TO_NEW: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

fn rename(value: &mut Value, pairs: &[(&str, &str)]) {
    for (from, to) in pairs {
        if let Some(v) = remove(value, &[from]) {
            set(value, &[to], v);
        }
    }
}
