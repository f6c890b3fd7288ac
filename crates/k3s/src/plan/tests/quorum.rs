//! Members of etcd that are down, and those that are not.

use secrecy::SecretString;
use turingpi_cluster::{Role, UnitState};
use turingpi_engine::{FailureClass, Reconcile as _, State};

use super::{
    super::{API, DISRUPT},
    TOKEN, active, cluster, cluster_with, converged, ids, known_state, nodes, spec, steps, up,
};
use crate::{K3sFacts, K3sSpec, TOKEN_KEY, unit};

/// The unit of a node is not running.
fn stop(facts: &mut K3sFacts, node: &str) {
    let seen = up(facts, node);
    let unit = unit::unit_name(Role::ControlPlane);
    seen.host.units.insert(unit.to_owned(), UnitState { active: "inactive".to_owned(), ..active() });
}

#[test]
fn a_server_that_is_down_is_up_again_before_one_that_runs_is_interrupted() {
    let old = cluster(3, 0);
    let mut facts = converged(&old);
    let mut spec = spec();
    spec.tls_sans.push("k3s.lan".to_owned());
    let cluster = cluster_with(nodes(3, 0), spec);
    let find = |facts: &K3sFacts, id: &str| {
        let found = steps(&cluster, facts, &known_state()).into_iter().find(|s| s.id == id);
        found.unwrap_or_else(|| panic!("{id}: {:?}", ids(&steps(&cluster, facts, &known_state()))))
    };
    // Nobody is down: one after the other.
    for node in ["node1", "node2", "node3"] {
        let restart = find(&facts, &format!("{node}/k3s-restart"));
        assert!(restart.locks.iter().any(|l| l == DISRUPT), "{restart:?}");
        assert!(restart.needs.iter().all(|n| !n.starts_with("k3s/server/")), "{restart:?}");
    }
    for down in ["node1", "node3"] {
        let mut facts = facts.clone();
        stop(&mut facts, down);
        let back = find(&facts, &format!("{down}/k3s-start"));
        assert!(back.needs.iter().all(|n| n != API), "{back:?}");
        for running in ["node1", "node2", "node3"].iter().filter(|n| **n != down) {
            let restart = find(&facts, &format!("{running}/k3s-restart"));
            assert!(restart.needs.contains(&format!("k3s/server/{down}")), "{restart:?}");
        }
        // So does a reboot.
        up(&mut facts, "node2")
            .host
            .texts
            .insert("/var/lib/turingpi/reboot-pending".to_owned(), "boot the log disk\n".to_owned());
        let reboot = find(&facts, "node2/reboot");
        assert!(reboot.needs.contains(&format!("k3s/server/{down}")), "{reboot:?}");
    }
    // One that runs and is not Ready counts as down too.
    let api = facts.api.as_mut().unwrap();
    api.nodes[2].ready = turingpi_cluster::kube::Readiness::NotReady {
        reason: "KubeletNotReady".to_owned(),
        message: String::new(),
        since: None,
    };
    let restart = find(&facts, "node1/k3s-restart");
    assert!(restart.needs.contains(&"k3s/server/node3".to_owned()), "{restart:?}");
}

#[test]
fn an_upgrade_begins_with_the_server_that_is_down() {
    let mut facts = converged(&cluster(3, 1));
    stop(&mut facts, "node3");
    let spec = K3sSpec { version: Some("v1.35.6+k3s1".parse().unwrap()), ..K3sSpec::default() };
    let found = steps(&cluster_with(nodes(3, 1), spec), &facts, &known_state());
    let needs = |node: &str| {
        let step = found.iter().find(|s| s.id == format!("{node}/k3s-binary")).unwrap();
        step.needs.clone()
    };
    assert!(needs("node3").is_empty());
    assert_eq!(needs("node1"), ["k3s/server/node3"]);
    assert_eq!(needs("node2"), ["k3s/server/node3", "k3s/server/node1"]);
    assert_eq!(needs("node4"), ["k3s/server/node3", "k3s/server/node1", "k3s/server/node2"]);
}

#[test]
fn members_that_are_all_down_come_back_together() {
    let cluster = cluster(3, 0);
    let mut facts = converged(&cluster);
    for node in ["node1", "node2", "node3"] {
        stop(&mut facts, node);
    }
    facts.api = None;
    let found = steps(&cluster, &facts, &known_state());
    let starts: Vec<_> = found.iter().filter(|s| s.id.ends_with("/k3s-start")).collect();
    assert_eq!(starts.len(), 3);
    for start in starts {
        assert!(start.locks.is_empty(), "none of them becomes a member alone: {start:?}");
        assert!(start.needs.is_empty(), "{start:?}");
    }
}

#[test]
fn a_member_is_not_interrupted_while_one_that_is_down_waits_for_it() {
    let mut spec = spec();
    spec.tls_sans.push("k3s.lan".to_owned());
    let mut facts = converged(&cluster(3, 0));
    stop(&mut facts, "node3");
    // Without the full token the one that is down has to wait for the API of the first.
    let mut state = State::default();
    state.put_secret(TOKEN_KEY, SecretString::from(TOKEN));
    let failure = cluster_with(nodes(3, 0), spec).plan(&facts, &state).err().unwrap();
    assert_eq!(failure.class(), FailureClass::Refused);
    assert!(failure.message().contains("node3") && failure.hint_text().is_some(), "{failure:?}");
}
