//! No secret shows where it must not: on nodes, on this machine, in anything that is told.
//!
//! One world holds a different random secret of every kind. Everything that is done to it, well and badly, is listened
//! to at the finest level of every library, and everything that can be read afterwards is searched.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests are tests too"
)]

mod common;

use std::{
    collections::BTreeMap,
    error::Error,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use base64::Engine as _;
use common::{files, private};
use russh::keys::{
    PrivateKey,
    ssh_key::{Cipher, Kdf, LineEnding, private::Ed25519Keypair},
};
use secrecy::SecretString;
use turingpi_provision::{
    Environment, Intent, Provision, SecretProvider, TeardownIntent,
    document::{self, Document},
    engine::{Approval, Cancellation, Event, Failure, Summary, Timing, report::Timeline},
};
use turingpi_testkit::{Action, BoardPlan, Fault, ModuleKind, NodePlan, OsImage, Pace, Simulation, Site};

/// Everything any library logs, at its finest level. One buffer for the process: there is one global subscriber.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn log() -> &'static Log {
    static LOG: OnceLock<Log> = OnceLock::new();
    LOG.get_or_init(|| {
        let log = Log::default();
        let writer = log.clone();
        // Also takes what comes through the `log` crate, as russh does.
        tracing_subscriber::fmt()
            .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .init();
        log
    })
}

fn random(length: usize) -> String {
    let alphabet = b"abcdefghjkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789";
    (0..length).map(|_| char::from(alphabet[rand::random_range(0..alphabet.len())])).collect()
}

/// Secrets by what they are.
#[derive(Clone, Default)]
struct Secrets(BTreeMap<String, String>);

impl Secrets {
    fn add(&mut self, name: &str, value: impl Into<String>) -> String {
        let value = value.into();
        assert!(value.len() >= 6, "{name} is too short to be told from other text");
        self.0.insert(name.to_owned(), value.clone());
        value
    }
    /// The names of those that stand in `text`, also base64-encoded or escaped for JSON.
    fn within(&self, bytes: &[u8]) -> Vec<&str> {
        let text = String::from_utf8_lossy(bytes);
        let has = |needle: &str| text.contains(needle);
        let base64 = |text: &str| base64::engine::general_purpose::STANDARD_NO_PAD.encode(text);
        self.0
            .iter()
            .filter(|(_, value)| has(value) || (value.len() >= 12 && has(&base64(value))))
            .map(|(name, _)| name.as_str())
            .collect()
    }
    #[track_caller]
    fn absent(&self, place: &str, text: &str) {
        let found = self.within(text.as_bytes());
        assert!(found.is_empty(), "{found:?} shows in {place}:\n{}", self.around(text));
    }
    /// The place of a find, with the secret itself blotted out.
    fn around(&self, text: &str) -> String {
        for value in self.0.values() {
            if let Some(at) = text.find(value) {
                let from =
                    (0..=at.saturating_sub(300)).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
                let to = (at + value.len() + 200..=text.len()).find(|i| text.is_char_boundary(*i));
                return text[from..to.unwrap_or(text.len())].replace(value, "<HERE>");
            }
        }
        "(encoded)".to_owned()
    }
}

struct Answers(BTreeMap<String, String>);

#[async_trait]
impl SecretProvider for Answers {
    async fn env(&self, name: &str) -> Option<SecretString> {
        self.0.get(name).map(|value| SecretString::from(value.clone()))
    }
    async fn prompt(&self, _: &str) -> Option<SecretString> {
        None
    }
}

const DOCUMENT: &str = "
name: homelab
version: v1.35.5+k3s1
boards: { board1: { bmc: 10.10.88.70, credentials: { password: { env: BMC } } } }
ssh: { identity: key, passphrase: { env: PASSPHRASE }, agent: false }
images: { armbian: { source: ./armbian.img.xz } }
nodes:
  - { name: node1, role: control-plane, address: 10.10.88.73, slot: board1/1, image: armbian }
  - name: node2
    role: worker
    address: 10.10.88.74
    ssh: { user: ops, password: { env: LOGIN }, sudo-password: { env: LOGIN } }
  - name: node3
    role: worker
    address: 10.10.88.75
    ssh: { user: ops, sudo-password: { file: sudo } }
k3s:
  registries:
    configs: { reg.local: { auth: { username: puller, password: { env: REGISTRY }, token: { file: registry-token } } } }
";

struct World {
    simulation: Simulation,
    document: Document,
    secrets: Secrets,
    answers: BTreeMap<String, String>,
    folder: tempfile::TempDir,
    /// Everything that was told: events, plans, failures.
    told: Mutex<Vec<(String, String)>>,
    /// How much of each limit is waited for.
    patience: f64,
}

impl World {
    async fn start() -> Self {
        log();
        let mut secrets = Secrets::default();
        // As short as the factory's, and nothing in the engine knows it.
        let bmc = secrets.add("BMC password", random(6));
        let login = secrets.add("login password", random(16));
        let sudo = secrets.add("sudo password", random(16));
        let passphrase = secrets.add("key passphrase", random(16));
        let registry = secrets.add("registry password", random(16));
        let folder = tempfile::tempdir().unwrap();
        let key = PrivateKey::from(Ed25519Keypair::from_seed(&rand::random::<[u8; 32]>()));
        let public = key.public_key().to_openssh().unwrap();
        // One round instead of sixteen: the strength of the key's encryption is not what is tested.
        let kdf = Kdf::Bcrypt { salt: rand::random::<[u8; 16]>().to_vec(), rounds: 1 };
        let key = key.encrypt_with(Cipher::Aes256Ctr, kdf, rand::random(), &passphrase).unwrap();
        let pem = key.to_openssh(LineEnding::LF).unwrap();
        secrets.add("private key", pem.lines().nth(2).unwrap());
        private(&folder.path().join("key"), &pem);
        private(&folder.path().join("sudo"), &sudo);

        let token = secrets.add("registry token", random(16));
        private(&folder.path().join("registry-token"), &token);

        let (document, _) = document::load(DOCUMENT).unwrap_or_else(|m| panic!("{:?}", m.0));
        let host = |name: &str, password: &str| {
            let image = OsImage::debian().with_size(64 * 1024);
            NodePlan::new(name).installed(image).running().user("ops", password)
        };
        let simulation = Simulation::builder()
            .pace(Pace::scaled(0.0001))
            .board(BoardPlan::new("board1").credentials("root", &bmc))
            .node(
                NodePlan::new("node1")
                    .address("10.10.88.73".parse().unwrap())
                    .slot("board1", 1)
                    .kind(ModuleKind::Rk1),
            )
            .node(host("node2", &login).address("10.10.88.74".parse().unwrap()))
            .node(host("node3", &sudo).address("10.10.88.75".parse().unwrap()).authorized_key(&public))
            .image("armbian", OsImage::armbian().with_size(256 * 1024))
            .k3s_release("v1.35.5+k3s1")
            .start()
            .await
            .unwrap();
        let document = common::at_endpoints(document, &simulation);
        let answers = [("BMC", bmc), ("LOGIN", login), ("PASSPHRASE", passphrase), ("REGISTRY", registry)];
        let answers = answers.map(|(name, value)| (name.to_owned(), value)).into();
        Self { simulation, document, secrets, answers, folder, told: Mutex::default(), patience: 0.02 }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn environment(&self) -> Environment {
        Environment {
            base: self.folder.path().to_owned(),
            home: None,
            state_dir: self.path("state"),
            cache_dir: self.path("cache"),
            proxy: turingpi_provision::Proxy::default(),
            ssh_agent: None,
            secrets: Arc::new(Answers(self.answers.clone())),
            timing: Timing {
                poll: Duration::from_millis(5),
                retry_base: Duration::from_millis(5),
                retry_cap: Duration::from_millis(20),
                limit_factor: self.patience,
                ..Timing::default()
            },
            owner: "me@here".to_owned(),
            version: "0.0.0".to_owned(),
        }
    }

    async fn open(&self) -> Result<Provision, Failure> {
        Provision::open(self.document.clone(), self.environment()).await
    }

    fn tell(&self, what: &str, text: impl Into<String>) {
        self.told.lock().unwrap().push((what.to_owned(), text.into()));
    }

    fn tell_failure(&self, what: &str, failure: &Failure) {
        self.tell(what, serde_json::to_string(&failure.report()).unwrap());
        self.tell(what, format!("{failure:?}"));
        let mut cause: Option<&dyn Error> = Some(failure);
        while let Some(error) = cause {
            self.tell(what, format!("{error}\n{error:?}"));
            cause = error.source();
        }
    }

    /// Opens and applies, and notes every word of it.
    async fn apply(&self, what: &str) -> Result<Summary, Failure> {
        let provision = self.open().await?;
        let result = self.act(what, &provision, false).await;
        provision.close().await;
        if let Err(failure) = &result {
            self.tell_failure(what, failure);
        }
        result
    }

    /// Opens, runs, looks: and notes every word of it.
    async fn run(&self, what: &str, destroy: bool) -> Result<Summary, Failure> {
        let provision = self.open().await?;
        let result = self.act(what, &provision, destroy).await;
        self.look(what, &provision).await;
        provision.close().await;
        result
    }

    async fn act(&self, what: &str, provision: &Provision, destroy: bool) -> Result<Summary, Failure> {
        let events = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&events);
        let sink = Arc::new(move |event: &Event| heard.lock().unwrap().push(event.clone()));
        let (everything, go) = (Approval::everything(), Cancellation::new());
        let result = match destroy {
            true => provision.destroy(&TeardownIntent::default(), &everything, sink, &go).await,
            false => provision.apply(&Intent::default(), &everything, sink, &go).await,
        };
        let events = std::mem::take(&mut *events.lock().unwrap());
        self.tell(what, format!("{events:?}"));
        self.tell(what, serde_json::to_string(&events).unwrap());
        self.tell(what, serde_json::to_string(&Timeline::from_events(&events)).unwrap());
        result
    }

    async fn look(&self, what: &str, provision: &Provision) {
        match provision.plan(&Intent::default()).await {
            Ok(planned) => {
                self.tell(what, serde_json::to_string(&planned.preview).unwrap());
                self.tell(what, format!("{planned:?}"));
            }
            Err(failure) => self.tell_failure(what, &failure),
        }
        match provision.plan_teardown(&TeardownIntent::default()).await {
            Ok(planned) => self.tell(what, serde_json::to_string(&planned.preview).unwrap()),
            Err(failure) => self.tell_failure(what, &failure),
        }
        let status = provision.status().await.unwrap();
        self.tell(what, format!("{status:?}\n{}", serde_json::to_string(&status).unwrap()));
        let doctor = provision.doctor().await.unwrap();
        self.tell(what, format!("{doctor:?}\n{}", serde_json::to_string(&doctor).unwrap()));
        self.tell(what, format!("{:?}", provision.document()));
        if let Ok(kubeconfig) = provision.kubeconfig().await {
            self.tell(what, format!("{kubeconfig:?}"));
        }
    }

    /// Adds what was generated on the way: tokens, root passwords, the kubeconfig's key.
    fn learn(&mut self) {
        let state: serde_json::Value =
            serde_json::from_slice(&fs::read(self.path("state/state.json")).unwrap()).unwrap();
        let generated = state["secrets"].as_object().unwrap();
        for (name, value) in generated {
            self.secrets.add(name, value.as_str().unwrap());
        }
        let kubeconfig = fs::read_to_string(self.path("state/kubeconfig")).unwrap();
        let line = kubeconfig.lines().find(|l| l.trim_start().starts_with("client-key-data:")).unwrap();
        let encoded = line.split_once(':').unwrap().1.trim().trim_matches('"');
        let pem = base64::engine::general_purpose::STANDARD.decode(encoded).unwrap();
        let pem = String::from_utf8(pem).unwrap();
        self.secrets.add("kubeconfig key", pem.lines().nth(1).unwrap());
        self.secrets.add("kubeconfig key, encoded", &encoded[40..]);
    }

    /// Searches everything that can be read.
    #[track_caller]
    fn search(&self) {
        let secrets = &self.secrets;
        for (what, text) in self.told.lock().unwrap().iter() {
            secrets.absent(what, text);
        }
        let log = String::from_utf8_lossy(&log().0.lock().unwrap()).into_owned();
        assert!(
            log.contains("TRACE") && log.contains("russh") && log.contains("rustls"),
            "everything is listened to"
        );
        secrets.absent("the log", &log);
        // Nobody but the BMC and its client knows the session token: it is told by its form.
        for before in ["Bearer ", "\"id\":\"", "\\\"id\\\":\\\""] {
            let token = |rest: &str| rest.chars().take_while(char::is_ascii_alphanumeric).count() >= 40;
            assert!(!log.split(before).skip(1).any(token), "a session token in the log after `{before}`");
        }
        for name in self.simulation.node_names() {
            let node = self.simulation.node(&name);
            for record in node.exec_log() {
                secrets.absent(&format!("a command line on {name}"), &record.argv);
            }
            for line in node.journal(None).iter().filter(|line| !line.contains("cannot use ")) {
                secrets.absent(&format!("the journal of {name}"), line);
            }
            for path in node.files("/") {
                let Some(file) = node.file(&path) else { continue };
                let found = secrets.within(&file.bytes);
                let open = file.mode & 0o077 != 0;
                assert!(found.is_empty() || !open, "{found:?} in {path} of {name}, mode {:o}", file.mode);
                let temporary =
                    ["/tmp/", "/var/tmp/", "/run/", "/dev/shm/"].iter().any(|t| path.starts_with(t));
                assert!(found.is_empty() || !temporary, "{found:?} was left in {path} of {name}");
                assert!(!path.contains("turingpi-upload"), "{path} was left on {name}");
            }
            secrets.absent(&format!("the serial line of {name}"), &{
                // Its root password is set over it when nothing else leads in; not here, where SSH does.
                node.uart_text()
            });
        }
        self.search_here();
    }

    #[track_caller]
    fn search_here(&self) {
        let state = self.path("state");
        assert_eq!(mode(&state), 0o700, "the state folder");
        for path in files(&state) {
            let name = path.strip_prefix(&state).unwrap().display().to_string();
            assert_eq!(mode(&path), 0o600, "{name}");
            let found = self.secrets.within(&fs::read(&path).unwrap());
            let given = ["BMC password", "login password", "sudo password", "key passphrase", "private key"];
            assert!(!found.iter().any(|f| given.contains(f)), "{found:?} in {name}: it was given, not made");
            let keeps =
                name.starts_with("state.json") || name == "kubeconfig" || name.starts_with("kubeconfig.");
            assert!(found.is_empty() || keeps, "{found:?} in {name}");
        }
        for path in files(&self.path("cache")) {
            let found = self.secrets.within(&fs::read(&path).unwrap());
            assert!(found.is_empty(), "{found:?} in the cache, {}", path.display());
        }
    }
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_shows_in_an_apply_a_repair_and_a_destroy() {
    let mut world = World::start().await;
    world.run("the first apply", false).await.unwrap();
    world.learn();
    assert!(world.secrets.0.keys().any(|k| k.contains("root-password")), "{:?}", world.secrets.0.keys());
    assert!(world.secrets.0.contains_key("k3s/token") && world.secrets.0.contains_key("k3s/join-token"));
    world.search();

    // Somebody edits what holds secrets; the drift is told without its content and repaired.
    for path in ["/etc/rancher/k3s/config.yaml.d/50-turingpi.yaml", "/etc/rancher/k3s/registries.yaml"] {
        let node = world.simulation.node("node2");
        let text = node.text(path).unwrap();
        assert!(!world.secrets.within(text.as_bytes()).is_empty(), "{path} holds a secret");
        assert_eq!(node.file(path).unwrap().mode & 0o777, 0o600, "{path}");
        node.put_file(path, format!("{text}\n# by hand\n"));
    }
    // As whoever writes a file by hand leaves it: readable for all.
    let provision = world.open().await.unwrap();
    world.look("drift", &provision).await;
    drop(provision);
    world.run("the repair", false).await.unwrap();
    world.search();

    world.run("the destroy", true).await.unwrap();
    world.search();
    let state = fs::read_to_string(world.path("state/state.json")).unwrap();
    for name in ["k3s/token", "k3s/join-token"] {
        assert!(!state.contains(&world.secrets.0[name]), "{name} is forgotten with its cluster");
    }
    for name in world.simulation.node_names() {
        let node = world.simulation.node(&name);
        let left = node.files("/").into_iter().filter(|path| {
            let found =
                node.file(path).map(|f| world.secrets.within(&f.bytes).join(", ")).unwrap_or_default();
            !found.is_empty()
        });
        assert_eq!(left.collect::<Vec<_>>(), Vec::<String>::new(), "secrets left on {name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_shows_in_what_failures_say() {
    let mut world = World::start().await;
    let ssh = |node: &str, script: &str| Site::SshExec { node: Some(node.into()), script: script.into() };

    // A BMC, or a proxy in front of it, that says back what it was sent.
    let echo = format!("cannot parse {{\"username\":\"root\",\"password\":\"{}\"}}", world.answers["BMC"]);
    let login = Site::Bmc { board: None, request: "POST /api/bmc/authenticate".into() };
    for status in [400, 500, 503] {
        world
            .simulation
            .faults()
            .add(Fault::at(login.clone(), Action::Status(status, echo.clone())).times(u32::MAX));
        world.apply("a login that is echoed").await.unwrap_err();
        world.simulation.faults().clear();
    }

    // Logins that are refused, one by one: the BMC, SSH, sudo, the key.
    for name in ["LOGIN", "PASSPHRASE"] {
        let wrong = world.secrets.add(&format!("wrong {name}"), random(16));
        let right = world.answers.insert(name.to_owned(), wrong).unwrap();
        match world.open().await {
            Ok(_) => drop(world.apply(name).await.unwrap_err()),
            Err(failure) => world.tell_failure(name, &failure),
        }
        world.answers.insert(name.to_owned(), right);
    }
    let right = fs::read_to_string(world.path("sudo")).unwrap();
    let wrong = world.secrets.add("wrong sudo password", random(16));
    fs::write(world.path("sudo"), wrong).unwrap();
    world.apply("sudo is refused").await.unwrap_err();
    fs::write(world.path("sudo"), right).unwrap();

    // A node whose disk is full when a file with a secret is written, and a start that fails.
    world
        .simulation
        .faults()
        .add(Fault::at(ssh("node2", "registries.yaml"), Action::DiskFull).times(u32::MAX));
    world.apply("a full disk").await.unwrap_err();
    world.simulation.faults().clear();
    world.apply("all is well").await.unwrap();
    world.learn();
    world.search();

    // Programs that say what they were given: a command, and k3s itself in its journal.
    let made = world.secrets.0.iter().filter(|(name, _)| name.contains('/'));
    let all = made.map(|(_, value)| value.as_str()).collect::<Vec<_>>().join(" ");
    let config = "/etc/rancher/k3s/config.yaml";
    let start = Fault::at(ssh("node1", "systemctl start"), Action::Fail(1, format!("fatal: {all}")));
    let unit = Site::UnitStart { node: Some("node2".into()), unit: "k3s-agent".into() };
    let crash = Fault::at(unit, Action::Fail(1, format!("level=fatal msg=\"cannot use {all}\"")));
    world.patience = 0.002;
    for (node, fault) in [("node1", start), ("node2", crash)] {
        world.simulation.node(node).put_file(config, "# a reason to restart\n");
        world.simulation.faults().add(fault.times(u32::MAX));
        let result = world.apply("a program that talks").await;
        assert!(result.is_err(), "{node}: {} faults struck; {result:?}", world.simulation.faults().struck());
        world.simulation.faults().clear();
    }
    world.patience = 0.02;
    assert!(
        world.told.lock().unwrap().iter().any(|(_, text)| text.contains("[redacted]")),
        "it was told, and masked"
    );
    world.apply("well again").await.unwrap();

    // A token of another cluster in the state.
    let path = world.path("state/state.json");
    let right = fs::read_to_string(&path).unwrap();
    let join = world.secrets.0["k3s/join-token"].clone();
    let wrong = format!("K10{}::server:{}", "0".repeat(64), random(32));
    world.secrets.add("wrong token", &wrong);
    fs::write(&path, right.replace(&join, &wrong)).unwrap();
    world.apply("a wrong token").await.unwrap_err();
    let now = fs::read_to_string(&path).unwrap();
    fs::write(&path, now.replace(&wrong, &join)).unwrap();
    world.apply("the right token again").await.unwrap();

    // A Kubernetes API that fails.
    let kube = Site::Kube { request: "nodes".into() };
    world.simulation.faults().add(Fault::at(kube, Action::Status(500, "etcd is away".into())).times(40));
    drop(world.apply("an API that fails").await);
    world.simulation.faults().clear();
    world.search();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_used_before_its_digest_matched() {
    let mut world = World::start().await;
    world.document.images.get_mut("armbian").unwrap().sha256 = Some("0".repeat(64));
    let binary = Site::Mirror { path: "k3s-arm64".into() };
    world.simulation.faults().add(Fault::at(binary, Action::Corrupt).times(u32::MAX));
    world.apply("another image and another binary").await.unwrap_err();
    assert!(world.simulation.faults().struck() > 0, "the mirror served another binary");
    assert_eq!(world.simulation.node("node1").flash_count(), 0, "nothing was written");
    assert!(
        world.simulation.board("board1").requests().iter().all(|r| !r.query.contains("opt=set&type=flash"))
    );
    for name in world.simulation.node_names() {
        assert!(world.simulation.node(&name).file("/usr/local/bin/k3s").is_none(), "{name} got it");
    }
    for path in files(&world.path("cache")) {
        assert!(
            !path.to_string_lossy().ends_with("k3s-arm64"),
            "kept as if it were good: {}",
            path.display()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_others_can_read_or_that_lead_elsewhere_are_refused() {
    let world = World::start().await;
    let refused = |result: Result<Provision, Failure>, why: &str| {
        let failure = result.err().unwrap_or_else(|| panic!("opened, though {why}"));
        assert!(failure.message().contains(why), "{failure}");
        assert!(failure.hint_text().is_some_and(|hint| hint.contains("chmod")), "{failure:?}");
    };
    let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();

    for name in ["sudo", "key"] {
        set(&world.path(name), 0o644);
        refused(world.open().await, "others can read");
        set(&world.path(name), 0o600);
    }

    drop(world.open().await.unwrap());
    let state = world.path("state");
    private(&state.join("state.json"), "{\"version\":1}");
    set(&state.join("state.json"), 0o644);
    refused(world.open().await, "others can read or write the state file");
    // A link is judged by what it leads to.
    fs::rename(state.join("state.json"), world.path("elsewhere.json")).unwrap();
    std::os::unix::fs::symlink(world.path("elsewhere.json"), state.join("state.json")).unwrap();
    refused(world.open().await, "others can read or write the state file");
    set(&world.path("elsewhere.json"), 0o600);
    drop(world.open().await.unwrap());
    fs::remove_file(state.join("state.json")).unwrap();

    set(&state, 0o777);
    refused(world.open().await, "others can change");
    set(&state, 0o700);

    // The lock is written to: through a link it would empty somebody's file.
    fs::write(world.path("diary"), "dear diary").unwrap();
    let _ = fs::remove_file(state.join("lock"));
    std::os::unix::fs::symlink(world.path("diary"), state.join("lock")).unwrap();
    let failure = world.apply("a linked lock").await.unwrap_err();
    assert!(failure.message().contains("lock"), "{failure}");
    assert_eq!(fs::read_to_string(world.path("diary")).unwrap(), "dear diary");
}

#[test]
fn types_that_hold_a_secret_do_not_show_it() {
    let word = "hush-hush-hush";
    let secret = || SecretString::from(word);
    let auth = turingpi_ssh::AuthMethod::Password(secret());
    let target = turingpi_ssh::SshTarget::new("h").auth(auth.clone()).sudo_password(secret());
    let file = turingpi_ssh::RemoteFile::secret("/x", secrecy::SecretSlice::from(word.as_bytes().to_vec()));
    let mut state = turingpi_provision::engine::State::default();
    state.put_secret("k3s/token", secret());
    let pem = turingpi_ssh::AuthMethod::Key { openssh_pem: secret(), passphrase: Some(secret()) };
    let registries: turingpi_k3s::Registries =
        serde_json::from_value(serde_json::json!({ "configs": { "r": { "auth": { "password": word } } } }))
            .unwrap();
    let mut spec = turingpi_k3s::K3sSpec::default();
    spec.registries = Some(registries);
    spec.server = [("etcd-s3-secret-key".to_owned(), serde_json::json!(word))].into();
    spec.agent = [("vpn-auth".to_owned(), serde_json::json!(word))].into();
    let shown = format!(
        "{auth:?} {target:?} {:?} {file:?} {state:?} {pem:?} {spec:?}",
        target.clone().jump(target.clone())
    );
    assert!(!shown.contains(word), "{shown}");
}
