//! The fields of the built-in kinds: their names, types, wire numbers and merge rules.
//!
//! One table, made from the struct tags of the real API (`generate.py`, which names its source). Validation of field
//! names, server-side apply, strategic merge, OpenAPI and the protobuf reader all look here.

use std::{collections::BTreeMap, sync::LazyLock};

use super::registry::ResourceType;

/// The type of a field.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    Text,
    Integer,
    Bool,
    Float,
    /// Base64 in JSON.
    Bytes,
    Time,
    MicroTime,
    Duration,
    Quantity,
    IntOrText,
    /// Embedded JSON.
    Raw,
    List(Box<Kind>),
    Map(Box<Kind>),
    /// Another type of the table.
    Type(String),
}

/// One field of a type.
#[derive(Debug, Clone)]
pub(crate) struct Field {
    /// Its name in JSON; empty when the fields of its type stand in its place.
    pub(crate) name: String,
    pub(crate) number: u64,
    pub(crate) kind: Kind,
    /// JSON leaves it out when it is zero.
    pub(crate) drops_zero: bool,
    /// Server-side apply owns it as a whole.
    pub(crate) atomic: bool,
    /// Keys of a map list; an empty list for a set.
    pub(crate) list_keys: Option<Vec<String>>,
    /// Key of a strategic merge; empty for a set of scalars.
    pub(crate) merge_key: Option<String>,
}

impl Field {
    pub(crate) fn inlined(&self) -> bool {
        self.name.is_empty()
    }
}

static TABLE: LazyLock<BTreeMap<String, Vec<Field>>> = LazyLock::new(|| {
    let lines = include_str!("fields.txt").lines().filter(|l| !l.starts_with('#'));
    lines.filter_map(|l| l.split_once(' ').map(|(name, rest)| (name.to_owned(), fields(rest)))).collect()
});

fn fields(line: &str) -> Vec<Field> {
    line.split(' ').filter_map(field).collect()
}

fn field(text: &str) -> Option<Field> {
    let (name, rest) = text.split_once('=')?;
    let (number, rest) = rest.split_once(':')?;
    let (rest, merge_key) = match rest.split_once('~') {
        Some((rest, key)) => (rest, Some(key.to_owned())),
        None => (rest, None),
    };
    let (rest, list_keys) = match rest.split_once('#') {
        Some((rest, keys)) => {
            (rest, Some(keys.split(',').filter(|k| !k.is_empty()).map(str::to_owned).collect()))
        }
        None => (rest, None),
    };
    let (rest, atomic) = rest.strip_suffix('!').map_or((rest, false), |r| (r, true));
    let (rest, drops_zero) = rest.strip_suffix('?').map_or((rest, false), |r| (r, true));
    Some(Field {
        name: if name == "*" { String::new() } else { name.to_owned() },
        number: number.parse().ok()?,
        kind: kind(rest),
        drops_zero,
        atomic,
        list_keys,
        merge_key,
    })
}

fn kind(text: &str) -> Kind {
    let inner = |open: char, close: char| text.strip_prefix(open).and_then(|t| t.strip_suffix(close));
    if let Some(k) = inner('[', ']') {
        return Kind::List(Box::new(kind(k)));
    }
    if let Some(k) = inner('{', '}') {
        return Kind::Map(Box::new(kind(k)));
    }
    match text {
        "s" => Kind::Text,
        "i" => Kind::Integer,
        "b" => Kind::Bool,
        "d" => Kind::Float,
        "y" => Kind::Bytes,
        "Time" => Kind::Time,
        "MicroTime" => Kind::MicroTime,
        "Duration" => Kind::Duration,
        "Quantity" => Kind::Quantity,
        "IntOrString" => Kind::IntOrText,
        "RawExtension" | "FieldsV1" => Kind::Raw,
        name => Kind::Type(name.to_owned()),
    }
}

/// The type of a resource's objects, when the table has it.
pub(crate) fn root(t: &ResourceType) -> Option<&'static str> {
    if t.custom.is_some() {
        return None;
    }
    // Events are stored in their core form whichever API they came through.
    let group = if t.plural == "events" { "" } else { &t.group };
    type_name(group, if t.plural == "events" { "v1" } else { &t.version }, &t.kind)
}

/// The name of a kind's type in the table.
pub(crate) fn type_name(group: &str, version: &str, kind: &str) -> Option<&'static str> {
    let short = if group.is_empty() { "core" } else { group.split('.').next().unwrap_or_default() };
    let wanted = format!("{short}/{version}.{kind}");
    TABLE.get_key_value(&wanted).map(|(name, _)| name.as_str())
}

/// The fields of a type as they stand in the wire format.
pub(crate) fn of(name: &str) -> &'static [Field] {
    TABLE.get(name).map(Vec::as_slice).unwrap_or_default()
}

/// The fields of a type as they stand in JSON, those of inlined types included.
pub(crate) fn flat(name: &str) -> Vec<&'static Field> {
    let mut out = Vec::new();
    for field in of(name) {
        match &field.kind {
            Kind::Type(inner) if field.inlined() => out.extend(flat(inner)),
            _ => out.push(field),
        }
    }
    out
}

/// A field of a type by its JSON name.
pub(crate) fn named(type_name: &str, name: &str) -> Option<&'static Field> {
    of(type_name).iter().find_map(|f| match &f.kind {
        Kind::Type(inner) if f.inlined() => named(inner, name),
        _ => (f.name == name).then_some(f),
    })
}

/// The field a path of names leads to (list items and map keys left out of it, as they have no name).
pub(crate) fn at(root: &str, path: &[&str]) -> Option<&'static Field> {
    let mut found: Option<&'static Field> = None;
    let mut inside_map = 0;
    for name in path {
        if inside_map > 0 {
            // A key of a map: its value has the map's element type, which has no fields of its own here.
            inside_map -= 1;
            continue;
        }
        let here = match found {
            None => root,
            Some(field) => element_type(&field.kind)?,
        };
        let next = named(here, name)?;
        inside_map = usize::from(matches!(next.kind, Kind::Map(_)));
        found = Some(next);
    }
    found
}

/// The type that a field, a list's items or a map's values have.
pub(crate) fn element_type(kind: &Kind) -> Option<&str> {
    match kind {
        Kind::Type(name) => Some(name),
        Kind::List(inner) | Kind::Map(inner) => element_type(inner),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::registry::Registry;

    #[test]
    fn every_type_that_a_field_names_is_in_the_table() {
        for name in TABLE.keys() {
            for field in of(name) {
                if let Some(other) = element_type(&field.kind) {
                    assert!(TABLE.contains_key(other), "{name}.{} names {other}", field.name);
                }
            }
        }
    }

    #[test]
    fn every_built_in_resource_has_a_type_except_those_of_other_modules() {
        for t in Registry::built_in().all() {
            let elsewhere = matches!(t.group.as_str(), "apiextensions.k8s.io" | "apiregistration.k8s.io");
            assert_eq!(root(t).is_none(), elsewhere, "{}/{}", t.group, t.kind);
        }
    }

    #[test]
    fn merge_rules_are_those_of_the_api() {
        let pods = at("apps/v1.Deployment", &["spec", "template", "spec", "containers", "ports"]).unwrap();
        assert_eq!(pods.list_keys.as_deref().unwrap(), ["containerPort", "protocol"]);
        assert_eq!(pods.merge_key.as_deref(), Some("containerPort"));
        assert!(at("core/v1.Node", &["spec", "taints"]).unwrap().merge_key.is_none());
        assert!(at("apps/v1.Deployment", &["spec", "selector"]).unwrap().atomic);
        assert_eq!(at("core/v1.Pod", &["metadata", "finalizers"]).unwrap().merge_key.as_deref(), Some(""));
        assert!(named("core/v1.Volume", "emptyDir").is_some());
    }
}
