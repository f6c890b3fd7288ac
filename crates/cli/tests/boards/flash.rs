//! `board flash`: images on slots, and what is left when it does not go well.

use std::io::{BufRead as _, BufReader, Read as _};

use serde_json::{Value, json};
use turingpi_testkit::{
    Action, BoardPlan, BoardRevision, Fault, Firmware, NodePlan, OsImage, Pace, SdCard, Simulation, Site, xz,
};

use crate::{
    bench::{Bench, module},
    support::{Place, Ran, interrupt},
};

fn small() -> OsImage {
    OsImage::armbian().with_size(512 * 1024)
}

/// What the eMMC of each slot holds, by the flashes the board saw.
fn written(bench: &Bench) -> Vec<(u8, Option<u8>)> {
    bench.board().flashes().iter().filter(|f| f.error.is_none()).map(|f| (f.slot, f.written_slot)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_are_written_in_turn_switched_on_and_seen_to_boot() {
    let bench = Bench::usual().await;
    bench.image("a.img.xz", &small().xz());
    let told = bench.run(&["flash", "-n", "1,3", "a.img.xz", "--approve", "1,3"]).ends(0);
    assert_eq!(written(&bench), [(1, Some(1)), (3, Some(3))]);
    assert_eq!(bench.board().power(), [true, false, true, false]);
    told.says(&["boots after the flash: its console shows", "holds the image and is on"]);

    // A slot that was seen to boot is left on when another is flashed, and one that holds the image can be left out.
    let told = bench
        .run(&["flash", "-n", "1,2", "a.img.xz", "--approve", "1,2", "--resume", "--output", "json"])
        .ends(0);
    assert_eq!(written(&bench), [(1, Some(1)), (3, Some(3)), (2, Some(2))]);
    let last = told.lines().pop().unwrap();
    let states: Vec<&Value> = last["slots"].as_array().unwrap().iter().map(|s| &s["state"]).collect();
    assert_eq!(states, ["held-already", "flashed"]);
    assert!(bench.requests("node1=0").is_empty() && bench.requests("node3=0").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn boards_are_flashed_side_by_side() {
    let place = Place::new();
    let plan = |board: &str, name: &str, address: u8| {
        NodePlan::new(name).address([10, 0, 0, address].into()).slot(board, 1)
    };
    let simulation = Simulation::builder()
        .pace(Pace::scaled(0.02))
        .board(BoardPlan::new("board1"))
        .board(BoardPlan::new("board2"))
        .image("armbian", OsImage::armbian())
        .node(plan("board1", "node1", 1))
        .node(plan("board2", "node2", 2))
        .start()
        .await
        .unwrap();
    let text = format!(
        "name: lab\nversion: v1.35.5+k3s1\nboards:\n  board1: {{ bmc: \"{}\" }}\n  board2: {{ bmc: \"{}\" }}\n\
         ssh: {{ identity: ./key }}\nnodes:\n  - {{ name: node1, role: control-plane, address: 10.0.0.1, slot: board1/1 }}\n  \
         - {{ name: node2, role: worker, address: 10.0.0.2, slot: board2/1 }}\n",
        simulation.board("board1").url(),
        simulation.board("board2").url()
    );
    place.write("cluster.yaml", &text);
    std::fs::write(place.path("a.img.xz"), small().xz()).unwrap();
    let args = [
        "flash",
        "--board",
        "board1,board2",
        "-n",
        "1",
        "a.img.xz",
        "--approve",
        "node1,node2",
        "--output",
        "json",
    ];
    let mut command = place.command(&[]);
    command.arg("board").args(args).env("TPI_PASSWORD", "turing").env("TURINGPI_POLL_MS", "20");
    let told = Ran::of(&args, tokio::task::block_in_place(|| command.output().unwrap())).ends(0);
    for board in ["board1", "board2"] {
        let flashes = simulation.board(board).flashes();
        assert_eq!(
            flashes.iter().map(|f| (f.slot, f.written_slot)).collect::<Vec<_>>(),
            [(1, Some(1))],
            "{board}"
        );
        assert_eq!(simulation.board(board).power(), [true, false, false, false], "{board}");
    }
    // Both had begun before either had ended.
    let lines = told.lines();
    let at = |event: &str, which: fn(usize, usize) -> usize| {
        let places = lines.iter().enumerate().filter(|(_, line)| {
            line["event"] == event && line["step"].as_str().is_some_and(|step| step.ends_with("/flash"))
        });
        places.map(|(at, _)| at).reduce(which).unwrap()
    };
    assert!(at("step-started", usize::max) < at("step-finished", usize::min), "{}", told.out);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stream_has_progress_and_ends_with_every_slots_state() {
    let bench = Bench::usual().await;
    bench.image("a.img", &small().raw());
    let args = ["flash", "-n", "2", "a.img", "--approve", "2", "--leave-off", "--output", "json"];
    let lines = bench.run(&args).ends(0).lines();
    assert!(lines.iter().any(|l| l["event"] == "progress" && l["part"] == "uploading"));
    let last = lines.last().unwrap();
    assert_eq!(
        (&last["event"], &last["outcome"], &last["exit_code"]),
        (&json!("result"), &json!("done"), &json!(0))
    );
    assert_eq!((&last["slots"][0]["slot"], &last["slots"][0]["power"]), (&json!(2), &json!("off")));
    assert_eq!(bench.board().power(), [false; 4]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn losing_data_needs_the_slots_name_and_yes_is_not_enough() {
    let bench = Bench::usual().await;
    bench.image("a.img", &small().raw());
    let told = bench
        .run(&["flash", "-n", "2", "a.img", "--yes"])
        .ends(3)
        .says(&["would be lost", "`--yes` is not enough"]);
    let flat = told.err.split_whitespace().collect::<Vec<_>>().join(" ");
    let digest = flat
        .split("exactly this plan with `--approve ")
        .nth(1)
        .unwrap()
        .split('`')
        .next()
        .unwrap()
        .to_owned();
    bench.run(&["flash", "-n", "2", "a.img", "--approve", "1"]).ends(64).says(&["cannot be approved"]);
    bench
        .run(&["flash", "-n", "2", "a.img", "--approve", "0123456789abcdef"])
        .ends(3)
        .says(&["is not the one you approved"]);
    assert_eq!(bench.board().jobs_started(), 0);
    bench.run(&["flash", "-n", "2", "a.img", "--approve", &digest]).ends(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_digest_a_missing_file_and_an_image_too_large_touch_nothing() {
    let bench = Bench::usual().await;
    bench.image("a.img", &small().raw());
    let flash = |more: &[&str]| {
        let mut args = vec!["flash", "-n", "2", "--approve", "2"];
        args.extend(more);
        bench.run(&args)
    };
    flash(&["a.img", "--sha256", &"0".repeat(64)]).ends(8).says(&["is not what was expected"]);
    flash(&["./gone.img"]).ends(4).says(&["there is no image", "image list"]);
    flash(&["no-such-name"]).ends(64).says(&["neither an image of the catalogue nor a file"]);
    flash(&["a.img", "--emmc", "4096"]).ends(8).says(&["only 4096"]);
    assert_eq!(bench.board().jobs_started(), 0);
    assert_eq!(bench.board().power(), [false; 4]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_disk_image_is_never_written() {
    let bench = Bench::usual().await;
    let zip = [b"PK\x03\x04".as_slice(), &[7; 4096]].concat();
    let page = format!("<!DOCTYPE html><html><body>{}</body></html>", "log in ".repeat(600));
    bench.image("image.zip", &zip);
    bench.image("image.img.xz", &xz(page.as_bytes()));
    for name in ["image.zip", "image.img.xz"] {
        bench.run(&["flash", "-n", "2", name, "--approve", "2"]).ends(8).says(&["no disk image"]);
    }
    assert_eq!(bench.board().jobs_started(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flash_that_the_bmc_refuses_to_begin_leaves_the_node_on_and_its_system_known() {
    let plan = BoardPlan::new("board1").revision(BoardRevision::V2_4).sd_card(SdCard::new());
    let bench = Bench::new(plan, vec![module(1, true), module(2, false)]).await;
    bench.image("a.img.xz", &small().xz());
    bench.run(&["flash", "-n", "2", "a.img.xz", "--approve", "2"]).ends(0);
    for slot in ["1", "2"] {
        let typo = ["flash", "-n", slot, "--local", "/mnt/sdcard/typo.img", "--approve", slot, "--yes"];
        let told = bench.run(&typo);
        assert!(told.code != 0, "{}", told.err);
        told.says(&["was not written"]);
        assert_eq!(bench.board().power(), [true, true, false, false], "slot {slot}");
    }
    // What was known of slot 2 counts still: there is nothing to do again.
    let again = ["flash", "-n", "2", "a.img.xz", "--approve", "2", "--resume", "--output", "json"];
    let last = bench.run(&again).ends(0).lines().pop().unwrap();
    assert_eq!(last["slots"][0]["state"], "held-already");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_transfer_is_left_alone() {
    let bench = Bench::usual().await;
    bench.image("a.img", &small().raw());
    bench.board().ghost_flash(4);
    bench
        .run(&["flash", "-n", "2", "a.img", "--approve", "2", "--yes"])
        .ends(7)
        .says(&["transfer that is not ours", "was not written"]);
    assert_eq!(bench.board().jobs_started(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_hub_the_others_are_off_meanwhile_with_a_yes_and_on_again_afterwards() {
    let modules = vec![module(1, true), module(2, false), module(3, false), module(4, true)];
    let bench = Bench::new(BoardPlan::new("board1"), modules).await;
    // An empty module that is on waits in its boot ROM: a flash of slot 3 would hit it.
    bench.run(&["power", "on", "-n", "2"]).ends(0);
    bench.image("a.img", &small().raw());
    let args = ["flash", "-n", "3", "a.img", "--approve", "3"];
    bench.run(&args).ends(3).says(&["slot 1, slot 2, slot 4", "off meanwhile", "--keep-on"]);
    assert_eq!(bench.board().jobs_started(), 0);
    let mut yes = args.to_vec();
    yes.extend(["--yes", "--keep-on", "1"]);
    bench.run(&yes).ends(0).says(&["slot 2, 4"]);
    assert_eq!(written(&bench), [(3, Some(3))]);
    assert_eq!(bench.board().power(), [true; 4]);
    assert!(bench.requests("node1=0").is_empty(), "slot 1 was to stay on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_is_cut_is_begun_anew() {
    let bench = Bench::usual().await;
    bench.image("a.img", &small().raw());
    let site = Site::Bmc { board: None, request: "POST /api/bmc/upload".into() };
    bench.simulation.faults().add(Fault::at(site, Action::CutAfter(100_000)));
    bench.run(&["flash", "-n", "2", "a.img", "--approve", "2"]).ends(0).says(&["retry"]);
    assert_eq!(written(&bench), [(2, Some(2))]);
    assert_eq!(bench.board().jobs_started(), 2);
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_leaves_a_known_power_state_and_the_next_run_mends_it() {
    let modules = vec![module(1, true), module(2, false)];
    let bench = Bench::new(BoardPlan::new("board1"), modules).await;
    bench.image("a.img", &small().raw());
    let site = Site::Bmc { board: None, request: "POST /api/bmc/upload".into() };
    bench.simulation.faults().add(Fault::at(site, Action::Hang));
    let args = ["flash", "-n", "2", "a.img", "--approve", "2", "--yes"];
    let child = bench.start(&args);
    bench
        .until("an upload", |board| {
            board.requests().iter().any(|r| r.line().contains("POST /api/bmc/upload"))
        })
        .await;
    // The first asks for the end of what runs, the second ends it. Both have to be heard as two.
    let told = tokio::task::block_in_place(|| {
        let mut child = child;
        interrupt(&child);
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut err = String::new();
        while !err.contains("stopping:") {
            assert_ne!(said.read_line(&mut err).unwrap(), 0, "it ended: {err}");
        }
        interrupt(&child);
        said.read_to_string(&mut err).unwrap();
        let mut output = child.wait_with_output().unwrap();
        output.stderr = err.into_bytes();
        Ran::of(&args, output)
    });
    let told = told.ends(130).says(&["a flash was begun there and did not end", "is off"]);
    assert!(told.err.contains("same command again"), "{}", told.err);
    bench.until("the state that was told", |board| board.power() == [true, false, false, false]).await;
    bench.run(&args).ends(0).says(&["boots after the flash"]);
    assert_eq!(written(&bench), [(2, Some(2))]);
    assert_eq!(bench.board().power(), [true, true, false, false]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_shows_no_boot_is_no_success() {
    let bench = Bench::usual().await;
    bench.image("noise.img", &[0x5a; 64 * 1024]);
    bench.run(&["flash", "-n", "2", "noise.img", "--approve", "2", "--boot-seconds", "1"]).ends(9).says(&[
        "was written and read back",
        "cannot be proved",
        "holds the image and is on",
    ]);
    bench.run(&["flash", "-n", "2", "noise.img", "--approve", "2", "--no-boot-check"]).ends(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_module_that_is_not_there_ends_with_the_next_step() {
    let bench = Bench::new(BoardPlan::new("board1"), vec![module(1, false)]).await;
    bench.image("a.img", &small().raw());
    bench.run(&["flash", "-n", "2", "a.img", "--approve", "2"]).ends(8).says(&[
        "no module that can be flashed",
        "check that the module is seated",
        "is off",
    ]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_old_firmware_cannot_unpack_is_unpacked_while_it_is_sent() {
    let plan = BoardPlan::new("board1").firmware(Firmware::V2_0_5).revision(BoardRevision::V2_4);
    let bench = Bench::new(plan, vec![module(1, false)]).await;
    let raw = small().raw();
    bench.image("a.img.xz", &xz(&raw));
    bench.run(&["flash", "-n", "1", "a.img.xz", "--approve", "1"]).ends(0).says(&["boots after the flash"]);
    let flash = bench.board().flashes().pop().unwrap();
    assert_eq!(flash.bytes, raw.len() as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bmc_can_take_the_image_from_its_card_or_from_the_network() {
    let plan = BoardPlan::new("board1").sd_card(SdCard::new().file("/mnt/sdcard/a.img.xz", small().xz()));
    let bench = Bench::new(plan, vec![module(1, false), module(2, false)]).await;
    let card = ["flash", "-n", "1", "--local", "/mnt/sdcard/a.img.xz", "--approve", "1"];
    bench.run(&card).ends(0).says(&["the BMC checks no digest", "boots after the flash"]);
    bench
        .run(&["flash", "-n", "1", "--local", "/mnt/sdcard/gone.img", "--approve", "1"])
        .ends(8)
        .says(&["No such file"]);
    let image = bench.simulation.mirror().images().pop().unwrap();
    let args =
        ["flash", "-n", "2", "--url", &image.url, "--sha256", &image.sha256, "--approve", "2", "--yes"];
    bench.run(&args).ends(0).says(&["boots after the flash"]);
    assert_eq!(written(&bench), [(1, Some(1)), (2, Some(2))]);
    // Downloaded here, proved, and sent.
    let args =
        ["flash", "-n", "2", &image.url, "--sha256", &image.sha256, "--approve", "2", "--leave-off", "--yes"];
    bench.run(&args).ends(0);
}
