//! The console on a terminal: what the node writes is shown as it comes, and what is typed goes there.

use anstyle::Style;
use turingpi_provision::board::{ConsoleEvent, PlainText};

use super::{
    CANNOT, GAP, Opened,
    args::History,
    ended,
    escape::{Escape, Pressed},
    line::{Line, Outcome},
    notice, print, sleep,
    terminal::{RawMode, Signals, keyboard},
};
use crate::{
    exit::{self, Exit},
    render::{
        out::talk,
        style::{BOLD, DIM, WARN, paint},
        words,
    },
};

/// Lines of the past that are shown where nothing else is asked for.
const SCREENFUL: History = History::Lines(24);

/// Ends what a node may have left on: colours, a hidden cursor, bracketed paste, mouse reports, application keys.
const TIDY: &str = "\x1b[0m\x1b[?25h\x1b[?2004l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?1l\x1b>";
const LEAVE_SCREEN: &str = "\x1b[?1049l";

pub(super) async fn run(mut opened: Opened<'_>) -> Result<u8, Exit> {
    let mut signals = Signals::hear();
    greet(&opened);
    let history = opened.history(SCREENFUL)?;
    // The past is shown without what steers a terminal: a question to it would be answered to the node, as if typed.
    print(&PlainText::of(&history));
    let mut screen = Screen {
        line: Line::behind(&history),
        escape: Escape::new(opened.args.escape),
        other_screen: false,
        warned: false,
    };
    let raw = RawMode::enter()?;
    let result = attached(&mut opened, &mut screen, &mut signals).await;
    print(TIDY);
    if screen.other_screen {
        print(LEAVE_SCREEN);
    }
    drop(raw);
    let name = opened.name();
    opened.console.close().await;
    talk!("\n{}", paint(DIM, format!("[left the console of {name}]")));
    result
}

fn greet(opened: &Opened<'_>) {
    let name = opened.name();
    let leave = match opened.args.escape.name() {
        Some(key) => format!("{key}. after Enter leaves, {key}? helps"),
        None => "no key leaves it: end it from another terminal, with `kill`".to_owned(),
    };
    talk!("{} {name}: {leave}", paint(BOLD, "console of"));
    if !opened.console.sends_keys() {
        talk!("{}", words::wrap(&format!("note: {CANNOT}. What you type is sent with Enter."), 0, 6));
    }
}

struct Screen {
    line: Line,
    escape: Escape,
    /// Whether the node has switched to the terminal's other screen.
    other_screen: bool,
    /// Whether it was told that keys cannot be sent.
    warned: bool,
}

impl Screen {
    /// Shows what the node wrote.
    fn hear(&mut self, text: &str, keys: bool) {
        for (sequence, on) in
            [("\x1b[?1049h", true), ("\x1b[?47h", true), ("\x1b[?1049l", false), ("\x1b[?47l", false)]
        {
            if text.contains(sequence) {
                self.other_screen = on;
            }
        }
        // With whole lines, too, what is typed stands behind what the node wrote.
        let shown = self.line.hear(text, width());
        print(if keys { text } else { &shown });
    }

    /// A line of ours between those of the node.
    fn say(&mut self, style: Style, text: &str) {
        let text = words::wrap(&format!("[{text}]"), 0, 1).replace('\n', "\r\n");
        let colour =
            !matches!(anstream::AutoStream::choice(&std::io::stdout()), anstream::ColorChoice::Never);
        let text = if colour { paint(style, text) } else { text };
        let keys = self.line.hear("\r\n", width());
        print(&format!("{}{text}\r\n", if keys.is_empty() { "\r\n" } else { &keys }));
    }
}

fn width() -> usize {
    crossterm::terminal::size().map_or(80, |(columns, _)| usize::from(columns).max(1))
}

async fn attached(opened: &mut Opened<'_>, screen: &mut Screen, signals: &mut Signals) -> Result<u8, Exit> {
    let mut keys = keyboard();
    let typist = opened.console.typist();
    let limit = sleep(opened.args.timeout);
    tokio::pin!(limit);
    loop {
        tokio::select! {
            event = opened.console.next() => match event {
                Ok(ConsoleEvent::Text(text)) => {
                    if text.gap {
                        screen.say(WARN, GAP);
                    }
                    opened.log.write(&text.text)?;
                    screen.hear(&text.text, opened.console.sends_keys());
                }
                Ok(ConsoleEvent::NotSent(_)) if screen.warned => print("\x07"),
                Ok(event) => {
                    screen.warned |= matches!(event, ConsoleEvent::NotSent(_));
                    if let Some(text) = notice(&event) {
                        screen.say(DIM, &text);
                    }
                }
                Err(failure) => return Err(ended(&opened.name(), failure)),
            },
            typed = keys.recv() => {
                // The terminal is gone.
                let Some(typed) = typed else { return Ok(exit::DONE) };
                for pressed in screen.escape.press(&typed) {
                    match pressed {
                        Pressed::Leave => return Ok(exit::DONE),
                        Pressed::Help => help(opened, screen),
                        Pressed::Keys(bytes) if opened.console.sends_keys() => {
                            if !typist.try_type(bytes) {
                                print("\x07");
                            }
                        }
                        Pressed::Keys(bytes) => {
                            let (shown, outcomes) = screen.line.press(&bytes, width());
                            print(&shown);
                            for outcome in outcomes {
                                match outcome {
                                    Outcome::Send(line) => {
                                        if !typist.try_type(format!("{line}\r").into_bytes()) {
                                            screen.say(WARN, "not sent: the BMC takes nothing now");
                                        }
                                    }
                                    Outcome::Cannot if screen.warned => print("\x07"),
                                    Outcome::Cannot => {
                                        screen.warned = true;
                                        screen.say(DIM, CANNOT);
                                    }
                                }
                            }
                        }
                    }
                }
            }
            () = &mut limit => return Ok(exit::DONE),
            () = signals.next() => return Ok(exit::STOPPED),
        }
    }
}

fn help(opened: &Opened<'_>, screen: &mut Screen) {
    let Some(key) = opened.args.escape.name() else { return };
    let how = match opened.console.sends_keys() {
        true => "every key goes to the node",
        false => "lines are sent with Enter; Backspace, Ctrl-W and Ctrl-U correct them",
    };
    for text in [
        format!("{}: {how}", opened.name()),
        format!("after Enter:  {key}.  leave    {key}?  this help    {key}{key}  send {key}"),
    ] {
        screen.say(DIM, &text);
    }
}
