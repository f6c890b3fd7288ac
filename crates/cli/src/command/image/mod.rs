//! `turingpi image`: one file a verb below it.

mod inspect;
mod list;
pub(crate) mod progress;
mod prune;
mod pull;
mod verify;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use turingpi_provision::{
    engine::{Failure, FailureClass},
    images::{ImageSettings, ImageStore, Sha256},
};

use crate::{args::Global, exit::Exit, session};

/// Examples of the verb without a verb below it.
pub(crate) const EXAMPLES: &str = "Examples:
  turingpi image list
  turingpi image pull armbian
  turingpi image inspect ./Armbian.img.xz
  turingpi image prune --unused 30d --dry-run";

#[derive(Debug, Args)]
pub(crate) struct Image {
    #[command(subcommand)]
    command: ImageCommand,

    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Default, Args)]
pub(crate) struct Common {
    /// Your own catalogue, laid over the built-in one
    #[arg(long, global = true, env = "TURINGPI_CATALOGUE", value_name = "FILE", hide_env_values = true)]
    catalogue: Option<PathBuf>,

    /// A proxy for downloads [default: HTTPS_PROXY or ALL_PROXY]
    #[arg(long, global = true, value_name = "URL")]
    proxy: Option<String>,
}

#[derive(Debug, Subcommand)]
enum ImageCommand {
    /// Show the catalogue, and what of it is downloaded
    #[command(after_help = "Examples:\n  turingpi image list\n  turingpi image list --module rk1\n  \
        turingpi image list --output json | jq '.images[].name'")]
    List(list::List),
    /// Download an image into the cache and prove that it is the right one
    #[command(after_help = "A cut download goes on where it was cut when this is run again.\n\n\
        Examples:\n  turingpi image pull armbian\n  \
        turingpi image pull https://example.org/os.img.xz --sha256 HEX\n  \
        turingpi image pull raspios --output json | jq -r .path")]
    Pull(pull::Pull),
    /// Read images again and compare them with their digests
    #[command(after_help = "Without a name, all images of the cache. Exits 8 when one is damaged.\n\n\
        Examples:\n  turingpi image verify\n  turingpi image verify raspios\n  \
        turingpi image verify ./os.img.xz --sha256 HEX")]
    Verify(verify::Verify),
    /// Look inside an image: partitions, file systems, release and board
    #[command(after_help = "Needs no root and mounts nothing. Exits 8 when it is no disk image.\n\n\
        Examples:\n  turingpi image inspect ./Armbian.img.xz\n  turingpi image inspect armbian\n  \
        turingpi image inspect os.img.gz --output json | jq .system")]
    Inspect(inspect::Inspect),
    /// Remove images from the cache
    #[command(after_help = "What is in use now stays. Files that are no images stay, too.\n\n\
        Examples:\n  turingpi image prune --unused 30d --dry-run\n  \
        turingpi image prune --keep 8GiB\n  turingpi image prune --all")]
    Prune(prune::Prune),
}

/// Runs a verb.
pub(crate) async fn run(global: &Global, args: &Image) -> Result<u8, Exit> {
    let store = open(global, &args.common).await?;
    match &args.command {
        ImageCommand::List(args) => list::run(global, args, &store),
        ImageCommand::Pull(args) => pull::run(global, args, &store).await,
        ImageCommand::Verify(args) => verify::run(global, args, &store).await,
        ImageCommand::Inspect(args) => inspect::run(global, args, &store).await,
        ImageCommand::Prune(args) => prune::run(global, args, &store),
    }
}

/// The store of images, with the proxy of the environment.
pub(crate) async fn open(global: &Global, common: &Common) -> Result<ImageStore, Exit> {
    let mut settings = ImageSettings::new(session::cache_dir(global)?);
    settings.catalogue.clone_from(&common.catalogue);
    settings.proxy = session::proxy(common.proxy.clone());
    Ok(settings.open().await?)
}

/// A digest of the command line.
fn digest(text: &Option<String>) -> Result<Option<Sha256>, Exit> {
    let parse = |text: &String| {
        text.parse::<Sha256>()
            .map_err(|e| Failure::new(FailureClass::Usage, "`--sha256` is not a digest").source(e).into())
    };
    text.as_ref().map(parse).transpose()
}
