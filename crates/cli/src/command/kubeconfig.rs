//! `turingpi kubeconfig`

use std::path::PathBuf;

use secrecy::ExposeSecret as _;
use turingpi_provision::{
    cluster::kube::{MergeOptions, Merged},
    engine::{Failure, FailureClass},
};

use crate::render::out::{self, say};
use crate::{
    args::{Global, Kubeconfig, Output, Simulated},
    exit::{self, Exit},
    render::style::{GOOD, paint},
    session::{self, Opened},
};

pub(crate) async fn run(global: &Global, args: &Kubeconfig) -> Result<u8, Exit> {
    let loaded = session::load(&args.document.document, global.output)?;
    let opened = Opened::new(global, loaded, &Simulated { simulate: false, pace: 0.0 }).await?;
    let result = kubeconfig(global, args, &opened).await;
    opened.close().await;
    result
}

async fn kubeconfig(global: &Global, args: &Kubeconfig, opened: &Opened) -> Result<u8, Exit> {
    if args.refresh {
        opened.provision.refresh_kubeconfig().await?;
    }
    if !args.merge {
        let text = opened.provision.kubeconfig().await?.to_yaml()?;
        match global.output {
            Output::Text => out::data(text.expose_secret()),
            Output::Json => say!("{}", serde_json::json!({ "kubeconfig": text.expose_secret() })),
        }
        return Ok(exit::DONE);
    }
    let (path, merged) = merge(opened, args.into.clone(), args.make_current).await?;
    match global.output {
        Output::Json => say!(
            "{}",
            serde_json::json!({ "file": path, "changed": merged.changed, "backup": merged.backup, "context": opened.provision.document().name })
        ),
        Output::Text => {
            let name = &opened.provision.document().name;
            if merged.changed {
                say!("{} context `{name}` in {}", paint(GOOD, "merged"), path.display());
            } else {
                say!("{} context `{name}` is in {} already", paint(GOOD, "ok"), path.display());
            }
            if let Some(backup) = &merged.backup {
                say!("The file as it was: {}", backup.display());
            }
            say!("  kubectl --context {name} get nodes");
        }
    }
    Ok(exit::DONE)
}

/// Merges the cluster's kubeconfig into `into`, or into the person's own.
pub(crate) async fn merge(
    opened: &Opened,
    into: Option<PathBuf>,
    make_current: bool,
) -> Result<(PathBuf, Merged), Exit> {
    let path = match into {
        Some(path) => path,
        None => session::home().map(|h| h.join(".kube").join("config")).ok_or_else(|| {
            Failure::new(FailureClass::Config, "there is no home folder to find `.kube/config` in")
                .hint("Name the file: `--merge --into PATH`.")
        })?,
    };
    let kubeconfig = opened.provision.kubeconfig().await?;
    let merged = kubeconfig.merge_into_file(&path, MergeOptions { set_current: make_current })?;
    Ok((path, merged))
}
