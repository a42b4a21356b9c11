//! The tables, and the steps from one version of them to the next.

use rusqlite::Result;

use super::Sql;

/// Schema version 1. A later version may add columns and tables, and this release still writes its file: so every
/// INSERT names its columns.
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
const TO_VERSION_2: &str = "
    CREATE INDEX dead_user ON dead (user);
    CREATE INDEX dead_reason ON dead (reason);
    CREATE INDEX dead_died ON dead (died_ms);
    -- Dead letters whose user had a later event delivered since, and when.
    CREATE TABLE overtaken (seq INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL);
    PRAGMA user_version = 2;
";

/// Version 3: one note a user tells which of the dead letters were overtaken, and what was sent without a known
/// outcome and not burned leaves a trace. `overtaken` is only read from now on.
const TO_VERSION_3: &str = "
    -- Users with dead letters of whom a later event was delivered: the last one that passed a dead letter, and when.
    CREATE TABLE passed (user TEXT PRIMARY KEY, seq INTEGER NOT NULL, at_ms INTEGER NOT NULL) WITHOUT ROWID;
    -- Events that Cello may have counted, though no attempt says so.
    CREATE TABLE unsure (
        seq INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, reason TEXT NOT NULL, status INTEGER, request_id TEXT
    );
    PRAGMA user_version = 3;
";

/// Versions 4 and 5: bodies of waiting events are packed. Whoever wrote version 3 opens version 4, and would send them as
/// they lie: so no file stays at that one.
const TO_VERSION_4: &str = "PRAGMA user_version = 4;";
const TO_VERSION_5: &str = "PRAGMA user_version = 5;";

/// The schema version this release writes; one version newer is opened too, as changes are additive.
pub(in super::super) const SCHEMA_VERSION: i64 = 5;
/// `MIGRATIONS[n]` leads from version n + 1 to n + 2.
pub(in super::super) const MIGRATIONS: [&str; SCHEMA_VERSION as usize - 1] =
    [TO_VERSION_2, TO_VERSION_3, TO_VERSION_4, TO_VERSION_5];

impl Sql {
    /// Makes all tables, in one transaction.
    pub(in super::super) fn create(&self) -> Result<()> {
        self.conn.execute_batch(&format!("BEGIN IMMEDIATE; {SCHEMA} COMMIT"))
    }

    /// Runs the steps that lead to the next schema version, in one transaction.
    pub(in super::super) fn migrate(&self, steps: &str) -> Result<()> {
        self.conn.execute_batch(&format!("BEGIN IMMEDIATE; {steps} COMMIT"))
    }

    /// The schema version; 0 is an empty file.
    pub(in super::super) fn version(&self) -> Result<i64> {
        self.conn.query_row("PRAGMA user_version", [], |row| row.get(0))
    }
}
