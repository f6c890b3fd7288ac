//! The simulated boards, in a process of their own, and the document that leads to them.

use std::{
    fmt::Write as _,
    fs,
    io::Read as _,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use turingpi_testkit::{BoardPlan, ModuleKind, NodePlan, OsImage, Pace, Simulation, SshKey};

use crate::Outcome;

const USER: &str = "root";
const PASSWORD: &str = "turing";
const RELEASE: &str = "v1.35.5+k3s1";
/// Modules on a board.
pub(crate) const MODULES: usize = 4;

fn board_name(board: usize) -> String {
    format!("board{board:02}")
}

/// Serves `boards` boards with empty slots until its standard input ends.
pub(crate) async fn serve(folder: &Path, boards: usize, pace: f64) -> Outcome {
    let key = SshKey::generate()?;
    let mut builder = Simulation::builder()
        .pace(Pace::scaled(pace))
        .image("armbian", OsImage::armbian())
        .k3s_release(RELEASE);
    for board in 1..=boards {
        builder = builder.board(BoardPlan::new(board_name(board)).credentials(USER, PASSWORD));
        for slot in 1..=MODULES {
            let address = format!("10.10.{board}.{slot}").parse()?;
            let slot = u8::try_from(slot)?;
            let name = format!("node{board:02}-{slot}");
            builder = builder.node(
                NodePlan::new(name).address(address).slot(board_name(board), slot).kind(ModuleKind::Rk1),
            );
        }
    }
    let simulation = builder.start().await?;
    private(&folder.join("id_ed25519"), key.private_openssh())?;
    private(&folder.join("bmc-password"), PASSWORD)?;
    private(&folder.join("cluster.yaml"), &document(&simulation)?)?;
    println!("ready");
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    simulation.shutdown().await;
    Ok(())
}

/// A document as a person would write it, with the doors of the simulation as endpoints.
fn document(simulation: &Simulation) -> Outcome<String> {
    let endpoints = simulation.endpoints();
    let mut text =
        format!("name: bench\nversion: {RELEASE}\nssh: {{ identity: id_ed25519, agent: false }}\nboards:\n");
    for (name, board) in &endpoints.boards {
        writeln!(
            text,
            "  {name}: {{ bmc: '{}', fingerprint: '{}', credentials: {{ username: {USER}, password: {{ file: bmc-password }} }} }}",
            board.url, board.fingerprint
        )?;
    }
    let image = endpoints.mirror.images.get("armbian").ok_or("no image")?;
    writeln!(text, "images:\n  armbian: {{ source: '{}', sha256: {} }}", image.url, image.sha256)?;
    let mut nodes = String::new();
    let mut api = None;
    for (name, node) in &endpoints.nodes {
        let (board, slot) = node.slot.clone().ok_or("a node without a slot")?;
        let role = if api.is_none() { "control-plane" } else { "worker" };
        api.get_or_insert(node.kube);
        let address = node.address.ok_or("a node without an address")?;
        writeln!(
            nodes,
            "  - {{ name: {name}, role: {role}, address: {address}, slot: {board}/{slot}, image: armbian, ssh: {{ host: {}, port: {} }} }}",
            node.ssh.ip(),
            node.ssh.port()
        )?;
    }
    let api = api.ok_or("no nodes")?;
    writeln!(text, "network: {{ api-connect: '{api}' }}\nnodes:\n{nodes}k3s:")?;
    writeln!(
        text,
        "  releases-url: '{}'\n  channels-url: '{}'",
        endpoints.mirror.k3s_releases, endpoints.mirror.k3s_channels
    )?;
    Ok(text)
}

fn private(path: &Path, text: &str) -> Outcome {
    fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(())
}
