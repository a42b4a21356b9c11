//! Counts and sizes, and how the queue moves.

use std::fmt;
use std::time::Duration;

use super::AppendError;
use crate::clock::Timestamp;
use crate::reason::Reason;

/// What has ever happened to the events of this outbox; kept with them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Stored.
    pub accepted: u64,
    /// Delivered.
    pub delivered: u64,
    /// Now dead.
    pub dead: u64,
    /// Ended by an operator.
    pub discarded: u64,
    /// Ended because a person asked to be forgotten.
    pub erased: u64,
    /// Taken by a damaged disk.
    pub lost: u64,
}

impl Ledger {
    /// Stored and not yet at an end: pending, in flight or retrying.
    #[must_use]
    pub fn undelivered(&self) -> u64 {
        self.accepted.saturating_sub(self.delivered + self.dead + self.discarded + self.erased + self.lost)
    }
}

/// Counts and sizes of an outbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// What ever happened.
    pub ledger: Ledger,
    /// Handed out now.
    pub in_flight: u64,
    /// Waiting for a retry (heads of users; what waits behind one is pending).
    pub retrying: u64,
    /// When the oldest undelivered event was accepted.
    pub oldest: Option<Timestamp>,
    /// Undelivered events found when the outbox was opened.
    pub recovered: u64,
    /// Whether appends would be refused now, and why.
    pub refusing: Option<AppendError>,
    /// Bytes used of `capacity_bytes`: live pages, WAL and reserve.
    pub size_bytes: u64,
    /// `outbox.max_bytes`.
    pub capacity_bytes: u64,
    /// Bytes of the WAL file.
    pub wal_bytes: u64,
    /// Size of the volume.
    pub volume_bytes: u64,
    /// Free bytes of the volume.
    pub volume_free_bytes: u64,
    /// Dead letters take their share: another one would be held back.
    pub dead_letters_full: bool,
    /// Damaged files moved aside in the outbox directory.
    pub quarantined_files: u64,
    /// What can be read of them is still coming over.
    pub is_recovering: bool,
    /// When the last checkpoint succeeded.
    pub checkpointed_at: Option<Timestamp>,
}

impl Stats {
    /// Waiting for their turn: neither in flight nor retrying.
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.ledger.undelivered().saturating_sub(self.in_flight + self.retrying)
    }

    /// How long the oldest undelivered event has waited.
    #[must_use]
    pub fn oldest_age(&self, now: Timestamp) -> Duration {
        self.oldest.map_or(Duration::ZERO, |oldest| now.since(oldest))
    }
}

/// How the queue moves: told by the forwarder, read by whoever reports it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flow {
    /// Events go out as they come.
    #[default]
    Ok,
    /// Cello fails; events are retried, or wait for the breaker to close.
    Retrying,
    /// Nothing goes out but probes: the fault is ours or on the way.
    Held(Reason),
    /// An operator stopped it.
    Paused,
    /// Emptying before an end.
    Draining,
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Flow::Ok => f.write_str("ok"),
            Flow::Retrying => f.write_str("retrying"),
            Flow::Held(reason) => write!(f, "held:{reason}"),
            Flow::Paused => f.write_str("paused"),
            Flow::Draining => f.write_str("draining"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_and_at_no_end_is_undelivered_and_what_of_it_neither_flies_nor_failed_is_pending() {
        let ledger = Ledger { accepted: 1000, delivered: 500, dead: 200, discarded: 100, erased: 50, lost: 20 };
        assert_eq!(ledger.undelivered(), 130);
        let stats = Stats { ledger, in_flight: 8, retrying: 5, ..Stats::default() };
        assert_eq!(stats.pending(), 117);
        let (ledger, at_an_end) = (Ledger::default(), Ledger { delivered: 1, ..Ledger::default() });
        assert_eq!((ledger.undelivered(), at_an_end.undelivered()), (0, 0), "never less than none");
    }

    #[test]
    fn the_oldest_is_as_old_as_it_has_waited() {
        let now = Timestamp::from_millis(5000);
        let stats = |oldest: Option<i64>| Stats { oldest: oldest.map(Timestamp::from_millis), ..Stats::default() };
        assert_eq!(stats(Some(2000)).oldest_age(now), Duration::from_secs(3));
        assert_eq!(stats(Some(9000)).oldest_age(now), Duration::ZERO, "the clock was set back");
        assert_eq!(stats(None).oldest_age(now), Duration::ZERO);
    }

    #[test]
    fn how_the_queue_moves_has_a_name() {
        let flows = [Flow::Ok, Flow::Retrying, Flow::Held(Reason::Http403), Flow::Paused, Flow::Draining];
        let names = ["ok", "retrying", "held:http_403", "paused", "draining"];
        assert_eq!(flows.map(|flow| flow.to_string()), names);
    }
}
