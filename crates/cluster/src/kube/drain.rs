//! Emptying a node before it is taken away, without breaking a disruption budget silently.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use turingpi_engine::{Failure, FailureClass, Probe, StepContext, Unit};

use super::{ClusterApi, Eviction, NodePod, PodOwner};

/// What draining may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrainOptions {
    /// Evict pods that keep data in an `emptyDir`; the data is lost.
    pub delete_empty_dir: bool,
    /// Evict pods that no controller brings back.
    pub force: bool,
    /// Seconds each pod gets to end; `None` uses the pod's own.
    pub grace: Option<u32>,
    /// How long everything may take, before the timing's factor.
    pub limit: Duration,
}

impl Default for DrainOptions {
    /// As a home-lab person drains: `emptyDir` data goes, bare pods stay, ten minutes.
    fn default() -> Self {
        Self { delete_empty_dir: true, force: false, grace: None, limit: Duration::from_secs(600) }
    }
}

/// What draining did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drained {
    /// Pods that went, `namespace/name`, sorted.
    pub evicted: Vec<String>,
    /// Pods that stayed, and why.
    pub skipped: Vec<Skipped>,
}

/// A pod that draining leaves where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// `namespace/name`.
    pub pod: String,
    /// Why.
    pub why: &'static str,
}

/// A pod whose eviction a disruption budget forbids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// `namespace/name`.
    pub pod: String,
    /// The budget, if the server named it.
    pub budget: Option<String>,
    /// The server's text.
    pub message: String,
}

/// How far draining is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DrainProgress {
    /// Pods still there.
    pub left: Vec<String>,
    /// Pods that may not go yet.
    pub blocked: Vec<Blocked>,
}

impl DrainProgress {
    fn text(&self) -> String {
        match self.blocked.first() {
            Some(Blocked { pod, budget, .. }) => {
                let budget = budget.as_deref().map_or_else(String::new, |b| format!(" `{b}`"));
                format!("{} pods left; {pod} is held by disruption budget{budget}", self.left.len())
            }
            None => match self.left.first() {
                Some(pod) => format!("{} pods left, {pod} among them", self.left.len()),
                None => "no pods left".to_owned(),
            },
        }
    }
}

/// Cordons the node and evicts its pods until only those of DaemonSets, static and finished ones are left.
///
/// The node stays cordoned, also on failure: uncordoning is the caller's decision.
///
/// # Errors
/// `Refused` before anything is evicted when pods without a controller, or with `emptyDir` data, stand in the way and
/// the options do not allow to remove them. `Timeout` when pods are left at the limit; the hint names the disruption
/// budgets that hold them.
pub async fn drain(
    api: &dyn ClusterApi,
    node: &str,
    options: &DrainOptions,
    cx: &StepContext,
) -> Result<Drained, Failure> {
    let pods = api.pods_on(node).await?;
    let plan = sort(&pods, options);
    if let Some(refusal) = plan.refusal(node) {
        return Err(refusal);
    }
    api.set_unschedulable(node, true).await?;
    let total = plan.evict.len() as u64;
    let state = Mutex::new((DrainProgress::default(), BTreeSet::new()));
    let condition = format!("pods of {node} moved elsewhere");
    let probe = || async {
        let pods = api.pods_on(node).await?;
        // Looked at anew each time: a pod may have been bound just before the cordon.
        let now = sort(&pods, options);
        if let Some(refusal) = now.refusal(node) {
            return Err(refusal);
        }
        let mut progress = DrainProgress::default();
        let mut seen = Vec::new();
        for pod in now.evict {
            let name = full_name(pod);
            let eviction = match pod.deleting {
                true => Eviction::Accepted,
                false => api.evict(&pod.namespace, &pod.name, options.grace).await?,
            };
            match eviction {
                Eviction::Gone => {}
                Eviction::Accepted => progress.left.push(name.clone()),
                Eviction::Blocked { budget, message } => {
                    progress.left.push(name.clone());
                    progress.blocked.push(Blocked { pod: name.clone(), budget, message });
                }
            }
            seen.push(name);
        }
        cx.progress(total.saturating_sub(progress.left.len() as u64), Some(total), Unit::Items);
        let text = progress.text();
        let done = progress.left.is_empty();
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.1.extend(seen);
        state.0 = progress;
        Ok(if done { Probe::Ready(()) } else { Probe::NotYet(text) })
    };
    let waited = cx.wait(&condition, options.limit, probe).await;
    let (progress, evicted) = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    match waited {
        Ok(()) => Ok(Drained {
            evicted: evicted.into_iter().collect(),
            skipped: plan.skip.iter().map(|(pod, why)| Skipped { pod: full_name(pod), why }).collect(),
        }),
        Err(failure) if failure.class() == FailureClass::Timeout => Err(stuck(node, &progress, failure)),
        Err(failure) => Err(failure),
    }
}

struct DrainPlan<'a> {
    evict: Vec<&'a NodePod>,
    skip: Vec<(&'a NodePod, &'static str)>,
    bare: Vec<&'a NodePod>,
    data: Vec<&'a NodePod>,
}

fn sort<'a>(pods: &'a [NodePod], options: &DrainOptions) -> DrainPlan<'a> {
    let mut plan = DrainPlan { evict: Vec::new(), skip: Vec::new(), bare: Vec::new(), data: Vec::new() };
    for pod in pods {
        match &pod.owner {
            PodOwner::DaemonSet => plan.skip.push((pod, "its DaemonSet would bring it back at once")),
            PodOwner::Static => plan.skip.push((pod, "the kubelet runs it from a file")),
            _ if pod.finished => plan.skip.push((pod, "it has ended")),
            PodOwner::Nobody if !options.force && !pod.deleting => plan.bare.push(pod),
            _ if pod.empty_dir && !options.delete_empty_dir && !pod.deleting => plan.data.push(pod),
            _ => plan.evict.push(pod),
        }
    }
    plan
}

impl DrainPlan<'_> {
    fn refusal(&self, node: &str) -> Option<Failure> {
        let names = |pods: &[&NodePod]| pods.iter().map(|pod| full_name(pod)).collect::<Vec<_>>().join(", ");
        let refused = |text: String, hint: &str| Some(Failure::new(FailureClass::Refused, text).hint(hint));
        if !self.bare.is_empty() {
            let text =
                format!("cannot drain {node}: no controller brings these pods back: {}", names(&self.bare));
            return refused(text, "Move or delete them, or force the drain.");
        }
        if !self.data.is_empty() {
            let text =
                format!("cannot drain {node}: these pods keep data in an emptyDir: {}", names(&self.data));
            return refused(text, "Save the data, or allow emptyDir data to be deleted.");
        }
        None
    }
}

fn stuck(node: &str, progress: &DrainProgress, cause: Failure) -> Failure {
    let mut budgets: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for Blocked { pod, budget, .. } in &progress.blocked {
        budgets.entry(budget.as_deref().unwrap_or("(not named)")).or_default().push(pod);
    }
    let hint = match budgets.is_empty() {
        false => {
            let list: Vec<_> = budgets
                .iter()
                .map(|(budget, pods)| format!("`{budget}` holds {}", pods.join(", ")))
                .collect();
            format!(
                "Disruption budgets forbid it: {}. Give the workload more replicas on other nodes, or relax the budget.",
                list.join("; ")
            )
        }
        true => format!(
            "Look at what keeps the pods from ending: `kubectl describe pod`. The node stays cordoned; `kubectl uncordon {node}` undoes that."
        ),
    };
    Failure::new(
        FailureClass::Timeout,
        format!("cannot drain {node}: still there: {}", progress.left.join(", ")),
    )
    .hint(hint)
    .source(cause)
}

fn full_name(pod: &NodePod) -> String {
    format!("{}/{}", pod.namespace, pod.name)
}
