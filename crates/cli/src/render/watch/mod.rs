//! The screen of `board watch`: boards with their slots, below them what happened or a console.
//!
//! Nothing is said by colour alone, so that it can be left out.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span, Text},
    widgets::{Block, Clear, Paragraph},
};

use crate::command::board::watch::face::{Face, Over};

mod panel;

/// The smallest terminal that shows something useful.
const LEAST: (u16, u16) = (40, 9);
/// Rows of a board: its frame, four slots, the transfer, fans or trouble.
const PANEL: u16 = 8;
/// The least width of a board beside another.
const BESIDE: u16 = 78;
/// Rows that what happened gets at least, if there is room.
const BELOW: u16 = 4;

/// How something is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tone {
    Plain,
    Quiet,
    Good,
    Busy,
    Bad,
    Strong,
}

fn style(face: &Face, tone: Tone) -> Style {
    let colour = |colour| if face.colour { Style::new().fg(colour) } else { Style::new() };
    match tone {
        Tone::Plain => Style::new(),
        Tone::Quiet => Style::new().add_modifier(Modifier::DIM),
        Tone::Good => colour(Color::Green),
        Tone::Busy => colour(Color::Yellow),
        Tone::Bad => colour(Color::Red).add_modifier(Modifier::BOLD),
        Tone::Strong => Style::new().add_modifier(Modifier::BOLD),
    }
}

/// Draws all of it.
pub(crate) fn draw(frame: &mut Frame<'_>, face: &Face) {
    let area = frame.area();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let text = format!(
            "{}x{} is too small: {}x{} at least. q leaves.",
            area.width, area.height, LEAST.0, LEAST.1
        );
        frame.render_widget(Paragraph::new(text).wrap(ratatui::widgets::Wrap { trim: true }), area);
        return;
    }
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Fill(1), Constraint::Length(1)]).areas(area);
    frame.render_widget(header(face), head);
    frame.render_widget(footer(face), foot);
    let columns = columns(body.width, face.panels.len());
    let rows = rows(face.panels.len(), columns);
    // A console gets all the room that the chosen board leaves.
    let wanted = if face.console { PANEL } else { PANEL * rows };
    let spared = if body.height >= PANEL + BELOW { BELOW } else { 0 };
    let above = wanted.min((body.height - spared) / PANEL * PANEL).max(PANEL.min(body.height));
    let [boards, below] = Layout::vertical([Constraint::Length(above), Constraint::Fill(1)]).areas(body);
    panels(frame, boards, face, columns);
    if below.height >= 3 {
        if face.console { console(frame, below, face) } else { events(frame, below, face) }
    }
    over(frame, area, face);
}

/// The boards alone, for a page that is printed.
pub(crate) fn draw_page(frame: &mut Frame<'_>, face: &Face) {
    let area = frame.area();
    panels(frame, area, face, columns(area.width, face.panels.len()));
}

/// Rows of [`draw_page`].
pub(crate) fn page_height(face: &Face, width: u16) -> u16 {
    PANEL * rows(face.panels.len(), columns(width, face.panels.len()))
}

fn columns(width: u16, boards: usize) -> u16 {
    (width / BESIDE).clamp(1, u16::try_from(boards.max(1)).unwrap_or(1))
}

fn rows(boards: usize, columns: u16) -> u16 {
    u16::try_from(boards).unwrap_or(u16::MAX).div_ceil(columns).max(1)
}

fn header(face: &Face) -> Line<'static> {
    let boards = crate::render::words::count(face.panels.len(), "board");
    let every = face.interval.as_secs_f64();
    Line::from(vec![
        Span::styled(" turingpi board watch", style(face, Tone::Strong)),
        Span::raw(format!("  {boards}, every {every} s")),
    ])
}

fn footer(face: &Face) -> Line<'static> {
    let text = match (&face.over, face.console) {
        (Over::None, false) => {
            " q leave  \u{2191}\u{2193} 1-4 slot  \u{2190}\u{2192} board  Enter console  p power  ? help"
        }
        (Over::None, true) => " Esc back  \u{2191}\u{2193} 1-4 slot  q leave",
        (Over::Menu, _) => " o on  f off  c cycle  r reset  Esc nothing",
        (Over::Confirm(_), _) => " y yes  any other key: no",
        (Over::Help, _) => " any key: back",
    };
    Line::styled(text, style(face, Tone::Quiet))
}

/// Draws as many boards as there is room for, the chosen one among them.
fn panels(frame: &mut Frame<'_>, area: Rect, face: &Face, columns: u16) {
    let visible = (area.height / PANEL).max(1);
    let chosen = u16::try_from(face.board).unwrap_or(0) / columns;
    let first = chosen.saturating_sub(visible - 1);
    let width = area.width / columns;
    for (index, _) in face.panels.iter().enumerate() {
        let index_u16 = u16::try_from(index).unwrap_or(u16::MAX);
        let (row, column) = (index_u16 / columns, index_u16 % columns);
        if row < first || row >= first + visible {
            continue;
        }
        let place = Rect {
            x: area.x + column * width,
            y: area.y + (row - first) * PANEL,
            width: if column + 1 == columns { area.width - column * width } else { width },
            height: PANEL,
        };
        panel::draw(frame, place.intersection(area), face, index);
    }
}

fn events(frame: &mut Frame<'_>, area: Rect, face: &Face) {
    let block = Block::bordered().title(" what happened (UTC) ").border_style(style(face, Tone::Quiet));
    let room = usize::from(area.height.saturating_sub(2));
    let from = face.events.len().saturating_sub(room);
    let lines: Vec<Line<'_>> = face.events.iter().skip(from).map(|event| event_line(face, event)).collect();
    let text = match lines.is_empty() {
        true => Text::styled("nothing yet", style(face, Tone::Quiet)),
        false => Text::from(lines),
    };
    frame.render_widget(Paragraph::new(text).block(block), area);
}

fn event_line<'a>(face: &Face, event: &'a turingpi_provision::board::WatchEvent) -> Line<'a> {
    let (hour, minute, second) = event.at.to_hms();
    let board = face.panels.iter().position(|panel| panel.name == event.board);
    let who = match (event.slot, board) {
        (Some(slot), Some(board)) => face.slot_name(board, slot),
        _ => event.board.clone(),
    };
    let tone = if event.bad { Tone::Bad } else { Tone::Plain };
    let sign = if event.bad { "! " } else { "" };
    Line::from(vec![
        Span::styled(format!("{hour:02}:{minute:02}:{second:02} "), style(face, Tone::Quiet)),
        Span::styled(format!("{who}: "), style(face, Tone::Strong)),
        Span::styled(format!("{sign}{}", event.text), style(face, tone)),
    ])
}

fn console(frame: &mut Frame<'_>, area: Rect, face: &Face) {
    let name = face.slot_name(face.board, face.slot);
    let block = Block::bordered()
        .title(format!(" console of {name} "))
        .title_bottom(format!(" to type: turingpi board console -n {} ", face.slot))
        .border_style(style(face, Tone::Quiet));
    let seen = face.panels.get(face.board).and_then(|panel| panel.seen.as_ref());
    let slot = seen.and_then(|seen| seen.slots.get(usize::from(face.slot.number()) - 1));
    let inner = block.inner(area);
    let lines = match slot {
        None => vec!["nothing is known yet".to_owned()],
        Some(slot) => match (&slot.console_note, slot.console.is_empty()) {
            (Some(note), _) => vec![note.clone()],
            (None, true) => vec!["the BMC holds nothing of it".to_owned()],
            (None, false) => tail(&slot.console, usize::from(inner.width), usize::from(inner.height)),
        },
    };
    let text: Vec<Line<'_>> = lines.into_iter().map(Line::raw).collect();
    frame.render_widget(Paragraph::new(text).block(block), area);
}

/// The last rows of a text, with long lines broken.
fn tail(text: &str, width: usize, height: usize) -> Vec<String> {
    let width = width.max(1);
    let mut rows: Vec<String> = Vec::new();
    for line in text.trim_end_matches('\n').lines().rev() {
        let line = line.replace('\t', "    ");
        let mut parts: Vec<String> = vec![String::new()];
        for c in line.chars() {
            let part = match parts.last_mut() {
                Some(part) if Span::raw(part.as_str()).width() < width => part,
                _ => {
                    parts.push(String::new());
                    match parts.last_mut() {
                        Some(part) => part,
                        None => break,
                    }
                }
            };
            part.push(c);
        }
        rows.extend(parts.into_iter().rev());
        if rows.len() >= height {
            break;
        }
    }
    rows.truncate(height);
    rows.reverse();
    rows
}

fn over(frame: &mut Frame<'_>, area: Rect, face: &Face) {
    let name = face.slot_name(face.board, face.slot);
    let who = face.occupant.clone().unwrap_or_else(|| format!("slot {} ({name})", face.slot));
    let (title, lines) = match &face.over {
        Over::None => return,
        Over::Help => (
            " keys ".to_owned(),
            vec![
                "\u{2191} \u{2193} 1-4   choose a slot".to_owned(),
                "\u{2190} \u{2192} Tab   choose a board".to_owned(),
                "Enter     its console, or what happened".to_owned(),
                "p         switch its power".to_owned(),
                "q Esc ^C  leave".to_owned(),
            ],
        ),
        Over::Menu => (
            format!(" power of {name} "),
            vec![
                "o  power on".to_owned(),
                "f  power off".to_owned(),
                "c  power cycle".to_owned(),
                "r  reset".to_owned(),
            ],
        ),
        Over::Confirm(action) => {
            let what = match action {
                turingpi_provision::board::PowerAction::On => format!("Switch on {who}."),
                turingpi_provision::board::PowerAction::Off => {
                    format!("Cut the power of {who}. The system there is not shut down.")
                }
                _ => format!("{} {who}. The system there is not shut down.", capital(action.words())),
            };
            (format!(" {} ", action.words()), vec![what, String::new(), "Press y to do it.".to_owned()])
        }
    };
    let wide = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0).max(title.chars().count());
    let width = u16::try_from(wide + 4).unwrap_or(u16::MAX).min(area.width.saturating_sub(2)).min(64);
    let rows: Vec<Line<'_>> = lines
        .iter()
        .flat_map(|line| fold(line, usize::from(width.saturating_sub(4))))
        .map(Line::raw)
        .collect();
    let height = u16::try_from(rows.len() + 2).unwrap_or(u16::MAX).min(area.height);
    let place =
        Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    let block = Block::bordered().title(title).padding(ratatui::widgets::Padding::horizontal(1));
    frame.render_widget(Clear, place);
    frame.render_widget(Paragraph::new(rows).block(block), place);
}

/// A text broken at spaces.
fn fold(text: &str, width: usize) -> Vec<String> {
    let mut rows = vec![String::new()];
    for word in text.split(' ') {
        match rows.last_mut() {
            Some(row) if row.is_empty() => row.push_str(word),
            Some(row) if row.chars().count() + 1 + word.chars().count() <= width => {
                row.push(' ');
                row.push_str(word);
            }
            _ => rows.push(word.to_owned()),
        }
    }
    rows
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
