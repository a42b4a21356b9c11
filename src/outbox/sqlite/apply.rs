//! A batch of commands as one transaction.
//!
//! Nothing in memory but the mirror of the counts changes before the commit; what is to change
//! afterwards is returned as one [`Effect`] a command. A fault undoes the transaction and the mirror.

use std::time::Duration;

use super::env::Env;
use super::fault::Fault;
use super::inbox::Command;
use super::queue::{Deferred, Flight};
use super::row::{KeyRow, event_bytes};
use super::sql::contradiction;
use super::store::Store;
use crate::clock::Timestamp;
use crate::event::{EventId, UserId};
use crate::outbox::{AppendError, Attempt, Batch, Bound, Key, Outcome, Progress, Receipt, SettleError, Settled};
use crate::reason::Reason;

/// A dead letter that found no room is tried again after so long.
const HELD_BACK_FOR: Duration = Duration::from_secs(300);
/// A key costs so much beside its text, about.
const KEY_OVERHEAD_BYTES: u64 = 160;
/// Delivered events that are forgotten by one transaction, beside as many as it delivers.
const TRIM: u64 = 256;
/// Forgetting costs pages of its own. While there is other work it is put off until there is one in so many too much, or
/// until one part in so many of their time is over.
const PATIENCE: u32 = 64;

/// What a command has come to, once committed.
pub(super) enum Effect {
    Appended(Receipt),
    Refused(AppendError),
    Intended(Result<(), SettleError>),
    Settled { result: Result<Settled, SettleError>, after: After },
    None,
}

/// What becomes of an event that was in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// It left the queue, or waits on disk.
    Landed,
    /// It goes back to where it was.
    Released,
    /// It was not in flight.
    Nothing,
}

/// What one transaction is made of.
pub(super) struct Work<'a> {
    pub(super) commands: &'a [Command],
    /// Events whose intent was committed and whose lease was dropped.
    pub(super) abandoned: &'a [u64],
    /// Appends are refused: the disk is full.
    pub(super) is_full: bool,
}

impl Store {
    /// Runs `work` in the open transaction, which may have more behind it and before it: `added` are the bytes
    /// of the events that it writes, `effects` what each command has come to.
    pub(super) fn apply(
        &mut self,
        env: &mut Env,
        work: &Work<'_>,
        added: &mut u64,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Fault> {
        self.write_deferred(env)?;
        if self.queue.is_clogged() {
            for user in self.queue.blocked_users() {
                self.gate(env, &user, None)?;
            }
        }
        for seq in work.abandoned {
            let user = self.queue.flight(*seq).map(|flight| flight.waiting.event.user.clone());
            self.bury(env, *seq, Reason::Ambiguous, user.as_ref())?;
            self.sql.delete_intent(*seq)?;
            self.landed.push(*seq);
        }
        for command in work.commands {
            effects.push(match command {
                Command::Append { batch, .. } => self.append(env, batch, added, work.is_full)?,
                Command::Intend { seq, epoch, .. } => self.intend(*seq, *epoch)?,
                Command::Settle { seq, epoch, outcome, .. } => self.settle(env, *seq, *epoch, outcome, added)?,
                Command::Claim { .. } | Command::Decide { .. } | Command::Close { .. } => Effect::None,
            });
        }
        Ok(())
    }

    /// Writes what was seen while the queue was read. Comes before any command: what is parked later has to
    /// find it.
    fn write_deferred(&mut self, env: &Env) -> Result<(), Fault> {
        let unwritten = self.queue.deferred()[self.written_deferred..].to_vec();
        self.written_deferred += unwritten.len();
        for found in unwritten {
            match found {
                Deferred::Park(user, seq) => {
                    self.gate(env, &user, None)?;
                    self.sql.park(&user, seq)?;
                }
                Deferred::Corrupt(user, seq) => self.bury(env, seq, Reason::Corrupt, user.as_ref())?,
            }
        }
        Ok(())
    }

    // --- append

    fn append(&mut self, env: &mut Env, batch: &Batch, added: &mut u64, is_full: bool) -> Result<Effect, Fault> {
        let now = env.clock.now();
        if let Some(key) = &batch.key
            && let Some(effect) = self.answer_again(env, key, now)?
        {
            return Ok(effect);
        }
        if is_full {
            return Ok(Effect::Refused(AppendError::Full(Bound::Disk)));
        }
        let bytes = batch.events.iter().map(event_bytes).sum();
        if let Err(bound) = env.room(self, *added, bytes, batch.events.len() as u64) {
            return Ok(Effect::Refused(AppendError::Full(bound)));
        }
        *added += bytes;
        let (first_seq, salt) = (self.books.next_seq, (env.seams.salt)());
        let mut ids = Vec::with_capacity(batch.events.len());
        for (seq, event) in (first_seq..).zip(&batch.events) {
            let id = EventId::new(now, seq, salt);
            self.sql.insert_event(id, event)?;
            ids.push(id);
        }
        self.books.next_seq += ids.len() as u64;
        self.books.ledger.accepted += ids.len() as u64;
        if let Some(key) = &batch.key {
            self.remember_key(env, key, first_seq, ids.len() as u64, salt, now)?;
        }
        Ok(Effect::Appended(Receipt { ids, replayed: None }))
    }

    /// The first answer to a known key, or the refusal if it was used with another body.
    fn answer_again(&mut self, env: &Env, key: &Key, now: Timestamp) -> Result<Option<Effect>, Fault> {
        let Some(known) = self.sql.key(key)? else { return Ok(None) };
        if now.since(known.at) >= env.settings.key_remember {
            self.sql.delete_key(known.row_id)?;
            self.books.key_bytes = self.books.key_bytes.saturating_sub(known.bytes);
            return Ok(None);
        }
        if !known.same_body {
            return Ok(Some(Effect::Refused(AppendError::KeyReused)));
        }
        Ok(Some(Effect::Appended(Receipt { ids: known.ids(), replayed: Some(known.notes) })))
    }

    fn remember_key(
        &mut self,
        env: &Env,
        key: &Key,
        first_seq: u64,
        count: u64,
        salt: u32,
        at: Timestamp,
    ) -> Result<(), Fault> {
        let bytes = (key.key.len() + key.notes.len()) as u64 + KEY_OVERHEAD_BYTES;
        let notes = key.notes.clone();
        let row = KeyRow { row_id: 0, same_body: true, first_seq, count, salt, at, bytes, notes };
        self.sql.insert_key(key, &row)?;
        self.books.key_bytes += bytes;
        while self.books.key_bytes > env.settings.key_max_bytes {
            let Some((row_id, _, bytes)) = self.sql.oldest_key()? else { break };
            self.sql.delete_key(row_id)?;
            self.books.key_bytes = self.books.key_bytes.saturating_sub(bytes);
            self.counts.evicted += 1;
        }
        Ok(())
    }

    // --- settle

    fn intend(&mut self, seq: u64, epoch: u64) -> Result<Effect, Fault> {
        if epoch != self.epoch || self.queue.flight(seq).is_none() {
            return Ok(Effect::Intended(Err(SettleError::LeaseLost)));
        }
        self.sql.insert_intent(seq)?;
        Ok(Effect::Intended(Ok(())))
    }

    fn settle(&mut self, env: &Env, seq: u64, epoch: u64, outcome: &Outcome, added: &mut u64) -> Result<Effect, Fault> {
        let flight = self.queue.flight(seq).filter(|_| epoch == self.epoch).cloned();
        let Some(flight) = flight else {
            return Ok(Effect::Settled { result: Err(SettleError::LeaseLost), after: After::Nothing });
        };
        if flight.intended {
            self.sql.delete_intent(seq)?;
        }
        let (mut settled, mut after) = (Settled::Done, After::Landed);
        match outcome {
            Outcome::Delivered { request_id } => self.deliver(env, &flight, request_id.as_deref())?,
            Outcome::Retry { at, strike, attempt } => {
                self.retry(env, &flight, *at, *strike, attempt, attempt.reason)?;
            }
            Outcome::Release => after = After::Released,
            Outcome::Unsure { attempt } => {
                self.set_unsure(seq, attempt)?;
                after = After::Released;
            }
            Outcome::Dead { reason, attempt } => {
                let bytes = event_bytes(&flight.waiting.event);
                let is_full = self.books.dead_bytes + bytes > env.settings.max_bytes / 2;
                // What must not be sent again cannot wait for room.
                if is_full && *reason != Reason::Ambiguous {
                    let at = env.clock.now().plus(HELD_BACK_FOR);
                    self.retry(env, &flight, at, false, attempt, Reason::DeadLettersFull)?;
                    self.books.held_back = bytes;
                    settled = Settled::HeldBack;
                } else {
                    self.sql.add_attempt(seq, attempt)?;
                    let user = &flight.waiting.event.user;
                    self.bury_after(env, seq, *reason, Some(user), flight.progress.attempts + 1)?;
                    // It is written once more, among the dead letters.
                    *added += bytes;
                }
            }
        }
        if after == After::Landed {
            self.landed.push(seq);
        }
        Ok(Effect::Settled { result: Ok(settled), after })
    }

    fn deliver(&mut self, env: &Env, flight: &Flight, request_id: Option<&str>) -> Result<(), Fault> {
        let (id, attempts) = (flight.waiting.id, flight.progress.attempts);
        if !self.sql.delete_event(id.seq())? {
            // It was read, and is not found by its number: there it would stay, and be sent again.
            return Err(contradiction().into());
        }
        if env.settings.remember_max > 0 && !env.settings.remember.is_zero() {
            self.sql.insert_done(id, env.clock.now(), attempts, request_id)?;
            self.books.done += 1;
        }
        if attempts > 0 || flight.waiting.again {
            self.forget_history(id.seq())?;
        }
        self.forget_unsure(id.seq())?;
        self.books.ledger.delivered += 1;
        if self.books.ledger.dead > 0 {
            self.sql.pass(&flight.waiting.event.user, id.seq(), env.clock.now())?;
        }
        self.leave_line(env, &flight.waiting.event.user, id.seq())
    }

    fn retry(
        &mut self,
        env: &Env,
        flight: &Flight,
        at: Timestamp,
        strike: bool,
        attempt: &Attempt,
        why: Reason,
    ) -> Result<(), Fault> {
        let (seq, before) = (flight.waiting.id.seq(), flight.progress);
        let progress = Progress {
            attempts: before.attempts + 1,
            strikes: before.strikes + u32::from(strike),
            first_failed_at: before.first_failed_at.or(Some(attempt.at)),
            overtaken: false,
        };
        self.sql.write_progress(seq, &progress, self.books.ledger.delivered, at, why)?;
        self.sql.add_attempt(seq, attempt)?;
        if before.attempts == 0 {
            self.books.failed += 1;
        }
        let user = &flight.waiting.event.user;
        let now = env.clock.now();
        self.gate(env, user, Some(at.since(now)))?;
        Ok(self.sql.park(user, seq)?)
    }

    // --- ends

    /// Makes a waiting event a dead letter for a reason that the store found itself.
    pub(super) fn bury(&mut self, env: &Env, seq: u64, why: Reason, user: Option<&UserId>) -> Result<(), Fault> {
        let attempts = self.sql.progress(seq)?.map_or(0, |row| row.progress.attempts);
        let row = self.sql.event(seq)?;
        let user = user.cloned().or_else(|| row.as_ref().map(|row| row.event.user.clone()));
        if let Some(row) = &row {
            self.counts.buried.push((row.id(), why));
        }
        self.bury_after(env, seq, why, user.as_ref(), attempts)?;
        Ok(self.sql.delete_intent(seq)?)
    }

    fn bury_after(
        &mut self,
        env: &Env,
        seq: u64,
        why: Reason,
        user: Option<&UserId>,
        attempts: u32,
    ) -> Result<(), Fault> {
        if self.sql.bury(seq, env.clock.now(), why, attempts)? {
            self.books.ledger.dead += 1;
            self.books.dead_bytes += self.sql.dead(seq)?.map_or(0, |row| row.bytes());
        }
        if self.sql.delete_progress(seq)? {
            self.books.failed = self.books.failed.saturating_sub(1);
        }
        match user {
            Some(user) => self.leave_line(env, user, seq),
            None => Ok(()),
        }
    }

    /// Forgets what was remembered long enough; as much as `delivered` adds, and a little more.
    pub(super) fn forget(&mut self, env: &Env, delivered: u64, has_work: bool) -> Result<(), Fault> {
        let now = env.clock.now();
        if self.has_too_many(env, has_work) {
            let excess = self.books.done - env.settings.remember_max;
            let trimmed = self.sql.trim_done(excess.min(delivered + TRIM))?;
            self.books.done = self.books.done.saturating_sub(trimmed);
        }
        if self.has_outlived(env, has_work)? {
            let old = self.sql.trim_done_until(now.minus(env.settings.remember), delivered + TRIM)?;
            self.books.done = self.books.done.saturating_sub(old);
        }
        self.discard_expired(env, now)?;
        for _ in 0..TRIM {
            let Some((row_id, at, bytes)) = self.oldest_key()? else { break };
            if now.since(at) < env.settings.key_remember {
                break;
            }
            self.sql.delete_key(row_id)?;
            self.books.key_bytes = self.books.key_bytes.saturating_sub(bytes);
        }
        Ok(())
    }

    fn oldest_key(&self) -> Result<Option<(i64, Timestamp, u64)>, Fault> {
        if self.books.key_bytes == 0 { Ok(None) } else { Ok(self.sql.oldest_key()?) }
    }

    /// Whether more delivered events are remembered than may be, somewhat more while there is other work.
    fn has_too_many(&self, env: &Env, has_work: bool) -> bool {
        let max = env.settings.remember_max;
        let more = if has_work { TRIM.min(max / u64::from(PATIENCE)) } else { 0 };
        self.books.done.saturating_sub(max) > more
    }

    /// Whether the first delivered event has been remembered longer than it may be, somewhat longer while there is other
    /// work.
    fn has_outlived(&self, env: &Env, has_work: bool) -> Result<bool, Fault> {
        if self.books.done == 0 {
            return Ok(false);
        }
        let longer = if has_work { env.settings.remember / PATIENCE } else { Duration::ZERO };
        let first = self.sql.first_done_at()?;
        Ok(first.is_some_and(|at| env.clock.now().since(at) >= env.settings.remember + longer))
    }

    /// Whether there is something to forget.
    pub(super) fn has_chores(&self, env: &Env, has_work: bool) -> Result<bool, Fault> {
        let old_key =
            self.oldest_key()?.is_some_and(|(_, at, _)| env.clock.now().since(at) >= env.settings.key_remember);
        Ok(old_key || self.has_expired(env)? || self.has_too_many(env, has_work) || self.has_outlived(env, has_work)?)
    }
}

#[cfg(test)]
#[path = "apply/tests.rs"]
mod tests;
