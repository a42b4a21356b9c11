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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::Route;
    use crate::outbox::sqlite::testing::Bench;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    fn key(name: &str, body: u8) -> Key {
        Key { route: Route::Batch, key: name.into(), body: [body; 32], notes: "said".into() }
    }

    #[test]
    fn what_was_delivered_is_remembered_until_so_many_or_so_old_ones_are_forgotten() {
        let sql = Bench::with(&[], 0).store.sql;
        assert_eq!(sql.first_done_at().unwrap(), None);
        let id = |seq| EventId::new(at(1), seq, 8);
        for seq in 1..=6 {
            sql.insert_done(id(seq), at(seq as i64 * 10), 2, (seq == 1).then_some("request")).unwrap();
        }
        let done = |seq| sql.done(seq).unwrap().map(|row| (row.id, row.done_at, row.attempts, row.request_id));
        assert_eq!(done(1), Some((id(1), at(10), 2, Some("request".into()))));
        assert_eq!((done(2), done(7)), (Some((id(2), at(20), 2, None)), None));
        assert_eq!(sql.trim_done(2).unwrap(), 2);
        assert_eq!((sql.first_done_at().unwrap(), done(2).is_some()), (Some(at(30)), false));
        assert_eq!(sql.trim_done_until(at(40), 9).unwrap(), 2);
        assert_eq!(sql.trim_done_until(at(60), 1).unwrap(), 1, "of the first alone");
        assert_eq!(sql.trim_done_until(at(59), 9).unwrap(), 0);
        assert_eq!(sql.first_done_at().unwrap(), Some(at(60)));
    }

    /// Keys of that many bytes, in that order.
    fn keys(all: &[(&str, u64)]) -> Sql {
        let sql = Bench::with(&[], 0).store.sql;
        for (n, (name, bytes)) in (5..).zip(all) {
            let row_id = 0;
            let (notes, at) = ("said".into(), at(n));
            let (first_seq, count) = (n as u64 * 10, 2);
            let row = KeyRow { row_id, same_body: true, first_seq, count, salt: 9, at, bytes: *bytes, notes };
            sql.insert_key(&key(name, 7), &row).unwrap();
        }
        sql
    }

    #[test]
    fn a_key_is_known_on_its_route_with_its_body_until_it_is_forgotten() {
        let sql = keys(&[("a", 3), ("b", 4)]);
        let row = sql.key(&key("b", 7)).unwrap().unwrap();
        let told = (row.same_body, row.first_seq, row.count, row.salt, row.at, row.bytes, &*row.notes);
        assert_eq!(told, (true, 60, 2, 9, at(6), 4, "said"));
        assert!(!sql.key(&key("b", 8)).unwrap().unwrap().same_body);
        assert!(sql.key(&key("c", 7)).unwrap().is_none());
        assert!(sql.key(&Key { route: Route::Events, ..key("b", 7) }).unwrap().is_none());
        let oldest = sql.oldest_key().unwrap().unwrap();
        assert_eq!(oldest, (sql.key(&key("a", 7)).unwrap().unwrap().row_id, at(5), 3));
        sql.delete_key(oldest.0).unwrap();
        assert_eq!(sql.oldest_key().unwrap(), Some((row.row_id, at(6), 4)));
        sql.delete_key(row.row_id).unwrap();
        assert_eq!(sql.oldest_key().unwrap(), None);
    }

    #[test]
    fn keys_are_looked_at_in_slices_and_those_that_are_meant_forgotten() {
        let sql = keys(&[("a", 3), ("b", 5), ("c", 7), ("d", 11), ("e", 13)]);
        let row_id = |name| sql.key(&key(name, 7)).unwrap().map(|row| row.row_id);
        let (second, fourth) = (row_id("b").unwrap(), row_id("d"));
        let mut seen = Vec::new();
        let forgotten = sql.forget_keys(second, 3, |key| {
            seen.push((key.key.clone(), key.first_seq));
            assert_eq!((key.notes.as_str(), key.count), ("said", 2));
            key.key != "c"
        });
        assert_eq!(forgotten.unwrap(), (fourth, 2, 5 + 11));
        assert_eq!(seen, [("b".to_owned(), 60), ("c".to_owned(), 70), ("d".to_owned(), 80)]);
        assert_eq!(["a", "b", "c", "d", "e"].map(|name| row_id(name).is_some()), [true, false, true, false, true]);
        assert_eq!(sql.forget_keys(99, 3, |_| true).unwrap(), (None, 0, 0));
    }
}
