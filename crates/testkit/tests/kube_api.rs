//! The simulated API server as kube-rs and plain HTTP see it: discovery, access, verbs, negotiation.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "tests")]

mod kube_support;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Secret, Service};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams},
    core::DynamicObject,
    discovery::{ApiResource, Discovery},
};
use kube_support::{Cluster, WIDGETS, client, deployment, widgets};
use serde_json::{Value, json};
use turingpi_testkit::{Action, DeleteOptions, Fault, Faults, Gvr, Propagation, Site, Snapshot};

fn status(error: kube::Error) -> (u16, String, String) {
    match error {
        kube::Error::Api(status) => (status.code, status.reason, status.message),
        other => panic!("not an answer of the API: {other:?}"),
    }
}

fn config_map(name: &str, data: &[(&str, &str)]) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() },
        data: Some(data.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()),
        ..ConfigMap::default()
    }
}

#[tokio::test]
async fn discovery_finds_built_in_and_custom_resources_in_both_forms() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    assert_eq!(client.apiserver_version().await.unwrap().git_version, "v1.35.5+k3s1");
    let old = Discovery::new(client.clone()).run().await.unwrap();
    assert!(old.has_group("apps") && old.has_group("rbac.authorization.k8s.io"));
    assert!(!old.has_group("example.com"));
    cluster.server.store().create(&Gvr::CRDS, None, widgets()).unwrap();
    cluster
        .until(&Gvr::CRDS, None, "widgets.example.com", |c| {
            c["status"]["conditions"].as_array().is_some_and(|l| l.iter().any(|c| c["type"] == "Established"))
        })
        .await;
    let new = Discovery::new(client).run_aggregated().await.unwrap();
    let (resource, _) = new.get("example.com").unwrap().recommended_kind("Widget").unwrap();
    assert_eq!(resource.plural, "widgets");
}

#[tokio::test]
async fn callers_without_credentials_are_refused_and_strangers_too() {
    let cluster = Cluster::start().await;
    let bare = cluster.http_builder().build().unwrap();
    let get = |path: &str| bare.get(format!("{}{path}", cluster.url)).send();
    let refused = get("/api/v1/nodes").await.unwrap();
    assert_eq!(refused.status(), 401);
    assert_eq!(refused.json::<Value>().await.unwrap()["reason"], "Unauthorized");
    assert_eq!(get("/readyz").await.unwrap().status(), 401);
    assert_eq!(get("/cacerts").await.unwrap().text().await.unwrap(), cluster.server.pki().server_ca_pem());
    let wrong = bare.get(format!("{}/api", cluster.url)).bearer_auth("nonsense").send().await.unwrap();
    assert_eq!(wrong.status(), 401);
    // A certificate of another cluster is a stranger's, not a TLS error.
    let other = turingpi_testkit::ClusterPki::generate(["x"]).unwrap();
    let foreign = other.issue_client("system:admin", &["system:masters"]).unwrap();
    let config = cluster.server.pki().kubeconfig(&cluster.url, &foreign);
    let refused = Api::<Node>::all(client(&config).await).list(&ListParams::default()).await.unwrap_err();
    assert_eq!(status(refused).0, 401);
}

#[tokio::test]
async fn anonymous_callers_are_forbidden_where_they_are_let_in() {
    let cluster = Cluster::with(|o| o.anonymous()).await;
    let bare = cluster.http_builder().build().unwrap();
    let refused = bare.get(format!("{}/api/v1/nodes", cluster.url)).send().await.unwrap();
    assert_eq!(refused.status(), 403);
    let body: Value = refused.json().await.unwrap();
    assert_eq!(
        body["message"],
        "nodes is forbidden: User \"system:anonymous\" cannot list resource \"nodes\" in API group \"\" at the cluster scope"
    );
    assert_eq!(bare.get(format!("{}/readyz", cluster.url)).send().await.unwrap().text().await.unwrap(), "ok");
}

#[tokio::test]
async fn roles_and_bindings_decide_what_a_user_may() {
    let cluster = Cluster::start().await;
    let viewer = cluster.server.pki().issue_client("eve", &["readers"]).unwrap();
    let eve = client(&cluster.server.pki().kubeconfig(&cluster.url, &viewer)).await;
    let maps: Api<ConfigMap> = Api::namespaced(eve.clone(), "default");
    assert_eq!(status(maps.list(&ListParams::default()).await.unwrap_err()).0, 403);
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "readers", "namespace": "default"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "Group", "name": "readers"}],
    });
    cluster.server.store().apply("test", &binding).unwrap();
    maps.list(&ListParams::default()).await.unwrap();
    assert_eq!(status(maps.create(&PostParams::default(), &config_map("x", &[])).await.unwrap_err()).0, 403);
    let elsewhere: Api<ConfigMap> = Api::namespaced(eve, "kube-system");
    assert_eq!(status(elsewhere.list(&ListParams::default()).await.unwrap_err()).0, 403);
}

#[tokio::test]
async fn a_service_account_token_is_a_caller_of_its_own() {
    let cluster = Cluster::start().await;
    let admin = cluster.http();
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}});
    let url = format!("{}/api/v1/namespaces/default/serviceaccounts/default/token", cluster.url);
    let made: Value = admin.post(url).json(&request).send().await.unwrap().json().await.unwrap();
    let token = made["status"]["token"].as_str().unwrap();
    let bare = cluster.http_builder().build().unwrap();
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let url = format!("{}/apis/authentication.k8s.io/v1/selfsubjectreviews", cluster.url);
    let who: Value =
        bare.post(url).bearer_auth(token).json(&review).send().await.unwrap().json().await.unwrap();
    assert_eq!(who["status"]["userInfo"]["username"], "system:serviceaccount:default:default");
    let refused = bare.get(format!("{}/api/v1/nodes", cluster.url)).bearer_auth(token).send().await.unwrap();
    assert_eq!(refused.status(), 403);
}

#[tokio::test]
async fn objects_are_created_read_replaced_patched_and_deleted() {
    let cluster = Cluster::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client().await, "default");
    let made = maps.create(&PostParams::default(), &config_map("one", &[("a", "1")])).await.unwrap();
    assert!(made.uid().is_some() && made.creation_timestamp().is_some());
    let again = maps.create(&PostParams::default(), &config_map("one", &[])).await.unwrap_err();
    let (code, reason, message) = status(again);
    assert_eq!(
        (code, reason.as_str(), message.as_str()),
        (409, "AlreadyExists", "configmaps \"one\" already exists")
    );

    let mut newer = made.clone();
    newer.data = Some(BTreeMap::from([("a".into(), "2".into())]));
    let newer = maps.replace("one", &PostParams::default(), &newer).await.unwrap();
    assert_ne!(newer.resource_version(), made.resource_version());
    let (code, reason, message) =
        status(maps.replace("one", &PostParams::default(), &made).await.unwrap_err());
    assert_eq!((code, reason.as_str()), (409, "Conflict"));
    assert!(message.ends_with(
        "the object has been modified; please apply your changes to the latest version and try again"
    ));
    // An unchanged object keeps its version.
    let same = maps.replace("one", &PostParams::default(), &newer).await.unwrap();
    assert_eq!(same.resource_version(), newer.resource_version());

    let patch = Patch::Merge(json!({"data": {"a": null, "b": "3"}}));
    let patched = maps.patch("one", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(patched.data, Some(BTreeMap::from([("b".into(), "3".into())])));

    assert!(maps.delete("one", &DeleteParams::default()).await.unwrap().is_right());
    let (code, reason, message) = status(maps.get("one").await.unwrap_err());
    assert_eq!((code, reason.as_str(), message.as_str()), (404, "NotFound", "configmaps \"one\" not found"));
}

#[tokio::test]
async fn names_and_namespaces_are_checked() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let (code, reason, _) =
        status(maps.create(&PostParams::default(), &config_map("Not_A_Name", &[])).await.unwrap_err());
    assert_eq!((code, reason.as_str()), (422, "Invalid"));
    let mut generated = config_map("", &[]);
    generated.metadata = ObjectMeta { generate_name: Some("cfg-".into()), ..ObjectMeta::default() };
    let made = maps.create(&PostParams::default(), &generated).await.unwrap();
    assert!(made.name_any().starts_with("cfg-") && made.name_any().len() == 9);
    let lost: Api<ConfigMap> = Api::namespaced(client, "nowhere");
    let (code, _, message) =
        status(lost.create(&PostParams::default(), &config_map("x", &[])).await.unwrap_err());
    assert_eq!((code, message.as_str()), (404, "namespaces \"nowhere\" not found"));
}

#[tokio::test]
async fn dry_runs_are_checked_and_leave_no_trace() {
    let cluster = Cluster::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client().await, "default");
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let version = cluster.server.store().version();
    assert_eq!(maps.create(&dry, &config_map("dry", &[])).await.unwrap().name_any(), "dry");
    assert!(maps.get_opt("dry").await.unwrap().is_none());
    assert!(maps.create(&dry, &config_map("Not A Name", &[])).await.is_err());
    let kept: Vec<Value> = cluster.server.store().list(&Gvr::CONFIG_MAPS, Some("default")).unwrap();
    assert!(kept.iter().all(|m| m["metadata"]["name"] != "dry"), "written after version {version}");
}

#[tokio::test]
async fn lists_are_selected_and_paged_consistently() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    cluster.server.store().create(&Gvr::NAMESPACES, None, json!({"metadata": {"name": "paged"}})).unwrap();
    let secrets: Api<Secret> = Api::namespaced(client, "paged");
    for i in 0..7 {
        let parity = if i % 2 == 0 { "even" } else { "odd" };
        let secret = json!({"metadata": {"name": format!("s{i}"), "labels": {"parity": parity}}, "stringData": {"n": i.to_string()}});
        secrets.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    }
    let odd = secrets.list(&ListParams::default().labels("parity in (odd)")).await.unwrap();
    assert_eq!(odd.items.len(), 3);
    assert_eq!(odd.items[0].data.as_ref().unwrap()["n"].0, b"1");
    let one = secrets.list(&ListParams::default().fields("metadata.name=s4")).await.unwrap();
    assert_eq!(one.items.len(), 1);
    let refused = secrets.list(&ListParams::default().fields("data.n=1")).await.unwrap_err();
    assert_eq!(status(refused).0, 400);

    let first = secrets.list(&ListParams::default().limit(3)).await.unwrap();
    assert_eq!((first.items.len(), first.metadata.remaining_item_count), (3, Some(4)));
    // What is written meanwhile is not in the later pages.
    let late = json!({"metadata": {"name": "s9"}});
    secrets.create(&PostParams::default(), &serde_json::from_value(late).unwrap()).await.unwrap();
    let mut names: Vec<String> = first.items.iter().map(ResourceExt::name_any).collect();
    let mut token = first.metadata.continue_;
    while let Some(t) = token.filter(|t| !t.is_empty()) {
        let page = secrets.list(&ListParams::default().limit(3).continue_token(&t)).await.unwrap();
        names.extend(page.items.iter().map(ResourceExt::name_any));
        token = page.metadata.continue_;
    }
    assert_eq!(names, ["s0", "s1", "s2", "s3", "s4", "s5", "s6"]);
    let first = secrets.list(&ListParams::default().limit(3)).await.unwrap();
    cluster.server.store().compact();
    let old = ListParams::default().limit(3).continue_token(&first.metadata.continue_.unwrap());
    let (code, reason, _) = status(secrets.list(&old).await.unwrap_err());
    assert_eq!((code, reason.as_str()), (410, "Expired"));
}

#[tokio::test]
async fn status_and_spec_are_written_by_their_own_ways() {
    let cluster = Cluster::start().await;
    cluster.add_node("node1", true);
    let nodes: Api<Node> = Api::all(cluster.client().await);
    let patch = Patch::Merge(
        json!({"status": {"nodeInfo": {"kubeletVersion": "v9"}}, "metadata": {"labels": {"x": "y"}}}),
    );
    let node = nodes.patch("node1", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(node.labels()["x"], "y");
    assert_eq!(node.status.unwrap().node_info.unwrap().kubelet_version, "v1.35.5+k3s1");
    let patch = Patch::Merge(
        json!({"status": {"nodeInfo": {"kubeletVersion": "v9"}}, "spec": {"unschedulable": true}}),
    );
    let node = nodes.patch_status("node1", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(node.status.unwrap().node_info.unwrap().kubelet_version, "v9");
    assert_eq!(node.spec.unwrap().unschedulable, None);
}

#[tokio::test]
async fn finalizers_hold_an_object_until_they_are_taken_off() {
    let cluster = Cluster::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client().await, "default");
    let mut held = config_map("held", &[]);
    held.metadata.finalizers = Some(vec!["example.com/hold".into()]);
    maps.create(&PostParams::default(), &held).await.unwrap();
    let left = maps.delete("held", &DeleteParams::default()).await.unwrap();
    assert!(left.left().unwrap().metadata.deletion_timestamp.is_some());
    let more = Patch::Merge(json!({"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}}));
    assert_eq!(status(maps.patch("held", &PatchParams::default(), &more).await.unwrap_err()).0, 422);
    let none = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    maps.patch("held", &PatchParams::default(), &none).await.unwrap();
    assert!(maps.get_opt("held").await.unwrap().is_none());
}

#[tokio::test]
async fn owned_objects_follow_background_foreground_and_orphan_deletion() {
    let cluster = Cluster::start().await;
    let store = cluster.server.store();
    for (owner, propagation, stays) in [
        ("bg", Propagation::Background, false),
        ("fg", Propagation::Foreground, false),
        ("orphan", Propagation::Orphan, true),
    ] {
        let made = store.create(&Gvr::CONFIG_MAPS, None, json!({"metadata": {"name": owner}})).unwrap();
        let child = format!("{owner}-child");
        let reference = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": owner, "uid": made["metadata"]["uid"], "blockOwnerDeletion": true});
        store
            .create(
                &Gvr::CONFIG_MAPS,
                None,
                json!({"metadata": {"name": child, "ownerReferences": [reference]}}),
            )
            .unwrap();
        store.delete(&Gvr::CONFIG_MAPS, None, owner, &DeleteOptions::propagation(propagation)).unwrap();
        cluster.gone(&Gvr::CONFIG_MAPS, None, owner).await;
        if stays {
            let child = store.get(&Gvr::CONFIG_MAPS, None, &child).unwrap();
            assert!(child["metadata"].get("ownerReferences").is_none(), "{child}");
        } else {
            cluster.gone(&Gvr::CONFIG_MAPS, None, &child).await;
        }
    }
}

#[tokio::test]
async fn delete_preconditions_are_honoured() {
    let cluster = Cluster::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client().await, "default");
    maps.create(&PostParams::default(), &config_map("pre", &[])).await.unwrap();
    let wrong = kube::api::Preconditions { uid: Some("other".into()), resource_version: None };
    let params = DeleteParams { preconditions: Some(wrong), ..DeleteParams::default() };
    assert_eq!(status(maps.delete("pre", &params).await.unwrap_err()).1, "Conflict");
    maps.delete_collection(&DeleteParams::default(), &ListParams::default().fields("metadata.name=pre"))
        .await
        .unwrap();
    assert!(maps.get_opt("pre").await.unwrap().is_none());
}

#[tokio::test]
async fn custom_resources_are_defaulted_pruned_validated_and_scaled() {
    let cluster = Cluster::start().await;
    let store = cluster.server.store();
    store.create(&Gvr::CRDS, None, widgets()).unwrap();
    cluster.holds("widgets are served", || store.list(&WIDGETS, None).is_ok()).await;
    let resource = ApiResource {
        group: "example.com".into(),
        version: "v1".into(),
        api_version: "example.com/v1".into(),
        kind: "Widget".into(),
        plural: "widgets".into(),
    };
    let api: Api<DynamicObject> = Api::namespaced_with(cluster.client().await, "default", &resource);
    let widget = DynamicObject::new("one", &resource)
        .data(json!({"spec": {"size": 3, "unknown": 1}, "status": {"x": 1}}));
    let made = api.create(&PostParams::default(), &widget).await.unwrap();
    assert_eq!(made.data["spec"], json!({"size": 3, "mode": "plain"}));
    assert!(made.data.get("status").is_none());
    let big = DynamicObject::new("big", &resource).data(json!({"spec": {"size": 9}}));
    assert_eq!(status(api.create(&PostParams::default(), &big).await.unwrap_err()).0, 422);
    let strategic = Patch::Strategic(json!({"spec": {"size": 1}}));
    assert_eq!(status(api.patch("one", &PatchParams::default(), &strategic).await.unwrap_err()).0, 415);
    let scaled = api
        .patch_scale("one", &PatchParams::default(), &Patch::Merge(json!({"spec": {"replicas": 2}})))
        .await
        .unwrap();
    assert_eq!(scaled.spec.unwrap().replicas, Some(2));
    assert_eq!(store.get(&WIDGETS, None, "one").unwrap()["spec"]["replicas"], 2);
    // The definition takes its objects with it.
    store.delete(&Gvr::CRDS, None, "widgets.example.com", &DeleteOptions::default()).unwrap();
    cluster.gone(&Gvr::CRDS, None, "widgets.example.com").await;
    assert_eq!(status(api.list(&ListParams::default()).await.unwrap_err()).0, 404);
}

#[tokio::test]
async fn a_deleted_namespace_is_emptied_and_takes_no_new_content() {
    let cluster = Cluster::with_nodes(1).await;
    let store = cluster.server.store();
    let spaces: Api<Namespace> = Api::all(cluster.client().await);
    store.create(&Gvr::NAMESPACES, None, json!({"metadata": {"name": "gone"}})).unwrap();
    let held = json!({"metadata": {"name": "held", "finalizers": ["example.com/hold"]}});
    store.create(&Gvr::CONFIG_MAPS, Some("gone"), held).unwrap();
    store.create(&Gvr::DEPLOYMENTS, Some("gone"), deployment("web", 2, "nginx")).unwrap();
    let left = spaces.delete("gone", &DeleteParams::default()).await.unwrap();
    assert_eq!(left.left().unwrap().status.unwrap().phase.as_deref(), Some("Terminating"));
    let refused =
        store.create(&Gvr::CONFIG_MAPS, Some("gone"), json!({"metadata": {"name": "late"}})).unwrap_err();
    assert_eq!((refused.code, refused.reason), (403, "Forbidden"));
    cluster
        .holds("only the held object is left", || store.list(&Gvr::PODS, Some("gone")).unwrap().is_empty())
        .await;
    assert!(store.find(&Gvr::NAMESPACES, None, "gone").is_some());
    store
        .modify(&Gvr::CONFIG_MAPS, Some("gone"), "held", |m| m["metadata"]["finalizers"] = json!([]))
        .unwrap();
    cluster.gone(&Gvr::NAMESPACES, None, "gone").await;
}

#[tokio::test]
async fn answers_come_in_the_form_that_was_asked_for() {
    let cluster = Cluster::start().await;
    cluster.add_node("node1", true);
    let http = cluster.http();
    let get = |path: &str, accept: &str| {
        http.get(format!("{}{path}", cluster.url)).header("accept", accept.to_owned()).send()
    };
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let nodes: Value = get("/api/v1/nodes", table).await.unwrap().json().await.unwrap();
    let columns: Vec<&str> =
        nodes["columnDefinitions"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(columns[..5], ["Name", "Status", "Roles", "Age", "Version"]);
    assert_eq!(nodes["rows"][0]["cells"][1], "Ready");
    assert_eq!(nodes["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let meta = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let partial: Value = get("/api/v1/nodes", meta).await.unwrap().json().await.unwrap();
    assert_eq!(partial["kind"], "PartialObjectMetadataList");
    assert!(partial["items"][0].get("spec").is_none());
    let yaml = get("/api/v1/nodes/node1", "application/yaml").await.unwrap().text().await.unwrap();
    assert!(yaml.starts_with("apiVersion: v1\nkind: Node\n"), "{yaml}");
    assert_eq!(get("/api/v1/nodes", "application/vnd.kubernetes.protobuf").await.unwrap().status(), 406);
    let both = get("/api/v1/nodes", "application/vnd.kubernetes.protobuf,application/json").await.unwrap();
    assert_eq!(both.headers()["content-type"], "application/json");
    let post = http.post(format!("{}/api/v1/namespaces/default/configmaps", cluster.url));
    let cbor = post.header("content-type", "application/cbor").body("x").send().await.unwrap();
    assert_eq!(cbor.status(), 415);
    let unknown = get("/apis/nothing.example.com/v1/things", "application/json").await.unwrap();
    assert_eq!(unknown.status(), 404);
}

#[tokio::test]
async fn unknown_fields_are_refused_when_strict_and_dropped_when_not() {
    let cluster = Cluster::start().await;
    let http = cluster.http();
    let url = format!("{}/api/v1/namespaces/default/configmaps", cluster.url);
    let map = json!({"metadata": {"name": "typo"}, "dataa": {"a": "b"}});
    let strict = http.post(format!("{url}?fieldValidation=Strict")).json(&map).send().await.unwrap();
    assert_eq!(strict.status(), 400);
    let message = strict.json::<Value>().await.unwrap()["message"].to_string();
    assert!(message.contains("strict decoding error: unknown field \\\"dataa\\\""), "{message}");
    let lax: Value = http.post(url).json(&map).send().await.unwrap().json().await.unwrap();
    assert_eq!(lax["metadata"]["name"], "typo");
    assert!(lax.get("dataa").is_none());
}

#[tokio::test]
async fn services_get_addresses_of_the_range_and_keep_them() {
    let cluster =
        Cluster::with(|o| o.networks("10.244.0.0/16".parse().unwrap(), "10.96.0.0/12".parse().unwrap()))
            .await;
    let store = cluster.server.store();
    let kubernetes = store.get(&Gvr::SERVICES, None, "kubernetes").unwrap();
    assert_eq!(kubernetes["spec"]["clusterIP"], "10.96.0.1");
    let services: Api<Service> = Api::default_namespaced(cluster.client().await);
    let service = |name: &str, spec: Value| {
        serde_json::from_value::<Service>(json!({"metadata": {"name": name}, "spec": spec})).unwrap()
    };
    let ports = json!([{"port": 80}]);
    let a = services
        .create(&PostParams::default(), &service("a", json!({"ports": ports, "type": "NodePort"})))
        .await
        .unwrap();
    let b = services.create(&PostParams::default(), &service("b", json!({"ports": ports}))).await.unwrap();
    let ip = |s: &Service| s.spec.as_ref().unwrap().cluster_ip.clone().unwrap();
    assert_ne!(ip(&a), ip(&b));
    assert!(ip(&a).starts_with("10."));
    let node_port = a.spec.as_ref().unwrap().ports.as_ref().unwrap()[0].node_port.unwrap();
    assert!((30000..=32767).contains(&node_port));
    let taken = service("c", json!({"ports": ports, "clusterIP": ip(&a)}));
    assert_eq!(status(services.create(&PostParams::default(), &taken).await.unwrap_err()).0, 422);
    let outside = service("d", json!({"ports": ports, "clusterIP": "192.168.1.1"}));
    assert_eq!(status(services.create(&PostParams::default(), &outside).await.unwrap_err()).0, 422);
    let moved = Patch::Merge(json!({"spec": {"clusterIP": "10.96.7.7"}}));
    assert_eq!(status(services.patch("a", &PatchParams::default(), &moved).await.unwrap_err()).0, 422);
}

#[tokio::test]
async fn faults_strike_requests() {
    let faults = Faults::default();
    let cluster = Cluster::with(|o| o.faults(faults.clone())).await;
    let http = cluster.http();
    let get = || http.get(format!("{}/api/v1/namespaces?limit=500", cluster.url)).send();
    let site = || Site::Kube { request: "GET /api/v1/namespaces".into() };
    faults.add(Fault::at(site(), Action::Status(503, "etcdserver: leader changed".into())));
    let broken = get().await.unwrap();
    assert_eq!(broken.status(), 503);
    assert_eq!(broken.json::<Value>().await.unwrap()["message"], "etcdserver: leader changed");
    faults.add(Fault::at(site(), Action::Drop));
    assert!(get().await.is_err());
    faults.add(Fault::at(site(), Action::CutAfter(50)));
    // Over HTTP/2 the reset may overtake the headers.
    let cut = async { get().await?.bytes().await };
    assert!(cut.await.is_err());
    let whole: Value = get().await.unwrap().json().await.unwrap();
    assert_eq!(whole["kind"], "NamespaceList");
    assert_eq!(faults.struck(), 3);
}

#[tokio::test]
async fn a_closed_door_cuts_its_connections_and_opens_again() {
    let cluster = Cluster::start().await;
    let http = cluster.http();
    let get = || http.get(format!("{}/version", cluster.url)).send();
    let open = http.get(format!("{}/api/v1/nodes?watch=true", cluster.url)).send().await.unwrap();
    cluster.enabled.send(false).unwrap();
    // The watch had no end of its own.
    let _ = tokio::time::timeout(kube_support::LIMIT, open.bytes()).await.expect("the watch was cut");
    assert!(get().await.is_err());
    cluster.enabled.send(true).unwrap();
    assert_eq!(get().await.unwrap().status(), 200);
    cluster.server.set_version("v1.36.0+k3s1");
    let version: Value = get().await.unwrap().json().await.unwrap();
    assert_eq!(
        (version["gitVersion"].as_str(), version["minor"].as_str()),
        (Some("v1.36.0+k3s1"), Some("36"))
    );
}

#[tokio::test]
async fn a_snapshot_written_as_json_fills_another_server() {
    let cluster = Cluster::start().await;
    let store = cluster.server.store();
    store.create(&Gvr::CONFIG_MAPS, None, json!({"metadata": {"name": "kept"}, "data": {"a": "1"}})).unwrap();
    let uid = store.get(&Gvr::CONFIG_MAPS, None, "kept").unwrap()["metadata"]["uid"].clone();
    let file = store.snapshot().to_json().to_string();
    let again = Cluster::start().await;
    let read = Snapshot::from_json(&serde_json::from_str(&file).unwrap()).unwrap();
    again.server.store().restore(&read);
    let found = again.server.store().get(&Gvr::CONFIG_MAPS, None, "kept").unwrap();
    assert_eq!((found["data"]["a"].as_str(), &found["metadata"]["uid"]), (Some("1"), &uid));
    assert!(again.server.store().version() > read.version());
    assert!(Snapshot::from_json(&json!({"objects": [{"name": "half"}], "version": 1})).is_none());
}

#[tokio::test]
async fn paths_of_the_supervisor_are_answered_without_credentials_and_others_are_not() {
    let router = axum::Router::new().route("/v1-k3s/config", axum::routing::get(|| async { "joined" }));
    let cluster = Cluster::with(|options| options.supervisor(router)).await;
    let http = cluster.http_builder().build().unwrap();
    let get = async |path: &str| {
        let answer = http.get(format!("{}{path}", cluster.url)).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    assert_eq!(get("/v1-k3s/config").await, (200, "joined".to_owned()));
    assert_eq!(get("/v1-k3s/other").await.0, 404);
    assert_eq!(get("/api/v1/nodes").await.0, 401);
}

#[tokio::test]
async fn a_snapshot_brings_back_what_was_there() {
    let cluster = Cluster::start().await;
    let store = cluster.server.store();
    store.create(&Gvr::CONFIG_MAPS, None, json!({"metadata": {"name": "kept"}, "data": {"a": "1"}})).unwrap();
    let snapshot = store.snapshot();
    store.modify(&Gvr::CONFIG_MAPS, None, "kept", |m| m["data"]["a"] = json!("2")).unwrap();
    store.create(&Gvr::CONFIG_MAPS, None, json!({"metadata": {"name": "later"}})).unwrap();
    let before = store.version();
    store.restore(&snapshot);
    assert_eq!(store.get(&Gvr::CONFIG_MAPS, None, "kept").unwrap()["data"]["a"], "1");
    assert!(store.find(&Gvr::CONFIG_MAPS, None, "later").is_none());
    assert!(store.version() > before);
}
