//! What the embedded store promises about its file: crashes, failing disks, order, place and versions.

#![allow(clippy::unwrap_used, reason = "a test that fails there says where")]

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use cello_relay::clock::Clock;
use cello_relay::metrics::Discarded;
use cello_relay::outbox::sqlite::{OpenError, Seams, Sqlite, offline};
use cello_relay::outbox::{
    AppendError, Bound, DeadLetters, Filter, Ledger, Outbox, Selection, SettleError, Settled, State, Terms, Want,
};
use cello_relay::reason::Reason;
use rusqlite::Connection;

use crate::outbox_support::{
    Fixture, ManualClock, PATIENCE, append, batch, claim, dead, deliver_all, delivered, event, ids, retry, settle_all,
    until,
};

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

#[tokio::test]
async fn a_store_that_was_closed_leaves_all_in_the_database_and_the_directory_to_others() {
    let fixture = Fixture::new();
    let store = fixture.open();
    append(&store, &["a"]).await;
    let wal_bytes = || fs::metadata(fixture.path("outbox.db-wal")).map_or(0, |wal| wal.len());
    assert!(wal_bytes() > 0);
    store.close().await;
    assert_eq!(wal_bytes(), 0);
    assert_eq!(fixture.open().stats().recovered, 1);
}

#[tokio::test]
async fn what_is_counted_along_is_what_counting_comes_to_whichever_way_events_go() {
    let clock = Arc::new(ManualClock::new());
    let fixture = Fixture::with(Arc::clone(&clock) as Arc<dyn Clock>, |_| {});
    let store = fixture.open();
    let appended = append(&store, &["delivered", "late", "waits", "waits", "dead", "discarded", "replayed"]).await;
    for claimed in claim(&store, 9).await {
        let outcome = match claimed.event.user.as_str() {
            "delivered" => delivered(),
            "late" => retry(clock.now().plus(Duration::from_secs(1)), true),
            "waits" => retry(clock.now().plus(Duration::from_secs(99)), true),
            _ => dead(Reason::Http400),
        };
        store.settle(claimed.lease, outcome).await.unwrap();
    }
    store.discard(Selection::Ids(vec![appended[5]])).await.unwrap();
    store.replay(Selection::Ids(vec![appended[6]]), Terms::default()).await.unwrap();
    clock.pass(Duration::from_secs(2));
    settle_all(&store, claim(&store, 1).await, &delivered()).await;
    settle_all(&store, claim(&store, 1).await, &delivered()).await;
    let ledger = store.stats().ledger;
    assert_eq!((ledger.undelivered(), ledger.delivered, ledger.dead, ledger.discarded), (2, 3, 1, 1));
    let decided = (fixture.metrics.replayed.get(), fixture.metrics.discarded.with(Discarded::Operator).get());
    assert_eq!(decided, (1, 1));
    store.close().await;
    fixture.books_balance();
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

#[tokio::test]
async fn a_lease_from_before_a_failure_is_lost_though_its_event_is_in_flight_again() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let appended = append(&store, &["a"]).await;
    let before = claim(&store, 1).await.remove(0);
    fixture.fail_next_commit(ErrorKind::Other);
    assert_eq!(store.append(batch(&["b"])).await, Err(AppendError::Unavailable));
    let again = claim(&store, 1).await.remove(0);
    assert_eq!(again.id, appended[0]);
    assert_eq!(store.intend(&before.lease).await, Err(SettleError::LeaseLost));
    assert_eq!(store.settle(before.lease, delivered()).await, Err(SettleError::LeaseLost));
    drop(store);
    let store = fixture.open();
    assert_eq!(ids(&claim(&store, 9).await), appended, "neither ended nor taken for sent");
}

#[tokio::test]
async fn nobody_waits_for_a_writer_that_panicked() {
    let fixture = Fixture::new();
    let before_commit = Box::new(|| panic!("a commit that panics"));
    let seams = Seams { before_commit, ..Seams::default() };
    let store = Sqlite::open_with(fixture.settings.clone(), Arc::clone(&fixture.clock), Arc::default(), seams).unwrap();
    let answered = async {
        for _ in 0..2 {
            assert!(store.append(batch(&["a"])).await.is_err());
        }
        assert!(store.claim(Want { max: 1, rotate: false }).await.is_empty());
        store.close().await;
        store.broken().await;
    };
    tokio::time::timeout(PATIENCE, answered).await.expect("everybody is answered, and who waits for it is told");
}

// --- the file and its place

#[tokio::test]
async fn a_delivery_that_is_told_of_right_before_the_end_is_recorded() {
    let fixture = Fixture::new();
    let store = fixture.open();
    append(&store, &["a"]).await;
    let claimed = claim(&store, 1).await.remove(0);
    let (settled, ()) = tokio::join!(store.settle(claimed.lease, delivered()), store.close());
    assert_eq!(settled, Ok(Settled::Done));
}

#[tokio::test]
async fn a_close_right_after_the_directory_was_removed_loses_nothing() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let users: Vec<String> = (0..600).map(|user| user.to_string()).collect();
    append(&store, &users.iter().map(String::as_str).collect::<Vec<_>>()).await;
    fs::remove_dir_all(&fixture.settings.dir).unwrap();
    store.close().await;
    drop(store);
    let stats = fixture.open().stats();
    assert_eq!((stats.ledger.undelivered(), stats.ledger.lost, stats.is_recovering), (600, 0, false));
}

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
async fn a_wrong_byte_in_the_base_url_that_a_file_is_bound_to_costs_no_event() {
    let fixture = Fixture::new();
    append(&fixture.open(), &["a", "b"]).await;
    let file = Connection::open(fixture.path("outbox.db")).unwrap();
    file.execute("UPDATE meta SET value = 'https://api.examlle' WHERE key = 'upstream'", []).unwrap();
    drop(file);
    let store = fixture.open();
    assert_eq!(store.stats().quarantined_files, 1);
    let sent = deliver_all(&store).await;
    assert_eq!((sent.len(), store.stats().ledger.lost), (2, 0));
}

#[tokio::test]
async fn a_file_one_version_newer_opens_and_a_later_one_does_not() {
    let fixture = Fixture::new();
    drop(fixture.open());
    let set_version = |version: i64| {
        let file = Connection::open(fixture.path("outbox.db")).unwrap();
        file.pragma_update(None, "user_version", version).unwrap();
    };
    set_version(6);
    append(&fixture.open(), &["a"]).await;
    set_version(7);
    let Err(OpenError::TooNew { found: 7, known: 6 }) = fixture.try_open() else { panic!("opened") };
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
    fs::copy(fixture.path("outbox.db"), "tests/files/outbox-v5.db").unwrap();
}

#[tokio::test]
async fn an_outbox_of_an_older_schema_version_opens_with_all_it_holds() {
    for version in [1, 2, 3] {
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

#[tokio::test]
async fn a_writer_that_hangs_does_not_count_as_moving() {
    let clock = Arc::new(ManualClock::new());
    let fixture = Fixture::with(Arc::clone(&clock) as Arc<dyn Clock>, |_| {});
    let store = fixture.open();
    let held = fixture.hold_commits();
    let appending = store.append(batch(&["a"]));
    let silent = || clock.instant().saturating_duration_since(store.heartbeat());
    let give_up_at = tokio::time::Instant::now() + PATIENCE;
    while silent() < Duration::from_secs(60) {
        assert!(tokio::time::Instant::now() < give_up_at, "it hangs");
        clock.pass(Duration::from_secs(1));
        std::thread::yield_now();
    }
    drop(held);
    appending.await.unwrap();
    let moved = async {
        while silent() > Duration::ZERO {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, moved).await.expect("it waits for work again");
}
