//! The reference model of an outbox, watched, and willing to settle late or not at all.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use cello_relay::clock::Clock;
use cello_relay::event::{Event, EventId, Trigger, UserId};
use cello_relay::outbox::memory::Memory;
use cello_relay::outbox::{
    AppendError, Batch, Claimed, DeadLetters, Lease, Outbox, Outcome, ReadError, Receipt, Report, SettleError, Settled,
    Stats, Wait, Want,
};
use cello_relay::reason::Reason;
use tokio::sync::watch;

/// What was settled so far.
#[derive(Default)]
struct Seen {
    delivered: Vec<EventId>,
    dead: Vec<Reason>,
    unsure: Vec<EventId>,
    /// Burned attempts and strikes, by event.
    burned: HashMap<EventId, (u32, u32)>,
    intents: HashSet<u64>,
    ids: HashMap<u64, EventId>,
}

pub(crate) struct WatchedOutbox {
    inner: Memory,
    seen: Mutex<Seen>,
    settles: watch::Sender<u64>,
    /// Writes that were asked for.
    writes: AtomicUsize,
    /// Writes that may be done; later ones wait.
    allowed: watch::Sender<usize>,
    /// So many settles fail.
    failing: AtomicUsize,
    /// That an event is settled is answered so long after it is.
    tells_after: Mutex<Duration>,
}

impl WatchedOutbox {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        let (settles, allowed) = (watch::Sender::new(0), watch::Sender::new(usize::MAX));
        let (writes, failing) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let (inner, seen, tells_after) = (Memory::new(clock), Mutex::default(), Mutex::default());
        Arc::new(Self { inner, seen, settles, writes, allowed, failing, tells_after })
    }

    /// Stores one event of that user; gives its id.
    pub(crate) fn post(&self, user: &str) -> EventId {
        let event =
            Event { user: UserId::new(user), trigger: Trigger::None, body: Bytes::from(user.to_owned()), trace: None };
        let mut append = self.inner.append(Batch { events: vec![event], key: None });
        let Poll::Ready(receipt) = append.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
            panic!("the model appends at once")
        };
        let id = receipt.unwrap().ids[0];
        self.seen().ids.insert(id.seq(), id);
        id
    }

    /// Lets `count` more writes become durable; the rest waits until allowed.
    pub(crate) fn allow_writes(&self, count: usize) {
        self.allowed.send_modify(|allowed| {
            let so_far = if *allowed == usize::MAX { self.writes.load(Ordering::SeqCst) } else { *allowed };
            *allowed = so_far.saturating_add(count);
        });
    }

    async fn write(&self) {
        let turn = self.writes.fetch_add(1, Ordering::SeqCst);
        self.allowed.subscribe().wait_for(|allowed| turn < *allowed).await.unwrap();
    }

    /// Fails the next `count` settles.
    pub(crate) fn fail_settles(&self, count: usize) {
        self.failing.store(count, Ordering::SeqCst);
    }

    /// Answers settles late: by then it may have handed out the user's next event.
    pub(crate) fn tell_after(&self, time: Duration) {
        *self.tells_after.lock().unwrap() = time;
    }

    pub(crate) fn dead_letters(&self) -> &dyn DeadLetters {
        &self.inner
    }

    /// It failed and was opened anew: leases are lost, and their events handed out again.
    pub(crate) fn reopen(&self) {
        self.inner.reopen();
    }

    pub(crate) fn delivered(&self) -> Vec<EventId> {
        self.seen().delivered.clone()
    }

    pub(crate) fn dead(&self) -> Vec<Reason> {
        self.seen().dead.clone()
    }

    /// Given back, though Cello may have them.
    pub(crate) fn unsure(&self) -> Vec<EventId> {
        self.seen().unsure.clone()
    }

    /// Burned attempts and strikes of an event.
    pub(crate) fn burned(&self, id: EventId) -> (u32, u32) {
        self.seen().burned.get(&id).copied().unwrap_or_default()
    }

    pub(crate) fn intents(&self) -> usize {
        self.seen().intents.len()
    }

    /// Resolves when `done` holds; asked after each settle.
    pub(crate) async fn until(&self, done: impl Fn(&Self) -> bool) {
        let mut settles = self.settles.subscribe();
        while !done(self) {
            settles.changed().await.unwrap();
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }
}

impl Seen {
    fn note(&mut self, seq: u64, outcome: &Outcome) {
        let id = self.ids[&seq];
        match outcome {
            Outcome::Delivered { .. } => self.delivered.push(id),
            Outcome::Retry { strike, .. } => {
                let (attempts, strikes) = self.burned.entry(id).or_default();
                *attempts += 1;
                *strikes += u32::from(*strike);
            }
            Outcome::Release => (),
            Outcome::Unsure { .. } => self.unsure.push(id),
            Outcome::Dead { reason, .. } => self.dead.push(*reason),
        }
    }
}

impl Outbox for WatchedOutbox {
    fn append(&self, batch: Batch) -> Wait<'_, Result<Receipt, AppendError>> {
        self.inner.append(batch)
    }

    fn claim(&self, want: Want) -> Wait<'_, Vec<Claimed>> {
        assert!(want.max > 0);
        self.inner.claim(want)
    }

    fn intend<'a>(&'a self, lease: &'a Lease) -> Wait<'a, Result<(), SettleError>> {
        Box::pin(async move {
            self.write().await;
            self.seen().intents.insert(lease.seq());
            self.inner.intend(lease).await
        })
    }

    fn settle(&self, lease: Lease, outcome: Outcome) -> Wait<'_, Result<Settled, SettleError>> {
        Box::pin(async move {
            self.write().await;
            if self.failing.try_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
                return Err(SettleError::Unavailable);
            }
            let seq = lease.seq();
            let settled = self.inner.settle(lease, outcome.clone()).await;
            if settled.is_ok() {
                self.seen().note(seq, &outcome);
            }
            self.settles.send_modify(|settles| *settles += 1);
            let late = *self.tells_after.lock().unwrap();
            tokio::time::sleep(late).await;
            settled
        })
    }

    fn lookup(&self, id: EventId) -> Wait<'_, Result<Option<Report>, ReadError>> {
        self.inner.lookup(id)
    }

    fn stats(&self) -> Stats {
        self.inner.stats()
    }

    fn ignore_backoff(&self, ignore: bool) {
        self.inner.ignore_backoff(ignore);
    }

    fn close(&self) -> Wait<'_, ()> {
        self.inner.close()
    }
}
