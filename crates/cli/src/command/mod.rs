//! One file a verb.

mod apply;
pub(crate) mod board;
mod destroy;
mod doctor;
pub(crate) mod image;
mod init;
mod kubeconfig;
mod plan;
#[cfg(feature = "simulate")]
mod simulate;
mod status;
mod validate;

use clap::CommandFactory as _;

use crate::render::out::{self, say};
use crate::{
    args::{Cli, Command},
    exit::{self, Exit},
};

/// Runs the verb and returns its exit code.
pub(crate) async fn run(cli: Cli) -> Result<u8, Exit> {
    let global = cli.global;
    match cli.command {
        Command::Init(args) => init::run(&global, &args),
        Command::Validate(args) => validate::run(&global, &args),
        Command::Plan(args) => plan::run(&global, &args).await,
        Command::Apply(args) => apply::run(&global, &args).await,
        Command::Status(args) => status::run(&global, &args).await,
        Command::Destroy(args) => destroy::run(&global, &args).await,
        Command::Kubeconfig(args) => kubeconfig::run(&global, &args).await,
        #[cfg(feature = "simulate")]
        Command::Simulate(args) => simulate::run(&global, &args).await,
        #[cfg(not(feature = "simulate"))]
        Command::Simulate(_) => Err(no_simulation()),
        Command::Doctor(args) => doctor::run(&global, &args).await,
        Command::Board(args) => board::run(&global, &args).await,
        Command::Image(args) => image::run(&global, &args).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "turingpi", &mut script);
            out::data(String::from_utf8_lossy(&script));
            Ok(exit::DONE)
        }
        Command::Schema => {
            say!("{:#}", turingpi_provision::document::schema());
            Ok(exit::DONE)
        }
    }
}

#[cfg(not(feature = "simulate"))]
pub(crate) fn no_simulation() -> Exit {
    use turingpi_provision::engine::{Failure, FailureClass};
    Failure::new(FailureClass::Usage, "this build has no simulated board")
        .hint("Install it with its default features: `cargo install turingpi-cli`.")
        .into()
}
