//! Where a kind lives in the API, from its discovery documents.

use std::{collections::HashMap, sync::Mutex};

use serde_json::Value;

use super::{ObjectRef, node::items};

/// A kind as discovery describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resource {
    pub(super) plural: String,
    pub(super) namespaced: bool,
}

/// The path of a group and version: `/api/v1`, `/apis/apps/v1`.
pub(super) fn group_path(api_version: &str) -> String {
    match api_version.contains('/') {
        true => format!("/apis/{api_version}"),
        false => format!("/api/{api_version}"),
    }
}

/// The path of all objects of a kind, or of one namespace's.
pub(super) fn list_path(of: &ObjectRef, resource: &Resource) -> String {
    let group = group_path(&of.api_version);
    match of.namespace.as_deref().filter(|_| resource.namespaced) {
        Some(namespace) => format!("{group}/namespaces/{}/{}", escape(namespace), resource.plural),
        None => format!("{group}/{}", resource.plural),
    }
}

/// The path of one object. A namespaced kind without a namespace means `default`, as in kubectl.
pub(super) fn object_path(of: &ObjectRef, resource: &Resource) -> String {
    let within = ObjectRef {
        namespace: Some(of.namespace.clone().unwrap_or_else(|| "default".to_owned())),
        ..of.clone()
    };
    format!("{}/{}", list_path(&within, resource), escape(&of.name))
}

/// Percent-encodes what is not unreserved in a path segment.
pub(super) fn escape(segment: &str) -> String {
    segment.bytes().fold(String::with_capacity(segment.len()), |mut text, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                text.push(char::from(byte))
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
        text
    })
}

/// The kinds known so far, by group and version. Kinds come with CRDs, so a miss is looked up again.
#[derive(Default)]
pub(super) struct Kinds(Mutex<HashMap<(String, String), Resource>>);

impl Kinds {
    pub(super) fn known(&self, api_version: &str, kind: &str) -> Option<Resource> {
        let kinds = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        kinds.get(&(api_version.to_owned(), kind.to_owned())).cloned()
    }

    /// Takes in an `APIResourceList`. Subresources (`pods/eviction`) are left out.
    pub(super) fn learn(&self, api_version: &str, list: &Value) {
        let mut kinds = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for resource in items(list.get("resources")) {
            let (Some(plural), Some(kind)) =
                (resource.get("name").and_then(Value::as_str), resource.get("kind").and_then(Value::as_str))
            else {
                continue;
            };
            if !plural.contains('/') {
                let namespaced = resource.get("namespaced").and_then(Value::as_bool).unwrap_or(false);
                kinds.insert(
                    (api_version.to_owned(), kind.to_owned()),
                    Resource { plural: plural.to_owned(), namespaced },
                );
            }
        }
    }
}
