//! Reading and writing inside JSON objects without panics.

use serde_json::{Map, Value};

/// The text at `path`, empty when there is none.
pub(crate) fn text<'a>(value: &'a Value, path: &[&str]) -> &'a str {
    at(value, path).as_str().unwrap_or_default()
}

/// The integer at `path`.
pub(crate) fn int(value: &Value, path: &[&str]) -> Option<i64> {
    at(value, path).as_i64()
}

/// What is at `path`, null when there is nothing.
pub(crate) fn at<'a>(value: &'a Value, path: &[&str]) -> &'a Value {
    path.iter().fold(value, |v, key| v.get(*key).unwrap_or(&Value::Null))
}

/// The elements of the list at `path`.
pub(crate) fn items<'a>(value: &'a Value, path: &[&str]) -> &'a [Value] {
    at(value, path).as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The elements of the list at `path`, to be changed.
pub(crate) fn items_mut<'a>(value: &'a mut Value, path: &[&str]) -> &'a mut [Value] {
    let mut v = Some(value);
    for key in path {
        v = v.and_then(|v| v.get_mut(*key));
    }
    v.and_then(Value::as_array_mut).map(Vec::as_mut_slice).unwrap_or_default()
}

/// The object in `value`; anything else becomes an empty object first.
pub(crate) fn object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        // Assigned above.
        _ => unreachable!(),
    }
}

/// The place `path` names, made of empty objects where it did not exist.
pub(crate) fn slot<'a>(value: &'a mut Value, path: &[&str]) -> &'a mut Value {
    path.iter().fold(value, |v, key| object(v).entry((*key).to_owned()).or_insert(Value::Null))
}

/// Writes `new` at `path`.
pub(crate) fn set(value: &mut Value, path: &[&str], new: impl Into<Value>) {
    *slot(value, path) = new.into();
}

/// Writes `new` at `path` unless something is there.
pub(crate) fn default(value: &mut Value, path: &[&str], new: impl Into<Value>) {
    let place = slot(value, path);
    if place.is_null() {
        *place = new.into();
    }
}

/// Takes out what is at `path`.
pub(crate) fn remove(value: &mut Value, path: &[&str]) -> Option<Value> {
    let (last, parents) = path.split_last()?;
    let mut v = value;
    for key in parents {
        v = v.get_mut(*key)?;
    }
    v.as_object_mut()?.shift_remove(*last)
}

/// The list at `path`, made empty where there was none.
pub(crate) fn list<'a>(value: &'a mut Value, path: &[&str]) -> &'a mut Vec<Value> {
    let place = slot(value, path);
    if !place.is_array() {
        *place = Value::Array(Vec::new());
    }
    match place {
        Value::Array(list) => list,
        // Assigned above.
        _ => unreachable!(),
    }
}

/// A map of texts as pairs.
pub(crate) fn pairs<'a>(value: &'a Value, path: &[&str]) -> impl Iterator<Item = (&'a str, &'a str)> {
    at(value, path)
        .as_object()
        .into_iter()
        .flatten()
        .map(|(k, v)| (k.as_str(), v.as_str().unwrap_or_default()))
}

pub(crate) fn name(value: &Value) -> &str {
    text(value, &["metadata", "name"])
}
pub(crate) fn namespace(value: &Value) -> &str {
    text(value, &["metadata", "namespace"])
}
pub(crate) fn uid(value: &Value) -> &str {
    text(value, &["metadata", "uid"])
}
pub(crate) fn deleting(value: &Value) -> bool {
    at(value, &["metadata", "deletionTimestamp"]).is_string()
}
pub(crate) fn label<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    at(value, &["metadata", "labels"]).get(key).and_then(Value::as_str)
}
pub(crate) fn annotation<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    at(value, &["metadata", "annotations"]).get(key).and_then(Value::as_str)
}

/// The status of a condition (`True`, `False`, `Unknown`), empty when it is not there.
pub(crate) fn condition<'a>(value: &'a Value, kind: &str) -> &'a str {
    items(value, &["status", "conditions"])
        .iter()
        .find(|c| text(c, &["type"]) == kind)
        .map(|c| text(c, &["status"]))
        .unwrap_or_default()
}
