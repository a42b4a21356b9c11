//! What rows hold, and the checksum over an event.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::event::{Event, EventId, Trigger, UserId};
use crate::metrics::{Discarded, Lost, Metrics};
use crate::outbox::{Ledger, Progress};
use crate::reason::Reason;

/// What a row costs on disk beside its body and user, about.
pub(super) const OVERHEAD_BYTES: u64 = 64;

/// An event that waits, as stored.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) seq: u64,
    pub(super) salt: u32,
    pub(super) accepted_at: Timestamp,
    pub(super) event: Event,
    /// It was dead once: attempts of its former life are kept.
    pub(super) again: bool,
    pub(super) crc: u32,
}

impl Row {
    pub(super) fn id(&self) -> EventId {
        EventId::new(self.accepted_at, self.seq, self.salt)
    }

    /// Whether the row is what was stored.
    pub(super) fn is_intact(&self) -> bool {
        self.crc == checksum(self.seq, self.salt, self.accepted_at, &self.event)
    }

    /// What it takes on disk at most, about.
    pub(super) fn bytes(&self) -> u64 {
        event_bytes(&self.event)
    }
}

/// CRC-32C over everything that is delivered or ordered by. Lengths are part of it, so that bytes cannot move from one
/// field to the next. The trigger is not: it only labels metrics, and a newer release may have written one that has no
/// name here.
pub(super) fn checksum(seq: u64, salt: u32, accepted_at: Timestamp, event: &Event) -> u32 {
    let trace = event.trace.as_deref();
    let lengths = [event.user.as_str().len(), trace.map_or(usize::MAX, str::len), event.body.len()];
    let mut crc = crc32c::crc32c(&seq.to_le_bytes());
    crc = crc32c::crc32c_append(crc, &salt.to_le_bytes());
    crc = crc32c::crc32c_append(crc, &accepted_at.as_millis().to_le_bytes());
    for length in lengths {
        crc = crc32c::crc32c_append(crc, &(length as u64).to_le_bytes());
    }
    crc = crc32c::crc32c_append(crc, event.user.as_str().as_bytes());
    crc = crc32c::crc32c_append(crc, trace.unwrap_or_default().as_bytes());
    crc32c::crc32c_append(crc, &event.body)
}

/// What an event takes on disk at most, about: while it waits its body is packed.
pub(super) fn event_bytes(event: &Event) -> u64 {
    (event.body.len() + event.user.as_str().len()) as u64 + OVERHEAD_BYTES
}

/// A waiting event without its body.
#[derive(Clone, Debug)]
pub(super) struct LineRow {
    pub(super) id: EventId,
    pub(super) user: UserId,
    pub(super) trigger: Trigger,
}

impl LineRow {
    /// A row as a line.
    pub(super) fn of(row: &Row) -> Self {
        Self { id: row.id(), user: row.event.user.clone(), trigger: row.event.trigger }
    }
}

/// A dead letter without its body.
#[derive(Clone, Debug)]
pub(super) struct DeadRow {
    pub(super) id: EventId,
    pub(super) user: UserId,
    pub(super) trigger: Trigger,
    /// `None`: a reason that a newer release wrote.
    pub(super) reason: Option<Reason>,
    pub(super) attempts: u32,
    pub(super) body_bytes: u64,
}

impl DeadRow {
    /// What it takes of the dead letters' share.
    pub(super) fn bytes(&self) -> u64 {
        self.body_bytes + self.user.as_str().len() as u64 + OVERHEAD_BYTES
    }
}

/// A dead letter with all that its row holds.
#[derive(Clone, Debug)]
pub(super) struct WholeDead {
    pub(super) row: Row,
    pub(super) died_at: Timestamp,
    /// As written; a newer release may have reasons that have no name here.
    pub(super) reason: String,
    pub(super) attempts: u32,
}

/// A delivered event that is remembered.
#[derive(Clone, Debug)]
pub(super) struct DoneRow {
    pub(super) id: EventId,
    pub(super) done_at: Timestamp,
    pub(super) attempts: u32,
    pub(super) request_id: Option<Box<str>>,
}

/// The failed attempts of an event that waits.
#[derive(Clone, Debug)]
pub(super) struct ProgressRow {
    pub(super) progress: Progress,
    /// The ledger's `delivered` when it failed last.
    pub(super) delivered_mark: u64,
    pub(super) next_at: Timestamp,
    pub(super) reason: Option<Reason>,
}

/// A user's next event is not handed out before `due`, `wait` after the gate was set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gate {
    pub(super) due: Timestamp,
    pub(super) wait: Duration,
}

/// What is remembered under an idempotency key.
#[derive(Clone, Debug)]
pub(super) struct KeyRow {
    pub(super) row_id: i64,
    pub(super) same_body: bool,
    pub(super) first_seq: u64,
    pub(super) count: u64,
    pub(super) salt: u32,
    pub(super) at: Timestamp,
    pub(super) bytes: u64,
    pub(super) notes: Box<str>,
}

impl KeyRow {
    /// The ids that were answered first.
    pub(super) fn ids(&self) -> Vec<EventId> {
        (0..self.count).map(|n| EventId::new(self.at, self.first_seq + n, self.salt)).collect()
    }
}

/// What of a remembered key may name somebody, and the events it stands for.
#[derive(Clone, Debug)]
pub(super) struct KeyText {
    pub(super) key: String,
    pub(super) notes: String,
    pub(super) first_seq: u64,
    pub(super) count: u64,
}

/// Which table an event is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Table {
    Waiting,
    Dead,
}

/// The one row of `state`: changed in memory and written once a commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Books {
    pub(super) ledger: Ledger,
    /// The sequence of the next event.
    pub(super) next_seq: u64,
    /// Every event below waits behind its user's gate: an opening reads the queue from here.
    pub(super) mark: u64,
    /// How many users are gated.
    pub(super) gates: u64,
    /// How many events that wait have failed before.
    pub(super) failed: u64,
    /// How many delivered events are remembered.
    pub(super) done: u64,
    /// Bytes of dead letters.
    pub(super) dead_bytes: u64,
    /// Bytes of idempotency keys.
    pub(super) key_bytes: u64,
    /// Some events were sent without a known outcome; read when the file is opened.
    pub(super) has_unsure: bool,
    /// Bytes of the last dead letter that found no room, in this opening.
    pub(super) held_back: u64,
}

/// What a transaction adds to the metrics once it is committed.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    /// Events that the store itself made dead letters.
    pub(super) buried: Vec<(EventId, Reason)>,
    /// Idempotency keys dropped for want of room.
    pub(super) evicted: u64,
    /// Events that a damaged disk took.
    pub(super) lost: u64,
    /// Dead letters that were too old to be kept.
    pub(super) expired: u64,
}

impl Counts {
    /// Counts and tells, once it is true.
    pub(super) fn report(&mut self, metrics: &Metrics) {
        for (id, reason) in self.buried.drain(..) {
            metrics.dead_lettered.with(reason).inc();
            let reason = reason.as_str();
            tracing::error!(event = "event_buried", event_id = %id, reason, "an event became a dead letter");
        }
        metrics.idempotency_evicted.inc_by(std::mem::take(&mut self.evicted));
        let expired = std::mem::take(&mut self.expired);
        if expired > 0 {
            metrics.discarded.with(Discarded::Operator).inc_by(expired);
            tracing::warn!(event = "dead_letters_expired", count = expired, "dead letters over outbox.dead_max_age");
        }
        metrics.lost.with(Lost::Corrupt).inc_by(std::mem::take(&mut self.lost));
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;

    fn row() -> Row {
        let event = Event {
            user: UserId::new("ab"),
            trigger: Trigger::NewSignup,
            body: Bytes::from_static(b"cd"),
            trace: Some("ef".into()),
        };
        let (seq, salt, accepted_at) = (7, 9, Timestamp::from_millis(5));
        let crc = checksum(seq, salt, accepted_at, &event);
        Row { seq, salt, accepted_at, event, again: false, crc }
    }

    #[test]
    fn a_changed_field_shows_in_the_checksum() {
        assert!(row().is_intact());
        let changes: [fn(&mut Row); 6] = [
            |row| row.seq += 1,
            |row| row.salt += 1,
            |row| row.accepted_at = Timestamp::from_millis(6),
            |row| row.event.user = UserId::new("aB"),
            |row| row.event.trace = None,
            |row| row.event.body = Bytes::from_static(b"cD"),
        ];
        for change in changes {
            let mut row = row();
            change(&mut row);
            assert!(!row.is_intact(), "{row:?}");
        }
    }

    #[test]
    fn bytes_that_move_between_fields_show_in_the_checksum() {
        let mut row = row();
        row.event.user = UserId::new("abe");
        row.event.trace = Some("f".into());
        assert!(!row.is_intact());
    }

    #[test]
    fn an_event_takes_as_much_when_it_is_appended_as_when_it_waits_or_is_dead() {
        let mut row = row();
        row.event.body = Bytes::from_static(b"cdefg");
        let dead = DeadRow {
            id: row.id(),
            user: row.event.user.clone(),
            trigger: row.event.trigger,
            reason: None,
            attempts: 0,
            body_bytes: 5,
        };
        assert_eq!([event_bytes(&row.event), row.bytes(), dead.bytes()], [5 + 2 + OVERHEAD_BYTES; 3]);
    }

    #[test]
    fn what_a_commit_brought_is_counted_once_and_old_dead_letters_are_told_of_only_if_there_were_some() {
        let metrics = Metrics::default();
        let told = || (metrics.dead_lettered.with(Reason::Corrupt).get(), metrics.idempotency_evicted.get());
        let gone = || (metrics.discarded.with(Discarded::Operator).get(), metrics.lost.with(Lost::Corrupt).get());
        let id = EventId::new(crate::clock::Timestamp::from_millis(0), 1, 0);
        let mut counts = Counts { buried: vec![(id, Reason::Corrupt)], evicted: 2, lost: 3, expired: 4 };
        let log = Arc::new(tempfile::tempfile().unwrap());
        let subscriber = tracing_subscriber::fmt().with_writer(Arc::clone(&log)).finish();
        tracing::subscriber::with_default(subscriber, || {
            counts.report(&metrics);
            counts.report(&metrics);
        });
        assert_eq!((told(), gone()), ((1, 2), (4, 3)));
        let (mut log, mut lines) = (&*log, String::new());
        log.rewind().unwrap();
        log.read_to_string(&mut lines).unwrap();
        assert_eq!(lines.matches("dead_letters_expired").count(), 1, "{lines}");
    }
}
