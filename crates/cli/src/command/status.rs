//! `turingpi status`

use std::time::Duration;

use turingpi_provision::{
    NodeLine, Status as Seen,
    bmc::Power,
    cluster::{kube::Readiness, ready::HealthState},
    engine::{FailureReport, Outcome},
};

use crate::render::out::{self, say};
use crate::{
    args::{Global, Output, Simulated, Status},
    exit::{self, Exit},
    render::{
        plan,
        style::{BAD, BOLD, DIM, GOOD, WARN, paint},
        words,
    },
    session::{self, Opened},
};

pub(crate) async fn run(global: &Global, args: &Status) -> Result<u8, Exit> {
    let loaded = session::load(&args.document.document, global.output)?;
    let opened = Opened::new(global, loaded, &Simulated { simulate: false, pace: 0.0 }).await?;
    let result = look(global, args, &opened).await;
    opened.close().await;
    result
}

async fn look(global: &Global, args: &Status, opened: &Opened) -> Result<u8, Exit> {
    let mut last = None;
    loop {
        let seen = match session::until_stopped(opened.provision.status()).await {
            Ok(seen) => seen?,
            // Ctrl-C is how watching ends, also in the middle of a look.
            Err(_) if last.is_some() => return Ok(last.unwrap_or(exit::DONE)),
            Err(stopped) => return Err(stopped),
        };
        match global.output {
            Output::Json if args.watch => say!("{}", serde_json::to_value(&seen).unwrap_or_default()),
            Output::Json => say!("{:#}", serde_json::to_value(&seen).unwrap_or_default()),
            Output::Text => {
                if args.watch {
                    // Clears the screen and goes to its first line; dropped with the colours where there is no terminal.
                    out::data("\x1b[2J\x1b[H");
                }
                out::data(text(&seen));
            }
        }
        let code = code(seen.state);
        if !args.watch {
            return Ok(code);
        }
        last = Some(code);
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(args.interval.max(1))) => {}
            () = session::signal() => return Ok(code),
        }
    }
}

fn code(state: HealthState) -> u8 {
    match state {
        HealthState::Ready => exit::DONE,
        HealthState::Bootstrapping => exit::BOOTSTRAPPING,
        HealthState::Degraded => exit::DEGRADED,
    }
}

fn text(seen: &Seen) -> String {
    let (word, style) = match seen.state {
        HealthState::Ready => ("ready", GOOD),
        HealthState::Bootstrapping => ("bootstrapping", WARN),
        HealthState::Degraded => ("degraded", BAD),
    };
    let wanted = seen.versions.wanted.as_deref().unwrap_or("any version");
    let mut out = format!("{} is {}  ({wanted})\n", paint(BOLD, &seen.cluster), paint(style, word));
    for reason in &seen.reasons {
        let condition = if matches!(reason.condition.as_str(), "Ready" | "Registered" | "Available") {
            String::new()
        } else {
            format!(" {}", reason.condition)
        };
        let since = reason.since.map(|t| format!(" ({})", words::ago(t, seen.at))).unwrap_or_default();
        let text = format!("{}{condition}: {}{since}", reason.about, reason.message);
        out.push_str(&format!("  {} {}\n", paint(style, "-"), words::wrap(&text, 4, 4).trim_start()));
    }
    let wide = |least: usize, texts: Vec<usize>| texts.into_iter().max().unwrap_or(0).max(least);
    let name = wide(4, seen.nodes.iter().map(|n| n.name.chars().count()).collect()).min(20);
    let address = wide(7, seen.nodes.iter().map(|n| n.address.len()).collect());
    let slot = wide(4, seen.nodes.iter().filter_map(|n| Some(n.slot.as_ref()?.len())).collect());
    let head = format!(
        "{:<name$}  {:<13}  {:<address$}  {:<slot$}  {:<5}  {:<8}  VERSION",
        "NODE", "ROLE", "ADDRESS", "SLOT", "POWER", "STATUS"
    );
    out.push_str(&format!("\n{}\n", paint(DIM, head)));
    for node in &seen.nodes {
        let (state, style) = node_state(node);
        let power = match node.power {
            Some(Power::On) => "on",
            Some(Power::Off) => "off",
            _ => "-",
        };
        out.push_str(&format!(
            "{:<name$}  {:<13}  {:<address$}  {:<slot$}  {power:<5}  {}  {}\n",
            words::clip(&node.name, name),
            node.role.to_string(),
            node.address,
            node.slot.as_deref().unwrap_or("-"),
            paint(style, format!("{state:<8}")),
            node.version.as_deref().unwrap_or("-"),
        ));
    }
    silent(&mut out, seen);
    for board in &seen.boards {
        let text = match (&board.firmware, &board.unreachable) {
            (_, Some(report)) => paint(WARN, words::wrap(&format!("{}: {}", board.name, why(report)), 0, 2)),
            (Some(firmware), None) => format!("{}: {firmware}", board.name),
            (None, None) => format!("{}: answers", board.name),
        };
        out.push_str(&format!("\n{text}\n"));
    }
    drift(&mut out, seen);
    for step in &seen.in_doubt {
        out.push_str(&format!("{} {step} was begun and not seen to end\n", paint(BAD, "in doubt:")));
    }
    if let Some(run) = &seen.last_run {
        let how = match &run.summary {
            Some(summary) => match summary.outcome {
                Outcome::Done => "done".to_owned(),
                Outcome::Cancelled => "stopped".to_owned(),
                _ => paint(BAD, "failed"),
            },
            None => paint(WARN, "runs, or was cut off"),
        };
        out.push_str(&format!("Last run: {} {}, {how}\n", run.verb, words::ago(run.started, seen.at)));
    }
    if let Some(days) = seen.kubeconfig_days_left.filter(|d| *d < 30) {
        out.push_str(&format!(
            "{} the kubeconfig expires in {}: `turingpi kubeconfig --refresh`\n",
            paint(WARN, "note:"),
            words::count(usize::try_from(days).unwrap_or(0), "day"),
        ));
    }
    out
}

/// What went wrong and the first cause of it, in one line.
fn why(report: &FailureReport) -> String {
    match report.causes.first() {
        Some(cause) => format!("{}: {}", report.message, words::clip(cause, 200)),
        None => report.message.clone(),
    }
}

/// Nodes that SSH does not reach, those with the same story together.
fn silent(out: &mut String, seen: &Seen) {
    let mut told: Vec<(Vec<&str>, Vec<String>)> = Vec::new();
    for node in &seen.nodes {
        let Some(report) = &node.unreachable else { continue };
        let text = why(report);
        let like =
            told.iter_mut().find(|(_, texts)| texts.iter().all(|t| words::merge(&[t, &text]).is_some()));
        match like {
            Some((names, texts)) => {
                names.push(&node.name);
                texts.push(text);
            }
            None => told.push((vec![&node.name], vec![text])),
        }
    }
    for (_, texts) in told {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let text = words::wrap(&words::merge(&texts).unwrap_or_default(), 2, 2);
        out.push_str(&format!("{}\n", paint(WARN, text)));
    }
}

fn node_state(node: &NodeLine) -> (&'static str, anstyle::Style) {
    match &node.ready {
        Some(Readiness::Ready) => ("Ready", GOOD),
        Some(Readiness::NotReady { .. }) => ("NotReady", BAD),
        Some(Readiness::Unknown { .. }) => ("Unknown", BAD),
        None => ("-", DIM),
    }
}

fn drift(out: &mut String, seen: &Seen) {
    match (&seen.drift, &seen.drift_failure) {
        (Some(preview), _) if preview.is_empty() => out.push_str("\nNothing differs from the document.\n"),
        (Some(preview), _) => {
            let steps = words::count(preview.steps().count(), "step");
            out.push_str(&format!("\nNot as the document says, `turingpi apply` takes {steps}:\n"));
            let text = plan::brief(preview);
            let lines = text.lines().count();
            text.lines().take(DRIFT).for_each(|line| out.push_str(&format!("{line}\n")));
            if lines > DRIFT {
                out.push_str(&format!("  … {} more lines: `turingpi plan`\n", lines - DRIFT));
            }
        }
        (None, Some(report)) => {
            out.push_str(&format!(
                "\n{}\n",
                words::wrap(&format!("Drift cannot be told: {}", why(report)), 0, 2)
            ));
            if let Some(hint) = &report.hint {
                out.push_str(&format!(
                    "  {} {}\n",
                    paint(BOLD, "next:"),
                    words::wrap(hint, 8, 8).trim_start()
                ));
            }
        }
        (None, None) => {}
    }
}

/// Lines of drift that are shown; `turingpi plan` shows all.
const DRIFT: usize = 12;
