//! What is found on a host: ours, fit to be taken over, or somebody else's, which is left alone.

use turingpi_cluster::{Arch, NodeSpec, OsFamily, Role};
use turingpi_engine::{Failure, FailureClass, State};

use super::Round;
use crate::{K3sNode, NodeFacts, TOKEN_KEY, UnitOwner, env::Env, facts::EntrySeen, unit};

/// The state's key of the digest of the cluster's CA file.
pub(crate) const CA_KEY: &str = "k3s/ca";

/// # Errors
/// `Refused` where going on would lose or mix up something.
pub(super) fn check(round: &Round<'_>) -> Result<(), Failure> {
    let ca = cluster_ca(round);
    networks(round)?;
    for node in &round.env.nodes {
        let Some(seen) = round.seen(&node.name) else { continue };
        host(node, seen)?;
        units(node, seen)?;
        membership(round, node, seen, ca.as_deref())?;
    }
    Ok(())
}

/// A cluster keeps the networks it was made with: with others its pods and services would no longer be found.
fn networks(round: &Round<'_>) -> Result<(), Failure> {
    let (Some(api), false) = (&round.facts.api, round.founding) else { return Ok(()) };
    let wanted = &round.env.network;
    let refused = |what: &str, has: String, says: String, hint: String| {
        Err(Failure::new(
            FailureClass::Refused,
            format!("the cluster that runs has its {what} in {has}, and the document says {says}"),
        )
        .hint(format!("{hint} Networks cannot be changed in a cluster that exists. Nothing was changed.")))
    };
    let k3s_default = "k3s's own default is `network: { pods: 10.42.0.0/16, services: 10.43.0.0/16 }`.";
    if let Some(pods) = api.pod_networks.iter().find(|pods| !wanted.pods.contains(*pods)) {
        let hint = format!(
            "Set `network.pods` in the document to the network that {pods} is part of. {k3s_default}"
        );
        return refused("pods", pods.to_string(), wanted.pods.trunc().to_string(), hint);
    }
    if let Some(address) = api.service_address
        && wanted.services.hosts().find(|a| *a != wanted.services.network()) != Some(address)
    {
        let hint = format!(
            "Set `network.services` in the document to the network that begins with {address}. {k3s_default}"
        );
        return refused(
            "service `kubernetes`",
            address.to_string(),
            wanted.services.trunc().to_string(),
            hint,
        );
    }
    Ok(())
}

/// The CA this cluster has: the one that was noted, when a server still has it; otherwise the one of the server that
/// others join through.
fn cluster_ca(round: &Round<'_>) -> Option<String> {
    let noted: Option<String> = round.state.record(CA_KEY).unwrap_or(None);
    let has = |ca: &String| {
        let mut servers = round.env.servers().filter(|s| round.serves(s));
        servers.any(|s| round.seen(&s.name).is_some_and(|n| n.k3s.ca.as_ref() == Some(ca)))
    };
    noted.filter(has).or_else(|| round.seen(&round.anchor.name).and_then(|n| n.k3s.ca.clone()))
}

fn refused(node: &NodeSpec, why: &str) -> Failure {
    Failure::new(FailureClass::Refused, format!("{} cannot be used: {why}", node.name))
}

fn host(node: &NodeSpec, seen: &NodeFacts) -> Result<(), Failure> {
    if seen.host.os.family != OsFamily::Debian {
        return Err(refused(
            node,
            &format!("its operating system `{}` is not of the Debian family", seen.host.os.id),
        )
        .hint("Use Armbian, Debian or Ubuntu."));
    }
    let addresses = &seen.host.addresses;
    if !addresses.is_empty() && !addresses.iter().any(|a| a.address.addr() == node.address) {
        let has: Vec<String> = addresses.iter().map(|a| a.address.addr().to_string()).collect();
        return Err(refused(node, &format!("it has the addresses {}, not {}", has.join(", "), node.address))
            .hint("Reserve the address for it in the DHCP server and restart it, or correct `address` in the document."));
    }
    if let Arch::Other(arch) = &seen.host.arch {
        return Err(refused(node, &format!("there is no k3s for its architecture {arch}"))
            .hint("Use arm64 or amd64."));
    }
    Ok(())
}

fn units(node: &NodeSpec, seen: &NodeFacts) -> Result<(), Failure> {
    if let Some(other) = seen.k3s.other_units.first() {
        return Err(refused(node, &format!("a second k3s is installed as {other}"))
            .hint("Remove it with its own uninstall script, then run this again."));
    }
    if seen.k3s.unit(node.role) == UnitOwner::Foreign {
        let path = unit::unit_path(node.role);
        return Err(refused(node, &format!("{path} starts k3s with settings of its own")).hint(format!(
            "Move its flags into /etc/rancher/k3s/config.yaml, leave only `{}` in it, and run this again.",
            if node.role == Role::ControlPlane { "k3s server" } else { "k3s agent" }
        )));
    }
    let was = unit::other(node.role);
    // An agent's data is also on servers; a server's is not on agents.
    let other_role = match node.role {
        Role::Worker => seen.k3s.datastore.is_some(),
        Role::ControlPlane => {
            seen.k3s.agent_unit != UnitOwner::Nobody && seen.k3s.agent_data && !seen.k3s.server_data
        }
    };
    if other_role {
        return Err(refused(node, &format!("it is a {was} of a cluster and shall become a {}", node.role))
            .hint("Take it out of the cluster first (remove the node, which drains and uninstalls it), then add it in its new role."));
    }
    Ok(())
}

fn membership(round: &Round<'_>, node: &NodeSpec, seen: &NodeFacts, ca: Option<&str>) -> Result<(), Failure> {
    let other_cluster = |what: &str| {
        refused(node, &format!("it belongs to another cluster ({what})")).hint(format!(
            "Take {} out of that cluster, or wipe it, and run this again. Nothing was changed on it.",
            node.name
        ))
    };
    let proven =
        round.state.secret(TOKEN_KEY).zip(seen.k3s.token.as_ref()).map(|(t, proof)| proof.matches(t));
    if (seen.k3s.datastore.is_some() || seen.k3s.agent_data)
        && proven.is_none()
        && let Some(other) = other_of_ours(round.env, round.state, &seen.k3s)
    {
        return Err(other_cluster(&format!("it was set up for `{other}`")).hint(format!(
            "Correct the address of {}. If it is the same cluster and only the document was renamed, give it its old \
             name back, or remove {} on the node. Nothing was changed on it.",
            node.name,
            crate::paths::CLUSTER
        )));
    }
    if seen.k3s.datastore.is_some() {
        if let (Some(token), Some(proof)) = (round.state.secret(TOKEN_KEY), &seen.k3s.token)
            && !proof.matches(token)
        {
            return Err(other_cluster("its token is not the one in the state"));
        }
        if let (Some(ca), Some(own)) = (ca, &seen.k3s.ca)
            && ca != own
        {
            return Err(other_cluster("its certificate authority is another one"));
        }
    }
    if node.role != Role::Worker || !seen.k3s.agent_data {
        return Ok(());
    }
    // An agent of ours whose servers were all built anew takes the new CA with its new token: it still points to them.
    let same = ca.is_some() && seen.k3s.ca.as_deref() == ca;
    let elsewhere = seen.k3s.agent_unit == UnitOwner::Ours && joined_elsewhere(round.env, &seen.k3s);
    if !same && elsewhere {
        return Err(other_cluster("its server is none of this document"));
    }
    if seen.k3s.agent_unit != UnitOwner::Ours
        && let (Some(ca), Some(own)) = (ca, &seen.k3s.ca)
        && ca != own
    {
        return Err(other_cluster("its certificate authority is another one"));
    }
    Ok(())
}

/// Whether a config of ours lets the node join a server that the document does not have.
fn joined_elsewhere(env: &Env, seen: &K3sNode) -> bool {
    matches!(&seen.entry, Some(EntrySeen::Join(url)) if env.servers().all(|s| env.join_url(s) != *url))
}

/// The cluster that a host was set up for by a run of ours, where that is another one and the CA does not say otherwise.
fn other_of_ours<'a>(env: &Env, state: &State, seen: &'a K3sNode) -> Option<&'a str> {
    let noted: Option<String> = state.record(CA_KEY).unwrap_or(None);
    let same_ca = noted.is_some() && seen.ca == noted;
    let known = same_ca || seen.clusters.contains(&env.name);
    if known { None } else { seen.clusters.first().map(String::as_str) }
}

/// What is taken down must be ours: the k3s of another cluster on a host that the document names by mistake is left
/// alone. A token that matches proves it, and so does a CA that was noted; where nothing is known, a unit that was not
/// written by us, one that leads to another cluster's server, or the name of another cluster on the host disproves it.
///
/// # Errors
/// `Refused` for somebody else's k3s.
pub(crate) fn may_take_down(env: &Env, state: &State, node: &str, seen: &K3sNode) -> Result<(), Failure> {
    let refused = |why: &str, hint: String| {
        Err(Failure::new(FailureClass::Refused, format!("the k3s on {node} is not taken down: {why}"))
            .hint(hint))
    };
    let elsewhere = format!(
        "Correct the address of {node}, or take it out of the document and uninstall that k3s by hand. Nothing was \
         changed on it."
    );
    if let Some(other) = seen.other_units.first() {
        return refused(&format!("a second one is installed as {other}"), elsewhere);
    }
    if !seen.server_data && !seen.agent_data && seen.datastore.is_none() {
        return Ok(());
    }
    let token = state.secret(TOKEN_KEY);
    let noted: Option<String> = state.record(CA_KEY)?;
    let same_ca = seen.ca.as_ref().zip(noted.as_ref()).map(|(seen, noted)| seen == noted);
    let same_token = seen.token.as_ref().zip(token).map(|(proof, token)| proof.matches(token));
    if same_token == Some(true) || same_ca == Some(true) {
        return Ok(());
    }
    if seen.datastore.is_some() {
        if same_token == Some(false) {
            return refused("its token is not the one in the state, so it is another cluster", elsewhere);
        }
        if same_ca == Some(false) {
            return refused("its certificate authority is another one, so it is another cluster", elsewhere);
        }
    }
    if joined_elsewhere(env, seen) {
        return refused("it is an agent of a server that is none of this document", elsewhere);
    }
    if let Some(other) = other_of_ours(env, state, seen) {
        return refused(&format!("it was set up for the cluster `{other}`"), elsewhere);
    }
    let strange = |unit| matches!(unit, UnitOwner::Installer | UnitOwner::Foreign);
    let unnamed = seen.clusters.is_empty() && seen.datastore.is_some();
    if token.is_none() && (unnamed || strange(seen.server_unit) || strange(seen.agent_unit)) {
        return refused(
            "it was not set up from this state folder",
            format!(
                "Run `turingpi apply` first, which takes it over, or take {node} out of the document. Nothing was \
                 changed on it."
            ),
        );
    }
    Ok(())
}
