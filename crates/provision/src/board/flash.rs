//! Flashing slots by hand: one plan over boards and slots, with the steps that `apply` takes too.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use serde::Serialize;
use turingpi_bmc::{BmcClient, PerSlot, Power, Slot, Transfer};
use turingpi_cluster::{
    Boards, Fetcher, ImageSpec, Sha256, SlotRecord, SlotRef, Source,
    imaging::{
        AfterFlash, BoardFacts, FlashContext, FlashQueue, FlashReason, FlashSource, Neighbours, bystanders,
        flash_step_id, flash_steps, last_flash, leftover_power, restore_power, restore_power_step, set_power,
        stand_by_step_named,
    },
};
use turingpi_engine::{
    Approval, Cancellation, EventSink, Executor, Failure, FailureClass, Lane, Plan, Preview, Probe,
    Reconcile, Stage, State, StateStore as _, StepContext, Subject, Summary,
};

use super::{BoardDesk, Occupant, OpenBoard};

/// What to flash, and where.
#[derive(Debug, Clone)]
pub struct FlashRequest {
    /// The slots of each board; every board gets the same.
    pub slots: Vec<Slot>,
    /// The image.
    pub source: FlashSource,
    /// What happens afterwards.
    pub after: AfterFlash,
    /// Slots whose system is known to boot, and that need not be powered off meanwhile.
    pub keep_on: Vec<Slot>,
    /// The size of the modules' eMMC in bytes, where the person knows it.
    pub emmc_bytes: Option<u64>,
    /// Leave out slots that hold this very image already, by our own record of a finished flash.
    pub resume: bool,
}

/// One slot after a run, for a person who wants to know what is what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SlotEnd {
    /// The board.
    pub board: String,
    /// The slot.
    pub slot: Slot,
    /// How it is called: the document's node, or `board/slot`.
    pub name: String,
    /// What became of it.
    pub state: SlotState,
    /// Its power, as last asked for; `None` when the BMC does not answer.
    pub power: Option<Power>,
}

/// What a slot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SlotState {
    /// The image, written and read back by this run.
    Flashed,
    /// The image, from an earlier run.
    HeldAlready,
    /// What it held before: nothing was written.
    Untouched,
    /// Unknown: a flash was begun and did not end.
    HalfWritten,
}

/// What a flash would do.
#[derive(Debug, Clone)]
pub struct FlashPlan {
    /// The steps.
    pub preview: Preview,
    /// Slots that are not flashed, run now, and are off meanwhile, because a flash of this board might hit them.
    pub interrupted: Vec<Occupant>,
}

/// A flash that was prepared: plan it, run it, and ask how the slots are.
pub struct Flash<'a> {
    desk: &'a BoardDesk,
    target: Target,
}

/// The target of the converge loop.
struct Target {
    boards: Vec<OpenBoard>,
    clients: Boards,
    fetcher: Fetcher,
    request: FlashRequest,
    /// The name of each slot's last flash before this one.
    before: BTreeMap<SlotRef, Option<String>>,
    /// Slots that are left out.
    held: BTreeSet<SlotRef>,
}

impl BoardDesk {
    /// Prepares a flash of slots of these boards. Looks at the state and the image's file; changes nothing.
    ///
    /// # Errors
    /// `Usage` without a slot; `Config` for an image or a state that cannot be read.
    pub async fn flash(&self, boards: Vec<OpenBoard>, request: FlashRequest) -> Result<Flash<'_>, Failure> {
        let mut request = request;
        request.slots.sort();
        request.slots.dedup();
        if request.slots.is_empty() || boards.is_empty() {
            return Err(Failure::new(FailureClass::Usage, "there is no slot to flash")
                .hint("Name slots with `-n 1` or `-n 1,2`."));
        }
        let fetcher = Fetcher::new(&self.environment.cache_dir, self.environment.proxy.options()?)?;
        let (state, _) = self.store.load().await?;
        let digest = match request.resume {
            true => digest_of(&request.source, &fetcher).await?,
            false => None,
        };
        let mut before = BTreeMap::new();
        let mut held = BTreeSet::new();
        for board in &boards {
            for slot in &request.slots {
                let place = board.place(*slot);
                let doubt = state.in_doubt.contains_key(&flash_step_id(&board.occupant(*slot)));
                let record = SlotRecord::read(&state, &place)?;
                if !doubt && digest.is_some() && record.map(|record| record.sha256) == digest {
                    held.insert(place.clone());
                }
                before.insert(place.clone(), last_flash(&state, &place)?);
            }
        }
        let clients = Boards::new(boards.iter().map(|board| (board.name().to_owned(), board.client())));
        Ok(Flash { desk: self, target: Target { boards, clients, fetcher, request, before, held } })
    }
}

async fn digest_of(source: &FlashSource, fetcher: &Fetcher) -> Result<Option<Sha256>, Failure> {
    match source {
        FlashSource::Upload(ImageSpec { sha256: Some(digest), .. }) => Ok(Some(digest.clone())),
        FlashSource::Upload(ImageSpec { source: source @ Source::Path(_), .. }) => {
            Ok(Some(fetcher.fetch(source, None, &|_, _| {}).await?.sha256))
        }
        _ => Err(Failure::new(
            FailureClass::Usage,
            "which slots hold this image cannot be told without its digest",
        )
        .hint("Give it with `--sha256`, or leave out `--resume`.")),
    }
}

impl Flash<'_> {
    /// What would be done, and who else is cut meanwhile.
    ///
    /// # Errors
    /// `Unreachable` and others when a board cannot be looked at.
    pub async fn plan(&self) -> Result<FlashPlan, Failure> {
        let sink = Arc::new(|_: &turingpi_engine::Event| {});
        let preview = self.executor(sink, &Cancellation::new()).preview(&self.target).await?;
        let mut interrupted = Vec::new();
        if !preview.is_empty() {
            let (state, _) = self.desk.store.load().await?;
            let facts = self.target.observe(&self.desk.silent_context()).await?;
            for board in &self.target.boards {
                let Some(facts) = facts.get(board.name()) else { continue };
                let slots = self.target.interrupted(board, facts, &state)?;
                interrupted.extend(self.desk.occupants(board, &slots).await);
            }
        }
        Ok(FlashPlan { preview, interrupted })
    }

    /// Does it. Slots of one board are written one after the other, those of several boards side by side; a slot boots
    /// while the next one is written.
    ///
    /// # Errors
    /// `Locked` while another run works with this state or a foreign transfer moves on a board; `Unapproved` without the
    /// approval of each slot's name or of the plan; `Timeout` for a slot that was written and shows no sign of a boot;
    /// otherwise the first failure. Then ask [`Flash::ends`] how the slots are.
    pub async fn run(
        &self,
        approval: &Approval,
        sink: Arc<dyn EventSink>,
        cancellation: &Cancellation,
    ) -> Result<Summary, Failure> {
        let _lock = self.desk.lock("board flash")?;
        self.executor(sink, cancellation).converge(&self.target, approval).await
    }

    /// Brings every board into a known state after a run, however that ended, and tells it: a transfer that was cut is
    /// waited for, a slot that was half written is off, and what was powered off for safety is on again.
    pub async fn ends(&self) -> Vec<SlotEnd> {
        let cx = self.desk.silent_context();
        // While another run works here its transfers are not ours to wait for, and its slots are not ours to switch.
        let lock = self.desk.lock("board flash");
        let ends = self.target.boards.iter().map(|board| self.settle(board, &cx, lock.is_ok()));
        futures::future::join_all(ends).await.into_iter().flatten().collect()
    }

    async fn settle(&self, board: &OpenBoard, cx: &StepContext, may_switch: bool) -> Vec<SlotEnd> {
        let state = self.desk.store.load().await.map(|(state, _)| state).unwrap_or_default();
        let states: Vec<(Slot, SlotState)> = self
            .target
            .request
            .slots
            .iter()
            .map(|slot| (*slot, self.state_of(board, *slot, &state)))
            .collect();
        let cut: Vec<Slot> =
            states.iter().filter(|(_, s)| *s == SlotState::HalfWritten).map(|(slot, _)| *slot).collect();
        let bmc = board.client();
        if may_switch && (!cut.is_empty() || !leftover_power(&state, board.name()).is_empty()) {
            self.cancel_ours(bmc.as_ref(), &cut).await;
            // The BMC winds an aborted upload up within two seconds; switching in between would be undone by it.
            let still = cx
                .wait("the cut transfer to end", Duration::from_secs(60), || async {
                    Ok(match bmc.transfer().await {
                        Ok(Transfer::Moving { process, .. }) => Probe::NotYet(process),
                        Ok(_) => Probe::Ready(()),
                        Err(error) => Probe::NotYet(error.to_string()),
                    })
                })
                .await;
            if still.is_ok() {
                let _ = set_power(bmc.as_ref(), &cut, Power::Off).await;
                let _ = restore_power(board.name(), bmc.as_ref(), cx).await;
            }
        }
        let power: Option<PerSlot<Power>> = bmc.power().await.ok();
        let end = |(slot, state)| SlotEnd {
            board: board.name().to_owned(),
            slot,
            name: board.occupant(slot),
            state,
            power: power.as_ref().map(|power| power[slot]),
        };
        states.into_iter().map(end).collect()
    }

    /// A transfer that the BMC makes by itself goes on without us: nothing but a cancel ends one that was stopped here.
    async fn cancel_ours(&self, bmc: &dyn BmcClient, cut: &[Slot]) {
        if let Ok(Transfer::Moving { process, .. }) = bmc.transfer().await
            && cut.iter().any(|slot| process.to_lowercase().starts_with(&format!("node {slot} ")))
        {
            let _ = bmc.cancel_transfer().await;
        }
    }

    fn state_of(&self, board: &OpenBoard, slot: Slot, state: &State) -> SlotState {
        let place = board.place(slot);
        if state.in_doubt.contains_key(&flash_step_id(&board.occupant(slot))) {
            return SlotState::HalfWritten;
        }
        if self.target.held.contains(&place) {
            return SlotState::HeldAlready;
        }
        let now = last_flash(state, &place).ok().flatten();
        match now.is_some() && Some(&now) != self.target.before.get(&place) {
            true => SlotState::Flashed,
            false => SlotState::Untouched,
        }
    }

    fn executor(&self, sink: Arc<dyn EventSink>, cancellation: &Cancellation) -> Executor {
        let names: Vec<&str> = self.target.boards.iter().map(OpenBoard::name).collect();
        Executor::builder(self.desk.store.clone(), sink)
            .timing(self.desk.environment.timing.clone())
            .cancellation(cancellation.clone())
            .verb("board flash")
            .target(names.join(", "))
            .version(&self.desk.environment.version)
            .build()
    }
}

#[async_trait]
impl Reconcile for Target {
    type Observed = BTreeMap<String, BoardFacts>;

    async fn observe(&self, _: &StepContext) -> Result<Self::Observed, Failure> {
        self.clients
            .observe()
            .await
            .into_iter()
            .map(|(name, facts)| facts.map(|facts| (name, facts)))
            .collect()
    }

    fn plan(&self, facts: &Self::Observed, state: &State) -> Result<Plan, Failure> {
        let mut lanes = Vec::new();
        for board in &self.boards {
            let Some(facts) = facts.get(board.name()) else { continue };
            lanes.extend(self.board(board, facts, state)?);
        }
        Ok(Plan { stages: vec![Stage { title: "Flash".to_owned(), lanes }] })
    }
}

impl Target {
    /// The slots of a board that are still to be flashed.
    fn open(&self, board: &OpenBoard, state: &State) -> Result<Vec<SlotRef>, Failure> {
        let mut open = Vec::new();
        for slot in &self.request.slots {
            let place = board.place(*slot);
            let now = last_flash(state, &place)?;
            if !self.held.contains(&place) && self.before.get(&place) == Some(&now) {
                open.push(place);
            }
        }
        Ok(open)
    }

    /// What the plan knows of the other slots: who stands by without power, and how many flashes are to come.
    fn neighbours(
        &self,
        board: &OpenBoard,
        open: &[SlotRef],
        facts: &BoardFacts,
        state: &State,
    ) -> Result<Neighbours, Failure> {
        let mut neighbours = Neighbours {
            running: self.request.keep_on.iter().map(|slot| board.place(*slot)).collect(),
            flashed_too: open.iter().cloned().collect(),
            queue: FlashQueue::new(open.iter().cloned()),
            ..Neighbours::default()
        };
        neighbours.announced = bystanders(board.name(), facts, state, &neighbours)?;
        Ok(neighbours)
    }

    /// Slots beside those to be flashed that run and are off meanwhile.
    fn interrupted(
        &self,
        board: &OpenBoard,
        facts: &BoardFacts,
        state: &State,
    ) -> Result<Vec<Slot>, Failure> {
        let open = self.open(board, state)?;
        let announced = self.neighbours(board, &open, facts, state)?.announced;
        Ok(announced
            .into_iter()
            .map(|place| place.slot)
            .filter(|slot| facts.power[*slot] == Power::On)
            .collect())
    }

    /// One lane a slot that is still to be flashed, in order: the lock on the board's one transfer serves them so.
    fn board(&self, board: &OpenBoard, facts: &BoardFacts, state: &State) -> Result<Vec<Lane>, Failure> {
        let open = self.open(board, state)?;
        let neighbours = self.neighbours(board, &open, facts, state)?;
        let name = |place: &SlotRef| Some(board.occupant(place.slot));
        let mut lanes = Vec::new();
        let power = stand_by_step_named(board.name(), &name, &neighbours, &self.clients)
            .or_else(|| restore_power_step(board.name(), state, &self.clients));
        if let Some(step) = power {
            lanes.push(Lane { subject: Subject::board(board.name()), steps: vec![step] });
        }
        for place in &open {
            let name = board.occupant(place.slot);
            let doubt = state.in_doubt.contains_key(&flash_step_id(&name));
            let context = FlashContext {
                boards: self.clients.clone(),
                hosts: None,
                fetcher: self.fetcher.clone(),
                reason: if doubt { FlashReason::InDoubt } else { FlashReason::Requested },
                neighbours: neighbours.clone(),
                certain: !doubt,
                emmc_bytes: self.request.emmc_bytes,
            };
            let steps = flash_steps(&name, place, &self.request.source, self.request.after, &context);
            lanes.push(Lane { subject: Subject::node(name), steps });
        }
        Ok(lanes)
    }
}
