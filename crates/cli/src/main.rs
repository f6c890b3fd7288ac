//! The `turingpi` command: words, pixels and exit codes around `turingpi-provision`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a frontend talks")]

mod args;
mod command;
mod exit;
#[cfg(test)]
mod reference;
mod render;
mod session;
#[cfg(feature = "simulate")]
mod simulate;

use std::process::ExitCode;

use clap::Parser as _;

use crate::{
    args::Cli,
    render::out::{self, say, talk},
};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help goes through `anstream`, which drops what a reader that went away does not take.
            if error.use_stderr() {
                talk!("{}", error.render().ansi().to_string().trim_end());
            } else {
                out::data(error.render().ansi());
            }
            return if error.use_stderr() { ExitCode::from(exit::USAGE) } else { ExitCode::from(exit::DONE) };
        }
    };
    log(cli.global.verbose);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            talk!("error: cannot start: {error}");
            return ExitCode::from(exit::UNEXPECTED);
        }
    };
    let json = cli.global.output == args::Output::Json;
    // These tell a stream of events; their failure is its last line.
    let stream = match &cli.command {
        args::Command::Apply(apply) => Some(apply.simulated.simulate),
        args::Command::Destroy(_) => Some(false),
        args::Command::Board(board) if board.verb.is_stream() => Some(false),
        _ => None,
    };
    let result = runtime.block_on(command::run(cli));
    // Whatever still runs in the background (a blocking prompt, a name look-up) must not hold up the end.
    runtime.shutdown_background();
    match result {
        Ok(code) => ExitCode::from(code),
        Err(exit) => {
            match (json, stream) {
                (true, Some(simulated)) => {
                    say!("{}", exit::result(exit.code, exit.error(), None, simulated, None));
                }
                (true, None) => {
                    if let Some(error) = exit.error() {
                        say!("{}", serde_json::json!({ "error": error, "exit_code": exit.code }));
                    }
                }
                (false, _) => {
                    if let Some(report) = exit.report.filter(|_| exit.findings.is_empty()) {
                        talk!("{}", render::failure::text(&report, None));
                    }
                }
            }
            ExitCode::from(exit.code)
        }
    }
}

/// Logs go to standard error; quiet unless asked for.
fn log(verbose: u8) {
    use tracing_subscriber::EnvFilter;
    let default = match verbose {
        0 => "error",
        1 => "info,russh=warn,hyper=warn,rustls=warn,kube=warn",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_env("TURINGPI_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}
