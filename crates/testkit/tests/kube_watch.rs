//! Watches of the simulated API server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "tests")]

mod kube_support;

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::{
    Api, ResourceExt,
    api::{WatchEvent, WatchParams},
    runtime::{WatchStreamExt as _, wait::await_condition, watcher},
};
use kube_support::{Cluster, LIMIT};
use serde_json::{Value, json};
use turingpi_testkit::{DeleteOptions, Gvr, LabelSelector, WatchEventKind, WatchOptions};

fn map(name: &str, labels: Value) -> Value {
    json!({"metadata": {"name": name, "labels": labels}})
}

/// Reads events from a raw watch until one satisfies `last`.
async fn lines(response: reqwest::Response, last: impl Fn(&Value) -> bool) -> Vec<Value> {
    let mut seen = Vec::new();
    let mut buffer = Vec::new();
    let mut stream = response.bytes_stream();
    let read = async {
        while let Some(chunk) = stream.try_next().await.unwrap() {
            buffer.extend_from_slice(&chunk);
            while let Some(end) = buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                seen.push(serde_json::from_slice(&line).unwrap());
                if last(seen.last().unwrap()) {
                    return;
                }
            }
        }
    };
    tokio::time::timeout(LIMIT, read).await.expect("the watch said what it had to");
    seen
}

#[tokio::test]
async fn a_condition_is_awaited_over_a_streamed_watch() {
    let cluster = Cluster::with_nodes(1).await;
    cluster.set_ready("node1", "False");
    let nodes: Api<Node> = Api::all(cluster.client().await);
    let ready = |node: Option<&Node>| {
        node.and_then(|n| n.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == "Ready"))
            .is_some_and(|c| c.status == "True")
    };
    let waiting = tokio::spawn(await_condition(nodes, "node1", ready));
    cluster.set_ready("node1", "True");
    tokio::time::timeout(LIMIT, waiting).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_watch_continues_from_a_version_and_sees_only_its_selector() {
    let cluster = Cluster::start().await;
    let store = cluster.server.store();
    store.create(&Gvr::CONFIG_MAPS, None, map("a", json!({"team": "red"}))).unwrap();
    let from = store.version();
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client().await);
    let mut events =
        maps.watch(&WatchParams::default().labels("team=red"), &from.to_string()).await.unwrap().boxed();
    store.create(&Gvr::CONFIG_MAPS, None, map("b", json!({"team": "blue"}))).unwrap();
    store.create(&Gvr::CONFIG_MAPS, None, map("c", json!({"team": "red"}))).unwrap();
    store.modify(&Gvr::CONFIG_MAPS, None, "b", |m| m["metadata"]["labels"]["team"] = json!("red")).unwrap();
    store.modify(&Gvr::CONFIG_MAPS, None, "a", |m| m["metadata"]["labels"]["team"] = json!("blue")).unwrap();
    store.delete(&Gvr::CONFIG_MAPS, None, "c", &DeleteOptions::default()).unwrap();
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let event = tokio::time::timeout(LIMIT, events.try_next()).await.unwrap().unwrap().unwrap();
        seen.push(match event {
            WatchEvent::Added(m) => format!("added {}", m.name_any()),
            WatchEvent::Modified(m) => format!("modified {}", m.name_any()),
            WatchEvent::Deleted(m) => format!("deleted {}", m.name_any()),
            WatchEvent::Bookmark(_) => continue,
            WatchEvent::Error(e) => panic!("{e:?}"),
        });
    }
    assert_eq!(seen, ["added c", "added b", "deleted a", "deleted c"]);
}

#[tokio::test]
async fn a_version_that_is_too_old_is_gone_inside_the_stream() {
    let cluster = Cluster::start().await;
    let old = cluster.server.store().version();
    cluster.server.store().compact();
    let url = format!("{}/api/v1/configmaps?watch=1&resourceVersion={old}", cluster.url);
    let response = cluster.http().get(url).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let seen = lines(response, |_| true).await;
    assert_eq!(seen[0]["type"], "ERROR");
    assert_eq!(seen[0]["object"]["code"], 410);
    assert_eq!(seen[0]["object"]["reason"], "Expired");
}

#[tokio::test]
async fn an_open_watch_is_told_when_history_is_lost() {
    let cluster = Cluster::start().await;
    let store = cluster.server.store();
    let mut watcher = store
        .watch(&Gvr::CONFIG_MAPS, WatchOptions { from: Some(store.version()), ..WatchOptions::default() })
        .unwrap();
    store.restore(&store.snapshot());
    let error = tokio::time::timeout(LIMIT, watcher.next()).await.unwrap().unwrap_err();
    assert_eq!(error.code, 410);
}

#[tokio::test]
async fn a_watch_ends_when_its_time_is_up_with_a_bookmark_for_those_who_want_one() {
    let cluster = Cluster::start().await;
    let url = format!("{}/api/v1/nodes?watch=1&timeoutSeconds=1&allowWatchBookmarks=true", cluster.url);
    let seen = lines(cluster.http().get(url).send().await.unwrap(), |_| false).await;
    let last = seen.last().unwrap();
    assert_eq!((last["type"].as_str(), last["object"]["kind"].as_str()), (Some("BOOKMARK"), Some("Node")));
    assert!(last["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().is_ok());
}

#[tokio::test]
async fn a_streamed_list_is_closed_by_its_bookmark() {
    let cluster = Cluster::start().await;
    let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let response =
        cluster.http().get(format!("{}/api/v1/namespaces?{query}", cluster.url)).send().await.unwrap();
    let seen = lines(response, |e| e["type"] == "BOOKMARK").await;
    assert_eq!(seen.len(), 5, "{seen:#?}");
    assert_eq!(seen[4]["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    let unmatched =
        cluster.http().get(format!("{}/api/v1/namespaces?watch=1&sendInitialEvents=true", cluster.url));
    assert_eq!(unmatched.send().await.unwrap().status(), 422);
}

#[tokio::test]
async fn a_streaming_list_feeds_a_kube_rs_watcher() {
    let cluster = Cluster::with_nodes(2).await;
    let nodes: Api<Node> = Api::all(cluster.client().await);
    let config = watcher::Config::default().streaming_lists();
    let mut stream = watcher(nodes, config).applied_objects().boxed();
    let mut names = Vec::new();
    while names.len() < 2 {
        let node = tokio::time::timeout(LIMIT, stream.try_next()).await.unwrap().unwrap().unwrap();
        if !names.contains(&node.name_any()) {
            names.push(node.name_any());
        }
    }
    names.sort();
    assert_eq!(names, ["node1", "node2"]);
}

#[tokio::test]
async fn rows_of_a_watched_table_name_their_columns_once() {
    let cluster = Cluster::with_nodes(2).await;
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let url = format!("{}/api/v1/nodes?watch=1", cluster.url);
    let response = cluster.http().get(url).header("accept", accept).send().await.unwrap();
    let seen = lines(response, |e| e["object"]["rows"][0]["cells"][0] == "node2").await;
    assert_eq!(seen[0]["object"]["kind"], "Table");
    assert!(seen[0]["object"]["columnDefinitions"].is_array());
    assert!(seen[1]["object"]["columnDefinitions"].is_null());
}

#[tokio::test]
async fn the_store_can_be_watched_without_a_socket() {
    let cluster = Cluster::start().await;
    let store = cluster.server.store();
    let options = WatchOptions { labels: LabelSelector::parse("app=x").unwrap(), ..WatchOptions::default() };
    let mut watcher = store.watch(&Gvr::CONFIG_MAPS, options).unwrap();
    assert!(watcher.try_next().unwrap().is_none());
    store.create(&Gvr::CONFIG_MAPS, None, map("one", json!({"app": "x"}))).unwrap();
    let event = tokio::time::timeout(LIMIT, watcher.next()).await.unwrap().unwrap();
    assert_eq!(event.kind, WatchEventKind::Added);
}
