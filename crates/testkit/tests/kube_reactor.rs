//! The controllers: pods follow nodes, templates, budgets and volumes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "tests")]

mod kube_support;

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::EvictParams};
use kube_support::{Cluster, deployment, pod_names};
use serde_json::{Value, json};
use turingpi_testkit::{DeleteOptions, Gvr};

fn ready(count: i64) -> impl Fn(&Value) -> bool {
    move |o| {
        o["status"]["readyReplicas"] == count
            && o["status"]["observedGeneration"] == o["metadata"]["generation"]
            && o["status"]["updatedReplicas"] == count
            && o["status"]["replicas"] == count
    }
}

fn condition(object: &Value, kind: &str) -> String {
    let all = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found =
        all.iter().find(|c| c["type"] == kind).map(|c| c["status"].as_str().unwrap_or_default().to_owned());
    found.unwrap_or_default()
}

#[tokio::test]
async fn a_deployment_becomes_available_on_ready_nodes_and_rolls_over() {
    let cluster = Cluster::with_nodes(3).await;
    let store = cluster.server.store();
    store.create(&Gvr::DEPLOYMENTS, None, deployment("web", 3, "nginx:1")).unwrap();
    let done = cluster.until(&Gvr::DEPLOYMENTS, None, "web", ready(3)).await;
    assert_eq!(condition(&done, "Available"), "True");
    let mut nodes: Vec<String> = pod_names(&cluster, "web").into_iter().map(|(_, node)| node).collect();
    nodes.sort();
    assert_eq!(nodes, ["node1", "node2", "node3"]);
    store
        .modify(&Gvr::DEPLOYMENTS, None, "web", |d| {
            d["spec"]["template"]["spec"]["containers"][0]["image"] = json!("nginx:2");
        })
        .unwrap();
    cluster.until(&Gvr::DEPLOYMENTS, None, "web", ready(3)).await;
    let sets = store.list(&Gvr::REPLICA_SETS, Some("default")).unwrap();
    assert_eq!(sets.len(), 2);
    let of = |image: &str| {
        sets.iter().find(|s| s["spec"]["template"]["spec"]["containers"][0]["image"] == image).unwrap()["spec"]["replicas"].clone()
    };
    assert_eq!((of("nginx:1"), of("nginx:2")), (json!(0), json!(3)));
}

#[tokio::test]
async fn a_bad_image_never_starts_and_the_old_pods_stay() {
    let cluster = Cluster::with_nodes(1).await;
    let store = cluster.server.store();
    store.create(&Gvr::DEPLOYMENTS, None, deployment("web", 2, "nginx:1")).unwrap();
    cluster.until(&Gvr::DEPLOYMENTS, None, "web", ready(2)).await;
    store
        .modify(&Gvr::DEPLOYMENTS, None, "web", |d| {
            d["spec"]["template"]["spec"]["containers"][0]["image"] =
                json!("registry.example.com/nonexistent:1");
        })
        .unwrap();
    let stuck =
        |p: &Value| p["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "ImagePullBackOff";
    cluster.holds("a pod is stuck", || store.list(&Gvr::PODS, None).unwrap().iter().any(stuck)).await;
    let late = |d: &Value| {
        d["status"]["conditions"]
            .as_array()
            .is_some_and(|l| l.iter().any(|c| c["reason"] == "ProgressDeadlineExceeded"))
    };
    let after = cluster.until(&Gvr::DEPLOYMENTS, None, "web", late).await;
    assert!(after["status"]["availableReplicas"].as_i64().unwrap() >= 2, "{after:#}");
    assert_eq!(condition(&after, "Available"), "True");
}

#[tokio::test]
async fn daemons_follow_the_nodes() {
    let cluster = Cluster::with_nodes(2).await;
    let store = cluster.server.store();
    let daemons = json!({
        "metadata": {"name": "agent"},
        "spec": {
            "selector": {"matchLabels": {"app": "agent"}},
            "template": {"metadata": {"labels": {"app": "agent"}}, "spec": {
                "nodeSelector": {"kubernetes.io/hostname": "node2"}, "containers": [{"name": "a", "image": "agent"}]}},
        },
    });
    store.create(&Gvr::DAEMON_SETS, None, daemons).unwrap();
    let counted = |n: i64| {
        move |d: &Value| d["status"]["desiredNumberScheduled"] == n && d["status"]["numberReady"] == n
    };
    cluster.until(&Gvr::DAEMON_SETS, None, "agent", counted(1)).await;
    assert_eq!(pod_names(&cluster, "agent")[0].1, "node2");
    store
        .modify(&Gvr::DAEMON_SETS, None, "agent", |d| {
            d["spec"]["template"]["spec"]["nodeSelector"] = json!({})
        })
        .unwrap();
    cluster.until(&Gvr::DAEMON_SETS, None, "agent", counted(2)).await;
    cluster.add_node("node3", false);
    cluster.until(&Gvr::DAEMON_SETS, None, "agent", counted(3)).await;
    store.delete(&Gvr::NODES, None, "node3", &DeleteOptions::default()).unwrap();
    cluster.until(&Gvr::DAEMON_SETS, None, "agent", counted(2)).await;
    // A taint keeps new daemons away.
    cluster.add_node("node4", false);
    store
        .modify(&Gvr::NODES, None, "node4", |n| {
            n["spec"]["taints"] = json!([{"key": "own", "effect": "NoExecute"}])
        })
        .unwrap();
    cluster
        .holds("no daemon is left on node4", || {
            pod_names(&cluster, "agent").iter().all(|(_, n)| n != "node4")
        })
        .await;
}

#[tokio::test]
async fn a_stateful_set_keeps_its_names_and_its_volumes() {
    let cluster = Cluster::with_nodes(2).await;
    let store = cluster.server.store();
    let class = json!({
        "metadata": {"name": "local-path", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "rancher.io/local-path", "volumeBindingMode": "WaitForFirstConsumer",
    });
    store.create(&Gvr::STORAGE_CLASSES, None, class).unwrap();
    let database = json!({
        "metadata": {"name": "db"},
        "spec": {
            "serviceName": "db", "replicas": 2, "selector": {"matchLabels": {"app": "db"}},
            "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [
                {"name": "c", "image": "postgres", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {
                "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}],
        },
    });
    store.create(&Gvr::STATEFUL_SETS, None, database).unwrap();
    cluster.until(&Gvr::STATEFUL_SETS, None, "db", ready(2)).await;
    let mut names: Vec<String> = pod_names(&cluster, "db").into_iter().map(|(name, _)| name).collect();
    names.sort();
    assert_eq!(names, ["db-0", "db-1"]);
    let claim = store.get(&Gvr::PERSISTENT_VOLUME_CLAIMS, None, "data-db-1").unwrap();
    assert_eq!(
        (claim["status"]["phase"].as_str(), claim["spec"]["storageClassName"].as_str()),
        (Some("Bound"), Some("local-path"))
    );
    let before = store.get(&Gvr::PODS, None, "db-1").unwrap()["metadata"]["uid"].clone();
    store.delete(&Gvr::PODS, None, "db-1", &DeleteOptions::default()).unwrap();
    cluster
        .until(&Gvr::PODS, None, "db-1", |p| {
            p["metadata"]["uid"] != before && condition(p, "Ready") == "True"
        })
        .await;
    let same = store.get(&Gvr::PERSISTENT_VOLUME_CLAIMS, None, "data-db-1").unwrap();
    assert_eq!(same["spec"]["volumeName"], claim["spec"]["volumeName"]);
    // The claim of a deleted volume goes only when nobody uses it, and takes its volume along.
    store.delete(&Gvr::PERSISTENT_VOLUME_CLAIMS, None, "data-db-1", &DeleteOptions::default()).unwrap();
    assert!(store.find(&Gvr::PERSISTENT_VOLUME_CLAIMS, None, "data-db-1").is_some());
    store.modify(&Gvr::STATEFUL_SETS, None, "db", |s| s["spec"]["replicas"] = json!(1)).unwrap();
    cluster.gone(&Gvr::PERSISTENT_VOLUME_CLAIMS, None, "data-db-1").await;
    cluster.gone(&Gvr::PERSISTENT_VOLUMES, None, claim["spec"]["volumeName"].as_str().unwrap()).await;
}

#[tokio::test]
async fn jobs_complete_or_fail() {
    let cluster = Cluster::with_nodes(1).await;
    let store = cluster.server.store();
    let job = |name: &str, command: Value, limit: i64| {
        json!({"metadata": {"name": name}, "spec": {"backoffLimit": limit, "template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "c", "image": "busybox", "command": command}]}}}})
    };
    store.create(&Gvr::JOBS, None, job("good", json!(["true"]), 6)).unwrap();
    store.create(&Gvr::JOBS, None, job("bad", json!(["sh", "-c", "exit 3"]), 1)).unwrap();
    let good = cluster.until(&Gvr::JOBS, None, "good", |j| condition(j, "Complete") == "True").await;
    assert_eq!(good["status"]["succeeded"], 1);
    let bad = cluster.until(&Gvr::JOBS, None, "bad", |j| condition(j, "Failed") == "True").await;
    assert_eq!(bad["status"]["failed"], 2);
}

#[tokio::test]
async fn eviction_respects_a_budget_and_the_pod_comes_back_elsewhere() {
    let cluster = Cluster::with_nodes(2).await;
    let store = cluster.server.store();
    store.create(&Gvr::DEPLOYMENTS, None, deployment("web", 2, "nginx")).unwrap();
    let budget = json!({"metadata": {"name": "web"}, "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "web"}}}});
    store.create(&Gvr::POD_DISRUPTION_BUDGETS, None, budget).unwrap();
    cluster.until(&Gvr::DEPLOYMENTS, None, "web", ready(2)).await;
    cluster.until(&Gvr::POD_DISRUPTION_BUDGETS, None, "web", |b| b["status"]["currentHealthy"] == 2).await;
    store.modify(&Gvr::NODES, None, "node1", |n| n["spec"]["unschedulable"] = json!(true)).unwrap();
    let (victim, _) = pod_names(&cluster, "web").into_iter().find(|(_, node)| node == "node1").unwrap();
    let pods: Api<Pod> = Api::default_namespaced(cluster.client().await);
    let refused = pods.evict(&victim, &EvictParams::default()).await.unwrap_err();
    let kube::Error::Api(status) = refused else { panic!("{refused:?}") };
    assert_eq!((status.code, status.reason.as_str()), (429, "TooManyRequests"));
    assert_eq!(status.details.unwrap().causes[0].reason, "DisruptionBudget");
    store
        .modify(&Gvr::POD_DISRUPTION_BUDGETS, None, "web", |b| b["spec"]["minAvailable"] = json!(1))
        .unwrap();
    pods.evict(&victim, &EvictParams::default()).await.unwrap();
    cluster.gone(&Gvr::PODS, None, &victim).await;
    cluster.until(&Gvr::DEPLOYMENTS, None, "web", ready(2)).await;
    cluster
        .holds("both pods are on node2", || {
            pod_names(&cluster, "web").iter().all(|(_, node)| node == "node2")
        })
        .await;
}

#[tokio::test]
async fn pods_of_a_lost_node_are_not_ready_and_move_after_a_while() {
    let cluster = Cluster::with_nodes(2).await;
    let store = cluster.server.store();
    store.create(&Gvr::DEPLOYMENTS, None, deployment("web", 2, "nginx")).unwrap();
    cluster.until(&Gvr::DEPLOYMENTS, None, "web", ready(2)).await;
    cluster.set_ready("node2", "Unknown");
    let node = cluster.until(&Gvr::NODES, None, "node2", |n| n["spec"]["taints"].is_array()).await;
    assert!(node["spec"]["taints"].to_string().contains("node.kubernetes.io/unreachable"));
    cluster.until(&Gvr::DEPLOYMENTS, None, "web", |d| d["status"]["availableReplicas"] == 1).await;
    let on_node1 =
        |n: usize| pod_names(&cluster, "web").iter().filter(|(_, node)| node == "node1").count() == n;
    cluster.holds("both run on node1", || on_node1(2)).await;
    // Nobody confirms the end of the pod on the lost node; deleting the node does.
    assert!(pod_names(&cluster, "web").iter().any(|(_, node)| node == "node2"));
    store.delete(&Gvr::NODES, None, "node2", &DeleteOptions::default()).unwrap();
    cluster.holds("the lost pod is gone", || pod_names(&cluster, "web").len() == 2 && on_node1(2)).await;
}

#[tokio::test]
async fn a_pod_without_a_fitting_node_waits_and_says_why() {
    let cluster = Cluster::with_nodes(1).await;
    let store = cluster.server.store();
    let pod = json!({"metadata": {"name": "picky"}, "spec": {"nodeSelector": {"disk": "nvme"}, "containers": [{"name": "c", "image": "x"}]}});
    store.create(&Gvr::PODS, None, pod).unwrap();
    let waiting = cluster.until(&Gvr::PODS, None, "picky", |p| condition(p, "PodScheduled") == "False").await;
    assert_eq!(
        waiting["status"]["conditions"][0]["message"],
        "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."
    );
    store.modify(&Gvr::NODES, None, "node1", |n| n["metadata"]["labels"]["disk"] = json!("nvme")).unwrap();
    cluster.until(&Gvr::PODS, None, "picky", |p| p["status"]["phase"] == "Running").await;
}

#[tokio::test]
async fn services_have_endpoints_and_load_balancers_an_address_of_their_pool() {
    let cluster = Cluster::with_nodes(1).await;
    let store = cluster.server.store();
    store.create(&Gvr::DEPLOYMENTS, None, deployment("web", 1, "nginx")).unwrap();
    let service = json!({"metadata": {"name": "web"}, "spec": {"type": "LoadBalancer", "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}});
    store.create(&Gvr::SERVICES, None, service).unwrap();
    let endpoints = Gvr::fixed("", "v1", "endpoints");
    let ready = cluster.until(&endpoints, None, "web", |e| e["subsets"][0]["addresses"].is_array()).await;
    assert_eq!(ready["subsets"][0]["ports"][0]["port"], 8080);
    assert!(
        store.get(&Gvr::SERVICES, None, "web").unwrap()["status"]["loadBalancer"].get("ingress").is_none()
    );
    let crd = json!({
        "metadata": {"name": "ipaddresspools.metallb.io"},
        "spec": {"group": "metallb.io", "scope": "Namespaced", "names": {"plural": "ipaddresspools", "kind": "IPAddressPool"},
            "versions": [{"name": "v1beta1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]},
    });
    store.create(&Gvr::CRDS, None, crd).unwrap();
    let pools = Gvr::fixed("metallb.io", "v1beta1", "ipaddresspools");
    cluster.holds("pools are served", || store.list(&pools, None).is_ok()).await;
    store
        .create(
            &pools,
            None,
            json!({"metadata": {"name": "p"}, "spec": {"addresses": ["10.10.88.80-10.10.88.89"]}}),
        )
        .unwrap();
    let given = cluster
        .until(&Gvr::SERVICES, None, "web", |s| s["status"]["loadBalancer"]["ingress"].is_array())
        .await;
    assert_eq!(given["status"]["loadBalancer"]["ingress"][0]["ip"], "10.10.88.80");
    store.delete(&Gvr::SERVICES, None, "web", &DeleteOptions::default()).unwrap();
    cluster.gone(&endpoints, None, "web").await;
}

#[tokio::test]
async fn controllers_rest_while_no_door_is_open() {
    let cluster = Cluster::with_nodes(1).await;
    let store = cluster.server.store();
    cluster.enabled.send(false).unwrap();
    cluster.holds("the door is closed", || !*cluster.enabled.borrow()).await;
    // A pass that was under way may still end; a namespace of a closed cluster stays as it is.
    store.create(&Gvr::NAMESPACES, None, json!({"metadata": {"name": "quiet"}})).unwrap();
    store.delete(&Gvr::NAMESPACES, None, "quiet", &DeleteOptions::default()).unwrap();
    cluster.enabled.send(true).unwrap();
    cluster.gone(&Gvr::NAMESPACES, None, "quiet").await;
}
