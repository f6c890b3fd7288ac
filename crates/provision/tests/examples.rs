//! Every document below `examples/` leads somewhere: it is planned against a simulated world of its shape.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod common;

use std::path::Path;

use common::{lines, world};
use turingpi_provision::document;

#[tokio::test]
async fn every_example_is_valid_and_plans_all_of_its_nodes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut seen = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path().join("cluster.yaml");
        if !path.is_file() {
            continue;
        }
        let name = path.parent().unwrap().file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let (document, warnings) = document::load(&text).unwrap_or_else(|m| panic!("{name}: {:?}", m.0));
        assert!(warnings.is_empty(), "{name}: {warnings:?}");
        let world = world("").start_document(document).await;
        let planned = world.plan().await.unwrap_or_else(|f| panic!("{name}: {:#?}", f.report()));
        let ids: Vec<&str> = planned.preview.steps().map(|(_, step)| step.id.as_str()).collect();
        for node in &world.document.nodes {
            let starts = format!("{}/k3s-start", node.name);
            assert!(ids.contains(&starts.as_str()), "{name}: {:#?}", lines(&planned));
            let flashed = ids.contains(&format!("{}/flash", node.name).as_str());
            assert_eq!(flashed, node.image.is_some(), "{name}: {:#?}", lines(&planned));
        }
        assert!(ids.contains(&"k3s/nodes-ready"), "{name}: {:#?}", lines(&planned));
        seen.push(name);
    }
    for name in ["high-availability", "k3s-cluster", "plain-hosts", "single-node"] {
        assert!(seen.iter().any(|s| s == name), "{name} is not among {seen:?}");
    }
}
