//! Time behind one trait, so that tests own it.
//!
//! Wall time ([`Timestamp`]) is what is stored and shown; monotonic time ([`Instant`]) is what is
//! waited for. Both come from here and nowhere else (`clippy.toml` bans the rest).

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// A moment of wall time, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The moment `ms` milliseconds after the Unix epoch.
    #[must_use]
    pub const fn from_millis(ms: i64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Seconds since the Unix epoch, with their fraction, as Prometheus wants them.
    #[must_use]
    pub fn as_seconds(self) -> f64 {
        self.0 as f64 / 1e3
    }

    /// This moment moved by `by`, capped at the end of time.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(millis(by)))
    }

    /// This moment moved back by `by`.
    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(millis(by)))
    }

    /// How long after `earlier` this is; zero if it is not.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// RFC 3339 in UTC with milliseconds, as the API shows times.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = jiff::Timestamp::from_millisecond(self.0).unwrap_or(jiff::Timestamp::MAX);
        write!(f, "{time:.3}")
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Where time comes from.
///
/// Waiting is done with `tokio::time`, whose clock tests can pause; [`Clock::instant`] is on that
/// same clock.
pub trait Clock: Send + Sync + 'static {
    /// Wall time now. May jump, forwards and backwards.
    fn now(&self) -> Timestamp;

    /// Monotonic time now.
    fn instant(&self) -> Instant {
        Instant::now()
    }
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Timestamp(millis(since_epoch.unwrap_or_default()))
    }
}

/// A clock for tests: a start that can be moved, plus whatever tokio's (pausable) clock has run since.
///
/// Under `#[tokio::test(start_paused = true)]` wall and monotonic time move together and only when
/// the test lets them.
#[derive(Debug)]
pub struct TestClock {
    wall_at_origin: AtomicI64,
    origin: Instant,
}

impl TestClock {
    /// A clock that stands at `start` now.
    #[must_use]
    pub fn starting_at(start: Timestamp) -> Self {
        Self { wall_at_origin: AtomicI64::new(start.0), origin: Instant::now() }
    }

    /// Moves wall time alone forward, as if the machine's clock had been set.
    pub fn advance(&self, by: Duration) {
        self.wall_at_origin.fetch_add(millis(by), Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.wall_at_origin.load(Ordering::SeqCst)).plus(self.origin.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_shown_as_rfc_3339_with_milliseconds() {
        assert_eq!(Timestamp::from_millis(1_664_979_274_007).to_string(), "2022-10-05T14:14:34.007Z");
    }

    #[test]
    fn a_moment_before_another_is_no_time_after_it() {
        let (early, late) = (Timestamp::from_millis(5), Timestamp::from_millis(9));
        assert_eq!(early.since(late), Duration::ZERO);
        assert_eq!(late.since(early), Duration::from_millis(4));
    }

    #[tokio::test(start_paused = true)]
    async fn a_test_clock_moves_only_when_told() {
        let clock = TestClock::starting_at(Timestamp::from_millis(1_000));
        assert_eq!(clock.now().as_millis(), 1_000);
        tokio::time::advance(Duration::from_millis(250)).await;
        clock.advance(Duration::from_millis(50));
        assert_eq!(clock.now().as_millis(), 1_300);
    }
}
