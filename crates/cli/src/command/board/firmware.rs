//! `turingpi board firmware`

use std::sync::Arc;

use serde_json::{Value, json};
use turingpi_provision::{
    board::{Activated, FirmwareRequest, Staged, reboot_effect},
    cluster::{Source, fetch::InvalidSource},
    engine::{Cancellation, EventSink, Failure, FailureClass},
};

use super::{
    args::{self, Which},
    desk::{Open, agree},
};
use crate::{
    args::Global,
    exit::{self, Exit},
    render::{
        failure,
        out::{say, talk},
        screen::Screen,
        style::{GOOD, WARN, paint},
        words,
    },
    session,
};

pub(super) async fn run(global: &Global, which: &Which, args: &args::Firmware) -> Result<u8, Exit> {
    let request = request(args)?;
    let open = Open::only(global, which).await?;
    if !open.text && !args.stage_only && !args.yes.yes {
        // Nobody can be asked in the middle of a stream.
        agree(false, args.yes, "The upgrade restarts the BMC.").await?;
    }
    if open.text {
        say!("{} runs {}", open.board.name(), open.board.about().firmware_name());
    }
    let cancellation = Cancellation::new();
    let ears = session::stop_on_signals(&cancellation);
    let screen = Screen::new(global, false, open.desk.state_folder().join("runs"));
    let sink: Arc<dyn EventSink> = screen.clone();
    let staged = open.desk.stage_firmware(&open.board, &request, sink.clone(), &cancellation).await;
    screen.finish();
    open.keep_login()?;
    let staged = match staged {
        Ok(staged) => staged,
        Err(failure) if open.text => {
            super::flash::failures(&failure, &screen);
            return Ok(exit::code(failure.class()));
        }
        Err(failure) => return end(&open, None, None, Some(failure)),
    };
    if open.text {
        say!(
            "{} staged: {}, sha256 {}",
            paint(GOOD, "ok"),
            words::bytes(staged.bytes),
            staged.sha256.get(..16).unwrap_or_default()
        );
    }
    if args.stage_only {
        return end(&open, Some(&staged), None, None);
    }
    drop(ears);
    consent(&open, args).await?;
    // From here on stopping would only hide how it ended.
    let activated = open.desk.activate_firmware(&open.board, args.reinstall, sink, &cancellation).await;
    screen.finish();
    match activated {
        Ok((activated, back)) => {
            open.desk.keep_login(&back)?;
            end(&open, Some(&staged), Some(&activated), None)
        }
        Err(failure) => end(&open, Some(&staged), None, Some(failure)),
    }
}

fn request(args: &args::Firmware) -> Result<FirmwareRequest, Exit> {
    let text = args.source.as_ref().or(args.file.as_ref()).cloned().unwrap_or_default();
    let source: Source =
        text.parse().map_err(|e: InvalidSource| Failure::new(FailureClass::Usage, e.to_string()))?;
    if let Source::Path(path) = &source
        && !path.is_file()
    {
        return Err(Failure::new(
            FailureClass::Config,
            format!("there is no firmware file `{}`", path.display()),
        )
        .hint("Give the path of a `.tpu` file, or an http(s) URL with `--sha256`.")
        .into());
    }
    Ok(FirmwareRequest { source, sha256: args.sha256.clone() })
}

/// Asks for the reboot; a no leaves the firmware staged.
async fn consent(open: &Open, args: &args::Firmware) -> Result<(), Exit> {
    let bus = open.client().usb().await.ok().and_then(|usb| usb.bus);
    let effect = reboot_effect(open.board.about(), bus);
    let cuts = open.cuts(&turingpi_provision::bmc::Slot::ALL).await;
    let what = format!("To use it, the BMC restarts. {effect} It has {cuts}.");
    agree(open.text, args.yes, &what).await.inspect_err(|_| {
        if open.text {
            talk!(
                "The new firmware is staged; the next reboot of the BMC activates it: `turingpi board reboot --board {}`.",
                open.board.name()
            );
        }
    })
}

/// Tells how it ended: what was staged, what runs, and what the nodes are.
fn end(
    open: &Open,
    staged: Option<&Staged>,
    activated: Option<&Activated>,
    failure: Option<Failure>,
) -> Result<u8, Exit> {
    let code = failure.as_ref().map_or(exit::DONE, |failure| exit::code(failure.class()));
    let board = &open.board;
    if !open.text {
        let error = failure.and_then(|failure| serde_json::to_value(failure.report()).ok());
        let mut line = exit::result(code, error, None, false, None);
        if let Value::Object(line) = &mut line {
            line.remove("kubeconfig");
            line.insert("staged".to_owned(), json!(staged));
            line.insert("activated".to_owned(), json!(activated));
        }
        say!("{line}");
        return Ok(code);
    }
    if let Some(failure) = failure {
        talk!("{}", failure::text(&failure.report(), None));
        return Ok(code);
    }
    match activated {
        Some(activated) if activated.changed => {
            say!(
                "{} {} runs {} now; before: {}",
                paint(GOOD, "done"),
                board.name(),
                activated.after,
                activated.before
            );
        }
        Some(activated) => say!(
            "{} {} runs {} as before; whether from the file or from the old slot, nothing tells",
            paint(WARN, "note:"),
            board.name(),
            activated.after
        ),
        None => {
            say!("The next reboot of the BMC activates it: `turingpi board reboot --board {}`.", board.name())
        }
    }
    if let Some(activated) = activated {
        let words: Vec<String> =
            activated.power.iter().map(|(slot, power)| format!("slot {slot} {power}")).collect();
        say!("The slots' power, as asked for: {}.", words.join(", "));
        say!("Addresses may have changed with the firmware; `turingpi board discover` finds the board.");
    }
    Ok(code)
}
