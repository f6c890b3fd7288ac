//! The way of a write: identity, namespace, admission, ownership, commit, in the real server's order of checks.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Part, State, WriteOptions, has_finalizers, key, new_uid, now};
use crate::kube::{
    admit, convert,
    patch::{self, managed},
    registry::ResourceType,
    status::{Cause, Result, StatusError},
    value::{self, at, object, remove, set, text},
};

/// apiVersion, kind, name and namespace of a received object must be those of the request.
pub(crate) fn check_identity(object: &Value, t: &ResourceType, namespace: &str, name: &str) -> Result<()> {
    if !object.is_object() {
        return Err(StatusError::bad_request("the object provided is unrecognized: expected a JSON object"));
    }
    let (api_version, kind) = (text(object, &["apiVersion"]), text(object, &["kind"]));
    if !kind.is_empty() && kind != t.kind {
        let why = format!(
            "{kind} in version {:?} cannot be handled as a {}: no kind {kind:?} is registered for this resource",
            t.version, t.kind
        );
        return Err(StatusError::bad_request(why));
    }
    if !api_version.is_empty() && api_version != t.api_version() {
        let why = format!(
            "the API version in the data ({api_version}) does not match the expected API version ({})",
            t.api_version()
        );
        return Err(StatusError::bad_request(why));
    }
    let given = value::namespace(object);
    if t.namespaced && !given.is_empty() && given != namespace {
        let why = format!(
            "the namespace of the provided object does not match the namespace sent on the request (the object: {given}, the request: {namespace})"
        );
        return Err(StatusError::bad_request(why));
    }
    let given = value::name(object);
    if !name.is_empty() && !given.is_empty() && given != name {
        let why = format!("the name of the object ({given}) does not match the name on the URL ({name})");
        return Err(StatusError::bad_request(why));
    }
    Ok(())
}

const GENERATED: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Five characters as Kubernetes appends them to a `generateName`.
pub(crate) fn random_suffix() -> String {
    (0..5).map(|_| char::from(GENERATED[rand::random::<u32>() as usize % GENERATED.len()])).collect()
}

fn check_namespace(state: &State, t: &ResourceType, namespace: &str, name: &str) -> Result<()> {
    if !t.namespaced {
        return Ok(());
    }
    let found = state.of("/namespaces").find(|n| value::name(n) == namespace);
    let Some(found) = found else {
        return Err(StatusError::not_found("", "namespaces", namespace));
    };
    if value::deleting(found) {
        let why =
            format!("unable to create new content in namespace {namespace} because it is being terminated");
        let cause = json!([{
            "reason": "NamespaceTerminating",
            "message": format!("namespace {namespace} is being terminated"),
            "field": "metadata.namespace",
        }]);
        return Err(StatusError::forbidden(&t.group, &t.plural, name, &why).detail("causes", cause));
    }
    Ok(())
}

pub(super) fn create(
    state: &mut State,
    t: &Arc<ResourceType>,
    namespace: &str,
    received: Value,
    options: &WriteOptions,
    applied: bool,
) -> Result<Arc<Value>> {
    check_identity(&received, t, namespace, "")?;
    let mut new = convert::stored(received, t);
    if !text(&new, &["metadata", "resourceVersion"]).is_empty() {
        return Err(StatusError::internal("resourceVersion should not be set on objects to be created"));
    }
    let base = text(&new, &["metadata", "generateName"]).to_owned();
    if value::name(&new).is_empty() && !base.is_empty() {
        let base: String = base.chars().take(58).collect();
        set(&mut new, &["metadata", "name"], format!("{base}{}", random_suffix()));
    }
    let name = value::name(&new).to_owned();
    check_namespace(state, t, namespace, &name)?;
    if t.plural != "events" || t.group != "events.k8s.io" {
        set(&mut new, &["apiVersion"], t.api_version());
    }
    set(&mut new, &["kind"], t.kind.clone());
    let fields = remove(&mut new, &["metadata", "managedFields"]);
    for field in [
        "uid",
        "selfLink",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "resourceVersion",
    ] {
        remove(&mut new, &["metadata", field]);
    }
    if t.namespaced {
        set(&mut new, &["metadata", "namespace"], namespace);
    } else {
        remove(&mut new, &["metadata", "namespace"]);
    }
    // A kubelet registers its Node with a status; everything else gets its status from controllers.
    if options.part == Part::Main && t.has("status") && !t.is("", "nodes") {
        remove(&mut new, &["status"]);
    }
    set(&mut new, &["metadata", "uid"], new_uid());
    set(&mut new, &["metadata", "creationTimestamp"], now());
    let mut written = admit::prepare(state, t, None, &mut new, options)?;
    if state.find(t, namespace, &name).is_some() {
        if !base.is_empty() {
            let why = "object was not created: the generated name is taken";
            return Err(StatusError::already_exists(&t.group, &t.plural, &name).detail("hint", why));
        }
        return Err(StatusError::already_exists(&t.group, &t.plural, &name));
    }
    if t.has_generation() {
        set(&mut new, &["metadata", "generation"], 1);
    }
    if applied {
        if let Some(fields) = fields {
            set(&mut new, &["metadata", "managedFields"], fields);
        }
    } else {
        let keys = patch::ListKeys::of(t);
        managed::updated(None, &mut written, &options.manager, &t.api_version(), options.subresource, &keys);
        set(&mut new, &["metadata", "managedFields"], written["metadata"]["managedFields"].take());
    }
    tidy_metadata(&mut new);
    if options.dry_run {
        return Ok(Arc::new(new));
    }
    let made = state.commit(key(t, namespace, &name), Some(new));
    if t.is("", "namespaces") {
        admit::fill_namespace(&name, |t, object| {
            let t = state.registry.get("", "v1", t);
            t.map(|t| create(state, &t, &name, object, &WriteOptions::by("kube-controller-manager"), false))
                .transpose()
                .map(|_| ())
        })?;
    }
    Ok(made)
}

pub(super) fn change(
    state: &mut State,
    t: &Arc<ResourceType>,
    namespace: &str,
    name: &str,
    options: &WriteOptions,
    edit: impl FnOnce(&Value) -> Result<Value>,
    applied: bool,
) -> Result<Arc<Value>> {
    let live = state
        .find(t, namespace, name)
        .cloned()
        .ok_or_else(|| StatusError::not_found(&t.group, &t.plural, name))?;
    let mut new = edit(&live)?;
    if !applied && new == *live {
        return Ok(live);
    }
    let events = t.group == "events.k8s.io";
    if !events {
        check_identity(&new, t, namespace, name).or_else(|e| {
            // A stored object may carry another version of the same kind.
            let same =
                text(&new, &["apiVersion"]) == text(&live, &["apiVersion"]) && value::name(&new) == name;
            if same { Ok(()) } else { Err(e) }
        })?;
    }
    let meta = |o: &Value, field: &str| text(o, &["metadata", field]).to_owned();
    let (given, mine) = (meta(&new, "uid"), meta(&live, "uid"));
    if !given.is_empty() && given != mine {
        let why = format!("Precondition failed: UID in precondition: {given}, UID in object meta: {mine}");
        return Err(StatusError::conflict(&t.group, &t.plural, name, &why));
    }
    let given = meta(&new, "resourceVersion");
    if given.is_empty() && t.custom.is_some() && !applied {
        let cause = Cause::invalid("metadata.resourceVersion", &json!(0), "must be specified for an update");
        return Err(StatusError::invalid(&t.group, &t.kind, name, &[cause]));
    }
    if !given.is_empty() && given != meta(&live, "resourceVersion") {
        return Err(StatusError::modified(&t.group, &t.plural, name));
    }
    let fields = remove(&mut new, &["metadata", "managedFields"]);
    confine(t, &live, &mut new, options.part);
    for field in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "resourceVersion",
        "generateName",
    ] {
        match live["metadata"].get(field) {
            Some(v) => set(&mut new, &["metadata", field], v.clone()),
            None => {
                remove(&mut new, &["metadata", field]);
            }
        }
    }
    // A mark inside the server: these kinds are deleted by writing it (see `delete.rs`).
    if !events {
        set(&mut new, &["apiVersion"], t.api_version());
    }
    set(&mut new, &["kind"], t.kind.clone());
    let mut written = admit::prepare(state, t, Some(&live), &mut new, options)?;
    if value::deleting(&live) {
        let had = value::items(&live, &["metadata", "finalizers"]);
        let added = value::items(&new, &["metadata", "finalizers"]).iter().find(|f| !had.contains(f));
        if added.is_some() {
            let why = "no new finalizers can be added if the object is being deleted";
            let cause = Cause::forbidden("metadata.finalizers", why);
            return Err(StatusError::invalid(&t.group, &t.kind, name, &[cause]));
        }
    }
    if t.has_generation() && spec_changed(&live, &new) {
        let next = value::int(&live, &["metadata", "generation"]).unwrap_or(0) + 1;
        set(&mut new, &["metadata", "generation"], next);
    }
    if applied {
        match fields {
            Some(fields) => set(&mut new, &["metadata", "managedFields"], fields),
            None => set(&mut new, &["metadata", "managedFields"], live["metadata"]["managedFields"].clone()),
        }
    } else {
        // Clients may rewrite the list (kubectl does, to take over its old entries); an empty one resets it.
        let kept = fields.unwrap_or(Value::Null);
        managed::keep(&live, &mut written, kept);
        let keys = patch::ListKeys::of(t);
        managed::updated(
            Some(&live),
            &mut written,
            &options.manager,
            &t.api_version(),
            options.subresource,
            &keys,
        );
        set(&mut new, &["metadata", "managedFields"], written["metadata"]["managedFields"].take());
    }
    tidy_metadata(&mut new);
    if managed::same(&live, &new) {
        return Ok(live);
    }
    if options.dry_run {
        return Ok(Arc::new(new));
    }
    let k = key(t, namespace, name);
    if finished(&new, t) {
        let made = state.commit(k.clone(), Some(new));
        state.commit(k, None);
        return Ok(made);
    }
    Ok(state.commit(k, Some(new)))
}

/// Whether nothing holds an object back any more that is being deleted.
fn finished(object: &Value, t: &ResourceType) -> bool {
    let grace = value::int(object, &["metadata", "deletionGracePeriodSeconds"]).unwrap_or(0);
    let held = t.is("", "namespaces") && !value::items(object, &["spec", "finalizers"]).is_empty();
    value::deleting(object) && !has_finalizers(object) && grace == 0 && !held
}

/// Leaves only what the written part may change.
fn confine(t: &ResourceType, live: &Value, new: &mut Value, part: Part) {
    let keep = |new: &mut Value, field: &str| match live.get(field) {
        Some(v) => set(new, &[field], v.clone()),
        None => {
            remove(new, &[field]);
        }
    };
    match part {
        Part::Main if t.has("status") => keep(new, "status"),
        Part::Status => {
            let status = new.get("status").cloned();
            let annotations = at(new, &["metadata", "annotations"]).clone();
            *new = live.clone();
            remove(new, &["metadata", "managedFields"]);
            match status {
                Some(status) => set(new, &["status"], status),
                None => {
                    remove(new, &["status"]);
                }
            }
            // The kubelet annotates its node and its pods while it reports their status.
            if t.custom.is_none() && annotations.is_object() {
                set(new, &["metadata", "annotations"], annotations);
            }
        }
        Part::Main | Part::All => {}
    }
}

fn spec_changed(live: &Value, new: &Value) -> bool {
    let parts = |v: &Value| {
        let mut v = v.clone();
        let map = object(&mut v);
        for key in ["metadata", "status", "apiVersion", "kind"] {
            map.shift_remove(key);
        }
        v
    };
    parts(live) != parts(new)
}

/// Drops empty maps and lists, as the real server's encoder does.
fn tidy_metadata(object: &mut Value) {
    if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.retain(|key, v| {
            !(v.is_null()
                || (matches!(
                    key.as_str(),
                    "labels" | "annotations" | "finalizers" | "ownerReferences" | "managedFields"
                ) && (v.as_object().is_some_and(serde_json::Map::is_empty)
                    || v.as_array().is_some_and(Vec::is_empty))))
        });
    }
}
