//! The page of a run: one self-contained HTML file with a timeline of lanes and steps.

use std::{collections::BTreeSet, fmt::Write as _, time::Duration};

use turingpi_provision::engine::{
    Event, Outcome, Risk,
    report::{After, LaneLine, PathPart, StepLine, Timeline},
};

use super::words;

/// The page, from the events of one run.
pub(crate) fn page(cluster: &str, verb: &str, simulated: bool, events: &[Event]) -> String {
    let timeline = Timeline::from_events(events);
    let critical: BTreeSet<(u32, &str)> =
        timeline.critical_path.iter().map(|part| (part.round, part.step.as_str())).collect();
    let mut body = String::new();
    head(&mut body, &timeline, cluster, verb, simulated);
    chart(&mut body, &timeline, &critical);
    path(&mut body, &timeline);
    failures(&mut body, &timeline);
    table(&mut body, &timeline, &critical);
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{verb} {cluster}</title><style>{CSS}</style></head><body>\n{body}</body></html>\n",
        verb = escape(verb),
        cluster = escape(cluster),
    )
}

const CSS: &str = "\
:root{color-scheme:light dark;--fg:#1b1f24;--dim:#667;--line:#d8dce2;--bg:#fff;--ok:#2f7d4f;--warn:#b26a00;--bad:#b3261e;--wait:#e6e9ee}\
@media(prefers-color-scheme:dark){:root{--fg:#e6e9ee;--dim:#9aa3af;--line:#333a44;--bg:#14171b;--ok:#5bbd85;--warn:#e0a040;--bad:#ff7b72;--wait:#2a3038}}\
body{font:15px/1.45 system-ui,sans-serif;color:var(--fg);background:var(--bg);margin:2rem auto;max-width:1180px;padding:0 1rem}\
h1{font-size:1.5rem;margin:0}h2{font-size:1.05rem;margin:2rem 0 .6rem}\
.sub{color:var(--dim);margin:.2rem 0 1.2rem}.facts{display:flex;flex-wrap:wrap;gap:.6rem 2rem}\
.facts div{min-width:6rem}.facts b{display:block;font-size:1.15rem}.facts span{color:var(--dim);font-size:.85rem}\
.ok{color:var(--ok)}.warn{color:var(--warn)}.bad{color:var(--bad)}.dim{color:var(--dim)}\
.chart{border:1px solid var(--line);border-radius:6px;padding:.6rem .8rem;overflow-x:auto}\
.lane{display:grid;grid-template-columns:7.5rem 1fr;align-items:center;gap:.6rem;min-width:640px}\
.lane .name{font-weight:600;overflow:hidden;text-overflow:ellipsis;white-space:nowrap}\
.track{position:relative;height:30px;border-bottom:1px solid var(--line)}\
.bar{position:absolute;top:5px;height:19px;border-radius:3px;overflow:hidden;font-size:11px;line-height:19px;\
color:#fff;white-space:nowrap;padding:0 3px;box-sizing:border-box;min-width:2px;outline:1px solid var(--bg)}\
.wait{position:absolute;top:12px;height:5px;background:var(--wait);border-radius:2px}\
.crit{box-shadow:inset 0 -4px 0 #00000055,0 0 0 2px var(--fg)}\
.axis{position:relative;height:1.4rem;color:var(--dim);font-size:12px}.axis span{position:absolute;transform:translateX(-50%);white-space:nowrap}\
.axis span:first-child{transform:none}.axis span:last-child{transform:translateX(-100%)}\
.key{display:flex;flex-wrap:wrap;gap:.3rem 1.1rem;margin:.7rem 0 0;font-size:.85rem;color:var(--dim)}\
.key i{display:inline-block;width:.9rem;height:.9rem;border-radius:3px;margin-right:.35rem;vertical-align:-2px}\
table{border-collapse:collapse;width:100%;font-size:.9rem}td,th{text-align:left;padding:.3rem .6rem .3rem 0;border-bottom:1px solid var(--line);vertical-align:top}\
th{color:var(--dim);font-weight:500}td.n,th.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}\
pre{white-space:pre-wrap;margin:.3rem 0}";

/// A colour a phase, the same on every page.
const PHASES: [(&str, &str); 7] = [
    ("flash", "#8250df"),
    ("boot", "#0a7ea4"),
    ("first-boot", "#1f6feb"),
    ("prepare", "#5a6b2f"),
    ("k3s", "#b35900"),
    ("cluster", "#2f7d4f"),
    ("remove", "#a04050"),
];

fn colour(phase: &str) -> &'static str {
    PHASES.iter().find(|(name, _)| *name == phase).map_or("#5c6670", |(_, colour)| colour)
}

fn head(out: &mut String, timeline: &Timeline, cluster: &str, verb: &str, simulated: bool) {
    let mark = if simulated { " <span class=\"warn\">simulated</span>" } else { "" };
    let _ = write!(out, "<h1>{} {}{mark}</h1>", escape(verb), escape(cluster));
    let started = timeline
        .started
        .and_then(|t| t.replace_nanosecond(0).ok())
        .and_then(|t| t.format(&time::format_description::well_known::Rfc3339).ok())
        .unwrap_or_default();
    let _ = write!(
        out,
        "<p class=\"sub\">started {} · run {} · turingpi {}</p><div class=\"facts\">",
        escape(&started),
        escape(&timeline.run),
        escape(&timeline.version)
    );
    let mut fact = |value: String, name: &str, class: &str| {
        let _ = write!(out, "<div><b class=\"{class}\">{}</b><span>{name}</span></div>", escape(&value));
    };
    let (word, class) = match &timeline.summary {
        Some(summary) => outcome(summary.outcome),
        None => ("cut off", "bad"),
    };
    fact(word.to_owned(), "outcome", class);
    fact(millis(timeline.millis), "wall time", "");
    let on_path: u64 = timeline.critical_path.iter().map(|p| took(timeline, p)).sum();
    fact(millis(on_path), "on the critical path", "");
    if let Some(summary) = &timeline.summary {
        fact(summary.steps_done.to_string(), "steps done", "");
        fact(summary.steps_failed.to_string(), "failed", if summary.steps_failed > 0 { "bad" } else { "" });
        fact(summary.retries.to_string(), "retries", if summary.retries > 0 { "warn" } else { "" });
        fact(summary.rounds.to_string(), "rounds", "");
    }
    out.push_str("</div>\n");
}

fn outcome(outcome: Outcome) -> (&'static str, &'static str) {
    match outcome {
        Outcome::Done => ("done", "ok"),
        Outcome::Failed => ("failed", "bad"),
        Outcome::Cancelled => ("stopped", "warn"),
        Outcome::Blocked => ("blocked", "warn"),
        _ => ("ended", "dim"),
    }
}

fn chart(out: &mut String, timeline: &Timeline, critical: &BTreeSet<(u32, &str)>) {
    out.push_str("<h2>Timeline</h2><div class=\"chart\">");
    let whole = timeline.millis.max(1);
    let percent = |ms: u64| ms.min(whole) as f64 * 100.0 / whole as f64;
    let mut phases = BTreeSet::new();
    for lane in &timeline.lanes {
        let _ = write!(
            out,
            "<div class=\"lane\"><div class=\"name\">{}</div><div class=\"track\">",
            escape(&lane.subject.name)
        );
        for step in &lane.steps {
            phases.insert(step.phase.as_str());
            for wait in &step.waits {
                let end = wait.end_ms.unwrap_or(whole);
                let _ = write!(
                    out,
                    "<div class=\"wait\" style=\"left:{:.3}%;width:{:.3}%\" title=\"{}\"></div>",
                    percent(wait.start_ms),
                    percent(end) - percent(wait.start_ms),
                    escape(&format!("{} waits for {}", step.title, wait.name))
                );
            }
            bar(out, step, critical.contains(&(step.round, step.id.as_str())), whole, percent);
        }
        out.push_str("</div></div>");
    }
    out.push_str("<div class=\"lane\"><div></div><div class=\"axis\">");
    for tick in 0..=4_u64 {
        let at = whole * tick / 4;
        let _ = write!(out, "<span style=\"left:{}%\">{}</span>", tick * 25, millis(at));
    }
    out.push_str("</div></div></div><div class=\"key\">");
    for phase in phases {
        let _ = write!(out, "<span><i style=\"background:{}\"></i>{}</span>", colour(phase), escape(phase));
    }
    out.push_str(
        "<span><i style=\"background:var(--wait)\"></i>waits for a lock or another node</span>\
         <span><i class=\"crit\" style=\"background:var(--dim)\"></i>on the critical path</span></div>\n",
    );
}

fn bar(out: &mut String, step: &StepLine, critical: bool, whole: u64, percent: impl Fn(u64) -> f64) {
    let Some(start) = step.start_ms else { return };
    let end = step.end_ms.unwrap_or(whole);
    let failed = step.outcome == Some(Outcome::Failed);
    let background = if failed { "var(--bad)" } else { colour(&step.phase) };
    let width = (percent(end) - percent(start)).max(0.05);
    let mut title = format!("{} ({})", step.title, millis(end - start));
    if step.attempts > 1 {
        let _ = write!(title, ", {} attempts", step.attempts);
    }
    if let Some(failure) = &step.failure {
        let _ = write!(title, ": {}", failure.message);
    }
    let label = if width > 4.0 { escape(&step.title) } else { String::new() };
    let _ = write!(
        out,
        "<div class=\"bar{}\" style=\"left:{:.3}%;width:{width:.3}%;background:{background}\" title=\"{}\">{label}</div>",
        if critical { " crit" } else { "" },
        percent(start),
        escape(&title),
    );
}

fn path(out: &mut String, timeline: &Timeline) {
    if timeline.critical_path.is_empty() {
        return;
    }
    out.push_str(
        "<h2>Critical path</h2><p class=\"dim\">The chain that decided the end: making anything else faster would not have helped.</p>\
         <table><tr><th>Step</th><th>Node</th><th>Why then</th><th class=\"n\">Took</th></tr>",
    );
    for part in &timeline.critical_path {
        let _ = write!(
            out,
            "<tr><td>{}</td><td>{}</td><td class=\"dim\">{}</td><td class=\"n\">{}</td></tr>",
            escape(title_of(timeline, &part.step, part.round)),
            escape(&part.subject.name),
            escape(&why(&part.after)),
            millis(took(timeline, part))
        );
    }
    out.push_str("</table>\n");
}

fn took(timeline: &Timeline, part: &PathPart) -> u64 {
    part.end_ms.unwrap_or(timeline.millis).saturating_sub(part.start_ms)
}

/// What let a step begin, in words.
fn why(after: &After) -> String {
    match after {
        After::Observed => "the plan was there".to_owned(),
        After::Stage => "the stage before ended".to_owned(),
        After::Lock { name } => format!("`{name}` was free"),
        After::Milestone { name } => format!("`{name}` was reached"),
        _ => "the step before it ended".to_owned(),
    }
}

fn title_of<'a>(timeline: &'a Timeline, id: &'a str, round: u32) -> &'a str {
    timeline
        .lanes
        .iter()
        .flat_map(|l: &LaneLine| &l.steps)
        .find(|s| s.id == id && s.round == round)
        .map_or(id, |s| s.title.as_str())
}

fn failures(out: &mut String, timeline: &Timeline) {
    let Some(summary) = timeline.summary.as_ref().filter(|s| !s.failures.is_empty()) else { return };
    out.push_str("<h2>What failed</h2>");
    for failed in &summary.failures {
        let place = failed.step.as_deref().unwrap_or("before the first step");
        let _ = write!(out, "<p><b class=\"bad\">{}</b>: {}", escape(place), escape(&failed.failure.message));
        for cause in &failed.failure.causes {
            let _ = write!(out, "<pre class=\"dim\">because: {}</pre>", escape(cause));
        }
        if let Some(hint) = &failed.failure.hint {
            let _ = write!(out, "<br>Next: {}", escape(hint));
        }
        out.push_str("</p>");
    }
}

fn table(out: &mut String, timeline: &Timeline, critical: &BTreeSet<(u32, &str)>) {
    out.push_str(
        "<h2>Steps</h2><table><tr><th>Node</th><th>Step</th><th>Risk</th><th>Outcome</th><th class=\"n\">Attempts</th><th class=\"n\">Began</th><th class=\"n\">Took</th></tr>",
    );
    for lane in &timeline.lanes {
        for step in &lane.steps {
            let (word, class) = step.outcome.map_or(("not reached", "dim"), outcome);
            let risk = match step.risk {
                Risk::Safe => "<span class=\"dim\">safe</span>".to_owned(),
                risk => format!("<span class=\"warn\">{}</span>", words::risk(risk)),
            };
            let star = if critical.contains(&(step.round, step.id.as_str())) { " ●" } else { "" };
            let took = match (step.start_ms, step.end_ms) {
                (Some(start), Some(end)) => millis(end - start),
                _ => String::new(),
            };
            let mut why: String = step
                .retries
                .iter()
                .map(|r| {
                    format!(
                        "<br><span class=\"dim\">attempt {}: {}</span>",
                        r.attempt,
                        escape(&r.failure.message)
                    )
                })
                .collect();
            if let Some(failure) = &step.failure {
                let _ = write!(why, "<br><span class=\"bad\">{}</span>", escape(&failure.message));
            }
            let _ = write!(
                out,
                "<tr><td>{}</td><td>{}{star}{why}</td><td>{risk}</td><td class=\"{class}\">{word}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{took}</td></tr>",
                escape(&lane.subject.name),
                escape(&step.title),
                step.attempts,
                step.start_ms.map(millis).unwrap_or_default(),
            );
        }
    }
    out.push_str("</table>\n");
}

fn millis(ms: u64) -> String {
    words::duration(Duration::from_millis(ms))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
