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
