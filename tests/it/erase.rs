//! A person who is erased is in no byte of the directory any more.

#![allow(clippy::unwrap_used, reason = "a test that fails there says where")]

use std::fs;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use cello_relay::clock::TestClock;
use cello_relay::event::UserId;
use cello_relay::outbox::sqlite::{Sqlite, erase_stopped};
use cello_relay::outbox::{AppendError, Batch, DeadLetters, Filter, Key, Outbox, Route, Selection, State, Want};
use cello_relay::reason::Reason;

use crate::outbox_support::{Fixture, ManualClock, append, batch, claim, dead, delivered, event, retry, until};

const PERSON: &str = "person-to-be-forgotten";

/// The names of the files that hold the person.
fn found_in(fixture: &Fixture) -> Vec<String> {
    let holds = |bytes: &[u8]| bytes.windows(PERSON.len()).any(|window| window == PERSON.as_bytes());
    let files = fs::read_dir(&fixture.settings.dir).unwrap().map(|entry| entry.unwrap());
    let found = files.filter(|file| fs::read(file.path()).is_ok_and(|bytes| holds(&bytes)));
    found.map(|file| file.file_name().to_string_lossy().into_owned()).collect()
}

async fn deliver_all(store: &Sqlite, count: usize) {
    let mut left = count;
    while left > 0 {
        for claimed in store.claim(Want { max: 16, rotate: false }).await {
            store.settle(claimed.lease, delivered()).await.unwrap();
            left -= 1;
        }
    }
}

/// Events of the person in every state, between those of others; also some that were delivered before.
async fn fill(store: &Sqlite) {
    let crowd = |from: usize| -> Batch {
        let user = |n: usize| if n.is_multiple_of(3) { PERSON.to_owned() } else { format!("user-{n}") };
        Batch { events: (from..from + 120).map(|n| event(&user(n), n)).collect(), key: None }
    };
    store.append(crowd(0)).await.unwrap();
    deliver_all(store, 120).await;
    for outcome in [dead(Reason::Http422), retry(far_future(), false)] {
        store.append(batch(&[PERSON])).await.unwrap();
        let claimed = store.claim(Want { max: 1, rotate: false }).await.remove(0);
        store.settle(claimed.lease, outcome).await.unwrap();
    }
    let key = Key { route: Route::Events, key: format!("signup {PERSON}").into(), body: [7; 32], notes: "".into() };
    store.append(Batch { key: Some(key), ..crowd(1000) }).await.unwrap();
}

fn far_future() -> cello_relay::clock::Timestamp {
    cello_relay::clock::Timestamp::from_millis(4_000_000_000_000)
}

#[tokio::test]
async fn no_byte_of_an_erased_person_is_left_in_a_running_relays_directory() {
    let fixture = Fixture::new();
    let store = fixture.open();
    fill(&store).await;
    assert!(!found_in(&fixture).is_empty());
    let erased = store.erase(UserId::new(PERSON)).await.unwrap();
    assert_eq!((erased.pending, erased.retrying, erased.dead, erased.keys), (40, 1, 1, 1));
    assert!(erased.is_overwritten);
    assert_eq!(found_in(&fixture), [""; 0]);
    let ledger = store.stats().ledger;
    assert_eq!((ledger.erased, ledger.undelivered(), ledger.dead), (42, 80, 0));
    // A longer id that begins like the person's is somebody else's.
    let of_other =
        Key { route: Route::Events, key: "signup-person-to-be-forgotten2".into(), body: [8; 32], notes: "".into() };
    store.append(Batch { key: Some(of_other.clone()), ..batch(&["person-to-be-forgotten2"]) }).await.unwrap();
    store.erase(UserId::new(PERSON)).await.unwrap();
    let again = store.append(Batch { key: Some(of_other), ..batch(&["person-to-be-forgotten2"]) }).await.unwrap();
    assert!(again.replayed.is_some(), "a retry of somebody else's request counts once");
    // The others are all still there, in their order.
    deliver_all(&store, 81).await;
    assert_eq!(store.stats().ledger.undelivered(), 0);
}

#[tokio::test]
async fn no_byte_of_an_erased_person_is_left_in_a_stopped_relays_directory() {
    let fixture = Fixture::new();
    let store = fixture.open();
    fill(&store).await;
    drop(store);
    assert!(!found_in(&fixture).is_empty());
    let erased = erase_stopped(&fixture.settings.dir, UserId::new(PERSON)).await.unwrap();
    assert_eq!((erased.events(), erased.keys), (42, 1));
    assert_eq!(found_in(&fixture), [""; 0]);
    assert_eq!(fixture.open().stats().ledger.undelivered(), 80);
}

#[tokio::test]
async fn an_erasure_in_a_stopped_outbox_that_is_bound_to_no_upstream_binds_it_to_none() {
    let fixture = Fixture::new();
    let store = fixture.open();
    fill(&store).await;
    drop(store);
    let file = rusqlite::Connection::open(fixture.path("outbox.db")).unwrap();
    file.execute("DELETE FROM meta WHERE key = 'upstream'", []).unwrap();
    drop(file);
    erase_stopped(&fixture.settings.dir, UserId::new(PERSON)).await.unwrap();
    assert_eq!(fixture.open().stats().ledger.undelivered(), 80, "the next start takes it");
}

#[tokio::test]
async fn an_erasure_waits_for_what_is_being_sent_by_a_lease_of_before_a_failure_and_no_longer() {
    for is_settled in [true, false] {
        let fixture = Fixture::new();
        let store = fixture.open();
        append(&store, &[PERSON]).await;
        let being_sent = claim(&store, 1).await.remove(0);
        fixture.fail_next_commit(ErrorKind::Other);
        assert_eq!(store.append(batch(&["b"])).await, Err(AppendError::Unavailable));
        until(&store, |store| store.stats().refusing.is_none()).await;
        let mut erasing = store.erase(UserId::new(PERSON));
        tokio::select! {
            biased;
            erased = &mut erasing => panic!("{erased:?} while it is being sent"),
            // Decisions are carried out in turn: it has had its first look.
            none = async { store.discard(Selection::Ids(Vec::new())).await } => assert_eq!(none.unwrap(), 0),
        }
        assert_eq!(store.stats().ledger.erased, 0);
        if is_settled {
            store.settle(being_sent.lease, delivered()).await.unwrap_err();
        } else {
            drop(being_sent);
        }
        let erased = tokio::time::timeout(Duration::from_secs(10), erasing).await.expect("it has ended").unwrap();
        assert_eq!((erased.events(), store.stats().ledger.erased), (1, 1));
    }
}

#[tokio::test]
async fn damaged_files_are_named_as_they_are_not_searched() {
    let fixture = Fixture::new();
    let store = fixture.open();
    fs::write(fixture.path("outbox-20260101T000000000Z.damaged.db"), PERSON).unwrap();
    let erased = store.erase(UserId::new(PERSON)).await.unwrap();
    assert_eq!(erased.quarantined, ["outbox-20260101T000000000Z.damaged.db"]);
}

#[tokio::test]
async fn dead_letters_over_their_age_are_discarded_and_counted() {
    let clock = Arc::new(ManualClock::new());
    let fixture = Fixture::with(clock.clone(), |settings| settings.dead_max_age = Some(Duration::from_secs(60)));
    let store = fixture.open();
    let bury = async || {
        store.append(batch(&["u"])).await.unwrap();
        let claimed = store.claim(Want { max: 1, rotate: false }).await.remove(0);
        store.settle(claimed.lease, dead(Reason::Http422)).await.unwrap();
    };
    bury().await;
    clock.pass(Duration::from_secs(59));
    bury().await;
    assert_eq!(store.stats().ledger.dead, 2);
    clock.pass(Duration::from_secs(2));
    store.append(batch(&["u"])).await.unwrap();
    let ledger = store.stats().ledger;
    assert_eq!((ledger.dead, ledger.discarded, ledger.undelivered()), (1, 1, 1));
    let filter = Filter { state: Some(State::Dead), ..Filter::default() };
    assert_eq!(store.list(filter, None, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn dead_letters_stay_for_ever_unless_an_age_is_set() {
    let clock = Arc::new(TestClock::starting_at(cello_relay::clock::Timestamp::from_millis(0)));
    let fixture = Fixture::with(clock.clone(), |_| {});
    let store = fixture.open();
    store.append(batch(&["u"])).await.unwrap();
    let claimed = store.claim(Want { max: 1, rotate: false }).await.remove(0);
    store.settle(claimed.lease, dead(Reason::Http422)).await.unwrap();
    clock.advance(Duration::from_secs(10 * 365 * 86_400));
    store.append(batch(&["u"])).await.unwrap();
    assert_eq!(store.stats().ledger.dead, 1);
}
