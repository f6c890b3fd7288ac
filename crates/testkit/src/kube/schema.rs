//! The structural schema of a CRD version: pruning, defaults, validation.

use serde_json::{Value, json};

use super::status::Cause;

/// An OpenAPI v3 schema as a CRD carries it.
#[derive(Debug, Clone)]
pub(crate) struct Schema(pub(crate) Value);

impl Schema {
    pub(crate) fn of_crd_version(version: &Value) -> Option<Self> {
        let schema = version.pointer("/schema/openAPIV3Schema")?;
        Some(Self(schema.clone()))
    }

    /// Takes out the fields that the schema does not know; their paths.
    pub(crate) fn prune(&self, object: &mut Value) -> Vec<String> {
        let mut unknown = Vec::new();
        prune(&self.0, object, "", true, &mut unknown);
        unknown
    }
    /// Fills in defaults.
    pub(crate) fn fill(&self, object: &mut Value) {
        fill(&self.0, object);
    }
    /// All violations.
    pub(crate) fn validate(&self, object: &Value) -> Vec<Cause> {
        let mut causes = Vec::new();
        for (name, schema) in self.0["properties"].as_object().into_iter().flatten() {
            if !matches!(name.as_str(), "apiVersion" | "kind" | "metadata")
                && let Some(v) = object.get(name)
            {
                check(schema, v, name, &mut causes);
            }
        }
        for name in self.0["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if object.get(name).is_none() {
                causes.push(Cause::required(name, ""));
            }
        }
        causes
    }
}

fn preserves(schema: &Value) -> bool {
    schema["x-kubernetes-preserve-unknown-fields"] == true
}

fn prune(schema: &Value, value: &mut Value, path: &str, root: bool, unknown: &mut Vec<String>) {
    let join = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Object(map) => {
            let embedded = root || schema["x-kubernetes-embedded-resource"] == true;
            let mut gone = Vec::new();
            for (name, child) in map.iter_mut() {
                if embedded && matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
                    continue;
                }
                let known =
                    schema["properties"].get(name).or_else(|| match schema.get("additionalProperties") {
                        Some(Value::Bool(true)) => Some(&Value::Null),
                        other => other.filter(|a| a.is_object()),
                    });
                match known {
                    Some(Value::Null) => {}
                    Some(child_schema) => prune(child_schema, child, &join(name), false, unknown),
                    None if preserves(schema) => {}
                    None => gone.push(name.clone()),
                }
            }
            for name in gone {
                map.shift_remove(&name);
                unknown.push(join(&name));
            }
        }
        Value::Array(list) => {
            if let Some(items) = schema.get("items") {
                for (i, item) in list.iter_mut().enumerate() {
                    prune(items, item, &format!("{path}[{i}]"), false, unknown);
                }
            }
        }
        _ => {}
    }
}

fn fill(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, child) in schema["properties"].as_object().into_iter().flatten() {
                if let Some(default) = child.get("default")
                    && map.get(name).is_none_or(|v| v.is_null() && child["nullable"] != true)
                {
                    map.insert(name.clone(), default.clone());
                }
                if let Some(v) = map.get_mut(name) {
                    fill(child, v);
                }
            }
            if let Some(rest) = schema.get("additionalProperties").filter(|a| a.is_object()) {
                map.values_mut().for_each(|v| fill(rest, v));
            }
        }
        Value::Array(list) => {
            if let Some(items) = schema.get("items") {
                list.iter_mut().for_each(|v| fill(items, v));
            }
        }
        _ => {}
    }
}

fn check(schema: &Value, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    if value.is_null() {
        if schema["nullable"] != true && schema.get("type").is_some() {
            let why = format!(
                "{path} in body must be of type {}: \"null\"",
                schema["type"].as_str().unwrap_or_default()
            );
            causes.push(Cause::invalid(path, &json!("null"), &why));
        }
        return;
    }
    let is = match value {
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_i64() || n.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        _ => "object",
    };
    if schema["x-kubernetes-int-or-string"] == true {
        if !matches!(is, "integer" | "string") {
            let why = format!("{path} in body must be of type integer,string: {is:?}");
            causes.push(Cause { reason: "FieldValueTypeInvalid", ..Cause::invalid(path, &json!(is), &why) });
        }
    } else if let Some(wanted) = schema["type"].as_str()
        && wanted != is
        && !(wanted == "number" && is == "integer")
    {
        let why = format!("{path} in body must be of type {wanted}: {is:?}");
        causes.push(Cause { reason: "FieldValueTypeInvalid", ..Cause::invalid(path, &json!(is), &why) });
        return;
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        let words: Vec<&str> = allowed.iter().filter_map(Value::as_str).collect();
        causes.push(Cause::unsupported(path, value, &words));
    }
    bounds(schema, value, path, causes);
    match value {
        Value::Object(map) => {
            for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                if !map.contains_key(name) {
                    causes.push(Cause::required(format!("{path}.{name}"), ""));
                }
            }
            for (name, child) in map {
                let known = schema["properties"].get(name);
                if let Some(s) =
                    known.or_else(|| schema.get("additionalProperties").filter(|a| a.is_object()))
                {
                    check(s, child, &format!("{path}.{name}"), causes);
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = schema.get("items") {
                for (i, item) in list.iter().enumerate() {
                    check(items, item, &format!("{path}[{i}]"), causes);
                }
            }
        }
        _ => {}
    }
}

fn bounds(schema: &Value, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    let size = match value {
        Value::String(s) => Some(("Length", s.chars().count())),
        Value::Array(l) => Some(("Items", l.len())),
        Value::Object(m) => Some(("Properties", m.len())),
        _ => None,
    };
    if let Some((word, n)) = size {
        let limit = |key: String| schema[key.as_str()].as_u64().and_then(|n| usize::try_from(n).ok());
        if limit(format!("min{word}")).is_some_and(|min| n < min) {
            causes.push(Cause::invalid(path, value, &format!("{path} in body is too small")));
        }
        if limit(format!("max{word}")).is_some_and(|max| n > max) {
            causes.push(Cause::invalid(path, value, &format!("{path} in body is too large")));
        }
    }
    if let Some(n) = value.as_f64() {
        if let Some(min) = schema["minimum"].as_f64()
            && n < min
        {
            let why = format!("{path} in body should be greater than or equal to {min}");
            causes.push(Cause::invalid(path, value, &why));
        }
        if let Some(max) = schema["maximum"].as_f64()
            && n > max
        {
            causes.push(Cause::invalid(
                path,
                value,
                &format!("{path} in body should be less than or equal to {max}"),
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> Schema {
        Schema(json!({"type": "object", "required": ["spec"], "properties": {"spec": {
        "type": "object", "required": ["size"],
        "properties": {
            "size": {"type": "integer", "minimum": 1, "maximum": 5},
            "mode": {"type": "string", "enum": ["a", "b"], "default": "a"},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "tags": {"type": "object", "additionalProperties": {"type": "string"}}
        }}}}))
    }

    #[test]
    fn unknown_fields_go_and_preserved_ones_stay() {
        let mut object = json!({"metadata": {"name": "x"}, "spec": {"size": 1, "sizee": 2, "free": {"any": 1}, "tags": {"k": "v"}}});
        assert_eq!(schema().prune(&mut object), ["spec.sizee"]);
        assert_eq!(object["spec"], json!({"size": 1, "free": {"any": 1}, "tags": {"k": "v"}}));
    }

    #[test]
    fn defaults_are_filled_in_and_violations_are_listed() {
        let mut object = json!({"spec": {"size": 9}});
        schema().fill(&mut object);
        assert_eq!(object["spec"]["mode"], "a");
        let causes = schema().validate(&object);
        assert_eq!(causes.len(), 1);
        assert_eq!(causes[0].field, "spec.size");
        assert_eq!(schema().validate(&json!({"spec": {"mode": "c"}})).len(), 2);
        assert_eq!(schema().validate(&json!({})).len(), 1);
        assert_eq!(schema().validate(&json!({"spec": {"size": "1"}}))[0].reason, "FieldValueTypeInvalid");
    }
}
