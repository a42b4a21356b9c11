//! Dead letters.

use rusqlite::{Result, params};

use super::{Sql, contradiction, int, reason, text, timestamp, uint};
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
    /// Moves a waiting event to the dead letters; says whether there was one.
    pub(in super::super) fn bury(&self, seq: u64, died_at: Timestamp, why: Reason, attempts: u32) -> Result<bool> {
        let sql = "INSERT OR REPLACE INTO dead \
                   (seq, salt, accepted_ms, trigger, user, trace, crc, died_ms, reason, attempts, body) \
                   SELECT seq, salt, accepted_ms, trigger, user, trace, crc, ?2, ?3, ?4, body FROM event WHERE seq = ?1";
        let moved = self.changed(sql, params![int(seq), died_at.as_millis(), why.as_str(), attempts])?;
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
    /// Also if they do not lie in sequence: whoever goes on behind the last one would pass over others.
    pub(in super::super) fn whole_dead_in_order(
        &self,
        seq: u64,
        limit: u64,
        mut each: impl FnMut(WholeDead) -> bool,
    ) -> Result<u64> {
        let (mut next, mut is_astray) = (seq, false);
        let count = self.whole_dead_from(seq, limit, |dead| {
            is_astray = dead.row.seq < next;
            next = dead.row.seq + 1;
            !is_astray && each(dead)
        })?;
        if is_astray { Err(contradiction()) } else { Ok(count) }
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
