//! Turn by turn: what is written, answered and seen while a commit is being synced.

use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::testing::Rig;
use super::*;
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::outbox::sqlite::inbox::Decision;
use crate::outbox::sqlite::queue::Deferred;
use crate::outbox::sqlite::testing::Bench;
use crate::outbox::{AppendError, Outcome, Receipt};

fn delivered() -> Outcome {
    Outcome::Delivered { request_id: None }
}

#[test]
fn while_a_commit_is_synced_the_next_one_is_filled_and_nobody_is_answered_before_the_end_of_its_own() {
    let mut rig = Rig::new(Bench::with(&[], 0));
    rig.knock();
    let (first, mut of_first) = rig.append(&["a"], 10);
    rig.turn([first]);
    let (second, mut of_second) = rig.append(&["b", "c"], 10);
    rig.turn([second]);
    rig.turn([]);
    assert!(of_first.try_recv().is_err() && of_second.try_recv().is_err());
    assert_eq!(rig.store().sql.books().unwrap().ledger.accepted, 1, "counts are written at the end");
    assert_eq!(rig.store().sql.events_from(0, 9, |_| true).unwrap(), 3, "and events as they come");
    assert!(rig.syncs.end(true));
    assert!(of_first.try_recv().unwrap().is_ok() && of_second.try_recv().is_err());
    assert!(!rig.syncs.end(true), "one at a time");
    rig.turn([]);
    assert!(of_second.try_recv().is_err());
    assert!(rig.syncs.end(true));
    assert_eq!(of_second.try_recv().unwrap().unwrap().ids.len(), 2);
}

#[test]
fn of_a_commit_that_cannot_be_synced_and_of_what_came_behind_it_nobody_is_answered() {
    let mut rig = Rig::new(Bench::with(&[], 0));
    rig.knock();
    let (first, of_first) = rig.append(&["a"], 10);
    rig.turn([first]);
    let (second, of_second) = rig.append(&["b"], 10);
    rig.turn([second]);
    assert!(rig.syncs.end(false));
    rig.turn([]);
    assert!(of_first.blocking_recv().is_err() && of_second.blocking_recv().is_err());
    assert!(rig.stats().refusing.is_some());
}

#[test]
fn what_is_settled_is_in_flight_no_more_once_it_is_committed_and_what_is_not_still_is() {
    let mut rig = Rig::new(Bench::with(&["a", "b", "c", "d"], 10));
    let (claim, mut claimed) = Rig::claim(4);
    rig.turn([claim]);
    let [a, b, c, d]: [_; 4] = claimed.try_recv().unwrap().try_into().unwrap();
    assert_eq!(rig.stats().in_flight, 4);
    rig.knock();
    let (settles, _answers): (Vec<_>, Vec<_>) =
        [Rig::settle(a, delivered()), Rig::settle(b, Outcome::Release)].into_iter().unzip();
    rig.turn(settles);
    assert_eq!(rig.stats().in_flight, 2, "while they are synced");
    // One that is not even committed, and one of a lease that is lost.
    rig.writer.epoch += 1;
    let (settle, _answer) = Rig::settle(c, delivered());
    rig.turn([settle]);
    assert_eq!(rig.stats().in_flight, 1);
    drop(d);
}

#[test]
fn an_event_whose_lease_was_lost_long_ago_stays_in_flight_under_its_new_one() {
    let mut rig = Rig::new(Bench::with(&["a"], 10));
    let (claim, mut claimed) = Rig::claim(1);
    rig.turn([claim]);
    let claimed = claimed.try_recv().unwrap().remove(0);
    let (seq, epoch) = (claimed.id.seq(), rig.writer.epoch - 1);
    let (reply, mut answer) = oneshot::channel();
    rig.knock();
    rig.turn([Command::Settle { seq, epoch, outcome: delivered(), reply }]);
    assert_eq!(rig.stats().in_flight, 1);
    assert!(rig.syncs.end(true));
    assert!(answer.try_recv().unwrap().is_err());
}

#[test]
fn whoever_waits_for_a_commit_hears_of_it_before_a_decision_is_carried_out() {
    let mut rig = Rig::new(Bench::with(&[], 0));
    rig.knock();
    let (first, _answer) = rig.append(&["a"], 10);
    rig.turn([first]);
    let (second, answer) = rig.append(&["b"], 10);
    rig.turn([second]);
    rig.hush();
    assert!(rig.syncs.end(true));
    // Of the second the commit is the next one, the decision's the one after it.
    let (mut commits, mut answer) = (0, Some(answer));
    let heard = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&heard);
    rig.writer.env.seams.before_commit = Box::new(move || {
        commits += 1;
        let is_answered = answer.as_mut().is_some_and(|answer| answer.try_recv().is_ok());
        noted.lock().unwrap().push((commits, is_answered));
        Ok(())
    });
    let (decide, _decided) = Rig::decide(Decision::Discard);
    rig.turn([decide]);
    assert_eq!(*heard.lock().unwrap(), [(1, false), (2, true)]);
}

/// Notes, whenever it is asked for the time of day, whether somebody was answered before.
struct Witness {
    answer: Mutex<oneshot::Receiver<Result<Receipt, AppendError>>>,
    was_answered: AtomicBool,
}

impl Clock for Witness {
    fn now(&self) -> Timestamp {
        if self.answer.lock().unwrap().try_recv().is_ok() {
            self.was_answered.store(true, Ordering::Relaxed);
        }
        SystemClock.now()
    }
}

#[test]
fn whoever_waits_for_a_commit_hears_of_it_before_the_file_is_looked_at_for_claims() {
    for (users, is_before) in [(&["a"][..], true), (&[], false)] {
        let mut rig = Rig::new(Bench::with(users, 10));
        let (append, answer) = rig.append(&["b"], 10);
        let witness = Arc::new(Witness { answer: Mutex::new(answer), was_answered: AtomicBool::new(false) });
        rig.writer.env.clock = witness.clone();
        rig.writer.chores_at += Duration::from_secs(3600);
        let (claim, mut claimed) = Rig::claim(1);
        rig.turn([append, claim]);
        // The last time that was asked for is that at which something is handed out.
        assert_eq!(witness.was_answered.load(Ordering::Relaxed), is_before, "all together where that takes no look");
        assert_eq!(claimed.try_recv().unwrap().len(), 1);
    }
}

#[test]
fn a_decision_is_refused_while_nothing_can_be_written_and_so_is_one_that_was_begun() {
    let mut rig = Rig::new(Bench::with(&[], 0));
    rig.writer.env.seams.before_commit = Box::new(|| Err(std::io::ErrorKind::Other.into()));
    for _ in 0..2 {
        let (decide, mut decided) = Rig::decide(Decision::Discard);
        rig.turn([decide]);
        assert!(decided.try_recv().unwrap().is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_failed_is_opened_again_when_its_time_has_come_and_no_sooner() {
    let mut rig = Rig::new(Bench::with(&[], 0));
    let (append, _answer) = rig.append(&["a"], 10);
    rig.turn([append]);
    rig.writer.env.seams.before_commit = Box::new(|| Err(std::io::ErrorKind::Other.into()));
    let (append, answer) = rig.append(&["b"], 10);
    rig.turn([append]);
    assert!(answer.await.is_err());
    tokio::time::advance(Duration::from_millis(99)).await;
    rig.turn([]);
    assert!(rig.writer.store.is_none());
    tokio::time::advance(Duration::from_millis(1)).await;
    rig.turn([]);
    assert!(rig.writer.store.is_some());
    // And not again while it works.
    let epoch = rig.writer.epoch;
    rig.turn([]);
    assert_eq!((epoch, rig.writer.epoch), (FIRST_EPOCH + 1, FIRST_EPOCH + 1));
    assert_eq!((rig.stats().recovered, rig.stats().ledger.accepted), (0, 1), "what was found at the start");
}

#[tokio::test(start_paused = true)]
async fn a_lost_file_and_damage_that_a_reader_met_are_noticed_before_anything_is_written() {
    for (waits, is_headless) in [(false, false), (true, false), (true, true)] {
        let mut rig = Rig::new(Bench::with(&[], 0));
        let (claim, _claimed) = Rig::claim(1);
        rig.turn(waits.then_some(claim));
        let shared = &rig.writer.shared;
        let met = if is_headless { &shared.headless } else { &shared.damaged };
        met.store(shared.generation.load(Ordering::Acquire), Ordering::Release);
        let (append, mut answer) = rig.append(&["a"], 10);
        rig.turn([append]);
        assert_eq!(rig.writer.env.home.damaged_files(), 1, "{waits}");
        assert!(answer.try_recv().unwrap().is_ok(), "into the fresh file: {waits}");
    }
}

#[test]
fn what_was_met_while_reading_is_written_though_nothing_comes() {
    let mut rig = Rig::new(Bench::with(&["a"], 10));
    rig.turn([]);
    rig.store().queue.defer(Deferred::Corrupt(None, 1));
    rig.turn([]);
    assert_eq!(rig.stats().ledger.dead, 1);
}

#[test]
fn it_is_counted_how_many_events_a_commit_appended_and_settled() {
    let mut rig = Rig::new(Bench::with(&["a", "b"], 10));
    let batch = |rig: &Rig| {
        let batch = &rig.writer.env.metrics.outbox_batch;
        (batch.get_sample_count(), batch.get_sample_sum())
    };
    let (append, _answer) = rig.append(&["c", "d", "e"], 10);
    rig.turn([append]);
    assert_eq!(batch(&rig), (1, 3.0));
    let (claim, mut claimed) = Rig::claim(2);
    rig.turn([claim]);
    let settles = claimed.try_recv().unwrap().into_iter().map(|claimed| Rig::settle(claimed, delivered()).0);
    let append = rig.append(&["f", "g"], 10).0;
    rig.turn(settles.chain([append]).collect::<Vec<_>>());
    assert_eq!(batch(&rig), (2, 7.0));
}

#[test]
fn a_transaction_that_sqlite_has_undone_by_itself_is_not_gone_on_with_and_the_file_is_no_damaged_one() {
    let mut rig = Rig::new(Bench::with(&[], 0));
    rig.writer.env.volume.space.free = 1 << 40;
    let mut answers = Vec::new();
    for user in ["a", "b", "c"] {
        if user == "c" {
            assert!(rig.writer.open.is_some() && rig.syncs.end(true), "the one is synced while the other takes more");
            rig.store().sql.rollback().unwrap();
        }
        rig.knock();
        let (append, answer) = rig.append(&[user], 10);
        rig.turn([append]);
        answers.push(answer);
    }
    let stored: Vec<bool> = answers.into_iter().map(|answer| answer.blocking_recv().is_ok()).collect();
    assert_eq!(stored, [true, false, false]);
    rig.writer.reopen.at = rig.writer.env.clock.instant();
    rig.turn([]);
    assert_eq!((rig.stats().ledger.accepted, rig.stats().refusing), (1, None));
    assert!(rig.writer.env.home.damaged_names().is_empty());
}
