//! What operators decide about dead letters, in slices so that nobody waits for a long list.

use std::collections::BTreeSet;

use super::env::Env;
use super::erase::Stage;
use super::fault::Fault;
use super::inbox::{Decided, Decision};
use super::row::DeadRow;
use super::store::Store;
use crate::clock::Timestamp;
use crate::metrics::Discarded;
use crate::outbox::{Attempt, Filter, Selection, State, Terms, may_be_counted, unsure_of};

/// Dead letters looked at in one transaction.
const SLICE: usize = 256;

/// Most events are not larger.
const USUAL_BYTES: u64 = 1024;

/// A decision that is being carried out.
pub(super) struct Job {
    pub(super) decision: Decision,
    pub(super) which: Selection,
    /// Where to go on: a sequence, or a position in the list of ids.
    pub(super) next: u64,
    /// How far an erasure is.
    pub(super) stage: Stage,
    /// What was decided so far, as committed.
    pub(super) decided: Decided,
    /// Sequences of the events that an erasure ended: some 20 bytes for each, until it is over.
    pub(super) gone: BTreeSet<u64>,
}

impl Job {
    pub(super) fn new(decision: Decision, mut which: Selection) -> Self {
        let after = match &decision {
            Decision::Replay(terms) => terms.after.map(|id| id.seq()),
            _ => None,
        };
        if let Selection::Ids(ids) = &mut which {
            // In sequence and each once, so that a replay can go on after one of them.
            ids.sort_by_key(|id| id.seq());
            ids.dedup();
            ids.retain(|id| after.is_none_or(|after| id.seq() > after));
        }
        let next = match &which {
            Selection::Ids(_) => 0,
            Selection::Matching(_) => after.map_or(0, |after| after + 1),
        };
        Self { decision, which, next, stage: Stage::default(), decided: Decided::default(), gone: BTreeSet::new() }
    }
}

/// What a slice has come to, once committed.
#[derive(Debug, Default)]
pub(super) struct Slice {
    pub(super) next: u64,
    pub(super) stage: Stage,
    /// Only of this slice.
    pub(super) decided: Decided,
    /// Sequences of the events that an erasure ended.
    pub(super) gone: Vec<u64>,
    pub(super) is_last: bool,
}

impl Store {
    /// Carries out the next slice in the open transaction.
    pub(super) fn decide(&mut self, env: &Env, job: &Job) -> Result<Slice, Fault> {
        if let Decision::Erase(user) = &job.decision {
            return self.erase_slice(env, job, user);
        }
        let (rows, next, is_last) = self.dead_slice(job)?;
        let mut slice = Slice { next, is_last, ..Slice::default() };
        let done = &mut slice.decided.replayed;
        for row in &rows {
            match &job.decision {
                Decision::Replay(terms) if !terms.may_duplicate && self.may_be_counted(row)? => done.passed_over += 1,
                Decision::Replay(terms) => {
                    self.replay(env, row)?;
                    done.count += 1;
                    if job.decided.replayed.count + done.count >= terms.limit {
                        (done.next, slice.is_last) = (Some(row.id), true);
                        break;
                    }
                }
                _ => {
                    self.discard(row)?;
                    done.count += 1;
                }
            }
        }
        Ok(slice)
    }

    /// The next dead letters that are meant, where to go on, and whether that is all.
    fn dead_slice(&self, job: &Job) -> Result<(Vec<DeadRow>, u64, bool), Fault> {
        match &job.which {
            Selection::Ids(ids) => {
                let slice: Vec<_> = ids.iter().skip(job.next as usize).take(SLICE).collect();
                let mut rows = Vec::with_capacity(slice.len());
                for id in &slice {
                    rows.extend(self.sql.dead(id.seq())?.filter(|row| row.id == **id));
                }
                let next = job.next + slice.len() as u64;
                Ok((rows, next, next >= ids.len() as u64))
            }
            Selection::Matching(filter) => {
                let rows = self.sql.dead_from(job.next, SLICE as u64, filter)?;
                let (is_last, next) = (rows.len() < SLICE, rows.last().map_or(job.next, |row| row.id.seq() + 1));
                Ok((rows.into_iter().filter(|row| lets_through(filter, row)).collect(), next, is_last))
            }
        }
    }

    fn may_be_counted(&self, row: &DeadRow) -> Result<bool, Fault> {
        let seq = row.id.seq();
        let is_unsure = self.sql.unsure(seq)?.is_some();
        Ok(may_be_counted(row.reason, &self.sql.attempts(seq)?, row.attempts, is_unsure))
    }

    /// Whether another dead letter would be held back: one as large as the last that was, or a usual one.
    pub(super) fn is_full_of_dead(&self, env: &Env) -> bool {
        let next = self.books.held_back.max(USUAL_BYTES);
        self.books.dead_bytes + next > env.settings.max_bytes / 2
    }

    /// Cello may have this event, and no attempt that is kept may tell.
    pub(super) fn set_unsure(&mut self, seq: u64, attempt: &Attempt) -> Result<(), Fault> {
        self.books.has_unsure = true;
        Ok(self.sql.set_unsure(seq, attempt)?)
    }

    /// The event ended. Costs nothing while there is no such event.
    pub(super) fn forget_unsure(&mut self, seq: u64) -> Result<(), Fault> {
        if self.books.has_unsure && self.sql.delete_unsure(seq)? {
            self.books.has_unsure = self.sql.has_unsure()?;
        }
        Ok(())
    }

    /// Forgets the failed attempts of an event.
    pub(super) fn forget_history(&mut self, seq: u64) -> Result<(), Fault> {
        if self.sql.delete_progress(seq)? {
            self.books.failed = self.books.failed.saturating_sub(1);
        }
        self.sql.delete_attempts(seq)?;
        Ok(())
    }

    /// Puts a dead letter back. What was read of the queue before must not overtake it, and what was
    /// not read yet must not be overtaken by it:
    ///
    /// * behind the cursor it is parked (its user gets a gate if it has none);
    /// * before it, it is found when the reading gets there, unless later events of its user are
    ///   parked already: then all of them up to there are, and so is it.
    ///
    /// Its attempts will make room for later ones; that Cello may have counted it stays known.
    fn replay(&mut self, env: &Env, row: &DeadRow) -> Result<(), Fault> {
        let seq = row.id.seq();
        if self.sql.unsure(seq)?.is_none() && self.may_be_counted(row)? {
            let attempt = unsure_of(&self.sql.attempts(seq)?, env.clock.now());
            self.set_unsure(seq, &attempt)?;
        }
        self.sql.raise(seq, &row.user)?;
        self.books.ledger.dead -= 1;
        self.books.dead_bytes = self.books.dead_bytes.saturating_sub(row.bytes());
        let is_read = seq < self.queue.cursor;
        let is_parked_over = self.books.gates > 0 && self.sql.last_parked(&row.user)?.is_some_and(|last| seq < last);
        if is_read || is_parked_over {
            self.gate(env, &row.user, None)?;
            self.sql.park(&row.user, seq)?;
        }
        Ok(())
    }

    fn discard(&mut self, row: &DeadRow) -> Result<(), Fault> {
        self.end_dead(row)?;
        self.books.ledger.discarded += 1;
        Ok(())
    }

    /// Removes a dead letter and its history; the caller books what became of it.
    pub(super) fn end_dead(&mut self, row: &DeadRow) -> Result<(), Fault> {
        let seq = row.id.seq();
        self.sql.delete_dead(seq, &row.user)?;
        self.sql.delete_attempts(seq)?;
        self.forget_unsure(seq)?;
        self.books.ledger.dead -= 1;
        self.books.dead_bytes = self.books.dead_bytes.saturating_sub(row.bytes());
        Ok(())
    }

    /// Since when a dead letter that is still there is too old, if there is an age. While a copy goes on they are not
    /// counted yet.
    fn expiry(&self, env: &Env, now: Timestamp) -> Option<Timestamp> {
        let has_dead = self.books.ledger.dead > 0 && self.recovery.is_none();
        env.settings.dead_max_age.filter(|_| has_dead).map(|age| now.minus(age))
    }

    /// Whether there are dead letters over `outbox.dead_max_age`.
    pub(super) fn has_expired(&self, env: &Env) -> Result<bool, Fault> {
        let Some(until) = self.expiry(env, env.clock.now()) else { return Ok(false) };
        Ok(!self.sql.dead_until(until, 1)?.is_empty())
    }

    /// Discards some of the dead letters that are over `outbox.dead_max_age`.
    pub(super) fn discard_expired(&mut self, env: &Env, now: Timestamp) -> Result<(), Fault> {
        let Some(until) = self.expiry(env, now) else { return Ok(()) };
        for seq in self.sql.dead_until(until, SLICE as u64)? {
            if let Some(row) = self.sql.dead(seq)? {
                self.discard(&row)?;
                self.counts.expired += 1;
            }
        }
        Ok(())
    }
}

/// Counts what was decided and is durable.
pub(super) fn count(env: &Env, decision: &Decision, slice: &Decided) {
    let count = slice.replayed.count;
    match decision {
        Decision::Replay(Terms { .. }) => env.metrics.replayed.inc_by(count),
        Decision::Discard => env.metrics.discarded.with(Discarded::Operator).inc_by(count),
        Decision::Erase(_) => env.metrics.discarded.with(Discarded::Erased).inc_by(slice.erased.events()),
    }
}

/// Whether a dead letter is meant by a filter.
pub(super) fn lets_through(filter: &Filter, row: &DeadRow) -> bool {
    filter.state.is_none_or(|state| state == State::Dead)
        && filter.user.as_ref().is_none_or(|user| *user == row.user)
        && filter.reason.is_none_or(|reason| Some(reason) == row.reason)
        && filter.is_in_time(row.id)
}
