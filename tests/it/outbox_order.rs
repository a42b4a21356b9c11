//! Who comes next: order, turns and waits, also across restarts.

#![allow(clippy::unwrap_used, reason = "a test that fails there says where")]

use std::sync::Arc;
use std::time::Duration;

use cello_relay::clock::Clock;
use cello_relay::event::EventId;
use cello_relay::outbox::{Batch, DeadLetters, Outbox, Outcome, Selection, Terms, Want};
use cello_relay::reason::Reason;

use crate::outbox_support::{
    Fixture, ManualClock, PATIENCE, append, claim, dead, deliver_all, deliver_what_is_left, delivered, event, ids,
    numbered, retry, settle_all, users,
};

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
async fn users_whose_wait_is_over_and_all_others_take_turns() {
    let clock = Arc::new(ManualClock::new());
    let fixture = Fixture::with(Arc::clone(&clock) as Arc<dyn Clock>, |_| {});
    let store = fixture.open();
    append(&store, &["due 1", "due 2", "due 3"]).await;
    let at = clock.now().plus(Duration::from_secs(60));
    settle_all(&store, claim(&store, 3).await, &retry(at, false)).await;
    clock.pass(Duration::from_secs(61));
    append(&store, &["new 1", "new 2", "new 3"]).await;
    let claimed = claim(&store, 6).await;
    assert_eq!(users(&claimed), ["due 1", "new 1", "due 2", "new 2", "due 3", "new 3"]);
}

#[tokio::test]
async fn a_user_that_waits_is_not_handed_out_before_its_time_for_having_been_given_back() {
    let clock = Arc::new(ManualClock::new());
    let fixture = Fixture::with(Arc::clone(&clock) as Arc<dyn Clock>, |_| {});
    let store = fixture.open();
    append(&store, &["a"]).await;
    let at = clock.now().plus(Duration::from_secs(60));
    settle_all(&store, claim(&store, 1).await, &retry(at, false)).await;
    store.ignore_backoff(true);
    settle_all(&store, claim(&store, 1).await, &Outcome::Release).await;
    store.ignore_backoff(false);
    let rotating = Want { max: 1, rotate: true };
    let early = tokio::time::timeout(Duration::from_millis(60), store.claim(rotating)).await;
    assert!(early.is_err(), "handed out before its time");
    clock.pass(Duration::from_secs(61));
    for _ in 0..2 {
        let again = tokio::time::timeout(PATIENCE, store.claim(rotating)).await.expect("its time has come");
        settle_all(&store, again, &Outcome::Release).await;
    }
}

#[tokio::test]
async fn a_user_that_was_given_back_comes_after_all_others_also_those_that_are_not_read_yet() {
    let fixture = Fixture::new();
    let store = fixture.open();
    store.append(numbered(1, 300)).await.unwrap();
    append(&store, &["other"]).await;
    drop(store);
    let store = fixture.open();
    for expected in ["user-0", "other", "user-0"] {
        let claimed = store.claim(Want { max: 1, rotate: true }).await;
        assert_eq!(users(&claimed), [expected]);
        settle_all(&store, claimed, &Outcome::Release).await;
    }
}

#[tokio::test]
async fn a_dead_letter_does_not_overtake_another_that_was_put_back_and_is_not_read_yet() {
    let clock = Arc::new(ManualClock::new());
    let fixture = Fixture::with(Arc::clone(&clock) as Arc<dyn Clock>, |_| {});
    let store = fixture.open();
    store.append(numbered(1100, 1100)).await.unwrap();
    let both = append(&store, &["a", "a"]).await;
    let mut others = claim(&store, 1101).await;
    settle_all(&store, others.split_off(1100), &dead(Reason::Http400)).await;
    settle_all(&store, claim(&store, 1).await, &dead(Reason::Http400)).await;
    drop((others, store));
    // More than a window of events lies before them now.
    let store = fixture.open();
    let put_back = async |id| store.replay(Selection::Ids(vec![id]), Terms::everything()).await.unwrap().count;
    assert_eq!(put_back(both[0]).await, 1);
    // Another user waits, so that users that wait are looked for.
    settle_all(&store, claim(&store, 1).await, &retry(clock.now(), false)).await;
    assert_eq!(put_back(both[1]).await, 1);
    let order = deliver_what_is_left(&store).await.into_iter().map(|(id, ..)| id);
    assert_eq!(order.filter(|id| both.contains(id)).collect::<Vec<_>>(), both);
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
