//! One board: its slots, its transfer, its fans, and what is wrong.

use std::time::Duration;

use ratatui::{
    Frame,
    layout::Rect,
    style::Modifier,
    text::{Line, Span},
    widgets::{Block, Paragraph},
};
use time::OffsetDateTime;
use turingpi_provision::{
    bmc::{Power, Slot},
    board::{BoardSnapshot, BootStage, BootState, SlotSnapshot, TransferSnapshot, Wanted},
};

use super::{Tone, style};
use crate::{
    command::board::watch::face::{Face, Panel},
    render::words::{bytes, clip},
};

/// An answer that takes longer is worth a word.
const SLOW: Duration = Duration::from_secs(3);

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, face: &Face, index: usize) {
    let Some(panel) = face.panels.get(index) else { return };
    let chosen = index == face.board;
    let block = Block::bordered()
        .title(Span::styled(
            title(panel, area.width),
            style(face, if chosen { Tone::Strong } else { Tone::Plain }),
        ))
        .border_style(style(face, if chosen { Tone::Plain } else { Tone::Quiet }));
    let width = usize::from(area.width.saturating_sub(2));
    let mut lines: Vec<Line<'_>> = Slot::ALL
        .into_iter()
        .map(|slot| {
            let line = slot_line(face, panel, slot, width);
            match chosen && slot == face.slot {
                true => line.patch_style(Modifier::REVERSED),
                false => line,
            }
        })
        .collect();
    lines.push(transfer_line(face, panel, width));
    lines.push(last_line(face, panel, width));
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn title(panel: &Panel, width: u16) -> String {
    let Some(seen) = &panel.seen else { return format!(" {} ", panel.name) };
    let host = seen.url.trim_start_matches("https://").trim_end_matches('/');
    let mut parts = vec![panel.name.as_str()];
    if host != panel.name {
        parts.push(host);
    }
    parts.extend(seen.firmware.as_deref());
    parts.extend(seen.model.as_deref());
    format!(" {} ", clip(&parts.join("  "), usize::from(width.saturating_sub(4))))
}

/// `>1 node1          on  login         3 min   10.10.88.73      armbian`
fn slot_line<'a>(face: &Face, panel: &Panel, slot: Slot, width: usize) -> Line<'a> {
    let position = usize::from(slot.number()) - 1;
    let wanted = panel.wanted.get(position).and_then(Option::as_ref);
    let seen = panel.seen.as_ref().and_then(|seen| seen.slots.get(position));
    let name = wanted.map_or("-", |wanted| &wanted.node);
    let chosen = panel.seen.is_some() || wanted.is_some();
    let mark = if face.panels.get(face.board).is_some_and(|p| p.name == panel.name) && face.slot == slot {
        ">"
    } else {
        " "
    };
    let power = match seen.and_then(|seen| seen.power) {
        Some(Power::On) => "on",
        Some(Power::Off) => "off",
        _ if chosen => "?",
        _ => "",
    };
    let state = seen.map_or(BootState::Unknown, |seen| seen.state);
    let since = seen.map(|seen| time_in(face.now, seen)).unwrap_or_default();
    let (address, wants) = (address(wanted, seen), wants(wanted));
    let mut spans = vec![
        Span::raw(format!("{mark}{slot} ")),
        Span::styled(format!("{:<14} ", clip(name, 14)), style(face, Tone::Strong)),
        Span::raw(format!("{power:<3} ")),
        Span::styled(format!("{:<12} ", state.words()), style(face, tone(state))),
    ];
    for (text, cells) in [(since, 10), (address, 17), (wants, 99)] {
        let used: usize = spans.iter().map(Span::width).sum();
        let room = width.saturating_sub(used);
        // Half an address is worse than none.
        if room >= cells || cells == 99 {
            let cells = cells.min(room);
            spans.push(Span::raw(format!("{:<cells$}", clip(&text, cells))));
        }
    }
    let used: usize = spans.iter().map(Span::width).sum();
    spans.push(Span::raw(" ".repeat(width.saturating_sub(used))));
    Line::from(spans)
}

fn tone(state: BootState) -> Tone {
    match state {
        BootState::Boot(BootStage::Login | BootStage::Shell) => Tone::Good,
        BootState::Boot(BootStage::Panic | BootStage::Rescue) => Tone::Bad,
        BootState::Boot(_) | BootState::PoweringOn | BootState::Flashing => Tone::Busy,
        BootState::Off | BootState::Unknown => Tone::Quiet,
        _ => Tone::Plain,
    }
}

/// For how long it has been so; for a system that waits for a login, since its last word.
fn time_in(now: OffsetDateTime, seen: &SlotSnapshot) -> String {
    let idle = matches!(seen.state, BootState::Boot(BootStage::Login | BootStage::Shell) | BootState::On);
    match (idle, seen.heard, seen.since) {
        (true, Some(heard), _) => format!("idle {}", short(now - heard)),
        (_, _, Some(since)) => short(now - since),
        _ => String::new(),
    }
}

/// `12 s`, `5 min`, `3 h`, `2 d`.
fn short(time: time::Duration) -> String {
    let seconds = time.whole_seconds().max(0);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// What the console shows; else what the document says, in brackets: nobody has seen it.
fn address(wanted: Option<&Wanted>, seen: Option<&SlotSnapshot>) -> String {
    match (seen.and_then(|seen| seen.address), wanted) {
        (Some(address), _) => address.to_string(),
        (None, Some(wanted)) => format!("({})", wanted.address),
        (None, None) => String::new(),
    }
}

fn wants(wanted: Option<&Wanted>) -> String {
    let Some(wanted) = wanted else { return String::new() };
    match &wanted.image {
        Some(image) => format!("{}, {image}", wanted.role),
        None => wanted.role.to_string(),
    }
}

fn transfer_line<'a>(face: &Face, panel: &Panel, width: usize) -> Line<'a> {
    match panel.seen.as_ref().and_then(|seen| seen.transfer.as_ref()) {
        Some(transfer) => {
            Line::styled(clip(&transfer_words(transfer, width), width), style(face, Tone::Busy))
        }
        None => Line::styled("  no transfer", style(face, Tone::Quiet)),
    }
}

fn transfer_words(transfer: &TransferSnapshot, width: usize) -> String {
    let verb = match (transfer.cancelled, transfer.checking, transfer.bytes) {
        (true, _, _) => "cancelled",
        (_, true, _) => "checking",
        (_, _, 0) => "starting",
        _ => "writing",
    };
    let name = match transfer.slot {
        Some(slot) => format!("slot {slot}"),
        None => transfer.process.clone(),
    };
    let size = transfer.size.filter(|size| *size >= transfer.bytes && *size > 0);
    let mut text = format!("  {verb} {name}: ");
    match size {
        Some(size) => {
            let percent = u128::from(transfer.bytes) * 100 / u128::from(size);
            text.push_str(&format!("{percent}% of {}", bytes(size)));
        }
        None => text.push_str(&bytes(transfer.bytes)),
    }
    if let Some(rate) = transfer.bytes_per_second {
        text.push_str(&format!("  {}/s", bytes(rate)));
    }
    if let Some(left) = transfer.seconds_left {
        let left = i64::try_from(left).unwrap_or(i64::MAX);
        text.push_str(&format!("  {} left", short(time::Duration::seconds(left))));
    }
    let room = width.saturating_sub(text.chars().count() + 4).min(30);
    if let (Some(size), 10..) = (size, room) {
        let done =
            usize::try_from(u128::from(transfer.bytes) * room as u128 / u128::from(size)).unwrap_or(room);
        text.push_str(&format!("  [{}{}]", "#".repeat(done), ".".repeat(room.saturating_sub(done))));
    }
    text
}

/// What is wrong; else fans and temperatures.
fn last_line<'a>(face: &Face, panel: &Panel, width: usize) -> Line<'a> {
    let (text, tone) = match trouble(face, panel) {
        Some(text) => (format!("! {text}"), Tone::Bad),
        None => (format!("  {}", panel.seen.as_ref().map(sensors).unwrap_or_default()), Tone::Quiet),
    };
    Line::styled(clip(&text, width), style(face, tone))
}

fn trouble(face: &Face, panel: &Panel) -> Option<String> {
    let asking = panel.asking.map(|since| face.now - since).filter(|asking| *asking >= SLOW);
    let trouble = panel.seen.as_ref().and_then(|seen| seen.trouble.as_ref());
    let next = || match panel.next {
        Some(next) => format!("; again in {}", short((next - face.now).max(time::Duration::ZERO))),
        None => String::new(),
    };
    match (trouble, asking) {
        (Some(trouble), _) if trouble.blocked_until.is_some() => {
            let left = trouble.blocked_until.map_or(time::Duration::ZERO, |until| until - face.now);
            Some(format!(
                "blocked for {} s more after failed logins; left alone until then",
                left.whole_seconds().max(0)
            ))
        }
        (Some(_), Some(asking)) | (None, Some(asking)) => {
            Some(format!("no answer for {}: a BMC serves nobody while an image is uploaded", short(asking)))
        }
        (Some(trouble), None) => {
            let why = trouble.failure.causes.first().unwrap_or(&trouble.failure.message);
            match panel.seen.as_ref().and_then(|seen| seen.next_look_seconds) {
                Some(_) => Some(format!("{}{}", short_cause(why), next())),
                None => Some(format!("{}; not asked again", short_cause(why))),
            }
        }
        (None, None) => panel.closed.as_ref().map(|why| format!("{}{}", short_cause(why), next())),
    }
}

/// Without what stands in the title anyway.
fn short_cause(why: &str) -> String {
    let text = why.lines().next().unwrap_or_default();
    match (text.find(" (BMC "), text.find("): ")) {
        (Some(from), Some(to)) if from < to => {
            format!("{}{}", text.get(..from).unwrap_or_default(), text.get(to + 1..).unwrap_or_default())
        }
        _ => text.to_owned(),
    }
}

fn sensors(seen: &BoardSnapshot) -> String {
    let fans = seen.fans.iter().map(|fan| format!("{} {}/{}", fan.device, fan.speed, fan.max_speed));
    let temperatures = seen
        .temperatures
        .iter()
        .filter_map(|sensor| sensor.celsius.map(|celsius| format!("{} {celsius:.0} °C", sensor.sensor)));
    fans.chain(temperatures).collect::<Vec<_>>().join("   ")
}
