//! Who answers: every board and every node, with as much patience as a look has.
//!
//! A look that leads to a run waits for a node that is coming up; one of its own says what it sees now. What the BMC says
//! comes first: nobody waits for a module without power.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use turingpi_bmc::Power;
use turingpi_cluster::{
    NodeSpec, SlotRecord,
    imaging::{BoardFacts, Reach, flash_step_id},
    is_rebooting, patience,
};
use turingpi_engine::{Failure, FailureClass, FailureReport, State, StepContext};

use crate::Provision;

/// Which nodes a patient look waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waits {
    /// None: they may be left out.
    ForNone,
    /// Those that no step of a plan waits for: a node of ours that is down is started, and its boot watched, by one.
    UnlessStarted,
    /// Every one that has power.
    ForAll,
}

/// What a look at boards and connections brought.
#[derive(Debug, Default)]
pub(crate) struct Look {
    pub(crate) boards: BTreeMap<String, Result<BoardFacts, Failure>>,
    pub(crate) reach: BTreeMap<String, Reach>,
    /// Why the nodes that do not let us in do not.
    pub(crate) silent: BTreeMap<String, Failure>,
}

impl Look {
    /// Looks at every board, and at every node over the connection that everything after it uses.
    pub(crate) async fn at(
        cluster: &Provision,
        cx: &StepContext,
        state: &State,
        who: Waits,
    ) -> Result<Self, Failure> {
        let tries = join_all(
            cluster.nodes.iter().map(|node| async move { (node, cluster.hosts.client(&node.name).await) }),
        );
        let (boards, tries) = futures::join!(cluster.boards.observe(), tries);
        let mut look = Self { boards, ..Self::default() };
        let (up, down): (Vec<_>, Vec<_>) = tries.into_iter().partition(|(_, end)| end.is_ok());
        look.boards_again(cluster, cx, down.iter().map(|(node, _)| *node)).await;
        look.reach.extend(up.iter().map(|(node, _)| (node.name.clone(), Reach::LoggedIn)));
        let waits =
            down.into_iter().filter_map(|(node, end)| Some((node, end.err()?))).map(|(node, failure)| {
                let waits = look.may_come(node, &failure, state, who);
                async move {
                    if !(failure.is_retryable() && waits?) {
                        return Ok((node, Err(failure)));
                    }
                    Ok((node, cluster.hosts.answer(&node.name, patience(state, &node.name)?, cx).await))
                }
            });
        for end in join_all(waits).await {
            let (node, end) = end?;
            look.reach.insert(node.name.clone(), Reach::of(&end));
            match end {
                Err(failure) if failure.class() == FailureClass::Cancelled => return Err(failure),
                Err(failure) => drop(look.silent.insert(node.name.clone(), failure)),
                Ok(_) => {}
            }
        }
        Ok(look)
    }

    /// A board whose BMC stumbled is asked again where its word counts, or where asking takes no time.
    async fn boards_again<'a>(
        &mut self,
        cluster: &Provision,
        cx: &StepContext,
        silent: impl Iterator<Item = &'a NodeSpec>,
    ) {
        let needed: BTreeSet<&str> =
            silent.filter_map(|node| node.slot.as_ref()).map(|place| place.board.as_str()).collect();
        let again = |name: &str, failure: &Failure| {
            let silent = matches!(failure.class(), FailureClass::Unreachable | FailureClass::Timeout);
            failure.is_retryable() && (needed.contains(name) || !silent && failure.delay().is_none())
        };
        let stumbled =
            self.boards.extract_if(.., |name, facts| facts.as_ref().is_err_and(|f| again(name, f)));
        let stumbled: Vec<_> = stumbled.filter_map(|(name, facts)| Some((name, facts.err()?))).collect();
        let looks = stumbled.into_iter().map(|(name, failure)| async move {
            // It was the first attempt: a pause that it asked for is waited out before there is another login.
            let mut first = Some(failure);
            let look = cx.retry(|| {
                let (name, first) = (name.as_str(), first.take());
                async move {
                    match first {
                        Some(failure) => Err(failure),
                        None => BoardFacts::observe(name, cluster.boards.client(name)?.as_ref()).await,
                    }
                }
            });
            let facts = look.await;
            (name, facts)
        });
        self.boards.extend(join_all(looks).await);
    }

    /// Whether a node that does not answer may be coming up, and nothing else is going to be done about it.
    fn may_come(
        &self,
        node: &NodeSpec,
        failure: &Failure,
        state: &State,
        who: Waits,
    ) -> Result<bool, Failure> {
        if who == Waits::ForNone {
            return Ok(false);
        }
        let Some(place) = &node.slot else { return Ok(true) };
        if let Some(Ok(board)) = self.boards.get(&place.board)
            && board.power[place.slot] == Power::Off
        {
            return Ok(false);
        }
        if who == Waits::ForAll {
            return Ok(true);
        }
        if state.in_doubt.contains_key(&flash_step_id(&node.name)) {
            return Ok(false);
        }
        Ok(match SlotRecord::read(state, place)? {
            // Ours: a step switches it on and waits for its boot, with the console as a second witness.
            Some(record) => {
                record.node == node.name && record.is_proven() && is_rebooting(state, &node.name)?
            }
            // Nobody knows what is there. It is worth waiting for what shows itself: the alternative is to erase it.
            None => node.image.is_none() || Reach::shows_life(failure),
        })
    }

    /// A board that does not answer while its nodes do is no obstacle, and worth knowing.
    pub(crate) fn notes(&self, cluster: &Provision) -> Vec<String> {
        let answers = |board: &str| {
            let mut nodes =
                cluster.nodes.iter().filter(|n| n.slot.as_ref().is_some_and(|p| p.board == board));
            nodes.all(|node| self.reach.get(&node.name) == Some(&Reach::LoggedIn))
        };
        let dead = self.boards.iter().filter_map(|(name, facts)| Some((name, facts.as_ref().err()?)));
        dead.filter(|(name, _)| answers(name))
            .map(|(name, failure)| {
                format!(
                    "{}; its nodes answer, so it is not needed now, but none of them can be switched or flashed",
                    told(name, &failure.report())
                )
            })
            .collect()
    }
}

fn told(board: &str, report: &FailureReport) -> String {
    match report.causes.last() {
        Some(cause) => format!("{} ({cause})", report.message),
        None => format!("{board}: {}", report.message),
    }
}
