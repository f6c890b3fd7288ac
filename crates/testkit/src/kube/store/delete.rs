//! Deleting: preconditions, finalizers, grace, propagation.

use std::sync::Arc;

use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use super::{State, Store, has_finalizers, key, list::ListOptions, scope, timestamp};
use crate::kube::{
    convert,
    registry::{Gvr, ResourceType},
    status::{Result, StatusError},
    value::{self, list, set, text},
};

/// What happens to the objects that the deleted one owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Propagation {
    /// They go afterwards.
    #[default]
    Background,
    /// They go first; until then the owner stays with a finalizer.
    Foreground,
    /// They stay, without an owner.
    Orphan,
}

/// How to delete.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct DeleteOptions {
    /// What happens to owned objects.
    pub propagation: Propagation,
    /// Seconds a pod has to end; its own setting when none are given.
    pub grace_seconds: Option<i64>,
    /// Only if it still has this uid.
    pub uid: Option<String>,
    /// Only if it still has this resource version.
    pub resource_version: Option<String>,
    /// Everything is checked, nothing is deleted.
    pub dry_run: bool,
}

impl DeleteOptions {
    /// At once, whatever the pod or its node says.
    pub fn now() -> Self {
        Self { grace_seconds: Some(0), ..Self::default() }
    }
    /// With this propagation.
    pub fn propagation(propagation: Propagation) -> Self {
        Self { propagation, ..Self::default() }
    }
}

/// What a deletion did.
#[derive(Debug, Clone)]
pub(crate) enum Deleted {
    /// The object is gone.
    Gone(Value),
    /// It is marked, and goes when its finalizers or its grace period are through.
    Marked(Value),
}

impl Store {
    /// Deletes an object. Finalizers, and the grace period of a running pod, make that a mark only.
    ///
    /// # Errors
    /// 404, or 409 when a precondition does not hold.
    pub fn delete(
        &self,
        gvr: &Gvr,
        namespace: Option<&str>,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Value> {
        match self.delete_with(gvr, namespace, name, options)? {
            Deleted::Gone(v) | Deleted::Marked(v) => Ok(v),
        }
    }

    pub(crate) fn delete_with(
        &self,
        gvr: &Gvr,
        namespace: Option<&str>,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Deleted> {
        let mut state = self.lock();
        let t = state.resolve(gvr)?;
        let result = delete(&mut state, &t, scope(&t, namespace), name, options)?;
        let version = state.version;
        drop(state);
        self.wake(version);
        Ok(result)
    }

    /// Deletes all that match; the objects as they were.
    ///
    /// # Errors
    /// As [`Store::list_page`] and [`Store::delete`]; what vanished in between is no error.
    pub fn delete_collection(
        &self,
        gvr: &Gvr,
        what: &ListOptions,
        options: &DeleteOptions,
    ) -> Result<Vec<Value>> {
        let found = self.list_page(gvr, what)?.items;
        for object in &found {
            let namespace = Some(value::namespace(object)).filter(|n| !n.is_empty());
            match self.delete(gvr, namespace, value::name(object), options) {
                Err(e) if !e.is_not_found() => return Err(e),
                _ => {}
            }
        }
        Ok(found)
    }
}

fn delete(
    state: &mut State,
    t: &Arc<ResourceType>,
    namespace: &str,
    name: &str,
    options: &DeleteOptions,
) -> Result<Deleted> {
    let live = state
        .find(t, namespace, name)
        .cloned()
        .ok_or_else(|| StatusError::not_found(&t.group, &t.plural, name))?;
    let check = |what: &str, wanted: &Option<String>, is: &str| match wanted {
        Some(w) if w != is => {
            let why =
                format!("Precondition failed: {what} in precondition: {w}, {what} in object meta: {is}");
            Err(StatusError::conflict(&t.group, &t.plural, name, &why))
        }
        _ => Ok(()),
    };
    check("UID", &options.uid, value::uid(&live))?;
    check("ResourceVersion", &options.resource_version, text(&live, &["metadata", "resourceVersion"]))?;
    if t.is("", "namespaces") && matches!(name, "default" | "kube-system" | "kube-public" | "kube-node-lease")
    {
        return Err(StatusError::forbidden("", "namespaces", name, "this namespace may not be deleted"));
    }
    let mut new = (*live).clone();
    match options.propagation {
        Propagation::Foreground => add_finalizer(&mut new, "foregroundDeletion"),
        Propagation::Orphan => add_finalizer(&mut new, "orphan"),
        Propagation::Background => {}
    }
    let grace = grace_of(t, &live, options.grace_seconds);
    let held = t.is("", "namespaces") && !value::items(&live, &["spec", "finalizers"]).is_empty();
    let k = key(t, namespace, name);
    if !has_finalizers(&new) && grace == 0 && !held {
        let gone = if options.dry_run { live } else { state.commit(k, None) };
        return Ok(Deleted::Gone(convert::shown(&gone, t)));
    }
    let already = value::int(&live, &["metadata", "deletionGracePeriodSeconds"]);
    if !value::deleting(&live) || already.is_some_and(|a| grace < a) {
        let at = OffsetDateTime::now_utc() + Duration::seconds(grace);
        set(&mut new, &["metadata", "deletionTimestamp"], timestamp(at));
        set(&mut new, &["metadata", "deletionGracePeriodSeconds"], grace);
        if t.has_generation() {
            let next = value::int(&live, &["metadata", "generation"]).unwrap_or(0) + 1;
            set(&mut new, &["metadata", "generation"], next);
        }
    }
    if t.is("", "namespaces") {
        set(&mut new, &["status", "phase"], "Terminating");
    }
    if options.dry_run || new == *live {
        return Ok(Deleted::Marked(convert::shown(&new, t)));
    }
    let made = state.commit(k, Some(new));
    Ok(Deleted::Marked(convert::shown(&made, t)))
}

fn add_finalizer(object: &mut Value, finalizer: &str) {
    let all = list(object, &["metadata", "finalizers"]);
    if !all.iter().any(|f| f == finalizer) {
        all.push(json!(finalizer));
    }
}

/// Only a pod that a node has begun to run needs time to end.
fn grace_of(t: &ResourceType, pod: &Value, asked: Option<i64>) -> i64 {
    if !t.is("", "pods") || text(pod, &["spec", "nodeName"]).is_empty() {
        return 0;
    }
    if matches!(text(pod, &["status", "phase"]), "Succeeded" | "Failed") {
        return 0;
    }
    asked.or_else(|| value::int(pod, &["spec", "terminationGracePeriodSeconds"])).unwrap_or(30).max(0)
}
