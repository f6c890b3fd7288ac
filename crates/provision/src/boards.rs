//! The BMC clients of a document, with certificates that are pinned once seen.

use std::{
    collections::BTreeMap,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use turingpi_bmc::{BmcClient, BmcTimeouts, Fingerprint, HttpBmcClient, Trust};
use turingpi_cluster::imaging::{Boards, bmc_failure};
use turingpi_engine::{Failure, FailureClass, State, StepContext, Timing};

use crate::{document::Document, environment::Secrets};

/// Certificates that were seen for the first time in this run, by board.
#[derive(Clone, Default)]
pub(crate) struct Newcomers(Arc<Mutex<BTreeMap<String, Fingerprint>>>);

fn key(board: &str) -> String {
    format!("board/{board}/fingerprint")
}

/// A client for each board. Nothing is sent yet.
pub(crate) async fn clients(
    document: &Document,
    secrets: &Secrets,
    state: &State,
    timing: &Timing,
    newcomers: &Newcomers,
) -> Result<Boards, Failure> {
    let mut clients: Vec<(String, Arc<dyn BmcClient>)> = Vec::new();
    for (name, board) in &document.boards {
        let config = |what: String| Failure::new(FailureClass::Config, what);
        let url = board.url().map_err(|e| config(format!("board `{name}`: {e}")))?;
        let known = match &board.fingerprint {
            Some(text) => Some(text.clone()),
            None => state.record::<String>(&key(name))?,
        };
        let trust = match known {
            Some(text) => Trust::Pin(Fingerprint::from_str(&text).map_err(|e| {
                config(format!("the fingerprint of board `{name}` cannot be read")).source(e)
            })?),
            None => {
                let (newcomers, name) = (newcomers.clone(), name.clone());
                Trust::first_use(move |fingerprint| {
                    newcomers.lock().insert(name.clone(), *fingerprint);
                    true
                })
            }
        };
        let password =
            secrets.resolve(&board.credentials.password, &format!("BMC password of {name}")).await?;
        let timeouts = BmcTimeouts {
            connect: Duration::from_secs(document.timeouts.connect_seconds),
            poll: timing.poll / 2,
            ..BmcTimeouts::default()
        };
        let client = HttpBmcClient::builder(url)
            .credentials(board.credentials.username.clone(), password)
            .trust(trust)
            .timeouts(timeouts)
            .build()
            .map_err(|e| bmc_failure(name, e))?;
        clients.push((name.clone(), Arc::new(client)));
    }
    Ok(Boards::new(clients))
}

impl Newcomers {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Fingerprint>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers and reports the certificates that were pinned on first use.
    pub(crate) async fn remember(&self, cx: &StepContext) -> Result<(), Failure> {
        let seen = std::mem::take(&mut *self.lock());
        if seen.is_empty() {
            return Ok(());
        }
        for (board, fingerprint) in &seen {
            cx.note(format!("{board}: the BMC's certificate {fingerprint} is pinned from now on"));
        }
        cx.update_state(|state| {
            seen.iter()
                .try_for_each(|(board, fingerprint)| state.put_record(key(board), &fingerprint.to_string()))
        })
        .await
    }
}
