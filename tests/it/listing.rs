//! How long listings take with much in the outbox; prints it. Run by hand: `cargo test --release --test it
//! listing -- --ignored --nocapture`.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "it measures, and a failure says where")]

use std::time::Instant;

use cello_relay::event::UserId;
use cello_relay::outbox::{Batch, DeadLetters, Filter, Outbox, State, Want};
use cello_relay::reason::Reason;

use crate::outbox_support::{Fixture, dead, event};

const PENDING: usize = 1_000_000;
const DEAD: usize = 100_000;
const BATCH: usize = 1000;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "fills a gigabyte"]
async fn pages_of_a_large_outbox_are_listed_quickly() {
    let fixture = Fixture::with(std::sync::Arc::new(cello_relay::clock::SystemClock), |settings| {
        settings.max_bytes = 4 << 30;
    });
    let store = fixture.open();
    for round in 0..DEAD / BATCH {
        let events = (0..BATCH).map(|n| event(&format!("dead-{}", round * BATCH + n), n)).collect();
        store.append(Batch { events, key: None }).await.unwrap();
        let claimed = store.claim(Want { max: BATCH, rotate: false }).await;
        let reasons = [Reason::Http422, Reason::Exhausted, Reason::Http400];
        let settles = claimed.into_iter().enumerate().map(|(n, one)| store.settle(one.lease, dead(reasons[n % 3])));
        for settle in settles.collect::<Vec<_>>() {
            settle.await.unwrap();
        }
    }
    for round in 0..PENDING / BATCH {
        let events = (0..BATCH).map(|n| event(&format!("user-{}", round * BATCH + n), n)).collect();
        store.append(Batch { events, key: None }).await.unwrap();
    }
    let started = Instant::now();
    store.dead_groups().await.unwrap();
    println!("dead by reason: {:?}", started.elapsed());
    let of = |user: &str| Filter { user: Some(UserId::new(user)), ..Filter::default() };
    let in_state = |state| Filter { state: Some(state), ..Filter::default() };
    let reason = Some(Reason::Exhausted);
    for (name, filter) in [
        ("all", Filter::default()),
        ("pending", in_state(State::Pending)),
        ("retrying", in_state(State::Retrying)),
        ("dead", in_state(State::Dead)),
        ("dead of a reason", Filter { reason, ..in_state(State::Dead) }),
        ("of a reason", Filter { reason, ..Filter::default() }),
        ("dead of a user", Filter { state: Some(State::Dead), ..of("dead-99999") }),
        ("of a user, scanned", of("user-999999")),
    ] {
        let started = Instant::now();
        let page = store.list(filter, None, 50).await.unwrap();
        println!("{name}: {} in {:?}", page.len(), started.elapsed());
        assert!(!page.is_empty() || name == "retrying");
    }
}
