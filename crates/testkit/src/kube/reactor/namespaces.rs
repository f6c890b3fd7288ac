//! Namespaces get what every namespace has, and are emptied before they go.

use serde_json::{Value, json};

use super::Pass;
use crate::kube::{
    registry::Gvr,
    store::DeleteOptions,
    value::{deleting, items, name, namespace, set},
};

const MANAGER: &str = "kube-controller-manager";

pub(super) fn reconcile(pass: &mut Pass<'_>) {
    for space in pass.all("", "namespaces") {
        if deleting(&space) {
            empty(pass, &space);
        } else {
            furnish(pass, &space);
        }
    }
}

fn furnish(pass: &Pass<'_>, space: &Value) {
    let name = name(space);
    if pass.objects.get("", "serviceaccounts", name, "default").is_none() {
        let made =
            pass.create(MANAGER, &Gvr::SERVICE_ACCOUNTS, name, json!({"metadata": {"name": "default"}}));
        log(made.err());
    }
    if pass.objects.get("", "configmaps", name, "kube-root-ca.crt").is_none() {
        let map = json!({"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": pass.root_ca}});
        log(pass.create(MANAGER, &Gvr::CONFIG_MAPS, name, map).err());
    }
}

fn log(refusal: Option<crate::kube::StatusError>) {
    if let Some(error) = refusal {
        tracing::debug!(%error, "a namespace could not be furnished yet");
    }
}

fn empty(pass: &Pass<'_>, space: &Value) {
    let mut left = Vec::new();
    for t in pass.objects.registry.stored().filter(|t| t.namespaced) {
        let (group, plural) = t.storage.split_once('/').unwrap_or(("", ""));
        let here: Vec<_> = pass.objects.of(group, plural).filter(|o| namespace(o) == name(space)).collect();
        if !here.is_empty() {
            left.push(format!("{plural}. has {} resource instances", here.len()));
        }
        for object in here.into_iter().filter(|o| !deleting(o)) {
            pass.delete(&t.gvr(), object, DeleteOptions::default());
        }
    }
    if !left.is_empty() {
        let message = format!("Some resources are remaining: {}", left.join(", "));
        pass.edit(MANAGER, &Gvr::NAMESPACES, space, |s| {
            super::set_condition(s, "NamespaceContentRemaining", "True", "SomeResourcesRemain", &message);
        });
    } else if !items(space, &["spec", "finalizers"]).is_empty() {
        pass.edit_spec(MANAGER, &Gvr::NAMESPACES, space, |s| set(s, &["spec", "finalizers"], json!([])));
    }
}
