//! With `forward.ambiguous = "dead"`: what was being sent when the file was lost is not sent again.

#![allow(clippy::unwrap_used, reason = "a test that fails there says where")]

use std::fs;

use cello_relay::outbox::{Ledger, Outbox, State};
use cello_relay::reason::Reason;
use rusqlite::Connection;

use crate::outbox_support::{Fixture, append, claim, deliver_what_is_left};

/// What becomes of the file.
type Harm = fn(&Fixture);

fn remove_directory(fixture: &Fixture) {
    fs::remove_dir_all(&fixture.settings.dir).unwrap();
}

fn take_name(fixture: &Fixture) {
    fs::write(fixture.path("other"), "not a database").unwrap();
    fs::rename(fixture.path("other"), fixture.path("outbox.db")).unwrap();
}

fn write(fixture: &Fixture, sql: &str) {
    Connection::open(fixture.path("outbox.db")).unwrap().execute_batch(sql).unwrap();
}

#[tokio::test]
async fn what_was_being_sent_when_the_file_was_lost_or_damaged_is_dead_and_not_sent_again() {
    let harms: [(&str, bool, Harm); 3] = [
        ("the directory is removed", false, remove_directory),
        ("another file takes the name", false, take_name),
        ("its counts are wrong when it is opened", true, |fixture| write(fixture, "UPDATE state SET gates = 7")),
    ];
    for (what, restarts, harm) in harms {
        let fixture = Fixture::new();
        let mut store = fixture.open();
        let appended = append(&store, &["a", "a", "b"]).await;
        let claimed = claim(&store, 2).await;
        // Of both it is not known whether they are sent, but of one that they may be.
        store.intend(&claimed[0].lease).await.unwrap();
        if restarts {
            drop(store);
            harm(&fixture);
            store = fixture.open();
        } else {
            harm(&fixture);
        }
        let new = append(&store, &["c"]).await[0];
        let sent: Vec<_> = deliver_what_is_left(&store).await.into_iter().map(|(id, ..)| id).collect();
        assert_eq!(sent, [appended[1], appended[2], new], "{what}");
        let report = store.lookup(appended[0]).await.unwrap().unwrap();
        assert_eq!((report.state, report.reason), (State::Dead, Some(Reason::Ambiguous)), "{what}");
        let ledger = Ledger { accepted: 4, delivered: 3, dead: 1, ..Ledger::default() };
        assert_eq!(store.stats().ledger, ledger, "{what}");
        assert_eq!(fixture.metrics.dead_lettered.with(Reason::Ambiguous).get(), 1, "{what}");
        store.close().await;
        drop((store, claimed));
        fixture.books_balance();
        assert_eq!(fixture.open().stats().ledger, ledger, "{what}");
    }
}

#[tokio::test]
async fn where_it_cannot_be_read_what_was_being_sent_nothing_is_lost_and_all_is_sent() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let appended = append(&store, &["a", "b"]).await;
    let claimed = claim(&store, 1).await;
    store.intend(&claimed[0].lease).await.unwrap();
    drop((store, claimed));
    write(&fixture, "DROP TABLE intent; UPDATE state SET gates = 7");
    let store = fixture.open();
    let sent: Vec<_> = deliver_what_is_left(&store).await.into_iter().map(|(id, ..)| id).collect();
    assert_eq!(sent, appended);
    assert_eq!(store.stats().ledger, Ledger { accepted: 2, delivered: 2, ..Ledger::default() });
}
