//! Field names and types of built-in kinds: refused when strict, dropped when not, and never of a wrong type.

use serde_json::Value;

use super::meta::go_type;
use crate::kube::{
    registry::ResourceType,
    shapes::{self, Kind},
    status::{Result, StatusError},
    store::parse_time,
};

/// Checks the types of an object's fields and takes out fields that do not exist.
///
/// # Errors
/// 400 for a value of a wrong type; with `strict` also for a field that does not exist.
pub(super) fn check(t: &ResourceType, object: &mut Value, strict: bool) -> Result<()> {
    let Some(root) = shapes::root(t) else { return Ok(()) };
    let refuse = |why: String| {
        StatusError::bad_request(format!(
            "{} in version {:?} cannot be handled as a {}: {why}",
            t.kind, t.version, t.kind
        ))
    };
    let mut unknown = Vec::new();
    let kind = Kind::Type(root.to_owned());
    walk(object, &kind, &mut String::new(), &t.kind, &mut unknown).map_err(refuse)?;
    if strict && !unknown.is_empty() {
        let list: Vec<String> = unknown.iter().map(|f| format!("unknown field {f:?}")).collect();
        return Err(refuse(format!("strict decoding error: {}", list.join(", "))));
    }
    Ok(())
}

/// Descends; records unknown fields and takes them out of `value`.
fn walk(
    value: &mut Value,
    kind: &Kind,
    path: &mut String,
    owner: &str,
    unknown: &mut Vec<String>,
) -> Result<(), String> {
    let wrong = |value: &Value, wanted: &str| {
        Err(format!(
            "json: cannot unmarshal {} into Go struct field {owner}.{path} of type {wanted}",
            go_type(value)
        ))
    };
    if value.is_null() {
        return Ok(());
    }
    match kind {
        Kind::Text | Kind::Duration if !value.is_string() => return wrong(value, "string"),
        Kind::Bytes if !value.is_string() => return wrong(value, "[]uint8"),
        Kind::Bool if !value.is_boolean() => return wrong(value, "bool"),
        Kind::Integer if value.as_i64().is_none() => return wrong(value, "int32"),
        Kind::Float if !value.is_number() => return wrong(value, "float64"),
        Kind::IntOrText if value.as_i64().is_none() && !value.is_string() => {
            return wrong(value, "intstr.IntOrString");
        }
        Kind::Time | Kind::MicroTime => match value.as_str() {
            Some(text) if parse_time(text).is_none() => {
                return Err(format!(
                    "parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse ({path})"
                ));
            }
            None => return wrong(value, "string"),
            Some(_) => {}
        },
        Kind::Quantity => match value.as_str() {
            Some(text) if !is_quantity(text) => {
                return Err(format!(
                    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$' ({path})"
                ));
            }
            None if !value.is_number() => return wrong(value, "resource.Quantity"),
            _ => {}
        },
        Kind::List(inner) => {
            let Value::Array(list) = value else { return wrong(value, "[]slice") };
            for (i, item) in list.iter_mut().enumerate() {
                let length = path.len();
                path.push_str(&format!("[{i}]"));
                walk(item, inner, path, owner, unknown)?;
                path.truncate(length);
            }
        }
        Kind::Map(inner) => {
            let Value::Object(map) = value else { return wrong(value, "map[string]string") };
            for (key, item) in map.iter_mut() {
                let length = path.len();
                path.push_str(&format!(".{key}"));
                walk(item, inner, path, owner, unknown)?;
                path.truncate(length);
            }
        }
        Kind::Type(name) => {
            let Value::Object(map) = value else { return wrong(value, name) };
            // Whole objects inside others may say what they are.
            let whole = shapes::named(name, "metadata").is_some();
            let known = |field: &str| {
                (whole && matches!(field, "apiVersion" | "kind")) || shapes::named(name, field).is_some()
            };
            let owner = name.rsplit('.').next().unwrap_or(name);
            for (field, item) in map.iter_mut() {
                let length = path.len();
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(field);
                match shapes::named(name, field) {
                    Some(f) => walk(item, &f.kind, path, owner, unknown)?,
                    None if !known(field) => unknown.push(path.clone()),
                    None => {}
                }
                path.truncate(length);
            }
            map.retain(|field, _| known(field));
        }
        _ => {}
    }
    Ok(())
}

/// `500m`, `1Gi`, `1.5`, `1e3`.
fn is_quantity(text: &str) -> bool {
    let text = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let digits = number.chars().filter(char::is_ascii_digit).count();
    let exponent = suffix.strip_prefix(['e', 'E']).is_some_and(|e| e.parse::<i32>().is_ok());
    digits > 0
        && number.matches('.').count() <= 1
        && (exponent
            || matches!(
                suffix,
                "" | "n"
                    | "u"
                    | "m"
                    | "k"
                    | "M"
                    | "G"
                    | "T"
                    | "P"
                    | "E"
                    | "Ki"
                    | "Mi"
                    | "Gi"
                    | "Ti"
                    | "Pi"
                    | "Ei"
            ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::registry::Registry;
    use serde_json::json;

    #[rstest::rstest]
    #[case("500m", true)]
    #[case("1Gi", true)]
    #[case("1.5", true)]
    #[case("1e3", true)]
    #[case("1GB", false)]
    #[case("", false)]
    #[case("lots", false)]
    fn quantities_are_recognised(#[case] text: &str, #[case] fine: bool) {
        assert_eq!(is_quantity(text), fine);
    }

    #[test]
    fn unknown_fields_are_dropped_or_refused_and_wrong_types_always_refused() {
        let registry = Registry::built_in();
        let t = registry.get("apps", "v1", "deployments").unwrap();
        let typo = || json!({"metadata": {"name": "x"}, "spec": {"replicaz": 2, "template": {"spec": {"containers": [{"img": "y"}]}}}});
        let mut object = typo();
        check(&t, &mut object, false).unwrap();
        assert_eq!(object["spec"], json!({"template": {"spec": {"containers": [{}]}}}));
        let refused = check(&t, &mut typo(), true).unwrap_err();
        assert!(refused.message.contains("unknown field \"spec.replicaz\""), "{refused}");
        assert!(
            refused.message.contains("unknown field \"spec.template.spec.containers[0].img\""),
            "{refused}"
        );
        let refused = check(&t, &mut json!({"spec": {"replicas": "2"}}), false).unwrap_err();
        assert_eq!(refused.code, 400);
        assert!(
            refused
                .message
                .contains("cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas")
        );
    }
}
