use super::super::sql::{DEAD, DEAD_OF_REASON, DEAD_OF_USER, FAILED, LINE, LINES, MIGRATIONS, PASS};
use super::*;
use crate::clock::Timestamp;
use crate::event::{Event, Trigger, UserId};
use crate::reason::Reason;

fn tables(dir: &std::path::Path) -> Sql {
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
