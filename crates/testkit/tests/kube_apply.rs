//! Server-side apply and the other patches, as kube-rs sends them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "tests")]

mod kube_support;

use k8s_openapi::api::{apps::v1::Deployment, core::v1::ConfigMap};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use kube_support::{Cluster, deployment};
use serde_json::{Value, json};
use turingpi_testkit::{Gvr, WriteOptions};

fn config(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm"}, "data": data})
}

async fn maps(cluster: &Cluster) -> Api<ConfigMap> {
    Api::default_namespaced(cluster.client().await)
}

#[tokio::test]
async fn an_applied_object_is_made_and_owned_and_applying_it_again_changes_nothing() {
    let cluster = Cluster::start().await;
    let api = maps(&cluster).await;
    let params = PatchParams::apply("turingpi");
    let first = api.patch("cm", &params, &Patch::Apply(config(json!({"a": "1"})))).await.unwrap();
    let managed = &first.managed_fields()[0];
    assert_eq!((managed.manager.as_deref(), managed.operation.as_deref()), (Some("turingpi"), Some("Apply")));
    assert_eq!(managed.fields_v1.as_ref().unwrap().0, json!({"f:data": {"f:a": {}}}));
    let second = api.patch("cm", &params, &Patch::Apply(config(json!({"a": "1"})))).await.unwrap();
    assert_eq!(first.resource_version(), second.resource_version());
}

#[tokio::test]
async fn fields_no_longer_applied_disappear_and_those_of_others_stay() {
    let cluster = Cluster::start().await;
    let api = maps(&cluster).await;
    let apply = |who: &'static str, data: Value| {
        let api = api.clone();
        async move { api.patch("cm", &PatchParams::apply(who), &Patch::Apply(config(data))).await.unwrap() }
    };
    apply("one", json!({"a": "1", "both": "x"})).await;
    apply("two", json!({"b": "2", "both": "x"})).await;
    let after = apply("one", json!({})).await;
    let data: Vec<&str> = after.data.as_ref().unwrap().keys().map(String::as_str).collect();
    assert_eq!(data, ["b", "both"]);
    let after = apply("two", json!({})).await;
    assert!(after.data.unwrap_or_default().is_empty());
}

#[tokio::test]
async fn a_field_of_another_manager_is_a_conflict_that_force_settles() {
    let cluster = Cluster::start().await;
    let api = maps(&cluster).await;
    api.patch("cm", &PatchParams::apply("one"), &Patch::Apply(config(json!({"a": "1"})))).await.unwrap();
    let refused = api
        .patch("cm", &PatchParams::apply("two"), &Patch::Apply(config(json!({"a": "2"}))))
        .await
        .unwrap_err();
    let kube::Error::Api(status) = refused else { panic!("{refused:?}") };
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
    assert_eq!(status.message, "Apply failed with 1 conflict: conflict with \"one\": .data.a");
    let details = status.details.unwrap();
    assert_eq!(details.causes[0].reason, "FieldManagerConflict");
    assert_eq!(details.causes[0].field, ".data.a");
    let forced = api
        .patch("cm", &PatchParams::apply("two").force(), &Patch::Apply(config(json!({"a": "2"}))))
        .await
        .unwrap();
    assert_eq!(forced.data.as_ref().unwrap()["a"], "2");
    let owners: Vec<&str> = forced.managed_fields().iter().filter_map(|m| m.manager.as_deref()).collect();
    assert_eq!(owners, ["two"]);
    // The loser may apply what it does not own any more only by force.
    assert!(
        api.patch("cm", &PatchParams::apply("one"), &Patch::Apply(config(json!({"a": "1"})))).await.is_err()
    );
}

#[tokio::test]
async fn controllers_own_the_status_and_appliers_the_spec() {
    let cluster = Cluster::with_nodes(1).await;
    let api: Api<Deployment> = Api::default_namespaced(cluster.client().await);
    let mut manifest = deployment("web", 1, "nginx");
    api.patch("web", &PatchParams::apply("turingpi"), &Patch::Apply(&manifest)).await.unwrap();
    cluster.until(&Gvr::DEPLOYMENTS, Some("default"), "web", |d| d["status"]["availableReplicas"] == 1).await;
    manifest["status"] = json!({"replicas": 99});
    manifest["spec"]["template"]["spec"]["containers"][0]["ports"] = json!([{"containerPort": 80}]);
    let applied = api.patch("web", &PatchParams::apply("turingpi"), &Patch::Apply(&manifest)).await.unwrap();
    assert_ne!(applied.status.unwrap().replicas, Some(99));
    // Scaling through the subresource takes the field over; applying the old number again is a conflict.
    api.patch_scale("web", &PatchParams::default(), &Patch::Merge(json!({"spec": {"replicas": 2}})))
        .await
        .unwrap();
    let refused =
        api.patch("web", &PatchParams::apply("turingpi"), &Patch::Apply(&manifest)).await.unwrap_err();
    let kube::Error::Api(status) = refused else { panic!("{refused:?}") };
    assert!(status.message.contains("with subresource \"scale\""), "{}", status.message);
    // Leaving it out gives it up.
    manifest["spec"].as_object_mut().unwrap().remove("replicas");
    let applied = api.patch("web", &PatchParams::apply("turingpi"), &Patch::Apply(&manifest)).await.unwrap();
    assert_eq!(applied.spec.unwrap().replicas, Some(2));
}

#[tokio::test]
async fn list_items_are_owned_by_their_keys() {
    let cluster = Cluster::start().await;
    let store = cluster.server.store();
    let with_env = |name: &str, manager: &str| {
        let mut manifest = deployment("web", 1, "nginx");
        manifest["spec"]["template"]["spec"]["containers"][0]["env"] =
            json!([{"name": name, "value": manager}]);
        store.apply(manager, &manifest).unwrap()
    };
    with_env("ONE", "one");
    let both = with_env("TWO", "two");
    let env = |o: &Value| -> Vec<String> {
        let list =
            o["spec"]["template"]["spec"]["containers"][0]["env"].as_array().cloned().unwrap_or_default();
        list.iter().map(|e| e["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(env(&both), ["ONE", "TWO"]);
    let left = store.apply("one", &deployment("web", 1, "nginx")).unwrap();
    assert_eq!(env(&left), ["TWO"]);
}

#[tokio::test]
async fn a_strategic_patch_merges_lists_by_key_and_knows_its_directives() {
    let cluster = Cluster::start().await;
    cluster.server.store().create(&Gvr::DEPLOYMENTS, None, deployment("web", 1, "nginx:1")).unwrap();
    let api: Api<Deployment> = Api::default_namespaced(cluster.client().await);
    let patch = |p: Value| {
        let api = api.clone();
        async move { api.patch("web", &PatchParams::default(), &Patch::Strategic(p)).await.unwrap() }
    };
    let containers = |d: &Deployment| {
        let spec = d.spec.as_ref().unwrap().template.spec.as_ref().unwrap();
        spec.containers
            .iter()
            .map(|c| format!("{}={}", c.name, c.image.as_deref().unwrap()))
            .collect::<Vec<_>>()
    };
    let in_pod = |containers: Value| json!({"spec": {"template": {"spec": {"containers": containers}}}});
    let two =
        patch(in_pod(json!([{"name": "side", "image": "proxy"}, {"name": "main", "image": "nginx:2"}])))
            .await;
    assert_eq!(containers(&two), ["main=nginx:2", "side=proxy"]);
    let one = patch(in_pod(json!([{"name": "side", "$patch": "delete"}]))).await;
    assert_eq!(containers(&one), ["main=nginx:2"]);
    let recreate = patch(json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}})).await;
    assert!(recreate.spec.unwrap().strategy.unwrap().rolling_update.is_none());
}

#[tokio::test]
async fn a_json_patch_tests_before_it_writes() {
    let cluster = Cluster::start().await;
    let store = cluster.server.store();
    store.create(&Gvr::CONFIG_MAPS, None, config(json!({"a": "1"}))).unwrap();
    let api = maps(&cluster).await;
    let patch = |operations: Value| {
        let api = api.clone();
        async move {
            api.patch(
                "cm",
                &PatchParams::default(),
                &Patch::Json::<()>(serde_json::from_value(operations).unwrap()),
            )
            .await
        }
    };
    let add = json!({"op": "add", "path": "/data/b", "value": "2"});
    let refused = patch(json!([{"op": "test", "path": "/data/a", "value": "9"}, add])).await.unwrap_err();
    assert!(matches!(refused, kube::Error::Api(s) if s.code == 422));
    assert!(store.get(&Gvr::CONFIG_MAPS, None, "cm").unwrap()["data"].get("b").is_none());
    let done = patch(json!([{"op": "test", "path": "/data/a", "value": "1"}, add])).await.unwrap();
    assert_eq!(done.data.unwrap()["b"], "2");
}

#[tokio::test]
async fn immutable_fields_stay() {
    let cluster = Cluster::start().await;
    let store = cluster.server.store();
    store.create(&Gvr::DEPLOYMENTS, None, deployment("web", 1, "nginx")).unwrap();
    let api: Api<Deployment> = Api::default_namespaced(cluster.client().await);
    let patch = json!({"spec": {"selector": {"matchLabels": {"app": "other"}}, "template": {"metadata": {"labels": {"app": "other"}}}}});
    let refused = api.patch("web", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap_err();
    assert!(
        matches!(refused, kube::Error::Api(s) if s.code == 422 && s.message.contains("field is immutable"))
    );
    assert_eq!(WriteOptions::by("x").manager, "x");
}
