//! A simulated board in this process, and the program in a folder of its own.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::Value;
use turingpi_testkit::{BoardPlan, BoardView, NodePlan, OsImage, Pace, RequestRecord, Simulation};

use crate::support::{Place, Ran};

pub(crate) struct Bench {
    pub(crate) simulation: Simulation,
    pub(crate) place: Place,
}

/// A module in a slot, with a system or without.
pub(crate) fn module(slot: u8, running: bool) -> NodePlan {
    let plan = NodePlan::new(format!("node{slot}")).address([10, 0, 0, slot].into()).slot("board1", slot);
    if running { plan.installed(OsImage::debian()).running() } else { plan }
}

impl Bench {
    /// One board with these modules. Time passes fast, but not at once.
    pub(crate) async fn new(board: BoardPlan, modules: Vec<NodePlan>) -> Self {
        let builder =
            Simulation::builder().pace(Pace::scaled(0.002)).board(board).image("armbian", OsImage::armbian());
        let simulation = modules.into_iter().fold(builder, |b, node| b.node(node)).start().await.unwrap();
        // What is on when a test begins was switched on by somebody.
        simulation.board("board1").adopt_power();
        Self { simulation, place: Place::new() }
    }

    /// A board as it comes, with four empty modules.
    pub(crate) async fn usual() -> Self {
        Self::new(BoardPlan::new("board1"), (1..=4).map(|slot| module(slot, false)).collect()).await
    }

    pub(crate) fn board(&self) -> BoardView {
        self.simulation.board("board1")
    }

    /// Address of the board, as one types it.
    pub(crate) fn address(&self) -> String {
        self.board().url()
    }

    /// The program's `board` verb with the right password, not started yet.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.place.command(&[]);
        command.arg("board").args(args).env("TPI_PASSWORD", "turing").env("TURINGPI_POLL_MS", "20");
        command.env("TPI_HOSTNAME", self.address());
        command
    }

    /// Runs `turingpi board …` to its end, while the board lives on.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.output(args, self.command(args))
    }

    pub(crate) fn output(&self, args: &[&str], mut command: Command) -> Ran {
        Ran::of(args, tokio::task::block_in_place(|| command.output().unwrap()))
    }

    /// The answer of a verb as JSON.
    #[track_caller]
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let mut all = args.to_vec();
        all.extend(["--output", "json"]);
        self.run(&all).ends(0).json()
    }

    /// Starts a verb and leaves it running.
    pub(crate) fn start(&self, args: &[&str]) -> Child {
        self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// A document whose only board this is; `node1` and so on sit in its slots.
    pub(crate) fn document(&self) {
        let nodes: String = (1..=4)
            .map(|slot| {
                let role = if slot == 1 { "control-plane" } else { "worker" };
                format!(
                    "  - {{ name: node{slot}, role: {role}, address: 10.0.0.{slot}, slot: board1/{slot} }}\n"
                )
            })
            .collect();
        let text = format!(
            "name: lab\nversion: v1.35.5+k3s1\nboards:\n  board1: {{ bmc: \"{}\" }}\nssh: {{ identity: ./key }}\nnodes:\n{nodes}",
            self.address()
        );
        self.place.write("cluster.yaml", &text);
    }

    /// Writes an image where the program finds it.
    pub(crate) fn image(&self, name: &str, bytes: &[u8]) -> String {
        std::fs::write(self.place.path(name), bytes).unwrap();
        name.to_owned()
    }

    /// Requests whose path and query hold `part`.
    pub(crate) fn requests(&self, part: &str) -> Vec<RequestRecord> {
        self.board().requests().into_iter().filter(|r| r.line().contains(part)).collect()
    }

    /// Waits until something is so on the board.
    pub(crate) async fn until(&self, what: &str, so: impl Fn(&BoardView) -> bool) {
        let waiting = async {
            while !so(&self.board()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), waiting)
            .await
            .unwrap_or_else(|_| panic!("never: {what}"));
    }
}
