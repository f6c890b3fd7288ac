//! `turingpi board info`

use serde_json::json;
use turingpi_provision::bmc::About;

use super::desk::{Open, Told};
use crate::{exit::Exit, render::words};

pub(super) async fn info(open: &Open) -> Result<Told, Exit> {
    let client = open.client();
    let about = open.board.about();
    let info = open.ask(client.info()).await?;
    let fingerprint = open.board.http().fingerprint().map(|f| f.to_string());
    let capabilities: Vec<_> = about.capabilities().iter().collect();
    let json = json!({
        "board": open.board.name(),
        "url": open.board.url(),
        "about": about,
        "firmware": about.firmware_version().map(|version| version.to_string()),
        "fingerprint": fingerprint,
        "interfaces": info.interfaces,
        "storage": info.storage,
        "capabilities": capabilities,
    });
    let mut lines = vec![format!("{}  {}", open.board.name(), open.board.url())];
    let mut line = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            lines.push(format!("  {name:<12} {}", words::wrap(&value, 15, 15).trim_start()));
        }
    };
    line("daemon", Some(about.firmware_name()));
    line(
        "firmware",
        Some(about.firmware_version().map_or("not told by this daemon".to_owned(), |v| v.to_string())),
    );
    line("built", about.build_time.clone());
    line("board", model(about));
    line("host name", about.hostname.clone());
    for interface in &info.interfaces {
        let parts = [
            interface.device.clone(),
            interface.ip.map(|ip| ip.to_string()),
            interface.mac.as_ref().map(|mac| format!("mac {mac}")),
        ];
        line("network", Some(parts.into_iter().flatten().collect::<Vec<_>>().join("  ")));
    }
    for storage in &info.storage {
        line(
            "storage",
            Some(format!(
                "{}: {} free of {}",
                storage.name,
                words::bytes(storage.free),
                words::bytes(storage.total)
            )),
        );
    }
    line("certificate", fingerprint);
    Ok(Told::new(json, lines.join("\n")))
}

fn model(about: &About) -> Option<String> {
    let revision = about.board_revision.as_ref().map(|revision| format!("v{revision}"));
    let parts: Vec<String> = [about.board_model.clone(), revision].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(" "))
}
