//! Events that wait, and the intents to send them.

use rusqlite::{Result, params};

use super::{Sql, contradiction, in_order, int, some_text, text, timestamp, uint};
use crate::clock::Timestamp;
use crate::event::{Event, EventId, Trigger, UserId};
use crate::outbox::sqlite::row::{LineRow, OVERHEAD_BYTES, Row, checksum};
use crate::outbox::sqlite::words;

/// Waiting events without their bodies.
pub(in super::super) const LINES: &str =
    "SELECT seq, salt, accepted_ms, trigger, user FROM event WHERE seq >= ? ORDER BY seq LIMIT ?";
/// One of them.
pub(in super::super) const LINE: &str = "SELECT seq, salt, accepted_ms, trigger, user FROM event WHERE seq = ?";

impl Sql {
    /// Stores a new event.
    pub(in super::super) fn insert_event(&self, id: EventId, event: &Event) -> Result<()> {
        let sql = "INSERT INTO event (seq, salt, accepted_ms, trigger, again, user, trace, crc, body) \
                   VALUES (?, ?, ?, ?, 0, ?, ?, ?, ?)";
        let (seq, salt, at, trigger) = (id.seq(), id.salt(), id.accepted_at(), event.trigger.code());
        let (user, trace, crc) = (event.user.as_str(), event.trace.as_deref(), checksum(seq, salt, at, event));
        self.run(sql, params![int(seq), salt, at.as_millis(), trigger, user, trace, crc, words::packed(&event.body)])
    }

    /// Stores an event unless its sequence is taken; says whether it did.
    pub(in super::super) fn restore_event(&self, row: &Row) -> Result<bool> {
        let sql = "INSERT OR IGNORE INTO event (seq, salt, accepted_ms, trigger, again, user, trace, crc, body) \
                   VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
        let event = &row.event;
        let (accepted, trigger) = (row.accepted_at.as_millis(), event.trigger.code());
        let (user, trace, body) = (event.user.as_str(), event.trace.as_deref(), words::packed(&event.body));
        let values = params![int(row.seq), row.salt, accepted, trigger, row.again, user, trace, row.crc, body];
        Ok(self.changed(sql, values)? > 0)
    }

    pub(super) fn read_event(row: &rusqlite::Row<'_>) -> Result<Row> {
        let event = Event {
            user: UserId::new(&text(row.get_ref(5)?)),
            trigger: Trigger::from_code(row.get::<_, i64>(3)? as u8),
            body: words::unpacked(row.get_ref(8)?.as_bytes().unwrap_or_default()).into(),
            trace: some_text(row.get_ref(6)?),
        };
        let (seq, salt) = (uint(row.get(0)?), row.get::<_, i64>(1)? as u32);
        let (again, crc) = (row.get::<_, i64>(4)? != 0, row.get::<_, i64>(7)? as u32);
        Ok(Row { seq, salt, accepted_at: timestamp(row.get(2)?), event, again, crc })
    }

    /// Looks at up to `limit` waiting events in sequence, from `seq` on, without reading bodies; `user` leaves the
    /// others out. Says where to go on, if there may be more.
    pub(in super::super) fn lines_from(
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
                return Err(contradiction());
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
        })
    }

    /// The body of a waiting event, as it was accepted.
    pub(in super::super) fn body(&self, seq: u64) -> Result<Option<Vec<u8>>> {
        let sql = "SELECT body FROM event WHERE seq = ?";
        self.one(sql, [int(seq)], |row| Ok(words::unpacked(row.get_ref(0)?.as_bytes().unwrap_or_default())))
    }

    /// The line of one waiting event.
    pub(in super::super) fn line(&self, seq: u64) -> Result<Option<LineRow>> {
        self.one(LINE, [int(seq)], Self::read_line)
    }

    /// The event with that sequence, if it waits.
    pub(in super::super) fn event(&self, seq: u64) -> Result<Option<Row>> {
        self.one(
            "SELECT seq, salt, accepted_ms, trigger, again, user, trace, crc, body FROM event WHERE seq = ?",
            [int(seq)],
            Self::read_event,
        )
    }

    /// Reads events in sequence, from `seq` on, at most `limit`, until `each` says stop.
    ///
    /// # Errors
    /// See [`in_order`]. Also an error if the first of them is not the first there is: in a damaged page the search for
    /// `seq` can end beyond it.
    pub(in super::super) fn events_in_order(
        &self,
        seq: u64,
        limit: u64,
        mut each: impl FnMut(Row) -> bool,
    ) -> Result<u64> {
        let mut first = None;
        let note = |row: Row| {
            first.get_or_insert(row.seq);
            each(row)
        };
        let count = in_order(seq, |row: &Row| row.seq, note, |take| self.events_from(seq, limit, take))?;
        let Some(first) = first.filter(|first| *first > seq) else { return Ok(count) };
        let mut before = None;
        self.events_down_from(first - 1, 1, |row| before = Some(row.seq))?;
        if before.is_some_and(|before| before >= seq) { Err(contradiction()) } else { Ok(count) }
    }

    /// The same as they lie, in whatever sequence; for what is known to be damaged.
    pub(in super::super) fn events_from(&self, seq: u64, limit: u64, mut each: impl FnMut(Row) -> bool) -> Result<u64> {
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
    pub(in super::super) fn events_down_from(&self, seq: u64, limit: u64, mut each: impl FnMut(Row)) -> Result<u64> {
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

    /// Removes an event that waited; says whether it was found.
    pub(in super::super) fn delete_event(&self, seq: u64) -> Result<bool> {
        Ok(self.changed("DELETE FROM event WHERE seq = ?", [int(seq)])? > 0)
    }

    /// When the first event that waits was accepted.
    pub(in super::super) fn oldest(&self) -> Result<Option<Timestamp>> {
        self.one("SELECT accepted_ms FROM event ORDER BY seq LIMIT 1", [], |row| row.get(0).map(timestamp))
    }

    /// How many events there are below a sequence: waiting, dead, and the bytes of the dead.
    pub(in super::super) fn count_below(&self, seq: u64) -> Result<(u64, u64, u64)> {
        let count = |sql: &str| self.one(sql, [int(seq)], |row| row.get(0).map(uint)).map(Option::unwrap_or_default);
        let events = count("SELECT count(*) FROM event WHERE seq >= 0 AND seq < ?")?;
        let dead = count("SELECT count(*) FROM dead WHERE seq >= 0 AND seq < ?")?;
        let bytes = count("SELECT coalesce(sum(length(body) + length(user)), 0) FROM dead WHERE seq >= 0 AND seq < ?")?;
        Ok((events, dead, bytes + dead * OVERHEAD_BYTES))
    }

    /// Remembers that an event is about to be sent.
    pub(in super::super) fn insert_intent(&self, seq: u64) -> Result<()> {
        self.run("INSERT OR IGNORE INTO intent (seq) VALUES (?)", [int(seq)])
    }

    /// The outcome is known.
    pub(in super::super) fn delete_intent(&self, seq: u64) -> Result<()> {
        self.run("DELETE FROM intent WHERE seq = ?", [int(seq)])
    }

    /// Whether an event was about to be sent.
    pub(in super::super) fn is_intended(&self, seq: u64) -> Result<bool> {
        Ok(self.one("SELECT 1 FROM intent WHERE seq = ?", [int(seq)], |_| Ok(()))?.is_some())
    }

    /// Events that were about to be sent when the store stopped.
    pub(in super::super) fn intents(&self) -> Result<Vec<u64>> {
        self.all("SELECT seq FROM intent", [], |row| row.get(0).map(uint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::sqlite::testing::Bench;
    use crate::reason::Reason;

    #[test]
    fn a_look_at_what_waits_tells_where_to_go_on_if_there_may_be_more() {
        let sql = Bench::with(&["a", "b", "a"], 1).store.sql;
        let look = |seq, limit, user: Option<&str>, stop_at| {
            let mut seen = Vec::new();
            let next = sql.lines_from(seq, limit, user.map(UserId::new).as_ref(), |line| {
                seen.push(line.id.seq());
                line.id.seq() != stop_at
            });
            (seen, next.unwrap())
        };
        assert_eq!(look(0, 2, None, 9), (vec![1, 2], Some(3)));
        assert_eq!(look(3, 2, None, 9), (vec![3], None));
        assert_eq!(look(0, 3, None, 9), (vec![1, 2, 3], Some(4)));
        assert_eq!(look(0, 9, Some("a"), 9), (vec![1, 3], None));
        assert_eq!(look(0, 9, None, 1), (vec![1], Some(2)));
    }

    #[test]
    fn a_row_of_another_file_is_stored_unless_its_sequence_is_taken() {
        let sql = Bench::with(&["a"], 1).store.sql;
        let row = sql.event(1).unwrap().unwrap();
        assert!(!sql.restore_event(&row).unwrap());
        sql.delete_event(1).unwrap();
        assert!(sql.restore_event(&row).unwrap());
        assert!(sql.event(1).unwrap().is_some_and(|row| row.is_intact()));
    }

    #[test]
    fn what_waits_and_is_dead_below_a_sequence_is_counted_with_the_bytes_of_the_dead() {
        let sql = Bench::with(&["a", "bb"], 10).store.sql;
        sql.bury(2, Timestamp::from_millis(1), Reason::Http400, 1).unwrap();
        let counts = [1, 2, 3].map(|seq| sql.count_below(seq).unwrap());
        assert_eq!(counts, [(0, 0, 0), (1, 0, 0), (1, 1, 10 + 2 + OVERHEAD_BYTES)]);
    }
}
