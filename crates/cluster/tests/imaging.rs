//! Flash, boot and first boot against the simulated board, over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use tempfile::TempDir;
use turingpi_bmc::{BmcClient, HttpBmcClient, Slot, Trust};
use turingpi_cluster::{
    Boards, FetchOptions, Fetcher, Hosts, ImageSpec, ImagingContext, NodeSpec, Role, SlotRecord, SlotRef,
    Source,
    first_boot::{Credentials, FirstBootSpec, root_password_key},
    imaging::{
        Decision, FirstBootState, FlashReason, ImagingLimits, KnownHostsFile, Neighbours, Reach, SlotFacts,
        decide, imaging_steps, slot_steps,
    },
};
use turingpi_engine::{Cancellation, Event, MemoryStateStore, Step, StepContext, Subject, Timing, Verdict};
use turingpi_ssh::{AuthMethod, Command, HostKeyPolicy, RusshConnector, SshTarget};
use turingpi_testkit::{BoardPlan, NodePlan, OsImage, Simulation};

/// A key pair of this run: PKCS#8 text, and the line for `authorized_keys`.
fn key_pair() -> (String, String) {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let mut blob = Vec::new();
    for part in [b"ssh-ed25519".as_slice(), key.public_key_raw()] {
        blob.extend(u32::try_from(part.len()).unwrap().to_be_bytes());
        blob.extend(part);
    }
    (key.serialize_pem(), format!("ssh-ed25519 {} test", STANDARD.encode(blob)))
}

struct Lab {
    simulation: Simulation,
    context: ImagingContext,
    image: ImageSpec,
    node: NodeSpec,
    cx: StepContext,
    store: Arc<MemoryStateStore>,
    events: Arc<std::sync::Mutex<Vec<Event>>>,
    known_hosts: PathBuf,
    _folder: TempDir,
}

async fn lab(os: OsImage) -> Lab {
    let simulation = Simulation::builder()
        .board(BoardPlan::new("board1"))
        .node(NodePlan::new("node1").address("10.10.88.73".parse().unwrap()).slot("board1", 1))
        .image("os", os)
        .start()
        .await
        .unwrap();
    let endpoints = simulation.endpoints();
    let board = &endpoints.boards["board1"];
    let bmc: Arc<dyn BmcClient> = Arc::new(
        HttpBmcClient::builder(board.url.parse().unwrap())
            .credentials(board.username.clone(), board.password.clone().into())
            .trust(Trust::Pin(board.fingerprint.parse().unwrap()))
            .build()
            .unwrap(),
    );
    let folder = TempDir::new().unwrap();
    let known_hosts = folder.path().join("known_hosts");
    let (private, public) = key_pair();
    let ssh = endpoints.nodes["node1"].ssh;
    let target = SshTarget::new(ssh.ip().to_string())
        .port(ssh.port())
        .host_key(HostKeyPolicy::Strict)
        .auth(AuthMethod::Key { openssh_pem: private.into(), passphrase: None });
    let connector = RusshConnector::builder().known_hosts(&known_hosts).build();
    let events: Arc<std::sync::Mutex<Vec<Event>>> = Arc::default();
    let sink = Arc::clone(&events);
    let store = Arc::new(MemoryStateStore::new());
    let cx = StepContext::detached(
        store.clone(),
        Arc::new(move |event: &Event| sink.lock().unwrap().push(event.clone())),
        Timing { limit_factor: 0.1, ..Timing::fast() },
        Cancellation::new(),
    )
    .scoped(Subject::node("node1"), "test");
    let node = NodeSpec {
        name: "node1".into(),
        role: Role::ControlPlane,
        address: "10.10.88.73".parse().unwrap(),
        ssh: target.clone(),
        slot: Some(SlotRef { board: "board1".into(), slot: Slot::try_from(1).unwrap() }),
        image: Some("os".into()),
        labels: BTreeMap::new(),
        taints: vec![],
    };
    let served = &endpoints.mirror.images["os"];
    let image = ImageSpec {
        name: "os".into(),
        source: served.url.parse::<Source>().unwrap(),
        sha256: Some(served.sha256.parse().unwrap()),
    };
    let context = ImagingContext {
        boards: Boards::new([("board1".to_owned(), bmc)]),
        hosts: Hosts::new(Arc::new(connector), [("node1".to_owned(), target)]),
        fetcher: Fetcher::new(folder.path().join("cache"), FetchOptions::default()).unwrap(),
        newcomer: Arc::new(RusshConnector::builder().known_hosts(folder.path().join("throwaway")).build()),
        host_keys: Arc::new(KnownHostsFile::new(&known_hosts)),
        first_boot: FirstBootSpec::new("node1", vec![public]),
        reason: FlashReason::NeverFlashed,
        neighbours: Neighbours::default(),
        limits: ImagingLimits::default(),
    };
    Lab { simulation, context, image, node, cx, store, events, known_hosts, _folder: folder }
}

impl Lab {
    async fn run(&self, steps: &[Arc<dyn Step>]) {
        for step in steps {
            let id = step.describe().id;
            if let Err(failure) = step.apply(&self.cx).await {
                panic!("{id}: {failure}: {:#?}\n{:#?}", failure.report(), self.events.lock().unwrap());
            }
            assert_eq!(step.verify(&self.cx).await.unwrap(), Verdict::Converged, "{id}");
        }
    }
    fn record(&self) -> SlotRecord {
        SlotRecord::read(&self.store.snapshot(), self.node.slot.as_ref().unwrap()).unwrap().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_slot_becomes_an_armbian_that_only_our_key_opens() {
    let lab = lab(OsImage::armbian()).await;
    lab.run(&imaging_steps(&lab.node, &lab.image, &lab.context)).await;
    assert_eq!(lab.record().first_boot, FirstBootState::Done);
    let client = lab
        .context
        .hosts
        .client("node1")
        .await
        .expect("our key, and the pinned host key under a strict policy");
    let name =
        client.run(&Command::script("cat /etc/hostname; test ! -e /root/.not_logged_in_yet")).await.unwrap();
    assert!(name.success());
    assert_eq!(name.stdout_text().trim(), "node1");
    assert!(std::fs::read_to_string(&lab.known_hosts).unwrap().contains("ssh-"));
    let password =
        lab.store.snapshot().secret(&root_password_key("node1")).cloned().expect("kept in the state");
    let said = format!("{:?}", lab.events.lock().unwrap());
    let secret = secrecy::ExposeSecret::expose_secret(&password);
    assert!(!said.contains(secret), "no event holds the password");
    assert!(!lab.simulation.node("node1").argv_contains(secret));

    // Again, from any point: nothing is flashed, nothing changes.
    let record = lab.record();
    lab.run(&imaging_steps(&lab.node, &lab.image, &lab.context)[1..]).await;
    assert_eq!((lab.record(), lab.simulation.node("node1").flash_count()), (record, 1));
    let facts = SlotFacts { power: turingpi_bmc::Power::On, reach: Reach::LoggedIn };
    assert_eq!(decide(&lab.node, true, facts, &lab.store.snapshot()).unwrap(), Decision::Leave);
    lab.simulation.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_boot_that_was_interrupted_after_the_flash_goes_on_without_a_second_flash() {
    let lab = lab(OsImage::armbian()).await;
    lab.run(&imaging_steps(&lab.node, &lab.image, &lab.context)[..2]).await;
    let facts = SlotFacts { power: turingpi_bmc::Power::On, reach: Reach::Refused };
    let decision = decide(&lab.node, true, facts, &lab.store.snapshot()).unwrap();
    assert_eq!(decision, Decision::Start { first_boot: true, settle: false });
    lab.run(&slot_steps(&lab.node, Some(&lab.image), &decision, &lab.context)).await;
    assert_eq!(
        (lab.record().first_boot, lab.simulation.node("node1").flash_count()),
        (FirstBootState::Done, 1)
    );
    lab.simulation.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_at_another_address_is_taken_over_on_its_console_and_the_failure_names_the_address() {
    let mut lab = lab(OsImage::armbian()).await;
    // Nothing answers where the document says that the node is.
    let elsewhere = SshTarget { port: 1, ..lab.node.ssh.clone() };
    lab.node.ssh = elsewhere;
    lab.context.limits.grace = std::time::Duration::ZERO;
    lab.context.first_boot.credentials = vec![Credentials::new("root", "1234".to_owned())];
    let steps = imaging_steps(&lab.node, &lab.image, &lab.context);
    lab.run(&steps[..3]).await;
    let failure = steps[3].apply(&lab.cx).await.unwrap_err();
    assert!(
        failure.message().contains("10.10.88.73"),
        "{failure}: {:#?}\n{:#?}",
        failure.report(),
        lab.events.lock().unwrap()
    );
    let keys = lab.simulation.node("node1").file("/root/.ssh/authorized_keys").expect("the key is in");
    assert!(String::from_utf8_lossy(&keys.bytes).contains(&lab.context.first_boot.authorized_keys[0]));
    lab.simulation.shutdown().await;
}
