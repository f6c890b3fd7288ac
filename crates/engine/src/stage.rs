//! One stage: its lanes side by side, and the barrier at its end.

use std::{collections::HashMap, sync::Arc};

use tokio::{sync::OwnedMutexGuard, task::JoinSet};

use crate::{
    EventKind, Failure, FailureClass, Outcome, StepContext,
    lane::{self, LaneEnd, LaneFailure, Shared, Tally, panic_text},
    lane_locks::LaneLocks,
    milestones::Milestones,
    round::RoundStage,
};

/// How a stage ended.
pub(crate) struct StageEnd {
    pub(crate) outcome: Outcome,
    /// In the order in which they came.
    pub(crate) failures: Vec<LaneFailure>,
    pub(crate) destroyed: Vec<String>,
}

/// Runs `stage` to its end: all lanes, also when one of them fails.
///
/// Each lane is a task that holds `turn`, so that the next run of the executor waits for the last task of a run whose
/// caller went away. Dropping the future aborts the tasks.
pub(crate) async fn run(
    cx: &StepContext,
    milestones: &Arc<Milestones>,
    tally: &Arc<Tally>,
    turn: &Arc<OwnedMutexGuard<()>>,
    stage: &RoundStage,
) -> StageEnd {
    let shared = Arc::new(Shared {
        cx: cx.clone(),
        locks: Arc::new(LaneLocks::default()),
        milestones: Arc::clone(milestones),
        tally: Arc::clone(tally),
    });
    let mut tasks = JoinSet::new();
    let mut lanes = HashMap::new();
    let tickets: Vec<_> =
        stage.lanes.iter().enumerate().map(|(i, l)| lane::early_ticket(&shared, i, &l.steps)).collect();
    for ((index, lane), ticket) in stage.lanes.iter().enumerate().zip(tickets) {
        let run = lane::run(Arc::clone(&shared), index, lane.clone(), ticket);
        let turn = Arc::clone(turn);
        let task = tasks.spawn(async move {
            let end = run.await;
            drop(turn);
            end
        });
        lanes.insert(task.id(), lane);
    }
    let mut end = StageEnd { outcome: Outcome::Done, failures: Vec::new(), destroyed: Vec::new() };
    let mut blocked = false;
    while let Some(joined) = tasks.join_next_with_id().await {
        let lane_end = match joined {
            Ok((_, lane_end)) => lane_end,
            Err(error) => {
                let Some(lane) = lanes.get(&error.id()) else { continue };
                lane::give_up(milestones, &lane.steps);
                let text = match error.try_into_panic() {
                    Ok(panic) => format!("the lane of {} panicked: {}", lane.subject, panic_text(&*panic)),
                    Err(_) => format!("the lane of {} was aborted", lane.subject),
                };
                let failure =
                    Failure::new(FailureClass::Unexpected, text).hint("This is a defect; please report it.");
                LaneEnd {
                    outcome: Outcome::Failed,
                    failure: Some(LaneFailure { subject: lane.subject.clone(), step: None, failure }),
                    destroyed: Vec::new(),
                }
            }
        };
        match lane_end.outcome {
            Outcome::Failed => end.outcome = Outcome::Failed,
            Outcome::Cancelled if end.outcome != Outcome::Failed => end.outcome = Outcome::Cancelled,
            Outcome::Blocked => blocked = true,
            Outcome::Done | Outcome::Cancelled => {}
        }
        end.failures.extend(lane_end.failure);
        end.destroyed.extend(lane_end.destroyed);
    }
    if blocked && end.outcome == Outcome::Done {
        end.outcome = Outcome::Blocked;
    }
    end
}

/// The event for the end of `stage`.
pub(crate) fn finished(stage: &RoundStage, end: &StageEnd) -> EventKind {
    EventKind::StageFinished { title: stage.title.clone(), outcome: end.outcome }
}
