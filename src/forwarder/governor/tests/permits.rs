//! What may be sent and kept, and what is shown of it.

use super::*;

#[test]
fn at_full_speed_more_is_kept_at_hand_but_not_in_a_slow_start_nor_with_a_limit() {
    let mut bench = Bench::new();
    let permit = bench.governor.permit(bench.now);
    assert_eq!(permit, Permit { send: 8, keep: 8 + 64, rotate: false, ask_at: None });
    bench.open();
    bench.send(0, &delivered());
    assert_eq!(bench.governor.permit(bench.now), Permit { send: 1, keep: 1, ..Permit::default() });
    let mut limited = Bench::with(Settings { max_per_second: 1, ..settings() });
    assert_eq!(limited.governor.permit(limited.now), Permit { send: 1, keep: 1, ..Permit::default() });
}

#[test]
fn with_a_limit_the_next_send_is_asked_for_when_it_may_start_and_a_slot_is_free() {
    for (concurrency, asks) in [(8, true), (1, false)] {
        let mut bench = Bench::with(Settings { max_per_second: 1, concurrency, ..settings() });
        let ticket = bench.governor.sent();
        let permit = bench.governor.permit(bench.now);
        let in_a_second = bench.now + SECOND + Duration::from_nanos(1);
        assert_eq!((permit.send, permit.ask_at), (0, asks.then_some(in_a_second)));
        bench.answer(&ticket, 1, &delivered());
        assert_eq!(bench.governor.permit(bench.now).ask_at, Some(in_a_second));
        assert_eq!(bench.governor.permit(in_a_second).send, 1);
    }
}

#[test]
fn a_send_that_ended_without_an_answer_and_an_outcome_that_was_not_stored_are_followed_by_a_rest() {
    let mut bench = Bench::new();
    let ticket = bench.governor.sent();
    bench.governor.unanswered(&ticket, bench.now);
    let resting = Permit { ask_at: Some(bench.now + SECOND), ..Permit::default() };
    assert_eq!((bench.governor.permit(bench.now), bench.governor.sending()), (resting, 0));
    let mut bench = Bench::new();
    bench.governor.unrecorded(bench.now);
    assert_eq!(bench.governor.permit(bench.now).ask_at, Some(bench.now + SECOND));
}

#[test]
fn only_the_return_of_keys_makes_a_slow_start_and_it_ends_no_other_hold() {
    let mut bench = Bench::new();
    for access in [Access::Waiting, Access::Granted, Access::Missing(Timestamp::from_millis(0))] {
        bench.governor.set_access(access);
        assert_eq!(bench.governor.view().limit, 8, "{access:?}");
    }
    bench.governor.set_access(Access::Granted);
    assert_eq!(bench.governor.view().limit, 1);
    let mut bench = Bench { alone: true, ..Bench::new() };
    bench.send(1, &failure(403));
    bench.governor.set_access(Access::Refused(Timestamp::from_millis(0)));
    bench.governor.set_access(Access::Granted);
    assert_eq!(bench.held(), HELD_403);
}

#[test]
fn after_the_end_nothing_is_sent() {
    let mut bench = Bench::new();
    assert!(bench.governor.permit(bench.now).send > 0);
    bench.governor.stop();
    assert_eq!(bench.governor.permit(bench.now), Permit::default());
}

#[test]
fn what_is_under_way_is_counted_until_it_is_answered_and_until_it_is_settled() {
    let mut bench = Bench::new();
    let tickets: Vec<Ticket> = (0..3).map(|_| bench.governor.sent()).collect();
    assert_eq!((bench.governor.sending(), bench.governor.unsettled()), (3, 3));
    bench.governor.cut_off(&delivered());
    assert_eq!((bench.governor.sending(), bench.governor.unsettled()), (2, 3));
    bench.answer(&tickets[1], 1, &delivered());
    assert_eq!((bench.governor.sending(), bench.governor.unsettled()), (1, 2));
    assert!(!bench.governor.is_full());
}

#[test]
fn operators_see_how_the_breaker_stands_and_when_the_next_probe_is_due() {
    let mut bench = Bench::new();
    let shown = |bench: &Bench| {
        let look = bench.governor.look(bench.now);
        (look.breaker, bench.governor.view().breaker, look.probe_at.map(|at| (at - bench.now).as_secs()))
    };
    assert_eq!(shown(&bench), (Breaker::Closed, Breaker::Closed, None));
    bench.open();
    assert_eq!(shown(&bench), (Breaker::Open, Breaker::Open, Some(1)));
    bench.now += 9 * SECOND;
    assert_eq!(shown(&bench), (Breaker::Open, Breaker::Open, Some(0)), "overdue is now");
    let ticket = bench.governor.sent();
    assert_eq!(shown(&bench), (Breaker::HalfOpen, Breaker::Open, None), "it is under way");
    bench.answer(&ticket, 1, &delivered());
    assert_eq!(shown(&bench), (Breaker::SlowStart, Breaker::SlowStart, None));
    for user in 0..7 {
        bench.send(user, &delivered());
    }
    assert_eq!(shown(&bench), (Breaker::Closed, Breaker::Closed, None));
}

#[test]
fn operators_see_cellos_wish_for_silence_until_it_is_over() {
    let mut bench = Bench::new();
    bench.send(1, &Judgement { retry_after: Some(60 * SECOND), ..failure(429) });
    let until = bench.now + 60 * SECOND;
    let shown = |at: Instant| bench.governor.look(at).paced_until;
    assert_eq!((shown(bench.now), shown(until - SECOND), shown(until)), (Some(until), Some(until), None));
}
