//! Power as asked for and as it is, the serial line, restarts.

use std::{sync::atomic::Ordering, time::Duration};

use turingpi_testkit::{BoardPlan, BoardRevision, Firmware, Module as _, ModuleKind};

use crate::support::{Bench, FakeModule};

async fn two_modules(plan: BoardPlan) -> Bench {
    let module = || Some(FakeModule::new(ModuleKind::Rk1));
    Bench::with(plan, [module(), module(), None, None]).await
}

#[tokio::test]
async fn the_reported_power_is_what_was_asked_for_even_for_an_empty_slot() {
    let bench = two_modules(BoardPlan::new("b")).await;
    bench.get("/api/bmc?opt=set&type=power&node1=1&node4=1").await;
    assert_eq!(bench.view.power_intent(), [true, false, false, true]);
    assert_eq!(bench.view.power(), [true, false, false, false]);
}

#[tokio::test]
async fn modules_that_have_power_when_the_board_starts_were_switched_on_through_it() {
    let (running, other) = (FakeModule::new(ModuleKind::Rk1), FakeModule::new(ModuleKind::Rk1));
    running.set_power(true, false).await;
    let bench = Bench::with(BoardPlan::new("b"), [Some(running), Some(other.clone()), None, None]).await;
    assert_eq!(bench.view.power_intent(), [true, false, false, false]);
    other.set_power(true, false).await;
    bench.view.adopt_power();
    assert_eq!(bench.view.power_intent(), [true, true, false, false]);
    bench.view.restart_daemon();
    bench.until("the daemon to come back", || bench.view.is_up()).await;
    assert_eq!(bench.view.power(), [true, true, false, false]);
}

#[tokio::test]
async fn a_reset_powers_a_module_that_is_off_and_the_api_still_says_off() {
    let bench = two_modules(BoardPlan::new("b")).await;
    bench.get("/api/bmc?opt=set&type=reset&node=1").await;
    assert_eq!(bench.view.power(), [false, true, false, false]);
    assert_eq!(bench.view.power_intent(), [false; 4]);
    bench.get("/api/bmc?opt=set&type=reset&node=1").await;
    assert_eq!(bench.module(2).power_ons.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_redundant_on_does_not_interrupt_a_running_module() {
    let bench = two_modules(BoardPlan::new("b")).await;
    for _ in 0..3 {
        bench.get("/api/bmc?opt=set&type=power&node1=1").await;
    }
    assert_eq!(bench.module(1).power_ons.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn power_on_time_counts_by_the_clock_and_restarts_for_a_redundant_on_of_nodes_2_to_4() {
    let bench = two_modules(BoardPlan::new("b")).await;
    bench.get("/api/bmc?opt=set&type=power&node1=1&node2=1").await;
    bench.view.clock().advance(Duration::from_secs(3812));
    bench.get("/api/bmc?opt=set&type=power&node1=1&node2=1").await;
    bench.view.clock().advance(Duration::from_secs(100));
    let body = bench.get("/api/bmc?opt=get&type=node_info").await.body;
    let info: serde_json::Value = serde_json::from_str(&body).unwrap();
    let seconds = |node: usize| info["response"][0]["result"][node]["power_on_time"].as_u64();
    assert!((3912..3930).contains(&seconds(0).unwrap()), "{body}");
    assert!((100..118).contains(&seconds(1).unwrap()), "{body}");
    assert_eq!(seconds(2), None);
}

#[tokio::test]
async fn the_boot_pin_acts_at_the_next_power_on() {
    let bench = two_modules(BoardPlan::new("b")).await;
    bench.get("/api/bmc?opt=set&type=usb_boot&node=0").await;
    assert!(!bench.module(1).powered());
    bench.get("/api/bmc?opt=set&type=power&node1=1&node2=1").await;
    assert_eq!(
        (*bench.module(1).loader.lock().unwrap(), *bench.module(2).loader.lock().unwrap()),
        (true, false)
    );
    bench.get("/api/bmc?opt=set&type=clear_usb_boot").await;
    bench.get("/api/bmc?opt=set&type=power&node1=0").await;
    bench.get("/api/bmc?opt=set&type=power&node1=1").await;
    assert!(!*bench.module(1).loader.lock().unwrap());
}

#[tokio::test]
async fn a_reboot_keeps_modules_running_on_v2_5_and_cuts_their_power_on_older_boards() {
    for (plan, power_ons) in [
        (BoardPlan::new("b"), 1),
        (BoardPlan::new("b").revision(BoardRevision::V2_4), 2),
        (BoardPlan::new("b").firmware(Firmware::V2_0_5).revision(BoardRevision::V2_4), 2),
    ] {
        let bench = two_modules(plan).await;
        bench.get("/api/bmc?opt=set&type=power&node1=1").await;
        assert_eq!(bench.get("/api/bmc?opt=set&type=reboot").await.status, 200);
        bench.until("the board to go down", || !bench.view.is_up()).await;
        bench.until("the board to come back", || bench.view.is_up()).await;
        assert_eq!(bench.view.power(), [true, false, false, false]);
        assert_eq!(bench.module(1).power_ons.load(Ordering::Relaxed), power_ons);
    }
}

#[tokio::test]
async fn a_board_in_recovery_mode_stays_dark() {
    let bench = two_modules(BoardPlan::new("b")).await;
    bench.get("/api/bmc?opt=set&type=reboot&fel").await;
    bench.until("the board to go down", || !bench.view.is_up()).await;
    assert!(bench.try_get("/api/bmc?opt=get&type=power").await.is_err());
}

#[tokio::test]
async fn a_network_reset_breaks_connections_and_keeps_tokens() {
    let bench = two_modules(BoardPlan::new("b")).await;
    let token = bench.login().await;
    bench.get("/api/bmc?opt=set&type=network&cmd=reset").await;
    let held = bench.view.hold_lock().await;
    let waiting = bench.http.get(bench.url("/api/bmc?opt=get&type=power")).bearer_auth(&token).send().await;
    assert!(waiting.is_err(), "the connection breaks while it waits");
    drop(held);
    let again = bench.http.get(bench.url("/api/bmc?opt=get&type=power")).bearer_auth(&token).send().await;
    assert_eq!(again.unwrap().status(), 200);
}

#[tokio::test]
async fn the_serial_line_takes_commands_and_is_emptied_by_old_firmware_only() {
    for (firmware, second) in [(Firmware::V2_1_0, "hello\r\n"), (Firmware::V2_0_5, "")] {
        let bench = two_modules(BoardPlan::new("b").firmware(firmware)).await;
        bench.get("/api/bmc?opt=set&type=power&node1=1").await;
        bench.module(1).uart().write(b"hello\r\n");
        let read = async || {
            let body = bench.get("/api/bmc?opt=get&type=uart&node=0").await.body;
            let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
            answer["response"][0]["uart"].as_str().unwrap().to_owned()
        };
        assert_eq!(read().await, "hello\r\n");
        assert_eq!(read().await, second);
        bench.get("/api/bmc?opt=set&type=uart&node=0&cmd=echo+a%26b").await;
        bench.get("/api/bmc?opt=set&type=uart&node=1&cmd=unheard").await;
        assert_eq!(*bench.module(1).typed.lock().unwrap(), ["echo a&b"]);
        assert!(bench.module(2).typed.lock().unwrap().is_empty(), "a module without power hears nothing");
    }
}

#[tokio::test]
async fn the_power_key_switches_all_off_if_any_is_on() {
    let bench = two_modules(BoardPlan::new("b")).await;
    bench.view.press_power_key().await;
    assert_eq!(bench.view.power(), [true, true, false, false]);
    bench.get("/api/bmc?opt=set&type=power&node2=0").await;
    bench.view.press_power_key().await;
    assert_eq!((bench.view.power(), bench.view.power_intent()), ([false; 4], [false; 4]));
}

#[tokio::test]
async fn the_backup_is_a_gzip_archive_with_a_dated_name() {
    let bench = two_modules(BoardPlan::new("b")).await;
    let request = bench.http.get(bench.url("/api/bmc/backup")).basic_auth("root", Some("turing"));
    let answer = request.send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "application/gzip");
    let name = answer.headers()["content-disposition"].to_str().unwrap().to_owned();
    assert!(name.starts_with("attachment; filename=\"tp2-backup-") && name.ends_with(".tar.gz\""), "{name}");
    assert!(answer.headers().get("content-length").is_none());
    assert!(answer.bytes().await.unwrap().starts_with(&[0x1f, 0x8b, 8]));
}

#[tokio::test]
async fn a_board_that_is_shut_down_answers_nobody_and_leaves_the_modules_as_they_are() {
    let bench = two_modules(BoardPlan::new("b")).await;
    bench.get("/api/bmc?opt=set&type=power&node1=1").await;
    let (url, http) = (bench.url("/api/bmc?opt=get&type=power"), bench.http.clone());
    bench.board.shutdown().await;
    assert!(http.get(url).basic_auth("root", Some("turing")).send().await.unwrap_err().is_connect());
    assert_eq!(bench.view.power(), [true, false, false, false]);
    assert!(!bench.view.is_up());
}
