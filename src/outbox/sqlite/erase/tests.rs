//! What each slice of an erasure takes, and what it leaves.

use super::*;
use crate::clock::Timestamp;
use crate::event::{Event, Trigger};
use crate::outbox::sqlite::inbox::Decision;
use crate::outbox::sqlite::row::KeyRow;
use crate::outbox::sqlite::testing::Bench;
use crate::outbox::{Attempt, Key, Progress, Route};
use crate::reason::Reason;

const LONG_AGO: Timestamp = Timestamp::from_millis(1_764_000_000_000);

fn person() -> UserId {
    UserId::new("a")
}

/// An erasure of the person: all, or what was in flight in an earlier pass.
fn job(which: Option<Vec<EventId>>) -> Job {
    let of_person = Filter { user: Some(person()), ..Filter::default() };
    Job::new(Decision::Erase(person()), which.map_or(Selection::Matching(of_person), Selection::Ids))
}

/// The next slice, as the writer follows it.
fn step(bench: &mut Bench, job: &mut Job) -> Slice {
    bench.store.sql.begin().unwrap();
    let slice = bench.store.erase_slice(&bench.env, job, &person()).unwrap();
    bench.store.sql.commit().unwrap();
    (job.next, job.stage) = (slice.next, slice.stage);
    job.gone.extend(&slice.gone);
    slice
}

/// All slices: events that waited, and those that were dead, keys.
fn erased(bench: &mut Bench, job: &mut Job) -> Vec<(u64, u64, u64)> {
    let mut counts = Vec::new();
    loop {
        let slice = step(bench, job);
        let erased = slice.decided.erased;
        counts.push((erased.pending + erased.retrying, erased.dead, erased.keys));
        assert!(counts.len() < 20, "it comes to an end: {counts:?}");
        if slice.is_last {
            return counts;
        }
    }
}

/// A store with so many events, all accepted by its ledger.
fn with(users: &[&str]) -> Bench {
    let mut bench = Bench::with(users, 10);
    bench.store.books.ledger.accepted = users.len() as u64;
    bench
}

fn bury(bench: &mut Bench, seqs: impl IntoIterator<Item = u64>) {
    bench.store.sql.begin().unwrap();
    for seq in seqs {
        bench.store.bury(&bench.env, seq, Reason::Http400, None).unwrap();
    }
    bench.store.sql.commit().unwrap();
}

/// How many events wait and are dead.
fn left(bench: &Bench) -> (u64, u64) {
    let (waiting, dead, _) = bench.store.sql.count_below(u64::MAX).unwrap();
    (waiting, dead)
}

fn id(bench: &Bench, seq: u64) -> EventId {
    let sql = &bench.store.sql;
    let waiting = sql.line(seq).unwrap().map(|line| line.id);
    waiting.or_else(|| sql.dead(seq).unwrap().map(|row| row.id)).unwrap()
}

#[test]
fn what_waits_is_erased_256_at_a_time_and_nobody_elses() {
    let mut users = vec!["a"; 300];
    users[100] = "b";
    let mut bench = with(&users);
    assert_eq!(erased(&mut bench, &mut job(None)), [(256, 0, 0), (43, 0, 0), (0, 0, 0), (0, 0, 0)]);
    assert_eq!((left(&bench), bench.store.books.ledger.erased), ((1, 0), 299));
    // What is no more than a slice is one.
    let mut bench = with(&["a"; 256]);
    assert_eq!(erased(&mut bench, &mut job(None)), [(256, 0, 0), (0, 0, 0), (0, 0, 0)]);
}

#[test]
fn what_is_dead_is_erased_256_at_a_time_and_nobody_elses() {
    let mut bench = with(&[vec!["b"], vec!["a"; 300]].concat());
    bury(&mut bench, 1..=301);
    assert_eq!(erased(&mut bench, &mut job(None)), [(0, 0, 0), (0, 256, 0), (0, 44, 0), (0, 0, 0)]);
    let ledger = bench.store.books.ledger;
    assert_eq!((left(&bench), ledger.erased, ledger.dead), ((0, 1), 300, 1));
}

#[test]
fn what_is_accepted_after_an_erasure_began_is_left() {
    let mut bench = with(&["a"; 300]);
    let mut job = job(None);
    step(&mut bench, &mut job);
    let event = Event { user: person(), trigger: Trigger::None, body: "{}".into(), trace: None };
    bench.store.sql.insert_event(EventId::new(LONG_AGO, 301, 0), &event).unwrap();
    bench.store.books.next_seq = 302;
    erased(&mut bench, &mut job);
    assert_eq!(left(&bench), (1, 0));
    assert!(bench.store.sql.line(301).unwrap().is_some());
}

#[test]
fn with_an_event_goes_all_that_is_known_of_it_and_the_gate_of_its_user() {
    let mut bench = with(&["a", "a", "b"]);
    let attempt = Attempt { at: LONG_AGO, reason: Reason::Timeout, status: None, request_id: None, message: None };
    let progress = Progress { attempts: 1, strikes: 0, first_failed_at: Some(LONG_AGO), overtaken: false };
    bench.store.sql.write_progress(1, &progress, 0, LONG_AGO, Reason::Timeout).unwrap();
    bench.store.sql.add_attempt(1, &attempt).unwrap();
    bench.store.set_unsure(1, &attempt).unwrap();
    bench.store.books.failed = 1;
    let slice = step(&mut bench, &mut job(None));
    let erased = &slice.decided.erased;
    assert_eq!((erased.retrying, erased.pending, slice.gone), (1, 1, vec![1, 2]));
    let (sql, books) = (&bench.store.sql, &bench.store.books);
    assert!(sql.progress(1).unwrap().is_none() && sql.attempts(1).unwrap().is_empty());
    assert!(sql.unsure(1).unwrap().is_none() && !books.has_unsure);
    assert_eq!((books.failed, books.gates, books.ledger.erased), (0, 0, 2));
    assert!(!sql.has_gates().unwrap() && sql.first_parked(&person()).unwrap().is_none());
    assert_eq!(left(&bench), (1, 0));
}

#[test]
fn what_is_in_flight_is_told_of_and_erased_once_it_has_landed() {
    for has_landed in [false, true] {
        let mut bench = with(&["a", "a"]);
        let claimed = bench.hand_out(1);
        let flying = claimed[0].id;
        assert_eq!(flying.seq(), 1);
        if has_landed {
            bench.store.landed.push(1);
        }
        let slice = step(&mut bench, &mut job(None));
        let expected = if has_landed { (vec![], vec![1, 2], 0) } else { (vec![flying], vec![2], 1) };
        let (waiting, _) = left(&bench);
        assert_eq!((slice.decided.flying, slice.gone, waiting), expected, "landed: {has_landed}");
    }
}

#[test]
fn no_event_is_looked_at_twice_however_many_slices_there_are() {
    let mut bench = with(&["a"; 300]);
    let claimed = bench.hand_out(1);
    let mut job = job(None);
    let told: Vec<EventId> = (0..2).flat_map(|_| step(&mut bench, &mut job).decided.flying).collect();
    assert_eq!(told, [claimed[0].id]);
}

#[test]
fn of_events_that_were_in_flight_only_the_persons_own_are_erased() {
    let mut bench = with(&["a", "a", "b", "b", "a", "a"]);
    bury(&mut bench, [2, 4, 6]);
    let other = |id: EventId| EventId::new(id.accepted_at(), id.seq(), id.salt() + 1);
    let [waiting, dead, of_other, dead_of_other, no_more, no_more_dead] = [1, 2, 3, 4, 5, 6].map(|seq| id(&bench, seq));
    let delivered = EventId::new(LONG_AGO, 99, 0);
    let ids = vec![waiting, dead, of_other, dead_of_other, other(no_more), other(no_more_dead), delivered];
    let mut job = job(Some(ids));
    let slice = step(&mut bench, &mut job);
    let erased = &slice.decided.erased;
    assert_eq!((erased.pending, erased.dead, slice.is_last), (1, 1, false));
    assert_eq!(
        [1, 2, 3, 4, 5, 6].map(|seq| {
            let sql = &bench.store.sql;
            sql.line(seq).unwrap().is_some() || sql.dead(seq).unwrap().is_some()
        }),
        [false, false, true, true, true, true]
    );
    assert!(job.gone.is_superset(&[1, 2, 99].into()), "their keys are looked at");
    assert_eq!(job.stage, Stage::Keys);
}

#[test]
fn while_what_was_in_flight_still_is_no_keys_are_looked_at() {
    let mut bench = with(&["a"]);
    let claimed = bench.hand_out(1);
    let slice = step(&mut bench, &mut job(Some(vec![claimed[0].id])));
    assert!(slice.is_last && slice.decided.flying == [claimed[0].id]);
}

/// Remembers a key for so many events from a sequence on.
fn remember(bench: &mut Bench, key: &str, notes: &str, first_seq: u64, count: u64) {
    let key = Key { route: Route::Events, key: key.into(), body: [0; 32], notes: notes.into() };
    let notes = key.notes.clone();
    let row = KeyRow { row_id: 0, same_body: true, first_seq, count, salt: 0, at: LONG_AGO, bytes: 10, notes };
    bench.store.sql.insert_key(&key, &row).unwrap();
    bench.store.books.key_bytes += 10;
}

#[test]
fn keys_that_name_the_person_or_stand_for_nobody_elses_events_are_forgotten() {
    let mut bench = with(&["a", "a", "b"]);
    let keys = [
        ("of-a", "", 1000, 1, false),
        ("noted", "for a", 1000, 1, false),
        ("all erased", "", 1, 2, false),
        ("not all", "", 2, 2, true),
        ("none", "", 3, 1, true),
        ("of no event", "", 1, 0, true),
        ("banana", "", 1000, 1, true),
    ];
    for (key, notes, first_seq, count, _) in keys {
        remember(&mut bench, key, notes, first_seq, count);
    }
    assert_eq!(erased(&mut bench, &mut job(None)).iter().map(|(.., keys)| keys).sum::<u64>(), 3);
    for (name, .., is_left) in keys {
        let key = Key { route: Route::Events, key: name.into(), body: [0; 32], notes: "".into() };
        assert_eq!(bench.store.sql.key(&key).unwrap().is_some(), is_left, "{name}");
    }
    assert_eq!(bench.store.books.key_bytes, 40);
}

#[test]
fn keys_are_looked_at_256_at_a_time() {
    let mut bench = with(&[]);
    bench.store.sql.begin().unwrap();
    for n in 0..300 {
        remember(&mut bench, &format!("{n} of a"), "", 1000, 1);
    }
    bench.store.sql.commit().unwrap();
    remember(&mut bench, "another's", "", 1000, 1);
    assert_eq!(erased(&mut bench, &mut job(None)), [(0, 0, 0), (0, 0, 0), (0, 0, 256), (0, 0, 44), (0, 0, 0)]);
}

#[test]
fn what_dies_while_a_person_is_erased_is_erased_too() {
    // It dies after any number of slices.
    for steps in 0..4 {
        let mut bench = with(&["a", "b"]);
        let claimed = bench.hand_out(1);
        let mut job = job(None);
        let is_over = (0..steps).any(|_| step(&mut bench, &mut job).is_last);
        let died_in_time = !is_over && job.stage != Stage::Keys;
        if !is_over {
            let seq = claimed[0].id.seq();
            bury(&mut bench, [seq]);
            bench.store.landed.push(seq);
            erased(&mut bench, &mut job);
        }
        let (_, dead) = left(&bench);
        assert!(!died_in_time || dead == 0, "after {steps} slices");
    }
}
