//! What is found of a damaged file, and what is told of it.

use std::time::Duration;

use super::*;
use crate::outbox::sqlite::row::{Books, WholeDead};
use crate::outbox::sqlite::testing::Bench;
use crate::outbox::{Attempt, Ledger, Progress};
use crate::reason::Reason;

const LONG_AGO: Timestamp = Timestamp::from_millis(1_764_000_000_000);

/// One has failed, one is dead for each of two reasons, and a later event of that user is delivered.
fn bench() -> Bench {
    let bench = Bench::with(&["a", "b", "a", "b", "c"], 10);
    let sql = &bench.store.sql;
    let failed = Progress { attempts: 1, strikes: 0, first_failed_at: Some(LONG_AGO), overtaken: false };
    sql.write_progress(2, &failed, 0, LONG_AGO, Reason::Timeout).unwrap();
    sql.bury(1, LONG_AGO, Reason::Http400, 1).unwrap();
    sql.bury(4, LONG_AGO, Reason::Http422, 1).unwrap();
    for user in ["a", "b"] {
        sql.pass(&UserId::new(user), 9, LONG_AGO).unwrap();
    }
    let ledger = Ledger { accepted: 8, dead: 3, ..Ledger::default() };
    sql.write_books(&Books { ledger, next_seq: 6, ..bench.store.books }).unwrap();
    bench
}

/// What a look into the file comes to.
fn look<T>(bench: &Bench, look: impl FnOnce(&Salvage<'_>) -> T) -> T {
    look(&Salvage { sql: &bench.store.sql, places: &Places::default() })
}

fn list(bench: &Bench, filter: &Filter, after: Option<EventId>, limit: usize) -> Vec<u64> {
    look(bench, |salvage| salvage.list(filter, after, limit)).iter().map(|line| line.id.seq()).collect()
}

fn id(bench: &Bench, seq: u64) -> EventId {
    let all = look(bench, |salvage| salvage.list(&Filter::default(), None, 9));
    all.iter().find(|line| line.id.seq() == seq).unwrap().id
}

#[test]
fn what_waits_and_what_is_dead_is_listed_in_sequence_page_by_page() {
    let bench = bench();
    let all = Filter::default();
    assert_eq!(list(&bench, &all, None, 9), [1, 2, 3, 4, 5]);
    assert_eq!(list(&bench, &all, None, 2), [1, 2]);
    assert_eq!(list(&bench, &all, Some(id(&bench, 2)), 2), [3, 4]);
    assert_eq!(list(&bench, &all, Some(id(&bench, 5)), 2), [0; 0]);
}

#[test]
fn a_listing_shows_what_the_whole_filter_lets_through() {
    let bench = bench();
    let of = |filter: Filter| list(&bench, &filter, None, 9);
    let none = Filter::default();
    assert_eq!(of(Filter { state: Some(State::Dead), ..none.clone() }), [1, 4]);
    assert_eq!(of(Filter { state: Some(State::Retrying), ..none.clone() }), [2]);
    assert_eq!(of(Filter { user: Some(UserId::new("a")), ..none.clone() }), [1, 3]);
    assert_eq!(of(Filter { reason: Some(Reason::Timeout), ..none.clone() }), [2]);
    assert_eq!(of(Filter { reason: Some(Reason::Http422), ..none.clone() }), [4]);
    assert_eq!(of(Filter { until: Some(LONG_AGO.minus(Duration::from_secs(1))), ..none }), [0; 0]);
}

#[test]
fn one_event_is_shown_with_what_can_be_read_of_its_history() {
    let bench = bench();
    let show = |id| look(&bench, |salvage| salvage.show(id));
    let attempt = Attempt { at: LONG_AGO, reason: Reason::Timeout, status: None, request_id: None, message: None };
    bench.store.sql.add_attempt(1, &attempt).unwrap();
    bench.store.sql.set_unsure(1, &attempt).unwrap();
    let dead = show(id(&bench, 1)).unwrap();
    assert_eq!((dead.listed.report.state, dead.listed.may_be_counted, dead.body.len()), (State::Dead, true, 10));
    assert_eq!((dead.overtaken_at, dead.is_intact), (Some(LONG_AGO), true));
    assert_eq!((dead.attempts, dead.unsure), (vec![attempt.clone()], Some(attempt)));
    let waiting = show(id(&bench, 3)).unwrap();
    assert_eq!((waiting.listed.report.state, waiting.overtaken_at), (State::Pending, None), "only the dead are passed");
    let of = id(&bench, 3);
    assert!(show(EventId::new(of.accepted_at(), of.seq(), of.salt() + 1)).is_none(), "another relay's");
}

#[test]
fn what_is_what_was_stored_is_counted_beside_what_there_should_be() {
    let bench = bench();
    let change = |sql: &str| rusqlite::Connection::open(bench.env.home.database()).unwrap().execute_batch(sql).unwrap();
    let damage = |readable, expected| Damage { readable, expected };
    assert_eq!(look(&bench, |salvage| salvage.damage()), damage(5, Some(8)));
    change("UPDATE event SET body = 'other' WHERE seq = 3; UPDATE dead SET user = 'other' WHERE seq = 4");
    assert_eq!(look(&bench, |salvage| salvage.damage()), damage(3, Some(8)));
    change("UPDATE event SET accepted_ms = 'nonsense' WHERE seq = 5; DELETE FROM state");
    assert_eq!(look(&bench, |salvage| salvage.damage()), damage(2, None));
}

#[test]
fn an_event_that_both_waits_and_is_dead_is_listed_once() {
    let bench = bench();
    let row = bench.store.sql.event(3).unwrap().unwrap();
    let reason = Reason::Http400.as_str().to_owned();
    let dead = WholeDead { row, died_at: LONG_AGO, reason, attempts: 1 };
    bench.store.sql.restore_dead(&dead).unwrap();
    assert_eq!(list(&bench, &Filter::default(), None, 9), [1, 2, 3, 4, 5]);
}
