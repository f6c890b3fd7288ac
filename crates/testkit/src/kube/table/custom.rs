//! The columns a CRD declares.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Column, Layout, age, layout, name, since};
use crate::kube::registry::Custom;

pub(super) fn layout_of(custom: &Arc<Custom>) -> Layout {
    if custom.columns.is_empty() {
        return layout("Name, Age", |o| vec![name(o), age(o)]);
    }
    let mut columns = vec![Column { name: "Name".into(), kind: "string".into(), priority: 0 }];
    columns.extend(custom.columns.iter().map(|c| Column {
        name: c.name.clone(),
        kind: c.kind.clone(),
        priority: c.priority,
    }));
    let custom = Arc::clone(custom);
    let cells = move |o: &Value| {
        let mut row = vec![name(o)];
        row.extend(custom.columns.iter().map(|c| cell(o, &c.path, &c.kind)));
        row
    };
    Layout { columns, cells: Box::new(cells) }
}

fn cell(object: &Value, path: &str, kind: &str) -> Value {
    let found = json_path(object, path);
    match (kind, found.first()) {
        (_, None) => json!(null),
        ("date", Some(Value::String(time))) => since(time),
        ("string", Some(Value::String(s))) => json!(s),
        ("string", Some(_)) => {
            let all = found.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned));
            json!(all.collect::<Vec<_>>().join(","))
        }
        (_, Some(v)) => (*v).clone(),
    }
}

/// The values a simple JSONPath leads to: fields, indices, `[*]`, and `[?(@.key=="value")]`.
fn json_path<'a>(object: &'a Value, path: &str) -> Vec<&'a Value> {
    let mut here = vec![object];
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let Some(end) = after.find(']') else { return Vec::new() };
            let (inside, tail) = after.split_at(end);
            rest = &tail[1..];
            here = here.into_iter().flat_map(|v| bracket(v, inside)).collect();
        } else {
            let token = rest.trim_start_matches('.');
            let (field, tail) = field(token);
            rest = tail;
            if !field.is_empty() {
                here = here.into_iter().filter_map(|v| v.get(field.as_str())).collect();
            } else if rest.is_empty() {
                break;
            }
        }
    }
    here.into_iter().filter(|v| !v.is_null()).collect()
}

/// A field name up to the next dot or bracket; `\.` is a dot inside the name.
fn field(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            '\\' => {
                if let Some((_, escaped)) = chars.next() {
                    name.push(escaped);
                }
            }
            '.' | '[' => return (name, &text[i..]),
            _ => name.push(c),
        }
    }
    (name, "")
}

fn bracket<'a>(value: &'a Value, inside: &str) -> Vec<&'a Value> {
    let Some(list) = value.as_array() else {
        let quoted = inside.trim_matches(['\'', '"']);
        return value.get(quoted).into_iter().collect();
    };
    if inside == "*" {
        return list.iter().collect();
    }
    if let Ok(i) = inside.parse::<usize>() {
        return list.get(i).into_iter().collect();
    }
    let filter =
        inside.strip_prefix("?(@.").and_then(|f| f.strip_suffix(')')).and_then(|f| f.split_once("=="));
    let Some((key, wanted)) = filter else { return Vec::new() };
    let wanted = wanted.trim().trim_matches(['\'', '"']);
    list.iter().filter(|v| v.get(key.trim()).and_then(Value::as_str) == Some(wanted)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case(".spec.size", json!(["3"]))]
    #[case(".status.conditions[?(@.type==\"Ready\")].status", json!(["True"]))]
    #[case(".spec.list[1]", json!(["b"]))]
    #[case(".spec.list[*]", json!(["a", "b"]))]
    #[case(".metadata.annotations.a\\.b/c", json!(["x"]))]
    #[case(".nothing.here", json!([]))]
    #[case("[", json!([]))]
    fn paths_find_values(#[case] path: &str, #[case] expected: Value) {
        let object = json!({
            "metadata": {"annotations": {"a.b/c": "x"}},
            "spec": {"size": "3", "list": ["a", "b"]},
            "status": {"conditions": [{"type": "Other", "status": "False"}, {"type": "Ready", "status": "True"}]},
        });
        assert_eq!(json!(json_path(&object, path)), expected);
    }
}
