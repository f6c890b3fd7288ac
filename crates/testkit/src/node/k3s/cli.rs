//! The `k3s` command: what tools ask a node for.

use futures::future::BoxFuture;
use serde_json::json;

use crate::{
    DeleteOptions, Gvr,
    node::tools::Call,
    world::cluster::{Cluster, Datastore},
};

/// `k3s-simulated <version> …`, what the simulated binary hands over to.
pub(crate) fn run(call: &mut Call) -> BoxFuture<'_, i32> {
    Box::pin(async move {
        let mut args = call.args.clone().into_iter();
        let version = args.next().unwrap_or_default();
        let rest: Vec<String> = args.collect();
        let Some((verb, rest)) = rest.split_first() else {
            call.line("NAME:\n   k3s - Kubernetes, but small and simple");
            return 0;
        };
        match verb.as_str() {
            "--version" | "-v" => {
                call.line(format!("k3s version {version} (51ffa8d0)\ngo version go1.25.4"));
                0
            }
            "kubectl" => kubectl(call, rest, &version),
            "crictl" | "ctr" => 0,
            "check-config" => {
                let cgroup =
                    call.os(|os| os.running.as_ref().is_some_and(|r| r.memory_cgroup)).unwrap_or(false);
                call.line(format!("Verifying binaries in /var/lib/rancher/k3s/data/current/bin:\n- cgroup memory: {}\n\nSTATUS: {}", if cgroup { "enabled" } else { "missing" }, if cgroup { "pass" } else { "1 (fail)" }));
                i32::from(!cgroup)
            }
            "token" => token(call, rest),
            "etcd-snapshot" => snapshot(call, rest),
            "server" if rest.iter().any(|a| a.starts_with("--cluster-reset")) => reset(call, rest),
            "certificate" | "secrets-encrypt" | "completion" => 0,
            "server" | "agent" => call.fail(1, "the simulated k3s runs as a systemd unit only"),
            other => {
                let text = format!("No help topic for '{other}'\n");
                call.warn(text);
                3
            }
        }
    })
}

/// The cluster whose server runs on this node and answers.
fn local(call: &Call) -> Option<std::sync::Arc<Cluster>> {
    let serving = *call.node().kube_serving.borrow();
    call.node().cluster().filter(|cluster| serving && cluster.answers())
}

fn refused(call: &mut Call) -> i32 {
    call.warn(
        "The connection to the server 127.0.0.1:6443 was refused - did you specify the right host or port?\n",
    );
    1
}

fn kubectl(call: &mut Call, args: &[String], version: &str) -> i32 {
    if args.first().is_some_and(|a| a == "version") && args.iter().any(|a| a == "--client") {
        call.line(format!("Client Version: {version}"));
        return 0;
    }
    let readable = call.session.root()
        || call
            .os(|os| os.vfs.stat("/etc/rancher/k3s/k3s.yaml").is_ok_and(|inode| inode.mode & 0o004 != 0))
            .unwrap_or(false);
    if !readable {
        call.warn("error: error loading config file \"/etc/rancher/k3s/k3s.yaml\": open /etc/rancher/k3s/k3s.yaml: permission denied\n");
        return 1;
    }
    let Some(cluster) = local(call) else { return refused(call) };
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let output = words
        .iter()
        .zip(words.iter().skip(1))
        .find(|(a, _)| matches!(**a, "-o" | "--output"))
        .map(|(_, b)| *b)
        .or_else(|| {
            words.iter().find_map(|a| {
                a.strip_prefix("-o")
                    .or_else(|| a.strip_prefix("--output="))
                    .map(|v| v.trim_start_matches('='))
                    .filter(|v| !v.is_empty())
            })
        });
    let raw = words
        .iter()
        .zip(words.iter().skip(1))
        .find(|(a, _)| **a == "--raw")
        .map(|(_, b)| *b)
        .or_else(|| words.iter().find_map(|a| a.strip_prefix("--raw=")));
    let plain: Vec<&str> = {
        let mut skip = false;
        words
            .iter()
            .copied()
            .filter(|w| {
                if std::mem::take(&mut skip) {
                    return false;
                }
                skip =
                    matches!(*w, "-o" | "--output" | "-n" | "--namespace" | "--timeout" | "--grace-period");
                !w.starts_with('-')
            })
            .collect()
    };
    let store = cluster.api.store();
    match plain.as_slice() {
        ["get", ..] if raw.is_some() => match raw.unwrap_or_default() {
            path if path.starts_with("/readyz")
                || path.starts_with("/livez")
                || path.starts_with("/healthz") =>
            {
                call.print(if path.contains("verbose") {
                    "[+]ping ok\n[+]etcd ok\nreadyz check passed\n"
                } else {
                    "ok"
                });
                0
            }
            "/version" => {
                let version = cluster.api.version();
                call.print(json!({"major": "1", "gitVersion": version}).to_string());
                0
            }
            _ => {
                call.warn("Error from server (NotFound): the server could not find the requested resource\n");
                1
            }
        },
        ["get", "node" | "nodes" | "no", names @ ..] | ["get", names @ ..]
            if plain.get(1).is_some_and(|r| r.starts_with("no")) =>
        {
            let mut found = Vec::new();
            let names: Vec<&str> = names
                .iter()
                .copied()
                .filter(|n| !n.starts_with("no") || !matches!(*n, "no" | "node" | "nodes"))
                .collect();
            if names.is_empty() {
                found = store.list(&Gvr::NODES, None).unwrap_or_default();
            }
            for name in &names {
                match store.find(&Gvr::NODES, None, name) {
                    Some(node) => found.push(node),
                    None => {
                        call.warn(format!("Error from server (NotFound): nodes \"{name}\" not found\n"));
                        return 1;
                    }
                }
            }
            match output {
                Some("json") if names.len() == 1 => {
                    call.line(found.first().map(ToString::to_string).unwrap_or_default())
                }
                Some("json") => {
                    call.line(json!({"apiVersion": "v1", "kind": "List", "items": found}).to_string())
                }
                Some("name") => found.iter().for_each(|n| {
                    call.line(format!(
                        "node/{}",
                        n.pointer("/metadata/name").and_then(|v| v.as_str()).unwrap_or_default()
                    ))
                }),
                _ => {
                    call.line("NAME STATUS ROLES AGE VERSION");
                    for node in &found {
                        let ready =
                            node.pointer("/status/conditions").and_then(|c| c.as_array()).is_some_and(
                                |list| list.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"),
                            );
                        let text = |path: &str| {
                            node.pointer(path).and_then(|v| v.as_str()).unwrap_or_default().to_owned()
                        };
                        let roles: Vec<String> = node
                            .pointer("/metadata/labels")
                            .and_then(|l| l.as_object())
                            .into_iter()
                            .flat_map(|l| l.keys())
                            .filter_map(|k| k.strip_prefix("node-role.kubernetes.io/").map(str::to_owned))
                            .collect();
                        call.line(format!(
                            "{} {} {} 1m {}",
                            text("/metadata/name"),
                            if ready { "Ready" } else { "NotReady" },
                            if roles.is_empty() { "<none>".into() } else { roles.join(",") },
                            text("/status/nodeInfo/kubeletVersion")
                        ));
                    }
                }
            }
            0
        }
        ["delete", "node" | "nodes", name] => {
            match store.delete(&Gvr::NODES, None, name, &DeleteOptions::default()) {
                Ok(_) => {
                    call.line(format!("node \"{name}\" deleted"));
                    0
                }
                Err(_)
                    if words.contains(&"--ignore-not-found")
                        || words.contains(&"--ignore-not-found=true") =>
                {
                    0
                }
                Err(error) => {
                    call.warn(format!("Error from server (NotFound): {error}\n"));
                    1
                }
            }
        }
        ["delete", "secret" | "secrets", name] => {
            match store.delete(&Gvr::SECRETS, Some("kube-system"), name, &DeleteOptions::default()) {
                Ok(_) => {
                    call.line(format!("secret \"{name}\" deleted"));
                    0
                }
                Err(error) => {
                    call.warn(format!("Error from server (NotFound): {error}\n"));
                    i32::from(!words.iter().any(|w| w.starts_with("--ignore-not-found")))
                }
            }
        }
        [verb @ ("cordon" | "uncordon"), name] => {
            let on = *verb == "cordon";
            match store.modify(&Gvr::NODES, None, name, |node| {
                if let Some(spec) = node.get_mut("spec").and_then(|s| s.as_object_mut()) {
                    spec.insert("unschedulable".into(), on.into());
                }
            }) {
                Ok(_) => {
                    call.line(format!("node/{name} {verb}ed"));
                    0
                }
                Err(error) => {
                    call.warn(format!("Error from server (NotFound): {error}\n"));
                    1
                }
            }
        }
        _ => {
            call.warn(
                "error: the simulated node's kubectl does not support this call; use the Kubernetes API\n",
            );
            1
        }
    }
}

fn token(call: &mut Call, args: &[String]) -> i32 {
    match args.first().map(String::as_str) {
        Some("generate") => {
            call.line(hex::encode(rand::random::<[u8; 16]>()));
            0
        }
        Some("list") => {
            call.line("TOKEN TTL EXPIRES USAGES DESCRIPTION");
            0
        }
        _ => {
            call.warn("the simulated k3s supports `token generate` and `token list`\n");
            1
        }
    }
}

fn snapshot(call: &mut Call, args: &[String]) -> i32 {
    let Some(cluster) = local(call) else {
        call.warn("time=\"now\" level=fatal msg=\"Error: see server log for details: connection refused\"\n");
        return 1;
    };
    if cluster.datastore() == Datastore::Sqlite {
        call.warn("level=fatal msg=\"etcd datastore disabled\"\n");
        return 1;
    }
    let value = |key: &str| {
        args.iter()
            .zip(args.iter().skip(1))
            .find(|(a, _)| *a == key)
            .map(|(_, b)| b.clone())
            .or_else(|| args.iter().find_map(|a| a.strip_prefix(&format!("{key}=")).map(str::to_owned)))
    };
    let dir = value("--dir").unwrap_or_else(|| "/var/lib/rancher/k3s/server/db/snapshots".into());
    match args.first().map(String::as_str) {
        Some("save") | None => {
            let epoch =
                std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
            let node = call.node().name.clone();
            let name = format!("{}-{node}-{epoch}", value("--name").unwrap_or_else(|| "on-demand".into()));
            cluster.save_snapshot(&name);
            call.os(|os| {
                os.vfs.put_mode(
                    &format!("{dir}/{name}"),
                    format!("simulated-snapshot {} {name}\n", cluster.id),
                    0o600,
                )
            });
            call.warn(format!("level=info msg=\"Snapshot {name} saved.\"\n"));
            0
        }
        Some("ls" | "list") => {
            let names = cluster.snapshots();
            if args.windows(2).any(|w| w[0] == "-o" && w[1] == "json") {
                let items: Vec<serde_json::Value> = names.iter().map(|n| json!({"metadata": {"name": n}, "spec": {"snapshotName": n, "location": format!("file://{dir}/{n}")}, "status": {"readyToUse": true}})).collect();
                call.line(
                    json!({"apiVersion": "k3s.cattle.io/v1", "kind": "ETCDSnapshotFileList", "items": items})
                        .to_string(),
                );
            } else {
                call.line("Name Location Size Created");
                names.iter().for_each(|n| call.line(format!("{n} file://{dir}/{n} 100 now")));
            }
            0
        }
        Some(_) => 0,
    }
}

/// `k3s server --cluster-reset [--cluster-reset-restore-path=…]` in the foreground.
fn reset(call: &mut Call, args: &[String]) -> i32 {
    let node = call.node().name.clone();
    let text =
        call.os(|os| os.vfs.text("/var/lib/rancher/k3s/server/db/etcd/member/snap/db")).unwrap_or_default();
    let path = args.iter().find_map(|a| a.strip_prefix("--cluster-reset-restore-path=").map(str::to_owned));
    let file = path.as_ref().map(|p| call.os(|os| os.vfs.text(p)).unwrap_or_default());
    let id = file
        .as_deref()
        .and_then(|f| f.split_whitespace().nth(1))
        .or_else(|| text.split_whitespace().nth(1))
        .unwrap_or_default()
        .to_owned();
    let Some(cluster) = call.node().world().and_then(|world| world.cluster(&id)) else {
        call.warn("level=fatal msg=\"starting kubernetes: preparing server: start managed database: cluster-reset was successfully performed or no data to reset\"\n");
        return 1;
    };
    if call.node().cluster().is_some() {
        call.warn("level=fatal msg=\"listen tcp 0.0.0.0:6443: bind: address already in use\"\n");
        return 1;
    }
    if let Some(name) = path.as_deref().and_then(|p| p.rsplit('/').next())
        && !cluster.restore_snapshot(name)
    {
        call.warn(format!("level=fatal msg=\"etcd: snapshot path does not exist: {name}\"\n"));
        return 1;
    }
    let member = cluster
        .members()
        .into_iter()
        .map(|(name, _)| name)
        .find(|name| cluster.member(name).is_some_and(|m| m.host == node));
    if let Some(name) = member {
        cluster.reset_to(&name);
    }
    call.warn("level=info msg=\"Managed etcd cluster membership has been reset, restart without --cluster-reset flag now. Backup and delete ${datadir}/server/db on each peer etcd server and rejoin the nodes\"\n");
    0
}
