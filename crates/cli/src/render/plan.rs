//! A plan as a person reads it: by subject, old to new, with the risk in words.
//!
//! Four equal nodes are one paragraph, and what is merely done where nothing was before is a line a phase: what can hurt
//! must not drown in it. Everything is shown on request, and whenever it is short anyway.

use std::{collections::BTreeMap, fmt::Write as _};

use turingpi_provision::engine::{Change, LanePreview, Preview, Risk, StepDescription, Subject, SubjectKind};

use super::{
    style::{BAD, BOLD, DIM, GOOD, WARN, paint},
    words,
};

/// A plan up to this many lines is shown with every value.
const SHORT: usize = 24;

/// How much of a plan is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detail {
    /// What fits: equal nodes together, and safe steps in a line a phase unless the plan is short.
    Fit,
    /// Every step of every node, with every value.
    Everything,
}

impl Detail {
    /// `-v` shows everything.
    pub(crate) fn of(verbose: u8) -> Self {
        if verbose > 0 { Self::Everything } else { Self::Fit }
    }
}

/// The whole plan, with its summary.
pub(crate) fn text(preview: &Preview, detail: Detail) -> String {
    let mut out = match detail {
        Detail::Everything => stages(preview, Shown::Everything),
        Detail::Fit => {
            let values = stages(preview, Shown::Values);
            if values.lines().count() <= SHORT { values } else { stages(preview, Shown::Phases) }
        }
    };
    out.push_str(&summary(preview, detail));
    out
}

/// The stages without a summary, a line a phase.
pub(crate) fn brief(preview: &Preview) -> String {
    stages(preview, Shown::Phases)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    /// Nodes one by one, every value in full.
    Everything,
    /// Equal nodes together, every value.
    Values,
    /// Equal nodes together, safe steps in a line a phase.
    Phases,
}

/// A step of one node, or the same step of several.
struct Line {
    title: String,
    phase: String,
    risk: Risk,
    changes: Vec<String>,
    /// Whether something that is there now is replaced or removed.
    replaces: bool,
}

fn stages(preview: &Preview, shown: Shown) -> String {
    let mut out = String::new();
    for stage in &preview.stages {
        let _ = writeln!(out, "{}", paint(BOLD, &stage.title));
        for lanes in groups(&stage.lanes, shown) {
            let names: Vec<&str> = lanes.iter().map(|l| l.subject.name.as_str()).collect();
            let each = if names.len() > 1 { ", each:" } else { "" };
            let _ = writeln!(out, "  {}{each}", paint(BOLD, names.join(", ")));
            let lines = merged(&lanes, shown);
            if shown == Shown::Phases {
                phases(&mut out, &lines)
            } else {
                lines.iter().for_each(|l| one(&mut out, l, true))
            }
        }
    }
    out
}

/// Lanes that do the same stand together, in the order of the first of them.
fn groups(lanes: &[LanePreview], shown: Shown) -> Vec<Vec<&LanePreview>> {
    let mut groups: Vec<Vec<&LanePreview>> = Vec::new();
    for lane in lanes {
        let like = groups
            .iter_mut()
            .find(|g| shown != Shown::Everything && g.iter().all(|other| alike(other, lane)));
        match like {
            Some(group) => group.push(lane),
            None => groups.push(vec![lane]),
        }
    }
    groups
}

fn alike(a: &LanePreview, b: &LanePreview) -> bool {
    let same = |x: &StepDescription, y: &StepDescription| {
        x.risk == y.risk
            && x.phase == y.phase
            && short_id(&a.subject, x) == short_id(&b.subject, y)
            && words::merge(&[&x.title, &y.title]).is_some()
            && x.changes.iter().map(|c| c.old.is_some()).eq(y.changes.iter().map(|c| c.old.is_some()))
    };
    a.subject.kind == b.subject.kind
        && a.steps.len() == b.steps.len()
        && a.steps.iter().zip(&b.steps).all(|(x, y)| same(x, y))
}

/// The id without the name of the node.
fn short_id<'a>(subject: &Subject, step: &'a StepDescription) -> &'a str {
    step.id.strip_prefix(subject.name.as_str()).unwrap_or(&step.id)
}

fn merged(lanes: &[&LanePreview], shown: Shown) -> Vec<Line> {
    let Some(first) = lanes.first() else { return Vec::new() };
    let merge = |texts: &[&str]| {
        words::merge(texts).unwrap_or_else(|| texts.first().copied().unwrap_or_default().to_owned())
    };
    first
        .steps
        .iter()
        .enumerate()
        .map(|(i, step)| {
            let all: Vec<&StepDescription> = lanes.iter().filter_map(|l| l.steps.get(i)).collect();
            let titles: Vec<&str> = all.iter().map(|s| s.title.as_str()).collect();
            let changes = step
                .changes
                .iter()
                .enumerate()
                .map(|(c, change)| {
                    let texts: Vec<String> =
                        all.iter().filter_map(|s| s.changes.get(c)).map(|c| arrow(c, shown)).collect();
                    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                    words::merge(&texts)
                        .unwrap_or_else(|| format!("{}: differs between the nodes", change.what))
                })
                .collect();
            Line {
                title: merge(&titles),
                phase: step.phase.clone(),
                risk: step.risk,
                changes,
                replaces: step.changes.iter().any(|c| c.old.is_some()),
            }
        })
        .collect()
}

/// Steps that can hurt or replace something stand alone; the rest is a paragraph a phase.
fn phases(out: &mut String, lines: &[Line]) {
    let quiet = |line: &Line| line.risk == Risk::Safe && !line.replaces;
    let mut rest = lines;
    while let Some(line) = rest.first() {
        if !quiet(line) {
            one(out, line, line.risk == Risk::Destructive || line.replaces);
            rest = rest.get(1..).unwrap_or_default();
            continue;
        }
        let run = rest.iter().take_while(|l| quiet(l) && l.phase == line.phase).count();
        let titles: Vec<String> = rest.iter().take(run).map(|l| words::lower_first(&l.title)).collect();
        let text = words::wrap(&format!("{}: {}", line.phase, titles.join(", ")), 6, 8);
        let _ = writeln!(out, "    {} {}", paint(GOOD, "+"), text.trim_start());
        rest = rest.get(run..).unwrap_or_default();
    }
}

fn one(out: &mut String, line: &Line, values: bool) {
    let (sign, style) = match line.risk {
        Risk::Safe => ("+", GOOD),
        Risk::Disruptive => ("~", WARN),
        Risk::Destructive => ("!", BAD),
    };
    let risk = match line.risk {
        Risk::Safe => String::new(),
        risk => format!(" {}", paint(style, format!("[{}]", words::risk(risk)))),
    };
    let title = words::wrap(&line.title, 6, 8);
    let _ = writeln!(out, "    {} {}{risk}", paint(style, sign), title.trim_start());
    for change in line.changes.iter().filter(|_| values) {
        for part in words::wrap(change, 8, 10).lines() {
            let _ = writeln!(out, "{}", paint(DIM, part));
        }
    }
}

fn arrow(change: &Change, shown: Shown) -> String {
    let text = match (&change.old, &change.new) {
        (Some(old), Some(new)) => format!("{}: {old} -> {new}", change.what),
        (None, Some(new)) => format!("{}: {new}", change.what),
        (Some(old), None) => format!("{}: {old} -> removed", change.what),
        (None, None) => change.what.clone(),
    };
    if shown == Shown::Everything { text } else { words::short_digests(&text) }
}

/// One line a risk, and the digest.
fn summary(preview: &Preview, detail: Detail) -> String {
    let mut by_risk: BTreeMap<Risk, usize> = BTreeMap::new();
    for (_, step) in preview.steps() {
        *by_risk.entry(step.risk).or_default() += 1;
    }
    let counts: Vec<String> =
        by_risk.iter().rev().map(|(risk, n)| format!("{n} {}", words::risk(*risk))).collect();
    let total: usize = by_risk.values().sum();
    let mut out = format!("\n{}: {}.", words::count(total, "step"), counts.join(", "));
    out.push_str(if detail == Detail::Fit && total > 8 { " `-v` shows every value.\n" } else { "\n" });
    let lost = destructive(preview);
    if !lost.is_empty() {
        let names: Vec<String> = lost.iter().map(|s| named(s)).collect();
        let text =
            words::wrap(&format!("Data loss: what is on {} now will be lost.", names.join(", ")), 0, 2);
        let _ = writeln!(out, "{}{}", paint(BAD, "Data loss:"), text.trim_start_matches("Data loss:"));
    }
    let _ = writeln!(out, "Digest {}", short_digest(preview));
    out
}

fn named(subject: &Subject) -> String {
    match subject.kind {
        SubjectKind::Cluster => format!("cluster {subject}"),
        _ => subject.to_string(),
    }
}

/// As much of the digest as `--approve` needs.
pub(crate) fn short_digest(preview: &Preview) -> String {
    preview.digest().chars().take(16).collect()
}

/// The subjects that lose data, in the order of the plan.
pub(crate) fn destructive(preview: &Preview) -> Vec<&Subject> {
    let mut subjects = Vec::new();
    for (subject, step) in preview.steps() {
        if step.risk == Risk::Destructive && !subjects.contains(&subject) {
            subjects.push(subject);
        }
    }
    subjects
}

#[cfg(test)]
mod tests {
    use turingpi_provision::engine::StagePreview;

    use super::*;

    fn lane(name: &str, slot: u8, old: Option<&str>) -> LanePreview {
        let change = match old {
            Some(old) => Change::replace("host name", old, name),
            None => Change::set("host name", name),
        };
        let steps = vec![
            StepDescription::new(format!("{name}/flash"), format!("Flash armbian to slot b/{slot}"), "flash")
                .risk(Risk::Destructive)
                .change(Change::set(format!("eMMC of slot b/{slot}"), "a".repeat(64))),
            StepDescription::new(format!("{name}/host-name"), "Set the host name", "prepare").change(change),
            StepDescription::new(format!("{name}/clock"), "Keep the clock in time", "prepare"),
        ];
        LanePreview { subject: Subject::node(name), steps }
    }

    fn plan(lanes: Vec<LanePreview>) -> Preview {
        Preview { stages: vec![StagePreview { title: "Bring up nodes".into(), lanes }] }
    }

    #[test]
    fn equal_nodes_share_a_paragraph_and_safe_steps_a_line() {
        let preview = plan((1..=4).map(|i| lane(&format!("node{i}"), i, None)).collect());
        let text = anstream::adapter::strip_str(&brief(&preview)).to_string();
        assert_eq!(
            text,
            "Bring up nodes\n  node1, node2, node3, node4, each:\n    \
             ! Flash armbian to slot b/1, b/2, b/3, b/4 [destructive]\n        \
             eMMC of slot b/1, b/2, b/3, b/4: aaaaaaaaaaaa…\n    \
             + prepare: set the host name, keep the clock in time\n"
        );
    }

    #[test]
    fn a_value_that_is_replaced_is_always_shown_and_keeps_its_node_apart() {
        let preview = plan(vec![lane("node1", 1, None), lane("node2", 2, Some("turing"))]);
        let text = anstream::adapter::strip_str(&brief(&preview)).to_string();
        assert!(text.contains("\n  node2\n"), "{text}");
        assert!(text.contains("    + Set the host name\n        host name: turing -> node2\n"), "{text}");
    }

    #[test]
    fn everything_shows_each_node_with_whole_values() {
        let preview = plan(vec![lane("node1", 1, None), lane("node2", 2, None)]);
        let text = text(&preview, Detail::Everything);
        assert!(text.contains(&"a".repeat(64)));
        assert_eq!(text.matches("Set the host name").count(), 2);
    }
}
