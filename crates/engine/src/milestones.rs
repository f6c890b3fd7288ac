//! What lanes wait for from each other.

use std::collections::BTreeMap;

use tokio::sync::watch;

/// The milestones of one round. The first step that reaches one reaches it for the rest of the round.
pub(crate) struct Milestones {
    board: watch::Sender<BTreeMap<String, Marker>>,
}

struct Marker {
    /// Steps that may still reach it.
    providers: usize,
    state: Reach,
}

/// Whether a milestone is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reach {
    /// It is, or nobody in this round provides it: then the planner saw that it already is.
    Reached,
    /// It may still come.
    Open,
    /// The last step that could reach it, named here, will not.
    Lost(String),
}

impl Milestones {
    /// `provided` names the milestone of every step of the round that reaches one.
    pub(crate) fn new<'a>(provided: impl Iterator<Item = &'a str>) -> Self {
        let mut board = BTreeMap::<String, Marker>::new();
        for name in provided {
            board.entry(name.to_owned()).or_insert(Marker { providers: 0, state: Reach::Open }).providers +=
                1;
        }
        Self { board: watch::Sender::new(board) }
    }

    pub(crate) fn look(&self, name: &str) -> Reach {
        self.board.borrow().get(name).map_or(Reach::Reached, |m| m.state.clone())
    }

    pub(crate) fn reach(&self, name: &str) {
        self.board.send_modify(|board| {
            if let Some(marker) = board.get_mut(name) {
                marker.state = Reach::Reached;
            }
        });
    }

    /// `step`, which could have reached `name`, will not.
    pub(crate) fn give_up(&self, name: &str, step: &str) {
        self.board.send_modify(|board| {
            if let Some(marker) = board.get_mut(name) {
                marker.providers = marker.providers.saturating_sub(1);
                if marker.providers == 0 && marker.state == Reach::Open {
                    marker.state = Reach::Lost(step.to_owned());
                }
            }
        });
    }

    /// Resolves when it is decided: reached or lost.
    pub(crate) async fn decided(&self, name: &str) -> Reach {
        let mut board = self.board.subscribe();
        let _ = board.wait_for(|b| b.get(name).is_none_or(|m| m.state != Reach::Open)).await;
        self.look(name)
    }
}
