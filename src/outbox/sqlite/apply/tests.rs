//! What a transaction makes of events that it ends itself, or the one before it did.

use tokio::sync::oneshot;

use super::*;
use crate::outbox::sqlite::testing::Bench;

/// Delivers the event in flight.
fn try_deliver(bench: &mut Bench, seq: u64) -> Result<(), Fault> {
    let outcome = Outcome::Delivered { request_id: None };
    let settle = Command::Settle { seq, epoch: bench.store.epoch, outcome, reply: oneshot::channel().0 };
    let work = Work { commands: &[settle], abandoned: &[], is_full: false };
    bench.store.apply(&mut bench.env, &work, &mut 0, &mut Vec::new())
}

fn deliver(bench: &mut Bench, seq: u64) {
    try_deliver(bench, seq).unwrap_or_else(|_| panic!("applies"));
}

/// In a tree whose branches lead astray a row is read in passing and not found by its number.
#[test]
fn a_delivery_of_what_is_not_found_by_its_number_is_damage_and_not_recorded() {
    let mut bench = Bench::with(&["a"], 10);
    let claimed = bench.hand_out(1);
    bench.store.sql.delete_event(1).unwrap();
    bench.store.sql.begin().unwrap();
    let delivered = try_deliver(&mut bench, claimed[0].id.seq());
    assert!(matches!(delivered, Err(Fault::Damaged(_))), "{delivered:?}");
}

#[test]
fn of_a_user_that_gets_a_gate_what_has_just_ended_is_not_parked() {
    for is_synced_meanwhile in [false, true] {
        let mut bench = Bench::with(&["a", "a"], 10);
        let claimed = bench.hand_out(1);
        bench.store.sql.begin().unwrap();
        deliver(&mut bench, claimed[0].id.seq());
        if is_synced_meanwhile {
            bench.store.sql.commit().unwrap();
            bench.store.landing = std::mem::take(&mut bench.store.landed);
            bench.store.sql.begin().unwrap();
        }
        let user = claimed[0].event.user.clone();
        bench.store.gate(&bench.env, &user, None).unwrap_or_else(|_| panic!("gates"));
        bench.store.sql.commit().unwrap();
        assert_eq!(bench.store.sql.first_parked(&user).unwrap(), Some(2), "synced meanwhile: {is_synced_meanwhile}");
    }
}

/// How many of so many delivered events are remembered after a commit, so long after they were delivered.
fn remembered_after(secs: u64, done: u64, remember_max: u64, has_work: bool) -> u64 {
    let mut bench = Bench::with(&[], 0);
    (bench.env.settings.remember, bench.env.settings.remember_max) = (Duration::from_secs(640), remember_max);
    let done_at = bench.env.clock.now().minus(Duration::from_secs(secs));
    bench.store.sql.begin().unwrap();
    for seq in 1..=done {
        bench.store.sql.insert_done(EventId::new(done_at, seq, 0), done_at, 1, None).unwrap();
    }
    bench.store.books.done = done;
    let has_chores = bench.store.has_chores(&bench.env, has_work).unwrap_or_else(|_| panic!("looks"));
    bench.store.forget(&bench.env, 0, has_work).unwrap_or_else(|_| panic!("forgets"));
    bench.store.sql.commit().unwrap();
    assert_eq!(has_chores, bench.store.books.done < done, "what is forgotten was a chore");
    bench.store.books.done
}

#[test]
fn a_commit_that_has_other_work_forgets_only_when_much_is_too_old_or_too_much() {
    for (secs, has_work, left) in [(639, false, 10), (640, false, 0), (640, true, 10), (649, true, 10), (650, true, 0)]
    {
        assert_eq!(remembered_after(secs, 10, 1000, has_work), left, "{secs} s, {has_work}");
    }
    for (done, max, has_work, left) in
        [(129, 128, false, 128), (130, 128, true, 130), (131, 128, true, 128), (7, 5, true, 5)]
    {
        assert_eq!(remembered_after(0, done, max, has_work), left, "{done} of {max}, {has_work}");
    }
}
