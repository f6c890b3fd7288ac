//! The controllers: what makes a cluster look alive.
//!
//! One task that looks at the whole store after every change, does what each controller would do next, and sleeps until
//! something changes or something is due. Level-triggered throughout: nothing depends on having seen an event.

mod batch;
pub(crate) mod budget;
mod crds;
mod daemons;
mod deployments;
mod garbage;
mod namespaces;
mod nodes;
mod pods;
mod replicas;
mod scheduler;
mod services;
mod stateful;
mod template;
mod volumes;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::{
    registry::Gvr,
    status::Result,
    store::{DeleteOptions, Part, Snapshot, Store, WriteOptions, now},
    value::{self, items, list, set, text},
};
use crate::Pace;

/// The least that deadlines and tolerations are worth.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the controllers need.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) store: Store,
    pub(crate) pace: Pace,
    pub(crate) root_ca: String,
    /// Services of type LoadBalancer get the nodes' addresses (k3s's servicelb).
    pub(crate) service_lb: Arc<AtomicBool>,
}

/// Runs the controllers while a door is open; never ends by itself.
pub(crate) async fn run(context: Context, mut doors: tokio::sync::watch::Receiver<usize>) {
    let mut changes = context.store.changes();
    let mut clocks = Clocks { pace: context.pace, due: HashMap::new(), round: 0 };
    loop {
        if doors.wait_for(|open| *open > 0).await.is_err() {
            return;
        }
        changes.mark_unchanged();
        let next = pass(&context, &mut clocks);
        let due = async {
            match next {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = due => {}
        }
        // Several writes of one caller make one pass.
        tokio::task::yield_now().await;
    }
}

fn pass(context: &Context, clocks: &mut Clocks) -> Option<Instant> {
    clocks.round += 1;
    let mut pass = Pass {
        store: &context.store,
        objects: context.store.snapshot(),
        clocks,
        root_ca: &context.root_ca,
        service_lb: context.service_lb.load(Ordering::Relaxed),
    };
    crds::reconcile(&mut pass);
    namespaces::reconcile(&mut pass);
    garbage::reconcile(&mut pass);
    nodes::reconcile(&mut pass);
    deployments::reconcile(&mut pass);
    replicas::reconcile(&mut pass);
    stateful::reconcile(&mut pass);
    daemons::reconcile(&mut pass);
    batch::reconcile(&mut pass);
    volumes::reconcile(&mut pass);
    scheduler::reconcile(&mut pass);
    pods::reconcile(&mut pass);
    services::reconcile(&mut pass);
    budget::reconcile(&mut pass);
    clocks.next()
}

/// Delays that run: by object and purpose.
#[derive(Debug)]
struct Clocks {
    pace: Pace,
    due: HashMap<(String, &'static str), Delay>,
    round: u64,
}

/// A delay that somebody asked about.
#[derive(Debug, Clone, Copy)]
struct Delay {
    end: Instant,
    /// The round in which it was last asked about.
    asked: u64,
    /// Whether the answer was that it is over.
    over: bool,
}

impl Clocks {
    /// Whether `real` has passed since this was first asked for this object and purpose.
    fn passed(&mut self, uid: &str, what: &'static str, real: Duration) -> bool {
        let round = self.round;
        let now = Instant::now();
        let fresh = || Delay { end: now + real, asked: round, over: false };
        let delay = self.due.entry((uid.to_owned(), what)).or_insert_with(fresh);
        delay.asked = round;
        delay.over = delay.end <= now;
        delay.over
    }

    /// When the next delay ends that is still running. Delays nobody asked about in this round are forgotten.
    ///
    /// One that ended after it was asked about still counts: nobody has acted on it yet.
    fn next(&mut self) -> Option<Instant> {
        let round = self.round;
        self.due.retain(|_, delay| delay.asked == round);
        self.due.values().filter(|delay| !delay.over).map(|delay| delay.end).min()
    }
}

/// One look at everything.
pub(crate) struct Pass<'a> {
    pub(crate) store: &'a Store,
    pub(crate) objects: Snapshot,
    clocks: &'a mut Clocks,
    root_ca: &'a str,
    service_lb: bool,
}

impl Pass<'_> {
    fn passed(&mut self, object: &Value, what: &'static str, nominal: Duration) -> bool {
        self.clocks.passed(value::uid(object), what, self.clocks.pace.scale(nominal))
    }

    /// As [`Pass::passed`] for how long a controller puts up with something. Never less than [`PATIENCE`], however fast
    /// the pace: what it waits for also takes time that no pace scales. A new `state` starts from the beginning.
    fn lost_patience(&mut self, object: &Value, state: &str, what: &'static str, nominal: Duration) -> bool {
        let real = self.clocks.pace.scale(nominal).max(PATIENCE);
        self.clocks.passed(&format!("{}/{state}", value::uid(object)), what, real)
    }

    fn all(&self, group: &str, plural: &str) -> Vec<Arc<Value>> {
        self.objects.of(group, plural).cloned().collect()
    }

    /// Creates an object as a controller; a refusal is returned, not fatal.
    fn create(&self, manager: &str, gvr: &Gvr, namespace: &str, object: Value) -> Result<Value> {
        self.store.create_with(gvr, ns(namespace), object, &WriteOptions::by(manager).part(Part::All))
    }

    /// Edits an object as a controller. What vanished or changed in between is looked at again in the next pass.
    fn edit(&self, manager: &str, gvr: &Gvr, object: &Value, change: impl FnOnce(&mut Value)) {
        let mut options = WriteOptions::by(manager).part(Part::All);
        options.subresource = "status";
        self.write(gvr, object, &options, change);
    }

    /// As [`Pass::edit`] for changes that are no status.
    fn edit_spec(&self, manager: &str, gvr: &Gvr, object: &Value, change: impl FnOnce(&mut Value)) {
        self.write(gvr, object, &WriteOptions::by(manager).part(Part::All), change);
    }

    fn write(&self, gvr: &Gvr, object: &Value, options: &WriteOptions, change: impl FnOnce(&mut Value)) {
        let uid = value::uid(object);
        let done =
            self.store.modify_with(gvr, ns(value::namespace(object)), value::name(object), options, |live| {
                let mut new = live.clone();
                if value::uid(live) == uid {
                    change(&mut new);
                }
                Ok(new)
            });
        if let Err(error) = done
            && !error.is_not_found()
        {
            tracing::warn!(%error, resource = %gvr, name = value::name(object), "a controller's write was refused");
        }
    }

    fn delete(&self, gvr: &Gvr, object: &Value, mut options: DeleteOptions) {
        options.uid = Some(value::uid(object).to_owned());
        match self.store.delete(gvr, ns(value::namespace(object)), value::name(object), &options) {
            Err(error) if !error.is_not_found() => {
                tracing::warn!(%error, resource = %gvr, name = value::name(object), "a controller's deletion was refused");
            }
            _ => {}
        }
    }

    /// Records an Event; the same one again only raises its count when it is news.
    fn event(&self, about: &Value, component: &str, kind: &str, reason: &str, message: &str) {
        let namespace = Some(value::namespace(about)).filter(|n| !n.is_empty()).unwrap_or("default");
        let seed = format!("{}{reason}{message}", value::uid(about));
        let name = format!("{}.{}", value::name(about), &hex::encode(Sha256::digest(seed.as_bytes()))[..16]);
        if self.objects.get("", "events", namespace, &name).is_some() {
            return;
        }
        let event = json!({
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": {
                "apiVersion": about["apiVersion"], "kind": about["kind"], "name": value::name(about),
                "namespace": value::namespace(about), "uid": value::uid(about),
                "resourceVersion": text(about, &["metadata", "resourceVersion"]),
            },
            "reason": reason, "message": message, "type": kind, "count": 1,
            "firstTimestamp": now(), "lastTimestamp": now(),
            "source": {"component": component}, "reportingComponent": component, "reportingInstance": "",
        });
        // Recording is best effort, as with the real recorder.
        if let Err(error) = self.create(component, &Gvr::EVENTS, namespace, event) {
            tracing::debug!(%error, reason, "an event was not recorded");
        }
    }
}

fn ns(namespace: &str) -> Option<&str> {
    Some(namespace).filter(|n| !n.is_empty())
}

/// The uid of an object's controller.
fn controller(object: &Value) -> Option<&str> {
    items(object, &["metadata", "ownerReferences"])
        .iter()
        .find(|o| o["controller"] == true)
        .map(|o| text(o, &["uid"]))
}

/// An owner reference that makes `owner` the controller.
fn controlled_by(owner: &Value) -> Value {
    json!({
        "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": value::name(owner),
        "uid": value::uid(owner), "controller": true, "blockOwnerDeletion": true,
    })
}

/// Sets a condition; its transition time moves only with its status.
fn set_condition(object: &mut Value, kind: &str, status: &str, reason: &str, message: &str) {
    let all = list(object, &["status", "conditions"]);
    let at = all.iter().position(|c| text(c, &["type"]) == kind);
    let before = at.and_then(|i| all.get(i));
    let changed = before.is_none_or(|c| text(c, &["status"]) != status);
    let since = before.filter(|_| !changed).map_or_else(now, |c| text(c, &["lastTransitionTime"]).to_owned());
    let mut condition = before.cloned().unwrap_or_else(|| json!({ "type": kind }));
    set(&mut condition, &["status"], status);
    set(&mut condition, &["lastTransitionTime"], since);
    for (key, word) in [("reason", reason), ("message", message)] {
        if word.is_empty() {
            value::remove(&mut condition, &[key]);
        } else {
            set(&mut condition, &[key], word);
        }
    }
    // Deployments and jobs also say when they last looked; only news counts here.
    match at.and_then(|i| all.get_mut(i)) {
        Some(place) => *place = condition,
        None => all.push(condition),
    }
}
