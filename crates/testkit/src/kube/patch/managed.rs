//! `metadata.managedFields`: the record of who owns which field.

use serde_json::{Value, json};

use super::{
    fields::{Fields, compare},
    keys::ListKeys,
};
use crate::kube::{
    store::now,
    value::{at, items, remove, set, text},
};

/// One entry.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) manager: String,
    /// `Apply` or `Update`.
    pub(crate) operation: String,
    pub(crate) api_version: String,
    pub(crate) subresource: String,
    pub(crate) time: String,
    pub(crate) fields: Fields,
}

impl Entry {
    fn from_value(v: &Value) -> Self {
        let word = |k: &str| text(v, &[k]).to_owned();
        Self {
            manager: word("manager"),
            operation: word("operation"),
            api_version: word("apiVersion"),
            subresource: word("subresource"),
            time: word("time"),
            fields: Fields::root(&v["fieldsV1"]),
        }
    }
    fn to_value(&self) -> Value {
        let mut v = json!({
            "manager": self.manager, "operation": self.operation, "apiVersion": self.api_version,
            "time": self.time, "fieldsType": "FieldsV1", "fieldsV1": self.fields.to_value(),
        });
        if !self.subresource.is_empty() {
            set(&mut v, &["subresource"], self.subresource.clone());
        }
        v
    }
}

pub(crate) fn read(object: &Value) -> Vec<Entry> {
    items(object, &["metadata", "managedFields"]).iter().map(Entry::from_value).collect()
}

pub(crate) fn write(object: &mut Value, entries: &[Entry]) {
    let list: Vec<Value> = entries.iter().filter(|e| !e.fields.is_empty()).map(Entry::to_value).collect();
    set(object, &["metadata", "managedFields"], list);
}

/// Takes out what nobody owns: identity and what the server itself writes.
pub(crate) fn strip(fields: &mut Fields) {
    for path in [&["f:apiVersion"] as &[&str], &["f:kind"]] {
        fields.remove_path(path);
    }
    for name in [
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "clusterName",
        "generation",
        "managedFields",
        "resourceVersion",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        fields.remove_path(&["f:metadata", &format!("f:{name}")]);
    }
    // `metadata: {}` by itself says nothing.
    if fields.children.get("f:metadata").is_some_and(|m| m.children.is_empty()) {
        fields.children.remove("f:metadata");
    }
}

/// Starts from the list the client sent, if it is one it may send; else from the one that is there.
pub(crate) fn keep(live: &Value, new: &mut Value, given: Value) {
    let empty = |v: &Value| v.as_object().is_some_and(serde_json::Map::is_empty);
    let list = match given {
        Value::Array(list) if list.len() == 1 && list.iter().all(empty) => Value::Array(Vec::new()),
        Value::Array(list) if !list.is_empty() && list.iter().all(valid) => Value::Array(list),
        _ => at(live, &["metadata", "managedFields"]).clone(),
    };
    set(new, &["metadata", "managedFields"], list);
}

fn valid(entry: &Value) -> bool {
    matches!(text(entry, &["operation"]), "Apply" | "Update")
        && entry["fieldsV1"].is_object()
        && text(entry, &["fieldsType"]) == "FieldsV1"
}

/// Records an update: the manager gets what it changed, everybody else loses it.
pub(crate) fn updated(
    live: Option<&Value>,
    new: &mut Value,
    manager: &str,
    api_version: &str,
    subresource: &str,
    keys: &ListKeys<'_>,
) {
    let nothing = json!({});
    let mut difference = compare(live.unwrap_or(&nothing), new, keys);
    strip(&mut difference.changed);
    strip(&mut difference.removed);
    if difference.changed.is_empty() && difference.removed.is_empty() {
        return;
    }
    let mut entries = read(new);
    for entry in &mut entries {
        entry.fields = entry.fields.difference(&difference.changed).difference(&difference.removed);
    }
    let mine = |e: &&mut Entry| {
        e.manager == manager
            && e.operation == "Update"
            && e.api_version == api_version
            && e.subresource == subresource
    };
    match entries.iter_mut().find(mine) {
        Some(entry) => {
            entry.fields = entry.fields.union(&difference.changed);
            entry.time = now();
        }
        None => entries.push(Entry {
            manager: manager.to_owned(),
            operation: "Update".into(),
            api_version: api_version.to_owned(),
            subresource: subresource.to_owned(),
            time: now(),
            fields: difference.changed,
        }),
    }
    write(new, &entries);
}

/// Whether nothing but the times of `managedFields` differs.
pub(crate) fn same(live: &Value, new: &Value) -> bool {
    let timeless = |o: &Value| {
        let mut entries = read(o);
        entries.iter_mut().for_each(|e| e.time.clear());
        let mut o = o.clone();
        remove(&mut o, &["metadata", "managedFields"]);
        (o, entries)
    };
    timeless(live) == timeless(new)
}
