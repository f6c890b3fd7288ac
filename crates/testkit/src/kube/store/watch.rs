//! Following changes.

use std::{collections::VecDeque, sync::Arc};

use serde_json::{Value, json};

use super::{Change, ChangeKind, Store, of};
use crate::kube::{
    convert,
    registry::{Gvr, ResourceType},
    selectors::{FieldSelector, LabelSelector},
    status::{Result, StatusError},
    value::set,
};

/// What to watch.
#[derive(Debug, Clone, Default)]
pub struct WatchOptions {
    /// One namespace, or all.
    pub namespace: Option<String>,
    /// Only objects with these labels.
    pub labels: LabelSelector,
    /// Only objects with these fields.
    pub fields: FieldSelector,
    /// Changes after this version; `None` starts with the objects there are now.
    pub from: Option<u64>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchEventKind {
    /// It exists, or has begun to match the selector.
    Added,
    /// It changed.
    Modified,
    /// It is gone, or has ceased to match the selector.
    Deleted,
}

impl WatchEventKind {
    /// `ADDED`, `MODIFIED`, `DELETED`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// One event of a watch.
#[derive(Debug, Clone)]
pub struct WatchEvent {
    /// What happened.
    pub kind: WatchEventKind,
    /// The object; for a deletion its last state.
    pub object: Value,
}

/// An open watch.
#[derive(Debug)]
pub struct Watcher {
    store: Store,
    resource: Arc<ResourceType>,
    options: WatchOptions,
    seen: u64,
    ready: VecDeque<WatchEvent>,
    changes: tokio::sync::watch::Receiver<u64>,
}

impl Store {
    /// Opens a watch.
    ///
    /// # Errors
    /// 404 unknown resource, 400 unsupported field, 410 when `from` is too old.
    pub fn watch(&self, gvr: &Gvr, options: WatchOptions) -> Result<Watcher> {
        let changes = self.changes();
        let state = self.lock();
        let resource = state.resolve(gvr)?;
        options.fields.check(&resource)?;
        let mut ready = VecDeque::new();
        let seen = match options.from {
            Some(from) if from < state.compacted => return Err(too_old(from, state.compacted)),
            Some(from) => from,
            None => {
                for (key, object) in of(&state.objects, &resource.storage) {
                    if in_scope(&options, &resource, &key.namespace) {
                        let object = convert::shown(object, &resource);
                        if matches(&options, &object) {
                            ready.push_back(WatchEvent { kind: WatchEventKind::Added, object });
                        }
                    }
                }
                state.version
            }
        };
        drop(state);
        Ok(Watcher { store: self.clone(), resource, options, seen, ready, changes })
    }
}

fn too_old(from: u64, oldest: u64) -> StatusError {
    StatusError::expired(format!("too old resource version: {from} ({oldest})"))
}

fn in_scope(options: &WatchOptions, t: &ResourceType, namespace: &str) -> bool {
    !t.namespaced || options.namespace.as_deref().is_none_or(|n| n == namespace)
}

fn matches(options: &WatchOptions, object: &Value) -> bool {
    options.labels.matches(object) && options.fields.matches(object)
}

impl Watcher {
    /// The version up to which everything has been delivered or did not concern this watch.
    pub fn version(&self) -> u64 {
        self.seen
    }

    /// An event that is there already.
    ///
    /// # Errors
    /// 410 when this watch has lagged behind too far; it is over then.
    pub fn try_next(&mut self) -> Result<Option<WatchEvent>> {
        if self.ready.is_empty() {
            self.fill()?;
        }
        Ok(self.ready.pop_front())
    }

    /// The next event. Waits for it; safe to cancel.
    ///
    /// # Errors
    /// 410 when this watch has lagged behind too far; it is over then.
    pub async fn next(&mut self) -> Result<WatchEvent> {
        loop {
            self.changes.mark_unchanged();
            if let Some(event) = self.try_next()? {
                return Ok(event);
            }
            if self.changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    fn fill(&mut self) -> Result<()> {
        let fresh: Vec<Arc<Change>> = {
            let state = self.store.lock();
            if self.seen < state.compacted {
                return Err(too_old(self.seen, state.compacted));
            }
            let skip = state.history.partition_point(|c| c.version <= self.seen);
            let fresh = state.history.iter().skip(skip).cloned().collect();
            self.seen = self.seen.max(state.version);
            fresh
        };
        for change in fresh {
            if change.key.resource != self.resource.storage
                || !in_scope(&self.options, &self.resource, &change.key.namespace)
            {
                continue;
            }
            if let Some(event) = self.seen_from_here(&change) {
                self.ready.push_back(event);
            }
        }
        Ok(())
    }

    /// The change as this watch's selector sees it.
    fn seen_from_here(&self, change: &Change) -> Option<WatchEvent> {
        let object = convert::shown(&change.object, &self.resource);
        let was = change.before.as_ref().map(|b| convert::shown(b, &self.resource));
        let before = was.as_ref().is_some_and(|b| matches(&self.options, b));
        let now = change.kind != ChangeKind::Deleted && matches(&self.options, &object);
        let kind = match (before, now) {
            (false, false) => return None,
            (false, true) => WatchEventKind::Added,
            (true, true) => WatchEventKind::Modified,
            (true, false) => WatchEventKind::Deleted,
        };
        // What has left the selector is shown as it was, with the version of the change.
        let object = match (kind, was) {
            (WatchEventKind::Deleted, Some(mut was)) => {
                set(&mut was, &["metadata", "resourceVersion"], change.version.to_string());
                was
            }
            _ => object,
        };
        Some(WatchEvent { kind, object })
    }

    /// The object of a bookmark event.
    pub(crate) fn bookmark(&self, initial_end: bool) -> Value {
        let mut meta = json!({"resourceVersion": self.seen.to_string(), "creationTimestamp": null});
        if initial_end {
            set(&mut meta, &["annotations"], json!({"k8s.io/initial-events-end": "true"}));
        }
        json!({"kind": self.resource.kind, "apiVersion": self.resource.api_version(), "metadata": meta})
    }
}
