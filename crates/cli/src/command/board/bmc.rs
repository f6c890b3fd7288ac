//! Verbs about the BMC itself: fans, switch, SD card, restarts, backup, transfer.

use std::path::PathBuf;

use serde_json::json;
use turingpi_provision::{
    bmc::{Capability, Transfer as State},
    board::reboot_effect,
    engine::{Cancellation, Failure, FailureClass},
};

use super::{
    args::{Backup, Cooling, Restart, Transfer, Yes},
    desk::{Open, Told, agree},
};
use crate::{
    exit::Exit,
    render::{
        style::{DIM, paint},
        words,
    },
    session,
};

pub(super) async fn cooling(open: &Open, cooling: &Cooling) -> Result<Told, Exit> {
    let client = open.client();
    let devices = open.ask(client.cooling()).await?;
    let devices = match cooling {
        Cooling::Status => devices,
        Cooling::Set(args) => {
            let names: Vec<&str> = devices.iter().map(|d| d.device.as_str()).collect();
            let Some(device) = devices.iter().find(|d| d.device == args.device) else {
                let hint = match names.as_slice() {
                    [] => "This board has none: fans with a plug of their own are not the BMC's.".to_owned(),
                    names => format!("There is {}.", names.join(", ")),
                };
                return Err(Failure::new(FailureClass::Usage, format!("there is no fan `{}`", args.device))
                    .hint(hint)
                    .into());
            };
            if args.speed > device.max_speed {
                return Err(Failure::new(
                    FailureClass::Usage,
                    format!("`{}` has no speed {}", args.device, args.speed),
                )
                .hint(format!("Its speeds are 0 to {}.", device.max_speed))
                .into());
            }
            open.have(client.set_cooling(&args.device, args.speed)).await?;
            open.ask(client.cooling()).await?
        }
    };
    let temperatures = match open.board.about().has(Capability::Thermal) {
        true => open.ask(client.temperatures()).await?,
        false => Vec::new(),
    };
    let mut lines = vec![paint(DIM, format!("{:<24}  {:>5}  {:>5}", "DEVICE", "SPEED", "MAX"))];
    for device in &devices {
        lines.push(format!(
            "{:<24}  {:>5}  {:>5}",
            words::clip(&device.device, 24),
            device.speed,
            device.max_speed
        ));
    }
    if devices.is_empty() {
        lines = vec!["this board has no fan that the BMC can set".to_owned()];
    }
    for temperature in &temperatures {
        let value = temperature.celsius.map_or("-".to_owned(), |celsius| format!("{celsius:.1} °C"));
        lines.push(format!("{:<24}  {value:>12}", words::clip(&temperature.sensor, 24)));
    }
    let json = json!({ "board": open.board.name(), "devices": devices, "temperatures": temperatures });
    Ok(Told::new(json, lines.join("\n")))
}

pub(super) async fn eth_reset(open: &Open, yes: Yes) -> Result<Told, Exit> {
    let all = turingpi_provision::bmc::Slot::ALL;
    let cuts = open.cuts(&all).await;
    let what = format!(
        "The network of every node and of the BMC itself is gone for some seconds: {cuts}. The BMC's address may change."
    );
    agree(open.text, yes, &what).await?;
    open.have(open.client().reset_network()).await?;
    let cancellation = Cancellation::new();
    let board = &open.board;
    let cx = open.waiting(&cancellation);
    // The connection goes down a second after the answer, with firmware 2.1.
    session::until_stopped(open.desk.wait_until_on_the_network(board, &cx)).await??;
    let json = json!({ "board": board.name(), "done": "eth-reset" });
    Ok(Told::new(json, format!("the switch of {} was reset", board.name())))
}

pub(super) async fn sd_card(open: &Open) -> Result<Told, Exit> {
    let card = open.ask(open.client().sd_card()).await?;
    let text = match &card {
        Some(card) => format!(
            "SD card of the BMC (/mnt/sdcard): {} free of {}",
            words::bytes(card.free),
            words::bytes(card.total)
        ),
        None => "there is no card in the BMC's slot".to_owned(),
    };
    Ok(Told::new(json!({ "board": open.board.name(), "sd_card": card }), text))
}

pub(super) async fn reboot(open: &Open, args: &Restart) -> Result<Told, Exit> {
    let bus = open.client().usb().await.ok().and_then(|usb| usb.bus);
    let cuts = open.cuts(&turingpi_provision::bmc::Slot::ALL).await;
    let what = format!(
        "This restarts the BMC of {}. {} It has {cuts}.",
        open.board.name(),
        reboot_effect(open.board.about(), bus)
    );
    // Nobody is asked about what cannot be done now.
    session::until_stopped(open.board.no_transfer()).await??;
    agree(open.text, args.yes, &what).await?;
    open.desk.reboot(&open.board).await?;
    restarted(open, "reboot").await
}

pub(super) async fn reload(open: &Open, args: &Restart) -> Result<Told, Exit> {
    let cuts = open.cuts(&turingpi_provision::bmc::Slot::ALL).await;
    let what = format!(
        "This restarts the daemon of {}; it may power-cycle the nodes (a known fault of the firmware): {cuts}.",
        open.board.name()
    );
    // Nobody is asked about what cannot be done now.
    session::until_stopped(open.board.no_transfer()).await??;
    agree(open.text, args.yes, &what).await?;
    open.desk.reload(&open.board).await?;
    restarted(open, "reload").await
}

async fn restarted(open: &Open, word: &str) -> Result<Told, Exit> {
    let cancellation = Cancellation::new();
    let cx = open.waiting(&cancellation);
    let back = session::until_stopped(open.desk.wait_until_back(&open.board, &cx)).await??;
    open.desk.keep_login(&back)?;
    let firmware = back.about().firmware_name();
    let json = json!({ "board": back.name(), "done": word, "firmware": firmware });
    Ok(Told::new(json, format!("the BMC of {} is back: {firmware}", back.name())))
}

pub(super) async fn backup(open: &Open, args: &Backup) -> Result<Told, Exit> {
    let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '_' };
    let usual = || {
        PathBuf::from(format!("{}-backup.tar.gz", open.board.name().chars().map(safe).collect::<String>()))
    };
    let path = args.file.clone().unwrap_or_else(usual);
    if path.exists() && !args.force {
        return Err(Failure::new(FailureClass::Usage, format!("`{}` exists", path.display()))
            .hint("Name another file, or write over it with `--force`.")
            .into());
    }
    let cannot = |e: std::io::Error| {
        Failure::new(FailureClass::Config, format!("cannot write `{}`", path.display())).source(e)
    };
    let folder =
        path.parent().filter(|p| !p.as_os_str().is_empty()).map_or(PathBuf::from("."), PathBuf::from);
    // Whole or not at all, and never readable by others: it holds password hashes and a private key.
    let mut builder = tempfile::Builder::new();
    builder.prefix(".backup-").suffix(".tmp");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600));
    let file = builder.tempfile_in(folder).map_err(cannot)?;
    let mut into = tokio::fs::File::from_std(file.reopen().map_err(cannot)?);
    let bytes = open.ask(open.client().backup(&mut into)).await?;
    into.sync_all().await.map_err(cannot)?;
    file.persist(&path).map_err(|e| cannot(e.error))?;
    let json = json!({ "board": open.board.name(), "file": path, "bytes": bytes });
    Ok(Told::new(json, format!("{}: {}", path.display(), words::bytes(bytes))))
}

pub(super) async fn transfer(open: &Open, args: &Transfer) -> Result<Told, Exit> {
    let client = open.client();
    let mut state = open.ask(client.transfer()).await?;
    let mut cancelled = false;
    if args.cancel
        && let State::Moving { process, .. } = &state
    {
        let what =
            format!("This ends `{process}`, whoever started it: the slot is left half written and off.");
        agree(open.text, args.yes, &what).await?;
        cancelled = open.have(client.cancel_transfer()).await?;
        state = open.ask(client.transfer()).await?;
    }
    let mut text = match &state {
        State::Idle => "no transfer since the daemon started".to_owned(),
        State::Moving { process, bytes, size, cancelled, .. } => format!(
            "`{process}` {}: {}{}",
            if *cancelled { "is winding up" } else { "moves" },
            words::bytes(*bytes),
            size.map(|size| format!(" of {}", words::bytes(size))).unwrap_or_default()
        ),
        State::Done { took, .. } => format!("the last transfer ended after {}", words::duration(*took)),
        State::Failed { text } => format!("the last transfer failed: {text}"),
        _ => "unknown".to_owned(),
    };
    if args.cancel && !cancelled {
        text.push_str("\nthere was nothing to cancel");
    } else if cancelled {
        text = format!("cancelled\n{text}");
    }
    let json = json!({ "board": open.board.name(), "transfer": state, "cancelled": cancelled });
    Ok(Told::new(json, text))
}
