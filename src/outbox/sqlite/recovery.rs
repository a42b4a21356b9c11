//! Damage: the file is moved aside, a fresh one takes its place, and what is readable comes over.
//!
//! Recovered events keep their sequence, which is below that of all new ones. Nothing is handed out
//! until all was copied, so a user's new events never overtake. Then those that the old file knew an intent to
//! send of are dead letters, as after a crash. What the old ledger knew of and could
//! not be read is booked as lost at the end, not before. Copying is idempotent: a crash in between
//! starts it again.

use super::binding::Binding;
use super::env::Env;
use super::fault::{Fault, OpenError, lacks_room};
use super::row::{Books, Row, WholeDead};
use super::salvage::overtaken_at;
use super::sql::Sql;
use super::store::{Failure, Store, check_version, random_first_seq, seq_after_damage};
use crate::outbox::{Attempt, Ledger, may_be_counted, unsure_of};
use crate::reason::Reason;

/// Names of damaged files that are still to be read, a line each.
const META_FILES: &str = "recovering";
/// What came over so far: undelivered and dead expected; undelivered, dead and bytes of dead restored.
const META_TALLY: &str = "recovered";
/// Rows copied by one transaction, at most …
const SLICE: u64 = 256;
/// … and about so many bytes of them.
const SLICE_BYTES: u64 = 1 << 20;
/// Rows read at a time against the sequence, behind a damaged place.
const SLICE_DOWN: u64 = 16;

/// A copy under way.
pub(super) struct Recovery {
    files: Vec<String>,
    tally: Tally,
    source: Option<Sql>,
    pass: Pass,
}

/// What was expected and what came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    expected: Ledger,
    events: u64,
    dead: u64,
    dead_bytes: u64,
}

/// How far the reading of a file got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    Events(Way),
    Dead(Way),
    Ended,
}

/// How far the reading of a table got. A damaged page ends the way up; what lies behind it is read downwards from the
/// end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Up(u64),
    Down { from: u64, stop: u64 },
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
        None => (Sql::open_read_only(&env.home.named(&name)).map(|sql| peek(env, &sql)).unwrap_or_default(), false),
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
        Self { files, tally, source: None, pass: Pass::Events(Way::Up(0)) }
    }
}

impl Way {
    /// How to go on after a slice of so many rows, if they could be read, and bytes; `last`: the number of the last one
    /// whose number is certain.
    fn next(self, read: Option<u64>, bytes: u64, last: Option<u64>) -> Option<Self> {
        match self {
            Way::Up(from) => {
                let reached = last.map_or(from, |last| last + 1);
                match read {
                    Some(count) if count < SLICE && bytes < SLICE_BYTES => None,
                    Some(_) if reached > from => Some(Way::Up(reached)),
                    _ => Some(Way::Down { from: u64::MAX, stop: reached }),
                }
            }
            Way::Down { from, stop } => {
                let is_further = |last: &u64| read == Some(SLICE_DOWN) && (stop + 1..=from).contains(last);
                last.filter(is_further).map(|last| Way::Down { from: last - 1, stop })
            }
        }
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
    pub(super) fn recover(&mut self, env: &Env) -> Result<(), Fault> {
        let Some(mut recovery) = self.recovery.take() else { return Ok(()) };
        let Some(file) = recovery.files.first().cloned() else {
            return self.end_recovery(env, &recovery.tally);
        };
        let orphan = env.orphans.iter().find(|orphan| orphan.name.as_ref() == Some(&file));
        if let Some(orphan) = orphan {
            recovery.pass = self.copy(&orphan.sql, recovery.pass, &mut recovery.tally)?;
        } else {
            let opened = recovery.source.take().map_or_else(|| Sql::open_read_only(&env.home.named(&file)), Ok);
            match opened {
                Ok(source) => {
                    recovery.pass = self.copy(&source, recovery.pass, &mut recovery.tally)?;
                    recovery.source = Some(source);
                }
                Err(_) => recovery.pass = Pass::Ended,
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

    /// One slice of one pass; gives what comes next. Errors of the source end a way, errors of this
    /// store are faults.
    fn copy(&mut self, source: &Sql, pass: Pass, tally: &mut Tally) -> Result<Pass, Fault> {
        match pass {
            Pass::Events(way) => {
                let next = self.copy_events(source, way, tally)?;
                Ok(next.map_or(Pass::Dead(Way::Up(0)), Pass::Events))
            }
            Pass::Dead(way) => Ok(self.copy_dead(source, way, tally)?.map_or(Pass::Ended, Pass::Dead)),
            Pass::Ended => Ok(Pass::Ended),
        }
    }

    fn copy_events(&mut self, source: &Sql, way: Way, tally: &mut Tally) -> Result<Option<Way>, Fault> {
        let (mut rows, mut bytes) = (Vec::<Row>::new(), 0);
        let read = match way {
            Way::Up(from) => source.events_from(from, SLICE, |row| {
                bytes += row.bytes();
                rows.push(row);
                bytes < SLICE_BYTES
            }),
            Way::Down { from, .. } => source.events_down_from(from, SLICE_DOWN, |row| rows.push(row)),
        };
        rows.retain(Row::is_intact);
        for row in &rows {
            let is_restored = self.sql.restore_event(row)?;
            tally.events += u64::from(is_restored);
            self.make_way_for(row.seq);
            // Where that cannot be read it is not known to have been sent, and is sent.
            if is_restored && source.is_intended(row.seq).unwrap_or_default() {
                self.sql.insert_intent(row.seq)?;
            }
            if let Some(attempt) = unsure_in(source, row) {
                self.set_unsure(row.seq, &attempt)?;
            }
        }
        // The number of a damaged row may lead anywhere.
        Ok(way.next(read.ok(), bytes, rows.last().map(|row| row.seq)))
    }

    /// Where nothing was known of the former file, its numbers may lie above the new ones.
    fn make_way_for(&mut self, seq: u64) {
        self.books.next_seq = self.books.next_seq.max(seq + 1);
    }

    fn copy_dead(&mut self, source: &Sql, way: Way, tally: &mut Tally) -> Result<Option<Way>, Fault> {
        let (mut rows, mut bytes) = (Vec::<WholeDead>::new(), 0);
        let read = match way {
            Way::Up(from) => source.whole_dead_from(from, SLICE, |dead| {
                bytes += dead.row.bytes();
                rows.push(dead);
                bytes < SLICE_BYTES
            }),
            Way::Down { from, .. } => source.whole_dead_down_from(from, SLICE_DOWN, |dead| rows.push(dead)),
        };
        for dead in &rows {
            if dead.row.is_intact() {
                self.make_way_for(dead.row.seq);
            } else if dead.row.seq >= self.books.next_seq {
                // Its number is what is damaged: by it nobody finds it, and each opening would meet it again.
                continue;
            }
            if self.sql.restore_dead(dead)? {
                tally.dead += 1;
                tally.dead_bytes += dead.row.bytes();
                let (seq, user) = (dead.row.seq, &dead.row.event.user);
                if let Some(at) = overtaken_at(source, seq, user) {
                    // Which event went is not known any more: one behind it.
                    self.sql.pass(user, seq + 1, at)?;
                }
            }
        }
        // What was found damaged before was found by its number.
        let is_certain = |dead: &&WholeDead| dead.row.is_intact() || dead.reason == Reason::Corrupt.as_str();
        Ok(way.next(read.ok(), bytes, rows.iter().rfind(is_certain).map(|dead| dead.row.seq)))
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

/// Whether Cello may have counted an event by now. Its attempts stay behind; where they cannot be read, it may.
fn unsure_in(source: &Sql, row: &Row) -> Option<Attempt> {
    let progress = source.progress(row.seq);
    let made = match &progress {
        Ok(progress) => progress.as_ref().map_or(0, |row| row.progress.attempts),
        Err(_) => u32::MAX,
    };
    // What never failed was sent once at most, as it may be when a process ends. A file of an older version
    // knows no more than that.
    let unsure = source.unsure(row.seq).unwrap_or_default();
    if made == 0 && !row.again {
        return unsure;
    }
    let attempts = source.attempts(row.seq).unwrap_or_default();
    let is_counted = may_be_counted(None, &attempts, made, false);
    unsure.or_else(|| is_counted.then(|| unsure_of(&attempts, row.accepted_at)))
}

/// The first sequence of a file that nothing is known of.
pub(super) fn first_seq(env: &Env) -> u64 {
    env.seams.first_seq.unwrap_or_else(random_first_seq)
}

#[cfg(test)]
#[path = "recovery/tests.rs"]
mod tests;
