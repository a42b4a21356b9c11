//! What the embedded store promises about room: bounds, space that is given back, what is forgotten and when.

#![allow(clippy::unwrap_used, reason = "a test that fails there says where")]

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use cello_relay::clock::Clock;
use cello_relay::metrics::Discarded;
use cello_relay::outbox::sqlite::Sqlite;
use cello_relay::outbox::{AppendError, Batch, Bound, Key, Outbox, Route, Settled, State};
use cello_relay::reason::Reason;
use rusqlite::{Connection, Row};

use crate::outbox_support::{
    Fixture, ManualClock, append, batch, claim, dead, deliver_all, delivered, numbered, settle_all, until,
};

const DAY: Duration = Duration::from_secs(86_400);

#[tokio::test]
async fn a_store_full_of_bytes_has_room_again_after_deliveries() {
    let fixture = Fixture::with(Fixture::new().clock, |settings| settings.max_bytes = 12 << 20);
    let store = fixture.open();
    let large = || {
        let mut batch = numbered(16, 16);
        batch.events.iter_mut().for_each(|event| event.body = vec![b'x'; 64 << 10].into());
        batch
    };
    let mut count = 0;
    while store.append(large()).await.is_ok() {
        count += 1;
    }
    assert_eq!(store.append(large()).await, Err(AppendError::Full(Bound::Bytes)));
    assert!((4..12).contains(&count), "{count}");
    let size: u64 =
        fs::read_dir(&fixture.settings.dir).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(size <= (12 << 20) + (1 << 20), "{size}");
    deliver_all(&store).await;
    store.append(large()).await.expect("there is room again");
    assert!(store.stats().wal_bytes <= 4 << 20);
}

#[tokio::test]
async fn what_comes_at_once_has_no_more_room_than_there_is() {
    const EVENT: usize = 16 << 10;
    let fixture = Fixture::with(Fixture::new().clock, |settings| settings.max_bytes = 1 << 20);
    let store = fixture.open();
    let large = || {
        let mut batch = batch(&["a"]);
        batch.events[0].body = vec![b'x'; EVENT].into();
        store.append(batch)
    };
    // Nearly twice as much as there is room for comes while the first is being committed.
    let held = fixture.hold_commits();
    let appends: Vec<_> = (0..110).map(|_| large()).collect();
    drop(held);
    let mut stored = 0;
    for append in appends {
        stored += usize::from(append.await.is_ok());
    }
    assert!((1..=(1 << 20) / EVENT).contains(&stored), "{stored}");
}

#[tokio::test]
async fn space_is_given_back_when_it_is_not_needed_any_more() {
    let clock = Arc::new(ManualClock::new());
    let fixture = Fixture::with(Arc::clone(&clock) as Arc<dyn Clock>, |_| {});
    let store = fixture.open();
    let mut events = numbered(100, 100);
    events.events.iter_mut().for_each(|event| event.body = vec![b'x'; 100 << 10].into());
    store.append(events).await.unwrap();
    let file = fixture.path("outbox.db");
    deliver_all(&store).await;
    until(&store, |_| {
        clock.pass(Duration::from_secs(6));
        fs::metadata(&file).unwrap().len() < 4 << 20
    })
    .await;
}

#[tokio::test]
async fn an_idle_store_holds_no_trace_of_delivered_payloads() {
    let clock = Arc::new(ManualClock::new());
    let fixture = Fixture::with(Arc::clone(&clock) as Arc<dyn Clock>, |_| {});
    let store = fixture.open();
    for n in 0..20 {
        let mut events = numbered(10, 10);
        events.events.iter_mut().for_each(|event| event.body = format!("secret of {n}").into());
        store.append(events).await.unwrap();
    }
    let is_traced = || {
        let files = fs::read_dir(&fixture.settings.dir).unwrap().map(|file| fs::read(file.unwrap().path()).unwrap());
        files.into_iter().any(|bytes| bytes.windows(9).any(|window| window == b"secret of"))
    };
    assert!(is_traced());
    deliver_all(&store).await;
    until(&store, |_| {
        clock.pass(Duration::from_secs(6));
        !is_traced()
    })
    .await;
}

#[tokio::test]
async fn the_delivered_are_forgotten_by_count_and_by_age() {
    let clock = Arc::new(ManualClock::new());
    let fixture = Fixture::with(Arc::clone(&clock) as Arc<dyn Clock>, |settings| settings.remember_max = 5);
    let store = fixture.open();
    let appended = store.append(numbered(20, 20)).await.unwrap().ids;
    deliver_all(&store).await;
    let mut remembered = 0;
    for id in &appended {
        remembered += u64::from(store.lookup(*id).await.unwrap().is_some());
    }
    assert!((1..=6).contains(&remembered), "{remembered}");
    // An hour, and a sixty-fourth of it.
    clock.pass(Duration::from_secs(3657));
    append(&store, &["a"]).await;
    for id in &appended {
        assert_eq!(store.lookup(*id).await.unwrap(), None);
    }
}

#[tokio::test]
async fn keys_are_forgotten_by_age_and_the_oldest_first_for_want_of_room() {
    let clock = Arc::new(ManualClock::new());
    let fixture = Fixture::with(Arc::clone(&clock) as Arc<dyn Clock>, |settings| settings.key_max_bytes = 1000);
    let store = fixture.open();
    // With what a key takes beside its text, 160 bytes, 200: five have room.
    let keyed = |key: usize| {
        let notes = "n".repeat(30).into();
        let key = Key { route: Route::Events, key: format!("key {key:06}").into(), body: [0; 32], notes };
        Batch { key: Some(key), ..batch(&["a"]) }
    };
    for key in 0..10 {
        assert_eq!(store.append(keyed(key)).await.unwrap().replayed, None);
    }
    assert_eq!(fixture.metrics.idempotency_evicted.get(), 5);
    for key in 5..10 {
        assert!(store.append(keyed(key)).await.unwrap().replayed.is_some());
    }
    assert_eq!(store.append(keyed(0)).await.unwrap().replayed, None, "pushed out");
    clock.pass(DAY - Duration::from_millis(1));
    assert!(store.append(keyed(9)).await.unwrap().replayed.is_some(), "not yet");
    clock.pass(Duration::from_millis(1));
    assert_eq!(store.append(keyed(9)).await.unwrap().replayed, None, "too old");
    store.close().await;
    let file = Connection::open(fixture.path("outbox.db")).unwrap();
    let bytes = |row: &Row<'_>| row.get::<_, i64>(0);
    assert_eq!(file.query_row("SELECT key_bytes FROM state", [], bytes).unwrap(), 200, "so are all others");
}

#[tokio::test]
async fn dead_letters_have_half_of_the_room_and_all_of_it() {
    const MIB: usize = 1 << 20;
    let fixture = Fixture::with(Fixture::new().clock, |settings| settings.max_bytes = 16 << 20);
    let store = fixture.open();
    let die = async |bytes: usize| {
        let mut batch = batch(&["a"]);
        // With what an event takes beside its body and user.
        batch.events[0].body = vec![b'x'; bytes - 64 - "a".len()].into();
        store.append(batch).await.unwrap();
        store.settle(claim(&store, 1).await.remove(0).lease, dead(Reason::Http400)).await.unwrap()
    };
    for bytes in [MIB, MIB, MIB, MIB, MIB, MIB, MIB, MIB - 1024] {
        assert_eq!((die(bytes).await, store.stats().dead_letters_full), (Settled::Done, false));
    }
    assert_eq!((die(1024).await, store.stats().dead_letters_full), (Settled::Done, true), "the last that has room");
    assert_eq!(die(100).await, Settled::HeldBack);
}

#[tokio::test]
async fn what_must_not_be_sent_again_is_dead_though_dead_letters_take_their_share() {
    let fixture = Fixture::with(Fixture::new().clock, |settings| settings.max_bytes = 16 << 20);
    let store = fixture.open();
    let mut large = batch(&["a"]);
    large.events[0].body = vec![b'x'; 8 << 20].into();
    store.append(large).await.unwrap();
    let id = append(&store, &["b"]).await[0];
    for reason in [Reason::Ambiguous, Reason::Ambiguous] {
        let claimed = claim(&store, 1).await.remove(0);
        assert_eq!(store.settle(claimed.lease, dead(reason)).await, Ok(Settled::Done));
    }
    assert!(store.stats().dead_letters_full);
    assert_eq!(store.lookup(id).await.unwrap().unwrap().state, State::Dead);
}

/// What a store remembers for a time: a key, a delivered event and a dead letter.
async fn leave_one_of_each(store: &Sqlite) {
    let key = Key { route: Route::Events, key: "key".into(), body: [0; 32], notes: "".into() };
    store.append(Batch { key: Some(key), ..batch(&["a", "b"]) }).await.unwrap();
    let mut claimed = claim(store, 2).await;
    settle_all(store, claimed.split_off(1), &dead(Reason::Http400)).await;
    settle_all(store, claimed, &delivered()).await;
}

#[tokio::test]
async fn what_is_too_old_is_forgotten_though_nothing_else_happens() {
    let clock = Arc::new(ManualClock::new());
    let max_age = Some(Duration::from_secs(7200));
    let fixture = Fixture::with(Arc::clone(&clock) as Arc<dyn Clock>, |settings| settings.dead_max_age = max_age);
    let store = fixture.open();
    leave_one_of_each(&store).await;
    let sums = || {
        let file = Connection::open(fixture.path("outbox.db")).unwrap();
        let sums = "SELECT done, dead, key_bytes > 0 FROM state";
        file.query_row(sums, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap()
    };
    for (age, expected) in [(0, (1, 1, true)), (3600, (0, 1, true)), (7200, (0, 0, true)), (86_400, (0, 0, false))] {
        clock.pass(Duration::from_secs(age));
        // Seconds, as a store looks after itself only now and then.
        until(&store, |_| {
            clock.pass(Duration::from_secs(1));
            sums() == expected
        })
        .await;
    }
    assert_eq!((store.stats().ledger.discarded, fixture.metrics.discarded.with(Discarded::Operator).get()), (1, 1));
    store.close().await;
    fixture.books_balance();
}

#[tokio::test]
async fn an_idle_store_that_has_nothing_to_forget_yet_writes_nothing() {
    let clock = Arc::new(ManualClock::new());
    let fixture = Fixture::with(Arc::clone(&clock) as Arc<dyn Clock>, |settings| settings.dead_max_age = Some(DAY));
    let store = fixture.open();
    leave_one_of_each(&store).await;
    let commits = fixture.metrics.outbox_commit.get_sample_count();
    // Less than an hour, in which nothing gets too old.
    for _ in 0..500 {
        clock.pass(Duration::from_secs(6));
        store.ignore_backoff(false);
        tokio::task::yield_now().await;
    }
    store.close().await;
    assert_eq!(fixture.metrics.outbox_commit.get_sample_count(), commits);
}
