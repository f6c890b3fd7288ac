//! What a slot's serial line said since the power came on.

use tokio::sync::Mutex;
use turingpi_bmc::{BmcClient, BmcError, Slot, UartMark};

use crate::first_boot::screen;

/// Characters kept: about two hundred lines.
const KEEP: usize = 16 * 1024;
/// Lines shown in a failure.
const TAIL: usize = 20;

/// The serial line of one slot, read from a mark on. Shared by the steps that wait for it.
pub(crate) struct UartLog {
    slot: Slot,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    mark: Option<UartMark>,
    text: String,
}

impl UartLog {
    pub(crate) fn new(slot: Slot) -> Self {
        Self { slot, inner: Mutex::default() }
    }

    /// Forgets what was said and starts listening now.
    pub(crate) async fn restart(&self, bmc: &dyn BmcClient) -> Result<(), BmcError> {
        let mark = bmc.uart_mark(self.slot).await?;
        *self.inner.lock().await = Inner { mark: Some(mark), text: String::new() };
        Ok(())
    }

    /// What was said since the last call.
    pub(crate) async fn listen(&self, bmc: &dyn BmcClient) -> Result<String, BmcError> {
        let mut inner = self.inner.lock().await;
        let mut mark = match inner.mark.take() {
            Some(mark) => mark,
            None => bmc.uart_mark(self.slot).await?,
        };
        let heard = bmc.uart_since(&mut mark).await;
        inner.mark = Some(mark);
        let heard = heard?.text;
        inner.text.push_str(&heard);
        if inner.text.len() > KEEP {
            let from = inner.text.len() - KEEP;
            let from = (from..inner.text.len()).find(|at| inner.text.is_char_boundary(*at)).unwrap_or(0);
            inner.text.drain(..from);
        }
        Ok(heard)
    }

    /// Everything that was said, as a terminal would show it.
    pub(crate) async fn screen(&self) -> String {
        screen::plain(&self.inner.lock().await.text)
    }

    /// The last lines, as the cause of a failure.
    pub(crate) async fn tail(&self) -> ConsoleTail {
        let screen = self.screen().await;
        let lines: Vec<&str> = screen.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        let from = lines.len().saturating_sub(TAIL);
        ConsoleTail(lines.get(from..).unwrap_or_default().join("\n"))
    }
}

/// The last lines of a serial console.
#[derive(Debug, thiserror::Error)]
#[error("{}", if .0.is_empty() { "the serial console said nothing".to_owned() } else { format!("the serial console's last lines:\n{}", .0) })]
pub(crate) struct ConsoleTail(String);

impl ConsoleTail {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
