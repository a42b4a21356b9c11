//! What comes over from a damaged file and in which steps, and what is booked of the rest.

use std::fs;
use std::time::Duration;

use rusqlite::Connection;

use super::copy::{SLICE, unsure_in};
use super::*;
use crate::clock::Timestamp;
use crate::event::{Event, EventId, Trigger, UserId};
use crate::outbox::sqlite::place::Orphan;
use crate::outbox::sqlite::row::Row;
use crate::outbox::sqlite::testing::Bench;
use crate::outbox::{Attempt, Progress};
use crate::reason::Reason;

const LATER: Timestamp = Timestamp::from_millis(1_764_000_000_000);

/// All of these are dead.
fn bury(bench: &mut Bench, seqs: impl IntoIterator<Item = u64>) {
    bench.store.sql.begin().unwrap();
    for seq in seqs {
        assert!(bench.store.sql.bury(seq, LATER, Reason::Http400, 1).unwrap());
    }
    bench.store.sql.commit().unwrap();
}

/// Changes the file behind the store's back.
fn change(bench: &Bench, sql: &str) {
    Connection::open(bench.env.home.database()).unwrap().execute_batch(sql).unwrap();
}

/// The file is found damaged: a fresh one takes its place.
fn quarantined(mut bench: Bench, known: Option<Books>) -> Bench {
    bench.store = quarantine(&mut bench.env, 2, known).unwrap_or_else(|_| panic!("a fresh file"));
    bench
}

/// The file lost its name, and is sound as far as its connection goes: a fresh one takes its place.
fn orphaned(mut bench: Bench, known: Option<Books>) -> Bench {
    fs::remove_file(bench.env.home.database()).unwrap();
    bench.env.orphans.push(Orphan { name: None, sql: bench.store.sql });
    bench.store = quarantine(&mut bench.env, 2, known).unwrap_or_else(|_| panic!("a fresh file"));
    bench
}

/// One step of the copy; says whether it was the last.
fn step(bench: &mut Bench) -> bool {
    bench.store.sql.begin().unwrap();
    bench.store.recover(&mut bench.env).unwrap();
    bench.store.sql.commit().unwrap();
    bench.store.recovery.is_none()
}

/// Copies to the end; how many events waited and were dead after each step.
fn copied(bench: &mut Bench) -> Vec<(u64, u64)> {
    let mut counts = Vec::new();
    while !step(bench) {
        let (waiting, dead, _) = bench.store.sql.count_below(u64::MAX).unwrap();
        counts.push((waiting, dead));
        assert!(counts.len() < 99, "it comes to an end: {counts:?}");
    }
    counts
}

/// The same of those that wait.
fn waiting(bench: &mut Bench) -> Vec<u64> {
    copied(bench).into_iter().map(|(waiting, _)| waiting).collect()
}

/// Counts of so many accepted events, of which so many are dead.
fn books(accepted: u64, dead: u64) -> Books {
    Books { ledger: Ledger { accepted, dead, ..Ledger::default() }, next_seq: 100, ..Books::default() }
}

// --- steps

#[test]
fn rows_come_over_256_at_a_time_and_what_is_dead_after_what_waits() {
    let mut bench = quarantined(Bench::with(&["a"; 600], 10), None);
    assert_eq!(waiting(&mut bench), [256, 512, 600, 600]);
    let mut bench = Bench::with(&["a"; 601], 10);
    bury(&mut bench, 2..=601);
    assert_eq!(copied(&mut quarantined(bench, None)), [(1, 0), (1, 256), (1, 512), (1, 600)]);
}

#[test]
fn large_rows_come_over_a_mebibyte_at_a_time() {
    // Four of them, with what a row costs beside its body, are just as much.
    let bytes = (1 << 18) - 65;
    let mut bench = quarantined(Bench::with(&["a"; 6], bytes), None);
    assert_eq!(waiting(&mut bench), [4, 6, 6]);
    let mut bench = Bench::with(&["a"; 6], bytes);
    bury(&mut bench, 1..=6);
    assert_eq!(copied(&mut quarantined(bench, None)), [(0, 0), (0, 4), (0, 6)]);
}

#[test]
fn what_lies_behind_a_place_that_cannot_be_read_comes_over_from_the_end_16_at_a_time() {
    let bench = Bench::with(&["a"; 100], 10);
    change(&bench, "UPDATE event SET accepted_ms = 'nonsense' WHERE seq = 50");
    assert_eq!(waiting(&mut quarantined(bench, None)), [49, 65, 81, 97, 99, 99]);
    let bench = Bench::with(&["a"; 300], 10);
    change(&bench, "UPDATE event SET body = 'other' WHERE seq <= 256");
    assert_eq!(waiting(&mut quarantined(bench, None)), [0, 16, 32, 44, 44, 44], "nor what is not what was stored");
    let mut bench = Bench::with(&["a"; 100], 10);
    bury(&mut bench, 1..=100);
    change(&bench, "UPDATE dead SET accepted_ms = 'nonsense' WHERE seq = 50");
    let dead: Vec<u64> = copied(&mut quarantined(bench, None)).into_iter().map(|(_, dead)| dead).collect();
    assert_eq!(dead, [0, 49, 65, 81, 97, 99]);
}

#[test]
fn the_way_down_ends_where_the_way_up_did_or_where_nothing_certain_leads_further() {
    let next = |read, last| Way::Down { from: 50, stop: 10 }.next(read, 0, last);
    let further = |from| Some(Way::Down { from, stop: 10 });
    assert_eq!([next(Some(16), Some(50)), next(Some(16), Some(11))], [further(49), further(10)]);
    assert_eq!([next(Some(16), Some(10)), next(Some(16), Some(51))], [None, None]);
    assert_eq!([next(Some(16), None), next(Some(15), Some(20)), next(None, Some(20))], [None, None, None]);
}

#[test]
fn a_copy_comes_to_its_end_where_nothing_is_what_was_stored() {
    for first in ["body = 'other'", "accepted_ms = 'nonsense'"] {
        let bench = Bench::with(&["a"; 300], 10);
        change(&bench, &format!("UPDATE event SET body = 'other'; UPDATE event SET {first} WHERE seq = 1"));
        assert_eq!(waiting(&mut quarantined(bench, None)), [0, 0, 0], "{first}");
    }
}

#[test]
fn a_copy_goes_on_after_a_crash_and_over_another_damage() {
    for is_damaged_again in [false, true] {
        let mut bench = Bench::with(&["a"; 300], 10);
        bench.store.books.ledger.accepted = 300;
        bench.store.sql.write_books(&bench.store.books).unwrap();
        let mut bench = quarantined(bench, None);
        assert!(!step(&mut bench));
        if is_damaged_again {
            bench = quarantined(bench, None);
        } else {
            bench.store = Store::open(&bench.env, 3, 1).unwrap_or_else(|_| panic!("opens"));
        }
        assert_eq!(waiting(&mut bench).last(), Some(&300));
        let ledger = Ledger { accepted: 300, ..Ledger::default() };
        assert_eq!(bench.store.books.ledger, ledger, "damaged again: {is_damaged_again}");
        assert!(Recovery::load(&bench.store.sql).unwrap().is_none(), "and it is done once");
    }
}

// --- what is booked

#[test]
fn a_tally_survives_being_written_down() {
    let expected = Ledger { accepted: 12, dead: 5, ..Ledger::default() };
    let tally = Tally { expected, events: 3, dead: 2, dead_bytes: 99 };
    assert_eq!(Tally::parse(&tally.text()), tally);
}

#[test]
fn what_did_not_come_over_is_booked_as_lost_and_what_was_not_known_of_as_accepted() {
    let known = Ledger { accepted: 12, delivered: 3, dead: 4, lost: 1, ..Ledger::default() };
    let found = Ledger { accepted: 12, delivered: 3, dead: 2, lost: 4, ..Ledger::default() };
    let too_little = Ledger { accepted: 1, ..Ledger::default() };
    let all = Ledger { accepted: 5, dead: 2, ..Ledger::default() };
    for (before, after, lost) in [(known, found, 3), (too_little, all, 0)] {
        let mut bench = Bench::with(&["a", "b", "c", "d", "e"], 10);
        bury(&mut bench, [4, 5]);
        bench.store.books.ledger = before;
        bench.store.sql.write_books(&bench.store.books).unwrap();
        let mut bench = quarantined(bench, None);
        assert_eq!(bench.store.books.ledger, before, "until then all counts as it did");
        assert_eq!(copied(&mut bench).last(), Some(&(3, 2)));
        assert_eq!(bench.store.books.ledger, after);
        assert_eq!(bench.store.books.dead_bytes, 2 * (10 + 1 + 64));
        assert_eq!(bench.store.counts.lost, lost);
    }
}

#[test]
fn what_the_process_knows_is_believed_before_what_a_damaged_file_says_of_itself() {
    let expected = |bench: Bench| bench.store.books.ledger.accepted;
    let with = |accepted| {
        let bench = Bench::with(&["a"], 10);
        bench.store.sql.write_books(&books(accepted, 0)).unwrap();
        bench
    };
    assert_eq!(expected(quarantined(with(7), Some(books(3, 0)))), 3);
    assert_eq!(expected(quarantined(with(7), None)), 7);
    // One that only lost its name has what was committed since, if it has all that was known.
    assert_eq!(expected(orphaned(with(7), Some(books(3, 0)))), 7);
    assert_eq!(expected(orphaned(with(3), Some(books(7, 0)))), 7);
    assert_eq!(expected(orphaned(with(3), None)), 3);
}

#[test]
fn counts_that_cannot_be_are_not_believed() {
    for nonsense in ["accepted = 5, next_seq = 0", "accepted = 1 << 60", "next_seq = 0, accepted = 1 << 60"] {
        let bench = Bench::with(&["a", "b"], 10);
        bench.store.sql.write_books(&books(2, 0)).unwrap();
        change(&bench, &format!("UPDATE state SET {nonsense}"));
        let mut bench = quarantined(bench, None);
        copied(&mut bench);
        assert_eq!(bench.store.books.ledger, Ledger { accepted: 2, ..Ledger::default() }, "{nonsense}");
    }
}

// --- what comes over

#[test]
fn of_a_file_for_another_base_url_or_of_a_later_version_nothing_comes_over() {
    let of = |change_it: &str| {
        let bench = Bench::with(&["a", "b"], 10);
        bench.store.sql.write_books(&books(2, 0)).unwrap();
        change(&bench, change_it);
        bench
    };
    for not_ours in
        ["INSERT INTO meta (key, value) VALUES ('upstream', 'https://b.example')", "PRAGMA user_version = 99"]
    {
        let mut bench = quarantined(of(not_ours), None);
        assert_eq!((copied(&mut bench), bench.store.books.ledger), (vec![], Ledger::default()), "{not_ours}");
    }
    for ours in ["", "INSERT INTO meta (key, value) VALUES ('upstream', '')", "DROP TABLE meta"] {
        assert_eq!(waiting(&mut quarantined(of(ours), None)).last(), Some(&2), "{ours}");
    }
    // It was opened as this relay's before it lost its name.
    assert_eq!(waiting(&mut orphaned(of("PRAGMA user_version = 99"), None)).last(), Some(&2));
}

#[test]
fn a_dead_letter_comes_over_as_it_is_unless_its_number_is_what_is_damaged() {
    let mut bench = Bench::with(&["a", "b", "c"], 10);
    bury(&mut bench, 1..=3);
    change(&bench, "UPDATE dead SET body = 'other' WHERE seq = 1; UPDATE dead SET seq = 1 << 50 WHERE seq = 2");
    let mut bench = quarantined(bench, None);
    let next_seq = bench.store.books.next_seq;
    copied(&mut bench);
    let of = |seq| bench.store.sql.dead(seq).unwrap().map(|row| row.body_bytes);
    assert_eq!([1, 2, 3, 1 << 50].map(of), [Some(5), None, Some(10), None]);
    assert_eq!(bench.store.books.next_seq, next_seq);
}

#[test]
fn that_later_events_went_before_a_dead_letter_stays_known() {
    for also in ["", "UPDATE dead SET accepted_ms = 'nonsense' WHERE seq = 1"] {
        let mut bench = Bench::with(&["b", "a", "a", "a", "c"], 10);
        bury(&mut bench, [1, 2, 4, 5]);
        let (a, c) = (UserId::new("a"), UserId::new("c"));
        bench.store.sql.pass(&a, 3, LATER).unwrap();
        // As a file of version 2 noted it.
        change(&bench, &format!("INSERT INTO overtaken (seq, at_ms) VALUES (5, 7); {also}"));
        let mut bench = quarantined(bench, None);
        copied(&mut bench);
        let known = |seq, user| bench.store.sql.passed(seq, user).unwrap();
        assert_eq!([known(2, &a), known(4, &a)], [Some(LATER), None], "{also}");
        assert_eq!(known(5, &c), Some(Timestamp::from_millis(7)), "{also}");
    }
}

#[test]
fn dead_letters_for_damage_come_over_however_many_there_are() {
    let mut bench = Bench::with(&["a"; 600], 10);
    bury(&mut bench, 1..=600);
    change(&bench, "UPDATE dead SET body = 'other', reason = 'corrupt'");
    assert_eq!(copied(&mut quarantined(bench, None)), [(0, 0), (0, 256), (0, 512), (0, 600)]);
}

#[test]
fn a_fresh_file_gives_out_only_numbers_above_all_that_it_replaces() {
    let bench = Bench::with(&["a"], 10);
    bench.store.sql.write_books(&books(1, 0)).unwrap();
    assert_eq!(quarantined(bench, None).store.books.next_seq, 100 + (1 << 32));
    // Also if nothing is known of the former numbers but the events.
    for is_dead in [false, true] {
        let mut bench = Bench::with(&[], 0);
        let last = 1 << 40;
        let event = Event { user: UserId::new("a"), trigger: Trigger::None, body: "{}".into(), trace: None };
        bench.store.sql.insert_event(EventId::new(LATER, last, 0), &event).unwrap();
        if is_dead {
            bury(&mut bench, [last]);
        }
        change(&bench, "DELETE FROM state");
        bench.env.seams.first_seq = Some(1);
        let mut bench = quarantined(bench, None);
        copied(&mut bench);
        assert_eq!(bench.store.books.next_seq, last + 1, "dead: {is_dead}");
    }
}

#[test]
fn a_new_file_begins_where_it_is_told_to_or_anywhere() {
    let mut bench = Bench::with(&[], 0);
    assert!((0..3).any(|_| first_seq(&bench.env) > 1));
    bench.env.seams.first_seq = Some(7);
    assert_eq!(first_seq(&bench.env), 7);
}

#[test]
fn what_cello_may_have_counted_stays_known_without_the_attempts_that_tell() {
    let sql = Bench::with(&["a"], 10).store.sql;
    let row = sql.event(1).unwrap().unwrap();
    let raised = Row { again: true, ..row.clone() };
    let of = |reason| Attempt { at: LATER, reason, status: None, request_id: None, message: None };
    let tried = |attempts: &[Reason]| {
        sql.delete_attempts(1).unwrap();
        attempts.iter().for_each(|reason| sql.add_attempt(1, &of(*reason)).unwrap());
    };
    let made = |attempts| {
        let progress = Progress { attempts, strikes: 0, first_failed_at: Some(LATER), overtaken: false };
        sql.write_progress(1, &progress, 0, LATER.plus(Duration::from_secs(1)), Reason::Timeout).unwrap();
    };
    assert_eq!([&row, &raised].map(|row| unsure_in(&sql, row)), [None, None], "never sent");
    tried(&[Reason::Timeout]);
    assert_eq!(unsure_in(&sql, &raised), Some(of(Reason::Timeout)), "in its former life");
    made(1);
    assert_eq!(unsure_in(&sql, &row), Some(of(Reason::Timeout)));
    tried(&[Reason::Http429]);
    assert_eq!(unsure_in(&sql, &row), None, "Cello said that it failed");
    made(2);
    assert_eq!(unsure_in(&sql, &row).map(|unsure| unsure.reason), Some(Reason::Ambiguous), "one is not kept");
    sql.delete_progress(1).unwrap();
    sql.set_unsure(1, &of(Reason::Reset)).unwrap();
    for row in [&row, &raised] {
        assert_eq!(unsure_in(&sql, row), Some(of(Reason::Reset)), "it is known already");
    }
}

#[test]
fn a_copy_that_is_begun_anew_after_a_crash_makes_what_was_being_sent_dead_once() {
    let users: Vec<String> = (0..SLICE + 9).map(|n| format!("user-{n}")).collect();
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    // It dies after any number of slices.
    for slices in 0..4 {
        let mut bench = Bench::with(&users, 10);
        bench.store.books.ledger.accepted = users.len() as u64;
        let books = bench.store.books;
        bench.store.sql.insert_intent(1).unwrap();
        drop(bench.store);
        let opened = quarantine(&mut bench.env, 2, Some(books));
        let mut store = opened.unwrap_or_else(|_| panic!("takes its place"));
        (0..slices).for_each(|_| recover_slice(&mut bench.env, &mut store));
        drop(store);
        let mut store = Store::open(&bench.env, 3, 1).unwrap_or_else(|_| panic!("opens"));
        while store.recovery.is_some() {
            recover_slice(&mut bench.env, &mut store);
        }
        let (events, dead, _) = store.sql.count_below(u64::MAX).unwrap();
        assert_eq!((events, dead), (users.len() as u64 - 1, 1), "after {slices} slices");
        assert_eq!(store.sql.dead(1).unwrap().unwrap().reason, Some(Reason::Ambiguous));
        let ledger = store.books.ledger;
        assert_eq!((ledger.undelivered(), ledger.dead, ledger.lost), (events, dead, 0), "after {slices} slices");
        assert!(store.sql.intents().unwrap().is_empty());
    }
}

fn recover_slice(env: &mut Env, store: &mut Store) {
    store.sql.begin().unwrap();
    store.recover(env).unwrap();
    store.sql.write_books(&store.books).unwrap();
    store.sql.commit().unwrap();
}

#[test]
fn a_damaged_file_that_cannot_be_read_for_a_while_is_waited_for_and_nothing_of_it_is_lost() {
    let mut bench = Bench::with(&["a", "b", "c"], 10);
    bench.store.books.ledger.accepted = 3;
    let books = bench.store.books;
    drop(bench.store);
    let mut store = quarantine(&mut bench.env, 2, Some(books)).unwrap_or_else(|_| panic!("takes its place"));
    let file = bench.env.home.named(&bench.env.home.damaged_names()[0]);
    let away = file.with_extension("away");
    std::fs::rename(&file, &away).unwrap();
    recover_slice(&mut bench.env, &mut store);
    let waits = |store: &Store| store.recovery.as_ref().and_then(|recovery| recovery.waits(Instant::now()));
    assert!(waits(&store).is_some_and(|wait| wait <= READ_AGAIN) && !store.has_to_copy(Instant::now()));
    std::fs::rename(&away, &file).unwrap();
    recover_slice(&mut bench.env, &mut store);
    assert!(waits(&store).is_some(), "not before its time");
    store.recovery.as_mut().unwrap().resume_at = Some(Instant::now());
    while store.recovery.is_some() {
        recover_slice(&mut bench.env, &mut store);
    }
    assert_eq!((store.books.ledger.undelivered(), store.books.ledger.lost), (3, 0));
}
