//! How far the file is read, and what is known of who could get or waits for something.

use crate::event::UserId;
use crate::outbox::sqlite::testing::Bench;

/// The sequences up to which a few steps have read.
fn read(bench: &mut Bench, steps: usize) -> Vec<u64> {
    let read = |_| {
        bench.store.read_slice().unwrap();
        bench.store.queue.cursor
    };
    (0..steps).map(read).collect()
}

fn users(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("user-{n}")).collect()
}

fn of(users: &[String]) -> Vec<&str> {
    users.iter().map(String::as_str).collect()
}

#[test]
fn the_file_is_read_in_steps_of_256_rows_each_row_once_and_to_its_end() {
    let many = users(600);
    assert_eq!(read(&mut Bench::with(&of(&many), 10), 3), [257, 513, 601]);
    assert_eq!(read(&mut Bench::with(&of(&many[..256]), 10), 1), [257]);
    assert_eq!(read(&mut Bench::with(&of(&many[..257]), 10), 2), [257, 258]);
}

#[test]
fn large_rows_are_read_in_steps_of_256_kib() {
    let many = users(5);
    assert_eq!(read(&mut Bench::with(&of(&many), 128 << 10), 3), [3, 5, 6]);
    assert_eq!(read(&mut Bench::with(&of(&many), 100 << 10), 2), [4, 6]);
}

#[test]
fn a_claim_is_known_to_get_something_from_memory_from_the_file_or_behind_a_gate() {
    let can = |bench: &Bench| (bench.store.can_hand_out(), bench.store.looks_to_hand_out());
    let mut bench = Bench::with(&["a", "a"], 10);
    assert_eq!(can(&bench), (true, true), "there is something to read");
    read(&mut bench, 1);
    assert_eq!(can(&bench), (true, false), "it is at hand");
    let _claimed = bench.hand_out(9);
    assert_eq!(can(&bench), (false, false), "what is left waits behind it");
    bench.gate("b");
    assert_eq!(can(&bench), (true, true));
}

#[test]
fn a_delivery_is_known_to_be_waited_for_where_a_users_next_event_is_behind_it() {
    let mut bench = Bench::with(&["a", "b", "b"], 10);
    read(&mut bench, 1);
    let claimed = bench.hand_out(1);
    assert_eq!(claimed[0].event.user.as_str(), "a");
    assert!(bench.store.someone_waits(), "of b one waits behind the other");
    let mut bench = Bench::with(&["a", "b"], 10);
    read(&mut bench, 1);
    assert!(!bench.store.someone_waits());
    let _claimed = bench.hand_out(9);
    assert!(!bench.store.someone_waits());
    bench.gate("c");
    assert!(!bench.store.someone_waits(), "what is behind a gate waits for no other user's delivery");
    let mut bench = Bench::with(&["c", "c"], 10);
    bench.gate("c");
    for seq in [1, 2] {
        bench.store.sql.park(&UserId::new("c"), seq).unwrap();
    }
    bench.store.queue.cursor = 3;
    assert!(!bench.store.someone_waits());
    assert_eq!(bench.hand_out(9).len(), 1);
    assert!(bench.store.someone_waits(), "one may be behind the gate that this one came through");
}
