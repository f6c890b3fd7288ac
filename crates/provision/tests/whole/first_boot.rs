//! First boots other than that of an Armbian on the eMMC whose address is known.

use turingpi_provision::engine::FailureClass;
use turingpi_testkit::OsImage;

use crate::common::{private, story, world};

const ONE: &str = "
nodes:
  - { name: node1, role: control-plane, address: 10.10.88.73, slot: board1/1, image: armbian }
";
const STATIC: &str = "first-boot: { static: { prefix: 24, gateway: 10.10.88.1, dns: [10.10.88.1] } }\n";

#[tokio::test]
async fn ubuntus_expired_password_is_changed_at_the_console_and_the_node_joins() {
    let world = world(ONE).image(OsImage::ubuntu()).start().await;
    let run = world.apply().await;
    assert!(run.said("has expired"), "{}", story(&run.events));
    run.done();
    world.settled().await;
    let console = world.node("node1").uart_text();
    assert!(console.contains("required to change your password"), "{console}");
    assert_eq!(world.flashes(), [1]);
    let secret = world.state()["secrets"]["node/node1/root-password"].as_str().unwrap().to_owned();
    assert!(!console.contains(&secret), "a password was echoed on the serial line");
    assert!(world.node("node1").accepts_password("ubuntu", &secret));
    assert!(!world.node("node1").accepts_password("ubuntu", "ubuntu"), "the delivered password still works");
    assert_eq!(world.apply().await.done().steps_done, 0);
}

#[tokio::test]
async fn ubuntu_at_an_unknown_address_is_found_over_the_console_and_gets_its_static_one() {
    let world = world(&format!("{ONE}{STATIC}"))
        .image(OsImage::ubuntu())
        .nodes(|n| n.leased_address("10.10.88.150".parse().unwrap()))
        .start()
        .await;
    let run = world.apply().await;
    assert!(run.said("10.10.88.150"), "the address that was read on the console: {}", story(&run.events));
    run.done();
    world.settled().await;
    assert_eq!(world.node("node1").address(), "10.10.88.73".parse().ok());
    // It is still there after a restart.
    world.node("node1").reboot();
    while !world.node("node1").running() {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    assert_eq!(world.node("node1").address(), "10.10.88.73".parse().ok());
}

#[tokio::test]
async fn without_a_static_address_the_one_read_on_the_console_is_told() {
    let world = world(ONE)
        .image(OsImage::ubuntu())
        .nodes(|n| n.leased_address("10.10.88.150".parse().unwrap()))
        .start()
        .await;
    let run = world.apply().await;
    let failure = run.failed();
    let told = serde_json::to_string(&failure).unwrap();
    assert!(told.contains("10.10.88.150"), "{failure:#?}");
    assert!(failure.hint.is_some());
    assert_eq!(world.simulation.clusters().len(), 0);
}

#[tokio::test]
async fn a_debian_image_with_a_login_of_its_own_is_taken_over_with_that() {
    let yaml = "images: { armbian: { source: ./debian.img.xz, login: { username: debian, password: { file: login } } } }"
        .to_owned()
        + ONE;
    let world = world(&yaml).image(OsImage::debian().with_login("debian", "baked-in-1")).start().await;
    private(&world.folder().join("login"), "baked-in-1\n");
    world.converge().await;
    assert!(!world.node("node1").argv_contains("baked-in-1"));
    assert!(
        !world.node("node1").accepts_password("debian", "baked-in-1"),
        "the delivered password still works"
    );
    assert_eq!(world.apply().await.done().steps_done, 0);
}

#[tokio::test]
async fn a_debian_image_without_a_login_ends_with_what_to_do_about_it() {
    let world = world(ONE).image(OsImage::debian()).start().await;
    let failure = world.apply().await.failed();
    assert_eq!(failure.class, FailureClass::Auth, "{failure:#?}");
    assert!(failure.hint.unwrap().contains("images.<name>.login"));
    assert_eq!(world.simulation.clusters().len(), 0);
    // Only the login is missing: with it the same flash is gone on with.
    assert_eq!(world.flashes(), [1]);
}

#[tokio::test]
async fn a_node_that_boots_from_its_nvme_is_never_taken_for_the_system_that_was_flashed() {
    // A fresh Armbian on the NVMe lets us in with the very login that the flashed one would have.
    let world = world(ONE).nodes(|n| n.system_on_nvme(OsImage::armbian().with_build(7))).start().await;
    let run = world.apply().await;
    let failure = run.failed();
    assert_eq!(failure.class, FailureClass::Refused, "{failure:#?}\n{}", story(&run.events));
    let told = serde_json::to_string(&failure).unwrap();
    assert!(told.contains("/dev/nvme0n1p1") && told.contains("older system"), "{failure:#?}");
    assert!(failure.hint.as_ref().unwrap().contains("wipefs"), "{failure:#?}");
    assert_eq!(world.flashes(), [1]);
    // It was looked at, and nothing else.
    assert!(world.node("node1").file("/root/.not_logged_in_yet").is_some());
    assert!(world.node("node1").file("/var/lib/turingpi/flash").is_none());
    assert!(world.node("node1").text("/root/.ssh/authorized_keys").unwrap_or_default().is_empty());
    // Again: still refused, and not flashed once more in the hope that it helps.
    assert_eq!(world.apply().await.failed().class, FailureClass::Refused);
    assert_eq!(world.flashes(), [1]);

    // As the hint says, and the flashed system is the one that boots.
    let (code, _, err) = world.node("node1").run("wipefs -af /dev/nvme0n1").await;
    assert_eq!(code, 0, "{err}");
    world.node("node1").reboot();
    world.converge().await;
    assert_eq!(world.flashes(), [1]);
    assert_eq!(world.node("node1").run("findmnt -n -o SOURCE /").await.1.trim(), "/dev/mmcblk0p1");
}

#[tokio::test]
async fn a_strange_system_on_the_nvme_is_named_as_a_possible_cause() {
    let nvme = OsImage::debian().with_login("somebody", "else");
    let world = world(ONE).nodes(move |n| n.system_on_nvme(nvme.clone())).start().await;
    let failure = world.apply().await.failed();
    assert_eq!(failure.class, FailureClass::Auth, "{failure:#?}");
    assert!(failure.hint.unwrap().contains("NVMe"));
    assert_eq!(world.simulation.clusters().len(), 0);
}
