//! Talking to a node over the BMC when its address does not answer.

use std::sync::Arc;

use tokio::sync::Mutex;
use turingpi_bmc::BmcClient;
use turingpi_engine::{Failure, FailureClass, Probe, StepContext};

use super::{
    Dialogue, Turn,
    job::Job,
    screen::{self, between, last_words},
    spec::nonce,
};
use crate::{
    SlotRef,
    imaging::{ImagingLimits, UartLog, bmc_failure},
};

/// Looks without an answer before Enter is pressed to make the console say something.
const PATIENCE: u32 = 4;
/// Looks that bring new text in a row before the console counts as one that never stands still.
const NOISY: u32 = 4;

/// A root shell on a serial console.
pub(super) struct Console<'a> {
    pub(super) bmc: &'a dyn BmcClient,
    pub(super) place: &'a SlotRef,
    pub(super) log: Arc<UartLog>,
    pub(super) limits: ImagingLimits,
    pub(super) cx: &'a StepContext,
}

impl Console<'_> {
    /// Logs in and becomes root. Returns the dialogue: it knows what it had to change on the way.
    pub(super) async fn open(&self, node: &str, dialogue: Dialogue) -> Result<Dialogue, Failure> {
        struct Talk {
            dialogue: Dialogue,
            silent: u32,
            noisy: u32,
        }
        // What stands there unanswered was read by the boot step already.
        let mut dialogue = dialogue;
        let standing = self.log.screen().await;
        dialogue.feed(standing.trim_end_matches('\n').rsplit('\n').next().unwrap_or_default());
        let talk = Mutex::new(Talk { dialogue, silent: 0, noisy: 0 });
        let condition = format!("a root shell on the serial console of {node}");
        let opened = self
            .cx
            .wait(&condition, self.limits.console, || async {
                let heard = self.log.listen(self.bmc).await.map_err(|e| bmc_failure(&self.place.board, e))?;
                let mut talk = talk.lock().await;
                talk.dialogue.feed(&heard);
                // Only a screen that stands still is answered: half a screen may show a question that is already past.
                // A console that never stands still is answered all the same.
                talk.noisy = if heard.is_empty() { 0 } else { talk.noisy + 1 };
                if (1..NOISY).contains(&talk.noisy) {
                    talk.silent = 0;
                    return Ok(Probe::NotYet(last_words(&screen::plain(&heard))));
                }
                talk.noisy = 0;
                talk.silent += 1;
                match talk.dialogue.turn() {
                    Turn::Shell => Ok(Probe::Ready(())),
                    Turn::Failed(stuck) => Err(Failure::new(
                        FailureClass::Auth,
                        format!("cannot log in on the serial console of {node}"),
                    )
                    .hint("Add the image's login to the document, or log in there by hand.")
                    .source(stuck)),
                    Turn::Send(line) => {
                        talk.silent = 0;
                        self.say(line.text()).await?;
                        Ok(Probe::NotYet("answering the console".to_owned()))
                    }
                    Turn::Wait(seen) => {
                        if talk.silent > PATIENCE {
                            talk.silent = 0;
                            let line = talk.dialogue.nudge();
                            self.say(line.text()).await?;
                        }
                        Ok(Probe::NotYet(seen))
                    }
                }
            })
            .await;
        match opened {
            Ok(()) => Ok(talk.into_inner().dialogue),
            Err(failure) => Err(self.with_tail(failure).await),
        }
    }

    /// Runs a job at the root prompt and returns what it printed, kernel messages and all.
    pub(super) async fn run(&self, node: &str, what: &str, job: &Job) -> Result<String, Failure> {
        let mark = nonce();
        let failed = |text: String| {
            Failure::new(
                FailureClass::Refused,
                format!("cannot {what} on the serial console of {node}: {text}"),
            )
        };
        let lines = job.lines(&mark).map_err(&failed)?;
        let last = lines.len().saturating_sub(1);
        // One text for the whole job: what ends one wait may bring what the next one waits for.
        let heard = Mutex::new(String::new());
        for (number, line) in lines.iter().enumerate().take(last) {
            self.say(line).await?;
            let done = format!("TPA{mark}{number}:");
            self.until(node, what, &heard, |screen| screen.contains(&done).then(String::new)).await?;
        }
        self.say(lines.last().map_or("", String::as_str)).await?;
        if let Some(password) = &job.password {
            use secrecy::ExposeSecret;
            let ask = format!("TPQ{mark}:");
            let end = format!("TPZ{mark}:");
            let asked = self
                .until(node, what, &heard, |screen| {
                    (screen.contains(&ask) || screen.contains(&end))
                        .then(|| screen.contains(&ask).to_string())
                })
                .await?;
            if asked == "true" {
                self.say(password.expose_secret()).await?;
            }
        }
        let end = format!("TPZ{mark}:");
        let whole = self
            .until(node, what, &heard, |screen| {
                between(screen, &end, ":").is_some().then(|| screen.to_owned())
            })
            .await?;
        match between(&whole, &end, ":") {
            Some("0") => Ok(whole),
            status => Err(failed(format!("it ended with status {}", status.unwrap_or("unknown")))
                .source(self.log.tail().await)),
        }
    }

    async fn say(&self, line: &str) -> Result<(), Failure> {
        // The error never holds the line: it may be a password.
        self.bmc.uart_send(self.place.slot, line).await.map_err(|e| bmc_failure(&self.place.board, e))
    }

    async fn until(
        &self,
        node: &str,
        what: &str,
        heard: &Mutex<String>,
        found: impl Fn(&str) -> Option<String> + Send + Sync,
    ) -> Result<String, Failure> {
        let condition = format!("the serial console of {node} to {what}");
        let done = self
            .cx
            .wait(&condition, self.limits.console, || async {
                let new = self.log.listen(self.bmc).await.map_err(|e| bmc_failure(&self.place.board, e))?;
                let mut heard = heard.lock().await;
                heard.push_str(&new);
                let screen = screen::plain(&heard);
                Ok(match found(&screen) {
                    Some(value) => Probe::Ready(value),
                    None => Probe::NotYet(last_words(&screen)),
                })
            })
            .await;
        match done {
            Ok(value) => Ok(value),
            Err(failure) => Err(self.with_tail(failure).await),
        }
    }

    async fn with_tail(&self, failure: Failure) -> Failure {
        if failure.class() != FailureClass::Timeout {
            return failure;
        }
        Failure::new(FailureClass::Timeout, failure.message().to_owned())
            .hint("Read the console's last lines below; if a question stands there, answer it by hand and run this again.")
            .source(self.log.tail().await)
    }
}
