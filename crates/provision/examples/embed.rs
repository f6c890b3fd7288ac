//! Applies a document with this library alone: `cargo run -p turingpi-provision --example embed cluster.yaml`.
#![allow(clippy::print_stdout, reason = "an example talks")]
use std::{env, fs, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use secrecy::SecretString;
use turingpi_provision::{
    Environment, Intent, Provision, SecretProvider, document,
    engine::{Approval, Cancellation, Event, Timing},
};

/// Secrets from the process environment; nobody is asked.
struct Variables;

#[async_trait]
impl SecretProvider for Variables {
    async fn env(&self, name: &str) -> Option<SecretString> {
        env::var(name).ok().map(SecretString::from)
    }
    async fn prompt(&self, _: &str) -> Option<SecretString> {
        None
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = PathBuf::from(env::args().nth(1).unwrap_or_else(|| "cluster.yaml".to_owned()));
    let (document, _) = document::load(&fs::read_to_string(&path)?)?;
    let base = path.parent().map(PathBuf::from).unwrap_or_default();
    let environment = Environment {
        home: env::home_dir(),
        state_dir: base.join(".turingpi").join(&document.name),
        cache_dir: base.join(".turingpi").join("cache"),
        base,
        proxy: turingpi_provision::Proxy::default(),
        ssh_agent: env::var_os("SSH_AUTH_SOCK").map(PathBuf::from),
        secrets: Arc::new(Variables),
        timing: Timing::default(),
        owner: "embed".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let cluster = Provision::open(document, environment).await?;
    // What interrupts is accepted, what loses data is not: a flash ends with `Unapproved`.
    let approval = Approval::disruptive();
    let show = Arc::new(|event: &Event| println!("{}", serde_json::to_string(event).unwrap_or_default()));
    let summary = cluster.apply(&Intent::default(), &approval, show, &Cancellation::new()).await?;
    println!("{} steps", summary.steps_done);
    Ok(())
}
