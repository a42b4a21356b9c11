//! One opening of the file: the connection, the mirror of its counts, and the queue.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::binding::{self, Binding};
use super::env::Env;
use super::fault::{Fault, OpenError, lacks_room};
use super::gates::Gates;
use super::place::Place;
use super::queue::{Pace, Queue};
use super::recovery::Recovery;
use super::row::{Books, Counts};
use super::sql::{MIGRATIONS, SCHEMA_VERSION, Sql, contradiction};
use super::volume::Home;
use crate::event::EventId;
use crate::reason::Reason;

/// When the file was opened last: the synced test write of an opening.
const META_OPENED: &str = "opened_ms";
/// A file that has grown by less is not measured for that.
const GROWS_UNMEASURED_BYTES: u64 = 64 << 10;
/// When a clock was set back while the relay was down, a gate waits so much longer at most.
const LONGEST_EXTRA_WAIT: Duration = Duration::from_secs(600);

/// An open outbox; lives on the writer's thread.
pub(super) struct Store {
    pub(super) sql: Sql,
    /// The files it writes to.
    pub(super) place: Place,
    pub(super) books: Books,
    pub(super) queue: Queue,
    /// Who may have a gate.
    pub(super) gates: Gates,
    pub(super) pace: Pace,
    /// Which opening this is; leases of another one are lost.
    pub(super) epoch: u64,
    /// Still copying from a damaged file; nothing is handed out.
    pub(super) recovery: Option<Recovery>,
    /// Users that got a gate in the transaction under way.
    pub(super) newly_gated: Vec<crate::event::UserId>,
    /// Events in flight that were settled in the transaction under way …
    pub(super) landed: Vec<u64>,
    /// … and in the one before it, which is being synced.
    pub(super) landing: Vec<u64>,
    /// So much of what the queue wants to be written is in the transaction under way.
    pub(super) written_deferred: usize,
    /// The counts as of the last commit that was synced: callers were answered by them. Events from their
    /// `next_seq` on are not handed out.
    pub(super) durable: Books,
    /// The WAL, to be synced.
    wal: Option<Arc<File>>,
    /// What the transaction under way adds to the metrics.
    pub(super) counts: Counts,
    /// Takes turns between gated users that are due and the others.
    pub(super) due_first: bool,
    /// Pages in use, when they were counted last …
    pub(super) live_pages: u64,
    /// … and pages that could be given back.
    pub(super) free_pages: u64,
    /// Bytes appended since then, about.
    pub(super) grown_bytes: u64,
}

/// Why an opening came to nothing.
pub(super) enum Failure {
    /// It must not be opened.
    Refused(OpenError),
    /// It could not be.
    Fault(Fault),
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Create { source, .. } if lacks_room(&source) => Failure::Fault(Fault::full()),
            error => Failure::Refused(error),
        }
    }
}

impl<E: Into<Fault>> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure::Fault(error.into())
    }
}

impl Store {
    /// Whether a copy can be gone on with now.
    pub(super) fn has_to_copy(&self, now: Instant) -> bool {
        self.recovery.as_ref().is_some_and(|recovery| recovery.waits(now).is_none())
    }

    /// Opens the file (a new one starts at `first_seq`), proves that it can be written, and ends what
    /// was cut off: intents become dead letters, at once or when a copy that goes on has ended.
    pub(super) fn open(env: &Env, epoch: u64, first_seq: u64) -> Result<Self, Failure> {
        env.home.create_database()?;
        let sql = Sql::open(env.home.database())?;
        bring_up_to_date(&sql)?;
        let mut books = sql.books()?;
        books.make_sense_in(&sql)?;
        if books.next_seq == 0 {
            (books.next_seq, books.mark) = (first_seq, first_seq);
        }
        check_binding(&sql, &books, &env.settings.upstream)?;
        books.has_unsure = sql.has_unsure()?;
        let (now, instant) = (env.clock.now(), env.clock.instant());
        let recovery = Recovery::load(&sql)?;
        let mut store = Self {
            place: Place::of(&env.home),
            sql,
            books,
            queue: Queue::starting_at(books.mark),
            gates: Gates::default(),
            pace: Pace::starting(now, instant),
            epoch,
            recovery,
            newly_gated: Vec::new(),
            landed: Vec::new(),
            landing: Vec::new(),
            written_deferred: 0,
            durable: books,
            wal: None,
            counts: Counts::default(),
            due_first: true,
            live_pages: 0,
            free_pages: 0,
            grown_bytes: 0,
        };
        // What an earlier process, or a connection whose sync failed, left in the WAL is made durable
        // before anything is built on it. The WAL keeps its blocks: on a full disk they are needed.
        store.sql.checkpoint()?;
        // Where not even this finds room no delivery could be recorded, and each would be made again and again.
        store.settle_down(env)?;
        store.measure()?;
        store.look_at_gates()?;
        Ok(store)
    }

    /// The first transaction of an opening.
    fn settle_down(&mut self, env: &Env) -> Result<(), Fault> {
        let now = env.clock.now();
        self.sql.begin()?;
        if self.books.gates > 0 {
            self.sql.pull_gates(now, LONGEST_EXTRA_WAIT)?;
        }
        if self.books.has_unsure {
            self.sql.trim_unsure()?;
        }
        // Copied again, an event that was made a dead letter would wait as well.
        if self.recovery.is_none() {
            self.bury_intended(env)?;
        }
        // An erasure in a stopped relay's outbox knows of none, if none is bound.
        if !env.settings.upstream.is_empty() {
            binding::bind(&self.sql, &env.settings.upstream)?;
        }
        self.sql.set_meta(META_OPENED, &now.as_millis().to_string())?;
        self.sql.write_books(&self.books)?;
        self.sql.commit()?;
        self.counts.report(&env.metrics);
        Ok(())
    }

    /// What an earlier opening was about to send: nobody knows whether it did. Before anything is handed out.
    pub(super) fn bury_intended(&mut self, env: &Env) -> Result<(), Fault> {
        for seq in self.sql.intents()? {
            self.bury(env, seq, Reason::Ambiguous, None)?;
        }
        Ok(())
    }

    /// The WAL, to be synced: opened but once, as SQLite keeps the file while its connection is open; looked at each
    /// time, as SQLite may have cut one that had grown, and nobody does from here on until it is synced.
    pub(super) fn wal(&mut self, home: &Home) -> Result<Arc<File>, Fault> {
        let wal = match &self.wal {
            Some(wal) => Arc::clone(wal),
            None => {
                let file = File::open(home.wal()).map_err(|error| Fault::of_opening(&error))?;
                if !self.place.is_wal(&file) {
                    return Err(Fault::Gone);
                }
                Arc::clone(self.wal.insert(Arc::new(file)))
            }
        };
        if self.place.holds_all(&wal, &self.sql) { Ok(wal) } else { Err(Fault::Gone) }
    }

    /// Books as lost what the file does not know of, though callers were answered; `known`: the counts by which they
    /// were. While a copy goes on its end tells what is lost.
    pub(super) fn admit_loss(&mut self, env: &Env, known: Option<Books>) -> Result<(), Fault> {
        let Some(known) = known.filter(|_| self.recovery.is_none()) else { return Ok(()) };
        let lost = known.ledger.accepted.saturating_sub(self.books.ledger.accepted);
        if lost == 0 {
            return Ok(());
        }
        self.books.ledger.accepted += lost;
        self.books.ledger.lost += lost;
        // Their ids are in apps' hands and are not given out again.
        self.books.next_seq = self.books.next_seq.max(known.next_seq);
        self.durable = self.books;
        self.sql.begin()?;
        self.sql.write_books(&self.books)?;
        self.sql.commit()?;
        self.counts.lost += lost;
        self.counts.report(&env.metrics);
        tracing::error!(event = "outbox_events_lost", lost, "the outbox lost events that it had stored");
        Ok(())
    }

    /// Makes what memory knows of gates as short as the truth. Not while a transaction is open, which may be undone.
    pub(super) fn look_at_gates(&mut self) -> Result<(), Fault> {
        if self.gates.is_stale(self.books.gates) {
            self.gates = Gates::of(self.sql.gated_users(Gates::ENOUGH)?);
        }
        Ok(())
    }

    /// Reads how large the file is.
    pub(super) fn measure(&mut self) -> Result<(), Fault> {
        (self.live_pages, self.free_pages) = self.sql.pages()?;
        self.grown_bytes = 0;
        Ok(())
    }

    /// The file has only grown, by about `bytes`, which are added up. They are measured when they are many: SQLite
    /// prepares that question anew each time, which takes as long as storing an event.
    pub(super) fn grow(&mut self, bytes: u64) -> Result<(), Fault> {
        self.grown_bytes += bytes;
        if self.grown_bytes < GROWS_UNMEASURED_BYTES { Ok(()) } else { self.measure() }
    }
}

/// Makes the tables of an empty file, or takes the steps to this release's schema.
fn bring_up_to_date(sql: &Sql) -> Result<(), Failure> {
    let is_new = sql.version()? == 0;
    // It was just opened to write: not the volume says so.
    if sql.forbids_writing()? {
        return Err(contradiction().into());
    }
    if is_new {
        sql.create()?;
    }
    let found = sql.version()?;
    check_version(found)?;
    for steps in MIGRATIONS.iter().skip(usize::try_from(found - 1).unwrap_or(usize::MAX)) {
        sql.migrate(steps)?;
    }
    Ok(())
}

/// Whether this release can read a file of that version.
pub(super) fn check_version(found: i64) -> Result<(), OpenError> {
    let known = SCHEMA_VERSION + 1;
    if (1..=known).contains(&found) { Ok(()) } else { Err(OpenError::TooNew { found, known }) }
}

/// Events accepted for one base URL never go to another.
fn check_binding(sql: &Sql, books: &Books, configured: &str) -> Result<(), Failure> {
    let (undelivered, dead) = (books.ledger.undelivered(), books.ledger.dead);
    match Binding::of(sql, configured)? {
        Binding::Damaged => Err(contradiction().into()),
        Binding::Elsewhere(bound) if undelivered + dead > 0 => {
            Err(OpenError::OtherUpstream { bound, configured: configured.to_owned(), undelivered, dead }.into())
        }
        _ => Ok(()),
    }
}

/// The first sequence number of a new file: random, so that two relays do not make the same ids.
pub(super) fn random_first_seq() -> u64 {
    fastrand::u64(1..1 << 40)
}

/// The first sequence number of a file that takes the place of a damaged one: above all of the former's.
pub(super) fn seq_after_damage(former_next: Option<u64>, damaged_files: u64) -> u64 {
    // Between two commits fewer sequence numbers are given out than this leaves free.
    let known = former_next.filter(|next| (1..EventId::MAX_SEQ / 2).contains(next)).map(|next| next + (1 << 32));
    known.unwrap_or_else(|| (damaged_files.clamp(1, 60) << 41) + random_first_seq())
}

#[cfg(test)]
#[path = "store/tests.rs"]
mod tests;
