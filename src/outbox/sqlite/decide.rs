//! What operators decide about dead letters, in slices so that nobody waits for a long list.

use super::env::Env;
use super::fault::Fault;
use super::inbox::Decision;
use super::row::DeadRow;
use super::store::Store;
use crate::metrics::Discarded;
use crate::outbox::{Filter, Selection, State};

/// Dead letters looked at in one transaction.
const SLICE: usize = 256;

/// A decision that is being carried out.
pub(super) struct Job {
    pub(super) decision: Decision,
    pub(super) which: Selection,
    /// Where to go on: a sequence, or a position in the list of ids.
    pub(super) next: u64,
    /// Dead letters decided so far, as committed.
    pub(super) count: u64,
}

/// What a slice has come to, once committed.
pub(super) struct Slice {
    pub(super) next: u64,
    pub(super) count: u64,
    pub(super) is_last: bool,
}

impl Store {
    /// Carries out the next slice in the open transaction.
    pub(super) fn decide(&mut self, env: &Env, job: &Job) -> Result<Slice, Fault> {
        let (rows, next, is_last) = match &job.which {
            Selection::Ids(ids) => {
                let slice: Vec<_> = ids.iter().skip(job.next as usize).take(SLICE).collect();
                let mut rows = Vec::with_capacity(slice.len());
                for id in &slice {
                    rows.extend(self.sql.dead(id.seq())?.filter(|row| row.id == **id));
                }
                let next = job.next + slice.len() as u64;
                (rows, next, next >= ids.len() as u64)
            }
            Selection::Matching(filter) => {
                let rows = self.sql.dead_from(job.next, SLICE as u64)?;
                let (is_last, next) = (rows.len() < SLICE, rows.last().map_or(job.next, |row| row.id.seq() + 1));
                (rows.into_iter().filter(|row| lets_through(filter, row)).collect(), next, is_last)
            }
        };
        let mut count = 0;
        for row in &rows {
            // The same id may have been named twice.
            if self.sql.dead(row.id.seq())?.is_none() {
                continue;
            }
            match job.decision {
                Decision::Replay => self.replay(env, row)?,
                Decision::Discard => self.discard(row)?,
            }
            count += 1;
        }
        Ok(Slice { next, count, is_last })
    }

    /// Puts a dead letter back. What was read of the queue before must not overtake it, and what was
    /// not read yet must not be overtaken by it:
    ///
    /// * behind the cursor it is parked (its user gets a gate if it has none);
    /// * before it, it is found when the reading gets there, unless later events of its user are
    ///   parked already: then all of them up to there are, and so is it.
    fn replay(&mut self, env: &Env, row: &DeadRow) -> Result<(), Fault> {
        let seq = row.id.seq();
        self.sql.raise(seq)?;
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
        let seq = row.id.seq();
        self.sql.delete_dead(seq)?;
        self.sql.delete_attempts(seq)?;
        self.books.ledger.dead -= 1;
        self.books.ledger.discarded += 1;
        self.books.dead_bytes = self.books.dead_bytes.saturating_sub(row.bytes());
        Ok(())
    }
}

/// Counts what was decided and is durable.
pub(super) fn count(env: &Env, decision: Decision, count: u64) {
    match decision {
        Decision::Replay => env.metrics.replayed.inc_by(count),
        Decision::Discard => env.metrics.discarded.with(Discarded::Operator).inc_by(count),
    }
}

/// Whether a dead letter is meant by a filter.
pub(super) fn lets_through(filter: &Filter, row: &DeadRow) -> bool {
    filter.state.is_none_or(|state| state == State::Dead)
        && filter.user.as_ref().is_none_or(|user| *user == row.user)
        && filter.reason.is_none_or(|reason| Some(reason) == row.reason)
}
