//! Who is next: reading the queue into the window, and taking from it and from behind gates.
//!
//! Nothing here writes. What has to be written because of what was read rides in the next transaction.

use std::sync::Arc;

use super::env::Env;
use super::fault::Fault;
use super::queue::{Deferred, Flight, Waiting};
use super::row::Row;
use super::sql::contradiction;
use super::store::Store;
use crate::clock::Timestamp;
use crate::event::UserId;
use crate::outbox::lease::Returns;
use crate::outbox::{Claimed, Lease, Progress, Want};
use crate::reason::Reason;

/// Rows read at a time.
const SLICE: u64 = 256;

/// One call of [`Store::hand_out`].
pub(super) struct Round<'a> {
    pub(super) want: Want,
    /// Gates count as due, but for those of dead letters that found no room: they would be refused again and again.
    pub(super) ignore_backoff: bool,
    pub(super) returns: &'a Arc<Returns>,
}

/// Which gates count as due.
#[derive(Clone, Copy)]
struct Due {
    /// Those due until then.
    until: Timestamp,
    now: Timestamp,
}

impl Store {
    /// Hands out up to `want.max` events; fewer if there is nothing more in reach.
    pub(super) fn hand_out(&mut self, env: &Env, round: &Round<'_>) -> Result<Vec<Claimed>, Fault> {
        let now = self.pace.now(env.clock.now(), env.clock.instant());
        let due = Due { until: if round.ignore_backoff { Timestamp::from_millis(i64::MAX) } else { now }, now };
        let mut claimed = Vec::new();
        while claimed.len() < round.want.max {
            if let Some(flight) = self.next(round.want.rotate, due)? {
                claimed.push(self.launch(flight, round.returns));
            } else if self.can_read() {
                // Ends soon: the window fills, and so does what is to be written.
                self.read_slice()?;
            } else {
                break;
            }
        }
        Ok(claimed)
    }

    fn launch(&mut self, flight: Flight, returns: &Arc<Returns>) -> Claimed {
        let Waiting { id, event, .. } = flight.waiting.clone();
        let progress = flight.progress;
        self.queue.fly(flight);
        Claimed { lease: Lease::new(id.seq(), self.epoch, Arc::clone(returns)), id, event, progress }
    }

    /// Takes one event. Gated users that are due and all others take turns, so that neither starves
    /// the other.
    fn next(&mut self, rotate: bool, due: Due) -> Result<Option<Flight>, Fault> {
        for is_due in [self.due_first, !self.due_first] {
            let flight = if is_due { self.next_due(rotate, due)? } else { self.queue.take_free(rotate).map(fresh) };
            if flight.is_some() {
                self.due_first = !is_due;
                return Ok(flight);
            }
        }
        if rotate && !self.can_read() {
            for user in self.queue.released() {
                if let Some(waiting) = self.queue.take_of(&user) {
                    return Ok(Some(fresh(waiting)));
                }
                let is_due = self.is_gated(&user)? && self.sql.gate(&user)?.is_some_and(|at| at <= due.until);
                if is_due
                    && !self.queue.is_flying(&user)
                    && let Some(flight) = self.first_behind(&user)?
                {
                    return Ok(Some(flight));
                }
            }
        }
        Ok(None)
    }

    fn next_due(&mut self, rotate: bool, due: Due) -> Result<Option<Flight>, Fault> {
        if self.books.gates == 0 {
            return Ok(None);
        }
        loop {
            let queue = &self.queue;
            let is_free = |user: &str| {
                let known = UserId::new(user);
                !(queue.is_flying(&known) || rotate && queue.was_released(user) || self.is_held_back(&known, due))
            };
            let Some(user) = self.sql.find_due(due.until, is_free)? else { return Ok(None) };
            if let Some(flight) = self.first_behind(&user)? {
                return Ok(Some(flight));
            }
            // Its first row is damaged; that has to be written down before the user goes on.
            if self.queue.is_urgent() {
                return Ok(None);
            }
        }
    }

    /// Dead letters had no room for the user's first event, and it is not time to try again. A row that cannot be read
    /// counts as not held back: whoever takes it tells of the damage.
    fn is_held_back(&self, user: &UserId, due: Due) -> bool {
        let progress = || self.sql.progress(self.sql.first_parked(user).ok()??).ok()?;
        due.until > due.now
            && progress().is_some_and(|row| row.reason == Some(Reason::DeadLettersFull) && row.next_at > due.now)
    }

    /// The first event behind a user's gate, unless it is damaged.
    fn first_behind(&mut self, user: &UserId) -> Result<Option<Flight>, Fault> {
        // A line that is empty, or names nothing or another's event, is wrong: what is left of it cannot be trusted.
        // Recovery makes it again from the events themselves.
        let seq = self.sql.first_parked(user)?.ok_or_else(contradiction)?;
        let row = self.sql.event(seq)?.ok_or_else(contradiction)?;
        if !row.is_intact() {
            self.queue.defer(Deferred::Corrupt(Some(user.clone()), seq));
            return Ok(None);
        }
        if row.event.user != *user {
            return Err(contradiction().into());
        }
        let progress = self
            .sql
            .progress(seq)?
            .map(|row| Progress { overtaken: self.books.ledger.delivered > row.delivered_mark, ..row.progress });
        let flight = Flight { progress: progress.unwrap_or_default(), parked: true, ..fresh(waiting(row)) };
        Ok(Some(flight))
    }

    /// Whether there is more to read and room for it.
    pub(super) fn can_read(&self) -> bool {
        self.queue.cursor < self.durable.next_seq && self.queue.has_room() && !self.queue.is_urgent()
    }

    /// Whether a claim might get something, now or when a gate is due.
    pub(super) fn can_hand_out(&self) -> bool {
        self.queue.has_free() || self.looks_to_hand_out()
    }

    /// Whether it looks into the file for what a claim gets.
    pub(super) fn looks_to_hand_out(&self) -> bool {
        self.books.gates > 0 || self.can_read()
    }

    /// Whether a user's next event may wait for a delivery to be recorded.
    pub(super) fn someone_waits(&self) -> bool {
        self.queue.has_blocked() || (self.books.gates > 0 && self.queue.has_parked_flight())
    }

    /// Reads on in the table.
    fn read_slice(&mut self) -> Result<(), Fault> {
        let mut rows = Vec::new();
        let (mut bytes, room) = (0, 1 << 18);
        let end = self.durable.next_seq;
        let given_out = self.books.next_seq;
        let (mut is_end, mut is_beyond) = (false, false);
        let count = self.sql.events_in_order(self.queue.cursor, SLICE, |row| {
            (is_end, is_beyond) = (row.seq >= end, row.seq >= given_out);
            if is_end {
                return false;
            }
            bytes += row.event.body.len();
            rows.push(row);
            bytes < room
        })?;
        if is_beyond {
            // What lies behind such a number would never be read.
            return Err(contradiction().into());
        }
        let read_all = is_end || (count < SLICE && bytes < room);
        for row in rows {
            if !self.queue.has_room() {
                return Ok(());
            }
            self.queue.cursor = row.seq + 1;
            if row.is_intact() {
                self.take_in(waiting(row))?;
            } else {
                self.queue.defer(Deferred::Corrupt(None, row.seq));
            }
        }
        if read_all {
            self.queue.cursor = end;
        }
        Ok(())
    }

    /// Events that were just committed go straight to the window, if everything before them was read.
    pub(super) fn take_in_new(&mut self, appended: Vec<Waiting>) -> Result<(), Fault> {
        for waiting in appended {
            if self.queue.cursor != waiting.id.seq() || !self.queue.has_room() {
                break;
            }
            self.queue.cursor += 1;
            self.take_in(waiting)?;
        }
        Ok(())
    }

    fn take_in(&mut self, waiting: Waiting) -> Result<(), Fault> {
        let user = &waiting.event.user;
        if self.is_gated(user)? {
            self.queue.defer(Deferred::Park(user.clone(), waiting.id.seq()));
        } else {
            self.queue.offer(waiting);
        }
        Ok(())
    }
}

fn waiting(row: Row) -> Waiting {
    Waiting { id: row.id(), event: row.event, again: row.again }
}

/// An event that has not failed, out of the window.
fn fresh(waiting: Waiting) -> Flight {
    Flight { waiting, progress: Progress::default(), parked: false, intended: false }
}

#[cfg(test)]
#[path = "hand_out/tests.rs"]
mod tests;
