//! `turingpi image pull`

use std::path::Path;

use clap::Args;
use turingpi_provision::images::{ImageFile, ImageStore, Obtained, Trust, Want};

use super::{digest, progress::Bar};
use crate::render::out::{say, talk};
use crate::{
    args::{Global, Output},
    exit::{self, Exit},
    render::{
        style::{GOOD, WARN, paint},
        words,
    },
    session,
};

#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// A name of the catalogue, or an http(s) address
    #[arg(value_name = "NAME|URL")]
    image: String,

    /// The SHA-256 it must have, of the file as it is downloaded
    #[arg(long, value_name = "HEX")]
    sha256: Option<String>,

    /// Where nobody publishes a digest: accept a file other than at the first use
    #[arg(long, conflicts_with = "sha256")]
    trust_anew: bool,
}

pub(super) async fn run(global: &Global, args: &Pull, store: &ImageStore) -> Result<u8, Exit> {
    let want = Want { sha256: digest(&args.sha256)?, trust_anew: args.trust_anew };
    let obtained = obtain(global, store, &args.image, &want).await?;
    let (file, trust) = (&obtained.file, &obtained.trust);
    match global.output {
        Output::Json => {
            let mut told = facts(file);
            told["trust"] = serde_json::to_value(trust).unwrap_or_default();
            told["downloaded"] = obtained.downloaded.into();
            say!("{told:#}");
        }
        Output::Text => {
            let word = if obtained.downloaded { "pulled" } else { "there already" };
            say!("{} {}", paint(GOOD, word), file.name());
            let unpacked = match (file.raw_bytes(), file.packing().as_str()) {
                (_, "raw") | (None, _) => String::new(),
                (Some(bytes), _) => format!(", {} unpacked", words::bytes(bytes)),
            };
            say!("  size    {} ({}{unpacked})", words::bytes(file.packed_bytes()), file.packing());
            say!("  sha256  {}", file.sha256().map_or("", |digest| digest.as_str()));
            say!("  file    {}", file.path().display());
            say!("  proof   {}", words::wrap(&proof(trust), 10, 10).trim_start());
        }
    }
    if *trust == Trust::FirstUse && global.output == Output::Text {
        talk!(
            "{} {}",
            paint(WARN, "warning:"),
            words::wrap(
                "nobody publishes a digest of this image. This one is remembered, and every later download is \
                 compared with it. Compare it with what others have before you flash it.",
                9,
                2
            )
            .trim_start()
        );
    }
    Ok(exit::DONE)
}

/// Makes an image be there, with a bar; a file of this machine is used in place.
pub(super) async fn obtain(
    global: &Global,
    store: &ImageStore,
    what: &str,
    want: &Want,
) -> Result<Obtained, Exit> {
    let source = store.resolve(what, Path::new("."))?;
    let bar = Bar::new(global, what.rsplit('/').next().unwrap_or(what));
    let show = |done, total| bar.show(done, total);
    let obtaining = store.obtain(&source, want, &show);
    Ok(session::until_stopped(Box::pin(obtaining)).await??)
}

/// A file as data.
pub(super) fn facts(file: &ImageFile) -> serde_json::Value {
    serde_json::json!({
        "name": file.name(),
        "path": file.path(),
        "sha256": file.sha256(),
        "packing": file.packing(),
        "bytes": file.packed_bytes(),
        "raw_bytes": file.raw_bytes(),
    })
}

/// How an image was proved, in words.
pub(super) fn proof(trust: &Trust) -> String {
    match trust {
        Trust::Given => "it has the given digest".to_owned(),
        Trust::Catalogue => "it has the digest of the catalogue".to_owned(),
        Trust::Published { url } => format!("it has the digest that its publisher shows at {url}"),
        Trust::Remembered { since } => format!("it is the same as on {}", since.date()),
        Trust::FirstUse => "first use: remembered from now on".to_owned(),
        Trust::Unchecked => "a file of this machine, taken as it is".to_owned(),
        _ => "proved".to_owned(),
    }
}
