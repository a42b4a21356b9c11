//! An outbox for the forwarder's tests: in memory, in virtual time, and willing to settle late.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use cello_relay::clock::{Clock, Timestamp};
use cello_relay::event::{Event, EventId, Trigger, UserId};
use cello_relay::outbox::lease::Returns;
use cello_relay::outbox::{
    AppendError, Batch, Claimed, Lease, Ledger, Outbox, Outcome, Progress, ReadError, Receipt, Report, SettleError,
    Settled, Stats, Wait, Want,
};
use cello_relay::reason::Reason;
use tokio::sync::{Notify, watch};

/// Where an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Waiting,
    InFlight,
    Delivered,
    Dead(Reason),
}

struct Row {
    id: EventId,
    event: Event,
    place: Place,
    due: Option<Timestamp>,
    progress: Progress,
    /// Deliveries there had been when the last attempt failed.
    delivered_then: u64,
    /// Order of the last release.
    released: u64,
}

#[derive(Default)]
struct Rows {
    all: BTreeMap<u64, Row>,
    /// Users of the delivered events, by delivery.
    delivered: Vec<EventId>,
    releases: u64,
    ignore_backoff: bool,
    closed: bool,
    intents: HashSet<u64>,
}

pub(crate) struct FakeOutbox {
    rows: Mutex<Rows>,
    clock: Arc<dyn Clock>,
    returns: Arc<Returns>,
    wake: Arc<Notify>,
    settles: watch::Sender<u64>,
    /// Settles wait while this is `false`.
    writable: watch::Sender<bool>,
    /// So many settles fail.
    failing: AtomicUsize,
}

impl FakeOutbox {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        let wake = Arc::new(Notify::new());
        let waker = Arc::clone(&wake);
        let returns = Returns::new(move || waker.notify_one());
        let (settles, writable) = (watch::Sender::new(0), watch::Sender::new(true));
        Arc::new(Self { rows: Mutex::default(), clock, returns, wake, settles, writable, failing: AtomicUsize::new(0) })
    }

    /// Stores one event of that user; gives its id.
    pub(crate) fn post(&self, user: &str) -> EventId {
        let mut rows = self.rows();
        let seq = rows.all.len() as u64;
        let id = EventId::new(self.clock.now(), seq, 0);
        let event =
            Event { user: UserId::new(user), trigger: Trigger::None, body: Bytes::from(user.to_owned()), trace: None };
        let row = Row {
            id,
            event,
            place: Place::Waiting,
            due: None,
            progress: Progress::default(),
            delivered_then: 0,
            released: 0,
        };
        rows.all.insert(seq, row);
        self.wake.notify_one();
        id
    }

    /// Lets settles become durable, or keeps them waiting.
    pub(crate) fn set_writable(&self, writable: bool) {
        self.writable.send_replace(writable);
    }

    /// Fails the next `count` settles.
    pub(crate) fn fail_settles(&self, count: usize) {
        self.failing.store(count, Ordering::SeqCst);
    }

    pub(crate) fn delivered(&self) -> Vec<EventId> {
        self.rows().delivered.clone()
    }

    pub(crate) fn dead(&self) -> Vec<Reason> {
        let rows = self.rows();
        let reason = |row: &Row| if let Place::Dead(reason) = row.place { Some(reason) } else { None };
        rows.all.values().filter_map(reason).collect()
    }

    pub(crate) fn progress(&self, id: EventId) -> Progress {
        self.rows().all[&id.seq()].progress
    }

    pub(crate) fn intents(&self) -> usize {
        self.rows().intents.len()
    }

    /// Resolves when `done` holds; asked after each settle.
    pub(crate) async fn until(&self, done: impl Fn(&Self) -> bool) {
        let mut settles = self.settles.subscribe();
        while !done(self) {
            settles.changed().await.expect("the sender is ours");
        }
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        let mut rows = self.rows.lock().unwrap();
        for (seq, _) in self.returns.take() {
            rows.release(seq);
        }
        rows
    }
}

impl Rows {
    fn release(&mut self, seq: u64) {
        self.releases += 1;
        let releases = self.releases;
        if let Some(row) = self.all.get_mut(&seq) {
            (row.place, row.released) = (Place::Waiting, releases);
        }
    }

    /// Hands out what may go; else says when the next is due.
    fn claim(&mut self, want: Want, now: Timestamp, returns: &Arc<Returns>) -> Result<Vec<Claimed>, Option<Timestamp>> {
        let mut seen = HashSet::new();
        let undelivered = |row: &Row| matches!(row.place, Place::Waiting | Place::InFlight);
        let heads = self.all.iter().filter(|(_, row)| undelivered(row));
        let heads = heads.filter(|(_, row)| seen.insert(row.event.user.clone()) && row.place == Place::Waiting);
        let heads: Vec<(u64, u64, Option<Timestamp>)> = heads.map(|(seq, row)| (*seq, row.released, row.due)).collect();
        let is_due = |due: Option<Timestamp>| self.ignore_backoff || due.is_none_or(|due| due <= now);
        let mut due: Vec<_> = heads.iter().filter(|(.., due)| is_due(*due)).collect();
        if want.rotate {
            due.sort_by_key(|(seq, released, _)| (*released, *seq));
        }
        if due.is_empty() {
            return Err(heads.iter().filter_map(|(.., due)| *due).min());
        }
        let seqs: Vec<u64> = due.iter().take(want.max).map(|(seq, ..)| *seq).collect();
        let deliveries = self.delivered.len() as u64;
        let hand_out = |seq: u64| {
            let row = self.all.get_mut(&seq).expect("a head is a row");
            row.place = Place::InFlight;
            row.progress.overtaken = row.progress.attempts > 0 && deliveries > row.delivered_then;
            let lease = Lease::new(seq, 0, Arc::clone(returns));
            Claimed { lease, id: row.id, event: row.event.clone(), progress: row.progress }
        };
        Ok(seqs.into_iter().map(hand_out).collect())
    }

    fn settle(&mut self, seq: u64, outcome: Outcome) {
        let deliveries = self.delivered.len() as u64;
        let row = self.all.get_mut(&seq).expect("a lease is of a row");
        assert_eq!(row.place, Place::InFlight);
        match outcome {
            Outcome::Delivered { .. } => {
                row.place = Place::Delivered;
                self.delivered.push(row.id);
            }
            Outcome::Retry { at, strike, attempt } => {
                row.place = Place::Waiting;
                row.due = Some(at);
                row.delivered_then = deliveries;
                row.progress.attempts += 1;
                row.progress.strikes += u32::from(strike);
                row.progress.first_failed_at.get_or_insert(attempt.at);
            }
            Outcome::Release => self.release(seq),
            Outcome::Dead { reason, .. } => row.place = Place::Dead(reason),
        }
    }
}

impl Outbox for FakeOutbox {
    fn append(&self, _: Batch) -> Wait<'_, Result<Receipt, AppendError>> {
        unreachable!("events are posted")
    }

    fn claim(&self, want: Want) -> Wait<'_, Vec<Claimed>> {
        assert!(want.max > 0);
        Box::pin(async move {
            loop {
                let claimed = {
                    let mut rows = self.rows();
                    if rows.closed {
                        return Vec::new();
                    }
                    rows.claim(want, self.clock.now(), &self.returns)
                };
                let due = match claimed {
                    Ok(claimed) => return claimed,
                    Err(due) => due.map_or(Duration::from_secs(86_400), |due| due.since(self.clock.now())),
                };
                tokio::select! {
                    () = self.wake.notified() => (),
                    () = tokio::time::sleep(due) => (),
                }
            }
        })
    }

    fn intend<'a>(&'a self, lease: &'a Lease) -> Wait<'a, Result<(), SettleError>> {
        self.rows().intents.insert(lease.seq());
        Box::pin(std::future::ready(Ok(())))
    }

    fn settle(&self, lease: Lease, outcome: Outcome) -> Wait<'_, Result<Settled, SettleError>> {
        Box::pin(async move {
            let mut writable = self.writable.subscribe();
            writable.wait_for(|writable| *writable).await.expect("the sender is ours");
            if self.failing.try_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
                return Err(SettleError::Unavailable);
            }
            let (seq, _) = lease.end();
            self.rows().settle(seq, outcome);
            self.wake.notify_one();
            self.settles.send_modify(|settles| *settles += 1);
            Ok(Settled::Done)
        })
    }

    fn lookup(&self, _: EventId) -> Wait<'_, Result<Option<Report>, ReadError>> {
        unreachable!("the forwarder looks nothing up")
    }

    fn stats(&self) -> Stats {
        let rows = self.rows();
        let count = |place: fn(&Row) -> bool| rows.all.values().filter(|row| place(row)).count() as u64;
        let ledger = Ledger {
            accepted: rows.all.len() as u64,
            delivered: rows.delivered.len() as u64,
            dead: count(|row| matches!(row.place, Place::Dead(_))),
            ..Ledger::default()
        };
        let retrying = count(|row| row.place == Place::Waiting && row.due.is_some());
        Stats { ledger, in_flight: count(|row| row.place == Place::InFlight), retrying, ..Stats::default() }
    }

    fn ignore_backoff(&self, ignore: bool) {
        self.rows().ignore_backoff = ignore;
        self.wake.notify_one();
    }

    fn close(&self) -> Wait<'_, ()> {
        self.rows().closed = true;
        self.wake.notify_one();
        Box::pin(std::future::ready(()))
    }
}
