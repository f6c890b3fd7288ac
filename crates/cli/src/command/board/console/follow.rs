//! The console in a pipe: lines of standard input are sent, and what the node writes is printed.
//!
//! What is printed is cleaned of escape sequences and control characters unless `--raw` is given: nobody sits between the
//! node and the terminal, pager or log that shows it in the end.

use serde_json::json;
use tokio::sync::mpsc;
use turingpi_provision::board::ConsoleEvent;

use super::{
    Cleaner, GAP, Opened, args::History, ended, notice, print, result, sleep, tell, terminal::Signals,
    terminal::keyboard,
};
use crate::{
    exit::{self, Exit},
    render::out::say,
};

pub(super) async fn run(mut opened: Opened<'_>) -> Result<u8, Exit> {
    let mut signals = Signals::hear();
    let json = opened.json;
    let history = opened.history(History::Lines(0))?;
    let mut cleaner = Cleaner::new(opened.args.raw && !json);
    if json && !history.is_empty() {
        say!("{}", json!({ "event": "text", "text": history, "gap": false, "history": true }));
    } else {
        print(&Cleaner::new(false).clean(&history));
    }
    let mut lines = (!opened.args.no_input).then(|| Lines::new(keyboard()));
    let typist = opened.console.typist();
    let limit = sleep(opened.args.timeout);
    tokio::pin!(limit);
    loop {
        tokio::select! {
            event = opened.console.next() => match event {
                Ok(ConsoleEvent::Text(text)) => {
                    opened.log.write(&text.text)?;
                    if json {
                        say!("{}", json!({ "event": "text", "text": text.text, "gap": text.gap, "history": false }));
                        continue;
                    }
                    if text.gap {
                        tell(false, GAP);
                    }
                    print(&cleaner.clean(&text.text));
                }
                Ok(event) => {
                    if let Some(text) = notice(&event) {
                        tell(json, &text);
                    }
                }
                Err(failure) => return Err(ended(&opened.name(), failure)),
            },
            line = next(&mut lines) => match line {
                Some(line) => {
                    // Until there is room; signals end that, too.
                    tokio::select! {
                        _ = typist.type_soon(line) => {}
                        () = signals.next() => break,
                    }
                }
                None => lines = None,
            },
            () = &mut limit => break,
            // The usual end of listening.
            () = signals.next() => break,
        }
    }
    opened.console.close().await;
    if json {
        result(exit::DONE, &[]);
    }
    Ok(exit::DONE)
}

async fn next(lines: &mut Option<Lines>) -> Option<Vec<u8>> {
    match lines {
        Some(lines) => lines.next().await,
        None => std::future::pending().await,
    }
}

/// Standard input, line by line, each with the end that a console wants.
pub(super) struct Lines {
    input: mpsc::Receiver<Vec<u8>>,
    rest: Vec<u8>,
}

impl Lines {
    pub(super) fn new(input: mpsc::Receiver<Vec<u8>>) -> Self {
        Self { input, rest: Vec::new() }
    }

    /// The next line; the last one may lack its end. Nothing is lost if the future is dropped.
    pub(super) async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(with_end(&line));
            }
            match self.input.recv().await {
                Some(bytes) => self.rest.extend(bytes),
                None if self.rest.is_empty() => return None,
                None => return Some(with_end(&std::mem::take(&mut self.rest))),
            }
        }
    }
}

/// CR ends a line on a console.
fn with_end(line: &[u8]) -> Vec<u8> {
    let mut line = line.strip_suffix(b"\n").unwrap_or(line).to_vec();
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    line.push(b'\r');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_end_as_a_console_wants_however_they_arrive() {
        let (input, lines) = mpsc::channel(8);
        for piece in ["ro", "ot\npass\r\nls", "\n\nlast"] {
            input.send(piece.as_bytes().to_vec()).await.unwrap();
        }
        drop(input);
        let mut lines = Lines::new(lines);
        let mut all = Vec::new();
        while let Some(line) = lines.next().await {
            all.push(String::from_utf8(line).unwrap());
        }
        assert_eq!(all, ["root\r", "pass\r", "ls\r", "\r", "last\r"]);
    }
}
