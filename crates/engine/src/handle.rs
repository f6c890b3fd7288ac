//! The state of one run: changed by one at a time, saved before anybody sees the change.

use std::sync::Arc;

use tokio::sync::Mutex;

use crate::{Failure, FailureClass, Generation, State, StateStore, redact::Redactor};

/// Serialises changes of the state and saves each one before it counts.
pub(crate) struct StateHandle {
    store: Arc<dyn StateStore>,
    held: Mutex<Held>,
    redactor: Arc<Redactor>,
}

enum Held {
    /// Nobody asked yet.
    Unread,
    /// What the store holds.
    Known(Box<State>, Generation),
    /// A save over this generation failed or was dropped half-way: it may have happened or not.
    Unsure(Generation),
}

impl StateHandle {
    pub(crate) fn new(store: Arc<dyn StateStore>, redactor: Arc<Redactor>) -> Self {
        Self { store, held: Mutex::new(Held::Unread), redactor }
    }

    /// A copy of the state.
    pub(crate) async fn read(&self) -> Result<State, Failure> {
        let mut held = self.held.lock().await;
        let (state, _) = self.settle(&mut held).await?;
        Ok(state.clone())
    }

    /// Changes the state and saves it. Where `change` or the save fails, nothing has changed.
    pub(crate) async fn update<T>(
        &self,
        change: impl FnOnce(&mut State) -> Result<T, Failure> + Send,
    ) -> Result<T, Failure> {
        let mut held = self.held.lock().await;
        let (state, seen) = self.settle(&mut held).await?;
        let mut next = state.clone();
        let value = change(&mut next)?;
        // Before the save: the caller may use the secret the moment we return.
        self.redactor.learn(&next);
        // Whoever drops this future while the save is under way leaves `Unsure` behind.
        let before = std::mem::replace(&mut *held, Held::Unsure(seen));
        match self.store.save(&next, seen).await {
            Ok(generation) => {
                *held = Held::Known(Box::new(next), generation);
                Ok(value)
            }
            Err(failure) => {
                if failure.class() == FailureClass::Locked {
                    *held = before;
                }
                Err(failure)
            }
        }
    }

    /// Reads the store when it is not known what it holds.
    async fn settle<'a>(&self, held: &'a mut Held) -> Result<(&'a State, Generation), Failure> {
        if !matches!(held, Held::Known(..)) {
            let (state, generation) = self.store.load().await?;
            if let Held::Unsure(seen) = *held
                && generation != seen
                && generation.0 != seen.0.saturating_add(1)
            {
                return Err(Failure::new(
                    FailureClass::Locked,
                    "somebody else saved the state while this run works on it",
                )
                .hint(
                    "Make sure that only one run works on this cluster, then run the same command again.",
                ));
            }
            self.redactor.learn(&state);
            *held = Held::Known(Box::new(state), generation);
        }
        match held {
            Held::Known(state, generation) => Ok((state, *generation)),
            Held::Unread | Held::Unsure(_) => {
                Err(Failure::new(FailureClass::Unexpected, "the state was lost while it was read"))
            }
        }
    }
}
