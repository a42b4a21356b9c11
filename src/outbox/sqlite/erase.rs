//! Erasing a person: rows first, in slices, then what deleting leaves in free pages and the WAL.
//!
//! Rows are overwritten as they go (`secure_delete = ON` meanwhile). Free pages, which also hold events that
//! were delivered before, are given back to the volume until there are none; then the WAL is moved into the
//! database and emptied.

use super::decide::{Job, Slice};
use super::env::Env;
use super::fault::Fault;
use super::row::{DeadRow, KeyText, LineRow};
use super::store::Store;
use crate::event::{EventId, UserId};
use crate::outbox::{Filter, Selection, names_user};

/// Waiting events looked at in one transaction.
const LOOKED_AT: u64 = 4096;
/// Events erased, or keys looked at, in one transaction.
const SLICE: u64 = 256;

/// How far an erasure is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing was looked at yet.
    #[default]
    Start,
    /// Events that wait and were accepted before this sequence: before the first look.
    Waiting(u64),
    /// Dead letters: after those that wait, which may die meanwhile.
    Dead,
    /// Idempotency keys.
    Keys,
}

impl Store {
    /// The next slice of an erasure in the open transaction.
    pub(super) fn erase_slice(&mut self, env: &Env, job: &Job, user: &UserId) -> Result<Slice, Fault> {
        match (job.stage, &job.which) {
            (Stage::Keys, _) => self.erase_keys(job, user),
            (_, Selection::Ids(ids)) => self.erase_ids(env, ids, user),
            (Stage::Dead, _) => {
                let of_user = Filter { user: Some(user.clone()), ..Filter::default() };
                let rows = self.sql.dead_from(0, SLICE, &of_user)?;
                let is_more = rows.len() as u64 == SLICE;
                let stage = if is_more { Stage::Dead } else { Stage::Keys };
                let mut slice = Slice { stage, ..Slice::default() };
                for row in &rows {
                    self.erase_dead(env, row, &mut slice)?;
                }
                Ok(slice)
            }
            (Stage::Start, _) => self.erase_waiting_slice(env, job.next, self.books.next_seq, user),
            (Stage::Waiting(end), _) => self.erase_waiting_slice(env, job.next, end, user),
        }
    }

    /// What was in flight in an earlier pass and may have landed.
    fn erase_ids(&mut self, env: &Env, ids: &[EventId], user: &UserId) -> Result<Slice, Fault> {
        let mut slice = Slice { stage: Stage::Keys, ..Slice::default() };
        for id in ids {
            if let Some(row) = self.sql.dead(id.seq())?.filter(|row| row.id == *id && row.user == *user) {
                self.erase_dead(env, &row, &mut slice)?;
            } else if let Some(line) = self.sql.line(id.seq())?.filter(|line| line.id == *id && line.user == *user) {
                self.erase_waiting(env, &line, &mut slice)?;
            } else {
                // Delivered meanwhile.
                slice.gone.push(id.seq());
            }
        }
        slice.is_last = slice.gone.is_empty();
        self.let_rest_go_on(env, user)?;
        Ok(slice)
    }

    fn erase_dead(&mut self, env: &Env, row: &DeadRow, slice: &mut Slice) -> Result<(), Fault> {
        // Dead because of an intent, when its lease was lost.
        if env.astray.holds(row.id.seq(), env.clock.instant()) {
            slice.decided.flying.push(row.id);
            return Ok(());
        }
        self.end_dead(row)?;
        self.books.ledger.erased += 1;
        slice.decided.erased.dead += 1;
        slice.gone.push(row.id.seq());
        Ok(())
    }

    fn erase_waiting_slice(&mut self, env: &Env, from: u64, end: u64, user: &UserId) -> Result<Slice, Fault> {
        let mut lines: Vec<LineRow> = Vec::new();
        let next = self.sql.lines_from(from, LOOKED_AT, Some(user), |line| {
            lines.push(line);
            (lines.len() as u64) < SLICE
        })?;
        let next = next.filter(|next| *next < end);
        let stage = next.map_or(Stage::Dead, |_| Stage::Waiting(end));
        let mut slice = Slice { next: next.unwrap_or(0), stage, ..Slice::default() };
        for line in lines.iter().filter(|line| line.id.seq() < end) {
            self.erase_waiting(env, line, &mut slice)?;
        }
        self.let_rest_go_on(env, user)?;
        Ok(slice)
    }

    /// One that is in flight is told of and left; it is erased when it has landed. The gate takes what was read
    /// of the user's events out of memory.
    fn erase_waiting(&mut self, env: &Env, line: &LineRow, slice: &mut Slice) -> Result<(), Fault> {
        let seq = line.id.seq();
        self.gate(env, &line.user, None)?;
        let is_in_flight = self.queue.flight(seq).is_some() && !self.landed.contains(&seq);
        if is_in_flight || env.astray.holds(seq, env.clock.instant()) {
            slice.decided.flying.push(line.id);
            return Ok(());
        }
        let erased = &mut slice.decided.erased;
        match self.sql.progress(seq)? {
            Some(_) => erased.retrying += 1,
            None => erased.pending += 1,
        }
        slice.gone.push(seq);
        self.sql.delete_event(seq)?;
        self.forget_history(seq)?;
        self.forget_unsure(seq)?;
        self.sql.unpark(&line.user, seq)?;
        self.books.ledger.erased += 1;
        Ok(())
    }

    /// What was accepted of the user meanwhile.
    fn let_rest_go_on(&mut self, env: &Env, user: &UserId) -> Result<(), Fault> {
        if self.is_gated(user)? { self.let_go_on(env, user) } else { Ok(()) }
    }

    /// Keys that name the person, and those of requests of which every event was erased. A key that others'
    /// events were sent with stays: without it, their retry would count twice.
    fn erase_keys(&mut self, job: &Job, user: &UserId) -> Result<Slice, Fault> {
        let is_gone = |key: &KeyText| {
            let events = key.first_seq..key.first_seq.saturating_add(key.count);
            key.count > 0 && job.gone.range(events).count() as u64 == key.count
        };
        let names = |key: &KeyText| names_user(&key.key, user) || names_user(&key.notes, user);
        let from = job.next;
        let (last, count, bytes) = self.sql.forget_keys(from as i64, SLICE, |key| names(key) || is_gone(key))?;
        self.books.key_bytes = self.books.key_bytes.saturating_sub(bytes);
        let mut slice = Slice { stage: Stage::Keys, is_last: last.is_none(), ..Slice::default() };
        slice.next = last.map_or(from, |last| last as u64 + 1);
        slice.decided.erased.keys = count;
        Ok(slice)
    }
}

#[cfg(test)]
#[path = "erase/tests.rs"]
mod tests;
