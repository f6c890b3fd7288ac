//! The cluster as a whole: kubeconfig, labels and taints, all nodes Ready, k3s's own workloads available.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use turingpi_cluster::{
    NodeSpec,
    kube::{NodeStatus, Taint},
    ready,
};
use turingpi_engine::{
    Change, Failure, FailureClass, Lane, State, Step, StepContext, StepDescription, Subject, Verdict,
};

use crate::{FlannelBackend, K3sFacts, KubeconfigSink, env::Env};

const PHASE: &str = "cluster";
const LIMIT: Duration = Duration::from_secs(600);

/// The labels and taints we gave a node: only those are taken away again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Given {
    #[serde(default)]
    labels: BTreeSet<String>,
    #[serde(default)]
    taints: BTreeSet<String>,
}

fn record(node: &str) -> String {
    format!("k3s/given/{node}")
}

pub(crate) fn lane(env: &Arc<Env>, facts: &K3sFacts, state: &State) -> Option<Lane> {
    let mut steps: Vec<Arc<dyn Step>> = Vec::new();
    steps.extend(kubeconfig(env, facts));
    steps.extend(nodes_ready(env, facts));
    steps.extend(labels(env, facts, state));
    steps.extend(system(env, facts));
    if steps.is_empty() { None } else { Some(Lane { subject: Subject::cluster(&env.name), steps }) }
}

fn kubeconfig(env: &Arc<Env>, facts: &K3sFacts) -> Option<Arc<dyn Step>> {
    let sink = env.sink.as_ref()?;
    if facts.kubeconfig_current == Some(true) {
        return None;
    }
    let change = Change::set(sink.place(), format!("context {}", env.name));
    let description = StepDescription::new("k3s/kubeconfig", "Write the kubeconfig", PHASE).change(change);
    Some(Arc::new(WriteKubeconfig { description, env: Arc::clone(env), sink: Arc::clone(sink) }))
}

struct WriteKubeconfig {
    description: StepDescription,
    env: Arc<Env>,
    sink: Arc<dyn KubeconfigSink>,
}

#[async_trait]
impl Step for WriteKubeconfig {
    fn describe(&self) -> StepDescription {
        self.description.clone()
    }
    async fn apply(&self, _cx: &StepContext) -> Result<(), Failure> {
        self.sink.save(&self.env.kubeconfig().await?).await
    }
    async fn verify(&self, _cx: &StepContext) -> Result<Verdict, Failure> {
        Ok(if self.sink.is_current(&self.env.kubeconfig().await?).await? {
            Verdict::Converged
        } else {
            Verdict::NotYet(format!("{} differs", self.sink.place()))
        })
    }
}

/// What has to change on a node object.
#[derive(Debug, Default, PartialEq, Eq)]
struct Marks {
    labels: BTreeMap<String, Option<String>>,
    taints: Option<Vec<Taint>>,
}

impl Marks {
    fn of(node: &NodeSpec, seen: &NodeStatus, given: &Given) -> Self {
        let mut labels = BTreeMap::new();
        for (key, value) in &node.labels {
            if seen.labels.get(key) != Some(value) {
                labels.insert(key.clone(), Some(value.clone()));
            }
        }
        for key in
            given.labels.iter().filter(|k| !node.labels.contains_key(*k) && seen.labels.contains_key(*k))
        {
            labels.insert(key.clone(), None);
        }
        let wanted: Vec<Taint> = node.taints.iter().filter_map(|t| t.parse().ok()).collect();
        let dropped = |t: &Taint| given.taints.contains(&t.to_string()) && !wanted.contains(t);
        let mut taints: Vec<Taint> = seen.taints.iter().filter(|t| !dropped(t)).cloned().collect();
        for taint in wanted {
            // A taint is known by key and effect; another value replaces it.
            taints.retain(|t| t == &taint || t.key != taint.key || t.effect != taint.effect);
            if !taints.contains(&taint) {
                taints.push(taint);
            }
        }
        let taints = (taints != seen.taints).then_some(taints);
        Self { labels, taints }
    }

    fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.taints.is_none()
    }

    fn changes(&self, node: &str, seen: Option<&NodeStatus>) -> Vec<Change> {
        let old = |key: &String| seen.and_then(|s| s.labels.get(key)).cloned();
        let labels = self.labels.iter().map(|(key, value)| Change {
            what: format!("{node} label {key}"),
            old: old(key),
            new: value.clone(),
        });
        let text = |taints: &[Taint]| taints.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let taints = self.taints.iter().map(|taints| Change {
            what: format!("{node} taints"),
            old: seen.map(|s| text(&s.taints)).filter(|t| !t.is_empty()),
            new: Some(text(taints)).filter(|t| !t.is_empty()),
        });
        labels.chain(taints).collect()
    }
}

fn labels(env: &Arc<Env>, facts: &K3sFacts, state: &State) -> Option<Arc<dyn Step>> {
    let mut changes = Vec::new();
    for node in &env.nodes {
        match facts.object(&node.name) {
            Some(seen) => {
                let given = state.record(&record(&node.name)).unwrap_or(None).unwrap_or_default();
                changes.extend(Marks::of(node, seen, &given).changes(&node.name, Some(seen)));
            }
            None => {
                let label = |(key, value): (&String, &String)| {
                    Change::set(format!("{} label {key}", node.name), value)
                };
                changes.extend(node.labels.iter().map(label));
                if !node.taints.is_empty() {
                    changes.push(Change::set(format!("{} taints", node.name), node.taints.join(", ")));
                }
            }
        }
    }
    if changes.is_empty() {
        return None;
    }
    let description = StepDescription::new("k3s/labels", "Set labels and taints", PHASE);
    let description = changes.into_iter().fold(description, StepDescription::change);
    Some(Arc::new(SetMarks { description, env: Arc::clone(env) }))
}

struct SetMarks {
    description: StepDescription,
    env: Arc<Env>,
}

impl SetMarks {
    async fn look(&self, cx: &StepContext) -> Result<Vec<(NodeSpec, NodeStatus, Marks)>, Failure> {
        let state = cx.state().await?;
        let objects = self.env.api().await?.nodes().await?;
        let mut all = Vec::new();
        for node in &self.env.nodes {
            let seen = objects.iter().find(|o| o.name == node.name).ok_or_else(|| {
                Failure::new(FailureClass::Unreachable, format!("{} is not registered", node.name))
                    .retryable()
            })?;
            let given: Given = state.record(&record(&node.name))?.unwrap_or_default();
            let marks = Marks::of(node, seen, &given);
            all.push((node.clone(), seen.clone(), marks));
        }
        Ok(all)
    }
}

#[async_trait]
impl Step for SetMarks {
    fn describe(&self) -> StepDescription {
        self.description.clone()
    }

    async fn apply(&self, cx: &StepContext) -> Result<(), Failure> {
        let api = self.env.api().await?;
        for (node, seen, marks) in self.look(cx).await? {
            if marks.is_empty() {
                continue;
            }
            // Noted before it is done, with what was ours: after a crash in between nothing of ours is forgotten.
            cx.update_state(|state| {
                let mut given: Given = state.record(&record(&node.name))?.unwrap_or_default();
                given.labels.extend(node.labels.keys().cloned());
                given.taints.extend(node.taints.iter().cloned());
                state.put_record(record(&node.name), &given)
            })
            .await?;
            if !marks.labels.is_empty() {
                api.set_node_labels(&node.name, &marks.labels).await?;
            }
            if let Some(taints) = &marks.taints {
                api.set_node_taints(&node.name, &seen.taints, taints).await?;
            }
            cx.update_state(|state| {
                let labels = node.labels.keys().cloned().collect();
                let taints = node.taints.iter().cloned().collect();
                state.put_record(record(&node.name), &Given { labels, taints })
            })
            .await?;
        }
        Ok(())
    }

    async fn verify(&self, cx: &StepContext) -> Result<Verdict, Failure> {
        let open = self.look(cx).await?.into_iter().find(|(_, _, marks)| !marks.is_empty());
        Ok(match open {
            None => Verdict::Converged,
            Some((node, _, _)) => Verdict::NotYet(format!("labels or taints of {} differ", node.name)),
        })
    }
}

fn nodes_ready(env: &Arc<Env>, facts: &K3sFacts) -> Option<Arc<dyn Step>> {
    // Without a network plugin no node is Ready; who installs one waits for it.
    if env.spec.flannel_backend == FlannelBackend::None {
        return None;
    }
    let well = |n: &NodeSpec| facts.object(&n.name).is_some_and(|o| o.ready.is_ready());
    let waiting: Vec<&NodeSpec> = env.nodes.iter().filter(|n| !well(n)).collect();
    if waiting.is_empty() {
        return None;
    }
    let description =
        StepDescription::new("k3s/nodes-ready", "Wait for all nodes", PHASE).expected_seconds(30);
    let change =
        |d: StepDescription, n: &&NodeSpec| d.change(Change::set(format!("node {}", n.name), "Ready"));
    let description = waiting.iter().fold(description, change);
    Some(Arc::new(NodesReady { description, env: Arc::clone(env) }))
}

struct NodesReady {
    description: StepDescription,
    env: Arc<Env>,
}

#[async_trait]
impl Step for NodesReady {
    fn describe(&self) -> StepDescription {
        self.description.clone()
    }
    async fn apply(&self, cx: &StepContext) -> Result<(), Failure> {
        let names: Vec<String> = self.env.nodes.iter().map(|n| n.name.clone()).collect();
        let api = self.env.api().await?;
        ready::all_nodes_ready(api.as_ref(), &names, LIMIT, cx).await.map(drop)
    }
}

fn system(env: &Arc<Env>, facts: &K3sFacts) -> Option<Arc<dyn Step>> {
    let wanted: Vec<String> = facts.system_deployments(&env.spec).iter().map(|n| (*n).to_owned()).collect();
    if wanted.is_empty() || env.spec.flannel_backend == FlannelBackend::None {
        return None;
    }
    let there = |name: &String| {
        facts.api.as_ref().is_some_and(|api| api.system.iter().any(|w| w.name == *name && w.is_available()))
    };
    let waiting: Vec<&String> = wanted.iter().filter(|n| !there(n)).collect();
    if waiting.is_empty() {
        return None;
    }
    let description =
        StepDescription::new("k3s/system", "Wait for the system workloads", PHASE).expected_seconds(60);
    let change =
        |d: StepDescription, n: &&String| d.change(Change::set(format!("kube-system/{n}"), "available"));
    let description = waiting.iter().fold(description, change);
    Some(Arc::new(System { description, env: Arc::clone(env), wanted }))
}

struct System {
    description: StepDescription,
    env: Arc<Env>,
    wanted: Vec<String>,
}

#[async_trait]
impl Step for System {
    fn describe(&self) -> StepDescription {
        self.description.clone()
    }
    async fn apply(&self, cx: &StepContext) -> Result<(), Failure> {
        let api = self.env.api().await?;
        ready::workloads_available(api.as_ref(), "kube-system", &self.wanted, LIMIT, cx).await.map(drop)
    }
}
