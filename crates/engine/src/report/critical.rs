//! The chain of steps that determined the end of a run, found backwards from its last step.

use std::cmp::Reverse;

use super::{After, LaneLine, PathPart, StepLine, build::Track};
use crate::Gate;

pub(super) fn path(lanes: &[LaneLine], tracks: &[Track]) -> Vec<PathPart> {
    let mut parts: Vec<PathPart> = Vec::new();
    // A step that still runs where the stream ends is what kept the run; of several the one that runs longest.
    let mut next = tracks
        .iter()
        .filter(|t| t.started.is_some())
        .max_by_key(|t| (t.ended.unwrap_or(usize::MAX), Reverse(t.started)));
    // Ends: every step found ended before the one found before it began.
    while let Some(track) = next {
        let Some((lane, line)) = line(lanes, track) else { break };
        let before = predecessor(tracks, track, line);
        let ended_before =
            before.as_ref().and_then(|(t, _)| self::line(lanes, t)).and_then(|(_, l)| l.end_ms);
        let start_ms = line.start_ms.unwrap_or_default();
        parts.push(PathPart {
            subject: lane.subject.clone(),
            step: line.id.clone(),
            round: line.round,
            idle_ms: start_ms.saturating_sub(ended_before.unwrap_or_default()),
            start_ms,
            end_ms: line.end_ms,
            after: before.as_ref().map_or(After::Observed, |(_, after)| after.clone()),
        });
        next = before.map(|(t, _)| t);
    }
    parts.reverse();
    parts
}

fn line<'a>(lanes: &'a [LaneLine], track: &Track) -> Option<(&'a LaneLine, &'a StepLine)> {
    let lane = lanes.get(track.lane)?;
    Some((lane, lane.steps.get(track.step)?))
}

/// The step whose end let `track` begin: of everything it had to wait for, what ended last.
fn predecessor<'a>(tracks: &'a [Track], track: &Track, line: &StepLine) -> Option<(&'a Track, After)> {
    let begun = track.started?;
    let ended = |t: &&Track| t.started.is_some() && t.ended.is_some_and(|end| end < begun);
    let beside = |t: &&Track| t.round == track.round && t.stage == track.stage;
    let earlier = || tracks.iter().filter(ended);

    let lane = earlier().filter(beside).filter(|t| t.lane == track.lane).max_by_key(|t| t.ended);
    let mut found: Vec<(&Track, After)> = lane.map(|t| (t, After::Lane)).into_iter().collect();
    for name in &track.needs {
        // The first that reached it let everybody through.
        let reached =
            earlier().filter(beside).filter(|t| t.reaches.as_ref() == Some(name)).min_by_key(|t| t.ended);
        found.extend(reached.map(|t| (t, After::Milestone { name: name.clone() })));
    }
    // All of its locks, not only those that were busy when the wait began: an earlier lane may have taken another since.
    let queued = line.waits.iter().any(|w| w.gate == Gate::Lock);
    for name in track.locks.iter().filter(|_| queued) {
        let gave_back = earlier().filter(beside).filter(|t| t.locks.contains(name)).max_by_key(|t| t.ended);
        found.extend(gave_back.map(|t| (t, After::Lock { name: name.clone() })));
    }
    // Of two reasons that are the same step, the first one listed: its lane explains a step best.
    let last = found.iter().map(|(t, _)| t.ended).max();
    if let Some(found) = found.into_iter().find(|(t, _)| Some(t.ended) == last) {
        return Some(found);
    }
    let stage = earlier().filter(|t| t.round == track.round && t.stage < track.stage).max_by_key(|t| t.ended);
    if let Some(stage) = stage {
        return Some((stage, After::Stage));
    }
    let round = earlier().filter(|t| t.round < track.round).max_by_key(|t| t.ended);
    round.map(|t| (t, After::Observed))
}
