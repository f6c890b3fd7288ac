//! Sets of field paths: who owns what, in the `FieldsV1` form.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::keys::{ListKeys, Shape};

/// A set of paths. Elements are written as in `FieldsV1`: `f:name`, `k:{"name":"web"}`, `v:"x"`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Fields {
    /// Whether the path that leads here is itself in the set.
    pub(crate) member: bool,
    pub(crate) children: BTreeMap<String, Fields>,
}

impl Fields {
    pub(crate) fn leaf() -> Self {
        Self { member: true, children: BTreeMap::new() }
    }
    pub(crate) fn is_empty(&self) -> bool {
        !self.member && self.children.values().all(Self::is_empty)
    }
    fn put(&mut self, element: String, child: Self) {
        if !child.is_empty() {
            let mine = self.children.entry(element).or_default();
            *mine = mine.union(&child);
        }
    }
    pub(crate) fn union(&self, other: &Self) -> Self {
        let mut out = self.clone();
        out.member |= other.member;
        for (element, child) in &other.children {
            out.put(element.clone(), child.clone());
        }
        out
    }
    pub(crate) fn difference(&self, other: &Self) -> Self {
        let mut out = Self { member: self.member && !other.member, children: BTreeMap::new() };
        for (element, child) in &self.children {
            let rest = other.children.get(element).map_or_else(|| child.clone(), |o| child.difference(o));
            out.put(element.clone(), rest);
        }
        out
    }
    pub(crate) fn intersection(&self, other: &Self) -> Self {
        let mut out = Self { member: self.member && other.member, children: BTreeMap::new() };
        for (element, child) in &self.children {
            if let Some(o) = other.children.get(element) {
                out.put(element.clone(), child.intersection(o));
            }
        }
        out
    }
    pub(crate) fn remove_path(&mut self, path: &[&str]) {
        match path {
            [] => {}
            [last] => {
                self.children.remove(*last);
            }
            [first, rest @ ..] => {
                if let Some(child) = self.children.get_mut(*first) {
                    child.remove_path(rest);
                    if child.is_empty() {
                        self.children.remove(*first);
                    }
                }
            }
        }
    }

    /// The paths of the set, as messages write them: `.spec.containers[name="web"].image`.
    pub(crate) fn paths(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.collect(&mut String::new(), &mut out);
        out
    }
    fn collect(&self, prefix: &mut String, out: &mut Vec<String>) {
        if self.member {
            out.push(prefix.clone());
        }
        for (element, child) in &self.children {
            let length = prefix.len();
            match element.split_once(':') {
                Some(("k", keys)) => {
                    let keys: Value = serde_json::from_str(keys).unwrap_or_default();
                    let keys = keys.as_object().into_iter().flatten().map(|(k, v)| format!("{k}={v}"));
                    prefix.push_str(&format!("[{}]", keys.collect::<Vec<_>>().join(",")));
                }
                Some(("v", value)) => prefix.push_str(&format!("[={value}]")),
                Some((_, name)) => prefix.push_str(&format!(".{name}")),
                None => {}
            }
            child.collect(prefix, out);
            prefix.truncate(length);
        }
    }

    /// `fieldsV1`.
    pub(crate) fn to_value(&self) -> Value {
        let mut map = Map::new();
        if self.member && !self.children.is_empty() {
            map.insert(".".into(), json!({}));
        }
        for (element, child) in &self.children {
            map.insert(element.clone(), child.to_value());
        }
        Value::Object(map)
    }
    pub(crate) fn from_value(value: &Value) -> Self {
        let Some(map) = value.as_object() else { return Self::default() };
        let mut out = Self { member: map.is_empty() || map.contains_key("."), children: BTreeMap::new() };
        for (element, child) in map.iter().filter(|(k, _)| *k != ".") {
            out.put(normal(element), Self::from_value(child));
        }
        out
    }
    /// As [`Fields::from_value`] for the whole document: an empty root owns nothing.
    pub(crate) fn root(value: &Value) -> Self {
        Self { member: false, ..Self::from_value(value) }
    }

    /// All paths of an object, as the manager of a manifest owns them.
    pub(crate) fn of(value: &Value, keys: &ListKeys<'_>) -> Self {
        Self { member: false, ..walk(value, &mut Vec::new(), keys, false) }
    }
}

/// The keys of a `k:` element in a fixed order.
fn normal(element: &str) -> String {
    let Some(Ok(Value::Object(map))) = element.strip_prefix("k:").map(serde_json::from_str::<Value>) else {
        return element.to_owned();
    };
    let sorted: BTreeMap<_, _> = map.into_iter().collect();
    format!("k:{}", json!(sorted))
}

/// The element of a list item, if it carries all keys.
pub(crate) fn element(item: &Value, keys: &[String]) -> Option<String> {
    let mut found = BTreeMap::new();
    for key in keys {
        let value = match item.get(key) {
            Some(v) if !v.is_object() && !v.is_array() => v.clone(),
            // The one key with a default.
            None if key == "protocol" && item.is_object() => json!("TCP"),
            _ => return None,
        };
        found.insert(key, value);
    }
    Some(format!("k:{}", json!(found)))
}

/// What a list's items are told apart by: nothing when one lacks its key, or two have the same.
pub(crate) fn elements(list: &[Value], shape: &Shape) -> Option<Vec<String>> {
    let names: Vec<String> = match shape {
        Shape::Map(keys) => list.iter().map(|i| element(i, keys)).collect::<Option<_>>()?,
        Shape::Set => list.iter().map(|i| format!("v:{i}")).collect(),
        _ => return None,
    };
    let unique: std::collections::BTreeSet<&String> = names.iter().collect();
    (unique.len() == names.len()).then_some(names)
}

/// The paths of a value; with `containers` also those of objects and keyed lists that are not empty.
fn walk<'v>(value: &'v Value, path: &mut Vec<&'v str>, keys: &ListKeys<'_>, containers: bool) -> Fields {
    let shape = keys.shape(path, value);
    let mut out = Fields { member: containers, children: BTreeMap::new() };
    match value {
        Value::Object(map) if shape == Shape::Granular && !map.is_empty() => {
            for (name, child) in map {
                path.push(name);
                out.put(format!("f:{name}"), walk(child, path, keys, containers));
                path.pop();
            }
            out
        }
        Value::Array(list) if !list.is_empty() => match elements(list, &shape) {
            Some(names) => {
                for (name, item) in names.into_iter().zip(list) {
                    let leaf = name.starts_with("v:");
                    let mut child = if leaf { Fields::leaf() } else { walk(item, path, keys, containers) };
                    child.member = true;
                    out.put(name, child);
                }
                out
            }
            None => Fields::leaf(),
        },
        _ => Fields::leaf(),
    }
}

/// What changed between two documents.
#[derive(Debug, Default, Clone)]
pub(crate) struct Difference {
    /// New, or of another value.
    pub(crate) changed: Fields,
    pub(crate) removed: Fields,
}

pub(crate) fn compare(old: &Value, new: &Value, keys: &ListKeys<'_>) -> Difference {
    let of = |value, containers| walk(value, &mut Vec::new(), keys, containers);
    // An object that was filled or emptied is still the same object: only what is in it counts.
    let mut changed = of(new, false).difference(&of(old, true));
    changed = changed.union(&modified(old, new, &mut Vec::new(), keys));
    changed.member = false;
    Difference { changed, removed: Fields { member: false, ..of(old, false).difference(&of(new, true)) } }
}

/// Paths that both have with different values.
fn modified<'v>(old: &'v Value, new: &'v Value, path: &mut Vec<&'v str>, keys: &ListKeys<'_>) -> Fields {
    if old == new {
        return Fields::default();
    }
    let shape = keys.shape(path, new);
    match (old, new) {
        (Value::Object(a), Value::Object(b)) if shape == Shape::Granular => {
            let mut out = Fields::default();
            for (name, child) in b {
                if let Some(was) = a.get(name) {
                    path.push(name);
                    out.put(format!("f:{name}"), modified(was, child, path, keys));
                    path.pop();
                }
            }
            out
        }
        (Value::Array(a), Value::Array(b)) => match (elements(a, &shape), elements(b, &shape)) {
            (Some(names_a), Some(names_b)) => {
                let mut out = Fields::default();
                for (name, item) in names_b.into_iter().zip(b) {
                    if let Some(i) = names_a.iter().position(|n| *n == name)
                        && let Some(was) = a.get(i)
                    {
                        out.put(name, modified(was, item, path, keys));
                    }
                }
                out
            }
            _ => Fields::leaf(),
        },
        _ => Fields::leaf(),
    }
}
