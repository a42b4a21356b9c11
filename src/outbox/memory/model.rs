//! What the model knows, and the rules it changes by.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use super::Limits;
use crate::clock::Timestamp;
use crate::event::{Event, EventId, UserId};
use crate::outbox::{
    ATTEMPTS_KEPT, AppendError, Attempt, Batch, Bound, DeadGroup, Erased, Filter, Key, Ledger, Listed, Outcome,
    Progress, Receipt, Replayed, Report, Route, Selection, SettleError, Settled, State, Terms, Want, may_be_counted,
    names_user, unsure_of,
};
use crate::reason::Reason;

/// A dead letter that found no room is tried again after so long.
const HELD_BACK_FOR: Duration = Duration::from_secs(300);

/// An event that waits or is dead.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) id: EventId,
    pub(super) event: Event,
    pub(super) progress: Progress,
    /// The ledger's `delivered` when it failed last.
    pub(super) delivered_mark: u64,
    pub(super) next_at: Option<Timestamp>,
    pub(super) reason: Option<Reason>,
    pub(super) attempts: Vec<Attempt>,
    /// Cello may have it, though no attempt says so.
    pub(super) unsure: Option<Attempt>,
}

#[derive(Default)]
pub(super) struct Inner {
    pub(super) next_seq: u64,
    /// How often it was opened anew.
    pub(super) epoch: u64,
    pub(super) ledger: Ledger,
    pub(super) waiting: BTreeMap<u64, Entry>,
    pub(super) dead: BTreeMap<u64, Entry>,
    pub(super) done: BTreeMap<u64, (EventId, Report)>,
    /// In flight; `true` if the intent to send is recorded.
    pub(super) flying: BTreeMap<u64, bool>,
    /// When a user's next event is due.
    pub(super) gates: HashMap<UserId, Timestamp>,
    /// Users released lately, longest ago first.
    pub(super) released: Vec<UserId>,
    /// Users with dead letters: the last delivered event that passed one of them, and when.
    pub(super) passed: HashMap<UserId, (u64, Timestamp)>,
    pub(super) keys: HashMap<(Route, Box<str>), (Key, Vec<EventId>)>,
    pub(super) ignores_backoff: bool,
    pub(super) is_closed: bool,
}

impl Inner {
    pub(super) fn append(&mut self, batch: Batch, now: Timestamp, limits: Limits) -> Result<Receipt, AppendError> {
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
            let (delivered_mark, next_at, reason, unsure) = (0, None, None, None);
            let entry = Entry { id, event, progress, delivered_mark, next_at, reason, attempts, unsure };
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

    /// Leases of an earlier opening are lost.
    pub(super) fn knows(&self, epoch: u64) -> Result<(), SettleError> {
        if epoch == self.epoch { Ok(()) } else { Err(SettleError::LeaseLost) }
    }

    /// The first waiting event of each user that has nothing in flight and is due.
    pub(super) fn pick(&self, want: Want, now: Timestamp) -> Vec<u64> {
        let mut users: HashSet<&UserId> = self.flying.keys().map(|seq| &self.waiting[seq].event.user).collect();
        let is_held_back = |seq: &u64| self.waiting[seq].reason == Some(Reason::DeadLettersFull);
        let is_due = |seq: &u64, user| {
            let ignores_gate = self.ignores_backoff && !is_held_back(seq);
            ignores_gate || self.gates.get(user).is_none_or(|due| *due <= now)
        };
        let heads = self.waiting.iter().filter(|(_, entry)| users.insert(&entry.event.user));
        let mut heads: Vec<(u64, &UserId)> = heads.map(|(seq, entry)| (*seq, &entry.event.user)).collect();
        heads.retain(|(seq, user)| is_due(seq, *user));
        if want.rotate {
            // Those that were not released lately first; then the one released longest ago.
            let turn = |user| self.released.iter().position(|other| other == user).map_or(0, |turn| turn + 1);
            heads.sort_by_key(|(seq, user)| (turn(*user), *seq));
        }
        heads.into_iter().map(|(seq, _)| seq).take(want.max).collect()
    }

    pub(super) fn next_due(&self, now: Timestamp) -> Option<Timestamp> {
        self.gates.values().filter(|due| **due > now).min().copied()
    }

    pub(super) fn release(&mut self, seq: u64) {
        if self.flying.remove(&seq).is_some() {
            let user = self.waiting[&seq].event.user.clone();
            self.released.retain(|other| *other != user);
            self.released.push(user);
        }
    }

    /// Takes an event out of the queue; its user's next one is due.
    pub(super) fn end(&mut self, seq: u64) -> Option<Entry> {
        self.flying.remove(&seq);
        let entry = self.waiting.remove(&seq)?;
        self.gates.remove(&entry.event.user);
        self.released.retain(|other| *other != entry.event.user);
        Some(entry)
    }

    pub(super) fn die(&mut self, seq: u64, reason: Reason) {
        if let Some(mut entry) = self.end(seq) {
            entry.reason = Some(reason);
            entry.next_at = None;
            self.dead.insert(seq, entry);
            self.ledger.dead += 1;
        }
    }

    pub(super) fn settle(
        &mut self,
        seq: u64,
        outcome: Outcome,
        now: Timestamp,
        limits: Limits,
    ) -> Result<Settled, SettleError> {
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
            Outcome::Unsure { attempt } => {
                if let Some(entry) = self.waiting.get_mut(&seq) {
                    entry.unsure = Some(Attempt { message: None, ..attempt });
                }
                self.release(seq);
            }
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

    pub(super) fn deliver(&mut self, seq: u64, request_id: Option<Box<str>>, now: Timestamp) {
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
        let user = entry.event.user;
        let noted = self.passed.get(&user).map_or(0, |(seq, _)| *seq);
        if noted < seq && self.dead.range(noted..seq).any(|(_, dead)| dead.event.user == user) {
            self.passed.insert(user, (seq, now));
        }
        self.done.insert(seq, (entry.id, report));
        self.ledger.delivered += 1;
    }

    pub(super) fn fail(&mut self, seq: u64, at: Timestamp, strike: bool, attempt: Attempt, reason: Reason) {
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

    pub(super) fn report(&self, id: EventId) -> Option<Report> {
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

    pub(super) fn listed(&self, entry: &Entry) -> Option<Listed> {
        let (id, user, trigger) = (entry.id, entry.event.user.clone(), entry.event.trigger);
        let report = self.report(id)?;
        let made = entry.progress.attempts;
        let counted = may_be_counted(entry.reason, &entry.attempts, made, entry.unsure.is_some());
        let may_be_counted = report.state == State::Dead && counted;
        Some(Listed { id, user, trigger, body_bytes: entry.event.body.len(), report, may_be_counted })
    }

    pub(super) fn list(&self, filter: &Filter) -> impl Iterator<Item = Listed> {
        let seqs: BTreeSet<u64> = self.waiting.keys().chain(self.dead.keys()).copied().collect();
        let entries = seqs.into_iter().filter_map(|seq| self.waiting.get(&seq).or_else(|| self.dead.get(&seq)));
        entries.filter_map(|entry| self.listed(entry)).filter(|line| {
            filter.state.is_none_or(|state| state == line.report.state)
                && filter.user.as_ref().is_none_or(|user| *user == line.user)
                && filter.reason.is_none_or(|reason| Some(reason) == line.report.reason)
                && filter.is_in_time(line.id)
        })
    }

    /// The dead among those that are meant.
    pub(super) fn selected(&self, which: Selection) -> BTreeSet<u64> {
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

    pub(super) fn dead_groups(&self) -> Vec<DeadGroup> {
        let mut groups: Vec<DeadGroup> = Vec::new();
        for entry in self.dead.values() {
            match groups.iter_mut().find(|group| group.reason == entry.reason) {
                Some(group) => group.count += 1,
                None => groups.push(DeadGroup { reason: entry.reason, count: 1, oldest: entry.id.accepted_at() }),
            }
        }
        groups.sort_by_key(|group| std::cmp::Reverse(group.count));
        groups
    }

    pub(super) fn replay_all(&mut self, seqs: BTreeSet<u64>, terms: Terms, now: Timestamp) -> Replayed {
        let mut done = Replayed::default();
        for seq in seqs.into_iter().filter(|seq| terms.after.is_none_or(|after| *seq > after.seq())) {
            if done.count == terms.limit {
                break;
            }
            let Some(entry) = self.dead.get(&seq) else { continue };
            let made = entry.progress.attempts;
            let is_counted = may_be_counted(entry.reason, &entry.attempts, made, entry.unsure.is_some());
            if !terms.may_duplicate && is_counted {
                done.passed_over += 1;
                continue;
            }
            let id = entry.id;
            let unsure = is_counted.then(|| unsure_of(&entry.attempts, now));
            self.replay(seq, unsure);
            done.count += 1;
            done.next = (done.count == terms.limit).then_some(id);
        }
        done
    }

    fn replay(&mut self, seq: u64, unsure: Option<Attempt>) {
        if let Some(mut entry) = self.take_dead(seq) {
            (entry.progress, entry.reason) = (Progress::default(), None);
            entry.unsure = entry.unsure.or(unsure);
            self.waiting.insert(seq, entry);
        }
    }

    /// Erases what is not in flight of what was accepted before `end`; says whether something is.
    pub(super) fn erase(&mut self, user: &UserId, end: u64, erased: &mut Erased) -> bool {
        let of_user = |entries: &BTreeMap<u64, Entry>| -> Vec<u64> {
            entries.range(..end).filter(|(_, entry)| entry.event.user == *user).map(|(seq, _)| *seq).collect()
        };
        let mut gone = HashSet::new();
        for seq in of_user(&self.dead) {
            self.take_dead(seq);
            gone.insert(seq);
            self.ledger.erased += 1;
            erased.dead += 1;
        }
        for seq in of_user(&self.waiting) {
            if self.flying.contains_key(&seq) {
                continue;
            }
            let failed = self.end(seq).is_some_and(|entry| entry.progress.attempts > 0);
            gone.insert(seq);
            *(if failed { &mut erased.retrying } else { &mut erased.pending }) += 1;
            self.ledger.erased += 1;
        }
        let before = self.keys.len();
        self.keys.retain(|(_, name), (key, ids)| {
            let is_gone = ids.iter().all(|id| gone.contains(&id.seq()));
            !is_gone && !names_user(name, user) && !names_user(&key.notes, user)
        });
        erased.keys += (before - self.keys.len()) as u64;
        !of_user(&self.waiting).is_empty()
    }

    pub(super) fn discard(&mut self, seq: u64) {
        if self.take_dead(seq).is_some() {
            self.ledger.discarded += 1;
        }
    }

    /// Removes a dead letter; with a user's last one goes what is noted of them.
    fn take_dead(&mut self, seq: u64) -> Option<Entry> {
        let entry = self.dead.remove(&seq)?;
        self.ledger.dead -= 1;
        if !self.dead.values().any(|dead| dead.event.user == entry.event.user) {
            self.passed.remove(&entry.event.user);
        }
        Some(entry)
    }

    /// When a later event of a dead letter's user was delivered.
    pub(super) fn overtaken_at(&self, entry: &Entry) -> Option<Timestamp> {
        let (last, at) = self.passed.get(&entry.event.user)?;
        (self.dead.contains_key(&entry.id.seq()) && *last > entry.id.seq()).then_some(*at)
    }
}

impl Entry {
    pub(super) fn burn(&mut self, attempt: Attempt) {
        self.progress.attempts += 1;
        self.attempts.push(attempt);
        if self.attempts.len() > ATTEMPTS_KEPT {
            self.attempts.remove(0);
        }
    }
}

#[cfg(test)]
mod tests;
