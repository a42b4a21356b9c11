//! When a user's line moves, and what is behind its gate.

use super::*;
use crate::clock::Timestamp;
use crate::outbox::sqlite::gates::Gates;
use crate::outbox::sqlite::testing::Bench;

const DAY: Duration = Duration::from_secs(86_400);

/// When the user's next event is due, if it has a gate: days from now.
fn due(bench: &Bench, user: &str) -> Option<i64> {
    let due: Option<Timestamp> = bench.store.sql.gate(&UserId::new(user)).unwrap();
    let days = |due: Timestamp| (due.as_millis() - bench.env.clock.now().as_millis() + 60_000) / DAY.as_millis() as i64;
    due.map(days)
}

fn gate(bench: &mut Bench, user: &str, days: Option<u32>) {
    bench.store.gate(&bench.env, &UserId::new(user), days.map(|days| days * DAY)).unwrap();
}

#[test]
fn only_a_user_with_a_gate_is_gated() {
    let mut bench = Bench::with(&[], 0);
    let is_gated = |bench: &Bench, user| bench.store.is_gated(&UserId::new(user)).unwrap();
    assert!(!is_gated(&bench, "a"));
    bench.gate("a");
    bench.store.gates.add(&UserId::new("a"));
    assert!(is_gated(&bench, "a") && !is_gated(&bench, "b"));
    bench.store.gates = Gates::default();
    assert!(is_gated(&bench, "a") && !is_gated(&bench, "b"), "where memory does not tell they are looked for");
}

#[test]
fn a_gate_is_due_when_its_wait_is_over_and_moves_only_if_there_is_another_wait() {
    let mut bench = Bench::with(&["a", "b", "a"], 10);
    let _claimed = bench.hand_out(1);
    gate(&mut bench, "a", Some(3));
    assert_eq!(due(&bench, "a"), Some(3));
    assert_eq!((bench.store.books.gates, bench.store.newly_gated.len()), (1, 1));
    let parked = |bench: &Bench| bench.store.sql.first_parked(&UserId::new("a")).unwrap();
    assert_eq!((parked(&bench), bench.store.sql.last_parked(&UserId::new("a")).unwrap()), (Some(1), Some(3)));
    gate(&mut bench, "a", None);
    assert_eq!(due(&bench, "a"), Some(3));
    gate(&mut bench, "a", Some(5));
    assert_eq!(due(&bench, "a"), Some(5));
    assert_eq!((bench.store.books.gates, bench.store.newly_gated.len()), (1, 1), "it is the same one");
    gate(&mut bench, "b", None);
    assert_eq!((due(&bench, "b"), bench.store.books.gates), (Some(0), 2));
}

#[test]
fn the_next_of_a_line_is_due_when_one_of_it_ended_and_the_gate_goes_with_the_last() {
    let mut bench = Bench::with(&["a", "a", "b"], 10);
    let _claimed = bench.hand_out(1);
    gate(&mut bench, "a", Some(3));
    gate(&mut bench, "b", Some(3));
    let leave = |bench: &mut Bench, user, seq| bench.store.leave_line(&bench.env, &UserId::new(user), seq);
    leave(&mut bench, "a", 9).unwrap();
    leave(&mut bench, "c", 1).unwrap();
    assert_eq!(due(&bench, "a"), Some(3), "what ended was none of it");
    leave(&mut bench, "a", 1).unwrap();
    assert_eq!((due(&bench, "a"), bench.store.books.gates), (Some(0), 2));
    leave(&mut bench, "a", 2).unwrap();
    assert_eq!((due(&bench, "a"), due(&bench, "b"), bench.store.books.gates), (None, Some(3), 1));
    leave(&mut bench, "b", 3).unwrap();
    assert_eq!((due(&bench, "b"), bench.store.books.gates), (None, 0));
}

#[test]
fn a_gate_that_nobody_counted_is_damage() {
    let mut bench = Bench::with(&["a"], 10);
    let _claimed = bench.hand_out(1);
    gate(&mut bench, "a", None);
    bench.gate("b");
    bench.store.books.gates = 1;
    let left = bench.store.leave_line(&bench.env, &UserId::new("a"), 1);
    assert!(matches!(left, Err(Fault::Damaged(_))), "{left:?}");
}
