//! The file itself: its pages, its WAL, its soundness.

use rusqlite::Result;

use super::{Sql, int, uint};

impl Sql {
    /// Overwrites whatever is deleted from now on, also pages that get free; or goes back to the cheaper way.
    pub(in super::super) fn overwrite_all(&self, all: bool) -> Result<()> {
        self.conn.execute_batch(if all { "PRAGMA secure_delete = ON" } else { "PRAGMA secure_delete = FAST" })
    }

    /// Whether the file's head says that nobody may write to it, which only a wrong byte does.
    pub(in super::super) fn forbids_writing(&self) -> Result<bool> {
        self.conn.is_readonly(rusqlite::MAIN_DB)
    }

    /// Pages in use and free pages of the file.
    pub(in super::super) fn pages(&self) -> Result<(u64, u64)> {
        let count = |sql: &str| self.one(sql, [], |row| row.get(0).map(uint)).map(Option::unwrap_or_default);
        let (all, free) = (count("PRAGMA page_count")?, count("PRAGMA freelist_count")?);
        Ok((all.saturating_sub(free), free))
    }

    /// Frames in the WAL that a next commit would be written behind.
    pub(in super::super) fn wal_frames(&self) -> Result<u64> {
        let frames = self.one("PRAGMA wal_checkpoint(NOOP)", [], |row| {
            let (all, moved): (i64, i64) = (row.get(1)?, row.get(2)?);
            Ok(if all == moved { 0 } else { uint(all) })
        })?;
        Ok(frames.unwrap_or(0))
    }

    /// Moves the WAL into the database, syncs it, and lets the WAL start over; says whether all of
    /// it was moved (a reader may hold some back).
    pub(in super::super) fn checkpoint(&self) -> Result<bool> {
        self.checkpoint_as("PRAGMA wal_checkpoint(RESTART)")
    }

    /// Moves the WAL into the database, syncs it, and empties the WAL file.
    pub(in super::super) fn checkpoint_and_truncate(&self) -> Result<bool> {
        self.checkpoint_as("PRAGMA wal_checkpoint(TRUNCATE)")
    }

    fn checkpoint_as(&self, sql: &str) -> Result<bool> {
        Ok(self.one(sql, [], |row| row.get::<_, i64>(0))?.unwrap_or(1) == 0)
    }

    /// Gives up to `pages` free pages back to the volume, as one transaction.
    pub(in super::super) fn vacuum(&self, pages: u64) -> Result<()> {
        // It frees a page with each row, and what takes one row only (`execute_batch`) commits behind the first.
        let mut statement = self.conn.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
        Ok(())
    }

    /// SQLite's own check of the whole file; the findings, or none.
    pub(in super::super) fn check(&self) -> Result<Vec<String>> {
        let findings: Vec<String> = self.all("PRAGMA integrity_check(20)", [], |row| row.get(0))?;
        Ok(findings.into_iter().filter(|finding| finding != "ok").collect())
    }

    /// How many waiting events an opening does not read though they are not parked behind a gate. There must be none.
    pub(in super::super) fn stranded(&self) -> Result<u64> {
        let sql = "SELECT count(*) FROM event WHERE seq < (SELECT mark FROM state) AND NOT EXISTS \
                   (SELECT 1 FROM parked JOIN gate USING (user) WHERE parked.user = event.user AND parked.seq = event.seq)";
        Ok(self.one(sql, [], |row| row.get(0).map(uint))?.unwrap_or_default())
    }

    /// The last sequence of all events, dead or not.
    pub(in super::super) fn last_seq(&self) -> Result<Option<u64>> {
        let last = |sql: &str| self.one(sql, [], |row| row.get(0).map(uint));
        let waiting = last("SELECT seq FROM event ORDER BY seq DESC LIMIT 1")?;
        Ok(waiting.max(last("SELECT seq FROM dead ORDER BY seq DESC LIMIT 1")?))
    }

    /// Whether the first and the last event before a sequence are parked, if there are any.
    pub(in super::super) fn are_parked_before(&self, seq: u64) -> Result<bool> {
        let is_parked = |order: &str| -> Result<bool> {
            let sql = format!(
                "SELECT EXISTS (SELECT 1 FROM parked WHERE parked.user = event.user AND parked.seq = event.seq) \
                 FROM event WHERE seq < ? ORDER BY seq {order} LIMIT 1"
            );
            Ok(self.one(&sql, [int(seq)], |row| row.get(0))?.unwrap_or(true))
        };
        Ok(is_parked("ASC")? && is_parked("DESC")?)
    }

    /// How SQLite finds what listings and decisions ask for, a line a step; for tests.
    #[cfg(test)]
    pub(in super::super) fn plan(&self, sql: &str) -> Result<Vec<String>> {
        let mut statement = self.conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
        let values = vec![1_i64; statement.parameter_count()];
        statement.query_map(rusqlite::params_from_iter(values), |row| row.get(3))?.collect()
    }

    /// How many steps of SQLite's machine a statement takes; for tests.
    #[cfg(test)]
    pub(in super::super) fn steps(&self, sql: &str, params: impl rusqlite::Params) -> Result<i32> {
        let mut statement = self.conn.prepare(sql)?;
        statement.execute(params)?;
        Ok(statement.get_status(rusqlite::StatementStatus::VmStep))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Timestamp;
    use crate::event::UserId;
    use crate::outbox::sqlite::row::{Books, Gate};
    use crate::outbox::sqlite::sql::{FRAME_BYTES, WAL_HEAD_BYTES};
    use crate::outbox::sqlite::testing::{Bench, change_page};
    use crate::reason::Reason;

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
        let pages = |name| pragma(&sql, name);
        let (free, all) = (pages("freelist_count"), pages("page_count"));
        assert!(free >= 100, "{free}");
        sql.vacuum(64).unwrap();
        assert_eq!((pages("freelist_count"), pages("page_count")), (free - 64, all - 64));
    }

    fn pragma(sql: &Sql, name: &str) -> i64 {
        sql.conn.pragma_query_value(None, name, |row| row.get(0)).unwrap()
    }

    #[test]
    fn whatever_is_deleted_is_overwritten_while_that_is_asked_for() {
        const ON: i64 = 1;
        const FAST: i64 = 2;
        let (_dir, path) = made();
        let sql = Sql::open(&path).unwrap();
        let mut is = vec![pragma(&sql, "secure_delete")];
        for all in [true, false] {
            sql.overwrite_all(all).unwrap();
            is.push(pragma(&sql, "secure_delete"));
        }
        assert_eq!(is, [FAST, ON, FAST]);
    }

    #[test]
    fn pages_in_use_and_free_ones_are_told_apart() {
        let (_dir, path) = made();
        let sql = Sql::open(&path).unwrap();
        let before = sql.pages().unwrap();
        sql.set_meta("key", &"x".repeat(100 * 4096)).unwrap();
        sql.forget_meta("key").unwrap();
        let (used, free) = sql.pages().unwrap();
        assert!(free >= 100, "{free}");
        assert_eq!(used + free, pragma(&sql, "page_count") as u64);
        // A page more may say where others belong.
        assert!((before.0..=before.0 + 1).contains(&used) && before.1 == 0, "{before:?} {used}");
    }

    #[test]
    fn the_wal_is_as_long_as_its_head_and_its_frames_and_starts_over_once_all_was_moved() {
        let (dir, path) = made();
        let sql = Sql::open(&path).unwrap();
        let wal_bytes = || std::fs::metadata(dir.path().join("outbox.db-wal")).unwrap().len();
        for value in ["first", "second"] {
            sql.set_meta("key", value).unwrap();
            let frames = sql.wal_frames().unwrap();
            assert!(frames > 0);
            assert_eq!(wal_bytes(), WAL_HEAD_BYTES + frames * FRAME_BYTES);
            assert!(sql.checkpoint_and_truncate().unwrap());
            assert_eq!((sql.wal_frames().unwrap(), wal_bytes()), (0, 0));
        }
        sql.set_meta("key", "third").unwrap();
        assert!(sql.checkpoint().unwrap());
        assert_eq!(sql.wal_frames().unwrap(), 0);
        assert!(wal_bytes() > 0, "it is written over");
    }

    #[test]
    fn what_a_reader_still_needs_of_the_wal_is_not_said_to_be_moved() {
        let (_dir, path) = made();
        let sql = Sql::open(&path).unwrap();
        sql.set_meta("key", "before").unwrap();
        let reader = Sql::open_read_only(&path).unwrap();
        reader.conn.execute_batch("BEGIN").unwrap();
        assert_eq!(reader.meta("key").unwrap().as_deref(), Some("before"));
        sql.set_meta("key", "after").unwrap();
        assert!(!sql.checkpoint().unwrap() && !sql.checkpoint_and_truncate().unwrap());
        assert!(sql.wal_frames().unwrap() > 0);
        reader.conn.execute_batch("END").unwrap();
        assert!(sql.checkpoint().unwrap());
    }

    #[test]
    fn damage_is_found_by_a_check_of_the_whole_file_and_none_where_there_is_none() {
        let (_dir, path) = made();
        let sql = Sql::open(&path).unwrap();
        assert_eq!(sql.check().unwrap(), Vec::<String>::new());
        assert!(sql.checkpoint_and_truncate().unwrap());
        drop(sql);
        // What a page says of the bytes between its rows matters to no read.
        change_page(&path, "attempt", |page| page[7] += 1);
        assert!(!Sql::open(&path).unwrap().check().unwrap().is_empty());
    }

    #[test]
    fn what_an_opening_would_not_read_must_be_parked_behind_a_gate() {
        let bench = Bench::with(&["a", "a", "b", "b"], 1);
        let (sql, a) = (&bench.store.sql, UserId::new("a"));
        let stranded = |mark| {
            sql.write_books(&Books { mark, ..bench.store.books }).unwrap();
            sql.stranded().unwrap()
        };
        assert_eq!([1, 2, 4].map(stranded), [0, 1, 3]);
        sql.park(&a, 1).unwrap();
        sql.park(&a, 2).unwrap();
        assert_eq!(stranded(4), 3, "nobody comes for what is parked without a gate");
        sql.set_gate(&a, Gate { due: Timestamp::from_millis(1), wait: Duration::ZERO }).unwrap();
        assert_eq!([1, 3, 4].map(stranded), [0, 0, 1]);
    }

    #[test]
    fn whether_all_before_a_sequence_is_parked_is_seen_by_the_first_and_the_last() {
        let sql = Bench::with(&["a", "a", "b"], 1).store.sql;
        let are_parked = |seq| sql.are_parked_before(seq).unwrap();
        assert_eq!([1, 2].map(are_parked), [true, false]);
        sql.park(&UserId::new("a"), 1).unwrap();
        assert_eq!([2, 3, 4].map(are_parked), [true, false, false]);
        sql.park(&UserId::new("b"), 3).unwrap();
        assert!(are_parked(4), "what lies between is not looked at");
        sql.unpark(&UserId::new("a"), 1).unwrap();
        assert!(!are_parked(4));
    }

    #[test]
    fn the_last_sequence_is_that_of_the_last_event_dead_or_not() {
        assert_eq!(Bench::with(&[], 0).store.sql.last_seq().unwrap(), None);
        let sql = Bench::with(&["a", "b", "c"], 1).store.sql;
        for (dies, last) in [(None, 3), (Some(1), 3), (Some(3), 3), (Some(2), 3)] {
            if let Some(seq) = dies {
                assert!(sql.bury(seq, Timestamp::from_millis(1), Reason::Http400, 1).unwrap());
            }
            assert_eq!(sql.last_seq().unwrap(), Some(last), "{dies:?}");
        }
    }
}
