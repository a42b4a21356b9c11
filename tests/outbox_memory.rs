//! Memory and opening time with a million events waiting; a process of its own, as it measures itself.

#![allow(clippy::unwrap_used, reason = "a test that fails there says where")]

#[path = "it/outbox_support.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the integration binary, which uses all of it")]
mod outbox_support;

use std::time::Duration;

use cello_relay::outbox::{Batch, Outbox, Want};
use outbox_support::{Fixture, delivered, event};

const EVENTS: usize = 1_000_000;
const BATCH: usize = 10_000;

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_million_waiting_events_take_no_more_memory_than_a_few_and_open_at_once() {
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

    let started = tokio::time::Instant::now();
    let store = fixture.open();
    let took = started.elapsed();
    assert_eq!(store.stats().ledger.undelivered(), EVENTS as u64);
    assert!(took < Duration::from_millis(150), "opened in {took:?}");

    for _ in 0..200 {
        for claimed in store.claim(Want { max: 64, rotate: false }).await {
            store.settle(claimed.lease, delivered()).await.unwrap();
        }
    }
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB more after handing out");
}
