//! A state that lives as long as the process.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::{Failure, FailureClass, Generation, State, StateStore};

/// Keeps the state in memory: for tests, for the simulated board, for embedders with a store of their own behind it.
/// Clones share the state.
#[derive(Clone, Default)]
pub struct MemoryStateStore {
    inner: Arc<Mutex<(State, Generation)>>,
}

impl MemoryStateStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// A store that begins with `state`.
    pub fn with(state: State) -> Self {
        Self { inner: Arc::new(Mutex::new((state, Generation(1)))) }
    }

    /// A copy of what is stored.
    pub fn snapshot(&self) -> State {
        self.inner().0.clone()
    }

    fn inner(&self) -> MutexGuard<'_, (State, Generation)> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl StateStore for MemoryStateStore {
    async fn load(&self) -> Result<(State, Generation), Failure> {
        Ok(self.inner().clone())
    }

    async fn save(&self, state: &State, seen: Generation) -> Result<Generation, Failure> {
        let mut inner = self.inner();
        if inner.1 != seen {
            return Err(conflict("the state in memory"));
        }
        *inner = (state.clone(), Generation(seen.0.saturating_add(1)));
        Ok(inner.1)
    }
}

/// The failure of a save over somebody else's.
pub(crate) fn conflict(what: &str) -> Failure {
    Failure::new(FailureClass::Locked, format!("cannot save {what}: somebody else saved it in between"))
        .hint("Make sure that only one run works on this cluster, then run the same command again.")
}
