//! `turingpi board flash`

use std::{io::IsTerminal as _, path::Path, sync::Arc, time::Duration};

use serde_json::{Value, json};
use turingpi_provision::{
    bmc::Power,
    board::{Flash, FlashPlan, FlashRequest, Occupant, OpenBoard, SlotEnd, SlotState},
    cluster::{
        ImageSpec, Source,
        imaging::{AfterFlash, FlashSource},
    },
    engine::{
        Approval, Cancellation, EventKind, EventSink, Failure, FailureClass, Preview, Risk, Subject, Summary,
    },
    images::{ImageFile, ImageSource, Sha256, Trust, Want},
};

use super::{
    args::{self, Which},
    desk::{desk, tell_notes},
};
use crate::{
    args::{Global, Output},
    command::image::{self, progress::Bar},
    exit::{self, Exit},
    render::{
        failure,
        out::{say, talk},
        plan as render,
        screen::Screen,
        style::{BAD, BOLD, GOOD, WARN, paint},
        words,
    },
    session,
};

pub(super) async fn run(global: &Global, which: &Which, args: &args::Flash) -> Result<u8, Exit> {
    let (source, _in_use) = source(global, args).await?;
    let request = request(args, source);
    let desk = desk(global, which).await?;
    let boards = session::until_stopped(desk.connect_all()).await??;
    boards.iter().for_each(|board| tell_notes(global, board));
    let flash = session::until_stopped(desk.flash(boards.clone(), request)).await??;
    let result = carry_out(global, args, &desk, &boards, &flash).await;
    for board in &boards {
        desk.keep_login(board)?;
    }
    result
}

async fn carry_out(
    global: &Global,
    args: &args::Flash,
    desk: &turingpi_provision::board::BoardDesk,
    boards: &[OpenBoard],
    flash: &Flash<'_>,
) -> Result<u8, Exit> {
    let text = global.output == Output::Text;
    let FlashPlan { preview, interrupted } = session::until_stopped(flash.plan()).await??;
    if text && !preview.is_empty() {
        say!("{}", render::text(&preview, render::Detail::of(global.verbose)));
    }
    let approval = approval(args, boards, &preview, &interrupted, text).await?;
    let cancellation = Cancellation::new();
    let ears = session::stop_on_signals(&cancellation);
    let screen = Screen::new(global, false, desk.state_folder().join("runs"));
    let sink: Arc<dyn EventSink> = screen.clone();
    let result = flash.run(&approval, sink, &cancellation).await;
    screen.finish();
    // Also after a success: it tells the power, and after a stop it makes it a known one.
    let ends = flash.ends().await;
    drop(ears);
    if text { tell(result, &ends, &screen) } else { Ok(stream(result, &ends)) }
}

fn request(args: &args::Flash, source: FlashSource) -> FlashRequest {
    let after = match (args.leave_off, args.no_boot_check) {
        (true, _) => AfterFlash::LeaveOff,
        (false, true) => AfterFlash::PowerOn,
        (false, false) => AfterFlash::ProveBoot(Duration::from_secs(args.boot_seconds)),
    };
    FlashRequest {
        slots: args.slots.list(),
        source,
        after,
        keep_on: args.keep_on.clone(),
        emmc_bytes: args.emmc,
        resume: args.resume,
    }
}

/// Looks at a file before any board is called and any neighbour switched off: the step that writes it looks again.
async fn proved(global: &Global, path: &Path, expected: Option<&Sha256>) -> Result<(), Exit> {
    let file = ImageFile::open(path).await?;
    if let Some(what) = file.foreign().await? {
        return Err(Failure::new(
            FailureClass::Refused,
            format!("image `{}` is no disk image but {what}", path.display()),
        )
        .hint("Name the image itself; `turingpi image inspect FILE` tells what a file holds.")
        .into());
    }
    let Some(expected) = expected else { return Ok(()) };
    let bar = Bar::new(global, &path.display().to_string());
    let file = session::until_stopped(file.hashed(&|done, total| bar.show(done, total))).await??;
    drop(bar);
    match file.sha256() {
        Some(found) if found != expected => Err(Failure::new(
            FailureClass::Refused,
            format!(
                "image `{}` is not what was expected: its SHA-256 is {found}, not {expected}",
                path.display()
            ),
        )
        .hint("Correct `--sha256`, or get the file again: never flash a file that differs.")
        .into()),
        _ => Ok(()),
    }
}

/// Where the image comes from. What has to be downloaded here is downloaded and proved before any board is called; the
/// second value keeps it in the cache.
async fn source(global: &Global, args: &args::Flash) -> Result<(FlashSource, Option<ImageFile>), Exit> {
    if let Some(path) = &args.local {
        return Ok((FlashSource::OnBmc(path.clone()), None));
    }
    if let Some(text) = &args.url {
        return match text.parse() {
            Ok(Source::Url(url)) => Ok((FlashSource::ByBmc { url, sha256: args.sha256.clone() }, None)),
            _ => Err(Failure::new(FailureClass::Usage, format!("`{text}` is not a URL"))
                .hint(
                    "The BMC downloads over http and https; a file that lies on it is named with `--local`.",
                )
                .into()),
        };
    }
    let text = args.source.as_ref().or(args.image.as_ref()).cloned().unwrap_or_default();
    let store = image::open(global, &image::Common::default()).await?;
    let source = store.resolve(&text, Path::new(""))?;
    if let ImageSource::Path(path) = &source {
        if !path.is_file() {
            return Err(Failure::new(
                FailureClass::Config,
                format!("there is no image `{}`", path.display()),
            )
            .hint("Give the path of a file, a name of `turingpi image list`, or an http(s) URL.")
            .into());
        }
        proved(global, path, args.sha256.as_ref()).await?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let spec = ImageSpec { name, source: Source::Path(path.clone()), sha256: args.sha256.clone() };
        return Ok((FlashSource::Upload(spec), None));
    }
    let bar = Bar::new(global, &source.to_string());
    let want = Want { sha256: args.sha256.clone(), ..Want::default() };
    let obtained =
        session::until_stopped(store.obtain(&source, &want, &|done, total| bar.show(done, total))).await??;
    drop(bar);
    let file = obtained.file.hashed(&|_, _| ()).await?;
    if obtained.trust == Trust::FirstUse {
        talk!(
            "{}",
            words::wrap(
                &format!(
                    "note: nobody publishes a digest of {source}; what came now is remembered: sha256 {}",
                    file.sha256().map(ToString::to_string).unwrap_or_default()
                ),
                0,
                6
            )
        );
    }
    let name = match &source {
        ImageSource::Catalogue(entry) => entry.name.clone(),
        _ => file.name().to_owned(),
    };
    let spec =
        ImageSpec { name, source: Source::Path(file.path().to_owned()), sha256: file.sha256().cloned() };
    Ok((FlashSource::Upload(spec), Some(file)))
}

/// What the person agrees to: slots by name for the loss of data, `--yes` for neighbours that are off meanwhile.
async fn approval(
    args: &args::Flash,
    boards: &[OpenBoard],
    preview: &Preview,
    interrupted: &[Occupant],
    text: bool,
) -> Result<Approval, Exit> {
    let digest = preview.digest();
    let mut approval = if args.yes { Approval::disruptive() } else { Approval::safe_only() };
    for word in &args.approve {
        if let Some(name) = slot_named(args, boards, word) {
            approval = approval.subject(Subject::node(name));
        } else if is_digest(word) {
            if !digest.starts_with(&word.to_ascii_lowercase()) {
                let now = render::short_digest(preview);
                return Err(Failure::new(
                    FailureClass::Unapproved,
                    format!("the plan is not the one you approved: its digest is {now}, not {word}"),
                )
                .hint("Something changed since. Look at the plan, then approve that one.")
                .into());
            }
            approval = approval.digest(digest.clone());
        } else {
            let names = names(preview);
            return Err(Failure::new(
                FailureClass::Usage,
                format!("`{word}` is not flashed, so it cannot be approved"),
            )
            .hint(format!("This flashes {}.", names.join(", ")))
            .into());
        }
    }
    if approval.check(preview, &digest).is_ok() {
        return Ok(approval);
    }
    if !text || !std::io::stdin().is_terminal() {
        return Err(unapproved(args, boards, preview, interrupted).into());
    }
    let preview = preview.clone();
    session::ask(move || ask(&preview)).await?
}

/// Whether a word of `--approve` is the digest of a plan rather than a slot.
fn is_digest(word: &str) -> bool {
    word.len() >= 12 && word.chars().all(|c| c.is_ascii_hexdigit())
}

fn names(preview: &Preview) -> Vec<String> {
    render::destructive(preview).iter().map(|subject| subject.name.clone()).collect()
}

/// What is missing, and the flags that would have said yes.
fn unapproved(
    args: &args::Flash,
    boards: &[OpenBoard],
    preview: &Preview,
    interrupted: &[Occupant],
) -> Failure {
    let open: Vec<String> =
        names(preview).into_iter().filter(|name| !is_approved(args, boards, name)).collect();
    let neighbours: Vec<String> = interrupted.iter().map(Occupant::words).collect();
    let mut flags = Vec::new();
    let mut what = Vec::new();
    if !open.is_empty() {
        what.push(format!("all data on {} would be lost", open.join(", ")));
        flags.push(format!("--approve {}", open.join(",")));
    }
    if !neighbours.is_empty() && !args.yes {
        what.push(format!(
            "on this board a flash might hit another module, so {} would be off meanwhile",
            neighbours.join(", ")
        ));
        flags.push("--yes".to_owned());
    }
    let keep = if neighbours.is_empty() {
        ""
    } else {
        " `--keep-on` leaves slots on whose system is known to boot."
    };
    Failure::new(FailureClass::Unapproved, format!("{}, and nobody has approved that", what.join("; "))).hint(format!(
        "Approve it with `{}`, or exactly this plan with `--approve {}`. For the loss of data `--yes` is not enough.{keep}",
        flags.join(" "),
        render::short_digest(preview)
    ))
}

fn is_approved(args: &args::Flash, boards: &[OpenBoard], name: &str) -> bool {
    args.approve.iter().any(|word| slot_named(args, boards, word).as_deref() == Some(name))
}

/// The slot that a word of `--approve` means, as it is called in the plan.
fn slot_named(args: &args::Flash, boards: &[OpenBoard], word: &str) -> Option<String> {
    let slots = args.slots.list();
    boards.iter().flat_map(|board| slots.iter().map(move |slot| (board, *slot))).find_map(|(board, slot)| {
        let number = boards.len() == 1 && slot.to_string() == word;
        let named = board.occupant(slot) == word || board.place(slot).to_string() == word || number;
        named.then(|| board.occupant(slot))
    })
}

fn ask(preview: &Preview) -> Result<Approval, Exit> {
    let names = names(preview);
    talk!(
        "{} Everything on {} will be lost.\nTo approve that, type the names, with commas or spaces between them.",
        paint(BAD, "Data loss."),
        names.join(", ")
    );
    let answer: String = dialoguer::Input::new()
        .with_prompt("Slots")
        .allow_empty(true)
        .interact_text()
        .map_err(|_| Exit::silent(exit::STOPPED))?;
    let typed: Vec<&str> = answer.split([',', ' ']).map(str::trim).filter(|w| !w.is_empty()).collect();
    let all = names.iter().all(|name| typed.contains(&name.as_str()));
    if !all || typed.iter().any(|word| !names.iter().any(|name| name == word)) {
        return Err(
            Failure::new(FailureClass::Unapproved, "nothing was approved, so nothing was changed").into()
        );
    }
    let start =
        if preview.risk() >= Risk::Disruptive { Approval::disruptive() } else { Approval::safe_only() };
    Ok(names.into_iter().fold(start, |approval, name| approval.subject(Subject::node(name))))
}

/// The last line of the stream.
fn stream(result: Result<Summary, Failure>, ends: &[SlotEnd]) -> u8 {
    let (code, summary, error) = match result {
        Ok(summary) => (exit::DONE, Some(summary), None),
        Err(failure) => (exit::code(failure.class()), None, serde_json::to_value(failure.report()).ok()),
    };
    let mut line = exit::result(code, error, summary.as_ref(), false, None);
    if let Value::Object(line) = &mut line {
        line.remove("kubeconfig");
        line.insert("slots".to_owned(), json!(ends));
    }
    say!("{line}");
    code
}

/// How it ended, for people: every failure with its next step, and how each slot is now.
fn tell(result: Result<Summary, Failure>, ends: &[SlotEnd], screen: &Screen) -> Result<u8, Exit> {
    let code = match result {
        Ok(summary) if summary.steps_done == 0 => {
            say!("{} nothing to flash: every slot holds this image already", paint(GOOD, "ok"));
            exit::DONE
        }
        Ok(summary) => {
            let took = words::duration(Duration::from_millis(summary.millis));
            say!("{} {} in {took}", paint(GOOD, "done"), words::count(summary.steps_done, "step"));
            exit::DONE
        }
        Err(failure) => {
            failures(&failure, screen);
            exit::code(failure.class())
        }
    };
    for end in ends {
        say!("{}", words::wrap(&slot(end), 0, 4));
    }
    if code != exit::DONE {
        if let Some(log) = screen.log() {
            talk!("  {} {}", paint(BOLD, "log: "), log.display());
        }
        if ends.iter().any(|end| end.state == SlotState::Flashed) {
            talk!("Run the same command again; with `--resume` it leaves out what is done.");
        } else if code == exit::STOPPED {
            talk!("Run the same command again: nothing is on its slots yet.");
        }
    }
    Ok(code)
}

pub(super) fn failures(failure: &Failure, screen: &Screen) {
    let summary = screen.events().into_iter().rev().find_map(|event| match event.kind {
        EventKind::RunFinished { summary } => Some(summary),
        _ => None,
    });
    let cause = |class| class != FailureClass::Blocked && class != FailureClass::Cancelled;
    let mut told = false;
    for step in summary.iter().flat_map(|s| &s.failures).filter(|f| cause(f.failure.class)) {
        talk!("{}", failure::text(&step.failure, step.step.as_deref()));
        told = true;
    }
    match failure.class() {
        FailureClass::Cancelled => talk!("{} as asked", paint(WARN, "stopped")),
        _ if !told => talk!("{}", failure::text(&failure.report(), None)),
        _ => {}
    }
}

/// One slot in words; a half-written one says what to do.
fn slot(end: &SlotEnd) -> String {
    let power = match end.power {
        Some(Power::On) => "on",
        Some(Power::Off) => "off",
        None => "in an unknown power state: the BMC does not answer",
    };
    match end.state {
        SlotState::Flashed => format!("slot {} holds the image and is {power}", end.name),
        SlotState::HeldAlready => format!("slot {} held this image already and is {power}", end.name),
        SlotState::Untouched => format!("slot {} was not written and is {power}", end.name),
        SlotState::HalfWritten => format!(
            "slot {} is {power}: a flash was begun there and did not end, so flash it again before you use it",
            end.name
        ),
    }
}
