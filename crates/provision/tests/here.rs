//! What lies on this machine: paths that must not matter, files that must not be believed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod common;

use common::{HOSTS, SMALL, world};
use turingpi_provision::{Intent, Provision, TeardownIntent, engine::FailureClass};
use turingpi_testkit::SshKey;

#[tokio::test]
async fn a_plan_has_the_same_digest_wherever_its_files_lie_and_however_their_paths_are_written() {
    let world = world(HOSTS).start().await;
    let here = world.plan().await.unwrap().preview;
    let mut environment = world.environment();
    environment.base = environment.base.join(".");
    environment.state_dir = world.state_dir().join("..").join("state");
    let provision = Provision::open(world.document.clone(), environment.clone()).await.unwrap();
    let again = provision.plan(&Intent::default()).await.unwrap().preview;
    assert_eq!(here.digest(), again.digest());
    let elsewhere = tempfile::tempdir().unwrap();
    environment.state_dir = elsewhere.path().join("state");
    let provision = Provision::open(world.document.clone(), environment).await.unwrap();
    assert_eq!(here.digest(), provision.plan(&Intent::default()).await.unwrap().preview.digest());
    let text = serde_json::to_string(&here).unwrap();
    assert!(text.contains("kubeconfig of the state folder"), "{text}");
    assert!(!text.contains(world.state_dir().to_str().unwrap()), "{text}");
}

#[tokio::test]
async fn a_public_key_that_is_not_that_of_the_private_key_is_refused_before_anything_is_flashed() {
    let world = world(SMALL).start().await;
    let beside = world.environment().base.join("id_ed25519.pub");
    let other = SshKey::generate().unwrap();
    std::fs::write(&beside, other.public_line()).unwrap();
    let failure = world.try_open().await.err().expect("refused");
    assert_eq!(failure.class(), FailureClass::Config);
    assert!(failure.message().contains("id_ed25519.pub"), "{failure}");
    assert!(failure.hint_text().is_some_and(|hint| hint.contains("ssh-keygen -y")), "{failure:?}");
    std::fs::remove_file(&beside).unwrap();
    world.open().await;
}

#[tokio::test]
async fn a_token_that_is_forgotten_is_in_no_file_any_more() {
    let world = world(HOSTS).start().await;
    world.converge().await;
    let token = world.state()["secrets"]["k3s/token"].as_str().unwrap().to_owned();
    world.destroy(&TeardownIntent::default()).await.done();
    for file in std::fs::read_dir(world.state_dir()).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read(&path).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&text).contains(&token), "{}", path.display());
    }
}
