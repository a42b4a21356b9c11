//! How large the WAL gets, and when free pages and the WAL itself go.

use super::*;
use crate::outbox::sqlite::testing::Bench;
use crate::outbox::sqlite::writer::testing::Rig;

const KIB: usize = 1 << 10;
const MIB: u64 = 1 << 20;

/// Appends an event with a body of that size, in a turn of its own; gives the size of the WAL afterwards.
fn append(rig: &mut Rig, bytes: usize) -> u64 {
    let (append, mut answer) = rig.append(&["a"], bytes);
    rig.turn([append]);
    assert!(answer.try_recv().unwrap().is_ok());
    rig.writer.env.home.wal_bytes()
}

/// A turn in which nothing comes, after so long.
async fn pass(rig: &mut Rig, time: Duration) {
    tokio::time::advance(time).await;
    rig.turn([]);
}

#[tokio::test(start_paused = true)]
async fn a_wal_is_used_again_from_3_mib_on_and_keeps_its_blocks() {
    let mut rig = Rig::new(Bench::with(&[], 0));
    let sizes: Vec<u64> = (0..150).map(|_| append(&mut rig, 60 * KIB)).collect();
    assert!(sizes.is_sorted() && (3 * MIB..4 * MIB).contains(&sizes[149]), "{sizes:?}");
    assert!(rig.stats().checkpointed_at.is_some());
}

#[tokio::test(start_paused = true)]
async fn the_wal_is_looked_at_when_what_was_written_may_have_filled_it_and_before_a_large_batch() {
    let mut rig = Rig::new(Bench::with(&[], 0));
    rig.turn([]);
    let size = rig.store().sql.wal_frames().unwrap() * FRAME_BYTES;
    for (room, is_looked_at) in [(1, false), (0, true)] {
        rig.writer.wal_room = room;
        rig.turn([]);
        assert_eq!(rig.writer.wal_room == CHECKPOINT_BYTES - size, is_looked_at, "{room}");
    }
    for (bytes, is_looked_at) in [(384 * KIB, false), (384 * KIB + 1, true)] {
        // With what an event takes beside its body.
        let (append, _answer) = rig.append(&["a"], bytes - 64 - "a".len());
        rig.writer.wal_room = 1;
        rig.writer.make_room_in_wal(&[append]).unwrap();
        assert_eq!(rig.writer.wal_room > 1, is_looked_at, "{bytes}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_wal_is_looked_at_seldom_while_it_is_small_and_each_256_kib_at_least_when_it_is_nearly_full() {
    let mut rig = Rig::new(Bench::with(&[], 0));
    let mut looks = Vec::new();
    for _ in 0..50 {
        let room = rig.writer.wal_room;
        let size = append(&mut rig, 60 * KIB);
        if rig.writer.wal_room > room {
            looks.push((size >> 10, rig.writer.wal_room >> 10));
        }
    }
    assert!(looks.iter().all(|(_, room)| (256..=3 << 10).contains(room)), "{looks:?}");
    let early = looks.iter().filter(|(size, _)| *size < 2 << 10).count();
    assert!(early <= 4 && looks.len() > early, "{looks:?}");
}

#[tokio::test(start_paused = true)]
async fn a_large_batch_that_would_take_the_wal_over_4_mib_comes_after_a_checkpoint() {
    let mut rig = Rig::new(Bench::with(&[], 0));
    let grown = (0..50).find(|_| append(&mut rig, 60 * KIB) >= 2900 << 10);
    assert!(grown.is_some());
    let size = append(&mut rig, 1300 * KIB);
    assert!((2900 << 10..3 * MIB).contains(&size), "neither grown nor cut: {size}");
}

#[tokio::test(start_paused = true)]
async fn a_wal_that_one_batch_made_larger_than_4_mib_is_cut() {
    let mut rig = Rig::new(Bench::with(&[], 0));
    assert_eq!(append(&mut rig, 5 << 20), 0);
}

#[tokio::test(start_paused = true)]
async fn a_busy_store_keeps_256_free_pages_and_its_wal_and_an_idle_one_neither() {
    let mut bench = Bench::with(&["a"], 1200 * 4096);
    bench.store.sql.delete_event(1).unwrap();
    bench.store.measure().unwrap();
    let mut rig = Rig::new(bench);
    assert!(rig.store().free_pages >= 1200);
    for _ in 0..100 {
        tokio::time::advance(CHORES_GO_ON).await;
        assert!(append(&mut rig, 10) <= 4 * MIB);
    }
    let free = rig.store().free_pages;
    // Appends took some of them.
    assert!((200..=SPARE_PAGES).contains(&free), "{free}");
    tokio::time::advance(CHORES_EVERY).await;
    assert!(append(&mut rig, 10) > 0);
    // It was busy until its next look.
    pass(&mut rig, CHORES_EVERY).await;
    for left in (0..free / VACUUM_PAGES).rev() {
        pass(&mut rig, CHORES_GO_ON).await;
        assert!(rig.store().free_pages / VACUUM_PAGES <= left + 1, "{left}");
    }
    pass(&mut rig, CHORES_GO_ON).await;
    pass(&mut rig, CHORES_GO_ON).await;
    assert_eq!((rig.store().free_pages, rig.writer.env.home.wal_bytes()), (0, 0));
    // From now on nothing is written.
    let checkpointed_at = rig.writer.stats.checkpointed_at;
    pass(&mut rig, CHORES_EVERY).await;
    assert_eq!(rig.writer.stats.checkpointed_at, checkpointed_at);
}

#[tokio::test(start_paused = true)]
async fn what_got_free_beside_appends_is_given_back_too() {
    let mut rig = Rig::new(Bench::with(&["a"], 20 * 4096));
    rig.turn([]);
    // As what was remembered is forgotten.
    rig.store().sql.delete_event(1).unwrap();
    append(&mut rig, 10);
    for _ in 0..4 {
        pass(&mut rig, CHORES_EVERY).await;
    }
    assert_eq!(rig.store().sql.pages().unwrap().1, 0);
}

#[tokio::test(start_paused = true)]
async fn a_store_looks_after_itself_every_five_seconds_and_50_times_a_second_while_there_is_more_to_do() {
    let mut rig = Rig::new(Bench::with(&[], 0));
    rig.turn([]);
    let now = rig.writer.env.clock.instant();
    assert_eq!(rig.writer.chores_at, now + CHORES_EVERY);
    // More is remembered than should be.
    rig.store().books.done = 1;
    pass(&mut rig, CHORES_EVERY - Duration::from_millis(1)).await;
    assert_eq!(rig.writer.chores_at, now + CHORES_EVERY);
    pass(&mut rig, Duration::from_millis(1)).await;
    assert_eq!(rig.writer.chores_at, now + CHORES_EVERY + CHORES_GO_ON);
}

#[tokio::test(start_paused = true)]
async fn giving_back_pages_takes_the_wal_no_further_than_appends_do() {
    let mut bench = Bench::with(&["a", "b"], 1200 * 4096);
    bench.store.sql.delete_event(1).unwrap();
    bench.store.measure().unwrap();
    let mut rig = Rig::new(bench);
    let mut largest = 0;
    for _ in 0..=1200 / VACUUM_PAGES {
        pass(&mut rig, CHORES_GO_ON).await;
        largest = largest.max(rig.writer.env.home.wal_bytes());
    }
    assert_eq!(rig.store().free_pages, 0);
    assert!((MIB..4 * MIB).contains(&largest), "{largest}");
}

#[test]
fn giving_back_pages_is_reckoned_to_add_no_less_to_the_wal_than_it_does() {
    let bench = Bench::with(&["a", "b"], 100 * 4096);
    bench.store.sql.delete_event(1).unwrap();
    let mut rig = Rig::new(bench);
    rig.store().sql.checkpoint_and_truncate().unwrap();
    rig.writer.wal_room = MIB;
    rig.writer.give_back(VACUUM_PAGES).unwrap();
    let (added, reckoned) = (rig.store().sql.wal_frames().unwrap() * FRAME_BYTES, MIB - rig.writer.wal_room);
    assert!((added..2 * added).contains(&reckoned), "{reckoned} for {added}");
}
