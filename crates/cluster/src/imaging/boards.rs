//! The boards by name, and what a look at them shows.

use std::{collections::BTreeMap, sync::Arc};

use futures::future::join_all;
use turingpi_bmc::{About, BmcClient, PerSlot, Power, Slot, Transfer};
use turingpi_engine::{Failure, FailureClass};

use super::bmc_failure;

/// The boards of a document. Cheap to clone.
#[derive(Clone, Default)]
pub struct Boards {
    clients: Arc<BTreeMap<String, Arc<dyn BmcClient>>>,
}

impl Boards {
    /// From name and client of each.
    pub fn new(clients: impl IntoIterator<Item = (String, Arc<dyn BmcClient>)>) -> Self {
        Self { clients: Arc::new(clients.into_iter().collect()) }
    }

    /// A board's BMC.
    ///
    /// # Errors
    /// `Usage` for a name that is not there.
    pub fn client(&self, board: &str) -> Result<&Arc<dyn BmcClient>, Failure> {
        self.clients.get(board).ok_or_else(|| {
            Failure::new(FailureClass::Usage, format!("there is no board named `{board}`"))
                .hint("Use one of the names under `boards:` in the document.")
        })
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.clients.keys().map(String::as_str)
    }

    /// Looks at every board, all at once. A board that does not answer is its own failure, not everybody's.
    pub async fn observe(&self) -> BTreeMap<String, Result<BoardFacts, Failure>> {
        join_all(self.clients.iter().map(|(name, client)| async move {
            (name.clone(), BoardFacts::observe(name, client.as_ref()).await)
        }))
        .await
        .into_iter()
        .collect()
    }
}

impl std::fmt::Debug for Boards {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.clients.keys()).finish()
    }
}

/// What a look at a board's BMC shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoardFacts {
    /// The firmware and the board.
    pub about: About,
    /// Power as last asked for: no measurement.
    pub power: PerSlot<Power>,
    /// The BMC's one transfer.
    pub transfer: Transfer,
}

impl BoardFacts {
    /// Looks.
    ///
    /// # Errors
    /// What [`bmc_failure`] makes of the BMC's answer.
    pub async fn observe(board: &str, client: &dyn BmcClient) -> Result<Self, Failure> {
        Ok(Self {
            about: client.about().await.map_err(|e| bmc_failure(board, e))?,
            power: client.power().await.map_err(|e| bmc_failure(board, e))?,
            transfer: client.transfer().await.map_err(|e| bmc_failure(board, e))?,
        })
    }

    /// What is known of one slot, together with how its node answers.
    pub fn slot(&self, slot: Slot, reach: Reach) -> SlotFacts {
        SlotFacts { power: self.power[slot], reach }
    }
}

/// What is known of a slot before a plan is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotFacts {
    /// Power as last asked for.
    pub power: Power,
    /// How its node answers at the address of the document.
    pub reach: Reach,
}

/// How a node answers over SSH.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reach {
    /// Our login works.
    LoggedIn,
    /// Something answers and refuses our login: a fresh system, or somebody else's.
    Refused,
    /// Something answers with another host key than the pinned one.
    OtherKey,
    /// Nothing answers.
    Silent,
}

impl Reach {
    /// Whether a failure to connect shows that a system is there all the same, one that is booting or in trouble: it
    /// refused the connection or hung up. Silence shows nothing.
    pub fn shows_life(failure: &Failure) -> bool {
        use std::io::ErrorKind::{HostUnreachable, NetworkUnreachable, NotFound, TimedOut};
        use turingpi_ssh::SshError;
        let mut cause = std::error::Error::source(failure);
        while let Some(error) = cause {
            match error.downcast_ref::<SshError>() {
                Some(SshError::Connect { source, .. }) => {
                    return !matches!(
                        source.kind(),
                        TimedOut | HostUnreachable | NetworkUnreachable | NotFound
                    );
                }
                Some(error) => {
                    return error.is_transient() && !matches!(error, SshError::ConnectTimeout { .. });
                }
                None => cause = error.source(),
            }
        }
        false
    }

    /// From the outcome of connecting.
    pub fn of<T>(outcome: &Result<T, Failure>) -> Self {
        use turingpi_ssh::{SshError, SshErrorKind};
        let Err(failure) = outcome else { return Self::LoggedIn };
        match std::error::Error::source(failure)
            .and_then(|cause| cause.downcast_ref::<SshError>())
            .map(SshError::kind)
        {
            Some(SshErrorKind::HostKey) => Self::OtherKey,
            Some(SshErrorKind::Auth) => Self::Refused,
            _ if failure.class() == FailureClass::Auth => Self::Refused,
            _ => Self::Silent,
        }
    }
}
