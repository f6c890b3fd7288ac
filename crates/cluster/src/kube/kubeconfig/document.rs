//! The tree of a kubeconfig: named entries in three lists, everything else left alone.

use serde_json::{Map, Value};
use turingpi_engine::{Failure, FailureClass};

/// One of the three lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    Clusters,
    Contexts,
    Users,
}

impl Section {
    pub(super) const ALL: [Self; 3] = [Self::Clusters, Self::Contexts, Self::Users];

    /// The key of the list.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Clusters => "clusters",
            Self::Contexts => "contexts",
            Self::Users => "users",
        }
    }
    /// The key of an entry's body.
    fn body(self) -> &'static str {
        match self {
            Self::Clusters => "cluster",
            Self::Contexts => "context",
            Self::Users => "user",
        }
    }
    /// The fields of a body that say where and as whom to log in: replaced as a set, so that no leftover
    /// (`insecure-skip-tls-verify`, an old token) survives beside the new ones.
    pub(super) fn owned_fields(self) -> &'static [&'static str] {
        match self {
            Self::Clusters => &[
                "server",
                "certificate-authority",
                "certificate-authority-data",
                "tls-server-name",
                "insecure-skip-tls-verify",
            ],
            Self::Contexts => &["cluster", "user"],
            Self::Users => &[
                "client-certificate",
                "client-certificate-data",
                "client-key",
                "client-key-data",
                "token",
                "tokenFile",
                "username",
                "password",
                "exec",
                "auth-provider",
            ],
        }
    }
}

/// Reads `text` and checks the shape that the other functions rely on.
pub(super) fn parse(text: &str, what: &str) -> Result<Value, Failure> {
    // A snippet in the error would show credentials; booleans and numbers in disguise stay strings.
    let options = serde_saphyr::options! {
        with_snippet: false,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
    };
    let unreadable = |reason: String| {
        Failure::new(FailureClass::Config, format!("cannot read {what}: {reason}"))
            .hint("Nothing was changed. Repair the file, or move it away and run this again.")
    };
    if text.trim().is_empty() {
        return Ok(Value::Object(Map::new()));
    }
    let tree: Value = serde_saphyr::from_str_with_options(text, options).map_err(|e| {
        // The parser's own text may quote the input, and with it a credential: only the place is told.
        let place = e
            .location()
            .map_or_else(String::new, |at| format!(" at line {} column {}", at.line(), at.column()));
        unreadable(format!("it is not valid YAML{place}"))
    })?;
    match tree {
        Value::Null => Ok(Value::Object(Map::new())),
        Value::Object(ref fields) => {
            for section in Section::ALL {
                match fields.get(section.key()) {
                    None | Some(Value::Null) => {}
                    Some(Value::Array(entries)) => {
                        if entries.iter().any(|entry| entry.get("name").and_then(Value::as_str).is_none()) {
                            return Err(unreadable(format!(
                                "an entry of its `{}` has no name",
                                section.key()
                            )));
                        }
                    }
                    Some(_) => return Err(unreadable(format!("its `{}` is not a list", section.key()))),
                }
            }
            Ok(tree)
        }
        _ => Err(unreadable("it is not a mapping".to_owned())),
    }
}

/// Writes the tree in block style, long strings (certificates) on one line.
pub(super) fn write(tree: &Value) -> Result<String, Failure> {
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    serde_saphyr::to_string_with_options(tree, options).map_err(|e| {
        Failure::new(FailureClass::Unexpected, "cannot write the kubeconfig as YAML").source(e.to_string())
    })
}

/// The names of a list's entries.
pub(super) fn names(tree: &Value, section: Section) -> Vec<&str> {
    entries(tree, section).iter().filter_map(|e| e.get("name").and_then(Value::as_str)).collect()
}

/// The entries of a list.
pub(super) fn entries(tree: &Value, section: Section) -> &[Value] {
    tree.get(section.key()).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The body of the entry `name`.
pub(super) fn body<'a>(tree: &'a Value, section: Section, name: &str) -> Option<&'a Value> {
    entries(tree, section).iter().find(|e| named(e, name))?.get(section.body())
}

/// The body of the entry `name`, to change it.
pub(super) fn body_mut<'a>(tree: &'a mut Value, section: Section, name: &str) -> Option<&'a mut Value> {
    tree.get_mut(section.key())?.as_array_mut()?.iter_mut().find(|e| named(e, name))?.get_mut(section.body())
}

/// A new entry, body first as kubectl writes it.
pub(super) fn entry(section: Section, name: &str, body: Value) -> Value {
    let mut fields = Map::new();
    fields.insert(section.body().to_owned(), body);
    fields.insert("name".to_owned(), Value::from(name));
    Value::Object(fields)
}

/// Replaces the owned fields of the entry `name` by those of `body`, and keeps the others; appends it where there is none.
pub(super) fn put_entry(tree: &mut Value, section: Section, name: &str, body: &Value) {
    let Value::Object(fields) = tree else { return };
    let list = fields.entry(section.key()).or_insert(Value::Null);
    if !list.is_array() {
        *list = Value::Array(Vec::new());
    }
    let Value::Array(entries) = list else { return };
    let Some(existing) = entries.iter_mut().find(|e| named(e, name)) else {
        entries.push(entry(section, name, body.clone()));
        return;
    };
    match existing.get_mut(section.body()) {
        Some(Value::Object(old)) => {
            let keep = |key: &str| body.get(key).is_some();
            old.retain(|key, _| !section.owned_fields().contains(&key.as_str()) || keep(key));
            if let Value::Object(new) = body {
                for (key, value) in new {
                    // `insert` keeps the place of a key that is already there.
                    old.insert(key.clone(), value.clone());
                }
            }
        }
        _ => set(existing, section.body(), body.clone()),
    }
}

/// Drops the entry `name`. True when there was one.
pub(super) fn drop_entry(tree: &mut Value, section: Section, name: &str) -> bool {
    let Some(entries) = tree.get_mut(section.key()).and_then(Value::as_array_mut) else { return false };
    let before = entries.len();
    entries.retain(|e| !named(e, name));
    entries.len() != before
}

/// Sets a field of a mapping, in place when it is already there.
pub(super) fn set(of: &mut Value, key: &str, value: Value) {
    if let Value::Object(fields) = of {
        fields.insert(key.to_owned(), value);
    }
}

/// Drops a field of a mapping and keeps the order of the rest.
pub(super) fn unset(of: &mut Value, key: &str) {
    if let Value::Object(fields) = of {
        fields.shift_remove(key);
    }
}

fn named(entry: &Value, name: &str) -> bool {
    entry.get("name").and_then(Value::as_str) == Some(name)
}
