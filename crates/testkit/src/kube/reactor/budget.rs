//! PodDisruptionBudgets: how many pods may go.

use std::sync::Arc;

use serde_json::Value;

use super::{Pass, controller, pods, template};
use crate::kube::{
    registry::Gvr,
    selectors::LabelSelector,
    store::Snapshot,
    value::{int, namespace, set, uid},
};

/// A budget's arithmetic at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Numbers {
    pub(crate) expected: i64,
    pub(crate) healthy: i64,
    pub(crate) desired: i64,
    pub(crate) allowed: i64,
}

/// The budgets that cover a pod.
pub(crate) fn covering(objects: &Snapshot, pod: &Value) -> Vec<Arc<Value>> {
    objects
        .of("policy", "poddisruptionbudgets")
        .filter(|b| namespace(b) == namespace(pod) && selector(b).is_some_and(|s| s.matches(pod)))
        .cloned()
        .collect()
}

/// In `policy/v1` a missing selector matches nothing and an empty one everything.
fn selector(budget: &Value) -> Option<LabelSelector> {
    budget["spec"]["selector"].is_object().then(|| LabelSelector::of_object(&budget["spec"]["selector"]))
}

pub(crate) fn numbers(objects: &Snapshot, budget: &Value) -> Numbers {
    let selector = selector(budget);
    let covered: Vec<_> = objects
        .of("", "pods")
        .filter(|p| namespace(p) == namespace(budget) && pods::is_active(p))
        .filter(|p| selector.as_ref().is_some_and(|s| s.matches(p)))
        .collect();
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let healthy = count(covered.iter().filter(|p| pods::is_ready(p)).count());
    let expected = expected(objects, &covered).unwrap_or_else(|| count(covered.len()));
    let spec = &budget["spec"];
    let desired = if spec["maxUnavailable"].is_null() {
        template::share(&spec["minAvailable"], expected, true)
    } else {
        (expected - template::share(&spec["maxUnavailable"], expected, true)).max(0)
    };
    Numbers { expected, healthy, desired, allowed: (healthy - desired).max(0) }
}

/// How many pods the controllers of the covered ones want.
fn expected(objects: &Snapshot, covered: &[&Arc<Value>]) -> Option<i64> {
    let mut owners: Vec<&str> = covered.iter().map(|p| controller(p)).collect::<Option<Vec<_>>>()?;
    owners.sort_unstable();
    owners.dedup();
    let mut total = 0;
    for owner in owners {
        let found = ["replicasets", "statefulsets"]
            .iter()
            .find_map(|p| objects.of("apps", p).find(|o| uid(o) == owner));
        total += int(found?, &["spec", "replicas"])?;
    }
    Some(total)
}

pub(super) fn reconcile(pass: &mut Pass<'_>) {
    for budget in pass.all("policy", "poddisruptionbudgets") {
        let n = numbers(&pass.objects, &budget);
        pass.edit("kube-controller-manager", &Gvr::POD_DISRUPTION_BUDGETS, &budget, |b| {
            set(b, &["status", "observedGeneration"], budget["metadata"]["generation"].clone());
            set(b, &["status", "expectedPods"], n.expected);
            set(b, &["status", "currentHealthy"], n.healthy);
            set(b, &["status", "desiredHealthy"], n.desired);
            set(b, &["status", "disruptionsAllowed"], n.allowed);
            let (state, reason) =
                if n.allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
            super::set_condition(b, "DisruptionAllowed", state, reason, "");
        });
    }
}
