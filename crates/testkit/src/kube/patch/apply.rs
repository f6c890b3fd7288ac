//! Server-side apply: merge, prune what is no longer applied, conflicts by owner.

use serde_json::{Map, Value, json};

use super::{
    fields::{Fields, compare, elements},
    keys::{ListKeys, Shape},
    managed::{self, Entry},
};
use crate::kube::{
    status::{Cause, Result, StatusError, causes_value},
    store::{Part, now},
    value::{at, items, name, object, remove, set},
};

/// Who applies, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) manager: &'a str,
    pub(crate) force: bool,
    pub(crate) api_version: &'a str,
    pub(crate) subresource: &'a str,
    pub(crate) part: Part,
    pub(crate) has_status: bool,
}

/// The object after `config` was applied to `live`, with its new `managedFields`.
///
/// # Errors
/// 409 with one cause a field when another manager owns one that would change, 400 for a config that carries
/// `managedFields`, 422 without a manager, 500 when a list item lacks its key (that is what the real one answers).
pub(crate) fn apply(
    live: Option<&Value>,
    config: &Value,
    request: &Request<'_>,
    keys: &ListKeys<'_>,
) -> Result<Value> {
    if request.manager.is_empty() {
        let cause = Cause::required("fieldManager", "is required for apply patch");
        return Err(StatusError::invalid("meta.k8s.io", "PatchOptions", "", &[cause]));
    }
    if !items(config, &["metadata", "managedFields"]).is_empty() {
        return Err(StatusError::bad_request("metadata.managedFields must be nil"));
    }
    let mut config = config.clone();
    drop_nulls(&mut config);
    reset(&mut config, request);
    check_keys(&config, &mut Vec::new(), keys).map_err(|why| {
        let kind = crate::kube::value::text(&config, &["kind"]);
        let what = format!(
            "failed to create typed patch object ({}/{}; {}, Kind={kind})",
            crate::kube::value::namespace(&config),
            name(&config),
            request.api_version
        );
        StatusError::new(500, "", format!("{what}: {why}"))
    })?;
    let mut wanted = Fields::of(&config, keys);
    managed::strip(&mut wanted);

    let nothing = json!({});
    let live = live.unwrap_or(&nothing);
    let mut entries = managed::read(live);
    let mine = |e: &Entry| {
        e.manager == request.manager && e.operation == "Apply" && e.subresource == request.subresource
    };
    let last = entries.iter().find(|e| mine(e)).cloned();
    let others = entries.iter().filter(|e| !mine(e)).fold(Fields::default(), |all, e| all.union(&e.fields));

    let mut base = live.clone();
    remove(&mut base, &["metadata", "managedFields"]);
    let mut merged = merge(&base, &config, &mut Vec::new(), keys);
    if let Some(last) = &last {
        prune(&mut merged, &last.fields, &wanted.union(&others), &mut Vec::new(), keys);
    }

    let mut difference = compare(&base, &merged, keys);
    managed::strip(&mut difference.changed);
    managed::strip(&mut difference.removed);
    let mut conflicts = Vec::new();
    for entry in entries.iter_mut().filter(|e| !mine(e)) {
        let contested = entry.fields.intersection(&difference.changed);
        if !contested.is_empty() && !request.force {
            conflicts.push((entry.clone(), contested.paths()));
        }
        entry.fields = entry.fields.difference(&difference.changed).difference(&difference.removed);
    }
    if !conflicts.is_empty() {
        return Err(conflict(&conflicts));
    }
    let unchanged = last.as_ref().is_some_and(|l| l.fields == wanted && l.api_version == request.api_version);
    let time = last.filter(|_| unchanged).map_or_else(now, |l| l.time);
    let entry = Entry {
        manager: request.manager.to_owned(),
        operation: "Apply".into(),
        api_version: request.api_version.to_owned(),
        subresource: request.subresource.to_owned(),
        time,
        fields: wanted,
    };
    match entries.iter_mut().find(|e| mine(e)) {
        Some(place) => *place = entry,
        None => entries.push(entry),
    }
    managed::write(&mut merged, &entries);
    Ok(merged)
}

/// What the endpoint does not let its callers own is not theirs.
fn reset(config: &mut Value, request: &Request<'_>) {
    match request.part {
        Part::Main if request.has_status => {
            remove(config, &["status"]);
        }
        Part::Status => {
            let meta: Map<String, Value> = ["name", "namespace", "resourceVersion", "uid"]
                .iter()
                .filter_map(|k| Some(((*k).to_owned(), at(config, &["metadata"]).get(*k)?.clone())))
                .collect();
            object(config).retain(|k, _| matches!(k.as_str(), "apiVersion" | "kind" | "status"));
            set(config, &["metadata"], meta);
        }
        Part::Main | Part::All => {}
    }
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn check_keys<'v>(value: &'v Value, path: &mut Vec<&'v str>, keys: &ListKeys<'_>) -> Result<(), String> {
    match value {
        Value::Object(map) => {
            for (name, child) in map {
                path.push(name);
                let checked = check_keys(child, path, keys);
                path.pop();
                checked?;
            }
            Ok(())
        }
        Value::Array(list) => {
            let shape = keys.shape(path, value);
            if matches!(shape, Shape::Map(_) | Shape::Set) && elements(list, &shape).is_none() {
                let names = match shape {
                    Shape::Map(names) => names.join(", "),
                    _ => "value".to_owned(),
                };
                return Err(format!(
                    ".{}: element of an associative list omits or repeats its key field {names:?}",
                    path.join(".")
                ));
            }
            list.iter().try_for_each(|item| check_keys(item, path, keys))
        }
        _ => Ok(()),
    }
}

fn conflict(conflicts: &[(Entry, Vec<String>)]) -> StatusError {
    let who = |e: &Entry| {
        let sub = if e.subresource.is_empty() {
            String::new()
        } else {
            format!(" with subresource {:?}", e.subresource)
        };
        let using = if e.operation == "Apply" { String::new() } else { format!(" using {}", e.api_version) };
        format!("{:?}{sub}{using}", e.manager)
    };
    let causes: Vec<Cause> = conflicts
        .iter()
        .flat_map(|(entry, paths)| paths.iter().map(move |p| (entry, p)))
        .map(|(entry, path)| Cause {
            reason: "FieldManagerConflict",
            message: format!("conflict with {}", who(entry)),
            field: path.clone(),
        })
        .collect();
    let message = match causes.as_slice() {
        [one] => format!("Apply failed with 1 conflict: {}: {}", one.message, one.field),
        many => {
            let groups = conflicts.iter().map(|(entry, paths)| {
                let lines: Vec<String> = paths.iter().map(|p| format!("- {p}")).collect();
                format!("conflicts with {}:\n{}", who(entry), lines.join("\n"))
            });
            format!("Apply failed with {} conflicts: {}", many.len(), groups.collect::<Vec<_>>().join("\n"))
        }
    };
    StatusError::new(409, "Conflict", message).detail("causes", causes_value(&causes))
}

fn merge<'v>(live: &Value, config: &'v Value, path: &mut Vec<&'v str>, keys: &ListKeys<'_>) -> Value {
    let shape = keys.shape(path, config);
    match (live, config) {
        (Value::Object(old), Value::Object(new)) if shape == Shape::Granular => {
            let mut out = old.clone();
            for (name, child) in new {
                path.push(name);
                let merged = merge(old.get(name).unwrap_or(&Value::Null), child, path, keys);
                path.pop();
                out.insert(name.clone(), merged);
            }
            Value::Object(out)
        }
        (Value::Array(old), Value::Array(new)) => match (elements(old, &shape), elements(new, &shape)) {
            (Some(old_names), Some(new_names)) => {
                let mut out = Vec::with_capacity(old.len().max(new.len()));
                // When the config names every item there is, its order counts; else new items go last.
                let reorder = old_names.iter().all(|n| new_names.contains(n));
                if !reorder {
                    for (name, item) in old_names.iter().zip(old) {
                        let theirs = new_names.iter().position(|n| n == name).and_then(|i| new.get(i));
                        out.push(theirs.map_or_else(|| item.clone(), |c| merge(item, c, path, keys)));
                    }
                }
                for (name, item) in new_names.iter().zip(new) {
                    let was = old_names.iter().position(|n| n == name).and_then(|i| old.get(i));
                    if reorder || was.is_none() {
                        out.push(merge(was.unwrap_or(&Value::Null), item, path, keys));
                    }
                }
                Value::Array(out)
            }
            _ => config.clone(),
        },
        _ => config.clone(),
    }
}

/// Takes out of `value` what is in `last` and not in `keep`.
fn prune(value: &mut Value, last: &Fields, keep: &Fields, path: &mut Vec<String>, keys: &ListKeys<'_>) {
    let nobody = Fields::default();
    match value {
        Value::Object(map) => {
            for (element, mine) in &last.children {
                let Some(field) = element.strip_prefix("f:") else { continue };
                let kept = keep.children.get(element);
                if mine.children.is_empty() {
                    if kept.is_none() {
                        map.shift_remove(field);
                    }
                    continue;
                }
                let Some(child) = map.get_mut(field) else { continue };
                path.push(field.to_owned());
                prune(child, mine, kept.unwrap_or(&nobody), path, keys);
                path.pop();
                let empty = child.as_object().is_some_and(Map::is_empty)
                    || child.as_array().is_some_and(Vec::is_empty);
                if empty && kept.is_none() {
                    map.shift_remove(field);
                }
            }
        }
        Value::Array(list) => {
            let names: Vec<&str> = path.iter().map(String::as_str).collect();
            let shape = keys.shape(&names, &Value::Array(Vec::new()));
            let Some(elements) = elements(list, &shape) else { return };
            let mut index = 0;
            for element in elements {
                let kept = keep.children.get(&element);
                match (last.children.get(&element), kept) {
                    (Some(mine), None) if mine.member => {
                        list.remove(index);
                        continue;
                    }
                    (Some(mine), kept) => {
                        if let Some(item) = list.get_mut(index) {
                            prune(item, mine, kept.unwrap_or(&nobody), path, keys);
                        }
                    }
                    (None, _) => {}
                }
                index += 1;
            }
        }
        _ => {}
    }
}
