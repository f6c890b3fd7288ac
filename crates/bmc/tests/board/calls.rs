//! Everything beside power, USB and uploads, against the simulated board.

use futures::StreamExt;
use turingpi_bmc::{
    Candidate, DiscoveryLimits, FirmwareSource, NodeInfoChange, RemoteImage, SavedToken, SerialState,
    UartEncoding, discover,
};

use super::*;

const MODERN: [Firmware; 2] = [Firmware::V2_1_0, Firmware::Bmcd2_3_7];
const LIMIT: Duration = Duration::from_secs(60);

async fn back(client: &HttpBmcClient) {
    let back = async {
        while client.ping().await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, back).await.unwrap();
}

#[tokio::test]
async fn names_fans_pins_and_lines_of_modern_firmware() {
    for firmware in MODERN {
        let bench = Bench::new(firmware).await;
        let client = bench.client();
        let name =
            NodeInfoChange { name: Some("alpha".into()), module_name: Some("RK1".into()), uart_baud: None };
        client.set_node_info(&PerSlot::new([None, Some(name), None, None])).await.unwrap();
        let info = client.node_info().await.unwrap();
        assert_eq!(
            (info[Slot::ALL[1]].name.as_deref(), info[Slot::ALL[1]].module_name.as_deref()),
            (Some("alpha"), Some("RK1")),
            "{firmware:?}"
        );
        assert_eq!(info[Slot::ALL[0]].name, None);

        let fans = client.cooling().await.unwrap();
        client.set_cooling(&fans[0].device, fans[0].max_speed).await.unwrap();
        assert_eq!(client.cooling().await.unwrap()[0].speed, fans[0].max_speed);
        let error = client.set_cooling(&fans[0].device, 99).await.unwrap_err();
        assert!(error.to_string().contains("exceeds maximum speed"), "{error}");

        assert!(!client.usb_node1_alternative().await.unwrap());
        client.set_usb_node1_alternative(true).await.unwrap();
        assert!(client.usb_node1_alternative().await.unwrap());
        client.set_usb_node1_alternative(false).await.unwrap();
        assert!(!client.usb_node1_alternative().await.unwrap());

        client.usb_boot(SLOT).await.unwrap();
        client.clear_usb_boot().await.unwrap();
        assert_eq!(client.serial_status().await.unwrap(), PerSlot::new([SerialState::Running; 4]));
        bench.node.uart.write(b"login: ");
        for _ in 0..2 {
            let text = client.uart_read(SLOT, UartEncoding::Utf8).await.unwrap();
            assert!(text.ends_with("login: "), "reading empties nothing: {text}");
        }
        let error = client.temperatures().await.unwrap_err();
        assert!(matches!(error, BmcError::Unsupported { .. }), "{error:?}");
        // The last: connections break a second later.
        client.reset_network().await.unwrap();
    }
}

#[tokio::test]
async fn mass_storage_mode_comes_and_goes() {
    let bench = Bench::new(Firmware::V2_1_0).await;
    let client = bench.client();
    client.mass_storage(SLOT).await.unwrap();
    assert!(bench.node.powered());
    client.normal_mode(SLOT).await.unwrap();
    let empty = Bench::new(Firmware::V2_1_0).await;
    let error = empty.client().mass_storage(Slot::ALL[2]).await.unwrap_err();
    assert!(error.to_string().contains("not found or supported"), "{error}");
}

#[tokio::test]
async fn a_power_cycle_switches_off_and_on() {
    for firmware in ALL_FIRMWARE {
        let bench = Bench::new(firmware).await;
        let client = bench.client();
        client.power_cycle(SLOT, Duration::from_millis(1)).await.unwrap();
        assert!(bench.node.powered(), "{firmware:?}");
        assert_eq!(client.power().await.unwrap()[SLOT], Power::On);
    }
}

#[tokio::test]
async fn an_image_on_the_card_is_flashed_and_a_missing_one_is_named() {
    let os = OsImage::armbian();
    for firmware in UPLOADING {
        let card = SdCard::new().file("/mnt/sdcard/armbian.img", os.raw());
        let bench = Bench::with(firmware, Some(card)).await;
        let client = bench.client();
        assert!(client.sd_card().await.unwrap().is_some(), "{firmware:?}");
        let image = RemoteImage::file("/mnt/sdcard/armbian.img").unwrap();
        let told = Mutex::new(Vec::new());
        client.flash_remote(SLOT, image, &|p| told.lock().unwrap().push(p)).await.unwrap();
        assert!(*bench.node.emmc.lock().unwrap() == os.raw(), "{firmware:?}: other bytes were written");
        assert_eq!(told.into_inner().unwrap().last(), Some(&FlashProgress::Finished));
        let image = RemoteImage::file("/mnt/sdcard/nope.img").unwrap();
        let error = client.flash_remote(SLOT, image, &|_| {}).await.unwrap_err();
        assert_eq!(
            cause(error),
            (FlashPhase::Start, FlashCause::NoFile, NodeAfter::Untouched),
            "{firmware:?}"
        );
    }
    let bench = Bench::new(Firmware::V2_1_0).await;
    assert_eq!(bench.client().sd_card().await.unwrap(), None);
}

#[tokio::test]
async fn firmware_is_staged_and_runs_after_the_reboot() {
    let bench = Bench::new(Firmware::V2_0_5).await;
    let client = bench.client();
    let file = ImageUpload::bytes("tp2-ota-v2.1.0.tpu", Firmware::V2_1_0.image()).unwrap();
    client.upgrade_firmware(FirmwareSource::Upload(file), &|_| {}).await.unwrap();
    assert_eq!(client.about().await.unwrap().version.to_string(), "2.0.5", "staged, not running");
    client.reboot().await.unwrap();
    assert!(client.saved_token().is_none());
    let upgraded = async {
        loop {
            back(&client).await;
            if client.about().await.is_ok_and(|about| about.version.to_string() == "2.3.4") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, upgraded).await.unwrap();

    let nonsense = ImageUpload::bytes("nonsense.tpu", vec![1; 1000]).unwrap();
    let error = client.upgrade_firmware(FirmwareSource::Upload(nonsense), &|_| {}).await.unwrap_err();
    assert_eq!(cause(error).1, FlashCause::FirmwareRefused);
}

#[tokio::test]
async fn a_restart_of_the_daemon_costs_a_login_and_a_kept_token_none() {
    let bench = Bench::new(Firmware::V2_1_0).await;
    let client = bench.client();
    client.about().await.unwrap();
    let saved = client.saved_token().unwrap();
    let kept = SavedToken::from_json(secrecy::ExposeSecret::expose_secret(&saved.to_json())).unwrap();
    let second = HttpBmcClient::builder(bench.view.url().parse().unwrap())
        .trust(Trust::Pin(kept.fingerprint()))
        .saved_token(kept)
        .build()
        .unwrap();
    second.power().await.unwrap();
    client.reload().await.unwrap();
    back(&client).await;
    client.about().await.unwrap();
}

#[tokio::test]
async fn a_backup_is_a_tar_gz() {
    let bench = Bench::new(Firmware::V2_1_0).await;
    let mut archive = Vec::new();
    let length = bench.client().backup(&mut archive).await.unwrap();
    assert_eq!(length, archive.len() as u64);
    assert_eq!(archive[..2], [0x1f, 0x8b]);
}

#[tokio::test]
async fn nothing_is_cancelled_where_nothing_moves() {
    let bench = Bench::new(Firmware::V2_1_0).await;
    let client = bench.client();
    assert!(!client.cancel_transfer().await.unwrap());
    assert_eq!(client.transfer().await.unwrap(), Transfer::Idle);
    bench.view.ghost_flash(1);
    assert!(client.cancel_transfer().await.unwrap());
    assert!(matches!(client.transfer().await.unwrap(), Transfer::Failed { .. }));
}

#[tokio::test]
async fn a_console_is_a_stream_with_every_firmware() {
    for firmware in ALL_FIRMWARE {
        let bench = Bench::new(firmware).await;
        let client = bench.client();
        client.set_power(&PerSlot::new([Some(Power::On), None, None, None])).await.unwrap();
        bench.node.uart.write(b"yesterday\r\n");
        let mut console = client.console(SLOT).await.unwrap();
        assert!(console.history().ends_with("yesterday\r\n"), "{firmware:?}: {}", console.history());
        bench.node.uart.write("Booting – «ä»\r\nturing login: ".as_bytes());
        let mut text = String::new();
        let read = async {
            while !text.ends_with("login: ") {
                text += &console.read().await.unwrap().text;
            }
        };
        tokio::time::timeout(LIMIT, read).await.unwrap();
        assert_eq!(text, "Booting – «ä»\r\nturing login: ", "{firmware:?}");
        console.write(b"ro").await.unwrap();
        console.write(b"ot\r").await.unwrap();
        assert_eq!(bench.node.typed.lock().unwrap().last().map(String::as_str), Some("root"), "{firmware:?}");
        console.close().await;
    }
}

#[tokio::test]
async fn every_firmware_is_found_without_a_login() {
    let expected = [
        Some(Generation::Legacy),
        Some(Generation::V2_0),
        Some(Generation::V2_0),
        Some(Generation::V2_1),
        Some(Generation::V2_3),
    ];
    for (firmware, generation) in ALL_FIRMWARE.into_iter().zip(expected) {
        let bench = Bench::new(firmware).await;
        let port = |url: String| url.parse::<url::Url>().unwrap().port_or_known_default().unwrap();
        let candidate = Candidate {
            host: "127.0.0.1".into(),
            https_port: port(bench.view.url()),
            http_port: port(bench.view.plain_url()),
        };
        let limits = DiscoveryLimits { each: LIMIT, at_once: 1 };
        let found: Vec<_> = discover([candidate], limits).collect().await;
        assert_eq!(found.len(), 1, "{firmware:?}");
        assert_eq!(found[0].generation, generation, "{firmware:?}: {found:?}");
        let shown = bench.view.fingerprint().map(|f| f.parse().unwrap());
        assert_eq!(found[0].fingerprint, shown, "{firmware:?}");
        // And nobody is any nearer to a block.
        for _ in 0..6 {
            bench.client().power().await.unwrap();
        }
    }
}
