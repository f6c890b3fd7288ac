//! Names, labels and the other metadata.

use serde_json::{Value, json};

use crate::kube::{
    registry::ResourceType,
    status::{Cause, Result, StatusError},
    value::{self, at, items, text},
};

/// Values whose type the real server's decoder insists on.
///
/// # Errors
/// 400, as the decoder words it.
pub(super) fn types(t: &ResourceType, object: &Value) -> Result<()> {
    let bad = |what: &str, value: &Value, field: &str, wanted: &str| {
        StatusError::bad_request(format!(
            "{} in version {:?} cannot be handled as a {}: json: cannot unmarshal {} into Go struct field {what}.{field} of type {wanted}",
            t.kind,
            t.version,
            t.kind,
            go_type(value)
        ))
    };
    let meta = &object["metadata"];
    if !meta.is_null() && !meta.is_object() {
        return Err(bad(&t.kind, meta, "metadata", "v1.ObjectMeta"));
    }
    for map in ["labels", "annotations"] {
        let place = &meta[map];
        if !place.is_null() && !place.is_object() {
            return Err(bad("ObjectMeta", place, &format!("metadata.{map}"), "map[string]string"));
        }
        for v in place.as_object().into_iter().flatten().map(|(_, v)| v) {
            if !v.is_string() && !v.is_null() {
                return Err(bad("ObjectMeta", v, &format!("metadata.{map}"), "string"));
            }
        }
    }
    for word in ["name", "namespace", "generateName"] {
        let v = &meta[word];
        if !v.is_null() && !v.is_string() {
            return Err(bad("ObjectMeta", v, &format!("metadata.{word}"), "string"));
        }
    }
    for list in ["finalizers", "ownerReferences"] {
        let v = &meta[list];
        if !v.is_null() && !v.is_array() {
            return Err(bad("ObjectMeta", v, &format!("metadata.{list}"), "[]string"));
        }
    }
    Ok(())
}

/// What Go's decoder calls a JSON value.
pub(super) fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

pub(crate) fn is_dns_label(name: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    name.len() <= 63
        && edge(name.chars().next())
        && edge(name.chars().last())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

pub(crate) fn is_dns_subdomain(name: &str) -> bool {
    name.len() <= 253
        && name.split('.').all(|part| is_dns_label(part) || (part.len() > 63 && is_long_label(part)))
}

/// A subdomain's parts have no length limit of their own in Kubernetes' rule.
fn is_long_label(part: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    edge(part.chars().next())
        && edge(part.chars().last())
        && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

fn is_name_part(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && edge(text.chars().next())
        && edge(text.chars().last())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

/// `prefix/name` or `name`, as label keys, taints and finalizers are written.
pub(super) fn is_qualified(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_dns_subdomain(prefix) && is_name_part(name),
        None => is_name_part(text),
    }
}

pub(super) fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_name_part(text)
}

/// The rule for an object's name, and what the refusal says.
fn name_rule(t: &ResourceType) -> (fn(&str) -> bool, &'static str) {
    match (t.group.as_str(), t.plural.as_str()) {
        ("", "namespaces") => (is_dns_label, LABEL),
        ("", "services") => {
            (|n| is_dns_label(n) && n.starts_with(|c: char| c.is_ascii_lowercase()), LABEL_1035)
        }
        ("rbac.authorization.k8s.io", _) => (
            |n| !matches!(n, "" | "." | "..") && !n.contains(['/', '%']),
            "may not be '.', '..' or contain '/' or '%'",
        ),
        _ => (is_dns_subdomain, SUBDOMAIN),
    }
}

pub(super) fn validate(t: &ResourceType, live: Option<&Value>, object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let name = value::name(object);
    if name.is_empty() {
        causes.push(Cause::required("metadata.name", "name or generateName is required"));
    } else if live.is_none() {
        let (fine, why) = name_rule(t);
        if !fine(name) {
            causes.push(Cause::invalid("metadata.name", &json!(name), why));
        }
    }
    labels(at(object, &["metadata", "labels"]), "metadata.labels", &mut causes);
    let mut size = 0;
    for (key, v) in at(object, &["metadata", "annotations"]).as_object().into_iter().flatten() {
        size += key.len() + v.as_str().unwrap_or_default().len();
        if !is_qualified(&key.to_lowercase()) {
            causes.push(Cause::invalid("metadata.annotations", &json!(key), QUALIFIED));
        }
    }
    if size > 256 * 1024 {
        let message = "Too long: may not be more than 262144 bytes".to_owned();
        causes.push(Cause { reason: "FieldValueTooLong", message, field: "metadata.annotations".into() });
    }
    for (i, owner) in items(object, &["metadata", "ownerReferences"]).iter().enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if text(owner, &[field]).is_empty() {
                let why = "must not be empty";
                causes.push(Cause::invalid(
                    format!("metadata.ownerReferences[{i}].{field}"),
                    &json!(""),
                    why,
                ));
            }
        }
    }
    let owners = items(object, &["metadata", "ownerReferences"]);
    if owners.iter().filter(|o| o["controller"] == true).count() > 1 {
        let why = "Only one reference can have Controller set to true";
        causes.push(Cause::invalid("metadata.ownerReferences", &json!(owners), why));
    }
    for finalizer in items(object, &["metadata", "finalizers"]) {
        if !finalizer.as_str().is_some_and(is_qualified) {
            let why = QUALIFIED;
            causes.push(Cause::invalid("metadata.finalizers", finalizer, why));
        }
    }
    causes
}

/// Label keys and values, also of templates.
pub(super) fn labels(labels: &Value, field: &str, causes: &mut Vec<Cause>) {
    for (key, v) in labels.as_object().into_iter().flatten() {
        if !is_qualified(key) {
            causes.push(Cause::invalid(field, &json!(key), QUALIFIED));
        }
        if !v.as_str().is_some_and(is_label_value) {
            causes.push(Cause::invalid(field, v, LABEL_VALUE));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case("node1", true)]
    #[case("a.b-c.d", true)]
    #[case("Node1", false)]
    #[case("-a", false)]
    #[case("a..b", false)]
    #[case("a_b", false)]
    #[case("", false)]
    fn names_are_dns_subdomains(#[case] name: &str, #[case] fine: bool) {
        assert_eq!(is_dns_subdomain(name), fine);
    }

    #[rstest::rstest]
    #[case("app.kubernetes.io/name", true)]
    #[case("node-role.kubernetes.io/control-plane", true)]
    #[case("A_b.c", true)]
    #[case("a/b/c", false)]
    #[case("/b", false)]
    fn label_keys_are_qualified_names(#[case] key: &str, #[case] fine: bool) {
        assert_eq!(is_qualified(key), fine);
    }
}
