//! `k3s server`: a new cluster, a restart, or a join.

use std::{sync::Arc, time::Duration};

use super::{
    Ended, RETRY, Run,
    door::Serving,
    join::{check_token, node_password, reach},
    kubelet::Kubelet,
};
use crate::{
    ApiServer, ApiServerOptions, ClusterPki, Gvr,
    world::{
        cluster::{Cluster, Datastore, Member},
        objects,
    },
};

const DATA: &str = "/var/lib/rancher/k3s/server";
const SQLITE: &str = "/var/lib/rancher/k3s/server/db/state.db";
const ETCD: &str = "/var/lib/rancher/k3s/server/db/etcd/member/snap/db";

/// Marks a server as running for as long as it lives.
struct Up<'a> {
    cluster: &'a Cluster,
    name: String,
}

impl Drop for Up<'_> {
    fn drop(&mut self) {
        self.cluster.set_running(&self.name, false);
    }
}

/// The cluster and the member's mark that stand in the datastore on the disk.
fn on_disk(run: &Run<'_>) -> Option<(String, String, Datastore)> {
    run.node
        .os(|os| {
            let etcd = os.vfs.text(ETCD);
            let (text, datastore) = if etcd.is_empty() {
                (os.vfs.text(SQLITE), Datastore::Sqlite)
            } else {
                (etcd, Datastore::Etcd)
            };
            let mut words = text.strip_prefix("simulated-datastore ")?.split_whitespace().map(str::to_owned);
            Some((words.next()?, words.next()?, datastore))
        })
        .flatten()
}

fn write_datastore(run: &Run<'_>, cluster: &Cluster, mark: &str) {
    let text = format!("simulated-datastore {} {mark}\n", cluster.id);
    run.node.os(|os| match cluster.datastore() {
        Datastore::Etcd => {
            os.vfs.put_mode(ETCD, text, 0o600);
            os.vfs.put_mode(
                &format!("{DATA}/db/etcd/name"),
                format!("{}-{}\n", run.name, mark.get(..8).unwrap_or_default()),
                0o600,
            );
            let _ = os.vfs.change(&format!("{DATA}/db/etcd"), |inode| inode.mode = 0o700);
        }
        Datastore::Sqlite => os.vfs.put_mode(SQLITE, text, 0o644),
    });
}

fn password(token: &str) -> &str {
    match token.strip_prefix("K10").and_then(|rest| rest.split_once("::")) {
        Some((_, credentials)) => credentials.split_once(':').map_or(credentials, |(_, password)| password),
        None => token,
    }
}

fn sans(run: &Run<'_>) -> Vec<String> {
    let mut sans = run.config.list("tls-san");
    sans.extend([run.name.clone(), run.address.to_string()]);
    sans
}

/// Makes a cluster with this server as its first member.
fn found(run: &Run<'_>) -> Result<Arc<Cluster>, String> {
    let world = run.node.world().ok_or("the world is gone")?;
    let kept =
        run.node.os(|os| os.vfs.text(&format!("{DATA}/token")).trim().to_owned()).filter(|t| !t.is_empty());
    let token = run.config.text("token").or(kept).unwrap_or_else(|| hex::encode(rand::random::<[u8; 16]>()));
    let pki = ClusterPki::generate(sans(run)).map_err(|e| e.to_string())?;
    let critical = run.config.critical();
    let mut options =
        ApiServerOptions::new(run.version.clone(), pki.clone()).faults(world.faults.clone()).pace(world.pace);
    let network = |key: &str| critical.get(key).and_then(|cidr| cidr.split(',').next()?.parse().ok());
    match (network("cluster-cidr"), network("service-cidr")) {
        (Some(pods), Some(services)) => options = options.networks(pods, services),
        _ => return Err("invalid cluster-cidr or service-cidr".to_owned()),
    }
    let api = ApiServer::new(options);
    let cluster =
        Arc::new(Cluster::new(pki, api, password(&token).to_owned(), run.config.text("agent-token")));
    cluster.set_critical(critical);
    let etcd = run.config.yes("cluster-init");
    cluster.set_datastore(if etcd { Datastore::Etcd } else { Datastore::Sqlite });
    add_member(run, &cluster, true);
    world.add_cluster(Arc::clone(&cluster));
    Ok(cluster)
}

fn add_member(run: &Run<'_>, cluster: &Cluster, voter: bool) {
    let mark = crate::node::disk::uuid();
    write_datastore(run, cluster, &mark);
    let member = Member { voter, running: false, address: run.address, mark, host: run.node.name.clone() };
    cluster.put_member(&run.name, member);
}

/// Takes up the cluster whose data lies on the disk.
fn restart(run: &Run<'_>, id: &str, mark: &str, datastore: Datastore) -> Result<Arc<Cluster>, String> {
    let world = run.node.world().ok_or("the world is gone")?;
    let cluster = world.cluster(id).ok_or("failed to bootstrap cluster data: no such datastore")?;
    if let Some(token) = run.config.text("token")
        && password(&token) != cluster.token
    {
        return Err("starting kubernetes: preparing server: bootstrap data already found and encrypted with different token".to_owned());
    }
    match cluster.member(&run.name) {
        Some(member) if member.mark == mark => {
            let moved = Member { address: run.address, host: run.node.name.clone(), ..member };
            cluster.put_member(&run.name, moved);
        }
        Some(_) => return Err("etcd cluster join failed: duplicate node name found, please use a unique name for this node".to_owned()),
        None => return Err("this server has been removed from the cluster: the member has been permanently removed from the cluster".to_owned()),
    }
    if datastore == Datastore::Sqlite
        && run.config.yes("cluster-init")
        && cluster.datastore() == Datastore::Sqlite
    {
        // A single server moves its data from SQLite to etcd.
        cluster.set_datastore(Datastore::Etcd);
        write_datastore(run, &cluster, mark);
    }
    if cluster.members().len() == 1 {
        cluster.set_critical(run.config.critical());
    } else {
        same_critical(run, &cluster)?;
    }
    Ok(cluster)
}

fn same_critical(run: &Run<'_>, cluster: &Cluster) -> Result<(), String> {
    let (mine, theirs) = (run.config.critical(), cluster.critical());
    let different: Vec<&str> = theirs
        .iter()
        .filter(|(key, value)| mine.get(*key) != Some(value))
        .map(|(key, _)| key.as_str())
        .collect();
    if different.is_empty() {
        return Ok(());
    }
    Err(format!(
        "starting kubernetes: preparing server: failed to validate server configuration: critical configuration value mismatch between servers: {}",
        different.join(", ")
    ))
}

/// Joins an existing cluster as a further server. `Err` is fatal; the process is started again by systemd.
async fn join(run: &Run<'_>, url: &str) -> Result<Arc<Cluster>, String> {
    let token = run.config.text("token").ok_or("--token is required")?;
    let cluster = reach(run, url).map_err(|e| {
        format!("starting kubernetes: preparing server: failed to get CA certs: Get \"{url}/cacerts\": {e}")
    })?;
    check_token(&cluster, &token, true).map_err(|e| format!("starting kubernetes: preparing server: {e}"))?;
    if cluster.datastore() == Datastore::Sqlite {
        return Err(
            "starting kubernetes: preparing server: cannot join: the cluster's datastore is not etcd"
                .to_owned(),
        );
    }
    same_critical(run, &cluster)?;
    if cluster.member(&run.name).is_some() {
        let gone = cluster.api.store().find(&Gvr::NODES, None, &run.name).is_none();
        if !gone {
            return Err(
                "etcd cluster join failed: duplicate node name found, please use a unique name for this node"
                    .to_owned(),
            );
        }
        cluster.remove_member(&run.name);
    }
    while cluster.has_learner() {
        run.log("info", "Adding member to etcd cluster");
        run.log("error", "etcdserver: too many learner members in cluster");
        if !run.node.pause(RETRY).await {
            return Err("context canceled".to_owned());
        }
    }
    add_member(run, &cluster, false);
    Ok(cluster)
}

/// Files a server writes when it starts.
fn files(run: &Run<'_>, cluster: &Cluster) -> Result<(), String> {
    cluster.pki.add_sans(sans(run)).map_err(|e| e.to_string())?;
    let kubeconfig = cluster.pki.admin_kubeconfig("https://127.0.0.1:6443").map_err(|e| e.to_string())?;
    let mode = run
        .config
        .text("write-kubeconfig-mode")
        .and_then(|m| u32::from_str_radix(&m, 8).ok())
        .unwrap_or(0o600);
    let path = run.config.text("write-kubeconfig").unwrap_or_else(|| "/etc/rancher/k3s/k3s.yaml".into());
    let server = cluster.pki.server();
    run.node.os(|os| {
        let vfs = &mut os.vfs;
        for folder in ["/var/lib/rancher/k3s", DATA] {
            vfs.mkdirs(folder, 0o755);
        }
        for folder in ["tls", "cred", "manifests", "static"] {
            vfs.mkdirs(&format!("{DATA}/{folder}"), 0o700);
        }
        vfs.put_mode(&format!("{DATA}/token"), cluster.full_token() + "\n", 0o600);
        vfs.link(&format!("{DATA}/node-token"), &format!("{DATA}/token"));
        match &cluster.agent_token {
            Some(token) => {
                let _ = vfs.remove(&format!("{DATA}/agent-token"), false);
                vfs.put_mode(
                    &format!("{DATA}/agent-token"),
                    format!("K10{}::node:{token}\n", cluster.pki.ca_hash()),
                    0o600,
                );
            }
            None => vfs.link(&format!("{DATA}/agent-token"), &format!("{DATA}/token")),
        }
        for (name, text) in [
            ("server-ca.crt", cluster.pki.server_ca_pem()),
            ("client-ca.crt", cluster.pki.client_ca_pem()),
            ("serving-kube-apiserver.crt", server.chain_pem()),
        ] {
            vfs.put_mode(&format!("{DATA}/tls/{name}"), text, 0o644);
        }
        for (name, text) in [
            ("server-ca.key", cluster.pki.server_ca_key_pem()),
            ("client-ca.key", cluster.pki.client_ca_key_pem()),
        ] {
            vfs.put_mode(&format!("{DATA}/tls/{name}"), text, 0o600);
        }
        vfs.put_mode(&format!("{DATA}/cred/passwd"), "simulated\n", 0o600);
        let _ = vfs.remove(&path, false);
        vfs.put_mode(&path, kubeconfig, mode);
    });
    Ok(())
}

/// Runs a server until it ends.
pub(crate) async fn serve(run: &Run<'_>) -> Ended {
    let disk = on_disk(run);
    let cluster = match (&disk, run.config.text("server")) {
        (Some((id, mark, datastore)), _) => restart(run, id, mark, *datastore),
        (None, Some(url)) if !run.config.yes("cluster-init") || reach(run, &url).is_ok() => {
            join(run, &url).await
        }
        (None, _) => found(run),
    };
    let cluster = match cluster {
        Ok(cluster) => cluster,
        Err(message) => return run.fatal(&message),
    };
    let Some(world) = run.node.world() else { return Ended::Cancelled };
    let (start, voter) = (world.durations.k3s_server, world.durations.etcd_voter);
    drop(world);
    if let Err(message) = files(run, &cluster) {
        return run.fatal(&message);
    }
    run.log("info", "Tunnel server egress proxy mode: agent");
    if cluster.datastore() == Datastore::Etcd {
        run.node.journal(
            run.unit,
            "k3s",
            run.pid,
            "{\"level\":\"info\",\"msg\":\"starting an etcd server\",\"etcd-version\":\"3.6.6\"}",
        );
    }
    if !run.node.pause(start).await {
        return Ended::Cancelled;
    }
    cluster.set_running(&run.name, true);
    let _up = Up { cluster: &cluster, name: run.name.clone() };
    // A member of a cluster without quorum waits for the others.
    while !cluster.quorum() {
        run.log("info", "Waiting for etcd server to become available");
        if !run.node.pause(RETRY).await {
            return Ended::Cancelled;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let _serving = Serving::start(run.node, &cluster, &run.name);
    cluster.api.set_version(run.version.clone());
    let critical = cluster.critical();
    let services = critical.get("service-cidr").cloned().unwrap_or_default();
    let dns = critical.get("cluster-dns").filter(|d| !d.is_empty()).cloned().unwrap_or_else(|| {
        let base = services.split('/').next().unwrap_or("10.43.0.0").to_owned();
        base.rsplit_once('.').map_or(base.clone(), |(head, _)| format!("{head}.10"))
    });
    objects::system(&cluster.api, &run.config.list("disable"), &dns);
    if let Err(message) = node_password(run, &cluster) {
        return run.fatal(&message);
    }
    let kubelet = match Kubelet::start(run, &cluster) {
        Ok(kubelet) => kubelet,
        Err(message) => return run.fatal(&message),
    };
    run.log("info", "k3s is up and running");
    (run.ready)();
    let promote = async {
        if cluster.datastore() != Datastore::Etcd {
            return;
        }
        if cluster.member(&run.name).is_some_and(|member| !member.voter) {
            run.node.pause(voter).await;
            cluster.promote(&run.name);
        }
        objects::condition(
            &cluster.api,
            &run.name,
            "EtcdIsVoter",
            "True",
            "MemberNotLearner",
            "Node is a voting member of the etcd cluster",
        );
        watch_members(run, &cluster).await;
    };
    let removed = async {
        promote.await;
        if cluster.datastore() == Datastore::Etcd {
            return run.fatal("the member has been permanently removed from the cluster");
        }
        std::future::pending().await
    };
    tokio::select! {
        ended = kubelet.beat(run, &cluster) => ended,
        ended = removed => ended,
    }
}

/// Removes members whose Node object somebody deleted; returns when this server itself was removed.
async fn watch_members(run: &Run<'_>, cluster: &Arc<Cluster>) {
    loop {
        tokio::time::sleep(Duration::from_millis(10)).await;
        if cluster.member(&run.name).is_none() {
            return;
        }
        for (name, _) in cluster.members() {
            let registered = cluster
                .member(&name)
                .is_some_and(|member| cluster.kubelet(&member.host).as_deref() == Some(name.as_str()));
            let there = cluster.api.store().find(&Gvr::NODES, None, &name);
            let asked = there.as_ref().is_some_and(|node| {
                node.pointer("/metadata/annotations")
                    .and_then(|a| a.get("etcd.k3s.cattle.io/remove"))
                    .is_some_and(|v| v == "true")
            });
            if asked {
                cluster.remove_member(&name);
                let _ = cluster.api.store().modify(&Gvr::NODES, None, &name, |node| {
                    if let Some(map) =
                        node.pointer_mut("/metadata/annotations").and_then(|a| a.as_object_mut())
                    {
                        map.remove("etcd.k3s.cattle.io/remove");
                        map.insert("etcd.k3s.cattle.io/removed-node-name".into(), name.clone().into());
                    }
                });
            } else if there.is_none() && !registered && name != run.name && cluster.seen(&name) {
                cluster.remove_member(&name);
            }
        }
    }
}
