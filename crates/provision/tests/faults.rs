//! Whatever goes wrong, wherever: it passes, or it ends with a class that has an exit code, a hint, and a world that the
//! next apply brings to its end. Never with a success that is none.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod common;

use std::time::Duration;

use common::{HOSTS, Run, World, story, world};
use sha2::{Digest as _, Sha256};
use turingpi_provision::engine::{
    Failure,
    FailureClass::{self, *},
};
use turingpi_testkit::{Action, Fault, OsImage, Site};

/// One node to be flashed.
const ONE: &str = "
nodes:
  - { name: node1, role: control-plane, address: 10.10.88.73, slot: board1/1, image: armbian, labels: { disk: emmc } }
";

/// Stands only in the script that installs packages.
const INSTALL: &str = "dpkg --configure -a";

const EVER: u32 = u32::MAX;

/// What must come of it.
enum Then {
    /// The run gets through in spite of it.
    Through,
    /// The run fails with one of these classes, and the next one gets through.
    Fails(&'static [FailureClass]),
    /// One of the two: where it strikes is not always the same place.
    Either(&'static [FailureClass]),
}
use Then::{Either, Fails, Through};

struct Case {
    what: &'static str,
    site: Site,
    action: Action,
    /// From which hit on, and how many times.
    nth: u32,
    times: u32,
    then: Then,
}

fn case(what: &'static str, site: Site, action: Action, (nth, times): (u32, u32), then: Then) -> Case {
    Case { what, site, action, nth, times, then }
}

fn bmc(request: &str) -> Site {
    Site::Bmc { board: None, request: request.to_owned() }
}
fn flash() -> Site {
    Site::Flash { board: None, slot: None }
}
fn mirror(path: &str) -> Site {
    Site::Mirror { path: path.to_owned() }
}
fn boot() -> Site {
    Site::Boot { node: None }
}
fn connect(node: &str) -> Site {
    Site::SshConnect { node: Some(node.to_owned()) }
}
fn exec(node: &str, script: &str) -> Site {
    Site::SshExec { node: Some(node.to_owned()), script: script.to_owned() }
}
fn unit(node: &str, unit: &str) -> Site {
    Site::UnitStart { node: Some(node.to_owned()), unit: unit.to_owned() }
}
fn kube(request: &str) -> Site {
    Site::Kube { request: request.to_owned() }
}
fn fail(text: &str) -> Action {
    Action::Fail(1, text.to_owned())
}
fn status(code: u16) -> Action {
    Action::Status(code, "on purpose".to_owned())
}

/// Runs every case in a world of its own.
async fn all(yaml: &str, cases: Vec<Case>) {
    let mut wrong = Vec::new();
    for case in cases {
        let world = world(yaml).start().await;
        if let Err(why) = one(&world, &case).await {
            wrong.push(format!("{} ({}): {why}", case.what, case.nth));
        }
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n\n"));
}

async fn one(world: &World, case: &Case) -> Result<(), String> {
    let faults = world.simulation.faults().clone();
    faults.add(Fault::at(case.site.clone(), case.action.clone()).nth(case.nth).times(case.times));
    let run = world.apply().await;
    if faults.struck() == 0 {
        return Err("it never struck".to_owned());
    }
    faults.clear();
    match (&run.result, &case.then) {
        (Ok(_), Fails(_)) => return Err(format!("the run converged\n{}", story(&run.events))),
        (Err(failure), Through) => {
            return Err(format!("the run failed: {:#?}\n{}", failure.report(), story(&run.events)));
        }
        (Ok(_), Through | Either(_)) => {
            let left = world.planned().await;
            if !left.is_empty() {
                return Err(format!("a success that is none: {left:#?}\n{}", story(&run.events)));
            }
        }
        (Err(failure), Fails(classes) | Either(classes)) => {
            let report = failure.report();
            if !classes.contains(&report.class) {
                return Err(format!("ended as {:?}: {report:#?}", report.class));
            }
            if report.hint.as_deref().unwrap_or_default().is_empty() {
                return Err(format!("no hint: {report:#?}"));
            }
            world.state();
            help(world, case).await;
            let again = next(world).await;
            if let Err(failure) = &again.result {
                let report = failure.report();
                return Err(format!("the next run did not converge: {report:#?}\n{}", story(&again.events)));
            }
        }
    }
    world.settled().await;
    for node in world.document.nodes.iter().filter(|n| n.image.is_some()) {
        let image = OsImage::armbian().with_size(common::IMAGE_BYTES).raw();
        let digest = hex::encode(Sha256::digest(&image));
        let written = world.node(&node.name).image().map(|(_, sha256)| sha256);
        if written.as_ref() != Some(&digest) {
            return Err(format!("{} holds {written:?}, not the image", node.name));
        }
    }
    Ok(())
}

/// What a person does after the hint.
async fn help(world: &World, case: &Case) {
    if matches!(case.site, Site::Boot { .. }) {
        world.simulation.power_cut("node1").await;
        world.simulation.power_restore("node1").await;
    }
}

/// The next run; while a ban lasts, the one after it.
async fn next(world: &World) -> Run {
    for _ in 0..100 {
        let run = world.apply().await;
        // The faults are gone, so what is still refused is the banned address.
        let banned = |f: &Failure| f.class() == Auth;
        if !run.result.as_ref().is_err_and(banned) {
            return run;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.apply().await
}

#[tokio::test]
async fn downloads_that_go_wrong_are_fetched_again_or_refused() {
    all(
        ONE,
        vec![
            case("image: busy once", mirror("armbian"), status(503), (1, 1), Through),
            case("image: cut off once", mirror("armbian"), Action::CutAfter(5_000), (1, 1), Through),
            case("image: flipped bit once", mirror("armbian"), Action::Corrupt, (1, 1), Through),
            case(
                "image: flipped bit for ever",
                mirror("armbian"),
                Action::Corrupt,
                (1, EVER),
                Fails(&[Refused, Config]),
            ),
            case("image: not there", mirror("armbian"), status(404), (1, EVER), Fails(&[Config, Refused])),
            case("image: no connection", mirror("armbian"), Action::Drop, (1, EVER), Fails(&[Unreachable])),
        ],
    )
    .await;
    all(
        HOSTS,
        vec![
            case("k3s: busy once", mirror("k3s-arm64"), status(502), (1, 1), Through),
            case("k3s: flipped bit once", mirror("k3s-arm64"), Action::Corrupt, (1, 1), Through),
            case(
                "k3s: flipped bit for ever",
                mirror("k3s-arm64"),
                Action::Corrupt,
                (1, EVER),
                Fails(&[Refused, Config]),
            ),
            case("k3s: cut off once", mirror("k3s-arm64"), Action::CutAfter(1_000), (1, 1), Through),
            case(
                "checksums: not there",
                mirror("sha256sum"),
                status(404),
                (1, EVER),
                Fails(&[Config, Refused]),
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_bmc_that_stumbles_is_asked_again_or_named() {
    all(
        ONE,
        vec![
            case("login: 500 once", bmc("authenticate"), status(500), (1, 1), Through),
            case("reading the power: 500 once", bmc("opt=get&type=power"), status(500), (1, 1), Through),
            case("reading the transfer: 502 once", bmc("opt=get&type=flash"), status(502), (1, 1), Through),
            case(
                "login: refused for ever",
                bmc("authenticate"),
                status(403),
                (1, EVER),
                Fails(&[Auth, Refused]),
            ),
            case("token: gone in the middle", bmc(""), Action::ExpireToken, (6, 1), Through),
            case(
                "address banned for a moment",
                bmc(""),
                Action::Ban(Duration::from_millis(30)),
                (6, 1),
                Through,
            ),
            case("daemon restarts between requests", bmc(""), Action::Restart, (7, 1), Through),
            case("one connection dropped", bmc(""), Action::Drop, (5, 1), Through),
            case("all connections dropped", bmc(""), Action::Drop, (1, EVER), Fails(&[Unreachable])),
            case("power: 500 once", bmc("type=power&"), status(500), (1, 1), Through),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_flash_that_goes_wrong_is_never_called_done() {
    all(
        ONE,
        vec![
            case(
                "start of the flash: 500",
                bmc("opt=set&type=flash"),
                status(500),
                (1, 1),
                Fails(&[Refused]),
            ),
            case("upload: cut off", bmc("/upload/"), Action::CutAfter(20_000), (1, 1), Through),
            case("upload: dropped", bmc("/upload/"), Action::Drop, (1, 1), Through),
            case("eMMC reads back differently", flash(), Action::Corrupt, (1, 1), Through),
            case(
                "eMMC reads back differently for ever",
                flash(),
                Action::Corrupt,
                (1, EVER),
                Fails(&[Refused, Unexpected]),
            ),
            case("another job takes over", flash(), Action::Replace, (1, 1), Fails(&[Locked, Refused])),
            case("the daemon restarts", flash(), Action::Restart, (1, 1), Through),
            case("the BMC has no room", flash(), Action::DiskFull, (1, EVER), Fails(&[Refused])),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_system_that_does_not_boot_is_told_with_its_last_words() {
    all(
        ONE,
        vec![
            case("reboots in the middle of its boot", boot(), Action::Reboot, (1, 1), Through),
            case("hangs in its first boot", boot(), Action::Hang, (1, 1), Fails(&[Timeout])),
            case(
                "panics in its first boot",
                boot(),
                fail("Unable to mount root fs"),
                (1, 1),
                Fails(&[Timeout]),
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn ssh_that_breaks_is_connected_again() {
    all(
        HOSTS,
        vec![
            case("first connection dropped", connect("node1"), Action::Drop, (1, 1), Through),
            case("no connection at all", connect("node1"), Action::Drop, (1, EVER), Fails(&[Unreachable])),
            case(
                "connection cut in the first look",
                exec("node1", "section "),
                Action::Drop,
                (1, 1),
                Through,
            ),
            case(
                "connection cut while apt is waited for",
                exec("node2", "dpkg) printf"),
                Action::Drop,
                (1, 1),
                Through,
            ),
            case("connection cut in apt", exec("node2", INSTALL), Action::Drop, (1, 1), Through),
            case(
                "no shell for apt",
                exec("node2", INSTALL),
                fail("fork: Resource unavailable"),
                (1, 1),
                Fails(&[Refused]),
            ),
            case("reboot in apt", exec("node2", INSTALL), Action::Reboot, (1, 1), Through),
            case(
                "disk full in apt",
                exec("node2", INSTALL),
                Action::DiskFull,
                (1, EVER),
                Fails(&[Refused, Unexpected]),
            ),
        ],
    )
    .await;
}

/// Not at a known place, but wherever the n-th command of a node happens to be.
#[tokio::test]
async fn a_node_that_reboots_or_is_cut_off_at_any_command_comes_to_the_same_end() {
    let mut cases = Vec::new();
    for nth in [3, 7, 12, 18, 25, 33] {
        let classes = &[Unreachable, Timeout, Refused, Unexpected];
        cases.push(case("reboot at a command", exec("node2", ""), Action::Reboot, (nth, 1), Either(classes)));
        cases.push(case("cut off at a command", exec("node1", ""), Action::Drop, (nth, 1), Either(classes)));
    }
    all(HOSTS, cases).await;
}

#[tokio::test]
async fn k3s_that_does_not_start_at_once_is_waited_for_and_one_that_never_will_is_named() {
    all(
        HOSTS,
        vec![
            case("server: fails once", unit("node1", "k3s.service"), fail("listen: in use"), (1, 1), Through),
            case("agent: fails three times", unit("node2", "k3s-agent"), fail("timeout"), (1, 3), Through),
            case(
                "server: reboots while it starts",
                unit("node1", "k3s.service"),
                Action::Reboot,
                (1, 1),
                Through,
            ),
            case(
                "agent: reboots while it starts",
                unit("node2", "k3s-agent"),
                Action::Reboot,
                (1, 1),
                Through,
            ),
            case(
                "agent: the token is another cluster's",
                unit("node2", "k3s-agent"),
                fail("token CA hash does not match the Cluster CA certificate hash"),
                (1, EVER),
                Fails(&[Refused]),
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_kubernetes_api_that_stumbles_is_asked_again() {
    all(
        HOSTS,
        vec![
            case("not ready for a while", kube("GET /readyz"), status(500), (1, 3), Through),
            case("unavailable for a while", kube(""), status(503), (1, 4), Through),
            case("too many requests", kube("GET /api/v1/nodes"), status(429), (1, 2), Through),
            case("connections dropped", kube(""), Action::Drop, (2, 3), Through),
            case("answers cut off", kube("GET /api/v1/nodes"), Action::CutAfter(40), (1, 1), Through),
            case(
                "login refused",
                kube("GET /api/v1/nodes"),
                Action::ExpireToken,
                (1, EVER),
                Fails(&[Auth, Timeout]),
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn another_host_key_stops_everything_before_a_word_is_said() {
    let world = world(HOSTS).start().await;
    world.converge().await;
    world.node("node2").run("systemctl stop k3s-agent").await;
    let faults = world.simulation.faults().clone();
    faults.add(Fault::at(connect("node2"), Action::WrongHostKey).times(EVER));
    let before = world.node("node2").exec_log().len();
    let failure = world.apply().await.failed();
    assert_eq!(failure.class, Auth, "{failure:#?}");
    assert!(failure.hint.is_some(), "{failure:#?}");
    assert_eq!(world.node("node2").exec_log().len(), before);
    faults.clear();
    world.converge().await;
}
