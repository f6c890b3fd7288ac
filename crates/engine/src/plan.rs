//! What will be done: stages with a barrier between them, a lane for each subject, steps in order.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::step::Step;

/// How much a step can hurt. Ordered: `Safe < Disruptive < Destructive`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Risk {
    /// Nothing that runs is interrupted and nothing is lost.
    Safe,
    /// Something that runs is interrupted: a restart, a reboot, a power cut.
    Disruptive,
    /// Data is lost for good: a flash, a wipe, an uninstall.
    Destructive,
}

/// What kind of thing a lane works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SubjectKind {
    /// The cluster as a whole.
    Cluster,
    /// A board with its BMC.
    Board,
    /// One node.
    Node,
}

/// The thing a lane works on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Subject {
    /// The kind.
    pub kind: SubjectKind,
    /// Its name in the document.
    pub name: String,
}

impl Subject {
    /// The cluster `name`.
    pub fn cluster(name: impl Into<String>) -> Self {
        Self { kind: SubjectKind::Cluster, name: name.into() }
    }
    /// The board `name`.
    pub fn board(name: impl Into<String>) -> Self {
        Self { kind: SubjectKind::Board, name: name.into() }
    }
    /// The node `name`.
    pub fn node(name: impl Into<String>) -> Self {
        Self { kind: SubjectKind::Node, name: name.into() }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// One value that a step changes, for people: never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What changes: a path, a setting, a field.
    pub what: String,
    /// The value seen now; `None` when there is none or nobody could look yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<String>,
    /// The value wanted; `None` when it goes away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<String>,
}

impl Change {
    /// `what` becomes `new`, nothing known before.
    pub fn set(what: impl Into<String>, new: impl Into<String>) -> Self {
        Self { what: what.into(), old: None, new: Some(new.into()) }
    }
    /// `what` goes from `old` to `new`.
    pub fn replace(what: impl Into<String>, old: impl Into<String>, new: impl Into<String>) -> Self {
        Self { what: what.into(), old: Some(old.into()), new: Some(new.into()) }
    }
    /// `what`, now `old`, goes away.
    pub fn remove(what: impl Into<String>, old: impl Into<String>) -> Self {
        Self { what: what.into(), old: Some(old.into()), new: None }
    }
}

/// Everything about a step that can be said before it runs. Pure data: the same inputs give the same description.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepDescription {
    /// Stable within a plan and over runs: `node1/flash`.
    pub id: String,
    /// What the step does, in a few words, imperative: `Flash armbian`.
    pub title: String,
    /// The part of the work it belongs to, for grouping on a screen: `flash`, `boot`, `prepare`, `k3s`.
    pub phase: String,
    /// How much it can hurt.
    pub risk: Risk,
    /// What it changes, old to new.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
    /// Locks it holds while it runs: a board's single transfer slot, the one etcd learner.
    /// Lanes earlier in the stage are served first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub locks: Vec<String>,
    /// Milestones other lanes of this stage, or earlier stages, reach and this step waits for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
    /// The milestone this step reaches when it is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reaches: Option<String>,
    /// What it is expected to take, in seconds, for progress bars; nothing is decided on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_seconds: Option<u64>,
}

impl StepDescription {
    /// A safe step without changes, locks or milestones.
    pub fn new(id: impl Into<String>, title: impl Into<String>, phase: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            title: title.into(),
            phase: phase.into(),
            risk: Risk::Safe,
            changes: Vec::new(),
            locks: Vec::new(),
            needs: Vec::new(),
            reaches: None,
            expected_seconds: None,
        }
    }
    /// Sets the risk.
    #[must_use]
    pub fn risk(mut self, risk: Risk) -> Self {
        self.risk = risk;
        self
    }
    /// Adds a change.
    #[must_use]
    pub fn change(mut self, change: Change) -> Self {
        self.changes.push(change);
        self
    }
    /// Adds a lock.
    #[must_use]
    pub fn lock(mut self, name: impl Into<String>) -> Self {
        self.locks.push(name.into());
        self
    }
    /// Adds a milestone to wait for.
    #[must_use]
    pub fn needs(mut self, milestone: impl Into<String>) -> Self {
        self.needs.push(milestone.into());
        self
    }
    /// Names the milestone that is reached.
    #[must_use]
    pub fn reaches(mut self, milestone: impl Into<String>) -> Self {
        self.reaches = Some(milestone.into());
        self
    }
    /// Sets the expected duration in seconds.
    #[must_use]
    pub fn expected_seconds(mut self, seconds: u64) -> Self {
        self.expected_seconds = Some(seconds);
        self
    }
}

/// Stages that run one after the other.
#[derive(Clone, Default)]
pub struct Plan {
    /// The stages, in order. Empty: nothing to do.
    pub stages: Vec<Stage>,
}

/// Lanes that run side by side; the next stage starts when all of them are done.
#[derive(Clone)]
pub struct Stage {
    /// What the stage is for.
    pub title: String,
    /// The lanes. Their order is their priority for locks.
    pub lanes: Vec<Lane>,
}

/// Steps on one subject, in order.
#[derive(Clone)]
pub struct Lane {
    /// What the lane works on.
    pub subject: Subject,
    /// The steps.
    pub steps: Vec<Arc<dyn Step>>,
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.stages.iter().all(|s| s.lanes.iter().all(|l| l.steps.is_empty()))
    }

    /// The plan as data.
    pub fn preview(&self) -> Preview {
        Preview {
            stages: self
                .stages
                .iter()
                .map(|s| StagePreview {
                    title: s.title.clone(),
                    lanes: s
                        .lanes
                        .iter()
                        .filter(|l| !l.steps.is_empty())
                        .map(|l| LanePreview {
                            subject: l.subject.clone(),
                            steps: l.steps.iter().map(|s| s.describe()).collect(),
                        })
                        .collect(),
                })
                .filter(|s: &StagePreview| !s.lanes.is_empty())
                .collect(),
        }
    }
}

/// A [`Plan`] as data: for people, for JSON and for the digest that an approval names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preview {
    /// The stages, in order.
    pub stages: Vec<StagePreview>,
}

/// A [`Stage`] as data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagePreview {
    /// What the stage is for.
    pub title: String,
    /// The lanes.
    pub lanes: Vec<LanePreview>,
}

/// A [`Lane`] as data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LanePreview {
    /// What the lane works on.
    pub subject: Subject,
    /// The steps, in order.
    pub steps: Vec<StepDescription>,
}

impl Preview {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.stages.is_empty()
    }

    /// Every step with its subject, in order of stages and lanes.
    pub fn steps(&self) -> impl Iterator<Item = (&Subject, &StepDescription)> {
        self.stages
            .iter()
            .flat_map(|s| s.lanes.iter().flat_map(|l| l.steps.iter().map(move |step| (&l.subject, step))))
    }

    /// The highest risk of any step; `Safe` when there is none.
    pub fn risk(&self) -> Risk {
        self.steps().map(|(_, s)| s.risk).max().unwrap_or(Risk::Safe)
    }

    /// SHA-256 over the whole preview, as 64 hex digits. Two plans with the same digest do the same.
    pub fn digest(&self) -> String {
        // Serialising plain structs of strings and enums to memory has no way to fail.
        let text = serde_json::to_vec(self).unwrap_or_default();
        hex::encode(Sha256::digest(&text))
    }
}
