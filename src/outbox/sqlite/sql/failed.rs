//! What is known of failed attempts.

use rusqlite::{Result, params};

use super::{Sql, int, reason, some_text, timestamp, uint};
use crate::clock::Timestamp;
use crate::outbox::sqlite::row::ProgressRow;
use crate::outbox::{ATTEMPTS_KEPT, Attempt, Progress};
use crate::reason::Reason;

/// Waiting events that failed before.
pub(in super::super) const FAILED: &str = "SELECT seq FROM progress WHERE seq >= ? ORDER BY seq LIMIT ?";

impl Sql {
    /// Sequences of waiting events that have failed before.
    pub(in super::super) fn failed_from(&self, seq: u64, limit: u64) -> Result<Vec<u64>> {
        self.all(FAILED, [int(seq), int(limit)], |row| row.get(0).map(uint))
    }

    /// The progress of an event that failed before.
    pub(in super::super) fn progress(&self, seq: u64) -> Result<Option<ProgressRow>> {
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
    pub(in super::super) fn write_progress(
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
    pub(in super::super) fn delete_progress(&self, seq: u64) -> Result<bool> {
        Ok(self.changed("DELETE FROM progress WHERE seq = ?", [int(seq)])? > 0)
    }

    /// Adds an attempt and drops what is older than the last [`ATTEMPTS_KEPT`].
    pub(in super::super) fn add_attempt(&self, seq: u64, attempt: &Attempt) -> Result<()> {
        let insert = "INSERT INTO attempt (seq, n, at_ms, reason, status, request_id, message) \
                      SELECT ?1, coalesce(max(n), 0) + 1, ?2, ?3, ?4, ?5, ?6 FROM attempt WHERE seq = ?1";
        let (at, why) = (attempt.at.as_millis(), attempt.reason.as_str());
        let (request_id, message) = (attempt.request_id.as_deref(), attempt.message.as_deref());
        self.run(insert, params![int(seq), at, why, attempt.status, request_id, message])?;
        let trim = "DELETE FROM attempt WHERE seq = ?1 AND n <= (SELECT max(n) FROM attempt WHERE seq = ?1) - ?2";
        self.run(trim, [int(seq), ATTEMPTS_KEPT as i64])
    }

    /// The attempts that are kept of an event, oldest first.
    pub(in super::super) fn attempts(&self, seq: u64) -> Result<Vec<Attempt>> {
        let sql = "SELECT at_ms, reason, status, request_id, message FROM attempt WHERE seq = ? ORDER BY n";
        self.all(sql, [int(seq)], Self::read_attempt)
    }

    /// The last attempt of an event.
    pub(in super::super) fn last_attempt(&self, seq: u64) -> Result<Option<Attempt>> {
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
    pub(in super::super) fn delete_attempts(&self, seq: u64) -> Result<()> {
        self.run("DELETE FROM attempt WHERE seq = ?", [int(seq)])
    }

    /// Remembers the last attempt that was not burned and whose outcome is not known; without Cello's words.
    pub(in super::super) fn set_unsure(&self, seq: u64, attempt: &Attempt) -> Result<()> {
        let (at, why, request_id) = (attempt.at.as_millis(), attempt.reason.as_str(), attempt.request_id.as_deref());
        let sql = "INSERT OR REPLACE INTO unsure (seq, at_ms, reason, status, request_id) VALUES (?, ?, ?, ?, ?)";
        self.run(sql, params![int(seq), at, why, attempt.status, request_id])
    }

    /// That attempt, if there was one.
    pub(in super::super) fn unsure(&self, seq: u64) -> Result<Option<Attempt>> {
        let sql = "SELECT at_ms, reason, status, request_id, NULL FROM unsure WHERE seq = ?";
        self.one(sql, [int(seq)], Self::read_attempt)
    }

    /// Forgets that attempt; says whether there was one.
    pub(in super::super) fn delete_unsure(&self, seq: u64) -> Result<bool> {
        Ok(self.changed("DELETE FROM unsure WHERE seq = ?", [int(seq)])? > 0)
    }

    /// Whether there is any such event.
    pub(in super::super) fn has_unsure(&self) -> Result<bool> {
        self.one("SELECT 1 FROM unsure LIMIT 1", [], |_| Ok(())).map(|found| found.is_some())
    }

    /// Forgets such attempts of events that ended while an older release ran.
    pub(in super::super) fn trim_unsure(&self) -> Result<()> {
        let sql = "DELETE FROM unsure WHERE NOT EXISTS (SELECT 1 FROM event WHERE event.seq = unsure.seq) \
                   AND NOT EXISTS (SELECT 1 FROM dead WHERE dead.seq = unsure.seq)";
        self.run(sql, [])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::sqlite::testing::Bench;

    #[test]
    fn what_cello_may_have_is_known_until_the_event_is_gone() {
        let sql = Bench::with(&["a"], 1).store.sql;
        let at = Timestamp::from_millis(1);
        let attempt = Attempt { at, reason: Reason::Timeout, status: None, request_id: None, message: None };
        assert!(!sql.has_unsure().unwrap());
        for seq in [1, 2] {
            sql.set_unsure(seq, &attempt).unwrap();
        }
        sql.trim_unsure().unwrap();
        assert_eq!((sql.unsure(1).unwrap(), sql.unsure(2).unwrap()), (Some(attempt), None));
        assert!(sql.has_unsure().unwrap());
        assert!(!sql.delete_unsure(2).unwrap() && sql.delete_unsure(1).unwrap());
        assert!(!sql.has_unsure().unwrap());
    }
}
