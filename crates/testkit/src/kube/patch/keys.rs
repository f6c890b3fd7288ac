//! Which lists are merged by which keys, and which values are only ever replaced whole.

use std::sync::Arc;

use serde_json::Value;

use crate::kube::{
    registry::{Custom, ResourceType},
    shapes,
};

/// How a value is merged and owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Field by field (objects).
    Granular,
    /// As a whole.
    Atomic,
    /// A list that is a set of scalars.
    Set,
    /// A list of objects told apart by these keys.
    Map(Vec<String>),
}

/// The merge rules of one resource.
#[derive(Debug, Clone)]
pub(crate) enum ListKeys<'a> {
    /// A built-in kind: the marks of its type in the table of fields. Without a type every list is atomic.
    BuiltIn(&'a str),
    /// A custom resource: its schema's `x-kubernetes-list-type` and friends.
    Custom(Arc<Custom>),
}

impl<'a> ListKeys<'a> {
    pub(crate) fn of(t: &'a ResourceType) -> Self {
        match &t.custom {
            Some(custom) => Self::Custom(Arc::clone(custom)),
            None => Self::BuiltIn(shapes::root(t).unwrap_or("core/v1.ConfigMap")),
        }
    }

    /// How server-side apply treats the value at `path` (field names only, list items left out).
    pub(crate) fn shape(&self, path: &[&str], value: &Value) -> Shape {
        match (self, value) {
            (Self::BuiltIn(_), Value::Object(_)) if path.is_empty() => Shape::Granular,
            (Self::BuiltIn(root), Value::Array(_) | Value::Object(_)) => built_in(root, path, value),
            (Self::Custom(_), Value::Array(_)) if path.first() == Some(&"metadata") => {
                built_in("core/v1.ConfigMap", path, value)
            }
            (Self::Custom(_), Value::Object(_)) if path.is_empty() || path.first() == Some(&"metadata") => {
                Shape::Granular
            }
            (Self::Custom(custom), Value::Array(_) | Value::Object(_)) => custom
                .schema
                .as_ref()
                .and_then(|s| schema_at(&s.0, path))
                .map_or_else(|| plain(value), |schema| schema_shape(schema, value)),
            _ => Shape::Atomic,
        }
    }

    /// The key by which a strategic merge patch merges the list at `path`; empty for a set of scalars.
    pub(crate) fn strategic(&self, path: &[&str]) -> Option<String> {
        let Self::BuiltIn(root) = self else { return None };
        shapes::at(root, path)?.merge_key.clone()
    }
}

/// Rules of a built-in kind's field; nothing when the table does not know it.
fn built_in(root: &str, path: &[&str], value: &Value) -> Shape {
    let Some(field) = shapes::at(root, path) else { return plain(value) };
    // A key of a map, and what is below it.
    let below = path.len() > 1 && path.last().is_some_and(|name| *name != field.name);
    match (&field.list_keys, value) {
        _ if below => plain(value),
        (_, _) if field.atomic => Shape::Atomic,
        (Some(keys), Value::Array(_)) if keys.is_empty() => Shape::Set,
        (Some(keys), Value::Array(_)) => Shape::Map(keys.clone()),
        _ => plain(value),
    }
}

fn plain(value: &Value) -> Shape {
    if value.is_object() { Shape::Granular } else { Shape::Atomic }
}

/// The schema of the field at `path`.
pub(crate) fn schema_at<'s>(root: &'s Value, path: &[&str]) -> Option<&'s Value> {
    path.iter().try_fold(root, |schema, name| {
        let schema = schema.get("items").unwrap_or(schema);
        schema
            .get("properties")
            .and_then(|p| p.get(*name))
            .or_else(|| schema.get("additionalProperties").filter(|a| a.is_object()))
    })
}

fn schema_shape(schema: &Value, value: &Value) -> Shape {
    if value.is_object() {
        let atomic = schema.get("x-kubernetes-map-type").is_some_and(|t| t == "atomic");
        return if atomic { Shape::Atomic } else { Shape::Granular };
    }
    match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("set") => Shape::Set,
        Some("map") => {
            let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
            Shape::Map(keys.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect())
        }
        _ => Shape::Atomic,
    }
}
