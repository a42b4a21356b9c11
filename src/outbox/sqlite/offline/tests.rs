//! What is told of an outbox that no relay runs on, be it sound, damaged or none.

use std::fs;

use rusqlite::Connection;

use super::*;
use crate::clock::Timestamp;
use crate::outbox::State;
use crate::outbox::sqlite::testing::Bench;

/// A store with so many events, which its ledger knows of.
fn with(users: &[&str]) -> Bench {
    let mut bench = Bench::with(users, 10);
    bench.store.books.ledger.accepted = users.len() as u64;
    bench
}

/// All of these are dead.
fn bury(bench: &mut Bench, seqs: impl IntoIterator<Item = u64>, reason: Reason) {
    bench.store.sql.begin().unwrap();
    for seq in seqs {
        assert!(bench.store.sql.bury(seq, Timestamp::from_millis(1), reason, 1).unwrap());
        bench.store.books.ledger.dead += 1;
    }
    bench.store.sql.commit().unwrap();
}

/// Opens it with these changes to its rows.
fn opened(bench: &Bench, change: &str) -> Offline {
    bench.store.sql.write_books(&bench.store.books).unwrap();
    Connection::open(bench.env.home.database()).unwrap().execute_batch(change).unwrap();
    offline(&bench.env.settings.dir).unwrap()
}

fn seqs(outbox: &Offline, filter: &Filter) -> Vec<u64> {
    outbox.list(filter, None, 9).unwrap().iter().map(|line| line.id.seq()).collect()
}

/// A new directory with a file of these bytes where the database is.
fn dir_with(bytes: &[u8]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(Home::new(dir.path()).database(), bytes).unwrap();
    dir
}

// --- opening

#[test]
fn where_no_start_came_as_far_as_the_tables_there_is_no_outbox() {
    let nothing = tempfile::tempdir().unwrap();
    assert!(matches!(offline(nothing.path()), Err(OpenError::Missing { .. })));
    assert!(matches!(offline(dir_with(b"").path()), Err(OpenError::Missing { .. })));
    // Cut off while the file becomes one with a WAL: a rollback journal lies beside it.
    let dir = tempfile::tempdir().unwrap();
    let of = Connection::open(dir.path().join("made")).unwrap();
    of.execute_batch("PRAGMA user_version = 1; PRAGMA synchronous = OFF; BEGIN; PRAGMA user_version = 2").unwrap();
    for (from, to) in [("made", "outbox.db"), ("made-journal", "outbox.db-journal")] {
        fs::copy(dir.path().join(from), dir.path().join(to)).unwrap();
    }
    assert!(matches!(offline(dir.path()), Err(OpenError::Missing { .. })));
}

#[test]
fn what_cannot_be_read_as_an_outbox_is_told_apart() {
    let damaged = dir_with(&[b'x'; 20_000]);
    assert!(matches!(offline(damaged.path()), Err(OpenError::Damaged { .. })));
    let bench = with(&["a"]);
    let dir = &bench.env.settings.dir;
    let lock = bench.env.home.lock().unwrap();
    assert!(matches!(offline(dir), Err(OpenError::Locked { .. })));
    drop(lock);
    Connection::open(bench.env.home.database()).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
    assert!(matches!(offline(dir), Err(OpenError::TooNew { found: 99, .. })));
    assert!(matches!(aside(dir, Path::new("outbox.db")), Err(OpenError::TooNew { found: 99, .. })));
}

#[test]
fn a_file_that_was_moved_aside_is_opened_by_its_name_or_its_path() {
    let bench = with(&["a"]);
    let (dir, file) = (&bench.env.settings.dir, bench.env.home.database());
    for name in [Path::new("outbox.db"), file] {
        assert_eq!(seqs(&aside(dir, name).unwrap(), &Filter::default()), [1]);
    }
    assert!(
        matches!(aside(dir, Path::new("other.db")), Err(OpenError::Missing { path }) if path == dir.join("other.db"))
    );
    let damaged = dir_with(&[b'x'; 20_000]);
    assert!(matches!(aside(damaged.path(), Path::new("outbox.db")), Err(OpenError::Damaged { .. })));
}

// --- looking

#[test]
fn of_a_sound_outbox_all_is_told_and_no_damage() {
    let mut bench = with(&["a", "b", "a"]);
    bury(&mut bench, [2], Reason::Http400);
    bench.store.books.failed = 7;
    fs::write(bench.env.home.named("outbox-20260101T000000000Z.damaged.db"), "").unwrap();
    let outbox = opened(&bench, "INSERT INTO meta (key, value) VALUES ('upstream', 'https://a.example')");
    assert_eq!(seqs(&outbox, &Filter::default()), [1, 2, 3]);
    let id = outbox.list(&Filter::default(), None, 9).unwrap()[1].id;
    assert_eq!(outbox.show(id).unwrap().unwrap().listed.report.state, State::Dead);
    assert!(outbox.show(EventId::new(id.accepted_at(), 9, 0)).unwrap().is_none());
    assert_eq!(outbox.damage(), None);
    let ledger = Ledger { accepted: 3, dead: 1, ..Ledger::default() };
    assert_eq!((outbox.counts().unwrap(), outbox.ledger().unwrap()), ((ledger, 7), ledger));
    assert_eq!(outbox.quarantined(), ["outbox-20260101T000000000Z.damaged.db"]);
    assert_eq!(outbox.upstream().unwrap().as_deref(), Some("https://a.example"));
    outbox.rebind("https://b.example").unwrap();
    assert_eq!(outbox.upstream().unwrap().as_deref(), Some("https://b.example"));
    assert_eq!(outbox.check().unwrap(), [""; 0]);
}

#[test]
fn once_damage_was_met_what_can_be_read_is_shown() {
    let bench = with(&["a", "b", "a"]);
    let outbox = opened(&bench, "UPDATE event SET accepted_ms = 'nonsense' WHERE seq = 2");
    let id = outbox.list(&Filter { user: Some(UserId::new("a")), ..Filter::default() }, None, 1).unwrap()[0].id;
    assert_eq!(outbox.damage(), None, "not met yet");
    assert_eq!(seqs(&outbox, &Filter::default()), [1, 3]);
    assert_eq!(outbox.damage(), Some(Damage { readable: 2, expected: Some(3) }));
    assert_eq!(outbox.show(id).unwrap().unwrap().listed.id, id);
    let page = outbox.list(&Filter::default(), Some(id), 9).unwrap();
    assert_eq!(page.iter().map(|line| line.id.seq()).collect::<Vec<_>>(), [3]);
}

#[test]
fn an_event_that_both_waits_and_is_dead_is_listed_once_and_is_damage() {
    let bench = with(&["a", "b"]);
    let outbox = opened(
        &bench,
        "INSERT INTO dead (seq, salt, accepted_ms, trigger, user, trace, crc, died_ms, reason, attempts, body) \
         SELECT seq, salt, accepted_ms, trigger, user, trace, crc, 1, 'http_400', 1, body FROM event WHERE seq = 2",
    );
    assert_eq!(seqs(&outbox, &Filter::default()), [1, 2]);
    assert!(outbox.damage().is_some());
}

// --- checking

#[test]
fn events_that_are_not_what_was_stored_are_counted_wherever_they_are() {
    let mut bench = with(&["a"; 2100]);
    bury(&mut bench, 1051..=2100, Reason::Http400);
    // What the relay found itself is a dead letter for that.
    bury(&mut bench, [3], Reason::Corrupt);
    // Of either table, where the first look ends and behind it.
    let wrong = "(1, 2, 3, 1024, 1025, 1026, 1040, 1051, 2072, 2073, 2074, 2090)";
    let change = format!(
        "UPDATE event SET body = 'other' WHERE seq IN {wrong}; UPDATE dead SET body = 'other' WHERE seq IN {wrong}"
    );
    assert_eq!(opened(&bench, &change).check().unwrap(), ["11 events do not match their checksums"]);
}

#[test]
fn a_check_tells_what_is_wrong_with_an_outbox() {
    let findings = |change: &str| {
        let mut bench = with(&["a", "b", "c", "d"]);
        bury(&mut bench, [4], Reason::Http400);
        opened(&bench, change).check().unwrap()
    };
    assert_eq!(findings(""), [""; 0]);
    assert_eq!(findings("UPDATE event SET body = 'other' WHERE seq = 1"), ["1 event does not match its checksum"]);
    let differs = |booked: (u64, u64), there: (u64, u64)| {
        let ((undelivered, dead), (waiting, buried)) = (booked, there);
        format!("the ledger says {undelivered} undelivered and {dead} dead; there are {waiting} and {buried}")
    };
    assert_eq!(findings("UPDATE state SET accepted = 5"), [differs((4, 1), (3, 1))]);
    assert_eq!(findings("UPDATE state SET accepted = 5, dead = 2"), [differs((3, 2), (3, 1))]);
    assert_eq!(findings("UPDATE state SET mark = 3"), ["2 events wait where no relay would find them"]);
    assert_eq!(findings("UPDATE event SET accepted_ms = 'nonsense'"), ["the outbox cannot be read: a row is damaged"]);
    // SQLite itself: an index without its rows.
    let strays = "PRAGMA writable_schema = ON; UPDATE sqlite_master SET sql = 'CREATE INDEX dead_user ON dead (reason)' \
                  WHERE name = 'dead_user'";
    assert!(!findings(strays).is_empty());
}
