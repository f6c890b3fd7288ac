//! Looking at a cluster: all nodes side by side, then the API.

use std::collections::BTreeMap;

use futures::future::join_all;
use rand::RngExt;
use secrecy::{ExposeSecret, SecretString};
use turingpi_cluster::{
    NodeSpec, Role, Source,
    kube::{ClusterApi, Kubeconfig, ObjectRef},
    patience, prepare_request,
};
use turingpi_engine::{Failure, FailureClass, State, StepContext};

use crate::{
    ApiFacts, K3sFacts, K3sNode, K3sVersion, NodeFacts, Reach,
    channel::channel_version,
    env::Env,
    facts::{EXTRA, disabled, request},
    paths, plan,
};

/// Looks. Nodes of `silent` are not asked: the caller did, and this is what came of it.
pub(crate) async fn observe(
    env: &Env,
    cx: &StepContext,
    mut silent: BTreeMap<String, Failure>,
) -> Result<K3sFacts, Failure> {
    let state = cx.state().await?;
    let looks = env.nodes.iter().map(|node| {
        let (silent, state) = (silent.remove(&node.name), &state);
        async move {
            let look = match silent {
                Some(failure) => Err(failure),
                None => look(env, cx, node, state).await,
            };
            (node.name.clone(), look)
        }
    });
    let looks = join_all(looks);
    let looked = tokio::select! {
        biased;
        () = cx.cancelled() => return Err(stopped()),
        looked = looks => looked,
    };
    let mut facts = K3sFacts::default();
    for (name, look) in looked {
        let reach = match look {
            Ok(node) => Reach::Up(Box::new(node)),
            Err(failure) => Reach::Down(failure.report()),
        };
        facts.nodes.insert(name, reach);
    }
    tokio::select! {
        biased;
        () = cx.cancelled() => return Err(stopped()),
        () = look_at_api(env, &mut facts) => {}
    }
    if env.spec.version.is_none() && plan::running_version(&facts).is_none() {
        match offered(env).await {
            Ok(version) => facts.offered = Some(version),
            Err(failure) => facts.offer_failure = Some(failure.report()),
        }
    }
    Ok(facts)
}

fn stopped() -> Failure {
    Failure::new(FailureClass::Cancelled, "stopped while looking at the nodes")
        .hint("Run the same command again.")
}

/// The facts of a node, over another connection when one is cut in the middle.
async fn look(env: &Env, cx: &StepContext, node: &NodeSpec, state: &State) -> Result<NodeFacts, Failure> {
    let patience = patience(state, &node.name)?;
    let once = || async {
        let client = env.hosts.answer(&node.name, patience, cx).await?;
        match node_facts(env, node).await {
            // Its end was seen a moment ago: that is no silence that a quick look must not wait for.
            Err(failure) if failure.is_retryable() && !client.is_alive() && !cx.is_patient() => {
                node_facts(env, node).await
            }
            end => end,
        }
    };
    cx.retry(once).await
}

async fn node_facts(env: &Env, node: &NodeSpec) -> Result<NodeFacts, Failure> {
    let salt = format!("{:032x}", rand::rng().random::<u128>());
    let host = env.hosts.host(&node.name).await?;
    let wanted = prepare_request(&env.host, &plan::needs(env, node)).and(request(&salt));
    let facts = host.facts(&wanted).await?;
    let mut k3s = K3sNode::parse(facts.extra(EXTRA).unwrap_or(""), &salt);
    if node.role == Role::ControlPlane && facts.files.contains_key(paths::USER_CONFIG) {
        // It may hold a token: it is read here, and only this is kept of it.
        let text = host.read_text(paths::USER_CONFIG).await?.map(SecretString::from);
        k3s.disabled = text.map(|text| disabled(text.expose_secret())).unwrap_or_default();
    }
    Ok(NodeFacts { host: facts, k3s })
}

/// Asks the first server that serves. A server that does not run is not an error: there is nothing to ask yet.
async fn look_at_api(env: &Env, facts: &mut K3sFacts) {
    let runs =
        |n: &&NodeSpec| facts.up(&n.name).is_some_and(|f| f.host.unit("k3s.service").active == "active");
    let servers: Vec<&NodeSpec> = env.servers().filter(runs).collect();
    for server in servers {
        match ask(env, server).await {
            Ok(api) => {
                facts.api = Some(api);
                facts.api_failure = None;
                break;
            }
            Err(failure) => facts.api_failure = Some(failure.report()),
        }
    }
    if let (Some(sink), true) = (&env.sink, facts.api.is_some())
        && let Ok(config) = env.kubeconfig().await
    {
        facts.kubeconfig_current = current(sink.as_ref(), &config).await;
    }
}

async fn current(sink: &dyn crate::KubeconfigSink, config: &Kubeconfig) -> Option<bool> {
    // A file that cannot be read counts as out of date: the step that writes it says why.
    Some(sink.is_current(config).await.unwrap_or(false))
}

async fn ask(env: &Env, server: &NodeSpec) -> Result<ApiFacts, Failure> {
    let api = env.api_of(server).await?;
    let (failing, nodes, system) = tokio::try_join!(api.readyz(), api.nodes(), workloads(api.as_ref()))?;
    let (all, service) =
        (ObjectRef::all("v1", "Node"), ObjectRef::namespaced("v1", "Service", "default", "kubernetes"));
    let (objects, service) = tokio::try_join!(api.list(&all), api.get(&service))?;
    let pods = objects.iter().filter_map(|node| node.pointer("/spec/podCIDR")?.as_str()?.parse().ok());
    let address = service.as_ref().and_then(|s| s.pointer("/spec/clusterIP")?.as_str()?.parse().ok());
    Ok(ApiFacts { failing, nodes, system, pod_networks: pods.collect(), service_address: address })
}

async fn workloads(api: &dyn ClusterApi) -> Result<Vec<turingpi_cluster::kube::WorkloadStatus>, Failure> {
    api.workloads("kube-system").await
}

async fn offered(env: &Env) -> Result<K3sVersion, Failure> {
    let url = &env.spec.channels_url;
    let source: Source = url.parse().map_err(|e: turingpi_cluster::fetch::InvalidSource| {
        Failure::new(FailureClass::Config, format!("`{url}` is not an address")).source(e)
    })?;
    let text = env.releases.fetcher().text(&source).await?;
    channel_version(&text, &env.spec.channel)
}
