//! CustomResourceDefinitions become established; deleting one deletes its objects first.

use serde_json::{Value, json};

use super::Pass;
use crate::kube::{
    registry::{Gvr, custom_types},
    store::{DeleteOptions, has_finalizers},
    value::{condition, deleting, items, list, set, text},
};

const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";
const MANAGER: &str = "kube-apiserver";

pub(super) fn reconcile(pass: &mut Pass<'_>) {
    for crd in pass.all("apiextensions.k8s.io", "customresourcedefinitions") {
        if deleting(&crd) {
            clean_up(pass, &crd);
        } else if condition(&crd, "Established") != "True" {
            establish(pass, &crd);
        }
    }
}

fn establish(pass: &Pass<'_>, crd: &Value) {
    pass.edit(MANAGER, &Gvr::CRDS, crd, |crd| {
        let names = crd["spec"]["names"].clone();
        let stored = items(crd, &["spec", "versions"]).iter().find(|v| v["storage"] == true);
        let stored = stored.map(|v| text(v, &["name"]).to_owned());
        set(crd, &["status", "acceptedNames"], names);
        set(crd, &["status", "storedVersions"], json!([stored]));
        super::set_condition(crd, "NamesAccepted", "True", "NoConflicts", "no conflicts found");
        super::set_condition(
            crd,
            "Established",
            "True",
            "InitialNamesAccepted",
            "the initial names have been accepted",
        );
        let finalizers = list(crd, &["metadata", "finalizers"]);
        if !finalizers.iter().any(|f| f == CLEANUP) {
            finalizers.push(json!(CLEANUP));
        }
    });
}

fn clean_up(pass: &Pass<'_>, crd: &Value) {
    if !has_finalizers(crd) {
        return;
    }
    let (group, plural) = (text(crd, &["spec", "group"]), text(crd, &["spec", "names", "plural"]));
    let left = pass.all(group, plural);
    if left.is_empty() {
        pass.edit_spec(MANAGER, &Gvr::CRDS, crd, |crd| {
            list(crd, &["metadata", "finalizers"]).retain(|f| f != CLEANUP);
        });
        return;
    }
    let Some(t) = custom_types(crd).into_iter().next() else { return };
    for object in left.iter().filter(|o| !deleting(o)) {
        pass.delete(&t.gvr(), object, DeleteOptions::default());
    }
}
