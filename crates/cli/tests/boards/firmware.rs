//! `board firmware`: staged, verified, agreed to, rebooted, looked at.

use serde_json::json;
use turingpi_testkit::{Action, BoardPlan, BoardRevision, Fault, Firmware, Site};

use crate::bench::{Bench, module};

async fn old() -> Bench {
    let plan = BoardPlan::new("board1").firmware(Firmware::V2_0_5).revision(BoardRevision::V2_4);
    let bench = Bench::new(plan, vec![module(1, true), module(2, false)]).await;
    bench.image("new.tpu", &Firmware::V2_1_0.image());
    bench
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_is_staged_and_activated_and_the_new_version_is_seen() {
    let bench = old().await;
    let told = bench.run(&["firmware", "new.tpu", "--yes"]).ends(0).says(&[
        "runs bmcd 2.0.5",
        "staged",
        "runs bmcd 2.3.4",
    ]);
    assert!(told.out.contains("slot 1 on"), "{}", told.out);
    assert_eq!(bench.requests("type=reboot").len(), 1);
    assert_eq!(bench.json(&["info"])["firmware"], "2.1.0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stream_of_an_upgrade_ends_with_what_ran_before_and_what_runs_now() {
    let bench = old().await;
    let lines = bench.run(&["firmware", "-f", "new.tpu", "--yes", "--output", "json"]).ends(0).lines();
    let last = lines.last().unwrap();
    assert_eq!((&last["event"], &last["outcome"]), (&json!("result"), &json!("done")));
    assert_eq!(last["activated"]["changed"], true, "{last:#}");
    assert!(last["staged"]["sha256"].as_str().unwrap().len() == 64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_the_bmc_refuses_changes_nothing_and_says_what_still_runs() {
    let bench = old().await;
    bench.image("bad.tpu", &[b'x'; 4000]);
    bench.run(&["firmware", "bad.tpu", "--yes"]).ends(8).says(&[
        "the firmware was not staged",
        "bmcd 2.0.5",
        "still runs",
        "board reboot",
    ]);
    assert!(bench.requests("type=reboot").is_empty());
    let digest = "0".repeat(64);
    bench
        .run(&["firmware", "new.tpu", "--yes", "--sha256", &digest])
        .ends(8)
        .says(&["not what was expected"]);
    assert_eq!(bench.requests("type=firmware").iter().filter(|r| r.query.contains("opt=set")).count(), 1);
    bench.run(&["firmware", "gone.tpu", "--yes"]).ends(4).says(&["there is no firmware file"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_yes_it_stays_staged_and_says_how_to_activate_it() {
    let bench = old().await;
    bench.run(&["firmware", "new.tpu"]).ends(3).says(&["ALL NODES LOSE POWER", "is staged", "board reboot"]);
    assert!(bench.requests("type=reboot").is_empty());
    bench
        .run(&["firmware", "new.tpu", "--stage-only"])
        .ends(0)
        .says(&["The next reboot of the BMC activates it"]);
    bench.run(&["firmware", "new.tpu", "--output", "json"]).ends(3);
    bench.run(&["reboot", "--yes"]).ends(0).says(&["bmcd 2.3.4"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_is_cut_is_no_success_and_tells_the_next_step() {
    let bench = old().await;
    let site = Site::Bmc { board: None, request: "POST /api/bmc/upload".into() };
    bench.simulation.faults().add(Fault::at(site, Action::CutAfter(40_000)));
    bench.run(&["firmware", "new.tpu", "--yes"]).ends(8).says(&["was not staged", "still runs", "next:"]);
    assert!(bench.requests("type=reboot").is_empty());
    bench.run(&["firmware", "new.tpu", "--yes"]).ends(0).says(&["runs bmcd 2.3.4"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bmc_that_comes_back_with_the_old_version_is_no_success() {
    let fallen = ["came back with the same version", "fell back to its old firmware", "next:", "--reinstall"];
    for site in
        [Site::Bmc { board: None, request: "opt=set&type=reboot".into() }, Site::Firmware { board: None }]
    {
        let bench = old().await;
        bench.simulation.faults().add(Fault::at(site, Action::OldFirmware));
        let told = bench.run(&["firmware", "new.tpu", "--yes"]).ends(8).says(&fallen).says(&["bmcd 2.0.5"]);
        assert!(!told.out.contains("done"), "{}", told.out);
        assert_eq!(bench.simulation.faults().struck(), 1);
        assert_eq!((bench.board().firmware(), bench.requests("type=reboot").len()), (Firmware::V2_0_5, 1));
        // The fault is gone, and what is advised helps.
        bench.run(&["firmware", "new.tpu", "--yes"]).ends(0).says(&["runs bmcd 2.3.4"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_version_is_a_success_where_it_is_expected() {
    let bench = old().await;
    bench.image("same.tpu", &Firmware::V2_0_5.image());
    let last = |lines: Vec<serde_json::Value>| lines.last().unwrap().clone();
    let refused = last(bench.run(&["firmware", "same.tpu", "--yes", "--output", "json"]).ends(8).lines());
    assert_eq!(refused["error"]["class"], "refused", "{refused:#}");
    assert!(refused["activated"].is_null() && refused["staged"].is_object(), "{refused:#}");

    bench.run(&["firmware", "same.tpu", "--reinstall", "--yes"]).ends(0).says(&[
        "runs bmcd 2.0.5",
        "as before",
        "slot 1 on",
    ]);
    let args = ["firmware", "same.tpu", "--reinstall", "--yes", "--output", "json"];
    let done = last(bench.run(&args).ends(0).lines());
    assert_eq!((&done["outcome"], &done["activated"]["changed"]), (&json!("done"), &json!(false)));
    bench.run(&["firmware", "same.tpu", "--reinstall", "--stage-only"]).ends(64);
    // Another version than expected is what it is.
    bench.run(&["firmware", "new.tpu", "--reinstall", "--yes"]).ends(0).says(&["runs bmcd 2.3.4"]);
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_that_begins_while_somebody_is_asked_is_not_cut_by_the_activation() {
    let bench = old().await;
    let meanwhile = || bench.board().ghost_flash(2);
    let (code, told) = crate::calls::agreed_after(&bench, &["firmware", "new.tpu"], meanwhile);
    assert_eq!(code, Some(7), "{told}");
    assert!(told.contains("busy with a transfer: `"), "{told}");
    assert!(told.contains("the new firmware is staged") && told.contains("board reboot"), "{told}");
    assert!(bench.requests("type=reboot").is_empty());
    assert_eq!(bench.json(&["transfer", "--cancel", "--yes"])["cancelled"], true);
    bench.run(&["reboot", "--yes"]).ends(0).says(&["bmcd 2.3.4"]);
}
