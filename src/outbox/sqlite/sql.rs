//! All SQL and every PRAGMA, as small named functions; nothing here decides anything.
//!
//! Shape of the file: an append touches one B-tree (`event`, by sequence) and the one row of `state`.
//! There is no index on an event's id (an id holds its sequence) and none on its user: only users
//! whose events wait behind something (`gate`, `parked`) are keyed by user.

mod dead;
mod event;
mod failed;
mod file;
mod gate;
mod remembered;
mod schema;

use std::cell::Cell;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Result, params};

use super::row::Books;
use crate::clock::Timestamp;
use crate::outbox::Ledger;
use crate::reason::Reason;

#[cfg(test)]
pub(super) use dead::{DEAD, DEAD_OF_REASON, DEAD_OF_USER, PASS};
#[cfg(test)]
pub(super) use event::{LINE, LINES};
#[cfg(test)]
pub(super) use failed::FAILED;
pub(super) use schema::{MIGRATIONS, SCHEMA_VERSION};

/// Bytes of a page; also the unit in which WAL and free space are counted.
pub(super) const PAGE_BYTES: u64 = 4096;
/// Bytes of a page and its header in the WAL.
pub(super) const FRAME_BYTES: u64 = PAGE_BYTES + 24;
/// Bytes before the WAL's first page.
pub(super) const WAL_HEAD_BYTES: u64 = 32;

/// Set when a file is made; they cannot be changed later without rewriting it.
const CREATE_PRAGMAS: &str = "
    -- One page is what a disk writes at least.
    PRAGMA page_size = 4096;
    -- Lets space be given back to the volume in small steps.
    PRAGMA auto_vacuum = INCREMENTAL;
";

/// How SQLite numbers the vacuum of [`CREATE_PRAGMAS`].
const INCREMENTAL: i64 = 2;

/// Set on the writer's connection.
const WRITER_PRAGMAS: &str = "
    -- Readers and the writer do not wait for each other, and a commit is one sequential write.
    PRAGMA journal_mode = WAL;
    -- A commit returns only when the WAL is synced: a 2xx means stored. (While a batch of appends and
    -- settles is committed it is NORMAL, and the writer syncs the WAL itself: see writer/syncer.)
    PRAGMA synchronous = FULL;
    -- Checkpoints are the writer's, after the callers of a batch were answered, not inside a commit.
    PRAGMA wal_autocheckpoint = 0;
    -- A WAL that grew in a burst is cut back to 4 MiB when it starts over.
    PRAGMA journal_size_limit = 4194304;
    -- Personal data of events that ended is overwritten where a page is written anyway. Pages that got
    -- free altogether are used again or given back, the idle WAL is emptied: see writer/house. (ON
    -- writes free pages once more: 3,450 instead of 3,040 bytes for each delivered event.)
    PRAGMA secure_delete = FAST;
    -- The only connection that writes; kept small, the queue is read in sequence.
    PRAGMA cache_size = -2048;
";

/// Set on every connection.
const COMMON_PRAGMAS: &str = "
    -- No temporary files: they would hold personal data and need room on a full disk.
    PRAGMA temp_store = MEMORY;
    -- An I/O error of a mapped page is a SIGBUS; of a read call it is an error.
    PRAGMA mmap_size = 0;
    -- A damaged schema must not run code.
    PRAGMA trusted_schema = OFF;
    -- Verifies the size of cells when a page is read: damage shows as an error, not as nonsense.
    PRAGMA cell_size_check = ON;
";

/// Who makes a commit durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Syncs {
    /// SQLite, before the commit returns.
    Itself,
    /// Whoever calls, before anyone hears of it.
    Later,
}

/// One connection and all statements on it.
pub(super) struct Sql {
    conn: Connection,
    syncs: Cell<Syncs>,
}

/// SQLite's integers are signed; ours fit.
fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn uint(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// Text as it is in the row, be it damaged or not.
fn text(value: ValueRef<'_>) -> String {
    value.as_bytes().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default()
}

fn some_text(value: ValueRef<'_>) -> Option<Box<str>> {
    (value != ValueRef::Null).then(|| text(value).into())
}

fn reason(value: ValueRef<'_>) -> Option<Reason> {
    text(value).parse().ok()
}

fn timestamp(value: i64) -> Timestamp {
    Timestamp::from_millis(value)
}

/// The file contradicts itself, which SQLite does not notice. (Rows out of sequence, say: whoever goes on behind the last
/// one passes over others.)
pub(super) fn contradiction() -> rusqlite::Error {
    sqlite_failure(rusqlite::ffi::SQLITE_CORRUPT)
}

/// What SQLite would say with that code, where somebody else failed.
pub(super) fn sqlite_failure(code: i32) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None)
}

/// Gives what `read` finds from `from` on to `each` until that says stop; gives how many rows were read.
///
/// # Errors
/// Also if they do not lie in sequence: whoever goes on behind the last one would pass over others.
fn in_order<T>(
    from: u64,
    seq: impl Fn(&T) -> u64,
    mut each: impl FnMut(T) -> bool,
    read: impl FnOnce(&mut dyn FnMut(T) -> bool) -> Result<u64>,
) -> Result<u64> {
    let (mut next, mut is_astray) = (from, false);
    let count = read(&mut |row| {
        is_astray = seq(&row) < next;
        next = seq(&row) + 1;
        !is_astray && each(row)
    })?;
    if is_astray { Err(contradiction()) } else { Ok(count) }
}

impl Sql {
    /// Opens the file to read and write, making it if there is none.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(path, flags)?;
        conn.busy_timeout(Duration::ZERO)?;
        conn.set_prepared_statement_cache_capacity(96);
        // A close must not write: after a failure it would touch a file whose state is not known.
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        conn.execute_batch(COMMON_PRAGMAS)?;
        // Said again they would be a commit, behind what an earlier process may not have synced.
        if conn.pragma_query_value(None, "auto_vacuum", |row| row.get::<_, i64>(0))? != INCREMENTAL {
            conn.execute_batch(CREATE_PRAGMAS)?;
        }
        conn.execute_batch(WRITER_PRAGMAS)?;
        Ok(Self { conn, syncs: Cell::new(Syncs::Itself) })
    }

    /// Opens the file for reading only.
    pub(super) fn open_read_only(path: &Path) -> Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(path, flags)?;
        conn.busy_timeout(Duration::from_millis(500))?;
        conn.execute_batch(COMMON_PRAGMAS)?;
        conn.pragma_update(None, "cache_size", -256)?;
        Ok(Self { conn, syncs: Cell::new(Syncs::Itself) })
    }

    /// Says who makes the next commits durable. Either way checkpoints sync what they move, and the WAL's
    /// head is synced when it starts over.
    pub(super) fn sync(&self, syncs: Syncs) -> Result<()> {
        if self.syncs.replace(syncs) == syncs {
            return Ok(());
        }
        self.conn.execute_batch(match syncs {
            Syncs::Itself => "PRAGMA synchronous = FULL",
            Syncs::Later => "PRAGMA synchronous = NORMAL",
        })
    }

    /// Starts the transaction of a batch.
    pub(super) fn begin(&self) -> Result<()> {
        self.run("BEGIN IMMEDIATE", [])
    }

    /// Ends it: returns when the WAL is written, and synced unless that comes later.
    pub(super) fn commit(&self) -> Result<()> {
        self.run("COMMIT", [])
    }

    /// Fails if SQLite has undone it by itself, as it does when a read fails, also one whose result nobody needs: what
    /// follows would be committed statement by statement.
    pub(super) fn expect_transaction(&self) -> Result<()> {
        if self.conn.is_autocommit() { Err(sqlite_failure(rusqlite::ffi::SQLITE_ABORT_ROLLBACK)) } else { Ok(()) }
    }

    /// Undoes it, if SQLite has not already.
    pub(super) fn rollback(&self) -> Result<()> {
        if self.conn.is_autocommit() { Ok(()) } else { self.run("ROLLBACK", []) }
    }

    fn run(&self, sql: &str, params: impl rusqlite::Params) -> Result<()> {
        self.conn.prepare_cached(sql)?.execute(params).map(drop)
    }

    fn changed(&self, sql: &str, params: impl rusqlite::Params) -> Result<u64> {
        Ok(self.conn.prepare_cached(sql)?.execute(params)? as u64)
    }

    fn one<T>(
        &self,
        sql: &str,
        params: impl rusqlite::Params,
        read: impl FnOnce(&rusqlite::Row<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        self.conn.prepare_cached(sql)?.query_row(params, read).optional()
    }

    fn all<T>(
        &self,
        sql: &str,
        params: impl rusqlite::Params,
        read: impl FnMut(&rusqlite::Row<'_>) -> Result<T>,
    ) -> Result<Vec<T>> {
        self.conn.prepare_cached(sql)?.query_map(params, read)?.collect()
    }

    // --- meta and state

    /// A fact about the file.
    pub(super) fn meta(&self, key: &str) -> Result<Option<String>> {
        self.one("SELECT value FROM meta WHERE key = ?", [key], |row| row.get(0))
    }

    /// Sets a fact about the file.
    pub(super) fn set_meta(&self, key: &str, value: &str) -> Result<()> {
        self.run(
            "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            [key, value],
        )
    }

    /// Forgets a fact about the file.
    pub(super) fn forget_meta(&self, key: &str) -> Result<()> {
        self.run("DELETE FROM meta WHERE key = ?", [key])
    }

    /// The ledger and the other counts.
    pub(super) fn books(&self) -> Result<Books> {
        let sql = "SELECT accepted, delivered, dead, discarded, erased, lost, next_seq, mark, gates, failed, done, \
                   dead_bytes, key_bytes FROM state WHERE id = 1";
        self.conn.prepare_cached(sql)?.query_row([], |row| {
            let at = |column: usize| row.get(column).map(uint);
            let ledger = Ledger {
                accepted: at(0)?,
                delivered: at(1)?,
                dead: at(2)?,
                discarded: at(3)?,
                erased: at(4)?,
                lost: at(5)?,
            };
            let (next_seq, mark, gates, failed) = (at(6)?, at(7)?, at(8)?, at(9)?);
            let (done, dead_bytes, key_bytes) = (at(10)?, at(11)?, at(12)?);
            Ok(Books { ledger, next_seq, mark, gates, failed, done, dead_bytes, key_bytes, ..Books::default() })
        })
    }

    /// Writes the ledger and the other counts.
    pub(super) fn write_books(&self, books: &Books) -> Result<()> {
        let sql = "UPDATE state SET accepted = ?, delivered = ?, dead = ?, discarded = ?, erased = ?, lost = ?, \
                   next_seq = ?, mark = ?, gates = ?, failed = ?, done = ?, dead_bytes = ?, key_bytes = ? WHERE id = 1";
        let ledger = &books.ledger;
        let (accepted, delivered, dead) = (int(ledger.accepted), int(ledger.delivered), int(ledger.dead));
        let (discarded, erased, lost) = (int(ledger.discarded), int(ledger.erased), int(ledger.lost));
        let (next_seq, mark, gates) = (int(books.next_seq), int(books.mark), int(books.gates));
        let (failed, done) = (int(books.failed), int(books.done));
        let (dead_bytes, key_bytes) = (int(books.dead_bytes), int(books.key_bytes));
        self.run(
            sql,
            params![
                accepted, delivered, dead, discarded, erased, lost, next_seq, mark, gates, failed, done, dead_bytes,
                key_bytes
            ],
        )
    }
}

#[cfg(test)]
#[path = "sql/tests.rs"]
mod tests;
