//! Tables: what `kubectl get` prints is made by the server.

mod cluster;
mod custom;
mod nodes;
mod pods;
mod workloads;

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{
    http::partial,
    registry::ResourceType,
    store::parse_time,
    value::{self, at, items, text},
};

/// One column: its name and type, and whether only `-o wide` shows it.
#[derive(Debug, Clone)]
pub(super) struct Column {
    name: String,
    kind: String,
    priority: i64,
}

/// What fills a row.
type Cells = Box<dyn Fn(&Value) -> Vec<Value>>;

/// Columns with the function that fills a row.
pub(super) struct Layout {
    pub(super) columns: Vec<Column>,
    pub(super) cells: Cells,
}

/// A layout from column names; those after `|` are for `-o wide`, a leading `#` marks numbers.
pub(super) fn layout(columns: &str, cells: impl Fn(&Value) -> Vec<Value> + 'static) -> Layout {
    let (narrow, wide) = columns.split_once('|').unwrap_or((columns, ""));
    let parse = |list: &str, priority: i64| -> Vec<Column> {
        let names = list.split(',').map(str::trim).filter(|n| !n.is_empty());
        names
            .map(|n| Column {
                name: n.trim_start_matches('#').to_owned(),
                kind: if n.starts_with('#') { "integer" } else { "string" }.to_owned(),
                priority,
            })
            .collect()
    };
    let mut all = parse(narrow, 0);
    all.extend(parse(wide, 1));
    Layout { columns: all, cells: Box::new(cells) }
}

fn layout_of(t: &ResourceType) -> Layout {
    if let Some(custom) = &t.custom {
        return custom::layout_of(custom);
    }
    match (t.group.as_str(), t.plural.as_str()) {
        ("", "nodes") => nodes::nodes(),
        ("", "pods") => pods::pods(),
        ("apps" | "batch" | "autoscaling" | "policy", _) => workloads::layout_of(t),
        _ => cluster::layout_of(t),
    }
}

/// The Table of some objects. `include` is `None`, `Metadata` or `Object`; without `columns` the rows stand alone, as in
/// the later events of a watch.
pub(crate) fn render(
    t: &ResourceType,
    objects: &[Value],
    meta: &Value,
    version: &str,
    include: &str,
    columns: bool,
) -> Value {
    let layout = layout_of(t);
    let definitions: Vec<Value> = layout
        .columns
        .iter()
        .map(|c| {
            let format = if c.name == "Name" { "name" } else { "" };
            json!({"name": c.name, "type": c.kind, "format": format, "description": "", "priority": c.priority})
        })
        .collect();
    let rows: Vec<Value> = objects
        .iter()
        .map(|o| {
            let mut row = json!({"cells": (layout.cells)(o)});
            let object = match include {
                "None" => Value::Null,
                "Object" => o.clone(),
                _ => partial(o.clone()),
            };
            value::set(&mut row, &["object"], object);
            row
        })
        .collect();
    let definitions = if columns { Value::from(definitions) } else { Value::Null };
    json!({
        "kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": meta,
        "columnDefinitions": definitions, "rows": rows,
    })
}

/// How long ago, as `kubectl` writes it.
pub(super) fn age(object: &Value) -> Value {
    since(text(object, &["metadata", "creationTimestamp"]))
}

pub(super) fn since(time: &str) -> Value {
    match parse_time(time) {
        Some(at) => json!(human((OffsetDateTime::now_utc() - at).whole_seconds())),
        None => json!("<unknown>"),
    }
}

/// Kubernetes' short duration: two units where the first is small.
pub(super) fn human(seconds: i64) -> String {
    let two = |big: i64, unit: &str, small: i64, sub: &str| {
        if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{sub}") }
    };
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        i64::MIN..=-2 => "<invalid>".into(),
        -1..=0 => "0s".into(),
        1..=119 => format!("{seconds}s"),
        120..=599 => two(minutes, "m", seconds % 60, "s"),
        600..=10_799 => format!("{minutes}m"),
        10_800..=28_799 => two(hours, "h", minutes % 60, "m"),
        28_800..=172_799 => format!("{hours}h"),
        172_800..=691_199 => two(days, "d", hours % 24, "h"),
        691_200..=63_071_999 => format!("{days}d"),
        63_072_000..=252_287_999 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

/// The text at a path, or `otherwise`.
pub(super) fn or(object: &Value, path: &[&str], otherwise: &str) -> Value {
    let found = text(object, path);
    json!(if found.is_empty() { otherwise } else { found })
}

pub(super) fn number(object: &Value, path: &[&str]) -> Value {
    json!(at(object, path).as_i64().unwrap_or(0))
}

pub(super) fn name(object: &Value) -> Value {
    json!(value::name(object))
}

/// Names and images of a template's containers.
pub(super) fn containers(spec: &Value) -> [Value; 2] {
    let join = |key: &str| {
        items(spec, &["containers"]).iter().map(|c| text(c, &[key])).collect::<Vec<_>>().join(",")
    };
    [json!(join("name")), json!(join("image"))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case(0, "0s")]
    #[case(119, "119s")]
    #[case(125, "2m5s")]
    #[case(600, "10m")]
    #[case(3 * 3600 + 120, "3h2m")]
    #[case(3 * 86_400, "3d")]
    #[case(400 * 86_400, "400d")]
    fn durations_read_as_kubectl_writes_them(#[case] seconds: i64, #[case] expected: &str) {
        assert_eq!(human(seconds), expected);
    }
}
