//! What arrived: the last events, and counts of all of them. Bounded in memory whatever the load.

mod arrival;
mod stats;

use std::collections::VecDeque;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::envelope::Envelope;
use super::recent::Recent;
pub(super) use arrival::IDEMPOTENCY_KEY;
pub use arrival::{Arrival, Headers, Seen};
pub use stats::{Stats, TokenCalls};

/// Bodies kept take at most so many bytes; older events go first.
const KEEP_BODY_BYTES: usize = 256 << 20;
/// So many idempotency keys and so many users are remembered at least (about 20 bytes each).
const REMEMBER: usize = 4_000_000;
/// The last requests of all routes that are kept.
const KEEP_REQUESTS: usize = 1_000;

/// The memory of the stand-in.
pub(super) struct Journal {
    book: Mutex<Book>,
    changed: Notify,
    hasher: RandomState,
    keep: usize,
}

struct Book {
    /// In sequence without gaps, so that an event's place follows from its number.
    arrivals: VecDeque<Arrival>,
    body_bytes: usize,
    requests: VecDeque<Seen>,
    next_seq: u64,
    stats: Stats,
    /// Hashes of idempotency keys of events that counted.
    keys: Recent<()>,
    /// By hash of the user: the highest `context.sequence` that counted.
    users: Recent<Option<u64>>,
}

impl Book {
    fn new(next_seq: u64) -> Self {
        Self {
            arrivals: VecDeque::new(),
            body_bytes: 0,
            requests: VecDeque::new(),
            next_seq,
            stats: Stats::default(),
            keys: Recent::new(REMEMBER),
            users: Recent::new(REMEMBER),
        }
    }
}

impl Journal {
    /// Keeps the last `keep` events whole; 0 only counts.
    pub(super) fn new(keep: usize) -> Self {
        let book = Mutex::new(Book::new(1));
        Self { book, changed: Notify::new(), hasher: RandomState::new(), keep }
    }

    /// Whether events are kept at all, so that making an [`Arrival`] is worth it.
    pub(super) fn keeps_events(&self) -> bool {
        self.keep > 0
    }

    /// Takes down an event that has come in; its number counts from 1.
    pub(super) fn arrived(&self, arrival: Option<Arrival>, unknown_fields: u64) -> u64 {
        let mut book = self.book();
        let seq = book.next_seq;
        book.next_seq += 1;
        book.stats.received += 1;
        book.stats.unknown_fields += unknown_fields;
        if let Some(arrival) = arrival {
            book.body_bytes += arrival.body.len();
            book.arrivals.push_back(Arrival { seq, ..arrival });
            while book.arrivals.len() > self.keep || book.body_bytes > KEEP_BODY_BYTES {
                let Some(oldest) = book.arrivals.pop_front() else { break };
                book.body_bytes -= oldest.body.len();
                book.stats.not_kept += 1;
            }
        } else {
            book.stats.not_kept += 1;
        }
        drop(book);
        self.changed.notify_waiters();
        seq
    }

    /// Cello has stored the event.
    pub(super) fn counted(&self, seq: u64, envelope: &Envelope, key: Option<&[u8]>) {
        let user = envelope.user.as_deref().map(|user| self.hasher.hash_one(user));
        let key = key.map(|key| self.hasher.hash_one(key));
        let mut book = self.book();
        book.stats.counted += 1;
        if key.is_some_and(|key| book.keys.replace(key, ()).is_some()) {
            book.stats.duplicates += 1;
        }
        if let Some(user) = user {
            let known = book.users.get(user).copied();
            let highest = known.flatten();
            book.stats.users += u64::from(known.is_none());
            book.stats.out_of_order += u64::from(envelope.sequence.is_some() && envelope.sequence < highest);
            book.users.replace(user, envelope.sequence.max(highest));
        }
        if let Some(arrival) = book.find(seq) {
            arrival.counts = true;
        }
        drop(book);
        self.changed.notify_waiters();
    }

    /// The event was answered.
    pub(super) fn answered(&self, seq: u64, status: u16) {
        let mut book = self.book();
        *book.stats.by_status.entry(status).or_default() += 1;
        if let Some(arrival) = book.find(seq) {
            arrival.status = Some(status);
        }
        drop(book);
        self.changed.notify_waiters();
    }

    /// Takes down any request that was answered, or was not.
    pub(super) fn seen(&self, request: Seen) {
        let mut book = self.book();
        if book.requests.len() >= KEEP_REQUESTS {
            book.requests.pop_front();
        }
        book.requests.push_back(request);
        drop(book);
        self.changed.notify_waiters();
    }

    /// Changes counts that are kept elsewhere than with events.
    pub(super) fn count(&self, change: impl FnOnce(&mut Stats)) {
        change(&mut self.book().stats);
        self.changed.notify_waiters();
    }

    /// The kept events after a number, of one user or of all, in order of arrival.
    pub(super) fn events(&self, user: Option<&str>, after: u64, limit: usize) -> Vec<Arrival> {
        let book = self.book();
        let wanted = |arrival: &&Arrival| user.is_none() || arrival.user.as_deref() == user;
        let later = book.arrivals.range(book.place(after.saturating_add(1)).min(book.arrivals.len())..);
        later.filter(wanted).take(limit).cloned().collect()
    }

    /// The last requests of all routes.
    pub(super) fn requests(&self) -> Vec<Seen> {
        self.book().requests.iter().cloned().collect()
    }

    pub(super) fn stats(&self) -> Stats {
        self.book().stats.clone()
    }

    /// Waits until the counts are as wanted.
    pub(super) async fn until(&self, mut wanted: impl FnMut(&Stats) -> bool) -> Stats {
        loop {
            let changed = self.changed.notified();
            let stats = self.stats();
            if wanted(&stats) {
                return stats;
            }
            changed.await;
        }
    }

    /// Forgets all events and counts; numbers go on.
    pub(super) fn forget(&self) {
        let mut book = self.book();
        *book = Book::new(book.next_seq);
        drop(book);
        self.changed.notify_waiters();
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    /// Where an event with this number is, or would be.
    fn place(&self, seq: u64) -> usize {
        let first = self.arrivals.front().map_or(seq, |first| first.seq);
        usize::try_from(seq.saturating_sub(first)).unwrap_or(usize::MAX)
    }

    fn find(&mut self, seq: u64) -> Option<&mut Arrival> {
        let place = self.place(seq);
        self.arrivals.get_mut(place).filter(|arrival| arrival.seq == seq)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::clock::Timestamp;

    fn arrival(user: &str) -> Arrival {
        Arrival {
            seq: 0,
            at: Timestamp::default(),
            user: Some(user.into()),
            trigger: None,
            headers: Headers::default(),
            unknown: Vec::new(),
            counts: false,
            status: None,
            request_id: "id".into(),
            body: Bytes::from_static(b"{}"),
        }
    }

    fn of(user: &str, sequence: Option<u64>) -> Envelope {
        Envelope { user: Some(user.into()), sequence, ..Envelope::default() }
    }

    #[test]
    fn only_the_last_events_are_kept_while_counts_go_on() {
        let journal = Journal::new(3);
        for _ in 0..10 {
            let seq = journal.arrived(Some(arrival("u")), 0);
            journal.counted(seq, &of("u", None), None);
            journal.answered(seq, 200);
        }
        let kept = journal.events(None, 0, 100);
        assert_eq!(kept.iter().map(|arrival| arrival.seq).collect::<Vec<_>>(), [8, 9, 10]);
        assert!(kept.iter().all(|arrival| arrival.counts && arrival.status == Some(200)));
        let stats = journal.stats();
        assert_eq!((stats.received, stats.counted, stats.not_kept, stats.users), (10, 10, 7, 1));
    }

    #[test]
    fn an_answer_to_an_event_no_longer_kept_changes_no_other_event() {
        let journal = Journal::new(1);
        let first = journal.arrived(Some(arrival("a")), 0);
        journal.arrived(Some(arrival("b")), 0);
        journal.answered(first, 500);
        assert_eq!(journal.events(None, 0, 9)[0].status, None);
        journal.forget();
        journal.answered(first, 500);
        assert!(journal.events(None, 0, 9).is_empty());
    }

    #[test]
    fn events_are_found_by_user_and_after_a_number() {
        let journal = Journal::new(10);
        for user in ["a", "b", "a", "a"] {
            journal.arrived(Some(arrival(user)), 0);
        }
        let seqs = |user, after, limit| {
            journal.events(user, after, limit).iter().map(|arrival| arrival.seq).collect::<Vec<_>>()
        };
        assert_eq!(seqs(Some("a"), 0, 9), [1, 3, 4]);
        assert_eq!(seqs(Some("a"), 1, 1), [3]);
        assert_eq!(seqs(None, 99, 9), [0_u64; 0]);
    }

    #[test]
    fn duplicates_and_disorder_are_counted_also_when_nothing_is_kept() {
        let journal = Journal::new(0);
        for (user, sequence, key) in [("u", 1, "a"), ("u", 3, "b"), ("v", 1, "c"), ("u", 3, "b"), ("u", 2, "d")] {
            let seq = journal.arrived(None, 0);
            journal.counted(seq, &of(user, Some(sequence)), Some(key.as_bytes()));
        }
        let stats = journal.stats();
        assert_eq!((stats.users, stats.duplicates, stats.out_of_order), (2, 1, 1));
    }

    #[tokio::test]
    async fn a_waiter_sees_an_event_that_has_only_arrived() {
        let journal = Journal::new(0);
        let waiter = journal.until(|stats| stats.received == 1);
        let arrives = async { journal.arrived(None, 0) };
        let both = async { tokio::join!(waiter, arrives) };
        let (stats, _) = tokio::time::timeout(std::time::Duration::from_secs(30), both).await.expect("woken");
        assert_eq!(stats.counted, 0);
    }

    #[tokio::test]
    async fn a_waiter_sees_a_count_that_changes_while_it_waits() {
        let journal = Journal::new(0);
        let waiter = journal.until(|stats| stats.received == 1 && stats.by_status.contains_key(&200));
        let (stats, ()) = tokio::join!(waiter, async {
            let seq = journal.arrived(None, 0);
            journal.answered(seq, 200);
        });
        assert_eq!(stats.received, 1);
    }
}
