//! All SQL and every PRAGMA, as small named functions; nothing here decides anything.
//!
//! Shape of the file: an append touches one B-tree (`event`, by sequence) and the one row of `state`.
//! There is no index on an event's id (an id holds its sequence) and none on its user: only users
//! whose events wait behind something (`gate`, `parked`) are keyed by user.

use std::cell::Cell;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use rusqlite::config::DbConfig;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Result, params};

use super::row::{
    Books, DeadRow, DoneRow, Gate, KeyRow, KeyText, LineRow, ProgressRow, Row, Table, WholeDead, checksum,
};
use crate::clock::Timestamp;
use crate::event::{Event, EventId, Trigger, UserId};
use crate::outbox::{ATTEMPTS_KEPT, Attempt, DeadGroup, Filter, Key, Ledger, Progress};
use crate::reason::Reason;

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

/// Schema version 1. A later version may add columns and tables, and this release still writes its file: so every
/// INSERT below names its columns.
const SCHEMA: &str = "
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE state (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        accepted INTEGER NOT NULL, delivered INTEGER NOT NULL, dead INTEGER NOT NULL,
        discarded INTEGER NOT NULL, erased INTEGER NOT NULL, lost INTEGER NOT NULL,
        next_seq INTEGER NOT NULL, mark INTEGER NOT NULL, gates INTEGER NOT NULL, failed INTEGER NOT NULL,
        done INTEGER NOT NULL, dead_bytes INTEGER NOT NULL, key_bytes INTEGER NOT NULL
    );
    CREATE TABLE event (
        seq INTEGER PRIMARY KEY, salt INTEGER NOT NULL, accepted_ms INTEGER NOT NULL, trigger INTEGER NOT NULL,
        again INTEGER NOT NULL, user TEXT NOT NULL, trace TEXT, crc INTEGER NOT NULL, body BLOB NOT NULL
    );
    CREATE TABLE dead (
        seq INTEGER PRIMARY KEY, salt INTEGER NOT NULL, accepted_ms INTEGER NOT NULL, trigger INTEGER NOT NULL,
        user TEXT NOT NULL, trace TEXT, crc INTEGER NOT NULL, died_ms INTEGER NOT NULL, reason TEXT NOT NULL,
        attempts INTEGER NOT NULL, body BLOB NOT NULL
    );
    CREATE TABLE done (
        seq INTEGER PRIMARY KEY, salt INTEGER NOT NULL, accepted_ms INTEGER NOT NULL, done_ms INTEGER NOT NULL,
        attempts INTEGER NOT NULL, request_id TEXT
    );
    CREATE TABLE progress (
        seq INTEGER PRIMARY KEY, attempts INTEGER NOT NULL, strikes INTEGER NOT NULL, first_failed_ms INTEGER NOT NULL,
        delivered_mark INTEGER NOT NULL, next_ms INTEGER NOT NULL, reason TEXT NOT NULL
    );
    CREATE TABLE attempt (
        seq INTEGER NOT NULL, n INTEGER NOT NULL, at_ms INTEGER NOT NULL, reason TEXT NOT NULL, status INTEGER,
        request_id TEXT, message TEXT, PRIMARY KEY (seq, n)
    ) WITHOUT ROWID;
    CREATE TABLE gate (user TEXT PRIMARY KEY, due_ms INTEGER NOT NULL, wait_ms INTEGER NOT NULL) WITHOUT ROWID;
    CREATE INDEX gate_due ON gate (due_ms);
    CREATE TABLE parked (user TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (user, seq)) WITHOUT ROWID;
    CREATE TABLE intent (seq INTEGER PRIMARY KEY);
    CREATE TABLE idempotency (
        id INTEGER PRIMARY KEY, route INTEGER NOT NULL, key TEXT NOT NULL, body BLOB NOT NULL,
        first_seq INTEGER NOT NULL, count INTEGER NOT NULL, salt INTEGER NOT NULL, at_ms INTEGER NOT NULL,
        bytes INTEGER NOT NULL, notes TEXT NOT NULL, UNIQUE (route, key)
    );
    INSERT INTO state VALUES (1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    PRAGMA user_version = 1;
";

/// Version 2: dead letters are found by user, reason and age, and know that later events went.
pub(super) const TO_VERSION_2: &str = "
    CREATE INDEX dead_user ON dead (user);
    CREATE INDEX dead_reason ON dead (reason);
    CREATE INDEX dead_died ON dead (died_ms);
    -- Dead letters whose user had a later event delivered since, and when.
    CREATE TABLE overtaken (seq INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL);
    PRAGMA user_version = 2;
";

/// Version 3: one note a user tells which of the dead letters were overtaken, and what was sent without a known
/// outcome and not burned leaves a trace. `overtaken` is only read from now on.
pub(super) const TO_VERSION_3: &str = "
    -- Users with dead letters of whom a later event was delivered: the last one that passed a dead letter, and when.
    CREATE TABLE passed (user TEXT PRIMARY KEY, seq INTEGER NOT NULL, at_ms INTEGER NOT NULL) WITHOUT ROWID;
    -- Events that Cello may have counted, though no attempt says so.
    CREATE TABLE unsure (
        seq INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, reason TEXT NOT NULL, status INTEGER, request_id TEXT
    );
    PRAGMA user_version = 3;
";

/// Notes a delivery, if the user has dead letters before it that no noted one has passed yet.
pub(super) const PASS: &str = "INSERT INTO passed (user, seq, at_ms) SELECT ?1, ?2, ?3 WHERE EXISTS (SELECT 1 FROM dead \
    WHERE user = ?1 AND seq < ?2 AND seq >= coalesce((SELECT seq FROM passed WHERE user = ?1), 0)) \
    ON CONFLICT (user) DO UPDATE SET seq = excluded.seq, at_ms = excluded.at_ms";
/// Waiting events without their bodies.
pub(super) const LINES: &str =
    "SELECT seq, salt, accepted_ms, trigger, user, length(body) FROM event WHERE seq >= ? ORDER BY seq LIMIT ?";
/// One of them.
pub(super) const LINE: &str = "SELECT seq, salt, accepted_ms, trigger, user, length(body) FROM event WHERE seq = ?";
/// Waiting events that failed before.
pub(super) const FAILED: &str = "SELECT seq FROM progress WHERE seq >= ? ORDER BY seq LIMIT ?";
/// Dead letters without their bodies: all …
pub(super) const DEAD: &str = "SELECT seq, salt, accepted_ms, trigger, user, died_ms, reason, attempts, length(body) \
    FROM dead WHERE seq >= ?1 ORDER BY seq LIMIT ?2";
/// … of a user …
pub(super) const DEAD_OF_USER: &str = "SELECT seq, salt, accepted_ms, trigger, user, died_ms, reason, attempts, \
    length(body) FROM dead WHERE user = ?3 AND seq >= ?1 ORDER BY seq LIMIT ?2";
/// … or of a reason.
pub(super) const DEAD_OF_REASON: &str = "SELECT seq, salt, accepted_ms, trigger, user, died_ms, reason, attempts, \
    length(body) FROM dead WHERE reason = ?3 AND seq >= ?1 ORDER BY seq LIMIT ?2";

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

/// Rows that do not come in sequence: SQLite does not notice that, and whoever goes on behind the last one passes over
/// others.
fn out_of_order() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT), None)
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

    /// Makes all tables, in one transaction.
    pub(super) fn create(&self) -> Result<()> {
        self.conn.execute_batch(&format!("BEGIN IMMEDIATE; {SCHEMA} COMMIT"))
    }

    /// Runs the steps that lead to the next schema version, in one transaction.
    pub(super) fn migrate(&self, steps: &str) -> Result<()> {
        self.conn.execute_batch(&format!("BEGIN IMMEDIATE; {steps} COMMIT"))
    }

    /// The schema version; 0 is an empty file.
    pub(super) fn version(&self) -> Result<i64> {
        self.conn.query_row("PRAGMA user_version", [], |row| row.get(0))
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

    // --- events that wait

    /// Stores a new event.
    pub(super) fn insert_event(&self, id: EventId, event: &Event) -> Result<()> {
        let sql = "INSERT INTO event (seq, salt, accepted_ms, trigger, again, user, trace, crc, body) \
                   VALUES (?, ?, ?, ?, 0, ?, ?, ?, ?)";
        let (seq, salt, at, trigger) = (id.seq(), id.salt(), id.accepted_at(), event.trigger.code());
        let (user, trace, crc) = (event.user.as_str(), event.trace.as_deref(), checksum(seq, salt, at, event));
        self.run(sql, params![int(seq), salt, at.as_millis(), trigger, user, trace, crc, &event.body[..]])
    }

    /// Stores an event unless its sequence is taken; says whether it did.
    pub(super) fn restore_event(&self, row: &Row) -> Result<bool> {
        let sql = "INSERT OR IGNORE INTO event (seq, salt, accepted_ms, trigger, again, user, trace, crc, body) \
                   VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
        let event = &row.event;
        let (accepted, trigger) = (row.accepted_at.as_millis(), event.trigger.code());
        let (user, trace, body) = (event.user.as_str(), event.trace.as_deref(), &event.body[..]);
        let values = params![int(row.seq), row.salt, accepted, trigger, row.again, user, trace, row.crc, body];
        Ok(self.changed(sql, values)? > 0)
    }

    fn read_event(row: &rusqlite::Row<'_>) -> Result<Row> {
        let event = Event {
            user: UserId::new(&text(row.get_ref(5)?)),
            trigger: Trigger::from_code(row.get::<_, i64>(3)? as u8),
            body: Bytes::copy_from_slice(row.get_ref(8)?.as_bytes().unwrap_or_default()),
            trace: some_text(row.get_ref(6)?),
        };
        let (seq, salt) = (uint(row.get(0)?), row.get::<_, i64>(1)? as u32);
        let (again, crc) = (row.get::<_, i64>(4)? != 0, row.get::<_, i64>(7)? as u32);
        Ok(Row { seq, salt, accepted_at: timestamp(row.get(2)?), event, again, crc })
    }

    /// Looks at up to `limit` waiting events in sequence, from `seq` on, without reading bodies; `user` leaves the
    /// others out. Says where to go on, if there may be more.
    pub(super) fn lines_from(
        &self,
        seq: u64,
        limit: u64,
        user: Option<&UserId>,
        mut each: impl FnMut(LineRow) -> bool,
    ) -> Result<Option<u64>> {
        let mut statement = self.conn.prepare_cached(LINES)?;
        let mut rows = statement.query([int(seq), int(limit)])?;
        let (mut count, mut next) = (0, seq);
        while let Some(row) = rows.next()? {
            count += 1;
            let found = uint(row.get(0)?);
            if found < next {
                return Err(out_of_order());
            }
            next = found + 1;
            let is_meant =
                user.is_none_or(|user| row.get_ref(4).is_ok_and(|of| of.as_bytes() == Ok(user.as_str().as_bytes())));
            if is_meant && !each(Self::read_line(row)?) {
                return Ok(Some(next));
            }
        }
        Ok((count == limit).then_some(next))
    }

    fn read_line(row: &rusqlite::Row<'_>) -> Result<LineRow> {
        Ok(LineRow {
            id: EventId::new(timestamp(row.get(2)?), uint(row.get(0)?), row.get::<_, i64>(1)? as u32),
            trigger: Trigger::from_code(row.get::<_, i64>(3)? as u8),
            user: UserId::new(&text(row.get_ref(4)?)),
            body_bytes: uint(row.get(5)?),
        })
    }

    /// The line of one waiting event.
    pub(super) fn line(&self, seq: u64) -> Result<Option<LineRow>> {
        self.one(LINE, [int(seq)], Self::read_line)
    }

    /// Sequences of waiting events that have failed before.
    pub(super) fn failed_from(&self, seq: u64, limit: u64) -> Result<Vec<u64>> {
        self.all(FAILED, [int(seq), int(limit)], |row| row.get(0).map(uint))
    }

    /// The event with that sequence, if it waits.
    pub(super) fn event(&self, seq: u64) -> Result<Option<Row>> {
        self.one(
            "SELECT seq, salt, accepted_ms, trigger, again, user, trace, crc, body FROM event WHERE seq = ?",
            [int(seq)],
            Self::read_event,
        )
    }

    /// Reads events in sequence, from `seq` on, at most `limit`, until `each` says stop.
    pub(super) fn events_from(&self, seq: u64, limit: u64, mut each: impl FnMut(Row) -> bool) -> Result<u64> {
        let sql = "SELECT seq, salt, accepted_ms, trigger, again, user, trace, crc, body FROM event \
                   WHERE seq >= ? ORDER BY seq LIMIT ?";
        let mut statement = self.conn.prepare_cached(sql)?;
        let mut rows = statement.query([int(seq), int(limit)])?;
        let mut count = 0;
        while let Some(row) = rows.next()? {
            count += 1;
            if !each(Self::read_event(row)?) {
                break;
            }
        }
        Ok(count)
    }

    /// Reads events against the sequence, from `seq` down; used beside a damaged place.
    pub(super) fn events_down_from(&self, seq: u64, limit: u64, mut each: impl FnMut(Row)) -> Result<u64> {
        let sql = "SELECT seq, salt, accepted_ms, trigger, again, user, trace, crc, body FROM event \
                   WHERE seq <= ? ORDER BY seq DESC LIMIT ?";
        let mut statement = self.conn.prepare_cached(sql)?;
        let mut rows = statement.query([int(seq), int(limit)])?;
        let mut count = 0;
        while let Some(row) = rows.next()? {
            count += 1;
            each(Self::read_event(row)?);
        }
        Ok(count)
    }

    /// Removes an event that waited.
    pub(super) fn delete_event(&self, seq: u64) -> Result<()> {
        self.run("DELETE FROM event WHERE seq = ?", [int(seq)])
    }

    /// When the first event that waits was accepted.
    pub(super) fn oldest(&self) -> Result<Option<Timestamp>> {
        self.one("SELECT accepted_ms FROM event ORDER BY seq LIMIT 1", [], |row| row.get(0).map(timestamp))
    }

    /// How many events there are below a sequence: waiting, dead, and the bytes of the dead.
    pub(super) fn count_below(&self, seq: u64) -> Result<(u64, u64, u64)> {
        let count = |sql: &str| self.one(sql, [int(seq)], |row| row.get(0).map(uint)).map(Option::unwrap_or_default);
        let events = count("SELECT count(*) FROM event WHERE seq < ?")?;
        let dead = count("SELECT count(*) FROM dead WHERE seq < ?")?;
        let bytes = count("SELECT coalesce(sum(length(body) + length(user)), 0) FROM dead WHERE seq < ?")?;
        Ok((events, dead, bytes + dead * super::row::OVERHEAD_BYTES))
    }

    // --- dead letters

    /// Moves a waiting event to the dead letters; says whether there was one.
    pub(super) fn bury(&self, seq: u64, died_at: Timestamp, why: Reason, attempts: u32) -> Result<bool> {
        let sql = "INSERT OR REPLACE INTO dead \
                   (seq, salt, accepted_ms, trigger, user, trace, crc, died_ms, reason, attempts, body) \
                   SELECT seq, salt, accepted_ms, trigger, user, trace, crc, ?2, ?3, ?4, body FROM event WHERE seq = ?1";
        let moved = self.changed(sql, params![int(seq), died_at.as_millis(), why.as_str(), attempts])?;
        self.delete_event(seq)?;
        Ok(moved > 0)
    }

    /// Moves a dead letter back to its place among what waits.
    pub(super) fn raise(&self, seq: u64, user: &UserId) -> Result<()> {
        let sql = "INSERT INTO event (seq, salt, accepted_ms, trigger, again, user, trace, crc, body) \
                   SELECT seq, salt, accepted_ms, trigger, 1, user, trace, crc, body FROM dead WHERE seq = ?";
        self.run(sql, [int(seq)])?;
        self.delete_dead(seq, user)
    }

    /// Removes a dead letter of that user; with the last one goes what is noted of them.
    pub(super) fn delete_dead(&self, seq: u64, user: &UserId) -> Result<()> {
        self.run("DELETE FROM dead WHERE seq = ?", [int(seq)])?;
        self.run("DELETE FROM overtaken WHERE seq = ?", [int(seq)])?;
        let sql = "DELETE FROM passed WHERE user = ?1 AND NOT EXISTS (SELECT 1 FROM dead WHERE user = ?1)";
        self.run(sql, [user.as_str()])
    }

    /// Notes that the user's dead letters before `seq` were overtaken; looks at one of them at most.
    pub(super) fn pass(&self, user: &UserId, seq: u64, at: Timestamp) -> Result<()> {
        self.run(PASS, params![user.as_str(), int(seq), at.as_millis()])
    }

    /// When a dead letter was overtaken, as far as a file of version 2 knew.
    pub(super) fn overtaken(&self, seq: u64) -> Result<Option<Timestamp>> {
        self.one("SELECT at_ms FROM overtaken WHERE seq = ?", [int(seq)], |row| row.get(0).map(timestamp))
    }

    /// When a later event of the user was delivered, if one was.
    pub(super) fn passed(&self, seq: u64, user: &UserId) -> Result<Option<Timestamp>> {
        let sql = "SELECT at_ms FROM passed WHERE user = ? AND seq > ?";
        self.one(sql, params![user.as_str(), int(seq)], |row| row.get(0).map(timestamp))
    }

    /// The dead letters by reason: how many, and the first.
    pub(super) fn dead_groups(&self) -> Result<Vec<DeadGroup>> {
        let sql = "SELECT reason, n, (SELECT accepted_ms FROM dead WHERE seq = first) \
                   FROM (SELECT reason, count(*) AS n, min(seq) AS first FROM dead GROUP BY reason) ORDER BY n DESC";
        self.all(sql, [], |row| {
            let (count, oldest) = (uint(row.get(1)?), timestamp(row.get::<_, Option<i64>>(2)?.unwrap_or_default()));
            Ok(DeadGroup { reason: reason(row.get_ref(0)?), count, oldest })
        })
    }

    /// Some that died by `until`, longest dead first.
    pub(super) fn dead_until(&self, until: Timestamp, limit: u64) -> Result<Vec<u64>> {
        let sql = "SELECT seq FROM dead WHERE died_ms <= ? ORDER BY died_ms LIMIT ?";
        self.all(sql, [until.as_millis(), int(limit)], |row| row.get(0).map(uint))
    }

    fn read_dead(row: &rusqlite::Row<'_>) -> Result<DeadRow> {
        let id = EventId::new(timestamp(row.get(2)?), uint(row.get(0)?), row.get::<_, i64>(1)? as u32);
        Ok(DeadRow {
            id,
            user: UserId::new(&text(row.get_ref(4)?)),
            trigger: Trigger::from_code(row.get::<_, i64>(3)? as u8),
            reason: reason(row.get_ref(6)?),
            attempts: row.get::<_, i64>(7)? as u32,
            body_bytes: uint(row.get(8)?),
        })
    }

    /// The dead letter with that sequence.
    pub(super) fn dead(&self, seq: u64) -> Result<Option<DeadRow>> {
        let sql = "SELECT seq, salt, accepted_ms, trigger, user, died_ms, reason, attempts, length(body) FROM dead \
                   WHERE seq = ?";
        self.one(sql, [int(seq)], Self::read_dead)
    }

    /// A slice of the dead letters, in sequence: of a user or of a reason, or of all.
    pub(super) fn dead_from(&self, seq: u64, limit: u64, filter: &Filter) -> Result<Vec<DeadRow>> {
        let (from, limit) = (int(seq), int(limit));
        let rows = match (&filter.user, filter.reason) {
            (Some(user), _) => self.all(DEAD_OF_USER, params![from, limit, user.as_str()], Self::read_dead),
            (None, Some(reason)) => self.all(DEAD_OF_REASON, params![from, limit, reason.as_str()], Self::read_dead),
            (None, None) => self.all(DEAD, params![from, limit], Self::read_dead),
        }?;
        if rows.iter().zip(rows.iter().skip(1)).any(|(one, next)| one.id.seq() >= next.id.seq()) {
            return Err(out_of_order());
        }
        Ok(rows)
    }

    /// How SQLite finds what listings and decisions ask for, a line a step; for tests.
    #[cfg(test)]
    pub(super) fn plan(&self, sql: &str) -> Result<Vec<String>> {
        let mut statement = self.conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
        let values = vec![1_i64; statement.parameter_count()];
        statement.query_map(rusqlite::params_from_iter(values), |row| row.get(3))?.collect()
    }

    /// How many steps of SQLite's machine a statement takes; for tests.
    #[cfg(test)]
    pub(super) fn steps(&self, sql: &str, params: impl rusqlite::Params) -> Result<i32> {
        let mut statement = self.conn.prepare(sql)?;
        statement.execute(params)?;
        Ok(statement.get_status(rusqlite::StatementStatus::VmStep))
    }

    /// Reads whole dead letters (event, death, reason, attempts) in sequence, from `seq` on, at most
    /// `limit`, until `each` says stop.
    pub(super) fn whole_dead_from(&self, seq: u64, limit: u64, mut each: impl FnMut(WholeDead) -> bool) -> Result<u64> {
        let sql = "SELECT seq, salt, accepted_ms, trigger, 0, user, trace, crc, body, died_ms, reason, attempts \
                   FROM dead WHERE seq >= ? ORDER BY seq LIMIT ?";
        let mut statement = self.conn.prepare_cached(sql)?;
        let mut rows = statement.query([int(seq), int(limit)])?;
        let mut count = 0;
        while let Some(row) = rows.next()? {
            count += 1;
            let (died_at, attempts) = (timestamp(row.get(9)?), row.get::<_, i64>(11)? as u32);
            let reason = text(row.get_ref(10)?);
            if !each(WholeDead { row: Self::read_event(row)?, died_at, reason, attempts }) {
                break;
            }
        }
        Ok(count)
    }

    /// Stores a dead letter of another file unless its sequence is taken.
    pub(super) fn restore_dead(&self, dead: &WholeDead) -> Result<bool> {
        let WholeDead { row, died_at, reason, attempts } = dead;
        let sql = "INSERT OR IGNORE INTO dead \
                   (seq, salt, accepted_ms, trigger, user, trace, crc, died_ms, reason, attempts, body) \
                   VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
        let event = &row.event;
        let (accepted, trigger, died) = (row.accepted_at.as_millis(), event.trigger.code(), died_at.as_millis());
        let (user, trace, body) = (event.user.as_str(), event.trace.as_deref(), &event.body[..]);
        let values =
            params![int(row.seq), row.salt, accepted, trigger, user, trace, row.crc, died, reason, attempts, body];
        Ok(self.changed(sql, values)? > 0)
    }

    /// Sequences of all waiting or dead events, or all against the sequence; what was read before an error was told.
    pub(super) fn seqs(&self, table: Table, is_down: bool, mut each: impl FnMut(u64)) -> Result<()> {
        let sql = match (table, is_down) {
            (Table::Waiting, false) => "SELECT seq FROM event ORDER BY seq",
            (Table::Waiting, true) => "SELECT seq FROM event ORDER BY seq DESC",
            (Table::Dead, false) => "SELECT seq FROM dead NOT INDEXED ORDER BY seq",
            (Table::Dead, true) => "SELECT seq FROM dead NOT INDEXED ORDER BY seq DESC",
        };
        let mut statement = self.conn.prepare_cached(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            each(uint(row.get(0)?));
        }
        Ok(())
    }

    // --- the delivered, remembered for a while

    /// Remembers a delivered event.
    pub(super) fn insert_done(
        &self,
        id: EventId,
        at: Timestamp,
        attempts: u32,
        request_id: Option<&str>,
    ) -> Result<()> {
        let (seq, salt, accepted) = (int(id.seq()), id.salt(), id.accepted_at().as_millis());
        let values = params![seq, salt, accepted, at.as_millis(), attempts, request_id];
        let sql = "INSERT OR REPLACE INTO done (seq, salt, accepted_ms, done_ms, attempts, request_id) \
                   VALUES (?, ?, ?, ?, ?, ?)";
        self.run(sql, values)
    }

    /// What is remembered of a delivered event.
    pub(super) fn done(&self, seq: u64) -> Result<Option<DoneRow>> {
        let sql = "SELECT salt, accepted_ms, done_ms, attempts, request_id FROM done WHERE seq = ?";
        self.one(sql, [int(seq)], |row| {
            let id = EventId::new(timestamp(row.get(1)?), seq, row.get::<_, i64>(0)? as u32);
            let (done_at, attempts) = (timestamp(row.get(2)?), row.get::<_, i64>(3)? as u32);
            Ok(DoneRow { id, done_at, attempts, request_id: some_text(row.get_ref(4)?) })
        })
    }

    /// Forgets the first `count` delivered events; says how many there were.
    pub(super) fn trim_done(&self, count: u64) -> Result<u64> {
        self.changed("DELETE FROM done WHERE seq IN (SELECT seq FROM done ORDER BY seq LIMIT ?)", [int(count)])
    }

    /// Forgets those of the first `limit` that were delivered by `until`; says how many there were.
    pub(super) fn trim_done_until(&self, until: Timestamp, limit: u64) -> Result<u64> {
        let sql = "DELETE FROM done WHERE seq IN (SELECT seq FROM done ORDER BY seq LIMIT ?) AND done_ms <= ?";
        self.changed(sql, [int(limit), until.as_millis()])
    }

    /// When the first remembered event was delivered.
    pub(super) fn first_done_at(&self) -> Result<Option<Timestamp>> {
        self.one("SELECT done_ms FROM done ORDER BY seq LIMIT 1", [], |row| row.get(0).map(timestamp))
    }

    // --- failed attempts

    /// The progress of an event that failed before.
    pub(super) fn progress(&self, seq: u64) -> Result<Option<ProgressRow>> {
        let sql = "SELECT attempts, strikes, first_failed_ms, delivered_mark, next_ms, reason FROM progress \
                   WHERE seq = ?";
        self.one(sql, [int(seq)], |row| {
            let progress = Progress {
                attempts: row.get::<_, i64>(0)? as u32,
                strikes: row.get::<_, i64>(1)? as u32,
                first_failed_at: Some(timestamp(row.get(2)?)),
                overtaken: false,
            };
            let (delivered_mark, next_at) = (uint(row.get(3)?), timestamp(row.get(4)?));
            Ok(ProgressRow { progress, delivered_mark, next_at, reason: reason(row.get_ref(5)?) })
        })
    }

    /// Writes the progress of an event.
    pub(super) fn write_progress(
        &self,
        seq: u64,
        progress: &Progress,
        delivered_mark: u64,
        next_at: Timestamp,
        why: Reason,
    ) -> Result<()> {
        let first = progress.first_failed_at.unwrap_or_default().as_millis();
        let (mark, next) = (int(delivered_mark), next_at.as_millis());
        let values = params![int(seq), progress.attempts, progress.strikes, first, mark, next, why.as_str()];
        let sql = "INSERT OR REPLACE INTO progress \
                   (seq, attempts, strikes, first_failed_ms, delivered_mark, next_ms, reason) \
                   VALUES (?, ?, ?, ?, ?, ?, ?)";
        self.run(sql, values)
    }

    /// Forgets the progress of an event; says whether there was any.
    pub(super) fn delete_progress(&self, seq: u64) -> Result<bool> {
        Ok(self.changed("DELETE FROM progress WHERE seq = ?", [int(seq)])? > 0)
    }

    /// Adds an attempt and drops what is older than the last [`ATTEMPTS_KEPT`].
    pub(super) fn add_attempt(&self, seq: u64, attempt: &Attempt) -> Result<()> {
        let insert = "INSERT INTO attempt (seq, n, at_ms, reason, status, request_id, message) \
                      SELECT ?1, coalesce(max(n), 0) + 1, ?2, ?3, ?4, ?5, ?6 FROM attempt WHERE seq = ?1";
        let (at, why) = (attempt.at.as_millis(), attempt.reason.as_str());
        let (request_id, message) = (attempt.request_id.as_deref(), attempt.message.as_deref());
        self.run(insert, params![int(seq), at, why, attempt.status, request_id, message])?;
        let trim = "DELETE FROM attempt WHERE seq = ?1 AND n <= (SELECT max(n) FROM attempt WHERE seq = ?1) - ?2";
        self.run(trim, [int(seq), ATTEMPTS_KEPT as i64])
    }

    /// The attempts that are kept of an event, oldest first.
    pub(super) fn attempts(&self, seq: u64) -> Result<Vec<Attempt>> {
        let sql = "SELECT at_ms, reason, status, request_id, message FROM attempt WHERE seq = ? ORDER BY n";
        self.all(sql, [int(seq)], Self::read_attempt)
    }

    /// The last attempt of an event.
    pub(super) fn last_attempt(&self, seq: u64) -> Result<Option<Attempt>> {
        let sql =
            "SELECT at_ms, reason, status, request_id, message FROM attempt WHERE seq = ? ORDER BY n DESC LIMIT 1";
        self.one(sql, [int(seq)], Self::read_attempt)
    }

    fn read_attempt(row: &rusqlite::Row<'_>) -> Result<Attempt> {
        Ok(Attempt {
            at: timestamp(row.get(0)?),
            // A reason that a newer release wrote; it has no name here.
            reason: reason(row.get_ref(1)?).unwrap_or(Reason::Http4xx),
            status: row.get::<_, Option<i64>>(2)?.and_then(|status| u16::try_from(status).ok()),
            request_id: some_text(row.get_ref(3)?),
            message: some_text(row.get_ref(4)?),
        })
    }

    /// Forgets all attempts of an event.
    pub(super) fn delete_attempts(&self, seq: u64) -> Result<()> {
        self.run("DELETE FROM attempt WHERE seq = ?", [int(seq)])
    }

    /// Remembers the last attempt that was not burned and whose outcome is not known; without Cello's words.
    pub(super) fn set_unsure(&self, seq: u64, attempt: &Attempt) -> Result<()> {
        let (at, why, request_id) = (attempt.at.as_millis(), attempt.reason.as_str(), attempt.request_id.as_deref());
        let sql = "INSERT OR REPLACE INTO unsure (seq, at_ms, reason, status, request_id) VALUES (?, ?, ?, ?, ?)";
        self.run(sql, params![int(seq), at, why, attempt.status, request_id])
    }

    /// That attempt, if there was one.
    pub(super) fn unsure(&self, seq: u64) -> Result<Option<Attempt>> {
        let sql = "SELECT at_ms, reason, status, request_id, NULL FROM unsure WHERE seq = ?";
        self.one(sql, [int(seq)], Self::read_attempt)
    }

    /// Forgets that attempt; says whether there was one.
    pub(super) fn delete_unsure(&self, seq: u64) -> Result<bool> {
        Ok(self.changed("DELETE FROM unsure WHERE seq = ?", [int(seq)])? > 0)
    }

    /// Whether there is any such event.
    pub(super) fn has_unsure(&self) -> Result<bool> {
        self.one("SELECT 1 FROM unsure LIMIT 1", [], |_| Ok(())).map(|found| found.is_some())
    }

    /// Forgets such attempts of events that ended while an older release ran.
    pub(super) fn trim_unsure(&self) -> Result<()> {
        let sql = "DELETE FROM unsure WHERE NOT EXISTS (SELECT 1 FROM event WHERE event.seq = unsure.seq) \
                   AND NOT EXISTS (SELECT 1 FROM dead WHERE dead.seq = unsure.seq)";
        self.run(sql, [])
    }

    // --- users whose events wait behind something

    /// When that user's next event is due, if the user is gated.
    pub(super) fn gate(&self, user: &UserId) -> Result<Option<Timestamp>> {
        self.one("SELECT due_ms FROM gate WHERE user = ?", [user.as_str()], |row| row.get(0).map(timestamp))
    }

    /// Users that have a gate, at most `limit`.
    pub(super) fn gated_users(&self, limit: u64) -> Result<Vec<UserId>> {
        self.all("SELECT user FROM gate LIMIT ?", [int(limit)], |row| Ok(UserId::new(&text(row.get_ref(0)?))))
    }

    /// Gates a user, or moves the gate.
    pub(super) fn set_gate(&self, user: &UserId, gate: Gate) -> Result<()> {
        let sql = "INSERT INTO gate (user, due_ms, wait_ms) VALUES (?, ?, ?) \
                   ON CONFLICT (user) DO UPDATE SET due_ms = excluded.due_ms, wait_ms = excluded.wait_ms";
        self.run(sql, params![user.as_str(), gate.due.as_millis(), gate.wait.as_millis() as i64])
    }

    /// Opens a user's gate.
    pub(super) fn delete_gate(&self, user: &UserId) -> Result<()> {
        self.run("DELETE FROM gate WHERE user = ?", [user.as_str()])
    }

    /// Gated users that are due, longest due first, until `each` takes one.
    pub(super) fn find_due(&self, now: Timestamp, mut each: impl FnMut(&str) -> bool) -> Result<Option<UserId>> {
        let sql = "SELECT user FROM gate WHERE due_ms <= ? ORDER BY due_ms";
        let mut statement = self.conn.prepare_cached(sql)?;
        let mut rows = statement.query([now.as_millis()])?;
        while let Some(row) = rows.next()? {
            let user = text(row.get_ref(0)?);
            if each(&user) {
                return Ok(Some(UserId::new(&user)));
            }
        }
        Ok(None)
    }

    /// When the next gate after `now` is due.
    pub(super) fn next_due(&self, now: Timestamp) -> Result<Option<Timestamp>> {
        let sql = "SELECT due_ms FROM gate WHERE due_ms > ? ORDER BY due_ms LIMIT 1";
        self.one(sql, [now.as_millis()], |row| row.get(0).map(timestamp))
    }

    /// Gates that lie further ahead than they ever waited: the clock was set back. Lets them wait for
    /// `at_most` from now.
    pub(super) fn pull_gates(&self, now: Timestamp, at_most: Duration) -> Result<()> {
        let sql = "UPDATE gate SET due_ms = ?1 + min(wait_ms, ?2) WHERE due_ms > ?1 + wait_ms";
        self.run(sql, [now.as_millis(), at_most.as_millis() as i64])
    }

    /// Remembers that an event waits behind its user's gate.
    pub(super) fn park(&self, user: &UserId, seq: u64) -> Result<()> {
        self.run("INSERT OR IGNORE INTO parked (user, seq) VALUES (?, ?)", params![user.as_str(), int(seq)])
    }

    /// The event left its user's line; says whether it was in it.
    pub(super) fn unpark(&self, user: &UserId, seq: u64) -> Result<bool> {
        Ok(self.changed("DELETE FROM parked WHERE user = ? AND seq = ?", params![user.as_str(), int(seq)])? > 0)
    }

    /// The first event behind a user's gate.
    pub(super) fn first_parked(&self, user: &UserId) -> Result<Option<u64>> {
        let sql = "SELECT seq FROM parked WHERE user = ? ORDER BY seq LIMIT 1";
        self.one(sql, [user.as_str()], |row| row.get(0).map(uint))
    }

    /// The last event behind a user's gate.
    pub(super) fn last_parked(&self, user: &UserId) -> Result<Option<u64>> {
        let sql = "SELECT seq FROM parked WHERE user = ? ORDER BY seq DESC LIMIT 1";
        self.one(sql, [user.as_str()], |row| row.get(0).map(uint))
    }

    // --- intents to send

    /// Remembers that an event is about to be sent.
    pub(super) fn insert_intent(&self, seq: u64) -> Result<()> {
        self.run("INSERT OR IGNORE INTO intent (seq) VALUES (?)", [int(seq)])
    }

    /// The outcome is known.
    pub(super) fn delete_intent(&self, seq: u64) -> Result<()> {
        self.run("DELETE FROM intent WHERE seq = ?", [int(seq)])
    }

    /// Events that were about to be sent when the store stopped.
    pub(super) fn intents(&self) -> Result<Vec<u64>> {
        self.all("SELECT seq FROM intent", [], |row| row.get(0).map(uint))
    }

    // --- idempotency keys

    /// What is remembered under a key.
    pub(super) fn key(&self, key: &Key) -> Result<Option<KeyRow>> {
        let sql = "SELECT id, body, first_seq, count, salt, at_ms, bytes, notes FROM idempotency \
                   WHERE route = ? AND key = ?";
        self.one(sql, params![key.route as u8, &*key.key], |row| {
            let (first_seq, count) = (uint(row.get(2)?), uint(row.get(3)?));
            let (salt, at) = (row.get::<_, i64>(4)? as u32, timestamp(row.get(5)?));
            let same_body = row.get_ref(1)?.as_bytes().unwrap_or_default() == key.body;
            let (bytes, notes) = (uint(row.get(6)?), text(row.get_ref(7)?).into());
            Ok(KeyRow { row_id: row.get(0)?, same_body, first_seq, count, salt, at, bytes, notes })
        })
    }

    /// Remembers a key with the answer to give again.
    pub(super) fn insert_key(&self, key: &Key, row: &KeyRow) -> Result<()> {
        let sql = "INSERT INTO idempotency (route, key, body, first_seq, count, salt, at_ms, bytes, notes) \
                   VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
        let (route, name, body) = (key.route as u8, &*key.key, &key.body[..]);
        let (first, count, at, bytes) = (int(row.first_seq), int(row.count), row.at.as_millis(), int(row.bytes));
        self.run(sql, params![route, name, body, first, count, row.salt, at, bytes, &*row.notes])
    }

    /// Forgets a key.
    pub(super) fn delete_key(&self, row_id: i64) -> Result<()> {
        self.run("DELETE FROM idempotency WHERE id = ?", [row_id])
    }

    /// Looks at up to `limit` remembered keys in the order of their rows, from `row_id` on, and forgets those that
    /// `is_meant` says. Gives the last row looked at, the count and bytes of the forgotten.
    pub(super) fn forget_keys(
        &self,
        row_id: i64,
        limit: u64,
        mut is_meant: impl FnMut(&KeyText) -> bool,
    ) -> Result<(Option<i64>, u64, u64)> {
        let sql = "SELECT id, bytes, key, notes, first_seq, count FROM idempotency WHERE id >= ? ORDER BY id LIMIT ?";
        let rows = self.all(sql, params![row_id, int(limit)], |row| {
            let (key, notes) = (text(row.get_ref(2)?), text(row.get_ref(3)?));
            let key = KeyText { key, notes, first_seq: uint(row.get(4)?), count: uint(row.get(5)?) };
            Ok((row.get::<_, i64>(0)?, uint(row.get(1)?), is_meant(&key)))
        })?;
        let (mut count, mut bytes) = (0, 0);
        for (id, of_row, _) in rows.iter().filter(|(.., is_meant)| *is_meant) {
            self.delete_key(*id)?;
            (count, bytes) = (count + 1, bytes + of_row);
        }
        Ok((rows.last().map(|(id, ..)| *id), count, bytes))
    }

    /// The key that was remembered first: row, time, bytes.
    pub(super) fn oldest_key(&self) -> Result<Option<(i64, Timestamp, u64)>> {
        let sql = "SELECT id, at_ms, bytes FROM idempotency ORDER BY id LIMIT 1";
        self.one(sql, [], |row| Ok((row.get(0)?, timestamp(row.get(1)?), uint(row.get(2)?))))
    }

    // --- the file

    /// Overwrites whatever is deleted from now on, also pages that get free; or goes back to the cheaper way.
    pub(super) fn overwrite_all(&self, all: bool) -> Result<()> {
        self.conn.execute_batch(if all { "PRAGMA secure_delete = ON" } else { "PRAGMA secure_delete = FAST" })
    }

    /// Pages in use and free pages of the file.
    pub(super) fn pages(&self) -> Result<(u64, u64)> {
        let count = |sql: &str| self.one(sql, [], |row| row.get(0).map(uint)).map(Option::unwrap_or_default);
        let (all, free) = (count("PRAGMA page_count")?, count("PRAGMA freelist_count")?);
        Ok((all.saturating_sub(free), free))
    }

    /// Frames in the WAL that a next commit would be written behind.
    pub(super) fn wal_frames(&self) -> Result<u64> {
        let frames = self.one("PRAGMA wal_checkpoint(NOOP)", [], |row| {
            let (all, moved): (i64, i64) = (row.get(1)?, row.get(2)?);
            Ok(if all == moved { 0 } else { uint(all) })
        })?;
        Ok(frames.unwrap_or(0))
    }

    /// Moves the WAL into the database, syncs it, and lets the WAL start over; says whether all of
    /// it was moved (a reader may hold some back).
    pub(super) fn checkpoint(&self) -> Result<bool> {
        self.checkpoint_as("PRAGMA wal_checkpoint(RESTART)")
    }

    /// Moves the WAL into the database, syncs it, and empties the WAL file.
    pub(super) fn checkpoint_and_truncate(&self) -> Result<bool> {
        self.checkpoint_as("PRAGMA wal_checkpoint(TRUNCATE)")
    }

    fn checkpoint_as(&self, sql: &str) -> Result<bool> {
        Ok(self.one(sql, [], |row| row.get::<_, i64>(0))?.unwrap_or(1) == 0)
    }

    /// Gives up to `pages` free pages back to the volume, as one transaction.
    pub(super) fn vacuum(&self, pages: u64) -> Result<()> {
        // It frees a page with each row, and what takes one row only (`execute_batch`) commits behind the first.
        let mut statement = self.conn.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
        Ok(())
    }

    /// SQLite's own check of the whole file; the findings, or none.
    pub(super) fn check(&self) -> Result<Vec<String>> {
        let findings: Vec<String> = self.all("PRAGMA integrity_check(20)", [], |row| row.get(0))?;
        Ok(findings.into_iter().filter(|finding| finding != "ok").collect())
    }

    /// How many waiting events an opening does not read though they are not parked. There must be none.
    pub(super) fn stranded(&self) -> Result<u64> {
        let sql = "SELECT count(*) FROM event WHERE seq < (SELECT mark FROM state) AND NOT EXISTS \
                   (SELECT 1 FROM parked WHERE parked.user = event.user AND parked.seq = event.seq)";
        Ok(self.one(sql, [], |row| row.get(0).map(uint))?.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("outbox.db");
        Sql::open(&path).unwrap().create().unwrap();
        (dir, path)
    }

    /// What an earlier process left in the WAL may not be durable; a commit behind it would be answered as if it were.
    #[test]
    fn opening_a_file_again_writes_nothing_to_its_wal() {
        let (dir, path) = made();
        let wal = || std::fs::read(dir.path().join("outbox.db-wal")).unwrap();
        let before = wal();
        let sql = Sql::open(&path).unwrap();
        assert!(wal() == before, "{} and {} bytes", before.len(), wal().len());
        sql.set_meta("key", "value").unwrap();
        assert!(wal() != before);
    }

    #[test]
    fn as_many_pages_as_asked_for_are_given_back_at_once() {
        let (_dir, path) = made();
        let sql = Sql::open(&path).unwrap();
        sql.set_meta("key", &"x".repeat(100 * 4096)).unwrap();
        sql.set_meta("key", "").unwrap();
        let pages = |name| sql.conn.pragma_query_value::<i64, _>(None, name, |row| row.get(0)).unwrap();
        let (free, all) = (pages("freelist_count"), pages("page_count"));
        assert!(free >= 100, "{free}");
        sql.vacuum(64).unwrap();
        assert_eq!((pages("freelist_count"), pages("page_count")), (free - 64, all - 64));
    }
}
