//! Strategic merge patch, with its directives.

use serde_json::{Map, Value};

use super::keys::ListKeys;
use crate::kube::{
    status::{Result, StatusError},
    value::object,
};

/// Applies a strategic merge patch to a built-in kind.
///
/// # Errors
/// 422 when an item of a merged list lacks its key, 400 for an unknown directive.
pub(super) fn patch(target: &mut Value, patch: &Value, keys: &ListKeys<'_>) -> Result<()> {
    if !patch.is_object() {
        return Err(StatusError::bad_request("a strategic merge patch is an object"));
    }
    merge(target, patch, &mut Vec::new(), keys)
}

fn merge<'p>(
    target: &mut Value,
    patch: &'p Value,
    path: &mut Vec<&'p str>,
    keys: &ListKeys<'_>,
) -> Result<()> {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return Ok(());
    };
    match patch.get("$patch").and_then(Value::as_str) {
        Some("replace") => {
            *target = without_directives(patch);
            return Ok(());
        }
        Some("delete") => {
            *target = Value::Object(Map::new());
            return Ok(());
        }
        Some("merge") | None => {}
        Some(other) => return Err(StatusError::bad_request(format!("unknown patch type {other:?}"))),
    }
    let map = object(target);
    if let Some(Value::Array(kept)) = patch.get("$retainKeys") {
        map.retain(|k, _| kept.iter().any(|x| x == k));
    }
    for (directive, values) in patch {
        if let (Some(field), Value::Array(values)) =
            (directive.strip_prefix("$deleteFromPrimitiveList/"), values)
            && let Some(Value::Array(list)) = map.get_mut(field)
        {
            list.retain(|v| !values.contains(v));
        }
    }
    for (field, change) in patch.iter().filter(|(k, _)| !k.starts_with('$')) {
        if change.is_null() {
            map.shift_remove(field);
            continue;
        }
        path.push(field);
        let merged = match change {
            Value::Object(_) => {
                let place = map.entry(field.clone()).or_insert(Value::Null);
                let whole = change.get("$patch").is_some_and(|p| p == "delete");
                let merged = merge(place, change, path, keys);
                if whole {
                    map.shift_remove(field);
                }
                merged
            }
            Value::Array(items) => match keys.strategic(path) {
                Some(key) => {
                    let place = map.entry(field.clone()).or_insert(Value::Null);
                    if !place.is_array() {
                        *place = Value::Array(Vec::new());
                    }
                    merge_list(place, items, &key, path, keys)
                }
                None => {
                    map.insert(field.clone(), change.clone());
                    Ok(())
                }
            },
            scalar => {
                map.insert(field.clone(), scalar.clone());
                Ok(())
            }
        };
        path.pop();
        merged?;
    }
    for (directive, order) in patch {
        if let (Some(field), Value::Array(order)) = (directive.strip_prefix("$setElementOrder/"), order)
            && let Some(Value::Array(list)) = map.get_mut(field)
        {
            path.push(field);
            let key = keys.strategic(path).unwrap_or_default();
            path.pop();
            sort(list, order, &key);
        }
    }
    Ok(())
}

fn merge_list<'p>(
    target: &mut Value,
    items: &'p [Value],
    key: &str,
    path: &mut Vec<&'p str>,
    keys: &ListKeys<'_>,
) -> Result<()> {
    let Value::Array(list) = target else { return Ok(()) };
    let directive = |item: &Value| item.get("$patch").and_then(Value::as_str).map(str::to_owned);
    if items.iter().any(|i| directive(i).as_deref() == Some("replace")) {
        let kept = items.iter().filter(|i| directive(i).as_deref() != Some("replace"));
        *list = kept.cloned().collect();
        return Ok(());
    }
    for item in items {
        if key.is_empty() {
            if !list.contains(item) {
                list.push(item.clone());
            }
            continue;
        }
        let Some(id) = item.get(key) else {
            let why = format!("map: {item} does not contain declared merge key: {key}");
            return Err(StatusError::new(422, "Invalid", why));
        };
        if directive(item).as_deref() == Some("delete") {
            list.retain(|i| i.get(key) != Some(id));
            continue;
        }
        match list.iter_mut().find(|i| i.get(key) == Some(id)) {
            Some(found) => merge(found, item, path, keys)?,
            None => {
                let mut new = Value::Object(Map::new());
                merge(&mut new, item, path, keys)?;
                list.push(new);
            }
        }
    }
    Ok(())
}

/// Puts the elements that `order` names into that order, in the places they have together.
fn sort(list: &mut [Value], order: &[Value], key: &str) {
    let rank = |item: &Value| {
        order.iter().position(|o| {
            if key.is_empty() { o == item } else { o.get(key).is_some() && o.get(key) == item.get(key) }
        })
    };
    let mut named: Vec<Value> = list.iter().filter(|i| rank(i).is_some()).cloned().collect();
    named.sort_by_key(|i| rank(i));
    let mut named = named.into_iter();
    for place in list.iter_mut() {
        if rank(place).is_some()
            && let Some(next) = named.next()
        {
            *place = next;
        }
    }
}

fn without_directives(map: &Map<String, Value>) -> Value {
    Value::Object(
        map.iter().filter(|(k, _)| !k.starts_with('$')).map(|(k, v)| (k.clone(), v.clone())).collect(),
    )
}
