//! A rollback: the file of the next release, opened by this one.

#![allow(clippy::unwrap_used, reason = "a test that fails there says where")]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cello_relay::clock::Clock;
use cello_relay::event::EventId;
use cello_relay::outbox::sqlite::{OpenError, Sqlite};
use cello_relay::outbox::{DeadLetters, Filter, Key, Ledger, Outbox, Route, Selection, Terms, Want};
use cello_relay::reason::Reason;
use rusqlite::Connection;

use crate::outbox_support::{Fixture, ManualClock, append, batch, dead, delivered, ids, retry};

/// What a later release may do to a file within a major version: add. Columns go to every table, so that no statement
/// of this release can depend on how many there are.
const ADDED_TABLE: &str =
    "CREATE TABLE added (id INTEGER PRIMARY KEY, note TEXT); INSERT INTO added VALUES (1, 'kept');";

fn tables(file: &Connection) -> Vec<String> {
    let mut tables = file.prepare("SELECT name FROM sqlite_master WHERE type = 'table'").unwrap();
    tables.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

fn version(file: &Connection) -> i64 {
    file.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap()
}

/// Makes the stopped outbox one of the next schema version; gives that version.
fn add_a_version(fixture: &Fixture) -> i64 {
    let file = Connection::open(fixture.path("outbox.db")).unwrap();
    let next = version(&file) + 1;
    for table in tables(&file) {
        file.execute_batch(&format!("ALTER TABLE {table} ADD COLUMN added TEXT; UPDATE {table} SET added = 'kept';"))
            .unwrap();
    }
    file.execute_batch(ADDED_TABLE).unwrap();
    file.pragma_update(None, "user_version", next).unwrap();
    next
}

/// A delivered event, a dead letter, one that is retried in a minute, one behind it, one without a past.
async fn fill(fixture: &Fixture, clock: &ManualClock) -> Vec<EventId> {
    let store = fixture.open();
    let appended = append(&store, &["a", "b", "c", "c", "d"]).await;
    let mut claimed = store.claim(Want { max: 3, rotate: false }).await;
    let at = clock.now().plus(Duration::from_secs(60));
    for outcome in [delivered(), dead(Reason::Http400), retry(at, true)] {
        store.settle(claimed.remove(0).lease, outcome).await.unwrap();
    }
    store.close().await;
    appended
}

async fn deliver_all(store: &Sqlite) -> Vec<EventId> {
    let mut order = Vec::new();
    while store.stats().ledger.undelivered() > 0 {
        let claimed = store.claim(Want { max: 64, rotate: false }).await;
        order.extend(ids(&claimed));
        for claimed in claimed {
            store.intend(&claimed.lease).await.unwrap();
            store.settle(claimed.lease, delivered()).await.unwrap();
        }
    }
    order
}

#[tokio::test]
async fn after_a_rollback_the_file_of_the_next_version_is_used_in_full_and_keeps_what_was_added() {
    let clock = Arc::new(ManualClock::new());
    let fixture = Fixture::with(Arc::clone(&clock) as Arc<dyn Clock>, |_| {});
    let appended = fill(&fixture, &clock).await;
    let next = add_a_version(&fixture);

    let store = fixture.open();
    assert_eq!(store.stats().ledger, Ledger { accepted: 5, delivered: 1, dead: 1, ..Ledger::default() });
    // Everything that writes: keys, retries, dead letters that come, go and come back.
    let key = Key { route: Route::Events, key: "k".into(), body: [0; 32], notes: "".into() };
    let mut keyed = batch(&["e", "f", "f"]);
    keyed.key = Some(key);
    let later = store.append(keyed).await.unwrap().ids;
    let claimed = store.claim(Want { max: 3, rotate: false }).await;
    assert_eq!(ids(&claimed), [appended[4], later[0], later[1]]);
    let at = clock.now().plus(Duration::from_secs(30));
    for (claimed, outcome) in claimed.into_iter().zip([retry(at, false), dead(Reason::Http422), delivered()]) {
        store.settle(claimed.lease, outcome).await.unwrap();
    }
    let replayed = store.replay(Selection::Matching(Filter::default()), Terms::everything()).await.unwrap();
    assert_eq!(replayed.count, 2);
    clock.pass(Duration::from_secs(61));
    let mut order = deliver_all(&store).await;
    order.sort_by_key(|id| id.seq());
    assert_eq!(order, [appended[1], appended[2], appended[3], appended[4], later[0], later[2]]);
    assert_eq!(store.stats().ledger, Ledger { accepted: 8, delivered: 8, ..Ledger::default() });
    store.close().await;
    drop(store);

    let file = Connection::open(fixture.path("outbox.db")).unwrap();
    assert_eq!(version(&file), next, "the file stays one of the next version");
    for added in ["SELECT note FROM added", "SELECT added FROM meta LIMIT 1", "SELECT added FROM state"] {
        assert_eq!(file.query_row(added, [], |row| row.get::<_, String>(0)).unwrap(), "kept", "{added}");
    }
}

#[tokio::test]
async fn what_is_readable_of_a_damaged_file_of_the_next_version_is_recovered() {
    let clock = Arc::new(ManualClock::new());
    let fixture = Fixture::with(Arc::clone(&clock) as Arc<dyn Clock>, |_| {});
    let appended = fill(&fixture, &clock).await;
    add_a_version(&fixture);
    // As a crash leaves it while the file is moved aside.
    let name = "outbox-20260101T000000000Z.damaged.db";
    std::fs::write(fixture.path("quarantine"), name).unwrap();
    let store = fixture.open();
    clock.pass(Duration::from_secs(61));
    let mut order = deliver_all(&store).await;
    order.sort_by_key(|id| id.seq());
    assert_eq!(order, appended[2..]);
    assert_eq!(store.stats().ledger, Ledger { accepted: 5, delivered: 4, dead: 1, ..Ledger::default() });
}

#[tokio::test]
async fn a_file_two_versions_newer_is_refused_and_left_as_it_is() {
    let clock = Arc::new(ManualClock::new());
    let fixture = Fixture::with(Arc::clone(&clock) as Arc<dyn Clock>, |_| {});
    fill(&fixture, &clock).await;
    let next = add_a_version(&fixture);
    let file = Connection::open(fixture.path("outbox.db")).unwrap();
    file.pragma_update(None, "user_version", next + 1).unwrap();
    drop(file);
    let before = fs::read(fixture.path("outbox.db")).unwrap();
    let Err(OpenError::TooNew { found, .. }) = fixture.try_open() else { panic!("opened") };
    assert_eq!(found, next + 1);
    assert_eq!(fs::read(fixture.path("outbox.db")).unwrap(), before);
}

#[test]
fn every_statement_that_inserts_names_its_columns() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/outbox/sqlite/sql");
    let files = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).chain([folder.with_extension("rs")]);
    let sql: String = files.map(|file| fs::read_to_string(file).unwrap()).collect();
    let into = sql.match_indices(" INTO ").map(|(at, word)| sql[at + word.len()..].split([' ', '\n']));
    let mut seen = 0;
    for mut words in into {
        let table = words.next().unwrap_or_default();
        seen += 1;
        let columns = words.find(|word| !word.is_empty() && *word != "\\").unwrap_or_default();
        // The first row of a file is written by the release that makes its tables.
        assert!(table == "state" || columns.starts_with('('), "INTO {table} {columns}");
    }
    assert!(seen > 10, "{seen}");
}
