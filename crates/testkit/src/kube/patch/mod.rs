//! The four kinds of patch.

pub(crate) mod apply;
pub(crate) mod fields;
mod json;
mod keys;
pub(crate) mod managed;
mod merge;
mod strategic;
#[cfg(test)]
mod tests;

use serde_json::Value;

pub(crate) use self::keys::ListKeys;
use super::status::{Result, StatusError};

/// A patch, by its media type.
#[derive(Debug, Clone, PartialEq)]
pub enum Patch {
    /// `application/json-patch+json` (RFC 6902): a list of operations.
    Json(Value),
    /// `application/merge-patch+json` (RFC 7386).
    Merge(Value),
    /// `application/strategic-merge-patch+json`: lists of built-in kinds are merged by their keys.
    Strategic(Value),
    /// `application/apply-patch+yaml`: server-side apply of a whole manifest.
    Apply(Value),
}

/// The object after a patch that is not an apply.
pub(crate) fn patched(live: &Value, patch: &Patch, keys: &ListKeys<'_>) -> Result<Value> {
    let mut new = live.clone();
    match patch {
        Patch::Json(operations) => json::patch(&mut new, operations)?,
        Patch::Merge(patch) | Patch::Apply(patch) => merge::patch(&mut new, patch),
        Patch::Strategic(patch) => strategic::patch(&mut new, patch, keys)?,
    }
    if !new.is_object() {
        return Err(StatusError::bad_request("the patch does not leave an object"));
    }
    Ok(new)
}
