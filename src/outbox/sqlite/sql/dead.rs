//! Dead letters.

use rusqlite::{Result, params};

use super::{Sql, contradiction, in_order, int, reason, text, timestamp, uint};
use crate::clock::Timestamp;
use crate::event::{EventId, Trigger, UserId};
use crate::outbox::sqlite::row::{DeadRow, Table, WholeDead};
use crate::outbox::{DeadGroup, Filter};
use crate::reason::Reason;

/// Notes a delivery, if the user has dead letters before it that no noted one has passed yet.
pub(in super::super) const PASS: &str = "INSERT INTO passed (user, seq, at_ms) SELECT ?1, ?2, ?3 \
    WHERE EXISTS (SELECT 1 FROM dead WHERE user = ?1 AND seq < ?2 \
    AND seq >= coalesce((SELECT seq FROM passed WHERE user = ?1), 0)) \
    ON CONFLICT (user) DO UPDATE SET seq = excluded.seq, at_ms = excluded.at_ms";
/// Dead letters without their bodies: all …
pub(in super::super) const DEAD: &str = "SELECT seq, salt, accepted_ms, trigger, user, died_ms, reason, attempts, \
    length(body) FROM dead WHERE seq >= ?1 ORDER BY seq LIMIT ?2";
/// … of a user …
pub(in super::super) const DEAD_OF_USER: &str = "SELECT seq, salt, accepted_ms, trigger, user, died_ms, reason, \
    attempts, length(body) FROM dead WHERE user = ?3 AND seq >= ?1 ORDER BY seq LIMIT ?2";
/// … or of a reason.
pub(in super::super) const DEAD_OF_REASON: &str = "SELECT seq, salt, accepted_ms, trigger, user, died_ms, reason, \
    attempts, length(body) FROM dead WHERE reason = ?3 AND seq >= ?1 ORDER BY seq LIMIT ?2";

impl Sql {
    /// Moves a waiting event to the dead letters; says whether there was one. Its body lies there as it was accepted.
    pub(in super::super) fn bury(&self, seq: u64, died_at: Timestamp, why: Reason, attempts: u32) -> Result<bool> {
        let sql = "INSERT OR REPLACE INTO dead \
                   (seq, salt, accepted_ms, trigger, user, trace, crc, died_ms, reason, attempts, body) \
                   SELECT seq, salt, accepted_ms, trigger, user, trace, crc, ?2, ?3, ?4, ?5 FROM event WHERE seq = ?1";
        let Some(body) = self.body(seq)? else { return Ok(false) };
        let moved = self.changed(sql, params![int(seq), died_at.as_millis(), why.as_str(), attempts, body])?;
        self.delete_event(seq)?;
        Ok(moved > 0)
    }

    /// Moves a dead letter back to its place among what waits.
    pub(in super::super) fn raise(&self, seq: u64, user: &UserId) -> Result<()> {
        let sql = "INSERT INTO event (seq, salt, accepted_ms, trigger, again, user, trace, crc, body) \
                   SELECT seq, salt, accepted_ms, trigger, 1, user, trace, crc, body FROM dead WHERE seq = ?";
        self.run(sql, [int(seq)])?;
        self.delete_dead(seq, user)
    }

    /// Removes a dead letter of that user; with the last one goes what is noted of them.
    pub(in super::super) fn delete_dead(&self, seq: u64, user: &UserId) -> Result<()> {
        self.run("DELETE FROM dead WHERE seq = ?", [int(seq)])?;
        self.run("DELETE FROM overtaken WHERE seq = ?", [int(seq)])?;
        let sql = "DELETE FROM passed WHERE user = ?1 AND NOT EXISTS (SELECT 1 FROM dead WHERE user = ?1)";
        self.run(sql, [user.as_str()])
    }

    /// Notes that the user's dead letters before `seq` were overtaken; looks at one of them at most.
    pub(in super::super) fn pass(&self, user: &UserId, seq: u64, at: Timestamp) -> Result<()> {
        self.run(PASS, params![user.as_str(), int(seq), at.as_millis()])
    }

    /// When a dead letter was overtaken, as far as a file of version 2 knew.
    pub(in super::super) fn overtaken(&self, seq: u64) -> Result<Option<Timestamp>> {
        self.one("SELECT at_ms FROM overtaken WHERE seq = ?", [int(seq)], |row| row.get(0).map(timestamp))
    }

    /// When a later event of the user was delivered, if one was.
    pub(in super::super) fn passed(&self, seq: u64, user: &UserId) -> Result<Option<Timestamp>> {
        let sql = "SELECT at_ms FROM passed WHERE user = ? AND seq > ?";
        self.one(sql, params![user.as_str(), int(seq)], |row| row.get(0).map(timestamp))
    }

    /// The dead letters by reason: how many, and the first.
    pub(in super::super) fn dead_groups(&self) -> Result<Vec<DeadGroup>> {
        let sql = "SELECT reason, n, (SELECT accepted_ms FROM dead WHERE seq = first) \
                   FROM (SELECT reason, count(*) AS n, min(seq) AS first FROM dead GROUP BY reason) ORDER BY n DESC";
        self.all(sql, [], |row| {
            let (count, oldest) = (uint(row.get(1)?), timestamp(row.get::<_, Option<i64>>(2)?.unwrap_or_default()));
            Ok(DeadGroup { reason: reason(row.get_ref(0)?), count, oldest })
        })
    }

    /// Some that died by `until`, longest dead first.
    pub(in super::super) fn dead_until(&self, until: Timestamp, limit: u64) -> Result<Vec<u64>> {
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
    pub(in super::super) fn dead(&self, seq: u64) -> Result<Option<DeadRow>> {
        let sql = "SELECT seq, salt, accepted_ms, trigger, user, died_ms, reason, attempts, length(body) FROM dead \
                   WHERE seq = ?";
        self.one(sql, [int(seq)], Self::read_dead)
    }

    /// A slice of the dead letters, in sequence: of a user or of a reason, or of all.
    pub(in super::super) fn dead_from(&self, seq: u64, limit: u64, filter: &Filter) -> Result<Vec<DeadRow>> {
        let (from, limit) = (int(seq), int(limit));
        let rows = match (&filter.user, filter.reason) {
            (Some(user), _) => self.all(DEAD_OF_USER, params![from, limit, user.as_str()], Self::read_dead),
            (None, Some(reason)) => self.all(DEAD_OF_REASON, params![from, limit, reason.as_str()], Self::read_dead),
            (None, None) => self.all(DEAD, params![from, limit], Self::read_dead),
        }?;
        if rows.iter().zip(rows.iter().skip(1)).any(|(one, next)| one.id.seq() >= next.id.seq()) {
            return Err(contradiction());
        }
        Ok(rows)
    }

    /// Reads whole dead letters (event, death, reason, attempts) in sequence, from `seq` on, at most `limit`, until
    /// `each` says stop.
    ///
    /// # Errors
    /// See [`in_order`].
    pub(in super::super) fn whole_dead_in_order(
        &self,
        seq: u64,
        limit: u64,
        each: impl FnMut(WholeDead) -> bool,
    ) -> Result<u64> {
        in_order(seq, |dead: &WholeDead| dead.row.seq, each, |take| self.whole_dead_from(seq, limit, take))
    }

    /// The same as they lie, in whatever sequence; for what is known to be damaged.
    pub(in super::super) fn whole_dead_from(
        &self,
        seq: u64,
        limit: u64,
        each: impl FnMut(WholeDead) -> bool,
    ) -> Result<u64> {
        let sql = "SELECT seq, salt, accepted_ms, trigger, 0, user, trace, crc, body, died_ms, reason, attempts \
                   FROM dead WHERE seq >= ? ORDER BY seq LIMIT ?";
        self.read_whole_dead(sql, seq, limit, each)
    }

    /// Reads whole dead letters against the sequence, from `seq` down; used beside a damaged place.
    pub(in super::super) fn whole_dead_down_from(
        &self,
        seq: u64,
        limit: u64,
        mut each: impl FnMut(WholeDead),
    ) -> Result<u64> {
        let sql = "SELECT seq, salt, accepted_ms, trigger, 0, user, trace, crc, body, died_ms, reason, attempts \
                   FROM dead WHERE seq <= ? ORDER BY seq DESC LIMIT ?";
        self.read_whole_dead(sql, seq, limit, |dead| {
            each(dead);
            true
        })
    }

    fn read_whole_dead(&self, sql: &str, seq: u64, limit: u64, mut each: impl FnMut(WholeDead) -> bool) -> Result<u64> {
        let mut statement = self.conn.prepare_cached(sql)?;
        let mut rows = statement.query([int(seq), int(limit)])?;
        let mut count = 0;
        while let Some(row) = rows.next()? {
            let (died_at, attempts) = (timestamp(row.get(9)?), row.get::<_, i64>(11)? as u32);
            let (reason, row) = (text(row.get_ref(10)?), Self::read_event(row)?);
            count += 1;
            if !each(WholeDead { row, died_at, reason, attempts }) {
                break;
            }
        }
        Ok(count)
    }

    /// Stores a dead letter of another file unless its sequence is taken.
    pub(in super::super) fn restore_dead(&self, dead: &WholeDead) -> Result<bool> {
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
    pub(in super::super) fn seqs(&self, table: Table, is_down: bool, mut each: impl FnMut(u64)) -> Result<()> {
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::sqlite::testing::{Bench, change_page};

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    /// Dead letters of these users, of which each died later than the one before.
    fn graves(users: &[&str]) -> Bench {
        let bench = Bench::with(users, 10);
        for seq in 1..=users.len() as u64 {
            bench.store.sql.bury(seq, at(seq as i64), Reason::Http400, 4).unwrap();
        }
        bench
    }

    #[test]
    fn an_event_that_dies_leaves_the_queue_and_comes_back_as_it_was() {
        let (sql, user) = (Bench::with(&["a"], 10).store.sql, UserId::new("a"));
        let id = sql.event(1).unwrap().unwrap().id();
        assert!(sql.bury(1, at(9), Reason::Http422, 3).unwrap());
        assert!(!sql.bury(1, at(9), Reason::Http422, 3).unwrap(), "it waits no longer");
        assert!(sql.event(1).unwrap().is_none());
        let dead = sql.dead(1).unwrap().unwrap();
        let told = (dead.id, dead.user, dead.trigger, dead.reason, dead.attempts, dead.body_bytes);
        assert_eq!(told, (id, user.clone(), Trigger::None, Some(Reason::Http422), 3, 10));
        sql.raise(1, &user).unwrap();
        assert!(sql.dead(1).unwrap().is_none());
        let row = sql.event(1).unwrap().unwrap();
        assert!(row.is_intact() && row.again && row.id() == id);
    }

    #[test]
    fn what_is_noted_of_a_user_goes_with_the_last_dead_letter() {
        let (sql, user) = (graves(&["a", "b", "a"]).store.sql, UserId::new("a"));
        sql.pass(&user, 5, at(70)).unwrap();
        sql.conn.execute("INSERT INTO overtaken (seq, at_ms) VALUES (1, 60)", []).unwrap();
        let passed = |seq| sql.passed(seq, &user).unwrap();
        assert_eq!([1, 3, 4, 5].map(passed), [Some(at(70)), Some(at(70)), Some(at(70)), None]);
        assert_eq!([1, 3].map(|seq| sql.overtaken(seq).unwrap()), [Some(at(60)), None]);
        sql.delete_dead(1, &user).unwrap();
        assert_eq!((passed(3), sql.overtaken(1).unwrap()), (Some(at(70)), None));
        sql.delete_dead(3, &user).unwrap();
        assert_eq!(passed(3), None);
    }

    #[test]
    fn those_that_died_first_are_found_first() {
        let sql = graves(&["a", "b", "c"]).store.sql;
        sql.conn.execute("UPDATE dead SET died_ms = 10 - seq", []).unwrap();
        let until = |ms, limit| sql.dead_until(at(ms), limit).unwrap();
        assert_eq!((until(6, 9), until(8, 9), until(9, 2)), (vec![], vec![3, 2], vec![3, 2]));
    }

    #[test]
    fn whole_dead_letters_come_in_sequence_until_one_is_enough() {
        let sql = graves(&["a", "b", "c", "d", "e"]).store.sql;
        sql.delete_dead(3, &UserId::new("c")).unwrap();
        let look = |from, limit, enough| {
            let mut seen = Vec::new();
            let count = sql.whole_dead_from(from, limit, |dead| {
                assert_eq!((dead.reason.as_str(), dead.attempts, dead.row.is_intact()), ("http_400", 4, true));
                assert_eq!(dead.died_at, at(dead.row.seq as i64));
                seen.push(dead.row.seq);
                dead.row.seq != enough
            });
            (count.unwrap(), seen)
        };
        assert_eq!(look(0, 9, 9), (4, vec![1, 2, 4, 5]));
        assert_eq!(look(2, 2, 9), (2, vec![2, 4]));
        assert_eq!(look(2, 9, 4), (2, vec![2, 4]));
        assert_eq!(look(6, 9, 9), (0, vec![]));
        for (table, is_down, expected) in [
            (Table::Dead, false, vec![1, 2, 4, 5]),
            (Table::Dead, true, vec![5, 4, 2, 1]),
            (Table::Waiting, false, vec![]),
        ] {
            let mut seqs = Vec::new();
            sql.seqs(table, is_down, |seq| seqs.push(seq)).unwrap();
            assert_eq!(seqs, expected);
        }
    }

    #[test]
    fn a_dead_letter_of_another_file_is_stored_unless_its_sequence_is_taken() {
        let sql = graves(&["a"]).store.sql;
        let mut whole = None;
        sql.whole_dead_from(1, 1, |dead| {
            whole = Some(dead);
            true
        })
        .unwrap();
        let whole = whole.unwrap();
        assert!(!sql.restore_dead(&whole).unwrap());
        sql.delete_dead(1, &whole.row.event.user).unwrap();
        assert!(sql.restore_dead(&whole).unwrap());
        let count = sql.whole_dead_from(1, 1, |dead| {
            assert!(dead.row.is_intact());
            assert_eq!((dead.died_at, dead.reason, dead.attempts), (whole.died_at, whole.reason.clone(), 4));
            true
        });
        assert_eq!(count.unwrap(), 1);
    }

    /// SQLite finds a row by the one before it and does not see that two have the same number.
    #[test]
    fn dead_letters_that_do_not_lie_in_sequence_are_not_read_on() {
        for wrong in [2, 1] {
            let bench = graves(&["a", "a", "a"]);
            let path = bench.env.home.database();
            let all = |sql: &Sql| {
                (sql.dead_from(0, 9, &Filter::default()).is_ok(), sql.whole_dead_in_order(0, 9, |_| true).is_ok())
            };
            assert_eq!(all(&bench.store.sql), (true, true));
            assert!(bench.store.sql.checkpoint_and_truncate().unwrap());
            change_page(path, "dead", |page| {
                // Behind the head of a leaf come the places of its rows; in a row, behind its length, its number.
                let third = usize::from(u16::from_be_bytes([page[12], page[13]])) + 1;
                assert_eq!(std::mem::replace(&mut page[third], wrong), 3);
            });
            assert_eq!(all(&Sql::open(path).unwrap()), (false, false), "{wrong}");
        }
    }
}
