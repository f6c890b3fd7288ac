//! What a slot needs: pure.

use serde::{Deserialize, Serialize};
use turingpi_bmc::Power;
use turingpi_engine::{Failure, State};

use super::{FirstBootState, Reach, SlotFacts, SlotRecord, flash_step_id, record::begun_key};
use crate::NodeSpec;

/// Why a slot is flashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FlashReason {
    /// The person asked for it.
    Requested,
    /// We never wrote there, and nothing that we could use answers.
    NeverFlashed,
    /// We never wrote there, but a system answers and does not let us in: it is erased.
    Foreign,
    /// We wrote a system there for another node of the document, or for this one under another name: it is erased.
    OtherNode,
    /// A flash was begun and not seen to end: what is there is unknown.
    InDoubt,
}

impl std::fmt::Display for FlashReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Requested => "asked for",
            Self::NeverFlashed => "no system of ours is there and none answers",
            Self::Foreign => "a system that is not ours answers there and does not let us in; it is ERASED",
            Self::OtherNode => "the system that was written there for a node of another name; it is ERASED",
            Self::InDoubt => "an earlier flash was begun and not seen to end",
        })
    }
}

/// What a slot needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Nothing: its node answers, and it is ours.
    Leave,
    /// It holds a system; bring that up.
    Start {
        /// The system has not been ours yet.
        first_boot: bool,
        /// A flash of an earlier run did end, and only its in-doubt mark was left behind: take it away.
        settle: bool,
    },
    /// Write the image, then bring it up.
    Flash(FlashReason),
    /// Something runs there that is not ours, and nothing allows us to overwrite it.
    Unknown {
        /// How it answers.
        reach: Reach,
    },
}

/// Decides.
///
/// A flash is only ever decided for a slot whose content is in doubt, or that we never wrote and whose node does not let
/// us in. An image that changed in the document does not reflash a node by itself, and a node of ours that is down is
/// started, not erased. `has_image`: the document names an image for the node.
///
/// # Errors
/// `Config` when the slot's record cannot be read.
pub fn decide(
    node: &NodeSpec,
    has_image: bool,
    facts: SlotFacts,
    state: &State,
) -> Result<Decision, Failure> {
    let Some(place) = &node.slot else { return Ok(Decision::Leave) };
    // A record for another node: the module changed its place, or the document its names.
    let written = SlotRecord::read(state, place)?;
    let others = written.as_ref().is_some_and(|record| record.node != node.name);
    let record = written.filter(|record| record.node == node.name);
    // A mark of another slot: the document moved the node since. What is in this slot is not in doubt.
    let mark = state.in_doubt.get(&flash_step_id(&node.name)).filter(|_| {
        let begun: Option<String> = state.record(&begun_key(&node.name)).ok().flatten();
        begun.is_none_or(|begun| begun == place.to_string())
    });
    let settle = match (mark, &record) {
        // The flash of that very run wrote its record, which it does after its end only: there is no doubt.
        (Some(mark), Some(record)) if record.run == mark.run => true,
        (Some(_), _) if has_image => return Ok(Decision::Flash(FlashReason::InDoubt)),
        (Some(_), _) => return Ok(Decision::Unknown { reach: facts.reach }),
        (None, _) => false,
    };
    let pending = record.as_ref().is_some_and(|record| record.first_boot == FirstBootState::Pending);
    let start = Decision::Start { first_boot: pending, settle };
    Ok(match (facts.reach, &record) {
        // Also a pending one is not left alone: our key opening it may be an older system on another disk.
        (Reach::LoggedIn, Some(_)) if pending || settle => start,
        (Reach::LoggedIn, _) => Decision::Leave,
        (_, Some(_)) if pending => start,
        // Ours, and it answers, but neither to our key nor with its host key: that is for a person to look at.
        (Reach::Refused | Reach::OtherKey, Some(_)) => Decision::Unknown { reach: facts.reach },
        (Reach::Silent, Some(_)) => start,
        (Reach::Refused | Reach::OtherKey | Reach::Silent, None) if has_image && others => {
            Decision::Flash(FlashReason::OtherNode)
        }
        (Reach::Silent, None) if has_image => Decision::Flash(FlashReason::NeverFlashed),
        (Reach::Refused | Reach::OtherKey, None) if has_image => Decision::Flash(FlashReason::Foreign),
        // Without an image there is nothing to write; a module that is off may hold a system.
        (Reach::Silent, None) if facts.power == Power::Off => start,
        (_, None) => Decision::Unknown { reach: facts.reach },
    })
}
