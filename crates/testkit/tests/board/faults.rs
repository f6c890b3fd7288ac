//! Faults, as tests of other crates use them.

use std::time::Duration;

use turingpi_testkit::{Action, BoardPlan, Fault, Site};

use crate::support::{Bench, reply};

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
