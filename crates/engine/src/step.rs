//! One thing to do, and what it is given to do it with.

use async_trait::async_trait;

use crate::{Failure, StepContext, StepDescription};

/// One idempotent change: applying it where it already holds changes nothing.
///
/// That is what makes resume safe: after a crash the same step is planned again and looks before it writes.
#[async_trait]
pub trait Step: Send + Sync {
    /// What the step does. Pure: no I/O, and the same every time.
    fn describe(&self) -> StepDescription;

    /// Makes it so. Looks first and does nothing where the wanted state is already there.
    async fn apply(&self, cx: &StepContext) -> Result<(), Failure>;

    /// Looks whether it is so. Called after `apply` until it converged or [`Step::limit`] has passed.
    async fn verify(&self, cx: &StepContext) -> Result<Verdict, Failure> {
        let _ = cx;
        Ok(Verdict::Converged)
    }

    /// How long `verify` may answer `NotYet`.
    fn limit(&self) -> std::time::Duration {
        std::time::Duration::from_secs(60)
    }
}

/// What [`Step::verify`] saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The wanted state is there.
    Converged,
    /// Not yet; the text says what was seen last, for the person who waits.
    NotYet(String),
}
