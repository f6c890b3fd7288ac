//! Owner references: what nobody owns any more is deleted.

use std::collections::HashSet;

use serde_json::Value;

use super::Pass;
use crate::kube::{
    registry::Gvr,
    store::DeleteOptions,
    value::{deleting, items, list, text, uid},
};

const MANAGER: &str = "kube-controller-manager";

pub(super) fn reconcile(pass: &mut Pass<'_>) {
    let alive: HashSet<&str> = pass.objects.objects.values().map(|o| uid(o)).collect();
    let going: HashSet<&str> = pass
        .objects
        .objects
        .values()
        .filter(|o| deleting(o) && has_finalizer(o, "foregroundDeletion"))
        .map(|o| uid(o))
        .collect();
    for t in pass.objects.registry.stored() {
        let (group, plural) = t.storage.split_once('/').unwrap_or(("", ""));
        let gvr = t.gvr();
        for object in pass.objects.of(group, plural) {
            let owners = items(object, &["metadata", "ownerReferences"]);
            let owner_uids = || owners.iter().map(|o| text(o, &["uid"]));
            if !owners.is_empty() && !deleting(object) {
                if owner_uids().all(|o| !alive.contains(o)) {
                    pass.delete(&gvr, object, DeleteOptions::default());
                } else if owner_uids().all(|o| going.contains(o) || !alive.contains(o)) {
                    // Foreground deletion goes down the tree.
                    pass.delete(
                        &gvr,
                        object,
                        DeleteOptions::propagation(crate::kube::Propagation::Foreground),
                    );
                }
            }
            if deleting(object) {
                finish(pass, &gvr, object);
            }
        }
    }
}

fn has_finalizer(object: &Value, finalizer: &str) -> bool {
    items(object, &["metadata", "finalizers"]).iter().any(|f| f == finalizer)
}

/// Takes off the two finalizers of the garbage collector when their work is done.
fn finish(pass: &Pass<'_>, gvr: &Gvr, object: &Value) {
    let owned = || {
        let mine = uid(object);
        pass.objects.objects.iter().filter(move |(_, o)| {
            items(o, &["metadata", "ownerReferences"]).iter().any(|r| text(r, &["uid"]) == mine)
        })
    };
    let take_off = |finalizer: &'static str| {
        pass.edit_spec(MANAGER, gvr, object, |o| {
            list(o, &["metadata", "finalizers"]).retain(|f| f != finalizer)
        });
    };
    if has_finalizer(object, "orphan") {
        for (key, dependent) in owned() {
            let (group, plural) = key.resource.split_once('/').unwrap_or(("", ""));
            let t = pass.objects.registry.stored().find(|t| t.group == group && t.plural == plural);
            if let Some(t) = t {
                pass.edit_spec(MANAGER, &t.gvr(), dependent, |d| {
                    let mine = uid(object);
                    list(d, &["metadata", "ownerReferences"]).retain(|r| text(r, &["uid"]) != mine);
                });
            }
        }
        take_off("orphan");
    }
    if has_finalizer(object, "foregroundDeletion") {
        let blocking = owned().any(|(_, o)| {
            items(o, &["metadata", "ownerReferences"])
                .iter()
                .any(|r| text(r, &["uid"]) == uid(object) && r["blockOwnerDeletion"] == true)
        });
        if !blocking {
            take_off("foregroundDeletion");
        }
    }
}
