//! The objects, their versions, and what happened to them.
//!
//! One lock around plain data: nothing here waits. A change gets the next resource version, is remembered in a bounded
//! history (from which watches and paged lists are served), and wakes the watchers.

mod delete;
mod list;
mod pipeline;
mod watch;
mod write;

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::Value;
use time::OffsetDateTime;

pub(crate) use self::{delete::Deleted, pipeline::check_identity, write::Part};
pub use self::{
    delete::{DeleteOptions, Propagation},
    list::{ListOptions, ListPage},
    watch::{WatchEvent, WatchEventKind, WatchOptions, Watcher},
    write::WriteOptions,
};
use super::{
    convert,
    network::Network,
    registry::{Gvr, Registry, ResourceType},
    status::{Result, StatusError},
    value::{self, set},
};

/// How many changes a watch may lag behind before it gets 410 Gone.
const HISTORY: usize = 4096;

/// Where an object lies: `group/plural`, namespace (empty for cluster scope), name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) resource: Arc<str>,
    pub(crate) namespace: Arc<str>,
    pub(crate) name: Arc<str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChangeKind {
    Added,
    Modified,
    Deleted,
}

/// One change, as the history keeps it.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) version: u64,
    pub(crate) kind: ChangeKind,
    pub(crate) key: Key,
    /// The object after the change; a deleted one carries the version of its deletion.
    pub(crate) object: Arc<Value>,
    pub(crate) before: Option<Arc<Value>>,
}

pub(crate) type Objects = BTreeMap<Key, Arc<Value>>;

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) objects: Arc<Objects>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) network: Network,
    version: u64,
    history: VecDeque<Arc<Change>>,
    /// Changes up to this version are forgotten.
    compacted: u64,
}

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    latest: tokio::sync::watch::Sender<u64>,
}

/// The cluster's objects. Clones share them.
///
/// Every method goes through the admission of the real server (defaults, validation, allocation of addresses,
/// `resourceVersion`, `generation`, `managedFields`), so that what the simulated node agents write and what clients write
/// is treated alike.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

/// All objects at one moment; taking one copies nothing.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub(crate) objects: Arc<Objects>,
    pub(crate) registry: Arc<Registry>,
    version: u64,
}

impl Snapshot {
    /// The resource version at that moment.
    pub fn version(&self) -> u64 {
        self.version
    }
    /// How many objects it holds.
    pub fn len(&self) -> usize {
        self.objects.len()
    }
    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }
    /// Everything in it as one JSON value, for [`Snapshot::from_json`]: a datastore file.
    pub fn to_json(&self) -> Value {
        let objects: Vec<Value> = self
            .objects
            .iter()
            .map(|(key, object)| {
                serde_json::json!({
                    "resource": &*key.resource, "namespace": &*key.namespace, "name": &*key.name, "object": **object
                })
            })
            .collect();
        serde_json::json!({ "version": self.version, "objects": objects })
    }
    /// What [`Snapshot::to_json`] gave; `None` when it is anything else.
    pub fn from_json(value: &Value) -> Option<Self> {
        let mut objects = Objects::new();
        for entry in value.get("objects")?.as_array()? {
            let text = |key: &str| entry.get(key).and_then(Value::as_str).map(Arc::from);
            let key = Key { resource: text("resource")?, namespace: text("namespace")?, name: text("name")? };
            objects.insert(key, Arc::new(entry.get("object")?.clone()));
        }
        let registry = Registry::with_crds(of(&objects, CRDS).map(|(_, object)| &**object));
        let version = value.get("version")?.as_u64()?;
        Some(Self { objects: Arc::new(objects), registry: Arc::new(registry), version })
    }
    /// The objects of a resource, of all namespaces, in the order of namespace and name.
    pub(crate) fn of<'a>(
        &'a self,
        group: &str,
        plural: &str,
    ) -> impl Iterator<Item = &'a Arc<Value>> + use<'a> {
        of(&self.objects, &format!("{group}/{plural}")).map(|(_, v)| v)
    }
    pub(crate) fn get(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<&Arc<Value>> {
        self.objects.get(&Key {
            resource: format!("{group}/{plural}").into(),
            namespace: namespace.into(),
            name: name.into(),
        })
    }
}

/// The objects stored under `group/plural`.
pub(crate) fn of<'a>(
    objects: &'a Objects,
    resource: &str,
) -> impl Iterator<Item = (&'a Key, &'a Arc<Value>)> + use<'a> {
    let resource: Arc<str> = resource.into();
    let from = Key { resource: Arc::clone(&resource), namespace: "".into(), name: "".into() };
    objects.range((Bound::Included(from), Bound::Unbounded)).take_while(move |(k, _)| k.resource == resource)
}

impl State {
    pub(crate) fn resolve(&self, gvr: &Gvr) -> Result<Arc<ResourceType>> {
        self.registry.get(&gvr.group, &gvr.version, &gvr.plural).ok_or_else(StatusError::no_such_path)
    }
    pub(crate) fn find(&self, t: &ResourceType, namespace: &str, name: &str) -> Option<&Arc<Value>> {
        self.objects.get(&key(t, namespace, name))
    }
    pub(crate) fn of(&self, resource: &str) -> impl Iterator<Item = &Arc<Value>> {
        of(&self.objects, resource).map(|(_, v)| v)
    }

    /// Writes a change: gives it a version, remembers it, and follows CRDs.
    fn commit(&mut self, key: Key, new: Option<Value>) -> Arc<Value> {
        self.version += 1;
        let version = self.version;
        let before = self.objects.get(&key).cloned();
        let (kind, mut object) = match (new, &before) {
            (Some(new), Some(_)) => (ChangeKind::Modified, new),
            (Some(new), None) => (ChangeKind::Added, new),
            (None, Some(before)) => (ChangeKind::Deleted, (**before).clone()),
            (None, None) => (ChangeKind::Deleted, Value::Null),
        };
        set(&mut object, &["metadata", "resourceVersion"], version.to_string());
        let object = Arc::new(object);
        let objects = Arc::make_mut(&mut self.objects);
        match kind {
            ChangeKind::Deleted => objects.remove(&key),
            _ => objects.insert(key.clone(), Arc::clone(&object)),
        };
        let crd = &*key.resource == CRDS;
        self.history.push_back(Arc::new(Change { version, kind, key, object: Arc::clone(&object), before }));
        while self.history.len() > HISTORY {
            if let Some(old) = self.history.pop_front() {
                self.compacted = old.version;
            }
        }
        if crd {
            self.follow_crds();
        }
        object
    }

    fn follow_crds(&mut self) {
        let registry = Registry::with_crds(self.of(CRDS).map(|v| &**v));
        self.registry = Arc::new(registry);
    }

    /// The objects as they were at `version`.
    fn as_of(&self, version: u64) -> Result<Arc<Objects>> {
        if version == self.version {
            return Ok(Arc::clone(&self.objects));
        }
        if version < self.compacted {
            return Err(StatusError::expired(
                "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter.",
            ));
        }
        let mut objects = (*self.objects).clone();
        for change in self.history.iter().rev().take_while(|c| c.version > version) {
            match &change.before {
                Some(before) => objects.insert(change.key.clone(), Arc::clone(before)),
                None => objects.remove(&change.key),
            };
        }
        Ok(Arc::new(objects))
    }
}

const CRDS: &str = "apiextensions.k8s.io/customresourcedefinitions";

pub(crate) fn key(t: &ResourceType, namespace: &str, name: &str) -> Key {
    Key { resource: Arc::clone(&t.storage), namespace: namespace.into(), name: name.into() }
}

/// `2026-11-23T06:02:14Z`.
pub(crate) fn timestamp(at: OffsetDateTime) -> String {
    let format = time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    at.format(format).unwrap_or_default()
}
pub(crate) fn now() -> String {
    timestamp(OffsetDateTime::now_utc())
}
pub(crate) fn parse_time(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).ok()
}
/// A fresh random UUID (version 4).
pub(crate) fn new_uid() -> String {
    let mut b = rand::random::<u128>().to_be_bytes();
    b[6] = (b[6] & 0x0f) | 0x40;
    b[8] = (b[8] & 0x3f) | 0x80;
    let h = hex::encode(b);
    format!("{}-{}-{}-{}-{}", &h[..8], &h[8..12], &h[12..16], &h[16..20], &h[20..])
}

impl Store {
    /// An empty store; [`crate::ApiServer`] fills in what every cluster has from the start.
    pub(crate) fn new(network: Network) -> Self {
        let (latest, _) = tokio::sync::watch::channel(1);
        let state = State {
            objects: Arc::default(),
            registry: Arc::new(Registry::built_in()),
            network,
            version: 1,
            history: VecDeque::new(),
            compacted: 0,
        };
        Self(Arc::new(Inner { state: Mutex::new(state), latest }))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn wake(&self, version: u64) {
        // A write that changed nothing wakes nobody: the controllers make many of them.
        self.0.latest.send_if_modified(|latest| std::mem::replace(latest, version.max(*latest)) < version);
    }
    /// Becomes ready whenever something has changed.
    pub(crate) fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.0.latest.subscribe()
    }
    pub(crate) fn registry(&self) -> Arc<Registry> {
        Arc::clone(&self.lock().registry)
    }

    /// The latest resource version.
    pub fn version(&self) -> u64 {
        self.lock().version
    }

    /// The object, as that version of its resource shows it.
    ///
    /// # Errors
    /// 404 when there is no such object or resource.
    pub fn get(&self, gvr: &Gvr, namespace: Option<&str>, name: &str) -> Result<Value> {
        let state = self.lock();
        let t = state.resolve(gvr)?;
        state
            .find(&t, scope(&t, namespace), name)
            .map(|o| convert::shown(o, &t))
            .ok_or_else(|| StatusError::not_found(&t.group, &t.plural, name))
    }

    /// The object, if it exists.
    pub fn find(&self, gvr: &Gvr, namespace: Option<&str>, name: &str) -> Option<Value> {
        self.get(gvr, namespace, name).ok()
    }

    /// All objects of a resource, of one namespace or (`None`) of all.
    ///
    /// # Errors
    /// 404 when there is no such resource.
    pub fn list(&self, gvr: &Gvr, namespace: Option<&str>) -> Result<Vec<Value>> {
        Ok(self
            .list_page(
                gvr,
                &ListOptions { namespace: namespace.map(str::to_owned), ..ListOptions::default() },
            )?
            .items)
    }

    /// Everything, at this moment: what a datastore backup holds.
    pub fn snapshot(&self) -> Snapshot {
        let state = self.lock();
        Snapshot {
            objects: Arc::clone(&state.objects),
            registry: Arc::clone(&state.registry),
            version: state.version,
        }
    }

    /// Puts the objects of a snapshot back. Versions go on rising, and watches that were open get 410 Gone.
    pub fn restore(&self, snapshot: &Snapshot) {
        let version = {
            let mut state = self.lock();
            state.version = state.version.max(snapshot.version) + 1;
            state.objects = Arc::clone(&snapshot.objects);
            state.history.clear();
            state.compacted = state.version;
            state.follow_crds();
            state.version
        };
        self.wake(version);
    }

    /// Forgets the history, so that every earlier resource version is too old to watch from.
    pub fn compact(&self) {
        let version = {
            let mut state = self.lock();
            state.history.clear();
            state.version += 1;
            state.compacted = state.version;
            state.version
        };
        self.wake(version);
    }
}

/// The namespace part of a key: nothing for cluster-scoped resources, `default` when a namespaced one names none.
pub(crate) fn scope<'a>(t: &ResourceType, namespace: Option<&'a str>) -> &'a str {
    if t.namespaced { namespace.filter(|n| !n.is_empty()).unwrap_or("default") } else { "" }
}

/// Whether an object has a finalizer.
pub(crate) fn has_finalizers(object: &Value) -> bool {
    !value::items(object, &["metadata", "finalizers"]).is_empty()
}
