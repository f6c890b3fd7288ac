//! The pool of SSH connections: one a node, opened when first needed, opened again when it died.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use time::OffsetDateTime;
use tokio::sync::Mutex;
use turingpi_engine::{Failure, FailureClass, Probe, State, StepContext};
use turingpi_ssh::{HostKeyPolicy, SshClient, SshConnector, SshError, SshErrorKind, SshTarget};

use crate::Host;

type Slot = Mutex<Option<Arc<dyn SshClient>>>;

/// How a node is reached, and the connection to it.
struct Entry {
    target: SshTarget,
    only_known: AtomicBool,
    slot: Slot,
}

/// Connections to the nodes of a cluster, by node name. Clones share them.
#[derive(Clone)]
pub struct Hosts {
    inner: Arc<Inner>,
}

struct Inner {
    connector: Arc<dyn SshConnector>,
    nodes: BTreeMap<String, Entry>,
}

impl std::fmt::Debug for Hosts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hosts")
            .field("nodes", &self.inner.nodes.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl Hosts {
    /// A pool for `nodes`. Nothing is connected yet.
    pub fn new(
        connector: Arc<dyn SshConnector>,
        nodes: impl IntoIterator<Item = (String, SshTarget)>,
    ) -> Self {
        let entry = |target| Entry { target, only_known: AtomicBool::default(), slot: Slot::default() };
        let nodes = nodes.into_iter().map(|(name, target)| (name, entry(target))).collect();
        Self { inner: Arc::new(Inner { connector, nodes }) }
    }

    /// The live connection to `node`, opened when there is none.
    ///
    /// Callers of one node wait for each other, nodes do not.
    ///
    /// # Errors
    /// `Usage` for a node that is not in the pool; otherwise what [`ssh_failure`] makes of the error.
    pub async fn client(&self, node: &str) -> Result<Arc<dyn SshClient>, Failure> {
        let entry = self.inner.nodes.get(node).ok_or_else(|| unknown(node))?;
        let mut slot = entry.slot.lock().await;
        if let Some(client) = slot.as_ref().filter(|c| c.is_alive()) {
            return Ok(Arc::clone(client));
        }
        *slot = None;
        let mut target = entry.target.clone();
        if entry.only_known.load(Ordering::Relaxed) && matches!(target.host_key, HostKeyPolicy::AcceptNew) {
            target.host_key = HostKeyPolicy::Strict;
        }
        let client = self
            .inner
            .connector
            .connect(&target)
            .await
            .map_err(|e| ssh_failure(node, "connect over SSH", e))?;
        *slot = Some(Arc::clone(&client));
        Ok(client)
    }

    /// As [`Hosts::client`], and waits up to `patience` for a node that is only coming up, where the look may wait
    /// ([`StepContext::is_patient`]). What does not pass by itself (a refused login, another host key) ends it at once.
    ///
    /// # Errors
    /// As [`Hosts::client`]; after a wait `Unreachable`, final, with what was seen last as its source.
    pub async fn answer(
        &self,
        node: &str,
        patience: Duration,
        cx: &StepContext,
    ) -> Result<Arc<dyn SshClient>, Failure> {
        let refusals =
            if patience == REBOOT_PATIENCE { Refusals::of_a_reboot() } else { Refusals::default() };
        let passes = |failure: &Failure| failure.is_retryable() || refusals.borne(failure);
        let first = match self.client(node).await {
            Err(failure) if cx.is_patient() && !patience.is_zero() && passes(&failure) => failure,
            end => return end,
        };
        let last = std::sync::Mutex::new(first);
        let condition = format!("{node} to answer over SSH");
        let waited = cx
            .wait(&condition, patience, || async {
                match self.client(node).await {
                    Err(failure) if passes(&failure) => {
                        let report = failure.report();
                        *last.lock().unwrap_or_else(PoisonError::into_inner) = failure;
                        Ok(Probe::NotYet(report.causes.last().cloned().unwrap_or(report.message)))
                    }
                    end => Ok(Probe::Ready(end)),
                }
            })
            .await;
        match waited {
            Ok(end) => end,
            Err(failure) if failure.class() == FailureClass::Timeout => {
                let last = last.into_inner().unwrap_or_else(PoisonError::into_inner);
                let limit = cx.timing().limit(patience);
                let text = format!("{node} did not answer over SSH within {limit:?}");
                let failure = Failure::new(FailureClass::Unreachable, text);
                Err(match last.hint_text().map(str::to_owned) {
                    Some(hint) => failure.hint(hint),
                    None => failure,
                }
                .source(last))
            }
            Err(failure) => Err(failure),
        }
    }

    /// Drops the connection to `node`: after a flash or a reboot it leads nowhere.
    pub async fn forget(&self, node: &str) {
        if let Some(entry) = self.inner.nodes.get(node) {
            *entry.slot.lock().await = None;
        }
    }

    /// Whether a host key that nobody knows is refused on `node` from now on, where it would be kept otherwise.
    ///
    /// A freshly flashed system changes its keys during its first boot: until that is over, none of them may be kept.
    pub fn only_known(&self, node: &str, only: bool) {
        if let Some(entry) = self.inner.nodes.get(node) {
            entry.only_known.store(only, Ordering::Relaxed);
        }
    }

    /// The typed operations on `node`.
    ///
    /// # Errors
    /// As [`Hosts::client`].
    pub async fn host(&self, node: &str) -> Result<Host, Failure> {
        Ok(Host::new(node, self.client(node).await?))
    }

    /// How `node` is reached.
    pub fn target(&self, node: &str) -> Option<&SshTarget> {
        self.inner.nodes.get(node).map(|entry| &entry.target)
    }

    /// The names of all nodes, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.inner.nodes.keys().map(String::as_str)
    }

    /// Ends every connection.
    pub async fn close(&self) {
        for entry in self.inner.nodes.values() {
            let client = entry.slot.lock().await.take();
            if let Some(client) = client {
                client.close().await;
            }
        }
    }
}

/// How long a node that does not answer may take when nobody knows that it is coming up.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long one may take that we rebooted ourselves.
const REBOOT_PATIENCE: Duration = Duration::from_secs(600);
/// How long it counts that we rebooted a node.
const REBOOT_COUNTS: time::Duration = time::Duration::minutes(15);

/// The key under which the state keeps when we began to reboot a node, until it is back.
pub fn rebooting_key(node: &str) -> String {
    format!("rebooting/{node}")
}

/// Whether a run of ours rebooted the node a short while ago and did not see it come back.
///
/// # Errors
/// `Config` when the record has another shape.
pub fn is_rebooting(state: &State, node: &str) -> Result<bool, Failure> {
    let began: Option<i64> = state.record(&rebooting_key(node))?;
    let began = began.and_then(|began| OffsetDateTime::from_unix_timestamp(began).ok());
    Ok(began.is_some_and(|began| OffsetDateTime::now_utc() - began < REBOOT_COUNTS))
}

/// How long to wait for a node that does not answer: ten minutes after a reboot of ours, a minute otherwise.
///
/// # Errors
/// As [`is_rebooting`].
pub fn patience(state: &State, node: &str) -> Result<Duration, Failure> {
    Ok(if is_rebooting(state, node)? { REBOOT_PATIENCE } else { PATIENCE })
}

/// Refused logins that are borne: a host that goes down or comes up lets nobody in but root, and refuses the right password.
/// It was right before; repeating it for long could still get us banned.
#[derive(Default)]
pub(crate) struct Refusals {
    left: AtomicU32,
}

impl Refusals {
    /// Of a host that reboots because we asked for it.
    pub(crate) fn of_a_reboot() -> Self {
        Self { left: AtomicU32::new(4) }
    }

    /// Whether this failure is such a refusal, and one more may be borne. Another host key never is.
    pub(crate) fn borne(&self, failure: &Failure) -> bool {
        let cause = std::error::Error::source(failure).and_then(|cause| cause.downcast_ref::<SshError>());
        cause.is_some_and(|error| matches!(error, SshError::Auth { .. }))
            && self
                .left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                .is_ok()
    }
}

fn unknown(node: &str) -> Failure {
    Failure::new(FailureClass::Usage, format!("there is no node named `{node}`"))
        .hint("Use one of the names under `nodes:` in the document.")
}

/// Turns an SSH error into a [`Failure`]: class by kind, retryable when the error is transient, hint kept.
///
/// `what` completes "cannot … on `node`": `read /etc/hosts`.
pub fn ssh_failure(node: &str, what: &str, error: SshError) -> Failure {
    let class = match error.kind() {
        SshErrorKind::Unreachable => FailureClass::Unreachable,
        SshErrorKind::Auth | SshErrorKind::HostKey => FailureClass::Auth,
        SshErrorKind::Refused => FailureClass::Refused,
        SshErrorKind::Timeout => FailureClass::Timeout,
        _ => FailureClass::Unexpected,
    };
    let mut failure = Failure::new(class, format!("cannot {what} on {node}"));
    match error.hint() {
        Some(hint) => failure = failure.hint(hint),
        None if class == FailureClass::Refused => {
            failure = failure
                .hint(format!("The node's own words say why; mend it on {node}, then run this again."));
        }
        None => {}
    }
    if error.is_transient() {
        failure = failure.retryable();
    }
    failure.source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_refused_logins_of_a_host_that_reboots_are_borne_and_another_host_key_is_not() {
        let refused = || {
            let (user, host) = ("admin".to_owned(), "node1".to_owned());
            ssh_failure(
                "node1",
                "connect",
                SshError::Auth { user, host, tried: Vec::new(), remaining: Vec::new() },
            )
        };
        let refusals = Refusals::of_a_reboot();
        assert_eq!((0..9).filter(|_| refusals.borne(&refused())).count(), 4);
        assert!(!Refusals::default().borne(&refused()));
        let key =
            SshError::HostKeyTypeGone { host: "node1".to_owned(), known: Vec::new(), offered: Vec::new() };
        assert!(!Refusals::of_a_reboot().borne(&ssh_failure("node1", "connect", key)));
    }

    #[test]
    fn a_node_that_we_rebooted_is_waited_for_longer_for_a_quarter_of_an_hour() {
        let mut state = State::default();
        assert_eq!(patience(&state, "node1").unwrap(), PATIENCE);
        let now = OffsetDateTime::now_utc().unix_timestamp();
        state.put_record(rebooting_key("node1"), &(now - 60)).unwrap();
        assert_eq!(patience(&state, "node1").unwrap(), REBOOT_PATIENCE);
        assert_eq!(patience(&state, "node2").unwrap(), PATIENCE);
        state.put_record(rebooting_key("node1"), &(now - 3600)).unwrap();
        assert_eq!(patience(&state, "node1").unwrap(), PATIENCE);
    }
}
