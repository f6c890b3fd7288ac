//! Getting a slot's module from whatever it is to a system of ours that answers.
//!
//! Safety, in the order it is applied: the image's digest is known before anything is touched; a transfer of somebody
//! else is never disturbed; on boards where a flash goes to the first module on the USB bus, every other module without
//! a proven system is powered off first, and the plan names it; the slot's record is dropped before and written after the flash, so that a
//! crash in between leads to a second flash and never to a half-written system that is taken for a good one.

mod bmc_flash;
mod boards;
mod boot;
mod decide;
mod failure;
mod flash;
mod guard;
mod host_keys;
mod neighbours;
mod power;
mod proof;
mod record;
mod uart_log;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use turingpi_engine::Step;
use turingpi_ssh::SshConnector;

use crate::{
    Hosts, NodeSpec, SlotRef,
    fetch::{Fetcher, Sha256, Source},
    first_boot::{FirstBootSpec, FirstBootStep},
};

pub use boards::{BoardFacts, Boards, Reach, SlotFacts};
pub use decide::{Decision, FlashReason, decide};
pub use failure::bmc_failure;
pub use guard::{restore_power, set_power};
pub use host_keys::{HostKeys, KnownHostsFile};
pub use neighbours::{FlashQueue, Neighbours, bystanders, leftover_power, to_power_off};
pub use record::{BmcWrote, FirstBootState, SlotRecord, flash_step_id, last_flash, powered_off_key};
pub(crate) use uart_log::UartLog;

use bmc_flash::BmcFlashStep;
use boot::BootStep;
pub(crate) use boot::sshd_answers;
use flash::FlashStep;
use power::{PowerOnStep, RestorePowerStep, SettleStep, StandByStep};
use proof::ProveBootStep;

/// An image as the document names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSpec {
    /// Its name in the document.
    pub name: String,
    /// Where it comes from.
    pub source: Source,
    /// The digest of the file as it comes (packed, for `.xz`). Without it, a `.sha256` or `.sha` file beside a URL is
    /// asked for; a local file is taken as it is.
    pub sha256: Option<Sha256>,
}

/// How long the parts of getting a node up may take, before the timing's factor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImagingLimits {
    /// From power-on to a login, over SSH or on the console. An RK1's first boot takes one to three minutes.
    pub boot: Duration,
    /// How long SSH may stay silent after the console shows a login, before the console is used instead.
    pub grace: Duration,
    /// For the image's own first-run service (resizing the file system, new host keys; Armbian gives it six minutes).
    pub first_run: Duration,
    /// For one conversation over the console.
    pub console: Duration,
}

impl Default for ImagingLimits {
    fn default() -> Self {
        Self {
            boot: Duration::from_secs(300),
            grace: Duration::from_secs(45),
            first_run: Duration::from_secs(420),
            console: Duration::from_secs(240),
        }
    }
}

/// What the steps of one node need.
#[derive(Clone)]
pub struct ImagingContext {
    /// The boards.
    pub boards: Boards,
    /// The pool that everybody uses afterwards.
    pub hosts: Hosts,
    /// Gets the image.
    pub fetcher: Fetcher,
    /// Connects to a node whose host key nobody can know yet. Used only between our own flash of a slot and the moment
    /// its new key is pinned: each connection uses accept-new under a host name that no file holds. Build it like the
    /// pool's connector, but with a known-hosts file of its own that is thrown away afterwards (accept-new needs one to
    /// write to), and the pool's file as an extra one for jump hosts.
    pub newcomer: Arc<dyn SshConnector>,
    /// Where host keys are pinned, and forgotten after our own flash.
    pub host_keys: Arc<dyn HostKeys>,
    /// What the first boot ends in.
    pub first_boot: FirstBootSpec,
    /// Why the slot is flashed, for the plan.
    pub reason: FlashReason,
    /// What is known about the other slots.
    pub neighbours: Neighbours,
    /// Patience.
    pub limits: ImagingLimits,
}

/// What a flash alone needs: nobody logs in to what was written.
#[derive(Clone)]
pub struct FlashContext {
    /// The boards.
    pub boards: Boards,
    /// The pool that forgets a connection to the old system; `None` where nobody logs in to nodes.
    pub hosts: Option<Hosts>,
    /// Gets the image.
    pub fetcher: Fetcher,
    /// Why the slot is flashed, for the plan.
    pub reason: FlashReason,
    /// What is known about the other slots.
    pub neighbours: Neighbours,
    /// Whether the slot's content was in no doubt before: then a flash that does not come to begin leaves no doubt either.
    pub certain: bool,
    /// The size of the module's eMMC in bytes, where it is known: no firmware tells it.
    pub emmc_bytes: Option<u64>,
}

impl From<&ImagingContext> for FlashContext {
    fn from(cx: &ImagingContext) -> Self {
        Self {
            boards: cx.boards.clone(),
            hosts: Some(cx.hosts.clone()),
            fetcher: cx.fetcher.clone(),
            reason: cx.reason,
            neighbours: cx.neighbours.clone(),
            certain: cx.reason == FlashReason::NeverFlashed,
            emmc_bytes: None,
        }
    }
}

/// Where a flash takes its image from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FlashSource {
    /// We send it: its digest is checked before and after.
    Upload(ImageSpec),
    /// A file that lies on the BMC, such as `/mnt/sdcard/a.img.xz`. The BMC checks no digest.
    OnBmc(String),
    /// A URL the BMC downloads from itself.
    ByBmc {
        /// The address, as the BMC shall see it.
        url: url::Url,
        /// The digest of the file as it is served, which the BMC compares.
        sha256: Option<Sha256>,
    },
}

/// What happens after a flash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterFlash {
    /// The slot stays off.
    LeaveOff,
    /// It is powered on, and nobody looks.
    PowerOn,
    /// It is powered on, and its serial console must show the new system within the limit.
    ProveBoot(Duration),
}

/// The steps that flash a slot on its own: no login, no first boot. `node` names the slot's occupant in ids and state.
pub fn flash_steps(
    node: &str,
    place: &SlotRef,
    source: &FlashSource,
    after: AfterFlash,
    cx: &FlashContext,
) -> Vec<Arc<dyn Step>> {
    let flash: Arc<dyn Step> = match source {
        FlashSource::Upload(image) => Arc::new(FlashStep::new(node, place, image, cx.clone())),
        FlashSource::OnBmc(path) => Arc::new(BmcFlashStep::on_bmc(node, place, path, cx.clone())),
        FlashSource::ByBmc { url, sha256 } => {
            Arc::new(BmcFlashStep::by_bmc(node, place, url, sha256.as_ref(), cx.clone()))
        }
    };
    let log = Arc::new(UartLog::new(place.slot));
    let on = || Arc::new(PowerOnStep::new(node, place, Arc::clone(&log), cx.boards.clone())) as Arc<dyn Step>;
    match after {
        AfterFlash::LeaveOff => vec![flash],
        AfterFlash::PowerOn => vec![flash, on()],
        AfterFlash::ProveBoot(limit) => {
            let proof = ProveBootStep::new(node, place, Arc::clone(&log), cx.boards.clone(), limit);
            vec![flash, on(), Arc::new(proof)]
        }
    }
}

/// The steps that flash `image` onto the node's slot and bring it up: flash, power-on, boot, first boot.
///
/// Empty for a node without a slot. [`decide`] says whether they are called for; approval is the engine's business.
pub fn imaging_steps(node: &NodeSpec, image: &ImageSpec, cx: &ImagingContext) -> Vec<Arc<dyn Step>> {
    slot_steps(node, Some(image), &Decision::Flash(cx.reason), cx)
}

/// The steps that a [`Decision`] calls for. Empty for [`Decision::Leave`] and for a node without a slot.
pub fn slot_steps(
    node: &NodeSpec,
    image: Option<&ImageSpec>,
    decision: &Decision,
    cx: &ImagingContext,
) -> Vec<Arc<dyn Step>> {
    let Some(place) = node.slot.clone() else { return Vec::new() };
    let mut steps: Vec<Arc<dyn Step>> = Vec::new();
    let log = Arc::new(UartLog::new(place.slot));
    match (decision, image) {
        (Decision::Leave | Decision::Unknown { .. }, _) => return steps,
        (Decision::Flash(reason), Some(image)) => {
            let context = ImagingContext { reason: *reason, ..cx.clone() };
            steps.push(Arc::new(FlashStep::new(&node.name, &place, image, FlashContext::from(&context))));
        }
        (Decision::Flash(_), None) => return steps,
        (Decision::Start { settle: true, .. }, _) => steps.push(Arc::new(SettleStep::new(node))),
        (Decision::Start { .. }, _) => {}
    }
    let first_boot = match decision {
        Decision::Start { first_boot, .. } => *first_boot,
        _ => true,
    };
    steps.push(Arc::new(PowerOnStep::new(&node.name, &place, Arc::clone(&log), cx.boards.clone())));
    steps.push(Arc::new(BootStep::new(node, &place, Arc::clone(&log), first_boot, cx.clone())));
    if first_boot {
        steps.push(Arc::new(FirstBootStep::new(node, &place, log, cx.clone())));
    }
    steps
}

/// The step that cuts the power of [`bystanders`] of a board before the first of its flashes, which are for the nodes
/// `flashed`; `None` when there are none. Put it into a lane before those of the nodes: the lock of the board's transfer
/// goes to the first lane first.
pub fn stand_by_step(
    board: &str,
    nodes: &[NodeSpec],
    neighbours: &Neighbours,
    boards: &Boards,
) -> Option<Arc<dyn Step>> {
    let name =
        |place: &SlotRef| nodes.iter().find(|n| n.slot.as_ref() == Some(place)).map(|node| node.name.clone());
    stand_by_step_named(board, &name, neighbours, boards)
}

/// As [`stand_by_step`], for slots that `name` knows the names of.
pub fn stand_by_step_named(
    board: &str,
    name: &dyn Fn(&SlotRef) -> Option<String>,
    neighbours: &Neighbours,
    boards: &Boards,
) -> Option<Arc<dyn Step>> {
    let of_board = |place: &&SlotRef| place.board == board;
    let slots: Vec<_> =
        neighbours.announced.iter().filter(of_board).map(|place| (place.slot, name(place))).collect();
    if slots.is_empty() {
        return None;
    }
    let flashed = neighbours.flashed_too.iter().filter(of_board).filter_map(name).collect();
    Some(Arc::new(StandByStep { board: board.to_owned(), slots, flashed, boards: boards.clone() }))
}

/// The step that powers slots on again that an interrupted flash left off; `None` when there are none.
pub fn restore_power_step(
    board: &str,
    state: &turingpi_engine::State,
    boards: &Boards,
) -> Option<Arc<dyn Step>> {
    let slots = leftover_power(state, board);
    (!slots.is_empty())
        .then(|| Arc::new(RestorePowerStep::new(board, slots, boards.clone())) as Arc<dyn Step>)
}
