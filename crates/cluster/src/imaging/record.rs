//! What the state remembers of a slot: which image we wrote there, and how far its system came.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use turingpi_engine::{Failure, State};

use crate::{SlotRef, fetch::Sha256};

/// A flash of ours that was verified. Kept in the state under [`SlotRecord::key`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotRecord {
    /// The image's name in the document.
    pub image: String,
    /// The digest of the file that was written.
    pub sha256: Sha256,
    /// The node it was written for.
    pub node: String,
    /// When, UTC.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The run that did it.
    pub run: String,
    /// Names this very flash: the first boot leaves it on the node, so that a later look can tell the system of this
    /// flash from an older one on another disk.
    pub flash: String,
    /// How far its system came.
    pub first_boot: FirstBootState,
}

/// How far the system of a flash came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FirstBootState {
    /// It was written and has not been ours yet.
    Pending,
    /// Our key is in, its host key is pinned.
    Done,
}

impl SlotRecord {
    /// The key of a slot's record.
    pub fn key(place: &SlotRef) -> String {
        format!("slot/{}/{}", place.board, place.slot)
    }

    /// The record of a slot.
    ///
    /// # Errors
    /// `Config` when it has another shape.
    pub fn read(state: &State, place: &SlotRef) -> Result<Option<Self>, Failure> {
        state.record(&Self::key(place))
    }

    /// Whether the slot holds a system that booted and that we could log in to: it will not show up in boot-ROM mode.
    pub fn is_proven(&self) -> bool {
        self.first_boot == FirstBootState::Done
    }
}

/// A flash whose bytes only the BMC has seen: a file of its own, or one it downloaded. Kept beside no [`SlotRecord`], which
/// vouches for a digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BmcWrote {
    /// The path or address.
    pub source: String,
    /// Whom it was written for.
    pub node: String,
    /// When, UTC.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The run that did it.
    pub run: String,
    /// Names this very flash.
    pub flash: String,
}

impl BmcWrote {
    /// The key of a slot's record.
    pub fn key(place: &SlotRef) -> String {
        format!("slot-by-bmc/{}/{}", place.board, place.slot)
    }

    /// The record of a slot.
    ///
    /// # Errors
    /// `Config` when it has another shape.
    pub fn read(state: &State, place: &SlotRef) -> Result<Option<Self>, Failure> {
        state.record(&Self::key(place))
    }
}

/// Names the last flash of a slot that ended well, whoever held the bytes: a change shows that there was another.
///
/// # Errors
/// `Config` when a record has another shape.
pub fn last_flash(state: &State, place: &SlotRef) -> Result<Option<String>, Failure> {
    Ok(match SlotRecord::read(state, place)? {
        Some(record) => Some(record.flash),
        None => BmcWrote::read(state, place)?.map(|wrote| wrote.flash),
    })
}

/// The id of a node's flash step, under which the state keeps its in-doubt mark.
pub fn flash_step_id(node: &str) -> String {
    format!("{node}/flash")
}

/// The key under which the state keeps the slot in which a node's last flash was begun.
pub(super) fn begun_key(node: &str) -> String {
    format!("flash-begun/{node}")
}

/// The key under which the state keeps that a teardown took everything off a node and then switched it off. It holds
/// until the node is switched on by us, or answers a run that builds.
pub fn powered_off_key(node: &str) -> String {
    format!("powered-off/{node}")
}
