//! The reference model: both traits in memory, simple enough to be obviously right.
//!
//! It keeps nothing across a restart and looks at everything for each claim. Tests compare the
//! embedded store with it, and the forwarder's tests run on it under tokio's paused clock.

mod model;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::lease::Returns;
use super::{
    AppendError, Batch, Bound, Claimed, DeadGroup, DeadLetters, Detail, Erased, Filter, Lease, Listed, Outbox, Outcome,
    Progress, ReadError, Receipt, Replayed, Report, Selection, SettleError, Settled, Stats, Terms, Wait, Want,
};
use crate::clock::{Clock, Timestamp};
use crate::event::{EventId, UserId};
use crate::reason::Reason;
use model::Inner;

/// What the model bounds; 0 is no limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Undelivered and dead events together.
    pub max_events: u64,
    /// Dead events; further ones are held back.
    pub max_dead: u64,
}

/// The reference model.
pub struct Memory {
    clock: Arc<dyn Clock>,
    limits: Limits,
    changed: Arc<Notify>,
    returns: Arc<Returns>,
    inner: Mutex<Inner>,
}

impl Memory {
    /// An empty model without bounds.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self::bounded(clock, Limits::default())
    }

    /// An empty model with bounds.
    #[must_use]
    pub fn bounded(clock: Arc<dyn Clock>, limits: Limits) -> Self {
        let changed = Arc::new(Notify::new());
        let wakes = Arc::clone(&changed);
        let returns = Returns::new(move || wakes.notify_waiters());
        let inner = Mutex::new(Inner { next_seq: 1, ..Inner::default() });
        Self { clock, limits, changed, returns, inner }
    }

    /// What a store does that failed and is opened anew: leases are lost, and their events handed out again.
    pub fn reopen(&self) {
        let mut inner = self.inner();
        inner.epoch += 1;
        for (seq, intended) in std::mem::take(&mut inner.flying) {
            if intended {
                inner.die(seq, Reason::Ambiguous);
            }
        }
        self.changed.notify_waiters();
    }

    /// The state, after dropped leases gave their events back.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        for (seq, epoch) in self.returns.take() {
            if epoch != inner.epoch {
                continue;
            }
            if inner.flying.get(&seq) == Some(&true) {
                inner.die(seq, Reason::Ambiguous);
            } else {
                inner.release(seq);
            }
        }
        inner
    }

    /// Changes the state and wakes those who wait for that.
    fn change<T: Send + 'static>(&self, change: impl FnOnce(&mut Inner, Timestamp) -> T) -> Wait<'static, T> {
        let result = change(&mut self.inner(), self.clock.now());
        self.changed.notify_waiters();
        Box::pin(std::future::ready(result))
    }

    fn hand_out(&self, inner: &mut Inner, want: Want) -> Vec<Claimed> {
        let seqs = inner.pick(want, self.clock.now());
        let hand_out = |seq: u64| {
            inner.flying.insert(seq, false);
            let entry = &inner.waiting[&seq];
            let overtaken = entry.progress.attempts > 0 && inner.ledger.delivered > entry.delivered_mark;
            Claimed {
                lease: Lease::new(seq, inner.epoch, Arc::clone(&self.returns)),
                id: entry.id,
                event: entry.event.clone(),
                progress: Progress { overtaken, ..entry.progress },
            }
        };
        seqs.into_iter().map(hand_out).collect()
    }
}

impl Outbox for Memory {
    fn append(&self, batch: Batch) -> Wait<'_, Result<Receipt, AppendError>> {
        let limits = self.limits;
        self.change(|inner, now| inner.append(batch, now, limits))
    }

    fn claim(&self, want: Want) -> Wait<'_, Vec<Claimed>> {
        Box::pin(async move {
            loop {
                let mut changed = std::pin::pin!(self.changed.notified());
                changed.as_mut().enable();
                let due = {
                    let mut inner = self.inner();
                    let claimed = self.hand_out(&mut inner, want);
                    if !claimed.is_empty() || inner.is_closed {
                        return claimed;
                    }
                    inner.next_due(self.clock.now())
                };
                let wait = due.map_or(Duration::MAX, |due| due.since(self.clock.now()));
                // Woken or due: either way, look again.
                drop(tokio::time::timeout(wait, changed).await);
            }
        })
    }

    fn intend<'a>(&'a self, lease: &'a Lease) -> Wait<'a, Result<(), SettleError>> {
        let (seq, epoch) = (lease.seq(), lease.epoch());
        self.change(move |inner, _| {
            inner.knows(epoch)?;
            let flight = inner.flying.get_mut(&seq).ok_or(SettleError::LeaseLost)?;
            *flight = true;
            Ok(())
        })
    }

    fn settle(&self, lease: Lease, outcome: Outcome) -> Wait<'_, Result<Settled, SettleError>> {
        let ((seq, epoch), limits) = (lease.end(), self.limits);
        self.change(move |inner, now| {
            inner.knows(epoch)?;
            inner.settle(seq, outcome, now, limits)
        })
    }

    fn lookup(&self, id: EventId) -> Wait<'_, Result<Option<Report>, ReadError>> {
        let report = self.inner().report(id);
        Box::pin(std::future::ready(Ok(report)))
    }

    fn stats(&self) -> Stats {
        let inner = self.inner();
        let failed =
            inner.waiting.iter().filter(|(seq, entry)| entry.progress.attempts > 0 && !inner.flying.contains_key(seq));
        let is_full =
            self.limits.max_events > 0 && inner.ledger.undelivered() + inner.ledger.dead + 1 > self.limits.max_events;
        Stats {
            ledger: inner.ledger,
            in_flight: inner.flying.len() as u64,
            retrying: failed.count() as u64,
            oldest: inner.waiting.values().next().map(|entry| entry.id.accepted_at()),
            dead_letters_full: self.limits.max_dead > 0 && inner.ledger.dead >= self.limits.max_dead,
            refusing: is_full.then_some(AppendError::Full(Bound::Events)),
            ..Stats::default()
        }
    }

    fn ignore_backoff(&self, ignore: bool) {
        self.inner().ignores_backoff = ignore;
        self.changed.notify_waiters();
    }

    fn close(&self) -> Wait<'_, ()> {
        self.change(|inner, _| inner.is_closed = true)
    }
}

impl DeadLetters for Memory {
    fn list(&self, filter: Filter, after: Option<EventId>, limit: usize) -> Wait<'_, Result<Vec<Listed>, ReadError>> {
        let from = after.map_or(0, |id| id.seq() + 1);
        let page = self.inner().list(&filter).filter(|line| line.id.seq() >= from).take(limit).collect();
        Box::pin(std::future::ready(Ok(page)))
    }

    fn show(&self, id: EventId) -> Wait<'_, Result<Option<Detail>, ReadError>> {
        let inner = self.inner();
        let entry = inner.waiting.get(&id.seq()).or_else(|| inner.dead.get(&id.seq())).filter(|entry| entry.id == id);
        let detail = entry.and_then(|entry| {
            let (body, attempts) = (entry.event.body.clone(), entry.attempts.clone());
            let (listed, unsure) = (inner.listed(entry)?, entry.unsure.clone());
            Some(Detail { listed, body, is_intact: true, attempts, overtaken_at: inner.overtaken_at(entry), unsure })
        });
        Box::pin(std::future::ready(Ok(detail)))
    }

    fn dead_groups(&self) -> Wait<'_, Result<Vec<DeadGroup>, ReadError>> {
        let groups = self.inner().dead_groups();
        Box::pin(std::future::ready(Ok(groups)))
    }

    fn replay(&self, which: Selection, terms: Terms) -> Wait<'_, Result<Replayed, ReadError>> {
        self.change(move |inner, now| {
            let seqs = inner.selected(which);
            Ok(inner.replay_all(seqs, terms, now))
        })
    }

    fn discard(&self, which: Selection) -> Wait<'_, Result<u64, ReadError>> {
        self.change(|inner, _| {
            let seqs = inner.selected(which);
            seqs.iter().for_each(|seq| inner.discard(*seq));
            Ok(seqs.len() as u64)
        })
    }

    fn erase(&self, user: UserId) -> Wait<'_, Result<Erased, ReadError>> {
        Box::pin(async move {
            let (mut erased, end) = (Erased { is_overwritten: true, ..Erased::default() }, self.inner().next_seq);
            loop {
                self.inner().erase(&user, end, &mut erased);
                self.changed.notify_waiters();
                let mut changed = std::pin::pin!(self.changed.notified());
                changed.as_mut().enable();
                // What landed between the two would not be told of again.
                if !self.inner().erase(&user, end, &mut erased) {
                    return Ok(erased);
                }
                changed.await;
            }
        })
    }
}
