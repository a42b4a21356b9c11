//! Copying what can be read of a damaged file, a slice in each transaction: events first, then dead letters.

use super::{Recovery, Tally};
use crate::outbox::sqlite::env::Env;
use crate::outbox::sqlite::fault::Fault;
use crate::outbox::sqlite::row::{Row, WholeDead};
use crate::outbox::sqlite::salvage::overtaken_at;
use crate::outbox::sqlite::sql::Sql;
use crate::outbox::sqlite::store::Store;
use crate::outbox::{Attempt, may_be_counted, unsure_of};
use crate::reason::Reason;

/// Rows copied by one transaction, at most …
pub(super) const SLICE: u64 = 256;
/// … and about so many bytes of them.
const SLICE_BYTES: u64 = 1 << 20;
/// Rows read at a time against the sequence, behind a damaged place.
const SLICE_DOWN: u64 = 16;

/// How far the reading of a file got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    Events(Way),
    Dead(Way),
    Ended,
}

/// How far the reading of a table got. A damaged page ends the way up; what lies behind it is read downwards from the
/// end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Up(u64),
    Down { from: u64, stop: u64 },
}

/// Why a slice was not copied.
pub(super) enum Stop {
    /// Of the store that it goes into.
    Fault(Fault),
    /// What it comes from cannot be read now.
    Unread,
}

impl<E: Into<Fault>> From<E> for Stop {
    fn from(error: E) -> Self {
        Stop::Fault(error.into())
    }
}

impl Way {
    /// How to go on after a slice of so many rows, if they could be read, and bytes; `last`: the number of the last one
    /// whose number is certain.
    pub(super) fn next(self, read: Option<u64>, bytes: u64, last: Option<u64>) -> Option<Self> {
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

/// A damaged file.
struct Source<'a> {
    sql: &'a Sql,
    /// Whether a read of it that failed may work later.
    is_unread: &'a mut dyn FnMut() -> bool,
}

impl Source<'_> {
    /// What was read; `None` is damage.
    fn unless_unread<T>(&mut self, read: rusqlite::Result<T>) -> Result<Option<T>, Stop> {
        if read.is_err() && (self.is_unread)() { Err(Stop::Unread) } else { Ok(read.ok()) }
    }
}

impl Store {
    /// One slice of one pass out of that file; gives what comes next.
    pub(super) fn copy_slice(&mut self, env: &mut Env, recovery: &mut Recovery, file: &str) -> Result<Pass, Stop> {
        let orphan = env.orphans.iter().find(|orphan| orphan.name.as_deref() == Some(file));
        if let Some(orphan) = orphan {
            let source = Source { sql: &orphan.sql, is_unread: &mut || false };
            return self.copy(source, recovery.pass, &mut recovery.tally);
        }
        let (path, now, unread) = (env.home.named(file), env.clock.instant(), &mut env.unread);
        let mut is_unread = || unread.is_worth_waiting(&path, now);
        let opened = recovery.source.take().map_or_else(|| Sql::open_read_only(&path), Ok);
        let Ok(sql) = opened else { return if is_unread() { Err(Stop::Unread) } else { Ok(Pass::Ended) } };
        let source = Source { sql: &sql, is_unread: &mut is_unread };
        let next = self.copy(source, recovery.pass, &mut recovery.tally)?;
        recovery.source = Some(sql);
        Ok(next)
    }

    /// Damage of the source ends a way, errors of this store are faults.
    fn copy(&mut self, source: Source<'_>, pass: Pass, tally: &mut Tally) -> Result<Pass, Stop> {
        match pass {
            Pass::Events(way) => {
                let next = self.copy_events(source, way, tally)?;
                Ok(next.map_or(Pass::Dead(Way::Up(0)), Pass::Events))
            }
            Pass::Dead(way) => Ok(self.copy_dead(source, way, tally)?.map_or(Pass::Ended, Pass::Dead)),
            Pass::Ended => Ok(Pass::Ended),
        }
    }

    fn copy_events(&mut self, mut source: Source<'_>, way: Way, tally: &mut Tally) -> Result<Option<Way>, Stop> {
        let (mut rows, mut bytes) = (Vec::<Row>::new(), 0);
        let read = match way {
            Way::Up(from) => source.sql.events_from(from, SLICE, |row| {
                bytes += row.bytes();
                rows.push(row);
                bytes < SLICE_BYTES
            }),
            Way::Down { from, .. } => source.sql.events_down_from(from, SLICE_DOWN, |row| rows.push(row)),
        };
        let read = source.unless_unread(read)?;
        rows.retain(Row::is_intact);
        for row in &rows {
            let is_restored = self.sql.restore_event(row)?;
            tally.events += u64::from(is_restored);
            self.make_way_for(row.seq);
            // Where that cannot be read it is not known to have been sent, and is sent.
            if is_restored && source.sql.is_intended(row.seq).unwrap_or_default() {
                self.sql.insert_intent(row.seq)?;
            }
            if let Some(attempt) = unsure_in(source.sql, row) {
                self.set_unsure(row.seq, &attempt)?;
            }
        }
        // The number of a damaged row may lead anywhere.
        Ok(way.next(read, bytes, rows.last().map(|row| row.seq)))
    }

    /// Where nothing was known of the former file, its numbers may lie above the new ones.
    fn make_way_for(&mut self, seq: u64) {
        self.books.next_seq = self.books.next_seq.max(seq + 1);
    }

    fn copy_dead(&mut self, mut source: Source<'_>, way: Way, tally: &mut Tally) -> Result<Option<Way>, Stop> {
        let (mut rows, mut bytes) = (Vec::<WholeDead>::new(), 0);
        let read = match way {
            Way::Up(from) => source.sql.whole_dead_from(from, SLICE, |dead| {
                bytes += dead.row.bytes();
                rows.push(dead);
                bytes < SLICE_BYTES
            }),
            Way::Down { from, .. } => source.sql.whole_dead_down_from(from, SLICE_DOWN, |dead| rows.push(dead)),
        };
        let read = source.unless_unread(read)?;
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
                if let Some(at) = overtaken_at(source.sql, seq, user) {
                    // Which event went is not known any more: one behind it.
                    self.sql.pass(user, seq + 1, at)?;
                }
            }
        }
        // What was found damaged before was found by its number.
        let is_certain = |dead: &&WholeDead| dead.row.is_intact() || dead.reason == Reason::Corrupt.as_str();
        Ok(way.next(read, bytes, rows.iter().rfind(is_certain).map(|dead| dead.row.seq)))
    }
}

/// Whether Cello may have counted an event by now. Its attempts stay behind; where they cannot be read, it may.
pub(super) fn unsure_in(source: &Sql, row: &Row) -> Option<Attempt> {
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
