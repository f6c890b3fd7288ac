//! Admission of pods: service account, priority, default tolerations.

use serde_json::{Value, json};

use crate::kube::{
    status::{Result, StatusError},
    store::State,
    value::{self, at, default, items, list, set, text},
};

/// # Errors
/// 403 when the service account or the priority class does not exist.
pub(super) fn admit(state: &State, pod: &mut Value) -> Result<()> {
    let (name, namespace) = (value::name(pod).to_owned(), value::namespace(pod).to_owned());
    let forbidden = |why: &str| StatusError::forbidden("", "pods", &name, why);
    default(pod, &["spec", "serviceAccountName"], "default");
    let account = text(pod, &["spec", "serviceAccountName"]).to_owned();
    default(pod, &["spec", "serviceAccount"], account.clone());
    let exists =
        state.of("/serviceaccounts").any(|s| value::name(s) == account && value::namespace(s) == namespace);
    if !exists {
        let why = format!(
            "error looking up service account {namespace}/{account}: serviceaccount {account:?} not found"
        );
        return Err(forbidden(&why));
    }
    let class = text(pod, &["spec", "priorityClassName"]).to_owned();
    let classes = || state.of("scheduling.k8s.io/priorityclasses");
    let priority = if class.is_empty() {
        classes().find(|c| c["globalDefault"] == true).and_then(|c| c["value"].as_i64()).unwrap_or(0)
    } else {
        let found = classes().find(|c| value::name(c) == class);
        let found =
            found.ok_or_else(|| forbidden(&format!("no PriorityClass with name {class} was found")))?;
        found["value"].as_i64().unwrap_or(0)
    };
    set(pod, &["spec", "priority"], priority);
    default(pod, &["spec", "preemptionPolicy"], "PreemptLowerPriority");
    default(pod, &["spec", "enableServiceLinks"], true);
    for taint in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let known = items(pod, &["spec", "tolerations"]).iter().any(|t| {
            let key = text(t, &["key"]);
            (key == taint || key.is_empty()) && matches!(text(t, &["effect"]), "" | "NoExecute")
        });
        if !known {
            let toleration =
                json!({"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300});
            list(pod, &["spec", "tolerations"]).push(toleration);
        }
    }
    Ok(())
}

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub(super) fn qos_class(pod: &Value) -> &'static str {
    let (mut any, mut all) = (false, true);
    for container in items(pod, &["spec", "containers"]) {
        for resource in ["cpu", "memory"] {
            let request = at(container, &["resources", "requests", resource]);
            let limit = at(container, &["resources", "limits", resource]);
            any |= !request.is_null() || !limit.is_null();
            all &= !limit.is_null() && (request.is_null() || request == limit);
        }
    }
    match (any, all) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
