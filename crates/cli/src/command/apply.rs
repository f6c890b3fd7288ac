//! `turingpi apply`

use std::{io::IsTerminal as _, path::Path, time::Duration};

use turingpi_provision::engine::{
    Approval, Cancellation, Event, EventKind, EventSink, Failure, FailureClass, Preview, Risk, Subject,
    Summary,
};

use crate::{
    args::{Apply, Global, Output},
    exit::{self, Exit},
    render::{
        failure,
        out::{say, talk},
        plan as render, report,
        screen::Screen,
        style::{BAD, BOLD, GOOD, WARN, paint},
        words,
    },
    session::{self, Opened},
};

pub(crate) async fn run(global: &Global, args: &Apply) -> Result<u8, Exit> {
    let loaded = session::load(&args.document.document, global.output)?;
    let opened = session::until_stopped(Box::pin(Opened::new(global, loaded, &args.simulated))).await??;
    let result = apply(global, args, &opened).await;
    opened.close().await;
    result
}

async fn apply(global: &Global, args: &Apply, opened: &Opened) -> Result<u8, Exit> {
    let text = global.output == Output::Text;
    if text && opened.simulated {
        talk!("{} everything below happens on a simulated board.", paint(WARN, "SIMULATED"));
    }
    let intent = session::intent(&opened.provision, &args.reflash)?;
    let waiting: std::sync::Arc<dyn EventSink> = std::sync::Arc::new(move |event: &Event| {
        if let (true, EventKind::Waiting { condition, last_seen }) = (text, &event.kind) {
            talk!("waiting for {condition}: {last_seen}");
        }
    });
    let cancellation = Cancellation::new();
    let planning = Box::pin(opened.provision.plan_for_apply(&intent, waiting, &cancellation));
    let planned = session::until_stopped(planning).await??;
    if text {
        for note in &planned.notes {
            say!("{}", words::wrap(&format!("note: {note}"), 0, 6));
        }
        if planned.preview.is_empty() {
            say!("{} nothing to change: the cluster is what the document says", paint(GOOD, "ok"));
        } else {
            say!("{}", render::text(&planned.preview, render::Detail::of(global.verbose)));
        }
    }
    let approval = approval(args, opened, &planned.preview, text).await?;

    let ears = session::stop_on_signals(&cancellation);
    let screen = Screen::new(global, opened.simulated, opened.state_dir.join("runs"));
    let sink: std::sync::Arc<dyn EventSink> = screen.clone();
    let result = opened.provision.apply(&intent, &approval, sink, &cancellation).await;
    drop(ears);
    screen.finish();
    write_report(args.report.as_deref(), "apply", opened, &screen, text)?;
    let summary = result.map_err(|failure| ended(failure, &screen, opened, text))?;
    finish(global, args, opened, &summary).await?;
    if args.keep && opened.simulated {
        keep(opened, text).await;
    }
    Ok(exit::DONE)
}

/// Says what failed, each step with its cause and next step, and picks the exit code.
pub(crate) fn ended(failure: Failure, screen: &Screen, opened: &Opened, text: bool) -> Exit {
    let code = exit::code(failure.class());
    if !text {
        return failure.into();
    }
    let summary = screen.events().into_iter().rev().find_map(|event| match event.kind {
        EventKind::RunFinished { summary } => Some(summary),
        _ => None,
    });
    let Some(summary) = summary else { return failure.into() };
    let cause = |class| class != FailureClass::Blocked && class != FailureClass::Cancelled;
    let mut told = false;
    for step in summary.failures.iter().filter(|f| cause(f.failure.class)) {
        let place = match (&step.subject, &step.step) {
            (_, Some(step)) => Some(step.as_str()),
            (Some(subject), None) => Some(subject.name.as_str()),
            (None, None) => None,
        };
        talk!("{}", failure::text(&step.failure, place));
        told = true;
    }
    let stopped = failure.class() == FailureClass::Cancelled;
    if stopped {
        let done = words::count(summary.steps_done, "step");
        talk!("{} after {done}, as asked", paint(WARN, "stopped"));
    } else if !told {
        talk!("{}", failure::text(&failure.report(), None));
    }
    // A simulated board is gone with its run, and its log with it.
    if !opened.simulated {
        if let Some(log) = screen.log() {
            talk!("  {} {}", paint(BOLD, "log: "), log.display());
        }
        let when = if stopped { "Run" } else { "When this is mended, run" };
        talk!("{when} the same command again: it looks and goes on from there.");
    }
    Exit::silent(code)
}

/// Writes the page with the timeline of the run, if one was asked for. Also after a failure: that is when it is read.
pub(crate) fn write_report(
    path: Option<&Path>,
    verb: &str,
    opened: &Opened,
    screen: &Screen,
    text: bool,
) -> Result<(), Exit> {
    let Some(path) = path else { return Ok(()) };
    let page = report::page(&opened.provision.document().name, verb, opened.simulated, &screen.events());
    std::fs::write(path, page).map_err(|e| {
        Failure::new(FailureClass::Config, format!("cannot write the report `{}`", path.display())).source(e)
    })?;
    if text {
        talk!("Report: {}", path.display());
    }
    Ok(())
}

async fn finish(global: &Global, args: &Apply, opened: &Opened, summary: &Summary) -> Result<(), Exit> {
    let path = opened.provision.kubeconfig_path();
    let merged = match args.merge_kubeconfig {
        true => Some(super::kubeconfig::merge(opened, None, false).await?.0),
        false => None,
    };
    if global.output == Output::Json {
        say!("{}", exit::result(exit::DONE, None, Some(summary), opened.simulated, Some(&path)));
        return Ok(());
    }
    let took = words::duration(Duration::from_millis(summary.millis));
    let name = &opened.provision.document().name;
    if summary.steps_done > 0 {
        let steps = words::count(summary.steps_done, "step");
        say!("{} cluster `{name}` is ready: {steps} in {took}", paint(GOOD, "done"));
    }
    match merged {
        Some(merged) => {
            say!("Merged into {}:\n  {} --context {name} get nodes", merged.display(), paint(BOLD, "kubectl"))
        }
        None if opened.simulated && !args.keep => {
            say!("The simulated board ends here; `--keep` keeps it for `kubectl`.");
        }
        None => say!("  {} --kubeconfig {} get nodes", paint(BOLD, "kubectl"), path.display()),
    }
    Ok(())
}

async fn keep(opened: &Opened, text: bool) {
    if text {
        talk!("The simulated board runs until Ctrl-C; its files are in\n  {}", opened.state_dir.display());
    }
    session::signal().await;
}

/// What the person agrees to: by flags, or by answering.
async fn approval(args: &Apply, opened: &Opened, preview: &Preview, text: bool) -> Result<Approval, Exit> {
    if opened.simulated {
        return Ok(Approval::everything());
    }
    let digest = preview.digest();
    let mut approval = if args.yes { Approval::disruptive() } else { Approval::safe_only() };
    for word in &args.approve {
        let node = opened.provision.document().nodes.iter().any(|n| n.name == *word);
        if node {
            approval = approval.subject(Subject::node(word));
        } else if word.len() >= 12 && word.chars().all(|c| c.is_ascii_hexdigit()) {
            if !digest.starts_with(&word.to_ascii_lowercase()) {
                let now = render::short_digest(preview);
                return Err(Failure::new(
                    FailureClass::Unapproved,
                    format!("the plan is not the one you approved: its digest is {now}, not {word}"),
                )
                .hint("Something changed since. Look at the new plan with `turingpi plan`, then approve that one.")
                .into());
            }
            approval = approval.digest(digest.clone());
        } else {
            session::known_node(&opened.provision, word)?;
        }
    }
    if approval.check(preview, &digest).is_ok() {
        return Ok(approval);
    }
    if !text || !std::io::stdin().is_terminal() {
        return Err(unapproved(preview).into());
    }
    let preview = preview.clone();
    session::ask(move || ask(approval, &preview)).await?
}

/// What is missing, and the flags that would have said yes.
fn unapproved(preview: &Preview) -> Failure {
    let lost: Vec<&str> = render::destructive(preview).iter().map(|s| s.name.as_str()).collect();
    let disruptive = preview.steps().any(|(_, s)| s.risk == Risk::Disruptive);
    let message = match lost.as_slice() {
        [] => "the plan interrupts what runs, and nobody has approved that".to_owned(),
        lost => format!("all data on {} would be lost, and nobody has approved that", lost.join(", ")),
    };
    let mut flags = Vec::new();
    if disruptive {
        flags.push("--yes".to_owned());
    }
    if !lost.is_empty() {
        flags.push(format!("--approve {}", lost.join(",")));
    }
    Failure::new(FailureClass::Unapproved, message).hint(format!(
        "Look at the plan (`turingpi plan`), then approve it: `turingpi apply {}`, or exactly this one with `--approve {}`.",
        flags.join(" "),
        render::short_digest(preview)
    ))
}

/// Asks: yes for what interrupts, the nodes' names for what loses data.
fn ask(approval: Approval, preview: &Preview) -> Result<Approval, Exit> {
    let lost = render::destructive(preview);
    if lost.is_empty() {
        let go_on = dialoguer::Confirm::new()
            .with_prompt("Go on? What runs there will be interrupted")
            .default(false)
            .interact()
            .map_err(|_| Exit::silent(exit::STOPPED))?;
        return if go_on { Ok(Approval::disruptive()) } else { Err(declined()) };
    }
    let names: Vec<&str> = lost.iter().map(|s| s.name.as_str()).collect();
    talk!(
        "{} Everything on {} will be lost.\nTo approve that, type the names, with commas or spaces between them.",
        paint(BAD, "Data loss."),
        names.join(", ")
    );
    let answer: String = dialoguer::Input::new()
        .with_prompt("Nodes")
        .allow_empty(true)
        .interact_text()
        .map_err(|_| Exit::silent(exit::STOPPED))?;
    let typed: Vec<&str> = answer.split([',', ' ']).map(str::trim).filter(|w| !w.is_empty()).collect();
    if names.iter().all(|n| typed.contains(n)) && typed.iter().all(|t| names.contains(t)) {
        let mut approval = if preview.risk() >= Risk::Disruptive { Approval::disruptive() } else { approval };
        for subject in lost {
            approval = approval.subject(subject.clone());
        }
        return Ok(approval);
    }
    Err(declined())
}

fn declined() -> Exit {
    Failure::new(FailureClass::Unapproved, "nothing was approved, so nothing was changed").into()
}
