//! When a failed event is due again: exponential, with full jitter.
//!
//! The interval series comes from the `backoff` crate, replayed from the attempts that are stored with
//! the event, so nothing is kept in memory between attempts. Its randomisation (a band around the
//! interval) is off: full jitter, drawn from anywhere up to the interval, spreads retries better.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;

/// The waits between an event's attempts.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    rng: fastrand::Rng,
}

impl Backoff {
    pub(super) fn new(first: Duration, longest: Duration, rng: fastrand::Rng) -> Self {
        Self { first: first.min(longest), longest, rng }
    }

    /// The wait after a failure that `attempts` failed ones preceded.
    pub(super) fn wait(&mut self, attempts: u32) -> Duration {
        let interval = u64::try_from(self.interval(attempts).as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(self.rng.u64(0..=interval))
    }

    /// The longest that [`Backoff::wait`] may be: `first` × 2 for each attempt, up to `longest`.
    fn interval(&self, attempts: u32) -> Duration {
        let mut series = ExponentialBackoff {
            current_interval: self.first,
            initial_interval: self.first,
            randomization_factor: 0.0,
            multiplier: 2.0,
            max_interval: self.longest,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        // A duration doubles fewer than 96 times before it is at any limit.
        let replayed = std::iter::from_fn(|| series.next_backoff()).take(attempts.min(96) as usize + 1);
        replayed.take_while(|interval| *interval < self.longest).nth(attempts as usize).unwrap_or(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn backoff(seed: u64) -> Backoff {
        Backoff::new(Duration::from_secs(1), Duration::from_secs(300), fastrand::Rng::with_seed(seed))
    }

    #[test]
    fn intervals_double_from_a_second_to_five_minutes() {
        let backoff = backoff(0);
        let seconds: Vec<u64> = (0..12).map(|attempts| backoff.interval(attempts).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        assert_eq!(backoff.interval(u32::MAX).as_secs(), 300);
    }

    #[test]
    fn a_first_interval_over_the_longest_is_the_longest() {
        let backoff = Backoff::new(Duration::from_secs(9), Duration::from_secs(2), fastrand::Rng::with_seed(1));
        assert_eq!(backoff.interval(0), Duration::from_secs(2));
    }

    #[test]
    fn waits_fill_the_whole_interval() {
        let mut backoff = backoff(7);
        let waits: Vec<u64> = (0..1_000).map(|_| backoff.wait(9).as_secs()).collect();
        assert!(waits.iter().any(|wait| *wait < 30) && waits.iter().any(|wait| *wait > 270));
    }

    proptest! {
        #[test]
        fn a_wait_is_never_longer_than_its_interval(seed: u64, attempts: u32) {
            let mut backoff = backoff(seed);
            prop_assert!(backoff.wait(attempts) <= backoff.interval(attempts));
        }

        #[test]
        fn intervals_never_shrink(attempts in 0..u32::MAX) {
            let backoff = backoff(0);
            prop_assert!(backoff.interval(attempts) <= backoff.interval(attempts + 1));
        }

        #[test]
        fn the_same_seed_waits_the_same(seed: u64, attempts in 0u32..20) {
            prop_assert_eq!(backoff(seed).wait(attempts), backoff(seed).wait(attempts));
        }
    }
}
