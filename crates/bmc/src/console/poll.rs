//! Looks at the BMC's buffer again and again: often while something happens, rarely while nothing does.

use tokio::time::sleep;

use super::{Ends, keys::Line};
use crate::{BmcError, Capability, HttpBmcClient, UartMark};

/// Silence makes the looks this much rarer at most.
const RARE: u32 = 4;

pub(super) async fn run(client: &HttpBmcClient, mut mark: UartMark, mut ends: Ends) {
    let timeouts = client.session().timeouts();
    let (often, rarely) = (timeouts.console_poll, timeouts.console_poll * RARE);
    let (mut wait, mut failures) = (often, 0);
    let mut line = Line::default();
    loop {
        tokio::select! {
            biased;
            typed = ends.typed.recv() => {
                let Some(typed) = typed else { return };
                let result = press(client, &ends, &mut line, &typed.bytes).await;
                // Whoever typed may have gone.
                let _ = typed.done.send(result);
                wait = often;
            }
            // The BMC keeps what nobody reads here yet.
            () = sleep(wait), if ends.heard.capacity() > 0 => match client.read_uart(&mut mark).await {
                Ok(text) => {
                    failures = 0;
                    if text.text.is_empty() && !text.gap {
                        wait = (wait * 2).min(rarely);
                    } else if ends.heard.send(Ok(text)).await.is_err() {
                        return;
                    } else {
                        wait = often;
                    }
                }
                Err(error) if error.is_transient() && failures < timeouts.poll_failures => {
                    failures += 1;
                    wait = rarely;
                    tracing::debug!(bmc = %client.session().name(), %error, failures, "no look at the console");
                }
                Err(error) => {
                    let _ = ends.heard.send(Err(error)).await;
                    return;
                }
            },
        }
    }
}

async fn press(client: &HttpBmcClient, ends: &Ends, line: &mut Line, bytes: &[u8]) -> Result<(), BmcError> {
    let Some(lines) = line.press(bytes) else {
        let firmware = client.firmware().await?.firmware_name();
        let attempt = client.session().attempt(format!("send that key to the console of slot {}", ends.slot));
        return Err(BmcError::Unsupported { attempt, capability: Capability::SerialKeys, firmware });
    };
    for line in lines {
        client.type_uart(ends.slot, &line).await?;
    }
    Ok(())
}
