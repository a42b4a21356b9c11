//! Claim → send → settle.

use std::time::Duration;

/// `forward.*`
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many events are sent at the same time, at most.
    pub concurrency: usize,
    /// How many events are sent in a second, at most; 0 is no limit.
    pub max_per_second: u32,
    /// The first wait of an event's backoff.
    pub backoff_min: Duration,
    /// The longest wait of an event's backoff.
    pub backoff_max: Duration,
    /// Dead (`exhausted`) needs so many strikes …
    pub max_strikes: u32,
    /// … and so much time since the first failure.
    pub give_up_after: Duration,
    /// So many refusals of different users in a row hold the queue.
    pub refusals_in_a_row: u32,
    /// What happens when the outcome of a sent request is unknown.
    pub ambiguous: Ambiguous,
}

/// `forward.ambiguous`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ambiguous {
    /// Send again: at least once.
    #[default]
    Retry,
    /// Give up: at most once.
    Dead,
}
