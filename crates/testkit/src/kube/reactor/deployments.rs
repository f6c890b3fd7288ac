//! Deployments roll ReplicaSets over.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};

use super::{Pass, controlled_by, controller, replicas::count, template};
use crate::kube::{
    registry::Gvr,
    store::DeleteOptions,
    value::{annotation, at, deleting, int, name, namespace, remove, set, text, uid},
};

const MANAGER: &str = "kube-controller-manager";
const COMPONENT: &str = "deployment-controller";
const REVISION: &str = "deployment.kubernetes.io/revision";
const HASH: &str = "pod-template-hash";

pub(super) fn reconcile(pass: &mut Pass<'_>) {
    let sets = pass.all("apps", "replicasets");
    for deployment in pass.all("apps", "deployments") {
        if deleting(&deployment) {
            continue;
        }
        let mine: Vec<_> = sets.iter().filter(|s| controller(s) == Some(uid(&deployment))).cloned().collect();
        let hash = template::hash(&deployment["spec"]["template"]);
        let new = mine.iter().find(|s| text(s, &["metadata", "labels", HASH]) == hash).cloned();
        let old: Vec<_> = mine
            .iter()
            .filter(|s| text(s, &["metadata", "labels", HASH]) != hash && !deleting(s))
            .cloned()
            .collect();
        let paused = deployment["spec"]["paused"] == true;
        match &new {
            None if !paused => start(pass, &deployment, &mine, &hash),
            Some(new) => {
                number(pass, &deployment, new, &old);
                if !paused || old.iter().all(|s| replicas(s) == 0) {
                    roll(pass, &deployment, new, &old);
                }
            }
            None => {}
        }
        tidy(pass, &deployment, &old);
        report(pass, &deployment, new.as_ref(), &old);
    }
}

fn replicas(object: &Value) -> i64 {
    int(object, &["spec", "replicas"]).unwrap_or(0)
}
fn status(object: &Value, key: &str) -> i64 {
    int(object, &["status", key]).unwrap_or(0)
}
fn revision(object: &Value) -> i64 {
    annotation(object, REVISION).and_then(|r| r.parse().ok()).unwrap_or(0)
}

/// Makes the ReplicaSet of a new template; how many pods it gets is decided by [`roll`] in the next pass.
fn start(pass: &Pass<'_>, deployment: &Value, mine: &[Arc<Value>], hash: &str) {
    let recreate = deployment["spec"]["strategy"]["type"] == "Recreate";
    let first = mine.is_empty();
    let spec = &deployment["spec"];
    let mut pods = spec["template"].clone();
    set(&mut pods, &["metadata", "labels", HASH], hash);
    let mut selector = spec["selector"].clone();
    set(&mut selector, &["matchLabels", HASH], hash);
    let next = mine.iter().map(|s| revision(s)).max().unwrap_or(0) + 1;
    let wanted = if first && !recreate { replicas(deployment) } else { 0 };
    let object = json!({
        "metadata": {
            "name": format!("{}-{hash}", name(deployment)),
            "labels": at(&pods, &["metadata", "labels"]),
            "annotations": {
                REVISION: next.to_string(),
                "deployment.kubernetes.io/desired-replicas": replicas(deployment).to_string(),
            },
            "ownerReferences": [controlled_by(deployment)],
        },
        "spec": {"replicas": wanted, "selector": selector, "template": pods},
    });
    match pass.create(MANAGER, &Gvr::REPLICA_SETS, namespace(deployment), object) {
        Ok(_) if wanted == 0 => {}
        Ok(made) => {
            let what = format!("Scaled up replica set {} from 0 to {wanted}", name(&made));
            pass.event(deployment, COMPONENT, "Normal", "ScalingReplicaSet", &what);
        }
        Err(error) => tracing::debug!(%error, "a ReplicaSet was not created"),
    }
}

/// A rolled-back template becomes the newest revision again.
fn number(pass: &Pass<'_>, deployment: &Value, new: &Value, old: &[Arc<Value>]) {
    let highest = old.iter().map(|s| revision(s)).max().unwrap_or(0);
    let mine = if revision(new) > highest { revision(new) } else { highest + 1 };
    if revision(new) != mine {
        pass.edit_spec(MANAGER, &Gvr::REPLICA_SETS, new, |s| {
            set(s, &["metadata", "annotations", REVISION], mine.to_string());
        });
    }
    if revision(deployment) != mine {
        pass.edit_spec(MANAGER, &Gvr::DEPLOYMENTS, deployment, |d| {
            set(d, &["metadata", "annotations", REVISION], mine.to_string());
        });
    }
}

fn roll(pass: &Pass<'_>, deployment: &Value, new: &Value, old: &[Arc<Value>]) {
    let wanted = replicas(deployment);
    let strategy = &deployment["spec"]["strategy"];
    if strategy["type"] == "Recreate" {
        let gone = old.iter().all(|s| replicas(s) == 0 && status(s, "replicas") == 0);
        old.iter().for_each(|s| scale(pass, deployment, s, 0));
        if gone {
            scale(pass, deployment, new, wanted);
        }
        return;
    }
    let mut surge = template::share(&strategy["rollingUpdate"]["maxSurge"], wanted, true);
    let unavailable = template::share(&strategy["rollingUpdate"]["maxUnavailable"], wanted, false);
    if surge == 0 && unavailable == 0 {
        surge = 1;
    }
    let total: i64 = old.iter().map(|s| replicas(s)).sum::<i64>() + replicas(new);
    if replicas(new) > wanted || (total == replicas(new) && replicas(new) != wanted) {
        scale(pass, deployment, new, wanted);
    } else if replicas(new) < wanted {
        let room = (wanted + surge - total).max(0);
        scale(pass, deployment, new, wanted.min(replicas(new) + room));
    }
    // Old pods may go as far as enough are available; broken ones first, as they count for nothing.
    let available: i64 =
        old.iter().map(|s| status(s, "availableReplicas")).sum::<i64>() + status(new, "availableReplicas");
    let unborn = replicas(new) - status(new, "availableReplicas");
    let mut may_go = (total - (wanted - unavailable) - unborn.max(0)).max(0);
    let mut spare = (available - (wanted - unavailable)).max(0);
    for set_object in old {
        let broken = (replicas(set_object) - status(set_object, "availableReplicas")).clamp(0, may_go);
        let healthy = (replicas(set_object) - broken).min(spare).min(may_go - broken);
        if broken + healthy > 0 {
            scale(pass, deployment, set_object, replicas(set_object) - broken - healthy);
            may_go -= broken + healthy;
            spare -= healthy;
        }
    }
}

fn scale(pass: &Pass<'_>, deployment: &Value, object: &Value, to: i64) {
    let from = replicas(object);
    if from == to {
        return;
    }
    pass.edit_spec(MANAGER, &Gvr::REPLICA_SETS, object, |s| set(s, &["spec", "replicas"], to));
    let way = if to > from { "up" } else { "down" };
    let what = format!("Scaled {way} replica set {} from {from} to {to}", name(object));
    pass.event(deployment, COMPONENT, "Normal", "ScalingReplicaSet", &what);
}

fn tidy(pass: &Pass<'_>, deployment: &Value, old: &[Arc<Value>]) {
    let keep =
        usize::try_from(int(deployment, &["spec", "revisionHistoryLimit"]).unwrap_or(10)).unwrap_or(10);
    let mut empty: Vec<_> = old.iter().filter(|s| replicas(s) == 0 && status(s, "replicas") == 0).collect();
    empty.sort_by_key(|s| revision(s));
    let over = empty.len().saturating_sub(keep);
    for set_object in empty.into_iter().take(over) {
        pass.delete(&Gvr::REPLICA_SETS, set_object, DeleteOptions::default());
    }
}

fn report(pass: &mut Pass<'_>, deployment: &Value, new: Option<&Arc<Value>>, old: &[Arc<Value>]) {
    let sum = |key: &str| {
        let all = old.iter().chain(new).map(|s| status(s, key)).sum::<i64>();
        usize::try_from(all).unwrap_or(0)
    };
    let (total, ready, available) = (sum("replicas"), sum("readyReplicas"), sum("availableReplicas"));
    let updated = new.map_or(0, |s| usize::try_from(status(s, "replicas")).unwrap_or(0));
    let wanted = usize::try_from(replicas(deployment)).unwrap_or(0);
    let unavailable_allowed = template::share(
        &deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"],
        replicas(deployment),
        false,
    );
    let enough = available + usize::try_from(unavailable_allowed).unwrap_or(0) >= wanted;
    let complete = updated == wanted && total == wanted && available == wanted;
    let deadline = int(deployment, &["spec", "progressDeadlineSeconds"]).and_then(|s| u64::try_from(s).ok());
    // Anything that moves is progress.
    let state = format!("{}/{total}/{updated}/{available}", deployment["metadata"]["generation"]);
    let late = !complete
        && deadline
            .is_some_and(|s| pass.lost_patience(deployment, &state, "progress", Duration::from_secs(s)));
    let set_name = new.map(|s| name(s).to_owned()).unwrap_or_default();
    pass.edit(MANAGER, &Gvr::DEPLOYMENTS, deployment, |d| {
        // What this pass looked at, not what may have been written since.
        set(d, &["status", "observedGeneration"], deployment["metadata"]["generation"].clone());
        count(d, "replicas", total);
        count(d, "updatedReplicas", updated);
        count(d, "readyReplicas", ready);
        count(d, "availableReplicas", available);
        count(d, "unavailableReplicas", wanted.saturating_sub(available));
        if enough {
            super::set_condition(
                d,
                "Available",
                "True",
                "MinimumReplicasAvailable",
                "Deployment has minimum availability.",
            );
        } else {
            super::set_condition(
                d,
                "Available",
                "False",
                "MinimumReplicasUnavailable",
                "Deployment does not have minimum availability.",
            );
        }
        let (state, reason, message) = if complete {
            (
                "True",
                "NewReplicaSetAvailable",
                format!("ReplicaSet {set_name:?} has successfully progressed."),
            )
        } else if late {
            (
                "False",
                "ProgressDeadlineExceeded",
                format!("ReplicaSet {set_name:?} has timed out progressing."),
            )
        } else {
            ("True", "ReplicaSetUpdated", format!("ReplicaSet {set_name:?} is progressing."))
        };
        super::set_condition(d, "Progressing", state, reason, &message);
        for c in super::value::items_mut(d, &["status", "conditions"]) {
            let since = c["lastTransitionTime"].clone();
            super::value::default(c, &["lastUpdateTime"], since);
        }
        if at(d, &["status", "collisionCount"]).is_null() {
            remove(d, &["status", "collisionCount"]);
        }
    });
}
