//! A transaction under way: what it is made of, what it has come to, and what follows from it.

use tokio::time::Instant;

use super::Answer;
use crate::outbox::sqlite::apply::{After, Effect, Work};
use crate::outbox::sqlite::env::Env;
use crate::outbox::sqlite::fault::{Fault, lacks_room};
use crate::outbox::sqlite::inbox::Command;
use crate::outbox::sqlite::queue::Waiting;
use crate::outbox::sqlite::row::{Books, Counts, event_bytes};
use crate::outbox::sqlite::sql::{FRAME_BYTES, Syncs, sqlite_failure};
use crate::outbox::sqlite::store::Store;

/// A transaction under way.
pub(super) struct Open {
    pub(super) commands: Vec<Command>,
    effects: Vec<Effect>,
    /// The counts before it.
    pub(super) books: Books,
    /// Bytes that it appends.
    added: u64,
    /// Appends are refused: the disk is full.
    pub(super) is_full: bool,
    /// It has the file to itself, as whatever ends events beside its commands must.
    is_alone: bool,
}

/// What memory follows with once a commit is durable.
pub(super) struct Landing {
    pub(super) appended: Vec<Waiting>,
    pub(super) flights: Vec<(u64, After)>,
    pub(super) intended: Vec<u64>,
    pub(super) counts: Counts,
    /// The counts after it.
    pub(super) books: Books,
    /// How many events it appended or settled.
    pub(super) events: usize,
    /// How many callers it appended for.
    pub(super) appends: usize,
    /// When its commit began.
    pub(super) started: Instant,
}

impl Landing {
    /// Whether an event is in flight no more when it is durable.
    pub(super) fn ends(&self, seq: u64) -> bool {
        self.flights.iter().any(|(ended, after)| *ended == seq && *after != After::Nothing)
    }
}

impl Open {
    /// Begins a transaction.
    pub(super) fn begin(store: &mut Store, syncs: Syncs) -> Result<Self, Fault> {
        store.sql.sync(syncs)?;
        store.sql.begin()?;
        store.newly_gated.clear();
        store.landed.clear();
        store.counts = Counts::default();
        store.written_deferred = 0;
        let (is_full, is_alone) = (false, syncs == Syncs::Itself);
        Ok(Self { commands: Vec::new(), effects: Vec::new(), books: store.books, added: 0, is_full, is_alone })
    }

    /// Writes the commands from place `from` on.
    pub(super) fn apply(
        &mut self,
        store: &mut Store,
        env: &mut Env,
        from: usize,
        abandoned: &[u64],
    ) -> Result<(), Fault> {
        store.sql.expect_transaction()?;
        self.effects.reserve(self.commands.len() - from);
        let work = Work { commands: &self.commands[from..], abandoned, is_full: self.is_full };
        store.apply(env, &work, &mut self.added, &mut self.effects)
    }

    /// Writes the counts, and commits.
    pub(super) fn commit(&mut self, store: &mut Store, env: &mut Env) -> Result<(), Fault> {
        store.sql.expect_transaction()?;
        let delivered = store.books.ledger.delivered - self.books.ledger.delivered;
        store.forget(env, delivered, !self.commands.is_empty())?;
        store.books.mark = store.queue.mark(store.written_deferred);
        store.sql.write_books(&store.books)?;
        // Inside the transaction a look at the file costs no locks. What was forgotten beside appends is counted by
        // the next housekeeping.
        if self.only_appends() {
            store.grow(self.added)?
        } else {
            store.measure()?
        }
        (env.seams.before_commit)().map_err(seam_error)?;
        Ok(store.sql.commit()?)
    }

    /// Whether it ends no event for sure: what waits longest stays the same, and the file grows.
    pub(super) fn only_appends(&self) -> bool {
        !self.is_alone && self.commands.iter().all(|command| matches!(command, Command::Append { .. }))
    }

    /// Bytes that it adds to the WAL, about; rather more.
    pub(super) fn wal_bytes(&self) -> u64 {
        2 * self.added + (8 + 3 * self.commands.len() as u64) * FRAME_BYTES
    }

    /// After the commit: what is told, and what memory follows with when that is durable.
    pub(super) fn divide(self, store: &mut Store, started: Instant) -> (Landing, Vec<Answer>) {
        store.queue.forget_deferred(std::mem::take(&mut store.written_deferred));
        for user in std::mem::take(&mut store.newly_gated) {
            store.queue.gated(&user);
        }
        store.landing.append(&mut store.landed);
        let mut answers = Vec::with_capacity(self.commands.len());
        let mut landing = Landing {
            // One event a command, most often.
            appended: Vec::with_capacity(self.commands.len()),
            flights: Vec::new(),
            intended: Vec::new(),
            counts: std::mem::take(&mut store.counts),
            books: store.books,
            events: self.commands.iter().map(events_of).sum(),
            appends: 0,
            started,
        };
        answers.extend(self.commands.into_iter().zip(self.effects).filter_map(|(command, effect)| {
            Some(match (command, effect) {
                (Command::Append { batch, reply, .. }, Effect::Appended(receipt)) => {
                    landing.appends += 1;
                    // What is answered again was stored before.
                    let stored = batch.events.into_iter().filter(|_| receipt.replayed.is_none());
                    let ids = receipt.ids.iter().copied();
                    landing.appended.extend(ids.zip(stored).map(|(id, event)| Waiting { id, event, again: false }));
                    Answer::Append(reply, Ok(receipt))
                }
                (Command::Append { reply, .. }, Effect::Refused(error)) => Answer::Append(reply, Err(error)),
                (Command::Intend { seq, reply, .. }, Effect::Intended(result)) => {
                    landing.intended.extend(result.is_ok().then_some(seq));
                    Answer::Intend(reply, result)
                }
                (Command::Settle { seq, reply, .. }, Effect::Settled { result, after }) => {
                    landing.flights.push((seq, after));
                    Answer::Settle(reply, result)
                }
                _ => return None,
            })
        }));
        (landing, answers)
    }
}

/// How many events a command appends or settles.
fn events_of(command: &Command) -> usize {
    match command {
        Command::Append { batch, .. } => batch.events.len(),
        _ => 1,
    }
}

/// The bytes that a command appends, or about what it changes.
pub(super) fn bytes_of(command: &Command) -> u64 {
    match command {
        Command::Append { batch, .. } => batch.events.iter().map(event_bytes).sum(),
        _ => 256,
    }
}

fn seam_error(error: std::io::Error) -> rusqlite::Error {
    sqlite_failure(if lacks_room(&error) { rusqlite::ffi::SQLITE_FULL } else { rusqlite::ffi::SQLITE_IOERR_FSYNC })
}

#[cfg(test)]
#[path = "open/tests.rs"]
mod tests;
