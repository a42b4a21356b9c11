//! A directory that goes away under a running store, and a file that is found damaged.

#![allow(clippy::unwrap_used, reason = "a test that fails there says where")]

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cello_relay::clock::Clock;
use cello_relay::event::EventId;
use cello_relay::metrics::Lost;
use cello_relay::outbox::sqlite::offline;
use cello_relay::outbox::{AppendError, Batch, DeadLetters, Filter, Ledger, Outbox, Outcome, Selection, State, Terms};
use cello_relay::reason::Reason;
use rusqlite::Connection;

use crate::outbox_support::{
    Fixture, ManualClock, PATIENCE, append, attempt, batch, claim, dead, deliver_all, deliver_what_is_left, delivered,
    event, ids, numbered, retry, settle_all, until,
};

// --- a place that is lost

#[tokio::test]
async fn an_outbox_removed_under_a_running_store_is_made_again_with_all_it_held() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let mut appended = append(&store, &["a", "b", "a", "c"]).await;
    let gone_in_flight = claim(&store, 1).await;
    store.settle(claim(&store, 1).await.remove(0).lease, dead(Reason::Http400)).await.unwrap();
    fs::remove_dir_all(&fixture.settings.dir).unwrap();
    appended.extend(append(&store, &["a", "d"]).await);
    assert!(fixture.path("outbox.db").exists());
    drop(gone_in_flight);
    let ledger = Ledger { accepted: 6, dead: 1, ..Ledger::default() };
    assert_eq!(store.stats().ledger, ledger);
    // All was copied before anything is handed out; then a crash loses nothing.
    drop(claim(&store, 1).await);
    drop(store);
    let store = fixture.open();
    assert_eq!(store.stats().ledger, ledger);
    let sent = deliver_what_is_left(&store).await;
    let of = |user: &str| sent.iter().filter(|(_, of, _)| of == user).map(|(id, ..)| *id).collect::<Vec<_>>();
    assert_eq!(of("a"), [appended[0], appended[2], appended[4]], "in the order of their acceptance");
    assert_eq!((of("b"), sent.len()), (vec![], 5), "the dead one apart");
    assert_eq!(store.list(Filter { state: Some(State::Dead), ..Filter::default() }, None, 9).await.unwrap().len(), 1);
    assert_eq!(fixture.metrics.lost.with(Lost::Corrupt).get(), 0);
}

#[tokio::test]
async fn what_was_delivered_when_the_directory_went_is_not_booked_as_lost() {
    let fixture = Fixture::new();
    let store = fixture.open();
    append(&store, &["a", "b", "c"]).await;
    let claimed = claim(&store, 2).await;
    let dir = fixture.settings.dir.clone();
    fixture.amid_next_commit(move || fs::remove_dir_all(dir).unwrap());
    let settles = claimed.into_iter().map(|claimed| store.settle(claimed.lease, delivered())).collect::<Vec<_>>();
    for settle in settles {
        settle.await.unwrap_err();
    }
    assert_eq!(deliver_what_is_left(&store).await.len(), 1, "what was committed is committed");
    assert_eq!(store.stats().ledger, Ledger { accepted: 3, delivered: 3, ..Ledger::default() });
    assert_eq!(fixture.metrics.lost.with(Lost::Corrupt).get(), 0);
}

#[tokio::test]
async fn what_cello_may_have_counted_stays_known_when_events_come_over_from_a_damaged_file() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let mut appended = append(&store, &["dead", "retried", "unsure", "never-sent"]).await;
    let later = fixture.clock.now().plus(Duration::from_secs(3600));
    let outcomes = [
        dead(Reason::Http422),
        Outcome::Retry { at: later, strike: false, attempt: attempt(Reason::Timeout) },
        Outcome::Unsure { attempt: attempt(Reason::Reset) },
    ];
    for (claimed, outcome) in claim(&store, 3).await.into_iter().zip(outcomes) {
        store.settle(claimed.lease, outcome).await.unwrap();
    }
    fs::remove_dir_all(&fixture.settings.dir).unwrap();
    appended.extend(append(&store, &["new"]).await);
    while store.stats().ledger.undelivered() > 0 {
        for claimed in claim(&store, 8).await {
            store.settle(claimed.lease, dead(Reason::Http422)).await.unwrap();
        }
    }
    let listed = store.list(Filter::default(), None, 10).await.unwrap();
    assert_eq!(listed.iter().map(|line| line.id).collect::<Vec<_>>(), appended);
    let counted: Vec<bool> = listed.iter().map(|line| line.may_be_counted).collect();
    // The attempts of what was dead stay behind: they may have been unanswered.
    assert_eq!(counted, [true, true, true, false, false]);
}

#[tokio::test]
async fn a_file_or_a_wal_that_is_moved_away_or_replaced_takes_no_events_with_it() {
    type Harm = fn(&Fixture);
    let harms: [(&str, Harm); 3] = [
        ("the WAL is removed", |fixture| fs::remove_file(fixture.path("outbox.db-wal")).unwrap()),
        ("the directory is moved", |fixture| {
            fs::rename(&fixture.settings.dir, fixture.dir.path().join("elsewhere")).unwrap();
        }),
        ("another file takes the name", |fixture| {
            fs::write(fixture.path("other"), "not a database").unwrap();
            fs::rename(fixture.path("other"), fixture.path("outbox.db")).unwrap();
        }),
    ];
    for (what, harm) in harms {
        let fixture = Fixture::new();
        let store = fixture.open();
        let mut appended = append(&store, &["a", "b", "a"]).await;
        harm(&fixture);
        appended.extend(append(&store, &["a"]).await);
        drop(claim(&store, 1).await);
        drop(store);
        let store = fixture.open();
        let sent = deliver_what_is_left(&store).await;
        let order: Vec<EventId> = sent.iter().filter(|(_, user, _)| user == "a").map(|(id, ..)| *id).collect();
        assert_eq!((order, sent.len()), (vec![appended[0], appended[2], appended[3]], 4), "{what}");
        assert_eq!(store.stats().ledger, Ledger { accepted: 4, delivered: 4, ..Ledger::default() }, "{what}");
    }
}

/// Cuts a file in place: it keeps its name and its number.
fn cut(path: &Path, length: u64) {
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(length).unwrap();
}

#[tokio::test]
async fn a_wal_that_is_cut_under_a_running_store_takes_no_event_with_it_unseen() {
    // Few events are all in memory still, of many large ones only the last.
    for (rounds, bytes, length) in [(3, 10, 0), (3, 10, 9000), (40, 20_000, 0), (40, 20_000, 100_000)] {
        let fixture = Fixture::new();
        let store = fixture.open();
        let mut appended = Vec::new();
        for round in 0..rounds {
            let mut events: Vec<_> = (0..3).map(|n| event(&format!("user-{n}"), round * 3 + n)).collect();
            events.iter_mut().for_each(|event| event.body = Bytes::from(vec![b'x'; bytes]));
            appended.extend(store.append(Batch { events, key: None }).await.unwrap().ids);
        }
        cut(&fixture.path("outbox.db-wal"), length);
        appended.extend(append(&store, &["user-0"]).await);
        let metrics = Arc::clone(&fixture.metrics);
        drop(claim(&store, 1).await);
        drop(store);
        let store = fixture.open();
        let sent = deliver_what_is_left(&store).await;
        let order: Vec<u64> = sent.iter().filter(|(_, user, _)| user == "user-0").map(|(id, ..)| id.seq()).collect();
        assert!(order.is_sorted() && sent.iter().any(|(id, ..)| Some(id) == appended.last()), "{sent:?}");
        let (accepted, delivered) = (appended.len() as u64, sent.len() as u64);
        let lost = accepted - delivered;
        assert_eq!(
            store.stats().ledger,
            Ledger { accepted, delivered, lost, ..Ledger::default() },
            "{rounds} {length}"
        );
        assert_eq!((metrics.lost.with(Lost::Corrupt).get(), rounds == 3), (lost, lost == 0), "few are all copied");
    }
}

#[tokio::test]
async fn a_file_that_knows_less_than_was_answered_books_the_rest_as_lost_and_gives_no_id_twice() {
    let clock = Arc::new(ManualClock::new());
    let fixture = Fixture::with(Arc::clone(&clock) as Arc<dyn Clock>, |_| {});
    let store = fixture.open();
    let gone = append(&store, &["a", "b", "a"]).await;
    // Whoever looks has the file open too.
    assert!(store.lookup(gone[0]).await.unwrap().is_some());
    fixture.fail_next_commit(ErrorKind::Other);
    assert_eq!(store.append(batch(&["c"])).await, Err(AppendError::Unavailable));
    // Until it is opened again the store does not look.
    cut(&fixture.path("outbox.db-wal"), 0);
    clock.pass(Duration::from_secs(1));
    let again = append(&store, &["a"]).await;
    assert!(!gone.iter().any(|gone| gone.seq() == again[0].seq()), "{gone:?} {again:?}");
    assert_eq!(fixture.metrics.lost.with(Lost::Corrupt).get(), 3);
    let sent = deliver_what_is_left(&store).await;
    assert_eq!(sent.iter().map(|(id, ..)| *id).collect::<Vec<_>>(), again);
    let ledger = Ledger { accepted: 4, delivered: 1, lost: 3, ..Ledger::default() };
    assert_eq!(store.stats().ledger, ledger);
    drop(store);
    assert_eq!(fixture.open().stats().ledger, ledger);
}

#[tokio::test]
async fn while_the_directory_cannot_be_made_again_nothing_is_accepted_and_then_all_is_there() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let before = append(&store, &["a", "b"]).await;
    fs::remove_dir_all(&fixture.settings.dir).unwrap();
    fs::write(&fixture.settings.dir, "in the way").unwrap();
    assert_eq!(store.append(batch(&["c"])).await, Err(AppendError::Unavailable));
    assert_eq!(store.stats().refusing, Some(AppendError::Unavailable));
    fs::remove_file(&fixture.settings.dir).unwrap();
    let again = async {
        while store.append(batch(&["d"])).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.expect("it heals by itself");
    let sent = deliver_what_is_left(&store).await;
    assert!(before.iter().all(|before| sent.iter().any(|(id, ..)| id == before)));
    assert_eq!(store.stats().ledger, Ledger { accepted: 3, delivered: 3, ..Ledger::default() });
}

#[tokio::test]
async fn a_directory_that_was_removed_and_taken_by_another_relay_is_left_to_it() {
    let fixture = Fixture::new();
    let store = fixture.open();
    append(&store, &["a"]).await;
    fs::remove_dir_all(&fixture.settings.dir).unwrap();
    let other = fixture.open();
    let theirs = append(&other, &["b"]).await;
    assert_eq!(store.append(batch(&["c"])).await, Err(AppendError::Unavailable));
    assert_eq!(ids(&claim(&other, 9).await), theirs);
}

// --- damage

#[tokio::test]
async fn an_event_that_is_not_what_was_stored_is_never_sent() {
    for has_failed in [false, true] {
        let fixture = Fixture::new();
        let store = fixture.open();
        let appended = append(&store, &["a", "a", "b"]).await;
        if has_failed {
            settle_all(&store, claim(&store, 1).await, &retry(fixture.clock.now(), false)).await;
        }
        drop(store);
        let file = Connection::open(fixture.path("outbox.db")).unwrap();
        file.execute("UPDATE event SET body = 'other' WHERE seq = ?", [appended[0].seq() as i64]).unwrap();
        drop(file);
        let store = fixture.open();
        assert_eq!(
            deliver_all(&store).await.into_iter().collect::<BTreeSet<_>>(),
            appended[1..].iter().copied().collect()
        );
        let detail = store.show(appended[0]).await.unwrap().unwrap();
        assert_eq!((detail.listed.report.state, detail.listed.report.reason), (State::Dead, Some(Reason::Corrupt)));
        assert_eq!(&detail.body[..], b"other", "the bytes are kept");
        assert_eq!(store.stats().ledger, Ledger { accepted: 3, delivered: 2, dead: 1, ..Ledger::default() });
    }
}

#[tokio::test]
async fn dead_letters_that_are_too_old_are_discarded_once_they_came_over() {
    let clock = Arc::new(ManualClock::new());
    let fixture = Fixture::with(Arc::clone(&clock) as Arc<dyn Clock>, |settings| {
        settings.dead_max_age = Some(Duration::from_secs(3600));
    });
    let store = fixture.open();
    append(&store, &["a", "b", "c"]).await;
    settle_all(&store, claim(&store, 2).await, &dead(Reason::Http400)).await;
    drop(store);
    clock.pass(Duration::from_secs(7200));
    let wrong = "UPDATE state SET mark = next_seq + 1";
    assert_eq!(Connection::open(fixture.path("outbox.db")).unwrap().execute(wrong, []).unwrap(), 1);
    let store = fixture.open();
    assert_eq!(deliver_what_is_left(&store).await.len(), 1, "though nothing lay where the reading was to begin");
    until(&store, |store| store.stats().ledger.dead == 0).await;
    let ledger = Ledger { accepted: 3, delivered: 1, discarded: 2, ..Ledger::default() };
    assert_eq!(store.stats().ledger, ledger);
    store.close().await;
    drop(store);
    assert!(offline(&fixture.settings.dir).unwrap().check().unwrap().is_empty());
}

#[tokio::test]
async fn a_file_that_is_no_database_is_moved_aside() {
    let fixture = Fixture::new();
    fs::create_dir_all(&fixture.settings.dir).unwrap();
    fs::write(fixture.path("outbox.db"), vec![b'x'; 20_000]).unwrap();
    let store = fixture.open();
    append(&store, &["a"]).await;
    until(&store, |store| store.stats().quarantined_files == 1).await;
    assert_eq!(deliver_all(&store).await.len(), 1);
}

#[tokio::test]
async fn a_file_whose_head_is_damaged_under_a_running_store_is_made_again_once_a_look_meets_it() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let mut appended = append(&store, &["a", "b", "a"]).await;
    store.close().await;
    drop(store);
    let store = fixture.open();
    let file = fs::File::options().write(true).open(fixture.path("outbox.db")).unwrap();
    file.write_all_at(&[b'x'; 100], 0).unwrap();
    appended.extend(append(&store, &["a", "c"]).await);
    store.list(Filter::default(), None, 9).await.unwrap_err();
    until(&store, |store| store.stats().quarantined_files == 1).await;
    // Without this a start would know nothing of any of them.
    drop(claim(&store, 1).await);
    drop(store);
    let store = fixture.open();
    assert_eq!(store.list(Filter::default(), None, 9).await.unwrap().len(), 5);
    let sent: BTreeSet<EventId> = deliver_what_is_left(&store).await.into_iter().map(|(id, ..)| id).collect();
    assert_eq!(sent, appended.into_iter().collect());
    assert_eq!(store.stats().ledger, Ledger { accepted: 5, delivered: 5, ..Ledger::default() });
    assert_eq!(fixture.metrics.lost.with(Lost::Corrupt).get(), 0);
}

#[tokio::test]
async fn a_file_whose_head_forbids_to_write_it_is_moved_aside_and_all_of_it_comes_over() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let appended = append(&store, &["a", "b"]).await;
    store.close().await;
    drop(store);
    // Where the head says which releases of SQLite may write the file.
    let mut bytes = fs::read(fixture.path("outbox.db")).unwrap();
    assert_eq!(std::mem::replace(&mut bytes[18], 3), 2);
    fs::write(fixture.path("outbox.db"), bytes).unwrap();
    let store = fixture.open();
    assert_eq!(deliver_all(&store).await, appended);
    assert_eq!(store.stats().quarantined_files, 1);
}

#[tokio::test]
async fn a_crash_while_a_damaged_file_is_moved_aside_loses_nothing_more() {
    let name = "outbox-20260101T000000000Z.damaged.db";
    for moved in ["", "-wal -shm", "-wal -shm .", "-wal -shm . fresh"] {
        let fixture = Fixture::new();
        let store = fixture.open();
        let appended = append(&store, &["a", "b"]).await;
        drop(store);
        fs::write(fixture.path("quarantine"), name).unwrap();
        for suffix in moved.split_whitespace().filter(|word| *word != "fresh") {
            let suffix = suffix.trim_start_matches('.');
            fs::rename(fixture.path(&format!("outbox.db{suffix}")), fixture.path(&format!("{name}{suffix}"))).unwrap();
        }
        if moved.ends_with("fresh") {
            fs::write(fixture.path("outbox.db"), b"").unwrap();
        }
        let store = fixture.open();
        assert_eq!(deliver_all(&store).await, appended, "{moved}");
        assert_eq!(store.stats().ledger, Ledger { accepted: 2, delivered: 2, ..Ledger::default() });
        assert!(!fixture.path("quarantine").exists());
        drop(store);
        assert_eq!(fixture.open().stats().quarantined_files, 1, "and it is done once");
    }
}

#[tokio::test]
async fn what_is_readable_of_a_damaged_file_comes_first_and_the_rest_is_booked_as_lost() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let mut appended = Vec::new();
    for _ in 0..10 {
        appended.extend(store.append(numbered(300, 300)).await.unwrap().ids);
    }
    settle_all(&store, claim(&store, 2).await, &dead(Reason::Http400)).await;
    store.close().await;
    drop(store);
    // Pages in the middle of the file, where events are.
    let path = fixture.path("outbox.db");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 4 * 4096].fill(0xee);
    fs::write(&path, bytes).unwrap();

    let store = fixture.open();
    let new = append(&store, &["user-0"]).await;
    // The damage is met while the queue is read.
    let mut delivered_ids = Vec::new();
    while store.stats().ledger.undelivered() > 0 {
        let claimed = claim(&store, 64).await;
        delivered_ids.extend(ids(&claimed));
        for claimed in claimed {
            let settled = store.settle(claimed.lease, delivered()).await;
            assert!(settled.is_ok() || store.stats().quarantined_files == 1, "lost only when the file was moved aside");
        }
    }
    let ledger = store.stats().ledger;
    assert_eq!((ledger.accepted, ledger.dead), (3001, 2));
    // Four pages of 50 rows, and at most a slice read downwards (16 rows) at the edge of the damage.
    assert!((1..=4 * 50 + 16).contains(&ledger.lost), "{ledger:?}");
    assert_eq!(ledger.delivered + ledger.dead + ledger.lost, 3001);
    assert_eq!(fixture.metrics.lost.with(Lost::Corrupt).get(), ledger.lost);
    assert_eq!(store.stats().quarantined_files, 1);
    let of_user_0 = |id: &&EventId| (id.seq() - appended[0].seq()).is_multiple_of(300) || **id == new[0];
    let order: Vec<&EventId> = delivered_ids.iter().filter(of_user_0).collect();
    assert!(order.is_sorted_by_key(|id| id.seq()), "a user's events stay in order");
    assert_eq!(delivered_ids.iter().filter(|id| **id == new[0]).count(), 1);
    let replayed = store.replay(Selection::Matching(Filter::default()), Terms::everything()).await.unwrap().count;
    assert_eq!(replayed, 2, "dead letters came over");
}
