//! What an opening finds out, and which sequences a file gives out.

use super::*;
use crate::event::UserId;
use crate::outbox::Ledger;
use crate::outbox::sqlite::row::Gate;
use crate::outbox::sqlite::testing::Bench;

#[test]
fn a_new_file_begins_at_a_sequence_that_no_other_relay_has_begun_at() {
    let firsts: std::collections::BTreeSet<u64> = (0..8).map(|_| random_first_seq()).collect();
    assert_eq!(firsts.len(), 8);
    assert!(firsts.last() > Some(&(1 << 32)), "of a wide range: {firsts:?}");
    assert!(firsts.iter().all(|first| (1..1 << 40).contains(first)), "{firsts:?}");
}

#[test]
fn a_file_that_takes_the_place_of_a_damaged_one_begins_above_all_that_it_gave_out() {
    let last_known = EventId::MAX_SEQ / 2 - 1;
    for next in [1, 5, last_known] {
        assert_eq!(seq_after_damage(Some(next), 3), next + (1 << 32));
    }
    // Of the damaged one nothing is known, or nonsense: then by how many there were.
    for (former_next, damaged_files, times) in [
        (None, 3, 3),
        (Some(0), 3, 3),
        (Some(last_known + 1), 3, 3),
        (None, 0, 1),
        (None, 1, 1),
        (None, 60, 60),
        (None, 61, 60),
    ] {
        let first = seq_after_damage(former_next, damaged_files);
        let all = (times << 41) + 1..(times << 41) + (1 << 40);
        assert!(all.contains(&first), "{former_next:?} {damaged_files}: {first}");
    }
}

#[test]
fn a_file_that_holds_waiting_or_dead_events_stays_bound_to_their_base_url() {
    let bench = Bench::with(&[], 0);
    let binds = |undelivered: u64, dead: u64, configured: &str| {
        let ledger = Ledger { accepted: undelivered + dead, dead, ..Ledger::default() };
        check_binding(&bench.store.sql, &Books { ledger, ..bench.store.books }, configured).is_err()
    };
    assert!(!binds(1, 1, "https://b.example"), "bound to none yet");
    binding::bind(&bench.store.sql, "https://a.example").unwrap();
    assert!(!binds(1, 1, "https://a.example"));
    assert!(!binds(0, 0, "https://b.example"));
    for (undelivered, dead) in [(1, 0), (0, 1), (1, 1), (2, 3)] {
        assert!(binds(undelivered, dead, "https://b.example"), "{undelivered} {dead}");
    }
}

#[test]
fn a_file_whose_base_url_is_damaged_is_a_damaged_file_and_no_other_environments() {
    let bench = Bench::with(&[], 0);
    binding::bind(&bench.store.sql, "https://a.example").unwrap();
    bench.store.sql.set_meta("upstream", "https://b.example").unwrap();
    let refused = check_binding(&bench.store.sql, &bench.store.books, "https://a.example");
    assert!(matches!(refused, Err(Failure::Fault(Fault::Damaged(_)))));
}

#[test]
fn an_open_store_knows_from_memory_who_has_no_gate_and_how_large_its_file_is() {
    let mut bench = Bench::with(&["a"], 10);
    bench.gate("gated");
    bench.store.sql.write_books(&bench.store.books).unwrap();
    let store = Store::open(&bench.env, 2, 1).unwrap_or_else(|_| panic!("opens"));
    assert!(!store.gates.may_hold(&UserId::new("a")));
    assert!(store.live_pages > 0);
}

#[test]
fn what_callers_were_answered_and_the_file_does_not_know_is_lost_and_counted_once() {
    let mut bench = Bench::with(&["a"], 10);
    let (store, env) = (&mut bench.store, &bench.env);
    store.books.ledger = Ledger { accepted: 10, lost: 2, ..Ledger::default() };
    let known = Books { ledger: Ledger { accepted: 13, ..Ledger::default() }, next_seq: 99, ..store.books };
    store.counts.lost = 1;
    store.admit_loss(env, Some(known)).unwrap();
    let expected = Ledger { accepted: 13, lost: 5, ..Ledger::default() };
    assert_eq!((store.books.ledger, store.durable.ledger, store.books.next_seq), (expected, expected, 99));
    assert_eq!(store.sql.books().unwrap().ledger, expected);
    assert_eq!(env.metrics.lost.with(crate::metrics::Lost::Corrupt).get(), 4, "and what was not told yet");
    store.admit_loss(env, Some(known)).unwrap();
    assert_eq!(store.books.ledger, expected, "what is known of is not lost");
}

#[test]
fn a_gate_that_lies_further_ahead_than_it_ever_waited_is_pulled_to_its_wait_at_an_opening() {
    let mut bench = Bench::with(&["a"], 10);
    let (now, user) = (bench.env.clock.now(), UserId::new("a"));
    let gate = Gate { due: now.plus(Duration::from_secs(86_400)), wait: Duration::from_secs(5) };
    bench.store.sql.set_gate(&user, gate).unwrap();
    bench.store.books.gates = 1;
    bench.store.sql.write_books(&bench.store.books).unwrap();
    let store = Store::open(&bench.env, 2, 1).unwrap_or_else(|_| panic!("opens"));
    let due = store.sql.gate(&user).unwrap().unwrap();
    assert!(due.since(now) < Duration::from_secs(600), "{due}");
}

#[test]
fn only_the_versions_up_to_the_next_one_are_read() {
    for version in 1..=SCHEMA_VERSION + 1 {
        assert!(check_version(version).is_ok(), "{version}");
    }
    for found in [0, SCHEMA_VERSION + 2] {
        assert!(matches!(check_version(found), Err(OpenError::TooNew { known, .. }) if known == SCHEMA_VERSION + 1));
    }
}
