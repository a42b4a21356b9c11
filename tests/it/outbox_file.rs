//! What the embedded store promises about its file: crashes, damage, full disks, bounds, versions.

#![allow(clippy::unwrap_used, reason = "a test that fails there says where")]

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use cello_relay::clock::Clock;
use cello_relay::event::EventId;
use cello_relay::metrics::Lost;
use cello_relay::outbox::sqlite::{OpenError, Sqlite, offline};
use cello_relay::outbox::{
    AppendError, Batch, Bound, Claimed, DeadLetters, Filter, Key, Ledger, Outbox, Outcome, Route, Selection, State,
    Terms, Want,
};
use cello_relay::reason::Reason;
use rusqlite::Connection;

use crate::outbox_support::{Fixture, ManualClock, append, batch, dead, delivered, event, ids, retry};

async fn claim(store: &Sqlite, max: usize) -> Vec<Claimed> {
    let claimed = store.claim(Want { max, rotate: false });
    tokio::time::timeout(Duration::from_secs(10), claimed).await.expect("there is something to claim")
}

async fn settle_all(store: &Sqlite, claimed: Vec<Claimed>, outcome: &Outcome) {
    for claimed in claimed {
        store.settle(claimed.lease, outcome.clone()).await.unwrap();
    }
}

/// Delivers everything; the ids in the order in which they came.
async fn deliver_all(store: &Sqlite) -> Vec<EventId> {
    let mut order = Vec::new();
    while store.stats().ledger.undelivered() > 0 {
        let claimed = claim(store, 64).await;
        order.extend(ids(&claimed));
        settle_all(store, claimed, &delivered()).await;
    }
    order
}

/// Waits until a look at the store says so. Each look makes the writer take a turn.
async fn until(store: &Sqlite, mut holds: impl FnMut(&Sqlite) -> bool) {
    let looked = async {
        while !holds(store) {
            store.ignore_backoff(false);
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), looked).await.expect("it comes to hold");
}

fn numbered(users: usize, events: usize) -> Batch {
    Batch { events: (0..events).map(|n| event(&format!("user-{}", n % users), n)).collect(), key: None }
}

// --- crashes

#[tokio::test]
async fn a_crash_loses_nothing_and_keeps_order_retries_and_dead_letters() {
    let clock = Arc::new(ManualClock::new());
    let fixture = Fixture::with(Arc::clone(&clock) as Arc<dyn Clock>, |_| {});
    let store = fixture.open();
    let appended = append(&store, &["a", "b", "c", "a", "d"]).await;
    let mut claimed = claim(&store, 4).await;
    let at = clock.now().plus(Duration::from_secs(30));
    store.settle(claimed.remove(0).lease, retry(at, true)).await.unwrap();
    store.settle(claimed.remove(0).lease, dead(Reason::Http400)).await.unwrap();
    drop(store);

    let store = fixture.open();
    assert_eq!(store.stats().recovered, 4);
    assert_eq!(store.stats().ledger, Ledger { accepted: 5, dead: 1, ..Ledger::default() });
    let again = claim(&store, 10).await;
    assert_eq!(ids(&again), [appended[2], appended[4]], "what was in flight comes back, the retry still waits");
    clock.pass(Duration::from_secs(31));
    let retried = claim(&store, 10).await;
    assert_eq!(ids(&retried), appended[..1]);
    assert_eq!((retried[0].progress.attempts, retried[0].progress.strikes), (1, 1));
    settle_all(&store, retried, &delivered()).await;
    assert_eq!(ids(&claim(&store, 10).await), [appended[3]]);
}

#[tokio::test]
async fn an_intended_event_is_dead_after_a_crash() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let appended = append(&store, &["a", "a"]).await;
    let claimed = claim(&store, 1).await;
    store.intend(&claimed[0].lease).await.unwrap();
    drop(store);
    let store = fixture.open();
    let report = store.lookup(appended[0]).await.unwrap().unwrap();
    assert_eq!((report.state, report.reason), (State::Dead, Some(Reason::Ambiguous)));
    assert_eq!(deliver_all(&store).await, appended[1..]);
}

#[tokio::test]
async fn sequence_numbers_are_never_used_again() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let first = append(&store, &["a"]).await;
    deliver_all(&store).await;
    store.close().await;
    drop(store);
    let store = fixture.open();
    assert!(append(&store, &["a"]).await[0].seq() > first[0].seq());
}

// --- failing disks

#[tokio::test]
async fn a_failed_sync_is_never_answered_and_the_store_heals() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let kept = append(&store, &["a"]).await;
    fixture.fail_next_commit(ErrorKind::Other);
    assert_eq!(store.append(batch(&["b"])).await, Err(AppendError::Unavailable));
    assert_eq!(store.stats().refusing, Some(AppendError::Unavailable));
    until(&store, |store| store.stats().refusing.is_none()).await;
    let later = append(&store, &["c"]).await;
    assert_eq!(deliver_all(&store).await, [kept, later].concat());
    assert!(fixture.metrics.render().contains("outbox_errors_total{reason=\"io\"} 1"));
}

#[tokio::test]
async fn a_full_disk_refuses_events_while_deliveries_are_recorded() {
    let clock = Arc::new(ManualClock::new());
    let fixture = Fixture::with(Arc::clone(&clock) as Arc<dyn Clock>, |settings| settings.reserve = 1 << 20);
    let store = fixture.open();
    assert!(fixture.path("reserve").metadata().unwrap().len() == 1 << 20);
    append(&store, &["a", "b"]).await;
    let mut claimed = claim(&store, 2).await;
    fixture.fail_next_commit(ErrorKind::StorageFull);
    store.settle(claimed.remove(0).lease, delivered()).await.expect("recorded in the reserve's room");
    assert!(!fixture.path("reserve").exists());
    assert_eq!(store.append(batch(&["c"])).await, Err(AppendError::Full(Bound::Disk)));
    store.settle(claimed.remove(0).lease, delivered()).await.unwrap();
    clock.pass(Duration::from_secs(20));
    append(&store, &["c"]).await;
    clock.pass(Duration::from_secs(20));
    until(&store, |_| fixture.path("reserve").exists()).await;
    assert_eq!(store.stats().ledger, Ledger { accepted: 3, delivered: 2, ..Ledger::default() });
}

#[tokio::test]
async fn what_must_stay_free_on_the_volume_is_not_used() {
    let fixture = Fixture::with(Fixture::new().clock, |settings| settings.min_free_bytes = u64::MAX / 2);
    let store = fixture.open();
    assert_eq!(store.append(batch(&["a"])).await, Err(AppendError::Full(Bound::Disk)));
}

// --- bounds

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
    clock.pass(Duration::from_secs(3601));
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
    let keyed = |key: usize| {
        let key = Key { route: Route::Events, key: format!("{key}").into(), body: [0; 32], notes: "".into() };
        Batch { key: Some(key), ..batch(&["a"]) }
    };
    for key in 0..10 {
        assert_eq!(store.append(keyed(key)).await.unwrap().replayed, None);
    }
    assert!(store.append(keyed(9)).await.unwrap().replayed.is_some());
    assert_eq!(store.append(keyed(0)).await.unwrap().replayed, None, "pushed out");
    assert!(fixture.metrics.idempotency_evicted.get() >= 4);
    clock.pass(Duration::from_secs(86_400));
    assert_eq!(store.append(keyed(9)).await.unwrap().replayed, None, "too old");
}

// --- order under load

#[tokio::test]
async fn a_user_with_thousands_of_events_keeps_order_and_delays_nobody() {
    let fixture = Fixture::new();
    let store = fixture.open();
    for n in 0..4 {
        let events = (0..1000).map(|m| event("busy", n * 1000 + m)).collect();
        store.append(Batch { events, key: None }).await.unwrap();
    }
    append(&store, &["other"]).await;
    let busy = claim(&store, 1).await;
    let other = claim(&store, 8).await;
    assert_eq!(other[0].event.user.as_str(), "other");
    settle_all(&store, [busy, other].into_iter().flatten().collect(), &delivered()).await;
    drop(store);
    let store = fixture.open();
    let mut last = 0;
    for _ in 0..600 {
        let claimed = claim(&store, 8).await;
        assert_eq!(claimed.len(), 1);
        assert!(claimed[0].id.seq() == last + 1 || last == 0, "in order, one by one");
        last = claimed[0].id.seq();
        settle_all(&store, claimed, &delivered()).await;
    }
}

#[tokio::test]
async fn a_dead_letter_replayed_right_after_a_restart_takes_its_old_place() {
    let clock = Arc::new(ManualClock::new());
    let fixture = Fixture::with(Arc::clone(&clock) as Arc<dyn Clock>, |_| {});
    let store = fixture.open();
    let appended = append(&store, &["x", "a", "a", "a"]).await;
    let mut claimed = claim(&store, 2).await;
    settle_all(&store, claimed.split_off(1), &dead(Reason::Http400)).await;
    let at = clock.now().plus(Duration::from_secs(60));
    settle_all(&store, claim(&store, 1).await, &retry(at, false)).await;
    drop(store);
    // The queue is to be read again from x on, so that the replayed event lies ahead of the reading,
    // but before those of its user that are parked.
    let store = fixture.open();
    assert_eq!(store.replay(Selection::Ids(vec![appended[1]]), Terms::everything()).await.unwrap().count, 1);
    clock.pass(Duration::from_secs(61));
    let order = deliver_all(&store).await;
    let of_a: Vec<EventId> = order.into_iter().filter(|id| *id != appended[0]).collect();
    assert_eq!(of_a, appended[1..]);
}

#[tokio::test]
async fn a_clock_that_is_set_back_does_not_delay_a_retry() {
    let clock = Arc::new(ManualClock::new());
    let fixture = Fixture::with(Arc::clone(&clock) as Arc<dyn Clock>, |_| {});
    let store = fixture.open();
    let appended = append(&store, &["a", "b"]).await;
    let at = clock.now().plus(Duration::from_secs(60));
    settle_all(&store, claim(&store, 2).await, &retry(at, false)).await;
    clock.set_back(Duration::from_secs(86_400));
    clock.pass(Duration::from_secs(61));
    let claimed = claim(&store, 1).await;
    assert_eq!(ids(&claimed), appended[..1], "while it runs");
    drop((store, claimed));
    clock.set_back(Duration::from_secs(86_400));
    let store = fixture.open();
    clock.pass(Duration::from_secs(61));
    assert_eq!(claim(&store, 2).await.len(), 2, "and across a restart");
}

// --- damage

#[tokio::test]
async fn an_event_that_is_not_what_was_stored_is_never_sent() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let appended = append(&store, &["a", "a", "b"]).await;
    drop(store);
    let file = Connection::open(fixture.path("outbox.db")).unwrap();
    file.execute("UPDATE event SET body = 'other' WHERE seq = ?", [appended[0].seq() as i64]).unwrap();
    drop(file);
    let store = fixture.open();
    let claimed = claim(&store, 10).await;
    assert!(claimed.iter().all(|claimed| claimed.id != appended[0]));
    settle_all(&store, claimed, &delivered()).await;
    deliver_all(&store).await;
    let detail = store.show(appended[0]).await.unwrap().unwrap();
    assert_eq!((detail.listed.report.state, detail.listed.report.reason), (State::Dead, Some(Reason::Corrupt)));
    assert_eq!(&detail.body[..], b"other", "the bytes are kept");
    assert_eq!(store.stats().ledger, Ledger { accepted: 3, delivered: 2, dead: 1, ..Ledger::default() });
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

// --- the file and its place

#[tokio::test]
async fn directory_and_files_are_for_their_owner_alone() {
    let fixture = Fixture::with(Fixture::new().clock, |settings| settings.reserve = 1 << 20);
    fs::create_dir_all(fixture.dir.path()).unwrap();
    let store = fixture.open();
    append(&store, &["a"]).await;
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&fixture.settings.dir), 0o700);
    let files: Vec<_> = fs::read_dir(&fixture.settings.dir).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(files.len() >= 5, "database, WAL, its index, lock, reserve: {files:?}");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

#[tokio::test]
async fn a_second_process_is_told_who_has_the_outbox() {
    let fixture = Fixture::new();
    let _store = fixture.open();
    let Err(OpenError::Locked { holder }) = fixture.try_open() else { panic!("opened twice") };
    assert!(holder.contains(&std::process::id().to_string()), "{holder}");
    assert!(matches!(offline(&fixture.settings.dir), Err(OpenError::Locked { .. })));
}

#[tokio::test]
async fn events_for_one_base_url_never_go_to_another() {
    let mut fixture = Fixture::new();
    let store = fixture.open();
    append(&store, &["a", "b"]).await;
    settle_all(&store, claim(&store, 1).await, &dead(Reason::Http400)).await;
    drop(store);
    fixture.settings.upstream = "https://other.example".to_owned();
    let Err(OpenError::OtherUpstream { bound, undelivered, dead, .. }) = fixture.try_open() else { panic!("opened") };
    assert_eq!((bound.as_str(), undelivered, dead), ("https://api.example", 1, 1));

    fixture.settings.upstream = bound;
    let store = fixture.open();
    deliver_all(&store).await;
    store.discard(Selection::Matching(Filter::default())).await.unwrap();
    drop(store);
    fixture.settings.upstream = "https://other.example".to_owned();
    fixture.open();
    fixture.settings.upstream = "https://api.example".to_owned();
    fixture.open();
}

#[tokio::test]
async fn a_file_one_version_newer_opens_and_a_later_one_does_not() {
    let fixture = Fixture::new();
    drop(fixture.open());
    let set_version = |version: i64| {
        let file = Connection::open(fixture.path("outbox.db")).unwrap();
        file.pragma_update(None, "user_version", version).unwrap();
    };
    set_version(4);
    append(&fixture.open(), &["a"]).await;
    set_version(5);
    let Err(OpenError::TooNew { found: 5, known: 4 }) = fixture.try_open() else { panic!("opened") };
    assert!(fixture.path("outbox.db").exists(), "and nothing was moved");
}

/// Makes the file of the test below, whenever the schema of an unreleased version changes.
#[tokio::test]
#[ignore = "writes into the source tree"]
async fn write_the_file_of_this_schema_version() {
    let fixture = Fixture::new();
    let store = fixture.open();
    append(&store, &["a", "b", "c", "d", "e"]).await;
    let mut claimed = claim(&store, 3).await;
    store.settle(claimed.remove(0).lease, delivered()).await.unwrap();
    store.settle(claimed.remove(0).lease, dead(Reason::Http400)).await.unwrap();
    let at = fixture.clock.now().plus(Duration::from_secs(60));
    store.settle(claimed.remove(0).lease, retry(at, true)).await.unwrap();
    store.close().await;
    fs::copy(fixture.path("outbox.db"), "tests/files/outbox-v3.db").unwrap();
}

#[tokio::test]
async fn an_outbox_of_an_older_schema_version_opens_with_all_it_holds() {
    for version in [1, 2] {
        let mut fixture = Fixture::new();
        fixture.settings.upstream = "https://api.example".to_owned();
        fs::create_dir_all(&fixture.settings.dir).unwrap();
        fs::copy(format!("tests/files/outbox-v{version}.db"), fixture.path("outbox.db")).unwrap();
        let stopped = offline(&fixture.settings.dir).unwrap();
        let lines = stopped.list(&Filter::default(), None, 10).unwrap();
        let states: Vec<State> = lines.iter().map(|line| line.report.state).collect();
        assert_eq!(states, [State::Dead, State::Retrying, State::Pending, State::Pending]);
        assert!(stopped.show(lines[0].id).unwrap().is_some(), "also as it is");
        drop(stopped);
        let store = fixture.open();
        let ledger = Ledger { accepted: 5, delivered: 1, dead: 1, ..Ledger::default() };
        assert_eq!(store.stats().ledger, ledger);
        assert_eq!(store.list(Filter::default(), None, 10).await.unwrap(), lines);
        let overtaken_at = store.show(lines[0].id).await.unwrap().unwrap().overtaken_at;
        assert_eq!(overtaken_at.is_some(), version == 2, "what version 2 noted is still told");
        store.ignore_backoff(true);
        assert_eq!(deliver_all(&store).await.len(), 3);
    }
}

#[tokio::test]
async fn a_stopped_relays_outbox_can_be_looked_into() {
    let fixture = Fixture::new();
    assert!(matches!(offline(&fixture.settings.dir), Err(OpenError::Missing { .. })));
    let store = fixture.open();
    let appended = append(&store, &["a", "b"]).await;
    settle_all(&store, claim(&store, 1).await, &dead(Reason::Http400)).await;
    drop(store);
    let offline = offline(&fixture.settings.dir).unwrap();
    let lines = offline.list(&Filter::default(), None, 10).unwrap();
    assert_eq!(lines.iter().map(|line| line.id).collect::<Vec<_>>(), appended);
    assert_eq!(offline.show(appended[1]).unwrap().unwrap().body, event("b", 0).body);
    assert_eq!(offline.check().unwrap(), Vec::<String>::new());
    drop(offline);

    let file = Connection::open(fixture.path("outbox.db")).unwrap();
    file.execute("UPDATE event SET body = 'other'", []).unwrap();
    file.execute("DELETE FROM dead", []).unwrap();
    drop(file);
    assert_eq!(cello_relay::outbox::sqlite::offline(&fixture.settings.dir).unwrap().check().unwrap().len(), 2);
}

#[tokio::test]
async fn an_idle_writer_counts_as_moving() {
    let fixture = Fixture::new();
    let store = fixture.open();
    append(&store, &["a"]).await;
    let asked = tokio::time::Instant::now();
    // It moves by itself only every 10 s.
    let moved = async {
        while store.heartbeat() < asked {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), moved).await.expect("waiting counts as moving");
}
