//! Which version, and which way to it is safe.

use turingpi_engine::{Failure, FailureClass};

use super::{Round, running_version};
use crate::{Datastore, K3sFacts, K3sVersion, env::Env};

/// The version of the document; otherwise what runs; otherwise what the channel offers. A channel never changes a
/// cluster that runs: channels have gone backwards (k3s issue 11435).
pub(super) fn wanted_version(env: &Env, facts: &K3sFacts) -> Result<K3sVersion, Failure> {
    let known = env.spec.version.clone().or_else(|| running_version(facts)).or_else(|| facts.offered.clone());
    known.ok_or_else(|| {
        let why = facts.offer_failure.as_ref().map_or("it was not looked up", |f| f.message.as_str());
        Failure::new(FailureClass::Config, format!("the channel `{}` gave no version: {why}", env.spec.channel))
            .hint("Set `version` in the document, such as v1.35.5+k3s1, or let this machine reach the channel server.")
    })
}

/// # Errors
/// `Refused` for a way that k3s or etcd does not survive.
pub(super) fn check(round: &Round<'_>) -> Result<(), Failure> {
    for node in &round.env.nodes {
        let Some(seen) = round.seen(&node.name) else { continue };
        let (Some(from), true) = (&seen.k3s.version, seen.k3s.has_run(node.role)) else { continue };
        way(&node.name, from, &round.version, round.serves(node), seen.k3s.datastore)?;
    }
    Ok(())
}

fn way(
    node: &str,
    from: &K3sVersion,
    to: &K3sVersion,
    server: bool,
    datastore: Option<Datastore>,
) -> Result<(), Failure> {
    let refused = |why: String| {
        Failure::new(FailureClass::Refused, format!("cannot take {node} from {from} to {to}: {why}"))
    };
    if to < from {
        return Err(refused("an older k3s cannot read the data of a newer one".to_owned())
            .hint(format!("Set `version` to {from} or newer. Going back means restoring a backup.")));
    }
    let ((from_major, from_minor), (to_major, to_minor)) = (from.line(), to.line());
    if server && (to_major != from_major || to_minor > from_minor + 1) {
        return Err(refused("Kubernetes is upgraded one minor version at a time".to_owned())
            .hint(format!("Set `version` to a v{from_major}.{} release first.", from_minor + 1)));
    }
    // etcd 3.6 trusts what etcd before 3.5.26 may have stored wrongly: removed members come back. 1.33.7+k3s3 brought
    // 3.5.26 (k3s discussion 14908, issue 13485).
    if server && datastore == Some(Datastore::Etcd) && from.line() <= (1, 33) && to.line() >= (1, 34) {
        let safe: Option<K3sVersion> = "v1.33.7+k3s3".parse().ok();
        if safe.as_ref().is_some_and(|safe| from < safe) {
            return Err(refused("its etcd 3.5 must be 3.5.26 or newer before it becomes 3.6".to_owned())
                .hint("Set `version` to v1.33.7+k3s3 first, let all nodes become Ready, then go on."));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("v1.35.5+k3s1", "v1.35.5+k3s1", None, None)]
    #[case("v1.35.5+k3s1", "v1.35.6+k3s1", None, None)]
    #[case("v1.35.5+k3s1", "v1.36.0+k3s1", Some(Datastore::Etcd), None)]
    #[case("v1.35.5+k3s2", "v1.35.5+k3s1", None, Some("older k3s"))]
    #[case("v1.34.1+k3s1", "v1.36.0+k3s1", Some(Datastore::Sqlite), Some("one minor version"))]
    #[case("v1.33.7+k3s1", "v1.34.3+k3s1", Some(Datastore::Etcd), Some("3.5.26"))]
    #[case("v1.33.7+k3s1", "v1.34.3+k3s1", Some(Datastore::Sqlite), None)]
    #[case("v1.33.7+k3s3", "v1.34.3+k3s1", Some(Datastore::Etcd), None)]
    fn a_way_is_refused_only_when_it_is_dangerous(
        #[case] from: &str,
        #[case] to: &str,
        #[case] datastore: Option<Datastore>,
        #[case] refused: Option<&str>,
    ) {
        let result =
            way("node1", &from.parse().unwrap(), &to.parse().unwrap(), datastore.is_some(), datastore);
        match (result, refused) {
            (Ok(()), None) => {}
            (Err(failure), Some(why)) => {
                assert_eq!(failure.class(), FailureClass::Refused);
                assert!(failure.message().contains(why), "{failure}");
                assert!(failure.hint_text().is_some());
            }
            (result, _) => panic!("{from} -> {to}: {result:?}"),
        }
    }
}
