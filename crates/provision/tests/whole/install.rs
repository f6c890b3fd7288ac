//! The other two ways a node gets k3s: it downloads it itself, or everything lies in a folder.

use std::fs;

use sha2::{Digest as _, Sha256};
use turingpi_provision::engine::FailureClass;
use turingpi_testkit::{Action, Fault, Site, k3s_airgap_images, k3s_binary};

use crate::common::{SMALL, World, world};

const VERSION: &str = "v1.35.5+k3s1";
const AIRGAP: &str = "k3s: { install: { airgap: { folder: ./airgap } } }\n";
const NODE: &str = "k3s: { install: node }\n";

/// How often the mirror was asked for something.
fn asked(world: &World, what: &str) -> usize {
    world.simulation.mirror().requests().iter().filter(|r| r.path.contains(what)).count()
}

/// A folder as a person fills it from a release's page.
fn fill(world: &World) {
    let folder = world.folder().join("airgap");
    fs::create_dir_all(&folder).unwrap();
    let mut sums = String::new();
    for (name, bytes) in [
        ("k3s-arm64", k3s_binary(VERSION, "arm64")),
        ("k3s-airgap-images-arm64.tar.zst", k3s_airgap_images(VERSION, "arm64")),
    ] {
        sums += &format!("{}  {name}\n", hex::encode(Sha256::digest(&bytes)));
        fs::write(folder.join(name), bytes).unwrap();
    }
    fs::write(folder.join("sha256sum-arm64.txt"), sums).unwrap();
}

const IMAGES: &str = "/var/lib/rancher/k3s/agent/images/k3s-airgap-images-arm64.tar.zst";

#[tokio::test]
async fn each_node_downloads_k3s_itself_and_verifies_it() {
    let world = world(&format!("{SMALL}{NODE}")).start().await;
    world.converge().await;
    let downloads = asked(&world, "/k3s-arm64");
    assert_eq!(
        downloads,
        2,
        "each of the two nodes, and nobody else: {:?}",
        world.simulation.mirror().requests()
    );
    let wanted = k3s_binary(VERSION, "arm64");
    for node in ["node1", "node2"] {
        assert_eq!(world.node(node).file("/usr/local/bin/k3s").unwrap().bytes, wanted, "{node}");
        assert!(world.node(node).file("/usr/local/bin/.k3s.turingpi").is_none(), "{node}");
    }
    assert_eq!(world.apply().await.done().steps_done, 0);
    assert_eq!(asked(&world, "/k3s-arm64"), downloads);
}

#[tokio::test]
async fn a_node_does_not_install_a_download_with_another_digest() {
    let world = world(&format!("{SMALL}{NODE}")).start().await;
    let fault = Fault::at(Site::Mirror { path: "/k3s-arm64".to_owned() }, Action::Corrupt);
    world.simulation.faults().add(fault.times(1000));
    let failure = world.apply().await.failed();
    assert!(failure.hint.is_some(), "{failure:#?}");
    for node in ["node1", "node2"] {
        assert!(world.node(node).file("/usr/local/bin/k3s").is_none(), "{node}");
        assert!(world.node(node).file("/usr/local/bin/.k3s.turingpi").is_none(), "{node}");
    }
    assert_eq!(world.simulation.clusters().len(), 0);
    // When the mirror is right again, so is the cluster.
    world.simulation.faults().clear();
    world.converge().await;
    assert_eq!(world.flashes(), [1, 1]);
}

#[tokio::test]
async fn a_cluster_is_made_from_a_folder_and_nothing_of_it_is_downloaded() {
    let world = world(&format!("{SMALL}{AIRGAP}")).start().await;
    fill(&world);
    world.converge().await;
    assert_eq!(asked(&world, "/download/"), 0, "{:?}", world.simulation.mirror().requests());
    assert_eq!(asked(&world, "channels"), 0);
    for node in ["node1", "node2"] {
        assert_eq!(world.node(node).file("/usr/local/bin/k3s").unwrap().bytes, k3s_binary(VERSION, "arm64"));
        assert_eq!(
            world.node(node).file(IMAGES).unwrap().bytes,
            k3s_airgap_images(VERSION, "arm64"),
            "{node}"
        );
    }
    assert_eq!(world.apply().await.done().steps_done, 0);
}

#[tokio::test]
async fn files_of_the_folder_with_another_digest_are_refused() {
    for name in ["k3s-arm64", "k3s-airgap-images-arm64.tar.zst"] {
        let world = world(&format!("{SMALL}{AIRGAP}")).start().await;
        fill(&world);
        let path = world.folder().join("airgap").join(name);
        let mut bytes = fs::read(&path).unwrap();
        let last = bytes.last_mut().unwrap();
        *last ^= 1;
        fs::write(&path, bytes).unwrap();
        let failure = world.apply().await.failed();
        assert_eq!(failure.class, FailureClass::Refused, "{name}: {failure:#?}");
        assert!(serde_json::to_string(&failure).unwrap().contains(name), "{failure:#?}");
        assert!(failure.hint.is_some());
        let target = if name == "k3s-arm64" { "/usr/local/bin/k3s" } else { IMAGES };
        for node in ["node1", "node2"] {
            assert!(world.node(node).file(target).is_none(), "{node}: {name}");
        }
        assert_eq!(world.simulation.clusters().len(), 0);
        fill(&world);
        world.converge().await;
    }
}

#[tokio::test]
async fn a_folder_without_images_is_told_before_anything_is_flashed_or_started() {
    let world = world(&format!("{SMALL}{AIRGAP}")).start().await;
    fill(&world);
    fs::remove_file(world.folder().join("airgap/k3s-airgap-images-arm64.tar.zst")).unwrap();
    let failure = world.apply().await.failed();
    assert_eq!(failure.class, FailureClass::Config, "{failure:#?}");
    assert!(failure.hint.unwrap().contains("k3s-airgap-images-arm64.tar.zst"));
    assert_eq!(world.simulation.clusters().len(), 0);
}
