//! The numbers that every wait and every retry scales from.

use std::time::Duration;

/// Limits are capped here, so that no factor can overflow a clock.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// How often to look, how long to pause between attempts, how patient to be.
///
/// Real boards take the default; tests and the simulation set small numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Timing {
    /// The longest pause between two looks of one wait. A wait begins with an eighth of it.
    pub poll: Duration,
    /// The pause after the first failed attempt; doubles with each further one.
    pub retry_base: Duration,
    /// The longest pause between two attempts, unless the other side asked for more.
    pub retry_cap: Duration,
    /// The longest pause that the other side may ask for (a ban, a rate limit) and that is waited out. Who asks for more
    /// is not waited for: the failure is final.
    pub longest_asked: Duration,
    /// How often a step is tried in all. `0` counts as `1`.
    pub attempts: u32,
    /// Multiplies every limit of a wait.
    pub limit_factor: f64,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            poll: Duration::from_secs(2),
            retry_base: Duration::from_secs(1),
            retry_cap: Duration::from_secs(30),
            longest_asked: Duration::from_secs(300),
            attempts: 4,
            limit_factor: 1.0,
        }
    }
}

impl Timing {
    /// Numbers for tests and the simulated board: polls every 20 ms, retries after 10 to 200 ms.
    pub fn fast() -> Self {
        Self {
            poll: Duration::from_millis(20),
            retry_base: Duration::from_millis(10),
            retry_cap: Duration::from_millis(200),
            ..Self::default()
        }
    }

    /// `limit` times [`Timing::limit_factor`], between zero and one year.
    pub fn limit(&self, limit: Duration) -> Duration {
        let seconds = limit.as_secs_f64() * self.limit_factor;
        if seconds.is_nan() || seconds <= 0.0 {
            return Duration::ZERO;
        }
        Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST).min(LONGEST)
    }

    /// The pause before the next look of a wait that lasts for `waited`. What was just asked for is often there at
    /// once; after a while, a look that comes late by a sixteenth of the whole wait is early enough.
    pub(crate) fn pause(&self, waited: Duration) -> Duration {
        (waited / 16).max(self.poll / 8).min(self.poll)
    }

    /// Whether a pause of `asked` is too long to be waited out.
    pub(crate) fn asks_too_much(&self, asked: Option<Duration>) -> bool {
        asked.is_some_and(|asked| asked > self.longest_asked)
    }

    /// The pause after failed attempt number `attempt`: exponential, with half of it left to chance so that lanes
    /// that failed together do not come back together, and never shorter than what the other side `asked` for.
    pub(crate) fn backoff(&self, attempt: u32, asked: Option<Duration>) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        let pause = self.retry_base.saturating_mul(1 << doublings).min(self.retry_cap).min(LONGEST);
        let jittered = pause.mul_f64(rand::random_range(0.5..=1.0));
        jittered.max(asked.unwrap_or_default().min(LONGEST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_scales_with_the_factor_and_never_overflows() {
        let second = Duration::from_secs(1);
        let limit = |factor: f64| Timing { limit_factor: factor, ..Timing::default() }.limit(second);
        assert_eq!(limit(1.0), second);
        assert_eq!(limit(0.25), Duration::from_millis(250));
        assert_eq!(limit(-3.0), Duration::ZERO);
        assert_eq!(limit(f64::NAN), Duration::ZERO);
        assert_eq!(limit(f64::INFINITY), LONGEST);
        assert_eq!(Timing::default().limit(Duration::MAX), LONGEST);
    }

    #[test]
    fn a_wait_looks_often_at_first_and_never_less_often_than_every_poll() {
        let timing = Timing { poll: Duration::from_secs(2), ..Timing::default() };
        let pause = |millis| timing.pause(Duration::from_millis(millis)).as_millis();
        assert_eq!((pause(0), pause(4_000), pause(16_000), pause(32_000)), (250, 250, 1_000, 2_000));
        assert_eq!(timing.pause(Duration::MAX), timing.poll);
        assert_eq!(Timing { poll: Duration::ZERO, ..timing }.pause(Duration::MAX), Duration::ZERO);
    }

    #[test]
    fn pauses_double_up_to_the_cap_and_keep_what_was_asked_for() {
        let timing = Timing::default();
        for (attempt, longest) in [(1, 1), (2, 2), (3, 4), (6, 30), (u32::MAX, 30)] {
            let longest = Duration::from_secs(longest);
            let pause = timing.backoff(attempt, None);
            assert!(pause <= longest && pause >= longest / 2, "attempt {attempt}: {pause:?}");
        }
        let ban = Duration::from_secs(600);
        assert_eq!(timing.backoff(1, Some(ban)), ban);
    }
}
