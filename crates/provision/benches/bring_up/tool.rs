//! The tool as people run it: its memory while it applies, and how fast it starts.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{Outcome, World, process, world};

/// Starts for each row.
const STARTS: usize = 50;

/// Builds the release binary if it is not there, and says where it is.
fn binary() -> Outcome<PathBuf> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--release", "-p", "turingpi-cli", "--message-format=json"]);
    let output = build.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err("the tool cannot be built".into());
    }
    for line in String::from_utf8(output.stdout)?.lines() {
        let Ok(message) = serde_json::from_str::<serde_json::Value>(line) else { continue };
        if let (Some("turingpi"), Some(path)) =
            (message["target"]["name"].as_str(), message["executable"].as_str())
        {
            return Ok(path.into());
        }
    }
    Err("cargo built no `turingpi`".into())
}

/// Ends the child however this ends.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The most memory `turingpi apply` ever had, with the boards in another process.
pub(crate) fn memory(sizes: &[(usize, f64)]) -> Outcome {
    let tool = binary()?;
    println!("Peak memory (VmHWM) of `turingpi apply` ({})", process::load());
    println!("{:>5} {:>6} {:>10} {:>10}", "nodes", "boards", "MiB", "CPU s");
    for &(boards, pace) in sizes {
        let folder = tempfile::tempdir()?;
        let boards_world = World::start(folder.path(), boards, pace)?;
        let (peak, busy) = watch(&tool, folder.path())?;
        println!("{:>5} {boards:>6} {peak:>10.1} {:>10.1}", boards * world::MODULES, busy.as_secs_f64());
        drop(boards_world);
    }
    println!();
    Ok(())
}

fn watch(tool: &Path, folder: &Path) -> Outcome<(f64, Duration)> {
    let document = folder.join("cluster.yaml");
    let nodes: Vec<String> = fs::read_to_string(&document)?
        .lines()
        .filter_map(|l| Some(l.strip_prefix("  - { name: ")?.split(',').next()?.to_owned()))
        .collect();
    let mut child = Ended(
        Command::new(tool)
            .args(["apply", "--yes", "--approve", &nodes.join(","), "--output", "json"])
            .arg("--cache-dir")
            .arg(folder.join("cache"))
            .arg(&document)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()?,
    );
    let (mut peak, mut busy) = (0.0, Duration::ZERO);
    let status = loop {
        if let Some(status) = child.0.try_wait()? {
            break status;
        }
        // The mark only rises: what is read last is all that is lost.
        peak = process::peak_mib(child.0.id()).unwrap_or(peak);
        busy = process::processor_time(child.0.id()).unwrap_or(busy);
        sleep(Duration::from_millis(10));
    };
    if status.success() {
        Ok((peak, busy))
    } else {
        Err(format!("`turingpi apply` ended with {status}").into())
    }
}

/// How long `turingpi` takes from its start to its end.
pub(crate) fn start() -> Outcome {
    let tool = binary()?;
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/k3s-cluster/cluster.yaml");
    let example = example.to_string_lossy();
    println!("Start-up, {STARTS} times ({})", process::load());
    println!("{:<44} {:>10} {:>10}", "", "median ms", "least ms");
    for args in [vec!["--version"], vec!["validate", &example]] {
        let mut times = Vec::with_capacity(STARTS);
        for _ in 0..STARTS {
            let began = Instant::now();
            let status =
                Command::new(&tool).args(&args).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
            times.push(began.elapsed());
            if !status.success() {
                return Err(format!("`turingpi {}` ended with {status}", args.join(" ")).into());
            }
        }
        times.sort();
        let millis = |at: usize| times.get(at).copied().unwrap_or_default().as_secs_f64() * 1000.0;
        let shown = args.first().copied().unwrap_or_default();
        println!("{:<44} {:>10.2} {:>10.2}", format!("turingpi {shown}"), millis(STARTS / 2), millis(0));
    }
    println!();
    Ok(())
}
