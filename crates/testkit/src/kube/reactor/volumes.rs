//! Claims are bound to volumes, made by their class where there is none.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Pass, template};
use crate::kube::{
    registry::Gvr,
    store::DeleteOptions,
    value::{at, deleting, items, list, name, namespace, set, text, uid},
};

const MANAGER: &str = "kube-controller-manager";
const PROTECTION: &str = "kubernetes.io/pvc-protection";
const PROVISION: Duration = Duration::from_secs(3);

pub(super) fn reconcile(pass: &mut Pass<'_>) {
    for claim in pass.all("", "persistentvolumeclaims") {
        let used = pass.objects.of("", "pods").any(|p| {
            namespace(p) == namespace(&claim) && super::scheduler::claims(p).any(|c| c == name(&claim))
        });
        if deleting(&claim) {
            let protected = items(&claim, &["metadata", "finalizers"]).iter().any(|f| f == PROTECTION);
            if !used && protected {
                pass.edit_spec(MANAGER, &Gvr::PERSISTENT_VOLUME_CLAIMS, &claim, |c| {
                    list(c, &["metadata", "finalizers"]).retain(|f| f != PROTECTION);
                });
            }
            continue;
        }
        if !items(&claim, &["metadata", "finalizers"]).iter().any(|f| f == PROTECTION) {
            pass.edit_spec(MANAGER, &Gvr::PERSISTENT_VOLUME_CLAIMS, &claim, |c| {
                template::add_text(c, &["metadata", "finalizers"], PROTECTION);
            });
        }
        if text(&claim, &["status", "phase"]) != "Bound" {
            bind(pass, &claim);
        }
    }
    for volume in pass.all("", "persistentvolumes") {
        release(pass, &volume);
    }
}

fn bind(pass: &mut Pass<'_>, claim: &Value) {
    if let Some(volume) = waiting_volume(pass, claim) {
        join(pass, claim, &volume);
        return;
    }
    let class_name = text(claim, &["spec", "storageClassName"]).to_owned();
    if class_name.is_empty() {
        let why = "no persistent volumes available for this claim and no storage class is set";
        pass.event(claim, "persistentvolume-controller", "Normal", "FailedBinding", why);
        return;
    }
    let Some(class) = pass.objects.get("storage.k8s.io", "storageclasses", "", &class_name).cloned() else {
        let why = format!("storageclass.storage.k8s.io {class_name:?} not found");
        pass.event(claim, "persistentvolume-controller", "Warning", "ProvisioningFailed", &why);
        return;
    };
    let node = pass
        .objects
        .of("", "pods")
        .find(|p| {
            namespace(p) == namespace(claim)
                && !text(p, &["spec", "nodeName"]).is_empty()
                && super::scheduler::claims(p).any(|c| c == name(claim))
        })
        .map(|p| text(p, &["spec", "nodeName"]).to_owned());
    if class["volumeBindingMode"] == "WaitForFirstConsumer" && node.is_none() {
        let why = "waiting for first consumer to be created before binding";
        pass.event(claim, "persistentvolume-controller", "Normal", "WaitForFirstConsumer", why);
        return;
    }
    if text(&class, &["provisioner"]) == "kubernetes.io/no-provisioner"
        || !pass.passed(claim, "provision", PROVISION)
    {
        return;
    }
    provision(pass, claim, &class, node.as_deref());
}

/// A volume that somebody made by hand, or that was made for this claim.
fn waiting_volume(pass: &Pass<'_>, claim: &Value) -> Option<Value> {
    let asked = text(claim, &["spec", "volumeName"]);
    let mut volumes = pass.objects.of("", "persistentvolumes").filter(|v| {
        let reference = &v["spec"]["claimRef"];
        let for_us = text(reference, &["uid"]) == uid(claim)
            || (text(reference, &["uid"]).is_empty()
                && text(reference, &["name"]) == name(claim)
                && text(reference, &["namespace"]) == namespace(claim));
        let free = reference.is_null() && text(v, &["status", "phase"]) == "Available";
        let modes = items(v, &["spec", "accessModes"]);
        let same_class = text(v, &["spec", "storageClassName"]) == text(claim, &["spec", "storageClassName"]);
        let fits = items(claim, &["spec", "accessModes"]).iter().all(|m| modes.contains(m)) && same_class;
        !deleting(v) && (for_us || (free && fits && (asked.is_empty() || asked == name(v))))
    });
    volumes.next().map(|v| (**v).clone())
}

fn provision(pass: &Pass<'_>, claim: &Value, class: &Value, node: Option<&str>) {
    let volume_name = format!("pvc-{}", uid(claim));
    let provisioner = text(class, &["provisioner"]);
    let mut volume = json!({
        "metadata": {"name": volume_name, "annotations": {"pv.kubernetes.io/provisioned-by": provisioner}},
        "spec": {
            "capacity": {"storage": at(claim, &["spec", "resources", "requests", "storage"])},
            "accessModes": claim["spec"]["accessModes"],
            "persistentVolumeReclaimPolicy": class["reclaimPolicy"],
            "storageClassName": name(class),
            "volumeMode": claim["spec"]["volumeMode"],
            "claimRef": {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": name(claim),
                "namespace": namespace(claim), "uid": uid(claim),
            },
        },
    });
    if provisioner == "rancher.io/local-path" {
        let path = format!("/var/lib/rancher/k3s/storage/{volume_name}_{}_{}", namespace(claim), name(claim));
        set(&mut volume, &["spec", "hostPath"], json!({"path": path, "type": "DirectoryOrCreate"}));
        let term = json!({"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]});
        set(&mut volume, &["spec", "nodeAffinity", "required", "nodeSelectorTerms"], json!([term]));
    } else {
        set(&mut volume, &["spec", "csi"], json!({"driver": provisioner, "volumeHandle": volume_name}));
    }
    match pass.create(MANAGER, &Gvr::PERSISTENT_VOLUMES, "", volume) {
        Ok(made) => {
            let what = format!("Successfully provisioned volume {volume_name}");
            pass.event(claim, provisioner, "Normal", "ProvisioningSucceeded", &what);
            join(pass, claim, &made);
        }
        Err(error) => pass.event(claim, provisioner, "Warning", "ProvisioningFailed", &error.to_string()),
    }
}

fn join(pass: &Pass<'_>, claim: &Value, volume: &Value) {
    pass.edit(MANAGER, &Gvr::PERSISTENT_VOLUMES, volume, |v| {
        set(v, &["spec", "claimRef", "apiVersion"], "v1");
        set(v, &["spec", "claimRef", "kind"], "PersistentVolumeClaim");
        set(v, &["spec", "claimRef", "name"], name(claim));
        set(v, &["spec", "claimRef", "namespace"], namespace(claim));
        set(v, &["spec", "claimRef", "uid"], uid(claim));
        set(v, &["status", "phase"], "Bound");
    });
    pass.edit(MANAGER, &Gvr::PERSISTENT_VOLUME_CLAIMS, claim, |c| {
        set(c, &["spec", "volumeName"], name(volume));
        set(c, &["status", "phase"], "Bound");
        set(c, &["status", "accessModes"], volume["spec"]["accessModes"].clone());
        set(c, &["status", "capacity"], volume["spec"]["capacity"].clone());
        set(c, &["metadata", "annotations", "pv.kubernetes.io/bind-completed"], "yes");
    });
}

/// A volume whose claim is gone follows its reclaim policy.
fn release(pass: &Pass<'_>, volume: &Value) {
    let reference = &volume["spec"]["claimRef"];
    let owner = text(reference, &["uid"]);
    if owner.is_empty() || deleting(volume) {
        return;
    }
    let claim = pass.store.find(
        &Gvr::PERSISTENT_VOLUME_CLAIMS,
        Some(text(reference, &["namespace"])),
        text(reference, &["name"]),
    );
    if claim.is_some_and(|c| uid(&c) == owner) {
        return;
    }
    if volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete" {
        pass.delete(&Gvr::PERSISTENT_VOLUMES, volume, DeleteOptions::default());
    } else if text(volume, &["status", "phase"]) != "Released" {
        pass.edit(MANAGER, &Gvr::PERSISTENT_VOLUMES, volume, |v| set(v, &["status", "phase"], "Released"));
    }
}
