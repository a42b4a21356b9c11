//! Files that SQLite finds sound and that say what cannot be: whichever column of whichever table is wrong, and the
//! numbers of rows.

#![allow(clippy::unwrap_used, reason = "a test that fails there says where")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use cello_relay::event::EventId;
use cello_relay::outbox::{Batch, DeadLetters, Filter, Key, Ledger, Outbox, Outcome, Route, State};
use cello_relay::reason::Reason;
use rusqlite::Connection;

use crate::outbox_flips::{Sample, Seen, survive};
use crate::outbox_support::{
    Fixture, PATIENCE, append, attempt, claim, dead, deliver_all, deliver_what_is_left, delivered, event, ids,
    numbered, retry, settle_all, until,
};

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

#[tokio::test]
async fn where_a_users_line_is_wrong_the_events_are_sent_by_what_they_say_themselves() {
    // Event 0 waits for a retry behind its user's gate; the line names another's event, none, or is empty.
    for wrong in ["UPDATE parked SET seq = seq + 1", "UPDATE parked SET seq = seq + 9", "DELETE FROM parked"] {
        let fixture = Fixture::new();
        let store = fixture.open();
        let appended = append(&store, &["a", "b"]).await;
        settle_all(&store, claim(&store, 1).await, &retry(fixture.clock.now(), false)).await;
        drop(store);
        assert_eq!(Connection::open(fixture.path("outbox.db")).unwrap().execute(wrong, []).unwrap(), 1);
        let store = fixture.open();
        let later = append(&store, &["a"]).await;
        let sent = deliver_what_is_left(&store).await;
        let of_a: Vec<_> = sent.iter().filter(|(_, user, _)| user == "a").map(|(id, ..)| *id).collect();
        assert_eq!((of_a, sent.len()), (vec![appended[0], later[0]], 3), "{wrong}");
        assert_eq!(store.stats().ledger, Ledger { accepted: 3, delivered: 3, ..Ledger::default() }, "{wrong}");
        assert_eq!(store.stats().quarantined_files, 1, "the file contradicts itself");
    }
}

/// Flips a bit of an event's number in its row, where SQLite does not look for it; `head` bytes of the row say what is
/// in it.
fn misnumber(path: &Path, id: EventId, head: u8, bit: u8) {
    let mut bytes = fs::read(path).unwrap();
    // A number above 2^14 is three bytes, seven bits in each; behind it come the head's length and the column that is null.
    let seq = id.seq();
    let number = [(seq >> 14) as u8 | 0x80, (seq >> 7) as u8 | 0x80, seq as u8 & 0x7f, head, 0x00];
    let found: Vec<_> =
        bytes.windows(5).enumerate().filter(|(_, window)| *window == number).map(|(at, _)| at).collect();
    assert_eq!(found.len(), 1, "the row of {seq}");
    bytes[found[0] + 1] ^= bit;
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn an_event_whose_number_is_damaged_hides_no_other_however_the_file_is_read() {
    // Larger, smaller; of the last row of a step of recovery that reads downwards too.
    for (from_end, bit, is_cut) in [(30, 0x40, false), (30, 0x01, false), (16, 0x40, true), (1, 0x40, false)] {
        let mut fixture = Fixture::new();
        fixture.first_seq = 1 << 15 | 1 << 7;
        let store = fixture.open();
        let appended = store.append(numbered(4, 100)).await.unwrap().ids;
        store.close().await;
        drop(store);
        let path = fixture.path("outbox.db");
        misnumber(&path, appended[appended.len() - from_end], 10, bit);
        let mut gone = 1;
        if is_cut {
            let mut bytes = fs::read(&path).unwrap();
            // As they lie: the fourth event's `price":3}`, and how each begins.
            let at = bytes.windows(4).position(|window| window == b"\xf6\x073}").unwrap() / 4096 * 4096;
            let page = &mut bytes[at..at + 4096];
            gone += page.windows(5).filter(|window| window == b"\x01code").count() as u64;
            page.fill(0xee);
            fs::write(&path, bytes).unwrap();
        }
        let store = fixture.open();
        let new = append(&store, &["user-0"]).await[0];
        let sent = tokio::time::timeout(PATIENCE, deliver_what_is_left(&store)).await.expect("all is looked at");
        let ledger = store.stats().ledger;
        let case = format!("{from_end} {bit:#x} {ledger:?}");
        assert!(sent.iter().any(|(id, ..)| *id == new), "{case}");
        assert_eq!((sent.len() as u64 + ledger.lost + ledger.dead, ledger.undelivered()), (101, 0), "{case}");
        assert_eq!(ledger.lost + ledger.dead, gone, "all others are there: {case}");
        let mut last = std::collections::HashMap::new();
        assert!(
            sent.iter().all(|(id, user, _)| last.insert(user.clone(), *id).is_none_or(|last| last < *id)),
            "{case}"
        );
    }
}

#[tokio::test]
async fn a_dead_letter_whose_number_is_damaged_hides_no_other() {
    for bit in [0x40, 0x01] {
        let mut fixture = Fixture::new();
        fixture.first_seq = 1 << 15 | 1 << 7;
        let store = fixture.open();
        let appended = store.append(numbered(100, 100)).await.unwrap().ids;
        while store.stats().ledger.undelivered() > 0 {
            settle_all(&store, claim(&store, 64).await, &dead(Reason::Http400)).await;
        }
        store.close().await;
        drop(store);
        let wrong = appended[70];
        misnumber(&fixture.path("outbox.db"), wrong, 13, bit);
        let store = fixture.open();
        let listed = async {
            loop {
                // Whoever looks meets it, and it is moved aside.
                let found = store.list(Filter::default(), None, 200).await;
                if let Some(found) = found.ok().filter(|_| store.stats().quarantined_files == 1) {
                    break found;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, listed).await.expect("it is noticed");
        // All was copied before anything new is handed out.
        let new = append(&store, &["a"]).await;
        assert_eq!(ids(&claim(&store, 1).await), new);
        let listed = store.list(Filter { state: Some(State::Dead), ..Filter::default() }, None, 200).await.unwrap();
        let listed: BTreeSet<EventId> = listed.into_iter().map(|line| line.id).collect();
        let missing: Vec<&EventId> = appended.iter().filter(|id| !listed.contains(id)).collect();
        assert_eq!(missing, [&wrong], "{bit:#x}: {:?}", store.stats().ledger);
    }
}

#[tokio::test]
async fn events_of_a_file_of_which_nothing_is_known_may_have_higher_numbers_than_the_fresh_one() {
    let mut fixture = Fixture::new();
    fixture.first_seq = 1 << 40;
    let store = fixture.open();
    let appended = append(&store, &["a", "b", "a"]).await;
    store.settle(claim(&store, 1).await.remove(0).lease, dead(Reason::Http400)).await.unwrap();
    drop(store);
    assert_eq!(Connection::open(fixture.path("outbox.db")).unwrap().execute("DELETE FROM state", []).unwrap(), 1);
    fixture.first_seq = 1;
    let store = fixture.open();
    until(&store, |store| store.stats().ledger.accepted == 3).await;
    let sent = deliver_what_is_left(&store).await;
    assert_eq!(sent.iter().map(|(id, ..)| *id).collect::<Vec<_>>(), appended[1..]);
    let new = append(&store, &["a"]).await[0];
    assert!(new.seq() > appended[2].seq());
    assert_eq!(deliver_all(&store).await, [new]);
    drop(store);
    assert_eq!(fixture.open().stats().quarantined_files, 1, "and no more");
}
