//! A simulated board made from a document, and the document that leads to it.
//!
//! Only endpoints and credentials differ from the person's own document, so everything else runs as it would for real.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use tempfile::TempDir;
use turingpi_provision::{
    document::{BoardCredentials, Document, SecretSource, Ssh},
    engine::{Failure, FailureClass, Timing},
};
use turingpi_testkit::{
    BoardPlan, BoardRevision, Endpoints, Firmware, ModuleKind, NodePlan, OsImage, Pace, SdCard, Simulation,
    SshKey,
};

use crate::exit::Exit;

const USER: &str = "root";
const PASSWORD: &str = "not-a-real-password";

/// What the boards are like.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Hardware {
    /// The firmware of the BMC
    #[arg(long, value_name = "VERSION", value_parser = one_of(&Firmware::ALL.map(Firmware::name)), default_value = "2.1.0")]
    firmware: String,
    /// The revision of the board: 2.4 has a USB switch, later ones a hub [default: 2.4 for firmware before 2.1.0, else 2.5]
    #[arg(long, value_name = "REVISION", value_parser = one_of(&BoardRevision::ALL.map(BoardRevision::name)))]
    revision: Option<String>,
    /// A file on the microSD card of the BMC, as `/mnt/sdcard/NAME`; may be repeated
    #[arg(long, value_name = "FILE")]
    sd_card: Vec<PathBuf>,
}

fn one_of(names: &[&'static str]) -> clap::builder::PossibleValuesParser {
    names.to_vec().into()
}

impl Hardware {
    /// The firmware, the revision and the card of every board.
    fn plan(&self) -> Result<impl Fn(BoardPlan) -> BoardPlan, Exit> {
        let firmware = Firmware::ALL.into_iter().find(|known| known.name() == self.firmware);
        let firmware = firmware.unwrap_or_default();
        let usual = if firmware < Firmware::V2_1_0 { BoardRevision::V2_4 } else { BoardRevision::default() };
        let wanted = self.revision.as_deref();
        let revision = BoardRevision::ALL.into_iter().find(|known| wanted == Some(known.name()));
        let mut card = (!self.sd_card.is_empty()).then(SdCard::new);
        for path in &self.sd_card {
            let bytes = fs::read(path).map_err(|e| broken(format!("cannot read `{}`", path.display()), e))?;
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            card = card.map(|card| card.file(format!("/mnt/sdcard/{name}"), bytes));
        }
        Ok(move |plan: BoardPlan| {
            let plan = plan.firmware(firmware).revision(revision.unwrap_or(usual));
            match &card {
                Some(card) => plan.sd_card(card.clone()),
                None => plan,
            }
        })
    }
}

/// A simulated board that runs.
pub(crate) struct Running {
    simulation: Simulation,
    document: Document,
    folder: Folder,
    pace: f64,
}

enum Folder {
    Temporary(TempDir),
    Given(PathBuf),
}

impl Running {
    /// Starts a board with the slots, hosts and images of `document`. Keys and the rewritten document go to `folder`,
    /// or to a temporary one that goes away with the board.
    pub(crate) async fn start(
        document: &Document,
        pace: f64,
        hardware: &Hardware,
        folder: Option<&Path>,
    ) -> Result<Self, Exit> {
        let folder = match folder {
            Some(path) => {
                private_folder(path)
                    .map_err(|e| broken(format!("cannot make the folder `{}`", path.display()), e))?;
                Folder::Given(path.to_owned())
            }
            None => Folder::Temporary(
                tempfile::Builder::new()
                    .prefix("turingpi-simulated-")
                    .tempdir()
                    .map_err(|e| broken("cannot make a temporary folder", e))?,
            ),
        };
        let key = SshKey::generate().map_err(|e| broken("cannot make a key for the simulated board", e))?;
        let simulation = plan(document, pace, &key, hardware.plan()?)
            .start()
            .await
            .map_err(|e| broken("cannot start the simulated board", e))?;
        let base = std::path::absolute(folder.path()).unwrap_or_else(|_| folder.path().to_owned());
        private_file(&base.join("id_ed25519"), key.private_openssh())
            .and_then(|()| private_file(&base.join("bmc-password"), PASSWORD))
            .map_err(|e| broken("cannot write the keys of the simulated board", e))?;
        let document = rewrite(document, &simulation.endpoints(), &base);
        Ok(Self { simulation, document, folder, pace })
    }

    pub(crate) fn document(&self) -> &Document {
        &self.document
    }
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
    pub(crate) fn endpoints(&self) -> Endpoints {
        self.simulation.endpoints()
    }

    /// Polls as fast as simulated time passes.
    pub(crate) fn timing(&self) -> Timing {
        let scaled = |seconds: f64, least: u64| {
            Duration::from_secs_f64(seconds * self.pace).max(Duration::from_millis(least))
        };
        Timing {
            poll: scaled(2.0, 20).min(Duration::from_secs(2)),
            retry_base: scaled(1.0, 20).min(Duration::from_secs(1)),
            ..Timing::default()
        }
    }

    pub(crate) async fn stop(self) {
        self.simulation.shutdown().await;
    }
}

impl Folder {
    fn path(&self) -> &Path {
        match self {
            Self::Temporary(dir) => dir.path(),
            Self::Given(path) => path,
        }
    }
}

fn broken(what: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Exit {
    Failure::new(FailureClass::Unexpected, what).source(source).into()
}

/// The world that the document describes, before anything was done to it.
fn plan(
    document: &Document,
    pace: f64,
    key: &SshKey,
    hardware: impl Fn(BoardPlan) -> BoardPlan,
) -> turingpi_testkit::SimulationBuilder {
    let mut builder = Simulation::builder().pace(Pace::scaled(pace));
    for board in document.boards.keys() {
        builder = builder.board(hardware(BoardPlan::new(board).credentials(USER, PASSWORD)));
    }
    for node in &document.nodes {
        let Ok(address) = node.address.parse() else { continue };
        let mut plan = NodePlan::new(&node.name).address(address);
        plan = match node.slot_ref() {
            Ok(Some(slot)) => plan.slot(&slot.board, slot.slot.number()).kind(ModuleKind::Rk1),
            _ => plan,
        };
        // A node without an image runs already, as it would have to for real.
        if node.image.is_none() {
            let user = node
                .ssh
                .as_ref()
                .and_then(|s| s.user.as_deref())
                .or(document.ssh.user.as_deref())
                .unwrap_or("root");
            plan = plan
                .installed(OsImage::debian())
                .running()
                .user(user, PASSWORD)
                .authorized_key(key.public_line());
        }
        builder = builder.node(plan);
    }
    for image in document.images.keys() {
        builder = builder.image(image, OsImage::armbian());
    }
    if let Some(version) = &document.version {
        builder = builder.k3s_release(version);
    }
    builder
}

/// The document with its endpoints and credentials replaced by those of the simulated board.
fn rewrite(document: &Document, endpoints: &Endpoints, base: &Path) -> Document {
    let mut document = document.clone();
    for (name, board) in &mut document.boards {
        if let Some(endpoint) = endpoints.boards.get(name) {
            board.bmc = endpoint.url.to_string();
            board.fingerprint = (!endpoint.fingerprint.is_empty()).then(|| endpoint.fingerprint.clone());
            board.credentials = BoardCredentials {
                username: endpoint.username.clone(),
                password: SecretSource::File(base.join("bmc-password")),
            };
        }
    }
    document.ssh = Ssh {
        user: document.ssh.user,
        identity: Some(base.join("id_ed25519")),
        agent: Some(false),
        ..Ssh::default()
    };
    let mut api = None;
    for node in &mut document.nodes {
        if let Some(endpoint) = endpoints.nodes.get(&node.name) {
            node.ssh = Some(Ssh {
                host: Some(endpoint.ssh.ip().to_string()),
                port: Some(endpoint.ssh.port()),
                user: node.ssh.as_ref().and_then(|s| s.user.clone()),
                ..Ssh::default()
            });
            if api.is_none() && node.role == turingpi_provision::cluster::Role::ControlPlane {
                api = Some(endpoint.kube);
            }
        }
    }
    document.network.api_connect =
        api.map(|a| turingpi_provision::cluster::Endpoint::new(a.ip().to_string(), a.port()));
    for (name, image) in &mut document.images {
        if let Some(served) = endpoints.mirror.images.get(name) {
            image.source = served.url.to_string();
            image.sha256 = Some(served.sha256.clone());
        }
    }
    document.k3s.releases_url = endpoints.mirror.k3s_releases.to_string();
    document.k3s.channels_url = endpoints.mirror.k3s_channels.to_string();
    document
}

/// Writes a file that only its owner can read.
pub(crate) fn private_file(path: &Path, text: &str) -> std::io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(text.as_bytes())
}

fn private_folder(path: &Path) -> std::io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}
