//! Properties of the patch functions on documents nobody would write.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{
    ListKeys, Patch,
    apply::{Request, apply},
    fields::{Fields, compare},
    json, managed, merge, patched,
};
use crate::kube::store::Part;

const KEYS: ListKeys<'static> = ListKeys::BuiltIn("core/v1.Pod");

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-c]{0,2}".prop_map(Value::from)
    ]
}

/// Documents whose field names are those that have merge rules, and some that have none.
fn document() -> impl Strategy<Value = Value> {
    let names = prop_oneof![
        Just("spec"),
        Just("containers"),
        Just("env"),
        Just("name"),
        Just("ports"),
        Just("containerPort"),
        Just("metadata"),
        Just("labels"),
        Just("finalizers"),
        Just("conditions"),
        Just("type"),
        Just("status"),
        Just("volumes"),
        Just("x"),
        Just("$patch"),
        Just("$setElementOrder/containers"),
        Just("$deleteFromPrimitiveList/finalizers"),
        Just("$retainKeys"),
    ];
    scalar().prop_recursive(6, 60, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((names.clone(), inner), 0..5)
                .prop_map(|pairs| Value::Object(pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())),
        ]
    })
}

fn operations() -> impl Strategy<Value = Value> {
    let path = prop::collection::vec(
        prop_oneof![Just("spec"), Just("x"), Just("0"), Just("-"), Just("~1"), Just("01")],
        0..4,
    )
    .prop_map(|parts| parts.iter().map(|p| format!("/{p}")).collect::<String>());
    let op = prop_oneof![
        Just("add"),
        Just("remove"),
        Just("replace"),
        Just("move"),
        Just("copy"),
        Just("test"),
        Just("?")
    ];
    let one = (op, path.clone(), path, document())
        .prop_map(|(op, path, from, value)| json!({"op": op, "path": path, "from": from, "value": value}));
    prop::collection::vec(one, 0..6).prop_map(Value::from)
}

fn request(manager: &str, force: bool) -> Request<'_> {
    Request { manager, force, api_version: "v1", subresource: "", part: Part::All, has_status: true }
}

/// A manifest of texts by name and of containers with environment, as one manager would apply it.
fn manifest() -> impl Strategy<Value = Value> {
    let labels = prop::collection::btree_map("[a-d]", "[x-z]", 0..4);
    let env = prop::collection::btree_map("[A-D]", "[x-z]", 0..3);
    let containers = prop::collection::btree_map("[p-r]", env, 0..3);
    (labels, containers).prop_map(|(labels, containers)| {
        let containers: Vec<Value> = containers
            .into_iter()
            .map(|(name, env)| {
                let env: Vec<Value> = env.into_iter().map(|(n, v)| json!({"name": n, "value": v})).collect();
                json!({"name": name, "env": env})
            })
            .collect();
        json!({"metadata": {"labels": labels}, "spec": {"containers": containers}})
    })
}

/// Every scalar of a document with its path; list items by their name.
fn leaves(value: &Value, path: &str, out: &mut Map<String, Value>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(k, v)| leaves(v, &format!("{path}.{k}"), out)),
        Value::Array(list) => {
            list.iter()
                .for_each(|v| leaves(v, &format!("{path}[{}]", v["name"].as_str().unwrap_or_default()), out));
        }
        other => {
            out.insert(path.to_owned(), other.clone());
        }
    }
}

fn content(object: &Value) -> Map<String, Value> {
    let mut object = object.clone();
    crate::kube::value::remove(&mut object, &["metadata", "managedFields"]);
    let mut out = Map::new();
    leaves(&object, "", &mut out);
    out
}

proptest! {
    #[test]
    fn no_patch_panics(live in document(), patch in document(), operations in operations()) {
        for patch in [Patch::Merge(patch.clone()), Patch::Strategic(patch.clone()), Patch::Json(operations), Patch::Json(patch.clone())] {
            let _ = patched(&live, &patch, &KEYS);
        }
        if live.is_object() && patch.is_object() {
            let _ = apply(Some(&live), &patch, &request("m", false), &KEYS);
            let _ = apply(None, &patch, &request("m", true), &KEYS);
            let mut new = patch;
            managed::updated(Some(&live), &mut new, "m", "v1", "", &KEYS);
        }
    }

    #[test]
    fn field_sets_survive_their_written_form(a in document(), b in document()) {
        let (a, b) = (Fields::of(&a, &KEYS), Fields::of(&b, &KEYS));
        prop_assert_eq!(&Fields::root(&a.to_value()), &a);
        prop_assert!(a.difference(&a).is_empty());
        prop_assert_eq!(a.union(&b), b.union(&a));
        prop_assert_eq!(a.intersection(&b).union(&a.difference(&b)), a);
    }

    #[test]
    fn nothing_differs_from_itself(a in document()) {
        let difference = compare(&a, &a, &KEYS);
        prop_assert!(difference.changed.is_empty() && difference.removed.is_empty());
    }

    #[test]
    fn a_merge_patch_made_of_the_result_changes_nothing(live in document(), patch in document()) {
        let mut once = live;
        merge::patch(&mut once, &patch);
        let mut twice = once.clone();
        merge::patch(&mut twice, &patch);
        prop_assert_eq!(once, twice);
    }

    #[test]
    fn a_json_patch_that_adds_and_removes_leaves_the_document(live in document()) {
        if live.is_object() && live.get("new").is_none() {
            let mut changed = live.clone();
            let operations = json!([{"op": "add", "path": "/new", "value": 1}, {"op": "test", "path": "/new", "value": 1}, {"op": "remove", "path": "/new"}]);
            json::patch(&mut changed, &operations).unwrap();
            prop_assert_eq!(changed, live);
        }
    }

    #[test]
    fn what_a_manager_applies_is_there(first in manifest(), second in manifest()) {
        let live = apply(None, &first, &request("one", false), &KEYS).unwrap();
        let live = apply(Some(&live), &second, &request("two", true), &KEYS).unwrap();
        let (there, wanted) = (content(&live), content(&second));
        for (path, value) in wanted {
            prop_assert_eq!(there.get(&path), Some(&value), "{}", path);
        }
    }

    #[test]
    fn what_the_only_manager_stops_applying_disappears(first in manifest(), second in manifest()) {
        let live = apply(None, &first, &request("one", false), &KEYS).unwrap();
        let live = apply(Some(&live), &second, &request("one", false), &KEYS).unwrap();
        prop_assert_eq!(content(&live), content(&second));
    }

    #[test]
    fn fields_disappear_with_their_last_manager_and_not_before(shared in manifest(), own in manifest()) {
        let live = apply(None, &shared, &request("one", false), &KEYS).unwrap();
        let live = apply(Some(&live), &shared, &request("two", false), &KEYS).unwrap();
        // The first manager goes on with something else; what it drops is still applied by the second.
        let live = apply(Some(&live), &own, &request("one", true), &KEYS).unwrap();
        let there = content(&live);
        for path in content(&shared).keys() {
            prop_assert!(there.contains_key(path), "{} went with its first manager", path);
        }
        // When the second one stops too, only what the first applies is left.
        let live = apply(Some(&live), &json!({"metadata": {}, "spec": {}}), &request("two", true), &KEYS).unwrap();
        prop_assert_eq!(content(&live), content(&own));
    }

    #[test]
    fn a_conflict_is_refused_exactly_when_another_ones_value_would_change(first in manifest(), second in manifest()) {
        let live = apply(None, &first, &request("one", false), &KEYS).unwrap();
        let (mine, theirs) = (content(&second), content(&first));
        let contested = mine.iter().any(|(path, v)| theirs.get(path).is_some_and(|t| t != v));
        let result = apply(Some(&live), &second, &request("two", false), &KEYS);
        prop_assert_eq!(result.is_err(), contested, "{:?}", result.err());
    }
}

#[test]
fn a_move_into_itself_is_refused() {
    let mut document = json!({"a": {"b": 1}});
    let operations = json!([{"op": "move", "from": "/a", "path": "/a/b"}]);
    assert_eq!(json::patch(&mut document, &operations).unwrap_err().code, 422);
}
