//! Brings up, or repairs, a k3s cluster on three hosts: `converge <user> <key file> <address>...`; the first is the server.
#![allow(clippy::print_stdout)]

use std::{env, error::Error, sync::Arc};

use turingpi_k3s::cluster::{Hosts, NodeSpec, Role};
use turingpi_k3s::engine::{Approval, Event, Executor, FileStateStore};
use turingpi_k3s::ssh::{AuthMethod, HostKeyPolicy, RusshConnector, SshTarget};
use turingpi_k3s::{K3sCluster, KubeconfigFile};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let user = args.next().ok_or("a user is missing")?;
    let key = args.next().ok_or("a key file is missing")?;
    let mut nodes = Vec::new();
    for (number, address) in args.enumerate() {
        let role = if number == 0 { Role::ControlPlane } else { Role::Worker };
        let auth = AuthMethod::KeyFile { path: key.clone().into(), passphrase: None };
        let ssh = SshTarget::new(&address).user(&user).auth(auth).host_key(HostKeyPolicy::AcceptNew);
        nodes.push(NodeSpec::new(format!("node{}", number + 1), role, address.parse()?, ssh));
    }
    let connector = RusshConnector::builder().known_hosts("known_hosts").build();
    let hosts = Hosts::new(Arc::new(connector), nodes.iter().map(|n| (n.name.clone(), n.ssh.clone())));
    let cluster = K3sCluster::builder("home")
        .nodes(nodes)
        .hosts(hosts)
        .cache("cache")?
        .kubeconfig(KubeconfigFile::new("kubeconfig"))
        .build()?;

    let state = Arc::new(FileStateStore::new("state.json"));
    let print = Arc::new(|event: &Event| println!("{event:?}"));
    let executor = Executor::builder(state, print).target("home").build();
    let summary = executor.converge(&cluster, &Approval::disruptive()).await?;
    println!("{} steps done", summary.steps_done);
    Ok(())
}
