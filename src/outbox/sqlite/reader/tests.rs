//! What a look into the file finds, in how many steps, and how it fails.

use std::path::Path;
use std::thread;

use super::super::inbox::Inbox;
use super::super::sql::{DEAD, DEAD_OF_REASON, DEAD_OF_USER, FAILED, LINE, LINES, MIGRATIONS, PASS};
use super::*;
use crate::clock::Timestamp;
use crate::event::{Event, Trigger, UserId};
use crate::outbox::Progress;
use crate::outbox::sqlite::testing::{Bench, change_page};
use crate::reason::Reason;

const AT: Timestamp = Timestamp::from_millis(7);

fn tables(dir: &Path) -> Sql {
    let sql = Sql::open(&dir.join("outbox.db")).expect("opens");
    sql.create().expect("makes tables");
    for steps in MIGRATIONS {
        sql.migrate(steps).expect("migrates");
    }
    sql
}

#[test]
fn a_delivery_looks_at_one_dead_letter_of_its_user_however_many_there_are() {
    let dir = tempfile::tempdir().expect("a directory");
    let (sql, user, mut dead) = (tables(dir.path()), UserId::new("u"), 0_u64);
    let mut steps = Vec::new();
    for count in [1, 10_000] {
        sql.begin().expect("begins");
        while dead < count {
            dead += 1;
            let id = EventId::new(Timestamp::from_millis(1), 2 * dead, 0);
            let body = bytes::Bytes::from_static(b"{}");
            let event = Event { user: user.clone(), trigger: Trigger::None, body, trace: None };
            sql.insert_event(id, &event).expect("inserts");
            sql.bury(2 * dead, Timestamp::from_millis(2), Reason::Http422, 1).expect("buries");
        }
        sql.commit().expect("commits");
        // The first passes all of them, the second finds that done, the third comes from among them.
        for seq in [2 * dead + 1, 2 * dead + 3, dead] {
            steps.push(sql.steps(PASS, rusqlite::params![user.as_str(), seq as i64, 7]).expect("runs"));
        }
        for seq in [2, 2 * dead] {
            assert_eq!(sql.passed(seq, &user).expect("reads"), Some(Timestamp::from_millis(7)));
        }
    }
    assert!(steps.iter().all(|steps| *steps < 100), "{steps:?}");
}

#[test]
fn no_listing_sorts_or_scans_beyond_what_it_shows() {
    let dir = tempfile::tempdir().expect("a directory");
    let sql = tables(dir.path());
    let plan = |statement: &str| sql.plan(statement).expect("a plan").join("; ");
    for (statement, expected) in [
        (LINES, "SEARCH event USING INTEGER PRIMARY KEY (rowid>?)"),
        (LINE, "SEARCH event USING INTEGER PRIMARY KEY (rowid=?)"),
        (FAILED, "SEARCH progress USING INTEGER PRIMARY KEY (rowid>?)"),
        (DEAD, "SEARCH dead USING INTEGER PRIMARY KEY (rowid>?)"),
        (DEAD_OF_USER, "SEARCH dead USING INDEX dead_user (user=? AND rowid>?)"),
        (DEAD_OF_REASON, "SEARCH dead USING INDEX dead_reason (reason=? AND rowid>?)"),
    ] {
        assert_eq!(plan(statement), expected, "{statement}");
    }
}

fn seqs(lines: &[Listed]) -> Vec<u64> {
    lines.iter().map(|line| line.id.seq()).collect()
}

fn of(user: &str) -> Filter {
    Filter { user: Some(UserId::new(user)), ..Filter::default() }
}

fn in_state(state: State) -> Filter {
    Filter { state: Some(state), ..Filter::default() }
}

fn because(reason: Reason) -> Filter {
    Filter { reason: Some(reason), ..Filter::default() }
}

fn fail(sql: &Sql, seq: u64, reason: Reason) {
    let progress = Progress { attempts: 1, ..Progress::default() };
    sql.write_progress(seq, &progress, 0, AT, reason).unwrap();
}

fn bury(sql: &Sql, seqs: impl IntoIterator<Item = u64>, reason: Reason) {
    sql.begin().unwrap();
    for seq in seqs {
        assert!(sql.bury(seq, AT, reason, 1).unwrap());
    }
    sql.commit().unwrap();
}

/// That pages of each length are what the filter lets through, from the first line on and from the second.
fn lists(view: &View<'_>, filter: &Filter, expected: &[u64]) {
    for limit in 0..expected.len() + 2 {
        let page = view.list(filter, None, limit).unwrap();
        assert_eq!(seqs(&page), expected[..limit.min(expected.len())], "{limit}");
        if let Some(first) = page.first() {
            let next = view.list(filter, Some(first.id), limit).unwrap();
            assert_eq!(seqs(&next), expected[1..(limit + 1).min(expected.len())], "{limit}");
        }
    }
}

#[test]
fn a_look_at_what_waits_ends_after_so_many_rows_and_the_page_is_in_sequence_all_the_same() {
    let mut users = vec!["other"; 16_386];
    for seq in [1, 16_385, 16_386] {
        users[seq - 1] = "rare";
    }
    let sql = Bench::with(&users, 1).store.sql;
    bury(&sql, [16_385], Reason::Http400);
    let view = View { sql: &sql, flying: &[] };
    let part = view.list_part(&of("rare"), 0, 9).unwrap();
    assert_eq!((seqs(&part.lines), part.next), (vec![1], Some(16_385)));
    lists(&view, &of("rare"), &[1, 16_385, 16_386]);
}

#[test]
fn a_look_at_the_dead_ends_after_so_many_rows_and_the_page_is_in_sequence_all_the_same() {
    let sql = Bench::with(&vec!["a"; 16_387], 1).store.sql;
    bury(&sql, 1..=16_384, Reason::Http400);
    bury(&sql, [16_385, 16_387], Reason::Exhausted);
    fail(&sql, 16_386, Reason::Exhausted);
    let view = View { sql: &sql, flying: &[] };
    let rare = Filter { reason: Some(Reason::Exhausted), ..of("a") };
    let part = view.list_part(&rare, 0, 9).unwrap();
    assert_eq!((seqs(&part.lines), part.next), (vec![], Some(16_385)));
    lists(&view, &rare, &[16_385, 16_386, 16_387]);
}

#[test]
fn a_look_that_does_not_end_early_finds_a_whole_page() {
    let sql = Bench::with(&["a"; 600], 1).store.sql;
    bury(&sql, 301..=600, Reason::Http400);
    let view = View { sql: &sql, flying: &[] };
    for limit in [1, 299, 300] {
        for (state, first) in [(State::Pending, 1), (State::Dead, 301)] {
            let part = view.list_part(&in_state(state), 0, limit).unwrap();
            let expected: Vec<u64> = (first..).take(limit).collect();
            assert_eq!((seqs(&part.lines), part.next), (expected, None));
        }
    }
    assert_eq!(view.list(&Filter::default(), None, 1000).unwrap().len(), 600);
}

#[test]
fn what_failed_is_found_without_a_look_at_what_only_waits() {
    let sql = Bench::with(&["a"; 9], 1).store.sql;
    fail(&sql, 9, Reason::Http5xx);
    let view = View { sql: &sql, flying: &[] };
    for filter in [in_state(State::Retrying), because(Reason::Http5xx)] {
        let part = view.list_part(&filter, 0, 1).unwrap();
        assert_eq!((seqs(&part.lines), part.next), (vec![9], None));
    }
}

#[test]
fn however_many_have_failed_each_is_found_once() {
    let sql = Bench::with(&["a"; 600], 1).store.sql;
    sql.begin().unwrap();
    (1..=600).for_each(|seq| fail(&sql, seq, Reason::Http5xx));
    sql.commit().unwrap();
    let view = View { sql: &sql, flying: &[] };
    let found = view.list(&in_state(State::Retrying), None, 1000).unwrap();
    assert_eq!(seqs(&found), (1..=600).collect::<Vec<u64>>());
}

#[test]
fn an_event_is_listed_in_the_state_that_it_is_in_and_in_no_other() {
    let sql = Bench::with(&["a", "b", "a", "b", "c"], 1).store.sql;
    bury(&sql, [1], Reason::Http400);
    // Two are in flight, of which one has failed before.
    fail(&sql, 2, Reason::Http5xx);
    fail(&sql, 3, Reason::Timeout);
    let view = View { sql: &sql, flying: &[3, 4] };
    for (state, expected) in [
        (State::Dead, vec![1]),
        (State::Retrying, vec![2]),
        (State::InFlight, vec![3, 4]),
        (State::Pending, vec![5]),
        (State::Delivered, vec![]),
    ] {
        lists(&view, &in_state(state), &expected);
        let lines = view.list(&in_state(state), None, 9).unwrap();
        let due = lines.iter().map(|line| line.report.next_attempt_at);
        assert!(due.eq(expected.iter().map(|_| (state == State::Retrying).then_some(AT))), "{state:?}");
    }
    lists(&view, &Filter { state: Some(State::InFlight), ..of("b") }, &[4]);
    lists(&view, &Filter { state: Some(State::Retrying), ..because(Reason::Timeout) }, &[]);
    lists(&view, &because(Reason::Timeout), &[3]);
    lists(&view, &Filter::default(), &[1, 2, 3, 4, 5]);
}

#[test]
fn an_id_is_more_than_its_sequence_whatever_became_of_the_event() {
    let sql = Bench::with(&["a", "b", "c"], 1).store.sql;
    let ids = [1, 2, 3].map(|seq| sql.event(seq).unwrap().unwrap().id());
    bury(&sql, [2], Reason::Http400);
    sql.delete_event(3).unwrap();
    sql.insert_done(ids[2], AT, 0, None).unwrap();
    let view = View { sql: &sql, flying: &[] };
    let states = [(State::Pending, true), (State::Dead, true), (State::Delivered, false)];
    for (id, (state, is_shown)) in ids.into_iter().zip(states) {
        assert_eq!(view.lookup(id).unwrap().map(|report| report.state), Some(state));
        assert_eq!(view.show(id).unwrap().is_some(), is_shown, "{state:?}");
        let other = EventId::new(id.accepted_at(), id.seq(), id.salt() + 1);
        assert!(view.lookup(other).unwrap().is_none() && view.show(other).unwrap().is_none(), "{state:?}");
    }
}

#[test]
fn only_of_a_dead_letter_it_is_told_that_a_later_event_went() {
    let sql = Bench::with(&["a", "a"], 1).store.sql;
    let ids = [1, 2].map(|seq| sql.event(seq).unwrap().unwrap().id());
    bury(&sql, [1], Reason::Http400);
    sql.pass(&UserId::new("a"), 3, AT).unwrap();
    let view = View { sql: &sql, flying: &[] };
    assert_eq!(ids.map(|id| view.show(id).unwrap().unwrap().overtaken_at), [Some(AT), None]);
}

#[test]
fn why_a_look_failed_is_told_without_a_value_of_a_row() {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_READ);
    let said = "Ada".to_owned();
    for (error, expected) in [
        (rusqlite::Error::SqliteFailure(code, Some(said.clone())), code.to_string()),
        (rusqlite::Error::InvalidQuery, "it cannot be opened now".to_owned()),
        (rusqlite::Error::InvalidColumnType(0, said, rusqlite::types::Type::Text), "a row is damaged".to_owned()),
    ] {
        assert_eq!(read_error(&error).0, expected);
    }
}

#[test]
fn the_reader_opens_the_file_anew_when_the_writer_did_and_tells_it_of_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, database) = (dir.path().join("outbox"), dir.path().join("outbox").join("outbox.db"));
    let (ask, questions) = mpsc::channel(1);
    let shared = Arc::new(Shared::new(Inbox::new(), ask.clone()));
    let reader = thread::spawn({
        let (database, shared) = (database.clone(), Arc::clone(&shared));
        move || run(database, shared, questions)
    });
    let look = || {
        let (reply, answer) = oneshot::channel();
        let id = EventId::new(AT, 1, 0);
        ask.blocking_send(Question::Lookup { id, reply }).unwrap_or_else(|_| panic!("the reader runs"));
        answer.blocking_recv().expect("an answer").map(|report| report.map(|report| report.state))
    };
    let make = || {
        std::fs::create_dir(&outbox).unwrap();
        tables(&outbox)
    };
    assert_eq!(look().unwrap_err().0, "it cannot be opened now");
    drop(make());
    assert_eq!(look().unwrap(), None);
    std::fs::rename(&outbox, dir.path().join("before")).unwrap();
    let sql = make();
    let event = Event { user: UserId::new("a"), trigger: Trigger::None, body: bytes::Bytes::new(), trace: None };
    sql.insert_event(EventId::new(AT, 1, 0), &event).unwrap();
    assert_eq!(look().unwrap(), None, "the one that it has");
    shared.generation.store(1, Ordering::Release);
    assert_eq!(look().unwrap(), Some(State::Pending));
    let told = (shared.damaged.load(Ordering::Acquire), shared.headless.load(Ordering::Acquire));
    assert_eq!(told, (u64::MAX, u64::MAX), "nothing was damaged so far");

    assert!(sql.checkpoint_and_truncate().unwrap());
    drop(sql);
    change_page(&database, "event", |page| page.fill(0xee));
    shared.generation.store(2, Ordering::Release);
    look().unwrap_err();
    // The reader has this lock until it has told.
    assert!(shared.looks.lock().unwrap().is_none(), "a connection that failed is not used again");
    assert_eq!(shared.damaged.load(Ordering::Acquire), 2);
    std::fs::write(&database, "no database".repeat(1000)).unwrap();
    shared.generation.store(3, Ordering::Release);
    assert_eq!(look().unwrap_err().0, "it cannot be opened now");
    let told = (shared.damaged.load(Ordering::Acquire), shared.headless.load(Ordering::Acquire));
    assert_eq!(told, (2, 3), "the writer's connection may still find all of it");
    drop(ask);
    shared.stop_reader();
    reader.join().unwrap();
}
