//! The reference model: both traits in memory, simple enough to be obviously right.
//!
//! It keeps nothing across a restart and looks at everything for each claim. Tests compare the
//! embedded store with it, and the forwarder's tests run on it under tokio's paused clock.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::lease::Returns;
use super::{
    ATTEMPTS_KEPT, AppendError, Attempt, Batch, Bound, Claimed, DeadLetters, Detail, Filter, Key, Lease, Ledger,
    Listed, Outbox, Outcome, Progress, ReadError, Receipt, Report, Route, Selection, SettleError, Settled, State,
    Stats, Wait, Want,
};
use crate::clock::{Clock, Timestamp};
use crate::event::{Event, EventId, UserId};
use crate::reason::Reason;

/// A dead letter that found no room is tried again after so long.
const HELD_BACK_FOR: Duration = Duration::from_secs(300);

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

/// An event that waits or is dead.
#[derive(Clone)]
struct Entry {
    id: EventId,
    event: Event,
    progress: Progress,
    /// The ledger's `delivered` when it failed last.
    delivered_mark: u64,
    next_at: Option<Timestamp>,
    reason: Option<Reason>,
    attempts: Vec<Attempt>,
}

#[derive(Default)]
struct Inner {
    next_seq: u64,
    ledger: Ledger,
    waiting: BTreeMap<u64, Entry>,
    dead: BTreeMap<u64, Entry>,
    done: BTreeMap<u64, (EventId, Report)>,
    /// In flight; `true` if the intent to send is recorded.
    flying: BTreeMap<u64, bool>,
    /// When a user's next event is due.
    gates: HashMap<UserId, Timestamp>,
    /// Users released lately, longest ago first.
    released: Vec<UserId>,
    keys: HashMap<(Route, Box<str>), (Key, Vec<EventId>)>,
    ignores_backoff: bool,
    is_closed: bool,
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

    /// The state, after dropped leases gave their events back.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        for (seq, _) in self.returns.take() {
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
                lease: Lease::new(seq, 0, Arc::clone(&self.returns)),
                id: entry.id,
                event: entry.event.clone(),
                progress: Progress { overtaken, ..entry.progress },
            }
        };
        seqs.into_iter().map(hand_out).collect()
    }
}

impl Inner {
    fn append(&mut self, batch: Batch, now: Timestamp, limits: Limits) -> Result<Receipt, AppendError> {
        if self.is_closed {
            return Err(AppendError::Closed);
        }
        if let Some((known, ids)) = batch.key.as_ref().and_then(|key| self.keys.get(&(key.route, key.key.clone()))) {
            let is_same = batch.key.as_ref().is_some_and(|key| key.body == known.body);
            let receipt = Receipt { ids: ids.clone(), replayed: Some(known.notes.clone()) };
            return if is_same { Ok(receipt) } else { Err(AppendError::KeyReused) };
        }
        let held = self.ledger.undelivered() + self.ledger.dead + batch.events.len() as u64;
        if limits.max_events > 0 && held > limits.max_events {
            return Err(AppendError::Full(Bound::Events));
        }
        let mut ids = Vec::new();
        for event in batch.events {
            let id = EventId::new(now, self.next_seq, 0);
            let (progress, attempts) = (Progress::default(), Vec::new());
            let entry = Entry { id, event, progress, delivered_mark: 0, next_at: None, reason: None, attempts };
            self.waiting.insert(self.next_seq, entry);
            self.next_seq += 1;
            self.ledger.accepted += 1;
            ids.push(id);
        }
        if let Some(key) = batch.key {
            self.keys.insert((key.route, key.key.clone()), (key, ids.clone()));
        }
        Ok(Receipt { ids, replayed: None })
    }

    /// The first waiting event of each user that has nothing in flight and is due.
    fn pick(&self, want: Want, now: Timestamp) -> Vec<u64> {
        let mut users: HashSet<&UserId> = self.flying.keys().map(|seq| &self.waiting[seq].event.user).collect();
        let is_due = |user| self.ignores_backoff || self.gates.get(user).is_none_or(|due| *due <= now);
        let heads = self.waiting.iter().filter(|(_, entry)| users.insert(&entry.event.user));
        let mut heads: Vec<(u64, &UserId)> = heads.map(|(seq, entry)| (*seq, &entry.event.user)).collect();
        heads.retain(|(_, user)| is_due(user));
        if want.rotate {
            // Those that were not released lately first; then the one released longest ago.
            let turn = |user| self.released.iter().position(|other| other == user).map_or(0, |turn| turn + 1);
            heads.sort_by_key(|(seq, user)| (turn(*user), *seq));
        }
        heads.into_iter().map(|(seq, _)| seq).take(want.max).collect()
    }

    fn next_due(&self, now: Timestamp) -> Option<Timestamp> {
        self.gates.values().filter(|due| **due > now).min().copied()
    }

    fn release(&mut self, seq: u64) {
        if self.flying.remove(&seq).is_some() {
            let user = self.waiting[&seq].event.user.clone();
            self.released.retain(|other| *other != user);
            self.released.push(user);
        }
    }

    /// Takes an event out of the queue; its user's next one is due.
    fn end(&mut self, seq: u64) -> Option<Entry> {
        self.flying.remove(&seq);
        let entry = self.waiting.remove(&seq)?;
        self.gates.remove(&entry.event.user);
        self.released.retain(|other| *other != entry.event.user);
        Some(entry)
    }

    fn die(&mut self, seq: u64, reason: Reason) {
        if let Some(mut entry) = self.end(seq) {
            entry.reason = Some(reason);
            entry.next_at = None;
            self.dead.insert(seq, entry);
            self.ledger.dead += 1;
        }
    }

    fn settle(&mut self, seq: u64, outcome: Outcome, now: Timestamp, limits: Limits) -> Result<Settled, SettleError> {
        if !self.flying.contains_key(&seq) {
            return Err(SettleError::LeaseLost);
        }
        match outcome {
            Outcome::Delivered { request_id } => self.deliver(seq, request_id, now),
            Outcome::Retry { at, strike, attempt } => {
                let reason = attempt.reason;
                self.fail(seq, at, strike, attempt, reason);
            }
            Outcome::Release => self.release(seq),
            Outcome::Dead { attempt, .. } if limits.max_dead > 0 && self.ledger.dead >= limits.max_dead => {
                self.fail(seq, now.plus(HELD_BACK_FOR), false, attempt, Reason::DeadLettersFull);
                return Ok(Settled::HeldBack);
            }
            Outcome::Dead { reason, attempt } => {
                if let Some(entry) = self.waiting.get_mut(&seq) {
                    entry.burn(attempt);
                }
                self.die(seq, reason);
            }
        }
        Ok(Settled::Done)
    }

    fn deliver(&mut self, seq: u64, request_id: Option<Box<str>>, now: Timestamp) {
        let Some(entry) = self.end(seq) else { return };
        let report = Report {
            state: State::Delivered,
            attempts: entry.progress.attempts,
            next_attempt_at: None,
            delivered_at: Some(now),
            reason: None,
            message: None,
            request_id,
        };
        self.done.insert(seq, (entry.id, report));
        self.ledger.delivered += 1;
    }

    fn fail(&mut self, seq: u64, at: Timestamp, strike: bool, attempt: Attempt, reason: Reason) {
        self.flying.remove(&seq);
        let delivered = self.ledger.delivered;
        let Some(entry) = self.waiting.get_mut(&seq) else { return };
        entry.progress.first_failed_at.get_or_insert(attempt.at);
        entry.progress.strikes += u32::from(strike);
        entry.burn(attempt);
        (entry.delivered_mark, entry.next_at, entry.reason) = (delivered, Some(at), Some(reason));
        let user = entry.event.user.clone();
        self.released.retain(|other| *other != user);
        self.gates.insert(user, at);
    }

    fn report(&self, id: EventId) -> Option<Report> {
        let of = |entry: &Entry, state| {
            let last = entry.attempts.last().filter(|_| entry.progress.attempts > 0 || state == State::Dead);
            Report {
                state,
                attempts: entry.progress.attempts,
                next_attempt_at: entry.next_at.filter(|_| state == State::Retrying),
                delivered_at: None,
                reason: entry.reason,
                message: last.and_then(|attempt| attempt.message.clone()),
                request_id: last.and_then(|attempt| attempt.request_id.clone()),
            }
        };
        let seq = id.seq();
        if let Some(entry) = self.waiting.get(&seq).filter(|entry| entry.id == id) {
            let failed = entry.progress.attempts > 0;
            let state = match self.flying.contains_key(&seq) {
                true => State::InFlight,
                false if failed => State::Retrying,
                false => State::Pending,
            };
            return Some(of(entry, state));
        }
        let dead = self.dead.get(&seq).filter(|entry| entry.id == id).map(|entry| of(entry, State::Dead));
        dead.or_else(|| self.done.get(&seq).filter(|(done, _)| *done == id).map(|(_, report)| report.clone()))
    }

    fn listed(&self, entry: &Entry) -> Option<Listed> {
        let (id, user, trigger) = (entry.id, entry.event.user.clone(), entry.event.trigger);
        Some(Listed { id, user, trigger, body_bytes: entry.event.body.len(), report: self.report(id)? })
    }

    fn list(&self, filter: &Filter) -> impl Iterator<Item = Listed> {
        let seqs: BTreeSet<u64> = self.waiting.keys().chain(self.dead.keys()).copied().collect();
        let entries = seqs.into_iter().filter_map(|seq| self.waiting.get(&seq).or_else(|| self.dead.get(&seq)));
        entries.filter_map(|entry| self.listed(entry)).filter(|line| {
            filter.state.is_none_or(|state| state == line.report.state)
                && filter.user.as_ref().is_none_or(|user| *user == line.user)
                && filter.reason.is_none_or(|reason| Some(reason) == line.report.reason)
        })
    }

    /// The dead among those that are meant.
    fn selected(&self, which: Selection) -> BTreeSet<u64> {
        match which {
            Selection::Ids(ids) => {
                let dead = ids.iter().filter(|id| self.dead.get(&id.seq()).is_some_and(|entry| entry.id == **id));
                dead.map(|id| id.seq()).collect()
            }
            Selection::Matching(filter) => {
                let lines = self.list(&filter).filter(|line| line.report.state == State::Dead);
                lines.map(|line| line.id.seq()).collect()
            }
        }
    }

    fn replay(&mut self, seq: u64) {
        if let Some(mut entry) = self.dead.remove(&seq) {
            self.ledger.dead -= 1;
            (entry.progress, entry.reason) = (Progress::default(), None);
            self.waiting.insert(seq, entry);
        }
    }

    fn discard(&mut self, seq: u64) {
        if self.dead.remove(&seq).is_some() {
            self.ledger.dead -= 1;
            self.ledger.discarded += 1;
        }
    }
}

impl Entry {
    fn burn(&mut self, attempt: Attempt) {
        self.progress.attempts += 1;
        self.attempts.push(attempt);
        if self.attempts.len() > ATTEMPTS_KEPT {
            self.attempts.remove(0);
        }
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
        let seq = lease.seq();
        self.change(move |inner, _| {
            let flight = inner.flying.get_mut(&seq).ok_or(SettleError::LeaseLost)?;
            *flight = true;
            Ok(())
        })
    }

    fn settle(&self, lease: Lease, outcome: Outcome) -> Wait<'_, Result<Settled, SettleError>> {
        let ((seq, _), limits) = (lease.end(), self.limits);
        self.change(move |inner, now| inner.settle(seq, outcome, now, limits))
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
            Some(Detail { listed: inner.listed(entry)?, body, attempts })
        });
        Box::pin(std::future::ready(Ok(detail)))
    }

    fn replay(&self, which: Selection) -> Wait<'_, Result<u64, ReadError>> {
        self.change(|inner, _| {
            let seqs = inner.selected(which);
            seqs.iter().for_each(|seq| inner.replay(*seq));
            Ok(seqs.len() as u64)
        })
    }

    fn discard(&self, which: Selection) -> Wait<'_, Result<u64, ReadError>> {
        self.change(|inner, _| {
            let seqs = inner.selected(which);
            seqs.iter().for_each(|seq| inner.discard(*seq));
            Ok(seqs.len() as u64)
        })
    }
}
