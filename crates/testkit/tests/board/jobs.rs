//! Flash and firmware jobs.

use std::{sync::Arc, time::Duration};

use sha2::{Digest as _, Sha256};
use turingpi_testkit::{BoardPlan, BoardRevision, Firmware, Mirror, MirrorPlan, ModuleKind, OsImage, SdCard};

use crate::support::{Bench, FakeModule};

fn plan() -> BoardPlan {
    BoardPlan::new("board1")
}
fn old() -> BoardPlan {
    plan().firmware(Firmware::V2_0_5).revision(BoardRevision::V2_4)
}
fn image() -> OsImage {
    OsImage::armbian().with_size(512 * 1024)
}
fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
fn no_space_left() -> &'static str {
    "No space left on device (os error 28)"
}

#[tokio::test]
async fn a_raw_upload_ends_done_with_the_module_off_and_its_emmc_written() {
    let bench = Bench::start(plan()).await;
    let raw = image().raw();
    let handle = bench.start_job(&format!("type=flash&node=0&file=a.img&length={}", raw.len())).await;
    let reply = bench.upload(handle, raw.clone()).await;
    assert_eq!((reply.status, reply.body.as_str(), reply.content_type), (200, "", None));
    let done = bench.job_is("Done").await;
    assert_eq!(done["Done"][1], raw.len());
    assert!(done["Done"][0]["secs"].is_u64() && done["Done"][0]["nanos"].is_u64());
    assert_eq!(bench.module(1).emmc(), raw);
    assert_eq!(bench.view.power(), [false; 4]);
    assert_eq!(bench.view.power_intent(), [false; 4]);
    let flash = &bench.view.flashes()[0];
    assert_eq!((flash.slot, flash.written_slot, flash.bytes), (1, Some(1), raw.len() as u64));
    assert_eq!((flash.sha256.clone(), flash.error.clone()), (sha256(&raw), None));
}

#[tokio::test]
async fn xz_is_unpacked_by_the_name_only() {
    for (name, unpacked) in [("a.img.xz", true), ("a.img", false), ("a.XZ", false), ("stream", false)] {
        let bench = Bench::start(plan()).await;
        let (raw, packed) = (image().raw(), image().xz());
        let sha = sha256(&packed);
        let query = format!("type=flash&node=0&file={name}&length={}&sha256={sha}", packed.len());
        let handle = bench.start_job(&query).await;
        assert_eq!(bench.upload(handle, packed.clone()).await.status, 200);
        let done = bench.job_is("Done").await;
        assert_eq!(done["Done"][1], packed.len(), "the declared size, not what was written");
        assert!(bench.module(1).emmc() == if unpacked { raw } else { packed }, "{name}");
    }
}

#[tokio::test]
async fn the_old_daemon_unpacks_nothing_and_ignores_sha256() {
    let bench = Bench::start(old()).await;
    let packed = image().xz();
    let query = format!("type=flash&node=0&file=a.img.xz&length={}&sha256=zz", packed.len());
    let handle = bench.start_job(&query).await;
    assert_eq!(bench.upload(handle, packed.clone()).await.status, 200);
    bench.job_is("Done").await;
    assert_eq!(bench.module(1).emmc(), packed);
}

#[tokio::test]
async fn the_status_literals_name_the_service_of_the_generation() {
    let cases = [
        (plan(), "type=flash&node=1", "Node 2 os install service"),
        (plan(), "type=firmware", "firmware upgrade service"),
        (old(), "type=flash&node=1", "Node 2 upgrade service"),
        (old(), "type=firmware", "os upgrade service"),
        (old().firmware(Firmware::V2_0_0), "type=flash&node=1", "node 2 upgrade service"),
    ];
    for (plan, query, process) in cases {
        let bench = Bench::start(plan).await;
        let id = bench.start_job(&format!("{query}&file=a&length=3000000")).await;
        let status = bench.get("/api/bmc?opt=get&type=flash").await;
        assert_eq!(status.content_type.as_deref(), Some("text/plain; charset=utf-8"));
        let literal = format!(
            r#"{{"Transferring":{{"id":{id},"process_name":"{process}","size":3000000,"cancelled":false,"bytes_written":0}}}}"#
        );
        if bench.job().get("Transferring").is_some() {
            assert_eq!(status.body, literal);
        } else {
            // Slot 2 is empty: its search may have failed already.
            assert!(status.body == literal || status.body.starts_with(r#"{"Error":"#), "{}", status.body);
        }
    }
}

#[tokio::test]
async fn a_body_that_is_no_form_ends_done_with_nothing_written() {
    let bench = Bench::start(plan()).await;
    let handle = bench.start_job("type=flash&node=0&file=a.img&length=5000").await;
    let answer = bench
        .http
        .post(bench.url(&format!("/api/bmc/upload/{handle}")))
        .basic_auth("root", Some("turing"))
        .body(vec![7_u8; 5000])
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 500);
    assert_eq!(answer.text().await.unwrap(), "Multipart form invalid");
    assert_eq!(bench.job_is("Done").await["Done"][1], 5000);
    assert_eq!(bench.view.flashes()[0].bytes, 0);
    assert!(bench.module(1).emmc().is_empty());
}

#[tokio::test]
async fn a_length_that_is_wrong_cancels_the_job() {
    for (declared, text) in [(6000, "missing 1 kB bytes"), (4000, "missing 18.45 EB bytes")] {
        let bench = Bench::start(plan()).await;
        let handle = bench.start_job(&format!("type=flash&node=0&file=a.img&length={declared}")).await;
        let reply = bench.upload(handle, vec![7; 5000]).await;
        assert_eq!((reply.status, reply.body.as_str()), (500, text));
        assert_eq!(bench.job(), serde_json::json!({"Error": "cancelled by user"}));
        bench.until("the clean-up", || bench.view.flashes().len() == 1 && !bench.view.power()[0]).await;
    }
}

#[tokio::test]
async fn the_old_daemon_answers_200_to_a_short_upload_and_notes_the_error() {
    let bench = Bench::start(old()).await;
    let handle = bench.start_job("type=flash&node=0&file=a.img&length=6000").await;
    assert_eq!(bench.upload(handle, vec![7; 5000]).await.status, 200);
    assert_eq!(bench.job_is("Error").await["Error"], "missing 1000 bytes");
}

#[tokio::test]
async fn uploads_to_the_wrong_job_are_refused_with_the_reason() {
    let bench = Bench::start(plan()).await;
    let handle = bench.start_job("type=flash&node=0&file=a.img&length=5000").await;
    let other = bench.upload(handle.wrapping_add(1), vec![7; 10]).await;
    assert_eq!((other.status, other.body.as_str()), (500, "unauthorized request for handle"));
    assert_eq!(bench.upload(handle, vec![7; 5000]).await.status, 200);
    bench.job_is("Done").await;
    let late = bench.upload(handle, vec![7; 5000]).await;
    assert_eq!(late.body, "cannot execute command in current state. current=Done, expected=Transferring");
}

#[tokio::test]
async fn an_upload_to_a_local_job_is_refused() {
    let raw = image().raw();
    let card = SdCard::new().file("/mnt/sdcard/a.img", raw.clone());
    let bench = Bench::start(plan().sd_card(card)).await;
    // Slot 1 waits for a module that takes its time: the job is still there when the upload comes.
    bench.faults.add(turingpi_testkit::Fault::at(
        turingpi_testkit::Site::Flash { board: None, slot: Some(1) },
        turingpi_testkit::Action::Hang,
    ));
    let handle = bench.start_job("type=flash&node=0&local&file=/mnt/sdcard/a.img").await;
    let reply = bench.upload(handle, vec![1]).await;
    assert_eq!(
        reply.body,
        "cannot transfer bytes to worker. This is either because the transfer happens locally, or is already ongoing."
    );
}

#[tokio::test]
async fn an_upload_that_does_not_begin_in_ten_seconds_is_too_late() {
    let bench = Bench::start(plan()).await;
    let handle = bench.start_job("type=flash&node=0&file=a.img&length=5000").await;
    bench.view.clock().advance(Duration::from_secs(9));
    tokio::task::yield_now().await;
    assert!(bench.job().get("Transferring").is_some());
    bench.view.clock().advance(Duration::from_secs(1));
    assert_eq!(bench.job_is("Error").await["Error"], "Send timeout");
    let late = bench.upload(handle, vec![7; 5000]).await;
    assert_eq!(late.body, "cannot execute command in current state. current=Error, expected=Transferring");
    bench.until("the module to be switched off", || !bench.view.power()[0]).await;
}

#[tokio::test]
async fn the_timer_of_an_earlier_start_kills_a_later_job_that_has_not_begun() {
    let bench = Bench::start(plan()).await;
    bench.start_job("type=flash&node=0&file=a.img&length=5000").await;
    bench.view.clock().advance(Duration::from_millis(8500));
    let second = bench.start_job("type=flash&node=0&file=b.img&length=5000").await;
    bench.view.clock().advance(Duration::from_millis(1500));
    assert_eq!(bench.job_is("Error").await["Error"], "Send timeout");
    assert_eq!(bench.upload(second, vec![7; 5000]).await.status, 500);
}

#[tokio::test]
async fn a_timer_does_not_touch_an_upload_that_has_begun() {
    let bench = Bench::start(plan()).await;
    let handle = bench.start_job("type=flash&node=0&file=a.img&length=5000").await;
    assert_eq!(bench.upload(handle, vec![7; 5000]).await.status, 200);
    bench.view.clock().advance(Duration::from_secs(60));
    bench.job_is("Done").await;
}

#[tokio::test]
async fn a_second_start_replaces_the_first_without_a_word() {
    let bench = Bench::start(plan()).await;
    let first = bench.start_job("type=flash&node=0&file=a.img&length=5000").await;
    let second = bench.start_job("type=flash&node=0&file=b.img&length=4000").await;
    assert_eq!(bench.job()["Transferring"]["id"], second);
    assert_eq!(bench.upload(first, vec![7; 5000]).await.body, "unauthorized request for handle");
    assert_eq!(bench.view.jobs_started(), 2);
}

#[tokio::test]
async fn slots_without_a_module_the_bmc_can_write_say_why_and_stay_on() {
    let cases = [
        (None, "Compute module's USB interface not found or supported"),
        (Some(ModuleKind::Jetson), "Compute module's USB interface not found or supported"),
        (Some(ModuleKind::Cm4Lite), "Error loading USB device: No supported USB devices found"),
    ];
    for (kind, text) in cases {
        let module = kind.map(|kind| FakeModule::with_emmc(kind, 0));
        let bench = Bench::with(plan(), [None, module, None, None]).await;
        let handle = bench.start_job("type=flash&node=1&file=a.img&length=3000000").await;
        let reply = bench.upload(handle, vec![7; 3_000_000]).await;
        assert_eq!(reply.status, 500, "{kind:?}");
        assert_eq!(bench.job_is("Error").await["Error"], text, "{kind:?}");
        // The upload may have come before the search ended, or after it.
        let after = "cannot execute command in current state. current=Error, expected=Transferring";
        assert!(reply.body == text || reply.body == after, "{}", reply.body);
        assert_eq!(bench.view.power_intent(), [false, true, false, false]);
        assert_eq!(bench.view.power()[1], kind.is_some());
    }
}

#[tokio::test]
async fn a_cm4_is_written_like_an_rk1() {
    let module = FakeModule::new(ModuleKind::Cm4);
    let bench = Bench::with(plan(), [None, None, None, Some(module.clone())]).await;
    let handle = bench.start_job("type=flash&node=3&file=a.img&length=5000").await;
    assert_eq!(bench.upload(handle, vec![7; 5000]).await.status, 200);
    bench.job_is("Done").await;
    assert_eq!(module.emmc(), vec![7; 5000]);
}

#[tokio::test]
async fn on_a_v2_5_board_a_powered_empty_module_in_another_slot_takes_the_data() {
    let (first, third) = (FakeModule::new(ModuleKind::Rk1), FakeModule::new(ModuleKind::Rk1));
    let slots = || [Some(first.clone()), None, Some(third.clone()), None];
    let bench = Bench::with(plan(), slots()).await;
    bench.get("/api/bmc?opt=set&type=power&node1=1").await;
    let handle = bench.start_job("type=flash&node=2&file=a.img&length=5000").await;
    assert_eq!(bench.upload(handle, vec![7; 5000]).await.status, 200);
    bench.job_is("Done").await;
    assert_eq!(first.emmc(), vec![7; 5000], "the hazard");
    assert!(third.emmc().is_empty());
    let flash = &bench.view.flashes()[0];
    assert_eq!((flash.slot, flash.written_slot), (3, Some(1)));

    // With the others off, and on a v2.4 board anyway, the right one is written.
    let bench = Bench::with(plan().revision(BoardRevision::V2_4), slots()).await;
    bench.get("/api/bmc?opt=set&type=power&node1=1").await;
    let handle = bench.start_job("type=flash&node=2&file=a.img&length=5000").await;
    assert_eq!(bench.upload(handle, vec![9; 5000]).await.status, 200);
    bench.job_is("Done").await;
    assert_eq!(third.emmc(), vec![9; 5000]);
}

#[tokio::test]
async fn a_powered_module_with_a_system_is_not_in_the_way() {
    let first = FakeModule::installed(ModuleKind::Rk1, &image());
    let third = FakeModule::new(ModuleKind::Rk1);
    let bench = Bench::with(plan(), [Some(first.clone()), None, Some(third.clone()), None]).await;
    bench.get("/api/bmc?opt=set&type=power&node1=1").await;
    let handle = bench.start_job("type=flash&node=2&file=a.img&length=5000").await;
    assert_eq!(bench.upload(handle, vec![7; 5000]).await.status, 200);
    bench.job_is("Done").await;
    assert_eq!((first.emmc(), third.emmc()), (image().raw(), vec![7; 5000]));
    assert_eq!(bench.view.power(), [true, false, false, false]);
}

#[tokio::test]
async fn another_module_in_disk_mode_is_one_too_many() {
    let slots = [Some(FakeModule::new(ModuleKind::Rk1)), Some(FakeModule::new(ModuleKind::Rk1)), None, None];
    let bench = Bench::with(plan(), slots).await;
    assert_eq!(bench.get("/api/bmc?opt=set&type=node_to_msd&node=1").await.status, 200);
    bench.start_job("type=flash&node=0&file=a.img&length=5000").await;
    let error = bench.job_is("Error").await;
    assert_eq!(error["Error"], "Error loading USB device: Several supported devices found");
}

#[tokio::test]
async fn a_wrong_hash_shows_at_the_end_when_all_is_written() {
    let bench = Bench::start(plan()).await;
    let raw = vec![7; 50_000];
    let wrong = "00".repeat(32);
    let handle = bench.start_job(&format!("type=flash&node=0&file=a.img&length=50000&sha256={wrong}")).await;
    bench.upload(handle, raw.clone()).await;
    let text = format!("sha256 checksum failed. Expected: {wrong}, got: {}", sha256(&raw));
    assert_eq!(bench.job_is("Error").await["Error"], text);
    assert_eq!(bench.module(1).emmc(), raw);
    assert_eq!(bench.view.power(), [false; 4]);
}

#[tokio::test]
async fn data_under_an_xz_name_that_is_not_xz_is_an_error() {
    let mut cut = image().xz();
    cut.truncate(cut.len() / 2);
    for (bytes, text) in [(vec![7; 5000], "stream/file format not recognized"), (cut, "lzma data error")] {
        let bench = Bench::start(plan()).await;
        let query = format!("type=flash&node=0&file=a.xz&length={}", bytes.len());
        let handle = bench.start_job(&query).await;
        bench.upload(handle, bytes).await;
        assert_eq!(bench.job_is("Error").await["Error"], text);
    }
}

#[tokio::test]
async fn an_image_larger_than_the_emmc_runs_out_of_space() {
    let small = FakeModule::with_emmc(ModuleKind::Rk1, 20_000);
    let bench = Bench::with(plan(), [Some(small), None, None, None]).await;
    let handle = bench.start_job("type=flash&node=0&file=a.img&length=100000").await;
    bench.upload(handle, vec![7; 100_000]).await;
    assert_eq!(bench.job_is("Error").await["Error"], no_space_left());
}

#[tokio::test]
async fn a_local_file_is_flashed_without_an_upload_and_its_hash_is_not_looked_at() {
    let card = SdCard::new().file("/mnt/sdcard/a.img.xz", image().xz());
    let bench = Bench::start(plan().sd_card(card)).await;
    bench.start_job("type=flash&node=0&local&file=/mnt/sdcard/a.img.xz&sha256=00").await;
    let done = bench.job_is("Done").await;
    assert_eq!(done["Done"][1], image().xz().len());
    assert_eq!(bench.module(1).emmc(), image().raw());
}

#[tokio::test]
async fn the_bmc_downloads_from_a_url_itself() {
    let mirror =
        Mirror::start(MirrorPlan::new().image("armbian", image()), Default::default()).await.unwrap();
    let served = mirror.images().remove(0);
    let bench = Bench::start(plan()).await;
    bench.start_job(&format!("type=flash&node=0&file={}&sha256={}", served.url, served.sha256)).await;
    bench.job_is("Done").await;
    assert_eq!(bench.module(1).emmc(), image().raw());
    assert_eq!(mirror.requests().len(), 1);
}

#[tokio::test]
async fn cancel_ends_a_job_and_switches_the_module_off() {
    let card = SdCard::new().file("/mnt/sdcard/a.img", image().raw());
    let bench = Bench::start(plan().sd_card(card)).await;
    bench.faults.add(turingpi_testkit::Fault::at(
        turingpi_testkit::Site::Flash { board: None, slot: None },
        turingpi_testkit::Action::Hang,
    ));
    bench.start_job("type=flash&node=0&local&file=/mnt/sdcard/a.img").await;
    let module = bench.modules[0].clone().unwrap();
    bench.until("bytes to be written", || !module.emmc().is_empty()).await;
    assert_eq!(bench.get("/api/bmc/upload/0/cancel").await.status, 200);
    assert_eq!(bench.job(), serde_json::json!({"Error": "cancelled by user"}));
    bench.until("the module to be switched off", || !bench.view.power()[0]).await;
    assert_eq!(bench.view.flashes()[0].error.as_deref(), Some("cancelled"));
}

#[tokio::test]
async fn firmware_is_staged_and_runs_after_a_reboot() {
    let bench = Bench::start(plan()).await;
    let firmware = Firmware::Bmcd2_3_7.image();
    let handle = bench.start_job(&format!("type=firmware&file=tp2.tpu&length={}", firmware.len())).await;
    assert_eq!(bench.upload(handle, firmware).await.status, 200);
    bench.job_is("Done").await;
    let about = "/api/bmc?opt=get&type=about";
    assert!(bench.get(about).await.body.contains(r#""version":"2.3.4""#));
    assert_eq!(bench.get("/api/bmc?opt=set&type=reboot").await.status, 200);
    bench.until("the reboot", || !bench.view.is_up()).await;
    bench.until("it to come back", || bench.view.is_up()).await;
    assert!(bench.get(about).await.body.contains(r#""bmcd_version":"2.3.7""#));
}

#[tokio::test]
async fn a_file_that_is_no_firmware_is_refused_by_the_installer() {
    for (plan, text) in
        [(plan(), "failed firmware upgrade (exit status: 2)"), (old(), "failed os_update (exit status: 2)")]
    {
        let bench = Bench::start(plan).await;
        let handle = bench.start_job("type=firmware&file=tp2.tpu&length=5000").await;
        assert_eq!(bench.upload(handle, vec![7; 5000]).await.status, 200);
        assert_eq!(bench.job_is("Error").await["Error"], text);
    }
}

#[tokio::test]
async fn an_upload_that_breaks_off_cancels_the_job() {
    let bench = Bench::start(plan()).await;
    let handle = bench.start_job("type=flash&node=0&file=a.img&length=8000000").await;
    let (sender, receiver) = tokio::sync::mpsc::channel::<std::io::Result<Vec<u8>>>(1);
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let upload = bench
        .http
        .post(bench.url(&format!("/api/bmc/upload/{handle}")))
        .basic_auth("root", Some("turing"))
        .header("content-type", "multipart/form-data; boundary=B")
        .body(reqwest::Body::wrap_stream(stream))
        .send();
    let feed = async move {
        sender.send(Ok(b"--B\r\n\r\n".to_vec())).await.unwrap();
        for _ in 0..8 {
            sender.send(Ok(vec![7; 64 * 1024])).await.unwrap();
        }
        sender.send(Err(std::io::Error::other("the client goes away"))).await.unwrap();
    };
    let (answer, ()) = tokio::join!(upload, feed);
    assert!(answer.is_err());
    assert_eq!(bench.job_is("Error").await["Error"], "cancelled by user");
    bench.until("the module to be switched off", || !bench.view.power()[0]).await;
}

#[tokio::test]
async fn skip_crc_skips_the_read_back_by_presence_and_only_where_it_exists() {
    // A module that reads back something else: only a job that looks notices.
    let corrupt = || {
        turingpi_testkit::Fault::at(
            turingpi_testkit::Site::Flash { board: None, slot: None },
            turingpi_testkit::Action::Corrupt,
        )
    };
    for (plan, skip, error) in [
        (plan(), "", Some("crc error. expected ")),
        (plan(), "&skip_crc=false", None),
        (old(), "&skip_crc", Some("integrity check of written image failed")),
    ] {
        let bench = Bench::start(plan).await;
        bench.faults.add(corrupt());
        let query = format!("type=flash&node=0&file=a.img&length=100000{skip}");
        let handle = bench.start_job(&query).await;
        assert_eq!(bench.upload(handle, vec![7; 100_000]).await.status, 200);
        match error {
            Some(text) => {
                let found = bench.job_is("Error").await;
                assert!(found["Error"].as_str().unwrap().starts_with(text), "{found}");
            }
            None => {
                bench.job_is("Done").await;
            }
        }
        assert_ne!(bench.module(1).emmc(), vec![7; 100_000]);
    }
}

#[tokio::test]
async fn written_bytes_drop_to_nothing_and_count_again_for_the_read_back() {
    let bench = Arc::new(
        Bench::within(
            plan(),
            [Some(FakeModule::new(ModuleKind::Rk1)), None, None, None],
            turingpi_testkit::Surroundings {
                pace: turingpi_testkit::Pace::scaled(0.005),
                ..Default::default()
            },
        )
        .await,
    );
    let watcher = {
        let bench = bench.clone();
        tokio::spawn(async move {
            let mut seen = vec![0];
            loop {
                let job = bench.job();
                if job.get("Done").is_some() {
                    return seen;
                }
                let written = job["Transferring"]["bytes_written"].as_u64().unwrap_or(0);
                if seen.last() != Some(&written) {
                    seen.push(written);
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
    };
    let size = 1024 * 1024;
    let handle = bench.start_job(&format!("type=flash&node=0&file=a.img&length={size}")).await;
    assert_eq!(bench.upload(handle, vec![7; size]).await.status, 200);
    let seen = watcher.await.unwrap();
    let drops: Vec<_> = seen.windows(2).filter(|pair| pair[1] < pair[0]).collect();
    assert_eq!(drops.len(), 1, "{seen:?}");
    assert!(seen.len() > 10, "{seen:?}");
}

#[tokio::test]
async fn the_c_daemon_flashes_a_file_of_the_card_while_the_caller_waits() {
    let card = SdCard::new().file("/mnt/sdcard/a.img", image().raw());
    let plan = plan().firmware(Firmware::V1_1_0).revision(BoardRevision::V2_4).sd_card(card);
    let bench = Bench::start(plan).await;
    let reply = bench.get("/api/bmc?opt=set&type=flash&node=0&file=/mnt/sdcard/a.img").await;
    let ok = r#"{"response":[{"result":"ok"}]}"#;
    assert_eq!(reply.body, format!("{ok}{ok}"));
    assert_eq!(bench.module(1).emmc(), image().raw());
}

#[tokio::test]
async fn the_c_daemon_takes_firmware_as_a_form_and_reboots_by_itself_whatever_came() {
    let card = SdCard::new();
    let bench =
        Bench::start(plan().firmware(Firmware::V1_1_0).revision(BoardRevision::V2_4).sd_card(card)).await;
    for image in [Firmware::V1_1_0.image(), Firmware::V2_1_0.image(), b"no firmware".to_vec()] {
        let url = bench.url("/api/bmc?opt=set&type=firmware&file=a.bin");
        let part = reqwest::multipart::Part::bytes(image);
        let form = reqwest::multipart::Form::new().part("file", part);
        let answer = bench.http.post(url).multipart(form).send().await.unwrap().text().await.unwrap();
        let vars = "\r\nVARS:\r\nopt=set\r\ntype=firmware\r\nfile=a.bin\r\n";
        assert_eq!(answer, format!("{vars}{}", r#"{"response":[{"result":"ok"}]}"#));
        bench.until("it to go down", || !bench.view.is_up()).await;
        bench.until("it to come back", || bench.view.is_up()).await;
        assert_eq!(bench.view.firmware(), Firmware::V1_1_0, "2.x comes on an SD card only");
    }
}
