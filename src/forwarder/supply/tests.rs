use std::sync::{Arc, Mutex};

use super::*;
use crate::clock::{TestClock, Timestamp};
use crate::event::{Event, EventId, Trigger, UserId};
use crate::outbox::memory::Memory;
use crate::outbox::{
    AppendError, Batch, Lease, Outcome, ReadError, Receipt, Report, SettleError, Settled, Stats, Want,
};

/// The reference model, and what was claimed of it.
struct Watched {
    inner: Memory,
    claims: Mutex<Vec<(usize, bool)>>,
}

impl Watched {
    /// With one event of each of so many users.
    async fn with(events: usize) -> Self {
        let clock = Arc::new(TestClock::starting_at(Timestamp::from_millis(0)));
        let watched = Self { inner: Memory::new(clock), claims: Mutex::default() };
        let user = |n| UserId::new(&format!("user-{n}"));
        let event = |n| Event { user: user(n), trigger: Trigger::None, body: "{}".into(), trace: None };
        for n in 0..events {
            watched.append(Batch { events: vec![event(n)], key: None }).await.unwrap();
        }
        watched
    }

    /// The claims since this was asked last: how many events, whether users rotate.
    fn claims(&self) -> Vec<(usize, bool)> {
        std::mem::take(&mut self.claims.lock().unwrap())
    }
}

impl Outbox for Watched {
    fn append(&self, batch: Batch) -> Wait<'_, Result<Receipt, AppendError>> {
        self.inner.append(batch)
    }

    fn claim(&self, want: Want) -> Wait<'_, Vec<Claimed>> {
        self.claims.lock().unwrap().push((want.max, want.rotate));
        self.inner.claim(want)
    }

    fn intend<'a>(&'a self, lease: &'a Lease) -> Wait<'a, Result<(), SettleError>> {
        self.inner.intend(lease)
    }

    fn settle(&self, lease: Lease, outcome: Outcome) -> Wait<'_, Result<Settled, SettleError>> {
        self.inner.settle(lease, outcome)
    }

    fn lookup(&self, id: EventId) -> Wait<'_, Result<Option<Report>, ReadError>> {
        self.inner.lookup(id)
    }

    fn stats(&self) -> Stats {
        self.inner.stats()
    }

    fn ignore_backoff(&self, ignore: bool) {
        self.inner.ignore_backoff(ignore);
    }

    fn close(&self) -> Wait<'_, ()> {
        self.inner.close()
    }
}

fn keep(keep: usize) -> Permit {
    Permit { send: keep, keep, ..Permit::default() }
}

fn rotating(permit: Permit) -> Permit {
    Permit { rotate: true, ..permit }
}

#[tokio::test]
async fn so_many_are_claimed_as_may_be_kept_after_those_that_started() {
    let outbox = Watched::with(10).await;
    let mut supply = Supply::new(&outbox);
    supply.adjust(&keep(6), 2);
    assert!(supply.arrive().await);
    assert_eq!(outbox.claims(), [(4, false)]);
    assert_eq!(outbox.stats().in_flight, 4);
    assert_eq!(std::iter::from_fn(|| supply.pop()).count(), 4);
    supply.adjust(&keep(3), 3);
    assert!(outbox.claims().is_empty(), "nothing may be kept");
}

#[tokio::test]
async fn what_may_not_be_kept_any_more_is_given_back() {
    let outbox = Watched::with(10).await;
    let mut supply = Supply::new(&outbox);
    supply.adjust(&keep(8), 0);
    assert!(supply.arrive().await);
    supply.adjust(&keep(3), 1);
    assert_eq!(outbox.stats().in_flight, 2);
    assert!(supply.pop().is_some() && supply.pop().is_some() && supply.pop().is_none());
}

#[tokio::test]
async fn more_is_claimed_when_half_a_batch_has_room_or_nothing_is_left() {
    let outbox = Watched::with(20).await;
    let mut supply = Supply::new(&outbox);
    supply.adjust(&keep(8), 0);
    assert!(supply.arrive().await);
    let started: Vec<_> = (0..3).map(|_| supply.pop()).collect();
    supply.adjust(&keep(8), 0);
    assert_eq!(outbox.claims(), [(8, false)], "five are left, and three more are not worth it");
    drop((started, supply.pop()));
    supply.adjust(&keep(8), 0);
    assert_eq!(outbox.claims(), [(4, false)]);
    assert!(supply.arrive().await);
    while supply.pop().is_some() {}
    supply.adjust(&keep(8), 7);
    assert_eq!(outbox.claims(), [(1, false)], "nothing is left");
}

#[tokio::test]
async fn a_claim_that_waits_is_made_anew_only_if_it_asks_too_much_or_otherwise() {
    let outbox = Watched::with(0).await;
    let mut supply = Supply::new(&outbox);
    supply.adjust(&keep(8), 0);
    supply.adjust(&keep(8), 0);
    supply.adjust(&keep(9), 0);
    assert_eq!(outbox.claims(), [(8, false)], "it goes on waiting");
    supply.adjust(&keep(7), 0);
    assert_eq!(outbox.claims(), [(7, false)]);
    supply.adjust(&rotating(keep(7)), 0);
    assert_eq!(outbox.claims(), [(7, true)]);
    supply.adjust(&rotating(keep(0)), 0);
    assert!(outbox.claims().is_empty());
    let event = Event { user: UserId::new("a"), trigger: Trigger::None, body: "{}".into(), trace: None };
    outbox.append(Batch { events: vec![event], key: None }).await.unwrap();
    assert_eq!(outbox.stats().in_flight, 0, "a claim that was dropped takes nothing");
}

#[tokio::test]
async fn a_closed_outbox_is_told() {
    let outbox = Watched::with(0).await;
    let mut supply = Supply::new(&outbox);
    supply.adjust(&keep(1), 0);
    outbox.close().await;
    assert!(!supply.arrive().await);
}
