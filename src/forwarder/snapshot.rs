//! What an operator sees of the forwarder.

use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Timestamp;
use crate::outbox::Flow;
use crate::reason::Reason;

/// Where the forwarder stands at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// How the queue moves.
    pub flow: Flow,
    /// The breaker.
    pub breaker: Breaker,
    /// Since when the breaker is closed, open, or starting slowly.
    pub breaker_since: Option<Timestamp>,
    /// Why nothing but probes goes out, and since when.
    pub hold: Option<(Reason, Timestamp)>,
    /// An operator's pause.
    pub paused: Option<Pause>,
    /// When the next probe goes out, while only probes do.
    pub next_probe_at: Option<Timestamp>,
    /// Cello asked (`Retry-After`) for silence until then.
    pub paced_until: Option<Timestamp>,
    /// When Cello last took an event of this process.
    pub last_delivered_at: Option<Timestamp>,
    /// The last answer that was no delivery.
    pub last_failure: Option<Failure>,
}

/// How the breaker stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Breaker {
    /// Events go out as they come.
    #[default]
    Closed,
    /// Only probes go out, and none is under way.
    Open,
    /// A probe is under way.
    HalfOpen,
    /// Cello is back: 1, 2, 4 … sends at a time.
    SlowStart,
}

impl Breaker {
    /// The name in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Breaker::Closed => "closed",
            Breaker::Open => "open",
            Breaker::HalfOpen => "half_open",
            Breaker::SlowStart => "slow_start",
        }
    }

    /// With a probe under way it is as open as before.
    pub(super) fn without_probe(self) -> Self {
        if self == Breaker::HalfOpen { Breaker::Open } else { self }
    }
}

/// An operator's pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    /// When it was ordered.
    pub since: Timestamp,
    /// When it ends by itself; `None`: not before it is resumed.
    pub until: Option<Timestamp>,
}

impl Pause {
    /// What is left of it: `Some(None)` is no end, `None` that it is over. Never longer than it was
    /// ordered for, should the clock have been set back since.
    #[must_use]
    pub fn left(&self, now: Timestamp) -> Option<Option<Duration>> {
        let Some(until) = self.until else { return Some(None) };
        let left = until.since(now).min(until.since(self.since));
        (!left.is_zero()).then_some(Some(left))
    }
}

/// An attempt that delivered nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// When it ended.
    pub at: Timestamp,
    /// What came of it.
    pub reason: Reason,
    /// Cello's status, if it answered.
    pub status: Option<u16>,
    /// `apigw-requestid`, if Cello gave one: what its support asks for.
    pub request_id: Option<Box<str>>,
}

/// What the governor knows of it, in the time that it reckons with.
#[derive(Clone, Debug)]
pub(super) struct Look {
    pub(super) breaker: Breaker,
    pub(super) held: Option<Reason>,
    pub(super) paused: bool,
    pub(super) probe_at: Option<Instant>,
    pub(super) paced_until: Option<Instant>,
    pub(super) last_delivered_at: Option<Timestamp>,
    pub(super) last_failure: Option<Failure>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_breaker_has_a_name_and_is_as_open_with_a_probe_as_without() {
        let stands = [Breaker::Closed, Breaker::Open, Breaker::HalfOpen, Breaker::SlowStart];
        assert_eq!(stands.map(Breaker::as_str), ["closed", "open", "half_open", "slow_start"]);
        let without = [Breaker::Closed, Breaker::Open, Breaker::Open, Breaker::SlowStart];
        assert_eq!(stands.map(Breaker::without_probe), without);
    }

    #[test]
    fn a_pause_lasts_as_long_as_ordered_even_if_the_clock_was_set_back() {
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1000);
        let pause = Pause { since: at(100), until: Some(at(160)) };
        assert_eq!(pause.left(at(110)), Some(Some(Duration::from_secs(50))));
        assert_eq!(pause.left(at(10)), Some(Some(Duration::from_secs(60))));
        assert_eq!(pause.left(at(160)), None);
        assert_eq!(Pause { since: at(100), until: None }.left(at(9_999)), Some(None));
    }
}
