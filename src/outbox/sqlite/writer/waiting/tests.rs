//! What the writer waits for in which state.

use tokio::sync::oneshot;

use super::*;
use crate::event::UserId;
use crate::outbox::sqlite::decide::Job;
use crate::outbox::sqlite::inbox::{Command, Decision};
use crate::outbox::sqlite::queue::Deferred;
use crate::outbox::sqlite::recovery::Recovery;
use crate::outbox::sqlite::row::Gate;
use crate::outbox::sqlite::testing::Bench;
use crate::outbox::sqlite::writer::testing::Rig;
use crate::outbox::{Filter, Outcome, Selection};

/// As another process left it: a copy is under way.
fn recover(rig: &mut Rig) {
    let store = rig.store();
    store.sql.set_meta("recovering", "no-such-file").unwrap();
    store.recovery = Recovery::load(&store.sql).unwrap();
    assert!(store.recovery.is_some());
}

#[test]
fn an_idle_writer_waits_for_one_command_and_lets_deliveries_linger() {
    let mut rig = Rig::new(Bench::with(&[], 0));
    let wanted = rig.writer.wanted();
    assert_eq!((wanted.commands, wanted.claims, wanted.company, wanted.expects), (1, false, LINGER_FOR, false));
}

#[test]
fn deliveries_are_expected_while_something_is_in_flight_and_linger_less_if_somebody_waits_for_them() {
    let mut rig = Rig::new(Bench::with(&["a"], 10));
    let (claim, mut claimed) = Rig::claim(1);
    rig.turn([claim]);
    let _claimed = claimed.try_recv().unwrap();
    let wanted = rig.writer.wanted();
    assert_eq!((wanted.claims, wanted.company, wanted.expects), (false, LINGER_FOR, true));
    let (append, _answer) = rig.append(&["a"], 10);
    rig.turn([append]);
    assert_eq!(rig.writer.wanted().company, GATHER_FOR);
}

#[test]
fn deliveries_that_somebody_waits_for_wait_for_no_more_company_than_can_come() {
    let users: Vec<String> = (0..GATHER + 1).map(|number| format!("u-{number}")).collect();
    let mut rig = Rig::new(Bench::with(&[], 0));
    let gathers_with = |rig: &mut Rig, more: &[String]| {
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        let (append, _answer) = rig.append(&more, 10);
        let (claim, mut claimed) = Rig::claim(more.len());
        rig.turn([append, claim]);
        let gather = rig.writer.wanted().gather;
        (gather, claimed.try_recv().unwrap_or_default())
    };
    let (gather, first) = gathers_with(&mut rig, &users[..1]);
    assert_eq!((gather, first.len()), (GATHER, 1), "nobody waits");
    let (gather, none) = gathers_with(&mut rig, &users[..1]);
    assert_eq!((gather, none.len()), (1, 0), "the user's next event waits");
    let (gather, second) = gathers_with(&mut rig, &users[1..2]);
    assert_eq!((gather, second.len()), (2, 1));
    let (gather, many) = gathers_with(&mut rig, &users[2..]);
    assert_eq!((gather, many.len()), (GATHER, GATHER - 1), "of so many no more are waited for");
}

#[test]
fn a_claim_wakes_a_writer_that_may_have_something_for_it() {
    let mut rig = Rig::new(Bench::with(&["a"], 10));
    assert!(rig.writer.wanted().claims);
}

#[test]
fn while_a_commit_is_synced_only_many_commands_wake_the_writer_and_not_what_needs_the_file_alone() {
    let mut rig = Rig::new(Bench::with(&[], 0));
    rig.knock();
    let (append, _answer) = rig.append(&["a"], 10);
    rig.turn([append]);
    rig.writer.stats.in_flight = 1;
    let of = |rig: &mut Rig| {
        let wanted = rig.writer.wanted();
        (wanted.commands, wanted.company, wanted.expects)
    };
    assert_eq!(of(&mut rig), (WORTH_WAKING, LINGER_FOR, true));
    let alone = (1, Duration::ZERO, false);
    let (reply, _answer) = oneshot::channel();
    rig.writer.closing.push(reply);
    assert_eq!(of(&mut rig), alone, "it is to close");
    rig.writer.closing.clear();
    let (reply, _answer) = oneshot::channel();
    let all = Selection::Matching(Filter::default());
    rig.writer.jobs.push_back((Job::new(Decision::Discard, all), reply));
    assert_eq!(of(&mut rig), alone, "there is a decision");
    rig.writer.jobs.clear();
    assert_eq!(of(&mut rig), (WORTH_WAKING, LINGER_FOR, true));
    rig.store().queue.defer(Deferred::Corrupt(None, 1));
    assert_eq!(of(&mut rig), alone, "damage was met");
    rig.store().queue.forget_deferred(1);
    recover(&mut rig);
    assert_eq!(of(&mut rig), alone, "a damaged file is copied");
    assert!(rig.writer.wanted().claims);
    assert!(rig.syncs.end(true));
    rig.writer.store = None;
    assert_eq!(of(&mut rig), alone, "there is no file");
    assert!(rig.writer.wanted().claims);
}

#[tokio::test(start_paused = true)]
async fn a_writer_waits_for_its_next_chores_and_without_any_for_ten_seconds() {
    let mut rig = Rig::new(Bench::with(&[], 0));
    let now = rig.writer.env.clock.instant();
    let writer = &mut rig.writer;
    writer.chores_at = now + Duration::from_secs(3);
    for (is_stirred, has_chores, seconds) in [(true, false, 3), (false, true, 3), (true, true, 3), (false, false, 10)] {
        (writer.is_stirred, writer.has_chores) = (is_stirred, has_chores);
        assert_eq!(writer.patience(), Duration::from_secs(seconds));
    }
    (writer.is_stirred, writer.chores_at) = (true, now);
    assert_eq!(writer.patience(), Duration::from_millis(1));
}

#[tokio::test(start_paused = true)]
async fn a_writer_does_not_wait_while_there_is_something_to_do() {
    let mut rig = Rig::new(Bench::with(&["a"], 10));
    rig.writer.is_stirred = false;
    assert_eq!(rig.writer.patience(), IDLE, "nobody wants it");
    let (claim, _answer) = Rig::claim(1);
    let Command::Claim { want, reply } = claim else { panic!() };
    rig.writer.claims.push_back((want, reply));
    assert_eq!(rig.writer.patience(), Duration::ZERO, "there is more to read");
    rig.store().queue.cursor = 2;
    assert_eq!(rig.writer.patience(), IDLE, "all is read");
    let (reply, _answer) = oneshot::channel();
    rig.writer.jobs.push_back((Job::new(Decision::Discard, Selection::Ids(Vec::new())), reply));
    assert_eq!(rig.writer.patience(), Duration::ZERO, "there is a decision");
    rig.writer.jobs.clear();
    rig.store().queue.defer(Deferred::Corrupt(None, 1));
    assert_eq!(rig.writer.patience(), Duration::ZERO, "damage was met");
    rig.store().queue.forget_deferred(1);
    recover(&mut rig);
    assert_eq!(rig.writer.patience(), Duration::ZERO, "a damaged file is copied");
}

#[tokio::test(start_paused = true)]
async fn a_writer_without_a_file_waits_until_it_is_opened_again() {
    let mut rig = Rig::new(Bench::with(&[], 0));
    rig.writer.store = None;
    let now = rig.writer.env.clock.instant();
    for (millis, expected) in [(300, 300), (0, 1), (11_000, 10_000)] {
        rig.writer.reopen.at = now + Duration::from_millis(millis);
        assert_eq!(rig.writer.patience(), Duration::from_millis(expected));
    }
}

#[test]
fn a_writer_waits_for_the_next_gate_if_somebody_wants_events_and_at_most_a_second() {
    let mut rig = Rig::new(Bench::with(&[], 0));
    rig.writer.is_stirred = false;
    let set_gate = |rig: &mut Rig, wait| {
        let now = rig.writer.env.clock.now();
        rig.store().sql.set_gate(&UserId::new("a"), Gate { due: now.plus(wait), wait }).unwrap();
    };
    set_gate(&mut rig, Duration::from_millis(900));
    rig.store().books.gates = 1;
    assert_eq!(rig.writer.patience(), IDLE, "nobody wants it");
    let (claim, _answer) = Rig::claim(1);
    let Command::Claim { want, reply } = claim else { panic!() };
    rig.writer.claims.push_back((want, reply));
    assert!((1..=900).contains(&rig.writer.patience().as_millis()));
    set_gate(&mut rig, Duration::from_secs(5));
    assert_eq!(rig.writer.patience(), GATED, "wall time can jump");
    set_gate(&mut rig, Duration::ZERO);
    assert_eq!(rig.writer.patience(), GATED, "none is to come");
    rig.store().books.gates = 0;
    assert_eq!(rig.writer.patience(), IDLE);
}

#[test]
fn while_events_are_settled_the_commit_after_a_large_one_is_let_grow_for_a_moment_and_otherwise_none() {
    let mut rig = Rig::new(Bench::with(&["a"], 10));
    let after = |rig: &mut Rig, callers: usize| {
        let appends: Vec<_> = (0..callers).map(|_| rig.append(&["b"], 10).0).collect();
        rig.turn(appends);
        let wanted = rig.writer.wanted();
        (wanted.commands, wanted.within == GROWS_FOR)
    };
    assert_eq!(after(&mut rig, MANY), (1, false), "nothing was settled");
    let (claim, mut claimed) = Rig::claim(1);
    rig.turn([claim]);
    let (settle, _answer) = Rig::settle(claimed.try_recv().unwrap().remove(0), Outcome::Release);
    rig.turn([settle]);
    assert_eq!(after(&mut rig, MANY - 1), (1, false));
    assert_eq!(after(&mut rig, MANY), (WORTH_A_COMMIT, true));
    rig.writer.turn(Vec::new());
    assert_eq!(rig.writer.wanted().commands, 1, "nothing came in that moment");
    let (batch, _answer) = rig.append(&["b"].repeat(MANY), 10);
    rig.turn([batch]);
    assert_eq!(rig.writer.wanted().commands, 1, "one caller alone brings no more");
    for _ in 4..LATELY {
        assert_eq!(after(&mut rig, MANY), (WORTH_A_COMMIT, true));
    }
    assert_eq!(after(&mut rig, MANY), (1, false), "long ago");
}
