//! When a member of etcd may be stopped.
//!
//! With three members or more, never below the majority: the others have to be one without it. One or two members cannot
//! keep a majority while one of them is away (`2` need both), so there a restart interrupts etcd, and with it the API,
//! however long it is waited for. It is let go all the same, else a cluster that lost a server or only begins to grow
//! could never be changed again: the data stays on the disk, the majority is back with the member, and the lock of
//! disruptions keeps the restarts apart. Of two members the other one still has to vote, so that it is only one that is
//! away.

use std::time::Duration;

use turingpi_cluster::kube::NodeStatus;
use turingpi_engine::{Failure, FailureClass, Probe, StepContext};

/// How long an API has to be silent before it counts as one without a majority. One look may go to a server that hangs
/// and then to the next one.
const SILENCE: Duration = Duration::from_secs(60);
/// How long the others are waited for.
const OTHERS: Duration = Duration::from_secs(300);

/// How many others have to vote before one of `members` is stopped: a majority, as far as there are so many others.
fn others_needed(members: usize) -> usize {
    (members / 2 + 1).min(members.saturating_sub(1))
}

fn votes(node: &NodeStatus) -> bool {
    node.ready.is_ready() && node.condition("EtcdIsVoter").and_then(|c| c.status) == Some(true)
}

/// Waits until etcd, of `members` in all, can do without `member`; `look` asks the API for the nodes. Where etcd has no
/// majority, because the API stays silent, or this member is no use to it, there is nothing to lose.
///
/// # Errors
/// `Timeout` when too few others vote; failures of `look` that do not pass.
pub(super) async fn may_go<F, Fut>(
    cx: &StepContext,
    member: &str,
    members: usize,
    look: F,
) -> Result<(), Failure>
where
    F: Fn() -> Fut + Send + Sync,
    Fut: Future<Output = Result<Vec<NodeStatus>, Failure>> + Send,
{
    let condition = format!("the API to tell who votes beside {member}");
    let answer = cx.wait(&condition, SILENCE, || async { look().await.map(Probe::Ready) }).await;
    match answer {
        Ok(nodes) if nodes.iter().any(|n| n.name == member && votes(n)) => {}
        Ok(_) => return Ok(()),
        Err(failure) if failure.class() == FailureClass::Timeout => return Ok(()),
        Err(failure) => return Err(failure),
    }
    let needed = others_needed(members);
    let condition = format!("etcd to do without {member}");
    cx.wait(&condition, OTHERS, || async {
        let nodes = look().await?;
        let others: Vec<&str> =
            nodes.iter().filter(|n| n.name != member && votes(n)).map(|n| n.name.as_str()).collect();
        Ok(match others.len() >= needed {
            true => Probe::Ready(()),
            false => Probe::NotYet(format!(
                "of {members} members only {} vote beside it, {needed} have to: {}",
                others.len(),
                others.join(", ")
            )),
        })
    })
    .await
    .map_err(|failure| match failure.class() {
        FailureClass::Timeout => failure.hint(
            "Nothing was restarted. Bring the other servers up (`turingpi status` says what they lack), then run this \
             again.",
        ),
        _ => failure,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use rstest::rstest;
    use serde_json::json;
    use turingpi_cluster::kube::parse_node;
    use turingpi_engine::{Cancellation, Event, MemoryStateStore, Timing};

    use super::*;

    fn cx(limit_factor: f64) -> StepContext {
        let timing = Timing { limit_factor, ..Timing::fast() };
        let store = Arc::new(MemoryStateStore::new());
        StepContext::detached(store, Arc::new(|_: &Event| {}), timing, Cancellation::new())
    }

    fn node(name: &str, voter: bool) -> NodeStatus {
        let voter = if voter { "True" } else { "False" };
        parse_node(&json!({
            "metadata": {"name": name},
            "status": {
                "conditions": [{"type": "Ready", "status": "True"}, {"type": "EtcdIsVoter", "status": voter}],
                "nodeInfo": {"kubeletVersion": "v1.35.5+k3s1"},
            },
        }))
        .unwrap()
    }

    /// `node1` and so many others vote; one more server does not.
    fn voters(others: usize) -> Vec<NodeStatus> {
        let mut nodes: Vec<_> = (1..=others + 1).map(|n| node(&format!("node{n}"), true)).collect();
        nodes.push(node("learner", false));
        nodes
    }

    fn silent() -> Failure {
        Failure::new(FailureClass::Unreachable, "nobody answered").retryable()
    }

    #[rstest]
    #[case::the_only_one(1, 0, true)]
    #[case::both_of_two(2, 1, true)]
    #[case::one_of_two(2, 0, false)]
    #[case::all_three(3, 2, true)]
    #[case::two_of_three(3, 1, false)]
    #[case::all_four(4, 3, true)]
    #[case::three_of_four(4, 2, false)]
    #[case::four_of_five(5, 3, true)]
    #[case::three_of_five(5, 2, false)]
    #[tokio::test]
    async fn a_member_goes_when_the_others_can_do_without_it(
        #[case] members: usize,
        #[case] others: usize,
        #[case] goes: bool,
    ) {
        let end = may_go(&cx(0.0001), "node1", members, || async { Ok(voters(others)) }).await;
        match end {
            Ok(()) => assert!(goes),
            Err(failure) => {
                assert!(!goes, "{failure:?}");
                assert_eq!(failure.class(), FailureClass::Timeout);
                assert!(failure.hint_text().is_some_and(|hint| hint.contains("Nothing was restarted")));
            }
        }
    }

    #[tokio::test]
    async fn an_api_that_fails_to_answer_at_first_does_not_pass_for_a_lost_majority() {
        let looks = AtomicUsize::new(0);
        let look = || {
            let seen = match looks.fetch_add(1, Ordering::SeqCst) {
                0 | 1 | 3 => Err(silent()),
                2 | 4 => Ok(voters(1)),
                _ => Ok(voters(2)),
            };
            async { seen }
        };
        may_go(&cx(1.0), "node1", 3, look).await.unwrap();
        assert_eq!(looks.load(Ordering::SeqCst), 6, "it waited until two others voted");
    }

    #[tokio::test]
    async fn where_the_api_stays_silent_there_is_no_majority_to_lose() {
        may_go(&cx(0.001), "node1", 3, || async { Err(silent()) }).await.unwrap();
        may_go(&cx(0.001), "node1", 3, std::future::pending).await.unwrap();
    }

    #[tokio::test]
    async fn a_member_that_does_not_vote_is_no_loss_and_a_refusal_is_told() {
        may_go(&cx(0.0001), "learner", 3, || async { Ok(voters(0)) }).await.unwrap();
        let refused = || async { Err(Failure::new(FailureClass::Refused, "no")) };
        let failure = may_go(&cx(1.0), "node1", 3, refused).await.unwrap_err();
        assert_eq!(failure.class(), FailureClass::Refused);
    }
}
