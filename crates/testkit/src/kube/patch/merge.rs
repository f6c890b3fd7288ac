//! JSON merge patch (RFC 7386).

use serde_json::Value;

use crate::kube::value::object;

/// Changes `target` as `patch` says: objects are merged, null removes, everything else replaces.
pub(super) fn patch(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    let map = object(target);
    for (key, change) in patch {
        if change.is_null() {
            map.shift_remove(key);
        } else {
            self::patch(map.entry(key.clone()).or_insert(Value::Null), change);
        }
    }
}
