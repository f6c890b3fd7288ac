//! The adapter and the drain against small API servers in this process.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, patch, post},
};
use serde_json::{Value, json};
use turingpi_engine::{Cancellation, Event, FailureClass, MemoryStateStore, StepContext, Timing};

use super::*;

fn api(router: Router) -> KubeRsApi {
    KubeRsApi::new(::kube::Client::new(router, "default"), "test:6443")
}

fn cx(limit_factor: f64) -> StepContext {
    StepContext::detached(
        Arc::new(MemoryStateStore::new()),
        Arc::new(|_: &Event| ()),
        Timing { limit_factor, ..Timing::fast() },
        Cancellation::new(),
    )
}

fn status(code: StatusCode, message: &str) -> Response {
    (code, Json(json!({"kind": "Status", "status": "Failure", "message": message, "code": code.as_u16()})))
        .into_response()
}

#[tokio::test]
async fn lists_are_read_page_by_page() {
    let router = Router::new().route(
        "/api/v1/nodes",
        get(|Query(query): Query<BTreeMap<String, String>>| async move {
            let node = |name: &str| json!({"metadata": {"name": name}});
            match query.get("continue").map(String::as_str) {
                None => Json(json!({"items": [node("node2")], "metadata": {"continue": "a b+c"}})),
                Some("a b+c") => Json(json!({"items": [node("node1")], "metadata": {}})),
                Some(other) => panic!("continue token was changed on its way: {other}"),
            }
        }),
    );
    let names: Vec<_> = api(router).nodes().await.unwrap().into_iter().map(|node| node.name).collect();
    assert_eq!(names, ["node1", "node2"]);
}

#[tokio::test]
async fn readiness_checks_that_fail_are_named() {
    let router = Router::new()
        .route(
            "/readyz",
            get(|| async {
                (
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "[+]ping ok\n[-]etcd failed: reason withheld\nreadyz check failed\n",
                )
            }),
        )
        .route("/livez", get(|| async { "[+]ping ok\nlivez check passed\n" }));
    let api = api(router);
    assert_eq!(api.readyz().await.unwrap(), ["etcd"]);
    assert_eq!(api.livez().await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn answers_become_classes_that_say_whether_to_try_again() {
    for (code, class, retryable) in [
        (StatusCode::UNAUTHORIZED, FailureClass::Auth, false),
        (StatusCode::FORBIDDEN, FailureClass::Auth, false),
        (StatusCode::CONFLICT, FailureClass::Refused, true),
        (StatusCode::UNPROCESSABLE_ENTITY, FailureClass::Refused, false),
        (StatusCode::TOO_MANY_REQUESTS, FailureClass::Unreachable, true),
        (StatusCode::SERVICE_UNAVAILABLE, FailureClass::Unreachable, true),
    ] {
        let router = Router::new()
            .route("/api/v1/nodes", get(move || async move { status(code, "the server's words") }));
        let failure = api(router).nodes().await.unwrap_err();
        assert_eq!((failure.class(), failure.is_retryable()), (class, retryable), "{code}");
        assert_eq!(failure.report().causes, ["the server's words"], "{code}");
    }
    let missing = Router::new();
    assert_eq!(api(missing).node("none").await.unwrap(), None);
}

#[tokio::test]
async fn kinds_are_found_by_discovery_and_a_new_one_is_looked_up_again() {
    let known = Arc::new(Mutex::new(false));
    let router = Router::new()
        .route(
            "/apis/example.org/v1",
            get(|State(known): State<Arc<Mutex<bool>>>| async move {
                let mut known = known.lock().unwrap();
                let list = if *known {
                    json!([{"name": "widgets", "kind": "Widget", "namespaced": true}, {"name": "widgets/status", "kind": "Widget", "namespaced": true}])
                } else {
                    json!([])
                };
                *known = true;
                Json(json!({"resources": list}))
            }),
        )
        .route("/apis/example.org/v1/namespaces/{namespace}/widgets/{name}", get(|Path((namespace, name)): Path<(String, String)>| async move {
            Json(json!({"metadata": {"name": name, "namespace": namespace}}))
        }))
        .with_state(known);
    let api = api(router);
    let widget = ObjectRef::namespaced("example.org/v1", "Widget", "ns", "a");
    assert_eq!(api.get(&widget).await.unwrap(), None, "the kind is not there yet");
    assert_eq!(api.get(&widget).await.unwrap().unwrap()["metadata"]["namespace"], "ns");
}

#[tokio::test]
async fn server_side_apply_sends_the_manager_and_says_whether_anything_changed() {
    let stored: Arc<Mutex<Option<Value>>> = Arc::default();
    let router = Router::new()
        .route(
            "/api/v1",
            get(|| async {
                Json(json!({"resources": [{"name": "configmaps", "kind": "ConfigMap", "namespaced": true}]}))
            }),
        )
        .route(
            "/api/v1/namespaces/default/configmaps/a",
            get(|State(stored): State<Arc<Mutex<Option<Value>>>>| async move {
                match stored.lock().unwrap().clone() {
                    Some(object) => Json(object).into_response(),
                    None => status(StatusCode::NOT_FOUND, "not found"),
                }
            })
            .patch(
                |State(stored): State<Arc<Mutex<Option<Value>>>>,
                 Query(query): Query<BTreeMap<String, String>>,
                 headers: HeaderMap,
                 body: Bytes| async move {
                    assert_eq!(headers[header::CONTENT_TYPE], "application/apply-patch+yaml");
                    assert_eq!(
                        (query["fieldManager"].as_str(), query["force"].as_str()),
                        ("turingpi", "true")
                    );
                    let mut object: Value = serde_json::from_slice(&body).unwrap();
                    let mut stored = stored.lock().unwrap();
                    let same = stored.as_ref().is_some_and(|old| old["data"] == object["data"]);
                    let version = stored.as_ref().map_or(0, |old| {
                        old["metadata"]["resourceVersion"].as_str().unwrap().parse::<u32>().unwrap()
                    });
                    object["metadata"]["resourceVersion"] =
                        json!((if same { version } else { version + 1 }).to_string());
                    *stored = Some(object.clone());
                    Json(object)
                },
            ),
        )
        .with_state(stored);
    let api = api(router);
    let object = |value: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": value}});
    let changed = [
        api.apply(&object("1"), "turingpi").await.unwrap().changed,
        api.apply(&object("1"), "turingpi").await.unwrap().changed,
        api.apply(&object("2"), "turingpi").await.unwrap().changed,
    ];
    assert_eq!(changed, [true, false, true]);
    assert_eq!(
        api.apply(&json!({"kind": "ConfigMap"}), "turingpi").await.unwrap_err().class(),
        FailureClass::Config
    );
}

#[tokio::test]
async fn taints_are_replaced_only_while_they_are_what_was_seen() {
    let patches: Arc<Mutex<Vec<Value>>> = Arc::default();
    let node = json!({"metadata": {"name": "n", "resourceVersion": "7"}, "spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}});
    let router = Router::new()
        .route(
            "/api/v1/nodes/n",
            get(move || async move { Json(node) }).merge(patch(
                |State(patches): State<Arc<Mutex<Vec<Value>>>>, Json(body): Json<Value>| async move {
                    patches.lock().unwrap().push(body);
                    Json(json!({}))
                },
            )),
        )
        .with_state(Arc::clone(&patches));
    let router =
        router.layer(axum::middleware::map_request(|mut request: axum::extract::Request| async move {
            // axum's `Json` wants its own content type.
            if request.headers().contains_key(header::CONTENT_TYPE) {
                request.headers_mut().insert(header::CONTENT_TYPE, "application/json".parse().unwrap());
            }
            request
        }));
    let api = api(router);
    let old: Taint = "a:NoSchedule".parse().unwrap();
    let new: Taint = "b=c:NoExecute".parse().unwrap();
    let failure = api.set_node_taints("n", &[], std::slice::from_ref(&new)).await.unwrap_err();
    assert!(failure.is_retryable(), "somebody else changed them");
    api.set_node_taints("n", &[old], &[new]).await.unwrap();
    let patches = patches.lock().unwrap();
    assert_eq!(patches[0]["metadata"]["resourceVersion"], "7");
    assert_eq!(patches[0]["spec"]["taints"], json!([{"key": "b", "value": "c", "effect": "NoExecute"}]));
}

/// A cluster of pods on one node, with one disruption budget.
#[derive(Clone, Default)]
struct Pods(Arc<Mutex<PodWorld>>);

#[derive(Default)]
struct PodWorld {
    pods: BTreeMap<String, Value>,
    held: BTreeSet<String>,
    release_after: usize,
    refused: usize,
    cordoned: bool,
}

impl Pods {
    fn add(&self, name: &str, owner: Option<&str>, change: impl FnOnce(&mut Value)) {
        let owners = owner.map_or(json!([]), |kind| json!([{"kind": kind, "controller": true, "name": "x"}]));
        let mut pod = json!({"metadata": {"namespace": "ns", "name": name, "uid": name, "ownerReferences": owners},
            "spec": {"nodeName": "node1"}, "status": {"phase": "Running"}});
        change(&mut pod);
        self.0.lock().unwrap().pods.insert(name.to_owned(), pod);
    }
    fn left(&self) -> Vec<String> {
        self.0.lock().unwrap().pods.keys().cloned().collect()
    }
    fn api(&self) -> KubeRsApi {
        let router = Router::new()
            .route("/api/v1/pods", get(|State(pods): State<Self>| async move {
                Json(json!({"items": pods.0.lock().unwrap().pods.values().collect::<Vec<_>>()}))
            }))
            .route("/api/v1/nodes/node1", patch(|State(pods): State<Self>, body: Bytes| async move {
                let body: Value = serde_json::from_slice(&body).unwrap();
                pods.0.lock().unwrap().cordoned = body["spec"]["unschedulable"] == true;
                Json(json!({"metadata": {"name": "node1"}}))
            }))
            .route("/api/v1/namespaces/ns/pods/{name}/eviction", post(|State(pods): State<Self>, Path(name): Path<String>, body: Bytes| async move {
                let body: Value = serde_json::from_slice(&body).unwrap();
                assert_eq!((body["kind"].as_str(), body["metadata"]["name"].as_str()), (Some("Eviction"), Some(name.as_str())));
                let mut world = pods.0.lock().unwrap();
                assert!(world.cordoned, "first the cordon, then the evictions");
                if world.held.contains(&name) {
                    world.refused += 1;
                    if world.release_after == 0 || world.refused < world.release_after {
                        return (StatusCode::TOO_MANY_REQUESTS, Json(json!({"kind": "Status", "code": 429,
                            "message": "Cannot evict pod as it would violate the pod's disruption budget.",
                            "details": {"causes": [{"reason": "DisruptionBudget", "message": "The disruption budget web needs 2 healthy pods and has 2 currently"}]}}))).into_response();
                    }
                }
                match world.pods.remove(&name) {
                    Some(_) => (StatusCode::CREATED, Json(json!({"kind": "Status", "status": "Success"}))).into_response(),
                    None => status(StatusCode::NOT_FOUND, "gone"),
                }
            }))
            .with_state(self.clone());
        api(router)
    }
}

fn mixed() -> Pods {
    let pods = Pods::default();
    pods.add("web", Some("ReplicaSet"), |pod| {
        pod["spec"]["volumes"] = json!([{"name": "v", "emptyDir": {}}])
    });
    pods.add("svclb", Some("DaemonSet"), |_| ());
    pods.add("static", Some("Node"), |pod| {
        pod["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"})
    });
    pods.add("done", Some("Job"), |pod| pod["status"]["phase"] = json!("Succeeded"));
    pods.add("elsewhere", Some("ReplicaSet"), |pod| pod["spec"]["nodeName"] = json!("node2"));
    pods
}

#[tokio::test]
async fn draining_moves_what_can_move_and_leaves_the_rest() {
    let pods = mixed();
    let drained = drain(&pods.api(), "node1", &DrainOptions::default(), &cx(1.0)).await.unwrap();
    assert_eq!(drained.evicted, ["ns/web"]);
    let skipped: Vec<_> = drained.skipped.iter().map(|skipped| skipped.pod.as_str()).collect();
    assert_eq!(skipped, ["ns/done", "ns/static", "ns/svclb"]);
    assert_eq!(pods.left(), ["done", "elsewhere", "static", "svclb"]);
    assert!(pods.0.lock().unwrap().cordoned);
}

#[tokio::test]
async fn nothing_is_evicted_when_a_pod_would_be_lost() {
    let pods = mixed();
    pods.add("bare", None, |_| ());
    let failure = drain(&pods.api(), "node1", &DrainOptions::default(), &cx(1.0)).await.unwrap_err();
    assert_eq!(failure.class(), FailureClass::Refused);
    assert!(failure.message().contains("ns/bare"));
    assert!(!pods.0.lock().unwrap().cordoned && pods.left().contains(&"web".to_owned()));
    let force = DrainOptions { force: true, ..DrainOptions::default() };
    drain(&pods.api(), "node1", &force, &cx(1.0)).await.unwrap();
    assert!(!pods.left().contains(&"bare".to_owned()));
    let keep = DrainOptions { delete_empty_dir: false, ..DrainOptions::default() };
    let failure = drain(&mixed().api(), "node1", &keep, &cx(1.0)).await.unwrap_err();
    assert!(failure.message().contains("emptyDir") && failure.message().contains("ns/web"));
}

#[tokio::test]
async fn a_disruption_budget_is_waited_for_and_named_when_it_never_yields() {
    let pods = mixed();
    pods.0.lock().unwrap().held.insert("web".into());
    pods.0.lock().unwrap().release_after = 3;
    let drained = drain(&pods.api(), "node1", &DrainOptions::default(), &cx(1.0)).await.unwrap();
    assert_eq!(drained.evicted, ["ns/web"]);

    let pods = mixed();
    pods.0.lock().unwrap().held.insert("web".into());
    let options = DrainOptions { limit: Duration::from_millis(200), ..DrainOptions::default() };
    let failure = drain(&pods.api(), "node1", &options, &cx(1.0)).await.unwrap_err();
    assert_eq!(failure.class(), FailureClass::Timeout);
    assert!(failure.message().contains("ns/web"), "{failure}");
    assert!(failure.hint_text().unwrap().contains("`web` holds ns/web"), "{:?}", failure.hint_text());
}

/// A certificate authority, and a kubeconfig for it in the shape that k3s writes: SEC1 keys.
struct Authority {
    certificate: rcgen::Certificate,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut parameters = rcgen::CertificateParams::new(vec![]).unwrap();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        Self { certificate, issuer: rcgen::Issuer::new(parameters, key) }
    }
    fn issue(&self, names: &[&str]) -> (rcgen::Certificate, rcgen::KeyPair) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = rcgen::KeyPair::generate().unwrap();
        (rcgen::CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap(), key)
    }
    fn kubeconfig(&self, server: &str) -> Kubeconfig {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let (certificate, key) = self.issue(&[]);
        let data = |text: String| STANDARD.encode(text);
        Kubeconfig::parse(&format!(
            "current-context: c\nclusters: [{{name: c, cluster: {{server: '{server}', certificate-authority-data: {}}}}}]\n\
             users: [{{name: c, user: {{client-certificate-data: {}, client-key-data: {}}}}}]\ncontexts: [{{name: c, context: {{cluster: c, user: c}}}}]\n",
            data(self.certificate.pem()),
            data(certificate.pem()),
            data(key.serialize_pem()),
        ))
        .unwrap()
    }
    /// A TLS server that wants a client certificate of this authority and answers every request with a version.
    async fn serve(&self, names: &[&str]) -> std::net::SocketAddr {
        use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).unwrap();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
        let (certificate, key) = self.issue(names);
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![certificate.der().clone()],
                rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            )
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let router = Router::new()
                .route("/version", get(|| async { Json(json!({"gitVersion": "v1.35.5+k3s1"})) }));
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, router) = (acceptor.clone(), router.clone());
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(socket).await {
                        let service = hyper_util::service::TowerToHyperService::new(router);
                        let _ = hyper_util::server::conn::auto::Builder::new(
                            hyper_util::rt::TokioExecutor::new(),
                        )
                        .serve_connection(hyper_util::rt::TokioIo::new(stream), service)
                        .await;
                    }
                });
            }
        });
        address
    }
}

#[tokio::test]
async fn mutual_tls_works_by_address_by_another_name_and_through_another_door() {
    let authority = Authority::new();
    let address = authority.serve(&["127.0.0.1", "homelab.local"]).await;
    let direct = authority.kubeconfig(&format!("https://{address}"));
    assert_eq!(
        KubeRsApi::from_kubeconfig(&direct, None).unwrap().version().await.unwrap().git_version,
        "v1.35.5+k3s1"
    );
    let named = direct.with_tls_server_name(Some("homelab.local")).unwrap();
    KubeRsApi::from_kubeconfig(&named, None).unwrap().version().await.unwrap();
    // The name is checked, the address is only dialled.
    let elsewhere = authority.kubeconfig("https://homelab.local:6443");
    KubeRsApi::from_kubeconfig(&elsewhere, Some(&address.to_string())).unwrap().version().await.unwrap();
}

#[tokio::test]
async fn a_foreign_certificate_a_wrong_name_and_silence_are_told_apart() {
    let authority = Authority::new();
    let address = authority.serve(&["127.0.0.1"]).await;
    let failure = |config: Kubeconfig, dial: Option<String>| async move {
        KubeRsApi::from_kubeconfig(&config, dial.as_deref()).unwrap().version().await.unwrap_err()
    };
    let foreign = failure(Authority::new().kubeconfig(&format!("https://{address}")), None).await;
    assert_eq!((foreign.class(), foreign.is_retryable()), (FailureClass::Auth, false));
    assert!(foreign.hint_text().unwrap().contains("earlier cluster"), "{:?}", foreign.hint_text());
    let name = failure(authority.kubeconfig("https://10.10.88.73:6443"), Some(address.to_string())).await;
    assert_eq!(name.class(), FailureClass::Auth);
    assert!(name.hint_text().unwrap().contains("tls-san"), "{:?}", name.hint_text());
    let silent = failure(authority.kubeconfig("https://127.0.0.1:1"), None).await;
    assert_eq!((silent.class(), silent.is_retryable()), (FailureClass::Unreachable, true));
}
