//! How a connection is set up, what its transactions keep, and how values are read.

use super::*;
use crate::outbox::sqlite::testing::Bench;

fn pragma(sql: &Sql, name: &str) -> i64 {
    sql.conn.pragma_query_value(None, name, |row| row.get(0)).unwrap()
}

#[test]
fn a_commit_is_synced_by_sqlite_unless_that_comes_later() {
    const NORMAL: i64 = 1;
    const FULL: i64 = 2;
    let sql = Bench::with(&[], 0).store.sql;
    let mut is = Vec::new();
    for syncs in [Syncs::Itself, Syncs::Later, Syncs::Later, Syncs::Itself] {
        sql.sync(syncs).unwrap();
        is.push(pragma(&sql, "synchronous"));
    }
    assert_eq!(is, [FULL, NORMAL, NORMAL, FULL]);
}

#[test]
fn what_is_committed_stays_and_what_is_undone_is_gone() {
    let sql = Bench::with(&[], 0).store.sql;
    sql.begin().unwrap();
    sql.set_meta("kept", "").unwrap();
    sql.commit().unwrap();
    sql.begin().unwrap();
    sql.set_meta("undone", "").unwrap();
    sql.rollback().unwrap();
    assert!(sql.meta("kept").unwrap().is_some() && sql.meta("undone").unwrap().is_none());
    sql.rollback().expect("SQLite may have undone it already");
    sql.begin().expect("none is open");
}

#[test]
fn a_fact_about_the_file_is_known_until_it_is_changed_or_forgotten() {
    let sql = Bench::with(&[], 0).store.sql;
    let fact = || sql.meta("key").unwrap();
    assert_eq!(fact(), None);
    for value in ["first", "second"] {
        sql.set_meta("key", value).unwrap();
        assert_eq!(fact().as_deref(), Some(value));
    }
    sql.forget_meta("key").unwrap();
    assert_eq!(fact(), None);
}

#[test]
fn counts_are_read_as_they_were_written() {
    let sql = Bench::with(&[], 0).store.sql;
    let ledger = Ledger { accepted: 1, delivered: 2, dead: 3, discarded: 4, erased: 5, lost: 6 };
    let (next_seq, mark, gates, failed, done, dead_bytes, key_bytes) = (7, 8, 9, 10, 11, 12, 13);
    let written = Books { ledger, next_seq, mark, gates, failed, done, dead_bytes, key_bytes, ..Books::default() };
    sql.write_books(&written).unwrap();
    assert_eq!(sql.books().unwrap(), written);
}

#[test]
fn who_only_reads_keeps_little_in_memory_and_changes_nothing() {
    let bench = Bench::with(&[], 0);
    let sql = Sql::open_read_only(bench.env.home.database()).unwrap();
    assert_eq!(pragma(&sql, "cache_size"), -256, "KiB");
    sql.set_meta("key", "value").unwrap_err();
}

#[test]
fn what_a_damaged_row_holds_is_read_for_what_it_is() {
    let (torn, name, empty) = (ValueRef::Text(b"a\xff"), ValueRef::Text(b"http_400"), ValueRef::Text(b""));
    assert_eq!(
        [torn, name, empty, ValueRef::Null, ValueRef::Integer(1)].map(text),
        ["a\u{fffd}", "http_400", "", "", ""]
    );
    assert_eq!([torn, empty, ValueRef::Null].map(some_text), [Some("a\u{fffd}".into()), Some("".into()), None]);
    assert_eq!([torn, name].map(reason), [None, Some(Reason::Http400)]);
    assert_eq!((int(7), int(u64::MAX), uint(7), uint(-1)), (7, i64::MAX, 7, 0));
}
