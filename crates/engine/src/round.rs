//! A plan made ready to run: every step described once, and the plan checked for what would hang it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    Failure, FailureClass, LanePreview, Plan, Preview, StagePreview, Step, StepDescription, Subject,
};

/// What one round of the converge loop will do. Lanes without steps and stages without lanes are left out.
pub(crate) struct Round {
    pub(crate) stages: Vec<RoundStage>,
}

pub(crate) struct RoundStage {
    pub(crate) title: String,
    pub(crate) lanes: Vec<RoundLane>,
}

#[derive(Clone)]
pub(crate) struct RoundLane {
    pub(crate) subject: Subject,
    pub(crate) steps: Vec<RoundStep>,
}

#[derive(Clone)]
pub(crate) struct RoundStep {
    pub(crate) description: Arc<StepDescription>,
    pub(crate) step: Arc<dyn Step>,
}

impl Round {
    /// Describes every step of `plan` and checks it.
    ///
    /// # Errors
    /// `Unexpected` where two steps share an id, or steps wait for each other's milestones: a defect of the planner.
    pub(crate) fn new(plan: &Plan) -> Result<Self, Failure> {
        let lane = |lane: &crate::Lane| RoundLane {
            subject: lane.subject.clone(),
            steps: lane
                .steps
                .iter()
                .map(|s| RoundStep { description: Arc::new(s.describe()), step: Arc::clone(s) })
                .collect(),
        };
        let stages = plan.stages.iter().map(|stage| RoundStage {
            title: stage.title.clone(),
            lanes: stage.lanes.iter().filter(|l| !l.steps.is_empty()).map(lane).collect(),
        });
        let round = Self { stages: stages.filter(|s| !s.lanes.is_empty()).collect() };
        round.check_ids()?;
        round.check_milestones()?;
        Ok(round)
    }

    /// The round as data.
    pub(crate) fn preview(&self) -> Preview {
        let lane = |lane: &RoundLane| LanePreview {
            subject: lane.subject.clone(),
            steps: lane.steps.iter().map(|s| (*s.description).clone()).collect(),
        };
        let stages = self.stages.iter();
        Preview {
            stages: stages
                .map(|s| StagePreview { title: s.title.clone(), lanes: s.lanes.iter().map(lane).collect() })
                .collect(),
        }
    }

    /// Every step with its subject.
    pub(crate) fn steps(&self) -> impl Iterator<Item = (&Subject, &StepDescription)> {
        let lanes = self.stages.iter().flat_map(|s| &s.lanes);
        lanes.flat_map(|l| l.steps.iter().map(|s| (&l.subject, &*s.description)))
    }

    fn check_ids(&self) -> Result<(), Failure> {
        let mut seen = BTreeSet::new();
        for (_, step) in self.steps() {
            if !seen.insert(&step.id) {
                return Err(defect(format!("the plan holds two steps with the id `{}`", step.id)));
            }
        }
        Ok(())
    }

    /// Walks the round as if every step succeeded, to see that every milestone that is waited for comes.
    fn check_milestones(&self) -> Result<(), Failure> {
        let provided: BTreeSet<&str> = self.steps().filter_map(|(_, s)| s.reaches.as_deref()).collect();
        let mut reached = BTreeSet::new();
        for stage in &self.stages {
            let mut next: BTreeMap<usize, &[RoundStep]> =
                stage.lanes.iter().map(|l| l.steps.as_slice()).enumerate().collect();
            loop {
                let mut moved = false;
                next.retain(|_, steps| {
                    while let [step, rest @ ..] = steps {
                        let missing =
                            |n: &String| provided.contains(n.as_str()) && !reached.contains(n.as_str());
                        if step.description.needs.iter().any(missing) {
                            return true;
                        }
                        reached.extend(step.description.reaches.as_deref());
                        moved = true;
                        *steps = rest;
                    }
                    false
                });
                if next.is_empty() {
                    break;
                }
                if !moved {
                    let stuck: Vec<_> = next
                        .values()
                        .filter_map(|s| s.first())
                        .map(|s| format!("`{}`", s.description.id))
                        .collect();
                    return Err(defect(format!(
                        "the plan cannot be done: {} wait for milestones that come after them",
                        stuck.join(", ")
                    )));
                }
            }
        }
        Ok(())
    }
}

fn defect(text: String) -> Failure {
    Failure::new(FailureClass::Unexpected, text).hint("This is a defect of the planner; nothing was changed.")
}
