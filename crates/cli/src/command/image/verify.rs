//! `turingpi image verify`

use clap::Args;
use turingpi_provision::{
    engine::{Failure, FailureClass},
    images::{CachedImage, Checked, ImageSource, ImageStore, Trust, Want},
};

use super::{digest, progress::Bar, pull};
use crate::render::out::say;
use crate::{
    args::{Global, Output},
    exit::{self, Exit},
    render::{
        style::{BAD, GOOD, paint},
        words,
    },
    session,
};

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// A name of the catalogue, an address or a file; all images of the cache when left out
    #[arg(value_name = "NAME|URL|FILE")]
    image: Option<String>,

    /// The SHA-256 it must have, of the file as it is
    #[arg(long, value_name = "HEX", requires = "image")]
    sha256: Option<String>,
}

pub(super) async fn run(global: &Global, args: &Verify, store: &ImageStore) -> Result<u8, Exit> {
    match &args.image {
        Some(image) => one(global, args, image, store).await,
        None => all(global, store).await,
    }
}

/// One image: that it is the right one, and that it unpacks to its end.
async fn one(global: &Global, args: &Verify, image: &str, store: &ImageStore) -> Result<u8, Exit> {
    let source = store.resolve(image, std::path::Path::new("."))?;
    let here = match &source {
        ImageSource::Path(_) => true,
        ImageSource::Catalogue(entry) => {
            store.list()?.iter().any(|listed| listed.entry.name == entry.name && listed.cached.is_some())
        }
        _ => true,
    };
    if !here {
        return Err(Failure::new(FailureClass::Config, format!("`{image}` is not in the cache"))
            .hint(format!("Run `turingpi image pull {image}` first."))
            .into());
    }
    let want = Want { sha256: digest(&args.sha256)?, ..Want::default() };
    let obtained = pull::obtain(global, store, image, &want).await?;
    let bar = Bar::new(global, obtained.file.name());
    let whole = async {
        let hashed = obtained.file.hashed(&|done, total| bar.show(done, total)).await?;
        hashed.proved(&|done, total| bar.show(done, total)).await
    };
    let file = session::until_stopped(Box::pin(whole)).await??;
    drop(bar);
    match global.output {
        Output::Json => {
            let mut told = pull::facts(&file);
            told["raw_sha256"] = serde_json::to_value(file.raw_sha256()).unwrap_or_default();
            told["trust"] = serde_json::to_value(&obtained.trust).unwrap_or_default();
            told["sound"] = true.into();
            say!("{told:#}");
        }
        Output::Text => {
            let (bytes, raw) = (file.packed_bytes(), file.raw_bytes().unwrap_or_default());
            say!(
                "{} {}: whole, {} unpacked to {}",
                paint(GOOD, "ok"),
                file.name(),
                words::bytes(bytes),
                words::bytes(raw)
            );
            say!("  sha256    {}", file.sha256().map_or("", |digest| digest.as_str()));
            say!("  unpacked  {}", file.raw_sha256().map_or("", |digest| digest.as_str()));
            if obtained.trust == Trust::Unchecked {
                say!("  proof     none: compare the sha256 with what its publisher shows");
            } else {
                say!("  proof     {}", words::wrap(&pull::proof(&obtained.trust), 12, 12).trim_start());
            }
        }
    }
    Ok(exit::DONE)
}

/// All images of the cache against the digests that they are named by.
async fn all(global: &Global, store: &ImageStore) -> Result<u8, Exit> {
    let mut checked: Vec<Checked> = Vec::new();
    for image in store.cached()? {
        let name = called(&image);
        let bar = Bar::new(global, &name);
        let show = |done, total| bar.show(done, total);
        let verifying = store.verify(image, &show);
        let result = session::until_stopped(Box::pin(verifying)).await??;
        drop(bar);
        if global.output == Output::Text {
            match result.sound {
                true => say!("{} {name}", paint(GOOD, "ok")),
                false => say!("{} {name}: {}", paint(BAD, "damaged"), result.image.path.display()),
            }
        }
        checked.push(result);
    }
    let damaged = checked.iter().filter(|c| !c.sound).count();
    match global.output {
        Output::Json => say!("{:#}", serde_json::json!({ "images": checked, "damaged": damaged })),
        Output::Text if checked.is_empty() => say!("there are no images in the cache"),
        Output::Text => {}
    }
    if damaged == 0 {
        return Ok(exit::DONE);
    }
    if global.output == Output::Text {
        say!("\nA damaged image is never used: it is downloaded again when it is needed.");
    }
    Err(Exit::silent(exit::REFUSED))
}

fn called(image: &CachedImage) -> String {
    match (image.known_as.first(), image.name.as_str()) {
        (Some(name), _) => name.clone(),
        (None, "") => image.sha256.as_str().chars().take(12).collect(),
        (None, name) => name.to_owned(),
    }
}
