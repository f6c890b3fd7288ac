//! [`ClusterApi`] over kube-rs.

use std::{collections::BTreeMap, error::Error, time::Duration};

use async_trait::async_trait;
use http::{HeaderValue, Method, Request, StatusCode, header};
use kube::client::{Body, Client};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use turingpi_engine::{Failure, FailureClass};

use super::{
    Applied, ClusterApi, ClusterEvent, Eviction, Kubeconfig, NodePod, NodeStatus, ObjectRef, PodOwner, Taint,
    Version, WorkloadKind, WorkloadStatus, connect,
    node::{date, items, parse_node, string},
    parse_workload,
    path::{Kinds, Resource, escape, group_path, list_path, object_path},
};

/// Longer than any ordinary call; a board's API under load answers within seconds.
const CALL_LIMIT: Duration = Duration::from_secs(60);
/// Objects a page of a list.
const PAGE: u32 = 500;

/// A Kubernetes API over kube-rs.
pub struct KubeRsApi {
    client: Client,
    token: Option<SecretString>,
    server: String,
    kinds: Kinds,
}

struct Answer {
    status: StatusCode,
    body: Vec<u8>,
    retry_after: Option<Duration>,
}

impl KubeRsApi {
    /// The API that the kubeconfig's current context names. Nothing is sent yet. `dial` (`host:port`) is where it
    /// really answers, when that differs; its certificate is checked for the kubeconfig's address all the same.
    ///
    /// # Errors
    /// `Config` when the kubeconfig lacks the CA or names a way to log in that is not supported.
    pub fn from_kubeconfig(kubeconfig: &Kubeconfig, dial: Option<&str>) -> Result<Self, Failure> {
        let endpoint = kubeconfig.endpoint()?;
        Ok(Self {
            client: connect::client(&endpoint, dial)?,
            server: dial.map_or(endpoint.server, str::to_owned),
            token: endpoint.token,
            kinds: Kinds::default(),
        })
    }

    /// Over a client that is already there; `server` is what messages call it.
    pub fn new(client: Client, server: impl Into<String>) -> Self {
        Self { client, token: None, server: server.into(), kinds: Kinds::default() }
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        body: Option<&Value>,
    ) -> Result<Answer, Failure> {
        let unexpected = |e: Box<dyn Error + Send + Sync>| {
            Failure::new(FailureClass::Unexpected, format!("cannot ask the Kubernetes API for `{path}`"))
                .source(e)
        };
        let bytes = body.map(serde_json::to_vec).transpose().map_err(|e| unexpected(e.into()))?;
        let mut request =
            Request::builder().method(method).uri(path).header(header::ACCEPT, "application/json");
        if bytes.is_some() {
            request = request.header(header::CONTENT_TYPE, kind);
        }
        if let Some(token) = &self.token {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()))
                .map_err(|e| unexpected(e.into()))?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        let request =
            request.body(Body::from(bytes.unwrap_or_default())).map_err(|e| unexpected(e.into()))?;
        let whole = async {
            let response = self.client.send(request).await.map_err(|e| self.unreachable(e))?;
            let status = response.status();
            let retry_after = response
                .headers()
                .get(header::RETRY_AFTER)
                .and_then(|v| v.to_str().ok()?.parse().ok())
                .map(Duration::from_secs);
            let body = response.into_body().collect_bytes().await.map_err(|e| self.unreachable(e))?;
            Ok(Answer { status, body: body.to_vec(), retry_after })
        };
        match tokio::time::timeout(CALL_LIMIT, whole).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::new(
                FailureClass::Unreachable,
                format!(
                    "the Kubernetes API at {} did not answer within {} s",
                    self.server,
                    CALL_LIMIT.as_secs()
                ),
            )
            .retryable()),
        }
    }

    async fn json(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        body: Option<&Value>,
    ) -> Result<Option<Value>, Failure> {
        let answer = self.call(method, path, kind, body).await?;
        match answer.status {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => serde_json::from_slice(&answer.body).map(Some).map_err(|e| {
                Failure::new(
                    FailureClass::Unexpected,
                    format!("cannot read the Kubernetes API's answer for `{path}`"),
                )
                .source(e)
            }),
            _ => Err(self.refusal(path, &answer)),
        }
    }

    async fn fetch(&self, path: &str) -> Result<Option<Value>, Failure> {
        self.json(Method::GET, path, "", None).await
    }

    async fn change(&self, method: Method, path: &str, kind: &str, body: &Value) -> Result<Value, Failure> {
        self.json(method, path, kind, Some(body)).await?.ok_or_else(|| {
            Failure::new(
                FailureClass::Refused,
                format!("the Kubernetes API at {} has no `{path}`", self.server),
            )
        })
    }

    async fn resource(&self, of: &ObjectRef) -> Result<Option<Resource>, Failure> {
        if let Some(resource) = self.kinds.known(&of.api_version, &of.kind) {
            return Ok(Some(resource));
        }
        if let Some(list) = self.fetch(&group_path(&of.api_version)).await? {
            self.kinds.learn(&of.api_version, &list);
        }
        Ok(self.kinds.known(&of.api_version, &of.kind))
    }

    async fn known_resource(&self, of: &ObjectRef) -> Result<Resource, Failure> {
        self.resource(of).await?.ok_or_else(|| {
            Failure::new(
                FailureClass::Refused,
                format!("the Kubernetes API at {} knows no {} of {}", self.server, of.kind, of.api_version),
            )
            .hint("If a CustomResourceDefinition brings it, that may not be established yet.")
            .retryable()
        })
    }

    async fn pages(&self, path: &str, query: &str) -> Result<Vec<Value>, Failure> {
        let mut all = Vec::new();
        let mut next = String::new();
        loop {
            let after = if next.is_empty() { String::new() } else { format!("&continue={}", escape(&next)) };
            let Some(mut page) = self.fetch(&format!("{path}?limit={PAGE}{query}{after}")).await? else {
                return Ok(all);
            };
            next = string(page.pointer("/metadata/continue"));
            if let Some(Value::Array(items)) = page.get_mut("items").map(Value::take) {
                all.extend(items);
            }
            if next.is_empty() {
                return Ok(all);
            }
        }
    }

    async fn checks(&self, path: &str) -> Result<Vec<String>, Failure> {
        let answer = self.call(Method::GET, &format!("{path}?verbose"), "", None).await?;
        let text = String::from_utf8_lossy(&answer.body);
        let failing: Vec<String> = text
            .lines()
            .filter_map(|line| line.strip_prefix("[-]"))
            .map(|line| line.split_whitespace().next().unwrap_or_default().to_owned())
            .collect();
        match answer.status {
            status if status.is_success() => Ok(Vec::new()),
            StatusCode::INTERNAL_SERVER_ERROR if !failing.is_empty() => Ok(failing),
            _ => Err(self.refusal(path, &answer)),
        }
    }

    fn unreachable(&self, error: kube::Error) -> Failure {
        if let Some(tls) = tls_error(&error) {
            return self.tls_failure(tls.clone());
        }
        Failure::new(FailureClass::Unreachable, format!("cannot reach the Kubernetes API at {}", self.server))
            .source(Boxed(error.to_string()))
            .retryable()
    }

    fn tls_failure(&self, error: rustls::Error) -> Failure {
        use rustls::{CertificateError as C, Error as E};
        let hint = match &error {
            E::InvalidCertificate(C::NotValidForName | C::NotValidForNameContext { .. }) => {
                "The address is not in the certificate: add it to `tls-san` on the servers, or use one that is."
            }
            E::InvalidCertificate(C::UnknownIssuer | C::BadSignature) => {
                "The kubeconfig belongs to an earlier cluster: fetch it again from a server."
            }
            E::InvalidCertificate(
                C::NotValidYet | C::NotValidYetContext { .. } | C::Expired | C::ExpiredContext { .. },
            ) => "Check the clock here and on the servers; restarting k3s renews its certificates.",
            E::AlertReceived(_) => {
                "The server refused the client certificate: it may have expired. Fetch the kubeconfig again."
            }
            _ => "Check that this address is the Kubernetes API.",
        };
        Failure::new(
            FailureClass::Auth,
            format!("cannot trust, or be trusted by, the Kubernetes API at {}", self.server),
        )
        .hint(hint)
        .source(error)
    }

    fn refusal(&self, path: &str, answer: &Answer) -> Failure {
        let status: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
        let message = match status.get("message").and_then(Value::as_str) {
            Some(message) => message.to_owned(),
            None => String::from_utf8_lossy(&answer.body).chars().take(300).collect(),
        };
        let text =
            format!("the Kubernetes API at {} answered {} for `{path}`", self.server, answer.status.as_u16());
        let failure = |class| Failure::new(class, text.clone()).source(Boxed(message.clone()));
        match answer.status.as_u16() {
            401 => {
                failure(FailureClass::Auth).hint("The kubeconfig's credentials were refused: fetch it again.")
            }
            403 => {
                failure(FailureClass::Auth).hint("The kubeconfig's user may not do this: use the admin's.")
            }
            409 => failure(FailureClass::Refused).retryable(),
            429 | 500..=599 => {
                let failure = failure(FailureClass::Unreachable).retryable();
                match answer.retry_after {
                    Some(delay) => failure.retry_after(delay),
                    None => failure,
                }
            }
            _ => failure(FailureClass::Refused),
        }
    }
}

/// The TLS error among the causes. An I/O error hides its inner error from `source`, and hyper nests two of them.
fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            return Some(tls);
        }
        next = match cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => cause.source(),
        };
    }
    None
}

/// A cause that is only a text.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Boxed(String);

const MERGE: &str = "application/merge-patch+json";

fn node_path(name: &str) -> String {
    format!("/api/v1/nodes/{}", escape(name))
}

#[async_trait]
impl ClusterApi for KubeRsApi {
    async fn version(&self) -> Result<Version, Failure> {
        let value = self.fetch("/version").await?.unwrap_or_default();
        serde_json::from_value(value).map_err(|e| {
            Failure::new(
                FailureClass::Unexpected,
                format!("{} does not answer like a Kubernetes API", self.server),
            )
            .source(e)
        })
    }

    async fn livez(&self) -> Result<Vec<String>, Failure> {
        self.checks("/livez").await
    }

    async fn readyz(&self) -> Result<Vec<String>, Failure> {
        self.checks("/readyz").await
    }

    async fn nodes(&self) -> Result<Vec<NodeStatus>, Failure> {
        let mut nodes: Vec<_> =
            self.pages("/api/v1/nodes", "").await?.iter().filter_map(parse_node).collect();
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(nodes)
    }

    async fn node(&self, name: &str) -> Result<Option<NodeStatus>, Failure> {
        Ok(self.fetch(&node_path(name)).await?.as_ref().and_then(parse_node))
    }

    async fn set_node_labels(
        &self,
        name: &str,
        labels: &BTreeMap<String, Option<String>>,
    ) -> Result<(), Failure> {
        let patch = json!({"metadata": {"labels": labels}});
        self.change(Method::PATCH, &node_path(name), MERGE, &patch).await.map(drop)
    }

    async fn set_node_taints(&self, name: &str, old: &[Taint], new: &[Taint]) -> Result<(), Failure> {
        // A merge patch replaces the whole list, so the old list is tested first: the node controller adds its own.
        let path = node_path(name);
        let now = self.fetch(&path).await?.ok_or_else(|| {
            Failure::new(FailureClass::Refused, format!("there is no node `{name}` in the cluster"))
        })?;
        if parse_node(&now).is_none_or(|node| node.taints != old) {
            return Err(Failure::new(
                FailureClass::Refused,
                format!("the taints of node `{name}` changed meanwhile"),
            )
            .retryable());
        }
        let version = string(now.pointer("/metadata/resourceVersion"));
        let patch = json!({"metadata": {"resourceVersion": version}, "spec": {"taints": new}});
        self.change(Method::PATCH, &path, MERGE, &patch).await.map(drop)
    }

    async fn set_unschedulable(&self, name: &str, unschedulable: bool) -> Result<(), Failure> {
        let value = if unschedulable { Value::Bool(true) } else { Value::Null };
        self.change(Method::PATCH, &node_path(name), MERGE, &json!({"spec": {"unschedulable": value}}))
            .await
            .map(drop)
    }

    async fn delete_node(&self, name: &str) -> Result<bool, Failure> {
        Ok(self.json(Method::DELETE, &node_path(name), "", None).await?.is_some())
    }

    async fn pods_on(&self, node: &str) -> Result<Vec<NodePod>, Failure> {
        let query = format!("&fieldSelector=spec.nodeName%3D{}", escape(node));
        let pods = self.pages("/api/v1/pods", &query).await?;
        // A server that ignores field selectors must not get the pods of other nodes evicted.
        let here = |pod: &&Value| pod.pointer("/spec/nodeName").and_then(Value::as_str) == Some(node);
        Ok(pods.iter().filter(here).map(parse_pod).collect())
    }

    async fn evict(&self, namespace: &str, pod: &str, grace: Option<u32>) -> Result<Eviction, Failure> {
        let path = format!("/api/v1/namespaces/{}/pods/{}/eviction", escape(namespace), escape(pod));
        let mut body = json!({"apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": {"name": pod, "namespace": namespace}});
        if let (Some(grace), Some(body)) = (grace, body.as_object_mut()) {
            body.insert("deleteOptions".to_owned(), json!({"gracePeriodSeconds": grace}));
        }
        let answer = self.call(Method::POST, &path, "application/json", Some(&body)).await?;
        match answer.status {
            StatusCode::NOT_FOUND => Ok(Eviction::Gone),
            status if status.is_success() => Ok(Eviction::Accepted),
            // 429 is how the API says that a disruption budget forbids it; 500 when several budgets match.
            StatusCode::TOO_MANY_REQUESTS | StatusCode::INTERNAL_SERVER_ERROR => Ok(blocked(&answer)),
            _ => Err(self.refusal(&path, &answer)),
        }
    }

    async fn get(&self, object: &ObjectRef) -> Result<Option<Value>, Failure> {
        match self.resource(object).await? {
            Some(resource) => self.fetch(&object_path(object, &resource)).await,
            None => Ok(None),
        }
    }

    async fn list(&self, of: &ObjectRef) -> Result<Vec<Value>, Failure> {
        match self.resource(of).await? {
            Some(resource) => self.pages(&list_path(of, &resource), "").await,
            None => Ok(Vec::new()),
        }
    }

    async fn apply(&self, object: &Value, manager: &str) -> Result<Applied, Failure> {
        let of = ObjectRef::of(object).ok_or_else(|| {
            Failure::new(
                FailureClass::Config,
                "cannot apply a manifest without apiVersion, kind and metadata.name",
            )
        })?;
        let path = object_path(&of, &self.known_resource(&of).await?);
        let version = |value: &Value| string(value.pointer("/metadata/resourceVersion"));
        let before = self.fetch(&path).await?.as_ref().map(version);
        let query = format!("{path}?fieldManager={}&force=true", escape(manager));
        let now = self.change(Method::PATCH, &query, "application/apply-patch+yaml", object).await?;
        Ok(Applied { changed: before.as_deref() != Some(version(&now).as_str()), object: now })
    }

    async fn merge_patch(&self, object: &ObjectRef, patch: &Value) -> Result<Value, Failure> {
        let path = object_path(object, &self.known_resource(object).await?);
        self.change(Method::PATCH, &path, MERGE, patch).await
    }

    async fn delete(&self, object: &ObjectRef) -> Result<bool, Failure> {
        let Some(resource) = self.resource(object).await? else { return Ok(false) };
        let body = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"});
        let path = object_path(object, &resource);
        Ok(self.json(Method::DELETE, &path, "application/json", Some(&body)).await?.is_some())
    }

    async fn workloads(&self, namespace: &str) -> Result<Vec<WorkloadStatus>, Failure> {
        let mut all = Vec::new();
        for kind in WorkloadKind::ALL {
            let within = if namespace.is_empty() {
                String::new()
            } else {
                format!("/namespaces/{}", escape(namespace))
            };
            let path = format!("/apis/apps/v1{within}/{}s", kind.name().to_lowercase());
            all.extend(self.pages(&path, "").await?.iter().filter_map(|object| parse_workload(kind, object)));
        }
        Ok(all)
    }

    async fn events(&self, namespace: &str) -> Result<Vec<ClusterEvent>, Failure> {
        let within =
            if namespace.is_empty() { String::new() } else { format!("/namespaces/{}", escape(namespace)) };
        let mut events: Vec<_> =
            self.pages(&format!("/api/v1{within}/events"), "").await?.iter().map(parse_event).collect();
        events.sort_by_key(|event| event.at);
        Ok(events)
    }
}

fn blocked(answer: &Answer) -> Eviction {
    let status: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
    let causes: Vec<String> = items(status.pointer("/details/causes"))
        .map(|cause| string(cause.get("message")))
        .filter(|m| !m.is_empty())
        .collect();
    // "The disruption budget web needs 2 healthy pods and has 2 currently": the only place that names it.
    let budget = causes.iter().find_map(|m| {
        let rest = m.strip_prefix("The disruption budget ")?;
        rest.split_whitespace().next().map(str::to_owned)
    });
    let message = causes.first().cloned().unwrap_or_else(|| string(status.get("message")));
    Eviction::Blocked { budget, message }
}

fn parse_pod(pod: &Value) -> NodePod {
    let metadata = pod.get("metadata").unwrap_or(&Value::Null);
    let controller = items(metadata.get("ownerReferences"))
        .find(|owner| owner.get("controller").and_then(Value::as_bool) == Some(true))
        .map(|owner| string(owner.get("kind")));
    let is_static = metadata.pointer("/annotations/kubernetes.io~1config.mirror").is_some();
    NodePod {
        namespace: string(metadata.get("namespace")),
        name: string(metadata.get("name")),
        uid: string(metadata.get("uid")),
        owner: match controller {
            _ if is_static => PodOwner::Static,
            Some(kind) if kind == "DaemonSet" => PodOwner::DaemonSet,
            Some(kind) => PodOwner::Controller(kind),
            None => PodOwner::Nobody,
        },
        empty_dir: items(pod.pointer("/spec/volumes")).any(|volume| volume.get("emptyDir").is_some()),
        finished: matches!(
            pod.pointer("/status/phase").and_then(Value::as_str),
            Some("Succeeded" | "Failed")
        ),
        deleting: metadata.get("deletionTimestamp").is_some_and(|at| !at.is_null()),
    }
}

fn parse_event(event: &Value) -> ClusterEvent {
    let about = event.get("involvedObject").unwrap_or(&Value::Null);
    let at = [
        "/lastTimestamp",
        "/series/lastObservedTime",
        "/eventTime",
        "/firstTimestamp",
        "/metadata/creationTimestamp",
    ];
    ClusterEvent {
        at: at.iter().find_map(|path| date(event.pointer(path))),
        kind: string(event.get("type")),
        reason: string(event.get("reason")),
        about: match string(about.get("namespace")).as_str() {
            "" => format!("{} {}", string(about.get("kind")), string(about.get("name"))),
            namespace => format!("{} {namespace}/{}", string(about.get("kind")), string(about.get("name"))),
        },
        message: string(event.get("message")),
        count: event.get("count").and_then(Value::as_u64).unwrap_or(1),
    }
}
