//! What `board watch` knows and what its keys do. Pure: nothing here touches a terminal or a board.

use std::collections::VecDeque;

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use time::OffsetDateTime;
use turingpi_provision::{
    bmc::Slot,
    board::{BoardSnapshot, PowerAction, Wanted, WatchEvent},
};

/// Events that are kept.
const KEPT: usize = 200;

/// One board, as far as it is known.
pub(crate) struct Panel {
    pub(crate) name: String,
    /// What the document says, slot by slot.
    pub(crate) wanted: [Option<Wanted>; 4],
    /// The last look.
    pub(crate) seen: Option<BoardSnapshot>,
    /// Since when a look is under way.
    pub(crate) asking: Option<OffsetDateTime>,
    /// When the next look begins, as far as that is known.
    pub(crate) next: Option<OffsetDateTime>,
    /// Why there has been no look yet.
    pub(crate) closed: Option<String>,
}

/// What lies over the boards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Over {
    /// Nothing.
    None,
    /// What can be done to a slot's power.
    Menu,
    /// Whether that is really meant.
    Confirm(PowerAction),
    /// The keys.
    Help,
}

/// What a key asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Leave.
    Leave,
    /// Find out who sits in the chosen slot.
    Occupant { board: usize, slot: Slot },
    /// Switch power.
    Power { board: usize, slot: Slot, action: PowerAction },
}

/// All of it.
pub(crate) struct Face {
    pub(crate) panels: Vec<Panel>,
    /// The chosen board and slot.
    pub(crate) board: usize,
    pub(crate) slot: Slot,
    pub(crate) events: VecDeque<WatchEvent>,
    /// Whether the chosen slot's console is shown instead of the events.
    pub(crate) console: bool,
    pub(crate) over: Over,
    /// Who sits in the chosen slot, for the question before power is cut.
    pub(crate) occupant: Option<String>,
    pub(crate) now: OffsetDateTime,
    pub(crate) interval: std::time::Duration,
    /// Whether colours are wanted.
    pub(crate) colour: bool,
}

impl Face {
    pub(crate) fn new(panels: Vec<Panel>, interval: std::time::Duration, colour: bool) -> Self {
        Self {
            panels,
            board: 0,
            slot: Slot::ALL[0],
            events: VecDeque::new(),
            console: false,
            over: Over::None,
            occupant: None,
            now: OffsetDateTime::now_utc(),
            interval,
            colour,
        }
    }

    /// Takes a look's result.
    pub(crate) fn looked(&mut self, board: usize, seen: BoardSnapshot) {
        for event in &seen.events {
            self.tell(event.clone());
        }
        if let Some(panel) = self.panels.get_mut(board) {
            panel.asking = None;
            panel.closed = None;
            panel.next =
                seen.next_look_seconds.map(|seconds| seen.at + std::time::Duration::from_secs(seconds));
            panel.seen = Some(seen);
        }
    }

    pub(crate) fn tell(&mut self, event: WatchEvent) {
        if self.events.len() >= KEPT {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// How a slot is called.
    pub(crate) fn slot_name(&self, board: usize, slot: Slot) -> String {
        let Some(panel) = self.panels.get(board) else { return String::new() };
        let wanted = panel.wanted.get(usize::from(slot.number()) - 1).and_then(Option::as_ref);
        match wanted {
            Some(wanted) => wanted.node.clone(),
            None => format!("{}/{slot}", panel.name),
        }
    }

    /// What a key does.
    pub(crate) fn key(&mut self, key: KeyEvent) -> Option<Wish> {
        if key.kind == KeyEventKind::Release {
            return None;
        }
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            return Some(Wish::Leave);
        }
        match self.over.clone() {
            Over::None => self.plain_key(key.code),
            Over::Help => {
                self.over = Over::None;
                None
            }
            Over::Menu => {
                let action = match key.code {
                    KeyCode::Char('o') => PowerAction::On,
                    KeyCode::Char('f') => PowerAction::Off,
                    KeyCode::Char('c') => PowerAction::Cycle,
                    KeyCode::Char('r') => PowerAction::Reset,
                    _ => {
                        self.over = Over::None;
                        return None;
                    }
                };
                self.over = Over::Confirm(action);
                None
            }
            Over::Confirm(action) => {
                self.over = Over::None;
                // Everything but a clear yes is a no.
                (key.code == KeyCode::Char('y')).then_some(Wish::Power {
                    board: self.board,
                    slot: self.slot,
                    action,
                })
            }
        }
    }

    fn plain_key(&mut self, key: KeyCode) -> Option<Wish> {
        match key {
            KeyCode::Char('q') => return Some(Wish::Leave),
            KeyCode::Esc if self.console => self.console = false,
            KeyCode::Esc => return Some(Wish::Leave),
            KeyCode::Up => self.step(-1),
            KeyCode::Down => self.step(1),
            KeyCode::Left | KeyCode::BackTab => self.turn(-1),
            KeyCode::Right | KeyCode::Tab => self.turn(1),
            KeyCode::Char(digit @ '1'..='4') => {
                self.slot = digit.to_string().parse().unwrap_or(self.slot);
            }
            KeyCode::Enter => self.console = !self.console,
            KeyCode::Char('?' | 'h') => self.over = Over::Help,
            KeyCode::Char('p') => {
                self.over = Over::Menu;
                self.occupant = None;
                return Some(Wish::Occupant { board: self.board, slot: self.slot });
            }
            _ => {}
        }
        None
    }

    /// To the slot above or below, over the edges of boards.
    fn step(&mut self, by: isize) {
        let all = self.panels.len().max(1) * 4;
        let at = self.board * 4 + usize::from(self.slot.number()) - 1;
        let to = at.saturating_add_signed(by).min(all - 1);
        self.board = to / 4;
        self.slot = Slot::ALL.get(to % 4).copied().unwrap_or(self.slot);
    }

    /// To the board beside.
    fn turn(&mut self, by: isize) {
        self.board = self.board.saturating_add_signed(by).min(self.panels.len().saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn face(boards: usize) -> Face {
        let panel = |n| Panel {
            name: format!("board{n}"),
            wanted: [None, None, None, None],
            seen: None,
            asking: None,
            next: None,
            closed: None,
        };
        Face::new((1..=boards).map(panel).collect(), std::time::Duration::from_secs(2), false)
    }
    fn press(face: &mut Face, code: KeyCode) -> Option<Wish> {
        face.key(KeyEvent::new(code, KeyModifiers::NONE))
    }
    fn chosen(face: &Face) -> (usize, u8) {
        (face.board, face.slot.number())
    }

    #[test]
    fn arrows_and_digits_choose_a_slot_and_stop_at_the_edges() {
        let mut face = face(2);
        press(&mut face, KeyCode::Up);
        assert_eq!(chosen(&face), (0, 1));
        (0..5).for_each(|_| _ = press(&mut face, KeyCode::Down));
        assert_eq!(chosen(&face), (1, 2));
        press(&mut face, KeyCode::Char('4'));
        press(&mut face, KeyCode::Down);
        assert_eq!(chosen(&face), (1, 4));
        press(&mut face, KeyCode::Left);
        press(&mut face, KeyCode::Left);
        assert_eq!(chosen(&face), (0, 4));
    }

    #[test]
    fn power_is_switched_after_a_clear_yes_only() {
        let mut face = face(1);
        press(&mut face, KeyCode::Char('3'));
        let slot = Slot::ALL[2];
        assert_eq!(press(&mut face, KeyCode::Char('p')), Some(Wish::Occupant { board: 0, slot }));
        assert_eq!(press(&mut face, KeyCode::Char('f')), None);
        assert_eq!(face.over, Over::Confirm(PowerAction::Off));
        assert_eq!(press(&mut face, KeyCode::Enter), None, "Enter is no yes");
        assert_eq!(face.over, Over::None);
        press(&mut face, KeyCode::Char('p'));
        press(&mut face, KeyCode::Char('c'));
        let wish = Wish::Power { board: 0, slot, action: PowerAction::Cycle };
        assert_eq!(press(&mut face, KeyCode::Char('y')), Some(wish));
        press(&mut face, KeyCode::Char('p'));
        press(&mut face, KeyCode::Char('x'));
        assert_eq!(face.over, Over::None);
        assert_eq!(press(&mut face, KeyCode::Char('y')), None);
    }

    #[test]
    fn the_console_opens_and_closes_and_there_are_three_ways_out() {
        let mut face = face(1);
        press(&mut face, KeyCode::Enter);
        assert!(face.console);
        assert_eq!(press(&mut face, KeyCode::Esc), None);
        assert!(!face.console);
        assert_eq!(press(&mut face, KeyCode::Esc), Some(Wish::Leave));
        assert_eq!(press(&mut face, KeyCode::Char('q')), Some(Wish::Leave));
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        face.over = Over::Confirm(PowerAction::Cycle);
        assert_eq!(face.key(interrupt), Some(Wish::Leave), "Ctrl-C leaves from everywhere");
    }
}
