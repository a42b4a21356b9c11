//! Memory, and what opening reads, with a million events waiting; a process of its own, as it measures itself.

#![allow(clippy::unwrap_used, reason = "a test that fails there says where")]

#[path = "it/outbox_support.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the integration binary, which uses all of it")]
mod outbox_support;

use std::sync::Arc;

use cello_relay::outbox::{Batch, Outbox, Want};
use outbox_support::{Fixture, delivered, event};
use tokio::task::JoinSet;

const EVENTS: usize = 1_000_000;
const BATCH: usize = 10_000;

/// A number that the kernel tells about this process.
fn own(file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/self/{file}")).unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn resident_kib() -> u64 {
    own("status", "VmRSS:")
}

#[tokio::test]
async fn a_million_waiting_events_take_no_more_memory_than_a_few_and_are_not_read_to_open() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let batch = |from: usize| {
        let events = (from..from + BATCH).map(|n| event(&format!("user-{}", n % 50_000), n)).collect();
        Batch { events, key: None }
    };
    store.append(batch(0)).await.unwrap();
    let before = resident_kib();
    for from in (BATCH..EVENTS).step_by(BATCH) {
        store.append(batch(from)).await.unwrap();
    }
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < 12 * 1024, "{grown} KiB more");
    drop(store);

    let read = own("io", "rchar:");
    let store = Arc::new(fixture.open());
    let read = own("io", "rchar:") - read;
    assert_eq!(store.stats().ledger.undelivered(), EVENTS as u64);
    // The WAL that a crash left (4 MiB at most) and a few pages.
    assert!(read < 5 * 1024 * 1024, "opening read {read} bytes of a file that grows with what waits");

    for _ in 0..200 {
        let mut settles = JoinSet::new();
        for claimed in store.claim(Want { max: 64, rotate: false }).await {
            let store = Arc::clone(&store);
            settles.spawn(async move { store.settle(claimed.lease, delivered()).await });
        }
        for settled in settles.join_all().await {
            settled.unwrap();
        }
    }
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB more after handing out");
}
