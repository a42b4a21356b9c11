//! Users whose events wait behind something.

use std::time::Duration;

use rusqlite::{Result, params};

use super::{Sql, int, text, timestamp, uint};
use crate::clock::Timestamp;
use crate::event::UserId;
use crate::outbox::sqlite::row::Gate;

impl Sql {
    /// When that user's next event is due, if the user is gated.
    pub(in super::super) fn gate(&self, user: &UserId) -> Result<Option<Timestamp>> {
        self.one("SELECT due_ms FROM gate WHERE user = ?", [user.as_str()], |row| row.get(0).map(timestamp))
    }

    /// Users that have a gate, at most `limit`.
    pub(in super::super) fn gated_users(&self, limit: u64) -> Result<Vec<UserId>> {
        self.all("SELECT user FROM gate LIMIT ?", [int(limit)], |row| Ok(UserId::new(&text(row.get_ref(0)?))))
    }

    /// Gates a user, or moves the gate.
    pub(in super::super) fn set_gate(&self, user: &UserId, gate: Gate) -> Result<()> {
        let sql = "INSERT INTO gate (user, due_ms, wait_ms) VALUES (?, ?, ?) \
                   ON CONFLICT (user) DO UPDATE SET due_ms = excluded.due_ms, wait_ms = excluded.wait_ms";
        self.run(sql, params![user.as_str(), gate.due.as_millis(), gate.wait.as_millis() as i64])
    }

    /// Opens a user's gate.
    pub(in super::super) fn delete_gate(&self, user: &UserId) -> Result<()> {
        self.run("DELETE FROM gate WHERE user = ?", [user.as_str()])
    }

    /// Gated users that are due, longest due first, until `each` takes one.
    pub(in super::super) fn find_due(
        &self,
        now: Timestamp,
        mut each: impl FnMut(&str) -> bool,
    ) -> Result<Option<UserId>> {
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

    /// Whether any user is gated.
    pub(in super::super) fn has_gates(&self) -> Result<bool> {
        Ok(self.one("SELECT EXISTS (SELECT 1 FROM gate)", [], |row| row.get(0))?.unwrap_or_default())
    }

    /// When the next gate after `now` is due.
    pub(in super::super) fn next_due(&self, now: Timestamp) -> Result<Option<Timestamp>> {
        let sql = "SELECT due_ms FROM gate WHERE due_ms > ? ORDER BY due_ms LIMIT 1";
        self.one(sql, [now.as_millis()], |row| row.get(0).map(timestamp))
    }

    /// Gates that lie further ahead than they ever waited: the clock was set back. Lets them wait for
    /// `at_most` from now.
    pub(in super::super) fn pull_gates(&self, now: Timestamp, at_most: Duration) -> Result<()> {
        let sql = "UPDATE gate SET due_ms = ?1 + min(wait_ms, ?2) WHERE due_ms > ?1 + wait_ms";
        self.run(sql, [now.as_millis(), at_most.as_millis() as i64])
    }

    /// Remembers that an event waits behind its user's gate.
    pub(in super::super) fn park(&self, user: &UserId, seq: u64) -> Result<()> {
        self.run("INSERT OR IGNORE INTO parked (user, seq) VALUES (?, ?)", params![user.as_str(), int(seq)])
    }

    /// The event left its user's line; says whether it was in it.
    pub(in super::super) fn unpark(&self, user: &UserId, seq: u64) -> Result<bool> {
        Ok(self.changed("DELETE FROM parked WHERE user = ? AND seq = ?", params![user.as_str(), int(seq)])? > 0)
    }

    /// The first event behind a user's gate.
    pub(in super::super) fn first_parked(&self, user: &UserId) -> Result<Option<u64>> {
        let sql = "SELECT seq FROM parked WHERE user = ? ORDER BY seq LIMIT 1";
        self.one(sql, [user.as_str()], |row| row.get(0).map(uint))
    }

    /// The last event behind a user's gate.
    pub(in super::super) fn last_parked(&self, user: &UserId) -> Result<Option<u64>> {
        let sql = "SELECT seq FROM parked WHERE user = ? ORDER BY seq DESC LIMIT 1";
        self.one(sql, [user.as_str()], |row| row.get(0).map(uint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::sqlite::testing::Bench;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn users_that_are_due_are_found_longest_ago_first_and_who_is_next_after_them_is_known() {
        let (sql, now) = (Bench::with(&[], 0).store.sql, Timestamp::from_millis(1_000_000));
        let dues =
            [("late", now.plus(MINUTE)), ("now", now), ("past", now.minus(MINUTE)), ("last", now.plus(2 * MINUTE))];
        for (user, due) in dues {
            sql.set_gate(&UserId::new(user), Gate { due, wait: MINUTE }).unwrap();
        }
        let mut found = Vec::new();
        let none = sql.find_due(now, |user| {
            found.push(user.to_owned());
            false
        });
        assert_eq!((none.unwrap(), found), (None, vec!["past".to_owned(), "now".to_owned()]));
        assert_eq!(sql.next_due(now).unwrap(), Some(now.plus(MINUTE)));
        assert_eq!(sql.next_due(now.plus(2 * MINUTE)).unwrap(), None);
    }

    #[test]
    fn an_event_leaves_its_users_line_once_and_another_users_never() {
        let (sql, user) = (Bench::with(&[], 0).store.sql, UserId::new("a"));
        sql.park(&user, 7).unwrap();
        assert!(!sql.unpark(&user, 8).unwrap() && !sql.unpark(&UserId::new("b"), 7).unwrap());
        assert!(sql.unpark(&user, 7).unwrap());
        assert!(!sql.unpark(&user, 7).unwrap());
    }
}
