//! A program that stands in for k3s on a real host: started by systemd from our unit, it reads k3s's own config files,
//! keeps the token rules, writes k3s's files, serves the Kubernetes API on port 6443, lets agents join over the
//! network, reports READY, and leaves interfaces, mounts and a container shim behind when it is stopped, as k3s does.
//!
//! It runs no containers: pods are played by the testkit's API server. `.ci/real-hosts` installs it as
//! `/usr/local/bin/k3s`. The version it claims is a line appended to the program file (`k3s-stand-in v1.35.5+k3s1`),
//! so that one build gives releases with different checksums. Linux only, one server (joining as a second server is
//! refused).

mod agent;
mod client;
mod config;
mod files;
mod kubectl;
mod kubelet;
mod log;
mod server;
mod supervisor;
mod traces;

use std::{
    env, fs,
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use config::Config;

fn main() -> ExitCode {
    let mut args: Vec<String> = env::args().collect();
    let own = if args.is_empty() { String::new() } else { args.remove(0) };
    let own = Path::new(&own).file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
    match own.as_str() {
        name if name.starts_with("containerd-shim") => wait_for_ever(),
        // k3s looks at the name it is called by: its links are these programs.
        name @ ("kubectl" | "crictl" | "ctr") => args.insert(0, name.to_owned()),
        _ => {}
    }
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["--version" | "-v", ..] => {
            say(&format!("k3s version {} (51ffa8d0)\ngo version go1.25.4\n", version()))
        }
        ["server", rest @ ..] => run("server", rest),
        ["agent", rest @ ..] => run("agent", rest),
        ["kubectl", rest @ ..] => block_on(kubectl::run(rest)),
        ["check-config", ..] => {
            say("Verifying binaries in /var/lib/rancher/k3s/data/current/bin:\n\nSTATUS: pass\n")
        }
        ["crictl" | "ctr", ..] => ExitCode::SUCCESS,
        [] => say("NAME:\n   k3s - Kubernetes, but small and simple\n"),
        [other, ..] => {
            log::plain(&format!("No help topic for '{other}'"));
            ExitCode::from(3)
        }
    }
}

/// The version this copy of the program claims.
fn version() -> String {
    let read = || -> Option<String> {
        let mut file = fs::File::open("/proc/self/exe").ok()?;
        file.seek(SeekFrom::End(-128)).ok()?;
        let mut tail = Vec::new();
        file.read_to_end(&mut tail).ok()?;
        let tail = String::from_utf8_lossy(&tail);
        let (_, version) = tail.rsplit_once("k3s-stand-in ")?;
        Some(version.trim().to_owned())
    };
    read().unwrap_or_else(|| "v0.0.0+k3s0".to_owned())
}

fn say(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn wait_for_ever() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

fn block_on(work: impl Future<Output = Result<(), String>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let done = runtime.map_err(|e| e.to_string()).and_then(|runtime| runtime.block_on(work));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            log::fatal(&message);
            ExitCode::FAILURE
        }
    }
}

/// Runs a role until it is told to stop.
fn run(role: &str, args: &[&str]) -> ExitCode {
    log::info(&format!("Starting k3s {} (stand-in)", version()));
    block_on(async {
        let config = Config::read(args)?;
        files::require_default_route()?;
        let mut stop = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
            .map_err(|e| e.to_string())?;
        let work = async {
            match role {
                "server" => server::run(&config, &version()).await,
                _ => agent::run(&config, &version()).await,
            }
        };
        tokio::select! {
            ended = work => ended,
            _ = stop.recv() => {
                log::info("Shutdown request received");
                Ok(())
            }
        }
    })
}
