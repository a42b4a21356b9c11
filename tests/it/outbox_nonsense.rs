//! Files that SQLite finds sound and that say what cannot be: whichever column of whichever table is wrong.

#![allow(clippy::unwrap_used, reason = "a test that fails there says where")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use cello_relay::outbox::{Batch, Key, Outbox, Outcome, Route};
use cello_relay::reason::Reason;
use rusqlite::Connection;

use crate::outbox_flips::{Sample, Seen, survive};
use crate::outbox_support::{Fixture, attempt, claim, dead, delivered, event, retry};

/// An outbox as a crash left it, with rows in every table that this release writes.
async fn sample_of_all() -> Sample {
    let fixture = Fixture::new();
    let store = fixture.open();
    let mut bodies = BTreeMap::new();
    for round in 0..3 {
        let events: Vec<_> = (0..8).map(|n| event(&format!("user-{n}"), round * 8 + n)).collect();
        let sent: Vec<_> = events.iter().map(|event| event.body.clone()).collect();
        let key =
            Key { route: Route::Batch, key: format!("key-{round}").into(), body: [round as u8; 32], notes: "".into() };
        let ids = store.append(Batch { events, key: Some(key) }).await.unwrap().ids;
        bodies.extend(ids.into_iter().zip(sent));
    }
    let mut waiting: BTreeSet<_> = bodies.keys().copied().collect();
    let mut dead_ids = BTreeSet::new();
    let mut claimed = claim(&store, 8).await.into_iter();
    let mut next = || claimed.next().unwrap();
    for _ in 0..2 {
        let claimed = next();
        dead_ids.insert(claimed.id);
        waiting.remove(&claimed.id);
        store.settle(claimed.lease, dead(Reason::Http400)).await.unwrap();
    }
    let first_dead = *dead_ids.first().unwrap();
    for _ in 0..2 {
        let claimed = next();
        waiting.remove(&claimed.id);
        store.settle(claimed.lease, delivered()).await.unwrap();
    }
    store.settle(next().lease, retry(fixture.clock.now(), true)).await.unwrap();
    store.settle(next().lease, retry(fixture.clock.now(), false)).await.unwrap();
    store.settle(next().lease, Outcome::Unsure { attempt: attempt(Reason::Timeout) }).await.unwrap();
    // The next one of the first user passes its dead letter.
    let passes = claim(&store, 8).await.into_iter().find(|claimed| claimed.event.user.as_str() == "user-0").unwrap();
    assert!(passes.id > first_dead);
    waiting.remove(&passes.id);
    store.settle(passes.lease, delivered()).await.unwrap();
    let intended = claim(&store, 1).await.remove(0);
    store.intend(&intended.lease).await.unwrap();
    let ledger = store.stats().ledger;
    drop(store);
    let path = fixture.path("outbox.db");
    Connection::open(&path).unwrap().execute_batch("PRAGMA journal_mode = DELETE").unwrap();
    let files = [("outbox.db".to_owned(), fs::read(&path).unwrap())].into();
    Sample { files, bodies: bodies.into_iter().collect(), waiting, dead: dead_ids, ledger }
}

const LEDGER: [&str; 6] = ["accepted", "delivered", "dead", "discarded", "erased", "lost"];

/// Ways to be wrong: every column takes these values, in the first row, the last and in all.
fn nonsense(file: &Connection) -> Vec<String> {
    let list = |sql: &str| -> Vec<String> {
        let mut statement = file.prepare(sql).unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    let mut cases = Vec::new();
    for table in list("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT IN ('meta', 'sqlite_sequence')")
    {
        let key = list(&format!("SELECT name FROM pragma_table_info('{table}') WHERE pk = 1")).remove(0);
        let scopes = [
            String::new(),
            format!(" WHERE {key} = (SELECT min({key}) FROM {table})"),
            format!(" WHERE {key} = (SELECT max({key}) FROM {table})"),
        ];
        for scope in &scopes {
            cases.push(format!("DELETE FROM {table}{scope}"));
            for column in list(&format!("SELECT name FROM pragma_table_info('{table}')")) {
                let mut values = ["NULL", "9223372036854775807", "'nonsense'", "x'ff00'"].map(str::to_owned).to_vec();
                // By the ledger nothing is found or sent; that it adds up is `outbox check`'s.
                if !LEDGER.contains(&column.as_str()) {
                    values.extend(["-1", "0", "1"].map(str::to_owned));
                    values.extend(["+ 1", "- 1", "+ 4", "* 2"].map(|change| format!("{column} {change}")));
                }
                let set = |value| format!("UPDATE OR REPLACE {table} SET {column} = {value}{scope}");
                cases.extend(values.into_iter().map(set));
            }
        }
    }
    cases
}

#[tokio::test]
async fn whatever_a_column_says_that_cannot_be_nothing_wrong_is_sent_and_what_is_gone_is_noticed() {
    let is_long = std::env::vars().any(|(key, value)| key == "CELLO_RELAY_TEST_LONG" && value == "1");
    let sample = sample_of_all().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("outbox.db");
    let open = || {
        fs::write(&path, &sample.files["outbox.db"]).unwrap();
        Connection::open(&path).unwrap()
    };
    let cases = nonsense(&open());
    let (mut seen, mut count) = (Seen::default(), 0);
    // A prime, so that no column, value or row is always passed over.
    for case in cases.iter().step_by(if is_long { 1 } else { 29 }) {
        let file = open();
        // What the tables themselves do not let in cannot be in them.
        if file.execute(case, []).unwrap_or(0) == 0 {
            continue;
        }
        drop(file);
        println!("{case}");
        count += 1;
        let files = [("outbox.db".to_owned(), fs::read(&path).unwrap())].into();
        survive(&sample, &files, &mut seen, false).await;
    }
    println!("{count} cases: {seen:?}");
    assert!(count > 50 && seen.quarantined > 0 && seen.served > 0 && seen.dead_as_corrupt > 0, "{count}: {seen:?}");
}
