//! Faults, as tests of other crates use them.

use std::time::Duration;

use turingpi_testkit::{Action, BoardPlan, Fault, Firmware, OsImage, Site};

use crate::support::{Bench, FakeModule, Reply, reply, tls};

const POWER: &str = "/api/bmc?opt=get&type=power";

fn bmc(request: &str, action: Action) -> Fault {
    Fault::at(Site::Bmc { board: Some("board1".into()), request: request.into() }, action)
}
fn flash(action: Action) -> Fault {
    Fault::at(Site::Flash { board: Some("board1".into()), slot: Some(1) }, action)
}
async fn bench() -> Bench {
    Bench::start(BoardPlan::new("board1")).await
}

#[tokio::test]
async fn a_request_is_dropped_answered_by_a_proxy_or_cut() {
    let bench = bench().await;
    let whole = bench.get(POWER).await.body;
    bench.faults.add(bmc("type=power", Action::Drop));
    assert!(bench.try_get(POWER).await.is_err());
    bench.faults.add(bmc("GET /api/bmc?", Action::Status(502, "<html>Bad Gateway</html>".into())));
    let proxy = bench.get(POWER).await;
    assert_eq!((proxy.status, proxy.content_type.as_deref()), (502, Some("text/html")));
    bench.faults.add(bmc("type=power", Action::CutAfter(10)));
    assert!(bench.try_get(POWER).await.is_err(), "the body ends too early");
    bench.faults.add(bmc("type=power", Action::Corrupt));
    let half = bench.get(POWER).await;
    assert_eq!(half.body, whole[..whole.len() / 2]);
    assert_eq!(bench.get(POWER).await.body, whole);
    assert_eq!(bench.faults.struck(), 4);
}

#[tokio::test]
async fn a_request_of_another_board_or_path_is_left_alone() {
    let bench = bench().await;
    let other = Site::Bmc { board: Some("board2".into()), request: String::new() };
    bench.faults.add(Fault::at(other, Action::Drop));
    bench.faults.add(bmc("type=usb", Action::Drop));
    assert_eq!(bench.get(POWER).await.status, 200);
}

#[tokio::test]
async fn a_token_is_forgotten_a_caller_banned_a_request_hung() {
    let bench = bench().await;
    let token = bench.login().await;
    let ask = async || {
        let request = bench.http.get(bench.url(POWER)).bearer_auth(&token);
        reply(request.timeout(Duration::from_secs(5)).send().await?).await
    };
    bench.faults.add(bmc("type=power", Action::ExpireToken).nth(2));
    assert_eq!(ask().await.unwrap().status, 200);
    assert_eq!(ask().await.unwrap().body, format!("token {token} is not registered"));
    bench.faults.clear();
    bench.faults.add(bmc("type=power", Action::Ban(Duration::from_secs(30))));
    assert!(ask().await.unwrap().body.contains("Access blocked for 2"));
    bench.faults.clear();
    bench.faults.add(bmc("type=power", Action::Hang));
    let hung = bench.http.get(bench.url(POWER)).timeout(Duration::from_millis(30)).send().await;
    assert!(hung.unwrap_err().is_timeout());
}

#[tokio::test]
async fn an_upload_is_cut_after_so_many_bytes() {
    let bench = bench().await;
    bench.faults.add(bmc("POST /api/bmc/upload/", Action::CutAfter(100_000)));
    let handle = bench.start_job("type=flash&node=0&file=a.img&length=3000000").await;
    assert!(bench.try_upload(handle, vec![7; 3_000_000]).await.is_err());
    assert_eq!(bench.job_is("Error").await["Error"], "cancelled by user");
}

#[tokio::test]
async fn another_client_takes_over_before_the_upload() {
    let bench = bench().await;
    bench.faults.add(bmc("POST /api/bmc/upload/", Action::Replace));
    let handle = bench.start_job("type=flash&node=0&file=a.img&length=5000").await;
    let reply = bench.upload(handle, vec![7; 5000]).await;
    assert_eq!((reply.status, reply.body.as_str()), (500, "unauthorized request for handle"));
    assert_ne!(bench.job()["Transferring"]["id"], handle);
}

#[tokio::test]
async fn a_flash_fails_in_the_middle_for_the_reason_given() {
    let cases = [
        (Action::DiskFull, "No space left on device (os error 28)"),
        (Action::CutAfter(50_000), "Input/output error (os error 5)"),
        (Action::Fail(1, "lzma data error".into()), "lzma data error"),
    ];
    for (action, text) in cases {
        let bench = bench().await;
        bench.faults.add(flash(action));
        let handle = bench.start_job("type=flash&node=0&file=a.img&length=200000").await;
        bench.upload(handle, vec![7; 200_000]).await;
        assert_eq!(bench.job_is("Error").await["Error"], text);
        let written = bench.module(1).emmc().len();
        assert!((1..200_000).contains(&written), "{written}");
        assert!(!bench.view.power()[0]);
        let handle = bench.start_job("type=flash&node=0&file=a.img&length=200000").await;
        bench.upload(handle, vec![8; 200_000]).await;
        bench.job_is("Done").await;
        assert_eq!(bench.module(1).emmc(), vec![8; 200_000]);
    }
}

#[tokio::test]
async fn the_daemon_dies_of_its_third_flash_and_comes_back_ready() {
    let bench = Bench::start(BoardPlan::new("board1").dies_at_flash(3)).await;
    for round in 1..=3 {
        let handle = bench.start_job("type=flash&node=0&file=a.img&length=8000000").await;
        let answer = bench.try_upload(handle, vec![round; 8_000_000]).await;
        if round < 3 {
            assert_eq!(answer.unwrap().status, 200);
            bench.job_is("Done").await;
        } else {
            assert!(answer.is_err(), "the connection breaks");
        }
    }
    bench.job_is("Ready").await;
    bench.until("the daemon to come back", || bench.view.is_up()).await;
    assert!(bench.module(1).emmc().len() < 8_000_000);
    assert_eq!(bench.get("/api/bmc?opt=get&type=flash").await.body, "\"Ready\"");
}

#[tokio::test]
async fn a_restart_in_mid_poll_leaves_a_stale_token_and_state_ready() {
    let bench = bench().await;
    let token = bench.login().await;
    bench.faults.add(bmc("opt=get&type=flash", Action::Restart));
    bench.start_job("type=flash&node=0&file=a.img&length=5000").await;
    assert!(bench.try_get("/api/bmc?opt=get&type=flash").await.is_err());
    bench.job_is("Ready").await;
    bench.until("the daemon to come back", || bench.view.is_up()).await;
    let request = bench.http.get(bench.url(POWER)).bearer_auth(&token).send().await.unwrap();
    assert_eq!(request.status(), 401);
    assert_eq!(bench.get("/api/bmc?opt=get&type=flash").await.body, "\"Ready\"");
}

#[tokio::test]
async fn another_client_takes_over_in_the_middle_of_an_upload() {
    let bench = bench().await;
    bench.faults.add(flash(Action::Replace));
    let handle = bench.start_job("type=flash&node=0&file=a.img&length=8000000").await;
    let reply = bench.upload(handle, vec![7; 8_000_000]).await;
    assert_eq!((reply.status, reply.body.as_str()), (500, "transfer canceled"));
    assert_ne!(bench.job()["Transferring"]["id"], handle);
    assert_eq!(bench.view.flashes()[0].error.as_deref(), Some("cancelled"));
}

#[tokio::test]
async fn a_device_that_stalls_stalls_the_upload_until_the_daemon_is_restarted() {
    let bench = bench().await;
    bench.faults.add(flash(Action::Hang));
    let handle = bench.start_job("type=flash&node=0&file=a.img&length=64000000").await;
    let request = bench.http.post(bench.url(&format!("/api/bmc/upload/{handle}")));
    let part = reqwest::multipart::Part::bytes(vec![7; 64_000_000]);
    let form = reqwest::multipart::Form::new().part("file", part);
    let upload = tokio::spawn(request.basic_auth("root", Some("turing")).multipart(form).send());
    // Half of it is written, the queue behind it is full, and the socket is not read any more.
    bench
        .until("the device to stall", || {
            bench.job()["Transferring"]["bytes_written"].as_u64() > Some(31_000_000)
        })
        .await;
    assert!(!upload.is_finished());
    bench.view.restart_daemon();
    assert!(upload.await.unwrap().is_err());
    bench.until("the daemon to come back", || bench.view.is_up()).await;
    assert_eq!(bench.get("/api/bmc?opt=get&type=flash").await.body, "\"Ready\"");
}

#[tokio::test]
async fn an_upload_that_stalls_is_cancelled_when_the_caller_gives_up_and_the_lock_is_free_again() {
    let bench = bench().await;
    bench.faults.add(bmc("POST /api/bmc/upload/", Action::Delay(Duration::from_millis(500))).after(100_000));
    let handle = bench.start_job("type=flash&node=0&file=a.img&length=64000000").await;
    let head = futures::stream::once(async { Ok::<_, std::io::Error>(b"--B\r\n\r\n".to_vec()) });
    let data = futures::stream::repeat_with(|| Ok(vec![7; 64 * 1024]));
    let request = bench.http.post(bench.url(&format!("/api/bmc/upload/{handle}")));
    let request = request
        .basic_auth("root", Some("turing"))
        .header("content-type", "multipart/form-data; boundary=B")
        .body(reqwest::Body::wrap_stream(futures::StreamExt::chain(head, data)));
    let stalled = request.timeout(Duration::from_millis(100)).send().await;
    assert!(stalled.unwrap_err().is_timeout());
    assert_eq!(bench.get("/api/bmc?opt=get&type=flash").await.body, r#"{"Error":"cancelled by user"}"#);
    bench.until("the clean-up", || !bench.view.power()[0]).await;
    assert!(bench.module(1).emmc().len() < 64_000_000);
}

#[tokio::test]
async fn an_upload_is_answered_in_the_middle_dies_with_the_daemon_or_is_pre_empted_at_a_byte() {
    let cases = [
        (Action::Status(500, "transfer canceled".into()), "Error"),
        (Action::Drop, "Error"),
        (Action::Restart, "Ready"),
        (Action::Replace, "Transferring"),
    ];
    for (action, state) in cases {
        let bench = bench().await;
        bench.faults.add(bmc("POST /api/bmc/upload/", action.clone()).after(2_000_000));
        let handle = bench.start_job("type=flash&node=0&file=a.img&length=8000000").await;
        // An early answer may be lost under what is still being sent.
        let answer = bench.try_upload(handle, vec![7; 8_000_000]).await;
        assert!(answer.is_err() || answer.as_ref().is_ok_and(|a| a.status == 500), "{action:?}: {answer:?}");
        let job = bench.job_is(state).await;
        assert_ne!(job["Transferring"]["id"], handle, "{action:?}");
        let written = bench.module(1).emmc().len();
        assert!(written < 8_000_000, "{action:?}: {written}");
    }
}

#[tokio::test]
async fn a_bit_that_flips_on_the_way_shows_in_the_hash_only() {
    for (sha, state) in [(true, "Error"), (false, "Done")] {
        let bench = bench().await;
        bench.faults.add(bmc("POST /api/bmc/upload/", Action::Corrupt));
        let image = vec![7; 100_000];
        let hash = {
            use sha2::Digest as _;
            hex::encode(sha2::Sha256::digest(&image))
        };
        let sha = if sha { format!("&sha256={hash}") } else { String::new() };
        let handle = bench.start_job(&format!("type=flash&node=0&file=a.img&length=100000{sha}")).await;
        bench.upload(handle, image.clone()).await;
        bench.job_is(state).await;
        assert_ne!(bench.module(1).emmc(), image);
    }
}

#[tokio::test]
async fn a_form_that_is_spoilt_on_the_way_ends_done_with_nothing_written() {
    let bench = bench().await;
    bench.faults.add(bmc("POST /api/bmc/upload/", Action::Malform));
    let handle = bench.start_job("type=flash&node=0&file=a.img&length=5000").await;
    let reply = bench.upload(handle, vec![7; 5000]).await;
    assert_eq!((reply.status, reply.body.as_str()), (500, "Multipart form invalid"));
    assert_eq!(bench.job_is("Done").await["Done"][1], 5000);
    assert!(bench.module(1).emmc().is_empty());
}

#[tokio::test]
async fn the_window_of_an_upload_closes_before_it_when_the_clock_is_wound() {
    let bench = bench().await;
    bench.faults.add(bmc("POST /api/bmc/upload/", Action::Advance(Duration::from_secs(11))));
    let handle = bench.start_job("type=flash&node=0&file=a.img&length=5000").await;
    let late = bench.upload(handle, vec![7; 5000]).await;
    assert_eq!(late.body, "cannot execute command in current state. current=Error, expected=Transferring");
    assert_eq!(bench.job(), serde_json::json!({"Error": "Send timeout"}));
}

#[tokio::test]
async fn a_flash_fails_at_the_byte_that_is_asked_for() {
    for after in [1, 100_000, 199_999, 200_000] {
        let bench = bench().await;
        bench.faults.add(flash(Action::DiskFull).after(after));
        let handle = bench.start_job("type=flash&node=0&file=a.img&length=200000").await;
        bench.upload(handle, vec![7; 200_000]).await;
        assert_eq!(bench.job_is("Error").await["Error"], "No space left on device (os error 28)");
        let written = bench.module(1).emmc().len() as u64;
        // Blocks of 16 KiB: the one that would reach the byte is not written.
        assert!(written < after && after <= written + 16 * 1024, "{written} bytes, asked for {after}");
    }
}

#[tokio::test]
async fn a_flash_finds_no_module_too_many_or_another_one() {
    use turingpi_testkit::ModuleKind;
    for (action, text) in [
        (Action::NoModule, "Compute module's USB interface not found or supported"),
        (Action::SeveralModules, "Error loading USB device: Several supported devices found"),
    ] {
        let bench = bench().await;
        bench.faults.add(flash(action));
        bench.start_job("type=flash&node=0&file=a.img&length=5000").await;
        assert_eq!(bench.job_is("Error").await["Error"], text);
        // It stays on, and says so.
        assert_eq!((bench.view.power()[0], bench.view.power_intent()[0]), (true, true));
    }
    let module = || Some(FakeModule::new(ModuleKind::Rk1));
    let bench = Bench::with(BoardPlan::new("board1"), [module(), None, module(), None]).await;
    bench.faults.add(flash(Action::OtherSlot(3)));
    let handle = bench.start_job("type=flash&node=0&file=a.img&length=5000").await;
    bench.upload(handle, vec![7; 5000]).await;
    bench.job_is("Done").await;
    assert_eq!((bench.module(1).emmc(), bench.module(3).emmc()), (Vec::new(), vec![7; 5000]));
    assert_eq!(bench.view.flashes()[0].written_slot, Some(3));
}

async fn upgrade(bench: &Bench) -> serde_json::Value {
    let image = Firmware::Bmcd2_3_7.image();
    let handle = bench.start_job(&format!("type=firmware&file=tp2.tpu&length={}", image.len())).await;
    bench.upload(handle, image).await;
    bench.until("the job to end", || bench.job().get("Transferring").is_none()).await;
    bench.job()
}
async fn reboot(bench: &Bench) {
    assert_eq!(bench.get("/api/bmc?opt=set&type=reboot").await.status, 200);
    bench.until("it to go down", || !bench.view.is_up()).await;
}

#[tokio::test]
async fn a_firmware_job_fails_in_the_installer_or_says_done_and_changes_nothing() {
    let firmware = |action| Fault::at(Site::Firmware { board: None }, action);
    for (action, outcome) in [
        (Action::Fail(255, String::new()), "failed firmware upgrade (exit status: 255)"),
        (Action::DiskFull, "No space left on device (os error 28)"),
    ] {
        let bench = bench().await;
        bench.faults.add(firmware(action));
        assert_eq!(upgrade(&bench).await["Error"], outcome);
    }
    let bench = bench().await;
    bench.faults.add(firmware(Action::OldFirmware));
    assert!(upgrade(&bench).await.get("Done").is_some());
    reboot(&bench).await;
    bench.until("it to come back", || bench.view.is_up()).await;
    assert_eq!(bench.view.firmware(), Firmware::V2_1_0);
}

#[tokio::test]
async fn firmware_that_does_not_fit_the_memory_file_system_or_has_a_name_with_a_space_is_refused() {
    let bench = Bench::start(BoardPlan::new("board1").staging_space(100_000)).await;
    assert_eq!(upgrade(&bench).await["Error"], "No space left on device (os error 28)");
    let bench = self::bench().await;
    let image = Firmware::Bmcd2_3_7.image();
    let handle = bench.start_job(&format!("type=firmware&file=tp2%20new.tpu&length={}", image.len())).await;
    bench.upload(handle, image).await;
    assert_eq!(bench.job_is("Error").await["Error"], "failed firmware upgrade (exit status: 2)");
}

#[tokio::test]
async fn a_reboot_ends_with_the_old_firmware_elsewhere_or_never() {
    let rebooting = |action| bmc("opt=set&type=reboot", action);
    let bench = bench().await;
    bench.faults.add(rebooting(Action::OldFirmware));
    assert!(upgrade(&bench).await.get("Done").is_some());
    reboot(&bench).await;
    bench.until("it to come back", || bench.view.is_up()).await;
    assert_eq!(bench.view.firmware(), Firmware::V2_1_0);

    bench.faults.add(rebooting(Action::Move));
    assert!(upgrade(&bench).await.get("Done").is_some());
    let (before, plain) = (bench.view.url(), bench.view.plain_url());
    reboot(&bench).await;
    bench.until("it to come back", || bench.view.is_up()).await;
    assert_ne!((bench.view.url(), bench.view.plain_url()), (before.clone(), plain));
    assert_eq!(bench.view.firmware(), Firmware::Bmcd2_3_7);
    assert_eq!(bench.get(POWER).await.status, 200);
    assert!(bench.http.get(format!("{before}{POWER}")).send().await.is_err(), "nobody is at the old address");

    bench.faults.add(rebooting(Action::GoDark));
    reboot(&bench).await;
    // A restart of a board that came back would bring it back again: this one has gone.
    for _ in 0..20 {
        assert!(bench.try_get(POWER).await.is_err());
    }
}

#[tokio::test]
async fn an_answer_loses_a_header_gets_another_body_or_comes_drop_by_drop() {
    let bench = bench().await;
    let whole = bench.get(POWER).await;
    bench.faults.add(bmc("type=power", Action::Header("Content-Type".into(), None)));
    assert_eq!(bench.get(POWER).await, Reply { content_type: None, ..whole.clone() });
    let media = Some("text/csv".to_owned());
    bench.faults.add(bmc("type=power", Action::Header("Content-Type".into(), media.clone())));
    assert_eq!(bench.get(POWER).await, Reply { content_type: media, ..whole.clone() });
    let body = r#"{"response":[{"result":[{"node1":1}]}]}"#;
    bench.faults.add(bmc("type=power", Action::Body(body.into())));
    assert_eq!(bench.get(POWER).await, Reply { body: body.into(), ..whole.clone() });
    bench.faults.add(bmc("type=power", Action::Trickle(16, Duration::from_millis(1))));
    assert_eq!(bench.get(POWER).await, whole);
    assert_eq!(bench.faults.struck(), 4);
}

#[tokio::test]
async fn another_clients_long_request_makes_everybody_wait() {
    let bench = bench().await;
    bench.faults.add(bmc("type=power", Action::Busy(Duration::from_millis(300))));
    let impatient = bench.http.get(bench.url(POWER)).basic_auth("root", Some("turing"));
    assert!(impatient.timeout(Duration::from_millis(50)).send().await.unwrap_err().is_timeout());
    assert_eq!(bench.get(POWER).await.status, 200);
}

#[tokio::test]
async fn a_connection_is_refused_hangs_or_shows_another_certificate() {
    let bench = bench().await;
    let connect = |action| Fault::at(Site::BmcConnect { board: Some("board1".into()) }, action);
    bench.faults.add(connect(Action::Drop));
    assert!(bench.http.get(bench.url(POWER)).send().await.is_err());
    bench.faults.add(connect(Action::Hang));
    let hung = bench.http.get(bench.url(POWER)).timeout(Duration::from_millis(50)).send().await;
    assert!(hung.unwrap_err().is_timeout());
    let seen = async || {
        let stream = tls(&bench.view.url()).await;
        let certificate = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
        use sha2::Digest as _;
        Some(hex::encode(sha2::Sha256::digest(&certificate)))
    };
    bench.faults.add(connect(Action::WrongHostKey));
    assert_ne!(seen().await, bench.view.fingerprint());
    assert_eq!(seen().await, bench.view.fingerprint());
}

#[tokio::test]
async fn a_certificate_of_long_ago_has_expired() {
    let plan = BoardPlan::new("b").certificate_age(Duration::from_secs(31 * 86_400));
    let bench = Bench::start(plan).await;
    let stream = tls(&bench.view.url()).await;
    let der = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
    let (_, certificate) = x509_parser::parse_x509_certificate(&der).unwrap();
    assert!(!certificate.validity().is_valid());
}

#[tokio::test]
async fn power_that_fails_behind_the_daemons_back_is_not_noticed() {
    let bench = bench().await;
    bench.get("/api/bmc?opt=set&type=power&node1=1").await;
    bench.view.cut_power(1).await;
    assert_eq!((bench.view.power()[0], bench.view.power_intent()[0]), (false, true));
    assert!(bench.get(POWER).await.body.contains(r#""node1":"1""#));
}

#[tokio::test]
async fn an_xz_image_with_a_large_dictionary_does_not_fit_the_memory() {
    let image = OsImage::armbian().with_size(512 * 1024);
    for (memory, state) in [(1024 * 1024, "Error"), (64 * 1024 * 1024, "Done")] {
        let bench = Bench::start(BoardPlan::new("board1").xz_memory(memory)).await;
        let packed = image.xz();
        let handle =
            bench.start_job(&format!("type=flash&node=0&file=a.img.xz&length={}", packed.len())).await;
        bench.upload(handle, packed).await;
        let job = bench.job_is(state).await;
        if state == "Error" {
            assert!(job["Error"].as_str().unwrap().contains("memory"), "{job}");
        }
    }
}
