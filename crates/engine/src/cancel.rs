//! Asking a run to stop: softly between steps, or at once.

use tokio_util::sync::CancellationToken;

/// A request to stop, shared by whoever may ask and whoever must listen. Clones are the same request.
///
/// A soft stop lets running steps end and starts nothing new. A hard stop drops what runs. Neither can be taken back.
#[derive(Debug, Clone, Default)]
pub struct Cancellation {
    soft: CancellationToken,
    hard: CancellationToken,
}

impl Cancellation {
    /// A request that nobody has made yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks softly: steps that run end with their verify, nothing new starts.
    pub fn stop(&self) {
        self.soft.cancel();
    }

    /// Asks hard: whatever runs is dropped where it waits. Includes the soft stop.
    pub fn stop_now(&self) {
        self.soft.cancel();
        self.hard.cancel();
    }

    /// Whether a stop was asked for, softly or hard.
    pub fn is_stopping(&self) -> bool {
        self.soft.is_cancelled()
    }

    /// Whether a hard stop was asked for.
    pub fn is_stopped_now(&self) -> bool {
        self.hard.is_cancelled()
    }

    /// Resolves when a stop is asked for, softly or hard.
    pub async fn stopping(&self) {
        self.soft.cancelled().await;
    }

    /// Resolves when a hard stop is asked for.
    pub async fn stopped_now(&self) {
        self.hard.cancelled().await;
    }
}
