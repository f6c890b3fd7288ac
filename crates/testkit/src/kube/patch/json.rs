//! JSON patch (RFC 6902).

use serde_json::Value;

use crate::kube::status::{Result, StatusError};

/// Applies the operations in order; `target` is left half done when one fails, so work on a copy.
///
/// # Errors
/// 400 for a malformed patch, 422 for an operation that does not fit the document.
pub(super) fn patch(target: &mut Value, operations: &Value) -> Result<()> {
    let Value::Array(operations) = operations else {
        return Err(StatusError::bad_request("a JSON patch is a list of operations"));
    };
    // The real server's limit.
    if operations.len() > 10_000 {
        let why =
            format!("The allowed maximum operations in a JSON patch is 10000, got {}", operations.len());
        return Err(StatusError::new(413, "RequestEntityTooLarge", why));
    }
    for op in operations {
        let field = |name: &str| {
            let why = || StatusError::bad_request(format!("a JSON patch operation lacks {name:?}"));
            op.get(name).and_then(Value::as_str).ok_or_else(why)
        };
        let value = || {
            op.get("value").ok_or_else(|| StatusError::bad_request("a JSON patch operation lacks \"value\""))
        };
        let path = pointer(field("path")?)?;
        match field("op")? {
            "add" => add(target, &path, value()?.clone())?,
            "remove" => {
                take(target, &path)?;
            }
            "replace" => {
                let new = value()?.clone();
                *find(target, &path)? = new;
            }
            "move" => {
                let from = pointer(field("from")?)?;
                if path.starts_with(&from) && path != from {
                    return Err(unfit("a value cannot be moved into itself"));
                }
                let moved = take(target, &from)?;
                add(target, &path, moved)?;
            }
            "copy" => {
                let copied = find(target, &pointer(field("from")?)?)?.clone();
                add(target, &path, copied)?;
            }
            "test" => {
                let wanted = value()?;
                let same = match find(target, &path) {
                    Ok(found) => found == wanted,
                    // The library behind the real server takes a missing value for null.
                    Err(_) => wanted.is_null(),
                };
                if !same {
                    return Err(unfit(&format!("testing value {} failed", field("path")?)));
                }
            }
            other => return Err(StatusError::bad_request(format!("Unexpected kind: {other}"))),
        }
    }
    Ok(())
}

fn unfit(why: &str) -> StatusError {
    let message = format!("the server rejected our request due to an error in our request: {why}");
    StatusError::new(422, "Invalid", message)
}

fn pointer(text: &str) -> Result<Vec<String>> {
    match text.strip_prefix('/') {
        None if text.is_empty() => Ok(Vec::new()),
        None => Err(StatusError::bad_request(format!("{text:?} is not a JSON pointer"))),
        Some(rest) => Ok(rest.split('/').map(|t| t.replace("~1", "/").replace("~0", "~")).collect()),
    }
}

fn find<'a>(target: &'a mut Value, path: &[String]) -> Result<&'a mut Value> {
    let mut here = target;
    for token in path {
        let next = match here {
            Value::Object(map) => map.get_mut(token),
            Value::Array(list) => index(token, list.len()).and_then(|i| list.get_mut(i)),
            _ => None,
        };
        here = next.ok_or_else(|| unfit(&format!("there is nothing at {token:?} of /{}", path.join("/"))))?;
    }
    Ok(here)
}

fn index(token: &str, len: usize) -> Option<usize> {
    let well_formed = token == "0" || (!token.starts_with('0') && token.chars().all(|c| c.is_ascii_digit()));
    token.parse().ok().filter(|i| well_formed && *i < len)
}

fn add(target: &mut Value, path: &[String], value: Value) -> Result<()> {
    let Some((last, parents)) = path.split_last() else {
        *target = value;
        return Ok(());
    };
    match find(target, parents)? {
        Value::Object(map) => {
            map.insert(last.clone(), value);
            Ok(())
        }
        Value::Array(list) => {
            let at = if last == "-" { Some(list.len()) } else { index(last, list.len() + 1) };
            list.insert(at.ok_or_else(|| unfit(&format!("index {last:?} is out of bounds")))?, value);
            Ok(())
        }
        _ => Err(unfit("a value can only be added to an object or a list")),
    }
}

fn take(target: &mut Value, path: &[String]) -> Result<Value> {
    let Some((last, parents)) = path.split_last() else {
        return Ok(target.take());
    };
    let taken = match find(target, parents)? {
        Value::Object(map) => map.shift_remove(last),
        Value::Array(list) => index(last, list.len()).map(|i| list.remove(i)),
        _ => None,
    };
    taken.ok_or_else(|| unfit(&format!("there is nothing to remove at /{}", path.join("/"))))
}
