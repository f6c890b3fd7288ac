use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use turingpi_bmc::{
    About, Attempt, BackupSink, BmcClient, BmcError, Console, CoolingDevice, FirmwareSource, FlashObserver,
    FlashProgress, Flashed, Generation, ImageUpload, Info, NodeInfo, NodeInfoChange, PerSlot, Power,
    RemoteImage, SdCard, SerialState, Slot, StagedFirmware, Temperature, Transfer, UartEncoding, UartMark,
    UartText, UsbMode, UsbRoute, UsbState,
};
use turingpi_engine::{
    Cancellation, Event, EventKind, Failure, FailureClass, InDoubt, MemoryStateStore, Risk, State, Step,
    StepContext, Timing, Verdict,
};
use turingpi_ssh::{HostKey, HostKeyPolicy, SshClient, SshConnector, SshError, SshTarget};

use super::{neighbours::to_power_off, *};
use crate::{Role, SlotRef, fetch::FetchOptions, first_boot::root_password_key};

/// A board in memory, strict where a real one is: one job, the first module in boot-ROM mode gets a flash.
struct FakeBoard {
    world: Mutex<World>,
}

struct World {
    about: About,
    power: PerSlot<Power>,
    emmc: PerSlot<Option<Vec<u8>>>,
    transfer: Transfer,
    fail: Option<BmcError>,
    stuck_on: Option<Slot>,
    /// Modules that were powered while a flash ran, per flash.
    powered_while_flashing: Vec<Vec<u8>>,
    serial: String,
}

impl FakeBoard {
    fn new(revision: &str) -> Arc<Self> {
        let mut about = About::of(Generation::V2_1);
        about.board_revision = Some(revision.to_owned());
        Arc::new(Self {
            world: Mutex::new(World {
                about,
                power: PerSlot::new([Power::Off; 4]),
                emmc: PerSlot::new([const { None }; 4]),
                transfer: Transfer::Idle,
                fail: None,
                stuck_on: None,
                powered_while_flashing: vec![],
                serial: String::new(),
            }),
        })
    }
    fn world<T>(&self, look: impl FnOnce(&mut World) -> T) -> T {
        look(&mut self.world.lock().unwrap())
    }
    fn on(&self) -> Vec<u8> {
        self.world(|w| w.power.iter().filter(|(_, p)| **p == Power::On).map(|(s, _)| s.number()).collect())
    }
}

#[async_trait]
impl BmcClient for FakeBoard {
    async fn about(&self) -> Result<About, BmcError> {
        Ok(self.world(|w| w.about.clone()))
    }
    async fn info(&self) -> Result<Info, BmcError> {
        unreachable!("nobody asks")
    }
    async fn power(&self) -> Result<PerSlot<Power>, BmcError> {
        Ok(self.world(|w| w.power))
    }
    async fn set_power(&self, change: &PerSlot<Option<Power>>) -> Result<(), BmcError> {
        self.world(|w| {
            for (slot, power) in change.iter() {
                if let Some(power) = power
                    && w.stuck_on != Some(slot)
                {
                    w.power[slot] = *power;
                }
            }
        });
        Ok(())
    }
    async fn reset(&self, _: Slot) -> Result<(), BmcError> {
        unreachable!("nobody resets")
    }
    async fn usb(&self) -> Result<UsbState, BmcError> {
        unreachable!("nobody asks")
    }
    async fn set_usb(&self, _: Slot, _: UsbMode, _: UsbRoute) -> Result<(), BmcError> {
        unreachable!("nobody routes")
    }
    async fn uart_mark(&self, slot: Slot) -> Result<UartMark, BmcError> {
        Ok(UartMark::start(slot))
    }
    async fn uart_since(&self, _: &mut UartMark) -> Result<UartText, BmcError> {
        Ok(UartText::new(self.world(|w| std::mem::take(&mut w.serial)), false))
    }
    async fn uart_send(&self, _: Slot, _: &str) -> Result<(), BmcError> {
        Ok(())
    }
    async fn transfer(&self) -> Result<Transfer, BmcError> {
        Ok(self.world(|w| w.transfer.clone()))
    }
    async fn power_cycle(&self, _: Slot, _: Duration) -> Result<(), BmcError> {
        unreachable!("nobody cycles")
    }
    async fn node_info(&self) -> Result<PerSlot<NodeInfo>, BmcError> {
        unreachable!("nobody asks")
    }
    async fn set_node_info(&self, _: &PerSlot<Option<NodeInfoChange>>) -> Result<(), BmcError> {
        unreachable!("nobody names")
    }
    async fn usb_node1_alternative(&self) -> Result<bool, BmcError> {
        unreachable!("nobody asks")
    }
    async fn set_usb_node1_alternative(&self, _: bool) -> Result<(), BmcError> {
        unreachable!("nobody routes")
    }
    async fn usb_boot(&self, _: Slot) -> Result<(), BmcError> {
        unreachable!("nobody holds a pin")
    }
    async fn clear_usb_boot(&self) -> Result<(), BmcError> {
        unreachable!("nobody releases a pin")
    }
    async fn mass_storage(&self, _: Slot) -> Result<(), BmcError> {
        unreachable!("nobody wants a disk")
    }
    async fn normal_mode(&self, _: Slot) -> Result<(), BmcError> {
        unreachable!("nobody had a disk")
    }
    async fn cooling(&self) -> Result<Vec<CoolingDevice>, BmcError> {
        unreachable!("nobody asks")
    }
    async fn set_cooling(&self, _: &str, _: u32) -> Result<(), BmcError> {
        unreachable!("nobody cools")
    }
    async fn temperatures(&self) -> Result<Vec<Temperature>, BmcError> {
        unreachable!("nobody asks")
    }
    async fn sd_card(&self) -> Result<Option<SdCard>, BmcError> {
        unreachable!("nobody asks")
    }
    async fn reset_network(&self) -> Result<(), BmcError> {
        unreachable!("nobody resets")
    }
    async fn uart_read(&self, _: Slot, _: UartEncoding) -> Result<String, BmcError> {
        unreachable!("nobody reads the buffer")
    }
    async fn serial_status(&self) -> Result<PerSlot<SerialState>, BmcError> {
        unreachable!("nobody asks")
    }
    async fn console(&self, _: Slot) -> Result<Console, BmcError> {
        unreachable!("nobody opens a console")
    }
    async fn flash_remote<'a>(
        &self,
        _: Slot,
        _: RemoteImage,
        _: &'a FlashObserver<'a>,
    ) -> Result<Flashed, BmcError> {
        unreachable!("nobody flashes from afar")
    }
    async fn cancel_transfer(&self) -> Result<bool, BmcError> {
        unreachable!("nobody cancels")
    }
    async fn upgrade_firmware<'a>(
        &self,
        _: FirmwareSource,
        _: &'a FlashObserver<'a>,
    ) -> Result<StagedFirmware, BmcError> {
        unreachable!("nobody upgrades")
    }
    async fn reboot(&self) -> Result<(), BmcError> {
        unreachable!("nobody reboots")
    }
    async fn reload(&self) -> Result<(), BmcError> {
        unreachable!("nobody reloads")
    }
    async fn backup<'a>(&self, _: &'a mut BackupSink<'a>) -> Result<u64, BmcError> {
        unreachable!("nobody saves")
    }
    async fn ping(&self) -> Result<(), BmcError> {
        unreachable!("nobody waits")
    }
    async fn flash<'a>(
        &self,
        slot: Slot,
        image: ImageUpload,
        progress: &'a (dyn Fn(FlashProgress) + Send + Sync + 'a),
    ) -> Result<Flashed, BmcError> {
        let mut bytes = Vec::new();
        (image.open)().await.unwrap().read_to_end(&mut bytes).await.unwrap();
        progress(FlashProgress::Uploading { sent: bytes.len() as u64, total: bytes.len() as u64 });
        self.world(|w| {
            if let Some(error) = w.fail.take() {
                // As the real one after a failure to find the module: on, in flash mode.
                w.power[slot] = Power::On;
                return Err(error);
            }
            let others = w.power.iter().filter(|(s, p)| *s != slot && **p == Power::On);
            w.powered_while_flashing.push(others.map(|(s, _)| s.number()).collect());
            w.power[slot] = Power::Off;
            let length = bytes.len() as u64;
            w.emmc[slot] = Some(bytes);
            w.transfer = Transfer::Done { took: Duration::from_secs(1), size: Some(length) };
            Ok(Flashed::new(length, image.sha256.unwrap(), 1.0))
        })
    }
}

/// Nobody answers.
struct Nobody;
#[async_trait]
impl SshConnector for Nobody {
    async fn connect(&self, target: &SshTarget) -> Result<Arc<dyn SshClient>, SshError> {
        Err(SshError::Connect {
            host: target.host.clone(),
            port: 22,
            source: std::io::ErrorKind::ConnectionRefused.into(),
        })
    }
}

struct NoKeys;
#[async_trait]
impl HostKeys for NoKeys {
    async fn recognises(&self, _: &SshTarget, _: &[HostKey]) -> Result<Option<bool>, Failure> {
        Ok(None)
    }
    async fn replace(&self, _: &SshTarget, _: &[HostKey]) -> Result<(), Failure> {
        Ok(())
    }
}

struct Bench {
    board: Arc<FakeBoard>,
    context: ImagingContext,
    cx: StepContext,
    events: Arc<Mutex<Vec<Event>>>,
    image: ImageSpec,
    _folder: TempDir,
}

fn place(slot: u8) -> SlotRef {
    SlotRef { board: "board1".into(), slot: Slot::try_from(slot).unwrap() }
}

fn node(slot: u8) -> NodeSpec {
    let address = format!("10.10.88.{}", 72 + slot);
    NodeSpec {
        name: format!("node{slot}"),
        role: Role::Worker,
        address: address.parse().unwrap(),
        ssh: SshTarget::new(address),
        slot: Some(place(slot)),
        image: Some("armbian".into()),
        labels: BTreeMap::new(),
        taints: vec![],
    }
}

fn bench(revision: &str) -> Bench {
    let folder = TempDir::new().unwrap();
    let path: PathBuf = folder.path().join("armbian.img");
    std::fs::write(&path, b"an image that boots").unwrap();
    let board = FakeBoard::new(revision);
    let client: Arc<dyn BmcClient> = board.clone();
    let events: Arc<Mutex<Vec<Event>>> = Arc::default();
    let sink = Arc::clone(&events);
    let cx = StepContext::detached(
        Arc::new(MemoryStateStore::default()),
        Arc::new(move |event: &Event| sink.lock().unwrap().push(event.clone())),
        Timing { limit_factor: 0.002, ..Timing::fast() },
        Cancellation::new(),
    );
    let context = ImagingContext {
        boards: Boards::new([("board1".to_owned(), client)]),
        hosts: Hosts::new(Arc::new(Nobody), [1, 2, 3, 4].map(|slot| (format!("node{slot}"), node(slot).ssh))),
        fetcher: Fetcher::new(folder.path().join("cache"), FetchOptions::default()).unwrap(),
        newcomer: Arc::new(Nobody),
        host_keys: Arc::new(NoKeys),
        first_boot: FirstBootSpec::new("node1", vec!["ssh-ed25519 AAAA me".into()]),
        reason: FlashReason::NeverFlashed,
        neighbours: Neighbours::default(),
        limits: ImagingLimits::default(),
    };
    let image = ImageSpec { name: "armbian".into(), source: Source::Path(path), sha256: None };
    Bench { board, context, cx, events, image, _folder: folder }
}

impl Bench {
    fn step(&self, slot: u8, position: usize) -> Arc<dyn Step> {
        Arc::clone(&imaging_steps(&node(slot), &self.image, &self.context)[position])
    }
    async fn flash(&self, slot: u8) -> Result<(), Failure> {
        self.step(slot, 0).apply(&self.cx).await
    }
    async fn record(&self, slot: u8) -> Option<SlotRecord> {
        SlotRecord::read(&self.cx.state().await.unwrap(), &place(slot)).unwrap()
    }
    async fn put_record(&self, slot: u8, first_boot: FirstBootState) {
        let record = record(slot, "earlier", first_boot);
        self.cx.update_state(|state| state.put_record(SlotRecord::key(&place(slot)), &record)).await.unwrap();
    }
}

fn record(slot: u8, run: &str, first_boot: FirstBootState) -> SlotRecord {
    SlotRecord {
        image: "armbian".into(),
        sha256: Sha256::of(b"old"),
        node: format!("node{slot}"),
        at: time::OffsetDateTime::UNIX_EPOCH,
        run: run.into(),
        flash: "f0".into(),
        first_boot,
    }
}

#[tokio::test]
async fn a_flash_leaves_the_image_in_the_slot_the_node_off_and_a_record_behind() {
    let bench = bench("2.4");
    bench
        .cx
        .update_state(|state| {
            state.put_secret(root_password_key("node1"), "of the old system".to_owned().into());
            Ok(())
        })
        .await
        .unwrap();
    bench.flash(1).await.unwrap();
    assert_eq!(bench.board.world(|w| w.emmc[place(1).slot].clone()).unwrap(), b"an image that boots");
    assert_eq!(bench.board.on(), [0u8; 0]);
    let record = bench.record(1).await.unwrap();
    assert_eq!(
        (record.first_boot, record.sha256),
        (FirstBootState::Pending, Sha256::of(b"an image that boots"))
    );
    assert_eq!(record.run, bench.cx.run());
    assert!(bench.cx.state().await.unwrap().secret(&root_password_key("node1")).is_none());
    assert_eq!(bench.step(1, 0).verify(&bench.cx).await.unwrap(), Verdict::Converged);
}

#[tokio::test]
async fn a_retry_after_the_flash_itself_succeeded_does_not_flash_again() {
    let bench = bench("2.5.1");
    bench.flash(1).await.unwrap();
    bench.flash(1).await.unwrap();
    assert_eq!(bench.board.world(|w| w.powered_while_flashing.len()), 1);
}

#[tokio::test]
async fn a_foreign_transfer_is_never_disturbed() {
    let bench = bench("2.4");
    bench.board.world(|w| {
        w.transfer = Transfer::Moving {
            id: 7,
            process: "Node 3 os install service".into(),
            bytes: 1,
            size: None,
            cancelled: false,
        };
    });
    let failure = bench.flash(1).await.unwrap_err();
    assert_eq!((failure.class(), failure.is_retryable()), (FailureClass::Locked, false));
    assert!(failure.message().contains("Node 3 os install service"));
    assert_eq!(bench.board.world(|w| w.emmc[place(1).slot].clone()), None);
}

#[tokio::test]
async fn an_image_that_differs_from_its_digest_never_reaches_the_board() {
    let mut bench = bench("2.4");
    bench.board.world(|w| w.power[place(1).slot] = Power::On);
    bench.put_record(1, FirstBootState::Done).await;
    bench.image.sha256 = Some(Sha256::of(b"another"));
    let failure = bench.flash(1).await.unwrap_err();
    assert_eq!(failure.class(), FailureClass::Refused);
    assert_eq!(bench.board.world(|w| w.emmc[place(1).slot].clone()), None);
    assert_eq!(bench.board.on(), [1], "the node was not touched");
    assert!(bench.record(1).await.unwrap().is_proven(), "and what is known of it stays known");
}

#[tokio::test]
async fn a_pinned_host_key_in_the_document_stops_the_flash_before_it_erases() {
    let mut bench = bench("2.4");
    let pinned = SshTarget::new("10.10.88.73").host_key(HostKeyPolicy::Pinned(vec![]));
    bench.context.hosts = Hosts::new(Arc::new(Nobody), [("node1".to_owned(), pinned)]);
    assert_eq!(bench.flash(1).await.unwrap_err().class(), FailureClass::Config);
    assert_eq!(bench.board.world(|w| w.emmc[place(1).slot].clone()), None);
}

#[tokio::test]
async fn on_a_board_with_a_hub_only_proven_systems_stay_on_and_all_come_back() {
    let mut bench = bench("2.5.1");
    bench.board.world(|w| w.power = PerSlot::new([Power::Off, Power::On, Power::On, Power::On]));
    bench.put_record(2, FirstBootState::Done).await;
    bench.put_record(3, FirstBootState::Pending).await;
    bench.context.neighbours.running.insert(place(4));
    bench.context.neighbours.announced.insert(place(3));
    bench.flash(1).await.unwrap();
    assert_eq!(bench.board.world(|w| w.powered_while_flashing.clone()), [vec![2, 4]]);
    assert_eq!(bench.board.on(), [2, 3, 4]);
    assert!(leftover_power(&bench.cx.state().await.unwrap(), "board1").is_empty());
    let events = bench.events.lock().unwrap();
    assert!(
        events
            .iter()
            .any(|e| matches!(&e.kind, EventKind::Note { text } if text.contains("powering slot 3")))
    );
}

#[tokio::test]
async fn a_neighbour_that_the_plan_did_not_name_is_not_switched_off_and_nothing_is_erased() {
    let bench = bench("2.5");
    bench.board.world(|w| w.power[place(2).slot] = Power::On);
    let failure = bench.flash(1).await.unwrap_err();
    assert_eq!(failure.class(), FailureClass::Refused);
    assert!(failure.hint_text().is_some_and(|hint| hint.contains("again")), "{failure:?}");
    assert_eq!(bench.board.on(), [2]);
    assert_eq!(bench.board.world(|w| w.emmc[place(1).slot].clone()), None);
}

#[tokio::test]
async fn a_bystander_is_off_from_the_first_flash_of_a_plan_to_the_end_of_the_last() {
    let mut bench = bench("2.5");
    bench.board.world(|w| w.power[place(4).slot] = Power::On);
    let neighbours = &mut bench.context.neighbours;
    neighbours.flashed_too = [place(1), place(2)].into();
    neighbours.queue = FlashQueue::new([place(1), place(2)]);
    let facts = BoardFacts::observe("board1", bench.board.as_ref()).await.unwrap();
    neighbours.announced =
        bystanders("board1", &facts, &bench.cx.state().await.unwrap(), &*neighbours).unwrap();
    assert_eq!(neighbours.announced, [place(4)].into());
    let nodes = [node(1), node(2)];
    let step = stand_by_step("board1", &nodes, &bench.context.neighbours, &bench.context.boards).unwrap();
    let told = step.describe();
    assert_eq!(told.risk, Risk::Disruptive);
    assert!(told.changes[0].what.contains("board1/4 (not in the document)"), "{told:?}");
    assert!(told.changes[0].new.as_deref().is_some_and(|new| new.contains("node1, node2")), "{told:?}");
    step.apply(&bench.cx).await.unwrap();
    assert_eq!(bench.board.on(), [0; 0]);
    bench.flash(1).await.unwrap();
    assert_eq!(bench.board.on(), [0; 0], "one more flash to come");
    bench.flash(2).await.unwrap();
    assert_eq!(bench.board.on(), [4]);
    assert!(leftover_power(&bench.cx.state().await.unwrap(), "board1").is_empty());
}

#[tokio::test]
async fn on_a_board_without_a_hub_nothing_else_is_switched() {
    let bench = bench("2.4");
    bench.board.world(|w| w.power = PerSlot::new([Power::Off, Power::On, Power::On, Power::Off]));
    bench.flash(1).await.unwrap();
    assert_eq!(bench.board.world(|w| w.powered_while_flashing.clone()), [vec![2, 3]]);
}

#[tokio::test]
async fn a_neighbour_that_does_not_go_off_stops_the_flash() {
    let mut bench = bench("2.5");
    bench.context.neighbours.announced.insert(place(2));
    bench.board.world(|w| {
        w.power[place(2).slot] = Power::On;
        w.stuck_on = Some(place(2).slot);
    });
    let failure = bench.flash(1).await.unwrap_err();
    assert_eq!(failure.class(), FailureClass::Refused);
    assert_eq!(bench.board.world(|w| w.emmc[place(1).slot].clone()), None);
}

#[tokio::test]
async fn a_failed_flash_leaves_no_record_the_target_off_and_the_neighbours_on() {
    let mut bench = bench("2.5");
    bench.context.neighbours.announced.insert(place(2));
    bench.put_record(1, FirstBootState::Done).await;
    bench.board.world(|w| {
        w.power[place(2).slot] = Power::On;
        w.fail = Some(BmcError::Stalled {
            attempt: Attempt::new("flash slot 1", "bmc"),
            limit: Duration::from_secs(9),
        });
    });
    let failure = bench.flash(1).await.unwrap_err();
    assert!(failure.report().causes[0].contains("flash slot 1"), "{:?}", failure.report());
    assert!(failure.hint_text().is_some());
    assert_eq!(bench.record(1).await, None, "what is there is unknown");
    assert_eq!(bench.board.on(), [2]);
}

#[tokio::test]
async fn neighbours_that_an_interrupted_flash_left_off_come_back_with_the_next_plan() {
    let bench = bench("2.5");
    bench
        .cx
        .update_state(|state| state.put_record("board/board1/powered-off-for-flash", &vec![place(3).slot]))
        .await
        .unwrap();
    let step = restore_power_step("board1", &bench.cx.state().await.unwrap(), &bench.context.boards).unwrap();
    assert_eq!(step.describe().risk, Risk::Safe);
    step.apply(&bench.cx).await.unwrap();
    assert_eq!(bench.board.on(), [3]);
    assert!(restore_power_step("board1", &bench.cx.state().await.unwrap(), &bench.context.boards).is_none());
}

#[tokio::test]
async fn a_system_that_does_not_boot_fails_with_the_consoles_last_lines() {
    let bench = bench("2.4");
    bench.board.world(|w| w.serial = "DDR init\r\nKernel panic - not syncing: VFS\r\n".into());
    let failure = bench.step(1, 2).apply(&bench.cx).await.unwrap_err();
    assert_eq!(failure.class(), FailureClass::Timeout);
    assert!(failure.report().causes[0].contains("Kernel panic - not syncing: VFS"), "{:?}", failure.report());
    let events = bench.events.lock().unwrap();
    assert!(events.iter().any(
        |e| matches!(&e.kind, EventKind::Waiting { last_seen, .. } if last_seen.contains("Kernel panic"))
    ));
}

#[tokio::test]
async fn a_console_login_without_ssh_ends_the_boot_after_the_grace() {
    let mut bench = bench("2.4");
    bench.context.limits.grace = Duration::ZERO;
    bench.context.limits.boot = Duration::from_secs(3600);
    bench.board.world(|w| w.serial = "Armbian\r\nturing-rk1 login: ".into());
    bench.step(1, 2).apply(&bench.cx).await.unwrap();
    let events = bench.events.lock().unwrap();
    assert!(
        events.iter().any(|e| matches!(&e.kind, EventKind::Note { text } if text.contains("serial console")))
    );
}

#[tokio::test]
async fn power_on_switches_only_its_slot_and_only_when_it_is_off() {
    let bench = bench("2.4");
    let step = bench.step(3, 1);
    step.apply(&bench.cx).await.unwrap();
    step.apply(&bench.cx).await.unwrap();
    assert_eq!(bench.board.on(), [3]);
    assert_eq!(step.verify(&bench.cx).await.unwrap(), Verdict::Converged);
}

#[test]
fn descriptions_are_pure_name_their_risk_and_hold_no_secret() {
    let mut bench = bench("2.4");
    bench.context.first_boot.credentials[0].password = "s3cr3t".to_owned().into();
    let steps = imaging_steps(&node(1), &bench.image, &bench.context);
    let all: Vec<_> = steps.iter().map(|step| step.describe()).collect();
    assert_eq!(all, steps.iter().map(|step| step.describe()).collect::<Vec<_>>());
    let ids: Vec<_> = all.iter().map(|d| (d.id.as_str(), d.risk)).collect();
    assert_eq!(
        ids,
        [
            ("node1/flash", Risk::Destructive),
            ("node1/power-on", Risk::Safe),
            ("node1/boot", Risk::Safe),
            ("node1/first-boot", Risk::Safe)
        ]
    );
    assert_eq!(all[0].locks, ["board1/transfer"]);
    let shown = format!("{all:?} {:?} {:?}", bench.context.first_boot, bench.context.boards);
    assert!(!shown.contains("s3cr3t") && !shown.contains("1234"), "{shown}");
}

/// Every combination that a plan can meet, and what it must lead to.
#[test]
fn only_doubt_or_an_unknown_silent_slot_leads_to_a_flash() {
    let spec = node(1);
    let mut flashes = 0;
    for mark in [None, Some("r1"), Some("r2")] {
        for known in [None, Some(FirstBootState::Pending), Some(FirstBootState::Done)] {
            for reach in [Reach::LoggedIn, Reach::Refused, Reach::OtherKey, Reach::Silent] {
                for power in [Power::On, Power::Off] {
                    for has_image in [true, false] {
                        let mut state = State::default();
                        if let Some(run) = mark {
                            let mark = InDoubt {
                                run: run.into(),
                                since: time::OffsetDateTime::UNIX_EPOCH,
                                title: "x".into(),
                            };
                            state.in_doubt.insert(flash_step_id("node1"), mark);
                        }
                        if let Some(first_boot) = known {
                            // Written by run r1.
                            state
                                .put_record(SlotRecord::key(&place(1)), &record(1, "r1", first_boot))
                                .unwrap();
                        }
                        let decision = decide(&spec, has_image, SlotFacts { power, reach }, &state).unwrap();
                        let case = format!(
                            "{mark:?} {known:?} {reach:?} {power:?} image: {has_image} -> {decision:?}"
                        );
                        let finished = mark == Some("r1") && known.is_some();
                        let in_doubt = mark.is_some() && !finished;
                        match decision {
                            Decision::Flash(FlashReason::InDoubt) => {
                                flashes += 1;
                                assert!(has_image && in_doubt, "{case}");
                            }
                            Decision::Flash(reason @ (FlashReason::NeverFlashed | FlashReason::Foreign)) => {
                                flashes += 1;
                                assert!(
                                    has_image && !in_doubt && known.is_none() && reach != Reach::LoggedIn,
                                    "{case}"
                                );
                                // The person who approves is told whether something answers.
                                assert_eq!(
                                    reason == FlashReason::NeverFlashed,
                                    reach == Reach::Silent,
                                    "{case}"
                                );
                            }
                            Decision::Flash(FlashReason::OtherNode) => panic!("it is this node's: {case}"),
                            Decision::Flash(FlashReason::Requested) => panic!("nobody asked: {case}"),
                            Decision::Leave => assert!(
                                reach == Reach::LoggedIn
                                    && mark.is_none()
                                    && known != Some(FirstBootState::Pending),
                                "{case}"
                            ),
                            Decision::Start { first_boot, settle } => {
                                assert_eq!(first_boot, known == Some(FirstBootState::Pending), "{case}");
                                assert_eq!(settle, finished, "{case}");
                                assert!(!in_doubt, "{case}");
                            }
                            Decision::Unknown { .. } => {
                                assert!(
                                    !has_image || reach == Reach::Refused || reach == Reach::OtherKey,
                                    "{case}"
                                );
                            }
                        }
                        // A node of ours that is only down, or off, is started and never erased.
                        if known == Some(FirstBootState::Done) && !in_doubt {
                            assert!(!matches!(decision, Decision::Flash(_)), "{case}");
                        }
                    }
                }
            }
        }
    }
    assert!(flashes > 0);
}

#[test]
fn a_mark_of_a_slot_that_the_node_has_left_puts_its_new_slot_in_no_doubt() {
    let mut state = State::default();
    let mark = InDoubt { run: "r".into(), since: time::OffsetDateTime::UNIX_EPOCH, title: "x".into() };
    state.in_doubt.insert(flash_step_id("node1"), mark);
    let facts = SlotFacts { power: Power::On, reach: Reach::LoggedIn };
    let decided = |state: &State| decide(&node(1), true, facts, state).unwrap();
    assert_eq!(decided(&state), Decision::Flash(FlashReason::InDoubt), "where it was begun is not known");
    state.put_record(super::record::begun_key("node1"), &place(1).to_string()).unwrap();
    assert_eq!(decided(&state), Decision::Flash(FlashReason::InDoubt));
    state.put_record(super::record::begun_key("node1"), &place(2).to_string()).unwrap();
    assert_eq!(
        decided(&state),
        Decision::Leave,
        "the document moved it: this slot's system answers and stays"
    );
}

#[test]
fn a_record_for_another_node_counts_as_none_and_is_told() {
    let mut state = State::default();
    state.put_record(SlotRecord::key(&place(1)), &record(2, "r", FirstBootState::Done)).unwrap();
    let facts = SlotFacts { power: Power::On, reach: Reach::Silent };
    assert_eq!(decide(&node(1), true, facts, &state).unwrap(), Decision::Flash(FlashReason::OtherNode));
}

#[test]
fn a_neighbour_in_doubt_or_flashed_in_the_same_plan_is_not_proven() {
    let mut state = State::default();
    for slot in [2, 3, 4] {
        state.put_record(SlotRecord::key(&place(slot)), &record(slot, "r", FirstBootState::Done)).unwrap();
    }
    let mark = InDoubt { run: "r".into(), since: time::OffsetDateTime::UNIX_EPOCH, title: "x".into() };
    state.in_doubt.insert(flash_step_id("node2"), mark);
    let neighbours = Neighbours { flashed_too: [place(3)].into(), ..Neighbours::default() };
    let off =
        to_power_off(&place(1), &PerSlot::new([Power::On; 4]), &state, &neighbours, "this-run").unwrap();
    assert_eq!(off.iter().map(|slot| slot.number()).collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn how_a_node_answers_is_read_from_the_error_and_not_from_its_text() {
    let of = |error: SshError| Reach::of::<()>(&Err(crate::ssh_failure("node1", "connect", error)));
    let refused = SshError::Auth { user: "root".into(), host: "h".into(), tried: vec![], remaining: vec![] };
    assert_eq!(of(refused), Reach::Refused);
    assert_eq!(of(SshError::Disconnected { host: "h".into() }), Reach::Silent);
    let changed = SshError::HostKeyChanged {
        host: "h".into(),
        expected: vec![],
        found: turingpi_ssh::Fingerprint::of_blob(b"x"),
        file: None,
        line: None,
    };
    assert_eq!(of(changed), Reach::OtherKey);
    assert_eq!(Reach::of(&Ok(())), Reach::LoggedIn);
}
