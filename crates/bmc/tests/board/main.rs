//! The client against the simulated board, which shares no types with it and answers as the real daemons do.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use secrecy::SecretString;
use turingpi_bmc::{
    BmcClient, BmcError, BmcTimeouts, Capability, FlashCause, FlashPhase, FlashProgress, Generation,
    HttpBmcClient, ImageUpload, NodeAfter, PerSlot, Power, Slot, Transfer, Trust, UsbBus, UsbMode, UsbRoute,
    probe_fingerprint,
};
use turingpi_testkit::{
    Action, Board, BoardPlan, BoardRevision, BoardView, Fault, Faults, Firmware, Module, ModuleKind, OsImage,
    SdCard, Site, Surroundings, Uart,
};

mod calls;

const ALL_FIRMWARE: [Firmware; 5] =
    [Firmware::V1_1_0, Firmware::V2_0_0, Firmware::V2_0_5, Firmware::V2_1_0, Firmware::Bmcd2_3_7];
const UPLOADING: [Firmware; 4] = [Firmware::V2_0_0, Firmware::V2_0_5, Firmware::V2_1_0, Firmware::Bmcd2_3_7];
const SLOT: Slot = Slot::ALL[0];

/// A module with an eMMC, a power pin and a serial line.
struct Node {
    emmc: Mutex<Vec<u8>>,
    powered: Mutex<bool>,
    uart: Uart,
    typed: Mutex<Vec<String>>,
}

impl Node {
    fn new(ring: usize) -> Arc<Self> {
        Arc::new(Self {
            emmc: Mutex::default(),
            powered: Mutex::default(),
            uart: Uart::new(ring),
            typed: Mutex::default(),
        })
    }
}

#[async_trait]
impl Module for Node {
    fn kind(&self) -> ModuleKind {
        ModuleKind::Rk1
    }
    fn emmc_bytes(&self) -> u64 {
        64 * 1024 * 1024
    }
    fn bootable(&self) -> bool {
        OsImage::parse(&self.emmc.lock().unwrap()).is_some()
    }
    async fn set_power(&self, on: bool, _loader: bool) {
        *self.powered.lock().unwrap() = on;
    }
    fn powered(&self) -> bool {
        *self.powered.lock().unwrap()
    }
    async fn write_emmc(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut emmc = self.emmc.lock().unwrap();
        emmc.truncate(offset.try_into().unwrap());
        emmc.extend_from_slice(bytes);
        Ok(())
    }
    async fn read_emmc(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let emmc = self.emmc.lock().unwrap();
        let start = usize::try_from(offset).unwrap().min(emmc.len());
        Ok(emmc[start..(start + length).min(emmc.len())].to_vec())
    }
    fn uart(&self) -> &Uart {
        &self.uart
    }
    async fn type_line(&self, line: &str) {
        self.typed.lock().unwrap().push(line.to_owned());
    }
}

struct Bench {
    _board: Board,
    view: BoardView,
    node: Arc<Node>,
    faults: Faults,
}

impl Bench {
    async fn new(firmware: Firmware) -> Self {
        Self::with(firmware, None).await
    }

    async fn with(firmware: Firmware, card: Option<SdCard>) -> Self {
        // v2.4 for the old ones, as they were sold; the newer ones on v2.5.1.
        let old = matches!(firmware, Firmware::V1_1_0 | Firmware::V2_0_0 | Firmware::V2_0_5);
        let revision = if old { BoardRevision::V2_4 } else { BoardRevision::V2_5_1 };
        let ring = if firmware == Firmware::V1_1_0 { 64 * 1024 } else { 16 * 1024 };
        let (node, faults) = (Node::new(ring), Faults::default());
        let modules: [Option<Arc<dyn Module>>; 4] = [Some(node.clone()), None, None, None];
        let surroundings = Surroundings { faults: faults.clone(), ..Surroundings::default() };
        let mut plan =
            BoardPlan::new("board1").firmware(firmware).revision(revision).credentials("root", "sesame");
        if let Some(card) = card {
            plan = plan.sd_card(card);
        }
        let board = Board::start(plan, modules, surroundings).await.unwrap();
        Self { view: board.view(), _board: board, node, faults }
    }

    fn client(&self) -> HttpBmcClient {
        self.client_with("sesame")
    }

    fn client_with(&self, password: &str) -> HttpBmcClient {
        let builder = HttpBmcClient::builder(self.view.url().parse().unwrap())
            .credentials("root", SecretString::from(password))
            .timeouts(BmcTimeouts { poll: Duration::from_millis(5), ..BmcTimeouts::default() });
        match self.view.fingerprint() {
            Some(pin) => builder.trust(Trust::Pin(pin.parse().unwrap())).build().unwrap(),
            None => builder.build().unwrap(),
        }
    }

    fn fault(&self, request: &str, action: Action) -> Fault {
        Fault::at(Site::Bmc { board: None, request: request.to_owned() }, action)
    }
}

fn cause(error: BmcError) -> (FlashPhase, FlashCause, NodeAfter) {
    match error {
        BmcError::Flash { phase, cause, node, .. } => (phase, cause, node),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn every_firmware_is_detected() {
    let expected = [
        (Generation::Legacy, "1.1.0"),
        (Generation::V2_0, "2.0.0"),
        (Generation::V2_0, "2.0.5"),
        (Generation::V2_1, "2.3.4"),
        (Generation::V2_3, "2.3.7"),
    ];
    for (firmware, (generation, version)) in ALL_FIRMWARE.into_iter().zip(expected) {
        let bench = Bench::new(firmware).await;
        let about = bench.client().about().await.unwrap();
        assert_eq!(
            (about.generation, about.version.to_string().as_str()),
            (generation, version),
            "{firmware:?}"
        );
        if generation >= Generation::V2_1 {
            assert_eq!(about.usb_hub(), Some(true), "{firmware:?}: {about:?}");
        }
    }
}

#[tokio::test]
async fn power_reset_usb_and_info_work_with_every_firmware() {
    for firmware in ALL_FIRMWARE {
        let bench = Bench::new(firmware).await;
        let client = bench.client();
        assert_eq!(client.power().await.unwrap(), PerSlot::new([Power::Off; 4]), "{firmware:?}");
        client.set_power(&PerSlot::new([Some(Power::On), None, None, Some(Power::On)])).await.unwrap();
        let power = client.power().await.unwrap();
        assert_eq!(power, PerSlot::new([Power::On, Power::Off, Power::Off, Power::On]), "{firmware:?}");
        assert!(bench.node.powered());
        client.reset(SLOT).await.unwrap();
        client.set_power(&PerSlot::new([Some(Power::Off); 4])).await.unwrap();
        assert!(!bench.node.powered());

        client.set_usb(Slot::ALL[2], UsbMode::Device, UsbRoute::Port).await.unwrap();
        let usb = client.usb().await.unwrap();
        assert_eq!(
            (usb.slot, usb.mode, usb.route),
            (Slot::ALL[2], UsbMode::Device, UsbRoute::Port),
            "{firmware:?}"
        );
        if firmware != Firmware::V1_1_0 {
            client.set_usb(Slot::ALL[1], UsbMode::Device, UsbRoute::Bmc).await.unwrap();
            assert_eq!(client.usb().await.unwrap().route, UsbRoute::Bmc, "{firmware:?}");
        }
        assert!(!client.info().await.unwrap().interfaces.is_empty(), "{firmware:?}");
    }
}

#[tokio::test]
async fn a_board_with_a_hub_gets_no_host_role() {
    let bench = Bench::new(Firmware::V2_1_0).await;
    let client = bench.client();
    assert_eq!(client.usb().await.unwrap().bus, Some(UsbBus::Hub));
    let error = client.set_usb(SLOT, UsbMode::Host, UsbRoute::Port).await.unwrap_err();
    assert!(matches!(error, BmcError::Unsupported { capability: Capability::UsbHost, .. }), "{error:?}");
}

#[tokio::test]
async fn a_console_is_followed_with_every_firmware() {
    for firmware in ALL_FIRMWARE {
        let bench = Bench::new(firmware).await;
        let client = bench.client();
        client.set_power(&PerSlot::new([Some(Power::On), None, None, None])).await.unwrap();
        bench.node.uart.write(b"text of yesterday\r\n");
        let mut mark = client.uart_mark(SLOT).await.unwrap();
        for part in ["U-Boot 2024\r\n", "[    0.0] Booting Linux – «ä»\r\n", "turing login: "] {
            bench.node.uart.write(part.as_bytes());
            let heard = client.uart_since(&mut mark).await.unwrap();
            assert_eq!((heard.text.as_str(), heard.gap), (part, false), "{firmware:?}");
        }
        client.uart_send(SLOT, "root & «ä»").await.unwrap();
        assert_eq!(*bench.node.typed.lock().unwrap(), ["root & «ä»"], "{firmware:?}");
        // More than any buffer holds.
        let flood: String = (0..10_000).map(|n| format!("line {n}\r\n")).collect();
        bench.node.uart.write(flood.as_bytes());
        let heard = client.uart_since(&mut mark).await.unwrap();
        assert!(heard.gap && flood.ends_with(&heard.text), "{firmware:?}: {} characters", heard.text.len());
    }
}

#[tokio::test]
async fn a_raw_image_is_flashed_with_every_firmware_that_takes_uploads() {
    for firmware in UPLOADING {
        let bench = Bench::new(firmware).await;
        let client = bench.client();
        let image = OsImage::armbian().raw();
        let told = Mutex::new(Vec::new());
        let upload = ImageUpload::bytes("armbian.img", image.clone()).unwrap();
        let flashed = client.flash(SLOT, upload.clone(), &|p| told.lock().unwrap().push(p)).await.unwrap();
        assert_eq!(Some(flashed.sha256), upload.sha256, "{firmware:?}");
        assert!(*bench.node.emmc.lock().unwrap() == image, "{firmware:?}: other bytes were written");
        assert!(!bench.node.powered(), "the node is off after a flash");
        assert_eq!(client.power().await.unwrap()[SLOT], Power::Off);
        assert!(matches!(client.transfer().await.unwrap(), Transfer::Done { .. }));
        let told = told.into_inner().unwrap();
        assert_eq!(
            (told.first(), told.last()),
            (Some(&FlashProgress::Starting), Some(&FlashProgress::Finished))
        );
        // And once more, over the state the first one left.
        client.flash(SLOT, upload, &|_| {}).await.unwrap();
    }
}

#[tokio::test]
async fn an_xz_image_is_unpacked_by_the_firmware_that_can() {
    let os = OsImage::debian();
    let bench = Bench::new(Firmware::V2_1_0).await;
    let upload = ImageUpload::bytes("debian.img", os.xz()).unwrap();
    bench.client().flash(SLOT, upload.clone(), &|_| {}).await.unwrap();
    assert!(*bench.node.emmc.lock().unwrap() == os.raw());

    let old = Bench::new(Firmware::V2_0_5).await;
    let error = old.client().flash(SLOT, upload, &|_| {}).await.unwrap_err();
    assert!(matches!(error, BmcError::Unsupported { capability: Capability::Xz, .. }), "{error:?}");
    assert_eq!(old.view.jobs_started(), 0);
}

#[tokio::test]
async fn an_empty_slot_is_named_as_the_cause() {
    for firmware in UPLOADING {
        let bench = Bench::new(firmware).await;
        let upload = ImageUpload::bytes("armbian.img", OsImage::armbian().raw()).unwrap();
        let found = cause(bench.client().flash(Slot::ALL[3], upload, &|_| {}).await.unwrap_err());
        assert_eq!(
            (found.1, found.2),
            (FlashCause::ModuleNotFound, NodeAfter::OnInFlashMode),
            "{firmware:?}"
        );
    }
}

#[tokio::test]
async fn a_corrupted_write_is_named_as_the_cause() {
    let bench = Bench::new(Firmware::V2_1_0).await;
    bench.faults.add(Fault::at(Site::Flash { board: None, slot: None }, Action::Corrupt));
    let upload = ImageUpload::bytes("armbian.img", OsImage::armbian().raw()).unwrap();
    let error = bench.client().flash(SLOT, upload, &|_| {}).await.unwrap_err();
    assert_eq!(cause(error).1, FlashCause::ReadBack);
}

#[tokio::test]
async fn a_wrong_digest_is_found_by_the_bmc() {
    let bench = Bench::new(Firmware::V2_1_0).await;
    let digest = "ab".repeat(32);
    let upload =
        ImageUpload::bytes("armbian.img", OsImage::armbian().raw()).unwrap().with_sha256(&digest).unwrap();
    let error = bench.client().flash(SLOT, upload, &|_| {}).await.unwrap_err();
    assert!(matches!(cause(error).1, FlashCause::Checksum { expected, .. } if expected == digest));
}

#[tokio::test]
async fn another_clients_job_is_left_alone_and_one_that_takes_over_is_told() {
    let bench = Bench::new(Firmware::V2_1_0).await;
    let upload = ImageUpload::bytes("armbian.img", OsImage::armbian().raw()).unwrap();
    bench.view.ghost_flash(1); // it waits for its upload and so moves for a while
    let error = bench.client().flash(SLOT, upload.clone(), &|_| {}).await.unwrap_err();
    assert!(matches!(error, BmcError::Busy { .. }), "{error:?}");

    let bench = Bench::new(Firmware::V2_1_0).await;
    bench.faults.add(Fault::at(Site::Flash { board: None, slot: None }, Action::Replace));
    let error = bench.client().flash(SLOT, upload, &|_| {}).await.unwrap_err();
    assert!(matches!(error, BmcError::Replaced { .. }), "{error:?}");
}

#[tokio::test]
async fn a_cut_upload_and_a_restarting_daemon_are_told_apart() {
    let upload = ImageUpload::bytes("armbian.img", OsImage::armbian().raw()).unwrap();
    let bench = Bench::new(Firmware::V2_1_0).await;
    bench.faults.add(bench.fault("POST /api/bmc/upload/", Action::CutAfter(1_000_000)));
    let error = bench.client().flash(SLOT, upload.clone(), &|_| {}).await.unwrap_err();
    assert!(error.is_transient());
    assert_eq!(cause(error).1, FlashCause::ConnectionLost);
    // The same again, and it works.
    bench.client().flash(SLOT, upload.clone(), &|_| {}).await.unwrap();

    let bench = Bench::new(Firmware::V2_1_0).await;
    bench.faults.add(Fault::at(Site::Flash { board: None, slot: None }, Action::Restart));
    let error = bench.client().flash(SLOT, upload, &|_| {}).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
}

#[tokio::test]
async fn a_dropped_flash_is_cancelled_on_the_board() {
    let bench = Bench::new(Firmware::V2_1_0).await;
    let client = bench.client();
    bench.faults.add(Fault::at(Site::Flash { board: None, slot: None }, Action::Hang));
    let upload = ImageUpload::bytes("zeros.img", vec![1; 48 * 1024 * 1024]).unwrap();
    let uploading = Arc::new(tokio::sync::Notify::new());
    let heard = uploading.clone();
    let flashing = client.clone();
    let task = tokio::spawn(async move {
        let told = move |progress| {
            if matches!(progress, FlashProgress::Uploading { sent: 1.., .. }) {
                heard.notify_one();
            }
        };
        flashing.flash(SLOT, upload, &told).await
    });
    uploading.notified().await;
    task.abort();
    let _ = task.await;
    let ended = async {
        while !matches!(client.transfer().await.unwrap(), Transfer::Failed { .. }) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), ended).await.unwrap();
}

#[tokio::test]
async fn a_daemon_restart_costs_one_login_and_no_block() {
    let bench = Bench::new(Firmware::V2_1_0).await;
    let client = bench.client();
    for _ in 0..7 {
        client.power().await.unwrap();
        bench.faults.add(bench.fault("type=power", Action::ExpireToken));
        client.power().await.unwrap();
    }
}

#[tokio::test]
async fn a_wrong_password_never_gets_the_address_blocked() {
    let bench = Bench::new(Firmware::V2_1_0).await;
    let wrong = bench.client_with("open");
    for _ in 0..10 {
        assert!(matches!(wrong.power().await.unwrap_err(), BmcError::Auth { .. }));
    }
    bench.client().power().await.unwrap();
    bench.view.ban(std::net::Ipv4Addr::LOCALHOST.into(), Duration::from_secs(240));
    let error = bench.client().power().await.unwrap_err();
    let wait = error.retry_after().unwrap();
    assert!(wait <= Duration::from_secs(240) && wait > Duration::from_secs(120), "{wait:?}");
}

#[tokio::test]
async fn another_certificate_is_refused() {
    let bench = Bench::new(Firmware::V2_1_0).await;
    let client = bench.client();
    let pinned = probe_fingerprint(&bench.view.url().parse().unwrap()).await.unwrap();
    bench.view.replace_certificate().unwrap();
    let error = client.about().await.unwrap_err();
    assert!(
        matches!(error, BmcError::Tls { expected: Some(expected), found: Some(found), .. } if expected == pinned && found != pinned),
        "{error:?}"
    );
}
