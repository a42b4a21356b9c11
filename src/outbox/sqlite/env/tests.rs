//! What has room and what has not, to the byte, and what of the volume is kept for harder times.

use super::*;
use crate::outbox::sqlite::testing::Bench;

const MIB: u64 = 1 << 20;

/// A store with room for everything, on a volume that is not looked at.
fn bench() -> Bench {
    let mut bench = Bench::with(&[], 0);
    bench.env.volume.space = Space { total: 1 << 40, free: 1 << 40 };
    bench.store.live_pages = 0;
    bench
}

#[tokio::test(start_paused = true)]
async fn the_volume_is_measured_five_times_a_second_at_most() {
    let mut bench = bench();
    assert!(bench.env.measure());
    assert!(!bench.env.measure());
    tokio::time::advance(Duration::from_millis(199)).await;
    assert!(!bench.env.measure());
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(bench.env.measure());
}

#[test]
fn events_that_wait_and_dead_letters_count_up_to_the_limit_and_without_one_not_at_all() {
    let mut bench = bench();
    let (store, env) = (&mut bench.store, &mut bench.env);
    let ledger = &mut store.books.ledger;
    (ledger.accepted, ledger.delivered, ledger.dead) = (9, 3, 2);
    env.settings.max_events = 10;
    assert_eq!(env.room(store, 0, 0, 4), Ok(()));
    assert_eq!(env.room(store, 0, 0, 5), Err(Bound::Events));
    env.settings.max_events = 0;
    assert_eq!(env.room(store, 0, 0, 1000), Ok(()));
}

#[test]
fn pages_wal_and_reserve_take_room_and_what_is_remembered_does_not() {
    let mut bench = bench();
    let (store, env) = (&mut bench.store, &mut bench.env);
    (store.live_pages, store.grown_bytes) = (99, 4096);
    (env.volume.wal_bytes, env.volume.reserve_bytes) = (10_000, 1000);
    assert_eq!(env.used_bytes(store), 100 * 4096 + 11_000);
    store.books.done = 5;
    env.settings.max_bytes = MIB;
    let left = MIB - (100 * 4096 + 11_000) + 5 * 48;
    assert_eq!(env.room(store, 700, left - 700, 1), Ok(()));
    assert_eq!(env.room(store, 700, left - 699, 1), Err(Bound::Bytes));
}

#[test]
fn what_is_to_stay_free_on_the_volume_stays_free_to_the_byte() {
    let mut bench = bench();
    let (store, env) = (&bench.store, &mut bench.env);
    env.settings.min_free_bytes = 1000;
    env.volume.space.free = 1300;
    assert_eq!(env.room(store, 100, 200, 1), Ok(()));
    assert_eq!(env.room(store, 100, 201, 1), Err(Bound::Disk));
}

#[tokio::test(start_paused = true)]
async fn after_the_disk_was_full_nothing_is_appended_for_a_second() {
    let mut bench = bench();
    let (store, env) = (&bench.store, &mut bench.env);
    env.disk_is_full();
    tokio::time::advance(Duration::from_millis(999)).await;
    assert_eq!(env.room(store, 0, 0, 1), Err(Bound::Disk));
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(env.room(store, 0, 0, 1), Ok(()));
}

#[test]
fn it_is_worth_trying_again_on_a_full_disk_if_there_was_a_reserve() {
    let mut bench = bench();
    bench.env.home.make_reserve(MIB).unwrap();
    assert!(bench.env.disk_is_full());
    assert!(!bench.env.disk_is_full(), "it is given up");
}

#[test]
fn the_reserve_is_at_most_an_eighth_of_the_volume_and_of_the_outbox() {
    for (total, max_bytes, expected) in
        [(1 << 40, 1 << 40, 30_000), (8 * 20_000 + 3, 1 << 40, 20_000), (1 << 40, 8 * 10_000 + 3, 10_000), (7, 7, 0)]
    {
        let mut bench = bench();
        bench.env.volume.space.total = total;
        (bench.env.settings.max_bytes, bench.env.settings.reserve) = (max_bytes, 30_000);
        bench.env.restore_reserve();
        assert_eq!(bench.env.home.reserve_bytes(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn the_reserve_is_made_where_it_is_missing_and_leaves_4_mib_beside_what_is_to_stay_free() {
    let is_made = |free: u64, reserve_bytes: u64, is_full: bool| {
        let mut bench = bench();
        (bench.env.settings.min_free_bytes, bench.env.settings.reserve) = (500, 30_000);
        if is_full {
            bench.env.disk_is_full();
        }
        (bench.env.volume.space.free, bench.env.volume.reserve_bytes) = (free, reserve_bytes);
        bench.env.restore_reserve();
        bench.env.home.reserve_bytes() > 0
    };
    let enough = 500 + 30_000 + 4 * MIB + 1;
    assert!(is_made(enough, 0, false));
    assert!(!is_made(enough - 1, 0, false), "too little is free");
    assert!(is_made(enough, 29_999, false), "there is less than there should be");
    assert!(!is_made(enough, 30_000, false), "it is there");
    assert!(!is_made(1 << 40, 0, true), "the disk was full a moment ago");
}

#[test]
fn the_room_of_a_reserve_that_was_given_up_is_not_for_events() {
    let mut bench = bench();
    (bench.env.settings.reserve, bench.env.settings.max_bytes) = (30_000, 1 << 30);
    bench.env.restore_reserve();
    let room = |bench: &Bench| bench.env.room(&bench.store, 0, 1, 1);
    assert_eq!(room(&bench), Ok(()));
    assert!(bench.env.disk_is_full());
    bench.env.volume.full_until = None;
    assert_eq!(room(&bench), Err(Bound::Disk), "whatever is free");
    bench.env.restore_reserve();
    assert_eq!(room(&bench), Ok(()));
    bench.env.disk_is_full();
    (bench.env.volume.full_until, bench.env.volume.is_unreservable) = (None, true);
    assert_eq!(room(&bench), Ok(()), "where there is none to be had");
}
