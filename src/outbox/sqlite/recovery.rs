//! Damage: the file is moved aside, a fresh one takes its place, and what is readable comes over.
//!
//! Recovered events keep their sequence, which is below that of all new ones. Nothing is handed out
//! until all was copied, so a user's new events never overtake. Then those that the old file knew an intent to
//! send of are dead letters, as after a crash. What the old ledger knew of and could
//! not be read is booked as lost at the end, not before. Copying is idempotent: a crash in between
//! starts it again.

mod copy;

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use self::copy::{Pass, Stop, Way};
use super::binding::Binding;
use super::env::Env;
use super::fault::{Fault, OpenError, lacks_room};
use super::row::Books;
use super::sql::Sql;
use super::store::{Failure, Store, check_version, random_first_seq, seq_after_damage};
use super::unread::was_unread;
use crate::outbox::Ledger;

/// Names of damaged files that are still to be read, a line each.
const META_FILES: &str = "recovering";
/// What came over so far: undelivered and dead expected; undelivered, dead and bytes of dead restored.
const META_TALLY: &str = "recovered";
/// A file that cannot be read is tried again so often.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// A copy under way.
pub(super) struct Recovery {
    files: Vec<String>,
    tally: Tally,
    source: Option<Sql>,
    pass: Pass,
    /// Reads fail: it is tried again then.
    resume_at: Option<Instant>,
}

/// What was expected and what came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    expected: Ledger,
    events: u64,
    dead: u64,
    dead_bytes: u64,
}

/// Moves the damaged file aside and opens a fresh one; so too if the file has lost its name, then what has
/// the name now is moved aside.
/// `known`: the counts, if the process has them.
///
/// A crash in between is made good by the next opening: the name is written down first, and struck out
/// when the fresh file says by itself what has to be copied.
pub(super) fn quarantine(env: &mut Env, epoch: u64, known: Option<Books>) -> Result<Store, Failure> {
    let moved = env.home.begin_quarantine(env.clock.now()).and_then(|name| env.home.move_aside(&name).map(|()| name));
    let name = moved.map_err(|error| moving_failed(&error))?;
    env.volume.damaged_files = env.home.damaged_files();
    let (peeked, is_sound) = match env.waiting_orphan() {
        // It was opened as ours, whatever can still be read of it.
        Some(orphan) => (Peeked { is_readable: true, ..peek(env, &orphan.sql) }, true),
        None => (peek_into(env, &env.home.named(&name)), false),
    };
    // Callers were answered by `known`. A file that lost its name may have committed more, and one that was cut holds less.
    let committed = peeked.books.filter(|books| is_sound && known.is_none_or(|known| books.know_all_of(&known)));
    let books = committed.or(known).or(peeked.books);
    tracing::error!(
        event = "outbox_quarantined",
        file = name,
        undelivered = books.map(|books| books.ledger.undelivered()),
        "the outbox is damaged and was moved aside; a fresh one takes its place"
    );
    let former_next = books.map(|books| books.next_seq);
    let first_seq = seq_after_damage(former_next.or(env.seams.first_seq), env.volume.damaged_files);
    let mut store = Store::open(env, epoch, first_seq)?;
    if store.recovery.is_none() {
        let files = if peeked.is_readable { [vec![name.clone()], peeked.files].concat() } else { Vec::new() };
        store.expect_recovery(books.unwrap_or_default().ledger, files)?;
    }
    if let Some(orphan) = env.orphans.last_mut() {
        orphan.name.get_or_insert(name);
    }
    env.home.end_quarantine().map_err(|error| moving_failed(&error))?;
    Ok(store)
}

fn moving_failed(error: &std::io::Error) -> Failure {
    if lacks_room(error) {
        return Fault::full().into();
    }
    OpenError::Io { doing: "move the damaged outbox aside", reason: error.to_string() }.into()
}

/// What a damaged file still tells of itself.
#[derive(Default)]
struct Peeked {
    books: Option<Books>,
    files: Vec<String>,
    /// Events may be taken over: it is of this schema and for this base URL.
    is_readable: bool,
}

/// What a file tells that may not be readable at this moment.
fn peek_into(env: &Env, path: &Path) -> Peeked {
    let look = || Sql::open_read_only(path).map(|sql| peek(env, &sql)).unwrap_or_default();
    let peeked = look();
    let is_all = peeked.is_readable && peeked.books.is_some();
    if !is_all && was_unread(path) { look() } else { peeked }
}

fn peek(env: &Env, sql: &Sql) -> Peeked {
    let is_known = sql.version().is_ok_and(|version| check_version(version).is_ok());
    let is_elsewhere = matches!(Binding::of(sql, &env.settings.upstream), Ok(Binding::Elsewhere(_)));
    if !is_known || is_elsewhere {
        return Peeked::default();
    }
    let files = unfinished(sql).ok().flatten().unwrap_or_default();
    Peeked {
        books: sql.books().ok().filter(|books| books.next_seq > 0 && books.are_plausible()),
        files,
        is_readable: true,
    }
}

/// The damaged files of which not all that can be read is in this one yet; `None` if there are none.
pub(super) fn unfinished(sql: &Sql) -> rusqlite::Result<Option<Vec<String>>> {
    Ok(sql.meta(META_FILES)?.map(|files| lines(&files)))
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

impl Recovery {
    /// The copy that an earlier opening has not ended, if any.
    pub(super) fn load(sql: &Sql) -> Result<Option<Self>, Fault> {
        let Some(files) = unfinished(sql)? else { return Ok(None) };
        let tally = Tally::parse(&sql.meta(META_TALLY)?.unwrap_or_default());
        Ok(Some(Self::of(files, tally)))
    }

    fn of(files: Vec<String>, tally: Tally) -> Self {
        Self { files, tally, source: None, pass: Pass::Events(Way::Up(0)), resume_at: None }
    }

    /// How long it is not gone on with.
    pub(super) fn waits(&self, now: Instant) -> Option<Duration> {
        self.resume_at.map(|at| at.saturating_duration_since(now)).filter(|wait| !wait.is_zero())
    }
}

impl Tally {
    fn parse(text: &str) -> Self {
        let mut numbers = text.split(' ').map(|number| number.parse().unwrap_or(0));
        let mut next = || numbers.next().unwrap_or(0);
        let (undelivered, dead) = (next(), next());
        let expected = Ledger { accepted: undelivered + dead, dead, ..Ledger::default() };
        Self { expected, events: next(), dead: next(), dead_bytes: next() }
    }

    fn text(&self) -> String {
        let (undelivered, dead) = (self.expected.undelivered(), self.expected.dead);
        format!("{undelivered} {dead} {} {} {}", self.events, self.dead, self.dead_bytes)
    }
}

impl Store {
    /// Takes over the old ledger and remembers what is to be copied.
    fn expect_recovery(&mut self, ledger: Ledger, files: Vec<String>) -> Result<(), Fault> {
        self.sql.begin()?;
        // Until the end the old ledger stands: what was not copied yet counts as undelivered or dead.
        self.books.ledger = ledger;
        self.books.mark = 0;
        self.queue.cursor = 0;
        let tally = Tally { expected: ledger, ..Tally::default() };
        self.sql.set_meta(META_FILES, &files.join("\n"))?;
        self.sql.set_meta(META_TALLY, &tally.text())?;
        self.sql.write_books(&self.books)?;
        self.sql.commit()?;
        // Should this file be lost too, what is not copied yet is missed.
        self.durable = self.books;
        self.recovery = Some(Recovery::of(files, tally));
        Ok(())
    }

    /// Copies a slice in the open transaction. What it changes in memory
    /// has to be put back by [`Store::recovery`] being loaded again if the transaction fails.
    pub(super) fn recover(&mut self, env: &mut Env) -> Result<(), Fault> {
        let now = env.clock.instant();
        let Some(mut recovery) = self.recovery.take_if(|recovery| recovery.waits(now).is_none()) else { return Ok(()) };
        let Some(file) = recovery.files.first().cloned() else {
            return self.end_recovery(env, &recovery.tally);
        };
        match self.copy_slice(env, &mut recovery, &file) {
            Ok(pass) => recovery.pass = pass,
            Err(Stop::Fault(fault)) => return Err(fault),
            Err(Stop::Unread) => {
                tracing::warn!(
                    event = "outbox_unread",
                    file,
                    "a damaged file cannot be read now; delivery waits for that"
                );
                (recovery.source, recovery.resume_at) = (None, Some(now + READ_AGAIN));
                self.recovery = Some(recovery);
                return Ok(());
            }
        }
        if recovery.pass == Pass::Ended {
            recovery.files.remove(0);
            (recovery.source, recovery.pass) = (None, Pass::Events(Way::Up(0)));
            self.sql.set_meta(META_FILES, &recovery.files.join("\n"))?;
        }
        self.sql.set_meta(META_TALLY, &recovery.tally.text())?;
        self.recovery = Some(recovery);
        Ok(())
    }

    /// Books what was not found, and lets the queue move again.
    fn end_recovery(&mut self, env: &Env, tally: &Tally) -> Result<(), Fault> {
        let expected = tally.expected.undelivered() + tally.expected.dead;
        let found = tally.events + tally.dead;
        let lost = expected.saturating_sub(found);
        let ledger = &mut self.books.ledger;
        // More than the ledger knew of can be found if it was damaged itself.
        ledger.accepted += found.saturating_sub(expected);
        ledger.dead = ledger.dead.saturating_sub(tally.expected.dead) + tally.dead;
        ledger.lost += lost;
        self.books.dead_bytes += tally.dead_bytes;
        self.sql.forget_meta(META_FILES)?;
        self.sql.forget_meta(META_TALLY)?;
        // Not before: copied again after a crash, a dead one would wait as well.
        self.bury_intended(env)?;
        self.counts.lost += lost;
        tracing::error!(event = "outbox_recovered", found, lost, "what was readable of the damaged outbox came over");
        Ok(())
    }
}

/// The first sequence of a file that nothing is known of.
pub(super) fn first_seq(env: &Env) -> u64 {
    env.seams.first_seq.unwrap_or_else(random_first_seq)
}

#[cfg(test)]
#[path = "recovery/tests.rs"]
mod tests;
