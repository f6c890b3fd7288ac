//! Each verb that is one conversation with a board.

use serde_json::json;
use turingpi_testkit::{BoardPlan, BoardRevision, Firmware, SdCard};

use crate::bench::{Bench, module};

#[cfg(unix)]
#[allow(dead_code, reason = "the other tests of the program use the rest")]
#[path = "../verbs/pty.rs"]
mod pty;

/// Answers a verb's question with yes on a terminal, after `meanwhile`; returns its exit code and all it said.
#[cfg(unix)]
pub(crate) fn agreed_after(bench: &Bench, args: &[&str], meanwhile: impl FnOnce()) -> (Option<i32>, String) {
    tokio::task::block_in_place(|| {
        let mut terminal = pty::Pty::start(bench.command(args), 80, 24);
        terminal.shows(0, "Go on?");
        meanwhile();
        terminal.press("y");
        let code = terminal.ends().code();
        // What was written last may still be on its way.
        terminal.until("the next step is told", || terminal.shown().contains("next:").then_some(()));
        (code, terminal.shown().split_whitespace().collect::<Vec<_>>().join(" "))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_verb_answers_in_text_and_in_json() {
    let plan = BoardPlan::new("board1").sd_card(SdCard::new());
    let bench = Bench::new(plan, (1..=4).map(|slot| module(slot, slot == 1)).collect()).await;
    let read: [(&[&str], &str, &str); 8] = [
        (&["info"], "bmcd 2.3.4", "about"),
        (&["about"], "Turing Pi 2 v2.5", "fingerprint"),
        (&["power", "status"], "1 on", "slots"),
        (&["usb", "status"], "slot 1 is a device", "usb"),
        (&["node-info"], "SLOT NAME", "nodes"),
        (&["cooling", "status"], "system fan", "devices"),
        (&["sdcard"], "/mnt/sdcard", "sd_card"),
        (&["transfer"], "no transfer since", "transfer"),
    ];
    for (args, said, key) in read {
        let told = bench.run(args).ends(0).says(&[said]);
        assert!(
            told.out.lines().all(|l| l.chars().count() <= 80 || l.contains("certificate")),
            "{}",
            told.out
        );
        let json = bench.json(args);
        assert!(!json[key].is_null() && json["board"].is_string(), "{args:?}: {json:#}");
    }
    assert_eq!(
        bench.json(&["power", "on", "-n", "2,4"])["slots"][3],
        json!({ "slot": 4, "node": null, "power": "on" })
    );
    assert_eq!(bench.board().power_intent(), [true, true, false, true]);
    bench.run(&["power", "off", "-n", "2", "--yes"]).ends(0);
    bench.run(&["power", "cycle", "-n", "4", "--off-seconds", "1", "--yes"]).ends(0);
    bench.run(&["reset", "-n", "4", "--yes"]).ends(0);
    bench.run(&["power", "reset", "-n", "4", "-y"]).ends(0);
    assert_eq!(bench.board().power_intent(), [true, false, false, true]);
    assert_eq!(bench.json(&["usb", "device", "-n", "3", "--bmc"])["usb"]["route"], "bmc");
    bench
        .run(&["usb", "flash", "-n", "3", "--yes"])
        .ends(0)
        .says(&["slot 3 is a device, waiting for an image"]);
    let nodes = bench.json(&["node-info", "-n", "2", "--name", "alpha", "--module", "RK1"]);
    assert_eq!(
        (&nodes["nodes"][1]["name"], &nodes["nodes"][1]["module_name"]),
        (&json!("alpha"), &json!("RK1"))
    );
    assert_eq!(bench.json(&["cooling", "set", "system fan", "3"])["devices"][0]["speed"], 3);
    assert_eq!(bench.json(&["uart", "set", "-n", "1", "-c", "hello"])["done"], "uart-set");
    assert!(bench.json(&["uart", "get", "-n", "1"])["text"].as_str().is_some());
    assert_eq!(bench.json(&["advanced", "msd", "-n", "2", "--yes"])["done"], "msd");
    bench.run(&["advanced", "normal", "-n", "2", "--yes"]).ends(0).says(&["slot 2 starts its system"]);
    assert_eq!(bench.json(&["eth", "reset", "--yes"])["done"], "eth-reset");
    assert_eq!(bench.json(&["transfer", "--cancel", "--yes"])["cancelled"], false);
    assert_eq!(bench.json(&["login"])["user"], "root");
    assert_eq!(bench.json(&["trust"])["matches"], true);
    assert_eq!(bench.json(&["logout"])["found"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_slots_are_one_request() {
    let bench = Bench::usual().await;
    bench.run(&["power", "on", "--all"]).ends(0);
    let requests = bench.requests("opt=set&type=power");
    assert_eq!(requests.len(), 1, "{requests:?}");
    assert_eq!(bench.board().power(), [true; 4]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cuts_something_says_what_and_needs_a_yes() {
    let bench = Bench::new(BoardPlan::new("board1"), vec![module(1, true), module(2, true)]).await;
    bench.document();
    let mut command = bench.command(&["power", "off", "-n", "2"]);
    command.env_remove("TPI_HOSTNAME");
    bench.output(&["power", "off"], command).ends(3).says(&["slot 2 (node2)", "Add `--yes`"]);
    for args in [
        &["reset", "-n", "1"][..],
        &["power", "cycle", "-n", "1"],
        &["usb", "flash", "-n", "1"],
        &["advanced", "msd", "-n", "1"],
        &["eth", "reset"],
        &["reboot"],
        &["reload"],
    ] {
        bench.run(args).ends(3).says(&["Nobody has agreed"]);
    }
    assert!(bench.requests("opt=set").is_empty(), "something was changed");
    assert_eq!(bench.board().power(), [true, true, false, false]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_input_ends_with_64_and_the_next_step_before_anything_is_sent() {
    let bench = Bench::usual().await;
    for (args, said) in [
        (&["power", "on"][..], "--node"),
        (&["power", "on", "-n", "5"], "not a slot"),
        (&["power", "on", "-n", "1", "--all"], "cannot be used"),
        (&["usb", "device"], "--node"),
        (&["info", "--password", "turing"], "--password-file"),
        (&["info", "--board", "ftp://bmc"], "neither an http nor an https"),
        (&["info", "--board", "root:pw@bmc"], "credentials do not stand in the address"),
        (&["discover", "--scan", "10.0.0.0/8"], "too many addresses"),
        (&["discover", "--scan", "here"], "is not a network"),
        (&["flash", "-n", "1"], "IMAGE"),
        (&["trust", "--pin", "abc"], "not a SHA-256 fingerprint"),
    ] {
        bench.run(args).ends(64).says(&[said]);
    }
    assert!(bench.board().requests().is_empty());
    bench.run(&["node-info", "-n", "1"]).ends(64).says(&["nothing to change"]);
    bench.run(&["cooling", "set", "no fan", "1"]).ends(64).says(&["system fan"]);
    bench.run(&["cooling", "set", "system fan", "9"]).ends(64).says(&["0 to 6"]);
    let mut nobody = bench.command(&["info"]);
    nobody.env_remove("TPI_HOSTNAME");
    bench.output(&["info"], nobody).ends(64).says(&["which board is meant", "board discover"]);
    bench.document();
    bench.run(&["info", "--board", "board9"]).ends(64).says(&["no board `board9`", "board1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_board_refuses_is_no_success() {
    let bench = Bench::usual().await;
    bench.run(&["usb", "host", "-n", "1"]).ends(8).says(&["USB host role", "next:"]);
    let told = bench.run(&["usb", "host", "-n", "1", "--output", "json"]).ends(8).json();
    assert_eq!((&told["exit_code"], &told["error"]["class"]), (&json!(8), &json!("refused")));
    bench.run(&["info", "--board", "127.0.0.1:9"]).ends(5).says(&["does not answer", "next:"]);
    bench.run(&["discover", "--scan", "127.0.0.1/32", "--port", "9"]).ends(5).says(&["no board was found"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_board_of_2_0_5_has_what_that_firmware_has() {
    let plan = BoardPlan::new("board1").firmware(Firmware::V2_0_5).revision(BoardRevision::V2_4);
    let bench = Bench::new(plan, vec![module(1, false)]).await;
    assert_eq!(bench.json(&["info"])["firmware"], "2.0.5");
    bench.run(&["usb", "host", "-n", "1"]).ends(0).says(&["slot 1 is a host"]);
    bench.run(&["cooling", "status"]).ends(8).says(&["no fan control", "upgrade the BMC's firmware"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn firmware_1_works_over_plain_http_and_gets_no_password() {
    let plan = BoardPlan::new("board1").firmware(Firmware::V1_1_0).revision(BoardRevision::V2_4);
    let bench = Bench::new(plan, vec![module(1, false)]).await;
    assert!(bench.address().starts_with("http://"));
    bench.run(&["info"]).ends(0).says(&["neither encryption nor a login", "firmware 1.1.0"]);
    bench.run(&["power", "on", "-n", "1"]).ends(0);
    assert!(bench.board().power_intent()[0]);
    bench.run(&["usb", "status"]).ends(0);
    bench.image("a.img", b"an image");
    bench.run(&["flash", "-n", "1", "a.img", "--approve", "1"]).ends(8).says(&["SD card"]);
    bench.image("a.tpu", b"firmware");
    bench.run(&["firmware", "a.tpu", "--yes"]).ends(8).says(&["microSD card"]);
    let asked = bench.board().requests();
    assert!(asked.iter().all(|r| !r.headers.iter().any(|(name, _)| name == "authorization")), "{asked:?}");
    assert!(!bench.place.path("home/.local/state/turingpi/boards/tokens.json").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_is_waited_for_and_logged_in_to_anew() {
    let bench = Bench::usual().await;
    for verb in ["reboot", "reload"] {
        assert_eq!(bench.json(&[verb, "--yes"])["done"], verb);
        assert!(bench.board().is_up());
    }
    assert_eq!(bench.requests("type=reboot").len(), 1);
    assert!(bench.requests("fel").is_empty(), "the recovery mode");
    // The token of before is worth nothing now, and using it would count as a failed login.
    assert!(
        bench
            .board()
            .requests()
            .iter()
            .all(|r| !(r.status == Some(401) && r.headers.iter().any(|(n, _)| n == "authorization")))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_is_refused_while_a_transfer_moves_and_the_transfer_can_be_cancelled() {
    let bench = Bench::usual().await;
    bench.board().ghost_flash(1);
    bench.run(&["reboot", "--yes"]).ends(7).says(&["busy with a transfer", "--cancel"]);
    assert_eq!(bench.json(&["transfer"])["transfer"]["moving"]["cancelled"], false);
    bench.run(&["transfer", "--cancel"]).ends(3);
    let told = bench.json(&["transfer", "--cancel", "--yes"]);
    assert_eq!(told["cancelled"], true, "{told}");
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_that_begins_while_somebody_is_asked_is_not_cut_by_the_restart() {
    for verb in ["reboot", "reload"] {
        let bench = Bench::usual().await;
        let (code, told) = agreed_after(&bench, &[verb], || bench.board().ghost_flash(2));
        assert_eq!(code, Some(7), "{told}");
        assert!(told.contains("busy with a transfer: `") && told.contains("Nothing was done"), "{told}");
        let transfer = bench.json(&["transfer"])["transfer"].clone();
        let process = transfer["moving"]["process"].as_str().unwrap_or_else(|| panic!("{transfer}"));
        assert!(told.contains(&format!("`{process}`")), "{process}: {told}");
        assert!(bench.requests(&format!("type={verb}")).is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_its_owners_alone_and_nothing_is_written_over() {
    let bench = Bench::usual().await;
    let told = bench.json(&["backup", "b.tar.gz"]);
    let file = bench.place.path("b.tar.gz");
    assert_eq!(std::fs::metadata(&file).unwrap().len(), told["bytes"].as_u64().unwrap());
    assert_eq!(std::fs::read(&file).unwrap()[..2], [0x1f, 0x8b]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    bench.run(&["backup", "b.tar.gz"]).ends(64).says(&["--force"]);
    bench.run(&["backup", "b.tar.gz", "--force"]).ends(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_finds_a_board_without_a_password() {
    let bench = Bench::usual().await;
    let port = bench.address().rsplit(':').next().unwrap().to_owned();
    let told = bench.json(&["discover", "--scan", "127.0.0.1/32", "--port", &port]);
    assert_eq!(told["boards"][0]["url"], bench.address());
    let pin = told["boards"][0]["fingerprint"].as_str().unwrap().replace(':', "").to_lowercase();
    assert_eq!(Some(pin), bench.board().fingerprint());
    assert!(bench.requests("authenticate").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_console_goes_by_websocket_where_the_firmware_has_one_that_works() {
    let plan = BoardPlan::new("board1").firmware(Firmware::Fork).credentials("root", "not the factory's");
    let bench = Bench::new(plan, vec![module(1, true)]).await;
    let args = ["console", "-n", "1", "--send", "", "--expect", "login: ", "--timeout", "60s"];
    let mut command = bench.command(&args);
    command.env("TPI_PASSWORD", "not the factory's");
    bench.output(&args, command).ends(0).says(&["login: "]);
    assert!(!bench.requests("/serial/ws").is_empty(), "{:?}", bench.requests(""));
    assert!(bench.requests("cmd=").is_empty(), "keys went that way, too");
}
