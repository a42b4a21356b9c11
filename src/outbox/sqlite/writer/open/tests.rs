//! What a transaction is reckoned to add to the WAL, and what it does add.

use super::*;
use crate::outbox::Outcome;
use crate::outbox::sqlite::sql::PAGE_BYTES;
use crate::outbox::sqlite::testing::Bench;
use crate::outbox::sqlite::writer::testing::Rig;

/// What the commands, as a transaction, are reckoned to add to the WAL, and what they do.
fn reckoned_and_added(rig: &mut Rig, commands: Vec<Command>) -> (u64, u64) {
    let (store, env) = (rig.writer.store.as_mut().unwrap(), &mut rig.writer.env);
    store.sql.checkpoint_and_truncate().unwrap();
    let mut open = Open::begin(store, Syncs::Itself).unwrap();
    open.commands = commands;
    open.apply(store, env, 0, &[]).unwrap();
    open.commit(store, env).unwrap();
    let reckoned = open.wal_bytes();
    let (landing, _answers) = open.divide(store, env.clock.instant());
    store.take_in_new(landing.appended).unwrap();
    (reckoned, store.sql.wal_frames().unwrap() * FRAME_BYTES)
}

fn assert_rather_more((reckoned, added): (u64, u64), what: &str) {
    assert!(added <= reckoned && reckoned <= 8 * added, "{what}: {reckoned} for {added}");
}

#[test]
fn a_transaction_is_reckoned_to_add_rather_more_to_the_wal_than_it_does() {
    let mut rig = Rig::new(Bench::with(&[], 0));
    rig.writer.env.volume.space.free = 1 << 40;
    for (events, bytes) in [(1, 10), (1, 300 << 10), (60, 2100)] {
        let (append, _answer) = rig.append(&vec!["a"; events], bytes);
        assert_rather_more(reckoned_and_added(&mut rig, vec![append]), &format!("{events} events of {bytes} bytes"));
    }
    let appends = (0..60).map(|_| rig.append(&["a"], 2100).0).collect();
    assert_rather_more(reckoned_and_added(&mut rig, appends), "60 appends");
}

#[test]
fn ends_of_events_that_lie_far_apart_are_reckoned_to_add_rather_more_to_the_wal_than_they_do() {
    const EVENTS: usize = 60;
    let users: Vec<String> = (0..5 * EVENTS).map(|n| format!("user-{n}")).collect();
    let mut rig = Rig::new(Bench::with(&users.iter().map(String::as_str).collect::<Vec<_>>(), 3000));
    let (claim, mut claimed) = Rig::claim(5 * EVENTS);
    rig.turn([claim]);
    let claimed = claimed.try_recv().unwrap();
    assert_eq!(claimed.len(), 5 * EVENTS);
    let settles = claimed.into_iter().step_by(5).map(|claimed| {
        let outcome = Outcome::Delivered { request_id: None };
        Rig::settle(claimed, outcome).0
    });
    assert_rather_more(reckoned_and_added(&mut rig, settles.collect()), "ends");
}

#[test]
fn what_is_appended_counts_at_once_and_is_measured_when_it_is_much_or_something_ends() {
    let mut rig = Rig::new(Bench::with(&[], 0));
    rig.writer.env.volume.space.free = 1 << 40;
    let pages = |rig: &mut Rig| {
        let store = rig.store();
        (store.live_pages, store.free_pages, store.grown_bytes, store.sql.pages().unwrap())
    };
    let mut measured = 0;
    for n in 1..=160 {
        let (append, _answer) = rig.append(&["a"], 1000);
        rig.turn([append]);
        let (live, _, grown, (really, _)) = pages(&mut rig);
        assert!((really - live) * PAGE_BYTES <= 2 * grown + PAGE_BYTES && grown < 64 << 10, "after {n}");
        measured += u32::from(grown == 0);
    }
    assert_eq!(measured, 3, "by the first housekeeping, and each 64 KiB");
    let (claim, mut claimed) = Rig::claim(1);
    rig.turn([claim]);
    let (settle, _answer) = Rig::settle(claimed.try_recv().unwrap().remove(0), Outcome::Delivered { request_id: None });
    let (append, _answer) = rig.append(&["a"], 1000);
    rig.turn([settle, append]);
    let (live, free, grown, really) = pages(&mut rig);
    assert_eq!(((live, free), grown), (really, 0));
}

#[test]
fn a_transaction_that_only_forgets_is_measured() {
    let mut rig = Rig::new(Bench::with(&["a"], 10));
    rig.store().grown_bytes = 1;
    let (store, env) = (rig.writer.store.as_mut().unwrap(), &mut rig.writer.env);
    Open::begin(store, Syncs::Itself).unwrap().commit(store, env).unwrap();
    assert_eq!(store.grown_bytes, 0);
}

#[test]
fn large_events_that_die_are_reckoned_to_add_rather_more_to_the_wal_than_they_do() {
    let mut rig = Rig::new(Bench::with(&["a", "b", "c", "d"], 250 << 10));
    let (claim, mut claimed) = Rig::claim(4);
    rig.turn([claim]);
    let settles = claimed.try_recv().unwrap().into_iter().map(|claimed| {
        let (reason, at) = (crate::reason::Reason::Http400, crate::clock::Timestamp::from_millis(1));
        let attempt = crate::outbox::Attempt { at, reason, status: Some(400), request_id: None, message: None };
        Rig::settle(claimed, Outcome::Dead { reason, attempt }).0
    });
    let settles = settles.collect();
    assert_rather_more(reckoned_and_added(&mut rig, settles), "dead letters");
}
