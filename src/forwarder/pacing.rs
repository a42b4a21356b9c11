//! `forward.max_per_second`: a token bucket.

use std::time::Duration;

use tokio::time::Instant;

/// Lets at most `max_per_second` sends start in any second.
///
/// Timers tick in milliseconds, so high rates need some tokens saved up: a hundredth of a second's
/// worth. The bucket refills that much slower, so that burst and refill together keep the limit.
#[derive(Debug)]
pub(super) struct Pacing {
    limit: Option<Limit>,
}

#[derive(Debug)]
struct Limit {
    /// The time that one token takes to come.
    interval: Duration,
    burst: u32,
    tokens: u32,
    /// When the newest token came.
    refilled_at: Instant,
}

impl Pacing {
    /// `0` is no limit.
    pub(super) fn new(max_per_second: u32, now: Instant) -> Self {
        let limit = (max_per_second > 0).then(|| {
            let burst = max_per_second.div_ceil(100);
            let interval = Duration::from_secs(1) / (max_per_second - burst + 1);
            // Rounded up: a division that rounds down would let one too many through.
            let interval = interval + Duration::from_nanos(1);
            Limit { interval, burst, tokens: burst, refilled_at: now }
        });
        Self { limit }
    }

    /// Whether there is a limit at all.
    pub(super) fn is_limited(&self) -> bool {
        self.limit.is_some()
    }

    /// How many sends may start now.
    pub(super) fn available(&mut self, now: Instant) -> usize {
        let Some(limit) = &mut self.limit else { return usize::MAX };
        limit.refill(now);
        limit.tokens as usize
    }

    /// A send starts.
    pub(super) fn take(&mut self) {
        if let Some(limit) = &mut self.limit {
            limit.tokens = limit.tokens.saturating_sub(1);
        }
    }

    /// When the next token comes, if there is none now.
    pub(super) fn next(&self) -> Option<Instant> {
        let limit = self.limit.as_ref().filter(|limit| limit.tokens == 0)?;
        Some(limit.refilled_at + limit.interval)
    }
}

impl Limit {
    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.refilled_at);
        let came = passed.as_nanos() / self.interval.as_nanos();
        let room = u128::from(self.burst - self.tokens);
        if came >= room {
            // What does not fit is lost, and so is the part of a token that was on its way.
            self.tokens = self.burst;
            self.refilled_at = now;
        } else {
            let came = came as u32;
            self.tokens += came;
            self.refilled_at += self.interval * came;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::{Clock as _, SystemClock};

    fn start() -> Instant {
        SystemClock.instant()
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let mut pacing = Pacing::new(0, start());
        assert!(!pacing.is_limited());
        assert_eq!((pacing.available(start()), pacing.next()), (usize::MAX, None));
    }

    #[test]
    fn a_steady_sender_gets_nearly_all_of_the_limit() {
        for max in [1, 7, 100, 1_000, 50_000] {
            let (start, mut sent) = (start(), 0);
            let mut pacing = Pacing::new(max, start);
            for ms in 0..10_000 {
                let free = pacing.available(start + Duration::from_millis(ms));
                (0..free).for_each(|_| pacing.take());
                sent += free;
            }
            let all = 10 * max as usize;
            assert!(sent <= all && sent * 100 >= all * 90, "{sent} of {all}");
        }
    }

    #[test]
    fn what_is_not_used_is_saved_up_for_a_hundredth_of_a_second_and_no_longer() {
        let start = start();
        let mut pacing = Pacing::new(1_000, start);
        assert!(pacing.is_limited());
        for ms in (0..1_000).step_by(7) {
            assert_eq!(pacing.available(start + Duration::from_millis(ms)), 10);
        }
        pacing.take();
        assert_eq!(pacing.next(), None, "nine are left");
    }

    proptest! {
        #[test]
        fn no_second_holds_more_sends_than_the_limit(
            max in 1u32..3_000,
            pauses_us in prop::collection::vec(0u64..30_000, 1..400),
        ) {
            let start = start();
            let mut pacing = Pacing::new(max, start);
            let mut now = start;
            let mut sends = Vec::new();
            for pause in pauses_us {
                now += Duration::from_micros(pause);
                while pacing.available(now) > 0 {
                    pacing.take();
                    sends.push(now);
                }
                prop_assert!(pacing.next().is_some_and(|next| next > now));
            }
            let max = max as usize;
            for (first, later) in sends.iter().zip(sends.iter().skip(max)) {
                prop_assert!(*later - *first >= Duration::from_secs(1));
            }
        }
    }
}
