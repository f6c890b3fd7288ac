//! The main job: empty slots to a ready cluster, against simulated boards in another process.
//!
//! `cargo bench -p turingpi-provision --bench bring_up`, with these words behind `--` for parts of it:
//!
//! - `wall`, `memory`, `start`: only that table (any of them);
//! - `nodes=4` or `nodes=64`: only that size;
//! - `pace=0.1`: another pace than the one chosen for the size. The simulated boards take processor time of their own,
//!   so a faster pace measures them and not us; the table says how busy both were;
//! - `path`: also the chain of steps that decided how long it took.
//!
//! What the wall time is compared with is written down in [`bound`]. Needs Linux (/proc) and nothing else: no board, no
//! network beyond loopback.
// A table on standard output is what this program is for.
#![allow(clippy::print_stdout)]

mod apply;
mod bound;
mod process;
mod tool;
mod world;

use std::{
    env,
    error::Error,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use turingpi_testkit::Durations;

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// Boards, and the pace at which the simulated delays dominate on two processors.
const SIZES: [(usize, f64); 2] = [(1, 0.08), (16, 0.4)];

fn main() -> Outcome {
    let args: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    if let ["role", role, folder, boards, pace] = words.as_slice() {
        let runtime = tokio::runtime::Runtime::new()?;
        return match *role {
            "world" => runtime.block_on(world::serve(Path::new(folder), boards.parse()?, pace.parse()?)),
            _ => runtime.block_on(apply::run(Path::new(folder), pace.parse()?)),
        };
    }
    if !words.contains(&"--bench") {
        println!("A benchmark, not a test: nothing is measured without `cargo bench`.");
        return Ok(());
    }
    let has = |word: &str| words.contains(&word);
    let value = |name: &str| words.iter().find_map(|w| w.strip_prefix(name));
    let all = !["wall", "memory", "start"].into_iter().any(has);
    let nodes: Option<usize> = value("nodes=").map(str::parse).transpose()?;
    let pace: Option<f64> = value("pace=").map(str::parse).transpose()?;
    let sizes: Vec<(usize, f64)> = SIZES
        .into_iter()
        .filter(|(boards, _)| nodes.is_none_or(|n| n == boards * world::MODULES))
        .map(|(boards, usual)| (boards, pace.unwrap_or(usual)))
        .collect();
    if all || has("wall") {
        wall(&sizes, has("path"))?;
    }
    if all || has("memory") {
        tool::memory(&sizes)?;
    }
    if all || has("start") {
        tool::start()?;
    }
    Ok(())
}

/// The simulated boards in a process of their own. They end when this is dropped.
struct World {
    child: Child,
}

impl World {
    fn start(folder: &Path, boards: usize, pace: f64) -> Outcome<Self> {
        let mut child =
            role("world", folder, boards, pace)?.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        let world = Self { child };
        if line.trim() == "ready" { Ok(world) } else { Err("the simulated boards did not start".into()) }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

fn role(name: &str, folder: &Path, boards: usize, pace: f64) -> Outcome<Command> {
    let mut command = Command::new(env::current_exe()?);
    command.args(["role", name]).arg(folder).arg(boards.to_string()).arg(pace.to_string());
    Ok(command)
}

fn wall(sizes: &[(usize, f64)], path: bool) -> Outcome {
    println!("Bring-up from empty slots ({})", process::load());
    println!(
        "{:>5} {:>6} {:>6} {:>9} {:>9} {:>7} {:>9} {:>7} {:>6} {:>8} {:>8} {:>8} {:>8}",
        "nodes",
        "boards",
        "pace",
        "wall s",
        "bound s",
        "ratio",
        "world s",
        "ratio",
        "steps",
        "retries",
        "our CPU",
        "sim CPU",
        "our MiB"
    );
    for &(boards, pace) in sizes {
        let folder = tempfile::tempdir()?;
        let world = World::start(folder.path(), boards, pace)?;
        let output = role("apply", folder.path(), boards, pace)?.stderr(Stdio::inherit()).output()?;
        if !output.status.success() {
            return Err(format!("the bring-up of {boards} boards failed").into());
        }
        let ran: apply::Measured = serde_json::from_slice(&output.stdout)?;
        let simulator = process::processor_time(world.child.id()).unwrap_or_default();
        let bound = bound::Bound::of(&Durations::default(), u32::try_from(world::MODULES)?);
        let (strict, real) = (bound.strict.mul_f64(pace), bound.world.mul_f64(pace));
        let wall = ran.wall.as_secs_f64();
        println!(
            "{:>5} {boards:>6} {pace:>6} {wall:>9.2} {:>9.2} {:>7.3} {:>9.2} {:>7.3} {:>6} {:>8} {:>7.1}s {:>7.1}s {:>8.1}",
            boards * world::MODULES,
            strict.as_secs_f64(),
            wall / strict.as_secs_f64(),
            real.as_secs_f64(),
            wall / real.as_secs_f64(),
            ran.steps,
            ran.retries,
            ran.processor.as_secs_f64(),
            simulator.as_secs_f64(),
            ran.peak_mib,
        );
        if path {
            println!("{}", apply::critical_path(folder.path(), pace)?);
        }
    }
    println!(
        "bound: named durations of the hardware; world: with the simulated world's unnamed delays. ({})\n",
        process::load()
    );
    Ok(())
}
