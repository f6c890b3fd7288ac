//! The board's clock: real time that a test can wind forward.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

/// The clock that bans, tokens, `power_on_time` and the upload window go by.
///
/// It runs in real time, whatever the pace of the simulation: a login that stays valid for three hours must not expire
/// between two steps of a test because simulated flashes are fast. [`Clock::advance`] winds it forward. Clones are one
/// clock.
#[derive(Debug, Clone)]
pub struct Clock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    start: Instant,
    ahead: Mutex<Duration>,
    wound: Notify,
}

impl Default for Clock {
    fn default() -> Self {
        Self(Arc::new(Inner {
            start: Instant::now(),
            ahead: Mutex::new(Duration::ZERO),
            wound: Notify::new(),
        }))
    }
}

impl Clock {
    /// Time since the board was started.
    pub fn now(&self) -> Duration {
        self.0.start.elapsed() + *self.0.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Winds it forward: whatever waits for a time up to then happens now.
    pub fn advance(&self, by: Duration) {
        *self.0.ahead.lock().unwrap_or_else(PoisonError::into_inner) += by;
        self.0.wound.notify_waiters();
    }
    /// Waits until the clock shows `then`.
    pub(crate) async fn wait_until(&self, then: Duration) {
        loop {
            let wound = self.0.wound.notified();
            let left = then.saturating_sub(self.now());
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(left) => {}
                () = wound => {}
            }
        }
    }
}
