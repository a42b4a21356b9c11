//! What is remembered for a while: the delivered, and idempotency keys.

use rusqlite::{Result, params};

use super::{Sql, int, some_text, text, timestamp, uint};
use crate::clock::Timestamp;
use crate::event::EventId;
use crate::outbox::Key;
use crate::outbox::sqlite::row::{DoneRow, KeyRow, KeyText};

impl Sql {
    /// Remembers a delivered event.
    pub(in super::super) fn insert_done(
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
    pub(in super::super) fn done(&self, seq: u64) -> Result<Option<DoneRow>> {
        let sql = "SELECT salt, accepted_ms, done_ms, attempts, request_id FROM done WHERE seq = ?";
        self.one(sql, [int(seq)], |row| {
            let id = EventId::new(timestamp(row.get(1)?), seq, row.get::<_, i64>(0)? as u32);
            let (done_at, attempts) = (timestamp(row.get(2)?), row.get::<_, i64>(3)? as u32);
            Ok(DoneRow { id, done_at, attempts, request_id: some_text(row.get_ref(4)?) })
        })
    }

    /// Forgets the first `count` delivered events; says how many there were.
    pub(in super::super) fn trim_done(&self, count: u64) -> Result<u64> {
        self.changed("DELETE FROM done WHERE seq IN (SELECT seq FROM done ORDER BY seq LIMIT ?)", [int(count)])
    }

    /// Forgets those of the first `limit` that were delivered by `until`; says how many there were.
    pub(in super::super) fn trim_done_until(&self, until: Timestamp, limit: u64) -> Result<u64> {
        let sql = "DELETE FROM done WHERE seq IN (SELECT seq FROM done ORDER BY seq LIMIT ?) AND done_ms <= ?";
        self.changed(sql, [int(limit), until.as_millis()])
    }

    /// When the first remembered event was delivered.
    pub(in super::super) fn first_done_at(&self) -> Result<Option<Timestamp>> {
        self.one("SELECT done_ms FROM done ORDER BY seq LIMIT 1", [], |row| row.get(0).map(timestamp))
    }

    /// What is remembered under a key.
    pub(in super::super) fn key(&self, key: &Key) -> Result<Option<KeyRow>> {
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
    pub(in super::super) fn insert_key(&self, key: &Key, row: &KeyRow) -> Result<()> {
        let sql = "INSERT INTO idempotency (route, key, body, first_seq, count, salt, at_ms, bytes, notes) \
                   VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
        let (route, name, body) = (key.route as u8, &*key.key, &key.body[..]);
        let (first, count, at, bytes) = (int(row.first_seq), int(row.count), row.at.as_millis(), int(row.bytes));
        self.run(sql, params![route, name, body, first, count, row.salt, at, bytes, &*row.notes])
    }

    /// Forgets a key.
    pub(in super::super) fn delete_key(&self, row_id: i64) -> Result<()> {
        self.run("DELETE FROM idempotency WHERE id = ?", [row_id])
    }

    /// Looks at up to `limit` remembered keys in the order of their rows, from `row_id` on, and forgets those that
    /// `is_meant` says. Gives the last row looked at, the count and bytes of the forgotten.
    pub(in super::super) fn forget_keys(
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
    pub(in super::super) fn oldest_key(&self) -> Result<Option<(i64, Timestamp, u64)>> {
        let sql = "SELECT id, at_ms, bytes FROM idempotency ORDER BY id LIMIT 1";
        self.one(sql, [], |row| Ok((row.get(0)?, timestamp(row.get(1)?), uint(row.get(2)?))))
    }
}
